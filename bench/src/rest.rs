//! G16 and G17: what the Scale API's full stack costs beside a bare axum server with the same data.
//!
//! Server and load have a core each. Rounds of both servers alternate; the ratio is taken round by round.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;

use crate::http::{self, Connection};
use crate::nagi::{Helper, Nagi, Place, runtime};
use crate::report::{Report, Row, Sense, Weight};
use crate::statistics::median;
use crate::{Options, load, pin};

/// As many as a page may hold.
const WORKLOADS: usize = 500;
const ONE: &str = "/api/v1/deployments/project-a/app-250/status";
const LIST: &str = "/api/v1/deployments?limit=500";

/// One series of rounds: answers per second and processor time per answer, of Nagi and of the peer.
#[derive(Debug, Default)]
struct Series {
    nagi: Vec<f64>,
    peer: Vec<f64>,
    ratios: Vec<f64>,
    nagi_micros: Vec<f64>,
    peer_micros: Vec<f64>,
}

/// Measures both goals.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let place = Place::new(&options.nagi, &workloads())?;
    let nagi = place.start(&runtime, Some(pin::SERVER), &[])?;
    let request = http::request("GET", "localhost", LIST, "");
    let page =
        runtime.block_on(async { Connection::open(place.api).await?.call(&request).await })?;
    let file = place.file("page.json");
    std::fs::write(&file, &page.body).context("write the page")?;
    let file = file.to_str().context("a path that can be an argument")?;
    let peer = Helper::start("peer", &[file], Some(pin::SERVER))?;

    let one = series(options, &place, &nagi, &peer, ONE)?;
    let list = series(options, &place, &nagi, &peer, LIST)?;
    nagi.stop()?;

    report.row(one.row("G16", "GET one, full stack, one core, of bare axum", 0.60));
    report.row(list.row("G17", "list page of 500, times serialise-per-request", 4.0));
    one.keep("get_one", report);
    list.keep("list_500", report);
    Ok(())
}

fn workloads() -> String {
    let mut text = "workloads:\n".to_owned();
    for number in 0..WORKLOADS {
        // Writing to a string cannot fail.
        writeln!(
            text,
            "  - {{ namespace: project-a, name: app-{number:03}, command: [BENCH, child], port: 8080, replicas: 0, \
             awake_replicas: 1 }}"
        )
        .ok();
    }
    text
}

fn series(
    options: &Options,
    place: &Place,
    nagi: &Nagi,
    peer: &Helper,
    path: &str,
) -> anyhow::Result<Series> {
    let port = peer.said.parse().context("read the port of the peer")?;
    let request = http::request("GET", "localhost", path, "");
    let time = Duration::from_millis(options.pick(2000, 700));
    let mut series = Series::default();
    // The first round warms both up and is thrown away.
    for round in 0..=options.pick(8, 2) {
        let before = nagi.processor_time()?;
        let of_nagi = load::answers_per_second(place.api, &request, time)?;
        let nagi_used = nagi.processor_time()?.saturating_sub(before);
        let before = peer.processor_time()?;
        let of_peer = load::answers_per_second(port, &request, time)?;
        let peer_used = peer.processor_time()?.saturating_sub(before);
        if round > 0 {
            let micros =
                |used: Duration, rate: f64| used.as_secs_f64() * 1e6 / (rate * time.as_secs_f64());
            series.nagi.push(of_nagi);
            series.peer.push(of_peer);
            series.ratios.push(of_nagi / of_peer);
            series.nagi_micros.push(micros(nagi_used, of_nagi));
            series.peer_micros.push(micros(peer_used, of_peer));
        }
    }
    Ok(series)
}

// === impl Series ===

impl Series {
    fn row(&self, id: &'static str, what: &str, goal: f64) -> Row {
        Row {
            id,
            what: what.to_owned(),
            unit: "x",
            sense: Sense::AtLeast,
            goal,
            seen: median(&self.ratios),
            peer: format!(
                "{:.0}/s and {:.1} us, peer {:.0}/s and {:.1} us",
                median(&self.nagi),
                median(&self.nagi_micros),
                median(&self.peer),
                median(&self.peer_micros)
            ),
            weight: Weight::Printed,
        }
    }

    fn keep(&self, name: &str, report: &mut Report) {
        report.rounds(&format!("{name}_nagi_per_second"), &self.nagi);
        report.rounds(&format!("{name}_peer_per_second"), &self.peer);
        report.rounds(&format!("{name}_nagi_cpu_us"), &self.nagi_micros);
        report.rounds(&format!("{name}_peer_cpu_us"), &self.peer_micros);
    }
}
