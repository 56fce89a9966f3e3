//! Which node is looked at, and how its API server is reached: what commands that look at a node have in common.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use nagi_ops::Request;

use crate::serve::settings::{CONTEXT, Home, KUBECONFIG};

/// How far back lines of logs count where nothing else is said.
pub(super) const LOGS: Duration = Duration::from_hours(1);

#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// Files that say how the API server is reached, as kubectl reads them
    /// [default: `~/.kube/config`, else the administrator's on the node]
    #[arg(long, env = KUBECONFIG.env, value_name = "FILES")]
    kubeconfig: Option<OsString>,

    /// Context of the kubeconfig [default: the current one]
    #[arg(long, env = CONTEXT.env, value_name = "NAME")]
    context: Option<String>,

    /// Where the root directory of the node is seen
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(super) root: PathBuf,
}

// === impl NodeArgs ===

impl NodeArgs {
    /// A look at a node that runs, with this patience for each probe.
    pub(super) fn request(&self, timeout: Duration, now: Timestamp) -> Request {
        Request {
            root: self.root.clone(),
            files_only: false,
            kubeconfigs: kubeconfigs(self.kubeconfig.as_ref()),
            usual: usual(),
            context: self.context.clone(),
            logs: Vec::new(),
            window: LOGS,
            timeout,
            now,
        }
    }
}

/// Those that are named.
pub(super) fn kubeconfigs(named: Option<&OsString>) -> Vec<PathBuf> {
    let named = named.into_iter().flat_map(std::env::split_paths);
    named.filter(|path| !path.as_os_str().is_empty()).collect()
}

/// The one that kubectl reads where none is named.
pub(super) fn usual() -> Option<PathBuf> {
    let home = Home::from_environment().directory;
    home.map(|home| home.join(".kube").join("config"))
}
