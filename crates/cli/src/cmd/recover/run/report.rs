//! What a recovery was and came to, as one value: its JSON, from which text and Markdown are made too.
//!
//! The part that must outlive a killed run, what was before it and what it did, is also the record under `/run/nagi`.

use nagi_ops::recover::{
    Applied, Done, Freeing, Held, Ladder, Plan, Refusal, Step, Stopped, World,
};
use nagi_ops::{Cause, Diagnosis, EtcdAnswer, Looked, Observed, Policy, Reach, floors};
use serde::{Deserialize, Serialize};

use super::super::diagnose::body::reach;
use crate::cmd::disk::shown;

/// The whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// `planned`, `nothing-to-do`, `unclear`, `refused`, `recovered`, `up-not-stable`, `not-recovered` or `rehearsed`.
    pub(in crate::cmd::recover) status: &'static str,
    pub(in crate::cmd::recover) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<CauseBody>,
    pub(super) plan: PlanBody,
    pub(super) before: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cmd::recover) after: Option<State>,
    pub(super) done: Vec<DoneBody>,
    /// The first step that failed or could not be begun; nothing was done after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stopped: Option<String>,
    pub(super) ladder: Vec<RungBody>,
    pub(super) times: Vec<TimeBody>,
    /// The run goes on where one that was killed ended.
    pub(super) resumed: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct CauseBody {
    pub(super) id: &'static str,
    pub(super) at: String,
    pub(super) evidence: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct PlanBody {
    pub(super) steps: Vec<StepBody>,
    pub(super) refusals: Vec<RefusalBody>,
    pub(super) free: Vec<FreeBody>,
    /// Places that were not looked at: nobody knows what might go from them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) left_alone: Vec<LeftAloneBody>,
    /// What the steps give back that may be done, to the byte.
    pub(super) expected_bytes: u64,
    /// Of the plan of the disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct StepBody {
    pub(super) step: &'static str,
    pub(super) what: String,
    /// What has to hold when it begins.
    pub(super) gate: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct RefusalBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<&'static str>,
    pub(super) blocks: &'static str,
    pub(super) why: Vec<String>,
    pub(super) next: String,
}

#[derive(Debug, Serialize)]
pub(super) struct FreeBody {
    pub(super) kind: String,
    pub(super) harm: String,
    pub(super) directory: String,
    pub(super) files: u64,
    pub(super) expected_bytes: u64,
    pub(super) consent: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct LeftAloneBody {
    pub(super) kind: String,
    pub(super) directory: String,
    pub(super) why: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DoneBody {
    pub(super) step: String,
    pub(super) evidence: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) expected_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) measured_bytes: Option<i64>,
    pub(super) seconds: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct RungBody {
    pub(super) rung: &'static str,
    pub(super) outcome: &'static str,
    pub(super) evidence: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct TimeBody {
    pub(super) part: &'static str,
    pub(super) seconds: f64,
}

/// How things are at one moment: B-040 and B-041.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::cmd::recover) struct State {
    pub(super) disks: Vec<DiskBody>,
    pub(super) api_server: String,
    pub(super) etcd: String,
    pub(super) kubelet: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DiskBody {
    pub(super) mounted_on: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) used_percent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) free: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) available: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) inodes_free: Option<u64>,
}

/// What is written down for a run that comes after a killed one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) began: String,
    pub(super) before: State,
    pub(super) done: Vec<DoneBody>,
    /// What somebody has seen before it was begun, where it was named by its digest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) seen: Option<SeenBody>,
}

/// A plan of the disks that a person named.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SeenBody {
    pub(super) digest: String,
    /// Each file that it removes, with what tells it from others.
    pub(super) files: Vec<String>,
}

// === impl Report ===

impl Report {
    /// A report with its plan and what was before; nothing was done.
    pub(in crate::cmd::recover) fn of(world: &World, diagnosis: &Diagnosis, plan: &Plan) -> Self {
        Self {
            status: "planned",
            message: String::new(),
            cause: diagnosis.cause().map(|cause| CauseBody {
                id: cause.cause.id(),
                at: cause.subject.clone(),
                evidence: cause.evidence.clone(),
            }),
            plan: PlanBody::of(plan, &world.freeing),
            before: State::of(&world.observed),
            after: None,
            done: Vec::new(),
            stopped: None,
            ladder: Vec::new(),
            times: Vec::new(),
            resumed: false,
        }
    }

    /// With what was done.
    pub(super) fn applied(&mut self, applied: &Applied, before: Vec<DoneBody>) {
        self.resumed = !before.is_empty();
        self.done = before;
        self.done.extend(applied.done.iter().map(DoneBody::of));
        self.stopped = applied.stopped.as_ref().map(Stopped::words);
        // What is refused now, which may be less or more than before.
        if let Some(last) = &applied.last {
            self.refused(&last.refusals);
        }
    }

    /// With what is refused now.
    pub(super) fn refused(&mut self, refusals: &[Refusal]) {
        self.plan.refusals = refusals.iter().map(RefusalBody::of).collect();
    }

    /// With the ladder, and how things are now.
    pub(in crate::cmd::recover) fn climbed(&mut self, ladder: &Ladder, observed: &Observed) {
        self.ladder = ladder.rungs.iter().map(RungBody::of).collect();
        self.after = Some(State::of(observed));
    }

    pub(in crate::cmd::recover) fn timed(&mut self, part: &'static str, took: std::time::Duration) {
        self.times.push(TimeBody {
            part,
            seconds: rounded(took),
        });
    }
}

fn rounded(took: std::time::Duration) -> f64 {
    // To the millisecond.
    let millis = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
    f64::from(millis) / 1000.0
}

impl PlanBody {
    fn of(plan: &Plan, freeing: &Looked<Freeing>) -> Self {
        let steps = plan.steps().map(|(step, what)| StepBody {
            step: step.name(),
            what: what.to_owned(),
            gate: step.gate(),
        });
        let has_free = plan.has(Step::Free);
        let freeing = freeing.as_ref().ok();
        let unseen = freeing.into_iter().flat_map(|freeing| &freeing.unseen);
        let left_alone = unseen.map(|one| LeftAloneBody {
            kind: one.kind.clone(),
            directory: shown(&one.directory),
            why: one.why.clone(),
        });
        let left_alone = left_alone.collect();
        let free = freeing.into_iter().flat_map(|freeing| &freeing.steps);
        let free: Vec<FreeBody> = free
            .map(|step| FreeBody {
                kind: step.kind.clone(),
                harm: step.harm.clone(),
                directory: shown(&step.directory),
                files: step.files,
                expected_bytes: step.expected,
                consent: step.has_consent,
            })
            .collect();
        Self {
            steps: steps.collect(),
            refusals: plan.refusals.iter().map(RefusalBody::of).collect(),
            expected_bytes: free
                .iter()
                .filter(|one| has_free && one.consent)
                .map(|one| one.expected_bytes)
                .sum(),
            free,
            left_alone,
            digest: freeing
                .filter(|_| has_free)
                .map(|freeing| freeing.digest.clone()),
        }
    }
}

impl RefusalBody {
    fn of(refusal: &Refusal) -> Self {
        Self {
            cause: refusal.cause.map(Cause::id),
            blocks: refusal.blocks.words(),
            why: refusal.why.clone(),
            next: refusal.next.clone(),
        }
    }
}

impl DoneBody {
    pub(super) fn of(done: &Done) -> Self {
        Self {
            step: done.step.name().to_owned(),
            evidence: done.did.evidence.clone(),
            expected_bytes: done.did.expected,
            measured_bytes: done.did.freed,
            seconds: rounded(done.took),
        }
    }
}

impl LeftAloneBody {
    /// In a line.
    pub(super) fn words(&self) -> String {
        let Self {
            kind,
            directory,
            why,
        } = self;
        format!("{kind} at {directory} left alone: {why}")
    }
}

impl RungBody {
    fn of(held: &Held) -> Self {
        Self {
            rung: held.rung.name(),
            outcome: held.outcome.name(),
            evidence: held.evidence.clone(),
        }
    }
}

impl State {
    pub(super) fn of(observed: &Observed) -> Self {
        let points = floors(&Policy::default(), observed).unwrap_or_default();
        let filesystems = observed.filesystems.as_deref().unwrap_or_default();
        let disks = points.iter().filter_map(|floor| {
            let one = filesystems.iter().find(|one| one.point == floor.point)?;
            Some(DiskBody {
                mounted_on: shown(&one.point),
                used_percent: one.space.and_then(|space| space.used_percent()),
                free: one.space.map(|space| space.bytes_free),
                available: one.space.map(|space| space.bytes_available),
                inodes_free: one.space.map(|space| space.inodes_free),
            })
        });
        Self {
            disks: disks.collect(),
            api_server: match &observed.endpoint {
                Ok(endpoint) if endpoint.reach == Reach::Ready => "ready".to_owned(),
                Ok(endpoint) => format!("down: {}", reach(&endpoint.reach)),
                Err(unseen) => format!("unknown: {}", unseen.why()),
            },
            etcd: match &observed.etcd {
                Err(unseen) => format!("unknown: {}", unseen.why()),
                Ok(etcd) => match &etcd.answer {
                    EtcdAnswer::Refused => "down: nobody listens".to_owned(),
                    EtcdAnswer::Failed(why) | EtcdAnswer::Odd(why) => format!("down: {why}"),
                    EtcdAnswer::Status(status) => match &status.alarms {
                        Ok(alarms) if alarms.is_empty() => "up, no alarm".to_owned(),
                        Ok(alarms) => format!("up, alarm {}", alarms.join(", ")),
                        Err(_) => "up, alarms unknown".to_owned(),
                    },
                },
            },
            kubelet: match &observed.units {
                Err(unseen) => format!("unknown: {}", unseen.why()),
                Ok(units) => units
                    .iter()
                    .find(|unit| unit.name == "kubelet.service" && unit.is_known)
                    .map_or_else(
                        || "unknown to systemd".to_owned(),
                        |unit| format!("{} ({})", unit.state, unit.substate),
                    ),
            },
        }
    }
}
