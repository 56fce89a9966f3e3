//! Each rung where it holds, where it does not, and where it cannot be asked.

use std::time::Duration;

use super::{now, sound};
use crate::observed::{ContainerState, Reach, RuntimeAnswer, Unseen};
use crate::policy::Policy;
use crate::recover::*;

const MINUTE: Duration = Duration::from_mins(1);

pub(super) fn rules() -> Rules {
    Rules {
        target_percent: 80,
        window: MINUTE,
        transition: Duration::from_mins(5),
        nodes: Some(3),
    }
}

fn node(name: &str) -> NodeState {
    NodeState {
        name: name.to_owned(),
        ready: Ok(()),
        pressure: Pressure::No(Some(now() - jiff::SignedDuration::from_mins(6))),
        lease_age: Ok(3),
    }
}

pub(super) fn look() -> Look {
    Look {
        observed: sound(),
        api: Ok(ApiFacts {
            livez: Ok(Vec::new()),
            readyz: Ok(Vec::new()),
            nodes: Ok(["a", "b", "c"].map(node).to_vec()),
            write: Some(Ok(())),
        }),
        growth: vec![("/".into(), Ok(1 << 20))],
        now: now(),
        name: Ok("a".to_owned()),
        restarted: Some(MINUTE),
    }
}

fn judged(first: &Look, last: &Look, held: Duration) -> Ladder {
    judge(&Policy::default(), &rules(), first, last, held)
}

fn of(change: impl FnOnce(&mut Look)) -> Ladder {
    let mut last = look();
    change(&mut last);
    judged(&look(), &last, MINUTE)
}

#[track_caller]
fn holds(ladder: &Ladder, rung: Rung, outcome: Outcome, verdict: Verdict) {
    assert_eq!(ladder.rung(rung).unwrap().outcome, outcome, "{ladder:#?}");
    assert_eq!(ladder.verdict, verdict, "{ladder:#?}");
    assert!(ladder.rungs.iter().all(|one| !one.evidence.is_empty()));
}

// D-20, B-021
#[test]
fn a_cluster_that_is_back_and_stays_is_recovered() {
    let ladder = of(|_| {});
    assert!(
        ladder
            .rungs
            .iter()
            .all(|one| one.outcome == Outcome::Passed),
        "{ladder:#?}"
    );
    assert_eq!(ladder.verdict, Verdict::Recovered);
}

// B10, B-042, W-B07: the 93 % at which the founding document stopped.
#[test]
fn ninety_three_percent_is_up_and_not_stable() {
    let ladder = of(|last| {
        let disk = &mut last.observed.filesystems.as_mut().unwrap()[0];
        let space = disk.space.as_mut().unwrap();
        space.bytes = 7_600_000_000;
        space.bytes_free = 595_000_000;
        space.bytes_available = 595_000_000;
    });
    holds(&ladder, Rung::Space, Outcome::Failed, Verdict::UpNotStable);
    let evidence = ladder.rung(Rung::Space).unwrap().evidence.join("; ");
    assert!(
        evidence.contains("93 % used") && evidence.contains("above the goal of 85 %"),
        "{evidence}"
    );
    // At the edge.
    for (used, outcome) in [(80, Outcome::Passed), (81, Outcome::Failed)] {
        let ladder = of(|last| {
            for disk in last.observed.filesystems.as_mut().unwrap() {
                let space = disk.space.as_mut().unwrap();
                space.bytes = 100 << 30;
                space.bytes_free = (100 - used) << 30;
                space.bytes_available = space.bytes_free;
            }
        });
        assert_eq!(ladder.rung(Rung::Space).unwrap().outcome, outcome);
    }
    let ladder = of(|last| {
        let disk = &mut last.observed.filesystems.as_mut().unwrap()[0];
        disk.evicting.push("/: kubelet kills pods".to_owned());
    });
    holds(&ladder, Rung::Space, Outcome::Failed, Verdict::UpNotStable);
}

// D-22: inodes run out as bytes do, but where the filesystem makes them.
#[test]
fn a_disk_that_is_nearly_out_of_inodes_is_up_and_not_stable() {
    for (fstype, free, outcome) in [
        ("ext4", 200, Outcome::Passed),
        ("ext4", 199, Outcome::Failed),
        ("xfs", 1, Outcome::Passed),
    ] {
        let ladder = of(|last| {
            let disk = &mut last.observed.filesystems.as_mut().unwrap()[0];
            disk.fstype = fstype.to_owned();
            let space = disk.space.as_mut().unwrap();
            (space.inodes, space.inodes_free) = (1000, free);
        });
        assert_eq!(
            ladder.rung(Rung::Space).unwrap().outcome,
            outcome,
            "{ladder:#?}"
        );
    }
}

// B-021: with three nodes, one that is not ready.
#[test]
fn one_node_that_is_not_ready_or_not_there_is_no_recovery() {
    let ladder = of(|last| {
        let nodes = last.api.as_mut().unwrap().nodes.as_mut().unwrap();
        nodes[1].ready = Err("Ready is Unknown: NodeStatusUnknown".to_owned());
    });
    holds(&ladder, Rung::Nodes, Outcome::Failed, Verdict::NotRecovered);
    let ladder = of(|last| {
        last.api.as_mut().unwrap().nodes.as_mut().unwrap().pop();
    });
    holds(&ladder, Rung::Nodes, Outcome::Failed, Verdict::NotRecovered);
    // None at all is not all of none.
    let rules = Rules {
        nodes: None,
        ..rules()
    };
    let mut last = look();
    last.api.as_mut().unwrap().nodes = Ok(Vec::new());
    let ladder = judge(&Policy::default(), &rules, &look(), &last, MINUTE);
    assert_eq!(ladder.verdict, Verdict::NotRecovered);
}

#[test]
fn what_was_started_within_the_window_is_not_stable() {
    let ladder = of(|last| {
        let runtime = last.observed.containers.as_mut().unwrap();
        let RuntimeAnswer::Containers(containers) = &mut runtime.answer else {
            unreachable!("it answers")
        };
        containers[0].attempt += 1;
    });
    holds(
        &ladder,
        Rung::Containers,
        Outcome::Failed,
        Verdict::UpNotStable,
    );
    let ladder = of(|last| {
        let runtime = last.observed.containers.as_mut().unwrap();
        let RuntimeAnswer::Containers(containers) = &mut runtime.answer else {
            unreachable!("it answers")
        };
        containers[1].state = ContainerState::Exited;
    });
    holds(
        &ladder,
        Rung::Containers,
        Outcome::Failed,
        Verdict::UpNotStable,
    );
    let ladder = of(|last| last.observed.units.as_mut().unwrap()[0].restarts += 1);
    holds(&ladder, Rung::Units, Outcome::Failed, Verdict::UpNotStable);
    // Too short to tell.
    let ladder = judged(&look(), &look(), MINUTE / 2);
    holds(
        &ladder,
        Rung::Containers,
        Outcome::Unknown,
        Verdict::UpNotStable,
    );
}

#[test]
fn a_store_with_an_alarm_or_without_a_write_is_no_recovery() {
    let ladder = of(|last| {
        let etcd = last.observed.etcd.as_mut().unwrap();
        let crate::observed::EtcdAnswer::Status(status) = &mut etcd.answer else {
            unreachable!("it answers")
        };
        status.alarms = Ok(vec!["NOSPACE".to_owned()]);
    });
    holds(&ladder, Rung::Store, Outcome::Failed, Verdict::NotRecovered);
    let ladder = of(|last| {
        last.api.as_mut().unwrap().write = Some(Err("507".to_owned()));
    });
    holds(&ladder, Rung::Store, Outcome::Failed, Verdict::NotRecovered);
    let ladder = of(|last| last.api.as_mut().unwrap().write = None);
    holds(
        &ladder,
        Rung::Store,
        Outcome::Unknown,
        Verdict::NotRecovered,
    );
}

#[test]
fn an_api_server_that_is_not_ready_or_not_there_is_no_recovery() {
    let ladder = of(|last| {
        last.api.as_mut().unwrap().readyz = Ok(vec!["etcd".to_owned()]);
    });
    holds(&ladder, Rung::Api, Outcome::Failed, Verdict::NotRecovered);
    let ladder = of(|last| {
        last.observed.endpoint.as_mut().unwrap().reach = Reach::Refused;
        last.api = Err(Unseen::NotHere("no kubeconfig".to_owned()));
    });
    holds(&ladder, Rung::Api, Outcome::Unknown, Verdict::NotRecovered);
}

#[test]
fn a_pressure_counts_as_ended_after_its_time() {
    let with = |pressure: Pressure| {
        of(|last| {
            last.api.as_mut().unwrap().nodes.as_mut().unwrap()[0].pressure = pressure;
        })
    };
    let since = |seconds| Pressure::No(Some(now() - jiff::SignedDuration::from_secs(seconds)));
    for (pressure, outcome, verdict) in [
        (Pressure::Yes, Outcome::Failed, Verdict::UpNotStable),
        (since(299), Outcome::Failed, Verdict::UpNotStable),
        (since(300), Outcome::Passed, Verdict::Recovered),
        (Pressure::No(None), Outcome::Unknown, Verdict::UpNotStable),
        (Pressure::Unknown, Outcome::Unknown, Verdict::UpNotStable),
    ] {
        holds(&with(pressure), Rung::Pressure, outcome, verdict);
    }
}

#[test]
fn a_days_growth_must_fit_and_an_unknown_one_is_said() {
    let with = |growth| of(|last| last.growth = vec![("/".into(), growth)]);
    let (fits, too_much) = (with(Ok(3 << 30)), with(Ok((3 << 30) + 1)));
    holds(&fits, Rung::Growth, Outcome::Passed, Verdict::Recovered);
    holds(
        &too_much,
        Rung::Growth,
        Outcome::Failed,
        Verdict::UpNotStable,
    );
    let unknown = with(Err(Unseen::NotHere("no guard has run here".to_owned())));
    holds(&unknown, Rung::Growth, Outcome::Unknown, Verdict::Recovered);
    holds(
        &with(Ok(-5)),
        Rung::Growth,
        Outcome::Passed,
        Verdict::Recovered,
    );
}

// What cannot be asked is never passed.
#[test]
fn a_rung_that_cannot_be_asked_is_unknown() {
    let unseen = || Unseen::Failed("it cannot be read".to_owned());
    let ladder = of(|last| last.observed.filesystems = Err(unseen()));
    holds(&ladder, Rung::Space, Outcome::Unknown, Verdict::UpNotStable);
    let ladder = of(|last| last.observed.units = Err(unseen()));
    holds(&ladder, Rung::Units, Outcome::Unknown, Verdict::UpNotStable);
    let ladder = of(|last| last.observed.containers = Err(unseen()));
    holds(
        &ladder,
        Rung::Containers,
        Outcome::Unknown,
        Verdict::UpNotStable,
    );
    let ladder = of(|last| last.observed.etcd = Err(unseen()));
    holds(
        &ladder,
        Rung::Store,
        Outcome::Unknown,
        Verdict::NotRecovered,
    );
    let ladder = of(|last| last.observed.manifests = Err(unseen()));
    holds(
        &ladder,
        Rung::Containers,
        Outcome::Unknown,
        Verdict::UpNotStable,
    );
}

// A worker has neither static pods nor a store.
#[test]
fn a_worker_recovers_without_a_control_plane_of_its_own() {
    let ladder = of(|last| {
        let none = || Unseen::NotHere("there is no directory of them".to_owned());
        last.observed.manifests = Err(none());
        last.observed.containers = Err(none());
        last.observed.etcd = Err(none());
        last.observed.certificates = Ok(Vec::new());
    });
    assert_eq!(ladder.verdict, Verdict::Recovered, "{ladder:#?}");
}

// Where an API server's certificate is, one runs: that nothing says how is no proof that it stays.
#[test]
fn a_control_plane_whose_manifests_are_gone_is_not_taken_for_a_worker() {
    let ladder = of(|last| {
        let none = "/etc/kubernetes/manifests: No such file or directory";
        last.observed.manifests = Err(Unseen::NotHere(none.to_owned()));
    });
    holds(
        &ladder,
        Rung::Containers,
        Outcome::Unknown,
        Verdict::UpNotStable,
    );
}

// B-021: *Ready* is what the controller says, up to 40 s after the last word of a kubelet that is gone.
#[test]
fn a_node_is_ready_only_while_its_kubelet_renews_its_lease() {
    let with = |age: crate::observed::Looked<i64>, restarted: Option<Duration>| {
        of(|last| {
            last.restarted = restarted;
            last.api.as_mut().unwrap().nodes.as_mut().unwrap()[0].lease_age = age;
        })
    };
    let minute = Some(MINUTE);
    for (age, restarted, outcome, verdict) in [
        (Ok(39), minute, Outcome::Passed, Verdict::Recovered),
        (Ok(39), None, Outcome::Passed, Verdict::Recovered),
        (Ok(-2), minute, Outcome::Passed, Verdict::Recovered),
        (Ok(40), minute, Outcome::Failed, Verdict::NotRecovered),
        (Ok(40), None, Outcome::Failed, Verdict::NotRecovered),
        (Ok(-40), None, Outcome::Failed, Verdict::NotRecovered),
        // Before the restart.
        (
            Ok(30),
            Some(Duration::from_secs(29)),
            Outcome::Failed,
            Verdict::NotRecovered,
        ),
        (
            Err(Unseen::Failed("403".to_owned())),
            minute,
            Outcome::Unknown,
            Verdict::NotRecovered,
        ),
    ] {
        holds(&with(age, restarted), Rung::Nodes, outcome, verdict);
    }
}

// The kubeconfig of a person may lead to another cluster, which is well.
#[test]
fn a_cluster_that_does_not_list_this_node_is_not_the_one_that_recovers() {
    let ladder = of(|last| last.name = Ok("d".to_owned()));
    holds(&ladder, Rung::Nodes, Outcome::Failed, Verdict::NotRecovered);
    let evidence = ladder.rung(Rung::Nodes).unwrap().evidence.join("; ");
    assert!(evidence.contains("another cluster"), "{evidence}");
    let ladder = of(|last| last.name = Err(Unseen::Failed("no name".to_owned())));
    holds(
        &ladder,
        Rung::Nodes,
        Outcome::Unknown,
        Verdict::NotRecovered,
    );
}
