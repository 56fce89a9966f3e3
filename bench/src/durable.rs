//! From a request to durable intent: how much longer a scale call takes than the bare sync that it needs.
//!
//! Each call is followed by writing as many bytes to a new file in the same directory: once with one sync, which is what the
//! goal is measured against, and once with rename and a sync of the directory, as a file is usually replaced. What the disk
//! does at the time hits all three alike.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::http::{self, Connection};
use crate::nagi::{Place, runtime};
use crate::report::{Report, Row, Sense, Weight};
use crate::statistics::{median, percentile};
use crate::{Options, clock};

/// One workload of one small process, ready as soon as it listens.
const WORKLOADS: &str = "\
workloads:
  - namespace: project-a
    name: sample-app-a
    command: [BENCH, child, '0']
    port: 8080
    replicas: 0
    awake_replicas: 1
";

/// Below the default limit of 10 writes a second, which stays in force.
const PACE: Duration = Duration::from_millis(115);
const CALLS: &str = "/api/v1/deployments/project-a/sample-app-a";

/// Measures scale calls and bare writes in turns.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let place = Place::new(&options.nagi, WORKLOADS)?;
    let nagi = place.start(&runtime, None, &[])?;
    let up = http::request(
        "POST",
        "localhost",
        &format!("{CALLS}/scale-up"),
        r#"{"replicas":1,"reason":"measure"}"#,
    );
    let zero = http::request(
        "POST",
        "localhost",
        &format!("{CALLS}/scale-to-zero"),
        r#"{"reason":"measure"}"#,
    );
    let directory = place.state().join("workloads/project-a");
    let (mut calls, mut synced, mut replaced) = (Vec::new(), Vec::new(), Vec::new());
    runtime.block_on(async {
        let mut connection = Connection::open(place.api).await?;
        for round in 0..options.pick(600, 60) {
            let next = clock::now() + PACE;
            let began = clock::now();
            let answer = connection
                .call(if round % 2 == 0 { &up } else { &zero })
                .await?;
            calls.push(millis(began));
            anyhow::ensure!(
                answer.status == 200,
                "{}",
                String::from_utf8_lossy(&answer.body)
            );
            let file =
                std::fs::read(directory.join("sample-app-a.json")).context("read the intent")?;
            // A call writes one of the two slots.
            let (bytes, _) = file.split_at(file.len() / 2);
            // What the call set in motion (a process starts or ends) must not fall into the bare writes either.
            tokio::time::sleep(PACE / 2).await;
            synced.push(bare(&directory, bytes, false)?);
            replaced.push(bare(&directory, bytes, true)?);
            tokio::time::sleep(next.saturating_sub(clock::now())).await;
        }
        anyhow::Ok(())
    })?;
    nagi.stop()?;

    let percent = options.percent();
    let call = percentile(&calls, percent);
    let bare = percentile(&synced, percent);
    report.row(Row {
        id: "durable",
        what: format!(
            "scale call over bare write and fsync, p{percent} of {}",
            calls.len()
        ),
        unit: "ms",
        sense: Sense::AtMost,
        goal: 5.0,
        seen: call - bare,
        peer: format!(
            "call {call:.2}, fsync {bare:.2}, with rename {:.2}; p50 {:.2}, {:.2}, {:.2}",
            percentile(&replaced, percent),
            median(&calls),
            median(&synced),
            median(&replaced)
        ),
        weight: Weight::Gated {
            slack_when_quick: 5.0,
        },
    });
    report.rounds("scale_call_ms", &calls);
    report.rounds("write_fsync_ms", &synced);
    report.rounds("write_fsync_rename_fsync_ms", &replaced);
    Ok(())
}

/// Writes a new file durably and gives the milliseconds it took. The name is none that Nagi reads.
fn bare(directory: &Path, bytes: &[u8], rename: bool) -> anyhow::Result<f64> {
    let path = directory.join("bare-write");
    let began = clock::now();
    let mut file = File::create(&path).context("create a file")?;
    file.write_all(bytes).context("write a file")?;
    file.sync_all().context("sync a file")?;
    if rename {
        std::fs::rename(&path, directory.join("bare-write-2")).context("rename a file")?;
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .context("sync a directory")?;
    }
    let took = millis(began);
    remove(&directory.join(if rename { "bare-write-2" } else { "bare-write" }))?;
    Ok(took)
}

fn millis(began: Duration) -> f64 {
    clock::now().saturating_sub(began).as_secs_f64() * 1e3
}

#[expect(
    clippy::disallowed_methods,
    reason = "removes the file that it wrote itself"
)]
fn remove(path: &Path) -> anyhow::Result<()> {
    std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
}
