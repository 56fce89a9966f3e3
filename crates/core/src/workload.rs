//! A workload as observed: what is wanted, what is there, and why the two differ.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::id::{Host, PoolName, ReplicaName, Uid, Version, WorkloadId};
use crate::intent::Intent;
use crate::quantity::{Replicas, WakeCount};
use crate::status::{Counts, Status};
use crate::wake::Stage;

/// How to tell that a replica serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// `GET` of this path answers 2xx or 3xx.
    Http {
        /// Absolute path, with a leading slash.
        path: String,
    },
    /// The port accepts a connection.
    Tcp,
    /// Only the engine can tell (exec probes, readiness gates).
    Engine,
}

/// One replica: a pod, or a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its name, unique inside the workload.
    pub name: ReplicaName,
    /// How far it has come.
    pub stage: Stage,
    /// Where it listens, or will listen; known before it is ready.
    pub address: Option<SocketAddr>,
    /// How to tell that it serves.
    pub readiness: Readiness,
    /// The engine says that it serves now.
    pub ready: bool,
    /// It has been told to end.
    pub stopping: bool,
    /// How often it was started again after it ended by itself.
    pub restarts: u32,
}

/// Why fewer replicas serve than are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// A node for it is booting.
    NodeBooting {
        /// The pool.
        pool: PoolName,
        /// Time until it is expected, as far as the pool states one.
        ready_in: Option<Duration>,
    },
    /// The pool may not grow further.
    PoolAtMaximum {
        /// The pool.
        pool: PoolName,
        /// Its limit, in nodes.
        nodes_max: u32,
    },
    /// No node of the pool is large enough.
    DoesNotFit {
        /// The pool.
        pool: PoolName,
    },
    /// A replica has its node, and no container of it runs yet: images are pulled, volumes mounted.
    Pulling,
    /// A replica runs but does not serve yet.
    Starting,
    /// A replica runs for a while already and does not serve: what it was asked and answered.
    Unready(String),
    /// A replica ended by itself and waits before its next start.
    CrashLoop {
        /// How often it was started again.
        restarts: u32,
        /// Its last words about why: exit code or signal.
        last_exit: String,
    },
    /// Replicas that are no longer wanted have not ended yet.
    Stopping,
    /// What the engine says, in its own words (scheduler message, image pull error).
    Engine(String),
}

impl Pending {
    /// A word for metrics and filters.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NodeBooting { .. } => "waiting-for-node",
            Self::PoolAtMaximum { .. } => "pool-at-maximum",
            Self::DoesNotFit { .. } => "does-not-fit",
            Self::Pulling => "pulling",
            Self::Starting => "starting",
            Self::Unready(_) => "unready",
            Self::CrashLoop { .. } => "crash-loop",
            Self::Stopping => "stopping",
            Self::Engine(_) => "engine",
        }
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeBooting {
                pool,
                ready_in: Some(left),
            } => {
                write!(
                    f,
                    "waiting for a node of pool {pool}, expected in {:.1} s",
                    left.as_secs_f64()
                )
            }
            Self::NodeBooting {
                pool,
                ready_in: None,
            } => write!(f, "waiting for a node of pool {pool}"),
            Self::PoolAtMaximum { pool, nodes_max } => {
                write!(
                    f,
                    "pool {pool} is at its maximum of {nodes_max} nodes and has no room"
                )
            }
            Self::DoesNotFit { pool } => write!(f, "asks for more than a node of pool {pool} has"),
            Self::Pulling => f.write_str(
                "a replica has its node, and its images are being pulled or its volumes mounted",
            ),
            Self::Starting => f.write_str("a replica is starting and does not serve yet"),
            Self::Unready(why) => write!(f, "a replica runs and does not serve: {why}"),
            Self::CrashLoop {
                restarts,
                last_exit,
            } => {
                write!(
                    f,
                    "a replica ended by itself ({last_exit}), started again {restarts} times"
                )
            }
            Self::Stopping => f.write_str("replicas that are no longer wanted have not ended yet"),
            Self::Engine(words) => f.write_str(words),
        }
    }
}

/// An autoscaler that owns the count of a workload while it is awake (HPA, `ScaledObject`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autoscaler {
    /// `HorizontalPodAutoscaler/NAME` or the like, for messages.
    pub name: String,
    /// Its lower bound.
    pub minimum: Replicas,
}

/// A workload as an engine reports it at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Which one.
    pub id: WorkloadId,
    /// Which life of it.
    pub uid: Uid,
    /// Version of the object that the facts come from.
    pub version: Version,
    /// Wanted count.
    pub desired: Replicas,
    /// Replicas that exist, starting and stopping ones included. Where the engine starts processes itself, one that waits for
    /// a node does not exist yet.
    pub current: Replicas,
    /// Replicas that serve.
    pub available: Replicas,
    /// What is remembered.
    pub intent: Intent,
    /// The count before the present one, where somebody else set that and no record tells of it. At zero: what was wanted for a
    /// moment; the next wake restores it, so `intent` says it already. Above: zero, of a workload that has no record yet.
    pub unrecorded: Option<Replicas>,
    /// The count that people declared for a wake (`nagi.dev/awake-replicas`).
    pub awake_replicas: Option<WakeCount>,
    /// Sleep after this long without use; none means never by itself.
    pub idle_after: Option<Duration>,
    /// An autoscaler on it.
    pub autoscaler: Option<Autoscaler>,
    /// Host names by which the gateway finds it.
    pub hosts: Vec<Host>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The pool that its replicas run on, where the engine knows one.
    pub pool: Option<PoolName>,
    /// Its replicas, in a stable order.
    pub replicas: Vec<Replica>,
    /// Why fewer serve than are wanted.
    pub pending: Option<Pending>,
    /// When this was observed.
    pub observed_at: Timestamp,
}

impl Workload {
    /// The three counts.
    pub const fn counts(&self) -> Counts {
        Counts {
            desired: self.desired,
            current: self.current,
            available: self.available,
        }
    }

    /// Its status by the truth table.
    pub fn status(&self) -> Status {
        Status::of(self.counts())
    }
}
