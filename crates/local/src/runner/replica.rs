//! One replica as the runner keeps it: where it is in its life, and how often it ended by itself.

use std::time::Duration;

use nagi_core::wake::Stage;
use nagi_core::workload::Pending;
use tokio::sync::watch;

use super::attempt::Attempt;
use crate::engine::facts::ReplicaFacts;
use crate::engine::shared::Description;
use crate::shim::record::Launch;
use crate::world::{Occupant, Place, ReplicaId};

/// The pause after the first end of a replica by itself; it doubles with each further one. The core gives a wake up
/// after three of them, and says three seconds for that.
const REST_FIRST: Duration = Duration::from_secs(1);
/// The longest pause: a replica that cannot run costs one start a minute.
const REST_MAX: Duration = Duration::from_mins(1);
/// A replica that ran this long was well; its next end is a first one again.
const STABLE: Duration = Duration::from_mins(1);

/// Why a replica does not serve that did: its port is closed, or its readiness path is not answered, or not with success.
const UNANSWERED: &str = "a replica that served does not answer its readiness check any more";

/// A replica.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) digest: String,
    pub(super) place: Place,
    pub(super) life: Life,
    /// How often it was started again after it ended by itself.
    pub(super) restarts: u32,
    /// How often it ended by itself without having run for long.
    streak: u32,
    /// How it ended last.
    pub(super) last_exit: Option<String>,
}

/// Where a replica is in its life. Times are monotonic.
#[derive(Debug)]
pub(super) enum Life {
    /// Waits for a node.
    Waiting,
    /// Ended by itself and starts again later.
    Resting {
        /// When.
        until: Duration,
    },
    /// Has processes, or is about to.
    Running(Box<Running>),
}

/// The attempt that is under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) launch: Launch,
    /// Since when.
    pub(super) since: Duration,
    /// The supervisor is there.
    pub(super) started: bool,
    /// It serves.
    pub(super) ready: bool,
    /// It has served before: when it does not now, it is not its start that takes so long.
    pub(super) served: bool,
    /// Why it does not serve, as far as its answers tell.
    pub(super) unready: Option<String>,
    /// The order to stop, with the grace period.
    pub(super) stop: watch::Sender<Option<Duration>>,
}

// === impl Running ===

impl Running {
    /// How long it may take to stop: as the file states it now. A workload that is no longer described keeps the grace it
    /// was started with.
    pub(super) fn grace(&self, description: Option<&Description>) -> Duration {
        description.map_or(
            Duration::from_millis(self.launch.stop_grace_ms),
            |described| described.spec.stop_grace,
        )
    }
}

// === impl Replica ===

impl Replica {
    /// A replica that has no node yet.
    pub(super) fn waiting(digest: String, now: Duration) -> Self {
        let place = Place::Waiting { since: now };
        Self {
            digest,
            place,
            life: Life::Waiting,
            restarts: 0,
            streak: 0,
            last_exit: None,
        }
    }

    /// A replica of an earlier engine.
    pub(super) fn adopted(place: Place, running: Running) -> Self {
        Self {
            digest: running.launch.digest.clone(),
            place,
            restarts: running.launch.restarts,
            life: Life::Running(Box::new(running)),
            streak: 0,
            last_exit: None,
        }
    }

    /// As the planner sees it.
    pub(super) fn occupant(&self, id: &ReplicaId) -> Occupant {
        Occupant {
            id: id.clone(),
            digest: self.digest.clone(),
            place: self.place.clone(),
            ready: self.is_ready(),
            stopping: self.is_stopping(),
        }
    }

    /// As others see it. `waiting` is the planner's reason why it has no node.
    pub(super) fn facts(&self, id: &ReplicaId, waiting: Option<&Pending>) -> ReplicaFacts {
        let (stage, address) = match &self.life {
            Life::Waiting => match waiting {
                Some(Pending::NodeBooting { .. }) => (Stage::NodeJoining, None),
                Some(_) | None => (Stage::WaitingForNode, None),
            },
            Life::Resting { .. } => (Stage::Starting, None),
            Life::Running(running) => {
                let stage = if running.ready {
                    Stage::Ready
                } else {
                    Stage::Starting
                };
                (
                    stage,
                    Attempt::address(&running.launch).filter(|_| running.started),
                )
            }
        };
        ReplicaFacts {
            id: id.clone(),
            stage,
            address,
            ready: self.is_ready(),
            stopping: self.is_stopping(),
            restarts: self.restarts,
        }
    }

    /// Why it does not serve, beside having no node.
    pub(super) fn pending(&self) -> Option<Pending> {
        if self.is_ready() || self.is_stopping() {
            return None;
        }
        match (&self.life, &self.last_exit) {
            (Life::Waiting, _) => None,
            (Life::Resting { .. } | Life::Running(_), Some(last_exit)) => {
                Some(Pending::CrashLoop {
                    restarts: self.restarts,
                    last_exit: last_exit.clone(),
                })
            }
            (Life::Running(running), None) => Some(match (running.served, &running.unready) {
                (true, None) => Pending::Engine(UNANSWERED.to_owned()),
                (true, Some(why)) => Pending::Engine(format!("{UNANSWERED}: {why}")),
                (false, None) => Pending::Starting,
                (false, Some(why)) => Pending::Unready(why.clone()),
            }),
            (Life::Resting { .. }, None) => Some(Pending::Starting),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(&self.life, Life::Running(running) if running.ready)
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(&self.life, Life::Running(running) if running.stop.borrow().is_some())
    }

    /// The port it listens on, or will.
    pub(super) fn port(&self) -> Option<u16> {
        match &self.life {
            Life::Waiting | Life::Resting { .. } => None,
            Life::Running(running) => running.launch.port,
        }
    }

    /// It ended by itself after having run for `ran`: counts it, and says when to start it again.
    pub(super) fn rest(&mut self, ran: Duration, last_exit: String, now: Duration) {
        self.streak = if ran >= STABLE {
            1
        } else {
            self.streak.saturating_add(1)
        };
        self.restarts = self.restarts.saturating_add(1);
        self.last_exit = Some(last_exit);
        self.life = Life::Resting {
            until: now + rest_after(self.streak),
        };
    }
}

/// The pause after the n-th end by itself in a row.
fn rest_after(streak: u32) -> Duration {
    let doubled = 2_u32.checked_pow(streak.saturating_sub(1));
    doubled
        .and_then(|factor| REST_FIRST.checked_mul(factor))
        .unwrap_or(REST_MAX)
        .min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_to_a_minute_and_starts_over_after_a_minute_of_health() {
        let pauses: Vec<_> = (1..=9).map(|streak| rest_after(streak).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(rest_after(u32::MAX), REST_MAX);
        let mut replica = Replica::waiting(String::new(), Duration::ZERO);
        let until = |replica: &Replica| match replica.life {
            Life::Resting { until } => until.as_secs(),
            Life::Waiting | Life::Running(_) => panic!("rests"),
        };
        replica.rest(
            Duration::ZERO,
            "exit code 1".into(),
            Duration::from_secs(100),
        );
        assert_eq!(until(&replica), 101);
        replica.rest(
            STABLE.mul_f32(0.99),
            "exit code 1".into(),
            Duration::from_secs(200),
        );
        assert_eq!(until(&replica), 202);
        replica.rest(STABLE, "exit code 1".into(), Duration::from_mins(5));
        assert_eq!(until(&replica), 301);
        assert_eq!(replica.restarts, 3);
        let why = replica.pending().unwrap().to_string();
        assert_eq!(
            why,
            "a replica ended by itself (exit code 1), started again 3 times"
        );
    }
}
