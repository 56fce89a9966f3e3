//! Calls of kubectl as administrator of a cluster.

use std::path::{Path, PathBuf};

use super::kubeconfig;
use crate::call::Call;
use crate::tools::Built;

/// What it takes to call kubectl.
#[derive(Debug, Clone)]
pub(crate) struct Kubectl {
    program: PathBuf,
    directory: PathBuf,
}

// === impl Kubectl ===

impl Kubectl {
    pub(crate) fn of(kubernetes: &Built, directory: &Path) -> Self {
        Self {
            program: kubernetes.program("kubectl"),
            directory: directory.to_owned(),
        }
    }

    /// The one that was built together with another program.
    pub(crate) fn beside(program: &Path, directory: &Path) -> Self {
        Self {
            program: program.with_file_name("kubectl"),
            directory: directory.to_owned(),
        }
    }

    /// As administrator; what it remembers of the API goes away with the cluster.
    pub(crate) fn call(&self) -> Call {
        Call::new(&self.program)
            .environment("KUBECONFIG", kubeconfig(&self.directory))
            .environment("KUBECACHEDIR", self.directory.join("kubectl-cache"))
    }
}
