//! The order of a recovery, whatever is seen; and the ladder, rung by rung.

mod climb;
mod ladder;
mod safety;

use proptest::prelude::*;

use super::*;
use crate::cause::Cause;
use crate::decide::tests::facts::{now, sound};
use crate::decide::{Defrag, beside_etcd, defrag, floors};
use crate::observed::{
    Area, EtcdAnswer, Filesystem, Observed, Reach, RuntimeAnswer, Unit, Unseen, Writable,
};
use crate::policy::Policy;

/// What a world may be like.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact that holds or not, whatever the others are"
)]
pub(super) struct Knobs {
    disk: Disk,
    store: Store,
    has_room_beside_store: bool,
    version: &'static str,
    has_leader: bool,
    is_kubelet_up: bool,
    is_runtime_up: bool,
    are_units_seen: bool,
    is_api_up: bool,
    blocker: Option<Blocker>,
    frees: u64,
    is_freeing_known: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    Roomy,
    Full,
    NoInodes,
    Silent,
    Pressing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Well,
    NoSpace,
    Refused,
    Corrupt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocker {
    Expired,
    ReadOnly,
    NoManifest,
}

fn knobs() -> impl Strategy<Value = Knobs> {
    let disk = prop::sample::select(vec![
        Disk::Roomy,
        Disk::Full,
        Disk::NoInodes,
        Disk::Silent,
        Disk::Pressing,
    ]);
    let store = prop::sample::select(vec![
        Store::Well,
        Store::NoSpace,
        Store::NoSpace,
        Store::Refused,
        Store::Corrupt,
    ]);
    let version = prop::sample::select(vec!["3.6.8", "3.5.17", "3.4.23", "nonsense"]);
    let blocker = prop::sample::select(vec![
        None,
        None,
        None,
        Some(Blocker::Expired),
        Some(Blocker::ReadOnly),
        Some(Blocker::NoManifest),
    ]);
    let flags = prop::collection::vec(any::<bool>(), 7);
    let frees = prop::sample::select(vec![0, 1 << 20, 1 << 30]);
    (disk, store, version, blocker, flags, frees).prop_map(
        |(disk, store, version, blocker, flags, frees)| Knobs {
            disk,
            store,
            has_room_beside_store: flags[0],
            version,
            has_leader: flags[1] || flags[2],
            is_kubelet_up: flags[3],
            is_runtime_up: flags[4],
            are_units_seen: flags[5] || flags[6],
            is_api_up: flags[1] && flags[3],
            blocker,
            frees,
            is_freeing_known: flags[0] || flags[6],
        },
    )
}

fn first(observed: &mut Observed) -> &mut Filesystem {
    &mut observed.filesystems.as_mut().unwrap()[0]
}

impl Knobs {
    fn world(&self) -> World {
        World {
            observed: self.observed(),
            freeing: self.freeing(),
            now: now(),
            is_resumed: false,
        }
    }

    fn observed(&self) -> Observed {
        let mut observed = sound();
        let disk = first(&mut observed);
        match self.disk {
            Disk::Roomy => {}
            Disk::Full => {
                let space = disk.space.as_mut().unwrap();
                (space.bytes_free, space.bytes_available) = (0, 0);
            }
            Disk::NoInodes => disk.space.as_mut().unwrap().inodes_free = 0,
            Disk::Silent => disk.space = None,
            Disk::Pressing => disk.evicting.push("/: kubelet kills pods".to_owned()),
        }
        self.store(&mut observed);
        self.node(&mut observed);
        match self.blocker {
            None => {}
            Some(Blocker::Expired) => {
                let files = observed.certificates.as_mut().unwrap();
                let certificate = files[0].certificate.as_mut().unwrap();
                certificate.not_after = "2026-01-01T00:00:00Z".parse().unwrap();
            }
            Some(Blocker::ReadOnly) => first(&mut observed).writable = Writable::Withdrawn,
            Some(Blocker::NoManifest) => {
                observed.manifests.as_mut().unwrap()[0].pod = Err("the file is empty".to_owned());
            }
        }
        observed
    }

    fn store(&self, observed: &mut Observed) {
        if !self.has_room_beside_store {
            let beside = &mut observed.filesystems.as_mut().unwrap()[1];
            let space = beside.space.as_mut().unwrap();
            // Above its floor, and less than what is in use.
            (space.bytes_free, space.bytes_available) = (100 << 20, 100 << 20);
        }
        let etcd = observed.etcd.as_mut().unwrap();
        let EtcdAnswer::Status(status) = &mut etcd.answer else {
            unreachable!("it is well")
        };
        (status.db_size, status.db_size_in_use) = (400 << 20, 200 << 20);
        self.version.clone_into(&mut status.version);
        status.has_leader = self.has_leader;
        match self.store {
            Store::Well => {}
            Store::NoSpace => status.alarms = Ok(vec!["NOSPACE".to_owned()]),
            Store::Corrupt => {
                status.alarms = Ok(vec!["NOSPACE".to_owned(), "CORRUPT".to_owned()]);
            }
            Store::Refused => etcd.answer = EtcdAnswer::Refused,
        }
    }

    fn node(&self, observed: &mut Observed) {
        let units = observed.units.as_mut().unwrap();
        units.push(Unit {
            name: "containerd.service".to_owned(),
            ..units[0].clone()
        });
        if !self.is_kubelet_up {
            "failed".clone_into(&mut units[0].state);
        }
        if !self.are_units_seen {
            observed.units = Err(Unseen::NotHere("systemd does not run here".to_owned()));
        }
        if !self.is_runtime_up {
            observed.containers.as_mut().unwrap().answer =
                RuntimeAnswer::Down("connection refused".to_owned());
        }
        if !self.is_api_up {
            observed.endpoint.as_mut().unwrap().reach = Reach::Refused;
            observed.listeners = Ok(Vec::new());
        }
    }

    fn freeing(&self) -> crate::observed::Looked<Freeing> {
        if !self.is_freeing_known {
            return Err(Unseen::Failed("no openat2".to_owned()));
        }
        let disk = FreeDisk {
            point: "/".into(),
            expected: self.frees,
            expected_inodes: u64::from(self.frees > 0),
        };
        Ok(Freeing {
            disks: vec![disk],
            ..Freeing::default()
        })
    }
}

/// Hands of a world that is another at each look, and in which steps may fail.
struct Fickle {
    worlds: Vec<Knobs>,
    fails: Vec<bool>,
    looks: usize,
    acted: Vec<(Step, World)>,
}

impl Hands for Fickle {
    async fn look(&mut self) -> std::result::Result<World, String> {
        let at = self.looks % self.worlds.len();
        self.looks += 1;
        Ok(self.worlds[at].world())
    }

    async fn act(&mut self, step: Step, world: &World) -> std::result::Result<Did, String> {
        let at = self.acted.len() % self.fails.len();
        self.acted.push((step, world.clone()));
        if self.fails[at] {
            return Err("it fails".to_owned());
        }
        Ok(Did::default())
    }
}

fn run(worlds: Vec<Knobs>, fails: Vec<bool>) -> (Vec<(Step, World)>, Applied) {
    let mut hands = Fickle {
        worlds,
        fails,
        looks: 0,
        acted: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().start_paused(true).build().unwrap();
    let applied = runtime.block_on(apply(
        &mut hands,
        &Policy::default(),
        &Approved::Anything,
        &mut |_| {},
    ));
    (hands.acted, applied)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    // D-14, D-16, W-B15, B-038: whatever is seen at whatever moment, and whatever fails.
    #[test]
    fn nothing_is_ever_done_in_another_order(
        worlds in prop::collection::vec(knobs(), 1..8),
        fails in prop::collection::vec(prop::bool::weighted(0.1), 1..8),
    ) {
        let (acted, applied) = run(worlds, fails.clone());
        let steps: Vec<Step> = acted.iter().map(|(step, _)| *step).collect();
        // Space first: nothing is freed behind anything else, and nothing of the node is started before.
        let starts = steps.iter().position(|step| step.starts_something());
        let frees = steps.iter().rposition(|step| *step == Step::Free);
        prop_assert!(frees.is_none_or(|at| at == 0), "{steps:?}");
        prop_assert!(frees.zip(starts).is_none_or(|(frees, starts)| frees < starts));
        for (at, (step, world)) in acted.iter().enumerate() {
            let before = &steps[..at];
            let since = |wanted: Step, than: Step| {
                let wanted = before.iter().rposition(|step| *step == wanted);
                wanted.is_some() && wanted >= before.iter().rposition(|step| *step == than)
            };
            match step {
                Step::Free | Step::Snapshot => {}
                Step::Compact => prop_assert!(since(Step::Snapshot, Step::Disarm)),
                Step::Defrag => {
                    prop_assert!(since(Step::Snapshot, Step::Disarm) && since(Step::Compact, Step::Snapshot));
                    let EtcdAnswer::Status(status) = &world.observed.etcd.as_ref().unwrap().answer else {
                        return Err(TestCaseError::fail("a store that does not answer"));
                    };
                    prop_assert_eq!(defrag(status, beside_etcd(&world.observed)), Defrag::Safe);
                }
                Step::Disarm => prop_assert!(since(Step::Defrag, Step::Snapshot)),
                Step::StartRuntime | Step::RestartKubelet => {
                    let floors = floors(&Policy::default(), &world.observed).unwrap();
                    prop_assert!(!floors.is_empty() && floors.iter().all(|floor| floor.is_met));
                }
            }
            // What a person has to see to forbids what it forbids.
            let diagnosis = world.diagnosis(&Policy::default());
            let has = |cause: Cause| diagnosis.findings.iter().any(|one| one.cause == cause);
            prop_assert!(!has(Cause::FilesystemReadOnly), "{step:?} on a disk that cannot be written to");
            let in_doubt = has(Cause::CertificateExpired) || has(Cause::EtcdCorrupt) || has(Cause::ManifestUnreadable);
            prop_assert!(!in_doubt || *step == Step::Free, "{step:?}");
        }
        // The first failure is the last step, and is told.
        let failed = acted.iter().enumerate().position(|(at, _)| fails[at % fails.len()]);
        if let Some(at) = failed {
            prop_assert_eq!(at + 1, acted.len());
            prop_assert!(matches!(applied.stopped, Some(Stopped::Failed(step, _)) if step == steps[at]));
        }
        // It ends: no step twice but for a store that only answers since it was started.
        prop_assert!(steps.len() <= Step::ALL.len() + 4, "{steps:?}");
    }

    // A plan is refused in the same words as it is carried out: a step that is refused is in no plan.
    #[test]
    fn a_refusal_forbids_what_it_says(knobs in knobs()) {
        let plan = knobs.world().plan(&Policy::default());
        for refusal in &plan.refusals {
            prop_assert!(!refusal.why.is_empty() && !refusal.next.is_empty());
            for (step, _) in plan.steps() {
                prop_assert!(!refusal.blocks.forbids(step));
            }
        }
        let order: Vec<Step> = plan.steps().map(|(step, _)| step).collect();
        prop_assert!(order.is_sorted());
    }
}

pub(super) fn well() -> Knobs {
    Knobs {
        disk: Disk::Roomy,
        store: Store::Well,
        has_room_beside_store: true,
        version: "3.6.8",
        has_leader: true,
        is_kubelet_up: true,
        is_runtime_up: true,
        are_units_seen: true,
        is_api_up: true,
        blocker: None,
        frees: 0,
        is_freeing_known: true,
    }
}

fn steps_of(worlds: Vec<Knobs>) -> Vec<Step> {
    run(worlds, vec![false])
        .0
        .into_iter()
        .map(|one| one.0)
        .collect()
}

// B-001, B-016, B-038: the seed's incident, and the order of its steps.
#[test]
fn a_full_disk_with_all_down_is_freed_and_then_started() {
    let down = Knobs {
        disk: Disk::Full,
        store: Store::Refused,
        is_kubelet_up: false,
        is_runtime_up: false,
        is_api_up: false,
        frees: 1 << 30,
        ..well()
    };
    let freed = Knobs {
        disk: Disk::Roomy,
        ..down.clone()
    };
    let started = Knobs {
        is_runtime_up: true,
        ..freed.clone()
    };
    let steps = steps_of(vec![down.clone(), freed, started, well()]);
    assert_eq!(
        steps,
        [Step::Free, Step::StartRuntime, Step::RestartKubelet]
    );
    // What is freed is not enough: nothing is started, and the disk is named.
    let (acted, applied) = run(vec![down], vec![false]);
    assert_eq!(acted.len(), 1, "{applied:?}");
    assert!(
        matches!(&applied.stopped, Some(Stopped::Shut(Step::StartRuntime, why)) if why.starts_with("/: 0 B")),
        "{applied:?}"
    );
}

// B8: a store that answers only since it was started is mended in a second round.
#[test]
fn a_store_above_its_quota_behind_a_full_disk_is_mended_once_it_answers() {
    let down = Knobs {
        store: Store::Refused,
        is_kubelet_up: false,
        is_api_up: false,
        ..well()
    };
    let up = Knobs {
        store: Store::NoSpace,
        ..well()
    };
    let mut worlds = vec![down, up.clone(), up.clone(), up.clone(), up.clone(), up];
    worlds.push(well());
    let steps = steps_of(worlds);
    let expected = [
        Step::RestartKubelet,
        Step::Snapshot,
        Step::Compact,
        Step::Defrag,
        Step::Disarm,
    ];
    assert_eq!(steps, expected);
}

// W-B15, M6: a defrag that finds no room is what ends an etcd.
#[test]
fn a_store_without_room_beside_it_is_compacted_and_no_more() {
    let knobs = Knobs {
        store: Store::NoSpace,
        has_room_beside_store: false,
        ..well()
    };
    let (acted, applied) = run(vec![knobs], vec![false]);
    let steps: Vec<Step> = acted.into_iter().map(|one| one.0).collect();
    assert_eq!(steps, [Step::Snapshot, Step::Compact]);
    let stopped = applied.stopped.unwrap();
    assert!(
        matches!(&stopped, Stopped::Shut(Step::Defrag, why) if why.contains("100.0 MiB are available")),
        "{stopped:?}"
    );
}

// W-B15: the version with the panic is refused before anything is done to it.
#[test]
fn an_etcd_that_a_defrag_can_crash_is_left_alone() {
    let old = Knobs {
        store: Store::NoSpace,
        version: "3.4.23",
        ..well()
    };
    let plan = old.world().plan(&Policy::default());
    assert_eq!(plan.steps().count(), 0);
    let why = &plan.refusals[0].why[0];
    assert!(why.contains("3.4.23 can crash"), "{why}");
    assert_eq!(steps_of(vec![old]), []);
}

// Where freeing is still right it is done, and nothing else.
#[test]
fn an_expired_certificate_leaves_the_freeing_and_forbids_the_rest() {
    let knobs = Knobs {
        disk: Disk::Full,
        blocker: Some(Blocker::Expired),
        is_kubelet_up: false,
        is_api_up: false,
        frees: 1 << 30,
        ..well()
    };
    assert_eq!(steps_of(vec![knobs.clone()]), [Step::Free]);
    let plan = knobs.world().plan(&Policy::default());
    assert_eq!(plan.refusals[0].cause, Some(Cause::CertificateExpired));
    assert_eq!(plan.refusals[0].next, "kubeadm certs renew apiserver");
}

// B6: a run that was killed while it freed has left a disk with room, and above its target.
#[test]
fn a_disk_above_its_target_is_freed_to_the_end_before_anything_is_started() {
    let half = Knobs {
        is_kubelet_up: false,
        frees: 1 << 30,
        ..well()
    };
    let freed = Knobs {
        frees: 0,
        ..half.clone()
    };
    let steps = steps_of(vec![half, freed, well()]);
    assert_eq!(steps, [Step::Free, Step::RestartKubelet]);
}

#[test]
fn a_pressure_with_nothing_to_free_is_refused() {
    let knobs = Knobs {
        disk: Disk::Pressing,
        ..well()
    };
    let plan = knobs.world().plan(&Policy::default());
    assert_eq!(plan.refusals[0].cause, Some(Cause::DiskPressure));
    let next = &plan.refusals[0].next;
    assert!(next.starts_with("nagi disk"), "{next}");
}

/// Hands of a store whose data take all of its quota.
struct Stuck(Knobs, Vec<Step>);

impl Hands for Stuck {
    async fn look(&mut self) -> std::result::Result<World, String> {
        let mut world = self.0.world();
        let etcd = world.observed.etcd.as_mut().unwrap();
        if let EtcdAnswer::Status(status) = &mut etcd.answer {
            (status.db_size, status.quota) = (64 << 20, Some(64 << 20));
        }
        Ok(world)
    }

    async fn act(&mut self, step: Step, _: &World) -> std::result::Result<Did, String> {
        self.1.push(step);
        Ok(Did::default())
    }
}

// M6: an alarm that comes back with the next write is not let go.
#[test]
fn a_store_that_is_full_of_data_keeps_its_alarm() {
    let knobs = Knobs {
        store: Store::NoSpace,
        ..well()
    };
    let mut hands = Stuck(knobs, Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let applied = runtime.block_on(apply(
        &mut hands,
        &Policy::default(),
        &Approved::Anything,
        &mut |_| {},
    ));
    assert_eq!(hands.1, [Step::Snapshot, Step::Compact, Step::Defrag]);
    let why = applied.stopped.unwrap().words();
    assert!(why.contains("--quota-backend-bytes"), "{why}");
}

// D-19: a wrong name is mended in the kubeconfig, and not on this node.
#[test]
fn what_is_wrong_on_the_way_is_refused_with_the_next_command() {
    let mut world = well().world();
    let endpoint = world.observed.endpoint.as_mut().unwrap();
    endpoint.reach = Reach::Unauthorized;
    let plan = world.plan(&Policy::default());
    assert_eq!(plan.steps().count(), 0);
    assert_eq!(plan.refusals[0].cause, Some(Cause::Unauthorized));
    assert!(plan.refusals[0].next.contains("auth whoami"));
    // One that is not ready yet is waited for.
    let not_ready = Reach::NotReady { failed: Vec::new() };
    world.observed.endpoint.as_mut().unwrap().reach = not_ready;
    assert!(world.plan(&Policy::default()).is_empty());
}

// Nothing may go, as where somebody holds a deleted file open: who holds it is said, and nothing is started.
#[test]
fn a_full_disk_with_nothing_to_free_is_refused_with_who_holds_it() {
    let knobs = Knobs {
        disk: Disk::Full,
        is_kubelet_up: false,
        ..well()
    };
    let mut world = knobs.world();
    let held = "1.0 GiB in the deleted file /a, held open by process 7 (tail)";
    world.freeing.as_mut().unwrap().held.push(FreeHeld {
        point: None,
        what: held.to_owned(),
    });
    let plan = world.plan(&Policy::default());
    assert_eq!(plan.steps().count(), 0);
    assert!(plan.refusals[0].why.iter().any(|why| why == held));
    assert_eq!(plan.refusals[0].blocks, Blocks::StoreAndRestart);
}

#[test]
fn a_cluster_that_is_well_has_an_empty_plan() {
    assert!(well().world().plan(&Policy::default()).is_empty());
    assert!(Area::Endpoint.name().len() > 1);
}

// A step's name is that of one step.
#[test]
fn steps_are_found_by_their_names() {
    for step in Step::ALL {
        assert_eq!(Step::named(step.name()), Some(step));
    }
    assert!(Step::ALL.is_sorted());
}
