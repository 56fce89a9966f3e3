//! The two sample apps that the local engine runs in the demo and in tests: `nagi sample web|inference`.
//!
//! They stand in for what the sample projects run on a cluster (a web server, an inference server with a GPU), speak
//! the same protocols on the same paths, and live in this binary so that a demo needs nothing else. They listen on
//! loopback unless told otherwise, and know nothing of Nagi.

mod inference;
mod serve;
mod web;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use clap::{Args, Subcommand};

/// A sample app as a process of its own.
#[derive(Debug, Args)]
pub(crate) struct Sample {
    #[command(subcommand)]
    app: App,
}

#[derive(Debug, Subcommand)]
enum App {
    /// A small web page and `/health`, as sample-app-a
    Web(WebArgs),
    /// A stand-in for Triton with ResNet50 that speaks the KServe v2 protocol, as sample-app-b
    Inference(InferenceArgs),
}

/// Where it listens.
#[derive(Debug, Args)]
struct Listen {
    /// Address; in a container 0.0.0.0
    #[arg(long = "listen", value_name = "ADDRESS", default_value = "127.0.0.1")]
    address: IpAddr,
    /// Port
    #[arg(long, env = "PORT")]
    port: u16,
}

#[derive(Debug, Args)]
struct WebArgs {
    #[command(flatten)]
    listen: Listen,
}

#[derive(Debug, Args)]
struct InferenceArgs {
    #[command(flatten)]
    listen: Listen,
    /// How long it takes until the model is loaded, in seconds
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS", value_parser = load_seconds)]
    load_seconds: f64,
}

/// An hour is far longer than any real model takes.
const LOAD_SECONDS_MAX: f64 = 3600.0;

fn load_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=LOAD_SECONDS_MAX).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err(format!("must be a number from 0 to {LOAD_SECONDS_MAX}")),
    }
}

impl Listen {
    fn at(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// Runs the sample app until SIGTERM or SIGINT.
///
/// # Errors
/// The port cannot be opened, or the app ended by itself.
pub(crate) async fn run(sample: Sample) -> Result<ExitCode, serve::ServeError> {
    match sample.app {
        App::Web(arguments) => serve::run("web", arguments.listen.at(), web::router()).await?,
        App::Inference(arguments) => {
            let load = std::time::Duration::from_secs_f64(arguments.load_seconds);
            serve::run("inference", arguments.listen.at(), inference::router(load)).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
