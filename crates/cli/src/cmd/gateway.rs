//! `nagi gateway`: holds, wakes and proxies, on a Kubernetes cluster.
//!
//! Its rights are to read, and to raise counts through the `scale` subresource; whatever it is asked, it can write nothing
//! else. Its health and metrics have a listener of their own.

use std::process::ExitCode;

use clap::Args;
use nagi_kube::Rights;

use crate::cmd::server::run_on_cluster;
use crate::serve::Role;
use crate::serve::settings::{self, KubeArgs, ServeArgs};

const EXAMPLES: &str = "\
Examples:
  nagi gateway                                       on the cluster of KUBECONFIG, of the pod, or of ~/.kube/config
  nagi gateway --gateway-listen 0.0.0.0:8000 --hold-seconds 55";

/// The command line of `nagi gateway`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GatewayArgs {
    /// Address of the gateway, through which the workloads are reached [default: 127.0.0.1:8000; in a pod 0.0.0.0:8000]
    #[arg(long, env = settings::GATEWAY_LISTEN.env, value_name = "ADDRESS:PORT", help_heading = "Server")]
    gateway_listen: Option<String>,

    /// Address of /metrics, /health and /ready [default: 127.0.0.1:9090; in a pod 0.0.0.0:9090]
    #[arg(long, env = settings::METRICS_LISTEN.env, value_name = "ADDRESS:PORT", help_heading = "Server")]
    metrics_listen: Option<String>,

    /// How long a request for a sleeping workload is held, in seconds, 1 to 3600 [default: 25]
    #[arg(long, env = settings::HOLD_SECONDS.env, value_name = "SECONDS", help_heading = "Server")]
    hold_seconds: Option<String>,

    /// Namespaces whose workloads a request may wake, separated by commas [default: all but the protected ones]
    #[arg(long, env = settings::ALLOWED_NAMESPACES.env, value_name = "NAMES", help_heading = "Server")]
    allowed_namespaces: Option<String>,

    /// Least severe log lines to write: debug, info, warn, error or fatal [default: info]
    #[arg(long, env = settings::LOG_LEVEL.env, value_name = "LEVEL", help_heading = "Server")]
    log_level: Option<String>,

    #[command(flatten)]
    kube: KubeArgs,
}

/// Serves until a signal.
pub(crate) async fn run(args: &GatewayArgs) -> ExitCode {
    let hint = "see `nagi gateway --help` for every setting";
    let serve_args = ServeArgs {
        gateway_listen: args.gateway_listen.clone(),
        metrics_listen: args.metrics_listen.clone(),
        hold_seconds: args.hold_seconds.clone(),
        allowed_namespaces: args.allowed_namespaces.clone(),
        log_level: args.log_level.clone(),
        ..ServeArgs::default()
    };
    let rights = Rights::ScaleOnly;
    run_on_cluster(&serve_args, &args.kube, (rights, Role::Gateway), hint).await
}
