//! A tunnel to an API server that only its own machine reaches: a forward of the system's ssh, watched.
//!
//! It is up only when something behind it has answered in TLS; a forward to a port that nobody has listens just the same. After
//! a break it comes back by itself, with growing pauses, unless a person has to do something first. What it deliberately does
//! not know: who the API server is. That is verified by whoever sends credentials through it.

mod local;

use std::process::Stdio;
use std::time::Duration;

use nagi_runtime::{Backoff, Deadline, random_bits};
use tokio::time::Instant;

use crate::certificate::Certificate;
use crate::endpoint::{Handshake, HandshakeError, look};
use crate::ssh::{Asks, Running, Ssh, SshFault};
pub use local::Local;
use local::{Connection, Io};

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
    /// Where it begins.
    pub local: Local,
    /// Host and port as the far machine sees them.
    pub to: String,
}

/// What happens to a tunnel, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelEvent {
    /// It is there, and something behind it answered.
    Up {
        /// Where it begins.
        local: Local,
        /// Since it was begun, or lost.
        after: Duration,
        /// What was presented; nobody has verified it.
        presented: Option<Certificate>,
    },
    /// It is there again, and nothing behind it answers yet.
    Unanswered {
        /// Where it begins.
        local: Local,
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
    /// Somebody listens there already; who, as far as this process may see.
    Taken {
        /// Where.
        local: Local,
        /// Name and number of the process.
        listener: Option<(u32, String)>,
    },
    /// It cannot begin there.
    Local {
        /// Where.
        local: Local,
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
    let local = forward.local.free().await?;
    let mut link = None;
    let ended = {
        let keeping = keep(ssh, (&local, &forward.to), &mut link, tell);
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
        local.clear().await;
    }
    ended
}

/// Returns only with what ended it.
async fn keep(
    ssh: &Ssh,
    way: (&Local, &str),
    link: &mut Option<Running>,
    tell: &mut (dyn FnMut(TunnelEvent) + Send),
) -> TunnelError {
    let (local, _) = way;
    let mut backoff = Backoff::new(PAUSE, PAUSE_MAX, seed());
    let mut since = Instant::now();
    let mut was_up = false;
    loop {
        let mut answers = true;
        match go(ssh, way, link).await {
            Ok(presented) => {
                let after = since.elapsed();
                tell(TunnelEvent::Up {
                    local: local.clone(),
                    after,
                    presented,
                });
                backoff.reset();
                was_up = true;
            }
            // It was well once, so it is waited for: an API server that starts again.
            Err(TunnelError::FarEnd(why)) if was_up => {
                answers = false;
                tell(TunnelEvent::Unanswered {
                    local: local.clone(),
                    why,
                });
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
                    if let Some(presented) = asked_again(local, running).await {
                        answers = true;
                        let after = since.elapsed();
                        tell(TunnelEvent::Up { local: local.clone(), after, presented });
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
        TunnelError::Taken { .. } | TunnelError::Local { .. } | TunnelError::FarEnd(_) => None,
    };
    let said = said.unwrap_or_else(|| "ssh ended".to_owned());
    tell(TunnelEvent::Lost { said, again_in });
    tokio::time::sleep(again_in).await;
}

/// Starts ssh and waits until something behind it has answered. What was started is in `link`.
async fn go(
    ssh: &Ssh,
    (local, to): (&Local, &str),
    link: &mut Option<Running>,
) -> Result<Option<Certificate>, TunnelError> {
    if let Some(old) = link.take() {
        old.end().await;
    }
    // A socket is for its user alone. What lies where it is to be is not for ssh to remove.
    local.clear().await;
    let options = "ExitOnForwardFailure=yes StreamLocalBindMask=0177 StreamLocalBindUnlink=no";
    let options = options.split(' ').flat_map(|option| ["-o", option]);
    let way = local.forward(to);
    let arguments = ["-N"].into_iter().chain(options).chain(["-L", &way]);
    let arguments: Vec<_> = arguments.map(Into::into).collect();
    let started = ssh.start(&arguments, None, [Stdio::null(), Stdio::null()]);
    let running = link.insert(started.map_err(TunnelError::Run)?);
    let come_up = connected(running, local);
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
async fn connected(running: &mut Running, local: &Local) -> Result<Box<dyn Io>, TunnelError> {
    loop {
        // Whoever listens is the ssh that was started, as far as that can be seen, and not somebody who was faster.
        if let Ok(Connection { stream, listener }) = local.connect().await
            && (listener.is_none() || listener == running.child.id())
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

/// What answers now behind a tunnel that is there.
async fn asked_again(local: &Local, running: &mut Running) -> Option<Option<Certificate>> {
    let connection = local.connect().await.ok()?;
    answered(connection.stream, running).await.ok()
}

/// What answers behind the tunnel.
async fn answered(
    stream: Box<dyn Io>,
    running: &mut Running,
) -> Result<Option<Certificate>, FarEnd> {
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
        TunnelError::Taken { .. }
        | TunnelError::Local { .. }
        | TunnelError::FarEnd(FarEnd::Prohibited(_)) => true,
        TunnelError::Ssh { fault, .. } => fault.is_lasting(),
        TunnelError::Run(_) | TunnelError::FarEnd(_) => false,
    }
}

/// Half of what is random fits.
fn seed() -> u64 {
    u64::try_from(random_bits() >> 64).unwrap_or_default()
}
