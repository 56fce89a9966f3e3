//! The phase of the shutdown, told to everybody who holds a token.
//!
//! A `watch` channel carries one of three phases that only ever go forward, and from draining on the end of the grace
//! period. Tokens are cheap to clone and to wait on; a token outlives its supervisor, and then reads as stopped.
//! It deliberately cannot start a shutdown: only the [`Supervisor`](crate::Supervisor) does.

use tokio::sync::watch;

use crate::Deadline;

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
    state: watch::Receiver<State>,
}

/// The writing end, held by the supervisor.
#[derive(Debug)]
pub(crate) struct ShutdownControl {
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    deadline: Option<Deadline>,
}

/// How every process begins.
const RUNNING: State = State {
    phase: Phase::Running,
    deadline: None,
};

// === impl Shutdown ===

impl Shutdown {
    /// A token that never leaves [`Phase::Running`] while the process lives: for work that has no
    /// supervisor, such as a single command of the CLI.
    pub fn never() -> Self {
        // The sender is leaked on purpose, once for the process: a dropped sender means "stopped".
        static NEVER: std::sync::OnceLock<watch::Sender<State>> = std::sync::OnceLock::new();
        let sender = NEVER.get_or_init(|| watch::Sender::new(RUNNING));
        Self {
            state: sender.subscribe(),
        }
    }

    /// The phase now. A token whose supervisor is gone reads as [`Phase::Stopped`].
    pub fn phase(&self) -> Phase {
        if self.state.has_changed().is_err() {
            return Phase::Stopped;
        }
        self.state.borrow().phase
    }

    /// When the grace period ends and what still runs is cut; `None` before the process drains.
    pub fn deadline(&self) -> Option<Deadline> {
        self.state.borrow().deadline
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
        let mut state = self.state.clone();
        // An error means that the supervisor is gone, which is the last phase.
        drop(state.wait_for(|now| now.phase >= wanted).await);
    }
}

// === impl ShutdownControl ===

impl ShutdownControl {
    pub(crate) fn new() -> Self {
        Self {
            state: watch::Sender::new(RUNNING),
        }
    }

    pub(crate) fn token(&self) -> Shutdown {
        Shutdown {
            state: self.state.subscribe(),
        }
    }

    /// Begins to drain, with a grace period until `deadline`.
    pub(crate) fn drain(&self, deadline: Deadline) {
        self.state.send_modify(|now| now.deadline = Some(deadline));
        self.advance(Phase::Draining);
    }

    /// Moves forward to `phase`; never back.
    pub(crate) fn advance(&self, phase: Phase) {
        self.state.send_if_modified(|now| {
            let forward = phase > now.phase;
            if forward {
                now.phase = phase;
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
        assert_eq!(token.deadline(), None);

        let deadline = Deadline::in_(std::time::Duration::from_secs(30));
        control.drain(deadline);
        token.draining().await;
        assert!(token.is_draining());
        assert_eq!(token.deadline(), Some(deadline));
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
