//! G23 and the size of the binary: what it costs to have Nagi there while nothing happens.
//!
//! `nagi all` with the two workloads of the demo, both asleep.

use std::time::Duration;

use anyhow::Context;

use crate::nagi::{DEMO_ASLEEP, Place, runtime};
use crate::report::{Report, Row, Sense, Weight};
use crate::statistics::{largest, median};
use crate::{Options, clock};

const MEGABYTE: f64 = 1e6;
/// The start is over: connections of the measurement are closed, first looks are done.
const SETTLE: Duration = Duration::from_secs(2);

/// Measures size, memory, idle processor time and cold start.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let size = std::fs::metadata(&options.nagi)
        .context("look at the binary")?
        .len();
    let size = f64::from(u32::try_from(size).context("a binary below 4 GB")?);
    report.row(Row {
        id: "size",
        what: "release binary".into(),
        unit: "MB",
        sense: Sense::AtMost,
        goal: 25.0,
        seen: size / MEGABYTE,
        peer: String::new(),
        weight: Weight::Gated {
            slack_when_quick: 1.0,
        },
    });

    let runtime = runtime()?;
    let place = Place::new(&options.nagi, DEMO_ASLEEP)?;
    let mut starts = Vec::new();
    for _ in 0..options.pick(30, 8) {
        let nagi = place.start(&runtime, None, &[])?;
        starts.push(nagi.started_in.as_secs_f64() * 1e3);
        nagi.stop()?;
    }
    let nagi = place.start(&runtime, None, &[])?;
    clock::wait(SETTLE)?;
    let window = Duration::from_secs(options.pick(60, 10));
    let before = nagi.processor_time()?;
    clock::wait(window)?;
    let used = nagi.processor_time()?.saturating_sub(before);
    let resident = nagi.memory()?.resident;
    nagi.stop()?;

    report.rounds("cold_start_ms", &starts);
    report.row(Row {
        id: "G23",
        what: format!(
            "idle `nagi all`: resident memory after {} s",
            window.as_secs()
        ),
        unit: "MB",
        sense: Sense::AtMost,
        goal: 25.0,
        seen: resident / MEGABYTE,
        peer: String::new(),
        weight: Weight::Gated {
            slack_when_quick: 1.0,
        },
    });
    report.row(Row {
        id: "G23",
        what: format!(
            "idle `nagi all`: processor over {} s, of one core",
            window.as_secs()
        ),
        unit: "%",
        sense: Sense::AtMost,
        goal: 0.2,
        seen: used.as_secs_f64() / window.as_secs_f64() * 100.0,
        peer: String::new(),
        // Ten seconds hold two ticks of 10 ms at the goal; one tick more or less is chance.
        weight: Weight::Gated {
            slack_when_quick: 3.0,
        },
    });
    report.row(Row {
        id: "G23",
        what: format!(
            "cold start, exec to 200 on /health, median of {}",
            starts.len()
        ),
        unit: "ms",
        sense: Sense::AtMost,
        goal: 50.0,
        seen: median(&starts),
        peer: format!("slowest {:.1} ms", largest(&starts)),
        weight: Weight::Gated {
            slack_when_quick: 4.0,
        },
    });
    Ok(())
}
