//! Who decides: one process at a time, with a term that every write carries.

use std::sync::Arc;
use std::time::Duration;

use nagi_core::intent::{Actor, ScheduledWake};
use nagi_kube::{KubeEngine, KubeSettings, Leading, Rights, Source, annotation};
use nagi_kube_double::{Double, Effect, Fault, objects};
use nagi_ports::{Clock, PortError, Read, SystemClock, Workloads};
use nagi_runtime::Supervisor;
use nagi_testkit::listed;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::lab::{PATH, PATIENCE, at, eventually, id, sleep, wake};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/scale-system/leases/nagi-leader";

fn ahead() -> ScheduledWake {
    ScheduledWake {
        at: at("2031-01-01T00:00:00Z"),
        actor: Actor::parse("key/ops").unwrap(),
        request_id: None,
    }
}

struct Process {
    engine: KubeEngine,
    leading: Leading,
    supervisor: Supervisor,
}

fn process(double: &Double, identity: &str) -> Process {
    let mut supervisor = Supervisor::new();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let settings = KubeSettings {
        source: Source::Url(double.url()),
        rights: Rights::Full,
        namespaces: None,
        identity: identity.to_owned(),
    };
    let engine = KubeEngine::start(settings, clock, &mut supervisor);
    let leading = engine.lead(&mut supervisor);
    Process {
        engine,
        leading,
        supervisor,
    }
}

impl Process {
    async fn leads(&self) {
        let mut leadership = self.leading.leadership();
        tokio::time::timeout(PATIENCE, leadership.gained())
            .await
            .expect("it leads");
    }

    async fn no_longer_leads(&self) {
        let mut leadership = self.leading.leadership();
        tokio::time::timeout(PATIENCE, leadership.lost())
            .await
            .expect("it leads no more");
    }
}

async fn cluster() -> Double {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double
}

fn lease(double: &Double) -> Value {
    double.get(LEASE).unwrap_or_default()["spec"].clone()
}

// A-041, issue 4 item 3
#[tokio::test]
async fn of_two_processes_one_leads_and_the_other_follows_at_once_when_it_ends() {
    let double = cluster().await;
    let first = process(&double, "first");
    first.leads().await;
    assert_eq!(lease(&double)["holderIdentity"], "first");
    let second = process(&double, "second");
    eventually("the second to see the Lease", async || {
        double
            .requests()
            .iter()
            .filter(|request| request.path == LEASE)
            .count()
            > 4
    })
    .await;
    let mut leadership = second.leading.leadership();
    let waiting = tokio::time::timeout(Duration::from_millis(10), leadership.gained()).await;
    assert!(waiting.is_err(), "two lead");
    let asked = Instant::now();
    first
        .supervisor
        .run_until(std::future::ready(()), PATIENCE)
        .await
        .unwrap();
    second.leads().await;
    let taken = asked.elapsed();
    println!("hand-over took {taken:?}");
    assert!(
        taken < Duration::from_secs(1),
        "it was let go, not waited for: {taken:?}"
    );
    assert_eq!(lease(&double)["holderIdentity"], "second");
    assert_eq!(lease(&double)["leaseTransitions"], 2);
}

// DESIGN §5
#[tokio::test]
async fn a_leader_writes_its_term_and_rises_above_one_that_it_meets() {
    let double = cluster().await;
    let process = process(&double, "first");
    process.leads().await;
    let before = process
        .leading
        .get(&id(), nagi_ports::Read::Cached)
        .await
        .unwrap();
    let asleep = process
        .leading
        .write(&before, sleep(&before))
        .await
        .unwrap();
    let epoch = |double: &Double| {
        double.get(PATH).unwrap()["metadata"]["annotations"][annotation::EPOCH].clone()
    };
    assert_eq!(epoch(&double), "1");
    // Written in a later term: the Lease was deleted and made anew.
    double.edit(PATH, |object| {
        object["metadata"]["annotations"][annotation::EPOCH] = json!("41");
    });
    eventually("the later term", async || {
        process
            .leading
            .get(&id(), nagi_ports::Read::Cached)
            .await
            .unwrap()
            .version
            > asleep.version
    })
    .await;
    let met = process
        .leading
        .get(&id(), nagi_ports::Read::Cached)
        .await
        .unwrap();
    process.leading.write(&met, sleep(&met)).await.unwrap();
    assert_eq!(lease(&double)["leaseTransitions"], 42);
    assert_eq!(epoch(&double), "42");
}

#[tokio::test]
async fn a_process_that_lost_the_lease_writes_nothing() {
    let double = cluster().await;
    let process = process(&double, "first");
    process.leads().await;
    let before = process
        .leading
        .get(&id(), nagi_ports::Read::Cached)
        .await
        .unwrap();
    double.edit(LEASE, |lease| {
        lease["spec"]["holderIdentity"] = json!("other");
        lease["spec"]["leaseTransitions"] = json!(7);
    });
    process.no_longer_leads().await;
    let refused = process
        .leading
        .write(&before, sleep(&before))
        .await
        .unwrap_err();
    assert!(matches!(refused, PortError::Refused(_)), "{refused}");
    assert_eq!(double.get(PATH).unwrap()["spec"]["replicas"], 2);
}

#[tokio::test]
async fn a_leader_that_cannot_renew_stops_to_decide_before_others_begin() {
    let double = cluster().await;
    let process = process(&double, "first");
    process.leads().await;
    let hang = double.inject(Fault::always(Effect::Hang).at("/leases/"));
    let begun = Instant::now();
    process.no_longer_leads().await;
    // The Lease runs out for others 15 s after its last renewal.
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    double.lift(hang);
    process.leads().await;
}

#[tokio::test]
async fn a_process_without_rights_on_the_lease_decides_nothing_and_reads_on() {
    let double = cluster().await;
    double.inject(Fault::status(403).at("/leases"));
    let process = process(&double, "first");
    eventually("reads", async || listed(&process.leading).await.is_ok()).await;
    let before = process
        .leading
        .get(&id(), nagi_ports::Read::Cached)
        .await
        .unwrap();
    let refused = process
        .leading
        .write(&before, sleep(&before))
        .await
        .unwrap_err();
    assert!(matches!(refused, PortError::Refused(_)), "{refused}");
}

// Issue 4: a leader that was killed is followed when its Lease has not changed for as long as it says
#[tokio::test]
async fn a_holder_that_is_gone_is_followed_in_a_term_of_its_own() {
    let double = cluster().await;
    double.put(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "namespace": "scale-system", "name": "nagi-leader" },
        // Its clock is years ahead: only the standstill counts, not the time in it.
        "spec": {
            "holderIdentity": "killed", "leaseDurationSeconds": 1, "leaseTransitions": 5,
            "renewTime": "2099-01-01T00:00:00.000000Z",
        },
    }));
    let begun = Instant::now();
    let process = process(&double, "next");
    process.leads().await;
    assert!(
        begun.elapsed() >= Duration::from_secs(1),
        "not before its time"
    );
    assert_eq!(lease(&double)["holderIdentity"], "next");
    assert_eq!(lease(&double)["leaseTransitions"], 6);
}

// Whoever may annotate an object must not stop the leader of a whole cluster.
#[tokio::test]
async fn a_term_that_no_leader_had_is_not_followed() {
    let double = cluster().await;
    let process = process(&double, "first");
    process.leads().await;
    let transitions = lease(&double)["leaseTransitions"].clone();
    // Beyond the 32 bits of a Lease, and all but beyond them.
    for (term, is_written) in [
        ("3000000000", true),
        ("18446744073709551615", true),
        ("2000000000", false),
    ] {
        let version = double.edit(PATH, |object| {
            object["metadata"]["annotations"] = json!({ annotation::EPOCH: term });
            object["spec"]["replicas"] = json!(2);
        })["metadata"]["resourceVersion"]
            .as_str()
            .and_then(|version| version.parse().ok())
            .unwrap();
        let at_least = nagi_ports::Read::AtLeast(nagi_core::id::Version::new(version));
        let met = process.leading.get(&id(), at_least).await.unwrap();
        match process.leading.write(&met, sleep(&met)).await {
            Ok(_) => assert!(is_written, "{term}"),
            Err(PortError::Refused(why)) if !is_written => {
                assert!(
                    why.contains(annotation::EPOCH) && why.contains(term),
                    "{why}"
                );
            }
            Err(error) => panic!("{term}: {error}"),
        }
        assert_eq!(lease(&double)["leaseTransitions"], transitions, "{term}");
    }
    process.leads().await;
}

// A-151, W-A01: what is promised for later has somebody who does it, or is not promised.
#[tokio::test]
async fn no_schedule_is_taken_while_the_lease_cannot_be_used() {
    let double = cluster().await;
    let denied = double.inject(Fault::status(403).at("/leases"));
    let process = process(&double, "first");
    let mut refused = None;
    eventually("the refusal of a schedule", async || {
        let Ok(before) = process.leading.get(&id(), Read::Live).await else {
            return false;
        };
        let mut update = sleep(&before);
        update.intent.scheduled = Some(ahead());
        refused = process.engine.write(&before, update).await.err();
        matches!(&refused, Some(PortError::Refused(_)))
    })
    .await;
    let words = refused.unwrap().to_string();
    assert!(
        words.contains("scale-system/nagi-leader") && words.contains("preflight"),
        "{words}"
    );
    // A rehearsal is refused for the same, and users are told.
    let before = process.leading.get(&id(), Read::Live).await.unwrap();
    let mut update = sleep(&before);
    update.intent.scheduled = Some(ahead());
    let rehearsed = process.engine.rehearse(&before, &update).await;
    assert_eq!(rehearsed.unwrap_err().to_string(), words);
    assert_eq!(process.engine.unattended().unwrap().to_string(), words);
    let unpromised = sleep(&before);
    process.engine.rehearse(&before, &unpromised).await.unwrap();
    // Sleep and wake promise nothing for later.
    let before = process.leading.get(&id(), Read::Live).await.unwrap();
    assert_eq!(before.desired.0, 2, "nothing was changed");
    let before = process.engine.write(&before, sleep(&before)).await.unwrap();
    let before = process
        .engine
        .write(&before, wake(&before, 2))
        .await
        .unwrap();
    double.lift(denied);
    process.leads().await;
    assert_eq!(process.engine.unattended(), None);
    let mut update = sleep(&before);
    update.intent.scheduled = Some(ahead());
    process.leading.rehearse(&before, &update).await.unwrap();
    process.engine.write(&before, update).await.unwrap();
}

// The first look at the Lease takes a moment, and who asks before it waits for it.
#[tokio::test]
async fn a_schedule_in_the_first_moment_waits_for_the_lease() {
    let double = cluster().await;
    let slow = Effect::Latency(Duration::from_secs(1));
    double.inject(Fault::always(slow).at("/leases").times(1));
    let process = process(&double, "first");
    let before = process.engine.get(&id(), Read::Live).await.unwrap();
    let mut update = sleep(&before);
    update.intent.scheduled = Some(ahead());
    process.engine.write(&before, update).await.unwrap();
}
