//! `--ssh HOST`: a command runs on another machine instead, with the same arguments, and its output and exit code are ours.
//!
//! A command has it by [`OnNodeArgs`] among its arguments and one line at its beginning:
//! `if let Some(ended) = on_node::instead(&args.on_node, CutOff::Harmless, session).await { return ended; }`

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use nagi_ops::{Destination, RemoteError, RemoteStream, Ssh};
use nagi_runtime::Termination;

use super::reach::{self, KeyArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::words;
use crate::session::Session;

/// A machine on the other side of the world answers within a second; one that lost a packet twice within seven.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is for this machine only: each has a value.
const OURS: [&str; 3] = ["--ssh", "--identity", "--ssh-config"];

#[derive(Debug, Clone, Args)]
pub(super) struct OnNodeArgs {
    /// Run this on another machine as root, over ssh: this program is sent there, into memory, and nothing of it stays
    #[arg(long, value_name = "HOST")]
    ssh: Option<Destination>,

    #[command(flatten)]
    key: KeyArgs,
}

/// What it means for the machine there that a call was cut off: the program there ends wherever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CutOff {
    /// It only looks.
    Harmless,
    /// It changes things, and the same command goes on with what it left.
    Resumable,
}

// === impl OnNodeArgs ===

impl OnNodeArgs {
    /// It runs on another machine, where nobody is at a terminal.
    pub(super) const fn is_elsewhere(&self) -> bool {
        self.ssh.is_some()
    }
}

/// Runs this command line there, if one is named; how that ended.
pub(super) async fn instead(
    args: &OnNodeArgs,
    cut_off: CutOff,
    session: &Session,
) -> Option<Result<(), Failure>> {
    match &args.ssh {
        Some(host) => {
            let ssh = args.key.to(host, PATIENCE, session);
            Some(run(&ssh, cut_off, session).await)
        }
        None if args.key.is_said() => Some(Err(Failure::usage(
            "--identity and --ssh-config are for --ssh",
        ))),
        None => None,
    }
}

async fn run(ssh: &Ssh, cut_off: CutOff, session: &Session) -> Result<(), Failure> {
    let arguments = for_the_node(std::env::args_os().skip(1));
    let listening = Termination::listen();
    let mut termination = listening
        .map_err(|error| Failure::of(Exit::Failed, "signals cannot be received", &error))?;
    let end = async {
        termination.recv().await;
    };
    let mut written = Ok(());
    let heard = AtomicBool::new(false);
    let mut hand_on = |stream, bytes: &[u8]| {
        heard.store(true, Ordering::Relaxed);
        let done = match stream {
            RemoteStream::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            RemoteStream::Stderr => std::io::stderr().lock().write_all(bytes),
        };
        if written.is_ok() {
            written = done;
        }
    };
    let running = nagi_ops::run_remote(ssh, &arguments, end, &mut hand_on);
    let ended = reach::patiently(ssh, session, &heard, running).await;
    let code = ended.map_err(|error| failure(ssh, cut_off, error))?;
    let Some(code) = code else {
        let what = "interrupted; what it began there is told to end, at the latest after 20 s";
        return Err(with_way_on(Failure::new(Exit::Failed, what), cut_off));
    };
    match Exit::ALL
        .into_iter()
        .find(|exit| i32::from(exit.code()) == code)
    {
        Some(Exit::Done) => written.map_err(Failure::from),
        // It has said why. That it could not be written down here is the smaller part of it.
        Some(exit) => {
            if let Err(error) = written
                && error.kind() != std::io::ErrorKind::BrokenPipe
            {
                session
                    .output
                    .note(&format!("cannot write the output: {error}"));
            }
            Err(Failure {
                silent: true,
                ..Failure::new(exit, "")
            })
        }
        None => {
            let what = format!("it ended with {code} at {}", ssh.destination);
            Err(with_way_on(Failure::new(Exit::Failed, what), cut_off))
        }
    }
}

/// The command line without what is for this machine.
fn for_the_node(line: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = Vec::new();
    let mut line = line;
    while let Some(word) = line.next() {
        if word == "--" {
            arguments.push(word);
            arguments.extend(line);
            break;
        }
        let is_whole = OURS.iter().any(|own| word == OsStr::new(own));
        let with_value = |own: &str| {
            let rest = word.as_encoded_bytes().strip_prefix(own.as_bytes());
            rest.is_some_and(|rest| rest.starts_with(b"="))
        };
        if is_whole {
            line.next();
        } else if !OURS.iter().any(|own| with_value(own)) {
            arguments.push(word);
        }
    }
    arguments
}

/// How a call that was cut off is gone on with.
fn with_way_on(failure: Failure, cut_off: CutOff) -> Failure {
    match cut_off {
        CutOff::Harmless => failure,
        CutOff::Resumable => failure.hint(
            "the same command goes on where that ended, as after any kill; without --apply it says what is left to do",
        ),
    }
}

fn failure(ssh: &Ssh, cut_off: CutOff, error: RemoteError) -> Failure {
    let host = &ssh.destination;
    match error {
        RemoteError::Program(error) => {
            Failure::of(Exit::Failed, "this program cannot read itself", &error)
        }
        RemoteError::Run(error) => Failure::of(Exit::Failed, "ssh cannot be run", &error),
        RemoteError::Ssh { fault, said } => reach::failure(ssh, fault, &said),
        RemoteError::NotRoot(why) => {
            let what = format!("the user at {host} is not root, and sudo does not work unasked");
            let mut failure = Failure::new(Exit::Denied, what);
            failure.causes.push(words::clean(&why));
            failure.hint(format!("allow it there (NOPASSWD), or call root@{host}"))
        }
        RemoteError::Architecture { node, own } => Failure::new(
            Exit::Refused,
            format!(
                "{host} is {}, and this nagi is for {own}",
                words::clean(&node)
            ),
        )
        .hint("call it from a machine of the same kind, or install nagi there"),
        RemoteError::Node(why) => {
            let mut failure = Failure::new(Exit::Failed, format!("{host} could not run it"));
            failure.causes.push(words::clean(&why));
            failure.hint("nothing of it stayed there")
        }
        RemoteError::Broke { said } => {
            let what = format!(
                "the connection to {host} broke; what it began there is told to end, at the latest after 20 s"
            );
            let mut failure = Failure::new(Exit::Unreachable, what);
            failure
                .causes
                .extend((!said.is_empty()).then(|| words::clean(&said)));
            with_way_on(failure, cut_off)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_gets_the_same_arguments_without_those_of_ssh() {
        let line = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let said = line(
            "recover diagnose --ssh a@b --root / --identity=/k --ssh-config c --output json --ssh=x -- --ssh y",
        );
        let expected = line("recover diagnose --root / --output json -- --ssh y");
        assert_eq!(for_the_node(said.into_iter()), expected);
    }
}
