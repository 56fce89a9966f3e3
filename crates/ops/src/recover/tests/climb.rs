//! The window: what begins it anew, what ends it, and when a write is tried.

use std::time::Duration;

use super::ladder::{look, rules};
use crate::observed::{ContainerState, EtcdAnswer, Reach, RuntimeAnswer, Unseen};
use crate::policy::Policy;
use crate::recover::*;

const WITHIN: Duration = Duration::from_mins(10);

/// Eyes that see a cluster which is well, but for what is changed from one moment to another.
struct Fake<F> {
    began: tokio::time::Instant,
    change: F,
    writes: usize,
}

impl<F: FnMut(u64, &mut Look)> Eyes for Fake<F> {
    async fn look(&mut self) -> Look {
        let mut look = look();
        look.api.as_mut().unwrap().write = None;
        (self.change)(self.began.elapsed().as_secs(), &mut look);
        look
    }

    async fn write(&mut self, mut look: Look) -> Look {
        self.writes += 1;
        look.api.as_mut().unwrap().write = Some(Ok(()));
        look
    }
}

fn climbed(change: impl FnMut(u64, &mut Look)) -> (Climb, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut eyes = Fake {
            began: tokio::time::Instant::now(),
            change,
            writes: 0,
        };
        let policy = Policy::default();
        let climb = climb(&mut eyes, &policy, &rules(), WITHIN, &mut |_| {}).await;
        (climb, eyes.writes)
    })
}

#[track_caller]
fn ends(climb: &Climb, verdict: Verdict, seconds: std::ops::RangeInclusive<u64>) {
    assert_eq!(climb.ladder.verdict, verdict, "{:#?}", climb.ladder);
    let took = climb.took.as_secs();
    assert!(seconds.contains(&took), "{took} s: {:#?}", climb.ladder);
}

fn containers(look: &mut Look) -> &mut Vec<crate::observed::Container> {
    let runtime = look.observed.containers.as_mut().unwrap();
    let RuntimeAnswer::Containers(containers) = &mut runtime.answer else {
        unreachable!("it answers")
    };
    containers
}

fn alarm(look: &mut Look) {
    let EtcdAnswer::Status(status) = &mut look.observed.etcd.as_mut().unwrap().answer else {
        unreachable!("it answers")
    };
    status.alarms = Ok(vec!["NOSPACE".to_owned()]);
}

#[test]
fn what_holds_for_the_window_is_recovered_with_one_write() {
    let (climb, writes) = climbed(|_, _| {});
    ends(&climb, Verdict::Recovered, 60..=62);
    assert_eq!(writes, 1);
}

type Lapse = (&'static str, fn(&mut Look));

// D-20: each of these at the 40th second, for one look, and the minute begins anew.
#[test]
fn whatever_lapses_within_the_window_begins_it_anew() {
    let lapses: [Lapse; 8] = [
        ("a container ends", |look| {
            containers(look)[0].state = ContainerState::Exited;
        }),
        ("the alarm comes back", alarm),
        ("etcd has no leader", |look| {
            let EtcdAnswer::Status(status) = &mut look.observed.etcd.as_mut().unwrap().answer
            else {
                unreachable!("it answers")
            };
            status.has_leader = false;
        }),
        ("a node is not ready", |look| {
            let nodes = look.api.as_mut().unwrap().nodes.as_mut().unwrap();
            nodes[1].ready = Err("Ready is Unknown".to_owned());
        }),
        ("a lease is old", |look| {
            let nodes = look.api.as_mut().unwrap().nodes.as_mut().unwrap();
            nodes[2].lease_age = Ok(40);
        }),
        ("the disk is full", |look| {
            let disk = &mut look.observed.filesystems.as_mut().unwrap()[0];
            let space = disk.space.as_mut().unwrap();
            (space.bytes_free, space.bytes_available) = (0, 0);
        }),
        ("systemd does not answer", |look| {
            look.observed.units = Err(Unseen::Failed("in time".to_owned()));
        }),
        ("the API server does not answer", |look| {
            look.api = Err(Unseen::Failed("in time".to_owned()));
        }),
    ];
    for (name, lapse) in lapses {
        let (climb, writes) = climbed(|at, look| {
            if (40..42).contains(&at) {
                lapse(look);
            }
        });
        assert!(climb.took.as_secs() >= 100, "{name}: {:?}", climb.took);
        ends(&climb, Verdict::Recovered, 100..=104);
        assert_eq!(writes, 1, "{name}");
    }
}

// A container with another id from the 40th second on: it is another, and has held since then.
#[test]
fn a_container_that_was_started_again_holds_from_then_on() {
    let (climb, _) = climbed(|at, look| {
        if at >= 40 {
            containers(look)[0].attempt = 7;
        }
    });
    ends(&climb, Verdict::Recovered, 100..=104);
}

#[test]
fn what_never_holds_ends_at_the_deadline_without_a_write() {
    let (climb, writes) = climbed(|_, look| {
        look.observed.endpoint.as_mut().unwrap().reach = Reach::Refused;
        let api = look.api.as_mut().unwrap();
        api.livez = Err(Unseen::Failed("connection refused".to_owned()));
    });
    ends(&climb, Verdict::NotRecovered, 600..=602);
    assert_eq!(writes, 0);
    // An alarm that is there and goes, again and again.
    let (climb, _) = climbed(|at, look| {
        if at % 50 < 10 {
            alarm(look);
        }
    });
    ends(&climb, Verdict::NotRecovered, 600..=602);
}

// Two writes, of which one goes to somebody else's cluster, are one too many.
#[test]
fn nothing_is_written_to_a_cluster_that_does_not_list_this_node() {
    for name in [
        Ok("elsewhere".to_owned()),
        Err(Unseen::Failed("no name".to_owned())),
    ] {
        let (climb, writes) = climbed(|_, look| look.name.clone_from(&name));
        assert_eq!(writes, 0);
        assert_eq!(climb.ladder.verdict, Verdict::NotRecovered);
        let nodes = climb.ladder.rung(Rung::Nodes).unwrap();
        assert_ne!(nodes.outcome, Outcome::Passed, "{nodes:#?}");
    }
}

// A watchdog, or a hand, starts a unit again and systemd does not count it.
#[test]
fn a_unit_that_is_younger_than_the_window_was_started_within_it() {
    let (climb, _) = climbed(|at, look| {
        let since = if at >= 40 { at - 40 } else { at + 500 };
        look.observed.units.as_mut().unwrap()[0].active_for = Some(Duration::from_secs(since));
    });
    ends(&climb, Verdict::Recovered, 100..=106);
}
