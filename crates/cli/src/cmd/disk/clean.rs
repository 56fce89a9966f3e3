//! `nagi disk clean`: a plan of what may go on this node, and on demand the plan carried out.
//!
//! Without `--apply` nothing changes. The plan can be kept as a file (`--output json`) and carried out later, letter by letter,
//! or be named by its digest. [`body`] is what programs get, [`mod@file`] the plan in it, [`text`] what people see.

mod body;
mod file;
mod text;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use nagi_guard::{
    ApplyError, AuditError, CleanError, Digest, Done, End, Event, JournalMode, Plan, Policy,
    Reclaimer, Report, Skipped, Why,
};
use nagi_ports::SystemClock;

use super::goes::GoesArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Detail, Output, Place, words};
use crate::session::Session;
use crate::when::parse_span;
pub(crate) use text::{end, why};

const EXAMPLES: &str = "\
Examples:
  nagi disk clean                                    what would go until 80 % are used
  nagi disk clean --lossy                            old logs, journals and crash dumps too
  nagi disk clean --apply                            do it
  nagi disk clean --apply --digest DIGEST            do it, if it still is the plan that was shown
  nagi disk clean --output json > plan.json          keep the plan
  nagi disk clean --apply --plan plan.json           do that plan, and nothing else
  nagi disk clean --only images --keep-image registry.local/ --target 0
                                                     unused images, but for those of one registry
  nagi disk clean --only journal --lossy --apply --yes --target 0
                                                     all of one kind, unasked, however full the disk is
  nagi disk clean --only journal --lossy --journal-mode compat --journal-keep 2d --target 0
                                                     what 'journalctl --vacuum-time=2d' would remove

Kinds, in the order in which they go:
  apt           regenerable  packages that apt downloaded, and its caches
  pulls         regenerable  what pulls fetched that were given up a day ago, by the container runtime
  images        regenerable  images that nothing uses and a registry has, by the container runtime
  containers    lossy        dead containers but the last of each name, by the container runtime
  snaps         lossy        disabled revisions of snaps, by snapd itself
  pod-logs      lossy        logs of containers that kubelet has rotated
  journal       lossy        complete journals without an entry of the last two days
  coredumps     lossy        crash dumps of systemd-coredump and apport
  local-images  lossy        images that nothing uses and that were imported or built here

What belongs to containerd, kubelet, etcd, docker or snapd is never removed from outside: snapd and
the container runtime are asked, and of the rest the plan says how its owner gives it back.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CleanArgs {
    /// Carry the plan out; without it nothing changes
    #[arg(long)]
    apply: bool,

    /// Do not ask, though '--lossy' without a plan or digest removes what nobody has looked at
    #[arg(long, requires = "apply")]
    yes: bool,

    /// Carry out the plan of this file, as '--output json' wrote it; '-' is stdin
    #[arg(long, value_name = "FILE", requires = "apply", conflicts_with_all = RULES)]
    plan: Option<PathBuf>,

    /// Carry the plan out only if it has this digest, as it was shown
    #[arg(
        long,
        value_name = "DIGEST",
        requires = "apply",
        conflicts_with = "plan"
    )]
    digest: Option<String>,

    #[command(flatten)]
    rules: RuleArgs,
}

/// The next step where the runtime is at work.
const AGAIN: &str = "a pod is being started or an image pulled, and until that is over no image and no container goes: try again in 15 s";

/// What is in a plan file already.
const RULES: [&str; 12] = [
    "only",
    "lossy",
    "target",
    "max",
    "min_age",
    "keep",
    "keep_image",
    "journal_mode",
    "journal_keep",
    "journal_size",
    "journal_files",
    "root",
];

#[derive(Debug, Args)]
struct RuleArgs {
    /// Only these kinds
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = parse_kind)]
    only: Vec<Reclaimer>,

    #[command(flatten)]
    goes: GoesArgs,

    /// Stop when df says that so many percent of a disk are used; 0 takes everything that the rules allow
    #[arg(long, value_name = "PERCENT", default_value_t = Policy::TARGET_PERCENT, value_parser = clap::value_parser!(u8).range(0..=99))]
    target: u8,

    /// By which rules journals go
    #[arg(long, value_name = "MODE", default_value = "strict")]
    journal_mode: ModeArg,

    /// Journal entries of this time stay: 2d, 12h
    #[arg(long, value_name = "SPAN", default_value = "2d", value_parser = parse_span)]
    journal_keep: Duration,

    /// Journals of this machine may take so many bytes; needs '--journal-mode compat'
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    journal_size: Option<u64>,

    /// There may be so many files of journals; needs '--journal-mode compat'
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    journal_files: Option<u64>,

    /// Where the root directory of the node is seen
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// By which rules journals go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    /// No entry of the time that is kept is lost
    Strict,
    /// As journalctl: by the earliest time of a file, so that newer entries in it are lost
    Compat,
}

/// Runs the command.
pub(super) async fn run(args: &CleanArgs, session: &Session) -> Result<(), Failure> {
    if is_unseen(args) && !session.output.terminal().asks {
        return Err(Failure::usage(
            "--apply --lossy would remove what cannot be had again, and nobody can be asked",
        )
        .hint("say so with --yes, or name a plan that was seen: --plan or --digest"));
    }
    let plan = match &args.plan {
        Some(file) => read_plan(file)?,
        None => planned(&args.rules).await?,
    };
    if let Some(digest) = &args.digest {
        check_digest(digest, &plan)?;
    }
    if is_unseen(args) {
        confirm(&plan, session)?;
    }
    let report = if args.apply {
        Some(applied(plan.clone(), &session.output).await?)
    } else {
        None
    };
    let raw = serde_json::to_value(body::Answer::of(&plan, report.as_ref()))
        .map_err(|error| Failure::of(Exit::Failed, "cannot write the answer", &error))?;
    session.output.body(&raw, Place::Alone, |detail| {
        text::whole(&plan, report.as_ref(), detail, &session.output)
    })?;
    if let Some(report) = &report {
        return judge(&plan, report, session);
    }
    hint_plan(&plan, args, session);
    Ok(())
}

/// What cannot be had again would go by a plan that nobody has seen.
const fn is_unseen(args: &CleanArgs) -> bool {
    args.apply && args.rules.goes.lossy && !args.yes && args.plan.is_none() && args.digest.is_none()
}

/// Shows the plan and asks.
fn confirm(plan: &Plan, session: &Session) -> Result<(), Failure> {
    if plan.steps.iter().all(|step| step.items.is_empty()) {
        return Ok(());
    }
    let shown = text::whole(plan, None, Detail::Normal, &session.output);
    if crate::output::is_confirmed(&format!("{shown}\ncarry this out"))? {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "nothing was removed"))
}

/// Refuses an option that is for other kinds than those that are asked for: whoever says it expects that it has an effect.
fn check_kinds(rules: &RuleArgs) -> Result<(), Failure> {
    let is_journal = rules.journal_mode == ModeArg::Compat
        || rules.journal_size.is_some()
        || rules.journal_files.is_some();
    let options: [(&str, bool, &[Reclaimer]); 3] = [
        (
            "--keep-image",
            !rules.goes.keep_image.is_empty(),
            &[Reclaimer::Images, Reclaimer::LocalImages],
        ),
        ("--keep", !rules.goes.keep.is_empty(), &Reclaimer::FILES),
        (
            "--journal-mode, --journal-size and --journal-files",
            is_journal,
            &[Reclaimer::Journal],
        ),
    ];
    for (option, is_said, kinds) in options {
        let has_effect = rules.only.is_empty() || rules.only.iter().any(|one| kinds.contains(one));
        if is_said && !has_effect {
            let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            let what = format!("{option}: no effect on what --only names");
            let hint = format!(
                "add a kind to --only ({}), or leave it out",
                names.join(", ")
            );
            return Err(Failure::usage(what).hint(hint));
        }
    }
    Ok(())
}

/// The rules that the command line says.
fn policy(rules: &RuleArgs) -> Result<Policy, Failure> {
    check_kinds(rules)?;
    let is_compat = rules.journal_mode == ModeArg::Compat;
    if !is_compat && (rules.journal_size.is_some() || rules.journal_files.is_some()) {
        return Err(Failure::usage(
            "--journal-size and --journal-files need --journal-mode compat",
        )
        .hint("in strict mode entries of --journal-keep stay, however much they take"));
    }
    Ok(Policy {
        only: rules.only.clone(),
        target_percent: rules.target,
        journal_mode: if is_compat {
            JournalMode::Compat
        } else {
            JournalMode::Strict
        },
        journal_keep: Some(rules.journal_keep),
        journal_bytes_max: rules.journal_size,
        journal_files_max: rules.journal_files,
        // A plan file may be carried out from another directory.
        ..rules
            .goes
            .policy(&rules.root.canonicalize().map_err(|error| {
                let message = format!("cannot open {}", super::body::shown(&rules.root));
                Failure::of(Exit::Failed, message, &error)
                    .hint("--root names the root directory of the node")
            })?)
    })
}

async fn planned(rules: &RuleArgs) -> Result<Plan, Failure> {
    let policy = policy(rules)?;
    let planning =
        tokio::task::spawn_blocking(move || nagi_guard::plan(&policy, &SystemClock::new()));
    let plan = planning
        .await
        .map_err(|error| Failure::of(Exit::Failed, "planning broke off", &error))?;
    plan.map_err(|error| of_clean(&error))
}

/// Carries a plan out on a thread of its own. Each removal stands on stderr before it is made, `--quiet` or not.
async fn applied(plan: Plan, output: &Output) -> Result<Report, Failure> {
    let output = output.clone();
    let applying = tokio::task::spawn_blocking(move || {
        nagi_guard::apply(&plan, &SystemClock::new(), &mut |event| match event {
            Event::Intent(line) => crate::output::tell(&words::clean(line)),
            Event::Removed(..) => {}
            Event::Ended(done) => tell_failures(done, &output),
        })
    });
    let report = applying
        .await
        .map_err(|error| Failure::of(Exit::Failed, "cleaning broke off", &error))?;
    report.map_err(|error| of_apply(&error))
}

fn tell_failures(done: &Done, output: &Output) {
    let (first, count) = &done.failures;
    if *count > 0 {
        output.warn(&format!(
            "{}: {} could not be removed",
            done.reclaimer.name(),
            words::count(*count, "file")
        ));
    }
    for (path, error) in first {
        let line = format!("{}: {error}", super::body::shown(path));
        output.note(&format!("  {}", words::clean(&line)));
    }
}

/// A pod is being started or an image pulled, and so what the runtime has is left alone.
fn is_at_work(skipped: &[Skipped]) -> bool {
    let mut places = skipped.iter();
    places.any(|place| matches!(place.why, Why::RuntimeBusy(_)))
}

fn check_digest(text: &str, plan: &Plan) -> Result<(), Failure> {
    let Some(wanted) = Digest::parse(text) else {
        return Err(Failure::usage("--digest: 64 hexadecimal digits")
            .hint("'nagi disk clean' shows it at the end"));
    };
    if wanted == plan.digest() {
        return Ok(());
    }
    if is_at_work(&plan.skipped) {
        return Err(Failure::new(
            Exit::Conflict,
            "this is not the plan that was shown: the container runtime is at work now, and while it is, none of its images and containers is planned",
        )
        .hint(AGAIN));
    }
    Err(Failure::new(
        Exit::Conflict,
        "this is not the plan that was shown: files came, went or grew old enough meanwhile",
    )
    .hint("keep a plan with --output json and carry it out with --plan"))
}

fn read_plan(file: &Path) -> Result<Plan, Failure> {
    let failed = |error: std::io::Error| {
        let message = format!("cannot read {}", super::body::shown(file));
        Failure::of(Exit::Usage, message, &error)
    };
    let mut text = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).map_err(failed)?;
    } else {
        text = std::fs::read(file).map_err(failed)?;
    }
    file::read(&text).map_err(|error| {
        let name = super::body::shown(file);
        let failure = match error {
            file::ReadError::Edited => {
                Failure::of(Exit::Refused, format!("{name}: nothing was done"), &error)
            }
            file::ReadError::Json(_)
            | file::ReadError::Format(_)
            | file::ReadError::Value { .. } => {
                Failure::of(Exit::Usage, format!("{name} holds no plan"), &error)
            }
        };
        failure.hint("make a plan anew: nagi disk clean --output json")
    })
}

/// How a plan that was carried out ends.
fn judge(plan: &Plan, report: &Report, session: &Session) -> Result<(), Failure> {
    if !report.has_ring {
        session.output.note(
            "what was removed is written down in /run/nagi/disk-audit.log only, which the next boot empties",
        );
    }
    is_whole(report)?;
    is_looked_at(plan, report)?;
    let is_short = report.done.iter().any(|done| done.end == End::Short);
    if is_short {
        session.output.hint(
            "less came back than expected: files are held open ('nagi disk' names them), or share their blocks with copies or snapshots, or others wrote meanwhile",
        );
    }
    is_enough(plan, report)
}

/// Everything that was planned was done.
fn is_whole(report: &Report) -> Result<(), Failure> {
    let mut worst: Option<(Exit, String)> = None;
    for done in &report.done {
        let Some(exit) = exit_of(done) else {
            continue;
        };
        let text = format!("{}: {}", done.reclaimer.name(), text::end(&done.end));
        // A step that somebody else changed is no fault; one that failed is said first.
        if worst
            .as_ref()
            .is_none_or(|(known, _)| *known == Exit::Conflict)
        {
            worst = Some((exit, text));
        }
    }
    if let Some((exit, text)) = worst {
        let is_unrecorded = |done: &Done| matches!(done.end, End::NoRecord(_));
        let is_busy = |done: &Done| done.end == End::OwnerBusy && done.reclaimer.is_of_runtime();
        let hint = if report.done.iter().any(is_unrecorded) {
            "nothing is removed that is not written down: make room in /run"
        } else if report.done.iter().any(is_busy) {
            AGAIN
        } else {
            "what else was planned was done; plan again"
        };
        return Err(Failure::new(exit, text).hint(hint));
    }
    if let Some(place) = report.skipped.iter().find(|place| place.why.is_failure()) {
        let kind = place.reclaimer.name();
        let message = format!(
            "{kind}: {} was not looked at: {}",
            super::body::shown(&place.directory),
            text::why(&place.why)
        );
        return Err(Failure::new(Exit::Failed, message)
            .hint("what else was planned was done; --only leaves this kind out"));
    }
    Ok(())
}

/// Where everything was to go that may, what was asked for by name was looked at: a runtime at work is left alone as a whole.
fn is_looked_at(plan: &Plan, report: &Report) -> Result<(), Failure> {
    let is_named = plan.policy.only.iter().any(|kind| kind.is_of_runtime());
    let is_left = is_at_work(&plan.skipped) || is_at_work(&report.skipped);
    if plan.policy.target_percent == 0 && is_named && is_left {
        let message = "images and containers were left alone: the container runtime is at work";
        return Err(Failure::new(Exit::Conflict, message).hint(AGAIN));
    }
    Ok(())
}

/// Every disk is at its target.
fn is_enough(plan: &Plan, report: &Report) -> Result<(), Failure> {
    let above = plan.policy.target_percent > 0 && report.after.iter().any(|one| !one.is_clean);
    if !above {
        return Ok(());
    }
    let failure = Failure::new(
        Exit::AboveTarget,
        format!("a disk is still above {} %", plan.policy.target_percent),
    );
    let waits = plan
        .steps
        .iter()
        .any(|step| !step.has_consent && !step.items.is_empty());
    Err(
        if is_at_work(&plan.skipped) || is_at_work(&report.skipped) {
            failure.hint(AGAIN)
        } else if waits {
            failure.hint("--lossy may give back more; look at it first without --apply")
        } else {
            failure.hint(
                "'nagi disk' says what else fills it, and whose that is; or the disk must grow",
            )
        },
    )
}

fn exit_of(done: &Done) -> Option<Exit> {
    match &done.end {
        End::Done if done.failures.1 > 0 => Some(Exit::Failed),
        // What came of it is told by how full the disk is.
        End::Done | End::Target | End::Cap | End::Short | End::NoConsent => None,
        End::Changed(_) | End::OwnerBusy => Some(Exit::Conflict),
        End::Away | End::Broken(_) | End::TimedOut | End::NoRecord(_) => Some(Exit::Failed),
    }
}

/// The next step behind a plan.
fn hint_plan(plan: &Plan, args: &CleanArgs, session: &Session) {
    let waits: u64 = plan
        .steps
        .iter()
        .filter(|step| !step.has_consent)
        .map(nagi_guard::Step::expected)
        .sum();
    if waits > 0 && !args.rules.goes.lossy {
        session.output.hint(&format!(
            "--lossy would give back {} more, which cannot be had again",
            words::bytes(waits)
        ));
    }
    if is_at_work(&plan.skipped) {
        session.output.hint(AGAIN);
    }
    if plan.expected() > 0 {
        session
            .output
            .hint("nothing was changed; the same with --apply carries it out, as root");
    }
}

fn of_clean(error: &CleanError) -> Failure {
    let failure = Failure::of(Exit::Failed, error.to_string(), source(error));
    match error {
        CleanError::Root { .. } => failure.hint("--root names the root directory of the node"),
        CleanError::Kernel => failure.hint(
            "Linux 5.8 or later is needed; in a container, a filter of calls that lets openat2 through",
        ),
        CleanError::Keep { .. } => Failure::of(Exit::Usage, error.to_string(), source(error))
            .hint("--keep names a path of the node that is there, from its root on, without '..' and links: it would keep nothing otherwise"),
        CleanError::ReadMounts(_) | CleanError::ParseMounts(_) => failure,
    }
}

fn of_apply(error: &ApplyError) -> Failure {
    let make_anew = "make a plan anew: nagi disk clean";
    match error {
        ApplyError::Look(error) => of_clean(error),
        ApplyError::FromTheFuture | ApplyError::TooOld => {
            Failure::new(Exit::Refused, error.to_string()).hint(make_anew)
        }
        ApplyError::Audit(error) => match error {
            AuditError::Busy => Failure::new(Exit::Conflict, error.to_string())
                .hint("wait for it; its lock is /run/nagi/disk-clean.lock"),
            AuditError::NoRun => Failure::new(Exit::Failed, error.to_string())
                .hint("mount a tmpfs on /run: what is removed is written down there first"),
            AuditError::Run { .. } => Failure::of(Exit::Failed, error.to_string(), source(error))
                .hint("root may make it: try with sudo"),
        },
    }
}

/// The cause, or the error itself, whose text then stands twice rather than nowhere.
fn source<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> &'a (dyn std::error::Error + 'static) {
    error.source().unwrap_or(error)
}

fn parse_kind(text: &str) -> Result<Reclaimer, String> {
    let names = Reclaimer::ALL.map(Reclaimer::name).join(", ");
    Reclaimer::named(text).ok_or(format!("one of {names}"))
}

/// A path of the node.
pub(crate) fn parse_absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("a path of the node, from its root on".to_owned())
    }
}

/// A span, or none.
pub(crate) fn parse_age(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" => Ok(Duration::ZERO),
        text => parse_span(text),
    }
}

/// A number of bytes: as it is, or with K, M, G or T behind it, each 1,024 times the one before.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let rule = || "a number of bytes of at least 1: 4096, 500M, 2G".to_owned();
    let text = text.strip_suffix("iB").unwrap_or(text);
    let (digits, shift) = match text.chars().last() {
        Some('K') => (text.strip_suffix('K'), 10),
        Some('M') => (text.strip_suffix('M'), 20),
        Some('G') => (text.strip_suffix('G'), 30),
        Some('T') => (text.strip_suffix('T'), 40),
        Some(_) | None => (Some(text), 0),
    };
    let number: u64 = digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(rule)?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(rule)?;
    if bytes == 0 { Err(rule()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests;
