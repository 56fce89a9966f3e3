//! The workload file: which pools there are and which workloads run on them.
//!
//! One YAML file, read in two steps. `schema` says which fields exist and of which kind they are; `validate`
//! says which values they may have and joins what belongs together (a workload and its pool). Both report the
//! line, the column and the path of the field, and the second reports every problem it finds, not only the first.
//! Nothing here watches the file or keeps the last good state: the engine does, see `reload`.

mod quantity;
mod schema;
mod validate;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_path_to_error::Segment;

use nagi_core::id::{Host, PoolName, WorkloadId};
use nagi_core::quantity::{Replicas, WakeCount};

/// Largest workload file read. A thousand workloads of a screen each are 2 MB; 4 MiB bounds memory, not users.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Problems reported at once. More would scroll the first ones, which often cause the others, off the screen.
const PROBLEMS_MAX: usize = 20;

/// Deepest nesting of the file. The schema needs six levels.
const DEPTH_MAX: usize = 16;

/// What a file without any content is told.
const EMPTY: &str = "the file is empty: it needs `workloads:`";

/// The name of the pool that exists when the file gives none.
pub const DEFAULT_POOL: &str = "default";

/// The file as read and checked: every reference resolves, every value is within its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadFile {
    /// Pools by name; never empty.
    pub pools: BTreeMap<PoolName, PoolSpec>,
    /// Workloads in the order of the file.
    pub workloads: Vec<WorkloadSpec>,
    /// What is allowed but hardly meant, at most twenty, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// A pool of equal nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// Unique name.
    pub name: PoolName,
    /// From the decision to boot until replicas can start.
    pub boot: Duration,
    /// How long an empty node stays.
    pub release_after: Duration,
    /// Price of a node for an hour, in millionths of the currency.
    pub price_per_hour_micro: u64,
    /// Nodes at most at one time.
    pub nodes_max: u32,
    /// What one node offers.
    pub capacity: Resources,
}

/// An amount of processors, memory and GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Whole GPUs.
    pub gpu: u32,
}

/// A workload: what to run, how to tell that it serves, and where it may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadSpec {
    /// Project and name; the kind is always `deployments`.
    pub id: WorkloadId,
    /// Program and arguments; the program is absolute or is looked up in `PATH`. Never empty.
    pub command: Vec<String>,
    /// Environment added to what every child gets.
    pub env: BTreeMap<String, String>,
    /// Absolute directory the command starts in.
    pub working_directory: PathBuf,
    /// The declared port; `None` for a workload that serves nothing.
    pub port: Option<u16>,
    /// When a replica counts as ready.
    pub readiness: Readiness,
    /// Name of its pool; exists in the same file.
    pub pool: PoolName,
    /// What one replica takes of a node.
    pub resources: Resources,
    /// Replicas when the workload is seen for the first time.
    pub replicas: Replicas,
    /// Replicas after a wake that names no count.
    pub awake_replicas: Option<WakeCount>,
    /// Host names, lower case, each claimed by one workload only.
    pub hosts: Vec<Host>,
    /// Sleep after this time without traffic; `None` for never.
    pub idle_after: Option<Duration>,
    /// Labels for filters.
    pub labels: BTreeMap<String, String>,
    /// Time between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
}

/// When a replica counts as ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// When its process has run for a second: nothing else tells one that stays from one that ends at once.
    Running,
    /// When its port accepts a connection.
    Tcp,
    /// When a GET of this path answers 200 to 399.
    Http {
        /// Starts with a slash.
        path: String,
    },
}

/// One thing that is wrong with the file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 when the place is unknown.
    pub line: u64,
    /// Column in characters, from 1; 0 when the place is unknown.
    pub column: u64,
    /// Path of the field, for example `workloads[2].pool`; `.` for the whole file.
    pub field: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// Why a workload file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file could not be read.
    #[error("cannot read workload file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than [`FILE_BYTES_MAX`].
    #[error("workload file {} is larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The content is not usable. Holds at least one problem.
    #[error("workload file {} is not valid: {}", path.display(), Problems(problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, in the order of the file.
        problems: Vec<Problem>,
    },
}

/// Shows problems one after the other.
struct Problems<'a>(&'a [Problem]);

// === impl WorkloadFile ===

impl WorkloadFile {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`FileError::Read`] and [`FileError::TooLarge`] when it cannot be read, [`FileError::Invalid`] with every
    /// problem found otherwise.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let read = |source| FileError::Read {
            path: path.to_path_buf(),
            source,
        };
        let file = std::fs::File::open(path).map_err(read)?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(read)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
            return Err(FileError::TooLarge {
                path: path.to_path_buf(),
            });
        }
        let absolute = std::path::absolute(path).map_err(read)?;
        let directory = absolute.parent().unwrap_or(Path::new("/"));
        Self::parse(&bytes, directory).map_err(|problems| FileError::Invalid {
            path: path.to_path_buf(),
            problems,
        })
    }

    /// Checks the content of a file that lies in `directory` (absolute; relative paths start there).
    ///
    /// # Errors
    /// The problems, at least one and at most twenty, in the order of the file.
    pub fn parse(content: &[u8], directory: &Path) -> Result<Self, Vec<Problem>> {
        let document = document(content).map_err(|problem| vec![problem])?;
        validate::file(document, directory)
    }

    /// The JSON schema (2020-12) of the file, for editors and for documentation.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(schema::Document).to_value()
    }
}

/// What a process was started from, in a few characters: another digest means that it must be replaced.
///
/// What can change without touching the process (hosts, labels, idle time, grace, counts) is left out. Readiness is in, as
/// in a pod template: it belongs to the program that is asked.
pub fn digest(spec: &WorkloadSpec) -> String {
    use sha2::{Digest as _, Sha256};
    let readiness = match &spec.readiness {
        Readiness::Running => "running",
        Readiness::Tcp => "tcp",
        Readiness::Http { path } => path,
    };
    let parts = serde_json::json!([
        readiness,
        spec.command,
        spec.env,
        spec.working_directory,
        spec.port,
        spec.pool.as_str(),
        spec.resources.cpu_milli,
        spec.resources.memory_bytes,
        spec.resources.gpu,
    ]);
    let hash = Sha256::digest(parts.to_string().as_bytes());
    // 64 bits tell apart the few descriptions that one workload ever has.
    let beginning = hash.first_chunk().copied().unwrap_or_default();
    format!("{:016x}", u64::from_be_bytes(beginning))
}

/// Reads the document, or says what kept the first unreadable value from being read.
fn document(content: &[u8]) -> Result<schema::Document, Problem> {
    let text = std::str::from_utf8(content).map_err(|error| {
        let before = content.get(..error.valid_up_to()).unwrap_or_default();
        let line_start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let lines = before.split(|byte| *byte == b'\n').count();
        let column = String::from_utf8_lossy(before.get(line_start..).unwrap_or_default());
        Problem {
            line: u64::try_from(lines).unwrap_or(0),
            column: u64::try_from(column.chars().count() + 1).unwrap_or(0),
            field: ".".to_owned(),
            message: "a byte that is not UTF-8; allowed: UTF-8 text".to_owned(),
        }
    })?;
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_documents: 2,
        },
        strict_booleans: true,
        with_snippet: false,
    };
    let mut field = None;
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            field = Some(field_path(error.path()));
            error.into_inner()
        })
    })
    .map_err(|error| {
        let (line, column) = error
            .location()
            .map_or((0, 0), |at| (at.line(), at.column()));
        let field = field.unwrap_or_else(|| ".".to_owned());
        Problem {
            line,
            column,
            message: words::said(&error, &field),
            field,
        }
    })
}

/// The path of a field as people write it: without the step that [`serde_saphyr::Spanned`] adds under each value.
fn field_path(path: &serde_path_to_error::Path) -> String {
    let mut text = String::new();
    // Only in these maps may a key of the file itself be called like the step that is left out.
    let mut in_free_map = false;
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                text.push('[');
                text.push_str(&index.to_string());
                text.push(']');
            }
            Segment::Map { key } if key == "value" && !in_free_map => {}
            Segment::Map { key } | Segment::Enum { variant: key } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
                in_free_map = !in_free_map && (key == "env" || key == "labels");
            }
            // What stands there has no name: a key that cannot be read, or stands twice.
            Segment::Unknown => {}
        }
    }
    if text.is_empty() {
        ".".to_owned()
    } else {
        text
    }
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            field,
            message,
        } = self;
        write!(
            formatter,
            "line {line}, column {column}: {field}: {message}"
        )
    }
}

// === impl Problems ===

impl fmt::Display for Problems<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("; ")?;
            }
            problem.fmt(formatter)?;
        }
        Ok(())
    }
}
