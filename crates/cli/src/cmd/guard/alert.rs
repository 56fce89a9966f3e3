//! What people are told of a disk, in the form of each way: a sentence, syslog, JSON, and the line of the founding document.
//!
//! Pure: an alert and a name go in, text comes out.

use jiff::Timestamp;
use nagi_guard::{Alert, Cause, Growth, Level, Resource};
use serde::Serialize;

use crate::output::words;

/// What the sentence of a level is worth to a syslog server: facility 3, system daemons.
const FACILITY: u8 = 3 * 8;
/// Error.
const SERIOUS: u8 = 3;

/// An alert as a webhook gets it.
#[derive(Debug, Serialize)]
struct Body<'a> {
    /// What it is, for a receiver of several things.
    kind: &'static str,
    /// Which node.
    node: &'a str,
    /// When it was seen, RFC 3339.
    time: String,
    /// Which disk, as the node calls it.
    disk: String,
    resource: &'static str,
    level: &'static str,
    /// `rose`, `fell`, `remains`, `filling`, `silent` or `answers`.
    cause: &'static str,
    /// Of what is not reserved, cut off after a tenth; null with the two below where that is not known.
    used_percent: Option<f64>,
    used: Option<u64>,
    whole: Option<u64>,
    /// Seconds until it is full, when that is in sight.
    full_in_seconds: Option<u64>,
    earliest_seconds: Option<u64>,
    latest_seconds: Option<u64>,
    /// When that is, RFC 3339.
    full_at: Option<String>,
    /// By whom it mostly grows; null where nobody makes half of it, or nobody knows.
    mostly_by: Option<By>,
    /// The same as a sentence.
    message: String,
}

/// Who fills a disk.
#[derive(Debug, Serialize)]
struct By {
    owner: &'static str,
    /// Bytes a day: one in ten is less, the middle, one in ten is more.
    growth_per_day: [i64; 3],
    /// Its part of the growth of the disk.
    share_percent: Option<i64>,
}

/// A sentence for people.
pub(super) fn sentence(alert: &Alert) -> String {
    let disk = words::clean(&alert.point.display().to_string());
    let level = alert.level.name();
    let what = match alert.cause {
        Cause::Rose(before) => format!("is {level} now, {} before", before.name()),
        Cause::Fell(before) => format!("is {level} again, {} before", before.name()),
        Cause::Remains => format!("is still {level}"),
        Cause::Filling => "fills".to_owned(),
        Cause::Silent => "does not answer: whoever reads or writes there waits".to_owned(),
        Cause::Answers => "answers again".to_owned(),
    };
    let resource = alert.resource.name();
    let mut text = format!("Disk {disk} {what}");
    match alert.fill {
        Some(fill) => {
            let (whole, tenth) = (fill.per_mille() / 10, fill.per_mille() % 10);
            let of = match alert.resource {
                Resource::Bytes => {
                    let (used, whole) = (words::bytes(fill.used), words::bytes(fill.whole));
                    format!("{used} of {whole}")
                }
                Resource::Inodes => format!("{} of {} inodes", fill.used, fill.whole),
            };
            text = format!("{text}: {whole}.{tenth} % of its {resource} are used ({of})");
        }
        None if alert.cause == Cause::Silent => {}
        None => text = format!("{text}: its {resource} have no limit any more"),
    }
    if let Some(forecast) = &alert.forecast
        && let Some(full) = forecast.full_in
    {
        let until = |span: Option<std::time::Duration>| {
            span.map_or_else(|| "more than 72h".to_owned(), words::span)
        };
        let on = full_at(alert).map_or_else(String::new, |at| {
            format!(" on {}", at.strftime("%Y-%m-%d at %H:%M UTC"))
        });
        text = format!(
            "{text}; full{on}, in {}, between {} and {}",
            words::span(full),
            until(forecast.earliest),
            until(forecast.latest),
        );
    }
    if let Some(by) = &alert.mostly {
        text = format!("{text}; mostly by {}: {}", by.owner.name(), growth(by));
    }
    text
}

/// When it is full.
fn full_at(alert: &Alert) -> Option<Timestamp> {
    let span = alert.forecast.as_ref()?.full_in?;
    alert.at.checked_add(span).ok()
}

/// How fast an owner grows.
fn growth(by: &Growth) -> String {
    let [low, likely, high] = by.trend.per_day().map(signed);
    let share = by.percent().map_or_else(String::new, |percent| {
        format!(", {percent} % of the growth")
    });
    format!("{likely} a day ({low} to {high}){share}")
}

/// Bytes with their sign.
pub(super) fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "+" };
    format!("{sign}{}", words::bytes(bytes.unsigned_abs()))
}

/// The line of the founding document, with the date that it meant (B-023, K-37): as `date` prints it, in UTC. It is written
/// while 90 % or more are used; the disk is named where it is not the one that the document speaks of.
pub(super) fn line(alert: &Alert) -> Option<String> {
    let is_meant = alert.resource == Resource::Bytes
        && alert.level >= Level::Serious
        && matches!(
            alert.cause,
            Cause::Rose(_) | Cause::Remains | Cause::Fell(_)
        );
    is_meant.then(|| over_90(&alert.point, alert.at))
}

/// The line itself.
pub(super) fn over_90(point: &std::path::Path, at: Timestamp) -> String {
    let disk = if point == std::path::Path::new("/") {
        String::new()
    } else {
        format!(" ({})", words::clean(&point.display().to_string()))
    };
    format!("ALERT: Disk over 90% at {}{disk}", date(at))
}

/// As `date` says it in the C locale.
fn date(at: Timestamp) -> String {
    at.strftime("%a %b %e %H:%M:%S UTC %Y").to_string()
}

/// One datagram of syslog, RFC 5424.
pub(super) fn syslog(alert: &Alert, node: &str) -> String {
    let severity = match (alert.cause, alert.level) {
        (Cause::Silent, _) | (_, Level::Critical) => 2,
        (_, Level::Serious) => SERIOUS,
        (_, Level::Alert) | (Cause::Filling, Level::Notice | Level::Calm) => 4,
        (
            Cause::Rose(_) | Cause::Fell(_) | Cause::Remains | Cause::Answers,
            Level::Notice | Level::Calm,
        ) => 5,
    };
    let at = format!("{:.3}", alert.at);
    format!(
        "<{}>1 {at} {node} nagi-guard {} disk - {}",
        FACILITY + severity,
        std::process::id(),
        sentence(alert)
    )
}

/// What a local syslog takes: the same in the older form, whose time and host it adds itself.
pub(super) fn local_syslog(alert: &Alert, node: &str) -> String {
    let priority = syslog(alert, node);
    let priority = priority
        .split_once('>')
        .map_or("<29", |(priority, _)| priority)
        .to_owned();
    format!(
        "{priority}>nagi-guard[{}]: {}",
        std::process::id(),
        sentence(alert)
    )
}

/// A line for the local syslog that is as urgent as the level `serious`.
pub(super) fn local_serious(line: &str) -> String {
    let priority = FACILITY + SERIOUS;
    format!("<{priority}>nagi-guard[{}]: {line}", std::process::id())
}

/// The body for a webhook.
///
/// # Errors
/// None: there is nothing in it that JSON cannot say.
pub(super) fn json(alert: &Alert, node: &str) -> Result<Vec<u8>, serde_json::Error> {
    let forecast = alert.forecast.as_ref();
    let seconds = |span: Option<std::time::Duration>| span.map(|span| span.as_secs());
    serde_json::to_vec(&Body {
        kind: "disk",
        node,
        time: format!("{:.3}", alert.at),
        disk: alert.point.display().to_string(),
        resource: alert.resource.name(),
        level: alert.level.name(),
        cause: cause(alert.cause),
        used_percent: alert.fill.map(|fill| f64::from(fill.per_mille()) / 10.0),
        used: alert.fill.map(|fill| fill.used),
        whole: alert.fill.map(|fill| fill.whole),
        full_in_seconds: seconds(forecast.and_then(|forecast| forecast.full_in)),
        earliest_seconds: seconds(forecast.and_then(|forecast| forecast.earliest)),
        latest_seconds: seconds(forecast.and_then(|forecast| forecast.latest)),
        full_at: full_at(alert).map(|at| format!("{at:.0}")),
        mostly_by: alert.mostly.map(|by| By {
            owner: by.owner.name(),
            growth_per_day: by.trend.per_day(),
            share_percent: by.percent(),
        }),
        message: sentence(alert),
    })
}

/// One word for the cause.
pub(super) const fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Rose(_) => "rose",
        Cause::Fell(_) => "fell",
        Cause::Remains => "remains",
        Cause::Filling => "filling",
        Cause::Silent => "silent",
        Cause::Answers => "answers",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nagi_guard::{Basis, Fill, Forecast, Owner, Trend};
    use std::time::Duration;

    fn alert(level: Level, cause: Cause) -> Alert {
        Alert {
            at: "2030-01-02T03:04:05.678Z".parse().unwrap(),
            point: "/".into(),
            resource: Resource::Bytes,
            level,
            cause,
            fill: Some(Fill {
                used: 915 << 20,
                whole: 1000 << 20,
            }),
            forecast: None,
            mostly: None,
        }
    }

    // B-023, K-37, W-B04: the founding document's line with a real date, from 90 % on and not below.
    #[test]
    fn the_line_of_the_founding_document_has_a_date() {
        let serious = alert(Level::Serious, Cause::Remains);
        let line_of = |alert: &Alert| line(alert).unwrap_or_default();
        assert_eq!(
            line_of(&serious),
            "ALERT: Disk over 90% at Wed Jan  2 03:04:05 UTC 2030"
        );
        let critical = alert(Level::Critical, Cause::Rose(Level::Alert));
        assert!(line_of(&critical).starts_with("ALERT: Disk over 90% at "));
        assert_eq!(line(&alert(Level::Alert, Cause::Rose(Level::Calm))), None);
        assert_eq!(line(&alert(Level::Serious, Cause::Filling)), None);
        let mut other = serious.clone();
        other.point = "/data".into();
        assert!(line_of(&other).ends_with("2030 (/data)"));
        other.resource = Resource::Inodes;
        assert_eq!(line(&other), None);
    }

    #[test]
    fn a_sentence_says_how_full_and_until_when() {
        let mut filling = alert(Level::Notice, Cause::Filling);
        assert_eq!(
            sentence(&alert(Level::Serious, Cause::Rose(Level::Notice))),
            "Disk / is serious now, notice before: 91.5 % of its bytes are used (915.0 MiB of 1000.0 MiB)"
        );
        filling.forecast = Some(Forecast {
            trend: None,
            basis: Basis::Fast,
            full_in: Some(Duration::from_hours(3)),
            earliest: Some(Duration::from_hours(2)),
            latest: None,
            warns: true,
        });
        let text = sentence(&filling);
        assert!(
            text.ends_with(
                "; full on 2030-01-02 at 06:04 UTC, in 3h, between 2h and more than 72h"
            ),
            "{text}"
        );
        let gibibyte = 1_073_741_824.0 / 24.0;
        filling.mostly = Some(Growth {
            owner: Owner::ContainerdSnapshots,
            used: 0,
            trend: Trend {
                low: -gibibyte,
                middle: 2.0 * gibibyte,
                high: 3.0 * gibibyte,
            },
            share: Some(0.914),
        });
        let text = sentence(&filling);
        assert!(
            text.ends_with(
                "; mostly by containerd snapshots: +2.0 GiB a day (-1.0 GiB to +3.0 GiB), 91 % of the growth"
            ),
            "{text}"
        );
        let body: serde_json::Value =
            serde_json::from_slice(&json(&filling, "n1").unwrap()).unwrap();
        assert_eq!(body["full_in_seconds"], 10_800);
        assert_eq!(body["latest_seconds"], serde_json::Value::Null);
        assert_eq!(
            (&body["node"], &body["cause"]),
            (&"n1".into(), &"filling".into())
        );
        assert_eq!(body["used_percent"], 91.5);
        assert_eq!(body["full_at"], "2030-01-02T06:04:05Z");
        assert_eq!(body["mostly_by"]["owner"], "containerd snapshots");
        assert_eq!(body["mostly_by"]["share_percent"], 91);
        assert_eq!(body["mostly_by"]["growth_per_day"][1], 2_147_483_648_u64);
    }

    // What is not known is not zero.
    #[test]
    fn a_disk_that_does_not_answer_has_no_numbers() {
        let silent = Alert {
            fill: None,
            ..alert(Level::Calm, Cause::Silent)
        };
        assert_eq!(
            sentence(&silent),
            "Disk / does not answer: whoever reads or writes there waits"
        );
        let body = json(&silent, "n1").unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["cause"], "silent");
        assert!(body["used_percent"].is_null() && body["used"].is_null());
        assert!(syslog(&silent, "n1").starts_with("<26>1 "));
        let lifted = Alert {
            fill: None,
            resource: Resource::Inodes,
            ..alert(Level::Calm, Cause::Fell(Level::Critical))
        };
        assert!(sentence(&lifted).ends_with("its inodes have no limit any more"));
    }

    #[test]
    fn syslog_says_how_urgent_it_is() {
        let rose = |level| syslog(&alert(level, Cause::Rose(Level::Calm)), "n1");
        assert!(rose(Level::Critical).starts_with("<26>1 2030-01-02T03:04:05.678Z n1 nagi-guard "));
        assert!(rose(Level::Serious).starts_with("<27>1 "));
        assert!(rose(Level::Notice).starts_with("<29>1 "));
        let fell = alert(Level::Calm, Cause::Fell(Level::Critical));
        assert!(local_syslog(&fell, "n1").starts_with("<29>nagi-guard["));
        let mut odd = alert(Level::Critical, Cause::Remains);
        odd.point = "/a\nb\u{1b}[2J".into();
        assert!(!syslog(&odd, "n1").chars().any(char::is_control));
    }
}
