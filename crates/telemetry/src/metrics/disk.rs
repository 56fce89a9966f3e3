//! The families of the guard: disks by the directory of a node that they hold, which is one of a fixed list.

use std::sync::atomic::AtomicU64;
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

/// How one owner grows on a disk, as it is shown.
#[derive(Debug, Clone, Copy)]
pub struct OwnerFacts {
    /// What it took at the last walk.
    pub bytes: u64,
    /// Bytes an hour: low, likely, high.
    pub growth: [i64; 3],
    /// Its part of the growth of the disk; none where that is not known.
    pub share: Option<f64>,
    /// Until the disk is full at this rate alone: at the earliest, most likely, at the latest.
    pub full_in: [Option<Duration>; 3],
}

#[derive(Debug, Default)]
pub(super) struct DiskFamilies {
    bytes: Family<Part, Gauge>,
    inodes: Family<Part, Gauge>,
    levels: Family<Of, Gauge>,
    full: Family<Until, Gauge>,
    ballast: Family<Disk, Gauge>,
    looked_at: Family<Disk, Gauge>,
    owned: Family<Owned, Gauge>,
    growth: Family<Grown, Gauge>,
    share: Family<Owned, Gauge<f64, AtomicU64>>,
    full_by: Family<Grown, Gauge>,
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
struct Grown {
    disk: &'static str,
    owner: &'static str,
    bound: &'static str,
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

    /// Shows how an owner grows on a disk, or that it is not known.
    pub fn set_owner(&self, disk: &'static str, owner: &'static str, facts: Option<&OwnerFacts>) {
        let own = &self.families.disks;
        let key = Owned { disk, owner };
        match facts {
            Some(facts) => {
                own.owned.get_or_create(&key).set(signed(facts.bytes));
            }
            None => {
                own.owned.remove(&key);
            }
        }
        match facts.and_then(|facts| facts.share) {
            Some(share) => {
                own.share.get_or_create(&key).set(share);
            }
            None => {
                own.share.remove(&key);
            }
        }
        let grown = |bound| Grown { disk, owner, bound };
        for (at, bound) in ["low", "likely", "high"].into_iter().enumerate() {
            let growth = facts.and_then(|facts| facts.growth.get(at).copied());
            set_or_remove(&own.growth, &grown(bound), growth);
        }
        for (at, bound) in ["earliest", "likely", "latest"].into_iter().enumerate() {
            let span = facts.and_then(|facts| facts.full_in.get(at).copied().flatten());
            let seconds = span.map(|span| signed(span.as_secs()));
            set_or_remove(&own.full_by, &grown(bound), seconds);
        }
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

/// A missing series says "not known"; a zero would be a number.
fn set_or_remove(family: &Family<Grown, Gauge>, labels: &Grown, number: Option<i64>) {
    match number {
        Some(number) => {
            family.get_or_create(labels).set(number);
        }
        None => {
            family.remove(labels);
        }
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
            "Growth of what belongs to an owner, by bound",
            self.growth.clone(),
        );
        registry.register(
            metric::DISK_OWNER_BYTES,
            "Bytes that belong to an owner, at the last walk",
            self.owned.clone(),
        );
        registry.register(
            metric::DISK_OWNER_GROWTH_RATIO,
            "Part of an owner in the growth of its disk; missing where that does not grow",
            self.share.clone(),
        );
        registry.register(
            metric::DISK_OWNER_FULL_SECONDS,
            "Time until a disk is full at the rate of one owner alone, by bound; missing when not in sight",
            self.full_by.clone(),
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

    // What is not known is not zero.
    #[test]
    fn an_owner_that_is_not_known_any_more_is_gone() {
        let metrics = metrics();
        let facts = OwnerFacts {
            bytes: 7,
            growth: [-1, 2, 3],
            share: Some(0.75),
            full_in: [Some(Duration::from_hours(1)), None, None],
        };
        metrics.set_owner("/", "etcd", Some(&facts));
        let text = metrics.encode().unwrap();
        for line in [
            "nagi_disk_owner_bytes{disk=\"/\",owner=\"etcd\"} 7",
            "nagi_disk_owner_growth_bytes_per_hour{disk=\"/\",owner=\"etcd\",bound=\"low\"} -1",
            "nagi_disk_owner_growth_ratio{disk=\"/\",owner=\"etcd\"} 0.75",
            "nagi_disk_owner_full_seconds{disk=\"/\",owner=\"etcd\",bound=\"earliest\"} 3600",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("latest"), "{text}");
        metrics.set_owner("/", "etcd", None);
        assert!(!metrics.encode().unwrap().contains("etcd"));
    }
}
