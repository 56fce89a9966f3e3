//! The workload file while the engine runs: what an edit changes, and what a bad one does not.

use nagi_core::quantity::Replicas;
use nagi_local::{ReloadError, StartError};
use nagi_ports::{PortError, Workloads as _};

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
    assert_eq!(lab.engine.file_problem(), Some(words));
    assert_eq!(lab.get(&id("a")).await.desired, Replicas(1));
    assert_eq!(lab.place.processes(), before);
    lab.place.write_file(&good);
    lab.engine.reload().await.unwrap();
    assert_eq!(lab.engine.file_problem(), None);
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
    let asked = nagi_core::id::Version(version.0 + 1);
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
