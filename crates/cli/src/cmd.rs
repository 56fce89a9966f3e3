//! The commands that are not servers: one file for each.
//!
//! Each has its arguments, a `run`, and pure functions that make what is shown. Data goes to stdout, everything else
//! to stderr; how a command ended is in its exit code.

mod cancel;
mod completions;
mod config;
mod disk;
mod events;
pub(crate) mod gateway;
mod generate;
pub(crate) mod guard;
mod history;
mod key;
mod list;
mod logs;
mod man;
mod pools;
mod preflight;
mod recover;
mod release;
mod scale;
pub(crate) mod server;
mod sleep;
mod status;
mod version;
mod wake;

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use crate::commands::GlobalArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::Session;

/// Every command that ends by itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show workloads, and where they stand
    ///
    /// LAST SCALED says how long ago the wanted number of replicas changed; `-` when nobody has changed it yet.
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Show one workload in full
    Status(status::StatusArgs),
    /// Put a workload to sleep
    Sleep(sleep::SleepArgs),
    /// Wake a workload
    Wake(wake::WakeArgs),
    /// Give a workload a number of replicas
    Scale(scale::ScaleArgs),
    /// Forget the scheduled wake of a workload
    Cancel(cancel::CancelArgs),
    /// Show who changed what, when and why
    History(history::HistoryArgs),
    /// Follow what happens
    Events(events::EventsArgs),
    /// Show what the replicas of a workload printed
    Logs(logs::LogsArgs),
    /// Show the pools of nodes, and what they cost and saved
    Pools(pools::PoolsArgs),
    /// Show what fills the disks of this node, whose it is, and what df does not tell
    ///
    /// It reads only, and works where nothing is left, neither a byte nor an inode.
    Disk(disk::DiskArgs),
    /// Find out why a cluster does not answer
    #[command(subcommand)]
    Recover(recover::RecoverCommand),
    /// Check whether a cluster has what Nagi needs, and say what to do where not
    Preflight(preflight::PreflightArgs),
    /// Wake what Nagi put to sleep on a cluster, then take its marks away
    Release(release::ReleaseArgs),
    /// Make, show and revoke API keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Check a workload file
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Show the version
    Version(version::VersionArgs),
    /// Print shell completions
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or write all of them into a directory
    Man(man::ManArgs),
    /// Print the generated reference pages
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
}

/// Runs a command; says why it failed.
pub(crate) async fn run(verb: Verb, global: &GlobalArgs) -> ExitCode {
    let session = Session::new(global);
    let done = match verb {
        Verb::List(args) => list::run(&args, &session).await,
        Verb::Status(args) => status::run(&args, &session).await,
        Verb::Sleep(args) => sleep::run(&args, &session).await,
        Verb::Wake(args) => wake::run(&args, &session).await,
        Verb::Scale(args) => scale::run(&args, &session).await,
        Verb::Cancel(args) => cancel::run(&args, &session).await,
        Verb::History(args) => history::run(&args, &session).await,
        Verb::Events(args) => events::run(&args, &session).await,
        Verb::Logs(args) => logs::run(&args, &session).await,
        Verb::Pools(args) => pools::run(&args, &session).await,
        Verb::Disk(args) => disk::run(&args, &session).await,
        Verb::Recover(command) => recover::run(&command, &session).await,
        Verb::Preflight(args) => preflight::run(&args, &session).await,
        Verb::Release(args) => release::run(&args, &session).await,
        Verb::Key(command) => key::run(&command, &session),
        Verb::Config(command) => config::run(&command, &session),
        Verb::Version(args) => version::run(&args, &session),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args, &session),
        Verb::Generate(args) => generate::run(&args, &session),
    };
    match done {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            session.output.failure(&failure);
            failure.exit.into()
        }
    }
}

/// A body of the API as it came.
///
/// # Errors
/// It is no JSON, which a body that was understood never is.
fn raw(bytes: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::of(Exit::Failed, "cannot read the answer", &error))
}

/// A workload in the middle of its life, for tests of what is shown.
#[cfg(test)]
pub(crate) fn sample_item() -> nagi_api::WorkloadItem {
    serde_json::from_str(include_str!("cmd/sample_item.json")).unwrap()
}
