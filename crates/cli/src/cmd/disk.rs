//! `nagi disk`: what fills the disks of this node, whose it is, and what df does not tell.
//!
//! It asks this machine and nothing else, changes nothing, and works where neither a byte nor an inode is left. What removes
//! files is `nagi disk clean`, in [`clean`]. [`body`] is what programs get, [`text`] what people see, [`treemap`] a page for a browser.

mod body;
mod clean;
mod goes;
mod text;
mod treemap;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use nagi_guard::{Advice, Effort, Request, Survey, SurveyError, Watch};
use nagi_ports::Clock as _;
use rustix::io::Errno;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Place, words, write};
use crate::progress::Progress;
use crate::session::Session;

pub(crate) use clean::{end as clean_end, parse_age, parse_bytes, why as clean_why};
pub(crate) use goes::GoesArgs;

const EXAMPLES: &str = "\
Examples:
  nagi disk                                          every disk that this node lives from
  nagi disk /var/lib                                 one directory
  nagi disk --total /var /home                       sums only, as fast as the disk allows
  nagi disk --html disk.html                         a treemap for a browser, in one file
  nagi disk --root /host                             in a pod that sees the node there
  nagi disk --output json | jq '.places[].owners[] | select(.class == \"nagi\")'
                                                     what Nagi may give back
  nagi disk clean                                    a plan of what would go; --apply carries it out
  nagi disk ./clean                                  a directory of that name";

/// How often a terminal is told how far it is.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct DiskArgs {
    #[command(subcommand)]
    command: Option<DiskCommand>,

    /// Directories to survey; without one, every disk that holds something this node lives from
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// How many of the largest files and fullest directories are shown, and directories in each directory
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    top: usize,

    /// Sums only: no owners, no files, no explanation
    #[arg(long, conflicts_with = "html")]
    total: bool,

    /// Write a treemap as a page that needs nothing else; '-' is stdout
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Where the root directory of the node is seen
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

#[derive(Debug, Subcommand)]
enum DiskCommand {
    /// Plan what may go, and give its space back
    ///
    /// Without --apply nothing changes. What goes is a closed list of kinds, the least harmful first; what no rule knows stays.
    /// Each removal is written down before it is made, and the command works where neither a byte nor an inode is left.
    Clean(Box<clean::CleanArgs>),
}

/// Runs the command.
pub(crate) async fn run(args: &DiskArgs, session: &Session) -> Result<(), Failure> {
    if let Some(DiskCommand::Clean(args)) = &args.command {
        return clean::run(args, session).await;
    }
    let survey = surveyed(args, session).await?;
    tell_what_is_missing(&survey, session);
    let page = args.html.as_deref();
    if let Some(file) = page {
        write_page(file, &survey, session)?;
    }
    if page.is_some_and(|file| file == Path::new("-")) {
        return Ok(());
    }
    let raw = serde_json::to_value(body::Answer::of(&survey, args.top))
        .map_err(|error| Failure::of(Exit::Failed, "cannot write the answer", &error))?;
    let effort = effort(args);
    session.output.body(&raw, Place::Alone, |detail| {
        text::whole(&survey, effort, args.top, detail, &session.output)
    })?;
    if survey.places.is_empty() {
        session
            .output
            .hint("no disk here holds anything of a node; name a directory: nagi disk PATH");
    }
    Ok(())
}

/// One piece of advice in a sentence.
pub(super) fn advice(advice: &Advice) -> String {
    text::advice(advice)
}

/// A path as text: what is no UTF-8 as `\xHH`.
pub(super) fn shown(path: &Path) -> String {
    body::shown(path)
}

const fn effort(args: &DiskArgs) -> Effort {
    if args.total {
        Effort::Total
    } else {
        Effort::Whole
    }
}

/// Walks on threads of its own, and tells a terminal how far it is.
async fn surveyed(args: &DiskArgs, session: &Session) -> Result<Survey, Failure> {
    let request = Request {
        root: args.root.clone(),
        paths: args.paths.clone(),
        effort: effort(args),
        top: args.top,
        threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let watch = Arc::new(Watch::new());
    let seen = Arc::clone(&watch);
    let mut walking = tokio::task::spawn_blocking(move || nagi_guard::survey(&request, &seen));
    let mut progress = Progress::new(&session.output);
    loop {
        tokio::select! {
            // Cancel-safe: a handle may be polled again.
            done = &mut walking => {
                progress.clear();
                let done = done
                    .map_err(|error| Failure::of(Exit::Failed, "the survey broke off", &error))?;
                return done.map_err(|error| failure(&error));
            }
            // Cancel-safe: a sleep holds nothing.
            () = tokio::time::sleep(LOOK) => {
                let far = format!(
                    "{} directories, {} files, {}",
                    watch.directories(),
                    watch.files(),
                    words::bytes(watch.blocks().bytes()),
                );
                progress.current(session.clock.monotonic(), &far);
            }
        }
    }
}

fn failure(error: &SurveyError) -> Failure {
    let exit = match error {
        SurveyError::Find { .. }
        | SurveyError::NotWalked { .. }
        | SurveyError::NotDisk { .. }
        | SurveyError::Open {
            source: Errno::NOENT | Errno::NOTDIR,
            ..
        } => Exit::Usage,
        SurveyError::ReadMounts(_)
        | SurveyError::ParseMounts(_)
        | SurveyError::Open { .. }
        | SurveyError::NoDisk
        | SurveyError::Walk { .. }
        | SurveyError::Kernel => Exit::Failed,
    };
    let mut failure = Failure::new(exit, error.to_string());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        failure.causes.push(error.to_string());
        cause = error.source();
    }
    match error {
        SurveyError::NotWalked { .. } | SurveyError::NotDisk { .. } => {
            failure.hint("name a directory on a disk: ext4, XFS, btrfs")
        }
        SurveyError::Open {
            source: Errno::ACCESS | Errno::PERM,
            ..
        } => failure.hint("root may open every directory: try with sudo"),
        SurveyError::Open {
            source: Errno::NOENT | Errno::NOTDIR,
            ..
        } => failure.hint("name a directory that is there; --root names that of a node"),
        SurveyError::Open { .. }
        | SurveyError::Find { .. }
        | SurveyError::ReadMounts(_)
        | SurveyError::ParseMounts(_)
        | SurveyError::NoDisk
        | SurveyError::Walk { .. }
        | SurveyError::Kernel => failure,
    }
}

/// Nothing is left out in silence.
fn tell_what_is_missing(survey: &Survey, session: &Session) {
    for place in &survey.places {
        let (first, count) = &place.unread;
        match count {
            0 => {}
            1 => session
                .output
                .warn("1 directory or file could not be read and is not counted"),
            count => session.output.warn(&format!(
                "{count} directories or files could not be read and are not counted"
            )),
        }
        for fault in first.iter().take(3) {
            let line = format!("{}: {}", body::shown(&fault.path), fault.error);
            session.output.note(&format!("  {}", words::clean(&line)));
        }
        if place.tree.folded() > 0 {
            session.output.warn(&format!(
                "more directories than are kept: {} are counted at one above them",
                place.tree.folded()
            ));
        }
    }
    let denied = survey.open.as_ref().map_or(0, |open| open.denied);
    if denied > 0 {
        let processes = if denied == 1 { "process" } else { "processes" };
        session.output.warn(&format!(
            "the open files of {denied} {processes} may not be seen: deleted files that they hold are missing here"
        ));
    }
}

fn write_page(file: &Path, survey: &Survey, session: &Session) -> Result<(), Failure> {
    let page = treemap::page(survey);
    if file == Path::new("-") {
        return write(&page);
    }
    std::fs::write(file, page).map_err(|error| {
        let name = file.display();
        Failure::of(Exit::Failed, format!("cannot write {name}"), &error)
            .hint("on a full disk: --html - writes to stdout, for a pipe to another machine")
    })?;
    session.output.note(&format!(
        "treemap written to {}",
        words::clean(&file.display().to_string())
    ));
    Ok(())
}
