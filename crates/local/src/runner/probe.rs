//! Asks a replica whether it serves: a connection, or one GET.
//!
//! Eagerly while a person may be waiting (every 5 ms for the first second, every 100 ms for ten, then every 500 ms), once a
//! second when it serves. An answer is read to its end, so that the replica sees a client that leaves in order. It serves from the first good answer on, and no longer after three bad ones in a row.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::file::Readiness;

/// Between two questions during the first second: a replica that starts fast is noticed within this.
const EAGER: Duration = Duration::from_millis(5);
/// How long questions are eager.
const EAGER_FOR: Duration = Duration::from_secs(1);
/// Between two questions after that: a tenth of a second is little for one that takes seconds.
const PATIENT: Duration = Duration::from_millis(100);
/// How long questions are patient, counted from the start.
const PATIENT_FOR: Duration = Duration::from_secs(10);
/// Between two questions after that, until it serves: many servers log each one, and their output is kept for people.
const CALM: Duration = Duration::from_millis(500);
/// Between two questions while it serves.
const WATCHFUL: Duration = Duration::from_secs(1);
/// An answer later than this is none. A starting server may have opened its port and not answer yet.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Bad answers in a row before a replica that served counts as not serving: one may be lost under load.
const FAILURES_MAX: u32 = 3;
/// Enough for the first line of an answer, `HTTP/1.1 200 `.
const STATUS_LINE_BYTES: usize = 13;
/// The longest head of an answer that is read; servers commonly refuse longer ones themselves.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How much after the head is read to let the replica finish. A page of readiness has a few bytes.
const REST_BYTES_MAX: u64 = 256 << 10;
/// How long after the head the replica may take to finish. It was asked to close, so normally it is done already; one that
/// streams for ever is not waited for, and a wake loses no more than this by it.
const REST_MAX: Duration = Duration::from_millis(50);

/// The questions to one replica, and the last answer.
#[derive(Debug)]
pub(super) struct Questions {
    address: SocketAddr,
    readiness: Readiness,
    begin: Instant,
    pause: Duration,
    serves: bool,
    failures: u32,
}

// === impl Questions ===

impl Questions {
    /// A replica that was just started; the first question is asked at once.
    pub(super) fn to(address: SocketAddr, readiness: Readiness) -> Self {
        let begin = Instant::now();
        Self {
            address,
            readiness,
            begin,
            pause: Duration::ZERO,
            serves: false,
            failures: 0,
        }
    }

    /// Asks until the answer changes: true when it serves now. Cancel-safe: the next call asks again.
    pub(super) async fn change(&mut self) -> bool {
        loop {
            sleep(self.pause).await;
            let asked = timeout(ANSWER_MAX, ask(self.address, &self.readiness));
            let good = asked.await.unwrap_or(false);
            self.failures = if good {
                0
            } else {
                self.failures.saturating_add(1)
            };
            let changed = good != self.serves && (good || self.failures >= FAILURES_MAX);
            if changed {
                self.serves = good;
            }
            self.pause = if self.serves {
                WATCHFUL
            } else {
                pause_after(self.begin.elapsed())
            };
            if changed {
                return good;
            }
        }
    }
}

/// The pause before the next question to a replica that was started so long ago and does not serve.
fn pause_after(elapsed: Duration) -> Duration {
    if elapsed < EAGER_FOR {
        EAGER
    } else if elapsed < PATIENT_FOR {
        PATIENT
    } else {
        CALM
    }
}

/// One question. False for every kind of bad answer.
async fn ask(address: SocketAddr, readiness: &Readiness) -> bool {
    let Ok(stream) = TcpStream::connect(address).await else {
        return false;
    };
    match readiness {
        Readiness::Running | Readiness::Tcp => true,
        Readiness::Http { path } => get(stream, path).await.unwrap_or(false),
    }
}

async fn get(mut stream: TcpStream, path: &str) -> std::io::Result<bool> {
    let address = stream.peer_addr()?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: nagi-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(1 << 10);
    while !has_blank_line(&head) && head.len() < HEAD_BYTES_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    // To close on bytes that were not read would reset the connection under a replica that still writes.
    let mut rest = stream.take(REST_BYTES_MAX);
    let mut nowhere = tokio::io::sink();
    drop(timeout(REST_MAX, tokio::io::copy(&mut rest, &mut nowhere)).await);
    Ok(head.first_chunk().is_some_and(is_good))
}

/// The head is complete.
fn has_blank_line(head: &[u8]) -> bool {
    head.windows(4).any(|four| four == b"\r\n\r\n") || head.windows(2).any(|two| two == b"\n\n")
}

/// `HTTP/1.x 2xx ` or `3xx`.
fn is_good(line: &[u8; STATUS_LINE_BYTES]) -> bool {
    let Some(status) = line.strip_prefix(b"HTTP/1.") else {
        return false;
    };
    let [_, b' ', first, tens, ones, after] = status else {
        return false;
    };
    matches!(first, b'2' | b'3')
        && tens.is_ascii_digit()
        && ones.is_ascii_digit()
        && matches!(after, b' ' | b'\r')
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_a_success_or_a_redirect_is_good() {
        for (line, good) in [
            (b"HTTP/1.1 200 ", true),
            (b"HTTP/1.0 399\r", true),
            (b"HTTP/1.1 404 ", false),
            (b"HTTP/1.1 500 ", false),
            (b"HTTP/2.0 200 ", false),
            (b"HTTP/1.1 2x0 ", false),
            (b"HTTP/1.1 2000", false),
        ] {
            assert_eq!(is_good(line), good, "{:?}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn questions_come_slower_the_longer_it_takes() {
        let pauses = [0, 999, 1_000, 9_999, 10_000, 3_600_000]
            .map(|elapsed| pause_after(Duration::from_millis(elapsed)).as_millis());
        assert_eq!(pauses, [5, 5, 100, 100, 500, 500]);
    }

    #[tokio::test]
    async fn an_answer_is_read_to_its_end_before_the_connection_is_closed() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let http = Readiness::Http { path: "/".into() };
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0_u8; 1_024];
            let _asked = stream.read(&mut request).await.unwrap();
            // Piece by piece, as slow servers write.
            let body = "x".repeat(60_000);
            for piece in ["HTTP/1.0 200 OK\r\n", "A: b\r\n", "\r\n", &body] {
                stream.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            stream.shutdown().await.unwrap();
            // A reset would be an error here.
            assert_eq!(stream.read(&mut request).await.unwrap(), 0);
        };
        let (good, ()) = tokio::join!(ask(address, &http), answer);
        assert!(good);
    }

    #[tokio::test]
    async fn an_answer_in_pieces_is_read_and_a_closed_port_is_bad() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let http = Readiness::Http {
            path: "/ready".into(),
        };
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0_u8; 1_024];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            assert!(
                request.starts_with("GET /ready HTTP/1.1\r\nHost: 127.0.0.1:"),
                "{request}"
            );
            for piece in ["HTTP/1", ".1 20", "4 No Content\r\n\r\n"] {
                stream.write_all(piece.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
        };
        let (good, ()) = tokio::join!(ask(address, &http), answer);
        assert!(good);
        drop(listener);
        assert!(!ask(address, &http).await);
        assert!(!ask(address, &Readiness::Tcp).await);
    }
}
