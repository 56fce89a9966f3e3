//! `nagi demo`: two sample projects on the local engine, and a tour that shows what Nagi does with them.
//!
//! On a terminal the tour runs and everything stays up until Ctrl-C. Without one the tour is a check: it runs once and
//! the exit code tells whether every step went as it should. Either way the sample apps are ended at the end.

mod tour;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use nagi_client::{Client, EventFollower, ServerAddress};
use nagi_ports::Clock;
use thiserror::Error;

use crate::demo::tour::{Tour, TourError};
use crate::serve::settings::{Home, ServeArgs, ServeConfig};
use crate::serve::{self, Role, Start};
use nagi_local::OnShutdown;

/// The workload file of the demo; `NAGI` stands for the path of this binary.
const WORKLOADS: &str = include_str!("demo/workloads.yaml");
/// The word in it that stands for the binary.
const PLACEHOLDER: &str = "NAGI";

/// Of the shared settings, those that have a default of the demo's own.
pub(crate) const STATE_DIR_HELP: &str = "Directory for everything of the demo; one process at a time \
     [default: `$XDG_STATE_HOME/nagi-demo` or `~/.local/state/nagi-demo`]";
pub(crate) const LOG_FILE_HELP: &str =
    "File that the JSON log is appended to; opened anew on SIGHUP [default: STATE_DIR/nagi.log]";

/// The command line of `nagi demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    serve: ServeArgs,

    /// Run the tour once and exit, as without a terminal
    #[arg(long)]
    once: bool,
}

/// Why the demo could not be prepared.
#[derive(Debug, Error)]
enum DemoError {
    #[error("{} holds the state of another nagi, whose workloads the demo would end", path.display())]
    Foreign { path: PathBuf },
    #[error("cannot tell where this binary is")]
    OwnPath(#[source] std::io::Error),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Runs the demo.
pub(crate) async fn run(args: DemoArgs) -> ExitCode {
    let mut config = match ServeConfig::resolve(&args.serve, &Home::from_environment().demo()) {
        Ok(config) => config,
        Err(error) => {
            return serve::refuse_settings(&error, "see `nagi demo --help` for every setting");
        }
    };
    let log_file = (config.log_file.take()).unwrap_or_else(|| config.state_dir.join("nagi.log"));
    let workloads = match prepare(&config.state_dir) {
        Ok(path) => path,
        Err(error) => {
            return serve::complain(
                &error,
                Some("choose a directory of its own that you may write with --state-dir"),
            );
        }
    };
    let stay = std::io::stdout().is_terminal() && !args.once;
    let (api, gateway) = (config.listen, config.gateway_listen);
    let banner = format!(
        "Nagi demo: API http://{api}  gateway http://{gateway}  metrics http://{}/metrics\nLog: {}",
        config.metrics_listen,
        log_file.display()
    );
    config.log_file = Some(log_file);
    let mut outcome = None;
    let ended = Box::pin(serve::run(
        Start {
            config,
            role: Role::All {
                workloads,
                on_exit: OnShutdown::End,
            },
        },
        async |clock: Arc<dyn Clock>| {
            println_now(&banner);
            let result = guide(api, gateway, &*clock).await;
            let failed = result.is_err();
            outcome = Some(result);
            if stay && !failed {
                println_now(&stay_text(api, gateway));
                std::future::pending::<()>().await;
            }
        },
    ))
    .await;
    match (ended, outcome) {
        (Err(error), _) => serve::complain(&error, error.hint()),
        (Ok(()), Some(Err(error))) => {
            serve::complain(&error, Some("the log of the demo says more"))
        }
        (Ok(()), Some(Ok(()))) => {
            println_now("\nThe tour is complete; the sample apps are stopped.");
            ExitCode::SUCCESS
        }
        // Ended by a signal before the tour was through.
        (Ok(()), None) => {
            println_now(
                "\nEnded by a signal before the tour was through; the sample apps are stopped.",
            );
            if stay {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Writes the workload file with this binary in it.
fn prepare(state_dir: &Path) -> Result<PathBuf, DemoError> {
    let binary = std::env::current_exe().map_err(DemoError::OwnPath)?;
    // A JSON string is a YAML string, whatever the path holds.
    let quoted = serde_json::Value::from(binary.to_string_lossy().into_owned()).to_string();
    let path = state_dir.join("workloads.yaml");
    let write = |source| DemoError::Write {
        path: path.clone(),
        source,
    };
    // Written by the first start of an engine; a demo's directory has the demo's workload file beside it.
    let engine = state_dir.join("engine.json");
    if engine.exists() && !path.exists() {
        return Err(DemoError::Foreign {
            path: state_dir.to_owned(),
        });
    }
    std::fs::create_dir_all(state_dir).map_err(write)?;
    let text = WORKLOADS.replace(&format!("[{PLACEHOLDER},"), &format!("[{quoted},"));
    std::fs::write(&path, text).map_err(write)?;
    Ok(path)
}

async fn guide(api: SocketAddr, gateway: SocketAddr, clock: &dyn Clock) -> Result<(), TourError> {
    let server = ServerAddress::from(api);
    let client = Client::new(server, None);
    let mut tour = Tour {
        events: EventFollower::new(client.clone(), None),
        client,
        gateway,
        clock,
        out: std::io::stdout(),
        step: "start",
    };
    tour.run().await
}

fn stay_text(api: SocketAddr, gateway: SocketAddr) -> String {
    let port = gateway.port();
    // As the person called it: `make demo` does not put it on the PATH.
    let nagi = std::env::args().next().unwrap_or_else(|| "nagi".to_owned());
    format!(
        "\nThe tour is complete, and everything stays up. Try it in another terminal:\n\n  \
         curl http://{api}/api/v1/deployments/project-a/sample-app-a/status\n  \
         curl http://sample-app-a.project-a.localhost:{port}/\n  \
         {nagi} list --server http://{api}\n\nCtrl-C ends the demo and its apps."
    )
}

fn println_now(text: &str) {
    let mut out = std::io::stdout();
    // Nobody reads any more: the demo goes on, its exit code still tells.
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_another_nagi_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("engine.json"), "{}").unwrap();
        assert!(matches!(
            prepare(dir.path()),
            Err(DemoError::Foreign { .. })
        ));
        assert!(!dir.path().join("workloads.yaml").exists());
    }

    #[test]
    fn the_workload_file_of_the_demo_is_valid_wherever_the_binary_lies() {
        let dir = tempfile::tempdir().unwrap();
        let path = prepare(&dir.path().join("state")).unwrap();
        let file = nagi_local::file::WorkloadFile::read(&path).unwrap();
        assert_eq!(file.workloads.len(), 2);
        for workload in &file.workloads {
            assert!(
                Path::new(&workload.command[0]).is_absolute(),
                "{:?}",
                workload.command
            );
        }
    }
}
