//! The workloads of an engine: read them, watch them, write what is wanted of them.

use std::fmt::{self, Debug};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use nagi_core::id::{Namespace, Resource, Version, WorkloadId};
use nagi_core::intent::{CountWriter, Intent, IntentUpdate};
use nagi_core::quantity::Replicas;
use nagi_core::status::{Counts, Status};
use nagi_core::workload::Workload;
use tokio::sync::broadcast;

use crate::error::PortError;

/// Workloads of one piece of [`each`]: at 1 to 2 KiB each, what is in memory at once stays below 1 MiB.
const PIECE: usize = 500;

/// Which engine carries the workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Child processes of this machine.
    Local,
    /// A Kubernetes cluster.
    Kubernetes,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// As the watch last saw it; says `observed_at`.
    Cached,
    /// At least this version: waits for the watch for up to 1 s, or reads live. [`PortError::Timeout`] when it was not seen
    /// by then, [`PortError::NoSuchVersion`] where the engine knows that there is none.
    AtLeast(Version),
    /// As it is now, whatever a cache says: for an order that comes to no write, which would check the facts. It may take
    /// as long as a write.
    Live,
}

/// Which workloads to look at, and from where on. The default is all of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selection<'a> {
    /// Of this kind only.
    pub resource: Option<&'a Resource>,
    /// In this namespace only.
    pub namespace: Option<&'a Namespace>,
    /// Only those behind this one, in the order of ids. It need not exist.
    pub after: Option<&'a WorkloadId>,
}

/// A workload as it stands where the engine keeps it: what can be told without making a copy.
pub trait Glance {
    /// Which one.
    fn id(&self) -> &WorkloadId;

    /// Which of the facts that this process ever saw of any workload these are. Equal revisions mean equal facts, but for what
    /// time alone changes: when they were observed, and how long a node still takes to boot.
    fn revision(&self) -> Revision;

    /// Wanted, existing and serving replicas.
    fn counts(&self) -> Counts;

    /// Its status by the truth table.
    fn status(&self) -> Status {
        Status::of(self.counts())
    }

    /// What is remembered.
    fn intent(&self) -> &Intent;

    /// A count from before that nobody recorded. `None` where the engine records every count.
    fn unrecorded(&self) -> Option<Replicas> {
        None
    }

    /// Sleep after this long without use; none means never by itself.
    fn idle_after(&self) -> Option<Duration>;

    /// The value of a label that it has.
    fn label(&self, key: &str) -> Option<&str>;

    /// The whole workload, as [`Workloads::get`] gives it. This is what costs.
    fn workload(&self) -> Arc<Workload>;
}

/// What a visit could tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visited {
    /// When the workloads were observed; of what was seen at different times, the earliest.
    pub observed_at: Timestamp,
    /// What of the selected ones cannot be read now: kinds in their order, then the rest. Of a kind that was read before, what was
    /// known then was shown.
    pub unread: Vec<Unread>,
}

/// What cannot be read now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// What.
    pub facts: Facts,
    /// Not all of it: those of other namespaces can be read.
    pub in_part: bool,
    /// Why.
    pub problem: PortError,
}

/// Facts that an engine reads, or cannot read, as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facts {
    /// The workloads of a kind.
    Kind(Resource),
    /// Which kinds there are beyond the built-in ones.
    Definitions,
    /// The pods of all workloads: where they serve, and what they wait for.
    Pods,
}

/// Tells facts from other facts within one process; it says nothing about which are newer, and nothing to other processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision(pub u64);

/// What looks at one workload after the other; [`ControlFlow::Break`] ends the visit.
pub type See<'a> = dyn FnMut(&dyn Glance) -> ControlFlow<()> + Send + 'a;

/// Something about a workload changed.
#[derive(Debug, Clone)]
pub enum WorkloadEvent {
    /// It is new, or any of its facts changed.
    Changed(Arc<Workload>),
    /// It is gone.
    Deleted(WorkloadId),
}

/// The workloads of an engine.
///
/// Cancel-safe in this sense: a `write` whose future is dropped either took effect as a whole or not at all, and the
/// next read tells which.
#[async_trait]
pub trait Workloads: Debug + Send + Sync {
    /// Which engine this is.
    fn engine(&self) -> Engine;

    /// Can the engine be reached now? Answers within 2 s whatever the engine does (`GET /ready`).
    async fn reachable(&self) -> Result<(), PortError>;

    /// One workload. A miss is checked live before [`PortError::NotFound`].
    async fn get(&self, id: &WorkloadId, read: Read) -> Result<Arc<Workload>, PortError>;

    /// Shows the selected workloads one after the other, in the order of ids. One kind of several that cannot be read keeps no
    /// other away: the answer names it.
    ///
    /// `see` runs inside the engine: it must be quick, must not wait and must not call the engine. Work that takes longer, or
    /// that needs locks of others, is done afterwards, or piece by piece ([`each`]).
    ///
    /// # Errors
    /// [`PortError`]; nothing was shown then.
    async fn visit(
        &self,
        selection: Selection<'_>,
        see: &mut See<'_>,
    ) -> Result<Visited, PortError>;

    /// Writes count and intent in one durable update, on the condition that the object is still the one in `before`
    /// (uid and version). When it returns, the update survives the death of any process.
    ///
    /// # Errors
    /// [`PortError::Conflict`] when it is not; nothing was written.
    async fn write(
        &self,
        before: &Workload,
        update: IntentUpdate,
    ) -> Result<Arc<Workload>, PortError>;

    /// Whether a [`Workloads::write`] of this would be refused, as far as that is told without writing (R13).
    ///
    /// # Errors
    /// What the write would be refused with.
    async fn rehearse(&self, _before: &Workload, _update: &IntentUpdate) -> Result<(), PortError> {
        Ok(())
    }

    /// Why nobody carries out now what is due by itself: scheduled wakes and idle sleep. `None` while somebody does, and in the
    /// first moment, before that is known.
    fn unattended(&self) -> Option<PortError> {
        None
    }

    /// Who set the count that is in force, as far as the engine tells; asked only when it does not fit the record.
    async fn count_writer(&self, workload: &Workload) -> Result<Option<CountWriter>, PortError>;

    /// Every change from now on. A receiver that lags must list again; the channel holds at least 1,024 events.
    fn subscribe(&self) -> broadcast::Receiver<WorkloadEvent>;
}

/// Every workload, whole, for work that takes longer than a glance: made and handed over in pieces, so that never all of them
/// are in memory at once, and so that the engine goes on in between. One that comes, goes or changes meanwhile may or may not
/// be among them; an event tells. Returns what cannot be read now, as [`Visited`] has it.
///
/// # Errors
/// [`PortError`]; some may have been handed over.
pub async fn each(
    workloads: &dyn Workloads,
    mut take: impl FnMut(Arc<Workload>) + Send,
) -> Result<Vec<Unread>, PortError> {
    let mut after: Option<WorkloadId> = None;
    loop {
        let selection = Selection {
            after: after.as_ref(),
            ..Selection::default()
        };
        let mut piece = Vec::new();
        let see = &mut |glance: &dyn Glance| {
            piece.push(glance.workload());
            if piece.len() < PIECE {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let visited = workloads.visit(selection, see).await?;
        let last = piece.last().filter(|_| piece.len() == PIECE);
        after = last.map(|last| last.id.clone());
        piece.into_iter().for_each(&mut take);
        if after.is_none() {
            return Ok(visited.unread);
        }
    }
}

// === impl Visited ===

impl Visited {
    /// Everything was read, as of then.
    pub const fn all(observed_at: Timestamp) -> Self {
        Self {
            observed_at,
            unread: Vec::new(),
        }
    }
}

// === impl Unread ===

impl Unread {
    /// Whether workloads of Nagi's may be behind it. A custom kind that may not be read is most likely one that never could be.
    pub fn may_hide_workloads(&self) -> bool {
        match &self.facts {
            Facts::Kind(resource) => resource.is_built_in() || self.problem.is_retryable(),
            Facts::Definitions => self.problem.is_retryable(),
            Facts::Pods => false,
        }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = if self.in_part { "some " } else { "" };
        write!(f, "{some}{}", self.facts)
    }
}

// === impl Facts ===

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind(resource) => resource.as_str(),
            Self::Definitions => "customresourcedefinitions",
            Self::Pods => "pods",
        })
    }
}

// === impl Selection ===

impl Selection<'_> {
    /// Is it selected?
    pub fn covers(&self, id: &WorkloadId) -> bool {
        self.resource.is_none_or(|only| *only == id.resource)
            && self.namespace.is_none_or(|only| *only == id.namespace)
            && self.after.is_none_or(|after| *after < *id)
    }
}
