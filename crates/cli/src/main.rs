//! The nagi binary: reads the command line and starts what it names.

mod sample;

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
    /// A sample app of the demo
    #[command(hide = true)]
    Sample(sample::Sample),
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    match Cli::parse().command {
        Command::Sample(arguments) => Ok(sample::run(arguments).await?),
    }
}
