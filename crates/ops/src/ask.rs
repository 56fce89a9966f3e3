//! Asking a program of this machine, for never longer than it may take: it is killed at the deadline, and what
//! it printed until then is kept.
//!
//! Looking asks `systemctl show` and `journalctl`, which change nothing; a recovery starts units with `systemctl` as well. How
//! ssh is started is in `ssh`.

use std::process::Stdio;

use nagi_runtime::Deadline;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// Longer answers are cut: 2,000 lines of a journal as JSON have about one mebibyte.
const ANSWER_MAX: u64 = 4 << 20;
/// Of what a program says on stderr so much is passed on.
const SAID_MAX: usize = 300;

/// What a program printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Printed {
    pub(crate) text: String,
    /// It was killed at the deadline, or printed more than is kept: there is more.
    pub(crate) is_cut: bool,
    /// How it failed, and what it said of that; empty where it only ended with a failure.
    pub(crate) failed: Option<String>,
}

/// Why a program gave no answer, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AskError {
    /// There is none of that name.
    NotThere(String),
    /// It is there, and cannot be run or read.
    Failed(String),
}

/// Runs a program.
///
/// # Errors
/// It is not there, or cannot be run.
pub(crate) async fn ask(
    program: &str,
    arguments: &[String],
    deadline: Deadline,
) -> Result<Printed, AskError> {
    let of = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            return AskError::NotThere(format!("{program} is not there"));
        }
        AskError::Failed(format!("{program}: {error}"))
    };
    let mut child = command(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(of)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut answer, mut said) = (Vec::new(), Vec::new());
    let ended = {
        let all = async {
            let reading =
                futures_util::future::join(read(stdout, &mut answer), read(stderr, &mut said));
            let (one, other) = reading.await;
            one.and(other)?;
            child.wait().await
        };
        deadline.timeout(all).await
    };
    let is_full = u64::try_from(answer.len()).unwrap_or(u64::MAX) >= ANSWER_MAX;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let printed = |is_cut, failed| Printed {
        text,
        is_cut,
        failed,
    };
    match ended {
        Err(_) => Ok(printed(true, None)),
        Ok(Err(error)) => Err(of(error)),
        Ok(Ok(status)) if status.success() || is_full => Ok(printed(is_full, None)),
        Ok(Ok(_)) => {
            let said = String::from_utf8_lossy(&said);
            let said: String = said.trim().chars().take(SAID_MAX).collect();
            Ok(printed(false, Some(said)))
        }
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> std::io::Result<usize> {
    match from {
        Some(from) => from.take(ANSWER_MAX).read_to_end(into).await,
        None => Ok(0),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this crate that starts programs: those that tell what systemd and its journal know, and ssh"
)]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_program_that_may_not_be_run_is_told_from_one_that_is_not_there() {
        let asked = async |program| {
            let deadline = Deadline::in_(Duration::from_secs(30));
            ask(program, &[], deadline).await.unwrap_err()
        };
        assert!(matches!(asked("/dev/null").await, AskError::Failed(_)));
        assert!(matches!(
            asked("/nowhere/at/all").await,
            AskError::NotThere(_)
        ));
    }
}
