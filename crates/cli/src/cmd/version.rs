//! `nagi version`.

use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Place;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  nagi version
  nagi version --output json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VersionArgs {}

/// Runs the command.
pub(crate) fn run(_args: &VersionArgs, session: &Session) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    session
        .output
        .body(&json!({ "version": version }), Place::Alone, |_| {
            format!("nagi {version}")
        })
}
