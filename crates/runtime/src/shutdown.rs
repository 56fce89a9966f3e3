//! The phase of the shutdown, told to everybody who holds a token.
//!
//! A `watch` channel carries one of three phases that only ever go forward. Tokens are cheap to clone
//! and to wait on; a token outlives its supervisor, and then reads as stopped.
//! It deliberately cannot start a shutdown: only the [`Supervisor`](crate::Supervisor) does.

use tokio::sync::watch;

/// How far the shutdown of the process has come. Phases only go forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Normal work.
    Running,
    /// Stop accepting, fail readiness, finish what was accepted.
    Draining,
    /// What was accepted is finished or cut: release leases, write the last lines, end.
    Stopped,
}

/// A cloneable token that says which [`Phase`] the process is in.
#[derive(Debug, Clone)]
pub struct Shutdown {
    phase: watch::Receiver<Phase>,
}

/// The writing end, held by the supervisor.
#[derive(Debug)]
pub(crate) struct ShutdownControl {
    phase: watch::Sender<Phase>,
}

// === impl Shutdown ===

impl Shutdown {
    /// A token that never leaves [`Phase::Running`] while the process lives: for work that has no
    /// supervisor, such as a single command of the CLI.
    pub fn never() -> Self {
        // The sender is leaked on purpose, once for the process: a dropped sender means "stopped".
        static NEVER: std::sync::OnceLock<watch::Sender<Phase>> = std::sync::OnceLock::new();
        let sender = NEVER.get_or_init(|| watch::Sender::new(Phase::Running));
        Self {
            phase: sender.subscribe(),
        }
    }

    /// The phase now. A token whose supervisor is gone reads as [`Phase::Stopped`].
    pub fn phase(&self) -> Phase {
        if self.phase.has_changed().is_err() {
            return Phase::Stopped;
        }
        *self.phase.borrow()
    }

    /// True from the moment the process began to drain, also after it stopped.
    pub fn is_draining(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// Waits until the process drains; at once if it already does. Cancel-safe.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until serving tasks have ended or were cut; at once if that has passed. Cancel-safe.
    pub async fn stopped(&self) {
        self.reached(Phase::Stopped).await;
    }

    async fn reached(&self, wanted: Phase) {
        let mut phase = self.phase.clone();
        // An error means that the supervisor is gone, which is the last phase.
        drop(phase.wait_for(|now| *now >= wanted).await);
    }
}

// === impl ShutdownControl ===

impl ShutdownControl {
    pub(crate) fn new() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Running),
        }
    }

    pub(crate) fn token(&self) -> Shutdown {
        Shutdown {
            phase: self.phase.subscribe(),
        }
    }

    /// Moves forward to `phase`; never back.
    pub(crate) fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let forward = phase > *now;
            if forward {
                *now = phase;
            }
            forward
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn token_waits_for_its_phase_and_phases_only_go_forward() {
        let control = ShutdownControl::new();
        let token = control.token();
        assert_eq!(token.phase(), Phase::Running);
        assert!(!token.is_draining());

        control.advance(Phase::Draining);
        token.draining().await;
        assert!(token.is_draining());
        assert_eq!(token.phase(), Phase::Draining);

        control.advance(Phase::Stopped);
        control.advance(Phase::Draining);
        token.stopped().await;
        assert_eq!(token.phase(), Phase::Stopped);
        assert!(token.is_draining());
    }

    #[tokio::test]
    async fn token_without_its_supervisor_reads_as_stopped() {
        let control = ShutdownControl::new();
        let token = control.token();
        drop(control);
        token.stopped().await;
        assert_eq!(token.phase(), Phase::Stopped);
    }

    #[tokio::test]
    async fn never_stays_running() {
        assert_eq!(Shutdown::never().phase(), Phase::Running);
        let token = Shutdown::never();
        tokio::select! {
            biased; // The order is the test: were the token ready, it would win.
            // Cancel-safe: waiting on a watch channel loses nothing.
            () = token.draining() => unreachable!("never drains"),
            () = std::future::ready(()) => {}
        }
    }
}
