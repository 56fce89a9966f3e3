//! The loop that makes the processes of this machine what is wanted: observe, decide, act, publish, wait.
//!
//! One task owns every replica and every node. Each round reads what is wanted and what is there, lets [`world::decide`]
//! say what to do, does it, and tells the ports what there is now. Rounds are caused by a change of what is wanted, by a
//! report of an attempt, or by an instant that the last round named; a round without cause would change nothing. What
//! takes time (starting, stopping, the disk) happens in the tasks of the attempts.

mod adopt;
mod attempt;
mod launch;
mod nodes;
mod port;
mod probe;
mod publish;
mod replica;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nagi_core::id::{NodeName, PoolName, WorkloadId};
use nagi_runtime::{Blocking, Deadline, Shutdown, TaskSet};
use tokio::sync::{mpsc, watch};

use self::attempt::{Attempt, Message, RUNS_AT_LEAST, Report};
pub(crate) use self::nodes::FILE as NODES_FILE;
pub(crate) use self::nodes::NodeWriter;
use self::nodes::{Nodes, StoredNodes};
use self::replica::{Life, Replica, Running};
use crate::disk;
use crate::engine::OnShutdown;
use crate::engine::shared::{Description, Shared};
use crate::file::PoolSpec;
use crate::process::cgroup::ControlGroup;
use crate::store::{StateDirectory, StoreError};
use crate::world::{self, Place, Plan, ReplicaId, World};

/// Attempts at once, those that are ending included. A thousand workloads of one replica, and as many again on their
/// way out; what does not fit waits for the next round.
const ATTEMPTS_MAX: usize = 2_048;
/// Blocking calls of attempts at once: each is a start of a process or a look through `/proc`, and more at a time would
/// only compete for the same two locks of the kernel.
const BLOCKING_MAX: usize = 4;
/// Reports that wait for the runner. A full queue makes attempts wait, which loses nothing.
const REPORTS_MAX: usize = 1_024;
/// A failed start without any delay of its own (no port, too many attempts) is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// When the process ends and its replicas with it: how long the killing of those may take whose time is over …
const KILL_GRACE: Duration = Duration::from_millis(400);
/// … and how long the last write of the nodes, and the end of the process itself.
const END_MARGIN: Duration = Duration::from_millis(200);

/// How to start the supervisor of a replica; directory and attempt are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimCommand {
    /// The program, absolute: normally this one.
    pub program: PathBuf,
    /// Its first arguments: normally `shim`.
    pub arguments: Vec<OsString>,
}

/// What the runner needs beside what it shares.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) shim: ShimCommand,
    /// Environment of every replica.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) on_shutdown: OnShutdown,
}

/// Owns all replicas and nodes.
#[derive(Debug)]
pub(crate) struct Runner {
    shared: Arc<Shared>,
    shim: Arc<ShimCommand>,
    environment: BTreeMap<String, String>,
    on_shutdown: OnShutdown,
    group: Option<ControlGroup>,
    blocking: Blocking,
    tasks: TaskSet,
    replicas: BTreeMap<ReplicaId, Replica>,
    nodes: Nodes,
    accounted_at: Duration,
    /// The last written state of the nodes goes to the task that writes it.
    to_write: watch::Sender<Option<StoredNodes>>,
    report: mpsc::Sender<Message>,
    reports: mpsc::Receiver<Message>,
    adopted: Vec<(Attempt, std::os::fd::OwnedFd)>,
}

/// Ends everything that an engine before this one left running, at once. Blocks for some milliseconds.
///
/// # Errors
/// [`StoreError::Read`] when `/proc` cannot be read.
pub(crate) fn end_left_over(store: &StateDirectory) -> Result<(), StoreError> {
    adopt::end_all(&store.replicas(), store.in_charge())
}

// === impl Runner ===

impl Runner {
    /// Adopts what an earlier engine left running and ends the rest. Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`StoreError`] when the state directory or `/proc` cannot be read.
    pub(crate) fn prepare(
        shared: Arc<Shared>,
        tools: Tools,
    ) -> Result<(Self, NodeWriter), StoreError> {
        let now = shared.clock.monotonic();
        let in_charge = shared.store.in_charge();
        let group = ControlGroup::make(&format!("nagi-{}", in_charge.instance));
        let stored: Option<StoredNodes> = shared.store.read(nodes::FILE)?;
        let nodes = stored.map(|stored| Nodes::restored(stored, shared.clock.now(), now));
        let (to_write, written) = watch::channel(None);
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let mut runner = Self {
            shim: Arc::new(tools.shim),
            environment: tools.environment,
            on_shutdown: tools.on_shutdown,
            group,
            blocking: Blocking::new("replicas", BLOCKING_MAX),
            tasks: TaskSet::new("replicas", ATTEMPTS_MAX),
            replicas: BTreeMap::new(),
            nodes: nodes.unwrap_or_default(),
            accounted_at: now,
            to_write,
            report,
            reports,
            adopted: Vec::new(),
            shared: Arc::clone(&shared),
        };
        for found in adopt::find(&shared.store.replicas(), in_charge)? {
            runner.adopt(found, now);
        }
        // Before anybody can ask: what runs already is not to be taken for absent until the first round.
        runner.publish(&Plan::default());
        let node_writer = NodeWriter {
            shared,
            to_write: written,
        };
        Ok((runner, node_writer))
    }

    /// Runs until the process has drained.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        for (attempt, supervisor) in std::mem::take(&mut self.adopted) {
            // The set is empty, and there are never more replicas than it takes.
            self.tasks.try_spawn(attempt.adopt(supervisor)).ok();
        }
        loop {
            let look_again = self.round();
            let wait = look_again.saturating_sub(self.shared.clock.monotonic());
            // Cancel-safe, each of them: a permit of `Notify` and a message stay until they are taken.
            tokio::select! {
                () = shutdown.stopped() => break,
                () = self.shared.look.notified() => {}
                Some(message) = self.reports.recv() => self.take(message),
                () = tokio::time::sleep(wait) => {}
            }
            while let Ok(message) = self.reports.try_recv() {
                self.take(message);
            }
        }
        match self.on_shutdown {
            OnShutdown::Keep => {}
            // Without a deadline the process is gone already.
            OnShutdown::End => {
                let left = shutdown
                    .deadline()
                    .map_or(Duration::ZERO, Deadline::remaining);
                self.end_all(left).await;
            }
        }
        let now = self.shared.clock.monotonic();
        self.nodes.pass(now.saturating_sub(self.accounted_at));
        if self.on_shutdown == OnShutdown::End {
            // Nobody is left on them; without Nagi nobody would release them.
            self.nodes.nodes.clear();
        }
        self.to_write
            .send_replace(Some(self.nodes.stored(self.shared.clock.now(), now)));
        if let Some(group) = &self.group {
            // Only when no replica is in it.
            group.remove();
        }
    }

    /// One round. Returns when time alone will cause the next one.
    fn round(&mut self) -> Duration {
        let now = self.shared.clock.monotonic();
        let (pools, descriptions) = self.shared.descriptions();
        self.nodes.open_accounts(pools.keys());
        let plan = world::decide(&self.world(pools, &descriptions), now);
        let descriptions: BTreeMap<&WorkloadId, &Description> =
            descriptions.iter().map(|one| (&one.spec.id, one)).collect();
        self.act(&plan, &descriptions, now);
        self.start_rested(&descriptions, now);
        self.settle_nodes(&plan, now);
        self.publish(&plan);
        let rests = self
            .replicas
            .values()
            .filter_map(|replica| match replica.life {
                Life::Resting { until } => Some(until),
                Life::Waiting | Life::Running(_) => None,
            });
        // Without any of both there is nothing that time alone would change; an hour is as good as never.
        rests
            .chain(plan.look_again)
            .min()
            .unwrap_or(now + Duration::from_hours(1))
    }

    fn world(&self, pools: BTreeMap<PoolName, PoolSpec>, descriptions: &[Description]) -> World {
        let wanted = descriptions.iter().map(|description| world::Wanted {
            id: description.spec.id.clone(),
            desired: description.desired,
            digest: description.digest.to_string(),
            pool: description.spec.pool.clone(),
            resources: description.spec.resources,
        });
        World {
            pools,
            wanted: wanted.collect(),
            replicas: self
                .replicas
                .iter()
                .map(|(id, replica)| replica.occupant(id))
                .collect(),
            nodes: self.nodes.nodes.clone(),
        }
    }

    fn act(
        &mut self,
        plan: &Plan,
        descriptions: &BTreeMap<&WorkloadId, &Description>,
        now: Duration,
    ) {
        for id in &plan.end {
            self.end(id, descriptions);
        }
        for id in &plan.create {
            let Some(description) = descriptions.get(&id.workload) else {
                continue;
            };
            self.replicas.insert(
                id.clone(),
                Replica::waiting(description.digest.to_string(), now),
            );
        }
        for (id, node) in &plan.place {
            let Some(description) = descriptions.get(&id.workload) else {
                continue;
            };
            if let Some(replica) = self.replicas.get_mut(id) {
                let resources = description.spec.resources;
                replica.place = Place::On {
                    node: node.clone(),
                    resources,
                };
            }
            self.start(id, node, description, now);
        }
    }

    /// Tells a replica to stop; one without processes is gone at once.
    fn end(&mut self, id: &ReplicaId, descriptions: &BTreeMap<&WorkloadId, &Description>) {
        let Some(replica) = self.replicas.get(id) else {
            return;
        };
        let running = match &replica.life {
            Life::Waiting | Life::Resting { .. } => {
                self.replicas.remove(id);
                return;
            }
            Life::Running(running) => running,
        };
        let grace = running.grace(descriptions.get(&id.workload).copied());
        running.stop.send_replace(Some(grace));
        tracing::info!(
            namespace = %id.workload.namespace, workload = %id.workload.name, replica = %id.name(),
            "Replica stopping"
        );
    }

    fn start_rested(&mut self, descriptions: &BTreeMap<&WorkloadId, &Description>, now: Duration) {
        let rested: Vec<(ReplicaId, NodeName)> = (self.replicas.iter())
            .filter(|(_, replica)| matches!(replica.life, Life::Resting { until } if until <= now))
            .filter_map(|(id, replica)| match &replica.place {
                Place::On { node, .. } => Some((id.clone(), node.clone())),
                Place::Waiting { .. } => None,
            })
            .collect();
        for (id, node) in rested {
            if let Some(description) = descriptions.get(&id.workload) {
                self.start(&id, &node, description, now);
            }
        }
    }

    /// Starts an attempt of a replica that has a node.
    fn start(&mut self, id: &ReplicaId, node: &NodeName, description: &Description, now: Duration) {
        let launch = self.launch(id, node, description);
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        let (stop, stopped) = watch::channel(None);
        let started = launch.and_then(|launch| {
            let attempt = Attempt {
                id: id.clone(),
                directory: directory(&self.shared, id),
                launch: launch.clone(),
                readiness: description.spec.readiness.clone(),
                settles: RUNS_AT_LEAST,
                shim: Arc::clone(&self.shim),
                blocking: self.blocking.clone(),
                stop: stopped,
                reports: self.report.clone(),
            };
            self.tasks
                .try_spawn(attempt.launch())
                .map_err(|error| error.to_string())?;
            Ok(launch)
        });
        match started {
            Ok(launch) => {
                tracing::info!(
                    namespace = %id.workload.namespace, workload = %id.workload.name,
                    replica = %id.name(), node = %node, port = launch.port, "Replica starting"
                );
                replica.life = Life::Running(Box::new(Running {
                    launch,
                    since: now,
                    started: false,
                    ready: false,
                    served: false,
                    unready: None,
                    stop,
                }));
            }
            Err(why) => {
                tracing::error!(
                    namespace = %id.workload.namespace, workload = %id.workload.name,
                    replica = %id.name(), error = why, "Replica could not be started"
                );
                replica.last_exit = Some(why);
                replica.life = Life::Resting {
                    until: now + TRY_AGAIN,
                };
            }
        }
    }

    /// Takes in what an attempt reports.
    fn take(&mut self, message: Message) {
        let Message {
            id,
            attempt,
            report,
        } = message;
        let now = self.shared.clock.monotonic();
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        let stopping = replica.is_stopping();
        let Life::Running(running) = &mut replica.life else {
            return;
        };
        if running.launch.attempt != attempt {
            return;
        }
        let elapsed = now.saturating_sub(running.since);
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let (namespace, workload) = (&id.workload.namespace, &id.workload.name);
        match report {
            Report::Started => running.started = true,
            Report::Serves(ready) => {
                running.ready = ready;
                running.served |= ready;
                running.unready = None;
                let name = id.name();
                if ready {
                    tracing::info!(%namespace, %workload, replica = %name, elapsed_ms, "Replica ready");
                } else {
                    tracing::warn!(%namespace, %workload, replica = %name, "Replica no longer ready");
                }
            }
            Report::Unready(why) => {
                tracing::warn!(%namespace, %workload, replica = %id.name(), reason = why, "Replica not ready");
                running.unready = Some(why);
            }
            Report::Ended(ending) => {
                let (name, reason) = (id.name(), ending.to_string());
                if stopping {
                    tracing::info!(%namespace, %workload, replica = %name, reason, "Replica stopped");
                    self.replicas.remove(&id);
                    self.remove_traces(&id.workload);
                } else {
                    tracing::warn!(
                        %namespace, %workload, replica = %name, reason, elapsed_ms,
                        "Replica ended by itself"
                    );
                    // Lost with its supervisor, it did nothing wrong itself, but it did end.
                    replica.rest(elapsed, reason, now);
                }
            }
        }
    }

    /// After the last replica of a workload that is no longer described: its records and output go.
    fn remove_traces(&self, id: &WorkloadId) {
        let described = self.shared.workload(id).is_some();
        if !described && self.replicas.keys().all(|replica| replica.workload != *id) {
            disk::remove_tree(&self.shared.store.workload_replicas(id));
        }
    }

    /// Takes the nodes over from a plan, counts what they cost, and has them written when they changed.
    fn settle_nodes(&mut self, plan: &Plan, now: Duration) {
        self.nodes.pass(now.saturating_sub(self.accounted_at));
        self.accounted_at = now;
        for node in &plan.booted {
            tracing::info!(node = %node, "Node booting");
        }
        for node in &plan.released {
            tracing::info!(node = %node, "Node released");
        }
        if self.nodes.nodes != plan.nodes {
            self.nodes.nodes.clone_from(&plan.nodes);
            // So that a pool's first node counts as its peak from now on.
            self.nodes.pass(Duration::ZERO);
            self.to_write
                .send_replace(Some(self.nodes.stored(self.shared.clock.now(), now)));
        }
    }

    /// Ends every replica within `left`: each in its own grace as far as there is time, then not so politely.
    async fn end_all(&mut self, left: Duration) {
        let (_, descriptions) = self.shared.descriptions();
        let descriptions: BTreeMap<&WorkloadId, &Description> =
            descriptions.iter().map(|one| (&one.spec.id, one)).collect();
        // Those that need it are killed by their supervisors at the end of their grace, and after that by us.
        let polite = left.saturating_sub(KILL_GRACE * 2 + END_MARGIN);
        for most in [polite, Duration::ZERO] {
            for (id, replica) in &self.replicas {
                if let Life::Running(running) = &replica.life {
                    let grace = running.grace(descriptions.get(&id.workload).copied());
                    running.stop.send_replace(Some(grace.min(most)));
                }
            }
            let ended = tokio::time::timeout(most + KILL_GRACE, async {
                while self
                    .replicas
                    .values()
                    .any(|replica| matches!(replica.life, Life::Running(_)))
                {
                    let Some(message) = self.reports.recv().await else {
                        return;
                    };
                    self.take(message);
                }
            });
            if ended.await.is_ok() {
                break;
            }
        }
    }
}

/// The directory of a replica's records and output.
pub(crate) fn directory(shared: &Shared, id: &ReplicaId) -> PathBuf {
    shared
        .store
        .workload_replicas(&id.workload)
        .join(id.number.to_string())
}
