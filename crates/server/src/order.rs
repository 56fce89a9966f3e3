//! From an order to a durable change: read, decide, write, and again, in turn, when somebody else was faster.
//!
//! The rules are all in `nagi_core::scale`. This only fetches facts, carries the plan out unless it is a rehearsal, and
//! says on the log line what came of it.

use std::sync::Arc;

use axum::http::StatusCode;
use nagi_core::id::Version;
use nagi_core::idle::Activity;
use nagi_core::scale::{self, Order, Plan, Refusal, Request, Warning};
use nagi_core::workload::Workload;
use nagi_ports::{PortError, Read};
use nagi_telemetry::names::field;

use crate::app::App;
use crate::call::{self, Change};
use crate::exchange::Exchange;
use crate::problem::{Doing, Problem};
use crate::query::DRY_RUN;

/// How often an order is decided anew when the object changes between read and write (DESIGN §5).
const ATTEMPTS_MAX: u32 = 5;

/// Is the order carried out?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is.
    Real,
    /// Nothing is written (R13).
    DryRun,
}

impl Mode {
    /// As the parameter `dry_run` has it.
    pub(crate) fn of(call: &Change) -> Result<Self, Problem> {
        Ok(if call.query.flag(DRY_RUN)? {
            Self::DryRun
        } else {
            Self::Real
        })
    }

    /// For answers: present only when nothing is written.
    pub(crate) fn shown(self) -> Option<bool> {
        (self == Self::DryRun).then_some(true)
    }
}

/// What an order came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The plan.
    pub(crate) plan: Plan,
    /// The workload after the write, or as it would be.
    pub(crate) after: Arc<Workload>,
}

/// Carries out an order.
pub(crate) async fn execute(
    app: &App,
    call: &Change,
    order: Order,
    mode: Mode,
) -> Result<Outcome, Problem> {
    let request = Request {
        order,
        actor: call.actor.clone(),
        request_id: Some(call.exchange.id.clone()),
    };
    let action = action(&request.order);
    note_order(&call.exchange, &request, mode);
    let outcome = attempts(app, call, &request, mode).await;
    let result = match &outcome {
        Ok(outcome) => {
            note_outcome(&call.exchange, outcome);
            if mode == Mode::DryRun {
                "dry-run"
            } else if outcome.plan.update.is_some() {
                "changed"
            } else {
                "unchanged"
            }
        }
        Err(problem) if problem.status.is_client_error() => "refused",
        Err(_) => "failed",
    };
    app.metrics.scale_operation(action, result);
    outcome
}

async fn attempts(
    app: &App,
    call: &Change,
    request: &Request,
    mode: Mode,
) -> Result<Outcome, Problem> {
    let failed = |error: &PortError| Problem::port(error, Doing::Scale, Some(&call.id));
    let mut attempt = 1;
    let mut freshness = Read::Cached;
    let mut meant = None;
    let waiting = async { Ok(app.turns.after_others(&call.id).await) };
    let mut turn = call
        .exchange
        .upstream(waiting)
        .await
        .map_err(|e| failed(&e))?;
    loop {
        let read = app.workloads.get(&call.id, freshness);
        let before = call.exchange.upstream(read).await.map_err(|e| failed(&e))?;
        // Under the same name there may be another one now, of which whoever ordered this knows nothing (DESIGN §5).
        if *meant.get_or_insert_with(|| before.uid.clone()) != before.uid {
            return Err(failed(&PortError::Conflict).hint(
                "it was deleted and made again meanwhile, and the new one was left as it is",
            ));
        }
        let decided = scale::decide(&app.config.rails, &before, request, app.clock.now());
        // A write fails when the facts were old. What comes to no write must rest on what holds now.
        let is_checked = matches!(&decided, Ok(plan) if plan.update.is_some());
        if !is_checked && mode == Mode::Real && freshness != Read::Live {
            freshness = Read::Live;
            continue;
        }
        let plan = decided.map_err(|refusal| refused(&refusal))?;
        let Some(update) = plan.update.clone() else {
            return Ok(Outcome {
                plan,
                after: before,
            });
        };
        if mode == Mode::DryRun {
            let rehearsal = app.workloads.rehearse(&before, &update);
            call.exchange
                .upstream(rehearsal)
                .await
                .map_err(|e| failed(&e))?;
            let after = Arc::new(Workload {
                desired: update.desired,
                intent: update.intent,
                ..(*before).clone()
            });
            return Ok(Outcome { plan, after });
        }
        let write = app.workloads.write(&before, update);
        match call.exchange.upstream(write).await {
            Ok(after) => return Ok(Outcome { plan, after }),
            Err(PortError::Conflict) if attempt < ATTEMPTS_MAX => {
                attempt += 1;
                if turn.is_none() {
                    let waiting = async { Ok(app.turns.next(&call.id).await) };
                    turn = Some(
                        call.exchange
                            .upstream(waiting)
                            .await
                            .map_err(|e| failed(&e))?,
                    );
                }
                // The cache may still show what the write just failed on.
                freshness = Read::AtLeast(Version::new(before.version.number.saturating_add(1)));
            }
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// Adds whom a sleep hits (R24, invariant 4).
pub(crate) fn warn_of_cut(plan: &mut Plan, activity: Option<Activity>) {
    let Some(Activity {
        in_flight: open,
        held,
        quiet_for: _,
    }) = activity.filter(|_| plan.to.is_zero() && !plan.from.is_zero())
    else {
        return;
    };
    if open > 0 {
        plan.warnings.push(Warning::ConnectionsCut { open });
    }
    if held > 0 {
        plan.warnings.push(Warning::RequestsRefused { held });
    }
}

/// Says on the log line what was ordered, by whom and why.
pub(crate) fn note_order(exchange: &Exchange, request: &Request, mode: Mode) {
    exchange.note(field::ACTION, action(&request.order));
    exchange.note(field::ACTOR, request.actor.to_string());
    let reason = match &request.order {
        Order::ToZero { reason, .. } | Order::Up { reason, .. } => Some(reason),
        Order::Wake { reason, .. } => reason.as_ref(),
        Order::CancelSchedule => None,
    };
    if let Some(reason) = reason {
        exchange.note(field::REASON, reason.as_str());
    }
    if mode == Mode::DryRun {
        exchange.note(field::DRY_RUN, true);
    }
}

fn note_outcome(exchange: &Exchange, outcome: &Outcome) {
    exchange.note(field::FROM, outcome.plan.from.0);
    exchange.note(field::TO, outcome.plan.to.0);
    if let Some(at) = outcome.plan.scheduled {
        exchange.note(field::SCHEDULED_SCALE_UP, at.to_string());
    }
}

const fn action(order: &Order) -> &'static str {
    match order {
        Order::ToZero { .. } => "scale-to-zero",
        Order::Up { .. } => "scale-up",
        Order::Wake { .. } => "wake",
        Order::CancelSchedule => "cancel-schedule",
    }
}

/// A refusal of the core as an answer.
pub(crate) fn refused(refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::Forbidden(forbidden) => call::protected(forbidden),
        Refusal::TooMany { max, .. } => {
            Problem::new(StatusCode::BAD_REQUEST, "Invalid request body")
                .error(&format!("replicas {refusal}"))
                .field("replicas", &format!("an integer from 1 to {max}"))
        }
        Refusal::NoWakeCount => Problem::new(StatusCode::BAD_REQUEST, "No replica count known")
            .error(refusal)
            .field(
                "replicas",
                "a whole number from 1, or a count that is known before the wake",
            )
            .hint("name one, as in 'nagi wake NAME --replicas 1' or {\"replicas\": 1}: it is remembered for every later wake"),
        Refusal::NoSchedule => Problem::new(StatusCode::NOT_FOUND, "No scheduled scale up")
            .error("nothing is scheduled for it"),
    }
}
