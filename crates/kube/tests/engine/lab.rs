//! A double, an engine on it, and what tests need of both.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nagi_core::id::{Name, Namespace, WorkloadId};
use nagi_core::intent::{Action, Actor, Asleep, Change, Intent, IntentUpdate, SleptBy};
use nagi_core::quantity::{Replicas, WakeCount};
use nagi_core::text::ReasonText;
use nagi_core::workload::Workload;
use nagi_kube::{KubeEngine, KubeSettings, Rights, Source};
use nagi_kube_double::{Double, objects};
use nagi_ports::{Clock, PortError, Read, SystemClock, WorkloadEvent, Workloads};
use nagi_runtime::Supervisor;
use tokio::sync::broadcast;

/// Far longer than anything takes; only a test that fails waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const PATH: &str = "/apis/apps/v1/namespaces/project-a/deployments/sample-app-a";

pub(crate) struct Lab {
    pub(crate) double: Double,
    pub(crate) engine: KubeEngine,
    /// Owns the tasks of the engine.
    _supervisor: Supervisor,
}

impl Lab {
    /// A cluster with one Deployment of two replicas.
    pub(crate) async fn new() -> Self {
        Self::with(Rights::Full).await
    }

    pub(crate) async fn with(rights: Rights) -> Self {
        let double = Double::start().await;
        double.put(objects::deployment("project-a", "sample-app-a", 2));
        let lab = Self::on(double, rights);
        lab.synced().await;
        lab
    }

    /// An engine on a double that may be in any state.
    pub(crate) fn on(double: Double, rights: Rights) -> Self {
        let source = Source::Url(double.url());
        Self::from_source(double, source, rights)
    }

    pub(crate) fn from_source(double: Double, source: Source, rights: Rights) -> Self {
        Self::within(double, source, rights, None)
    }

    /// An engine that looks at some namespaces only.
    pub(crate) fn within(
        double: Double,
        source: Source,
        rights: Rights,
        namespaces: Option<Vec<Namespace>>,
    ) -> Self {
        let mut supervisor = Supervisor::new();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let settings = KubeSettings {
            source,
            rights,
            namespaces,
            identity: "test".to_owned(),
        };
        let engine = KubeEngine::start(settings, clock, &mut supervisor);
        Self {
            double,
            engine,
            _supervisor: supervisor,
        }
    }

    /// Another engine on the same API server.
    pub(crate) fn second(&self, rights: Rights) -> Self {
        Self::on(self.double.clone(), rights)
    }

    pub(crate) async fn synced(&self) {
        eventually("the first list", async || {
            self.engine.reachable().await.is_ok()
        })
        .await;
    }

    pub(crate) async fn get(&self) -> Arc<Workload> {
        self.engine.get(&id(), Read::Cached).await.unwrap()
    }

    /// Waits until the cache shows what is looked for.
    pub(crate) async fn sees(&self, what: &str, sees: impl Fn(&Workload) -> bool) -> Arc<Workload> {
        let mut found = None;
        eventually(what, async || {
            match self.engine.get(&id(), Read::Cached).await {
                Ok(workload) if sees(&workload) => {
                    found = Some(workload);
                    true
                }
                Ok(_) | Err(_) => false,
            }
        })
        .await;
        found.unwrap()
    }

    /// Patches of workloads that the double was asked for.
    pub(crate) fn patches(&self) -> Vec<nagi_kube_double::Recorded> {
        let requests = self.double.requests().into_iter();
        requests
            .filter(|request| request.method == "PATCH" && request.path.contains("/apps/"))
            .collect()
    }
}

pub(crate) fn id() -> WorkloadId {
    named("sample-app-a")
}

pub(crate) fn named(name: &str) -> WorkloadId {
    WorkloadId::deployment(
        Namespace::new("project-a").unwrap(),
        Name::new(name).unwrap(),
    )
}

/// What puts a workload to sleep.
pub(crate) fn sleep(before: &Workload) -> IntentUpdate {
    let mut intent = Intent {
        remembered: WakeCount::new(before.desired.0).or(before.intent.remembered),
        asleep: Some(Asleep {
            since: at("2030-01-01T00:00:00Z"),
            by: SleptBy::Api,
        }),
        last_scale_time: Some(at("2030-01-01T00:00:00Z")),
        ..before.intent.clone()
    };
    intent.record(change(Action::ScaleToZero, before.desired, Replicas::ZERO));
    IntentUpdate {
        desired: Replicas::ZERO,
        intent,
    }
}

/// The same, recorded as of now: where that is compared with what others tell.
pub(crate) fn sleep_now(before: &Workload) -> IntentUpdate {
    let mut update = sleep(before);
    for change in &mut update.intent.changes {
        change.time = SystemClock::new().now();
    }
    update
}

/// What wakes it.
pub(crate) fn wake(before: &Workload, count: u32) -> IntentUpdate {
    let mut intent = before.intent.clone();
    intent.asleep = None;
    intent.record(change(Action::Wake, before.desired, Replicas(count)));
    IntentUpdate {
        desired: Replicas(count),
        intent,
    }
}

fn change(action: Action, from: Replicas, to: Replicas) -> Change {
    Change {
        time: at("2030-01-01T00:00:00Z"),
        action,
        actor: Actor::parse("key/ops").unwrap(),
        reason: ReasonText::new("コスト最適化のため").unwrap(),
        request_id: None,
        from,
        to,
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Waits until something holds; panics with its name when it does not.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: not within {PATIENCE:?}");
}

/// The next event about a workload that fits.
pub(crate) async fn event(
    events: &mut broadcast::Receiver<WorkloadEvent>,
    mut fits: impl FnMut(&WorkloadEvent) -> bool,
) -> WorkloadEvent {
    let waiting = async {
        loop {
            let event = events.recv().await.unwrap();
            if fits(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("the event comes")
}

pub(crate) fn is_unreachable(error: &PortError) -> bool {
    matches!(error, PortError::Unreachable(_) | PortError::Timeout(_))
}
