//! The loops on a double of the engine, under paused time.

use nagi_core::idle::Activity;
use nagi_core::intent::ScheduledWake;
use nagi_core::quantity::{Replicas, WakeCount};
use nagi_core::workload::Workload;
use nagi_ports::{Engine, Leadership, PortError, Settled};
use nagi_runtime::Supervisor;
use nagi_testkit::{Fault, MemoryTraffic, MemoryWorkloads, TestClock, epoch, id, workload};

use super::*;
use nagi_core::guardrail::Guardrails;
use nagi_core::intent::Actor;
use nagi_telemetry::LinesDropped;

const APP: &str = "project-a/sample-app-a";
const SECOND: Duration = Duration::from_secs(1);

struct World {
    workloads: Arc<MemoryWorkloads>,
    traffic: Arc<MemoryTraffic>,
    clock: Arc<TestClock>,
    metrics: Metrics,
    // Dropping it ends the loops.
    _supervisor: Supervisor,
}

fn start(workloads: impl IntoIterator<Item = Workload>) -> World {
    start_led(workloads, Leadership::alone())
}

fn start_led(workloads: impl IntoIterator<Item = Workload>, leadership: Leadership) -> World {
    let workloads = MemoryWorkloads::new(Engine::Local, workloads);
    let traffic = MemoryTraffic::new();
    let clock = TestClock::start();
    let metrics = Metrics::new("test", LinesDropped::default());
    let port: Arc<dyn Workloads> = workloads.clone();
    let wakes = Wakes::new(
        Arc::clone(&port),
        clock.clone(),
        Guardrails::default(),
        metrics.clone(),
    );
    let ports = Ports {
        workloads: port,
        traffic: traffic.clone(),
        clock: clock.clone(),
        wakes,
        rails: Guardrails::default(),
        metrics: metrics.clone(),
    };
    let mut supervisor = Supervisor::new();
    let shutdown = supervisor.shutdown();
    supervisor.spawn("control", Controller::new(ports).run(leadership, shutdown));
    World {
        workloads,
        traffic,
        clock,
        metrics,
        _supervisor: supervisor,
    }
}

fn slept() -> nagi_core::intent::Change {
    nagi_core::intent::Change {
        time: epoch(),
        action: nagi_core::intent::Action::ScaleToZero,
        actor: Actor::Anonymous,
        reason: nagi_core::text::ReasonText::new("test").unwrap(),
        request_id: None,
        from: Replicas(3),
        to: Replicas::ZERO,
    }
}

fn idle_app() -> Workload {
    Workload {
        idle_after: Some(SECOND * 10),
        ..workload(APP, 2, 2, 2)
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the tests pass it where activity may be unknown"
)]
fn quiet(seconds: u32) -> Option<Activity> {
    Some(Activity {
        in_flight: 0,
        held: 0,
        quiet_for: SECOND * seconds,
    })
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_workload_is_put_to_sleep_through_the_hand_shake() {
    let world = start([idle_app()]);
    let app = id(APP);
    world.traffic.set(&app, quiet(60));
    pass(SECOND * 9).await;
    assert_eq!(
        world.workloads.peek(&app).desired,
        Replicas(2),
        "awake for 9 s only"
    );
    pass(SECOND * 2).await;
    let now = world.workloads.peek(&app);
    assert_eq!(now.desired, Replicas::ZERO);
    assert_eq!(now.intent.remembered, WakeCount::new(2));
    assert_eq!(world.traffic.settled(), [(app, Settled::Asleep)]);
}

#[tokio::test(start_paused = true)]
async fn unknown_activity_never_produces_sleep() {
    let world = start([idle_app()]);
    pass(SECOND * 3600).await;
    assert_eq!(world.workloads.peek(&id(APP)).desired, Replicas(2));
}

#[tokio::test(start_paused = true)]
async fn a_request_between_the_decision_and_the_hold_aborts_the_sleep() {
    let world = start([idle_app()]);
    let app = id(APP);
    world.traffic.set(&app, quiet(60));
    world.traffic.set_at_prepare(
        &app,
        Some(Activity {
            in_flight: 1,
            held: 0,
            quiet_for: SECOND * 60,
        }),
    );
    pass(SECOND * 30).await;
    assert_eq!(world.workloads.peek(&app).desired, Replicas(2));
    let settled = world.traffic.settled();
    assert!(
        !settled.is_empty() && settled.iter().all(|(_, s)| *s == Settled::Aborted),
        "{settled:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_does_not_answer_the_hold_stops_the_sleep() {
    let world = start([idle_app()]);
    world.traffic.set(&id(APP), quiet(60));
    world.traffic.set_at_prepare(&id(APP), None);
    pass(SECOND * 60).await;
    assert_eq!(world.workloads.peek(&id(APP)).desired, Replicas(2));
}

#[tokio::test(start_paused = true)]
async fn a_sleep_whose_answer_was_lost_is_settled_by_what_really_happened() {
    let world = start([idle_app()]);
    world.traffic.set(&id(APP), quiet(60));
    world
        .workloads
        .fail_write(Fault::AfterEffect(PortError::Timeout("lost".into())));
    pass(SECOND * 15).await;
    assert_eq!(world.workloads.peek(&id(APP)).desired, Replicas::ZERO);
    assert_eq!(world.traffic.settled(), [(id(APP), Settled::Asleep)]);
    assert_eq!(world.workloads.writes().len(), 1, "not written twice");
}

fn asleep_until(seconds: u64) -> Workload {
    let mut w = workload(APP, 0, 0, 0);
    w.intent.remembered = WakeCount::new(3);
    let at = epoch() + Duration::from_secs(seconds);
    w.intent.scheduled = Some(ScheduledWake {
        at,
        actor: Actor::Anonymous,
        request_id: None,
    });
    w
}

// F06, W-A01
#[tokio::test(start_paused = true)]
async fn a_schedule_fires_within_a_second_of_its_time_and_once() {
    let world = start([asleep_until(3600)]);
    pass(Duration::from_millis(3_599_900)).await;
    assert_eq!(world.workloads.peek(&id(APP)).desired, Replicas::ZERO);
    pass(Duration::from_millis(200)).await;
    let now = world.workloads.peek(&id(APP));
    assert_eq!(now.desired, Replicas(3));
    assert_eq!(now.intent.scheduled, None);
    pass(SECOND * 60).await;
    assert_eq!(world.workloads.writes().len(), 1);
}

// A-041: however many controllers run, one takes effect.
#[tokio::test(start_paused = true)]
async fn three_controllers_on_one_engine_fire_a_schedule_once() {
    let world = start([asleep_until(10)]);
    let mut supervisor = Supervisor::new();
    for _ in 0..2 {
        let metrics = Metrics::new("test", LinesDropped::default());
        let port: Arc<dyn Workloads> = world.workloads.clone();
        let wakes = Wakes::new(
            Arc::clone(&port),
            world.clock.clone(),
            Guardrails::default(),
            metrics.clone(),
        );
        let traffic = world.traffic.clone();
        let ports = Ports {
            workloads: port,
            traffic,
            clock: world.clock.clone(),
            wakes,
            rails: Guardrails::default(),
            metrics,
        };
        let shutdown = supervisor.shutdown();
        supervisor.spawn(
            "another control",
            Controller::new(ports).run(Leadership::alone(), shutdown),
        );
    }
    pass(SECOND * 20).await;
    assert_eq!(world.workloads.peek(&id(APP)).desired, Replicas(3));
    assert_eq!(world.workloads.writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_schedule_missed_while_nobody_ran_is_caught_up_at_the_start() {
    let world = start([asleep_until(0)]);
    pass(Duration::from_millis(50)).await;
    assert_eq!(world.workloads.peek(&id(APP)).desired, Replicas(3));
}

// Invariant 5
#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_over_the_time_fires_it_and_puts_nothing_to_sleep() {
    let mut awake = idle_app();
    awake.id = id("project-a/awake");
    let world = start([asleep_until(7200), awake]);
    world.traffic.set(&id("project-a/awake"), quiet(0));
    pass(SECOND).await;
    *world.clock.jump.lock().unwrap() = jiff::SignedDuration::from_hours(3);
    pass(SECOND).await;
    assert_eq!(world.workloads.peek(&id(APP)).desired, Replicas(3));
    assert_eq!(
        world.workloads.peek(&id("project-a/awake")).desired,
        Replicas(2)
    );
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_was_away_loses_no_schedule() {
    let world = start([asleep_until(10)]);
    let away = || Some(Fault::Error(PortError::Unreachable("refused".into())));
    pass(SECOND).await;
    world.workloads.fail_always(away(), away());
    pass(SECOND * 60).await;
    world.workloads.fail_always(None, None);
    pass(SECOND * 2).await;
    assert_eq!(world.workloads.peek(&id(APP)).desired, Replicas(3));
}

// F31: what is refused for good is not asked for each second, and what is allowed again is done within 8 s
#[tokio::test(start_paused = true)]
async fn a_write_that_is_refused_for_good_is_tried_less_and_less() {
    let world = start([asleep_until(10)]);
    let refused = Fault::Error(PortError::Refused("forbidden".into()));
    world.workloads.fail_always(None, Some(refused));
    pass(SECOND * 10).await;
    let before = world.workloads.tries();
    pass(SECOND * 60).await;
    let more = world.workloads.tries() - before;
    assert!((8..=12).contains(&more), "{more} tries in a minute");
    world.workloads.fail_always(None, None);
    pass(SECOND * 9).await;
    assert_eq!(world.workloads.peek(&id(APP)).desired, Replicas(3));
}

// Conflicts are looked at again at once while somebody else writes; without end they are a failure like any other.
#[tokio::test(start_paused = true)]
async fn conflicts_without_end_are_no_flood() {
    let world = start([asleep_until(10)]);
    world.workloads.fail_always(None, Some(Fault::Denied));
    pass(SECOND * 70).await;
    let tries = world.workloads.tries();
    assert!((50..=70).contains(&tries), "{tries} tries in a minute");
    world.workloads.fail_always(None, None);
    pass(SECOND * 2).await;
    assert_eq!(world.workloads.peek(&id(APP)).desired, Replicas(3));
}

// What a webhook keeps is not written on and on.
#[tokio::test(start_paused = true)]
async fn a_schedule_that_a_webhook_keeps_is_no_flood() {
    let world = start([asleep_until(10)]);
    let keeps = |before: &Workload, after: &mut Workload| {
        after.intent.scheduled.clone_from(&before.intent.scheduled);
    };
    world.workloads.fail_always(None, Some(Fault::Kept(keeps)));
    pass(SECOND * 70).await;
    let tries = world.workloads.tries();
    assert!((8..=14).contains(&tries), "{tries} tries in a minute");
    assert_eq!(world.workloads.peek(&id(APP)).desired, Replicas(3));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_a_webhook_keeps_is_no_flood() {
    let world = start([raised_by_others()]);
    let keeps = |before: &Workload, after: &mut Workload| after.intent = before.intent.clone();
    world.workloads.fail_always(None, Some(Fault::Kept(keeps)));
    pass(SECOND * 70).await;
    let tries = world.workloads.tries();
    assert!((8..=14).contains(&tries), "{tries} tries in a minute");
}

// Whoever scales between a write and its answer is no webhook.
#[tokio::test(start_paused = true)]
async fn a_count_that_changes_behind_a_write_is_judged_anew() {
    let world = start([raised_by_others()]);
    let scales = |_: &Workload, after: &mut Workload| after.desired = Replicas(2);
    world.workloads.fail_write(Fault::Kept(scales));
    pass(Duration::from_millis(500)).await;
    let now = world.workloads.peek(&id(APP));
    let last = now.intent.changes.last();
    assert_eq!(last.map(|change| change.to), Some(Replicas(2)), "{now:?}");
}

/// Nagi put it to sleep, and another tool wants one replica.
fn raised_by_others() -> Workload {
    let mut w = workload(APP, 1, 1, 1);
    w.intent.record(slept());
    w
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_on_one_workload_delays_no_other() {
    let mut second = asleep_until(10);
    second.id = id("project-a/second");
    let world = start([asleep_until(9), second]);
    pass(SECOND).await;
    world.workloads.fail_write(Fault::Hang);
    pass(SECOND * 10).await;
    assert_eq!(
        world.workloads.peek(&id(APP)).desired,
        Replicas::ZERO,
        "this one hangs"
    );
    assert_eq!(
        world.workloads.peek(&id("project-a/second")).desired,
        Replicas(3)
    );
}

// A-021, R07
#[tokio::test(start_paused = true)]
async fn a_count_raised_by_other_tools_cancels_the_schedule() {
    let mut w = asleep_until(3600);
    w.intent.record(slept());
    let world = start([w]);
    let kubectl = nagi_core::intent::CountWriter::Other("kubectl-scale".to_owned());
    world.workloads.name_count_writer(kubectl);
    pass(SECOND).await;
    world
        .workloads
        .change(&id(APP), |w| w.desired = Replicas(1));
    pass(SECOND).await;
    let now = world.workloads.peek(&id(APP));
    assert_eq!((now.desired, &now.intent.scheduled), (Replicas(1), &None));
    assert_eq!(
        now.intent.changes.last().map(|c| &c.actor),
        Some(&Actor::Outside)
    );
}

// A-041, DESIGN §5: of several processes one decides
#[tokio::test(start_paused = true)]
async fn the_loops_act_while_this_process_leads_and_not_before_or_after() {
    let due = |at: &str| {
        let mut app = workload(APP, 0, 0, 0);
        app.intent.remembered = WakeCount::new(2);
        app.intent.scheduled = Some(ScheduledWake {
            at: at.parse().unwrap(),
            actor: Actor::Anonymous,
            request_id: None,
        });
        app
    };
    let leads = tokio::sync::watch::Sender::new(false);
    let world = start_led(
        [due("2020-01-01T00:00:00Z")],
        Leadership::new(leads.subscribe()),
    );
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!(world.workloads.writes().len(), 0);
    leads.send_replace(true);
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(world.workloads.writes().len(), 1, "fired once");
    leads.send_replace(false);
    tokio::time::sleep(SECOND).await;
    world.workloads.put(due("2020-01-02T00:00:00Z"));
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!(world.workloads.writes().len(), 1);
    leads.send_replace(true);
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(
        world.workloads.writes().len(),
        2,
        "the next term picks it up"
    );
}

// F13: what a scheduled wake took is learned and counted as of any other
#[tokio::test(start_paused = true)]
async fn a_scheduled_wake_is_followed_and_teaches() {
    let world = start([asleep_until(10)]);
    pass(SECOND * 14).await;
    world.workloads.settle(&id(APP));
    pass(SECOND).await;
    let learned = &world.workloads.peek(&id(APP)).intent.learned;
    let took = learned.to_ready(nagi_core::wake::Stage::Accepted).unwrap();
    assert!((SECOND * 3..SECOND * 5).contains(&took), "{took:?}");
    let text = world.metrics.encode().unwrap();
    let ready = r#"nagi_wakes_total{trigger="schedule",result="ready"} 1"#;
    assert!(text.contains(ready), "{text}");
}

// R07: a wake by request keeps the schedule, and is recorded by the leader when the gateway could not
#[tokio::test(start_paused = true)]
async fn a_wake_that_a_gateway_wrote_is_recorded_as_what_it_was() {
    let mut app = workload(APP, 0, 0, 0);
    app.intent.remembered = WakeCount::new(2);
    app.intent.asleep = Some(nagi_core::intent::Asleep {
        since: epoch(),
        by: nagi_core::intent::SleptBy::Api,
    });
    app.intent.scheduled = Some(ScheduledWake {
        at: epoch() + SECOND * 1000,
        actor: Actor::Anonymous,
        request_id: None,
    });
    let world = start([app]);
    world
        .workloads
        .name_count_writer(nagi_core::intent::CountWriter::Gateway);
    pass(SECOND).await;
    world
        .workloads
        .change(&id(APP), |w| w.desired = Replicas(2));
    tokio::time::sleep(SECOND * 2).await;
    let writes = world.workloads.writes();
    let [(_, update)] = writes.as_slice() else {
        panic!("{writes:?}")
    };
    assert_eq!(update.intent.asleep, None);
    assert!(update.intent.scheduled.is_some());
    let last = update.intent.changes.last().unwrap();
    assert_eq!(
        (last.actor.clone(), last.from.0, last.to.0),
        (Actor::Gateway, 0, 2)
    );
    // What the gateway cannot store is stored for it; counted it has been there.
    world.workloads.settle(&id(APP));
    pass(SECOND).await;
    let learned = &world.workloads.peek(&id(APP)).intent.learned;
    let took = learned.to_ready(nagi_core::wake::Stage::Accepted).unwrap();
    assert!((SECOND..SECOND * 3).contains(&took), "{took:?}");
    let text = world.metrics.encode().unwrap();
    assert!(!text.contains("nagi_wakes_total{"), "{text}");
}

// The first wake by a request begins the record of a workload that Nagi never changed; what people do with one begins none.
#[tokio::test(start_paused = true)]
async fn the_first_wake_of_all_is_recorded_when_a_request_brought_it() {
    use nagi_core::intent::CountWriter;
    for (writer, count) in [
        (CountWriter::Gateway, 1),
        (CountWriter::Other("kubectl".into()), 0),
    ] {
        let world = start([workload(APP, 0, 0, 0)]);
        world.workloads.name_count_writer(writer);
        world.workloads.change(&id(APP), |w| {
            w.desired = Replicas(1);
            w.unrecorded = Some(Replicas::ZERO);
        });
        pass(SECOND * 2).await;
        let now = world.workloads.peek(&id(APP));
        assert_eq!(now.intent.changes.len(), count, "{:?}", now.intent);
        assert!(now.intent.changes.iter().all(|change| {
            (&change.actor, change.from, change.to) == (&Actor::Gateway, Replicas(0), Replicas(1))
        }));
    }
}

// A wake that was found when it had gone on for a while teaches nothing: nobody knows when it began.
#[tokio::test(start_paused = true)]
async fn a_wake_whose_beginning_nobody_saw_teaches_nothing() {
    let mut app = workload(APP, 2, 2, 0);
    app.intent.record(nagi_core::intent::Change {
        time: epoch(),
        action: nagi_core::intent::Action::ScaleToZero,
        actor: Actor::Anonymous,
        reason: nagi_core::text::ReasonText::new("test").unwrap(),
        request_id: None,
        from: Replicas(2),
        to: Replicas::ZERO,
    });
    let world = start([app]);
    world
        .workloads
        .name_count_writer(nagi_core::intent::CountWriter::Gateway);
    pass(SECOND * 2).await;
    world.workloads.settle(&id(APP));
    pass(SECOND).await;
    let now = world.workloads.peek(&id(APP));
    assert_eq!(
        now.intent.changes.last().unwrap().actor,
        Actor::Gateway,
        "it was recorded"
    );
    assert_eq!(now.intent.learned, nagi_core::wake::Learned::default());
}

// A-159, W-A09: what nobody may change is not put to sleep either, nor woken by a schedule.
#[tokio::test(start_paused = true)]
async fn what_nobody_may_change_is_left_alone() {
    let mut protected = idle_app();
    protected.id.namespace = nagi_core::id::Namespace::new("kube-system").unwrap();
    let id = protected.id.clone();
    let world = start([protected]);
    world.traffic.set(&id, quiet(60));
    pass(SECOND * 60).await;
    assert_eq!(world.workloads.peek(&id).desired, Replicas(2));
    assert_eq!(world.traffic.settled(), []);
}
