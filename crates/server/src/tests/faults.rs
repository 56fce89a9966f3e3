//! An engine that fails: who is to blame is in the status, why is in the log (A-020, A-150).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nagi_ports::{PortError, Read};
use nagi_testkit::Fault;
use serde_json::{Value, json};

use super::world::{BASE, Setup, World, world};

fn refused() -> Fault {
    Fault::Error(PortError::Refused(
        "deployments.apps is forbidden".to_owned(),
    ))
}

/// Each fault with what it must become: status, and words that the log line must hold.
fn faults() -> Vec<(Fault, u16, &'static str)> {
    let text = || "as it says".to_owned();
    vec![
        (refused(), 500, "denied"),
        (
            Fault::Error(PortError::Conflict),
            500,
            "changed by somebody else",
        ),
        (Fault::Error(PortError::Internal(text())), 500, "error"),
        (Fault::Error(PortError::NotFound), 404, "not found"),
        (
            Fault::Error(PortError::Unreachable("refused".to_owned())),
            503,
            "connection",
        ),
        (Fault::Error(PortError::Timeout(text())), 503, "timeout"),
        (
            Fault::Error(PortError::Busy {
                retry_after: Some(Duration::from_secs(7)),
            }),
            503,
            "takes no more requests",
        ),
        (
            Fault::Error(PortError::StorageFull("disk full".to_owned())),
            503,
            "storage",
        ),
        (Fault::Hang, 503, "timeout"),
    ]
}

const WRITES: [(&str, &str, &str); 3] = [
    ("POST", "scale-to-zero", r#"{"reason":"x"}"#),
    ("POST", "scale-up", r#"{"reason":"x","replicas":2}"#),
    ("DELETE", "scheduled-scale-up", ""),
];

/// A world in which every write has something to do.
fn awake_with_schedule() -> World {
    let w = world();
    w.workloads.change(&super::world::app_a(), |facts| {
        facts.intent.scheduled = Some(nagi_core::intent::ScheduledWake {
            at: "2030-06-01T00:00:00Z".parse().unwrap(),
            actor: nagi_core::intent::Actor::Anonymous,
            request_id: None,
        });
    });
    w
}

/// The usual workload sleeps, and knows to how many it wakes.
fn asleep(w: &World) {
    w.workloads.change(&super::world::app_a(), |facts| {
        facts.desired = nagi_core::quantity::Replicas::ZERO;
        facts.intent.remembered = nagi_core::quantity::WakeCount::new(1);
    });
}

// A-020, A-150, A-053, A-149, K-08, W-A03
#[tokio::test(start_paused = true)]
async fn a_write_that_fails_says_whose_fault_it_was() {
    for (method, verb, body) in WRITES {
        for (fault, status, word) in faults() {
            let w = awake_with_schedule();
            w.workloads.fail_always(None, Some(fault.clone()));
            let answer = w
                .request(method, &format!("{BASE}/{verb}"))
                .body(body)
                .send()
                .await
                .expect(status);
            let expected = if status == 404 {
                "Deployment project-a/sample-app-a not found"
            } else {
                "Failed to scale deployment"
            };
            assert_eq!(answer.at("/status"), "error");
            assert_eq!(answer.at("/message"), expected, "{verb} {fault:?}");
            assert!(answer.at("/error").is_string() && answer.at("/timestamp").is_string());
            let overtaken = matches!(&fault, Fault::Error(PortError::Conflict));
            let again = status == 503 || overtaken;
            assert_eq!(!answer.header("retry-after").is_empty(), again);
            let line = w.log_lines().remove(0);
            let told = line.to_string().to_lowercase();
            assert!(told.contains(word), "{fault:?}: {told}");
            assert_eq!(line["level"], if status >= 500 { "error" } else { "warn" });
            // A server that lacks a right is no 403 of the caller: that word stays apart (A-056).
            assert!(!line["message"].as_str().unwrap().contains("Forbidden"));
        }
    }
}

// A-150, K-08, W-A03
#[tokio::test(start_paused = true)]
async fn a_read_that_fails_says_whose_fault_it_was() {
    let paths = [
        "/api/v1/workloads",
        "/api/v1/deployments",
        "/api/v1/scheduled-scale-ups",
    ];
    for (fault, status, _) in faults() {
        let w = world();
        w.workloads.fail_always(Some(fault.clone()), None);
        let answer = w.get(&format!("{BASE}/status")).send().await.expect(status);
        if status != 404 {
            assert_eq!(
                answer.at("/message"),
                "Failed to get deployment status",
                "{fault:?}"
            );
            for path in paths {
                let answer = w.get(path).send().await.expect(status);
                assert_eq!(answer.at("/message"), "Failed to read workloads");
            }
        }
    }
}

// W-A17, DESIGN §5: a conflict is read and decided anew, at most five times. Then the caller may come again: nothing is
// broken (K-08).
#[tokio::test(start_paused = true)]
async fn a_conflict_is_decided_again_five_times_at_most_and_is_then_told_as_passing() {
    for verb in ["scale-to-zero", "wake"] {
        for (conflicts, answered) in [(4, true), (5, false)] {
            let w = world();
            if verb == "wake" {
                asleep(&w);
            }
            for _ in 0..conflicts {
                w.workloads.fail_write(Fault::Error(PortError::Conflict));
            }
            let answer = w.post(&format!("{BASE}/{verb}"), r#"{"reason":"x"}"#);
            let answer = answer.send().await;
            assert_eq!(w.workloads.writes().is_empty(), !answered, "{verb}");
            if answered {
                assert!(answer.status.is_success(), "{verb}: {}", answer.status);
                continue;
            }
            let answer = answer.expect(500);
            assert_eq!(answer.header("retry-after"), "1");
            assert_eq!(answer.at("/message"), "Failed to scale deployment");
            let hint = answer.at("/hint");
            assert!(
                hint.as_str()
                    .is_some_and(|hint| hint.contains("nothing was written")),
                "{hint}"
            );
        }
    }
}

// A-038, A-085, W-A18: one deadline for the engine, and its share in the log.
#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_costs_ten_seconds_and_is_named() {
    let w = world();
    w.workloads.fail_always(None, Some(Fault::Hang));
    let begun = tokio::time::Instant::now();
    let answer = w
        .post(&format!("{BASE}/scale-to-zero"), r#"{"reason":"x"}"#)
        .send()
        .await
        .expect(503);
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    assert!(answer.at("/error").as_str().unwrap().contains("timeout"));
    assert!(answer.at("/hint").as_str().unwrap().contains("status"));
    let line = w.log_lines().remove(0);
    assert_eq!(line["message"], "Upstream timeout");
    let share = line["latency_upstream"]
        .as_str()
        .unwrap()
        .trim_end_matches("ms")
        .parse::<f64>()
        .unwrap();
    assert!((9_999.0..10_100.0).contains(&share), "{share}");
    // The wake driver retries by itself; its caller is still answered.
    asleep(&w);
    w.post(&format!("{BASE}/wake"), "").send().await.expect(503);
}

// A-004, A-016, A-071, A-121, K-09, R03, W-A04
#[tokio::test(start_paused = true)]
async fn ready_says_what_the_founding_documents_say_and_heals() {
    let unreachable = || Fault::Error(PortError::Unreachable("connection refused".to_owned()));
    for kubernetes in [true, false] {
        let setup = Setup {
            kubernetes,
            ..Setup::default()
        };
        let w = setup.world();
        let good = if kubernetes {
            json!({"status": "ready", "kubernetes": "connected"})
        } else {
            json!({"status": "ready", "engine": "local"})
        };
        let bad = if kubernetes {
            json!({"status": "not ready", "error": "unable to connect to Kubernetes API"})
        } else {
            json!({"status": "not ready", "error": nagi_api::health::LOCAL_UNREACHABLE})
        };
        let without_time = |answer: Value| {
            let mut body = answer;
            let time = body.as_object_mut().unwrap().remove("time");
            assert!(time.is_some_and(|time| time.as_str().unwrap().ends_with('Z')));
            body
        };
        for fault in [unreachable(), refused(), Fault::Hang] {
            assert_eq!(
                without_time(w.get("/ready").send().await.expect(200).json()),
                good
            );
            w.workloads.fail_always(Some(fault), None);
            let begun = tokio::time::Instant::now();
            assert_eq!(
                without_time(w.get("/ready").send().await.expect(503).json()),
                bad
            );
            assert!(begun.elapsed() <= Duration::from_millis(2500));
            w.workloads.fail_always(None, None);
        }
        assert_eq!(
            without_time(w.get("/ready").send().await.expect(200).json()),
            good
        );
        let failed = w.log_lines().remove(1);
        assert!(
            failed["message"]
                .as_str()
                .unwrap()
                .to_lowercase()
                .contains("connection"),
            "{failed}"
        );
    }
}

// A-003, A-070: two fields, whatever the engine does.
#[tokio::test(start_paused = true)]
async fn health_has_two_fields_and_needs_no_engine() {
    let w = world();
    w.workloads
        .fail_always(Some(Fault::Hang), Some(Fault::Hang));
    let answer = w.get("/health").send().await.expect(200);
    let body = answer.json();
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["status", "time"]);
    assert_eq!(body["status"], "healthy");
    assert!(body["time"].as_str().unwrap().ends_with('Z'));
}

/// Pools that panic when somebody asks.
#[derive(Debug)]
struct PanickingNodes;

#[async_trait]
impl nagi_ports::Nodes for PanickingNodes {
    async fn pools(&self) -> Result<Vec<nagi_core::pool::Pool>, PortError> {
        panic!("a bug")
    }
}

// A-080, F13: a bug in one handler is a 500 in the envelope, and the next request works.
#[tokio::test(start_paused = true)]
async fn a_panic_is_a_500_in_the_envelope() {
    let w = Setup::default().world_with(|ports| ports.nodes = Arc::new(PanickingNodes));
    let answer = w.get("/api/v1/pools").send().await.expect(500);
    assert_eq!(answer.at("/message"), "Internal error");
    assert!(answer.at("/hint").is_string());
    assert_eq!(w.log_lines()[0]["level"], "error");
    w.get("/health").send().await.expect(200);
}

/// Workloads whose cache is behind: it shows what was there at the start until somebody asks for more.
#[derive(Debug)]
struct BehindWorkloads {
    real: Arc<nagi_testkit::MemoryWorkloads>,
    cached: Arc<nagi_core::workload::Workload>,
}

#[async_trait]
impl nagi_ports::Workloads for BehindWorkloads {
    fn engine(&self) -> nagi_ports::Engine {
        self.real.engine()
    }

    async fn reachable(&self) -> Result<(), PortError> {
        self.real.reachable().await
    }

    async fn get(
        &self,
        id: &nagi_core::id::WorkloadId,
        read: Read,
    ) -> Result<Arc<nagi_core::workload::Workload>, PortError> {
        match read {
            Read::Cached => Ok(Arc::clone(&self.cached)),
            Read::Live => self.real.get(id, read).await,
            Read::AtLeast(version) => {
                let fresh = self.real.get(id, read).await?;
                assert!(fresh.version >= version, "nobody asks for what cannot be");
                Ok(fresh)
            }
        }
    }

    async fn visit(
        &self,
        selection: nagi_ports::Selection<'_>,
        see: &mut nagi_ports::See<'_>,
    ) -> Result<nagi_ports::Visited, PortError> {
        self.real.visit(selection, see).await
    }

    async fn write(
        &self,
        before: &nagi_core::workload::Workload,
        update: nagi_core::intent::IntentUpdate,
    ) -> Result<Arc<nagi_core::workload::Workload>, PortError> {
        self.real.write(before, update).await
    }

    async fn count_writer(
        &self,
        workload: &nagi_core::workload::Workload,
    ) -> Result<Option<nagi_core::intent::CountWriter>, PortError> {
        self.real.count_writer(workload).await
    }

    fn subscribe(&self) -> tokio::sync::broadcast::Receiver<nagi_ports::WorkloadEvent> {
        self.real.subscribe()
    }
}

// W-A17, DESIGN §5: after a conflict the cache is not asked again for what it showed.
#[tokio::test(start_paused = true)]
async fn a_cache_that_is_behind_costs_one_more_read() {
    let stale = nagi_testkit::workload(super::world::APP_A, 1, 1, 1);
    let real = nagi_testkit::MemoryWorkloads::new(nagi_ports::Engine::Kubernetes, [stale]);
    let id = super::world::app_a();
    let cached = real.peek(&id);
    real.change(&id, |facts| facts.desired.0 = 5);
    let behind = Arc::new(BehindWorkloads {
        real: Arc::clone(&real),
        cached,
    });
    let w = Setup::default().world_with(|ports| ports.workloads = behind);
    let body = r#"{"reason":"x"}"#;
    let answer = w
        .post(&format!("{BASE}/scale-to-zero"), body)
        .send()
        .await
        .expect(200);
    assert_eq!(answer.at("/deployment/previous_replicas"), 5);
    assert_eq!(answer.at("/deployment/remembered_replicas"), 5);
}

/// Gateways that never answer.
#[derive(Debug)]
struct SilentTraffic;

#[async_trait]
impl nagi_ports::Traffic for SilentTraffic {
    async fn activity(&self, _id: &nagi_core::id::WorkloadId) -> Option<nagi_core::idle::Activity> {
        std::future::pending().await
    }

    async fn prepare(&self, _id: &nagi_core::id::WorkloadId) -> Option<nagi_core::idle::Activity> {
        std::future::pending().await
    }

    async fn settle(&self, _id: &nagi_core::id::WorkloadId, _settled: nagi_ports::Settled) {}
}

// What the gateways count is shown, and never in the way of an order or a read.
#[tokio::test(start_paused = true)]
async fn gateways_that_do_not_answer_hold_nothing_up() {
    let w = Setup::default().world_with(|ports| ports.traffic = Arc::new(SilentTraffic));
    let begun = tokio::time::Instant::now();
    let status = w.get(&format!("{BASE}/status")).send().await.expect(200);
    assert_eq!(status.at("/deployment/in_flight_requests"), Value::Null);
    w.post(&format!("{BASE}/scale-to-zero"), r#"{"reason":"x"}"#)
        .send()
        .await
        .expect(200);
    assert!(begun.elapsed() <= Duration::from_secs(1));
}
