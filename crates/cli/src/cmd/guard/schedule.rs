//! `nagi guard schedule`: jobs that keep disks in order where no guard runs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use nagi_guard::caps::{Others, Standing};
use nagi_guard::schedule::{self, Changes, Plan, ScheduleError, Table as Crontab, Wanted, Way};
use nagi_ports::SystemClock;
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{Place, words};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  nagi guard schedule install --dry-run              what would change, to the line
  nagi guard schedule install
  nagi guard schedule install --by crontab           also where systemd runs this machine
  nagi guard schedule show
  nagi guard schedule remove";

/// Where the founding document has programs lie.
const NAGI: &str = "/usr/local/bin/nagi";

#[derive(Debug, Subcommand)]
pub(super) enum ScheduleCommand {
    /// Install the jobs; a second time changes nothing
    #[command(after_help = EXAMPLES)]
    Install(InstallArgs),
    /// Take the jobs away, and leave what was there before, to the byte
    #[command(after_help = EXAMPLES)]
    Remove(RemoveArgs),
    /// Show the jobs, where they stand, and what `install` would change
    #[command(after_help = EXAMPLES)]
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(super) struct InstallArgs {
    #[command(flatten)]
    place: PlaceArgs,

    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Put a file of somebody else that has the name of one of ours aside; `remove` puts it back
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Where the root directory of the node is seen
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// What starts the jobs [default: timers where systemd runs this machine, crontab elsewhere]
    #[arg(long, value_name = "WAY")]
    by: Option<By>,

    /// The nagi that the jobs run
    #[arg(long, value_name = "FILE", default_value = NAGI, value_parser = parse_nagi)]
    nagi: PathBuf,

    /// Where the root directory of the node is seen; another than / takes timers only
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// Units of systemd
    Timers,
    /// A block in root's crontab
    Crontab,
}

/// What programs get.
#[derive(Debug, Serialize)]
struct Answer {
    /// `same`, `planned` or `changed`.
    status: &'static str,
    jobs: Vec<Item>,
    changes: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Item {
    job: &'static str,
    when: &'static str,
    command: String,
    installed: bool,
    what: &'static str,
}

/// One thing that is changed.
#[derive(Debug, Serialize)]
struct Step {
    /// `crontab`, or a file.
    place: String,
    /// `write`, `remove` or `edit`.
    action: &'static str,
    /// Lines that come, with `+`, and that go, with `-`.
    lines: Vec<String>,
}

/// Runs the command.
pub(super) fn run(command: &ScheduleCommand, session: &Session) -> Result<(), Failure> {
    let clock = SystemClock::new();
    let (root, wanted, nagi, acts, others) = match command {
        ScheduleCommand::Install(args) => {
            let others = if args.replace {
                Others::Kept
            } else {
                Others::Stay
            };
            let (place, acts) = (&args.place, !args.dry_run);
            (
                &place.root,
                installed(place),
                place.nagi.as_path(),
                acts,
                others,
            )
        }
        ScheduleCommand::Show(ShowArgs { place }) => (
            &place.root,
            installed(place),
            place.nagi.as_path(),
            false,
            Others::Stay,
        ),
        ScheduleCommand::Remove(args) => (
            &args.root,
            Wanted::Removed,
            Path::new(NAGI),
            !args.dry_run,
            Others::Stay,
        ),
    };
    let plan = schedule::plan(root, wanted, nagi, &clock).map_err(|error| of(&error))?;
    if plan.cron_rests {
        // Also a rehearsal says so; who only looks sees what there is.
        match command {
            ScheduleCommand::Install(_) => return Err(of(&ScheduleError::CronRests)),
            ScheduleCommand::Show(_) => session.output.note(&ScheduleError::CronRests.to_string()),
            ScheduleCommand::Remove(_) => {}
        }
    }
    let changes = if acts {
        Some(schedule::apply(root, &plan, others, &clock).map_err(|error| of(&error))?)
    } else {
        None
    };
    let answer = answer(&plan, changes.as_ref());
    let raw = serde_json::to_value(&answer)
        .map_err(|error| super::failure("cannot write the answer", &error))?;
    session.output.body(&raw, Place::Alone, |_| {
        format!(
            "{}{}",
            session.output.table(&table(&answer)),
            steps(&answer)
        )
    })?;
    if answer.status == "planned" {
        let hint = match command {
            ScheduleCommand::Remove(_) => "nothing was changed; without --dry-run it is",
            ScheduleCommand::Install(_) | ScheduleCommand::Show(_) => {
                "nothing was changed; nagi guard schedule install does it"
            }
        };
        session.output.hint(hint);
    }
    let runs = root.join(nagi.strip_prefix("/").unwrap_or(nagi));
    if acts && wanted != Wanted::Removed && !runs.is_file() {
        let text = format!("there is no {} yet: the jobs run it", nagi.display());
        session.output.hint(&text);
    }
    if let Some(file) = plan.files.iter().find(|file| acts && file.is_left()) {
        let message = format!("{} was edited and stays", file.path.display());
        return Err(Failure::new(Exit::Conflict, message)
            .hint("all else is gone; look at it, and remove it by hand"));
    }
    Ok(())
}

fn installed(place: &PlaceArgs) -> Wanted {
    Wanted::Installed(match place.by {
        Some(By::Crontab) => Way::Crontab,
        None if place.root == Path::new("/") => Way::of_this_machine(),
        Some(By::Timers) | None => Way::Timers,
    })
}

fn answer(plan: &Plan, changes: Option<&Changes>) -> Answer {
    let done = changes.is_some();
    let jobs = plan.jobs.iter().map(|job| Item {
        job: job.name,
        when: job.when,
        command: job.command.clone(),
        installed: match (plan.wanted, done) {
            (Wanted::Installed(_), true) => true,
            (Wanted::Removed, true) => false,
            (_, false) => plan.is_installed(job),
        },
        what: job.what,
    });
    let mut steps: Vec<Step> = plan.files.iter().filter_map(step).collect();
    steps.extend(plan.table.as_ref().and_then(edit));
    Answer {
        status: match (plan.is_done(), done) {
            (true, _) => "same",
            (false, false) => "planned",
            (false, true) => "changed",
        },
        jobs: jobs.collect(),
        changes: steps,
    }
}

fn step(file: &schedule::Unit) -> Option<Step> {
    let is_written = file.is_written();
    let mark = if is_written { '+' } else { '-' };
    let lines = file.text.lines().map(|line| format!("{mark} {line}"));
    let is_conflict = matches!(file.standing, Standing::Foreign | Standing::Edited);
    file.is_due().then(|| Step {
        place: file.path.display().to_string(),
        action: match (is_written, is_conflict) {
            (true, false) => "write",
            (true, true) => "replace",
            (false, _) => "remove",
        },
        lines: lines.collect(),
    })
}

/// Lines that come and go. What stays is not shown: it is of others.
fn edit(table: &Crontab) -> Option<Step> {
    let lines = |text: &Option<Vec<u8>>| -> Vec<Vec<u8>> {
        let text = text.as_deref().unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
        lines.filter(|line| !line.is_empty()).collect()
    };
    let (before, after) = (lines(&table.before), lines(&table.after));
    let only = |these: &[Vec<u8>], those: &[Vec<u8>], mark: char| -> Vec<String> {
        let new = these.iter().filter(|line| !those.contains(line));
        new.map(|line| format!("{mark} {}", String::from_utf8_lossy(line)))
            .collect()
    };
    let lines = [only(&before, &after, '-'), only(&after, &before, '+')].concat();
    (table.before != table.after).then(|| Step {
        place: "crontab of root".to_owned(),
        action: "edit",
        lines,
    })
}

fn table(answer: &Answer) -> Table {
    let mut table = Table::new(["JOB", "WHEN", "INSTALLED", "COMMAND"]);
    for job in &answer.jobs {
        table.row([
            Cell::from(job.job.to_owned()),
            Cell::from(job.when.to_owned()),
            Cell::from(if job.installed { "yes" } else { "no" }.to_owned()),
            Cell::from(words::clean(&job.command)),
        ]);
    }
    table
}

fn steps(answer: &Answer) -> String {
    let mut text = String::new();
    for step in &answer.changes {
        // Writing to a string cannot fail.
        writeln!(text, "{} {}", step.action, words::clean(&step.place)).unwrap_or(());
        for line in &step.lines {
            writeln!(text, "{}", words::clean(line)).unwrap_or(());
        }
    }
    text
}

fn of(error: &ScheduleError) -> Failure {
    let source = std::error::Error::source(error);
    let exit = match error {
        ScheduleError::Foreign(_) | ScheduleError::Edited(_) | ScheduleError::NotTaken => {
            Exit::Conflict
        }
        ScheduleError::Elsewhere => Exit::Usage,
        ScheduleError::File(_)
        | ScheduleError::NotRoot
        | ScheduleError::NoCron
        | ScheduleError::CronRests
        | ScheduleError::Crontab(_)
        | ScheduleError::Unlike
        | ScheduleError::Broken(_)
        | ScheduleError::Systemd(_) => Exit::Failed,
    };
    let failure = Failure::of(exit, error.to_string(), source.unwrap_or(error));
    match error {
        ScheduleError::File(error) => failure.hint(super::caps::hint(error)),
        ScheduleError::NotRoot => failure.hint("try with sudo"),
        ScheduleError::NoCron => failure.hint("install cron, or run a guard: nagi guard"),
        ScheduleError::CronRests => {
            failure.hint("start it (service cron start), or run a guard: nagi guard")
        }
        ScheduleError::Crontab(_) => failure.hint(
            "root may change it: try with sudo; on a full disk make room first: nagi disk clean",
        ),
        ScheduleError::Unlike => {
            failure.hint("take carriage returns out of it with crontab -e, then try again")
        }
        ScheduleError::NotTaken => failure.hint("look at it with crontab -l, then try again"),
        ScheduleError::Broken(_) => failure.hint("mend or remove these lines with crontab -e"),
        ScheduleError::Systemd(_) => failure.hint("--by crontab needs no systemd"),
        ScheduleError::Foreign(_) | ScheduleError::Edited(_) => {
            failure.hint("look at it; --replace puts it aside, and remove puts it back")
        }
        ScheduleError::Elsewhere => failure.hint("leave --root out, or --by crontab"),
    }
}

/// A path that a crontab, a unit and a shell read as one word.
fn parse_nagi(text: &str) -> Result<PathBuf, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    if text.starts_with('/') && text.bytes().all(is_plain) {
        Ok(PathBuf::from(text))
    } else {
        Err("must begin with / and hold letters, digits, and . _ - + only".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nagi_lies_where_a_crontab_reads_one_word() {
        assert!(parse_nagi("/usr/local/bin/nagi").is_ok());
        for wrong in ["nagi", "/a b", "/a%b", "/a;b", "/a\nb", ""] {
            assert!(parse_nagi(wrong).is_err(), "{wrong}");
        }
    }

    // B-034 to B-037, F46: there is a list for each period, and each line of it has a command that there is.
    #[test]
    fn every_command_of_the_checklists_exists() {
        use clap::Parser as _;

        for (page, periods) in [
            (
                include_str!("../../../../../docs/disk.md"),
                ["daily", "weekly", "monthly", "quarterly"],
            ),
            (
                include_str!("../../../../../docs/ja/disk.md"),
                ["毎日", "毎週", "毎月", "四半期"],
            ),
        ] {
            let lists = page.rsplit("\n## ").next().unwrap();
            let rows: Vec<&str> = lists
                .lines()
                .filter(|line| line.starts_with("| ") && line.contains('`'))
                .collect();
            assert!(rows.len() >= 10, "{rows:?}");
            for period in periods {
                let of = rows
                    .iter()
                    .filter(|row| row.starts_with(&format!("| {period} |")));
                assert!(of.count() >= 2, "{period}");
            }
            let commands = rows.iter().filter_map(|row| row.rsplit('`').nth(1));
            let own: Vec<&str> = commands
                .filter(|command| command.starts_with("nagi "))
                .collect();
            assert!(own.len() >= 9, "{own:?}");
            for command in own {
                let parsed = crate::commands::Cli::try_parse_from(command.split(' '));
                assert!(parsed.is_ok(), "{command}: {:?}", parsed.err());
            }
        }
    }
}
