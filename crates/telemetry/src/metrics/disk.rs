//! The families of the guard: disks by the directory of a node that they hold, which is one of a fixed list.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Metrics;
use crate::names::metric;

/// How full one disk is, as it is shown.
#[derive(Debug, Clone, Copy)]
pub struct DiskFacts {
    /// Bytes that are used, can be used, and can be used by root only.
    pub bytes: [u64; 3],
    /// Inodes that are used, and that are not.
    pub inodes: [u64; 2],
    /// Levels of bytes and inodes, 0 to 4.
    pub levels: [u8; 2],
    /// Until its bytes and its inodes are used up: at the earliest, most likely, at the latest. None is not within the reach of a
    /// forecast.
    pub full_in: [[Option<Duration>; 3]; 2],
    /// What is held back for the worst minute.
    pub ballast: u64,
    /// When it was looked at, in seconds since 1970.
    pub looked_at: i64,
}

#[derive(Debug, Default)]
pub(super) struct DiskFamilies {
    bytes: Family<Part, Gauge>,
    inodes: Family<Part, Gauge>,
    levels: Family<Of, Gauge>,
    full: Family<Until, Gauge>,
    ballast: Family<Disk, Gauge>,
    looked_at: Family<Disk, Gauge>,
    growth: Family<Owned, Gauge>,
    alerts: Family<Told, Counter>,
    freed: Family<Kind, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Disk {
    disk: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Part {
    disk: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    disk: &'static str,
    resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Until {
    disk: &'static str,
    resource: &'static str,
    bound: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Owned {
    disk: &'static str,
    owner: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Told {
    sink: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// Shows how full a disk is. `disk` is the directory of the node that it holds.
    pub fn set_disk(&self, disk: &'static str, facts: &DiskFacts) {
        let own = &self.families.disks;
        for (state, bytes) in ["used", "available", "reserved"]
            .into_iter()
            .zip(facts.bytes)
        {
            let part = Part { disk, state };
            own.bytes.get_or_create(&part).set(signed(bytes));
        }
        for (state, inodes) in ["used", "free"].into_iter().zip(facts.inodes) {
            let part = Part { disk, state };
            own.inodes.get_or_create(&part).set(signed(inodes));
        }
        for (resource, level) in ["bytes", "inodes"].into_iter().zip(facts.levels) {
            let of = Of { disk, resource };
            own.levels.get_or_create(&of).set(level.into());
        }
        let resources = ["bytes", "inodes"].into_iter().zip(facts.full_in);
        let spans = resources.flat_map(|(resource, spans)| {
            let bounds = ["earliest", "likely", "latest"].into_iter().zip(spans);
            bounds.map(move |(bound, span)| (resource, bound, span))
        });
        for (resource, bound, span) in spans {
            let bound = Until {
                disk,
                resource,
                bound,
            };
            match span {
                Some(span) => {
                    own.full.get_or_create(&bound).set(signed(span.as_secs()));
                }
                // A missing series says "not in sight"; a large number would be a promise.
                None => {
                    own.full.remove(&bound);
                }
            }
        }
        let disk = Disk { disk };
        own.ballast.get_or_create(&disk).set(signed(facts.ballast));
        own.looked_at.get_or_create(&disk).set(facts.looked_at);
    }

    /// Shows how fast what belongs to an owner grows, in bytes an hour.
    pub fn set_owner_growth(&self, disk: &'static str, owner: &'static str, bytes_per_hour: i64) {
        let labels = Owned { disk, owner };
        let growth = &self.families.disks.growth;
        growth.get_or_create(&labels).set(bytes_per_hour);
    }

    /// Counts an alert that a sink took, or did not.
    pub fn disk_alert(&self, sink: &'static str, result: &'static str) {
        let told = Told { sink, result };
        self.families.disks.alerts.get_or_create(&told).inc();
    }

    /// Counts bytes that cleaning gave back, as measured.
    pub fn disk_freed(&self, kind: &'static str, bytes: u64) {
        let kind = Kind { kind };
        self.families.disks.freed.get_or_create(&kind).inc_by(bytes);
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

// === impl DiskFamilies ===

impl DiskFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            metric::DISK_BYTES,
            "Bytes of a disk, by state: used, available to anybody, reserved for root",
            self.bytes.clone(),
        );
        registry.register(
            metric::DISK_INODES,
            "Inodes of a disk, by state: used, free",
            self.inodes.clone(),
        );
        registry.register(
            metric::DISK_LEVEL,
            "Level of a disk, by resource: 0 calm, 1 from 80 %, 2 above 85 %, 3 from 90 %, 4 from 95 %",
            self.levels.clone(),
        );
        registry.register(
            metric::DISK_FULL_SECONDS,
            "Time until a disk is full, by bound of the forecast; missing when not in sight",
            self.full.clone(),
        );
        registry.register(
            metric::DISK_BALLAST_BYTES,
            "Bytes that the guard holds back for the worst minute",
            self.ballast.clone(),
        );
        registry.register(
            metric::DISK_LOOKED_AT_SECONDS,
            "When the guard looked at a disk last, in seconds since 1970",
            self.looked_at.clone(),
        );
        registry.register(
            metric::DISK_OWNER_GROWTH_BYTES_PER_HOUR,
            "Growth of what belongs to an owner",
            self.growth.clone(),
        );
        registry.register(
            metric::counter_base(metric::DISK_ALERTS_TOTAL),
            "Alerts of the guard, by sink and result",
            self.alerts.clone(),
        );
        registry.register(
            metric::counter_base(metric::DISK_FREED_BYTES_TOTAL),
            "Bytes that cleaning gave back, as measured, by kind",
            self.freed.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LevelFilter, Log, Sink};

    fn metrics() -> Metrics {
        let sink = Sink::Writer(Box::new(std::io::sink()));
        let log = Log::start(LevelFilter::default(), sink).unwrap();
        Metrics::new("0", log.lines_dropped())
    }

    // A forecast that is over leaves nothing behind, and a role without disks has no family of them.
    #[test]
    fn a_forecast_that_is_over_is_gone() {
        let metrics = metrics();
        assert!(!metrics.encode().unwrap().contains("nagi_disk_"));
        let mut facts = DiskFacts {
            bytes: [8, 1, 1],
            inodes: [5, 6],
            levels: [2, 0],
            full_in: [[Some(Duration::from_hours(1)), None, None], [None; 3]],
            ballast: 64,
            looked_at: 1_900_000_000,
        };
        metrics.set_disk("/", &facts);
        let text = metrics.encode().unwrap();
        for line in [
            "nagi_disk_bytes{disk=\"/\",state=\"reserved\"} 1",
            "nagi_disk_level{disk=\"/\",resource=\"bytes\"} 2",
            "nagi_disk_full_seconds{disk=\"/\",resource=\"bytes\",bound=\"earliest\"} 3600",
            "nagi_disk_looked_at_seconds{disk=\"/\"} 1900000000",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("latest"), "{text}");
        facts.full_in = [[None; 3]; 2];
        metrics.set_disk("/", &facts);
        assert!(!metrics.encode().unwrap().contains("full_seconds"));
    }
}
