//! The log as its readers see it.

mod events;
mod pipelines;
mod requests;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use serde_json::Value;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a log wrote.
#[derive(Debug, Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn start(level: LevelFilter) -> (Log, Self) {
        let captured = Self::default();
        let log = Log::start(level, Sink::Writer(Box::new(captured.clone()))).unwrap();
        (log, captured)
    }

    /// All of it so far.
    fn text(&self, log: &Log) -> String {
        assert!(log.flush(PATIENCE));
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Each line, parsed.
    fn lines(&self, log: &Log) -> Vec<Value> {
        self.text(log)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The only line, parsed.
    fn line(&self, log: &Log) -> Value {
        let mut lines = self.lines(log);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A request as most are; tests change what they are about.
fn request(status: u16) -> RequestLine<'static> {
    RequestLine {
        method: "POST",
        path: "/api/v1/deployments/project-a/sample-app-a/scale-to-zero",
        status,
        latency: Duration::from_micros(412),
        latency_upstream: Duration::from_micros(100),
        remote_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        user_agent: Some("curl/7.88.1"),
        request_id: "0123",
        failure: None,
        key_id: None,
        error: None,
        fields: &[],
    }
}

#[test]
fn log_file_is_appended_to_and_made_when_missing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nagi.log");
    for _ in 0..2 {
        let log = Log::start(LevelFilter::Info, Sink::File(path.clone())).unwrap();
        log.emit(&request(200));
        // The last clone writes what is left.
        drop(log);
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
}

#[test]
fn file_that_cannot_be_opened_is_an_error_with_its_path() {
    let path = PathBuf::from("/nonexistent/nagi.log");
    let error = Log::start(LevelFilter::Info, Sink::File(path)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot open log file /nonexistent/nagi.log"
    );
    assert!(error.source().is_some());
}

//
#[test]
fn fatal_error_is_one_error_line_with_its_causes_at_every_level() {
    let error = Log::start(LevelFilter::Info, Sink::File("/nonexistent/x".into())).unwrap_err();
    for level in LevelFilter::ALL {
        let (log, captured) = Captured::start(level);
        log.fatal("Start failed", &error);
        let line = captured.line(&log);
        assert_eq!(line["level"], "error");
        assert_eq!(line["message"], "Start failed");
        let expected =
            "cannot open log file /nonexistent/x: No such file or directory (os error 2)";
        assert_eq!(line["error"], expected);
    }
}

// within 100 ms, through a pipe, while nothing else happens.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "measures the wall time of a real pipe"
)]
fn line_passes_a_pipe_within_100_ms_in_idle() {
    use std::io::{BufRead, BufReader};
    use std::time::Instant;

    let (reader, writer) = io::pipe().unwrap();
    let log = Log::start(LevelFilter::Info, Sink::Writer(Box::new(writer))).unwrap();
    let mut reader = BufReader::new(reader);
    // The median of many: one may be late because the machine is busy, a buffer delays all.
    let mut delays: Vec<_> = (0..31)
        .map(|_| {
            let begin = Instant::now();
            log.emit(&request(200));
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            begin.elapsed()
        })
        .collect();
    delays.sort();
    assert!(delays[15] < Duration::from_millis(100), "{delays:?}");
}
