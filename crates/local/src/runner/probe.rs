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

/// What is wrong with a replica that does not serve is told from this time after its start on: before, it starts.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// Why an answer is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bad {
    /// Nothing listens.
    Closed,
    /// No answer in time.
    Silent,
    /// Another status than 2xx or 3xx.
    Status(u16),
    /// No HTTP.
    NoHttp,
}

/// What the questions came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It serves now, or does no longer.
    Serves(bool),
    /// It does not serve, for this reason.
    Unready(String),
}

/// The questions to one replica, and the last answer.
#[derive(Debug)]
pub(super) struct Questions {
    address: SocketAddr,
    readiness: Readiness,
    begin: Instant,
    pause: Duration,
    serves: bool,
    failures: u32,
    told: Option<Bad>,
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
            told: None,
        }
    }

    /// Asks until there is news. Cancel-safe: the next call asks again.
    pub(super) async fn news(&mut self) -> Heard {
        loop {
            sleep(self.pause).await;
            let asked = timeout(ANSWER_MAX, ask(self.address, &self.readiness));
            let bad = asked.await.unwrap_or(Err(Bad::Silent)).err();
            let good = bad.is_none();
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
                self.told = None;
                return Heard::Serves(good);
            }
            if let Some(bad) = bad
                && !self.serves
                && self.told != Some(bad)
                && self.begin.elapsed() >= TELL_AFTER
            {
                self.told = Some(bad);
                return Heard::Unready(self.words(bad));
            }
        }
    }

    fn words(&self, bad: Bad) -> String {
        let address = self.address;
        let asked = match &self.readiness {
            Readiness::Running | Readiness::Tcp => format!("{address}"),
            Readiness::Http { path } => format!("GET {path} on {address}"),
        };
        match bad {
            Bad::Closed => format!("nothing listens on {address}, the port in its PORT"),
            Bad::Silent => format!("{asked} is not answered within {} s", ANSWER_MAX.as_secs()),
            Bad::Status(status) => format!("{asked} is answered with {status}"),
            Bad::NoHttp => format!("{asked} is not answered in HTTP"),
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

/// One question.
async fn ask(address: SocketAddr, readiness: &Readiness) -> Result<(), Bad> {
    let Ok(stream) = TcpStream::connect(address).await else {
        return Err(Bad::Closed);
    };
    match readiness {
        Readiness::Running | Readiness::Tcp => Ok(()),
        Readiness::Http { path } => match get(stream, path).await {
            Ok(Some(200..=399)) => Ok(()),
            Ok(Some(status)) => Err(Bad::Status(status)),
            Ok(None) | Err(_) => Err(Bad::NoHttp),
        },
    }
}

/// The status of the answer; none when it is no HTTP.
async fn get(mut stream: TcpStream, path: &str) -> std::io::Result<Option<u16>> {
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
    Ok(head.first_chunk().and_then(status))
}

/// The head is complete.
fn has_blank_line(head: &[u8]) -> bool {
    head.windows(4).any(|four| four == b"\r\n\r\n") || head.windows(2).any(|two| two == b"\n\n")
}

/// The number in `HTTP/1.x NNN `.
fn status(line: &[u8; STATUS_LINE_BYTES]) -> Option<u16> {
    let [_, b' ', digits @ .., b' ' | b'\r'] = line.strip_prefix(b"HTTP/1.")? else {
        return None;
    };
    let all_digits = digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| all_digits)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_a_success_or_a_redirect_is_good() {
        for (line, expected) in [
            (b"HTTP/1.1 200 ", Some(200)),
            (b"HTTP/1.0 399\r", Some(399)),
            (b"HTTP/1.1 404 ", Some(404)),
            (b"HTTP/2.0 200 ", None),
            (b"HTTP/1.1 2x0 ", None),
            (b"HTTP/1.1 +20 ", None),
            (b"HTTP/1.1 2000", None),
        ] {
            assert_eq!(
                status(line),
                expected,
                "{:?}",
                String::from_utf8_lossy(line)
            );
        }
    }

    // Whoever waits is told what is wrong, once, and not while it may still be starting.
    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_is_told_after_a_while_and_when_it_becomes_something_else() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let http = Readiness::Http {
            path: "/nope".into(),
        };
        let mut questions = Questions::to(address, http);
        let begin = Instant::now();
        let words = format!("nothing listens on {address}, the port in its PORT");
        assert_eq!(questions.news().await, Heard::Unready(words));
        assert!(begin.elapsed() >= TELL_AFTER, "{:?}", begin.elapsed());
        let listener = TcpListener::bind(address).await.unwrap();
        let serve = async |answer: &str| loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0_u8; 1_024];
            let _asked = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        for (answer, heard) in [
            (
                "HTTP/1.1 404 Not Found\r\n\r\n",
                Heard::Unready(format!("GET /nope on {address} is answered with 404")),
            ),
            (
                "SSH-2.0-OpenSSH_9.2\r\n\r\n",
                Heard::Unready(format!("GET /nope on {address} is not answered in HTTP")),
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", Heard::Serves(true)),
        ] {
            tokio::select! {
                news = questions.news() => assert_eq!(news, heard),
                () = serve(answer) => {}
            }
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
        assert_eq!(good, Ok(()));
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
        assert_eq!(good, Ok(()));
        drop(listener);
        assert_eq!(ask(address, &http).await, Err(Bad::Closed));
        assert_eq!(ask(address, &Readiness::Tcp).await, Err(Bad::Closed));
    }
}
