//! What the pods of a workload printed, through the API server.
//!
//! Each container of each pod is read for itself and has a place of its own in the cursor: the clocks of nodes differ, and of
//! one that prints much a page holds a part only, whatever the others printed meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use nagi_core::id::{Namespace, ReplicaName, WorkloadId};
use nagi_ports::{LogLine, LogPage, LogQuery, Logs, PortError};
use serde::Deserialize;

use crate::api::{ApiError, Call};
use crate::engine::{KubeEngine, LIVE, Shared};
use crate::reflect::encoded;

/// A page is at most this long, over all pods (the port promises 1 MiB).
const PAGE_BYTES: usize = 1024 * 1024;
/// The API server reads from a whole second on. Where one second holds more than fits, so much of it is read over.
const SECOND_BYTES: usize = 16 * 1024 * 1024;
/// Pods that are asked for one page.
const PODS_MAX: usize = 20;
/// Containers that are asked for one page. A cursor has 26 bytes for each, and the API takes one of 4 KiB.
const CONTAINERS_MAX: usize = 150;
/// What a cursor begins with.
const CURSOR_FORMAT: &str = "1";
/// The annotation of a pod that names the container which kubectl shows.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Where reading goes on: when each container printed the last line that was read, by [`key`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Cursor(BTreeMap<u32, Timestamp>);

/// What is asked of every container.
#[derive(Debug)]
enum Wanted {
    /// Its last so many lines.
    Last(usize),
    /// Everything that is not behind the cursor.
    After(Cursor),
}

/// A page while it is put together.
#[derive(Debug, Default)]
struct Page {
    lines: Vec<LogLine>,
    cursor: Cursor,
    /// The containers that were asked.
    asked: BTreeSet<u32>,
}

/// A container of a pod; without a name, the only one.
#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    namespace: &'a Namespace,
    pod: &'a ReplicaName,
    container: Option<&'a str>,
}

#[async_trait]
impl Logs for KubeEngine {
    async fn read(&self, id: &WorkloadId, query: &LogQuery) -> Result<LogPage, PortError> {
        let shared = &self.shared;
        let wanted = match query.after.as_deref() {
            None => Wanted::Last(query.tail),
            Some(text) => Wanted::After(
                Cursor::parse(text)
                    .ok_or_else(|| PortError::Refused("is no cursor of this engine".to_owned()))?,
            ),
        };
        // One that has not started yet has printed nothing.
        let pods: Vec<_> = shared
            .store
            .pods(id)
            .into_iter()
            .filter(|pod| pod.node.is_some())
            .take(PODS_MAX)
            .collect();
        let mut page = Page::begin(&wanted);
        let (share, containers_max) = (
            PAGE_BYTES / pods.len().max(1),
            CONTAINERS_MAX / pods.len().max(1),
        );
        for pod in pods {
            let source = Source {
                namespace: &id.namespace,
                pod: &pod.replica.name,
                container: None,
            };
            shared
                .read_pod(source, &wanted, share, containers_max, &mut page)
                .await?;
        }
        Ok(page.end())
    }
}

impl Shared {
    /// Reads what the containers of a pod printed, `share` bytes at most: the one that people see by default, else each.
    async fn read_pod(
        &self,
        pod: Source<'_>,
        wanted: &Wanted,
        share: usize,
        containers_max: usize,
        page: &mut Page,
    ) -> Result<(), PortError> {
        match self.read_container(pod, wanted, share, page).await {
            // It has several.
            Err(ApiError::Status { code: 400, .. }) => {}
            other => return Ok(other?),
        }
        let mut containers = self.containers(pod.namespace, pod.pod).await?;
        containers.truncate(containers_max);
        let share = share / containers.len().max(1);
        for container in &containers {
            let source = Source {
                container: Some(container),
                ..pod
            };
            self.read_container(source, wanted, share, page).await?;
        }
        Ok(())
    }

    /// Reads what one container printed, `share` bytes at most.
    async fn read_container(
        &self,
        source: Source<'_>,
        wanted: &Wanted,
        share: usize,
        page: &mut Page,
    ) -> Result<(), ApiError> {
        let key = key(source);
        page.asked.insert(key);
        let (after, which) = match wanted {
            // Where reading goes on is told by a line, also to those who want none.
            Wanted::Last(count) => (None, format!("&tailLines={}", (*count).max(1))),
            Wanted::After(cursor) => match cursor.0.get(&key) {
                // Whole seconds: what came twice is dropped.
                Some(after) => (
                    Some(*after),
                    format!("&sinceTime={}", encoded(&seconds(*after))),
                ),
                // It came into being, or printed its first line, since then.
                None => (None, String::new()),
            },
        };
        let path = source.path();
        let mut limit = share;
        loop {
            let call = Call::get(format!("{path}{which}&limitBytes={limit}"));
            let body = match self.api.call(&call, LIVE).await {
                Err(error) if has_printed_nothing(&error) => return Ok(()),
                answered => answered?,
            };
            let is_cut = body.len() >= limit;
            let found = lines(&body, is_cut, after, share);
            let last = match (found.last(), after) {
                (Some((at, _)), _) => Some(*at),
                // All that fits was read before, or is a part of one line.
                (None, _) if is_cut && limit < SECOND_BYTES => {
                    limit = SECOND_BYTES;
                    continue;
                }
                (None, Some(after)) if is_cut => Some(next_second(after)),
                (None, _) => None,
            };
            page.take(key, source.pod, found, last, wanted);
            return Ok(());
        }
    }

    /// The names of the containers of a pod whose logs are meant; none when it is gone.
    async fn containers(
        &self,
        namespace: &Namespace,
        pod: &ReplicaName,
    ) -> Result<Vec<String>, PortError> {
        let selector = encoded(&format!("metadata.name={pod}"));
        let collection = format!("/api/v1/namespaces/{namespace}/pods");
        let query = format!("&fieldSelector={selector}");
        let pods: Vec<Manned> = self.list_live(&collection, &query).await?;
        Ok(pods.into_iter().flat_map(Manned::meant).collect())
    }
}

// === impl Cursor ===

impl Cursor {
    /// Reads one that [`Cursor::text`] wrote.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        if parts.next() != Some(CURSOR_FORMAT) {
            return None;
        }
        let places = parts.map(|part| {
            let (key, nanoseconds) = part.split_once(':')?;
            let nanoseconds = i128::from_str_radix(nanoseconds, 16).ok()?;
            let at = Timestamp::from_nanosecond(nanoseconds).ok()?;
            Some((u32::from_str_radix(key, 16).ok()?, at))
        });
        places.collect::<Option<_>>().map(Self)
    }

    fn text(&self) -> String {
        let places = self.0.iter().map(|(key, at)| {
            let nanoseconds = at.as_nanosecond().max(0);
            format!(",{key:x}:{nanoseconds:x}")
        });
        std::iter::once(CURSOR_FORMAT.to_owned())
            .chain(places)
            .collect()
    }
}

// === impl Page ===

impl Page {
    /// Of a container that says nothing this time the place stays.
    fn begin(wanted: &Wanted) -> Self {
        let cursor = match wanted {
            Wanted::Last(_) => Cursor::default(),
            Wanted::After(cursor) => cursor.clone(),
        };
        Self {
            cursor,
            ..Self::default()
        }
    }

    fn take(
        &mut self,
        key: u32,
        replica: &ReplicaName,
        found: Vec<(Timestamp, String)>,
        last: Option<Timestamp>,
        wanted: &Wanted,
    ) {
        if let Some(last) = last {
            self.cursor.0.insert(key, last);
        }
        if matches!(wanted, Wanted::Last(0)) {
            return;
        }
        self.lines
            .extend(found.into_iter().map(|(_, text)| LogLine {
                replica: replica.clone(),
                text,
            }));
    }

    fn end(mut self) -> LogPage {
        self.cursor.0.retain(|key, _| self.asked.contains(key));
        LogPage {
            lines: self.lines,
            cursor: self.cursor.text(),
        }
    }
}

// === impl Source ===

impl Source<'_> {
    fn path(self) -> String {
        let (namespace, pod) = (self.namespace, self.pod);
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?timestamps=true");
        match self.container {
            None => path,
            Some(name) => format!("{path}&container={}", encoded(name)),
        }
    }
}

/// What a container is called in a cursor: FNV-1a of its name and its pod's, since names are long. Of 150 containers two have
/// the same once in 400,000 times.
fn key(source: Source<'_>) -> u32 {
    let container = source.container.unwrap_or_default();
    let name = source
        .pod
        .as_str()
        .bytes()
        .chain([b'/'])
        .chain(container.bytes());
    name.fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// A pod, as far as its containers are named.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Manned {
    metadata: MannedMeta,
    spec: MannedSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MannedMeta {
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MannedSpec {
    containers: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

impl Manned {
    fn meant(mut self) -> Vec<String> {
        match self.metadata.annotations.remove(DEFAULT_CONTAINER) {
            Some(name) => vec![name],
            None => self
                .spec
                .containers
                .into_iter()
                .map(|one| one.name)
                .collect(),
        }
    }
}

/// Its container is not there yet, or the pod is gone.
fn has_printed_nothing(error: &ApiError) -> bool {
    match error {
        ApiError::Status { code, message, .. } => {
            *code == 404 || (*code == 400 && message.contains("is waiting to start"))
        }
        ApiError::Unreachable(_)
        | ApiError::Timeout(_)
        | ApiError::TooLarge
        | ApiError::Broken(_) => false,
    }
}

/// The lines of an answer that are later than `after`, `share` bytes of them at most; of one that is longer by itself its
/// beginning. Without the last one where the answer was cut in the middle of it.
fn lines(
    body: &[u8],
    is_cut: bool,
    after: Option<Timestamp>,
    share: usize,
) -> Vec<(Timestamp, String)> {
    let text = String::from_utf8_lossy(body);
    let mut found: Vec<(Timestamp, String)> = Vec::new();
    let mut bytes = 0;
    for line in text.split_inclusive('\n') {
        let line = match line.strip_suffix('\n') {
            Some(line) => line,
            None if is_cut => break,
            None => line,
        };
        let (stamp, words) = line.split_once(' ').unwrap_or((line, ""));
        let Ok(at) = stamp.parse::<Timestamp>() else {
            continue;
        };
        if after.is_some_and(|after| at <= after) {
            continue;
        }
        bytes += line.len();
        if bytes > share && !found.is_empty() {
            break;
        }
        let words = words.get(..words.floor_char_boundary(share));
        found.push((at, words.unwrap_or_default().to_owned()));
    }
    found
}

fn seconds(instant: Timestamp) -> String {
    instant.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The beginning of the second after this one.
fn next_second(instant: Timestamp) -> Timestamp {
    let whole = Timestamp::from_second(instant.as_second()).unwrap_or(instant);
    whole
        .checked_add(SignedDuration::from_secs(1))
        .unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is_one() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let cursor = Cursor(BTreeMap::from([
            (0, at("2030-01-01T00:00:00.123456789Z")),
            (u32::MAX, at("1970-01-01T00:00:00Z")),
        ]));
        assert_eq!(Cursor::parse(&cursor.text()).unwrap(), cursor);
        let empty = Cursor::default();
        assert_eq!(Cursor::parse(&empty.text()).unwrap(), empty);
        for other in [
            "", "x", "2", "1,", "1,a", "1,a:", "1,g:1", "1,1:x", "1;a:1", "0:1:2",
        ] {
            assert_eq!(Cursor::parse(other), None, "{other}");
        }
    }

    // The API takes a cursor of 4 KiB.
    #[test]
    fn the_longest_cursor_is_taken_by_the_api() {
        let at: Timestamp = "2200-01-01T00:00:00.999999999Z".parse().unwrap();
        let keys = u32::MAX - u32::try_from(CONTAINERS_MAX).unwrap() + 1..=u32::MAX;
        let cursor = Cursor(keys.map(|key| (key, at)).collect());
        assert_eq!(cursor.0.len(), CONTAINERS_MAX);
        assert!(cursor.text().len() <= 4096, "{}", cursor.text().len());
    }

    #[test]
    fn a_line_that_was_cut_is_left_for_the_next_page() {
        let texts = |body: &str, is_cut, share| {
            let found = lines(body.as_bytes(), is_cut, None, share);
            found.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        let (one, two) = ("2030-01-01T00:00:00Z one\n", "2030-01-01T00:00:01Z tw");
        let both = format!("{one}{two}");
        assert_eq!(texts(&both, true, 1000), ["one"]);
        assert_eq!(texts(&both, false, 1000), ["one", "tw"]);
        assert_eq!(texts(two, true, 1000), [""; 0]);
        assert_eq!(texts(&both, false, one.len()), ["one"]);
        // Longer than a page by itself.
        assert_eq!(texts("2030-01-01T00:00:00Z 凪凪凪\n", false, 4), ["凪"]);
    }
}
