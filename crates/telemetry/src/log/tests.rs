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

/// The request ids of a log file, in its order.
fn request_ids(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let id = |line: &str| -> String {
        let line: Value = serde_json::from_str(line).unwrap();
        line["request_id"].as_str().unwrap().to_owned()
    };
    text.lines().map(id).collect()
}

// rotation as logrotate does it, rename and then SIGHUP, loses no line and tears none.
#[test]
fn a_log_file_that_was_renamed_is_begun_anew_without_a_lost_line() {
    const LINES: usize = 2_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nagi.log");
    let log = Log::start(LevelFilter::Info, Sink::File(path.clone())).unwrap();
    let mut files = vec![];
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let log = log.clone();
                scope.spawn(move || {
                    for number in 0..LINES {
                        let request_id = &format!("{writer}-{number}");
                        log.emit(&RequestLine {
                            request_id,
                            ..request(200)
                        });
                        // A burst that is faster than the disk would lose lines by itself.
                        if number % 100 == 99 {
                            assert!(log.flush(PATIENCE));
                        }
                    }
                })
            })
            .collect();
        while !writers
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            let old = directory.path().join(format!("nagi.log.{}", files.len()));
            // Until the writer has opened it anew there is no file to rename.
            if std::fs::rename(&path, &old).is_ok() {
                files.push(old);
                log.reopen();
            }
            std::thread::yield_now();
        }
    });
    log.reopen();
    log.emit(&request(200));
    assert!(log.flush(PATIENCE));
    assert!(files.len() > 1, "nothing was rotated");
    assert_eq!(request_ids(&path).last().unwrap(), "0123");
    files.push(path);
    let mut seen: Vec<String> = files.iter().flat_map(|file| request_ids(file)).collect();
    seen.sort();
    let ids = (0..2).flat_map(|writer| (0..LINES).map(move |n| format!("{writer}-{n}")));
    let mut expected: Vec<String> = ids.chain(["0123".to_owned()]).collect();
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(log.lines_dropped().get(), 0);
}

#[test]
fn a_log_file_that_cannot_be_opened_again_leaves_the_former_one_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nagi.log");
    let old = directory.path().join("nagi.log.1");
    let log = Log::start(LevelFilter::Info, Sink::File(path.clone())).unwrap();
    std::fs::rename(&path, &old).unwrap();
    std::fs::create_dir(&path).unwrap();
    log.reopen();
    log.emit(&request(200));
    assert!(log.flush(PATIENCE));
    let text = std::fs::read_to_string(&old).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0]["level"], "error");
    assert!(lines[0]["error"].is_string(), "{text}");
    assert_eq!(lines[1]["request_id"], "0123");
    // Once it can, it is.
    std::fs::rename(&path, directory.path().join("in the way")).unwrap();
    log.reopen();
    log.emit(&request(200));
    assert!(log.flush(PATIENCE));
    assert_eq!(request_ids(&path), ["0123"]);
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
