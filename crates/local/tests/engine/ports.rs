//! What the ports promise, with one engine that nobody kills.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use nagi_core::intent::{Action, Actor, Change, IntentUpdate};
use nagi_core::pool::NodePhase;
use nagi_core::quantity::Replicas;
use nagi_core::status::Status;
use nagi_core::text::ReasonText;
use nagi_core::wake::Stage;
use nagi_core::workload::{Pending, Workload};
use nagi_ports::{
    HistoryQuery, Journal as _, LogQuery, Logs as _, Nodes as _, PortError, Workloads as _,
};

use nagi_testkit::check_visits;
use rustix::process::Signal;

use crate::lab::{Lab, get, id, supervisors};

const WEB: &str = "
workloads:
- {namespace: project-a, name: web, command: [BINARY, serve], port: 80, readiness: {http: {path: /}}, replicas: 0}
";

#[tokio::test]
async fn a_visit_shows_what_is_selected() {
    let lab = Lab::start(
        "
workloads:
- {namespace: project-b, name: a, command: [BINARY, serve], replicas: 0, labels: {tier: web}}
- {namespace: project-a, name: b, command: [BINARY, serve], replicas: 0, idle_after: 60s, port: 80}
- {namespace: project-a, name: a, command: [BINARY, serve], replicas: 1}
",
    )
    .await;
    lab.wait_serving(&id("a"), 1).await;
    check_visits(&lab.engine).await;
    lab.scale(&id("b"), 1).await.unwrap();
    lab.wait_serving(&id("b"), 1).await;
    check_visits(&lab.engine).await;
    lab.end().await;
}

#[tokio::test]
async fn a_woken_workload_serves_on_its_own_port_and_sleeps_without_a_trace() {
    let lab = Lab::start(WEB).await;
    let web = id("web");
    assert_eq!(lab.get(&web).await.current, Replicas(0));
    lab.scale(&web, 2).await.unwrap();
    let awake = lab.wait_serving(&web, 2).await;
    let addresses: Vec<_> = awake
        .replicas
        .iter()
        .filter_map(|replica| replica.address)
        .collect();
    assert_eq!(addresses.len(), 2);
    assert_ne!(addresses[0], addresses[1]);
    for address in &addresses {
        assert!(get(*address).ends_with("ok"));
    }
    assert!(
        awake
            .replicas
            .iter()
            .all(|replica| replica.stage == Stage::Ready)
    );
    assert_eq!(awake.pending, None);
    lab.scale(&web, 0).await.unwrap();
    lab.wait_serving(&web, 0).await;
    assert!(
        addresses
            .iter()
            .all(|address| TcpStream::connect(address).is_err())
    );
    assert_eq!(lab.place.processes(), []);
    assert!(supervisors(&lab.place.state()).is_empty());
    lab.end().await;
}

#[tokio::test]
async fn a_replica_that_hangs_is_said_to_and_not_to_start() {
    let lab = Lab::start(&WEB.replace("replicas: 0", "replicas: 1")).await;
    let web = id("web");
    lab.wait_serving(&web, 1).await;
    let signal = |signal| {
        for (process, _) in lab.place.processes() {
            process.signal(signal).unwrap();
        }
    };
    signal(Signal::STOP);
    let hung = lab
        .wait(&web, |workload| workload.available == Replicas(0))
        .await;
    let why = hung.pending.as_ref().unwrap().to_string();
    assert!(why.contains("does not answer its readiness check"), "{why}");
    signal(Signal::CONT);
    assert_eq!(lab.wait_serving(&web, 1).await.pending, None);
    lab.end().await;
}

#[tokio::test]
async fn a_replica_waits_for_its_node_to_boot_and_the_empty_node_is_released() {
    let file = "
pools: [{name: gpu, boot: 1s, release_after: 1s, price_per_hour: 3600, node: {gpu: 1}}]
workloads:
- {namespace: project-a, name: model, command: [BINARY, serve], port: 80, replicas: 0, resources: {gpu: 1}}
";
    let lab = Lab::start(file).await;
    let model = id("model");
    lab.scale(&model, 2).await.unwrap();
    let begin = Instant::now();
    let booting = lab
        .wait(&model, |workload| workload.replicas.len() == 2)
        .await;
    // No process exists before the node does.
    assert_eq!(
        (booting.current, booting.available),
        (Replicas(0), Replicas(0))
    );
    assert_eq!(booting.status(), Status::Scaling);
    // The second will never have room; the first joins its node.
    assert!(matches!(
        &booting.pending,
        Some(Pending::PoolAtMaximum { nodes_max: 1, .. })
    ));
    assert_eq!(booting.replicas[0].stage, Stage::NodeJoining);
    assert_eq!(booting.replicas[1].stage, Stage::WaitingForNode);
    lab.scale(&model, 1).await.unwrap();
    let alone = lab
        .wait(&model, |workload| workload.replicas.len() == 1)
        .await;
    let Some(Pending::NodeBooting {
        ready_in: Some(left),
        ..
    }) = &alone.pending
    else {
        panic!("{:?}", alone.pending)
    };
    assert!(
        *left > Duration::ZERO && *left <= Duration::from_secs(1),
        "{left:?}"
    );
    let pools = lab.engine.pools().await.unwrap();
    assert!(matches!(pools[0].nodes[0].phase, NodePhase::Booting { .. }));
    lab.wait_serving(&model, 1).await;
    assert!(begin.elapsed() >= Duration::from_secs(1));
    let pools = lab.engine.pools().await.unwrap();
    assert_eq!(pools[0].nodes[0].replicas, 1);
    // A node costs one unit a second here.
    let spent = pools[0].cost.unwrap().spent.micros;
    assert!((1_000_000..20_000_000).contains(&spent), "{spent}");
    lab.scale(&model, 0).await.unwrap();
    lab.wait_serving(&model, 0).await;
    let begin = Instant::now();
    while !lab.engine.pools().await.unwrap()[0].nodes.is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let pool = &lab.engine.pools().await.unwrap()[0];
    tokio::time::sleep(Duration::from_millis(50)).await;
    let later = &lab.engine.pools().await.unwrap()[0];
    assert_eq!(later.cost.unwrap().spent, pool.cost.unwrap().spent);
    assert!(later.cost.unwrap().saved > pool.cost.unwrap().saved);
    lab.end().await;
}

#[tokio::test]
async fn a_command_that_ends_at_once_is_started_again_with_growing_pauses() {
    let file = "
workloads:
- {namespace: project-a, name: broken, command: [sh, -c, 'echo started; exit 3']}
- {namespace: project-a, name: missing, command: [no-such-program]}
";
    let lab = Lab::start(file).await;
    let broken = id("broken");
    let begin = Instant::now();
    let crashed = lab
        .wait(&broken, |workload| {
            // It has no port, so that it runs is all there is to see; it does not for long enough.
            assert_eq!(workload.available, Replicas(0), "{workload:#?}");
            workload
                .replicas
                .iter()
                .any(|replica| replica.restarts == 2)
        })
        .await;
    assert!(begin.elapsed() >= Duration::from_secs(1), "the first pause");
    let why = crashed.pending.as_ref().unwrap();
    assert!(matches!(why, Pending::CrashLoop { .. }), "{why}");
    assert!(why.to_string().contains("exit code 3"), "{why}");
    let page = lab
        .engine
        .read(
            &broken,
            &LogQuery {
                tail: 100,
                after: None,
            },
        )
        .await
        .unwrap();
    let texts: Vec<_> = page.lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(texts, ["started", "started"]);
    let crashed = |workload: &Workload| matches!(workload.pending, Some(Pending::CrashLoop { .. }));
    let missing = lab.wait(&id("missing"), crashed).await;
    let why = missing.pending.as_ref().unwrap().to_string();
    assert!(why.contains("no-such-program"), "{why}");
    assert_eq!(missing.available, Replicas(0));
    // Sleeping ends the loop at once, whatever the pause.
    lab.scale(&broken, 0).await.unwrap();
    lab.wait_serving(&broken, 0).await;
    lab.end().await;
}

#[tokio::test]
async fn a_write_on_old_facts_is_a_conflict_and_of_many_at_once_one_wins_each_round() {
    let lab = Lab::start(WEB).await;
    let web = id("web");
    let before = lab.get(&web).await;
    let to = |desired| IntentUpdate {
        desired: Replicas(desired),
        intent: before.intent.clone(),
    };
    let written = lab.engine.write(&before, to(1)).await.unwrap();
    assert!(written.version > before.version);
    assert_eq!(
        lab.engine.write(&before, to(0)).await,
        Err(PortError::Conflict)
    );
    assert_eq!(lab.get(&web).await.desired, Replicas(1));
    let writes = (0..20).map(|count| lab.engine.write(&written, to(count % 2)));
    let results = futures_util::future::join_all(writes).await;
    let accepted: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
    assert_eq!(accepted.len(), 1);
    assert_eq!(lab.get(&web).await.desired, accepted[0].desired);
    assert_eq!(lab.scale(&web, 0).await.unwrap().desired, Replicas(0));
    let unknown = id("unknown");
    assert_eq!(
        lab.engine.get(&unknown, nagi_ports::Read::Cached).await,
        Err(PortError::NotFound)
    );
    lab.end().await;
}

#[tokio::test]
async fn recorded_changes_are_history_also_for_the_next_engine() {
    let lab = Lab::start(WEB).await;
    let web = id("web");
    let before = lab.get(&web).await;
    let mut intent = before.intent.clone();
    let change = Change {
        time: jiff::Timestamp::from_second(1_700_000_000).unwrap(),
        action: Action::ScaleUp,
        actor: Actor::Anonymous,
        reason: ReasonText::new("because").unwrap(),
        request_id: None,
        from: Replicas(0),
        to: Replicas(1),
    };
    intent.record(change.clone());
    lab.engine
        .write(
            &before,
            IntentUpdate {
                desired: Replicas(1),
                intent,
            },
        )
        .await
        .unwrap();
    let query = HistoryQuery {
        limit: 10,
        ..HistoryQuery::default()
    };
    let page = lab.engine.history(&query).await.unwrap();
    assert_eq!((page.entries.len(), &page.entries[0].change), (1, &change));
    let place = lab.end().await;
    // What a crash between the state and the history leaves.
    std::fs::remove_file(place.state().join("history.jsonl")).unwrap();
    let lab = Lab::start_in(place).await.unwrap();
    let page = lab.engine.history(&query).await.unwrap();
    assert_eq!(
        (page.entries[0].source, &page.entries[0].change),
        ("object", &change)
    );
    assert_eq!(lab.get(&web).await.intent.changes, [change]);
    lab.end().await;
}

#[tokio::test]
async fn subscribers_hear_of_every_step_of_a_wake() {
    let lab = Lab::start(WEB).await;
    let web = id("web");
    let mut events = lab.engine.subscribe();
    lab.scale(&web, 1).await.unwrap();
    let mut stages = Vec::new();
    while stages.last() != Some(&Stage::Ready) {
        let event = tokio::time::timeout(crate::lab::PATIENCE, events.recv())
            .await
            .unwrap()
            .unwrap();
        let nagi_ports::WorkloadEvent::Changed(workload) = event else {
            panic!("deleted")
        };
        stages.extend(workload.replicas.first().map(|replica| replica.stage));
    }
    stages.dedup();
    assert_eq!(stages, [Stage::Starting, Stage::Ready]);
    lab.end().await;
}
