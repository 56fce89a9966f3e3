//! The Kubernetes engine put together: its settings, its watches, and the ports it serves.
//!
//! [`KubeEngine::start`] needs no cluster: the client is made when there is a configuration, the watches begin when the API
//! server answers, and until then reads say why there is nothing.

mod advice;
pub(crate) mod kinds;
mod ports;
mod pulse;
mod release;
mod visit;
mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use nagi_core::id::{Namespace, Resource, WorkloadId};
use nagi_core::workload::Workload;
use nagi_ports::{Clock, PortError};
use nagi_runtime::{Supervisor, TaskSet};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use crate::api::{Agent, Api, ApiError, Call};
use crate::kind::Kind;
use crate::lanes::Lanes;
use crate::leader::Lead;
use crate::record::{Recorder, recorder};
use crate::reflect::{Reflector, Sink, State, encoded};
use crate::sinks::{PodSink, ScalerKind, ScalerSink, WorkloadSink};
use crate::source::Source;
use crate::store::{From, Store};
use crate::wire::List;

/// A read that goes to the API server (DESIGN §5).
pub(crate) const LIVE: Duration = Duration::from_millis(1500);
/// A read or write that an order needs, the wait for its turn included: who orders can wait longer than who looks.
pub(crate) const ORDER: Duration = Duration::from_secs(5);
/// Without any answer from the API server for this long, the cache is not believed (DESIGN §5).
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long a read waits for the watch to reach a version before it goes to the API server.
const CATCH_UP: Duration = Duration::from_secs(1);
/// Watches of custom kinds: some for each of the namespaces that were named.
const KIND_TASKS_MAX: usize = 1_024;

/// What this process may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Patch workloads: counts and what is remembered.
    Full,
    /// Wake through the `scale` subresource, and nothing else: the gateway.
    ScaleOnly,
}

/// What the engine must know.
#[derive(Debug, Clone)]
pub struct KubeSettings {
    /// Where the configuration comes from.
    pub source: Source,
    /// What this process may do.
    pub rights: Rights,
    /// The namespaces to look at; `None` for all of them, which needs rights in all of them.
    pub namespaces: Option<Vec<Namespace>>,
    /// A name that no other process has: it stands in the Lease and in Events.
    pub identity: String,
}

/// The engine. Clones are the same engine.
#[derive(Debug, Clone)]
pub struct KubeEngine {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) api: Api,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<Store>,
    pub(crate) rights: Rights,
    /// `None`: everywhere.
    pub(crate) namespaces: Option<Vec<Namespace>>,
    kinds: RwLock<BTreeMap<Resource, Arc<Watched>>>,
    /// Who decides; not set in a process that takes no part in it.
    pub(crate) lead: OnceLock<Arc<Lead>>,
    /// Watches of pods.
    pods: Vec<Arc<State>>,
    /// Watches of autoscalers, which a cluster need not have.
    scalers: Vec<Arc<State>>,
    /// Somebody asks for a kind that is not known.
    kinds_wanted: Notify,
    /// What the looks for kinds came to.
    kinds_looked: watch::Sender<Looked>,
    kind_tasks: TaskSet,
    pub(crate) identity: String,
    lanes: Lanes,
    pub(crate) recorder: Recorder,
}

/// What the looks for kinds have come to so far.
#[derive(Debug, Default)]
struct Looked {
    /// How many began.
    begun: u64,
    /// How many of them are over.
    count: u64,
    /// Why the last one failed.
    problem: Option<PortError>,
}

/// A kind and its watches.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) kind: Arc<Kind>,
    /// One everywhere, or one for each namespace.
    states: Vec<(Option<Namespace>, Arc<State>)>,
    /// Ends its watches; closed when they have ended.
    stop: watch::Sender<bool>,
}

// === impl KubeEngine ===

impl KubeEngine {
    /// Starts the watches; they belong to `supervisor`.
    pub fn start(
        settings: KubeSettings,
        clock: Arc<dyn Clock>,
        supervisor: &mut Supervisor,
    ) -> Self {
        let api = Api::new(settings.source, Agent::Engine);
        let store = Arc::new(Store::new());
        let mut starter = Starter {
            api: api.clone(),
            namespaces: settings.namespaces.clone(),
            supervisor: &mut *supervisor,
        };
        let mut kinds = BTreeMap::new();
        for kind in Kind::built_in() {
            let kind = Arc::new(kind);
            let states = starter.watch("kubernetes workloads", || WorkloadSink {
                kind: Arc::clone(&kind),
                store: Arc::clone(&store),
                clock: Arc::clone(&clock),
            });
            let watched = Watched {
                kind: Arc::clone(&kind),
                states,
                stop: watch::Sender::new(false),
            };
            kinds.insert(kind.resource.clone(), Arc::new(watched));
        }
        let pods = starter.watch("kubernetes pods", || PodSink {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
        });
        let mut scalers = starter.watch("kubernetes autoscalers", || ScalerSink {
            kind: ScalerKind::Hpa,
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
        });
        // Most clusters have no KEDA.
        scalers.extend(
            starter.watch_patiently("kubernetes autoscalers", || ScalerSink {
                kind: ScalerKind::ScaledObject,
                store: Arc::clone(&store),
                clock: Arc::clone(&clock),
            }),
        );
        let (recorder, writer) = recorder(
            api.clone(),
            Arc::clone(&clock),
            settings.identity.clone(),
            settings.rights,
        );
        let shutdown = supervisor.shutdown();
        supervisor.spawn_foundation("kubernetes events", writer.run(shutdown));
        let shared = Arc::new(Shared {
            api,
            clock,
            store,
            rights: settings.rights,
            namespaces: settings.namespaces,
            kinds: RwLock::new(kinds),
            lead: OnceLock::new(),
            pods: pods.into_iter().map(|(_, state)| state).collect(),
            scalers: scalers.into_iter().map(|(_, state)| state).collect(),
            kinds_wanted: Notify::new(),
            kinds_looked: watch::Sender::new(Looked::default()),
            kind_tasks: TaskSet::new("kubernetes kinds", KIND_TASKS_MAX),
            identity: settings.identity,
            lanes: Lanes::new(),
            recorder,
        });
        let (beating, shutdown) = (Arc::clone(&shared), supervisor.shutdown());
        supervisor.spawn_foundation(
            "kubernetes pulse",
            async move { beating.pulse(shutdown).await },
        );
        let (finding, shutdown) = (Arc::clone(&shared), supervisor.shutdown());
        supervisor.spawn_foundation("kubernetes kinds", finding.find_kinds(shutdown));
        let (hearing, shutdown) = (Arc::clone(&shared), supervisor.shutdown());
        supervisor.spawn_foundation("kubernetes advice", async move {
            hearing.take_advice(shutdown).await;
        });
        Self { shared }
    }
}

struct Starter<'a> {
    api: Api,
    namespaces: Option<Vec<Namespace>>,
    supervisor: &'a mut Supervisor,
}

impl Starter<'_> {
    /// Watches a collection everywhere, or in each of the namespaces.
    fn watch<S: Sink + 'static>(
        &mut self,
        task: &'static str,
        sink: impl Fn() -> S,
    ) -> Vec<(Option<Namespace>, Arc<State>)> {
        self.spawn(task, sink, Reflector::new)
    }

    /// The same for one that need not be there.
    fn watch_patiently<S: Sink + 'static>(
        &mut self,
        task: &'static str,
        sink: impl Fn() -> S,
    ) -> Vec<(Option<Namespace>, Arc<State>)> {
        self.spawn(task, sink, Reflector::patient)
    }

    fn spawn<S: Sink + 'static>(
        &mut self,
        task: &'static str,
        sink: impl Fn() -> S,
        make: fn(Api, S, Option<Namespace>, Arc<State>) -> Reflector<S>,
    ) -> Vec<(Option<Namespace>, Arc<State>)> {
        let mut states = Vec::new();
        for namespace in scopes(self.namespaces.as_deref()) {
            let sink = sink();
            let state = State::new(sink.path(namespace.as_ref()));
            let reflector = make(
                self.api.clone(),
                sink,
                namespace.clone(),
                Arc::clone(&state),
            );
            let shutdown = self.supervisor.shutdown();
            self.supervisor
                .spawn_foundation(task, reflector.run(shutdown));
            states.push((namespace, state));
        }
        states
    }
}

/// Everywhere, or each of the namespaces.
fn scopes(namespaces: Option<&[Namespace]>) -> Vec<Option<Namespace>> {
    namespaces.map_or_else(
        || vec![None],
        |namespaces| namespaces.iter().cloned().map(Some).collect(),
    )
}

// === impl Watched ===

impl Watched {
    /// The watch that brings the workloads of a namespace.
    pub(crate) fn state(&self, namespace: &Namespace) -> Option<&Arc<State>> {
        let mut states = self.states.iter();
        let found = states.find(|(only, _)| only.as_ref().is_none_or(|only| only == namespace));
        found.map(|(_, state)| state)
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = &Arc<State>> {
        self.states.iter().map(|(_, state)| state)
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn watched(&self, id: &WorkloadId) -> Option<Arc<Watched>> {
        self.served(&id.resource)
    }

    /// The kind that nobody can do without.
    pub(crate) fn deployments(&self) -> Arc<Watched> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        let found = kinds.get(&Resource::deployments()).cloned();
        found.expect("built-in kinds are watched from the start")
    }

    fn served(&self, resource: &Resource) -> Option<Arc<Watched>> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        kinds.get(resource).cloned()
    }

    fn drop_kind(&self, resource: &Resource) {
        let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
        kinds.remove(resource);
    }

    fn add_kind(&self, watched: Watched) {
        let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
        kinds.insert(watched.kind.resource.clone(), Arc::new(watched));
    }

    pub(crate) fn all_watched(&self) -> Vec<Arc<Watched>> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        kinds.values().cloned().collect()
    }

    /// The API server has answered something lately.
    pub(crate) fn hears(&self) -> bool {
        self.api
            .silent_for()
            .is_some_and(|silence| silence < SILENCE_MAX)
    }

    /// As of when the cache is true.
    pub(crate) fn observed_at(&self) -> jiff::Timestamp {
        self.clock.now() - self.api.silent_for().unwrap_or_default()
    }

    /// Reads a workload from the API server, within this time.
    pub(crate) async fn live(
        &self,
        watched: &Watched,
        id: &WorkloadId,
        time: Duration,
    ) -> Result<Arc<Workload>, PortError> {
        let call = Call::get(watched.kind.object_path(id));
        match self.api.call(&call, time).await {
            Ok(body) => self.take(watched, id, &body),
            Err(error) => Err(self.failed(watched, id, error)),
        }
    }

    /// What a failed call about a workload means. The API server says which object it does not find; of a version that it no
    /// longer serves it knows no object, and then the definition is read anew.
    pub(crate) fn failed(&self, watched: &Watched, id: &WorkloadId, error: ApiError) -> PortError {
        match &error {
            ApiError::Status {
                code: 404, message, ..
            } if !watched.kind.is_built_in() && !message.contains(id.name.as_str()) => {
                self.kinds_wanted.notify_one();
                PortError::Internal(format!(
                    "{} is no longer served as {}; its definition is read anew",
                    id.resource, watched.kind.version
                ))
            }
            ApiError::Status { .. }
            | ApiError::Unreachable(_)
            | ApiError::Timeout(_)
            | ApiError::TooLarge
            | ApiError::Broken(_) => error.into(),
        }
    }

    /// Lists a collection page by page, without keeping it.
    pub(crate) async fn list_live<T: DeserializeOwned>(
        &self,
        collection: &str,
        query: &str,
    ) -> Result<Vec<T>, PortError> {
        let page = |more: &str| Call::get(format!("{collection}?limit=500{query}{more}"));
        self.list_pages(LIVE, page).await
    }

    /// A list by calls that each get what names their page, and may take so long.
    pub(crate) async fn list_pages<T: DeserializeOwned>(
        &self,
        time: Duration,
        page: impl Fn(&str) -> Call,
    ) -> Result<Vec<T>, PortError> {
        let broken = |error: serde_json::Error| {
            PortError::Internal(format!("the answer cannot be read: {error}"))
        };
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let more = if next.is_empty() {
                String::new()
            } else {
                format!("&continue={}", encoded(&next))
            };
            let body = self.api.call(&page(&more), time).await?;
            let page: List<'_> = serde_json::from_slice(&body).map_err(broken)?;
            for item in &page.items {
                items.push(serde_json::from_str(item.get()).map_err(broken)?);
            }
            next = page.metadata.next.unwrap_or_default();
            if next.is_empty() {
                return Ok(items);
            }
        }
    }

    /// Takes an object that a call answered with.
    pub(crate) fn take(
        &self,
        watched: &Watched,
        id: &WorkloadId,
        body: &[u8],
    ) -> Result<Arc<Workload>, PortError> {
        let broken = |error: &dyn std::fmt::Display| {
            PortError::Internal(format!("the answer cannot be read: {error}"))
        };
        // Read by a definition that has changed meanwhile, it would be kept under its version, with the wrong count.
        let served = self.served(&id.resource);
        let is_in_force = served.is_some_and(|now| Arc::ptr_eq(&now.kind, &watched.kind));
        if !is_in_force {
            return Err(PortError::Internal(format!(
                "the definition of {} has changed meanwhile",
                id.resource
            )));
        }
        let text = str::from_utf8(body).map_err(|error| broken(&error))?;
        let object = watched.kind.parse(text).map_err(|error| broken(&error))?;
        let seen = watched.state(&id.namespace).map_or(0, |state| state.seen());
        let now = self.clock.now();
        self.store
            .apply(&watched.kind, &object, From::Call { seen }, now);
        let known = self.store.workload(id, now);
        known.map(Arc::new).ok_or(PortError::NotFound)
    }
}
