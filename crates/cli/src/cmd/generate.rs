//! `nagi generate`: prints the reference pages from what the code declares. `cargo xtask gen` writes them.

mod configuration;
mod metrics;
mod reference;
mod rest;

use clap::{Args, Subcommand};
use nagi_local::file::WorkloadFile;

use super::completions::{self, CompletionsArgs};
use super::man::{self, ManArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::write;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The commands, as Markdown
    Cli,
    /// The settings and the fields of the workload file, as Markdown
    Config,
    /// The REST API, as OpenAPI 3.1
    Openapi,
    /// The REST API, as Markdown
    Api,
    /// The metrics, as Markdown
    Metrics,
    /// The JSON schema of workload files
    Schema,
    /// Manual pages
    Man(ManArgs),
    /// Shell completions
    Completions(CompletionsArgs),
}

/// Runs the command.
pub(crate) fn run(args: &GenerateArgs, session: &Session) -> Result<(), Failure> {
    let text = match &args.what {
        What::Cli => reference::page(),
        What::Config => configuration::page(),
        What::Openapi => format!("{:#}", openapi()?),
        What::Api => rest::page(&openapi()?),
        What::Metrics => metrics::page()?,
        What::Schema => format!("{:#}", WorkloadFile::json_schema()),
        What::Man(args) => return man::run(args, session),
        What::Completions(args) => return completions::run(args),
    };
    write(&text)
}

fn openapi() -> Result<serde_json::Value, Failure> {
    serde_json::to_value(nagi_server::openapi())
        .map_err(|error| Failure::of(Exit::Failed, "cannot make the OpenAPI document", &error))
}
