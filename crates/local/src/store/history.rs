//! What happened, in two files of bounded size: one line of JSON for each change, the newest last.
//!
//! Lines are appended and not synced: the last five changes of every workload lie in its own file, which is synced, and
//! at the start [`History::complete`] adds those that are missing here. Losing this file loses history, never
//! correctness, so a line that cannot be read is skipped and a write that fails is reported once by the caller.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nagi_core::id::{Name, Namespace, Resource, WorkloadId};
use nagi_core::intent::Change;
use nagi_ports::{HistoryEntry, HistoryPage, HistoryQuery};
use serde::{Deserialize, Serialize};

use super::stored::StoredChange;
use crate::disk::{self, WriteError};

/// Size at which a new file is begun. A line has some 300 bytes, so both files together reach back at least 7,000 and at
/// most 14,000 changes, and are read in a few hundredths of a second.
const FILE_BYTES_MAX: u64 = 2 << 20;

pub(super) const NEWEST: &str = "history.jsonl";
pub(super) const OLDER: &str = "history.1.jsonl";

/// Where an entry that was written when it happened comes from.
pub const SOURCE_JOURNAL: &str = "journal";
/// Where an entry that only the workload's own file still knew comes from.
pub const SOURCE_OBJECT: &str = "object";

/// Appends to the history and reads it.
#[derive(Debug)]
pub struct History {
    directory: PathBuf,
    file: Option<File>,
    size: u64,
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    id: u64,
    resource: String,
    namespace: String,
    name: String,
    #[serde(default)]
    from_object: bool,
    #[serde(flatten)]
    change: StoredChange,
}

// === impl History ===

impl History {
    /// The history in a state directory. It is opened at the first append.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            directory: directory.to_path_buf(),
            file: None,
            size: 0,
        }
    }

    /// Appends one entry.
    ///
    /// # Errors
    /// [`WriteError`]; the files are as before.
    pub fn append(&mut self, entry: &HistoryEntry) -> Result<(), WriteError> {
        let path = self.directory.join(NEWEST);
        let failed = |source: io::Error| WriteError::new(&path, source);
        let mut line =
            serde_json::to_vec(&Line::from(entry)).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        if self.size >= FILE_BYTES_MAX {
            self.file = None;
            fs::rename(&path, self.directory.join(OLDER)).map_err(failed)?;
        }
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            let mut file = options
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            if disk::ends_inside_a_line(&file, size).map_err(failed)? {
                // What a crash tore must not take the next line with it.
                file.write_all(b"\n").map_err(failed)?;
            }
            self.size = file.metadata().map_err(failed)?.len();
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        if let Err(error) = file.write_all(&line) {
            // A torn line would take the next one with it.
            drop(file.set_len(self.size));
            return Err(failed(error));
        }
        self.size += u64::try_from(line.len()).unwrap_or(0);
        Ok(())
    }

    /// Adds the changes that a workload remembers and the history does not know, in the order of time.
    ///
    /// # Errors
    /// [`WriteError`] when they could not be written; the next start tries again.
    pub fn complete(
        &mut self,
        remembered: impl IntoIterator<Item = (WorkloadId, Vec<Change>)>,
        mut next_id: impl FnMut() -> u64,
    ) -> Result<(), WriteError> {
        let known = read_lines(&self.directory);
        let mut missing: Vec<(WorkloadId, Change)> = remembered
            .into_iter()
            .flat_map(|(id, changes)| changes.into_iter().map(move |change| (id.clone(), change)))
            .filter(|(id, change)| {
                let stored = StoredChange::from(change);
                !known
                    .iter()
                    .any(|line| line.is_of(id) && line.change == stored)
            })
            .collect();
        missing.sort_by_key(|(_, change)| change.time);
        for (workload, change) in missing {
            let entry = HistoryEntry {
                id: next_id(),
                workload,
                change,
                source: SOURCE_OBJECT,
            };
            self.append(&entry)?;
        }
        Ok(())
    }
}

/// Reads a page of the history of a state directory, newest first. Blocks for some hundredths of a second.
pub fn read(directory: &Path, query: &HistoryQuery) -> HistoryPage {
    let lines = read_lines(directory);
    let reaches_back_to = lines
        .iter()
        .find_map(|line| Change::try_from(line.change.clone()).ok());
    let mut entries = Vec::new();
    let mut more = false;
    for line in lines.into_iter().rev() {
        if query.before.is_some_and(|before| line.id >= before)
            || query
                .namespace
                .as_ref()
                .is_some_and(|wanted| wanted.as_str() != line.namespace)
            || query
                .name
                .as_ref()
                .is_some_and(|wanted| wanted.as_str() != line.name)
        {
            continue;
        }
        let Ok(entry) = HistoryEntry::try_from(line) else {
            continue;
        };
        if query.since.is_some_and(|since| entry.change.time < since) {
            continue;
        }
        if entries.len() >= query.limit {
            more = true;
            break;
        }
        entries.push(entry);
    }
    HistoryPage {
        entries,
        more,
        reaches_back_to: reaches_back_to.map(|change| change.time),
    }
}

/// The readable lines of both files, oldest first.
fn read_lines(directory: &Path) -> Vec<Line> {
    [OLDER, NEWEST]
        .iter()
        .flat_map(|name| {
            let content = fs::read(directory.join(name)).unwrap_or_default();
            let lines = content.split(|byte| *byte == b'\n');
            lines
                .filter_map(|line| serde_json::from_slice(line).ok())
                .collect::<Vec<Line>>()
        })
        .collect()
}

// === impl Line ===

impl Line {
    fn is_of(&self, id: &WorkloadId) -> bool {
        self.name == id.name.as_str()
            && self.namespace == id.namespace.as_str()
            && self.resource == id.resource.as_str()
    }
}

impl From<&HistoryEntry> for Line {
    fn from(entry: &HistoryEntry) -> Self {
        Self {
            id: entry.id,
            resource: entry.workload.resource.to_string(),
            namespace: entry.workload.namespace.to_string(),
            name: entry.workload.name.to_string(),
            from_object: entry.source == SOURCE_OBJECT,
            change: StoredChange::from(&entry.change),
        }
    }
}

impl TryFrom<Line> for HistoryEntry {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        let name_error = |error: nagi_core::id::NameError| error.to_string();
        let workload = WorkloadId {
            resource: Resource::new(line.resource).map_err(name_error)?,
            namespace: Namespace::new(line.namespace).map_err(name_error)?,
            name: Name::new(line.name).map_err(name_error)?,
        };
        let source = if line.from_object {
            SOURCE_OBJECT
        } else {
            SOURCE_JOURNAL
        };
        Ok(Self {
            id: line.id,
            workload,
            change: Change::try_from(line.change)?,
            source,
        })
    }
}
