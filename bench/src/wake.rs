//! A wake on this machine: from the child's port being open to the first byte of the answer at the client.
//!
//! The client asks the gateway for a sleeping workload and is held. The child notes when it opened its port and says so in
//! the answer; both read the same clock. How long the process takes to get there is not Nagi's doing and not counted.

use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::http::{self, Connection};
use crate::nagi::{Place, runtime};
use crate::report::{Report, Row, Sense, Weight};
use crate::statistics::{largest, median, percentile};
use crate::{Options, clock};

/// A start of 60 ms: long enough that the prober has met a closed port, short enough for hundreds of wakes.
const WORKLOADS: &str = "\
workloads:
  - namespace: project-a
    name: sample-app-a
    command: [BENCH, child, '60']
    port: 8080
    readiness: { http: { path: /health } }
    replicas: 0
    awake_replicas: 1
    stop_grace: 1s
";

const HOST: &str = "sample-app-a.project-a.localhost";
const CALLS: &str = "/api/v1/deployments/project-a/sample-app-a";
/// A replica ends within its grace time.
const ASLEEP_MAX: Duration = Duration::from_secs(10);

/// Measures wakes one after another.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let place = Place::new(&options.nagi, WORKLOADS)?;
    let nagi = place.start(&runtime, None, &[])?;
    let request = http::request("GET", HOST, "/", "");
    let (mut after_open, mut whole) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        for _ in 0..options.pick(300, 30) {
            let began = clock::now();
            let answer = Connection::open(place.gateway)
                .await?
                .call(&request)
                .await?;
            ensure!(
                answer.status == 200,
                "{}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
            let opened = std::str::from_utf8(&answer.body)
                .ok()
                .and_then(|text| text.parse().ok());
            let opened = Duration::from_nanos(opened.context("read when the port was opened")?);
            ensure!(
                opened > began,
                "the request met a replica that was awake already"
            );
            after_open.push(answer.first_byte.saturating_sub(opened).as_secs_f64() * 1e3);
            whole.push(answer.first_byte.saturating_sub(began).as_secs_f64() * 1e3);
            sleep(&place).await?;
        }
        anyhow::Ok(())
    })?;
    nagi.stop()?;

    let percent = options.percent();
    report.row(Row {
        id: "wake",
        what: format!(
            "local wake, port open to first byte at the client, p{percent} of {}",
            after_open.len()
        ),
        unit: "ms",
        sense: Sense::AtMost,
        goal: 5.0,
        seen: percentile(&after_open, percent),
        peer: format!(
            "p50 {:.2}, slowest {:.2}; request to answer p50 {:.0}",
            median(&after_open),
            largest(&after_open),
            median(&whole)
        ),
        weight: Weight::Gated {
            slack_when_quick: 5.0,
        },
    });
    report.rounds("wake_port_open_to_first_byte_ms", &after_open);
    report.rounds("wake_request_to_first_byte_ms", &whole);
    Ok(())
}

/// Puts the workload to sleep and waits until its process is gone.
async fn sleep(place: &Place) -> anyhow::Result<()> {
    place
        .call(
            "POST",
            &format!("{CALLS}/scale-to-zero"),
            r#"{"reason":"measure"}"#,
        )
        .await?;
    let began = clock::now();
    loop {
        let status = place.call("GET", &format!("{CALLS}/status"), "").await?;
        if status["deployment"]["current_replicas"] == 0 {
            return Ok(());
        }
        if clock::now().saturating_sub(began) > ASLEEP_MAX {
            bail!("the workload did not end: {status}");
        }
        // Also keeps the writes below the default limit of 10 a second.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
