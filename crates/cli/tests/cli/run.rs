//! Runs `nagi` once, with nothing of the caller's environment, and never for long.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A command ends within milliseconds, or when its wait is over; longer means that it hangs.
const ENDED_MAX: Duration = Duration::from_mins(1);
/// Between two looks at a running process. Nothing is decided by it.
const LOOK: Duration = Duration::from_millis(5);

/// Tells tests to call this `nagi`: `cargo xtask bench` measures the one that ships by the code of tests.
const PROGRAM: &str = "NAGI_TEST_PROGRAM";

/// The `nagi` that is called.
pub(crate) fn program() -> PathBuf {
    let named = std::env::var_os(PROGRAM);
    named.map_or_else(|| env!("CARGO_BIN_EXE_nagi").into(), PathBuf::from)
}

/// A call of `nagi` to be made.
pub(crate) struct Call {
    command: Command,
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A call with these arguments, words separated by blanks.
pub(crate) fn nagi(arguments: &str) -> Call {
    call(&arguments.split_whitespace().collect::<Vec<_>>())
}

/// The same for arguments that hold blanks.
pub(crate) fn call(arguments: &[&str]) -> Call {
    let mut command = Command::new(program());
    command.env_clear().args(arguments).stdin(Stdio::null());
    // Coverage of children is written where the build asks for it.
    for (name, value) in std::env::vars_os() {
        if name == "LLVM_PROFILE_FILE" || name == "PATH" {
            command.env(name, value);
        }
    }
    Call { command }
}

impl Call {
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Against the server on this port.
    pub(crate) fn at(self, port: u16) -> Self {
        self.env("NAGI_SERVER", &format!("http://127.0.0.1:{port}"))
    }

    /// With words on standard input.
    pub(crate) fn input(mut self, text: &str) -> Self {
        let mut file = tempfile::tempfile().expect("a file for stdin");
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("stdin");
        file.rewind().expect("stdin");
        self.command.stdin(file);
        self
    }

    /// Started by another program, which becomes it.
    pub(crate) fn through(self, program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(self.command.get_program())
            .args(self.command.get_args())
            .env_clear()
            .stdin(Stdio::null());
        for (name, value) in self.command.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        Self { command }
    }

    pub(crate) fn command(self) -> Command {
        self.command
    }

    pub(crate) fn run(mut self) -> Ran {
        // Files, not pipes: nobody has to read while it runs.
        let out = tempfile::tempfile().expect("a file for stdout");
        let err = tempfile::tempfile().expect("a file for stderr");
        self.command
            .stdout(out.try_clone().expect("stdout"))
            .stderr(err.try_clone().expect("stderr"));
        let mut child = self.command.spawn().expect("nagi starts");
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("its end") {
                break status;
            }
            if began.elapsed() > ENDED_MAX {
                child.kill().expect("its end");
                child.wait().expect("its end");
                panic!("{:?} hangs:\n{}", self.command, read(err));
            }
            std::thread::sleep(LOOK);
        };
        Ran {
            code: status.code().unwrap_or(-1),
            stdout: read(out),
            stderr: read(err),
        }
    }
}

fn read(mut file: File) -> String {
    let mut text = String::new();
    file.rewind().expect("what was printed");
    file.read_to_string(&mut text).expect("UTF-8");
    text
}

impl Ran {
    /// It ended with this code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// stderr says this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        self
    }

    /// stdout holds this.
    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "no {text:?} in {self:#?}");
        self
    }

    /// Nothing is on stdout: whoever pipes it on gets no half truth.
    #[track_caller]
    pub(crate) fn prints_nothing(self) -> Self {
        assert_eq!(self.stdout, "", "{self:#?}");
        self
    }

    /// stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Starts a command whose few lines go into pipes.
pub(crate) fn piped(mut command: Command) -> std::process::Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nagi starts")
}
