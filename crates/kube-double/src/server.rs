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
use tokio::sync::{mpsc, watch};

use crate::answer::{self, Answer, Refusal};
use crate::fault::{Effect, Fault};
use crate::patch;
use crate::path::{Query, Target};
use crate::resources::{Description, GroupVersion, Resource};
use crate::store::{Key, Selection, Store, Writer, key_of, scale_of, set_count};
use crate::watch::Watch;

/// Requests that are remembered.
const RECORDED_MAX: usize = 50_000;
/// Connections and watches at once.
const TASKS_MAX: usize = 4_096;
/// Lines that a watch may be ahead of its reader.
const LINES_MAX: usize = 256;
/// The real one sends a bookmark about once a minute.
const BOOKMARK_EVERY: Duration = Duration::from_mins(1);

/// A request that the double was asked.
#[derive(Debug, Clone)]
pub struct Recorded {
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
    shared: Arc<Shared>,
    address: SocketAddr,
    listening: Arc<Mutex<Option<TaskSet>>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    store: Mutex<Store>,
    knobs: Mutex<Knobs>,
    ticks: watch::Sender<u64>,
    cuts: watch::Sender<u64>,
    watches: TaskSet,
}

/// When a line was printed, and the line.
type Printed = (String, String);

#[derive(Debug)]
struct Knobs {
    faults: Vec<(u64, Fault)>,
    next_fault: u64,
    recorded: VecDeque<Recorded>,
    token: Option<String>,
    bookmark_every: Duration,
    logs: Vec<(Key, Vec<Printed>)>,
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
                logs: Vec::new(),
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

    /// How often a watch gets a bookmark.
    pub fn bookmark_every(&self, every: Duration) {
        self.shared.knobs().bookmark_every = every;
    }

    /// Creates or replaces an object, as the manager `kubectl`.
    ///
    /// # Panics
    /// When its kind is not served.
    pub fn put(&self, object: Value) -> Value {
        self.put_as("kubectl", object)
    }

    /// The same as another manager.
    ///
    /// # Panics
    /// When its kind is not served.
    pub fn put_as(&self, manager: &str, object: Value) -> Value {
        let mut store = self.shared.store();
        let found = store.resources.of_object(&object);
        let resource = found.expect("a kind that is served").0;
        let writer = Writer {
            manager,
            subresource: None,
        };
        let object = store.put(&resource, object, writer);
        drop(store);
        self.shared.tick();
        object
    }

    /// Changes an object in place, as the manager `kubectl`.
    ///
    /// # Panics
    /// When it is not there.
    pub fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) -> Value {
        let mut object = self.get(path).expect("the object is there");
        change(&mut object);
        self.put(object)
    }

    /// The object at a path such as `/apis/apps/v1/namespaces/a/deployments/b`.
    pub fn get(&self, path: &str) -> Option<Value> {
        let (resource, key) = self.locate(path)?;
        self.shared.store().get(&resource, &key)
    }

    /// Removes the object at a path; false when it was not there.
    pub fn delete(&self, path: &str) -> bool {
        let Some((resource, key)) = self.locate(path) else {
            return false;
        };
        let gone = self.shared.store().delete(&resource, &key).is_some();
        self.shared.tick();
        gone
    }

    /// What a pod printed: instants (RFC 3339) and lines.
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

    fn locate(&self, path: &str) -> Option<(Resource, Key)> {
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

    fn knobs(&self) -> MutexGuard<'_, Knobs> {
        self.knobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
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
            Some(Effect::Cut) => return Err(CutOff),
            Some(Effect::Status { code, retry_after }) => {
                let mut refusal = Refusal::new(code, "injected by the double");
                refusal.retry_after = retry_after;
                return Ok(refusal.response());
            }
            Some(Effect::LoseAnswer) => {
                drop(self.answer(&parts.method, path, &parts.headers, &body));
                std::future::pending::<()>().await;
            }
        }
        let answered = self.answer(&parts.method, path, &parts.headers, &body);
        Ok(answered.unwrap_or_else(|refusal| refusal.response()))
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
                let version =
                    json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.0-double" });
                return Ok(ok(&version));
            }
            _ => {}
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
        Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version.api_version(), "resources": resources,
        }))
    }
}

struct Call<'a> {
    shared: &'a Arc<Shared>,
    target: &'a Target,
    resource: Resource,
    description: Description,
    query: &'a Query,
    headers: &'a HeaderMap,
    body: &'a Bytes,
    manager: String,
}

// === impl Call ===

impl Call<'_> {
    fn answer(&self, method: &Method) -> Result<Response<Answer>, Refusal> {
        let Some(name) = &self.target.name else {
            return match *method {
                Method::GET if self.query.flag("watch") => Ok(self.watch()),
                Method::GET => self.list(),
                Method::POST => self.create(),
                _ => Err(Refusal::new(405, "the method is not allowed")),
            };
        };
        let key = (
            self.target.namespace.clone().unwrap_or_default(),
            name.clone(),
        );
        match (method, self.target.subresource.as_deref()) {
            (&Method::GET, None) => {
                let found = self.shared.store().bytes(&self.resource, &key);
                let json = found.ok_or_else(|| self.not_found(name))?;
                Ok(answer::whole(StatusCode::OK, json))
            }
            (&Method::GET, Some("scale")) => {
                let object = self.object(&key)?;
                let scale = scale_of(&object, &self.description);
                Ok(ok(&scale.ok_or_else(|| self.not_found(name))?))
            }
            (&Method::GET, Some("log")) => self.log(&key),
            (&Method::PATCH, None) => {
                let mut object = self.object(&key)?;
                let before = object.clone();
                patch::apply(self.headers, self.body, &mut object)?;
                self.store(&before, object)
            }
            (&Method::PATCH, Some("scale")) => self.patch_scale(&key),
            (&Method::PUT, None) => {
                let before = self.object(&key)?;
                self.store(&before, self.read_body()?)
            }
            (&Method::DELETE, None) => {
                let gone = self.shared.store().delete(&self.resource, &key);
                let gone = gone.ok_or_else(|| self.not_found(name))?;
                self.shared.tick();
                Ok(ok(&gone))
            }
            _ => Err(Refusal::new(
                404,
                "the server could not find the requested resource",
            )),
        }
    }

    fn object(&self, key: &Key) -> Result<Value, Refusal> {
        let found = self.shared.store().get(&self.resource, key);
        found.ok_or_else(|| self.not_found(&key.1))
    }

    fn not_found(&self, name: &str) -> Refusal {
        let group = &self.resource.group;
        let dot = if group.is_empty() { "" } else { "." };
        Refusal::new(
            404,
            format!("{}{dot}{group} {name:?} not found", self.resource.plural),
        )
    }

    fn conflict(&self, name: &str) -> Refusal {
        Refusal::new(
            409,
            format!(
                "Operation cannot be fulfilled on {} {name:?}: the object has been modified; please apply your changes to the latest version and try again",
                self.resource.plural
            ),
        )
    }

    fn read_body(&self) -> Result<Value, Refusal> {
        serde_json::from_slice(self.body).map_err(|error| Refusal::new(400, error.to_string()))
    }

    /// Stores what a write made of an object, if the version in it is the present one.
    fn store(&self, before: &Value, object: Value) -> Result<Response<Answer>, Refusal> {
        let name = self.target.name.as_deref().unwrap_or_default();
        let version = object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default();
        if !version.is_empty() && before["metadata"]["resourceVersion"] != version {
            return Err(self.conflict(name));
        }
        if before["metadata"]["uid"] != object["metadata"]["uid"] {
            return Err(Refusal::new(
                422,
                "metadata.uid: Invalid value: field is immutable",
            ));
        }
        if let Some((wanted, _)) = &self.description.scale
            && object
                .pointer(wanted)
                .is_some_and(|count| count.as_u64().is_none())
        {
            return Err(Refusal::new(
                422,
                "spec.replicas: Invalid value: must be greater than or equal to 0",
            ));
        }
        let stored = self.write(object, None);
        Ok(ok(&stored))
    }

    fn write(&self, object: Value, subresource: Option<&str>) -> Value {
        let writer = Writer {
            manager: &self.manager,
            subresource,
        };
        let stored = self.shared.store().put(&self.resource, object, writer);
        self.shared.tick();
        stored
    }

    fn patch_scale(&self, key: &Key) -> Result<Response<Answer>, Refusal> {
        let mut object = self.object(key)?;
        let scale = scale_of(&object, &self.description);
        let mut scale = scale.ok_or_else(|| self.not_found(&key.1))?;
        let before = scale["metadata"]["resourceVersion"].clone();
        patch::apply(self.headers, self.body, &mut scale)?;
        if scale["metadata"]["resourceVersion"] != before {
            return Err(self.conflict(&key.1));
        }
        let count = match scale["spec"].get("replicas") {
            None => 0,
            Some(count) => count
                .as_u64()
                .ok_or_else(|| Refusal::new(422, "spec.replicas: Invalid value"))?,
        };
        // Everything but the count is dropped without a word, as the real one does.
        if let Some((wanted, _)) = &self.description.scale {
            set_count(&mut object, wanted, count);
        }
        let stored = self.write(object, Some("scale"));
        let scale = scale_of(&stored, &self.description).unwrap_or_default();
        Ok(ok(&scale))
    }

    fn create(&self) -> Result<Response<Answer>, Refusal> {
        let mut object = self.read_body()?;
        if let Some(namespace) = &self.target.namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        if object["metadata"]["name"].is_null()
            && let Some(prefix) = object["metadata"]["generateName"].as_str()
        {
            let name = format!("{prefix}{:05x}", self.shared.store().version());
            object["metadata"]["name"] = json!(name);
        }
        let key = key_of(&object);
        if self.shared.store().get(&self.resource, &key).is_some() {
            let mut refusal = Refusal::new(
                409,
                format!("{} {:?} already exists", self.resource.plural, key.1),
            );
            refusal.reason = "AlreadyExists";
            return Err(refusal);
        }
        let stored = self.write(object, None);
        Ok(answer::whole(
            StatusCode::CREATED,
            stored.to_string().into(),
        ))
    }

    fn list(&self) -> Result<Response<Answer>, Refusal> {
        let selection = Selection::new(self.target.namespace.clone(), self.query);
        let page = self
            .shared
            .store()
            .list(&self.resource, &selection, self.query)?;
        let mut metadata = json!({ "resourceVersion": page.version.to_string() });
        if let Some(next) = page.next {
            metadata["continue"] = json!(next);
            metadata["remainingItemCount"] = json!(page.remaining);
        }
        let size: usize = page.items.iter().map(|item| item.len() + 1).sum();
        let mut json = Vec::with_capacity(size + 256);
        let head = format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
            self.description.kind,
            self.target.group_version.api_version()
        );
        json.extend_from_slice(head.as_bytes());
        for (n, item) in page.items.iter().enumerate() {
            if n > 0 {
                json.push(b',');
            }
            json.extend_from_slice(item);
        }
        json.extend_from_slice(b"]}");
        Ok(answer::whole(StatusCode::OK, json.into()))
    }

    fn watch(&self) -> Response<Answer> {
        let (lines, received) = mpsc::channel(LINES_MAX);
        let watch = Watch {
            resource: self.resource.clone(),
            group_version: self.target.group_version.clone(),
            kind: self.description.kind.clone(),
            selection: Selection::new(self.target.namespace.clone(), self.query),
            query: self.query.clone(),
            lines,
        };
        let (ticks, cuts) = (self.shared.ticks.subscribe(), self.shared.cuts.subscribe());
        let running = watch.run(Arc::clone(self.shared), ticks, cuts);
        if self.shared.watches.try_spawn(running).is_err() {
            return Refusal::new(429, "too many watches").response();
        }
        answer::stream(received)
    }

    fn log(&self, key: &Key) -> Result<Response<Answer>, Refusal> {
        self.object(key)?;
        let knobs = self.shared.knobs();
        let found = knobs.logs.iter().find(|(known, _)| known == key);
        let lines: &[Printed] = found.map_or(&[], |(_, lines)| lines.as_slice());
        let since = self.query.get("sinceTime").unwrap_or_default().to_owned();
        // Whole seconds, as in the real one: RFC 3339 in UTC compares as text.
        let lines: Vec<_> = lines
            .iter()
            .filter(|(time, _)| time.get(..19) >= since.get(..19))
            .collect();
        let tail = self
            .query
            .number("tailLines")
            .map(|tail| usize::try_from(tail).unwrap_or(usize::MAX));
        let skip = tail.map_or(0, |tail| lines.len().saturating_sub(tail));
        let mut text = String::new();
        for (time, line) in lines.into_iter().skip(skip) {
            if self.query.flag("timestamps") {
                text.push_str(time);
                text.push(' ');
            }
            text.push_str(line);
            text.push('\n');
        }
        Ok(answer::text(text))
    }
}

fn ok(object: &Value) -> Response<Answer> {
    answer::whole(StatusCode::OK, object.to_string().into())
}

fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok());
    let agent = agent.unwrap_or("unknown").split('/').next();
    agent.unwrap_or("unknown").to_owned()
}
