//! `nagi server`, and `nagi` alone: the API and the loops of the leader, on a Kubernetes cluster.
//!
//! The founding documents start it without any argument.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Args;
use nagi_kube::{KubeSettings, Rights, Source};

use crate::commands::{Cli, Command};
use crate::serve::settings::{Home, KUBERNETES_TOKENS, KubeArgs, ServeArgs, ServeConfig};
use crate::serve::{self, OnHangup, Role, Start, Tokens};

const EXAMPLES: &str = "\
Examples:
  nagi server                                        on the cluster of KUBECONFIG, of the pod, or of ~/.kube/config
  PORT=9000 nagi                                     the same, on another port
  nagi server --namespaces project-a,project-b       with rights in two namespaces only
  nagi server --kubernetes-tokens true               also for users of the cluster, with a token of theirs
  nagi all --workloads local.yaml                    without a cluster: on this machine";

/// For a person who meant something else. It goes on: a configuration that comes later is taken.
const NO_CLUSTER: &str = "\
hint: no cluster is configured, and this waits for one (see `nagi server --help`). Ctrl-C ends it. Without a cluster:
  nagi demo                     shows what Nagi does
  nagi all --workloads FILE     runs services on this machine
  nagi --help                   lists all commands";

/// The command line of `nagi server`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(flatten)]
    kube: KubeArgs,

    /// Take bearer tokens of the cluster too, true or false: one for the audience scale-api is given to the cluster to say
    /// whose it is (`TokenReview`) and what they may do (`SubjectAccessReview`: get to read, update to change, on the scale of
    /// the workload). While it is true, authentication stays on, with or without keys [default: false]
    #[arg(long, env = KUBERNETES_TOKENS.env, value_name = "BOOL", help_heading = "Kubernetes")]
    kubernetes_tokens: Option<String>,
}

/// Runs it with settings from the environment only.
pub(crate) async fn run_from_environment() -> ExitCode {
    match Cli::read(["nagi", "server"]).map(|cli| cli.command) {
        Ok(Some(Command::Server(arguments))) => run(&arguments).await,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => serve::refuse_settings(&error, "see `nagi server --help` for every setting"),
    }
}

/// Serves until a signal.
pub(crate) async fn run(args: &ServerArgs) -> ExitCode {
    let hint = "see `nagi server --help` for every setting";
    let tokens = match KUBERNETES_TOKENS.flag(args.kubernetes_tokens.as_deref()) {
        Ok(true) => Tokens::Taken,
        Ok(false) => Tokens::Ignored,
        Err(error) => return serve::refuse_settings(&error, hint),
    };
    let role = |settings| Role::Server { settings, tokens };
    run_on_cluster(&args.serve, &args.kube, (Rights::Full, role), hint).await
}

/// Serves in a role of a cluster until a signal.
pub(crate) async fn run_on_cluster(
    serve_args: &ServeArgs,
    kube_args: &KubeArgs,
    (rights, role): (Rights, impl FnOnce(KubeSettings) -> Role),
    hint: &str,
) -> ExitCode {
    let config = match ServeConfig::resolve(serve_args, &Home::from_environment().of_cluster_role())
    {
        Ok(config) => config,
        Err(error) => return serve::refuse_settings(&error, hint),
    };
    let settings = match kube_settings(kube_args, rights) {
        Ok(settings) => settings,
        Err(error) => return serve::refuse_settings(&error, hint),
    };
    if io::stderr().is_terminal() && !settings.source.is_there().await {
        drop(writeln!(io::stderr(), "{NO_CLUSTER}"));
    }
    let start = Start {
        config,
        role: role(settings),
        on_hangup: OnHangup::Reload,
    };
    match serve::run(start, async |_clock| std::future::pending().await).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => serve::fail(&error, error.hint()),
    }
}

/// What the engine of a cluster role must know.
///
/// # Errors
/// A setting that cannot be used.
pub(crate) fn kube_settings(
    args: &KubeArgs,
    rights: Rights,
) -> Result<KubeSettings, serve::settings::ConfigError> {
    let home = Home::from_environment();
    Ok(KubeSettings {
        source: Source::Rules {
            kubeconfig: args.kubeconfig.clone(),
            home: home.directory,
            context: args.context.clone(),
        },
        rights,
        namespaces: args.namespaces()?,
        identity: identity(),
    })
}

/// The name of the pod or machine, and random digits: a restarted process is another one.
#[expect(
    clippy::disallowed_methods,
    reason = "the composition root reads the environment"
)]
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "nagi".to_owned());
    let mut bits = [0; 8];
    // Without random bits the number of the process is still another one on the same machine.
    if getrandom::fill(&mut bits).is_err() {
        bits = u64::from(std::process::id()).to_ne_bytes();
    }
    format!("{host}_{:016x}", u64::from_ne_bytes(bits))
}
