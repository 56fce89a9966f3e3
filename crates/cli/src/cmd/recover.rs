//! `nagi recover`: a cluster that does not answer. It works without an API server, a network and a kubeconfig.

mod diagnose;
mod drill;
mod hosts;
mod kubeconfig;
mod node;
mod on_node;
mod reach;
mod run;
mod tunnel;

use clap::Subcommand;

use crate::failure::Failure;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum RecoverCommand {
    /// Say why a cluster does not answer: one cause, what shows it, and what to do next
    ///
    /// It looks at the API server as your kubeconfig reaches it and, on a node, at disks, services, ports, containers, static
    /// pods, etcd, certificates and logs, all at once. It changes nothing.
    Diagnose(Box<diagnose::DiagnoseArgs>),
    /// Reach the API server of a machine through ssh, and keep the way open
    ///
    /// A forward of the system's ssh that fails fast, comes back after a break, and is up only when something behind it has
    /// answered in TLS.
    Tunnel(tunnel::TunnelArgs),
    /// Lead a cluster of a kubeconfig another way: server and tls-server-name in one edit
    ///
    /// The name comes from the certificate that the server presents, if the authority of the cluster signed it. Every other
    /// byte of the file stays, and the file as it was is kept until --undo.
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Let a name lead to this machine, by one line of the hosts file
    Hosts(hosts::HostsArgs),

    /// Bring a control plane back: free, mend etcd, restart, and prove that it stays; a plan first
    ///
    /// Without '--apply' it says what it would do, and changes nothing. The order never changes: files go, etcd is copied,
    /// compacted, defragmented and takes writes again, the container runtime and kubelet are started. Before each step
    /// everything is looked at anew, so that a run which was killed is simply started again.
    Run(Box<run::RunArgs>),

    /// Rehearse a recovery: diagnosis, plan and ladder, each with its time; nothing is changed
    Drill(Box<drill::DrillArgs>),
}

/// Runs the command.
pub(crate) async fn run(command: &RecoverCommand, session: &Session) -> Result<(), Failure> {
    match command {
        RecoverCommand::Diagnose(args) => diagnose::run(args, session).await,
        RecoverCommand::Tunnel(args) => tunnel::run(args, session).await,
        RecoverCommand::Kubeconfig(args) => kubeconfig::run(args, session).await,
        RecoverCommand::Hosts(args) => hosts::run(args, session),
        RecoverCommand::Run(args) => run::run(args, session).await,
        RecoverCommand::Drill(args) => drill::run(args, session).await,
    }
}
