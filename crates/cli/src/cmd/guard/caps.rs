//! `nagi guard caps`: limits for what grows on this node. A plan first; written and taken back on demand.

use std::path::PathBuf;

use clap::Args;
use nagi_guard::caps::{self, Cap, CapError, Capped, Change, Limits, Others, Standing};
use rustix::io::Errno;
use serde::Serialize;

use super::super::disk::parse_bytes;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{Detail, Place, words};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  nagi guard caps                                    what would be written, by the size of the disk
  nagi guard caps --output wide                      with what is in each file
  nagi guard caps --apply                            write what is missing
  nagi guard caps --journal-max 500M --only journal --apply
  nagi guard caps --remove --apply                   take away what was written";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CapsArgs {
    /// Write the files; without it nothing changes
    #[arg(long)]
    apply: bool,

    /// Take away what was written, and put back what it replaced
    #[arg(long)]
    remove: bool,

    /// Put a file of somebody else that has the same name aside; --remove puts it back
    #[arg(long, conflicts_with = "remove")]
    replace: bool,

    /// Only these: journal, coredumps, kubelet, snaps, docker
    #[arg(long, value_name = "LIMIT", value_delimiter = ',', value_parser = parse_capped)]
    only: Vec<Capped>,

    /// What the journal may take [default: a twentieth of its disk, 64M to 1G]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    journal_max: Option<u64>,

    /// What crash dumps may take [default: a fiftieth of their disk, 32M to 512M]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    coredump_max: Option<u64>,

    /// How large the log of a container becomes before kubelet, or docker, rotates it [default: 10M]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    log_max: Option<u64>,

    /// How many logs of a container are kept [default: 3]
    #[arg(long, value_name = "COUNT")]
    log_files: Option<u8>,

    /// From how many percent on kubelet removes unused images [default: 75]
    #[arg(long, value_name = "PERCENT")]
    images_high: Option<u8>,

    /// Down to how many percent [default: 65]
    #[arg(long, value_name = "PERCENT")]
    images_low: Option<u8>,

    /// How many revisions of each snap are kept [default: 2]
    #[arg(long, value_name = "COUNT")]
    snaps_retain: Option<u8>,

    /// Where the root directory of the node is seen
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// What programs get.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    status: &'static str,
    limits: Vec<Item<'a>>,
}

#[derive(Debug, Serialize)]
struct Item<'a> {
    limit: &'static str,
    path: Option<String>,
    standing: &'static str,
    change: Option<&'static str>,
    text: &'a str,
    then: &'static str,
    /// What somebody else has set that is at least as strict.
    held: Vec<HeldItem<'a>>,
}

#[derive(Debug, Serialize)]
struct HeldItem<'a> {
    key: &'static str,
    value: &'a str,
    path: String,
}

impl<'a> HeldItem<'a> {
    fn of(held: &'a caps::Held) -> Self {
        Self {
            key: held.key,
            value: &held.value,
            path: held.path.display().to_string(),
        }
    }

    /// As in a table.
    fn words(&self) -> String {
        format!("{}={} in {}", self.key, self.value, self.path)
    }
}

/// Runs the command.
pub(super) fn run(args: &CapsArgs, session: &Session) -> Result<(), Failure> {
    let limits = limits(args)?;
    let mut planned = caps::plan(&args.root, &limits).map_err(|error| of(&error))?;
    planned.retain(|cap| args.only.is_empty() || args.only.contains(&cap.what));
    let changes = match (args.apply, args.remove) {
        (false, _) => Vec::new(),
        (true, true) => caps::remove(&args.root, &planned).map_err(|error| of(&error))?,
        (true, false) => {
            let others = if args.replace {
                Others::Kept
            } else {
                Others::Stay
            };
            caps::apply(&args.root, &planned, others).map_err(|error| of(&error))?
        }
    };
    let answer = answer(args, &planned, &changes);
    let raw = serde_json::to_value(&answer)
        .map_err(|error| super::failure("cannot write the answer", &error))?;
    session.output.body(&raw, Place::Alone, |detail| {
        let mut text = session.output.table(&table(&answer));
        if detail == Detail::Wide {
            for item in &answer.limits {
                let name = item.path.as_deref().unwrap_or(item.limit);
                text = format!("{text}\n{}\n{}\n", words::clean(name), item.text);
            }
        }
        text
    })?;
    next_steps(args, &answer, session);
    if args.apply && !args.replace {
        is_whole(args, &planned)?;
    }
    Ok(())
}

/// No file that is not ours to the byte stood in the way.
fn is_whole(args: &CapsArgs, planned: &[Cap]) -> Result<(), Failure> {
    for cap in planned {
        let edited = || {
            format!(
                "{}: the file was edited since nagi wrote it",
                cap.what.name()
            )
        };
        let (message, hint) = match (cap.standing, args.remove, &cap.path) {
            (Standing::Foreign, false, _) => (
                "a file of somebody else has the name of a limit".to_owned(),
                "look at it; --replace puts it aside, and --remove puts it back",
            ),
            (Standing::Edited, true, _) => {
                (edited(), "it stays; take what nagi wrote out of it by hand")
            }
            (Standing::Edited, false, Some(_)) => (
                edited(),
                "it stays; --replace puts it aside, and --remove puts it back",
            ),
            // A person has to do these, edited or not; nothing is wrong with the others.
            (Standing::Edited, false, None)
            | (Standing::Foreign, true, _)
            | (
                Standing::Missing
                | Standing::Set
                | Standing::Other
                | Standing::Held
                | Standing::Looser
                | Standing::Absent
                | Standing::Command,
                _,
                _,
            ) => continue,
        };
        return Err(Failure::new(Exit::Conflict, message).hint(hint));
    }
    Ok(())
}

fn limits(args: &CapsArgs) -> Result<Limits, Failure> {
    let sized = caps::for_node(&args.root).map_err(|error| of(&error))?;
    let limits = Limits {
        journal_max: args.journal_max.unwrap_or(sized.journal_max),
        coredump_max: args.coredump_max.unwrap_or(sized.coredump_max),
        log_max: args.log_max.unwrap_or(sized.log_max),
        log_files: args.log_files.unwrap_or(sized.log_files),
        images_high: args.images_high.unwrap_or(sized.images_high),
        images_low: args.images_low.unwrap_or(sized.images_low),
        snaps_retain: args.snaps_retain.unwrap_or(sized.snaps_retain),
        ..sized
    };
    limits
        .check()
        .map_err(|error| Failure::usage(error.to_string()))?;
    Ok(limits)
}

fn answer<'a>(args: &CapsArgs, planned: &'a [Cap], changes: &[(Capped, Change)]) -> Answer<'a> {
    let items = planned.iter().map(|cap| {
        let change = changes.iter().find(|(what, _)| *what == cap.what);
        Item {
            limit: cap.what.name(),
            path: cap.path.as_ref().map(|path| path.display().to_string()),
            standing: word(cap.standing),
            change: change.map(|(_, change)| change_word(*change)),
            text: &cap.text,
            then: cap.then(),
            held: cap.held.iter().map(HeldItem::of).collect(),
        }
    });
    Answer {
        status: if args.apply { "done" } else { "planned" },
        limits: items.collect(),
    }
}

fn table(answer: &Answer<'_>) -> Table {
    let mut table = Table::new(["LIMIT", "STANDING", "CHANGE", "WHERE"]);
    for item in &answer.limits {
        let held: Vec<String> = item.held.iter().map(HeldItem::words).collect();
        let place = item.path.as_deref().unwrap_or(item.text);
        let place = match (item.standing == word(Standing::Held), held.is_empty()) {
            (_, true) => place.to_owned(),
            (true, false) => held.join(", "),
            (false, false) => format!("{place}, beside {}", held.join(", ")),
        };
        table.row([
            Cell::from(item.limit.to_owned()),
            Cell::from(item.standing.to_owned()),
            Cell::or_dash(item.change),
            Cell::from(words::clean(&place)),
        ]);
    }
    table
}

fn next_steps(args: &CapsArgs, answer: &Answer<'_>, session: &Session) {
    let is_due = |item: &&Item<'_>| {
        [Standing::Missing, Standing::Other, Standing::Looser]
            .iter()
            .any(|due| item.standing == word(*due))
    };
    if !args.apply {
        if args.remove || answer.limits.iter().any(|item| is_due(&item)) {
            let hint = "nothing was changed; the same with --apply does it, as root";
            session.output.hint(hint);
        }
        return;
    }
    let changed = [Change::Written, Change::Removed, Change::Restored].map(change_word);
    for item in &answer.limits {
        if item.change.is_some_and(|change| changed.contains(&change)) {
            session
                .output
                .hint(&format!("{}: {}", item.limit, item.then));
        }
    }
}

const fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Missing => "missing",
        Standing::Set => "set",
        Standing::Other => "other-values",
        Standing::Held => "held",
        Standing::Looser => "looser",
        Standing::Foreign => "foreign",
        Standing::Edited => "edited",
        Standing::Absent => "absent",
        Standing::Command => "by-hand",
    }
}

const fn change_word(change: Change) -> &'static str {
    match change {
        Change::Written => "written",
        Change::Removed => "removed",
        Change::Restored => "restored",
        Change::Left => "left",
    }
}

fn of(error: &CapError) -> Failure {
    let source = std::error::Error::source(error);
    let failure = Failure::of(Exit::Failed, error.to_string(), source.unwrap_or(error));
    failure.hint(hint(error))
}

/// What helps.
pub(super) const fn hint(error: &CapError) -> &'static str {
    match error {
        CapError::Node(_) => "--root names the root directory of the node",
        CapError::File {
            source: Errno::EXIST,
            ..
        } => {
            "what was put aside earlier lies beside it with the ending .before-nagi: move that away first"
        }
        CapError::File { .. } => {
            "root may write there: try with sudo; on a full disk make room first: nagi disk clean"
        }
    }
}

fn parse_capped(text: &str) -> Result<Capped, String> {
    let found = Capped::ALL.into_iter().find(|what| what.name() == text);
    found.ok_or_else(|| "must be journal, coredumps, kubelet, snaps or docker".to_owned())
}
