//! How a machine is reached over ssh: the options that commands share, and what is said when it cannot be.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use nagi_ops::{Asks, Destination, Ssh, SshFault};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::Session;

/// Whoever answers does within seconds.
const QUIET: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Args)]
pub(super) struct KeyArgs {
    /// The private key for ssh [default: as your configuration of ssh says]
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,

    /// Configuration of ssh to read instead of yours
    #[arg(long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,
}

// === impl KeyArgs ===

impl KeyArgs {
    /// Something is said of how ssh is to be called.
    pub(super) const fn is_said(&self) -> bool {
        self.identity.is_some() || self.ssh_config.is_some()
    }

    /// ssh to this machine.
    pub(super) fn to(
        &self,
        destination: &Destination,
        patience: Duration,
        session: &Session,
    ) -> Ssh {
        let asks = if session.output.terminal().asks {
            Asks::Somebody
        } else {
            Asks::Nobody
        };
        Ssh {
            destination: destination.clone(),
            identity: self.identity.clone(),
            config: self.ssh_config.clone(),
            asks,
            patience,
        }
    }
}

/// Does something over ssh. At a terminal, where no limit ends the wait, it is said once that nothing came for a while.
pub(super) async fn patiently<T>(
    ssh: &Ssh,
    session: &Session,
    heard: &AtomicBool,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    if ssh.asks == Asks::Somebody {
        tokio::select! {
            // Cancel-safe: it goes on below.
            done = &mut work => return done,
            // Cancel-safe: a pause.
            () = tokio::time::sleep(QUIET) => {}
        }
        if !heard.load(Ordering::Relaxed) {
            session.output.note(&format!(
                "nothing came from {} for {} s; Ctrl-C ends the wait",
                ssh.destination,
                QUIET.as_secs()
            ));
        }
    }
    work.await
}

/// Why ssh did not do it, with what it said and the next step.
pub(super) fn failure(ssh: &Ssh, fault: SshFault, said: &[String]) -> Failure {
    let host = &ssh.destination;
    let (exit, what) = match fault {
        SshFault::Missing => (Exit::Failed, "there is no ssh on this machine".to_owned()),
        SshFault::HostKeyUnknown => (
            Exit::Refused,
            format!("the host key of {host} is not known, so it is not called"),
        ),
        SshFault::HostKeyChanged => (
            Exit::Refused,
            format!(
                "{host} shows another host key than the one that is known, so it is not called"
            ),
        ),
        SshFault::Denied => (Exit::Denied, format!("{host} does not accept the key")),
        SshFault::Unresolved => (
            Exit::Unreachable,
            format!("the name of {host} has no address"),
        ),
        SshFault::Refused => (Exit::Unreachable, format!("no sshd listens at {host}")),
        SshFault::TimedOut => (Exit::Unreachable, format!("{host} does not answer in time")),
        SshFault::Unreachable => (Exit::Unreachable, format!("there is no way to {host}")),
        SshFault::Closed => (Exit::Unreachable, format!("{host} closed the connection")),
        SshFault::Local => (
            Exit::Conflict,
            "ssh cannot listen on the port of this machine".to_owned(),
        ),
        SshFault::Prohibited => (Exit::Refused, format!("{host} does not allow forwards")),
        SshFault::FarEnd => (
            Exit::Unreachable,
            format!("{host} reaches nobody where the forward leads"),
        ),
        SshFault::Other => (Exit::Unreachable, format!("ssh to {host} failed")),
    };
    let mut failure = Failure::new(exit, what);
    failure.causes.extend(fault.line(said).cloned());
    failure.hint(hint(ssh, fault))
}

fn hint(ssh: &Ssh, fault: SshFault) -> String {
    let host = &ssh.destination;
    match fault {
        SshFault::Missing => "install it: openssh-client of Debian and Ubuntu".to_owned(),
        SshFault::HostKeyUnknown => format!(
            "call 'ssh {host}' once, compare the fingerprint with what the console of the machine shows, and only then answer yes"
        ),
        SshFault::HostKeyChanged => format!(
            "somebody else may answer; only when the machine was made anew: forget the old key with ssh-keygen -R, then call 'ssh {host}' and compare the fingerprint"
        ),
        SshFault::Denied => {
            "name the user and the key: USER@HOST, --identity FILE; without a terminal no passphrase can be asked for, ssh-add holds it"
                .to_owned()
        }
        SshFault::Unresolved => "is it written right? 'getent hosts' tells what the resolver knows".to_owned(),
        SshFault::Refused | SshFault::TimedOut | SshFault::Unreachable => {
            "is the machine running, and does its firewall or security group let this address in?"
                .to_owned()
        }
        SshFault::Closed => "the log of sshd on the machine says why".to_owned(),
        SshFault::Local => "take another one: --local-port 0 finds one that is free".to_owned(),
        SshFault::Prohibited => "AllowTcpForwarding and PermitOpen in its sshd_config say what it allows".to_owned(),
        SshFault::FarEnd => format!("nagi recover diagnose --ssh {host}"),
        SshFault::Other => format!("'ssh -v {host}' shows more"),
    }
}
