//! A program that ends when its parent does, however that ends.
//!
//! The kernel sends a signal to whoever asked for it when its parent has died, also of SIGKILL. A process can ask that for
//! itself only, so `nagi` starts itself, asks, and becomes the program: what was asked survives that.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use rustix::process::{Pid, Signal};

use crate::ask;

/// The first argument of a `nagi` that is to become another program: `nagi tether PARENT PROGRAM ARGUMENT…`.
pub const TETHER: &str = "tether";

/// This program, also when its file was replaced meanwhile.
pub(crate) const OWN_PROGRAM: &str = "/proc/self/exe";
/// How a failed start begins, which no ssh says.
pub(super) const CANNOT_START: &str = "nagi: cannot start ";
/// What shells end with for a program that is not there.
const NOT_THERE: u8 = 127;

/// What makes `nagi` become this program; its arguments follow.
pub(super) fn arguments(program: &str) -> [OsString; 3] {
    let own = rustix::process::getpid();
    let parent = own.as_raw_pid().to_string();
    [TETHER.into(), parent.into(), program.into()]
}

/// Becomes a program that ends with this process' parent. Returns only when it cannot. The signal comes at the end of the
/// thread that started this process, which is therefore the main one.
pub fn tether(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let (Some(parent), Some(program)) = (arguments.next(), arguments.next()) else {
        return ExitCode::FAILURE;
    };
    // ssh takes its own children along on SIGTERM.
    if rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).is_err() {
        return ExitCode::FAILURE;
    }
    let current = rustix::process::getppid().map(Pid::as_raw_pid);
    if current.map(|pid| pid.to_string()).map(OsString::from) != Some(parent) {
        return ExitCode::FAILURE; // It died before we asked.
    }
    let mut command = ask::command(&program);
    let error = command.as_std_mut().args(arguments).exec();
    let program = program.to_string_lossy();
    drop(writeln!(
        std::io::stderr(),
        "{CANNOT_START}{program}: {error}"
    ));
    ExitCode::from(NOT_THERE)
}
