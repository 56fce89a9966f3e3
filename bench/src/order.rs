//! G9: from a request at Nagi to its write at the API server.
//!
//! The API server is the double, in this process: it notes when a request had come whole. So what is measured holds the way
//! to Nagi, everything that Nagi does, and the way of the patch; not the API server's work. `nagi server` is asked by its API,
//! `nagi gateway` by the first request for a workload that sleeps.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nagi_kube_double::{Double, objects};
use tokio::time::Instant;

use crate::http::{self, Connection};
use crate::nagi::{Place, wide_runtime};
use crate::report::{Report, Row};
use crate::{Options, cluster};

/// Milliseconds.
const GOAL: f64 = 2.0;
const NAMESPACE: &str = "project-a";
const CALLED: &str = "sample-app-a";
const CALLS: &str = "/api/v1/deployments/project-a/sample-app-a";
/// Below the default limit of 10 writes a second, which stays in force.
const CALL_PACE: Duration = Duration::from_millis(115);
/// Each request wakes another workload, and none comes up: the flights of all stay open behind it.
const REQUEST_PACE: Duration = Duration::from_millis(40);
/// A write that has not come by then does not come.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// Measures both ways to a write.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let runtime = wide_runtime()?;
    let double = runtime.block_on(Double::start());
    let rounds = options.pick(300, 60);
    double.put(objects::deployment(NAMESPACE, CALLED, 1));
    for round in 0..rounds {
        let mut asleep = objects::deployment(NAMESPACE, &sleeper(round), 0);
        asleep["metadata"]["annotations"] = cluster::annotations()?;
        double.put(asleep);
    }
    let place = Place::bare(&options.nagi)?;
    let kubeconfig = place.file("kubeconfig");
    cluster::write_kubeconfig(&kubeconfig, &double.url())?;

    let server = place.start_server(&runtime, &kubeconfig)?;
    let calls = runtime.block_on(calls(&double, &place, rounds))?;
    server.stop()?;
    report.rounds("order_call_to_patch_ms", &calls);
    let what = "a call of the Scale API to its PATCH on the wire";
    report.row(Row::of_millis("G9", what, &calls, options.percent(), GOAL));

    let gateway = place.start_gateway(&runtime, &kubeconfig)?;
    let requests = runtime.block_on(requests(&double, &place, rounds))?;
    gateway.stop()?;
    report.rounds("order_first_request_to_patch_ms", &requests);
    let what = "a first request at the gateway to its PATCH on the wire";
    report.row(Row::of_millis(
        "G9",
        what,
        &requests,
        options.percent(),
        GOAL,
    ));
    Ok(())
}

fn sleeper(round: u32) -> String {
    format!("asleep-{round:03}")
}

/// Scales one workload up and to zero by turns.
async fn calls(double: &Double, place: &Place, rounds: u32) -> anyhow::Result<Vec<f64>> {
    let call = |verb: &str, body: &str| {
        http::request("POST", "localhost", &format!("{CALLS}/{verb}"), body)
    };
    let up = call("scale-up", r#"{"replicas":1,"reason":"measure"}"#);
    let zero = call("scale-to-zero", r#"{"reason":"measure"}"#);
    let mut connection = Connection::open(place.api).await?;
    let mut millis = Vec::new();
    // The first call opens the connection to the API server, as the first call after every start does; it is not counted.
    for round in 0..=rounds {
        let request = if round % 2 == 0 { &zero } else { &up };
        double.forget_requests();
        let began = Instant::now();
        let answer = connection.call(request).await?;
        ensure!(
            answer.status == 200,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
        let written = written(double, CALLED).context("an answer without a write")?;
        if round > 0 {
            millis.push(between(began, written));
        }
        tokio::time::sleep_until(began + CALL_PACE).await;
    }
    Ok(millis)
}

/// Asks for one sleeping workload after the other, and goes away when its wake was written.
async fn requests(double: &Double, place: &Place, rounds: u32) -> anyhow::Result<Vec<f64>> {
    let mut millis = Vec::new();
    for round in 0..rounds {
        let name = sleeper(round);
        let host = format!("{name}.{NAMESPACE}.localhost");
        double.forget_requests();
        let mut connection = Connection::open(place.gateway).await?;
        let began = Instant::now();
        connection
            .send(&http::request("GET", &host, "/", ""))
            .await?;
        let written = loop {
            tokio::time::sleep(Duration::from_millis(2)).await;
            if let Some(written) = written(double, &name) {
                break written;
            }
            if began.elapsed() > WRITE_MAX {
                bail!("the gateway wrote nothing for {host}");
            }
        };
        millis.push(between(began, written));
        drop(connection);
        tokio::time::sleep_until(began + REQUEST_PACE).await;
    }
    Ok(millis)
}

/// When a patch of a Deployment had come.
fn written(double: &Double, name: &str) -> Option<Instant> {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}");
    let requests = double.requests();
    let found = requests.iter().find(|request| {
        request.method.as_str() == "PATCH"
            && request
                .path
                .strip_prefix(&path)
                .is_some_and(|rest| rest.starts_with(['?', '/']))
    });
    found.map(|request| request.at)
}

fn between(began: Instant, ended: Instant) -> f64 {
    ended.saturating_duration_since(began).as_secs_f64() * 1e3
}
