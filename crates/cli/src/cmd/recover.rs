//! `nagi recover`: a cluster that does not answer. It works without an API server, a network and a kubeconfig.

mod diagnose;

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
}

/// Runs the command.
pub(crate) async fn run(command: &RecoverCommand, session: &Session) -> Result<(), Failure> {
    match command {
        RecoverCommand::Diagnose(args) => diagnose::run(args, session).await,
    }
}
