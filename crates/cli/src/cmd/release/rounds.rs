//! Rounds over the workloads until nothing of ours is left on them: look, judge, act, look again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nagi_core::id::WorkloadId;
use nagi_core::intent::Actor;
use nagi_core::release::{self, Step};
use nagi_core::scale::Plan;
use nagi_core::workload::Workload;
use nagi_kube::KubeEngine;
use nagi_ports::{Clock, PortError, Unread, Workloads as _, each};
use nagi_runtime::Deadline;
use tokio::time::Instant;

use super::Patience;
use crate::output::Output;
use crate::progress::Progress;

/// Between two rounds.
const LOOK: Duration = Duration::from_millis(500);

/// What there is to go over, and how.
pub(super) struct Rounds<'r> {
    pub(super) engine: &'r KubeEngine,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) actor: Actor,
    /// `None`: all.
    pub(super) only: Option<WorkloadId>,
    pub(super) patience: Patience,
}

/// What became of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: WorkloadId,
    pub(super) state: State,
    /// To how many replicas it was, or would be, woken.
    pub(super) woken_to: Option<u32>,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing of ours is left on it.
    Released,
    /// It would be released.
    WouldRelease,
    /// It does not serve yet, or the write has to be done again; what is in the way.
    Waiting(String),
    /// A person must decide, and why.
    Stuck(String),
    /// The cluster refuses the change, in its words.
    Refused(String),
}

// === impl State ===

impl State {
    pub(super) const fn is_well(&self) -> bool {
        match self {
            Self::Released | Self::WouldRelease => true,
            Self::Waiting(_) | Self::Stuck(_) | Self::Refused(_) => false,
        }
    }

    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::WouldRelease => "would release",
            Self::Waiting(_) => "waiting",
            Self::Stuck(_) => "stuck",
            Self::Refused(_) => "refused",
        }
    }

    pub(super) fn detail(&self) -> Option<&str> {
        match self {
            Self::Released | Self::WouldRelease => None,
            Self::Waiting(text) | Self::Stuck(text) | Self::Refused(text) => Some(text),
        }
    }

    /// Nothing more is done about it.
    const fn is_final(&self) -> bool {
        match self {
            Self::Released | Self::Stuck(_) | Self::Refused(_) => true,
            Self::WouldRelease | Self::Waiting(_) => false,
        }
    }
}

// === impl Rounds ===

impl Rounds<'_> {
    /// What would be done, on the facts of one look.
    pub(super) fn rehearse(&self, all: &[Arc<Workload>]) -> Vec<Row> {
        let rows = self.wanted(all).filter_map(|workload| {
            let row = |state, woken_to| Row {
                id: workload.id.clone(),
                state,
                woken_to,
            };
            Some(match self.judge(workload) {
                Step::Nothing => return None,
                Step::Wake(plan) => row(State::WouldRelease, Some(plan.to.0)),
                Step::Wait | Step::LetGo => row(State::WouldRelease, None),
                Step::Stuck(why) => row(State::Stuck(why.to_string()), None),
            })
        });
        rows.collect()
    }

    /// Goes round until all are released, or can only be by a person, or `time` is over. Returns the kinds that could not be
    /// read in the last round, too.
    ///
    /// # Errors
    /// The cluster refuses to list, or could not be asked at the end of the time.
    pub(super) async fn run(
        &self,
        time: Duration,
        output: &Output,
    ) -> Result<(Vec<Row>, Vec<Unread>), PortError> {
        let (deadline, begun) = (Deadline::in_(time), Instant::now());
        let mut progress = Progress::new(output);
        let mut rows: BTreeMap<WorkloadId, Row> = BTreeMap::new();
        let mut unread = Vec::new();
        loop {
            let mut all = Vec::new();
            match each(self.engine, |workload| all.push(workload)).await {
                Ok(kinds) => {
                    unread = kinds;
                    self.round(&all, &mut rows, &mut progress, begun).await;
                    let open = rows.values().find(|row| !row.state.is_final());
                    let Some(open) = open else { break };
                    let why = open.state.detail().unwrap_or_default();
                    progress.current(begun.elapsed(), &format!("{}: {why}", open.id));
                }
                Err(error) if error.is_retryable() && !deadline.has_passed() => {
                    progress.current(begun.elapsed(), &error.to_string());
                }
                Err(error) => return Err(error),
            }
            if deadline.has_passed() {
                break;
            }
            tokio::time::sleep(LOOK.min(deadline.remaining())).await;
        }
        Ok((rows.into_values().collect(), unread))
    }

    async fn round(
        &self,
        all: &[Arc<Workload>],
        rows: &mut BTreeMap<WorkloadId, Row>,
        progress: &mut Progress<'_>,
        begun: Instant,
    ) {
        // What is gone needs nothing more.
        for row in rows.values_mut().filter(|row| !row.state.is_final()) {
            if !all.iter().any(|workload| workload.id == row.id) {
                row.state = State::Released;
            }
        }
        for workload in self.wanted(all) {
            let known = rows.get(&workload.id);
            // Whoever puts it to sleep again meanwhile has it woken again.
            if known.is_some_and(|row| row.state.is_final() && row.state != State::Released) {
                continue;
            }
            let step = self.judge(workload);
            if step == Step::Nothing && known.is_none() {
                continue;
            }
            let (state, woken_to) = self.act(workload, step).await;
            let row = rows.entry(workload.id.clone()).or_insert_with(|| Row {
                id: workload.id.clone(),
                state: State::Waiting(String::new()),
                woken_to: None,
            });
            if let Some(count) = woken_to {
                row.woken_to = Some(count);
                progress.step(begun.elapsed(), &format!("{}: woken to {count}", row.id));
            }
            if row.state != state && state.is_final() {
                let why = state
                    .detail()
                    .map_or_else(String::new, |why| format!(", {why}"));
                progress.step(
                    begun.elapsed(),
                    &format!("{}: {}{why}", row.id, state.word()),
                );
            }
            row.state = state;
        }
    }

    /// Carries one step out: what it came to, and to how many it was woken.
    async fn act(&self, workload: &Workload, step: Step) -> (State, Option<u32>) {
        match step {
            Step::Nothing => (State::Released, None),
            Step::Stuck(why) => (State::Stuck(why.to_string()), None),
            Step::Wake(plan) => self.wake(workload, *plan).await,
            Step::Wait => (State::Waiting(in_the_way(workload)), None),
            Step::LetGo => match self.engine.let_go(workload).await {
                Ok(()) | Err(PortError::NotFound) => (State::Released, None),
                Err(error) => (failed(&error), None),
            },
        }
    }

    async fn wake(&self, workload: &Workload, plan: Plan) -> (State, Option<u32>) {
        let Some(update) = plan.update else {
            return (State::Waiting(in_the_way(workload)), None);
        };
        let count = update.desired.0;
        match self.engine.write(workload, update).await {
            Ok(after) => (State::Waiting(in_the_way(&after)), Some(count)),
            Err(PortError::NotFound) => (State::Released, None),
            // When the answer was lost, the next round sees what came of it.
            Err(error) => (failed(&error), None),
        }
    }

    fn judge(&self, workload: &Workload) -> Step {
        let marks = self.engine.marks(&workload.id);
        let step = release::decide(workload, &marks, &self.actor, self.clock.now());
        if step == Step::Wait && self.patience == Patience::None {
            return Step::LetGo;
        }
        step
    }

    fn wanted<'l>(&self, all: &'l [Arc<Workload>]) -> impl Iterator<Item = &'l Workload> {
        let items = all.iter().map(AsRef::as_ref);
        let only = self.only.clone();
        items.filter(move |workload: &&Workload| {
            only.as_ref().is_none_or(|only| *only == workload.id)
        })
    }
}

fn failed(error: &PortError) -> State {
    if error.is_retryable() {
        State::Waiting(error.to_string())
    } else {
        State::Refused(error.to_string())
    }
}

/// Why it does not serve yet.
fn in_the_way(workload: &Workload) -> String {
    let pending = workload.pending.as_ref().map(ToString::to_string);
    pending.unwrap_or_else(|| "it does not serve yet".to_owned())
}
