//! One list and watch: brings a collection of the API server into the store and keeps it there.
//!
//! List page by page, then watch from the version of the list; a watch that ends goes on from the last version, one that is
//! too old lists again. Whoever reads can see whether the watch lives and how far it has come, and can ask it to begin
//! anew.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;
use kube::client::Body;
use nagi_core::id::Namespace;
use nagi_ports::PortError;
use nagi_runtime::{Backoff, Shutdown};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::api::{Api, ApiError, Call};
use crate::wire::{Bare, List, Status, WatchLine};

/// Objects of one page, to begin with: large enough for few round trips, small enough that a page of large objects is some
/// megabytes.
const PAGE: usize = 500;
/// A page comes in this time, or the API server is not well.
const LIST_TIME: Duration = Duration::from_secs(30);
/// The head of a watch's answer.
const WATCH_TIME: Duration = Duration::from_secs(5);
/// The API server ends a watch after this, and we go on with another.
const WATCH_SECONDS: u32 = 290;
/// Bookmarks come about once a minute, later from an API server that is busy: without a line for this long the watch may
/// be dead, and another one goes on.
const LINE_TIME: Duration = Duration::from_secs(100);
/// A new watch that is too old says so in this time: the API server knows it when it begins. Without a line for so long it
/// goes on from where it was asked to.
const FIRST_LINE: Duration = Duration::from_millis(50);
/// A watch that lasted this long, or brought something, was a good one.
const LASTED: Duration = Duration::from_secs(1);
/// Pauses before a list or a watch is begun again after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The same after the API server refused it: rights are given by people.
const RETRY_REFUSED: Duration = Duration::from_secs(5);
/// The same for what a cluster need not have, and Nagi need not be allowed to see.
const RETRY_REFUSED_PATIENT: Duration = Duration::from_mins(1);
/// A line that does not end is not an object: etcd takes 1.5 MiB at most.
const LINE_MAX: usize = 8 * 1024 * 1024;

/// Takes what a list and watch brings.
pub(crate) trait Sink: Send + Sync {
    /// The path of the collection.
    fn path(&self, namespace: Option<&Namespace>) -> String;
    /// For the log.
    fn name(&self) -> String;
    /// An object, as it is now.
    fn apply(&self, json: &str, by: Listed) -> Result<(), serde_json::Error>;
    /// An object is gone; its last state.
    fn delete(&self, json: &str) -> Result<(), serde_json::Error>;
    /// Versions from before say nothing any more: whatever the next list brings is newer.
    fn begin_timeline(&self, namespace: Option<&Namespace>);
    /// The list with this number is complete, as of this version: what it did not bring is gone.
    fn complete(&self, namespace: Option<&Namespace>, list: u32, version: u64);
}

/// The list that an object came with, or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) number: u32,
    /// The version of the list that holds the object; 0 of one that a watch brought after it.
    pub(crate) as_of: u64,
}

/// A list and watch of a collection, or of the part of it in one namespace.
#[derive(Debug)]
pub(crate) struct Reflector<S> {
    api: Api,
    sink: S,
    namespace: Option<Namespace>,
    state: Arc<State>,
    retry_refused: Duration,
    /// Objects of one page, as many as an answer holds.
    page: AtomicUsize,
}

/// How it stands.
#[derive(Debug)]
pub(crate) struct State {
    collection: Box<str>,
    /// The first list is complete.
    synced: AtomicBool,
    /// A watch is open, and nothing has shown that it is dead.
    live: AtomicBool,
    /// When the last watch was known to be dead; none while one lives, and before the first.
    died: Mutex<Option<Instant>>,
    /// Everything up to this version has been seen.
    seen: AtomicU64,
    /// Counts every step forward.
    progress: watch::Sender<u64>,
    /// Asks for a new watch.
    nudge: Notify,
    /// The next thing is a list, and what is known counts for nothing.
    anew: AtomicBool,
    problem: Mutex<Option<PortError>>,
}

/// Why a watch ended.
enum End {
    /// It goes on from the last version.
    Ended,
    /// Its version is too old.
    Expired,
}

// === impl Listed ===

impl Listed {
    /// Whether an object of the list is from before what was known of it: the list was made later and holds the newest of each,
    /// so its history is another one, as after a backup was restored behind versions that were raised (`etcdutl snapshot
    /// restore --bump-revision`).
    pub(crate) const fn is_before(self, known: u64, version: u64) -> bool {
        version < known && known <= self.as_of
    }
}

// === impl State ===

impl State {
    /// Of the collection with this path.
    pub(crate) fn new(collection: impl Into<Box<str>>) -> Arc<Self> {
        Arc::new(Self {
            collection: collection.into(),
            synced: AtomicBool::new(false),
            live: AtomicBool::new(false),
            died: Mutex::new(None),
            seen: AtomicU64::new(0),
            progress: watch::Sender::new(0),
            nudge: Notify::new(),
            anew: AtomicBool::new(false),
            problem: Mutex::new(None),
        })
    }

    /// The store holds all of it.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// The store holds all of it and follows.
    pub(crate) fn is_live(&self) -> bool {
        self.is_synced() && self.live.load(Ordering::Acquire)
    }

    pub(crate) fn seen(&self) -> u64 {
        // What is to begin anew has seen nothing of what counts.
        if self.anew.load(Ordering::Acquire) {
            return 0;
        }
        self.seen.load(Ordering::Acquire)
    }

    /// The path of the collection.
    pub(crate) fn collection(&self) -> &str {
        &self.collection
    }

    /// Counts every step forward.
    pub(crate) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// The watch may be dead without knowing: begin another one at once.
    pub(crate) fn nudge(&self) {
        self.mark(false);
        self.nudge.notify_one();
    }

    /// The history of the API server is another one than what was seen: begin with a list.
    pub(crate) fn begin_anew(&self) {
        self.anew.store(true, Ordering::Release);
        self.nudge();
    }

    /// Whether to begin anew; nothing has been seen then.
    fn begins_anew(&self) -> bool {
        let anew = self.anew.swap(false, Ordering::AcqRel);
        if anew {
            self.set_live(false);
            self.seen.store(0, Ordering::Release);
        }
        anew
    }

    /// How old what the store holds is, beyond what the connection as a whole tells: nothing while a watch lives, and where
    /// nothing was ever seen.
    pub(crate) fn dead_for(&self) -> Duration {
        let died = *self.died.lock().unwrap_or_else(PoisonError::into_inner);
        died.map_or(Duration::ZERO, |died| died.elapsed())
    }

    /// What went wrong last, until it goes well again.
    pub(crate) fn problem(&self) -> Option<PortError> {
        self.problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Why what the store holds of it is old, or is not there, when there is a reason.
    pub(crate) fn fails(&self) -> Option<PortError> {
        self.problem().filter(|_| !self.is_live())
    }

    /// What the API server says where this may not be read, or where there is no such thing.
    pub(crate) fn refusal(&self) -> Option<PortError> {
        let is_refusal =
            |problem: &PortError| matches!(problem, PortError::Refused(_) | PortError::NotFound);
        self.problem().filter(is_refusal)
    }

    fn set_problem(&self, problem: Option<PortError>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        self.step();
    }

    fn set_live(&self, live: bool) {
        self.mark(live);
        self.step();
    }

    fn mark(&self, live: bool) {
        let was_live = self.live.swap(live, Ordering::AcqRel);
        let mut died = self.died.lock().unwrap_or_else(PoisonError::into_inner);
        if live {
            *died = None;
        } else if was_live {
            *died = Some(Instant::now());
        }
    }

    fn saw(&self, version: u64) {
        self.seen.fetch_max(version, Ordering::AcqRel);
        self.step();
    }

    fn step(&self) {
        self.progress
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

// === impl Reflector ===

impl<S: Sink> Reflector<S> {
    pub(crate) fn new(api: Api, sink: S, namespace: Option<Namespace>, state: Arc<State>) -> Self {
        Self {
            api,
            sink,
            namespace,
            state,
            retry_refused: RETRY_REFUSED,
            page: AtomicUsize::new(PAGE),
        }
    }

    /// Of a collection that need not be there.
    pub(crate) fn patient(
        api: Api,
        sink: S,
        namespace: Option<Namespace>,
        state: Arc<State>,
    ) -> Self {
        Self {
            retry_refused: RETRY_REFUSED_PATIENT,
            ..Self::new(api, sink, namespace, state)
        }
    }

    /// Runs until the process has drained.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        tokio::select! {
            // Cancel-safe: waiting on a watch channel loses nothing.
            () = shutdown.stopped() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1, self.seed());
        let mut list = 0_u32;
        let mut version: Option<String> = None;
        // The version is that of a list that was just read.
        let mut is_new = false;
        loop {
            if self.state.begins_anew() {
                self.sink.begin_timeline(self.namespace.as_ref());
                version = None;
            }
            let begun = Instant::now();
            let done = match &version {
                None => {
                    list = list.wrapping_add(1) % u32::MAX;
                    self.list(list)
                        .await
                        .map(|version| (Some(version), Duration::ZERO))
                }
                Some(from) => self.watch(from, list, is_new).await.map(|(end, reached)| {
                    let brought = reached != *from || begun.elapsed() >= LASTED;
                    let next = match end {
                        End::Ended => Some(reached),
                        End::Expired => {
                            // What the cache holds is from before, and nobody knows how much is missing.
                            self.state.set_live(false);
                            None
                        }
                    };
                    if brought {
                        backoff.reset();
                        return (next, Duration::ZERO);
                    }
                    // One that ends at once, again and again, must not become a flood of requests.
                    (next, backoff.next_delay())
                }),
            };
            let pause = match done {
                Ok((reached, pause)) => {
                    is_new = version.is_none();
                    version = reached;
                    pause
                }
                Err(error) => {
                    is_new = false;
                    self.state.set_live(false);
                    self.note(error, &mut backoff)
                }
            };
            if pause > Duration::ZERO {
                tokio::select! {
                    // Cancel-safe: a permit is kept.
                    () = self.state.nudge.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }

    /// Keeps and logs what went wrong; says how long to wait.
    fn note(&self, error: ApiError, backoff: &mut Backoff) -> Duration {
        let refused = matches!(
            error,
            ApiError::Status {
                code: 403 | 404,
                ..
            }
        );
        let mut asked = Duration::ZERO;
        if let ApiError::Status {
            retry_after: Some(after),
            ..
        } = &error
        {
            asked = *after;
        }
        let problem = PortError::from(error);
        if self.state.problem().as_ref() != Some(&problem) {
            if refused && self.retry_refused == RETRY_REFUSED_PATIENT {
                tracing::debug!(what = self.sink.name(), error = %problem, "Not watched, will try again");
            } else {
                tracing::warn!(what = self.sink.name(), error = %problem, "Cluster cannot be watched, will try again");
            }
        }
        self.state.set_problem(Some(problem));
        if refused {
            self.retry_refused
        } else {
            asked.max(backoff.next_delay())
        }
    }

    /// Lists everything; the version to watch from.
    async fn list(&self, list: u32) -> Result<String, ApiError> {
        let path = self.sink.path(self.namespace.as_ref());
        let mut next: Option<String> = None;
        let mut version = String::new();
        loop {
            let more = next
                .as_deref()
                .map_or_else(String::new, |token| format!("&continue={}", encoded(token)));
            let limit = self.page.load(Ordering::Relaxed);
            let call = Call::get(format!("{path}?limit={limit}{more}"));
            // Pages that are gone (410) end this list: what it brought may be deleted before the next one comes to it.
            let body = self.api.call(&call, LIST_TIME).await.inspect_err(|error| {
                if *error == ApiError::TooLarge {
                    self.page.store((limit / 2).max(1), Ordering::Relaxed);
                }
            })?;
            let broken = |error: serde_json::Error| ApiError::Broken(error.to_string());
            let page: List<'_> = serde_json::from_slice(&body).map_err(broken)?;
            if next.is_none() {
                version = page.metadata.resource_version.to_string();
            }
            let by = Listed {
                number: list,
                as_of: version.parse().unwrap_or(0),
            };
            for item in &page.items {
                self.sink.apply(item.get(), by).map_err(broken)?;
            }
            next = page.metadata.next.filter(|token| !token.is_empty());
            if next.is_none() {
                break;
            }
        }
        let as_of = version.parse().unwrap_or(0);
        self.sink.complete(self.namespace.as_ref(), list, as_of);
        self.state.synced.store(true, Ordering::Release);
        self.state.set_problem(None);
        self.state.saw(as_of);
        tracing::debug!(what = self.sink.name(), version, "Cluster listed");
        Ok(version)
    }

    /// Watches from a version; how far it came.
    async fn watch(&self, from: &str, list: u32, is_new: bool) -> Result<(End, String), ApiError> {
        let path = self.sink.path(self.namespace.as_ref());
        let call = Call::get(format!(
            "{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={from}"
        ));
        let body = match self.api.stream(&call, WATCH_TIME).await {
            Err(ApiError::Status { code: 410, .. }) => return Ok((End::Expired, String::new())),
            other => other?,
        };
        // A nudge from before this watch is answered by it.
        let _ = futures_now(self.state.nudge.notified());
        // But for one that asks for more than another watch.
        if self.state.anew.load(Ordering::Acquire) {
            return Ok((End::Ended, from.to_owned()));
        }
        self.state.set_problem(None);
        let mut lines = Lines::new(body);
        let mut reached = from.to_owned();
        if is_new {
            self.state.set_live(true);
        }
        if !self.state.is_live() {
            // That a version is too old is told in the first line, behind a head that looks like any other.
            if let Ok(line) = timeout(FIRST_LINE, lines.next()).await {
                let Some(line) = line else {
                    return Ok((End::Ended, reached));
                };
                self.api.note_answer();
                match self.take(line?, list)? {
                    Some(version) => reached = version,
                    None => return Ok((End::Expired, reached)),
                }
            }
            self.state.set_live(true);
        }
        loop {
            let line = tokio::select! {
                // Cancel-safe: a permit is kept.
                () = self.state.nudge.notified() => return Ok((End::Ended, reached)),
                // Cancel-safe: what came of a line is kept.
                line = timeout(LINE_TIME, lines.next()) => line,
            };
            let line = match line {
                // Nothing happened, or the connection is dead: a new watch goes on from here, and finds out which.
                Err(_elapsed) => return Ok((End::Ended, reached)),
                Ok(None) => return Ok((End::Ended, reached)),
                Ok(Some(line)) => line?,
            };
            self.api.note_answer();
            match self.take(line, list)? {
                Some(version) => reached = version,
                None => return Ok((End::Expired, reached)),
            }
        }
    }

    /// Takes a line in; the version that it brings, or `None` when the watch is too old.
    fn take(&self, line: &str, list: u32) -> Result<Option<String>, ApiError> {
        let broken = |error: serde_json::Error| ApiError::Broken(error.to_string());
        let event: WatchLine<'_> = serde_json::from_str(line).map_err(broken)?;
        let object = event.object.get();
        let by = Listed {
            number: list,
            as_of: 0,
        };
        match &*event.kind {
            "ADDED" | "MODIFIED" => self.sink.apply(object, by).map_err(broken)?,
            "DELETED" => self.sink.delete(object).map_err(broken)?,
            "BOOKMARK" => {}
            "ERROR" => {
                let status: Status = serde_json::from_str(object).unwrap_or_default();
                if status.code == 410 {
                    return Ok(None);
                }
                return Err(ApiError::Status {
                    code: status.code,
                    message: status.message.unwrap_or_default(),
                    retry_after: None,
                });
            }
            other => return Err(ApiError::Broken(format!("unknown event {other:?}"))),
        }
        let bare: Bare = serde_json::from_str(object).map_err(broken)?;
        self.state.saw(bare.metadata.version());
        Ok(Some(bare.metadata.resource_version.into()))
    }

    fn seed(&self) -> u64 {
        let text = self.sink.path(self.namespace.as_ref());
        text.bytes().fold(0, |seed, byte| {
            seed.wrapping_mul(31).wrapping_add(byte.into())
        })
    }
}

/// The lines of a body.
struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// What has been given out already.
    start: usize,
}

impl Lines {
    fn new(body: Body) -> Self {
        Self {
            body,
            buffer: Vec::new(),
            start: 0,
        }
    }

    async fn next(&mut self) -> Option<Result<&str, ApiError>> {
        let mut searched = self.start;
        let end = loop {
            let unseen = self.buffer.get(searched..).unwrap_or_default();
            if let Some(at) = unseen.iter().position(|byte| *byte == b'\n') {
                break searched + at;
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            searched = self.buffer.len();
            if searched > LINE_MAX {
                return Some(Err(ApiError::Broken("a line without an end".to_owned())));
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Err(error) => {
                    return Some(Err(ApiError::Unreachable(format!(
                        "the watch broke off: {error}"
                    ))));
                }
            }
        };
        let line = self.buffer.get(self.start..end).unwrap_or_default();
        self.start = end + 1;
        Some(str::from_utf8(line).map_err(|error| ApiError::Broken(error.to_string())))
    }
}

/// Polls once: takes a permit that is there.
fn futures_now(future: impl Future<Output = ()>) -> bool {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    future.as_mut().poll(&mut context).is_ready()
}

/// Percent-encodes what a query value may not hold.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                let digit = char::from_digit(digit.into(), 16).unwrap_or('0');
                out.push(digit.to_ascii_uppercase());
            }
        }
    }
    out
}
