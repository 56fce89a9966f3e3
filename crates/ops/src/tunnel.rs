//! A tunnel to an API server that only its own machine reaches: a forward of the system's ssh, watched.
//!
//! It is up only when something behind it has answered in TLS; a forward to a port that nobody has listens just the same. After
//! a break it comes back by itself, with growing pauses, unless a person has to do something first. What it deliberately does
//! not know: who the API server is. That is verified by whoever sends credentials through it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nagi_runtime::{Backoff, Deadline, random_bits};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::certificate::Certificate;
use crate::endpoint::{Handshake, HandshakeError, look};
use crate::listeners;
use crate::ssh::{Asks, Running, Ssh, SshFault};

/// Between two looks whether ssh listens. A refused connect on loopback takes microseconds.
const LOOK: Duration = Duration::from_millis(10);
/// An API server shakes hands within milliseconds, and the bar for saying that nobody does is 2 s in all.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1500);
/// ssh says why a forward failed in the packet that it then closes the connection for.
const SAYS_WITHIN: Duration = Duration::from_millis(200);
/// ssh has this long beyond its own limit for connecting, to prove who it is.
const PROVES_WITHIN: Duration = Duration::from_secs(5);
/// Ctrl-C at a terminal reaches ssh too, which may end before the signal is seen here.
const INTERRUPT: Duration = Duration::from_millis(100);
/// While nothing behind it answers, it is asked again so often.
const ASKED_AGAIN: Duration = Duration::from_secs(2);
/// The first pause after a break, and the longest: a machine that starts again takes about a minute.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What is forwarded where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The port on this machine, on 127.0.0.1; 0 takes one that is free.
    pub port: u16,
    /// Host and port as the far machine sees them.
    pub to: String,
}

/// What happens to a tunnel, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelEvent {
    /// It is there, and something behind it answered.
    Up {
        /// The port on this machine.
        port: u16,
        /// Since it was begun, or lost.
        after: Duration,
        /// What was presented; nobody has verified it.
        presented: Option<Certificate>,
    },
    /// It is there again, and nothing behind it answers yet.
    Unanswered {
        /// The port on this machine.
        port: u16,
        /// What was seen.
        why: FarEnd,
    },
    /// It broke.
    Lost {
        /// What ssh said.
        said: String,
        /// It is tried again after this.
        again_in: Duration,
    },
    /// ssh says something, while the tunnel is there.
    Said(String),
}

/// What is wrong behind a tunnel that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FarEnd {
    /// The far machine reaches nobody there; what ssh says of it.
    Refused(String),
    /// The far machine may not forward; what ssh says of it.
    Prohibited(String),
    /// Somebody takes the connection and says nothing.
    Silent,
    /// Somebody answers, and not in TLS.
    NoTls(String),
}

/// Why there is no tunnel.
#[derive(Debug)]
pub enum TunnelError {
    /// The port on this machine is taken, by whom, as far as this process may see.
    PortTaken {
        /// The port.
        port: u16,
        /// Name and number of the process.
        listener: Option<(u32, String)>,
    },
    /// The port on this machine cannot be had.
    Port {
        /// The port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// ssh cannot be run or watched.
    Run(std::io::Error),
    /// ssh ended, or did not come up in time.
    Ssh {
        /// Why.
        fault: SshFault,
        /// What it said.
        said: Vec<String>,
    },
    /// ssh is there, and nothing behind it answers.
    FarEnd(FarEnd),
}

/// Keeps a tunnel until `end`, and returns when nothing of it is left. Its end before is an error.
///
/// # Errors
/// It does not come up, or broke and needs a person.
pub async fn tunnel(
    ssh: &Ssh,
    forward: &Forward,
    end: impl Future<Output = ()>,
    tell: &mut (dyn FnMut(TunnelEvent) + Send),
) -> Result<(), TunnelError> {
    let mut link = None;
    let ended = {
        let keeping = keep(ssh, forward, &mut link, tell);
        tokio::select! {
            // Cancel-safe: what must not be lost is in `link`, which is ended below.
            // In this order, so that the end of ssh by the same Ctrl-C is no break.
            biased;
            () = end => Ok(()),
            // Cancel-safe: as above.
            error = keeping => Err(error),
        }
    };
    if let Some(link) = link {
        Running::end(link).await;
    }
    ended
}

/// Returns only with what ended it.
async fn keep(
    ssh: &Ssh,
    forward: &Forward,
    link: &mut Option<Running>,
    tell: &mut (dyn FnMut(TunnelEvent) + Send),
) -> TunnelError {
    let port = match free_port(forward.port).await {
        Ok(port) => port,
        Err(error) => return error,
    };
    let mut backoff = Backoff::new(PAUSE, PAUSE_MAX, seed());
    let mut since = Instant::now();
    let mut was_up = false;
    loop {
        let mut answers = true;
        match go(ssh, forward, port, link).await {
            Ok(presented) => {
                let after = since.elapsed();
                tell(TunnelEvent::Up {
                    port,
                    after,
                    presented,
                });
                backoff.reset();
                was_up = true;
            }
            // It was well once, so it is waited for: an API server that starts again.
            Err(TunnelError::FarEnd(why)) if was_up => {
                answers = false;
                tell(TunnelEvent::Unanswered { port, why });
                backoff.reset();
            }
            Err(error) if !was_up || is_lasting(&error) => return error,
            Err(error) => {
                pause(&error, &mut backoff, tell).await;
                continue;
            }
        }
        let Some(running) = link else { continue };
        // What a forward or a login said before is no reason for a later end.
        running.forget();
        loop {
            let said = tokio::select! {
                // Cancel-safe: `next_line` is.
                said = running.next_line() => said,
                // Cancel-safe: a pause.
                () = tokio::time::sleep(ASKED_AGAIN), if !answers => {
                    if let Some(presented) = asked_again(port, running).await {
                        answers = true;
                        let after = since.elapsed();
                        tell(TunnelEvent::Up { port, after, presented });
                    }
                    running.forget();
                    continue;
                }
            };
            match said {
                // What ssh says of each look is known.
                Some(said) if answers => tell(TunnelEvent::Said(said)),
                Some(_) => {}
                None => break,
            }
        }
        let error = match running.ended().await {
            Ok(_) => of_said(running),
            Err(error) => TunnelError::Run(error),
        };
        since = Instant::now();
        *link = None;
        tokio::time::sleep(INTERRUPT).await;
        if is_lasting(&error) {
            return error;
        }
        pause(&error, &mut backoff, tell).await;
    }
}

async fn pause(
    error: &TunnelError,
    backoff: &mut Backoff,
    tell: &mut (dyn FnMut(TunnelEvent) + Send),
) {
    let again_in = backoff.next_delay();
    let said = match error {
        TunnelError::Ssh { fault, said } => fault.line(said).cloned(),
        TunnelError::Run(error) => Some(error.to_string()),
        TunnelError::PortTaken { .. } | TunnelError::Port { .. } | TunnelError::FarEnd(_) => None,
    };
    let said = said.unwrap_or_else(|| "ssh ended".to_owned());
    tell(TunnelEvent::Lost { said, again_in });
    tokio::time::sleep(again_in).await;
}

/// Starts ssh and waits until something behind it has answered. What was started is in `link`.
async fn go(
    ssh: &Ssh,
    forward: &Forward,
    port: u16,
    link: &mut Option<Running>,
) -> Result<Option<Certificate>, TunnelError> {
    if let Some(old) = link.take() {
        old.end().await;
    }
    let way = format!("{}:{port}:{}", Ipv4Addr::LOCALHOST, forward.to);
    let arguments = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", &way].map(Into::into);
    let started = ssh.start(&arguments, None, [Stdio::null(), Stdio::null()]);
    let running = link.insert(started.map_err(TunnelError::Run)?);
    let come_up = connected(running, port);
    let stream = match ssh.asks {
        // Whoever types a passphrase takes as long as that takes.
        Asks::Somebody => come_up.await,
        Asks::Nobody => {
            let deadline = Deadline::in_(ssh.patience + PROVES_WITHIN);
            let silent = Err(TunnelError::Ssh {
                fault: SshFault::TimedOut,
                said: Vec::new(),
            });
            deadline.timeout(come_up).await.unwrap_or(silent)
        }
    }?;
    answered(stream, running).await.map_err(TunnelError::FarEnd)
}

/// Waits until ssh listens, and connects.
async fn connected(running: &mut Running, port: u16) -> Result<TcpStream, TunnelError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    loop {
        if let Ok(stream) = TcpStream::connect(address).await
            // A port that nobody has may be given to the very connection that looks for it.
            && stream.local_addr().ok() != Some(address)
            && is_own(running, port)
        {
            return Ok(stream);
        }
        tokio::select! {
            // Cancel-safe: `next_line` and `wait` are.
            status = running.ended() => {
                status.map_err(TunnelError::Run)?;
                return Err(of_said(running));
            }
            // Cancel-safe: a pause.
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Whoever listens is the ssh that was started, as far as that can be seen, and not somebody who was faster.
fn is_own(running: &Running, port: u16) -> bool {
    let all = listeners::look(Path::new("/proc")).unwrap_or_default();
    let found = all.into_iter().find(|one| one.port == port);
    let owner = found.and_then(|one| one.process).map(|(pid, _)| pid);
    owner.is_none() || owner == running.child.id()
}

/// What answers now behind a tunnel that is there.
async fn asked_again(port: u16, running: &mut Running) -> Option<Option<Certificate>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    answered(stream, running).await.ok()
}

/// What answers behind the tunnel.
async fn answered(stream: TcpStream, running: &mut Running) -> Result<Option<Certificate>, FarEnd> {
    drop(stream.set_nodelay(true));
    let deadline = Deadline::in_(ANSWERS_WITHIN);
    let Handshake { stream, presented } = look(stream, "kubernetes", deadline).await;
    match stream.err() {
        // It has refused the certificate, so one was presented.
        _ if presented.is_some() => Ok(presented),
        Some(HandshakeError::Closed) => {
            let is_why = |line: &str| line.contains("open failed");
            running.listen(SAYS_WITHIN, is_why).await;
            let said = running.said();
            let fault = SshFault::of(&said);
            let line = fault.line(&said).cloned().unwrap_or_default();
            Err(if fault == SshFault::Prohibited {
                FarEnd::Prohibited(line)
            } else {
                FarEnd::Refused(line)
            })
        }
        Some(HandshakeError::TimedOut) => Err(FarEnd::Silent),
        Some(HandshakeError::Failed(why)) => Err(FarEnd::NoTls(why)),
        // It speaks TLS, whatever it says.
        Some(_) | None => Ok(None),
    }
}

fn of_said(running: &Running) -> TunnelError {
    let said = running.said();
    TunnelError::Ssh {
        fault: SshFault::of(&said),
        said,
    }
}

const fn is_lasting(error: &TunnelError) -> bool {
    match error {
        TunnelError::PortTaken { .. }
        | TunnelError::Port { .. }
        | TunnelError::FarEnd(FarEnd::Prohibited(_)) => true,
        TunnelError::Ssh { fault, .. } => fault.is_lasting(),
        TunnelError::Run(_) | TunnelError::FarEnd(_) => false,
    }
}

/// The port, if it can be had; one that is free for 0. ssh binds it itself, and says when somebody was faster.
async fn free_port(port: u16) -> Result<u16, TunnelError> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    match bound.and_then(|listener| listener.local_addr()) {
        Ok(address) => Ok(address.port()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let all = listeners::look(Path::new("/proc")).unwrap_or_default();
            let found = all.into_iter().find(|one| one.port == port);
            Err(TunnelError::PortTaken {
                port,
                listener: found.and_then(|one| one.process),
            })
        }
        Err(source) => Err(TunnelError::Port { port, source }),
    }
}

/// Half of what is random fits.
fn seed() -> u64 {
    u64::try_from(random_bits() >> 64).unwrap_or_default()
}
