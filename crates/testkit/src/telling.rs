//! What a test tells past the capture of its output: that it proves nothing on this machine, and what it measured.

/// Whether this user may mount a file system of their own, in namespaces of their own. Where not, the test that asks has
/// nothing to prove with and returns: see [`skipped`].
///
/// # Panics
/// As [`skipped`] does.
#[expect(
    clippy::disallowed_methods,
    reason = "a test tool asks the machine what it allows"
)]
pub fn may_mount() -> bool {
    let tried = std::process::Command::new("unshare")
        .args(["-Urm", "mount", "-t", "tmpfs", "none", "/mnt"])
        .output();
    let why = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    skipped(&format!("no small file system can be mounted here: {why}"));
    false
}

/// Says that the test on this thread proves nothing here, past the capture of test output: `make test` counts these lines
/// and repeats them at its end.
///
/// # Panics
/// In CI as root, where everything must be proven (`CI=true`).
#[expect(
    clippy::disallowed_methods,
    reason = "a test tool asks the machine what it allows"
)]
pub fn skipped(why: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let why = why.replace('\n', " ");
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!(root && in_ci), "{test} cannot run in CI as root: {why}");
    // A line of its own: the test runner may be in the middle of one. Without anybody who reads it is as good.
    drop(writeln!(std::io::stdout(), "\nskipped {test}: {why}"));
}

/// What a bar of the requirements asks of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

/// Says what a test saw of a bar, as a line of its own that `cargo xtask bench` reads too:
/// `measured: ID | WHAT | SEEN | UNIT | at most GOAL`. Whoever decides by the figure does so beside it.
pub fn measured(id: &str, what: &str, (seen, unit): (f64, &str), bar: Bar) {
    use std::io::Write as _;
    let bar = match bar {
        Bar::AtMost(goal) => format!("at most {goal}"),
        Bar::AtLeast(goal) => format!("at least {goal}"),
    };
    // As with what is skipped.
    let line = format!("\nmeasured: {id} | {what} | {seen} | {unit} | {bar}");
    drop(writeln!(std::io::stdout(), "{line}"));
}
