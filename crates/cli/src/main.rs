//! The nagi binary: reads the command line and starts what it names.

mod all;
mod cmd;
mod commands;
mod curl;
mod demo;
mod exit;
mod failure;
mod order;
mod output;
mod progress;
mod sample;
mod serve;
mod session;
mod target;
mod wait;
mod watch;
mod when;

use std::path::Path;
use std::process::ExitCode;

use crate::commands::{Cli, Command};

/// The allocator of musl takes one lock and gives memory back at once: a list of 80 workloads costs three times the
/// processor time with it.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if Path::new(&name).file_name() == Some(curl::NAME.as_ref()) {
        return curl::run(arguments);
    }
    // The supervisor of a replica must begin before this process has a second thread.
    if arguments.next().is_some_and(|first| first == "shim") {
        return nagi_local::shim::run(arguments);
    }
    let Cli { global, command } = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return serve::fail(&error, None),
    };
    runtime.block_on(async {
        match command {
            // `nagi` alone, as the founding documents start it, is the server of the cluster.
            None => cmd::server::run_from_environment().await,
            Some(Command::Server(arguments)) => cmd::server::run(&arguments).await,
            Some(Command::Gateway(arguments)) => cmd::gateway::run(&arguments).await,
            Some(Command::All(arguments)) => all::run(*arguments).await,
            Some(Command::Demo(arguments)) => demo::run(*arguments).await,
            Some(Command::Sample(arguments)) => {
                sample::run(arguments).await.unwrap_or(ExitCode::FAILURE)
            }
            Some(Command::Verb(verb)) => cmd::run(verb, &global).await,
        }
    })
}
