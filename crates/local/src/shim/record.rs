//! The small files by which an engine and the supervisors of its replicas speak to each other.
//!
//! Each start of a replica is an *attempt* with an id of its own, and every file carries that id in its name, so that a
//! late writer of an earlier attempt can never be taken for the present one:
//!
//! - `ATTEMPT.launch.json`, written by the engine before it starts the supervisor: what to run;
//! - `ATTEMPT.running.json`, written by the supervisor before it starts the command: who supervises;
//! - `ATTEMPT.exit.json`, written by the supervisor when nothing of the replica is left: how it ended.
//!
//! They are replaced as a whole (temporary file, rename) but not synced to the disk: they describe processes, and
//! neither survives a loss of power. After one, an unreadable file means what a missing one means.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Survives, WriteError};
use crate::process::ProcessId;

/// Environment variable that marks every process of a replica: `INSTANCE/NAMESPACE/WORKLOAD/REPLICA/ATTEMPT`.
pub const REPLICA_VARIABLE: &str = "NAGI_REPLICA";

/// Largest record read back. A launch record holds at most a command and an environment of 64 KiB words; the kernel
/// refuses more than 2 MiB of both together.
const RECORD_BYTES_MAX: u64 = 8 << 20;

/// What to run, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Id of this attempt, unique for ever.
    pub attempt: String,
    /// Value of [`REPLICA_VARIABLE`].
    pub mark: String,
    /// What the command was made from; another digest means another command is wanted.
    pub digest: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
    /// Directory to start in.
    pub working_directory: PathBuf,
    /// Port that was given in `PORT`.
    pub port: Option<u16>,
    /// The node it was placed on.
    pub node: String,
    /// Thousandths of a processor that it takes there.
    pub cpu_milli: u64,
    /// Bytes of memory that it takes there.
    pub memory_bytes: u64,
    /// GPUs that it takes there.
    pub gpu: u32,
    /// Milliseconds between SIGTERM and SIGKILL.
    pub stop_grace_ms: u64,
    /// Control group of the replica, where there is one.
    pub control_group: Option<PathBuf>,
    /// File that names the engine in charge.
    pub engine_file: PathBuf,
    /// Generation of the engine that ordered this attempt.
    pub generation: u64,
    /// How often the replica was started again before.
    pub restarts: u32,
}

/// Who supervises an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Id of the attempt.
    pub attempt: String,
    /// The supervisor.
    pub supervisor: ProcessId,
    /// The boot of the machine that the process ids belong to.
    pub boot_id: String,
    /// The command itself, once it was started.
    pub command: Option<ProcessId>,
    /// When the supervisor began.
    #[serde(with = "crate::stamp")]
    pub since: Timestamp,
}

/// How an attempt ended. Written when no process of it is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Id of the attempt.
    pub attempt: String,
    /// When the command ended.
    #[serde(with = "crate::stamp")]
    pub at: Timestamp,
    /// How.
    pub ending: Ending,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It could not be started; the text says why.
    NotStarted(String),
    /// The supervisor refused: another engine is in charge now.
    Superseded,
    /// Nobody knows: the supervisor was killed. Never written; what an engine makes of a missing record.
    Lost,
}

/// Which engine is in charge of a state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInCharge {
    /// Random, made once with the directory: tells the processes of two directories apart.
    pub instance: String,
    /// Grows by one with every start of an engine.
    pub generation: u64,
    /// The process of the engine.
    pub engine: ProcessId,
    /// Everything in the directory may be forgotten at the next start: the engine begins from nothing each time, see
    /// [`Begin::Anew`](crate::Begin::Anew). An engine that goes on from what it finds takes this back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begins_anew: bool,
}

/// The three kinds of files of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Launch`].
    Launch,
    /// [`Running`].
    Running,
    /// [`Exit`].
    Exit,
}

// === impl Kind ===

impl Kind {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Launch => ".launch.json",
            Self::Running => ".running.json",
            Self::Exit => ".exit.json",
        }
    }

    /// The file of this kind for `attempt` in the directory of its replica.
    pub fn path(self, directory: &Path, attempt: &str) -> PathBuf {
        directory.join(format!("{attempt}{}", self.suffix()))
    }

    /// The attempt that a file of this kind belongs to; `None` for other files.
    pub fn attempt_of(self, file_name: &str) -> Option<&str> {
        file_name.strip_suffix(self.suffix())
    }
}

// === impl Ending ===

impl std::fmt::Display for Ending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => write!(formatter, "signal {signal}"),
            Self::NotStarted(why) => write!(formatter, "not started: {why}"),
            Self::Superseded => formatter.write_str("not started: another engine is in charge"),
            Self::Lost => formatter.write_str("its supervisor was killed"),
        }
    }
}

/// Writes a record as a whole, readable by its owner only (an environment may hold secrets).
///
/// # Errors
/// What the system said; no temporary file is left behind then.
pub fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), WriteError> {
    let content =
        serde_json::to_vec(record).map_err(|error| WriteError::new(path, error.into()))?;
    disk::replace(path, &content, Survives::Processes)
}

/// Reads a record; `None` when it is missing or unreadable.
pub fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)
        .ok()?
        .take(RECORD_BYTES_MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    serde_json::from_slice(&bytes).ok()
}
