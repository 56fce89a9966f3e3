//! This program on another machine, over ssh, which needs nothing there: no `nagi`, no room on a disk.
//!
//! One connection does it all. A shell on the node mounts a tmpfs that only itself sees, in `/run/nagi-…`, says what machine it
//! is, takes the program from the connection, compares its checksum, and runs it as root. Its output and its exit code come
//! back as they are. When the connection ends, so does the program there; the mount goes with the last process. A connection
//! that only fell silent has ended too: this side says something every few seconds.
//!
//! It asks nothing on the way: `sudo` must need no password. What the program reads on stdin is empty.

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use nagi_runtime::{Deadline, random_bits};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use crate::ssh::{Asks, Running, Ssh, SshFault};

const USER_SCRIPT: &str = include_str!("remote/user.sh");
const NODE_SCRIPT: &str = include_str!("remote/node.sh");
/// A node whose disk is full answers slowly; ssh has its own limit for connecting before.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// What was sent may still be on its way, over a slow line; then the node only compares it and starts it.
const STARTED_WITHIN: Duration = Duration::from_mins(5);
/// The script of the node ends the program when four of these are missing.
const BEAT_EVERY: Duration = Duration::from_secs(5);
/// Of what is said before the program runs so much is kept.
const HEAD_MAX: usize = 64 << 10;
/// One read.
const PIECE: usize = 64 << 10;
/// What ssh ends with when it failed itself.
const SSH_FAILED: i32 = 255;

/// A stream of the program there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteStream {
    /// Its data.
    Stdout,
    /// What it says beside them.
    Stderr,
}

/// Why the program did not run there.
#[derive(Debug)]
pub enum RemoteError {
    /// This program cannot be read.
    Program(std::io::Error),
    /// ssh cannot be run.
    Run(std::io::Error),
    /// ssh ended, or did not come up in time.
    Ssh {
        /// Why.
        fault: SshFault,
        /// What it said.
        said: Vec<String>,
    },
    /// The user there is not root, and cannot become it without being asked.
    NotRoot(String),
    /// The node is another kind of machine than this program is for.
    Architecture {
        /// That of the node.
        node: String,
        /// That of this program.
        own: &'static str,
    },
    /// The node could not take or start it.
    Node(String),
    /// The connection broke while the program ran.
    Broke {
        /// What ssh said.
        said: String,
    },
}

/// Runs this program there with these arguments, hands on what it prints, and returns its exit code.
///
/// # Errors
/// It did not run there, or the connection broke.
pub async fn run_remote(
    ssh: &Ssh,
    arguments: &[OsString],
    end: impl Future<Output = ()>,
    hand_on: &mut (dyn FnMut(RemoteStream, &[u8]) + Send),
) -> Result<Option<i32>, RemoteError> {
    let mut link = None;
    let ended = {
        let running = Box::pin(go(ssh, arguments, &mut link, hand_on));
        tokio::select! {
            // In this order, so that the end of ssh by the same Ctrl-C is no break.
            biased;
            // Cancel-safe: what must not be lost is in `link`, which is ended below.
            () = end => Ok(None),
            // Cancel-safe: as above.
            done = running => done.map(Some),
        }
    };
    if let Some(link) = link {
        Running::end(link).await;
    }
    ended
}

async fn go(
    ssh: &Ssh,
    arguments: &[OsString],
    link: &mut Option<Running>,
    hand_on: &mut (dyn FnMut(RemoteStream, &[u8]) + Send),
) -> Result<i32, RemoteError> {
    let program = read(Path::new(crate::ssh::OWN_PROGRAM)).map_err(RemoteError::Program)?;
    let word = format!("{:032x}", random_bits());
    let command = command(&word, arguments);
    let pipes = [Stdio::piped(), Stdio::piped()];
    // It is a command and nothing else, whatever the configuration says of this host.
    let session = format!("{}=default", crate::ssh::SESSION_TYPE);
    let only = ["-o", &session, "-o", "ClearAllForwardings=yes"].map(OsString::from);
    let running = ssh
        .start(&only, Some(command), pipes)
        .map_err(RemoteError::Run)?;
    let running = link.insert(running);
    let (Some(stdin), Some(stdout)) = (running.child.stdin.take(), running.child.stdout.take())
    else {
        let error = std::io::Error::other("ssh has no pipes");
        return Err(RemoteError::Run(error));
    };
    let mut node = Node {
        word,
        stdin,
        stdout,
        head: Vec::new(),
    };
    let architecture = {
        let ready = node.reply(running, "ready");
        let ready = match ssh.asks {
            Asks::Somebody => ready.await,
            Asks::Nobody => {
                let deadline = Deadline::in_(ssh.patience + READY_WITHIN);
                let silent = Err(RemoteError::Ssh {
                    fault: SshFault::TimedOut,
                    said: Vec::new(),
                });
                deadline.timeout(ready).await.unwrap_or(silent)
            }
        };
        ready?
    };
    let own = std::env::consts::ARCH;
    if architecture != own {
        node.send(running, b"no 0\n").await?;
        return Err(RemoteError::Architecture {
            node: architecture,
            own,
        });
    }
    let announced = format!("{} {}\n", program.len(), digest(&program));
    node.send(running, announced.as_bytes()).await?;
    node.send(running, &program).await?;
    drop(program);
    let started = node.reply(running, "started");
    let silent = || Err(RemoteError::Node("it did not start in time".to_owned()));
    let started = Deadline::in_(STARTED_WITHIN).timeout(started).await;
    started.unwrap_or_else(|_| silent())?;
    node.pass(running, hand_on).await
}

fn read(program: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(program)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The SHA-256 of these bytes, as `sha256sum` writes it.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        std::fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}")).unwrap_or(());
    }
    text
}

/// The line that the shell of the user there is given.
fn command(word: &str, arguments: &[OsString]) -> OsString {
    let mut line = OsString::from("exec sh -c ");
    let scripts = [USER_SCRIPT, "nagi", NODE_SCRIPT, word].map(OsStr::new);
    let words = scripts
        .into_iter()
        .chain(arguments.iter().map(OsString::as_os_str));
    for (index, word) in words.enumerate() {
        if index > 0 {
            line.push(" ");
        }
        line.push(quoted(word));
    }
    line
}

/// A word of a shell that stands for these bytes.
fn quoted(word: &OsStr) -> OsString {
    let mut quoted = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

/// The near ends of the pipes, and what was read and not yet used.
#[derive(Debug)]
struct Node {
    word: String,
    stdin: ChildStdin,
    stdout: ChildStdout,
    head: Vec<u8>,
}

// === impl Node ===

impl Node {
    /// Waits for a line of ours. What a profile of the user prints before is passed over.
    async fn reply(&mut self, running: &mut Running, wanted: &str) -> Result<String, RemoteError> {
        loop {
            while let Some(at) = self.head.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.head.drain(..=at).collect();
                let line = String::from_utf8_lossy(&line);
                match said(&line, &self.word) {
                    Some(("failed", rest)) => return Err(RemoteError::Node(rest.to_owned())),
                    Some(("failed-root", rest)) => {
                        return Err(RemoteError::NotRoot(rest.to_owned()));
                    }
                    Some((kind, rest)) if kind == wanted => return Ok(rest.to_owned()),
                    Some(_) | None => {}
                }
            }
            if self.head.len() > HEAD_MAX {
                return Err(RemoteError::Node(
                    "it says too much before it starts".to_owned(),
                ));
            }
            let mut piece = [0; 4096];
            let length = self
                .stdout
                .read(&mut piece)
                .await
                .map_err(RemoteError::Run)?;
            let Some(new) = piece.get(..length).filter(|new| !new.is_empty()) else {
                return Err(before_start(running).await);
            };
            self.head.extend_from_slice(new);
        }
    }

    async fn send(&mut self, running: &mut Running, bytes: &[u8]) -> Result<(), RemoteError> {
        let sent = async {
            self.stdin.write_all(bytes).await?;
            self.stdin.flush().await
        };
        match sent.await {
            Ok(()) => Ok(()),
            // It says why on the other stream.
            Err(_) => match self.reply(running, "started").await {
                Err(error) => Err(error),
                Ok(_) => Err(before_start(running).await),
            },
        }
    }

    /// Hands on what the program prints, until it has ended.
    async fn pass(
        mut self,
        running: &mut Running,
        hand_on: &mut (dyn FnMut(RemoteStream, &[u8]) + Send),
    ) -> Result<i32, RemoteError> {
        // It beats until this is dropped, whatever the output waits for.
        let _beating = beat(self.stdin).map_err(RemoteError::Run)?;
        if !self.head.is_empty() {
            hand_on(RemoteStream::Stdout, &self.head);
        }
        let mut stderr = running.take_stderr();
        let (mut out, mut err) = (vec![0; PIECE], vec![0; PIECE]);
        let mut is_open = true;
        let mut said = Vec::new();
        while is_open || stderr.is_some() {
            tokio::select! {
                // Cancel-safe: `read` is.
                read = self.stdout.read(&mut out), if is_open => match read {
                    Ok(0) | Err(_) => is_open = false,
                    Ok(length) => hand_on(RemoteStream::Stdout, out.get(..length).unwrap_or_default()),
                },
                // Cancel-safe: `read` is.
                read = read_some(&mut stderr, &mut err), if stderr.is_some() => match read {
                    0 => stderr = None,
                    length => {
                        let new = err.get(..length).unwrap_or_default();
                        keep_last(&mut said, new);
                        hand_on(RemoteStream::Stderr, new);
                    }
                },
            }
        }
        let status = running.child.wait().await.map_err(RemoteError::Run)?;
        match status.code() {
            Some(code) if code != SSH_FAILED => Ok(code),
            Some(_) | None => {
                let said = String::from_utf8_lossy(&said);
                let said = said
                    .lines()
                    .next_back()
                    .unwrap_or_default()
                    .trim()
                    .to_owned();
                Err(RemoteError::Broke { said })
            }
        }
    }
}

/// What a line of ours says, and what of. A profile that prints without an end of line stands in front of it.
fn said<'a>(line: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let (_, said) = line.trim_end().split_once(word)?;
    let said = said.trim_start();
    Some(said.split_once(' ').unwrap_or((said, "")))
}

/// Says something there every few seconds, until what this returns is dropped.
fn beat(stdin: ChildStdin) -> Result<mpsc::SyncSender<()>, std::io::Error> {
    let mut stdin = std::fs::File::from(stdin.into_owned_fd()?);
    let (end, ended) = mpsc::sync_channel(0);
    std::thread::Builder::new()
        .name("beat".to_owned())
        .spawn(move || {
            while ended.recv_timeout(BEAT_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                match stdin.write_all(b".") {
                    // A pipe that is full: ssh has not sent the last ones yet.
                    Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
                    Ok(()) | Err(_) => {}
                }
            }
        })?;
    Ok(end)
}

async fn read_some(from: &mut Option<BufReader<ChildStderr>>, into: &mut [u8]) -> usize {
    match from {
        // What cannot be read any more has ended.
        Some(from) => from.read(into).await.unwrap_or(0),
        None => 0,
    }
}

fn keep_last(said: &mut Vec<u8>, new: &[u8]) {
    said.extend_from_slice(new);
    let over = said.len().saturating_sub(HEAD_MAX);
    said.drain(..over);
}

/// Why it ended before the program ran.
async fn before_start(running: &mut Running) -> RemoteError {
    let status = match running.ended().await {
        Ok(status) => status,
        Err(error) => return RemoteError::Run(error),
    };
    let said = running.said();
    let fault = SshFault::of(&said);
    match (status.code(), fault) {
        (Some(SSH_FAILED) | None, _) | (_, SshFault::Missing) => RemoteError::Ssh { fault, said },
        (Some(_), _) => {
            let last = said.iter().rev().find(|line| !line.trim().is_empty());
            let last = last.cloned().unwrap_or_else(|| status.to_string());
            RemoteError::Node(last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_stand_between_single_quotes() {
        for script in [USER_SCRIPT, NODE_SCRIPT] {
            assert!(!script.contains('\''));
        }
    }

    // 5-24: a profile that sets the title of a terminal prints no end of line.
    #[test]
    fn our_lines_are_found_behind_what_a_profile_prints() {
        let word = "0123456789abcdef0123456789abcdef";
        let line = |front: &str| format!("{front}{word} ready x86_64\r\n");
        for front in ["", "\u{1b}]0;root@node\u{7}", "Welcome "] {
            assert_eq!(said(&line(front), word), Some(("ready", "x86_64")));
        }
        assert_eq!(said("ready x86_64", word), None);
        assert_eq!(
            said(&format!("x{word} started\n"), word),
            Some(("started", ""))
        );
    }

    // Whatever a file is called, it is one argument there, and no command.
    #[test]
    fn arguments_are_words_whatever_is_in_them() {
        let odd = OsString::from_vec(b"a'; touch /x #\xff\n$(b)".to_vec());
        let line = quoted(&odd);
        let output = crate::ask::command("sh")
            .as_std_mut()
            .arg("-c")
            .arg(OsString::from_vec(
                [b"printf %s ", line.as_bytes()].concat(),
            ))
            .output()
            .unwrap();
        assert_eq!(output.stdout, odd.as_bytes());
    }
}
