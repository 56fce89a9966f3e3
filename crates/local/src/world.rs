//! Which replica runs where, which nodes boot and which are released: a pure decision over the whole engine.
//!
//! [`decide`] takes everything as it is and what is wanted, and says what to do. The order is fixed: end what is too many
//! or outdated, create what is missing, place who waits (first come, first served; the fullest node that has room),
//! boot a node for who finds none, release nodes that were empty for their time. Feeding the outcome back at the same instant
//! asks for nothing more. Nodes are a fiction with a price: their capacity is counted, not enforced.
//!
//! A replica made from an outdated description is ended at once and replaced, not rolled over: on a pool whose only GPU
//! it holds, its successor could not start beside it.

pub mod account;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nagi_core::id::{NodeName, PoolName, ReplicaName, WorkloadId};
use nagi_core::quantity::Replicas;
use nagi_core::workload::Pending;

use crate::file::{PoolSpec, Resources};

/// One replica of a workload. Numbers are given again, the lowest first, so that files on the disk stay few.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// Of which workload.
    pub workload: WorkloadId,
    /// Which of them, from 0.
    pub number: u32,
}

/// What is wanted of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which workload.
    pub id: WorkloadId,
    /// How many replicas.
    pub desired: Replicas,
    /// Digest of the description that replicas must be made from.
    pub digest: String,
    /// The pool they run on.
    pub pool: PoolName,
    /// What each takes of a node.
    pub resources: Resources,
}

/// A replica as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupant {
    /// Which one.
    pub id: ReplicaId,
    /// Digest of the description it was made from.
    pub digest: String,
    /// Where it is.
    pub place: Place,
    /// It serves.
    pub ready: bool,
    /// It was told to end, and takes its room until it has.
    pub stopping: bool,
}

/// Where a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nowhere yet. Times are monotonic since a fixed start.
    Waiting {
        /// Since when; who waits longest is placed first.
        since: Duration,
    },
    /// On a node.
    On {
        /// Which one.
        node: NodeName,
        /// What it takes there.
        resources: Resources,
    },
}

/// A node as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Its name.
    pub name: NodeName,
    /// Its pool.
    pub pool: PoolName,
    /// How far it has come.
    pub phase: Phase,
}

/// How far a node has come. Times are monotonic since a fixed start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not usable yet.
    Booting {
        /// When it will be.
        ready_at: Duration,
    },
    /// Usable.
    Ready {
        /// Set while it is empty: when it will be released.
        release_at: Option<Duration>,
    },
}

/// Everything that a decision is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Pools as described now.
    pub pools: BTreeMap<PoolName, PoolSpec>,
    /// Workloads as wanted now.
    pub wanted: Vec<Wanted>,
    /// Replicas that exist.
    pub replicas: Vec<Occupant>,
    /// Nodes that exist.
    pub nodes: Vec<NodeState>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Replicas to end. Those that wait just vanish.
    pub end: Vec<ReplicaId>,
    /// Replicas that come into being now, waiting.
    pub create: Vec<ReplicaId>,
    /// Replicas to start, and on which node.
    pub place: Vec<(ReplicaId, NodeName)>,
    /// Nodes that were ordered now; they are in `nodes` too.
    pub booted: Vec<NodeName>,
    /// Nodes that were released now; they are not in `nodes` any more.
    pub released: Vec<NodeName>,
    /// All nodes after this plan.
    pub nodes: Vec<NodeState>,
    /// Why each replica that still waits does so.
    pub waiting: BTreeMap<ReplicaId, Pending>,
    /// When time alone will change the decision.
    pub look_again: Option<Duration>,
}

/// A node while it is being filled.
struct Room {
    state: NodeState,
    free: Resources,
    occupied: bool,
    /// Somebody counts on it, so it is not empty for the release.
    promised: bool,
}

/// Decides for the whole engine at the monotonic instant `now`.
pub fn decide(world: &World, now: Duration) -> Plan {
    let mut plan = Plan::default();
    let mut queue = population(world, now, &mut plan);
    queue.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let mut rooms = rooms(world, now);
    for (_, id, wanted) in queue {
        seat(world, now, &mut plan, &mut rooms, id, wanted);
    }
    for room in rooms {
        settle(world, now, &mut plan, room);
    }
    plan
}

/// Ends and creates replicas so that each workload has what it wants, and returns who waits for a node.
fn population<'a>(
    world: &'a World,
    now: Duration,
    plan: &mut Plan,
) -> Vec<(Duration, ReplicaId, &'a Wanted)> {
    let mut queue = Vec::new();
    let wanted: BTreeMap<&WorkloadId, &Wanted> = world
        .wanted
        .iter()
        .map(|wanted| (&wanted.id, wanted))
        .collect();
    let mut living: BTreeMap<&WorkloadId, Vec<&Occupant>> = BTreeMap::new();
    let mut taken: BTreeMap<&WorkloadId, BTreeSet<u32>> = BTreeMap::new();
    for replica in &world.replicas {
        let workload = &replica.id.workload;
        taken.entry(workload).or_default().insert(replica.id.number);
        if replica.stopping {
            continue;
        }
        match wanted.get(workload) {
            Some(wanted) if wanted.digest == replica.digest => {
                living.entry(workload).or_default().push(replica);
            }
            // Outdated, or of a workload that is no longer described.
            Some(_) | None => plan.end.push(replica.id.clone()),
        }
    }
    for wanted in &world.wanted {
        let mut living = living.remove(&wanted.id).unwrap_or_default();
        // The most useful first: those that serve, then those that are placed, then the lowest numbers.
        living.sort_by_key(|replica| {
            let waits = matches!(replica.place, Place::Waiting { .. });
            (!replica.ready, waits, replica.id.number)
        });
        let desired = usize::try_from(wanted.desired.0).unwrap_or(usize::MAX);
        let surplus = living.split_off(desired.min(living.len()));
        plan.end
            .extend(surplus.into_iter().map(|replica| replica.id.clone()));
        let missing = desired - living.len();
        for replica in living {
            if let Place::Waiting { since } = replica.place {
                queue.push((since, replica.id.clone(), wanted));
            }
        }
        let taken = taken.remove(&wanted.id).unwrap_or_default();
        for number in (0..).filter(|number| !taken.contains(number)).take(missing) {
            let id = ReplicaId {
                workload: wanted.id.clone(),
                number,
            };
            plan.create.push(id.clone());
            queue.push((now, id, wanted));
        }
    }
    queue
}

/// The nodes with what is free on each; booting nodes whose time has come are ready.
fn rooms(world: &World, now: Duration) -> Vec<Room> {
    let mut rooms: Vec<Room> = world
        .nodes
        .iter()
        .map(|node| {
            let mut state = node.clone();
            if matches!(state.phase, Phase::Booting { ready_at } if ready_at <= now) {
                state.phase = Phase::Ready { release_at: None };
            }
            let pool = world.pools.get(&node.pool);
            // A node of a pool that is no longer described takes nobody.
            let free = pool.map_or(Resources::default(), |pool| pool.capacity);
            Room {
                state,
                free,
                occupied: false,
                promised: false,
            }
        })
        .collect();
    for replica in &world.replicas {
        let Place::On { node, resources } = &replica.place else {
            continue;
        };
        if let Some(room) = rooms.iter_mut().find(|room| room.state.name == *node) {
            room.free = minus(room.free, *resources);
            room.occupied = true;
        }
    }
    rooms
}

/// Finds a node for one replica that waits, or the reason why there is none.
fn seat(
    world: &World,
    now: Duration,
    plan: &mut Plan,
    rooms: &mut Vec<Room>,
    id: ReplicaId,
    wanted: &Wanted,
) {
    let (asked, name) = (wanted.resources, &wanted.pool);
    let Some(pool) = world
        .pools
        .get(name)
        .filter(|pool| fits(asked, pool.capacity))
    else {
        plan.waiting
            .insert(id, Pending::DoesNotFit { pool: name.clone() });
        return;
    };
    let best = rooms
        .iter_mut()
        .filter(|room| room.state.pool == *name && fits(asked, room.free))
        // Ready before booting, soonest first; then the fullest, so that others become empty.
        .min_by_key(|room| match room.state.phase {
            Phase::Ready { .. } => (
                Duration::ZERO,
                room.free.gpu,
                room.free.memory_bytes,
                room.free.cpu_milli,
            ),
            Phase::Booting { ready_at } => {
                let later = ready_at.max(Duration::from_nanos(1));
                (
                    later,
                    room.free.gpu,
                    room.free.memory_bytes,
                    room.free.cpu_milli,
                )
            }
        });
    let room = if let Some(room) = best {
        room
    } else {
        let used: Vec<&NodeState> = rooms
            .iter()
            .map(|room| &room.state)
            .filter(|node| node.pool == *name)
            .collect();
        if used.len() >= usize::try_from(pool.nodes_max).unwrap_or(usize::MAX) {
            let nodes_max = pool.nodes_max;
            plan.waiting.insert(
                id,
                Pending::PoolAtMaximum {
                    pool: name.clone(),
                    nodes_max,
                },
            );
            return;
        }
        let Some(node) = free_name(name, &used) else {
            plan.waiting
                .insert(id, Pending::DoesNotFit { pool: name.clone() });
            return;
        };
        let phase = if pool.boot.is_zero() {
            Phase::Ready { release_at: None }
        } else {
            Phase::Booting {
                ready_at: now + pool.boot,
            }
        };
        plan.booted.push(node.clone());
        let state = NodeState {
            name: node,
            pool: name.clone(),
            phase,
        };
        rooms.push(Room {
            state,
            free: pool.capacity,
            occupied: false,
            promised: false,
        });
        let Some(room) = rooms.last_mut() else { return };
        room
    };
    room.free = minus(room.free, asked);
    room.promised = true;
    match room.state.phase {
        Phase::Ready { .. } => plan.place.push((id, room.state.name.clone())),
        Phase::Booting { ready_at } => {
            let ready_in = Some(ready_at.saturating_sub(now));
            plan.waiting.insert(
                id,
                Pending::NodeBooting {
                    pool: name.clone(),
                    ready_in,
                },
            );
        }
    }
}

/// Decides whether a node stays, and from when it is due to go.
fn settle(world: &World, now: Duration, plan: &mut Plan, mut room: Room) {
    let next = match room.state.phase {
        Phase::Booting { ready_at } => Some(ready_at),
        Phase::Ready { .. } if room.occupied || room.promised => {
            room.state.phase = Phase::Ready { release_at: None };
            None
        }
        Phase::Ready { release_at } => {
            let stay = world
                .pools
                .get(&room.state.pool)
                .map_or(Duration::ZERO, |p| p.release_after);
            let release_at = release_at.unwrap_or(now + stay);
            if release_at <= now {
                plan.released.push(room.state.name);
                return;
            }
            room.state.phase = Phase::Ready {
                release_at: Some(release_at),
            };
            Some(release_at)
        }
    };
    plan.look_again = match (plan.look_again, next) {
        (Some(known), Some(next)) => Some(known.min(next)),
        (known, next) => known.or(next),
    };
    plan.nodes.push(room.state);
}

/// `POOL-NUMBER` with the lowest number that no node of the pool has.
fn free_name(pool: &PoolName, used: &[&NodeState]) -> Option<NodeName> {
    (0..=used.len())
        .filter_map(|number| NodeName::new(format!("{pool}-{number}")).ok())
        .find(|name| used.iter().all(|node| node.name != *name))
}

fn fits(asked: Resources, free: Resources) -> bool {
    asked.cpu_milli <= free.cpu_milli
        && asked.memory_bytes <= free.memory_bytes
        && asked.gpu <= free.gpu
}

/// What is left; nothing where a smaller description made it too much.
const fn minus(free: Resources, taken: Resources) -> Resources {
    Resources {
        cpu_milli: free.cpu_milli.saturating_sub(taken.cpu_milli),
        memory_bytes: free.memory_bytes.saturating_sub(taken.memory_bytes),
        gpu: free.gpu.saturating_sub(taken.gpu),
    }
}

// === impl ReplicaId ===

impl ReplicaId {
    /// `WORKLOAD-NUMBER`.
    ///
    /// # Panics
    /// Never: names of workloads are labels of at most 63 characters here, and a number has at most ten more.
    pub fn name(&self) -> ReplicaName {
        ReplicaName::new(format!("{}-{}", self.workload.name, self.number))
            .expect("a label and a number make a subdomain")
    }
}

#[cfg(test)]
mod tests;
