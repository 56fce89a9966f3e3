//! The local engine put together: its configuration, its start, and the ports it serves.
//!
//! [`LocalEngine::start`] reads the workload file, takes the state directory, adopts what still runs and spawns three tasks:
//! the runner (processes and nodes), the writer of the nodes' state, and the watcher of the workload file. Everything that
//! is wrong at the start is an error with its place; nothing is left running then that was not running before.

pub(crate) mod facts;
pub(crate) mod shared;

mod logs;
mod ports;
mod watcher;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nagi_ports::Clock;
use nagi_runtime::{Blocking, BlockingError, Supervisor};
use nagi_telemetry::{ConfigFile, Metrics};

pub use self::shared::Reloaded;
use self::shared::Shared;
use self::watcher::Watcher;
use crate::disk::{self, Survives};
use crate::file::{FileError, WorkloadFile};
pub use crate::runner::ShimCommand;
use crate::runner::{self, Runner, Tools};
use crate::store::{self, StateDirectory, StoreError};

/// Writes and reads of the ports at once that block a thread each. More would only queue at the disk.
const BLOCKING_MAX: usize = 8;

/// What every replica inherits of the environment of Nagi, when it is there. Everything else stays behind: keys and
/// settings of Nagi are none of a project's business.
const INHERITED: [&str; 12] = [
    "HOME",
    "LANG",
    "LANGUAGE",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
];
/// The same for whole families of variables.
const INHERITED_PREFIXES: [&str; 3] = ["CUDA_", "LC_", "NVIDIA_"];

/// What happens to the replicas when Nagi ends in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnShutdown {
    /// They go on, and the next start adopts them: an upgrade of Nagi is no outage.
    Keep,
    /// They end, each within its own grace and all of them within what is left of the graceful stop of the process.
    End,
}

/// Where an engine begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// Where the one before it in this state directory stopped.
    WhereItWas,
    /// From nothing, each time: what an earlier start left running is ended, everything it kept is forgotten, and the workload
    /// file is written with this text. Only in a directory of its own: one that an engine used which goes on from what it
    /// finds, and a workload file that begins with another first line than this text, stay as they are.
    Anew {
        /// The whole workload file. By its first line it is known again.
        text: String,
    },
}

/// What the local engine must know.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// The workload file.
    pub file: PathBuf,
    /// Where state and output are kept. Made when it is missing.
    pub state_directory: PathBuf,
    /// How to start the supervisor of a replica.
    pub shim: ShimCommand,
    /// Environment of every replica, see [`inherited_environment`].
    pub environment: BTreeMap<String, String>,
    /// What happens to the replicas when Nagi ends in order.
    pub on_shutdown: OnShutdown,
    /// Where it begins.
    pub begin: Begin,
    /// Where it tells whether the present workload file is in force.
    pub metrics: Metrics,
}

/// The engine. Clones are the same engine.
#[derive(Debug, Clone)]
pub struct LocalEngine {
    shared: Arc<Shared>,
    file: Arc<PathBuf>,
    blocking: Blocking,
    metrics: Metrics,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The workload file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work of the start was cut off.
    #[error(transparent)]
    Blocking(#[from] BlockingError),
}

/// Why a reload changed nothing, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be used; what was in force stays.
    #[error(transparent)]
    File(#[from] FileError),
    /// A workload's state could not be read or written; the others were taken over.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work was cut off.
    #[error(transparent)]
    Blocking(#[from] BlockingError),
}

/// Whether [`Begin::Anew`] would be refused now because of what is there, before anything is written. The start looks again.
///
/// # Errors
/// [`StoreError::Foreign`] with what belongs to somebody else; [`StoreError::Read`] and [`StoreError::Damaged`].
pub fn check_new_beginning(
    state_directory: &Path,
    file: &Path,
    text: &str,
) -> Result<(), StoreError> {
    store::check_forgettable(state_directory)?;
    check_replaceable(file, text)
}

/// Of the variables of Nagi's own environment, those that replicas inherit.
pub fn inherited_environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> BTreeMap<String, String> {
    variables
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| {
            INHERITED.contains(&name.as_str())
                || INHERITED_PREFIXES
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        })
        .collect()
}

// === impl LocalEngine ===

impl LocalEngine {
    /// Starts the engine; its tasks belong to `supervisor`. When it returns, what still ran is adopted, and the rest of
    /// what is wanted starts at once.
    ///
    /// # Errors
    /// See [`StartError`]; no task was spawned then.
    pub async fn start(
        config: LocalConfig,
        clock: Arc<dyn Clock>,
        supervisor: &mut Supervisor,
    ) -> Result<Self, StartError> {
        let blocking = Blocking::new("local engine", BLOCKING_MAX);
        let file = Arc::new(config.file.clone());
        let path = Arc::clone(&file);
        let metrics = config.metrics.clone();
        let prepared = blocking.run(move || prepare(config, clock)).await??;
        let Prepared {
            shared,
            runner,
            node_writer,
            watcher,
        } = prepared;
        metrics.set_file_in_force(ConfigFile::Workloads, true);
        let shutdown = supervisor.shutdown();
        supervisor.spawn_foundation("local-runner", runner.run(shutdown.clone()));
        supervisor.spawn_foundation("local-nodes", node_writer.run());
        let engine = Self {
            shared,
            file: path,
            blocking,
            metrics,
        };
        supervisor.spawn_foundation("local-file", watcher.run(engine.clone(), shutdown));
        Ok(engine)
    }

    /// Reads the workload file again and takes over what changed (SIGHUP). The watcher does the same by itself within a
    /// second of a change.
    ///
    /// # Errors
    /// See [`ReloadError`]; with a bad file everything stays as it was.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let (shared, path) = (Arc::clone(&self.shared), Arc::clone(&self.file));
        let metrics = self.metrics.clone();
        let reloaded = self.blocking.run(move || {
            let _reloading = shared.reloading();
            let reloaded = WorkloadFile::read(&path)
                .map_err(ReloadError::from)
                .and_then(|file| shared.put_in_force(file).map_err(ReloadError::from));
            // While no other reload can be between its reading and its telling.
            metrics.set_file_in_force(ConfigFile::Workloads, reloaded.is_ok());
            reloaded
        });
        let reloaded = reloaded.await?;
        match &reloaded {
            Ok(Reloaded {
                added,
                changed,
                removed,
            }) => tracing::info!(
                added = added.len(),
                changed = changed.len(),
                removed = removed.len(),
                "Workload file read again"
            ),
            Err(error) => tracing::warn!(
                error = explained(error),
                "Workload file not taken over, the former one stays in force"
            ),
        }
        reloaded
    }
}

/// An error with its causes, in one line.
pub(crate) fn explained(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        source = cause.source();
    }
    words
}

struct Prepared {
    shared: Arc<Shared>,
    runner: Runner,
    node_writer: crate::runner::NodeWriter,
    watcher: Watcher,
}

fn prepare(config: LocalConfig, clock: Arc<dyn Clock>) -> Result<Prepared, StartError> {
    let anew = match &config.begin {
        Begin::WhereItWas => None,
        Begin::Anew { text } => Some(begin_anew(&config, text)?),
    };
    // Looked at before it is read: a change in between is seen as one.
    let watcher = Watcher::of(&config.file);
    let file = WorkloadFile::read(&config.file)?;
    let store = match anew {
        Some(store) => store,
        None => StateDirectory::open(&config.state_directory)?,
    };
    let shared = Arc::new(Shared::new(clock, store));
    shared.put_in_force(file)?;
    let kept = shared.take_stock()?;
    if let Err(error) = shared.complete_history(kept) {
        tracing::warn!(error = explained(&error), "History could not be completed");
    }
    let LocalConfig {
        shim,
        environment,
        on_shutdown,
        ..
    } = config;
    let tools = Tools {
        shim,
        environment,
        on_shutdown,
    };
    let (runner, node_writer) = Runner::prepare(Arc::clone(&shared), tools)?;
    Ok(Prepared {
        shared,
        runner,
        node_writer,
        watcher,
    })
}

/// Takes the directory and makes it empty. In this order a start that is cut off has neither left processes that the next one
/// would not find, nor a workload file without an engine that it belongs to.
fn begin_anew(config: &LocalConfig, text: &str) -> Result<StateDirectory, StoreError> {
    check_replaceable(&config.file, text)?;
    let store = StateDirectory::open_anew(&config.state_directory)?;
    runner::end_left_over(&store)?;
    store.clear()?;
    disk::replace(&config.file, text.as_bytes(), Survives::Processes)?;
    Ok(store)
}

/// A file that is not there, or that a start from nothing wrote, as its first line says.
fn check_replaceable(file: &Path, text: &str) -> Result<(), StoreError> {
    let path = file.to_path_buf();
    match std::fs::read(file) {
        Ok(content) if first_line(&content) == first_line(text.as_bytes()) => Ok(()),
        Ok(_) => Err(StoreError::Foreign { path }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoreError::Read { path, source }),
    }
}

fn first_line(content: &[u8]) -> Option<&[u8]> {
    content.split(|byte| *byte == b'\n').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_do_not_inherit_keys_and_settings_of_nagi() {
        let variables = [
            "PATH",
            "LC_ALL",
            "CUDA_VISIBLE_DEVICES",
            "API_KEY",
            "NAGI_KEY",
            "PORT",
            "AWS_SECRET",
        ];
        let pairs = variables.map(|name| (OsString::from(name), OsString::from("x")));
        let inherited = inherited_environment(pairs);
        let names: Vec<_> = inherited.keys().map(String::as_str).collect();
        assert_eq!(names, ["CUDA_VISIBLE_DEVICES", "LC_ALL", "PATH"]);
    }
}
