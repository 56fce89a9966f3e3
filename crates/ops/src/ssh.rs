//! The system's `ssh`: how it is called, and what it means by what it says.
//!
//! The user's configuration, agent and known hosts work as at a prompt, with what must hold beside them: a host key that is
//! not known is never accepted, no master connection outlives the call, nothing of the user's terminal is forwarded.
//! ssh never outlives this process either: [`tether()`] sees to that.

mod fault;
mod tether;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::str::FromStr;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr};

use crate::ask;

pub use fault::SshFault;
pub(crate) use tether::OWN_PROGRAM;
pub use tether::{TETHER, tether};

/// A connection on which nothing came for three of these is given up, so within a quarter of a minute.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
const ALIVE_COUNT: u32 = 3;
/// ssh ends within milliseconds of a SIGTERM; what takes longer hangs.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// Of OpenSSH 8.5 and 8.7. Older ones pass over it, and over what a configuration says of it.
pub(crate) const SESSION_TYPE: &str = "SessionType";
/// Of the same: no other program says which host keys count; ssh stays the process that was started, and has the
/// input that it was given.
const NEWER: [(&str, &str); 3] = [
    ("KnownHostsCommand", "none"),
    ("ForkAfterAuthentication", "no"),
    ("StdinNull", "no"),
];
/// Of what ssh says so many lines are kept: it says why it ends in the last ones.
const SAID_MAX: usize = 40;

/// A machine, as ssh names it: `HOST`, `USER@HOST`, `ssh://USER@HOST:PORT`, or a name of the user's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination(String);

/// How a machine is reached.
#[derive(Debug, Clone)]
pub struct Ssh {
    /// The machine.
    pub destination: Destination,
    /// The file of the key.
    pub identity: Option<PathBuf>,
    /// The configuration to read instead of the user's.
    pub config: Option<PathBuf>,
    /// Whether a person can be asked for a passphrase.
    pub asks: Asks,
    /// How long connecting may take. A person who is asked may take longer.
    pub patience: Duration,
}

/// Whether somebody is at the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// ssh may ask.
    Somebody,
    /// What would have to be asked fails.
    Nobody,
}

/// An ssh that runs, and what it says.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Option<Lines<BufReader<ChildStderr>>>,
    said: VecDeque<String>,
}

// === impl Destination ===

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_odd = |letter: char| letter.is_whitespace() || letter.is_control();
        if text.is_empty() || text.starts_with('-') || text.chars().any(is_odd) {
            return Err("must be HOST, USER@HOST or ssh://USER@HOST:PORT".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

// === impl Ssh ===

impl Ssh {
    /// Starts it with these arguments; `last` is what stands behind the destination.
    ///
    /// # Errors
    /// No process can be started. That there is no ssh is told later, as [`SshFault::Missing`].
    pub(crate) fn start(
        &self,
        arguments: &[OsString],
        last: Option<OsString>,
        [stdin, stdout]: [Stdio; 2],
    ) -> std::io::Result<Running> {
        let mut child = ask::command(tether::OWN_PROGRAM)
            .args(tether::arguments("ssh"))
            .args(self.options())
            .args(arguments)
            .arg("--")
            .arg(&self.destination.0)
            .args(last)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = child.stderr.take();
        Ok(Running {
            child,
            lines: lines.map(|stderr| BufReader::new(stderr).lines()),
            said: VecDeque::new(),
        })
    }

    fn options(&self) -> Vec<OsString> {
        let mut options: Vec<OsString> = ["-T", "-a", "-x"].map(OsString::from).to_vec();
        let mut set = |option: String| options.extend(["-o".into(), option.into()]);
        // What is said here holds, whatever the configuration says. Older versions of ssh do not know all of it.
        set(format!(
            "IgnoreUnknown={SESSION_TYPE},{}",
            NEWER.map(|(name, _)| name).join(",")
        ));
        for (name, value) in NEWER {
            set(format!("{name}={value}"));
        }
        set("VerifyHostKeyDNS=no".to_owned());
        set("StrictHostKeyChecking=yes".to_owned());
        set("NoHostAuthenticationForLocalhost=no".to_owned());
        // A master of the user's would keep the forward when this call has ended.
        set("ControlMaster=no".to_owned());
        set("ControlPath=none".to_owned());
        set("PermitLocalCommand=no".to_owned());
        set("RemoteCommand=none".to_owned());
        // Why it fails is read from what it says.
        set("LogLevel=INFO".to_owned());
        set(format!("ConnectTimeout={}", self.patience.as_secs().max(1)));
        set(format!("ServerAliveInterval={}", ALIVE_EVERY.as_secs()));
        set(format!("ServerAliveCountMax={ALIVE_COUNT}"));
        match self.asks {
            Asks::Somebody => {}
            Asks::Nobody => set("BatchMode=yes".to_owned()),
        }
        for (flag, file) in [("-F", &self.config), ("-i", &self.identity)] {
            if let Some(file) = file {
                options.extend([flag.into(), file.into()]);
            }
        }
        options
    }
}

// === impl Running ===

impl Running {
    /// The next line that ssh says; none when it says nothing any more. Cancel-safe.
    pub(crate) async fn next_line(&mut self) -> Option<String> {
        let line = match &mut self.lines {
            Some(lines) => lines.next_line().await,
            None => return None,
        };
        let Ok(Some(line)) = line else {
            // A line that is no text ends what is read of it.
            self.lines = None;
            return None;
        };
        if self.said.len() == SAID_MAX {
            self.said.pop_front();
        }
        // It ends lines as a terminal wants them.
        let line = line.trim_end_matches('\r').to_owned();
        self.said.push_back(line.clone());
        Some(line)
    }

    /// What it says from now on, as it comes.
    pub(crate) fn take_stderr(&mut self) -> Option<BufReader<ChildStderr>> {
        self.lines.take().map(Lines::into_inner)
    }

    /// Reads what it says for so long, or until this holds.
    pub(crate) async fn listen(&mut self, within: Duration, until: impl Fn(&str) -> bool) {
        let reading = async {
            while let Some(line) = self.next_line().await {
                if until(&line) {
                    break;
                }
            }
        };
        // It said what it said.
        drop(tokio::time::timeout(within, reading).await);
    }

    /// What it said until now no longer counts.
    pub(crate) fn forget(&mut self) {
        self.said.clear();
    }

    /// What it said, the oldest first.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.iter().cloned().collect()
    }

    /// Waits for its end, and reads what it says on the way. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        while self.next_line().await.is_some() {}
        self.child.wait().await
    }

    /// Asks it to end, so that it ends its own children, and returns when it has.
    pub(crate) async fn end(mut self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            return; // It has ended, and was waited for.
        };
        // Not yet waited for, so the number is its own.
        rustix::process::kill_process(pid, Signal::TERM).ok();
        if tokio::time::timeout(ENDS_WITHIN, self.child.wait())
            .await
            .is_err()
        {
            drop(self.child.kill().await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh(asks: Asks) -> Ssh {
        Ssh {
            destination: "ubuntu@3.112.132.56".parse().unwrap(),
            identity: Some("/home/a/.ssh/id_rsa".into()),
            config: None,
            asks,
            patience: Duration::from_millis(1500),
        }
    }

    // B-018, W-B12: nothing on the way makes a host key count that is not known.
    #[test]
    fn host_keys_are_checked_whatever_the_configuration_says() {
        for asks in [Asks::Somebody, Asks::Nobody] {
            let options = ssh(asks).options();
            let has = |text: &str| options.iter().any(|one| one == text);
            assert!(has("StrictHostKeyChecking=yes"));
            assert!(has("NoHostAuthenticationForLocalhost=no"));
            assert!(has("ControlPath=none"));
            assert_eq!(has("BatchMode=yes"), asks == Asks::Nobody);
            assert!(has("ConnectTimeout=1"), "none would wait for minutes");
        }
    }

    // What begins with a dash would be an option of ssh, of which some run programs.
    #[test]
    fn a_destination_is_no_option() {
        for wrong in ["", "-oProxyCommand=touch /a", "-a", "a b", "a\nb", "a\u{0}"] {
            assert!(wrong.parse::<Destination>().is_err(), "{wrong:?}");
        }
        for right in ["node", "ubuntu@3.112.132.56", "ssh://u@h:2222", "u@fe80::1"] {
            assert_eq!(right.parse::<Destination>().unwrap().to_string(), right);
        }
    }
}
