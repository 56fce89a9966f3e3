//! At the start of an engine: which replicas of an earlier one still run, and the end of everything else it left.
//!
//! Three cases for each launch record. A supervisor that lives under the recorded pid and start time, on this boot, is
//! adopted with its replica. One that is gone and left an exit record, or belongs to another boot, leaves only files, which
//! are removed. One that is gone without a word was killed: its processes are found by their mark and killed. A supervisor
//! that has written no record yet will find this engine in charge and give way, so its launch record is removed as well.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nagi_core::id::{Name, Namespace, NodeName, PoolName, WorkloadId};
use rustix::process::Signal;
use tokio::sync::watch;

use super::Runner;
use super::attempt::{Attempt, kill_marked, remove_records};
use super::replica::{Replica, Running as RunningReplica};
use crate::disk;
use crate::file::Resources;
use crate::process::{boot_id, marked_with_prefix};
use crate::shim::record::{self, EngineInCharge, Kind, Launch, REPLICA_VARIABLE, Running};
use crate::store::{StoreError, entries};
use crate::world::{NodeState, Phase, Place, ReplicaId};

/// Between two looks for left-over processes.
const SWEEP_PAUSE: Duration = Duration::from_millis(10);
/// Looks for left-over processes before the start goes on without those that cannot be killed: half a second.
const SWEEP_LOOKS_MAX: usize = 50;

/// A replica that still runs.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: ReplicaId,
    pub(super) directory: PathBuf,
    pub(super) launch: Launch,
    pub(super) supervisor: OwnedFd,
}

impl Runner {
    /// Takes over a replica of an earlier engine.
    pub(super) fn adopt(&mut self, found: Found, now: Duration) {
        let Found {
            id,
            directory,
            launch,
            supervisor,
        } = found;
        let Ok(node) = NodeName::new(launch.node.clone()) else {
            return;
        };
        let (_, descriptions) = self.shared.descriptions();
        let description = descriptions
            .into_iter()
            .find(|one| one.spec.id == id.workload);
        if self.nodes.nodes.iter().all(|known| known.name != node)
            && let Some((pool, _)) = launch.node.rsplit_once('-')
            && let Ok(pool) = PoolName::new(pool)
        {
            // The file of the nodes was lost: where somebody runs, there is a node.
            let phase = Phase::Ready { release_at: None };
            self.nodes.nodes.push(NodeState {
                name: node.clone(),
                pool,
                phase,
            });
        }
        tracing::info!(
            namespace = %id.workload.namespace, workload = %id.workload.name, replica = %id.name(),
            "Replica adopted"
        );
        let (stop, stopped) = watch::channel(None);
        let attempt = Attempt {
            id: id.clone(),
            directory,
            launch: launch.clone(),
            readiness: description.map_or(crate::file::Readiness::Running, |one| {
                one.spec.readiness.clone()
            }),
            // It has outlived the engine that started it, and a workload that runs is not to fall back.
            settles: Duration::ZERO,
            shim: Arc::clone(&self.shim),
            blocking: self.blocking.clone(),
            stop: stopped,
            reports: self.report.clone(),
        };
        let resources = Resources {
            cpu_milli: launch.cpu_milli,
            memory_bytes: launch.memory_bytes,
            gpu: launch.gpu,
        };
        let running = RunningReplica {
            launch,
            since: now,
            started: true,
            ready: false,
            served: false,
            unready: None,
            stop,
        };
        self.replicas
            .insert(id, Replica::adopted(Place::On { node, resources }, running));
        self.adopted.push((attempt, supervisor));
    }
}

/// Finds what still runs below `replicas` and ends the rest. Blocks for some milliseconds.
///
/// # Errors
/// [`StoreError::Read`] when `/proc` cannot be read.
pub(super) fn find(replicas: &Path, in_charge: &EngineInCharge) -> Result<Vec<Found>, StoreError> {
    let boot = boot_id().map_err(|source| {
        let path = PathBuf::from("/proc/sys/kernel/random/boot_id");
        StoreError::Read { path, source }
    })?;
    let mut found: Vec<Found> = Vec::new();
    // A directory without a record was left in order, and one look confirms it.
    let mut looks = 1;
    for (id, directory) in directories(replicas) {
        for (attempt, launch) in launches(&directory) {
            looks = 2;
            match supervisor(&directory, &attempt, &boot) {
                // A second attempt of one replica cannot be: the first was ended before. Trust one, end the other.
                Some(supervisor) if found.iter().all(|other| other.id != id) => {
                    let (id, directory) = (id.clone(), directory.clone());
                    found.push(Found {
                        id,
                        directory,
                        launch,
                        supervisor,
                    });
                }
                Some(supervisor) => end_supervised(&directory, &launch, &supervisor),
                None => end(&directory, &launch),
            }
        }
    }
    sweep(in_charge, &found, looks);
    Ok(found)
}

/// Ends all that still runs below `replicas`, and whatever else an engine of this state directory left.
///
/// # Errors
/// [`StoreError::Read`] when `/proc` cannot be read.
pub(super) fn end_all(replicas: &Path, in_charge: &EngineInCharge) -> Result<(), StoreError> {
    let found = find(replicas, in_charge)?;
    for one in &found {
        end_supervised(&one.directory, &one.launch, &one.supervisor);
    }
    if !found.is_empty() {
        sweep(in_charge, &[], 2);
    }
    Ok(())
}

/// The directories of all replicas there ever were.
fn directories(replicas: &Path) -> Vec<(ReplicaId, PathBuf)> {
    let mut all = Vec::new();
    for (namespace, path) in entries(replicas) {
        let Ok(namespace) = Namespace::new(namespace) else {
            continue;
        };
        for (name, path) in entries(&path) {
            let Ok(name) = Name::new(name) else { continue };
            let workload = WorkloadId::deployment(namespace.clone(), name);
            for (number, path) in entries(&path) {
                if let Ok(number) = number.parse() {
                    all.push((
                        ReplicaId {
                            workload: workload.clone(),
                            number,
                        },
                        path,
                    ));
                }
            }
        }
    }
    all
}

/// The launch records in a directory. One that cannot be read is removed: what it started is found by its mark.
fn launches(directory: &Path) -> Vec<(String, Launch)> {
    let names = entries(directory).into_iter();
    names
        .filter_map(|(name, path)| {
            let attempt = Kind::Launch.attempt_of(&name)?.to_owned();
            let launch = record::read(&path);
            if launch.is_none() {
                for kind in [Kind::Running, Kind::Exit, Kind::Launch] {
                    disk::remove_file(&kind.path(directory, &attempt));
                }
            }
            Some((attempt, launch?))
        })
        .collect()
}

/// The living supervisor of an attempt.
fn supervisor(directory: &Path, attempt: &str, boot: &str) -> Option<OwnedFd> {
    let running: Running = record::read(&Kind::Running.path(directory, attempt))?;
    if running.boot_id != boot || !running.supervisor.is_alive() {
        return None;
    }
    running.supervisor.open().ok()?
}

/// Ends the supervisor first: alive, it would report an end that nobody asked it for.
fn end_supervised(directory: &Path, launch: &Launch, supervisor: &OwnedFd) {
    rustix::process::pidfd_send_signal(supervisor, Signal::KILL).ok();
    end(directory, launch);
}

fn end(directory: &Path, launch: &Launch) {
    kill_marked(launch);
    remove_records(directory, launch);
}

/// Kills every process that an engine of this state directory started and that belongs to nothing that was found.
/// Done after so many `looks` without any. One is enough where nothing was ever started; a process in the middle of
/// `exec` shows no mark for some microseconds, so otherwise it takes two.
fn sweep(in_charge: &EngineInCharge, found: &[Found], mut looks: usize) {
    let wanted: BTreeSet<&str> = found
        .iter()
        .map(|found| found.launch.mark.as_str())
        .collect();
    let prefix = format!("{REPLICA_VARIABLE}={}/", in_charge.instance);
    let mut clean_looks = 0;
    for _ in 0..SWEEP_LOOKS_MAX {
        let marked = marked_with_prefix(&prefix);
        let strays: Vec<_> = marked
            .into_iter()
            .filter(|(_, entry)| {
                let mark = entry.split_once('=').map_or("", |(_, mark)| mark);
                !wanted.contains(mark)
            })
            .collect();
        clean_looks = if strays.is_empty() {
            clean_looks + 1
        } else {
            0
        };
        if clean_looks >= looks {
            return;
        }
        if !strays.is_empty() {
            looks = 2;
        }
        for (process, mark) in strays {
            tracing::warn!(
                pid = process.pid,
                mark,
                "Process left by an earlier engine is killed"
            );
            drop(process.signal(Signal::KILL));
        }
        pause();
    }
    tracing::error!("Processes left by an earlier engine could not be killed");
}

#[expect(
    clippy::disallowed_methods,
    reason = "on a blocking thread, before the engine serves"
)]
fn pause() {
    std::thread::sleep(SWEEP_PAUSE);
}
