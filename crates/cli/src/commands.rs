//! The command line as a whole: every command, and the options that all of them share.
//!
//! Help, man pages, completions and `docs/cli.md` are made from these declarations. What a command does is in the
//! file of its name in `cmd/`.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use thiserror::Error;

use crate::cmd::Verb;
use crate::cmd::gateway::GatewayArgs;
use crate::cmd::guard::GuardArgs;
use crate::cmd::server::ServerArgs;
use crate::exit::Exit;
use crate::output::Format;
use crate::serve::settings::EMPTY_IS_SAID;
use crate::when::parse_span;
use crate::{all, demo, sample};

/// Where a server on this machine listens unless told otherwise.
const SERVER_DEFAULT: &str = "http://127.0.0.1:8080";

const EXAMPLES: &str = "\
Examples:
  nagi demo                                          show what Nagi does, with two sample projects
  nagi all --workloads local.yaml                    serve API and gateway on this machine
  nagi list                                          what there is, and where it stands
  nagi sleep sample-app-a -n project-a               put it to sleep
  nagi wake sample-app-a -n project-a --wait         wake it, and see the stages pass";

const ALL_EXAMPLES: &str = "\
Examples:
  nagi all --workloads local.yaml
  nagi all --workloads local.yaml --listen 127.0.0.1:8081 --state-dir ./state
  NAGI_KEYS_FILE=keys.yaml nagi all --workloads local.yaml";
const DEMO_EXAMPLES: &str = "\
Examples:
  nagi demo                                          the tour, then everything stays up until Ctrl-C
  nagi demo --once                                   the tour as a check: its exit code tells";

/// The variable with the key that commands send.
pub(crate) const CLIENT_KEY: &str = "NAGI_KEY";

/// Puts workloads that nobody uses to sleep, and wakes them at the first request.
#[derive(Debug, Parser)]
#[command(
    name = "nagi",
    version,
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", Exit::table()),
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Options of every command that talks to a server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Address of the REST API
    #[arg(long, global = true, env = "NAGI_SERVER", value_name = "URL", default_value = SERVER_DEFAULT)]
    pub(crate) server: String,

    /// API key, when the server asks for one; the environment variable keeps it out of the process list
    #[arg(
        long,
        global = true,
        env = CLIENT_KEY,
        value_name = "KEY",
        hide_env_values = true
    )]
    pub(crate) key: Option<String>,

    /// How long a call may take: 5s, 1m
    #[arg(long, global = true, value_name = "SPAN", default_value = "30s", value_parser = parse_span)]
    pub(crate) request_timeout: Duration,

    /// Form of what is printed: for people, or the bodies of the REST API
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub(crate) output: Format,

    /// Print data and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// No colours; the same as setting `NO_COLOR`
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

impl Cli {
    /// Reads a command line, and the environment beside it. A variable that is set to nothing counts as not set, but for
    /// those of [`EMPTY_IS_SAID`].
    ///
    /// # Errors
    /// What is wrong with it, or the help that was asked for.
    pub(crate) fn read(
        line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, ReadError> {
        let mut command = without_empty(Self::command(), &is_set_to_nothing);
        let mut matches = command
            .try_get_matches_from_mut(line)
            .map_err(|error| named(error, &command))?;
        Self::from_arg_matches_mut(&mut matches)
            .map_err(|error| ReadError::Line(error.format(&mut command)))
    }
}

/// Why a command line could not be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    /// It is wrong, or asks for help.
    #[error(transparent)]
    Line(clap::Error),
    /// A variable of the environment that belongs to it is no text.
    #[error("the environment variable {variable} is not UTF-8")]
    NotText { variable: String },
}

/// Of a word that is no text the parser does not say where it stands; when it is a variable, we do.
fn named(error: clap::Error, command: &clap::Command) -> ReadError {
    if error.kind() != clap::error::ErrorKind::InvalidUtf8 {
        return ReadError::Line(error);
    }
    match not_text(command) {
        Some(variable) => ReadError::NotText { variable },
        None => ReadError::Line(error),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the composition root reads the environment"
)]
fn not_text(command: &clap::Command) -> Option<String> {
    let own = command.get_arguments().filter_map(|arg| arg.get_env());
    let of_others = command.get_subcommands().find_map(not_text);
    let is_not_text =
        |name: &&OsStr| std::env::var_os(name).is_some_and(|value| value.to_str().is_none());
    let found = own.into_iter().find(is_not_text);
    found
        .map(|name| name.to_string_lossy().into_owned())
        .or(of_others)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the composition root reads the environment"
)]
fn is_set_to_nothing(variable: &OsStr) -> bool {
    let value = std::env::var_os(variable);
    value.is_some_and(|value| value.to_str().is_some_and(|text| text.trim().is_empty()))
}

/// The command and those below it, without the variables that are set to nothing.
fn without_empty(command: clap::Command, is_empty: &dyn Fn(&OsStr) -> bool) -> clap::Command {
    let without = |arg: clap::Arg| match arg.get_env() {
        Some(name) if !EMPTY_IS_SAID.iter().any(|said| *said == name) && is_empty(name) => {
            arg.env(Resettable::Reset)
        }
        Some(_) | None => arg,
    };
    command
        .mut_args(without)
        .mut_subcommands(|below| without_empty(below, is_empty))
}

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve API and gateway on this machine
    #[command(after_help = ALL_EXAMPLES)]
    All(Box<all::AllArgs>),
    /// Show what Nagi does, with two sample projects
    #[command(
        after_help = DEMO_EXAMPLES,
        mut_arg("state_dir", |arg| arg.help(demo::STATE_DIR_HELP)),
        mut_arg("log_file", |arg| arg.help(demo::LOG_FILE_HELP)),
    )]
    Demo(Box<demo::DemoArgs>),
    /// Serve the API on a Kubernetes cluster; what `nagi` alone does
    Server(Box<ServerArgs>),
    /// Hold, wake and proxy requests on a Kubernetes cluster
    Gateway(Box<GatewayArgs>),
    /// Watch the disks of this node: tell before they are full, keep ballast, clean within limits
    ///
    /// It needs no server and no network, and works where nothing is left, neither a byte nor an inode.
    Guard(Box<GuardArgs>),
    /// A sample app of the demo
    #[command(hide = true)]
    Sample(sample::Sample),
    #[command(flatten)]
    Verb(Verb),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    // By convention; and not for what protects, where a variable left empty by mistake would open a door.
    #[test]
    fn a_variable_set_to_nothing_is_not_set_unless_it_protects() {
        fn variables(command: &clap::Command, into: &mut Vec<String>) {
            let of_args = command.get_arguments().filter_map(|arg| arg.get_env());
            into.extend(of_args.map(|name| name.to_string_lossy().into_owned()));
            for below in command.get_subcommands() {
                variables(below, into);
            }
        }
        let mut left = vec![];
        variables(&without_empty(Cli::command(), &|_| true), &mut left);
        left.sort();
        left.dedup();
        let mut said = EMPTY_IS_SAID.to_vec();
        said.sort_unstable();
        assert_eq!(left, said);
        let (mut all, mut given) = (vec![], vec![]);
        variables(&Cli::command(), &mut all);
        variables(&without_empty(Cli::command(), &|_| false), &mut given);
        assert_eq!(all, given);
    }

    // The demo's own directory, not that of `nagi all`.
    #[test]
    fn the_help_of_the_demo_names_its_own_defaults() {
        let mut whole = Cli::command();
        let help = |name: &str, whole: &mut clap::Command| {
            let command = whole.find_subcommand_mut(name).unwrap();
            command.render_long_help().to_string()
        };
        let demo = help("demo", &mut whole);
        assert!(demo.contains(".local/state/nagi-demo"), "{demo}");
        assert!(demo.contains("STATE_DIR/nagi.log"), "{demo}");
        assert!(!help("all", &mut whole).contains("nagi-demo"));
    }

    // Every command tells how it is used.
    #[test]
    fn every_command_that_is_shown_has_examples() {
        fn check(command: &clap::Command, path: &str) {
            let children: Vec<_> = command
                .get_subcommands()
                .filter(|child| !child.is_hide_set())
                .collect();
            for child in &children {
                check(child, &format!("{path} {}", child.get_name()));
            }
            if children.is_empty() {
                let text = command.get_after_help().map(ToString::to_string);
                assert!(
                    text.is_some_and(|text| text.contains("Examples:")),
                    "{path} has no examples"
                );
            }
        }
        check(&Cli::command(), "nagi");
    }
}
