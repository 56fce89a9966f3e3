//! The workload file while the engine runs: what an edit changes, and what a bad one does not.

use std::sync::Arc;
use std::time::Duration;

use nagi_core::intent::{Actor, Asleep, Intent, IntentUpdate, ScheduledWake, SleptBy};
use nagi_core::quantity::{Replicas, WakeCount};
use nagi_core::workload::Workload;
use nagi_local::{ReloadError, StartError};
use nagi_ports::{HistoryQuery, Journal as _, PortError, Workloads as _};
use nagi_testkit::listed;

use crate::lab::{Lab, Place, eventually, id};

fn file(command: &str, replicas: u32) -> String {
    format!(
        "workloads:\n- {{namespace: project-a, name: a, command: [{command}], replicas: {replicas}}}\n"
    )
}

#[tokio::test]
async fn a_bad_file_keeps_the_old_state_and_says_where_it_is_wrong() {
    let good = file("sleep, '1000'", 1);
    let lab = Lab::start(&good).await;
    assert_eq!(lab.file_in_force(), "1");
    lab.wait_serving(&id("a"), 1).await;
    eventually(|| lab.place.processes().len() == 1).await;
    let before = lab.place.processes();
    lab.place
        .write_file("workloads:\n- {namespace: project-a, nam: a}\n");
    let error = lab.engine.reload().await.unwrap_err();
    assert!(matches!(error, ReloadError::File(_)));
    let words = error.to_string();
    assert!(
        words.contains("line 2, column 26") && words.contains("workloads[0].nam"),
        "{words}"
    );
    assert_eq!(lab.file_in_force(), "0");
    assert_eq!(lab.get(&id("a")).await.desired, Replicas(1));
    assert_eq!(lab.place.processes(), before);
    lab.place.write_file(&good);
    lab.engine.reload().await.unwrap();
    assert_eq!(lab.file_in_force(), "1");
    assert_eq!(lab.place.processes(), before);
    lab.end().await;
}

#[tokio::test]
async fn an_edit_replaces_adds_and_removes_processes() {
    let lab = Lab::start(&file("sleep, '1000'", 1)).await;
    lab.wait_serving(&id("a"), 1).await;
    let old = lab.place.processes();
    // Another command: another process.
    lab.place.write_file(&file("sleep, '2000'", 1));
    let reloaded = lab.engine.reload().await.unwrap();
    assert_eq!(reloaded.changed, [id("a")]);
    lab.wait(&id("a"), |workload| {
        workload.replicas.iter().any(|replica| replica.stopping)
    })
    .await;
    lab.wait_serving(&id("a"), 1).await;
    assert!(old.iter().all(|(process, _)| !process.is_alive()));
    // Another workload beside it, and nothing happens to the first.
    let kept = lab.place.processes();
    let both = file("sleep, '2000'", 1)
        + "- {namespace: project-a, name: b, command: [sleep, '1000'], labels: {tier: web}}\n";
    lab.place.write_file(&both);
    assert_eq!(lab.engine.reload().await.unwrap().added, [id("b")]);
    lab.wait_serving(&id("b"), 1).await;
    assert!(kept.iter().all(|(process, _)| process.is_alive()));
    // Gone from the file: gone.
    let version = lab.get(&id("b")).await.version;
    let asked = nagi_core::id::Version::new(version.number + 1);
    let never = nagi_ports::Read::AtLeast(asked);
    assert_eq!(
        lab.engine.get(&id("b"), never).await,
        Err(PortError::NoSuchVersion {
            asked,
            newest: version
        })
    );
    lab.place.write_file("workloads: []\n");
    let mut removed = lab.engine.reload().await.unwrap().removed;
    removed.sort();
    assert_eq!(removed, [id("a"), id("b")]);
    let gone = lab
        .engine
        .get(&id("a"), nagi_ports::Read::AtLeast(version))
        .await;
    assert_eq!(gone, Err(PortError::NotFound));
    eventually(|| lab.place.processes().is_empty()).await;
    let traces = lab.place.state().join("replicas/project-a/a");
    eventually(|| !traces.exists()).await;
    lab.end().await;
}

/// What a person wanted of `a`: asleep, three to restore, a wake in an hour.
fn asleep_with_a_schedule() -> IntentUpdate {
    let now = jiff::Timestamp::now();
    let at = now + Duration::from_hours(1);
    let intent = Intent {
        remembered: WakeCount::new(3),
        asleep: Some(Asleep {
            since: now,
            by: SleptBy::Api,
        }),
        last_scale_time: Some(now),
        scheduled: Some(ScheduledWake {
            at,
            actor: Actor::Anonymous,
            request_id: None,
        }),
        ..Intent::default()
    };
    IntentUpdate {
        desired: Replicas(0),
        intent,
    }
}

/// Reason, count before, count after; oldest first.
async fn history(lab: &Lab) -> Vec<(String, u32, u32)> {
    let query = HistoryQuery {
        limit: 100,
        ..HistoryQuery::default()
    };
    let page = lab.engine.history(&query).await.unwrap();
    let lines = page.entries.iter().rev().map(|entry| {
        let change = &entry.change;
        (change.reason.to_string(), change.from.0, change.to.0)
    });
    lines.collect()
}

// Invariant 7: neither a file that was saved by half nor a restart in between costs what was wanted.
#[tokio::test]
async fn a_workload_that_leaves_the_file_and_comes_back_is_wanted_as_before() {
    let good = file("sleep, '1000'", 2);
    let lab = Lab::start(&good).await;
    let before = lab.get(&id("a")).await;
    let before = lab
        .engine
        .write(&before, asleep_with_a_schedule())
        .await
        .unwrap();
    let same = |now: Arc<Workload>, desired: u32| {
        let (old, new) = (&before.intent, &now.intent);
        assert_eq!((&now.uid, now.desired.0), (&before.uid, desired));
        assert_eq!(
            (
                &new.remembered,
                &new.asleep,
                &new.scheduled,
                &new.last_scale_time
            ),
            (
                &old.remembered,
                &old.asleep,
                &old.scheduled,
                &old.last_scale_time
            )
        );
        assert!(now.version > before.version);
    };
    lab.place.write_file("workloads: []\n");
    assert_eq!(lab.engine.reload().await.unwrap().removed, [id("a")]);
    let gone = lab.engine.write(&before, asleep_with_a_schedule()).await;
    assert_eq!(gone, Err(PortError::NotFound));
    lab.place.write_file(&good);
    assert_eq!(lab.engine.reload().await.unwrap().added, [id("a")]);
    same(lab.get(&id("a")).await, 0);
    // The same while Nagi is away, and when it restarts without it.
    let place = lab.end().await;
    place.write_file("workloads: []\n");
    let place = Lab::start_in(place).await.unwrap().end().await;
    let lab = Lab::start_in(place).await.unwrap();
    assert_eq!(listed(&lab.engine).await.unwrap().len(), 0);
    lab.place.write_file(&good);
    lab.engine.reload().await.unwrap();
    same(lab.get(&id("a")).await, 0);
    let (left, back) = (
        ("removed from the workload file", 0, 0),
        ("back in the workload file", 0, 0),
    );
    let expected = [left, back, left, back].map(|(reason, from, to)| (reason.to_owned(), from, to));
    assert_eq!(history(&lab).await, expected);
    lab.end().await;
}

#[tokio::test]
async fn what_ran_ends_with_its_place_in_the_file_and_runs_again_in_as_many_replicas() {
    let good = file("sleep, '1000'", 1);
    let lab = Lab::start(&good).await;
    lab.scale(&id("a"), 2).await.unwrap();
    lab.wait_serving(&id("a"), 2).await;
    lab.place.write_file("workloads: []\n");
    lab.engine.reload().await.unwrap();
    eventually(|| lab.place.processes().is_empty()).await;
    // Another number in it than before is a change by a person, made on what was wanted.
    lab.place.write_file(&good);
    lab.engine.reload().await.unwrap();
    assert_eq!(lab.get(&id("a")).await.desired, Replicas(2));
    lab.place.write_file("workloads: []\n");
    lab.engine.reload().await.unwrap();
    lab.place.write_file(&file("sleep, '1000'", 3));
    lab.engine.reload().await.unwrap();
    let back = lab.get(&id("a")).await;
    assert_eq!(back.desired, Replicas(3));
    let last = back.intent.changes.last().unwrap();
    assert_eq!(
        (last.from, last.to),
        (Replicas(0), Replicas(2)),
        "the controller records the rest"
    );
    let words: Vec<_> = history(&lab)
        .await
        .iter()
        .map(|(_, from, to)| (*from, *to))
        .collect();
    assert_eq!(words, [(2, 0), (0, 2), (2, 0), (0, 2)]);
    lab.end().await;
}

#[tokio::test]
async fn a_change_of_the_file_is_noticed_and_another_count_in_it_is_wanted() {
    let lab = Lab::start(&file("sleep, '1000'", 1)).await;
    lab.wait_serving(&id("a"), 1).await;
    let version = lab.get(&id("a")).await.version;
    lab.place.write_file(&file("sleep, '1000'", 2));
    let more = lab.wait_serving(&id("a"), 2).await;
    assert!(more.version > version);
    // Scaled by an order since: an edit of anything else leaves the count alone, also over a restart.
    lab.scale(&id("a"), 1).await.unwrap();
    lab.place
        .write_file(&(file("sleep, '1000'", 2) + "\n# a comment\n"));
    lab.engine.reload().await.unwrap();
    assert_eq!(lab.get(&id("a")).await.desired, Replicas(1));
    let place = lab.end().await;
    let lab = Lab::start_in(place).await.unwrap();
    assert_eq!(lab.get(&id("a")).await.desired, Replicas(1));
    let place = lab.end().await;
    place.write_file(&file("sleep, '1000'", 0));
    let lab = Lab::start_in(place).await.unwrap();
    assert_eq!(lab.get(&id("a")).await.desired, Replicas(0));
    lab.end().await;
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_an_error_and_nothing_runs() {
    let place = Place::with("workloads: 5\n");
    let error = Lab::start_in(place).await.err().unwrap();
    assert!(matches!(error, StartError::File(_)), "{error}");
    let place = Place::with(&file("sleep, '1000'", 1));
    std::fs::write(place.state(), "a file where the directory should be").unwrap();
    let error = Lab::start_in(place).await.err().unwrap();
    assert!(matches!(error, StartError::Store(_)), "{error}");
    let lab = Lab::start(&file("sleep, '1000'", 1)).await;
    let mut second = nagi_runtime::Supervisor::new();
    let clock = std::sync::Arc::new(nagi_ports::SystemClock::new());
    let config = lab.place.config();
    let error = nagi_local::LocalEngine::start(config, clock, &mut second)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("in use by another nagi"),
        "{error}"
    );
    lab.end().await;
}
