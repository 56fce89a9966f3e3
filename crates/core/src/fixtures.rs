//! Builders for the tests of this crate.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::id::{Name, Namespace, ReplicaName, Uid, Version, WorkloadId};
use crate::intent::{Action, Actor, Change, Intent, ScheduledWake};
use crate::quantity::Replicas;
use crate::text::ReasonText;
use crate::wake::Stage;
use crate::workload::{Readiness, Replica, Workload};

pub(crate) fn now() -> Timestamp {
    "2029-06-01T00:00:00Z".parse().unwrap()
}

pub(crate) fn workload(desired: u32, current: u32, available: u32) -> Workload {
    Workload {
        id: WorkloadId::deployment(
            Namespace::new("project-a").unwrap(),
            Name::new("sample-app-a").unwrap(),
        ),
        uid: Uid::new("1"),
        version: Version::new(1),
        desired: Replicas(desired),
        current: Replicas(current),
        available: Replicas(available),
        intent: Intent::default(),
        unrecorded: None,
        awake_replicas: None,
        idle_after: None,
        autoscaler: None,
        hosts: vec![],
        labels: BTreeMap::new(),
        pool: None,
        replicas: vec![],
        pending: None,
        observed_at: now(),
    }
}

pub(crate) fn replica(stage: Stage, ready: bool) -> Replica {
    Replica {
        name: ReplicaName::new("sample-app-a-0").unwrap(),
        stage,
        address: None,
        readiness: Readiness::Tcp,
        ready,
        stopping: false,
        restarts: 0,
    }
}

pub(crate) fn change(from: u32, to: u32) -> Change {
    Change {
        time: now(),
        action: Action::ScaleUp,
        actor: Actor::Anonymous,
        reason: ReasonText::new("test").unwrap(),
        request_id: None,
        from: Replicas(from),
        to: Replicas(to),
    }
}

pub(crate) fn scheduled(at: &str) -> ScheduledWake {
    ScheduledWake {
        at: at.parse().unwrap(),
        actor: Actor::Anonymous,
        request_id: None,
    }
}
