//! The nagi binary: reads the command line and starts what it names.

mod all;
mod demo;
mod sample;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "nagi", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve API and gateway on this machine
    All(Box<all::AllArgs>),
    /// Show what Nagi does, with two sample projects
    Demo(Box<demo::DemoArgs>),
    /// A sample app of the demo
    #[command(hide = true)]
    Sample(sample::Sample),
}

fn main() -> ExitCode {
    // The supervisor of a replica must begin before this process has a second thread.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "shim") {
        return nagi_local::shim::run(arguments);
    }
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return serve::fail(&error, None),
    };
    runtime.block_on(async {
        match command {
            Command::All(arguments) => Box::pin(all::run(*arguments)).await,
            Command::Demo(arguments) => Box::pin(demo::run(*arguments)).await,
            Command::Sample(arguments) => sample::run(arguments).await.unwrap_or(ExitCode::FAILURE),
        }
    })
}
