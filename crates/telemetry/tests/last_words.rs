//! The log of a real process, on a real standard output: nothing but JSON from the first byte to the
//! last, the last words included, and no harm from a reader that stops or goes away.
//!
//! This test has a `main` of its own instead of the test harness, which prints to standard output.
//! Called with `child MODE` it is the process under test; otherwise it starts those and looks.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nagi_telemetry::{LevelFilter, Log, RequestLine, Sink};
use serde_json::Value;

type Check = Result<(), Box<dyn Error>>;
type NamedCheck = (&'static str, fn() -> Check);

/// More lines than the queue and a pipe together can hold, at about 350 bytes each.
const FLOOD_LINES: u32 = 20_000;
/// A pipe holds 64 KiB; these are about 1 MB, of which the queue loses none.
const BEHIND_LINES: u32 = 3_000;
/// Far longer than anything here takes; reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, role, mode] = arguments.as_slice()
        && role == "child"
    {
        return child(mode);
    }
    let checks: [NamedCheck; 8] = [
        (
            "panic_in_main_is_the_last_line_and_stderr_stays_empty",
            panic_in_main,
        ),
        (
            "panic_in_a_task_is_a_line_and_the_process_goes_on",
            panic_in_task,
        ),
        ("fatal_error_is_the_last_line", fatal),
        ("panic_waits_until_its_line_is_written", late_panic),
        ("fatal_error_waits_until_its_line_is_written", late_fatal),
        ("process_that_ends_writes_all_its_lines", all_lines),
        (
            "reader_that_goes_away_does_not_kill_the_process",
            reader_gone,
        ),
        (
            "reader_that_stops_does_not_hold_up_the_process",
            reader_stopped,
        ),
    ];
    let mut failed = 0;
    for (name, check) in checks {
        let end = check();
        let text = end
            .as_ref()
            .map_or_else(ToString::to_string, |()| "ok".to_owned());
        let line = format!("test {name} ... {text}\n");
        failed += u32::from(end.is_err() || std::io::stdout().write_all(line.as_bytes()).is_err());
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

// === the process under test ===

fn child(mode: &str) -> ExitCode {
    let Ok(log) = Log::start(LevelFilter::Info, Sink::Stdout) else {
        return ExitCode::from(2);
    };
    if log.install().is_err() {
        return ExitCode::from(2);
    }
    match mode {
        "panic" => {
            tracing::info!(target: "nagi", "Started");
            std::hint::black_box(None::<u8>).expect("the rule that broke");
        }
        "task" => {
            let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().build() else {
                return ExitCode::from(2);
            };
            let task = async { assert_eq!(std::hint::black_box(1), 2, "task {} broke", 7) };
            let end = runtime.block_on(async { runtime.spawn(task).await });
            assert!(end.is_err());
            tracing::info!(target: "nagi", "Went on");
        }
        "fatal" => {
            let error = std::io::Error::other("the key file is unreadable");
            log.fatal("Start failed", &error);
            return ExitCode::FAILURE;
        }
        "late-panic" => {
            fall_behind(&log);
            std::hint::black_box(None::<u8>).expect("the rule that broke");
        }
        "late-fatal" => {
            fall_behind(&log);
            log.fatal("Start failed", &std::fmt::Error);
            return ExitCode::FAILURE;
        }
        "lines" => flood(&log, 1000),
        "flood" => {
            flood(&log, FLOOD_LINES);
            // The reader has gone or stopped, so lines were lost, and we came here all the same.
            return if log.lines_dropped().get() > 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(3)
            };
        }
        _ => return ExitCode::from(2),
    }
    log.flush(PATIENCE);
    ExitCode::SUCCESS
}

/// Keeps a handle alive to the end of the process, as a thread would that is not joined: then no drop
/// waits for the last lines, and only the panic hook and `fatal` do.
static KEPT: OnceLock<Log> = OnceLock::new();

/// Queues more than the pipe holds, then tells the reader on standard error that it may begin.
fn fall_behind(log: &Log) {
    KEPT.get_or_init(|| log.clone());
    flood(log, BEHIND_LINES);
    assert!(log.queue_depth_bytes() > 0, "nobody has read yet");
    let told = std::io::stderr().write_all(b"behind\n");
    assert!(told.is_ok());
}

fn flood(log: &Log, lines: u32) {
    for number in 0..lines {
        log.emit(&RequestLine {
            method: "GET",
            path: "/api/v1/deployments/project-a/sample-app-a/status",
            status: 200,
            latency: Duration::from_micros(number.into()),
            latency_upstream: Duration::ZERO,
            remote_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            user_agent: None,
            request_id: "flood",
            failure: None,
            key_id: None,
            error: None,
            fields: &[],
        });
        // A reader that is gone is noticed by the writer thread; let it run.
        if lines == FLOOD_LINES && number % 100 == 0 {
            log.flush(Duration::from_millis(1));
        }
    }
}

// === the checks ===

#[expect(
    clippy::disallowed_methods,
    reason = "starts this test itself as the process under test"
)]
fn start(mode: &str) -> Result<Child, Box<dyn Error>> {
    let child = Command::new(std::env::current_exe()?)
        .args(["child", mode])
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok(child)
}

/// Runs to the end: status, every line parsed, and standard error.
fn run(mode: &str) -> Result<(ExitStatus, Vec<Value>, String), Box<dyn Error>> {
    let output = start(mode)?.wait_with_output()?;
    let stdout = String::from_utf8(output.stdout)?;
    let lines = stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    Ok((output.status, lines, String::from_utf8(output.stderr)?))
}

//
fn panic_in_main() -> Check {
    let (status, lines, stderr) = run("panic")?;
    assert_eq!(status.code(), Some(101));
    // Container logs merge standard error into the same stream.
    assert_eq!(stderr, "");
    assert_eq!(lines.len(), 2);
    let last = &lines[1];
    assert_eq!(
        (&last["level"], &last["message"]),
        (&"error".into(), &"Panic".into())
    );
    assert_eq!(last["panic"], "the rule that broke");
    assert_eq!(last["thread"], "main");
    let location = last["location"].as_str().unwrap_or_default();
    assert!(location.contains("last_words.rs:"), "{location}");
    Ok(())
}

//
fn panic_in_task() -> Check {
    let (status, lines, stderr) = run("task")?;
    assert!(status.success() && stderr.is_empty(), "{status} {stderr}");
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str()).collect();
    assert_eq!(messages, [Some("Panic"), Some("Went on")]);
    assert!(
        lines[0]["panic"]
            .as_str()
            .is_some_and(|text| text.contains("task 7 broke"))
    );
    Ok(())
}

//
fn fatal() -> Check {
    let (status, lines, stderr) = run("fatal")?;
    assert_eq!(
        (status.code(), stderr.as_str(), lines.len()),
        (Some(1), "", 1)
    );
    assert_eq!(lines[0]["level"], "error");
    assert_eq!(lines[0]["error"], "the key file is unreadable");
    Ok(())
}

//
fn late_panic() -> Check {
    late("late-panic", "Panic")
}

//
fn late_fatal() -> Check {
    late("late-fatal", "Start failed")
}

/// The reader begins to read only when the last words are about to be said.
fn late(mode: &str, message: &str) -> Check {
    let mut child = start(mode)?;
    let mut behind = String::new();
    BufReader::new(child.stderr.take().ok_or("no stderr")?).read_line(&mut behind)?;
    assert_eq!(behind, "behind\n");
    let output = child.wait_with_output()?;
    let stdout = String::from_utf8(output.stdout)?;
    assert_eq!(stdout.lines().count(), usize::try_from(BEHIND_LINES)? + 1);
    let last: Value = serde_json::from_str(stdout.lines().last().unwrap_or_default())?;
    assert_eq!(last["message"], message);
    Ok(())
}

//
fn all_lines() -> Check {
    let (status, lines, _stderr) = run("lines")?;
    assert!(status.success());
    assert_eq!(lines.len(), 1000);
    Ok(())
}

fn reader_gone() -> Check {
    let mut child = start("flood")?;
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    stdout.read_line(&mut first)?;
    drop(stdout);
    let status = child.wait()?;
    assert!(status.success(), "{status}");
    serde_json::from_str::<Value>(&first)?;
    Ok(())
}

fn reader_stopped() -> Check {
    let mut child = start("flood")?;
    // Nobody reads while it runs; it ends all the same, or this waits for ever.
    let status = child.wait()?;
    assert!(status.success(), "{status}");
    // What the pipe holds is whole lines, since each was written in one piece.
    let mut stdout = String::new();
    child
        .stdout
        .take()
        .ok_or("no stdout")?
        .read_to_string(&mut stdout)?;
    for line in stdout.lines() {
        serde_json::from_str::<Value>(line)?;
    }
    assert!(stdout.ends_with("}\n") && stdout.len() > 10_000);
    Ok(())
}
