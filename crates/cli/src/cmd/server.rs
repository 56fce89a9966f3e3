//! `nagi server`, and `nagi` alone: the API on a Kubernetes cluster.
//!
//! The founding documents start it without any argument. This build has no Kubernetes engine, so it checks its
//! settings as it will when it has one, says what is missing as a line of its log, and ends.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use thiserror::Error;

use crate::commands::{Cli, Command};
use crate::serve;
use crate::serve::settings::{Home, ServeArgs, ServeConfig};

const EXAMPLES: &str = "\
Examples:
  nagi server                                        on a cluster
  PORT=9000 nagi                                     the same, on another port
  nagi all --workloads local.yaml                    without a cluster: on this machine";

/// The command line of `nagi server`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Why the server cannot run.
#[derive(Debug, Error)]
enum ServerError {
    #[error(
        "the Kubernetes engine is not in this build, which serves workloads of this machine only"
    )]
    NoKubernetes,
}

/// Runs it with settings from the environment only.
pub(crate) fn run_from_environment() -> ExitCode {
    match Cli::read(["nagi", "server"]).map(|cli| cli.command) {
        Ok(Some(Command::Server(arguments))) => run(&arguments),
        Ok(_) => ExitCode::FAILURE,
        Err(error) => serve::refuse_settings(&error, "see `nagi server --help` for every setting"),
    }
}

/// Checks the settings and says what is missing.
pub(crate) fn run(args: &ServerArgs) -> ExitCode {
    // Its state is in the cluster: a pod without a home directory is no error.
    let home = Home {
        directory: Some(PathBuf::from("/")),
        ..Home::from_environment()
    };
    if let Err(error) = ServeConfig::resolve(&args.serve, &home) {
        return serve::refuse_settings(&error, "see `nagi server --help` for every setting");
    }
    serve::fail(
        &ServerError::NoKubernetes,
        Some("run the local engine: `nagi all --workloads FILE`, or `nagi demo` to see it work"),
    )
}
