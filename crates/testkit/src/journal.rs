//! Real journals, written by systemd itself.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The program that writes a journal of what it reads; a package of its own.
const REMOTE: &str = "/lib/systemd/systemd-journal-remote";

/// Whether a test may write journals here. Where it may not, says so.
///
/// # Panics
/// As [`skipped`](crate::skipped) does.
pub fn may_write() -> bool {
    let may = Path::new(REMOTE).exists();
    if !may {
        crate::skipped(&format!("{REMOTE} is not here"));
    }
    may
}

/// Writes a journal with these entries, in the format of `journalctl --output export`.
///
/// # Panics
/// It cannot be written.
#[expect(
    clippy::disallowed_methods,
    reason = "a test tool asks the machine what it allows"
)]
pub fn write(file: &Path, entries: &str) {
    let mut child = Command::new(REMOTE)
        .args(["--split-mode=none", "-o"])
        .arg(file)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program that writes journals starts");
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    stdin
        .write_all(entries.as_bytes())
        .expect("it takes the entries");
    drop(stdin);
    assert!(child.wait().is_ok_and(|status| status.success()));
}
