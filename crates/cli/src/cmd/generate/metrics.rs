//! The metrics as a page: what a scrape says of each family.
//!
//! Families without a sample are not scraped, so each is given one.

use std::collections::BTreeSet;
use std::time::Duration;

use nagi_telemetry::{ConfigFile, DiskFacts, LevelFilter, Log, Metrics, OwnerFacts, Sink};

use super::reference::{cell, line};
use crate::exit::Exit;
use crate::failure::Failure;

/// The page.
pub(super) fn page() -> Result<String, Failure> {
    let text = scrape()?;
    let mut page = String::from(
        "# Metrics\n\n\
         `/metrics` serves these in the text format of Prometheus, on `--metrics-listen` (port 9090).\n\
         Label values come from fixed lists, so the number of series does not grow with what clients send.\n\n\
         | Metric | Type | Labels | |\n|---|---|---|---|\n",
    );
    for family in families(&text) {
        let labels: Vec<String> = family.labels.iter().map(|l| format!("`{l}`")).collect();
        line(
            &mut page,
            &format!(
                "| `{}` | {} | {} | {} |",
                family.name,
                family.kind,
                labels.join(", "),
                cell(&family.help)
            ),
        );
    }
    Ok(page)
}

fn scrape() -> Result<String, Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::of(Exit::Failed, "cannot make the list of metrics", error)
    };
    let log = Log::start(LevelFilter::default(), Sink::Stdout).map_err(|error| failed(&error))?;
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), log.lines_dropped());
    metrics.http_request("GET", "/health", 200, Duration::ZERO);
    metrics.scale_operation("scale-up", "changed");
    metrics.wake("call", "ready");
    metrics.wake_stage("accepted", Duration::ZERO);
    metrics.set_workloads("active", 0);
    metrics.set_scheduled_scale_ups(0);
    metrics.set_file_in_force(ConfigFile::Workloads, true);
    metrics.gateway_request("forwarded");
    metrics.queue("events").set(0);
    let facts = DiskFacts {
        bytes: [0; 3],
        inodes: [0; 2],
        levels: [0; 2],
        full_in: [[Some(Duration::ZERO); 3]; 2],
        ballast: 0,
        looked_at: 0,
    };
    metrics.set_disk("/", &facts);
    let owner = OwnerFacts {
        bytes: 0,
        growth: [0; 3],
        share: Some(0.0),
        full_in: [Some(Duration::ZERO); 3],
    };
    metrics.set_owner("/", "etcd", Some(&owner));
    metrics.disk_alert("syslog", "taken");
    metrics.disk_freed("apt", 0);
    metrics.encode().map_err(|error| failed(&error))
}

#[derive(Debug)]
struct Family {
    name: String,
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// Reads the text format: `# HELP`, `# TYPE`, then samples.
fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            families.push(Family {
                name: name.to_owned(),
                kind: String::new(),
                help: help.trim_end_matches('.').to_owned(),
                labels: BTreeSet::new(),
            });
            continue;
        }
        let Some(family) = families.last_mut() else {
            continue;
        };
        if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            kind.clone_into(&mut family.kind);
        } else if let Some((_, rest)) = line.split_once('{') {
            let labels = rest.rsplit_once('}').map_or(rest, |(labels, _)| labels);
            let names = labels.split(',').filter_map(|label| label.split_once('='));
            family.labels.extend(
                names
                    .map(|(name, _)| name.to_owned())
                    .filter(|name| name != "le"),
            );
        }
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_metric_that_has_a_name() {
        use nagi_telemetry::names::metric;
        let page = page().unwrap();
        for name in [
            metric::HTTP_REQUESTS_TOTAL,
            metric::HTTP_REQUEST_DURATION_SECONDS,
            metric::SCALE_OPERATIONS_TOTAL,
            metric::WAKES_TOTAL,
            metric::WAKE_STAGE_SECONDS,
            metric::WORKLOADS,
            metric::WORKLOADS_OBSERVED_TIMESTAMP_SECONDS,
            metric::SCHEDULED_SCALE_UPS,
            metric::AUTH_DISABLED,
            metric::BUILD_INFO,
            metric::LOG_LINES_DROPPED_TOTAL,
            metric::QUEUE_DEPTH,
            metric::GATEWAY_REQUESTS_TOTAL,
            metric::GATEWAY_HELD_REQUESTS,
            metric::GATEWAY_IN_FLIGHT_REQUESTS,
            metric::DISK_BYTES,
            metric::DISK_INODES,
            metric::DISK_LEVEL,
            metric::DISK_FULL_SECONDS,
            metric::DISK_BALLAST_BYTES,
            metric::DISK_LOOKED_AT_SECONDS,
            metric::DISK_OWNER_BYTES,
            metric::DISK_OWNER_GROWTH_BYTES_PER_HOUR,
            metric::DISK_OWNER_GROWTH_RATIO,
            metric::DISK_OWNER_FULL_SECONDS,
            metric::DISK_ALERTS_TOTAL,
            metric::DISK_FREED_BYTES_TOTAL,
            metric::PROCESS_CPU_SECONDS_TOTAL,
            metric::PROCESS_RESIDENT_MEMORY_BYTES,
            metric::PROCESS_OPEN_FDS,
            metric::PROCESS_START_TIME_SECONDS,
            metric::PROCESS_THREADS,
        ] {
            assert!(page.contains(&format!("| `{name}` |")), "{name}\n{page}");
        }
        assert!(page.contains("| `method`, `route`, `status` |"), "{page}");
    }
}
