//! The state directory: what must survive any process, and who may write it.
//!
//! ```text
//! lock                              held by the engine in charge, by flock
//! engine.json                       instance, generation, the engine's process
//! workloads/NAMESPACE/NAME.json     what is wanted of a workload, and what is remembered
//! nodes.json                        nodes and their account
//! history.jsonl, history.1.jsonl    what happened, oldest file removed first
//! replicas/NAMESPACE/NAME/REPLICA/  records and output of replicas, see `shim`
//! ```
//!
//! A file of a workload is synced before anybody hears of its content, and overwritten in place without touching what was
//! acknowledged before, see `slots`. One that cannot be read back stops the start with an error that names it: to go on would
//! mean to forget what was wanted. There is no cache here; the engine keeps what it read and is the only writer while it
//! holds the lock.

pub mod history;

mod slots;
mod stored;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use nagi_core::id::{Name, Namespace, Uid, Version, WorkloadId};
use nagi_core::intent::IntentUpdate;
use nagi_core::quantity::Replicas;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::slots::{Slot, Slots};
use crate::disk::{self, Survives, WriteError};
use crate::process::ProcessId;
use crate::shim::record::EngineInCharge;

/// How long a start waits for the lock: a killed engine gives it up when the kernel has taken the process apart, and a
/// child that it was just starting holds it until it runs its own program.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Versions of one generation of an engine. At 200 writes a second they last for more than a year, and the numbers stay
/// below 2⁵³, which JSON readers hold exactly, for 900,000 generations.
const VERSIONS_OF_A_GENERATION: u64 = 10_000_000_000;
/// Locked by the engine in charge.
const LOCK: &str = "lock";
/// Who is in charge.
const ENGINE: &str = "engine.json";
/// The other directories and files of an engine.
const DIRECTORIES: [&str; 2] = ["workloads", "replicas"];
const FILES: [&str; 3] = [crate::runner::NODES_FILE, history::NEWEST, history::OLDER];
/// Largest state file read back; the largest written has five changes of 500 characters and a few instants.
const STATE_BYTES_MAX: u64 = 1 << 20;

/// What is wanted of one workload and remembered about it, as it lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Which life of the workload this is.
    pub uid: Uid,
    /// Version of the last write.
    pub version: Version,
    /// `replicas` in the workload file when it was last taken over; another number there is a change by a person.
    pub declared: Replicas,
    /// Wanted count and intent.
    pub update: IntentUpdate,
    /// Since when the workload file does not name it any more: kept for when it comes back, which is the same life.
    pub removed: Option<Timestamp>,
}

/// The state directory, with the lock on it.
#[derive(Debug)]
pub struct StateDirectory {
    root: PathBuf,
    /// Held while the engine lives; the kernel gives it up with the last descriptor.
    lock: File,
    in_charge: EngineInCharge,
    versions: AtomicU64,
}

/// Why the state directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another engine holds it.
    #[error("state directory {} is in use by another nagi ({holder})", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its process id, as it wrote it down.
        holder: String,
    },
    /// It is not for starts from nothing, or holds what none of them wrote.
    #[error("{} belongs to somebody else, and would be replaced", path.display())]
    Foreign {
        /// What is there.
        path: PathBuf,
    },
    /// The lock could not be taken for another reason.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file holds something else than what was once written.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Something could not be written.
    #[error("cannot write the state directory")]
    Write(#[from] WriteError),
    /// The system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(String),
}

// === impl StoreError ===

impl StoreError {
    /// The next step. Another state directory is never one where something may be remembered here: a Nagi without it would
    /// know neither what was wanted nor which replicas run.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::InUse { .. } => {
                "end the other nagi, or give this one a directory of its own with --state-dir"
            }
            Self::Foreign { .. } => "give this nagi a directory of its own with --state-dir",
            Self::Lock { .. } => {
                "the state directory needs a file system with locks, such as a local disk: move it to one and name it with --state-dir"
            }
            Self::Read { .. } => {
                "what is wanted of the workloads lies there: give this user the right to read it, or start nagi as the user who did before"
            }
            Self::Damaged { .. } => {
                "put the file back from a backup of the state directory; without one move it away, and what it remembers begins anew from the workload file. \
                 Do not start in another directory: replicas that still run would be started a second time"
            }
            Self::Write(WriteError::Full { .. }) => {
                "make room on the disk of the state directory (also for the user's quota), or mount it for writing"
            }
            Self::Write(WriteError::Away { .. }) => {
                "put the directory back, or mount it again: nagi goes on by itself"
            }
            Self::Write(WriteError::Other { .. }) => {
                "may this user write there? For a first start, any directory of yours will do: --state-dir"
            }
            Self::Random(_) => "is there a sandbox around nagi that forbids getrandom?",
        }
    }
}

// === impl StateDirectory ===

impl StateDirectory {
    /// Makes the directory where needed, takes the lock and puts this process in charge. Blocks for up to 2 s.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing is left running or locked.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        disk::make_directory(root)?;
        let lock = lock(root)?;
        Self::take(root, lock, false)
    }

    /// The same for an engine that begins from nothing each time. What is in the directory is still there when this returns;
    /// [`Self::clear`] takes it away.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Foreign`] when there is what another engine must not forget, which stays as it is.
    pub(crate) fn open_anew(root: &Path) -> Result<Self, StoreError> {
        check_forgettable(root)?;
        disk::make_directory(root)?;
        let lock = lock(root)?;
        // Under the lock nobody else begins.
        check_forgettable(root)?;
        Self::take(root, lock, true)
    }

    /// Forgets everything but which engine this is. A start that is cut off in here is made good by the next one.
    ///
    /// # Errors
    /// [`WriteError`] of the first thing that could not be taken away.
    pub(crate) fn clear(&self) -> Result<(), WriteError> {
        for name in DIRECTORIES {
            disk::clear_directory(&self.root.join(name))?;
        }
        for name in FILES {
            disk::clear_file(&self.root.join(name))?;
        }
        Ok(())
    }

    /// Puts this process in charge of a directory that it has the lock of.
    fn take(root: &Path, lock: File, begins_anew: bool) -> Result<Self, StoreError> {
        for name in DIRECTORIES {
            disk::make_directory(&root.join(name))?;
        }
        let path = root.join(ENGINE);
        let before: Option<EngineInCharge> = read_state(&path)?;
        let (instance, generation) = match before {
            Some(before) => (before.instance, before.generation + 1),
            None => (random_id()?, 1),
        };
        let engine = ProcessId::current().map_err(|source| StoreError::Read {
            path: PathBuf::from("/proc/self"),
            source,
        })?;
        let in_charge = EngineInCharge {
            instance,
            generation,
            engine,
            begins_anew,
        };
        // Before anybody looks for records of replicas: see the head of `shim`.
        write_state(&path, &in_charge, Survives::PowerLoss)?;
        let versions = AtomicU64::new(generation.saturating_mul(VERSIONS_OF_A_GENERATION));
        Ok(Self {
            root: root.to_path_buf(),
            lock,
            in_charge,
            versions,
        })
    }

    /// Whether the directory is still where it was opened. What is written to a path may go elsewhere: the directory was
    /// moved, its file system unmounted, another one mounted over it.
    ///
    /// # Errors
    /// [`WriteError::Away`]; [`WriteError::Other`] when the system cannot tell.
    pub fn check_in_place(&self) -> Result<(), WriteError> {
        use std::os::unix::fs::MetadataExt as _;
        let path = self.root.join(LOCK);
        let opened = self
            .lock
            .metadata()
            .map_err(|source| WriteError::new(&path, source))?;
        match fs::symlink_metadata(&path) {
            Ok(found) if (found.dev(), found.ino()) == (opened.dev(), opened.ino()) => Ok(()),
            Ok(_) => Err(self.away()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.away()),
            Err(source) => Err(WriteError::new(&path, source)),
        }
    }

    fn away(&self) -> WriteError {
        WriteError::Away {
            path: self.root.clone(),
        }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that says who is in charge.
    pub fn engine_file(&self) -> PathBuf {
        self.root.join(ENGINE)
    }

    /// Who is in charge: this engine.
    pub const fn in_charge(&self) -> &EngineInCharge {
        &self.in_charge
    }

    /// The directory of the records of all replicas.
    pub fn replicas(&self) -> PathBuf {
        self.root.join("replicas")
    }

    /// The directory of the records and the output of one workload's replicas.
    pub fn workload_replicas(&self, id: &WorkloadId) -> PathBuf {
        self.replicas()
            .join(id.namespace.as_str())
            .join(id.name.as_str())
    }

    /// A version that was never given out before, and larger than all that were.
    pub fn next_version(&self) -> Version {
        Version::new(self.versions.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// A name for a new life of a workload.
    ///
    /// # Errors
    /// [`StoreError::Random`].
    pub fn new_uid() -> Result<Uid, StoreError> {
        Ok(Uid::new(random_id()?))
    }

    /// What is remembered of a workload; `None` when nothing was ever written.
    ///
    /// # Errors
    /// [`StoreError::Read`] and [`StoreError::Damaged`], never a made-up state.
    pub fn read_workload(&self, id: &WorkloadId) -> Result<Option<Remembered>, StoreError> {
        let path = self.workload_path(id);
        let Some(slots) = read_slots(&path)? else {
            return Ok(None);
        };
        let damaged = |why| StoreError::Damaged {
            path: path.clone(),
            why,
        };
        let [first, second] = [Slot::First, Slot::Second].map(|slot| in_slot(&slots, slot));
        match (first, second) {
            (Ok(first), Ok(second)) => {
                let newest = first.into_iter().chain(second).max_by_key(|s| s.version);
                newest
                    .map(Some)
                    .ok_or_else(|| damaged("it is empty".to_owned()))
            }
            // A write that power was lost in, of which nobody had heard: nothing is missing. Or the disk spoiled a state that
            // was acknowledged: then what holds now is one change old. Nothing here tells the two apart, so a person must.
            (Ok(Some(whole)), Err(why)) | (Err(why), Ok(Some(whole))) => {
                tracing::error!(
                    namespace = %id.namespace, workload = %id.name, file = %path.display(), error = why,
                    "Half of a state file is unreadable, the state in its other half holds and may be one change old"
                );
                Ok(Some(whole))
            }
            (Err(why), Ok(None) | Err(_)) | (Ok(None), Err(why)) => {
                in_old_file(&slots).map_or_else(|| Err(damaged(why)), |state| Ok(Some(state)))
            }
        }
    }

    /// Writes what is wanted of a workload. When it returns, it survives the loss of power. `acknowledged` is the version of
    /// the last write that succeeded, `None` for the first: that state is kept until this one is safe.
    ///
    /// # Errors
    /// [`WriteError`]; the state before is still there then.
    pub fn write_workload(
        &self,
        id: &WorkloadId,
        acknowledged: Option<Version>,
        state: &Remembered,
    ) -> Result<(), WriteError> {
        self.check_in_place()?;
        let path = self.workload_path(id);
        let content = encoded(&path, &stored::Workload::from(state))?;
        let slots = acknowledged.and_then(|_| read_slots(&path).ok().flatten());
        let kept = slots.as_ref().and_then(|slots| {
            let holds = |slot: &Slot| {
                in_slot(slots, *slot).is_ok_and(|state| state.map(|s| s.version) == acknowledged)
            };
            let slot = [Slot::First, Slot::Second].into_iter().find(holds)?;
            slots::fits(slots, &content).then_some(slot)
        });
        if let Some(kept) = kept {
            return slots::overwrite(&path, kept.other(), &content);
        }
        match slots::create(&path, &content) {
            Err(WriteError::Other { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                // The first workload of its namespace. The directory's own entry is synced with its parent.
                let namespace = path.parent().unwrap_or(&self.root);
                disk::make_directory(namespace)?;
                let parent = self.root.join("workloads");
                disk::sync_directory(&parent).map_err(|error| WriteError::new(&parent, error))?;
                slots::create(&path, &content)
            }
            written => written,
        }
    }

    /// Every workload of which something is remembered, described or not. What cannot be listed is left out.
    pub fn workloads(&self) -> Vec<WorkloadId> {
        let mut found = Vec::new();
        for (namespace, path) in entries(&self.root.join("workloads")) {
            let Ok(namespace) = Namespace::new(namespace) else {
                continue;
            };
            for (name, _) in entries(&path) {
                if let Some(name) = name.strip_suffix(".json").map(Name::new)
                    && let Ok(name) = name
                {
                    found.push(WorkloadId::deployment(namespace.clone(), name));
                }
            }
        }
        found
    }

    /// Forgets a workload for good.
    pub fn forget_workload(&self, id: &WorkloadId) {
        disk::remove_file(&self.workload_path(id));
    }

    /// Reads another state file of this directory; `None` when it was never written.
    ///
    /// # Errors
    /// [`StoreError::Read`] and [`StoreError::Damaged`].
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        read_state(&self.root.join(name))
    }

    /// Writes another state file of this directory; it survives the loss of power.
    ///
    /// # Errors
    /// [`WriteError`].
    pub(crate) fn write<T: Serialize>(&self, name: &str, state: &T) -> Result<(), WriteError> {
        self.check_in_place()?;
        write_state(&self.root.join(name), state, Survives::PowerLoss)
    }

    fn workload_path(&self, id: &WorkloadId) -> PathBuf {
        let directory = self.root.join("workloads").join(id.namespace.as_str());
        // Not `with_extension`, which would cut a name at its last dot.
        directory.join(format!("{}.json", id.name))
    }
}

/// Whether the file system of a directory will have the room without which every change is refused, when as many bytes have
/// been written to it.
///
/// # Errors
/// [`WriteError::Full`] when it will not.
pub fn check_room(directory: &Path, written: u64) -> Result<(), WriteError> {
    let checked = File::open(directory).and_then(|opened| slots::check_room(&opened, written));
    checked.map_err(|error| WriteError::new(directory, error))
}

/// Whether an engine may begin from nothing here: one that does so each time was here before, or none at all.
///
/// # Errors
/// [`StoreError::Foreign`] with what another engine must not forget; [`StoreError::Read`] and [`StoreError::Damaged`].
pub(crate) fn check_forgettable(root: &Path) -> Result<(), StoreError> {
    let path = root.join(ENGINE);
    let before: Option<EngineInCharge> = read_state(&path)?;
    match before {
        Some(before) if before.begins_anew => return Ok(()),
        Some(_) => return Err(StoreError::Foreign { path }),
        None => {}
    }
    // A start that was cut off early has left empty directories at most.
    let left = DIRECTORIES
        .iter()
        .map(|name| root.join(name))
        .find(|path| !entries(path).is_empty());
    let left = left.or_else(|| {
        let files = FILES.iter().map(|name| root.join(name));
        files.into_iter().find(|path| path.exists())
    });
    left.map_or(Ok(()), |path| Err(StoreError::Foreign { path }))
}

/// A random word of 16 characters.
///
/// # Errors
/// [`StoreError::Random`] when the system has none.
pub(crate) fn random_id() -> Result<String, StoreError> {
    let random = getrandom::u64().map_err(|error| StoreError::Random(error.to_string()))?;
    Ok(format!("{random:016x}"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "before the runtime serves anything: the start waits for its lock"
)]
fn lock(root: &Path) -> Result<File, StoreError> {
    let path = root.join(LOCK);
    let refused = |source| StoreError::Lock {
        path: path.clone(),
        source,
    };
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| StoreError::Write(WriteError::new(&path, source)))?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if waited >= LOCK_WAIT => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                let holder = format!("process {}", holder.trim());
                return Err(StoreError::InUse {
                    path: root.to_path_buf(),
                    holder,
                });
            }
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(LOCK_PAUSE);
                waited += LOCK_PAUSE;
            }
            Err(TryLockError::Error(source)) => return Err(refused(source)),
        }
    }
    // For the message to a second instance; the lock itself does not need it, so a full disk does not matter.
    drop(
        file.set_len(0)
            .and_then(|()| write!(file, "{}", std::process::id())),
    );
    Ok(file)
}

fn read_slots(path: &Path) -> Result<Option<Slots>, StoreError> {
    Ok(read_file(path)?.map(Slots::of))
}

/// The state in a slot; `None` when the slot was never written.
fn in_slot(slots: &Slots, slot: Slot) -> Result<Option<Remembered>, String> {
    let content = slots.get(slot);
    if content.is_empty() {
        return Ok(None);
    }
    let stored: stored::Workload =
        serde_json::from_slice(content).map_err(|error| error.to_string())?;
    Remembered::try_from(stored).map(Some)
}

/// The state in a file of the format before this one, which was a single document.
fn in_old_file(slots: &Slots) -> Option<Remembered> {
    let stored: stored::Workload = serde_json::from_slice(slots.whole()).ok()?;
    Remembered::try_from(stored).ok()
}

fn read_state<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let Some(content) = read_file(path)? else {
        return Ok(None);
    };
    let read = serde_json::from_slice(&content);
    read.map(Some).map_err(|error| StoreError::Damaged {
        path: path.to_path_buf(),
        why: error.to_string(),
    })
}

/// Names and paths in a directory; none when it cannot be read.
pub(crate) fn entries(directory: &Path) -> Vec<(String, PathBuf)> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().into_string().ok()?, entry.path()))
        })
        .collect()
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    use io::Read as _;
    let failed = |source| StoreError::Read {
        path: path.to_path_buf(),
        source,
    };
    let mut content = Vec::new();
    match File::open(path) {
        Ok(file) => {
            file.take(STATE_BYTES_MAX)
                .read_to_end(&mut content)
                .map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    Ok(Some(content))
}

fn write_state<T: Serialize>(path: &Path, state: &T, survives: Survives) -> Result<(), WriteError> {
    let mut content = encoded(path, state)?;
    content.push(b'\n');
    disk::replace(path, &content, survives)
}

fn encoded<T: Serialize>(path: &Path, state: &T) -> Result<Vec<u8>, WriteError> {
    serde_json::to_vec_pretty(state).map_err(|error| WriteError::new(path, error.into()))
}

#[cfg(test)]
mod tests;
