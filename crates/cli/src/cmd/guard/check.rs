//! `nagi guard check`: one look at the disks of this node, for a person and for a job.
//!
//! It writes nothing but the line of the founding document, and that only into a file that is named. The local syslog gets that
//! line too, and stderr where the file does not take it: the full disk may be the one that the file lies on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use nagi_guard::{Days, DiskOutlook, Freed, GOAL_PERCENT, Level, Outlook, OutlookError};
use nagi_ports::{Clock as _, SystemClock};
use serde::Serialize;

use super::alert;
use super::sinks::{self, scribe};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{Place, words};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  nagi guard check                                   the disks that this node lives from
  nagi guard check --alert-log /var/log/disk-alert.log
                                                     what the hourly job does
  nagi guard check --output json | jq .freed         what cleaning gave back";

/// What cleaning is expected to give back, says the founding document (B-042).
const EXPECTED: [(&str, Duration, u64); 2] = [
    ("day", Duration::from_hours(24), 500_000_000),
    ("week", Duration::from_hours(24 * 7), 1_000_000_000),
];

/// Owners of a disk that a person is shown; programs get all.
const GROWN_MAX: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    /// A directory whose disk is looked at; may be given several times [default: every disk that this node lives from]
    #[arg(long, value_name = "PATH")]
    path: Vec<PathBuf>,

    /// File that gets the line `ALERT: Disk over 90% at DATE` for each disk of which 90 % or more are used
    #[arg(long, value_name = "FILE")]
    alert_log: Option<PathBuf>,

    /// Where the root directory of the node is seen
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// What programs get.
#[derive(Debug, Serialize)]
struct Answer {
    /// `within` or `above` the goal.
    status: &'static str,
    goal_percent: u8,
    disks: Vec<Item>,
    freed: Vec<Sum>,
    /// Each step of cleaning that removed something, the oldest first; null where the record cannot be read.
    runs: Option<Vec<Run>>,
}

#[derive(Debug, Serialize)]
struct Item {
    disk: String,
    /// As df says it.
    used_percent: Option<u64>,
    level: &'static str,
    inodes_level: &'static str,
    is_above_goal: bool,
    /// Bytes a day; null where nobody has watched.
    growth_per_day: Option<i64>,
    days_to_goal: Option<Until>,
    days_to_full: Option<Until>,
    /// Whose growth that is, the fastest first; empty where no guard has looked at owners three times, or not for long.
    owners: Vec<OwnerItem>,
    /// When the guard looked at them last, to ten minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    owners_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct OwnerItem {
    owner: &'static str,
    /// Bytes at the last look of the guard.
    used: u64,
    /// Bytes a day: one in ten is less, the middle, one in ten is more.
    growth_per_day: [i64; 3],
    /// Its part of the growth of the disk; null where that did not grow.
    share_percent: Option<i64>,
    /// At the rate of this owner alone.
    days_to_full: Until,
}

/// Days; null is not in sight.
#[derive(Debug, Serialize)]
struct Until {
    earliest: Option<f64>,
    likely: Option<f64>,
    latest: Option<f64>,
}

/// What came back within a day or a week.
#[derive(Debug, Serialize)]
struct Sum {
    within: &'static str,
    bytes: Option<i64>,
    expected: u64,
}

#[derive(Debug, Serialize)]
struct Run {
    time: String,
    kind: &'static str,
    files: u64,
    bytes: i64,
}

/// Runs the command.
pub(super) fn run(args: &CheckArgs, session: &Session) -> Result<(), Failure> {
    let clock = SystemClock::new();
    let seen = nagi_guard::outlook(&args.root, &args.path, &clock).map_err(|error| of(&error))?;
    let now = clock.now();
    // First: whoever reads the answer may wait for a terminal.
    let written = args
        .alert_log
        .as_deref()
        .map_or(Ok(()), |file| alert_to(&args.root, file, &seen, now));
    for error in seen
        .history
        .as_ref()
        .err()
        .into_iter()
        .chain(seen.freed.as_ref().err())
    {
        let text = format!("what Nagi remembers of this node cannot be read ({error}); root may");
        session.output.hint(&text);
    }
    let answer = answer(&seen, now);
    let raw = serde_json::to_value(&answer)
        .map_err(|error| super::failure("cannot write the answer", &error))?;
    session.output.body(&raw, Place::Alone, |_| {
        let table = session.output.table(&table(&answer));
        let grown: Vec<String> = answer
            .disks
            .iter()
            .filter_map(|disk| Some(session.output.table(&growth(disk)?)))
            .collect();
        format!("{table}{}{}", grown.concat(), below(&answer))
    })?;
    written?;
    if answer.disks.iter().any(|disk| disk.is_above_goal) {
        let what = format!("a disk is above the {GOAL_PERCENT} % goal");
        let hint = "nagi disk clean shows what would go, nagi disk what else fills it";
        return Err(Failure::new(Exit::AboveTarget, what).hint(hint));
    }
    Ok(())
}

/// The line for each disk, whatever became of the one before, in the file and in the syslog of the node; on stderr where the
/// file does not take it, which cron sends by mail and a timer puts into the journal.
fn alert_to(root: &Path, file: &Path, seen: &Outlook, now: Timestamp) -> Result<(), Failure> {
    let path = root.join(file.strip_prefix("/").unwrap_or(file));
    let full = seen
        .disks
        .iter()
        .filter(|disk| disk.bytes >= Level::Serious);
    let written: Vec<_> = full
        .map(|disk| {
            let line = alert::over_90(&disk.reading.point, now);
            sinks::tell_local(root, &alert::local_serious(&line));
            let written = scribe::append(&path, &line);
            if written.is_err() {
                crate::output::tell(&line);
            }
            written
        })
        .collect();
    let written: Result<(), std::io::Error> = written.into_iter().collect();
    written.map_err(|error| {
        super::failure(format!("cannot write {}", file.display()), &error)
            .hint("its disk may be the full one: nagi disk clean gives space back")
    })
}

fn answer(seen: &Outlook, now: Timestamp) -> Answer {
    let disks: Vec<Item> = seen.disks.iter().map(disk).collect();
    let freed = seen.freed.as_ref().ok();
    let sums = EXPECTED.into_iter().map(|(within, span, expected)| Sum {
        within,
        bytes: freed.map(|freed| sum(freed, span, now)),
        expected,
    });
    let is_above = disks.iter().any(|disk| disk.is_above_goal);
    Answer {
        status: if is_above { "above" } else { "within" },
        goal_percent: GOAL_PERCENT,
        disks,
        freed: sums.collect(),
        runs: freed.map(|freed| freed.iter().map(run_of).collect()),
    }
}

fn sum(freed: &[Freed], span: Duration, now: Timestamp) -> i64 {
    let is_recent = |freed: &&Freed| {
        let age = now.duration_since(freed.at);
        !age.is_negative() && age.unsigned_abs() <= span
    };
    freed
        .iter()
        .filter(is_recent)
        .map(|freed| freed.bytes)
        .sum()
}

fn run_of(freed: &Freed) -> Run {
    Run {
        time: format!("{:.0}", freed.at),
        kind: freed.kind.name(),
        files: freed.files,
        bytes: freed.bytes,
    }
}

fn until(days: Days) -> Until {
    Until {
        earliest: days.earliest.map(tenths),
        likely: days.likely.map(tenths),
        latest: days.latest.map(tenths),
    }
}

fn disk(one: &DiskOutlook) -> Item {
    let owners = one.owners.iter().map(|growth| OwnerItem {
        owner: growth.owner.name(),
        used: growth.used,
        growth_per_day: growth.trend.per_day(),
        share_percent: growth.percent(),
        days_to_full: until(growth.days_to(one.room())),
    });
    Item {
        disk: one.reading.point.display().to_string(),
        used_percent: one.percent(),
        level: one.bytes.name(),
        inodes_level: one.inodes.name(),
        is_above_goal: one.is_above_goal(),
        growth_per_day: one
            .trend
            .map(|trend| trend.middle_whole().saturating_mul(24)),
        days_to_goal: one.to_goal.map(until),
        days_to_full: one.to_full.map(until),
        owners: owners.collect(),
        owners_at: one.owners_at.map(|at| format!("{at:.0}")),
    }
}

fn tenths(days: f64) -> f64 {
    (days * 10.0).round() / 10.0
}

fn table(answer: &Answer) -> Table {
    let mut table = Table::new([
        "DISK",
        "USED",
        "LEVEL",
        "INODES",
        "DAYS TO 85 %",
        "DAYS TO FULL",
    ]);
    for disk in &answer.disks {
        let used = disk.used_percent.map(|used| format!("{used}%"));
        table.row([
            Cell::from(words::clean(&disk.disk)),
            Cell::or_dash(used),
            Cell::from(disk.level.to_owned()),
            Cell::from(disk.inodes_level.to_owned()),
            Cell::from(in_days(disk.days_to_goal.as_ref())),
            Cell::from(in_days(disk.days_to_full.as_ref())),
        ]);
    }
    table
}

/// Owners that grow, as many as a person reads; none where nobody is known to.
fn growth(disk: &Item) -> Option<Table> {
    let mut table = Table::new([
        "GROWS ON",
        "OWNER",
        "A DAY",
        "BETWEEN",
        "SHARE",
        "DAYS TO FULL ALONE",
        "LOOKED AT",
    ]);
    let grows = |one: &&OwnerItem| one.growth_per_day.iter().any(|growth| *growth > 0);
    let mut owners = disk.owners.iter().filter(grows).take(GROWN_MAX).peekable();
    owners.peek()?;
    for one in owners {
        let [low, likely, high] = one.growth_per_day.map(alert::signed);
        table.row([
            Cell::from(words::clean(&disk.disk)),
            Cell::from(one.owner.to_owned()),
            Cell::from(likely),
            Cell::from(format!("{low} to {high}")),
            Cell::or_dash(one.share_percent.map(|percent| format!("{percent}%"))),
            Cell::from(in_days(Some(&one.days_to_full))),
            Cell::or_dash(disk.owners_at.clone()),
        ]);
    }
    Some(table)
}

fn in_days(until: Option<&Until>) -> String {
    let Some(until) = until else {
        return "unknown".to_owned();
    };
    let one =
        |days: Option<f64>| days.map_or_else(|| "never".to_owned(), |days| format!("{days:.1}"));
    match (until.earliest, until.likely) {
        (None, None) => one(None),
        (earliest, likely) => format!(
            "{} ({} to {})",
            one(likely),
            one(earliest),
            one(until.latest)
        ),
    }
}

fn below(answer: &Answer) -> String {
    let mut text = String::new();
    for disk in answer.disks.iter().filter(|disk| disk.is_above_goal) {
        let used = disk.used_percent.unwrap_or_default();
        let name = words::clean(&disk.disk);
        text = format!("{text}{name}: {used}% is above the {GOAL_PERCENT}% goal\n");
    }
    for sum in &answer.freed {
        let bytes = sum.bytes.map_or_else(
            || "unknown".to_owned(),
            |bytes| words::bytes(u64::try_from(bytes).unwrap_or(0)),
        );
        let expected = words::bytes(sum.expected);
        text = format!(
            "{text}freed in the last {}: {bytes}, {expected} expected\n",
            sum.within
        );
    }
    text
}

fn of(error: &OutlookError) -> Failure {
    let source = std::error::Error::source(error);
    Failure::of(Exit::Failed, error.to_string(), source.unwrap_or(error)).hint(
        "--root names the root directory of the node, --path a directory that is there, on a disk",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use nagi_guard::Reclaimer;

    // B-042: what was freed is summed over a day and a week, and what lies ahead of a clock that was set back is not.
    #[test]
    fn what_was_freed_is_summed_by_day_and_week() {
        let now: Timestamp = "2030-01-08T00:00:00Z".parse().unwrap();
        let at = |hours: i64, bytes| Freed {
            at: now - jiff::SignedDuration::from_hours(hours),
            kind: Reclaimer::Apt,
            directory: "/var/cache/apt/archives".into(),
            files: 1,
            bytes,
        };
        let freed = [
            at(169, 1),
            at(168, 10),
            at(25, 100),
            at(24, 1000),
            at(0, -5),
            at(-1, 7),
        ];
        let sums = EXPECTED.map(|(_, span, _)| sum(&freed, span, now));
        assert_eq!(sums, [995, 1105]);
        assert_eq!(
            EXPECTED.map(|(.., bytes)| bytes),
            [500_000_000, 1_000_000_000]
        );
    }

    #[test]
    fn days_are_unknown_where_nobody_watched_and_never_where_nothing_grows() {
        let until = |earliest, likely, latest| Until {
            earliest,
            likely,
            latest,
        };
        assert_eq!(in_days(None), "unknown");
        assert_eq!(in_days(Some(&until(None, None, None))), "never");
        let grows = until(Some(1.0), Some(2.54), None);
        assert_eq!(in_days(Some(&grows)), "2.5 (1.0 to never)");
    }
}
