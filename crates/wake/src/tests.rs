//! Flights on a double of the engine, under paused time.

use super::*;
use nagi_core::intent::{Action, Actor};
use nagi_core::quantity::WakeCount;
use nagi_core::wake::Failure;
use nagi_ports::Engine;
use nagi_telemetry::LinesDropped;
use nagi_testkit::{Fault, MemoryWorkloads, TestClock, id, workload};

const APP: &str = "project-b/sample-app-b";
const SECOND: Duration = Duration::from_secs(1);

fn asleep() -> Workload {
    Workload {
        awake_replicas: WakeCount::new(2),
        ..workload(APP, 0, 0, 0)
    }
}

fn start(w: Workload) -> (Arc<MemoryWorkloads>, Wakes) {
    let workloads = MemoryWorkloads::new(Engine::Local, [w]);
    let port: Arc<dyn Workloads> = workloads.clone();
    let wakes = Wakes::new(
        port,
        TestClock::start(),
        Guardrails::default(),
        Metrics::new("test", LinesDropped::default()),
    );
    (workloads, wakes)
}

fn request(actor: Actor) -> Request {
    let order = Order::Wake {
        replicas: None,
        reason: None,
        default_allowed: false,
    };
    Request {
        order,
        actor,
        request_id: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_waiters_share_one_wake() {
    let (workloads, wakes) = start(asleep());
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let wakes = wakes.clone();
        waiters.spawn(async move {
            let mut ticket = wakes.wake(&id(APP), request(Actor::Gateway)).await.unwrap();
            ticket.ended().await.progress
        });
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!(workloads.writes().len(), 1);
    workloads.settle(&id(APP));
    let mut ready = 0;
    while let Some(progress) = waiters.join_next().await {
        assert_eq!(progress.unwrap(), Progress::Ready);
        ready += 1;
    }
    assert_eq!(ready, 1000);
    let change = workloads.writes()[0]
        .1
        .intent
        .changes
        .last()
        .cloned()
        .unwrap();
    assert_eq!(
        (change.action, change.to),
        (Action::WakeOnRequest, Replicas(2))
    );
}

#[tokio::test(start_paused = true)]
async fn the_wake_goes_on_when_the_client_that_began_it_goes_away() {
    let (workloads, wakes) = start(asleep());
    workloads.fail_write(Fault::Error(PortError::Unreachable("refused".into())));
    let began = {
        let wakes = wakes.clone();
        tokio::time::timeout(Duration::from_millis(1), async move {
            drop(wakes.wake(&id(APP), request(Actor::Gateway)).await);
        })
        .await
    };
    assert!(
        began.is_err(),
        "the client left before the write took effect"
    );
    tokio::time::sleep(SECOND).await;
    assert_eq!(workloads.writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn conflicts_are_decided_again_five_times_and_no_more() {
    for (conflicts, succeeds) in [(4, true), (5, false)] {
        let (workloads, wakes) = start(asleep());
        for _ in 0..conflicts {
            workloads.fail_write(Fault::Error(PortError::Conflict));
        }
        let result = wakes.wake(&id(APP), request(Actor::Anonymous)).await;
        assert_eq!(result.is_ok(), succeeds, "{conflicts} conflicts");
    }
}

// A write whose answer was lost took effect; the wake finds it and writes nothing more.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_does_not_write_twice() {
    let (workloads, wakes) = start(asleep());
    workloads.fail_write(Fault::AfterEffect(PortError::Timeout("lost".into())));
    let ticket = wakes.wake(&id(APP), request(Actor::Gateway)).await.unwrap();
    assert!(ticket.view().already_awake);
    assert_eq!(workloads.writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_comes_back_gets_the_write_within_a_second() {
    let (workloads, wakes) = start(asleep());
    let away = || Some(Fault::Error(PortError::Unreachable("refused".into())));
    workloads.fail_always(away(), away());
    let waiting = wakes.clone();
    let mut waiter = tokio::task::JoinSet::new();
    waiter.spawn(async move {
        waiting
            .wake(&id(APP), request(Actor::Gateway))
            .await
            .map(drop)
    });
    tokio::time::sleep(SECOND * 10).await;
    workloads.fail_always(None, None);
    tokio::time::sleep(SECOND + Duration::from_millis(1)).await;
    assert_eq!(workloads.writes().len(), 1);
    assert_eq!(waiter.join_next().await.unwrap().unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_stays_away_is_given_up_with_its_error() {
    let (workloads, wakes) = start(asleep());
    let error = PortError::Unreachable("refused".into());
    workloads.fail_always(Some(Fault::Error(error.clone())), None);
    let result = wakes
        .wake(&id(APP), request(Actor::Gateway))
        .await
        .map(drop);
    assert_eq!(result, Err(WakeError::Port(error)));
    assert!(wakes.flight(&id(APP)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_refused_wake_says_why_and_leaves_no_flight() {
    let (workloads, wakes) = start(workload(APP, 0, 0, 0));
    let result = wakes
        .wake(&id(APP), request(Actor::Gateway))
        .await
        .map(drop);
    assert_eq!(result, Err(WakeError::Refused(Refusal::NoWakeCount)));
    tokio::task::yield_now().await;
    assert!(wakes.flight(&id(APP)).is_none());
    assert!(workloads.writes().is_empty());
}

// DESIGN §5: a read at the version of an answer shows what the answer said, however much was written since.
#[tokio::test(start_paused = true)]
async fn a_wake_names_the_version_of_its_own_write_to_all_who_joined_it() {
    let (workloads, wakes) = start(asleep());
    let first = wakes.wake(&id(APP), request(Actor::Gateway)).await.unwrap();
    let written = workloads.peek(&id(APP)).version;
    assert_eq!(first.view().version, Some(written));
    // Somebody scales it further, and a replica starts.
    workloads.put(Workload {
        intent: workloads.peek(&id(APP)).intent.clone(),
        ..workload(APP, 3, 1, 0)
    });
    tokio::time::sleep(SECOND).await;
    let joined = wakes.wake(&id(APP), request(Actor::Gateway)).await.unwrap();
    let later = joined.view().workload.unwrap().version;
    assert!(later > written, "the flight has seen the later write");
    for ticket in [&first, &joined] {
        assert_eq!(ticket.view().version, Some(written));
    }
    // Nothing to write: the version at which it was found awake.
    let (workloads, wakes) = start(workload(APP, 1, 1, 0));
    let found = workloads.peek(&id(APP)).version;
    let ticket = wakes.wake(&id(APP), request(Actor::Gateway)).await.unwrap();
    assert_eq!(ticket.view().version, Some(found));
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_is_put_to_sleep_again_ends_the_wait() {
    let (workloads, wakes) = start(asleep());
    let mut ticket = wakes.wake(&id(APP), request(Actor::Gateway)).await.unwrap();
    workloads.change(&id(APP), |w| w.desired = Replicas::ZERO);
    assert_eq!(
        ticket.ended().await.progress,
        Progress::Failed(Failure::SleptAgain)
    );
    let (workloads, wakes) = start(asleep());
    let mut ticket = wakes.wake(&id(APP), request(Actor::Gateway)).await.unwrap();
    workloads.delete(&id(APP));
    assert_eq!(
        ticket.ended().await.progress,
        Progress::Failed(Failure::Deleted)
    );
}

// Issue 3: a caller who was told that the workload sleeps, and then wakes it, is not answered by the wake from before.
#[tokio::test(start_paused = true)]
async fn a_wake_after_a_sleep_is_not_answered_by_the_wake_before_it() {
    let (workloads, wakes) = start(asleep());
    let before = wakes.wake(&id(APP), request(Actor::Gateway)).await.unwrap();
    workloads.change(&id(APP), |w| w.desired = Replicas::ZERO);
    // The flight has had no turn since: it still believes in its wake.
    assert!(!before.view().has_ended());
    let mut after = wakes.wake(&id(APP), request(Actor::Gateway)).await.unwrap();
    assert_eq!(workloads.writes().len(), 2);
    assert_eq!(workloads.peek(&id(APP)).desired, Replicas(2));
    assert!(after.view().version > before.view().version);
    workloads.settle(&id(APP));
    assert_eq!(after.ended().await.progress, Progress::Ready);
}

// R14, issue 3: a wake that is over is no answer to whoever asks now.
#[tokio::test(start_paused = true)]
async fn a_wake_that_has_ended_is_not_joined() {
    let (workloads, wakes) = start(asleep());
    let mut first = wakes.wake(&id(APP), request(Actor::Gateway)).await.unwrap();
    // What the wake taught is being stored, and the engine takes its time.
    workloads.fail_write(Fault::Hang);
    tokio::time::sleep(SECOND).await;
    workloads.settle(&id(APP));
    assert_eq!(first.ended().await.progress, Progress::Ready);
    let ended = wakes.flight(&id(APP)).is_some_and(|view| view.has_ended());
    assert!(ended, "the flight is over and still there");
    let second = wakes
        .wake(&id(APP), request(Actor::Anonymous))
        .await
        .unwrap();
    assert!(!second.has_joined());
    assert!(second.view().already_awake);
    assert_eq!(second.view().from, Replicas(2));
}

#[tokio::test(start_paused = true)]
async fn a_served_replica_ends_the_flight_and_teaches_the_next() {
    let (workloads, wakes) = start(asleep());
    let mut stages = wakes.subscribe();
    let mut ticket = wakes.wake(&id(APP), request(Actor::Gateway)).await.unwrap();
    tokio::time::sleep(SECOND * 3).await;
    wakes.served(&id(APP));
    assert_eq!(ticket.ended().await.progress, Progress::Ready);
    assert!(stages.recv().await.is_ok());
    tokio::time::sleep(SECOND).await;
    let learned = workloads
        .peek(&id(APP))
        .intent
        .learned
        .to_ready(Stage::Accepted);
    assert_eq!(learned, Some(SECOND * 3));
    assert!(wakes.flight(&id(APP)).is_none());
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_an_awake_workload_without_a_ready_replica_writes_nothing() {
    let (workloads, wakes) = start(workload(APP, 1, 1, 0));
    let mut ticket = wakes.wake(&id(APP), request(Actor::Gateway)).await.unwrap();
    assert!(ticket.view().already_awake);
    workloads.settle(&id(APP));
    assert_eq!(ticket.ended().await.progress, Progress::Ready);
    assert!(workloads.writes().is_empty());
}
