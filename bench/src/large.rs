//! G13 and G14: what a cluster with 100,000 Deployments costs `nagi server`, beside a reflector of full objects.
//!
//! Both read the same double, by turns, each as a process of its own. The double is a process of its own too: its memory must
//! not be in the way.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::http::{self, Connection};
use crate::nagi::{Helper, Memory, Place, runtime};
use crate::report::{Report, Row, Sense, Weight};
use crate::statistics::{largest, median};
use crate::{Options, clock, cluster};

const MEGABYTE: f64 = 1e6;
/// What the list left behind is given back by then, or kept.
const SETTLE: Duration = Duration::from_secs(1);
/// A page of the list, as a dashboard asks for it.
const LIST: &str = "/api/v1/deployments?limit=500";

/// One process of each.
#[derive(Debug)]
struct Round {
    synced: Memory,
    listed: Memory,
    ready_in: Duration,
    processor: Duration,
    peer: Memory,
    peer_processor: Duration,
}

/// Measures memory and the processor time of the first sync.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let count = options.pick(100_000, 20_000);
    let double = Helper::start("double", &[&count.to_string()], None)?;
    let rounds = (0..options.pick(3, 1))
        .map(|_| round(options, &double.said, count))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let series = |pick: fn(&Round) -> f64| rounds.iter().map(pick).collect::<Vec<_>>();
    // The larger of the two: a page of the list is nothing unusual to ask for.
    let resident = series(|round| round.synced.resident.max(round.listed.resident) / MEGABYTE);
    let synced = series(|round| round.synced.resident / MEGABYTE);
    let most = series(|round| round.listed.most / MEGABYTE);
    let peer = series(|round| round.peer.resident / MEGABYTE);
    let ratio =
        series(|round| round.synced.resident.max(round.listed.resident) / round.peer.resident);
    let processor = series(|round| round.processor.as_secs_f64());
    let peer_processor = series(|round| round.peer_processor.as_secs_f64());
    let processor_ratio =
        series(|round| round.processor.as_secs_f64() / round.peer_processor.as_secs_f64());
    let ready = series(|round| round.ready_in.as_secs_f64());

    let workloads = format!("{} Deployments", grouped(count));
    report.row(Row {
        id: "G13",
        what: format!("{workloads}: resident memory of `nagi server`"),
        unit: "MB",
        sense: Sense::AtMost,
        goal: 150.0,
        seen: largest(&resident),
        peer: format!(
            "before a list {:.0}, most ever {:.0}",
            largest(&synced),
            largest(&most)
        ),
        weight: Weight::Gated {
            slack_when_quick: 1.0,
        },
    });
    report.row(Row {
        id: "G13",
        what: "the same, of a reflector with full objects (kube-rs)".into(),
        unit: "x",
        sense: Sense::AtMost,
        goal: 0.15,
        seen: median(&ratio),
        peer: format!("reflector {:.0} MB", median(&peer)),
        weight: Weight::Gated {
            slack_when_quick: 2.0,
        },
    });
    report.row(Row {
        id: "G14",
        what: format!("{workloads}: processor time of the first sync"),
        unit: "s",
        sense: Sense::AtMost,
        goal: 1.0,
        seen: median(&processor),
        peer: format!("ready after {:.1} s", median(&ready)),
        weight: Weight::Printed,
    });
    report.row(Row {
        id: "G14",
        what: "the same, of a reflector with full objects".into(),
        unit: "x",
        sense: Sense::AtMost,
        goal: 0.2,
        seen: median(&processor_ratio),
        peer: format!("reflector {:.1} s", median(&peer_processor)),
        weight: Weight::Printed,
    });
    for (name, values) in [
        ("large_resident_mb", &resident),
        ("large_resident_before_list_mb", &synced),
        ("large_most_mb", &most),
        ("large_reflector_resident_mb", &peer),
        ("large_sync_cpu_s", &processor),
        ("large_reflector_sync_cpu_s", &peer_processor),
        ("large_ready_s", &ready),
    ] {
        report.rounds(name, values);
    }
    Ok(())
}

fn round(options: &Options, url: &str, count: u32) -> anyhow::Result<Round> {
    let runtime = runtime()?;
    let place = Place::bare(&options.nagi)?;
    let kubeconfig = place.file("kubeconfig");
    cluster::write_kubeconfig(&kubeconfig, url)?;
    let began = clock::now();
    let nagi = place.start_server(&runtime, &kubeconfig)?;
    let ready_in = clock::now().saturating_sub(began);
    let processor = nagi.processor_time()?;
    clock::wait(SETTLE)?;
    let synced = nagi.memory()?;
    let request = http::request("GET", "localhost", LIST, "");
    let page =
        runtime.block_on(async { Connection::open(place.api).await?.call(&request).await })?;
    ensure!(
        page.status == 200,
        "{}",
        String::from_utf8_lossy(&page.body)
    );
    clock::wait(SETTLE)?;
    let listed = nagi.memory()?;
    nagi.stop()?;

    let peer = Helper::start("reflector", &[url], None)?;
    let peer_processor = peer.processor_time()?;
    let held: u32 = peer.said.parse().context("read how many it holds")?;
    ensure!(held == count, "the reflector holds {held} of {count}");
    clock::wait(SETTLE)?;
    Ok(Round {
        synced,
        listed,
        ready_in,
        processor,
        peer: peer.memory()?,
        peer_processor,
    })
}

/// With commas between thousands.
fn grouped(count: u32) -> String {
    if count < 1000 {
        count.to_string()
    } else {
        format!("{},{:03}", count / 1000, count % 1000)
    }
}
