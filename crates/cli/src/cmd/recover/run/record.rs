//! The lock, and what a killed run leaves for the report of the next: what was before it, and what it did.
//!
//! It lies in memory and no step depends on it: what is to be done is read from the world each time.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use nagi_guard::{RunError, RunFiles, RunLock};

use super::report::{DoneBody, Record, SeenBody, State};

const LOCK: &str = "recover.lock";
const RECORD: &str = "recover.json";
/// What was left longer ago is of another incident: a recovery takes minutes.
const GOES_ON: Duration = Duration::from_hours(1);

/// One recovery at a time.
#[derive(Debug)]
pub(super) struct Journal {
    files: RunFiles,
    record: Option<Record>,
    trouble: Option<String>,
    _lock: RunLock,
}

// === impl Journal ===

impl Journal {
    /// Takes the lock.
    ///
    /// # Errors
    /// Somebody else has it, or there is nowhere for it.
    pub(super) fn open(root: &Path) -> Result<Self, RunError> {
        let files = RunFiles::open(root)?;
        let lock = files.lock(LOCK)?;
        Ok(Self {
            files,
            record: None,
            trouble: None,
            _lock: lock,
        })
    }

    /// A run that was killed has left its record.
    pub(super) fn is_resumed(&self, now: Timestamp) -> bool {
        self.left(now).is_some()
    }

    fn left(&self, now: Timestamp) -> Option<Record> {
        let left = self.files.read(RECORD).ok().flatten();
        let left = left.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
        left.filter(|record| {
            let began = record.began.parse::<Timestamp>();
            began.is_ok_and(|began| now.duration_since(began).unsigned_abs() <= GOES_ON)
        })
    }

    /// The files of the plan with this digest, where a killed run had begun with it.
    pub(super) fn begun_with(&self, digest: &str, now: Timestamp) -> Option<Vec<String>> {
        let seen = self.left(now)?.seen?;
        (seen.digest == digest).then_some(seen.files)
    }

    /// Begins, or goes on with what a killed run left.
    pub(super) fn begin(
        &mut self,
        now: Timestamp,
        before: &State,
        seen: Option<SeenBody>,
    ) -> Record {
        let mut record = self.left(now).unwrap_or_else(|| Record {
            began: now.to_string(),
            before: before.clone(),
            done: Vec::new(),
            seen: None,
        });
        record.seen = seen.or(record.seen);
        let copy = Record {
            began: record.began.clone(),
            before: record.before.clone(),
            done: record.done.clone(),
            seen: None,
        };
        self.record = Some(record);
        self.keep();
        copy
    }

    /// A step is done.
    pub(super) fn add(&mut self, done: DoneBody) {
        if let Some(record) = &mut self.record {
            record.done.push(done);
        }
        self.keep();
    }

    /// The run ended by itself.
    pub(super) fn end(&mut self) {
        if let Err(error) = self.files.remove(RECORD) {
            self.trouble = Some(error.to_string());
        }
        self.record = None;
    }

    /// Why it could not be written.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn keep(&mut self) {
        let Some(record) = &self.record else {
            return;
        };
        let written = serde_json::to_vec(record)
            .map_err(|error| error.to_string())
            .and_then(|bytes| {
                let written = self.files.write(RECORD, &bytes);
                written.map_err(|error| error.to_string())
            });
        if let Err(why) = written {
            self.trouble = Some(why);
        }
    }
}
