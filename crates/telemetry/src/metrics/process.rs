//! The process metrics that every Prometheus client exports, read from `/proc` at each scrape.
//!
//! A value that cannot be read is left out: a missing series says "unknown", a zero would lie.
//! It deliberately keeps no state and counts no threads or files itself.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

use crate::names::metric;

/// Reads `/proc` whenever the registry is encoded.
#[derive(Debug)]
pub(super) struct ProcessCollector;

// === impl ProcessCollector ===

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let name = metric::counter_base(metric::PROCESS_CPU_SECONDS_TOTAL);
        write(
            &mut encoder,
            name,
            "CPU time of this process, user and system",
            &ConstCounter::new(cpu_seconds()),
        )?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = status_field(&status, "VmRSS:");
        let gauges = [
            (
                metric::PROCESS_RESIDENT_MEMORY_BYTES,
                "Resident memory of this process",
                kib.map(|kib| kib.saturating_mul(1024)),
            ),
            (
                metric::PROCESS_THREADS,
                "Threads of this process",
                status_field(&status, "Threads:"),
            ),
            (
                metric::PROCESS_OPEN_FDS,
                "Open file descriptors of this process",
                open_fds(),
            ),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value.and_then(|value| i64::try_from(value).ok()) else {
                continue;
            };
            write(&mut encoder, name, help, &ConstGauge::new(value))?;
        }
        let Some(start) = start_time_seconds() else {
            return Ok(());
        };
        write(
            &mut encoder,
            metric::PROCESS_START_TIME_SECONDS,
            "Start of this process in seconds since 1970",
            &ConstGauge::new(start),
        )
    }
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &impl EncodeMetric,
) -> fmt::Result {
    let help = format!("{help}.");
    value.encode(encoder.encode_descriptor(name, &help, None, value.metric_type())?)
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    std::time::Duration::new(seconds, nanos).as_secs_f64()
}

/// The number behind `name` in the text of `/proc/self/status`.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Since Linux 6.2 the size of the directory is the count; before, it is zero and we list.
fn open_fds() -> Option<u64> {
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    // The listing itself holds one descriptor open.
    let count = fs::read_dir("/proc/self/fd")
        .ok()?
        .count()
        .saturating_sub(1);
    u64::try_from(count).ok()
}

/// The boot time of the machine plus the ticks after which this process started.
fn start_time_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot = status_field(&boot, "btime ")?;
    // Field 22; the name in field 2 may hold blanks and brackets, so count behind its end.
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    // No more than 2⁵³ milliseconds since boot: exact as a float.
    let millis = ticks.saturating_mul(1000) / clock_ticks_per_second().max(1);
    let since_1970 = std::time::Duration::from_secs(boot);
    Some((since_1970 + std::time::Duration::from_millis(millis)).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn process_started_before_now_and_after_this_was_written() {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let start = start_time_seconds().unwrap();
        assert!(start > 1.7e9 && start <= now + 1.0, "{start} against {now}");
        // The test binary has not run for a day.
        assert!(now - start < 86_400.0, "{start} against {now}");
    }

    #[test]
    fn open_descriptors_follow_what_is_open() {
        let before = open_fds().unwrap();
        let files: Vec<_> = (0..64)
            .map(|_| fs::File::open("/proc/self/stat").unwrap())
            .collect();
        let after = open_fds().unwrap();
        // Other tests run beside this one; 64 is far more than they open or close in between.
        assert!(after >= before + 32, "{before} then {after}");
        drop(files);
    }

    #[test]
    fn status_fields_are_found_by_their_whole_name() {
        let status = "VmHWM:\t  900 kB\nVmRSS:\t  512 kB\nThreads:\t7\n";
        assert_eq!(status_field(status, "VmRSS:"), Some(512));
        assert_eq!(status_field(status, "Threads:"), Some(7));
        assert_eq!(status_field(status, "VmSwap:"), None);
    }
}
