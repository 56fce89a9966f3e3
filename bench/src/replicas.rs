//! Several replicas of `nagi server` on one cluster: how soon one sees what another wrote, and how long nobody holds the Lease
//! when its holder is ended.
//!
//! The API server is the double, in this process: it has the Lease, which says who decides.

use std::time::Duration;

use anyhow::{Context, ensure};
use nagi_kube_double::{Double, objects};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::http::{self, Connection};
use crate::nagi::{Place, wide_runtime};
use crate::report::{Report, Row};
use crate::{Options, cluster};

const WORKLOAD: &str = "/api/v1/deployments/project-a/sample-app-a";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/scale-system/leases/nagi-leader";
/// Milliseconds, as the next one.
const SEEN_GOAL: f64 = 100.0;
const HANDED_OVER_GOAL: f64 = 1_000.0;
/// Below the default limit of 10 writes a second, which stays in force.
const CALL_PACE: Duration = Duration::from_millis(115);
/// What has not happened by then does not happen: a Lease that nobody gave back runs out earlier.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures both on two replicas.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let runtime = wide_runtime()?;
    let double = runtime.block_on(Double::start());
    double.put(objects::deployment("project-a", "sample-app-a", 1));
    let places = [Place::bare(&options.nagi)?, Place::bare(&options.nagi)?];
    let start = |place: &Place| {
        let kubeconfig = place.file("kubeconfig");
        cluster::write_kubeconfig(&kubeconfig, &double.url())?;
        place.start_server(&runtime, &kubeconfig)
    };
    let [one, two] = &places;
    let mut leader = start(one)?;
    let mut holder = new_holder(&runtime, &double, "")?;
    let mut follower = start(two)?;

    let seen = runtime.block_on(seen_elsewhere(one, two, options.pick(300, 60)))?;
    report.rounds("replicas_seen_elsewhere_ms", &seen);
    let what = "a write at one replica to a read at another";
    report.row(Row::of_millis(
        "replicas",
        what,
        &seen,
        options.percent(),
        SEEN_GOAL,
    ));

    let mut handed_over = Vec::new();
    for round in 0..options.pick(20, 3) {
        let place = if round % 2 == 0 { one } else { two };
        let began = Instant::now();
        leader.ask_to_end()?;
        holder = new_holder(&runtime, &double, &holder)?;
        handed_over.push(began.elapsed().as_secs_f64() * 1e3);
        leader.stop()?;
        (leader, follower) = (follower, start(place)?);
    }
    leader.stop()?;
    follower.stop()?;
    report.rounds("replicas_hand_over_ms", &handed_over);
    let what = "SIGTERM at the holder of the Lease to another that holds it";
    report.row(Row::of_millis(
        "replicas",
        what,
        &handed_over,
        options.percent(),
        HANDED_OVER_GOAL,
    ));
    Ok(())
}

/// Writes at one replica, and asks the other, which is told of no version, until it knows.
async fn seen_elsewhere(one: &Place, two: &Place, rounds: u32) -> anyhow::Result<Vec<f64>> {
    let write = |verb: &str, body: &str| {
        http::request("POST", "localhost", &format!("{WORKLOAD}/{verb}"), body)
    };
    let up = write("scale-up", r#"{"replicas":1,"reason":"measure"}"#);
    let zero = write("scale-to-zero", r#"{"reason":"measure"}"#);
    let status = http::request("GET", "localhost", &format!("{WORKLOAD}/status"), "");
    let mut writer = Connection::open(one.api).await?;
    let mut reader = Connection::open(two.api).await?;
    let mut millis = Vec::new();
    for round in 0..rounds {
        let (request, wanted) = if round % 2 == 0 { (&zero, 0) } else { (&up, 1) };
        let began = Instant::now();
        cluster::succeeded(&writer.call(request).await?)?;
        let answered = Instant::now();
        loop {
            let answer = reader.call(&status).await?;
            cluster::succeeded(&answer)?;
            let body: Value = serde_json::from_slice(&answer.body).context("read a status")?;
            if body["deployment"]["desired_replicas"] == wanted {
                break;
            }
            ensure!(answered.elapsed() < PATIENCE, "not seen elsewhere: {body}");
        }
        millis.push(answered.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep_until(began + CALL_PACE).await;
    }
    Ok(millis)
}

/// Waits until another process than this one decides, and names it.
fn new_holder(runtime: &Runtime, double: &Double, before: &str) -> anyhow::Result<String> {
    runtime.block_on(async {
        let began = Instant::now();
        loop {
            let lease = double.get(LEASE).unwrap_or_default();
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            if !holder.is_empty() && holder != before {
                return Ok(holder.to_owned());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "nobody took the Lease over: {lease}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}
