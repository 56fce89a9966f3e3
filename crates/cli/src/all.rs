//! `nagi all`: API, gateway and loops in one process, on the local engine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::serve::settings::{Home, ServeArgs, ServeConfig};
use crate::serve::{self, OnHangup, Role, Start};
use nagi_local::{Begin, OnShutdown};

/// The command line of `nagi all`.
#[derive(Debug, Args)]
pub(crate) struct AllArgs {
    /// Workload file: pools and workloads of this machine; read again when it changes
    #[arg(long, env = "NAGI_WORKLOADS", value_name = "FILE")]
    workloads: PathBuf,

    /// What becomes of the replicas when nagi ends: `keep` leaves them running for the next start, `stop` ends them, each
    /// within its `stop_grace` and all within 30 s
    #[arg(
        long,
        env = "NAGI_ON_EXIT",
        value_name = "WHAT",
        default_value = "keep"
    )]
    on_exit: OnExitArg,

    #[command(flatten)]
    serve: ServeArgs,
}

/// The spelling of [`OnShutdown`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnExitArg {
    Keep,
    Stop,
}

impl From<OnExitArg> for OnShutdown {
    fn from(arg: OnExitArg) -> Self {
        match arg {
            OnExitArg::Keep => Self::Keep,
            OnExitArg::Stop => Self::End,
        }
    }
}

/// Serves until a signal.
pub(crate) async fn run(args: AllArgs) -> ExitCode {
    let config = match ServeConfig::resolve(&args.serve, &Home::from_environment()) {
        Ok(config) => config,
        Err(error) => {
            return serve::refuse_settings(&error, "see `nagi all --help` for every setting");
        }
    };
    let start = Start {
        config,
        role: Role::All {
            workloads: args.workloads,
            on_exit: args.on_exit.into(),
            begin: Begin::WhereItWas,
        },
        on_hangup: OnHangup::Reload,
    };
    match serve::run(start, async |_clock| std::future::pending().await).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => serve::fail(&error, error.hint()),
    }
}
