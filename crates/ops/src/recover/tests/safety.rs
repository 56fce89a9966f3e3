//! What is not done because it would harm what runs.

use std::path::PathBuf;

use super::*;

fn planned(world: &World) -> Plan {
    world.plan(&Policy::default())
}

fn applied(world: World, approved: &Approved) -> (Vec<Step>, Applied) {
    struct Still(World, Vec<Step>);
    impl Hands for Still {
        async fn look(&mut self) -> std::result::Result<World, String> {
            Ok(self.0.clone())
        }

        async fn act(&mut self, step: Step, _: &World) -> std::result::Result<Did, String> {
            self.1.push(step);
            Ok(Did::default())
        }
    }
    let mut hands = Still(world, Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().start_paused(true).build().unwrap();
    let applied = runtime.block_on(apply(&mut hands, &Policy::default(), approved, &mut |_| {}));
    (hands.1, applied)
}

// A kubelet that is well is not restarted for somebody else's address.
#[test]
fn a_refusal_elsewhere_restarts_no_kubelet() {
    let refused = || {
        let mut world = well().world();
        world.observed.endpoint.as_mut().unwrap().reach = Reach::Refused;
        world
    };
    // Our own API server listens.
    let world = refused();
    let plan = planned(&world);
    assert!(!plan.has(Step::RestartKubelet), "{plan:#?}");
    assert_eq!(plan.refusals[0].cause, Some(Cause::Refused));
    // Nobody could see who listens.
    let mut world = refused();
    world.observed.listeners = Err(Unseen::Failed("no /proc".to_owned()));
    assert!(!planned(&world).has(Step::RestartKubelet));
    // There is none on this node.
    let mut world = refused();
    world.observed.listeners = Ok(Vec::new());
    let manifests = world.observed.manifests.as_mut().unwrap();
    manifests.retain(|one| one.pod.as_ref().unwrap().name != "kube-apiserver");
    let containers = world.observed.containers.as_mut().unwrap();
    let RuntimeAnswer::Containers(containers) = &mut containers.answer else {
        unreachable!("it answers")
    };
    containers.retain(|one| one.name != "kube-apiserver");
    assert!(!planned(&world).has(Step::RestartKubelet));
    // It is ours, and gone.
    let mut world = refused();
    world.observed.listeners = Ok(Vec::new());
    assert!(planned(&world).has(Step::RestartKubelet));
}

#[test]
fn an_etcd_that_is_slow_is_not_restarted() {
    let mut world = well().world();
    let slow = EtcdAnswer::Failed("no answer in time".to_owned());
    world.observed.etcd.as_mut().unwrap().answer = slow;
    let plan = planned(&world);
    assert!(!plan.has(Step::RestartKubelet), "{plan:#?}");
    assert_eq!(plan.refusals[0].cause, Some(Cause::EtcdDown));
    world.observed.etcd.as_mut().unwrap().answer = EtcdAnswer::Refused;
    assert!(planned(&world).has(Step::RestartKubelet));
}

// D-16: kubelet's own thresholds count before it runs.
#[test]
fn a_kubelet_is_not_started_where_it_would_kill_pods_at_once() {
    let pressing = |frees| Knobs {
        disk: Disk::Pressing,
        is_kubelet_up: false,
        frees,
        ..well()
    };
    let world = pressing(0).world();
    let plan = planned(&world);
    assert!(!plan.has(Step::RestartKubelet), "{plan:#?}");
    let refusal = &plan.refusals[0];
    assert_eq!(refusal.blocks, Blocks::Restart);
    assert!(refusal.why[0].contains("kubelet kills pods"), "{refusal:?}");
    // Something may go: it goes, and the gate looks again.
    let (steps, applied) = applied(pressing(1 << 30).world(), &Approved::Anything);
    assert_eq!(steps, [Step::Free]);
    assert!(
        matches!(&applied.stopped, Some(Stopped::Shut(Step::RestartKubelet, why)) if why.contains("kubelet kills pods")),
        "{applied:?}"
    );
}

#[test]
fn a_restart_needs_a_hundred_inodes_however_few_there_are() {
    for (free, is_met) in [(99, false), (100, true)] {
        let mut world = well().world();
        let disk = first(&mut world.observed);
        let space = disk.space.as_mut().unwrap();
        (space.inodes, space.inodes_free) = (20_000, free);
        let floors = floors(&Policy::default(), &world.observed).unwrap();
        assert_eq!(floors[0].is_met, is_met, "{free}");
    }
}

fn freeing(digest: &str) -> World {
    let knobs = Knobs {
        disk: Disk::Full,
        is_kubelet_up: false,
        frees: 1 << 30,
        ..well()
    };
    let mut world = knobs.world();
    digest.clone_into(&mut world.freeing.as_mut().unwrap().digest);
    world
}

// What somebody has seen is what goes.
#[test]
fn only_the_plan_that_was_approved_is_carried_out() {
    let of = |digest: &str| {
        Approved::Only(Freeing {
            digest: digest.to_owned(),
            ..Freeing::default()
        })
    };
    let seen = of("seen");
    let (steps, _) = applied(freeing("seen"), &seen);
    assert_eq!(steps, [Step::Free]);
    // Nothing was to go when it was asked, which is what an empty digest says.
    for approved in [seen, of("")] {
        let (steps, applied) = applied(freeing("another"), &approved);
        assert_eq!(steps, []);
        let changed = Stopped::Changed {
            digest: "another".to_owned(),
            changes: Vec::new(),
        };
        assert_eq!(applied.stopped, Some(changed));
    }
}

// 5-28 of the review: whoever has approved a plan is told which file or image is another now, and why a kind is left alone.
#[test]
fn what_changed_since_the_plan_was_shown_is_named() {
    let item = |(name, state): &(&str, &str)| FreeItem {
        name: (*name).to_owned(),
        state: (*state).to_owned(),
    };
    let with = |digest: &str, items: &[(&str, &str)], alone: &[&str]| {
        let mut world = freeing(digest);
        let freeing = world.freeing.as_mut().unwrap();
        freeing.items = items.iter().map(item).collect();
        freeing.unseen = alone
            .iter()
            .map(|why| FreeUnseen {
                kind: "images".to_owned(),
                directory: "/run/a.sock".into(),
                why: (*why).to_owned(),
                point: None,
            })
            .collect();
        world
    };
    let before = [
        ("apt /a", "1"),
        ("apt /b", "1"),
        ("apt /c", "1"),
        ("images d:1", "1"),
    ];
    let seen = with("seen", &before, &[]).freeing.unwrap();
    let now = [("apt /a", "1"), ("apt /b", "2"), ("apt /e", "1")];
    let world = with("another", &now, &["a pod is being started"]);
    let (steps, applied) = applied(world, &Approved::Only(seen));
    assert_eq!(steps, []);
    let Some(Stopped::Changed { changes, .. }) = &applied.stopped else {
        panic!("{applied:?}");
    };
    assert_eq!(
        changes[..],
        [
            "images at /run/a.sock left alone: a pod is being started",
            "apt /b was written to or replaced",
            "apt /c went, or may not go any more",
            "images d:1 went, or may not go any more",
            "apt /e came, or may go only now",
        ]
    );
    let words = applied.stopped.unwrap().words();
    assert!(words.contains("apt /b was written to") && words.contains("its digest is another"));
    let many: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
    let of = |world: World| world.freeing.unwrap();
    let changes = of(with("a", &many, &[])).changes_since(&of(with("b", &[], &[])));
    assert_eq!((changes.len(), changes[10].as_str()), (11, "and 20 more"));
    let back = of(with("a", &[], &[])).changes_since(&of(with("b", &[], &["it hangs"])));
    assert_eq!(
        back,
        ["looked at by now: images at /run/a.sock left alone: it hangs"]
    );
}

// A node that is well is not cleaned; one on which a run was killed is.
#[test]
fn a_disk_above_its_target_alone_is_no_reason() {
    let knobs = Knobs {
        frees: 1 << 30,
        ..well()
    };
    let mut world = knobs.world();
    assert!(planned(&world).is_empty());
    world.is_resumed = true;
    assert!(planned(&world).has(Step::Free));
}

fn above_quota() -> World {
    let knobs = Knobs {
        store: Store::NoSpace,
        ..well()
    };
    knobs.world()
}

fn status_of(world: &mut World) -> &mut crate::observed::EtcdStatus {
    let EtcdAnswer::Status(status) = &mut world.observed.etcd.as_mut().unwrap().answer else {
        unreachable!("it answers")
    };
    status
}

#[test]
fn the_alarm_of_another_member_is_mended_there() {
    let mut world = above_quota();
    assert!(planned(&world).has(Step::Defrag));
    status_of(&mut world).is_alarm_own = false;
    let plan = planned(&world);
    assert_eq!(plan.steps().count(), 0, "{plan:#?}");
    assert!(plan.refusals[0].why[0].contains("another member"));
}

// A root without its processes is the disk of another machine, and 127.0.0.1 is this one.
#[test]
fn the_store_of_this_machine_is_not_that_of_another_root() {
    let mut world = above_quota();
    world.observed.listeners = Err(Unseen::Failed("no /mnt/proc/net/tcp".to_owned()));
    let plan = planned(&world);
    assert_eq!(plan.steps().count(), 0, "{plan:#?}");
    assert_eq!(plan.refusals[0].blocks, Blocks::Store);
}

#[test]
fn an_alarm_is_let_go_only_well_below_a_quota_that_is_known() {
    let disarms = |size: u64, quota: Option<u64>| {
        let mut world = above_quota();
        let status = status_of(&mut world);
        (status.db_size, status.db_size_in_use, status.quota) = (size, 1, quota);
        let (steps, _) = applied(world, &Approved::Anything);
        steps.contains(&Step::Disarm)
    };
    assert!(disarms(900, Some(1000)));
    assert!(!disarms(901, Some(1000)));
    assert!(!disarms(1, None));
}

// Unknown is not zero.
#[test]
fn a_store_that_does_not_tell_what_is_in_use_is_not_defragmented() {
    let mut world = above_quota();
    status_of(&mut world).db_size_in_use = 0;
    let (steps, applied) = applied(world, &Approved::Anything);
    assert_eq!(steps, [Step::Snapshot, Step::Compact]);
    assert!(matches!(
        applied.stopped,
        Some(Stopped::Shut(Step::Defrag, _))
    ));
}

#[test]
fn the_runtime_that_is_started_is_the_one_that_kubelet_uses() {
    let down = |socket: &str| {
        let knobs = Knobs {
            is_runtime_up: false,
            ..well()
        };
        let mut world = knobs.world();
        world.observed.containers.as_mut().unwrap().socket = socket.into();
        let units = world.observed.units.as_mut().unwrap();
        let crio = Unit {
            name: "crio.service".to_owned(),
            ..units[0].clone()
        };
        units.push(crio);
        let plan = planned(&world);
        let what = plan.steps().find(|(step, _)| *step == Step::StartRuntime);
        (what.map(|(_, what)| what.to_owned()), plan.refusals.len())
    };
    let (what, _) = down("/run/containerd/containerd.sock");
    assert!(what.unwrap().starts_with("containerd.service: "));
    let (what, _) = down("/var/run/crio/crio.sock");
    assert!(what.unwrap().starts_with("crio.service: "));
    assert_eq!(down("/run/k3s/containerd/containerd.sock"), (None, 1));
}

// Nothing may go, and images were not looked at: the file that keeps them is the next step, and it is told, wherever it lies.
#[test]
fn a_refusal_names_what_was_not_looked_at() {
    let knobs = Knobs {
        disk: Disk::Full,
        frees: 0,
        ..well()
    };
    let mut world = knobs.world();
    let unseen = |kind: &str, directory: &str, point: Option<&str>| FreeUnseen {
        kind: kind.to_owned(),
        directory: directory.into(),
        why: "it cannot be understood".to_owned(),
        point: point.map(PathBuf::from),
    };
    world.freeing = Ok(Freeing {
        unseen: vec![
            unseen("images", "/etc/kubernetes/manifests/kube-vip.yaml", None),
            unseen("journal", "/var/log/journal", Some("/")),
            unseen("apt", "/data/apt", Some("/data")),
        ],
        ..Freeing::default()
    });
    let plan = planned(&world);
    let why = plan.refusals[0].why.join("\n");
    let images =
        "images at /etc/kubernetes/manifests/kube-vip.yaml left alone: it cannot be understood";
    assert!(why.contains(images), "{why}");
    assert!(why.contains("journal at /var/log/journal"), "{why}");
    assert!(!why.contains("/data/apt"), "of another disk: {why}");
}

// Whoever holds space of another disk open has nothing to do with this one.
#[test]
fn a_refusal_names_what_is_held_on_its_own_disk_only() {
    let knobs = Knobs {
        disk: Disk::Full,
        frees: 0,
        ..well()
    };
    let mut world = knobs.world();
    let held = |point: Option<&str>, what: &str| FreeHeld {
        point: point.map(PathBuf::from),
        what: what.to_owned(),
    };
    let waits = |point: &str, expected: u64| FreeStep {
        kind: "journal".to_owned(),
        harm: "lossy".to_owned(),
        directory: "/".into(),
        files: 1,
        expected,
        has_consent: false,
        point: point.into(),
    };
    world.freeing = Ok(Freeing {
        held: vec![
            held(Some("/"), "a log of this disk"),
            held(Some("/data"), "a log of another"),
            held(None, "somewhere"),
        ],
        steps: vec![waits("/", 1 << 30), waits("/data", 5 << 30)],
        ..Freeing::default()
    });
    let plan = planned(&world);
    let why = plan.refusals[0].why.join("\n");
    for named in [
        "a log of this disk",
        "somewhere",
        "--lossy would give back 1.0 GiB",
    ] {
        assert!(why.contains(named), "{why}");
    }
    assert!(!why.contains("a log of another"), "{why}");
}

// U11: what is advised below another root is about that node, and not about the machine that looks.
#[test]
fn a_next_step_leads_to_the_root_of_the_node() {
    let next = |knobs: &Knobs| {
        let mut world = knobs.world();
        world.observed.root = "/mnt/a node".into();
        let plan = world.plan(&Policy::default());
        let nexts = plan.refusals.into_iter().map(|refusal| refusal.next);
        nexts.collect::<Vec<String>>()
    };
    let full = Knobs {
        disk: Disk::Full,
        is_kubelet_up: false,
        ..well()
    };
    let pressing = Knobs {
        disk: Disk::Pressing,
        is_kubelet_up: false,
        ..well()
    };
    for knobs in [full, pressing] {
        let nexts = next(&knobs);
        let survey = "nagi disk --root '/mnt/a node'".to_owned();
        assert!(nexts.contains(&survey), "{nexts:?}");
    }
}
