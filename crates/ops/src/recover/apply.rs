//! The executor: looks, plans, does the next step, and begins again. It chooses nothing.
//!
//! A step is done at most once in a round and never after a later one. A second round there is only for a store that nobody
//! could ask before it was started. It ends at the first step that fails or whose gate is shut.

use std::time::Duration;

use jiff::Timestamp;

use super::freeing::Freeing;
use super::plan::{Plan, Step, evicted_by_a_start, plan};
use crate::decide::{Defrag, Diagnosis, Floor, beside_etcd, bytes, decide, defrag};
use crate::observed::{EtcdAnswer, Looked, Observed, Reach};
use crate::policy::Policy;

/// Everything that a plan is made of, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// What was seen.
    pub observed: Observed,
    /// What may go.
    pub freeing: Looked<Freeing>,
    /// When.
    pub now: Timestamp,
    /// A run that was killed is gone on with.
    pub is_resumed: bool,
}

/// What may go from the disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approved {
    /// Whatever the plan says when it is due.
    Anything,
    /// Only this, which somebody has seen.
    Only(Freeing),
}

/// What touches the node.
pub trait Hands {
    /// Looks at everything anew.
    ///
    /// # Errors
    /// Nothing can be seen at all.
    fn look(&mut self) -> impl Future<Output = Result<World, String>>;

    /// Does one step.
    ///
    /// # Errors
    /// It failed, in words.
    fn act(&mut self, step: Step, world: &World) -> impl Future<Output = Result<Did, String>>;
}

/// What a step did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Did {
    /// In words, one fact each.
    pub evidence: Vec<String>,
    /// Bytes that are free more than before, as measured; of steps that free.
    pub freed: Option<i64>,
    /// And as announced.
    pub expected: Option<u64>,
}

/// A step that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Which.
    pub step: Step,
    /// What it did.
    pub did: Did,
    /// How long it took.
    pub took: Duration,
}

/// Something that happens on the way.
#[derive(Debug)]
pub enum Event<'a> {
    /// This is done next.
    Begins(Step, &'a str),
    /// It is done.
    Ended(&'a Done),
}

/// Why not everything was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// This step failed.
    Failed(Step, String),
    /// What this step needs did not hold when it was due.
    Shut(Step, String),
    /// The node could not be looked at any more.
    Blind(String),
    /// What would go from the disks is not what was approved.
    Changed {
        /// The digest that it has now.
        digest: String,
        /// What is other, in lines that each name one thing.
        changes: Vec<String>,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What was done, in order.
    pub done: Vec<Done>,
    /// Why it ended early; none when nothing was left to do.
    pub stopped: Option<Stopped>,
    /// What is refused in the world as it is now.
    pub last: Option<Plan>,
    /// At the last look the API server said that it is ready.
    pub is_ready: bool,
}

/// An alarm is let go with the file at so much of the quota or below.
const QUOTA_PERCENT: u128 = 90;
/// Rounds: the second is for a store that only answers since it was started.
const ROUNDS_MAX: u8 = 2;

/// Does what is to be done.
pub async fn apply<H: Hands>(
    hands: &mut H,
    policy: &Policy,
    approved: &Approved,
    tell: &mut dyn FnMut(&Event<'_>),
) -> Applied {
    let mut applied = Applied {
        done: Vec::new(),
        stopped: None,
        last: None,
        is_ready: false,
    };
    for round in 1..=ROUNDS_MAX {
        let begun = applied.done.len();
        // Behind a restart nothing is freed and nothing restarted again.
        let may = |step: Step| round == 1 || step.is_of_store();
        if let Err(stopped) = one_round(hands, (policy, approved), may, &mut applied, tell).await {
            applied.stopped = Some(stopped);
            return applied;
        }
        let has_started = applied
            .done
            .get(begun..)
            .unwrap_or_default()
            .iter()
            .any(|done| done.step.starts_something());
        let wants_store = applied
            .last
            .as_ref()
            .is_some_and(|plan| plan.has(Step::Snapshot));
        if round == ROUNDS_MAX || !has_started || !wants_store {
            return applied;
        }
    }
    applied
}

async fn one_round<H: Hands>(
    hands: &mut H,
    (policy, approved): (&Policy, &Approved),
    may: impl Fn(Step) -> bool,
    applied: &mut Applied,
    tell: &mut dyn FnMut(&Event<'_>),
) -> Result<(), Stopped> {
    let begun = applied.done.len();
    let mut last = None;
    loop {
        let world = hands.look().await.map_err(Stopped::Blind)?;
        let plan = world.plan(policy);
        let next = plan.next_after(last, &may);
        let next = next.map(|(step, what)| (step, what.to_owned()));
        applied.last = Some(plan);
        let endpoint = world.observed.endpoint.as_ref();
        applied.is_ready = endpoint.is_ok_and(|one| one.reach == Reach::Ready);
        let Some((step, what)) = next else {
            return Ok(());
        };
        let done = applied.done.get(begun..).unwrap_or_default();
        if step == Step::Free
            && let (Approved::Only(seen), Ok(freeing)) = (approved, &world.freeing)
            && seen.digest != freeing.digest
        {
            return Err(Stopped::Changed {
                digest: freeing.digest.clone(),
                changes: freeing.changes_since(seen),
            });
        }
        gate(step, policy, &world, done).map_err(|why| Stopped::Shut(step, why))?;
        tell(&Event::Begins(step, &what));
        let since = tokio::time::Instant::now();
        let did = hands.act(step, &world).await;
        let did = did.map_err(|why| Stopped::Failed(step, why))?;
        let done = Done {
            step,
            did,
            took: since.elapsed(),
        };
        tell(&Event::Ended(&done));
        applied.done.push(done);
        last = Some(step);
    }
}

/// Whether a step may begin now. `done` is what this round did.
///
/// # Errors
/// It may not, for this reason.
fn gate(step: Step, policy: &Policy, world: &World, done: &[Done]) -> Result<(), String> {
    let has = |wanted: Step| done.iter().any(|one| one.step == wanted);
    let needs = |wanted: Step| {
        if has(wanted) {
            return Ok(());
        }
        Err(format!(
            "it comes after {}, which was not done",
            wanted.name()
        ))
    };
    match step {
        Step::Free => Ok(()),
        Step::Snapshot => {
            let status = status(world)?;
            if status.has_leader {
                Ok(())
            } else {
                Err("etcd has no leader".to_owned())
            }
        }
        Step::Compact => needs(Step::Snapshot),
        Step::Defrag => {
            needs(Step::Compact)?;
            let status = status(world)?;
            match defrag(status, beside_etcd(&world.observed)) {
                Defrag::Safe => Ok(()),
                Defrag::Refused(why) => Err(why),
            }
        }
        Step::Disarm => {
            needs(Step::Defrag)?;
            let status = status(world)?;
            let Some(quota) = status.quota else {
                return Err("etcd does not tell its quota, so nobody knows whether the alarm would come back".to_owned());
            };
            if u128::from(status.db_size) * 100 <= u128::from(quota) * QUOTA_PERCENT {
                return Ok(());
            }
            Err(format!(
                "etcd holds {} of its quota of {} in data that are not written over, and the alarm would come back: \
                 raise --quota-backend-bytes in its manifest, or delete objects",
                bytes(status.db_size),
                bytes(quota)
            ))
        }
        Step::StartRuntime | Step::RestartKubelet => above_floors(policy, world),
    }
}

fn status(world: &World) -> Result<&crate::observed::EtcdStatus, String> {
    match &world.observed.etcd {
        Ok(etcd) => match &etcd.answer {
            EtcdAnswer::Status(status) => Ok(status),
            EtcdAnswer::Refused => Err("etcd does not listen any more".to_owned()),
            EtcdAnswer::Failed(why) | EtcdAnswer::Odd(why) => Err(why.clone()),
        },
        Err(unseen) => Err(unseen.why().to_owned()),
    }
}

/// D-16: a kubelet that starts on a full disk can reject and delete the pods that run.
fn above_floors(policy: &Policy, world: &World) -> Result<(), String> {
    let floors = crate::decide::floors(policy, &world.observed);
    let floors =
        floors.map_err(|unseen| format!("whether there is room is not known: {}", unseen.why()))?;
    let below: Vec<&str> = floors
        .iter()
        .filter(|floor| !floor.is_met)
        .map(|floor: &Floor| floor.evidence.as_str())
        .collect();
    if !below.is_empty() {
        return Err(below.join("; "));
    }
    if floors.is_empty() {
        return Err("no filesystem is known that the node lives from".to_owned());
    }
    let evicted = evicted_by_a_start(&world.observed);
    if !evicted.is_empty() {
        let why: Vec<String> = evicted.into_iter().map(|(_, why)| why).collect();
        return Err(why.join("; "));
    }
    Ok(())
}

// === impl World ===

impl World {
    /// What is wrong.
    pub fn diagnosis(&self, policy: &Policy) -> Diagnosis {
        decide(policy, &self.observed, self.now)
    }

    /// What is to be done.
    pub fn plan(&self, policy: &Policy) -> Plan {
        plan(
            policy,
            &self.observed,
            &self.diagnosis(policy),
            &self.freeing,
            self.is_resumed,
        )
    }
}

// === impl Stopped ===

impl Stopped {
    /// In a sentence.
    pub fn words(&self) -> String {
        match self {
            Self::Failed(step, why) => format!("{} failed: {why}", step.name()),
            Self::Shut(step, why) => format!("{} was not begun: {why}", step.name()),
            Self::Blind(why) => format!("the node cannot be looked at: {why}"),
            Self::Changed { digest, changes } => {
                let changes = match &changes[..] {
                    [] => "it gives back another amount".to_owned(),
                    changes => changes.join("; "),
                };
                format!(
                    "what would go is not what was shown: {changes}; look at the plan again, its digest is {digest}"
                )
            }
        }
    }
}
