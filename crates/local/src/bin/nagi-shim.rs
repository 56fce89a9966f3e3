//! The supervisor of one replica as a program of its own: `nagi-shim DIRECTORY ATTEMPT`.
//!
//! The shipped binary does the same as `nagi shim`. This one exists so that the tests of this crate can start real
//! supervisors without the rest of Nagi; it is not installed.

use std::process::ExitCode;

fn main() -> ExitCode {
    nagi_local::shim::run(std::env::args_os().skip(1))
}
