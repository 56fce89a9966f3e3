//! Events: what becomes one, who gets it, how a client comes back.

use std::time::Duration;

use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use nagi_core::access::Role;
use nagi_core::id::KeyId;
use nagi_core::quantity::{Replicas, WakeCount};
use nagi_core::workload::Pending;
use nagi_testkit::{epoch, workload};
use serde_json::Value;

use super::*;
use crate::keys::{KeyEntry, KeySources, file};
use crate::tests::world::{APP_A, BASE, Setup, World, app_a, world};

/// What one client saw: name, id and data of each event.
#[derive(Debug)]
struct Seen {
    name: String,
    id: String,
    data: Value,
}

/// An open stream of one client.
struct Watching {
    body: http_body_util::BodyDataStream<crate::exchange::AnswerBody>,
    text: String,
}

impl Watching {
    async fn begin(w: &World, last: Option<&str>, key: Option<&str>) -> Self {
        let mut asking = w.get("/api/v1/events");
        if let Some(last) = last {
            asking = asking.header("last-event-id", last);
        }
        if let Some(key) = key {
            asking = asking.key(key);
        }
        let response = asking.response().await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    /// The next event; `None` when the stream has ended, or nothing comes for a minute.
    async fn next(&mut self) -> Option<Seen> {
        loop {
            while let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(seen) = seen(&frame) {
                    return Some(seen);
                }
            }
            let more = tokio::time::timeout(Duration::from_secs(5), self.body.next()).await;
            let bytes = more.ok()??.unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// Everything that comes within this time, and whether the stream ended.
    async fn listen(&mut self, time: Duration) -> (String, bool) {
        let mut text = String::new();
        let reading = async {
            while let Some(bytes) = self.body.next().await {
                text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
            }
        };
        let ended = tokio::time::timeout(time, reading).await.is_ok();
        (text, ended)
    }

    async fn take(&mut self, count: usize) -> Vec<Seen> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(self.next().await.expect("one more event"));
        }
        all
    }
}

fn seen(frame: &str) -> Option<Seen> {
    let field = |name: &str| {
        frame
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::to_owned)
    };
    if frame.starts_with(':') {
        return None;
    }
    Some(Seen {
        name: field("event: ")?,
        id: field("id: ")?,
        data: serde_json::from_str(&field("data: ")?).unwrap(),
    })
}

/// Runs `work` while the feed of this world runs.
async fn fed<T>(w: &World, work: impl Future<Output = T>) -> T {
    let feed = feed(w.app.clone(), nagi_runtime::Shutdown::never());
    tokio::select! {
        () = feed => unreachable!("the feed runs as long as the process"),
        output = async {
            // The first listing is no news.
            tokio::time::sleep(Duration::from_millis(1)).await;
            work.await
        } => output,
    }
}

fn words(all: &[Seen]) -> Vec<String> {
    let word = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    all.iter()
        .map(|seen| {
            format!(
                "{} {} {}",
                seen.name,
                word(&seen.data["from"]),
                word(&seen.data["to"])
            )
        })
        .collect()
}

// R19
#[tokio::test(start_paused = true)]
async fn a_sleep_a_schedule_and_a_wake_are_told_in_order() {
    let w = world();
    fed(&w, async {
        let mut watching = Watching::begin(&w, None, None).await;
        let body = r#"{"reason":"night","scheduled_scale_up":"2030-06-01T00:00:00Z"}"#;
        w.post(&format!("{BASE}/scale-to-zero"), body)
            .send()
            .await
            .expect(200);
        let slept = watching.take(3).await;
        assert_eq!(
            words(&slept),
            [
                "scale 1 0",
                "schedule null 2030-06-01T00:00:00.000Z",
                "status active scaling"
            ]
        );
        let scale = &slept[0].data;
        assert_eq!(scale["actor"], "anonymous");
        assert_eq!(scale["reason"], "night");
        assert_eq!(scale["resource"], "deployments");
        assert_eq!(scale["namespace"], "project-a");
        assert_eq!(scale["name"], "sample-app-a");
        assert_eq!(scale["type"], "scale");
        assert_eq!(scale["id"], slept[0].id);

        w.workloads.settle(&app_a());
        assert_eq!(words(&watching.take(1).await), ["status scaling inactive"]);
        w.post(&format!("{BASE}/wake"), "").send().await.expect(202);
        let mut waking = watching.take(3).await;
        waking.sort_by_key(|seen| seen.name.clone());
        assert_eq!(
            words(&waking),
            ["scale 0 1", "status inactive scaling", "wake null scaling"]
        );
        w.workloads.settle(&app_a());
        let mut awake = watching.take(2).await;
        awake.sort_by_key(|seen| seen.name.clone());
        assert_eq!(
            words(&awake),
            ["status scaling active", "wake scaling ready"]
        );
        w.request("DELETE", &format!("{BASE}/scheduled-scale-up"))
            .send()
            .await
            .expect(200);
        assert_eq!(
            words(&watching.take(1).await),
            ["schedule 2030-06-01T00:00:00.000Z null"]
        );
        w.workloads.delete(&app_a());
        assert_eq!(words(&watching.take(1).await), ["status active null"]);
    })
    .await;
}

// R19: a failed wake says why.
#[tokio::test(start_paused = true)]
async fn a_wake_that_fails_says_so() {
    let mut asleep = workload(APP_A, 0, 0, 0);
    asleep.intent.remembered = WakeCount::new(1);
    let w = Setup {
        workloads: Some(vec![asleep]),
        ..Setup::default()
    }
    .world();
    fed(&w, async {
        let mut watching = Watching::begin(&w, None, None).await;
        w.post(&format!("{BASE}/wake"), "").send().await.expect(202);
        watching.take(3).await;
        w.workloads.change(&app_a(), |facts| {
            facts.pending = Some(Pending::DoesNotFit {
                pool: nagi_core::id::PoolName::new("gpu").unwrap(),
            });
        });
        let failed = watching.take(1).await;
        assert_eq!(words(&failed), ["wake scaling failed"]);
        assert!(
            failed[0].data["reason"]
                .as_str()
                .unwrap()
                .contains("pool gpu")
        );
    })
    .await;
}

/// Flips the status of the usual workload, which makes one event each time.
fn flip(w: &World) {
    w.workloads.change(&app_a(), |facts| {
        facts.available = Replicas(1 - facts.available.0);
    });
}

// R19: nothing is lost between two connections, and nothing comes twice.
#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_goes_on_where_it_was() {
    let w = world();
    fed(&w, async {
        let mut first = Watching::begin(&w, None, None).await;
        flip(&w);
        let seen = first.take(1).await;
        drop(first);
        for _ in 0..3 {
            flip(&w);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut second = Watching::begin(&w, Some(&seen[0].id), None).await;
        flip(&w);
        let missed = second.take(4).await;
        let numbers: Vec<&str> = missed
            .iter()
            .map(|s| s.id.rsplit('-').next().unwrap())
            .collect();
        assert_eq!(numbers, ["2", "3", "4", "5"]);
        assert!(second.next().await.is_none());
    })
    .await;
}

// R19, issue 3: a stream that broke before its first event.
#[tokio::test(start_paused = true)]
async fn a_client_that_has_seen_no_event_yet_goes_on_where_it_began() {
    let w = world();
    fed(&w, async {
        flip(&w);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut first = Watching::begin(&w, None, None).await;
        let (text, _) = first.listen(Duration::from_millis(1)).await;
        let id = text.lines().next().unwrap().strip_prefix("id: ").unwrap();
        drop(first);
        flip(&w);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut second = Watching::begin(&w, Some(id), None).await;
        let missed = second.take(1).await;
        assert_eq!(missed[0].id.rsplit('-').next(), Some("2"));
    })
    .await;
}

// R19, issue 3: a client that is cut while it is shown the current state has not seen all of it.
#[tokio::test(start_paused = true)]
async fn only_the_last_state_after_a_reset_can_be_gone_on_from() {
    let apps = ["project-a/a", "project-a/b", "project-a/c"];
    let setup = Setup {
        workloads: Some(apps.iter().map(|app| workload(app, 1, 1, 1)).collect()),
        ..Setup::default()
    };
    let w = setup.world();
    fed(&w, async {
        let mut whole = Watching::begin(&w, Some("gone"), None).await;
        let shown = whole.take(4).await;
        for cut in &shown[..3] {
            assert_eq!(cut.data["id"], cut.id.as_str());
            let mut again = Watching::begin(&w, Some(&cut.id), None).await;
            let names: Vec<_> = again.take(4).await.into_iter().map(|s| s.name).collect();
            assert_eq!(names, ["reset", "status", "status", "status"], "{cut:?}");
        }
        let mut on = Watching::begin(&w, Some(&shown[3].id), None).await;
        assert!(on.next().await.is_none(), "nothing is missing");
    })
    .await;
}

// R19: an id that is gone, of another life, or of nobody: reset, then the current state.
#[tokio::test(start_paused = true)]
async fn a_client_whose_place_is_gone_is_reset() {
    let w = world();
    fed(&w, async {
        let mut early = Watching::begin(&w, None, None).await;
        flip(&w);
        let first = early.take(1).await.remove(0).id;
        drop(early);
        for _ in 0..=RING_MAX {
            flip(&w);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let future = first.replace("-1", "-999999");
        for gone in [first.as_str(), "other-5", "junk", &future, &"x".repeat(500)] {
            let mut watching = Watching::begin(&w, Some(gone), None).await;
            let shown = watching.take(2).await;
            assert_eq!(shown[0].name, "reset", "{gone}");
            assert_eq!(words(&shown[1..]), ["status null active"]);
            flip(&w);
            flip(&w);
            assert_eq!(watching.take(2).await.len(), 2, "and then what comes");
        }
    })
    .await;
}

// R19, G13: the current state is read and queued in pieces, and only its last frame can be gone on from.
#[tokio::test(start_paused = true)]
async fn the_state_after_a_reset_comes_whole_however_much_there_is() {
    for count in [500, 501, 1_201] {
        let apps = (0..count).map(|n| workload(&format!("project-a/a-{n:04}"), 1, 1, 1));
        let setup = Setup {
            workloads: Some(apps.collect()),
            ..Setup::default()
        };
        let w = setup.world();
        fed(&w, async {
            let mut watching = Watching::begin(&w, Some("gone"), None).await;
            let shown = watching.take(1 + count).await;
            assert_eq!(shown[0].name, "reset");
            let (last, before) = shown[1..].split_last().unwrap();
            assert_eq!(last.data["name"], format!("a-{:04}", count - 1));
            for (n, one) in before.iter().enumerate() {
                assert_eq!(one.data["name"], format!("a-{n:04}"));
                assert_ne!(one.id, last.id);
            }
            let mut on = Watching::begin(&w, Some(&last.id), None).await;
            assert!(on.next().await.is_none(), "nothing is missing");
        })
        .await;
    }
}

// R19: a workload that left and is back tells nothing twice; one that is new and was changed since the last look tells that.
#[tokio::test(start_paused = true)]
async fn a_workload_that_comes_back_tells_no_change_again() {
    let w = world();
    fed(&w, async {
        let mut watching = Watching::begin(&w, None, None).await;
        w.post(&format!("{BASE}/scale-to-zero"), r#"{"reason":"x"}"#)
            .send()
            .await
            .expect(200);
        assert_eq!(watching.take(2).await[0].name, "scale");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = w.app_a();
        w.workloads.delete(&app_a());
        tokio::time::sleep(Duration::from_secs(1)).await;
        w.workloads.put((*before).clone());
        let told = watching.take(2).await;
        assert_eq!(words(&told), ["status scaling null", "status null scaling"]);
        assert!(watching.next().await.is_none(), "nothing else");

        let mut new = workload("project-a/new", 0, 0, 0);
        let change = before.intent.changes.last().cloned().unwrap();
        new.intent.changes.push(nagi_core::intent::Change {
            time: w.app.clock.now(),
            ..change
        });
        w.workloads.put(new);
        let told = watching.take(2).await;
        assert_eq!(words(&told), ["scale 1 0", "status null inactive"]);
    })
    .await;
}

// R19: bounded per client; one that reads too slowly is told what it missed.
#[tokio::test(start_paused = true)]
async fn a_client_that_falls_behind_is_reset_too() {
    let w = world();
    fed(&w, async {
        let mut watching = Watching::begin(&w, None, None).await;
        for _ in 0..RING_MAX + 10 {
            flip(&w);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let shown = watching.take(2).await;
        assert_eq!(shown[0].name, "reset");
        assert_eq!(shown[1].name, "status");
    })
    .await;
}

// The feed itself missed something: the listing makes up for it.
#[tokio::test(start_paused = true)]
async fn facts_that_the_feed_missed_are_still_told() {
    let setup = Setup {
        workloads: Some(vec![
            workload(APP_A, 1, 1, 1),
            workload("project-b/b", 1, 1, 1),
        ]),
        ..Setup::default()
    };
    let w = setup.world();
    fed(&w, async {
        let mut watching = Watching::begin(&w, None, None).await;
        w.workloads
            .change(&nagi_testkit::id("project-b/b"), |facts| {
                facts.available = Replicas::ZERO;
            });
        // More changes than the engine's channel holds, without a pause for the feed to read them.
        for _ in 0..2000 {
            flip(&w);
        }
        let told = watching.take(1).await;
        assert_eq!(told[0].data["name"], "b");
        assert_eq!(words(&told), ["status active scaling"]);
    })
    .await;
}

// R19, F10: a key sees its namespaces, until other keys count.
#[tokio::test(start_paused = true)]
async fn a_key_sees_the_events_of_its_namespaces_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.yaml");
    let entry = KeyEntry {
        id: KeyId::new("see").unwrap(),
        role: Role::Viewer,
        reach: file::reach(&["project-b".to_owned()]).unwrap(),
        created: epoch(),
        expires: None,
    };
    let key = file::create(&path, &entry).unwrap();
    let setup = Setup {
        keys: KeySources {
            keys_file: Some(path),
            ..KeySources::default()
        },
        workloads: Some(vec![
            workload(APP_A, 1, 1, 1),
            workload("project-b/b", 1, 1, 1),
        ]),
        ..Setup::default()
    };
    let w = setup.world();
    fed(&w, async {
        let mut watching = Watching::begin(&w, Some("gone"), Some(&key)).await;
        let state = watching.take(2).await;
        assert_eq!(
            (state[0].name.as_str(), &state[1].data["namespace"]),
            ("reset", &Value::from("project-b"))
        );
        flip(&w);
        w.workloads
            .change(&nagi_testkit::id("project-b/b"), |facts| {
                facts.available = Replicas::ZERO;
            });
        let seen = watching.take(1).await;
        assert_eq!(seen[0].data["namespace"], "project-b");
        w.get("/api/v1/events?namespace=project-a")
            .key(&key)
            .send()
            .await
            .expect(403);
    })
    .await;
}

// Bounded: streams have places, and places come back.
#[tokio::test(start_paused = true)]
async fn streams_are_limited_per_caller_and_together() {
    let mut setup = Setup::default();
    setup.config.limits.streams_max = 3;
    setup.config.limits.streams_per_caller_max = 2;
    let w = setup.world();
    let open = async |peer: &str| w.get("/api/v1/events").from(peer).response().await;
    let one = open("192.0.2.1").await;
    let _two = open("192.0.2.1").await;
    assert_eq!(open("192.0.2.1").await.status(), 503);
    let _three = open("192.0.2.2").await;
    let refused = w
        .get("/api/v1/events")
        .from("192.0.2.3")
        .send()
        .await
        .expect(503);
    assert_eq!(refused.header("retry-after"), "5");
    drop(one);
    assert_eq!(open("192.0.2.3").await.status(), 200);
}

// R19
#[tokio::test(start_paused = true)]
async fn a_silent_stream_shows_every_fifteen_seconds_that_it_lives() {
    let w = world();
    let mut watching = Watching::begin(&w, None, None).await;
    let (text, ended) = watching.listen(Duration::from_secs(31)).await;
    let (id, text) = text.split_once("\n\n").unwrap();
    assert!(id.starts_with("id: ") && id.ends_with("-0"), "{id}");
    assert_eq!(text, ": alive\n\n".repeat(3), "at once, and twice more");
    assert!(!ended);
}

// Issue 3: whose key it is ends, and nobody else.
#[tokio::test(start_paused = true)]
async fn a_stream_outlives_the_revocation_of_another_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.yaml");
    let entry = |id: &str| KeyEntry {
        id: KeyId::new(id).unwrap(),
        role: Role::Viewer,
        reach: file::reach(&["*".to_owned()]).unwrap(),
        created: epoch(),
        expires: None,
    };
    let (stays, goes) = (entry("stays"), entry("goes"));
    let keys = [&stays, &goes].map(|entry| file::create(&path, entry).unwrap());
    let setup = Setup {
        keys: KeySources {
            keys_file: Some(path.clone()),
            ..KeySources::default()
        },
        ..Setup::default()
    };
    let w = setup.world();
    let mut staying = Watching::begin(&w, None, Some(&keys[0])).await;
    let mut going = Watching::begin(&w, None, Some(&keys[1])).await;
    file::revoke(&path, &goes.id).unwrap();
    let followed = w.app.keys.clone();
    let minute = Duration::from_mins(1);
    tokio::select! {
        () = followed.follow(nagi_runtime::Shutdown::never()) => {
            unreachable!("files are followed as long as the process runs")
        }
        ((_, ended), (_, gone)) = async { tokio::join!(staying.listen(minute), going.listen(minute)) } => {
            assert!(!ended, "a stream of a key that still counts");
            assert!(gone, "a stream of a key that was revoked");
        }
    }
}

// F10, issue 3 item 4: an open stream outlives neither its key's time nor a change of the keys.
#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_key_does() {
    for expires in [Some(epoch() + jiff::SignedDuration::from_secs(20)), None] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.yaml");
        let entry = KeyEntry {
            id: KeyId::new("see").unwrap(),
            role: Role::Viewer,
            reach: file::reach(&["*".to_owned()]).unwrap(),
            created: epoch(),
            expires,
        };
        let key = file::create(&path, &entry).unwrap();
        let setup = Setup {
            keys: KeySources {
                keys_file: Some(path.clone()),
                ..KeySources::default()
            },
            ..Setup::default()
        };
        let w = setup.world();
        let mut watching = Watching::begin(&w, None, Some(&key)).await;
        let revoked = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            if expires.is_none() {
                file::revoke(&path, &entry.id).unwrap();
            }
            w.app
                .keys
                .clone()
                .follow(nagi_runtime::Shutdown::never())
                .await;
        };
        let begun = tokio::time::Instant::now();
        tokio::select! {
            () = revoked => unreachable!("files are followed as long as the process runs"),
            (_, ended) = watching.listen(Duration::from_mins(2)) => assert!(ended, "{expires:?}"),
        }
        let limit = if expires.is_some() { 31 } else { 10 };
        let took = begun.elapsed();
        assert!(took <= Duration::from_secs(limit), "{took:?}");
    }
}
