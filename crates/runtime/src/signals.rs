//! The signals that this process listens to.
//!
//! [`Termination`] turns SIGINT and SIGTERM into futures, [`Reload`] SIGHUP into a sequence. Both are
//! registered when they are made, before anything is started, so that no early signal kills the
//! process halfway. It deliberately does nothing by itself: the supervisor and the owner of the
//! configuration act.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal handler could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for {signal}")]
pub struct SignalError {
    signal: &'static str,
    #[source]
    source: io::Error,
}

/// SIGINT and SIGTERM, each time one arrives.
#[derive(Debug)]
pub struct Termination {
    interrupt: Signal,
    terminate: Signal,
}

/// SIGHUP, each time it arrives. Several that arrive at once are seen as one.
#[derive(Debug)]
pub struct Reload {
    hangup: Signal,
}

fn listen(kind: SignalKind, name: &'static str) -> Result<Signal, SignalError> {
    signal(kind).map_err(|source| SignalError {
        signal: name,
        source,
    })
}

/// Waits for the signal; forever if no more can come.
async fn next(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

// === impl Termination ===

impl Termination {
    /// Starts to listen. Must be called inside a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub fn listen() -> Result<Self, SignalError> {
        let interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
        let terminate = listen(SignalKind::terminate(), "SIGTERM")?;
        Ok(Self {
            interrupt,
            terminate,
        })
    }

    /// Waits for the next one and returns its name. Cancel-safe: a signal that arrives between two
    /// calls is kept.
    pub async fn recv(&mut self) -> &'static str {
        tokio::select! {
            // Cancel-safe: `Signal::recv` keeps a signal that was not taken.
            () = next(&mut self.interrupt) => "SIGINT",
            // Cancel-safe: as above.
            () = next(&mut self.terminate) => "SIGTERM",
        }
    }
}

// === impl Reload ===

impl Reload {
    /// Starts to listen. Must be called inside a tokio runtime with I/O enabled. From then on SIGHUP
    /// no longer ends the process.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub fn listen() -> Result<Self, SignalError> {
        Ok(Self {
            hangup: listen(SignalKind::hangup(), "SIGHUP")?,
        })
    }

    /// Waits for the next SIGHUP. Cancel-safe: one that arrives between two calls is kept.
    pub async fn recv(&mut self) {
        next(&mut self.hangup).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
    }

    #[tokio::test]
    async fn each_termination_signal_is_seen_once_and_by_name() {
        let mut termination = Termination::listen().unwrap();
        send(rustix::process::Signal::TERM);
        assert_eq!(termination.recv().await, "SIGTERM");
        send(rustix::process::Signal::INT);
        assert_eq!(termination.recv().await, "SIGINT");
    }

    #[tokio::test]
    async fn hangup_is_kept_until_it_is_asked_for() {
        let mut reload = Reload::listen().unwrap();
        send(rustix::process::Signal::HUP);
        reload.recv().await;
    }
}
