//! `nagi completions`: the script that a shell loads to complete commands.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::commands::Cli;
use crate::failure::Failure;
use crate::output::write;

const EXAMPLES: &str = "\
Examples:
  nagi completions bash > ~/.local/share/bash-completion/completions/nagi
  nagi completions zsh > ~/.zfunc/_nagi
  nagi completions fish > ~/.config/fish/completions/nagi.fish";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(super) shell: Shell,
}

/// Runs the command.
pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "nagi", &mut script);
    write(&String::from_utf8_lossy(&script))
}
