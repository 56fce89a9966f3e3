//! The double as a server: it listens, routes, injects faults, and remembers what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nagi_runtime::{Deadline, TaskSet};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::answer::{self, Answer, Refusal};
use crate::call::{Call, ok};
use crate::fault::{Effect, Fault};
use crate::path::{Query, Target};
use crate::resources::{GroupVersion, Resource};
use crate::reviews::{Reviews, Right, Token};
use crate::store::{Key, Store};

/// Requests that are remembered.
const RECORDED_MAX: usize = 50_000;
/// Connections and watches at once.
const TASKS_MAX: usize = 4_096;
/// The real one sends a bookmark about once a minute.
const BOOKMARK_EVERY: Duration = Duration::from_mins(1);

/// A request that the double was asked.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// When it had come, its body included.
    pub at: Instant,
    /// Its method.
    pub method: Method,
    /// Its path and query, as sent.
    pub path: String,
    /// Its `Content-Type`.
    pub content_type: Option<String>,
    /// Its `Authorization`.
    pub authorization: Option<String>,
    /// Its body.
    pub body: Bytes,
}

/// An API server of its own. It ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Double {
    pub(crate) shared: Arc<Shared>,
    address: SocketAddr,
    listening: Arc<Mutex<Option<TaskSet>>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    store: Mutex<Store>,
    knobs: Mutex<Knobs>,
    ticks: watch::Sender<u64>,
    cuts: watch::Sender<u64>,
    pub(crate) watches: TaskSet,
}

/// When a line was printed, and the line.
pub(crate) type Printed = (String, String);

#[derive(Debug)]
struct Knobs {
    faults: Vec<(u64, Fault)>,
    next_fault: u64,
    recorded: VecDeque<Recorded>,
    token: Option<String>,
    bookmark_every: Duration,
    watch_lag: Duration,
    logs: Vec<(Key, Vec<Printed>)>,
    version: (u32, u32),
    reviews: Reviews,
}

// === impl Double ===

impl Double {
    /// Listens on a free loopback port.
    ///
    /// # Panics
    /// When no loopback port is free.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new()),
            knobs: Mutex::new(Knobs {
                faults: Vec::new(),
                next_fault: 0,
                recorded: VecDeque::new(),
                token: None,
                bookmark_every: BOOKMARK_EVERY,
                watch_lag: Duration::ZERO,
                logs: Vec::new(),
                version: (1, 36),
                reviews: Reviews::new(),
            }),
            ticks: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
            watches: TaskSet::new("double watches", TASKS_MAX),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a free loopback port");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let double = Self {
            shared,
            address,
            listening: Arc::default(),
        };
        double.accept(listener);
        double
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Refuses connections and closes those that there are, as a server that was stopped.
    pub async fn stop(&self) {
        let listening = self.listening().take();
        if let Some(listening) = listening {
            listening.drain(Deadline::in_(Duration::ZERO)).await;
        }
    }

    /// Listens again after [`Double::stop`], on the same port.
    ///
    /// # Panics
    /// When the port was taken meanwhile.
    pub async fn resume(&self) {
        let listener = TcpListener::bind(self.address).await;
        self.accept(listener.expect("the port is still free"));
    }

    /// Puts a fault in force; returns its number for [`Double::lift`].
    pub fn inject(&self, fault: Fault) -> u64 {
        let mut knobs = self.shared.knobs();
        knobs.next_fault += 1;
        let number = knobs.next_fault;
        knobs.faults.push((number, fault));
        number
    }

    /// Ends a fault.
    pub fn lift(&self, number: u64) {
        self.shared
            .knobs()
            .faults
            .retain(|(known, _)| *known != number);
    }

    /// Ends all faults.
    pub fn lift_all(&self) {
        self.shared.knobs().faults.clear();
    }

    /// Ends every watch, as the real one does when it restarts or after `timeoutSeconds`.
    pub fn cut_watches(&self) {
        self.shared.cuts.send_modify(|count| *count += 1);
    }

    /// Forgets all changes up to now: watches and lists that go on from before get 410.
    pub fn compact(&self) {
        self.shared.store().compact();
        self.shared.tick();
    }

    /// From now on only requests with this bearer token are taken.
    pub fn require_token(&self, token: &str) {
        self.shared.knobs().token = Some(token.to_owned());
    }

    /// From now on it vouches for this bearer token, made for one audience, as one of `user`'s.
    pub fn vouch(&self, token: &str, user: &str, audience: &str) {
        let token = Token {
            text: token.to_owned(),
            user: user.to_owned(),
            audience: audience.to_owned(),
        };
        self.shared.knobs().reviews.tokens.push(token);
    }

    /// No longer vouches for a token.
    pub fn disown(&self, token: &str) {
        let mut knobs = self.shared.knobs();
        knobs.reviews.tokens.retain(|known| known.text != token);
    }

    /// From now on `user` may do this. `resource` is `deployments` or `deployments/scale`; without a namespace the right is
    /// in all of them.
    pub fn grant(
        &self,
        user: &str,
        verb: &str,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
    ) {
        let right = Right {
            user: user.to_owned(),
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.map(str::to_owned),
        };
        self.shared.knobs().reviews.rights.push(right);
    }

    /// From now on `user` may do nothing.
    pub fn revoke(&self, user: &str) {
        let mut knobs = self.shared.knobs();
        knobs.reviews.rights.retain(|right| right.user != user);
    }

    /// Whoever calls the double is this user from now on, in reviews of their own rights. Before, an administrator.
    pub fn call_as(&self, user: &str) {
        self.shared.knobs().reviews.caller = (user.to_owned(), vec![]);
    }

    /// Which version of Kubernetes it says that it is.
    pub fn claim_version(&self, major: u32, minor: u32) {
        self.shared.knobs().version = (major, minor);
    }

    /// How often a watch gets a bookmark.
    pub fn bookmark_every(&self, every: Duration) {
        self.shared.knobs().bookmark_every = every;
    }

    /// How long after a change watches tell of it, from now on.
    pub fn watches_lag(&self, by: Duration) {
        self.shared.knobs().watch_lag = by;
    }

    /// What a pod printed, or one of its containers (`pod/container`): instants (RFC 3339) and lines.
    pub fn log(&self, namespace: &str, pod: &str, lines: &[(&str, &str)]) {
        let lines = lines
            .iter()
            .map(|(time, text)| ((*time).to_owned(), (*text).to_owned()));
        let key = (namespace.to_owned(), pod.to_owned());
        let mut knobs = self.shared.knobs();
        knobs.logs.retain(|(known, _)| *known != key);
        knobs.logs.push((key, lines.collect()));
    }

    /// The requests so far, oldest first.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.knobs().recorded.iter().cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.shared.knobs().recorded.clear();
    }

    pub(crate) fn locate(&self, path: &str) -> Option<(Resource, Key)> {
        let target = Target::parse(path)?;
        let store = self.shared.store();
        let (resource, _) = store
            .resources
            .find(&target.group_version, &target.resource)?;
        Some((
            resource,
            (target.namespace.unwrap_or_default(), target.name?),
        ))
    }

    fn accept(&self, listener: TcpListener) {
        let connections = TaskSet::new("double connections", TASKS_MAX);
        let (shared, set) = (Arc::clone(&self.shared), connections.clone());
        let accepting = async move {
            loop {
                let Ok(room) = set.room().await else {
                    return;
                };
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                drop(stream.set_nodelay(true));
                let shared = Arc::clone(&shared);
                room.spawn(async move {
                    let service = service_fn(move |request| Arc::clone(&shared).serve(request));
                    let connection =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    // An error is a client that went away, or a fault of ours.
                    drop(connection.await);
                });
            }
        };
        connections
            .try_spawn(accepting)
            .expect("the set was made a moment ago");
        *self.listening() = Some(connections);
    }

    fn listening(&self) -> MutexGuard<'_, Option<TaskSet>> {
        self.listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection is to be closed without an answer.
#[derive(Debug)]
struct CutOff;

impl std::fmt::Display for CutOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut off")
    }
}

impl std::error::Error for CutOff {}

// === impl Shared ===

impl Shared {
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn bookmark_every(&self) -> Duration {
        self.knobs().bookmark_every
    }

    pub(crate) fn watch_lag(&self) -> Duration {
        self.knobs().watch_lag
    }

    /// What watches wait for: changes, and being cut.
    pub(crate) fn signals(&self) -> (watch::Receiver<u64>, watch::Receiver<u64>) {
        (self.ticks.subscribe(), self.cuts.subscribe())
    }

    /// What a pod printed, or one of its containers.
    pub(crate) fn log(&self, key: &Key, container: Option<&str>) -> Vec<Printed> {
        let knobs = self.knobs();
        let of_container = container.map(|name| (key.0.clone(), format!("{}/{name}", key.1)));
        let is_it = |known: &Key| Some(known) == of_container.as_ref() || known == key;
        let found = knobs.logs.iter().find(|(known, _)| is_it(known));
        found.map(|(_, lines)| lines.clone()).unwrap_or_default()
    }

    fn knobs(&self) -> MutexGuard<'_, Knobs> {
        self.knobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tick(&self) {
        self.ticks.send_modify(|count| *count += 1);
    }

    async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, CutOff> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| CutOff)?.to_bytes();
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let effect = self.record(&parts.method, path, &parts.headers, &body);
        match effect {
            None => {}
            Some(Effect::Latency(time)) => tokio::time::sleep(time).await,
            Some(Effect::Hang) => std::future::pending().await,
            Some(Effect::Hold) => self.lifted(&parts.method, path).await,
            Some(Effect::Cut) => return Err(CutOff),
            Some(Effect::Status { code, retry_after }) => {
                let mut refusal = Refusal::new(code, "injected by the double");
                refusal.retry_after = retry_after;
                return Ok(refusal.response());
            }
            Some(Effect::KeepObject) => {
                let kept = self.answer(&Method::GET, path, &parts.headers, &Bytes::new());
                return Ok(kept.unwrap_or_else(|refusal| refusal.response()));
            }
            Some(Effect::LoseAnswer) => {
                drop(self.answer(&parts.method, path, &parts.headers, &body));
                std::future::pending::<()>().await;
            }
        }
        let answered = self.answer(&parts.method, path, &parts.headers, &body);
        Ok(answered.unwrap_or_else(|refusal| refusal.response()))
    }

    /// Waits until no fault holds a request any more.
    async fn lifted(&self, method: &Method, path: &str) {
        let holds = |fault: &Fault| fault.effect == Effect::Hold && fault.takes(method, path);
        while self.knobs().faults.iter().any(|(_, fault)| holds(fault)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Remembers a request, and says which fault takes it.
    fn record(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Option<Effect> {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let mut knobs = self.knobs();
        if knobs.recorded.len() == RECORDED_MAX {
            knobs.recorded.pop_front();
        }
        knobs.recorded.push_back(Recorded {
            at: Instant::now(),
            method: method.clone(),
            path: path.to_owned(),
            content_type: text(CONTENT_TYPE),
            authorization: text(AUTHORIZATION),
            body: body.clone(),
        });
        let mut faults = knobs.faults.iter_mut();
        let (_, fault) = faults.find(|(_, fault)| fault.takes(method, path))?;
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        Some(fault.effect.clone())
    }

    fn answer(
        self: &Arc<Self>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Answer>, Refusal> {
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(p, q)| (p, Some(q)));
        if let Some(token) = &self.knobs().token {
            let wanted = format!("Bearer {token}");
            let given = headers
                .get(AUTHORIZATION)
                .and_then(|value| value.to_str().ok());
            if given != Some(wanted.as_str()) {
                return Err(Refusal::new(401, "Unauthorized"));
            }
        }
        match path {
            "/livez" | "/readyz" | "/healthz" => return Ok(answer::text("ok".to_owned())),
            "/version" => {
                let (major, minor) = self.knobs().version;
                let name = format!("v{major}.{minor}.0-double");
                return Ok(ok(&json!({
                    "major": major.to_string(), "minor": minor.to_string(), "gitVersion": name,
                })));
            }
            _ => {}
        }
        let reviewed = self.knobs().reviews.answer(method, path, body);
        if let Some(reviewed) = reviewed {
            let review = reviewed?.to_string();
            return Ok(answer::whole(StatusCode::CREATED, review.into()));
        }
        let query = Query::parse(query);
        if let Some(discovered) = self.discovery(path) {
            return Ok(ok(&discovered));
        }
        let not_found = || Refusal::new(404, "the server could not find the requested resource");
        let target = Target::parse(path).ok_or_else(not_found)?;
        let (resource, description) = {
            let store = self.store();
            let found = store
                .resources
                .find(&target.group_version, &target.resource);
            let (resource, description) = found.ok_or_else(not_found)?;
            (resource, description.clone())
        };
        let manager = query
            .get("fieldManager")
            .map_or_else(|| user_agent(headers), str::to_owned);
        let call = Call {
            shared: self,
            target: &target,
            resource,
            description,
            query: &query,
            headers,
            body,
            manager,
        };
        call.answer(method)
    }

    /// `/apis/GROUP/VERSION`: the resources of a version.
    fn discovery(&self, path: &str) -> Option<Value> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let version = match parts.as_slice() {
            ["api", version] => GroupVersion::new("", version),
            ["apis", group, version] => GroupVersion::new(group, version),
            _ => return None,
        };
        let store = self.store();
        let mut resources = Vec::new();
        for (resource, description) in store.resources.of_version(&version) {
            resources.push(
                json!({ "name": resource.plural, "kind": description.kind, "namespaced": true }),
            );
            if description.scale.is_some() {
                let name = format!("{}/scale", resource.plural);
                resources.push(json!({ "name": name, "kind": "Scale", "group": "autoscaling", "version": "v1", "namespaced": true }));
            }
        }
        for (name, kind) in Reviews::of_version(&version) {
            resources.push(json!({ "name": name, "kind": kind, "namespaced": false }));
        }
        // A version that is not served is no version.
        if resources.is_empty() {
            return None;
        }
        Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version.api_version(), "resources": resources,
        }))
    }
}

fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok());
    let agent = agent.unwrap_or("unknown").split('/').next();
    agent.unwrap_or("unknown").to_owned()
}
