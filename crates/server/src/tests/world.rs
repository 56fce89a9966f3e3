//! An API in this process, and a client of it.

use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::service::TowerToHyperService;
use nagi_core::id::WorkloadId;
use nagi_core::pool::Pool;
use nagi_core::workload::Workload;
use nagi_ports::{
    Clock, Engine, HistoryEntry, HistoryPage, HistoryQuery, Journal, LogLine, LogPage, LogQuery,
    Logs, Nodes, PortError,
};
use nagi_runtime::Shutdown;
use nagi_telemetry::{LevelFilter, Log, Metrics, Sink};
use nagi_testkit::{MemoryTraffic, MemoryWorkloads, TestClock, workload};
use nagi_wake::Wakes;
use serde_json::Value;

use crate::app::{App, Ports};
use crate::config::ServerConfig;
use crate::exchange::{self, AnswerBody, Site};
use crate::keys::{KeySources, Keyring};
use crate::serve::crowd::Pulse;

/// The workload of the founding documents.
pub(crate) const APP_A: &str = "project-a/sample-app-a";
/// The path of its verbs.
pub(crate) const BASE: &str = "/api/v1/deployments/project-a/sample-app-a";

/// An API and everything behind it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) app: App,
    pub(crate) workloads: Arc<MemoryWorkloads>,
    pub(crate) traffic: Arc<MemoryTraffic>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) journal: Arc<MemoryJournal>,
    pub(crate) nodes: Arc<MemoryNodes>,
    pub(crate) logs: Arc<MemoryLogs>,
    log: Log,
    lines: Arc<Mutex<Vec<u8>>>,
    pub(crate) api: Site,
    scraping: Site,
}

/// How a world is built.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) config: ServerConfig,
    pub(crate) keys: KeySources,
    pub(crate) kubernetes: bool,
    pub(crate) workloads: Option<Vec<Workload>>,
    pub(crate) shutdown: Option<Shutdown>,
}

impl Setup {
    pub(crate) fn world(self) -> World {
        self.world_with(|_ports| {})
    }

    /// A world in which some ports are others.
    pub(crate) fn world_with(self, change: impl FnOnce(&mut Ports)) -> World {
        let engine = if self.kubernetes {
            Engine::Kubernetes
        } else {
            Engine::Local
        };
        let facts = self
            .workloads
            .unwrap_or_else(|| vec![workload(APP_A, 1, 1, 1)]);
        let workloads = MemoryWorkloads::new(engine, facts);
        let traffic = MemoryTraffic::new();
        let clock = TestClock::start();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Sink::Writer(Box::new(Lines(Arc::clone(&lines))));
        let log = Log::start(LevelFilter::Info, sink).unwrap();
        let metrics = Metrics::new("0.0.0", log.lines_dropped());
        let (journal, nodes, logs) = (Arc::default(), Arc::default(), Arc::default());
        let rails = self.config.rails.clone();
        let wakes = Wakes::new(workloads.clone(), clock.clone(), rails, metrics.clone());
        let mut ports = Ports {
            workloads: workloads.clone(),
            traffic: traffic.clone(),
            journal: Arc::<MemoryJournal>::clone(&journal),
            nodes: Arc::<MemoryNodes>::clone(&nodes),
            logs: Arc::<MemoryLogs>::clone(&logs),
            accounts: None,
            routes: None,
            clock: clock.clone(),
            wakes,
            metrics: metrics.clone(),
            log: log.clone(),
        };
        change(&mut ports);
        let keys = Keyring::open(self.keys, metrics.clone()).unwrap();
        let shutdown = self.shutdown.unwrap_or_else(Shutdown::never);
        let app = App::new(self.config, ports, keys, shutdown);
        let site = |routes| Site {
            app: app.clone(),
            routes: TowerToHyperService::new(routes),
            lines: crate::exchange::Lines::All,
        };
        let (api, scraping) = (site(app.api()), site(app.metrics(true)));
        World {
            app,
            workloads,
            traffic,
            clock,
            journal,
            nodes,
            logs,
            log,
            lines,
            api,
            scraping,
        }
    }
}

/// A world as an operator gets it who sets nothing.
pub(crate) fn world() -> World {
    Setup::default().world()
}

impl World {
    /// A request that is not sent yet.
    pub(crate) fn request(&self, method: &str, path: &str) -> Asking<'_> {
        Asking {
            world: self,
            method: method.parse().unwrap(),
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            peer: IpAddr::from([192, 0, 2, 1]),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Asking<'_> {
        self.request("GET", path)
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Asking<'_> {
        self.request("POST", path).body(body)
    }

    /// The facts of the usual workload.
    pub(crate) fn app_a(&self) -> Arc<Workload> {
        self.workloads.peek(&app_a())
    }

    /// Every line that was logged so far.
    pub(crate) fn log_lines(&self) -> Vec<Value> {
        assert!(self.log.flush(std::time::Duration::from_secs(5)));
        let bytes = self.lines.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        let parse = |line: &str| serde_json::from_str(line).unwrap();
        text.lines().map(parse).collect()
    }
}

pub(crate) fn app_a() -> WorkloadId {
    nagi_testkit::id(APP_A)
}

/// A request to be sent.
#[derive(Debug)]
pub(crate) struct Asking<'w> {
    world: &'w World,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    peer: IpAddr,
}

impl Asking<'_> {
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Bytes::from(body.into());
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
        self
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    pub(crate) fn from(mut self, peer: &str) -> Self {
        self.peer = peer.parse().unwrap();
        self
    }

    /// Sends it and takes the whole answer.
    pub(crate) async fn send(self) -> Answer {
        let (method, path) = (self.method.clone(), self.path.clone());
        let (parts, body) = self.response().await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let (status, headers) = (parts.status, &parts.headers);
        super::contract::check(&method, &path, status, headers, &bytes);
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes,
        }
    }

    /// Sends it and takes the head of the answer.
    pub(crate) async fn response(self) -> Response<AnswerBody> {
        let mut request = hyper::Request::builder()
            .method(self.method)
            .uri(&self.path)
            .body(Full::new(self.body))
            .unwrap();
        *request.headers_mut() = self.headers;
        let host = HeaderValue::from_static("x");
        request.headers_mut().entry(header::HOST).or_insert(host);
        let site = if self.path == nagi_api::routes::METRICS {
            &self.world.scraping
        } else {
            &self.world.api
        };
        let pulse = Arc::new(Pulse::new());
        let Ok(response) = exchange::serve(site.clone(), self.peer, pulse, request).await;
        response
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    /// A header as text; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// A value by its JSON pointer.
    pub(crate) fn at(&self, pointer: &str) -> Value {
        self.json().pointer(pointer).cloned().unwrap_or(Value::Null)
    }

    /// Asserts the status and, for errors, the shape of the envelope.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{}",
            String::from_utf8_lossy(&self.bytes)
        );
        self
    }
}

/// Where log lines go.
#[derive(Debug)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// History that a test sets.
#[derive(Debug, Default)]
pub(crate) struct MemoryJournal {
    pub(crate) entries: Mutex<Vec<HistoryEntry>>,
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, PortError> {
        let entries = self.entries.lock().unwrap();
        let wanted = |entry: &&HistoryEntry| {
            let id = &entry.workload;
            query.namespace.as_ref().is_none_or(|n| *n == id.namespace)
                && query.name.as_ref().is_none_or(|n| *n == id.name)
                && query.since.is_none_or(|since| entry.change.time >= since)
                && query.before.is_none_or(|before| entry.id < before)
        };
        let mut found: Vec<HistoryEntry> = entries.iter().filter(wanted).cloned().collect();
        found.sort_by_key(|entry| std::cmp::Reverse(entry.id));
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        Ok(HistoryPage {
            entries: found,
            more,
            reaches_back_to: entries.iter().map(|entry| entry.change.time).min(),
        })
    }
}

/// Pools that a test sets.
#[derive(Debug, Default)]
pub(crate) struct MemoryNodes {
    pub(crate) pools: Mutex<Vec<Pool>>,
}

#[async_trait]
impl Nodes for MemoryNodes {
    async fn pools(&self) -> Result<Vec<Pool>, PortError> {
        Ok(self.pools.lock().unwrap().clone())
    }
}

/// Output that a test sets.
#[derive(Debug, Default)]
pub(crate) struct MemoryLogs {
    pub(crate) lines: Mutex<Vec<LogLine>>,
}

#[async_trait]
impl Logs for MemoryLogs {
    async fn read(&self, _id: &WorkloadId, query: &LogQuery) -> Result<LogPage, PortError> {
        let lines = self.lines.lock().unwrap();
        let from = match &query.after {
            Some(cursor) => cursor
                .parse()
                .map_err(|_| PortError::Refused("no such cursor".to_owned()))?,
            None => lines.len().saturating_sub(query.tail),
        };
        Ok(LogPage {
            lines: lines.get(from..).unwrap_or_default().to_vec(),
            cursor: lines.len().to_string(),
        })
    }
}

impl World {
    /// Wall time now.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }
}
