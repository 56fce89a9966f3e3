//! `nagi recover tunnel`: a forward to an API server that only its own machine reaches.
//!
//! It tells what happens to the tunnel, which `nagi-ops` keeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use nagi_ops::{Destination, FarEnd, Forward, Local, TunnelError, TunnelEvent};
use nagi_runtime::Termination;
use serde_json::{Value, json};

use super::reach::{self, KeyArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Place, words};
use crate::session::Session;
use crate::when::parse_span;

const EXAMPLES: &str = "\
Examples:
  nagi recover tunnel ubuntu@3.112.132.56 --identity ~/.ssh/id_rsa
                                                     127.0.0.1:6443 here is localhost:6443 there
  nagi recover tunnel node-1 --local-port 0          on a port that is free
  nagi recover tunnel node-1 --local-socket ~/api.sock
                                                     for curl --unix-socket, and for nobody but you
  nagi recover tunnel bastion --to 10.0.3.7:6443     to a machine that only the bastion reaches
  nagi recover kubeconfig --api-server https://127.0.0.1:6443
                                                     what kubectl needs to go through it

It stays until Ctrl-C. A host key that is not known is refused, whatever your configuration of ssh says.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TunnelArgs {
    /// The machine, as ssh names it: HOST, USER@HOST, ssh://USER@HOST:PORT
    #[arg(value_name = "HOST")]
    destination: Destination,

    /// The port on this machine, on 127.0.0.1; 0 takes one that is free
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    local_port: u16,

    /// A Unix socket in place of the port, which only you may use
    #[arg(long, value_name = "PATH", value_parser = parse_socket, conflicts_with = "local_port")]
    local_socket: Option<Local>,

    /// Where it leads, as the machine sees it
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:6443", value_parser = parse_to)]
    to: String,

    /// How long connecting may take
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = parse_span)]
    timeout: Duration,

    #[command(flatten)]
    key: KeyArgs,
}

/// Runs the command.
pub(super) async fn run(args: &TunnelArgs, session: &Session) -> Result<(), Failure> {
    let ssh = args.key.to(&args.destination, args.timeout, session);
    let port = Local::Port(args.local_port);
    let forward = Forward {
        local: args.local_socket.clone().unwrap_or(port),
        to: args.to.clone(),
    };
    let listening = Termination::listen();
    let mut termination = listening
        .map_err(|error| Failure::of(Exit::Failed, "signals cannot be received", &error))?;
    let end = async {
        termination.recv().await;
    };
    let mut unwritten = Ok(());
    let heard = AtomicBool::new(false);
    let mut tell = |event| {
        heard.store(true, Ordering::Relaxed);
        let said = told(&event, args, session);
        // Whoever read the output is gone; the tunnel is for others too.
        if unwritten.is_ok() {
            unwritten = said;
        }
    };
    let keeping = nagi_ops::tunnel(&ssh, &forward, end, &mut tell);
    let ended = reach::patiently(&ssh, session, &heard, keeping).await;
    ended.map_err(|error| failure(&ssh, &forward, error))?;
    unwritten
}

fn told(event: &TunnelEvent, args: &TunnelArgs, session: &Session) -> Result<(), Failure> {
    let output = &session.output;
    let (host, to) = (&args.destination, &args.to);
    match event {
        TunnelEvent::Up {
            local,
            after,
            presented,
        } => {
            let names = presented.as_ref().map(|one| one.names.clone());
            let raw = json!({
                "event": "up", "local": local.to_string(), "host": host.to_string(), "to": to,
                "after_ms": u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
                "certificate_names": names,
            });
            output.body(&raw, Place::InSeries, |_| {
                format!("{local} is {to} at {host}")
            })?;
            if let Some(names) = names {
                let names = words::clean(&names.join(", "));
                output.note(&format!("the certificate behind it is for {names}"));
            }
            output.hint(&match local {
                Local::Port(_) => format!(
                    "nagi recover kubeconfig --api-server https://{local} shows what kubectl needs"
                ),
                Local::Socket(_) => format!(
                    "curl --unix-socket {local} reaches it; kubectl needs a port: --local-port"
                ),
            });
        }
        TunnelEvent::Unanswered { local, why } => {
            let why = words::clean(&far_end(why, to));
            let raw = json!({ "event": "unanswered", "local": local.to_string(), "why": why });
            beside(&raw, session)?;
            output.warn(&format!("the tunnel is back, and {why}"));
        }
        TunnelEvent::Lost { said, again_in } => {
            let again_ms = u64::try_from(again_in.as_millis()).unwrap_or(u64::MAX);
            let said = words::clean(said);
            let raw = json!({ "event": "lost", "said": said, "again_in_ms": again_ms });
            beside(&raw, session)?;
            output.warn(&format!(
                "the tunnel broke ({said}); again in {}",
                words::took(*again_in)
            ));
        }
        TunnelEvent::Said(line) => output.note(&format!("ssh: {}", words::clean(line))),
    }
    Ok(())
}

/// For programs; people read the same on stderr.
fn beside(raw: &Value, session: &Session) -> Result<(), Failure> {
    match session.output.format() {
        Format::Table | Format::Wide => Ok(()),
        Format::Json | Format::Yaml => session.output.body(raw, Place::InSeries, |_| String::new()),
    }
}

fn failure(ssh: &nagi_ops::Ssh, forward: &Forward, error: TunnelError) -> Failure {
    let host = &ssh.destination;
    match error {
        TunnelError::Taken { local, listener } => {
            let who = listener.map_or_else(
                || "somebody, whom only root sees,".to_owned(),
                |(pid, name)| format!("{name} (process {pid})"),
            );
            Failure::new(
                Exit::Conflict,
                format!("{who} listens on {} of this machine", place(&local)),
            )
            .hint(another(&local))
        }
        TunnelError::Local { local, source } => {
            let message = format!("{} of this machine cannot be had", place(&local));
            Failure::of(Exit::Failed, message, &source).hint(another(&local))
        }
        TunnelError::Run(error) => Failure::of(Exit::Failed, "ssh cannot be run", &error),
        TunnelError::Ssh { fault, said } => reach::failure(ssh, fault, &said),
        TunnelError::FarEnd(why) => {
            let hint = match &why {
                FarEnd::Prohibited(_) => {
                    "AllowTcpForwarding and PermitOpen in its sshd_config say what it allows"
                        .to_owned()
                }
                FarEnd::Refused(_) | FarEnd::Silent => {
                    format!("nagi recover diagnose --ssh {host}")
                }
                FarEnd::NoTls(_) => "--to names host and port of the API server".to_owned(),
            };
            let said = match &why {
                FarEnd::Refused(line) | FarEnd::Prohibited(line) | FarEnd::NoTls(line) => {
                    line.clone()
                }
                FarEnd::Silent => String::new(),
            };
            let what = far_end(&why, &forward.to);
            let mut failure = Failure::new(
                Exit::Unreachable,
                format!("ssh to {host} works, and {what}"),
            );
            failure.causes.extend((!said.is_empty()).then_some(said));
            failure.hint(hint)
        }
    }
}

fn place(local: &Local) -> String {
    match local {
        Local::Port(port) => format!("port {port}"),
        Local::Socket(path) => format!("socket {}", path.display()),
    }
}

const fn another(local: &Local) -> &'static str {
    match local {
        Local::Port(_) => "take another one: --local-port 0 finds one that is free",
        Local::Socket(_) => {
            "take another one: --local-socket names it, in a directory that is there"
        }
    }
}

fn parse_socket(text: &str) -> Result<Local, String> {
    Local::socket(std::path::Path::new(text))
}

fn far_end(why: &FarEnd, to: &str) -> String {
    match why {
        FarEnd::Refused(_) => format!("{to} is refused at the far end"),
        FarEnd::Prohibited(_) => format!("a forward to {to} is not allowed there"),
        FarEnd::Silent => format!("{to} says nothing"),
        FarEnd::NoTls(_) => format!("{to} does not speak TLS"),
    }
}

fn parse_to(text: &str) -> Result<String, String> {
    let rule = || "must be HOST:PORT, as localhost:6443 or [::1]:6443".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(rule)?;
    let is_word = |host: &str| {
        let plain = |one: char| one.is_ascii_alphanumeric() || "-._".contains(one);
        !host.is_empty() && host.chars().all(plain)
    };
    let is_bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
    let has_port = port.parse::<u16>().is_ok_and(|port| port != 0);
    if (is_word(host) || is_bracketed) && has_port {
        Ok(text.to_owned())
    } else {
        Err(rule())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_end_is_a_host_and_a_port() {
        for right in [
            "localhost:6443",
            "10.0.3.7:6443",
            "[::1]:6443",
            "node_1.a:1",
        ] {
            assert_eq!(parse_to(right).as_deref(), Ok(right));
        }
        for wrong in [
            "6443",
            "localhost",
            "a:0",
            "a:70000",
            "a b:1",
            "::1:6443",
            "/a/socket:1",
            ":1",
        ] {
            assert!(parse_to(wrong).is_err(), "{wrong}");
        }
    }
}
