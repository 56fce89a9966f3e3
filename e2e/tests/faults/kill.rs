//! The leader is killed before and after every call of the API server that a sleep, a wake and a scheduled wake make.
//!
//! One run is recorded twice: which requests about the workload go out. Then, for each request that both runs made, the
//! operation runs again and the replica that carries it out is killed instead of the request, and again when the API server
//! has carried it out. The other replica then answers for both.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use nagi_e2e::wait::{self, Look};
use serde_json::json;

use crate::away::relayed;
use crate::lab::{Lab, SOON, World, in_};
use crate::outage::sleeps;
use crate::relay::{Deed, Phase, Plan, Relay};

/// An operation is over when it has made no further request for this long. Learned durations come when the pods are ready.
const QUIET: Duration = Duration::from_secs(2);
/// From the answer to the scheduled wake.
const DUE: Duration = Duration::from_secs(3);
/// After a kill the other replica must lead, which takes 15 s.
const FOLLOWED_MAX: Duration = Duration::from_secs(45);
/// From the order to the request at which to kill.
const REACHED_MAX: Duration = Duration::from_secs(15);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Sleep,
    Wake,
    Schedule,
}

pub(crate) fn everywhere(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    let (relay, _proxy, kubeconfig) = relayed(lab)?;
    let mut english = Vec::new();
    let mut japanese = Vec::new();
    for operation in [Operation::Sleep, Operation::Wake, Operation::Schedule] {
        let mut runs = Runs {
            lab: &mut *lab,
            relay: &relay,
            kubeconfig: &kubeconfig,
            operation,
            count: 0,
        };
        let (calls, kills) = runs.at_every_call()?;
        let names: Vec<String> = calls.iter().map(|call| format!("`{call}`")).collect();
        let (words, japanese_words) = operation.words();
        english.push(format!("{words}: {kills} kills at {}", names.join(", ")));
        japanese.push(format!(
            "{japanese_words}: {} で {kills} 回",
            names.join("、")
        ));
    }
    lab.one = None;
    lab.two = None;
    world.saw(english.join("; "), japanese.join("、"));
    Ok(())
}

struct Runs<'a> {
    lab: &'a mut Lab,
    relay: &'a Relay,
    kubeconfig: &'a std::path::Path,
    operation: Operation,
    count: u32,
}

/// One run.
struct Run {
    name: String,
    /// The order was answered as done.
    acknowledged: bool,
    killed: bool,
}

// === impl Operation ===

impl Operation {
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Sleep => ("sleep", "スリープ"),
            Self::Wake => ("wake", "起動"),
            Self::Schedule => ("schedule", "スケジュール"),
        }
    }

    /// The count that it begins with, and the one that it ends with.
    const fn counts(self) -> (u64, u64) {
        match self {
            Self::Sleep => (2, 0),
            Self::Wake | Self::Schedule => (0, 2),
        }
    }
}

impl Runs<'_> {
    /// Kills at every call; gives the calls and how many kills there were.
    fn at_every_call(&mut self) -> anyhow::Result<(Vec<String>, usize)> {
        let first = self.record()?;
        let calls = in_both(&first, &self.record()?);
        ensure!(
            calls.iter().any(|call| call == "PATCH deployments/NAME"),
            "{:?} writes nothing: {first:?}",
            self.operation
        );
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut kills = 0;
        for call in &calls {
            let occurrence = seen.entry(call).or_default();
            *occurrence += 1;
            for phase in [Phase::Before, Phase::After] {
                let at = format!("{:?}: {phase:?} {call} ({occurrence})", self.operation);
                // Another order of background calls may leave one out. Three runs without it are no chance.
                let reached = (0..3).find_map(|_| {
                    self.kill(call, *occurrence, Deed::Kill(phase))
                        .map(|killed| killed.then_some(()))
                        .transpose()
                });
                reached
                    .unwrap_or_else(|| Err(anyhow::anyhow!("it was never reached")))
                    .with_context(|| at)?;
                kills += 1;
            }
        }
        Ok((calls, kills))
    }

    /// The requests of a run in which nobody dies.
    fn record(&mut self) -> anyhow::Result<Vec<String>> {
        self.prepare()?;
        let name = self.workload()?;
        self.relay.watch(&name, None);
        self.act(&name)?;
        let (_, end) = self.operation.counts();
        self.lab.wait_for_count(&name, end, SOON)?;
        self.lab.settled(&name, end)?;
        let mut noted = self.relay.noted();
        loop {
            std::thread::sleep(QUIET);
            let now = self.relay.noted();
            if now.len() == noted.len() {
                return Ok(noted);
            }
            noted = now;
        }
    }

    /// Kills at a call and judges; false when the call did not come.
    fn kill(&mut self, request: &str, occurrence: usize, deed: Deed) -> anyhow::Result<bool> {
        self.prepare()?;
        let name = self.workload()?;
        let plan = Plan {
            request: request.to_owned(),
            occurrence,
            deed,
            victim: self.lab.first()?.program.process(),
        };
        self.relay.watch(&name, Some(plan));
        let acknowledged = self.act(&name)?;
        let killed = wait::until("the call", REACHED_MAX, || {
            Ok(if self.relay.is_done() {
                Look::There(())
            } else {
                Look::NotYet(format!("{:?}", self.relay.noted()))
            })
        })
        .is_ok();
        let run = Run {
            name,
            acknowledged,
            killed,
        };
        self.judge(&run)?;
        Ok(killed)
    }

    /// The first replica leads and goes through the relay; the second does not.
    fn prepare(&mut self) -> anyhow::Result<()> {
        self.relay.watch("", None);
        // What the replica before left open ends with it.
        self.lab.one = None;
        self.relay.cut();
        self.lab.restart_as_leader(self.kubeconfig, &[])?;
        let two = self.lab.user("two")?;
        self.lab.two = Some(self.lab.server("two", &two, &[])?);
        self.lab.ready().map(drop)
    }

    /// A fresh workload in the state before the operation.
    fn workload(&mut self) -> anyhow::Result<String> {
        self.count += 1;
        let name = format!("kill-{}-{}", self.operation.words().0, self.count);
        self.lab.deployment(&name, 2)?;
        if self.operation == Operation::Wake {
            self.lab.second()?.sleep(&name, None)?;
            self.lab.settled(&name, 0)?;
        }
        Ok(name)
    }

    /// Begins the operation; true when it was answered as done.
    fn act(&self, name: &str) -> anyhow::Result<bool> {
        let body = json!({"reason": "a test of faults"});
        let answered = match self.operation {
            Operation::Sleep => self
                .lab
                .first()?
                .post(&crate::lab::path(name, "scale-to-zero"), &body),
            Operation::Wake => self
                .lab
                .first()?
                .post(&crate::lab::path(name, "wake"), &json!({})),
            Operation::Schedule => {
                // The other replica answers; the one that leads is to fire it.
                self.lab.second()?.sleep(name, Some(&in_(DUE)))?;
                return Ok(true);
            }
        };
        // One that dies answers nothing.
        Ok(answered.is_ok_and(|answer| [200, 202].contains(&answer.status)))
    }

    fn judge(&mut self, run: &Run) -> anyhow::Result<()> {
        let name = &run.name;
        let (before, after) = self.operation.counts();
        if run.killed {
            self.lab.one = None;
        }
        if self.operation == Operation::Schedule {
            // It was promised, so it comes, whoever is left.
            self.lab.wait_for_count(name, 2, FOLLOWED_MAX)?;
        }
        let kept = self.lab.kept(name)?;
        let may_be = if run.acknowledged {
            kept.replicas == after
        } else {
            [before, after].contains(&kept.replicas)
        };
        ensure!(may_be, "acknowledged {}: {kept:?}", run.acknowledged);
        if kept.replicas == 0 {
            sleeps(&kept, 2)?;
        }
        let times = self.lab.counts_written(name)?;
        let times = times.iter().filter(|(_, count)| *count == after).count();
        ensure!(times <= 1, "{after} was written {times} times");
        self.lab.settled(name, kept.replicas)?;
        // The other replica goes on where this one died.
        let body = json!({"reason": "once more"});
        match self.operation {
            Operation::Sleep => {
                self.lab.second()?.order(name, "scale-to-zero", &body)?;
                sleeps(&self.lab.kept(name)?, 2)?;
            }
            Operation::Wake => {
                self.lab.second()?.order(name, "wake", &json!({}))?;
            }
            Operation::Schedule => {
                let item = self.lab.second()?.item(name)?;
                ensure!(item["scheduled_scale_up"].is_null(), "{item}");
            }
        }
        self.lab.settled(name, after)?;
        self.lab.wrote_once(name, after)
    }
}

/// The calls of the first run that the second made as often.
fn in_both(first: &[String], second: &[String]) -> Vec<String> {
    let count = |calls: &[String], call: &String| calls.iter().filter(|one| *one == call).count();
    let mut kept: Vec<String> = Vec::new();
    for call in first {
        if count(&kept, call) < count(second, call) {
            kept.push(call.clone());
        }
    }
    kept
}
