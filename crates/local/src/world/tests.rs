//! Tests of the world that the engine keeps: nodes, replicas and what moves them.

use nagi_core::id::{Name, Namespace};
use proptest::prelude::*;

use super::*;

const BOOT: Duration = Duration::from_secs(5);
const STAY: Duration = Duration::from_secs(10);

fn pool(name: &str, boot: Duration, nodes_max: u32) -> (PoolName, PoolSpec) {
    let name = PoolName::new(name).unwrap();
    let capacity = Resources {
        cpu_milli: 4_000,
        memory_bytes: 1 << 30,
        gpu: 1,
    };
    let spec = PoolSpec {
        name: name.clone(),
        boot,
        release_after: STAY,
        price_per_hour_micro: 0,
        nodes_max,
        capacity,
    };
    (name, spec)
}

fn wanted(name: &str, desired: u32, gpu: u32) -> Wanted {
    Wanted {
        id: WorkloadId::deployment(Namespace::new("p").unwrap(), Name::new(name).unwrap()),
        desired: Replicas(desired),
        digest: "1".into(),
        pool: PoolName::new("gpu").unwrap(),
        resources: Resources {
            cpu_milli: 1_000,
            memory_bytes: 1,
            gpu,
        },
    }
}

fn world(nodes_max: u32, wanted: Vec<Wanted>) -> World {
    let pools = BTreeMap::from([pool("gpu", BOOT, nodes_max)]);
    World {
        pools,
        wanted,
        replicas: Vec::new(),
        nodes: Vec::new(),
    }
}

/// Carries a plan out as the engine does, with replicas that start at once and end when told by `finish`.
fn apply(world: &mut World, plan: &Plan, now: Duration) {
    for id in &plan.create {
        let wanted = world
            .wanted
            .iter()
            .find(|wanted| wanted.id == id.workload)
            .unwrap();
        world.replicas.push(Occupant {
            id: id.clone(),
            digest: wanted.digest.clone(),
            place: Place::Waiting { since: now },
            ready: false,
            stopping: false,
        });
    }
    for id in &plan.end {
        let replica = world
            .replicas
            .iter_mut()
            .find(|replica| replica.id == *id)
            .unwrap();
        assert!(!replica.stopping);
        replica.stopping = true;
    }
    world
        .replicas
        .retain(|replica| !(replica.stopping && matches!(replica.place, Place::Waiting { .. })));
    for (id, node) in &plan.place {
        let wanted = world
            .wanted
            .iter()
            .find(|wanted| wanted.id == id.workload)
            .unwrap();
        let resources = wanted.resources;
        let replica = world
            .replicas
            .iter_mut()
            .find(|replica| replica.id == *id)
            .unwrap();
        replica.place = Place::On {
            node: node.clone(),
            resources,
        };
    }
    world.nodes.clone_from(&plan.nodes);
}

fn finish_stopping(world: &mut World) {
    world.replicas.retain(|replica| !replica.stopping);
}

fn step(world: &mut World, now: Duration) -> Plan {
    let plan = decide(world, now);
    apply(world, &plan, now);
    plan
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_replica_waits_for_its_node_runs_and_lets_it_go() {
    let mut world = world(2, vec![wanted("a", 1, 1)]);
    let plan = step(&mut world, seconds(0));
    assert_eq!(
        (plan.create.len(), plan.booted.len(), plan.place.len()),
        (1, 1, 0)
    );
    let reason = plan.waiting.values().next().unwrap().to_string();
    assert_eq!(reason, "waiting for a node of pool gpu, expected in 5.0 s");
    assert_eq!(plan.look_again, Some(BOOT));
    let plan = step(&mut world, seconds(3));
    assert_eq!(
        plan.waiting.values().next().unwrap().code(),
        "waiting-for-node"
    );
    let plan = step(&mut world, seconds(5));
    assert_eq!(plan.place.len(), 1);
    assert_eq!(plan.look_again, None);
    world.wanted[0].desired = Replicas(0);
    let plan = step(&mut world, seconds(60));
    assert_eq!(plan.end.len(), 1);
    assert_eq!(
        plan.look_again, None,
        "the node is not empty before the replica has ended"
    );
    finish_stopping(&mut world);
    let plan = step(&mut world, seconds(61));
    assert_eq!(plan.look_again, Some(seconds(71)));
    assert_eq!(step(&mut world, seconds(70)).released.len(), 0);
    assert_eq!(step(&mut world, seconds(71)).released.len(), 1);
    assert_eq!(world.nodes, []);
}

#[test]
fn a_wake_before_the_release_uses_the_node_that_is_still_there() {
    let mut world = world(1, vec![wanted("a", 1, 1)]);
    step(&mut world, seconds(0));
    step(&mut world, seconds(5));
    world.wanted[0].desired = Replicas(0);
    step(&mut world, seconds(6));
    finish_stopping(&mut world);
    step(&mut world, seconds(7));
    world.wanted[0].desired = Replicas(1);
    let plan = step(&mut world, seconds(16));
    assert_eq!(
        (plan.place.len(), plan.released.len(), plan.look_again),
        (1, 0, None)
    );
}

#[test]
fn a_pool_at_its_maximum_and_a_node_too_small_are_told_apart() {
    let mut world = world(1, vec![wanted("a", 2, 1), wanted("b", 1, 2)]);
    let plan = step(&mut world, seconds(0));
    let codes: Vec<_> = plan.waiting.values().map(Pending::code).collect();
    assert_eq!(
        codes,
        ["waiting-for-node", "pool-at-maximum", "does-not-fit"]
    );
}

#[test]
fn a_replica_that_is_ending_keeps_its_room_and_its_successor_gets_another_number() {
    let mut world = world(1, vec![wanted("a", 1, 1)]);
    step(&mut world, seconds(0));
    step(&mut world, seconds(5));
    world.wanted[0].digest = "2".into();
    let plan = step(&mut world, seconds(6));
    assert_eq!((plan.end[0].number, plan.create[0].number), (0, 1));
    assert_eq!(
        plan.waiting.values().next().unwrap().code(),
        "pool-at-maximum"
    );
    finish_stopping(&mut world);
    assert_eq!(step(&mut world, seconds(7)).place.len(), 1);
}

#[test]
fn scaling_down_keeps_those_that_serve() {
    let mut world = world(3, vec![wanted("a", 3, 1)]);
    step(&mut world, seconds(0));
    step(&mut world, seconds(5));
    world.replicas[2].ready = true;
    world.wanted[0].desired = Replicas(1);
    let plan = step(&mut world, seconds(6));
    let ended: Vec<_> = plan.end.iter().map(|id| id.number).collect();
    assert_eq!(ended, [1, 0].into_iter().rev().collect::<Vec<_>>());
}

#[test]
fn who_waits_longest_is_placed_first_whatever_its_name() {
    let mut world = world(1, vec![wanted("z", 1, 1)]);
    step(&mut world, seconds(0));
    step(&mut world, seconds(5));
    world.wanted.push(wanted("m", 1, 1));
    step(&mut world, seconds(6));
    world.wanted.push(wanted("a", 1, 1));
    step(&mut world, seconds(7));
    world.wanted[0].desired = Replicas(0);
    step(&mut world, seconds(8));
    finish_stopping(&mut world);
    let plan = step(&mut world, seconds(9));
    assert_eq!(plan.place[0].0.workload.name.as_str(), "m");
}

#[test]
fn a_pool_without_boot_time_places_in_the_same_step() {
    let mut world = world(1, vec![wanted("a", 4, 0)]);
    world.pools = BTreeMap::from([pool("gpu", Duration::ZERO, 1)]);
    let plan = step(&mut world, seconds(0));
    assert_eq!((plan.booted.len(), plan.place.len()), (1, 4));
}

#[test]
fn nodes_and_replicas_of_what_is_no_longer_described_go() {
    let mut world = world(1, vec![wanted("a", 1, 1)]);
    step(&mut world, seconds(0));
    step(&mut world, seconds(5));
    world.pools.clear();
    world.wanted.clear();
    assert_eq!(step(&mut world, seconds(6)).end.len(), 1);
    finish_stopping(&mut world);
    assert_eq!(step(&mut world, seconds(6)).released.len(), 1);
}

/// What may happen between two decisions.
#[derive(Debug, Clone)]
enum Event {
    Desire(usize, u32),
    Redescribe(usize),
    Pass(u64),
    Stopped,
    Served(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_usize..3, 0_u32..4).prop_map(|(which, count)| Event::Desire(which, count)),
        (0_usize..3).prop_map(Event::Redescribe),
        (1_u64..15).prop_map(Event::Pass),
        Just(Event::Stopped),
        (0_usize..12).prop_map(Event::Served),
    ]
}

fn check(world: &World, plan: &Plan, now: Duration) {
    let spec = world.pools.values().next().unwrap();
    let used = |node: &NodeName| -> Vec<Resources> {
        let places = world.replicas.iter().map(|replica| &replica.place);
        places
            .filter_map(|place| match place {
                Place::On {
                    node: on,
                    resources,
                } if on == node => Some(*resources),
                Place::On { .. } | Place::Waiting { .. } => None,
            })
            .collect()
    };
    assert!(world.nodes.len() <= usize::try_from(spec.nodes_max).unwrap());
    for node in &world.nodes {
        assert!(used(&node.name).iter().map(|taken| taken.gpu).sum::<u32>() <= spec.capacity.gpu);
        let cpu: u64 = used(&node.name).iter().map(|taken| taken.cpu_milli).sum();
        assert!(cpu <= spec.capacity.cpu_milli);
        if let Phase::Booting { .. } = node.phase {
            assert_eq!(
                used(&node.name).len(),
                0,
                "nobody runs on a node that boots"
            );
        }
    }
    for node in &plan.released {
        assert_eq!(used(node).len(), 0, "a node in use was released");
    }
    let mut ids: Vec<_> = world.replicas.iter().map(|replica| &replica.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), world.replicas.len(), "two replicas with one id");
    for wanted in &world.wanted {
        let living = world.replicas.iter().filter(|replica| {
            replica.id.workload == wanted.id && !replica.stopping && replica.digest == wanted.digest
        });
        assert_eq!(living.count(), usize::try_from(wanted.desired.0).unwrap());
    }
    for replica in &world.replicas {
        let waits = matches!(replica.place, Place::Waiting { .. });
        assert_eq!(
            waits,
            plan.waiting.contains_key(&replica.id),
            "who waits has a reason"
        );
    }
    let again = decide(world, now);
    let asked = (
        &again.create,
        &again.end,
        &again.place,
        &again.booted,
        &again.released,
    );
    assert_eq!(
        asked,
        (&vec![], &vec![], &vec![], &vec![], &vec![]),
        "not settled"
    );
    assert_eq!(
        (&again.nodes, &again.waiting),
        (&world.nodes, &plan.waiting)
    );
}

proptest! {
    // Invariants 1, 6 and 8 of DESIGN §4, for placement.
    #[test]
    fn every_history_keeps_the_bounds_settles_at_once_and_comes_to_rest(
        events in prop::collection::vec(event(), 1..40),
        nodes_max in 1_u32..4,
    ) {
        let mut now = Duration::ZERO;
        let mut world = world(nodes_max, vec![wanted("a", 0, 1), wanted("b", 0, 0), wanted("c", 0, 1)]);
        for event in events {
            match event {
                Event::Desire(which, count) => world.wanted[which].desired = Replicas(count),
                Event::Redescribe(which) => world.wanted[which].digest.push('+'),
                Event::Pass(time) => now += seconds(time),
                Event::Stopped => finish_stopping(&mut world),
                Event::Served(which) => {
                    if let Some(replica) = world.replicas.get_mut(which) {
                        replica.ready = matches!(replica.place, Place::On { .. });
                    }
                }
            }
            let plan = step(&mut world, now);
            check(&world, &plan, now);
        }
        // Nothing happens any more: within one boot everybody runs or knows why not.
        finish_stopping(&mut world);
        step(&mut world, now);
        now += BOOT;
        let plan = step(&mut world, now);
        for reason in plan.waiting.values() {
            prop_assert_eq!(reason.code(), "pool-at-maximum");
        }
        // And all asleep, every node goes.
        for wanted in &mut world.wanted {
            wanted.desired = Replicas(0);
        }
        step(&mut world, now);
        finish_stopping(&mut world);
        while let Some(next) = step(&mut world, now).look_again {
            prop_assert!(next > now);
            now = next;
        }
        prop_assert!(world.nodes.is_empty());
    }
}
