//! What a caller's order does to a workload: the plan, or why it is refused.
//!
//! The plan is a value: dry run shows it, the executor writes it, the answer is rendered from it.
//! Idempotent by construction: an order whose effect is already there has a plan without an update, or one that
//! changes only what the order adds (a schedule, who holds it asleep).

use jiff::Timestamp;
use thiserror::Error;

use crate::guardrail::{Forbidden, Guardrails};
use crate::id::RequestId;
use crate::intent::{
    Action, Actor, Asleep, Change, CountWriter, Intent, IntentUpdate, ScheduledWake, SleptBy,
};
use crate::quantity::{Replicas, WakeCount};
use crate::schedule::reason;
use crate::text::ReasonText;
use crate::wake_count::{Source, Wish, wake_count};
use crate::workload::Workload;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Sleep, and perhaps wake again at an instant that [`crate::schedule::parse_instant`] accepted.
    ToZero {
        /// Why.
        reason: ReasonText,
        /// When to wake by itself; `None` keeps a pending schedule (R07).
        wake_at: Option<Timestamp>,
    },
    /// Have exactly this many replicas, more or fewer than now.
    Up {
        /// How many.
        replicas: WakeCount,
        /// Why.
        reason: ReasonText,
    },
    /// Be awake; does nothing to a workload that is.
    Wake {
        /// To how many, when the caller knows better than what is remembered.
        replicas: Option<WakeCount>,
        /// Why; a rule's words when the caller gave none.
        reason: Option<ReasonText>,
        /// A policy lets requests wake it, so 1 may be assumed (wake by request only).
        default_allowed: bool,
    },
    /// Forget the pending schedule.
    CancelSchedule,
}

/// An order with who gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is wanted.
    pub order: Order,
    /// By whom.
    pub actor: Actor,
    /// In which request.
    pub request_id: Option<RequestId>,
}

/// Which way the wanted count moves (R11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// More.
    Up,
    /// Fewer.
    Down,
    /// The same.
    None,
}

/// Something that the caller should know beside success (R24).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// An autoscaler owns the count.
    Autoscaler {
        /// Its name.
        name: String,
        /// Its lower bound.
        minimum: Replicas,
    },
    /// Nobody knows to how many replicas the next wake goes.
    NoWakeCount,
    /// Open connections are cut.
    ConnectionsCut {
        /// How many.
        open: u64,
    },
    /// Requests that are held until it is awake are refused.
    RequestsRefused {
        /// How many.
        held: u64,
    },
}

/// What an order comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What to write; `None` when everything is as ordered already.
    pub update: Option<IntentUpdate>,
    /// Wanted count before.
    pub from: Replicas,
    /// Wanted count after.
    pub to: Replicas,
    /// Where a wake count came from.
    pub source: Option<Source>,
    /// The schedule that is pending afterwards, or that was cancelled by a cancel order.
    pub scheduled: Option<Timestamp>,
    /// What the caller should know.
    pub warnings: Vec<Warning>,
}

impl Plan {
    /// Which way the wanted count moves.
    pub fn direction(&self) -> Direction {
        match self.to.cmp(&self.from) {
            std::cmp::Ordering::Greater => Direction::Up,
            std::cmp::Ordering::Less => Direction::Down,
            std::cmp::Ordering::Equal => Direction::None,
        }
    }

    /// The count remembered for the next wake, after this plan.
    pub fn remembered(&self, workload: &Workload) -> Option<WakeCount> {
        self.update
            .as_ref()
            .map_or(workload.intent.remembered, |update| {
                update.intent.remembered
            })
    }
}

/// Why an order is refused. The limits of a request's form are judged before, at its parsing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Nothing in its namespace may be changed.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// More replicas than the ceiling.
    #[error("must be at most {max}, got {got}")]
    TooMany {
        /// The ceiling.
        max: Replicas,
        /// What was asked for.
        got: Replicas,
    },
    /// No count is known for a wake.
    #[error(
        "nobody has said to how many replicas it wakes: name a count, or set awake_replicas in the workload file (on \
         Kubernetes the annotation nagi.dev/awake-replicas)"
    )]
    NoWakeCount,
    /// Nothing to cancel.
    #[error("no scheduled scale up")]
    NoSchedule,
}

/// Plans an order on the facts of one observation.
///
/// # Errors
/// The order breaks a guardrail, or cannot be carried out on these facts.
pub fn decide(
    rails: &Guardrails,
    workload: &Workload,
    request: &Request,
    now: Timestamp,
) -> Result<Plan, Refusal> {
    rails.check(&workload.id.namespace)?;
    match &request.order {
        Order::ToZero { reason, wake_at } => to_zero(workload, request, reason, *wake_at, now),
        Order::Up { replicas, reason } => {
            if replicas.replicas() > rails.replicas_max {
                return Err(Refusal::TooMany {
                    max: rails.replicas_max,
                    got: replicas.replicas(),
                });
            }
            Ok(up(workload, request, *replicas, reason, now))
        }
        Order::Wake {
            replicas,
            reason,
            default_allowed,
        } => {
            if let Some(count) = replicas
                && count.replicas() > rails.replicas_max
            {
                return Err(Refusal::TooMany {
                    max: rails.replicas_max,
                    got: count.replicas(),
                });
            }
            wake(
                workload,
                request,
                *replicas,
                reason.as_ref(),
                *default_allowed,
                now,
            )
        }
        Order::CancelSchedule => cancel(workload, request, now),
    }
}

fn to_zero(
    workload: &Workload,
    request: &Request,
    why: &ReasonText,
    wake_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Plan, Refusal> {
    let was_awake = !workload.desired.is_zero();
    let mut intent = workload.intent.clone();
    intent.remembered = WakeCount::new(workload.desired.0).or(intent.remembered);
    if let Some(at) = wake_at {
        intent.scheduled = Some(ScheduledWake {
            at,
            actor: request.actor.clone(),
            request_id: request.request_id.clone(),
        });
    }
    if was_awake {
        intent.last_scale_time = Some(now);
        intent.asleep = Some(Asleep {
            since: now,
            by: SleptBy::Api,
        });
    } else if let Some(asleep) = &mut intent.asleep {
        // An explicit order outlives the policy that put the workload to sleep before.
        asleep.by = SleptBy::Api;
    }
    let asleep_view = Workload {
        desired: Replicas::ZERO,
        intent: intent.clone(),
        ..workload.clone()
    };
    let count = wake_count(Wish::default(), &asleep_view);
    if wake_at.is_some() && count.is_none() {
        return Err(Refusal::NoWakeCount);
    }
    let mut warnings = autoscaler_warning(workload);
    if count.is_none() {
        warnings.push(Warning::NoWakeCount);
    }
    let scheduled = intent.scheduled.as_ref().map(|s| s.at);
    let action = if was_awake {
        Action::ScaleToZero
    } else {
        Action::ScheduleSet
    };
    let changed = was_awake || meaning(&intent) != meaning(&workload.intent);
    let record = was_awake || wake_at.is_some();
    let update = changed.then(|| {
        if record {
            intent.record(change(
                request,
                action,
                why.clone(),
                workload.desired,
                Replicas::ZERO,
                now,
            ));
        }
        IntentUpdate {
            desired: Replicas::ZERO,
            intent,
        }
    });
    Ok(Plan {
        update,
        from: workload.desired,
        to: Replicas::ZERO,
        source: None,
        scheduled,
        warnings,
    })
}

fn up(
    workload: &Workload,
    request: &Request,
    replicas: WakeCount,
    why: &ReasonText,
    now: Timestamp,
) -> Plan {
    let to = replicas.replicas();
    let mut intent = workload.intent.clone();
    intent.scheduled = None;
    intent.asleep = None;
    // The count that a person last wanted is the one to restore (invariant 7).
    intent.remembered = Some(replicas);
    if to != workload.desired {
        intent.last_scale_time = Some(now);
    }
    let changed = to != workload.desired || meaning(&intent) != meaning(&workload.intent);
    let cancelled = workload.intent.scheduled.is_some();
    let update = changed.then(|| {
        if to != workload.desired {
            intent.record(change(
                request,
                Action::ScaleUp,
                why.clone(),
                workload.desired,
                to,
                now,
            ));
        } else if cancelled {
            intent.record(change(
                request,
                Action::ScheduleCancelled,
                why.clone(),
                to,
                to,
                now,
            ));
        }
        IntentUpdate {
            desired: to,
            intent,
        }
    });
    let warnings = autoscaler_warning(workload);
    Plan {
        update,
        from: workload.desired,
        to,
        source: Some(Source::Call),
        scheduled: None,
        warnings,
    }
}

fn wake(
    workload: &Workload,
    request: &Request,
    replicas: Option<WakeCount>,
    why: Option<&ReasonText>,
    default_allowed: bool,
    now: Timestamp,
) -> Result<Plan, Refusal> {
    let scheduled = workload.intent.scheduled.as_ref().map(|s| s.at);
    let from = workload.desired;
    if !from.is_zero() {
        return Ok(Plan {
            update: None,
            from,
            to: from,
            source: None,
            scheduled,
            warnings: vec![],
        });
    }
    let wish = Wish {
        call: replicas,
        policy: None,
        default_allowed,
    };
    let (count, source) = wake_count(wish, workload).ok_or(Refusal::NoWakeCount)?;
    let mut intent = workload.intent.clone();
    intent.asleep = None;
    intent.last_scale_time = Some(now);
    let (action, words) = match request.actor {
        Actor::Gateway => (Action::WakeOnRequest, "a request arrived"),
        Actor::Key(_)
        | Actor::User(_)
        | Actor::Anonymous
        | Actor::Idle
        | Actor::Schedule
        | Actor::Outside => (Action::Wake, "asked to wake"),
    };
    let why = why.cloned().unwrap_or_else(|| reason(words));
    intent.record(change(request, action, why, from, count.into(), now));
    let update = Some(IntentUpdate {
        desired: count.into(),
        intent,
    });
    let warnings = vec![];
    Ok(Plan {
        update,
        from,
        to: count.into(),
        source: Some(source),
        scheduled,
        warnings,
    })
}

fn cancel(workload: &Workload, request: &Request, now: Timestamp) -> Result<Plan, Refusal> {
    let scheduled = workload
        .intent
        .scheduled
        .as_ref()
        .ok_or(Refusal::NoSchedule)?;
    let mut intent = workload.intent.clone();
    intent.scheduled = None;
    let why = reason(&format!("schedule for {} cancelled", scheduled.at));
    let desired = workload.desired;
    intent.record(change(
        request,
        Action::ScheduleCancelled,
        why,
        desired,
        desired,
        now,
    ));
    Ok(Plan {
        update: Some(IntentUpdate { desired, intent }),
        from: desired,
        to: desired,
        source: None,
        scheduled: Some(scheduled.at),
        warnings: vec![],
    })
}

/// True when the count does not fit what is recorded: somebody set it without leaving a record.
///
/// `unrecorded` is a count from before that nobody recorded ([`Workload::unrecorded`]).
pub fn is_out_of_step(desired: Replicas, intent: &Intent, unrecorded: Option<Replicas>) -> bool {
    let recorded = intent.changes.last().map(|last| last.to);
    let left_asleep = intent.asleep.is_some() && !desired.is_zero();
    left_asleep || unrecorded.is_some() || recorded.is_some_and(|to| to != desired)
}

/// What to write when it is: the change is recorded and a leftover "asleep" is cleared. A wake by the gateway, which may
/// write nothing but the count, keeps a pending schedule as every wake does; raising the count by other means cancels it,
/// as scale-up does (R07). Where nobody tells who raised it from zero the schedule stays: due while it is awake, it changes
/// nothing, and one that is lost would never wake. `None` when nothing is out of step.
pub fn outside_change(
    workload: &Workload,
    writer: Option<&CountWriter>,
    now: Timestamp,
) -> Option<IntentUpdate> {
    if !is_out_of_step(workload.desired, &workload.intent, workload.unrecorded) {
        return None;
    }
    let recorded = (workload.intent.changes.last()).map_or(Replicas::ZERO, |last| last.to);
    let from = workload.unrecorded.unwrap_or(recorded);
    let mut intent = workload.intent.clone();
    let woken = from.is_zero() && writer == Some(&CountWriter::Gateway);
    // What people do with a workload that Nagi never changed is theirs alone; a request that woke it begins its record.
    if intent.changes.is_empty() && intent.asleep.is_none() && !woken {
        return None;
    }
    if workload.desired.is_zero() {
        intent.remembered = WakeCount::new(from.0).or(intent.remembered);
        if workload.unrecorded.is_some() {
            // Somebody woke it in between, which ended the sleep, and its schedule.
            intent.asleep = None;
            intent.scheduled = None;
        }
    } else {
        intent.asleep = None;
        if !from.is_zero() || matches!(writer, Some(CountWriter::Other(_))) {
            intent.scheduled = None;
        }
        if !woken {
            intent.remembered = WakeCount::new(workload.desired.0);
        }
    }
    if from != workload.desired {
        intent.last_scale_time = Some(now);
    }
    let (action, actor, why) = match writer {
        Some(CountWriter::Gateway) if woken => (
            Action::WakeOnRequest,
            Actor::Gateway,
            reason("a request arrived"),
        ),
        Some(CountWriter::Other(name)) => (
            Action::OutsideChange,
            Actor::Outside,
            // Names of field managers are at most 128 characters.
            reason(&format!("the count was changed without Nagi, by {name}")),
        ),
        Some(CountWriter::Gateway) | None => (
            Action::OutsideChange,
            Actor::Outside,
            reason("the count was changed without Nagi"),
        ),
    };
    intent.record(Change {
        time: now,
        action,
        actor,
        reason: why,
        request_id: None,
        from,
        to: workload.desired,
    });
    Some(IntentUpdate {
        desired: workload.desired,
        intent,
    })
}

fn change(
    request: &Request,
    action: Action,
    reason: ReasonText,
    from: Replicas,
    to: Replicas,
    time: Timestamp,
) -> Change {
    let (actor, request_id) = (request.actor.clone(), request.request_id.clone());
    Change {
        time,
        action,
        actor,
        reason,
        request_id,
        from,
        to,
    }
}

/// What an intent means, without the record of how it came to be.
fn meaning(intent: &Intent) -> impl PartialEq + use<> {
    (
        intent.remembered,
        intent.asleep.clone(),
        intent.scheduled.as_ref().map(|s| s.at),
        intent.keep_awake_until,
    )
}

fn autoscaler_warning(workload: &Workload) -> Vec<Warning> {
    let warn = |a: &crate::workload::Autoscaler| Warning::Autoscaler {
        name: a.name.clone(),
        minimum: a.minimum,
    };
    workload.autoscaler.iter().map(warn).collect()
}

#[cfg(test)]
mod tests;
