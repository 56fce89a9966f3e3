//! `nagi man`: manual pages.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use crate::commands::Cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::write;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  nagi man | man --local-file -
  nagi man ~/.local/share/man/man1                   one page for each command";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ManArgs {
    /// Directory to write all pages into; left out, nagi(1) is printed
    #[arg(value_name = "DIRECTORY")]
    pub(super) directory: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &ManArgs, session: &Session) -> Result<(), Failure> {
    let mut whole = Cli::command();
    whole.build();
    let Some(directory) = &args.directory else {
        return write(&String::from_utf8_lossy(&page(&whole)?));
    };
    let mut pages = Vec::new();
    collect(&whole, "nagi", &mut pages)?;
    let write = |path: &std::path::Path, error: &std::io::Error| {
        let message = format!("cannot write {}", path.display());
        Failure::of(Exit::Failed, message, error).hint("choose a directory that you may write")
    };
    std::fs::create_dir_all(directory).map_err(|error| write(directory, &error))?;
    for (name, page) in &pages {
        let path = directory.join(format!("{name}.1"));
        std::fs::write(&path, page).map_err(|error| write(&path, &error))?;
    }
    session.output.note(&format!(
        "wrote {} pages into {}",
        pages.len(),
        directory.display()
    ));
    Ok(())
}

fn collect(
    command: &Command,
    name: &str,
    pages: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), Failure> {
    let named = command.clone().display_name(name.to_owned());
    pages.push((name.to_owned(), page(&named)?));
    for child in command
        .get_subcommands()
        .filter(|child| !child.is_hide_set())
    {
        collect(child, &format!("{name}-{}", child.get_name()), pages)?;
    }
    Ok(())
}

fn page(command: &Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .render(&mut page)
        .map_err(|error| Failure::of(Exit::Failed, "cannot make the manual page", &error))?;
    Ok(page)
}
