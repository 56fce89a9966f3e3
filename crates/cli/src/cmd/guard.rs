//! `nagi guard`: watches the disks of this node until a signal, and tells before it is too late.
//!
//! It needs no server and no network, writes nothing on a disk that rests, and works where neither a byte nor an inode is
//! left. [`watch`] is the loop, [`looks`] asks the disks, [`alert`] what people are told, [`sinks`] the ways on which they are told, [`door`] its metrics
//! and health, [`clean`] what it cleans. Commands of their own are [`caps`], limits for what
//! grows on a node, [`check`], one look, and [`schedule`], jobs for a node without a guard.

mod alert;
mod caps;
mod check;
mod clean;
mod door;
mod looks;
mod schedule;
mod sinks;
mod walks;
mod watch;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use nagi_guard::{GuardError, GuardSettings, Level, Rules};
use nagi_ports::SystemClock;
use nagi_telemetry::{Log, Metrics, Sink};

use super::disk::{parse_age, parse_bytes};
use crate::commands::GlobalArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::serve::settings::{Home, LOG_LEVEL, METRICS_LISTEN};
use crate::serve::{self, ServeError};
use crate::session::Session;
use crate::when::parse_span;

const EXAMPLES: &str = "\
Examples:
  nagi guard                                         watch the disks that this node lives from
  nagi guard --syslog 10.0.0.5:514 --webhook http://10.0.0.6:8080/alerts
                                                     tell others too, without a disk of this node
  nagi guard --clean apply                           from 90 % on, remove what can be had again
  nagi guard --root /host                            in a pod that sees the node there
  nagi guard caps                                    limits for what grows: a plan; --apply writes them
  nagi guard check                                   one look: how full, until when, and what cleaning gave back
  nagi guard schedule install --dry-run              jobs instead of a guard: what would change";

/// Port of `/metrics` and `/health`: not that of the other roles, which may run on the same machine.
const METRICS_PORT: u16 = 9092;

// What a unit or a manifest sets without a command line.
const SYSLOG: &str = "NAGI_GUARD_SYSLOG";
const WEBHOOK: &str = "NAGI_GUARD_WEBHOOK";
const ALERT_LOG: &str = "NAGI_GUARD_ALERT_LOG";
const CLEAN: &str = "NAGI_GUARD_CLEAN";

/// The command line of `nagi guard`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct GuardArgs {
    #[command(subcommand)]
    command: Option<GuardCommand>,

    /// A directory whose disk is watched; up to 32 times, and the disk of the first is `named-1` in metrics unless the node lives from it [default: every disk that this node lives from]
    #[arg(long, value_name = "PATH")]
    path: Vec<PathBuf>,

    /// How often disks are looked at, 1s to 10m
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = parse_every)]
    every: Duration,

    /// How often it is looked whose the bytes are, 1m to 7d: a slow walk over the disks, and seldomer where they are large
    #[arg(long, value_name = "SPAN", default_value = "30m", value_parser = parse_owners)]
    owners_every: Duration,

    /// Do not look whose the bytes are: no growth by owner
    #[arg(long, conflicts_with = "owners_every")]
    no_owners: bool,

    /// Keep no ballast
    #[arg(long)]
    no_ballast: bool,

    /// What is done about a disk at --clean-at
    #[arg(long, env = CLEAN, value_name = "MODE", default_value = "plan")]
    clean: CleanMode,

    /// From which level on: notice (80 %), alert (85 %), serious (90 %) or critical (95 %)
    #[arg(long, value_name = "LEVEL", default_value = "serious", value_parser = parse_level)]
    clean_at: Level,

    /// A run of cleaning removes at most so many bytes
    #[arg(long, value_name = "BYTES", default_value = "2G", value_parser = parse_bytes)]
    clean_max: u64,

    /// What was written or renamed within this time is not cleaned: 1h, 30m, 0 for no limit
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = parse_age)]
    clean_min_age: Duration,

    /// File that gets the line `ALERT: Disk over 90% at DATE`, each hour as long as that is so; `none` for no file
    #[arg(long, env = ALERT_LOG, value_name = "FILE", default_value = "/var/log/disk-alert.log")]
    alert_log: PathBuf,

    /// Address that gets each alert as a UDP datagram of syslog (RFC 5424)
    #[arg(long, env = SYSLOG, value_name = "ADDRESS:PORT")]
    syslog: Option<SocketAddr>,

    /// URL that gets each alert as JSON by POST; http only
    #[arg(long, env = WEBHOOK, value_name = "URL", value_parser = sinks::parse_url)]
    webhook: Option<sinks::Url>,

    /// Address of /metrics and /health [default: 127.0.0.1:9092; in a pod 0.0.0.0:9092]
    #[arg(long, env = METRICS_LISTEN.env, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,

    /// Least severe log lines to write: debug, info, warn, error or fatal
    #[arg(long, env = LOG_LEVEL.env, value_name = "LEVEL", default_value = "info")]
    log_level: String,

    /// Where the root directory of the node is seen
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

#[derive(Debug, Subcommand)]
enum GuardCommand {
    /// Plan limits for what grows on this node, write them, or take them back
    ///
    /// Without --apply nothing changes. A file is written as a whole, beside a copy of what was there, and only where its owner
    /// is on this node. Nothing is restarted: what has to be is said.
    Caps(caps::CapsArgs),
    /// Look once: how full the disks are, days until 85 and 100 %, and what cleaning has given back
    ///
    /// Growth is known where a guard watches the node. Ends with code 12 when more than 85 % of a disk are used.
    Check(check::CheckArgs),
    /// Install jobs that keep disks in order where no guard runs, show them, or take them away
    ///
    /// They are timers where systemd runs this machine, and one block in root's crontab elsewhere; lines of others stay as they are.
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
}

/// What the guard does about a full disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CleanMode {
    /// Nothing
    Off,
    /// Say what cleaning would give back, and remove nothing
    Plan,
    /// Remove what can be had again (apt's downloads), until 80 % are used
    Apply,
}

/// Guards until a signal, or does the command below.
pub(crate) async fn run(args: GuardArgs, global: &GlobalArgs) -> ExitCode {
    if let Some(command) = &args.command {
        let session = Session::new(global);
        let done = match command {
            GuardCommand::Caps(caps) => caps::run(caps, &session),
            GuardCommand::Check(check) => check::run(check, &session),
            GuardCommand::Schedule(schedule) => schedule::run(schedule, &session),
        };
        return match done {
            Ok(()) => Exit::Done.into(),
            Err(failure) => {
                session.output.failure(&failure);
                failure.exit.into()
            }
        };
    }
    let hint = "see `nagi guard --help` for every setting";
    let level = match LOG_LEVEL.level(Some(&args.log_level)) {
        Ok(level) => level,
        Err(error) => return serve::refuse_settings(&error, hint),
    };
    let started = Log::start(level, Sink::Stdout).and_then(|log| {
        log.install()?;
        Ok(log)
    });
    let log = match started {
        Ok(log) => log,
        Err(error) => return serve::fail(&ServeError::from(error), None),
    };
    match guard(args, &log).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(watch::WatchError::Guard(GuardError::Busy)) => {
            let hint = "there is one guard on a node; its lock is /run/nagi/guard.lock";
            serve::fail(&watch::WatchError::Guard(GuardError::Busy), Some(hint));
            Exit::Conflict.into()
        }
        Err(error) => serve::fail(&error, error.hint()),
    }
}

async fn guard(args: GuardArgs, log: &Log) -> Result<(), watch::WatchError> {
    let host = if Home::from_environment().in_pod {
        Ipv4Addr::UNSPECIFIED
    } else {
        Ipv4Addr::LOCALHOST
    };
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), log.lines_dropped());
    let address = args.metrics_listen;
    let address = address.unwrap_or_else(|| SocketAddr::from((host, METRICS_PORT)));
    let ways = sinks::Ways {
        alert_log: (args.alert_log.as_os_str() != "none").then_some(args.alert_log),
        syslog: args.syslog,
        webhook: args.webhook,
    };
    let cleaning = match args.clean {
        CleanMode::Off => None,
        CleanMode::Plan => Some(clean::Mode::Plan),
        CleanMode::Apply => Some(clean::Mode::Apply),
    };
    let settings = watch::Settings {
        guard: GuardSettings {
            root: args.root,
            paths: args.path,
            rules: Rules {
                clean_at: cleaning.map(|_| args.clean_at),
                calm_for: Duration::from_hours(1),
            },
            ballast: !args.no_ballast,
        },
        every: args.every,
        owners_every: (!args.no_owners).then_some(args.owners_every),
        cleaning,
        clean_max: args.clean_max,
        clean_min_age: args.clean_min_age,
        ways,
        address,
    };
    let clock = std::sync::Arc::new(SystemClock::new());
    watch::run(settings, clock, metrics).await
}

fn parse_every(text: &str) -> Result<Duration, String> {
    within(
        text,
        Duration::from_secs(1),
        Duration::from_mins(10),
        "1s to 10m",
    )
}

fn parse_owners(text: &str) -> Result<Duration, String> {
    within(
        text,
        Duration::from_mins(1),
        Duration::from_hours(24 * 7),
        "1m to 7d",
    )
}

fn within(text: &str, least: Duration, most: Duration, rule: &str) -> Result<Duration, String> {
    let span = parse_span(text)?;
    if (least..=most).contains(&span) {
        Ok(span)
    } else {
        Err(format!("must be {rule}"))
    }
}

fn parse_level(text: &str) -> Result<Level, String> {
    let level = Level::named(text).filter(|level| *level != Level::Calm);
    level.ok_or_else(|| "must be notice, alert, serious or critical".to_owned())
}

/// A failure of a command below, with its causes.
fn failure(what: impl Into<String>, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::of(Exit::Failed, what, error)
}

/// An error with its causes, in one line.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_levels_keep_their_limits() {
        assert_eq!(parse_every("2s"), Ok(Duration::from_secs(2)));
        assert!(parse_every("500ms").is_err() && parse_every("11m").is_err());
        assert!(parse_owners("59s").is_err() && parse_owners("1m").is_ok());
        assert_eq!(parse_level("serious"), Ok(Level::Serious));
        assert!(parse_level("calm").is_err() && parse_level("90").is_err());
    }
}
