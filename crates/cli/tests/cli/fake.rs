//! A server of a few lines that answers every request with the same bytes, or not at all, and counts them.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What it does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Answers {
    /// Writes these bytes and closes.
    With(String),
    /// Says nothing and keeps the connection.
    Never,
}

/// The fake. Its thread ends with the test process.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) port: u16,
    requests: Arc<AtomicUsize>,
}

impl Fake {
    pub(crate) fn new(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                counted.fetch_add(1, Ordering::SeqCst);
                match &answers {
                    Answers::With(bytes) => {
                        let mut head = [0; 4096];
                        // One read holds the whole request: it is small and sent at once.
                        drop(stream.read(&mut head));
                        drop(stream.write_all(bytes.as_bytes()));
                    }
                    Answers::Never => kept.push(stream),
                }
            }
        });
        Self { port, requests }
    }

    /// Answers with a status, a content type, and a body.
    pub(crate) fn answering(status: &str, headers: &str, kind: &str, body: &str) -> Self {
        Self::new(Answers::With(format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{headers}\
             Connection: close\r\n\r\n{body}",
            body.len()
        )))
    }

    /// Answers as Nagi refuses.
    pub(crate) fn refusing(status: &str, headers: &str, message: &str) -> Self {
        let body = serde_json::json!({
            "status": "error", "message": message, "error": "the reason", "hint": "the next step",
            "timestamp": "2030-01-31T07:00:00Z"
        });
        let headers = if headers.contains("X-Request-ID") {
            headers.to_owned()
        } else {
            format!("X-Request-ID: r-0\r\n{headers}")
        };
        Self::answering(status, &headers, "application/json", &body.to_string())
    }

    /// How many connections it had.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}
