//! One look at one workload: read, decide, act, say when to look again.

use std::sync::Arc;
use std::time::Duration;

use nagi_core::id::WorkloadId;
use nagi_core::idle::{self, Stay, Verdict};
use nagi_core::intent::{Action, Intent, IntentUpdate};
use nagi_core::quantity::Replicas;
use nagi_core::scale;
use nagi_core::schedule::{self, Due};
use nagi_core::status::Status;
use nagi_core::wake::Trigger;
use nagi_core::workload::Workload;
use nagi_ports::{PortError, Read, Settled};
use nagi_wake::{Writer, Written};
use tokio::sync::mpsc;

use crate::Ports;

/// A pending schedule is looked at this often at least, so that a wall clock that jumped over its time is noticed
/// within half a second.
const SCHEDULE_LOOK: Duration = Duration::from_millis(500);
/// A look that failed is repeated after this: a schedule that fell due while the engine was away is late by no more.
const ERROR_LOOK: Duration = Duration::from_secs(1);
/// The longest time between looks that are refused, from one to the next twice as long: the same will be refused until somebody
/// gives a right back.
const REFUSED_LOOK_MAX: Duration = Duration::from_secs(8);
/// So many conflicts in a row are looked at again at once: somebody else wrote, and the facts are new. Who answers every write with
/// one, as a webhook may, is a failure like any other.
const CONFLICTS_AT_ONCE: u32 = 5;
/// A workload in use is judged again after a quarter of its idle time, within these bounds.
const IN_USE_LOOK_MIN: Duration = Duration::from_millis(100);
const IN_USE_LOOK_MAX: Duration = Duration::from_secs(5);

/// Is there anything to decide about a workload with these facts? Of 100,000 on a cluster, few have a policy or a schedule.
pub(crate) fn concerns(
    (desired, unrecorded): (Replicas, Option<Replicas>),
    intent: &Intent,
    idle_after: Option<Duration>,
) -> bool {
    idle_after.is_some()
        || intent.scheduled.is_some()
        || scale::is_out_of_step(desired, intent, unrecorded)
}

pub(crate) struct Looker {
    pub(crate) ports: Ports,
    pub(crate) id: WorkloadId,
    pub(crate) awake_since: Option<Duration>,
    pub(crate) failures: Failures,
    /// A listing asked for this look, no event: what it finds may be old.
    pub(crate) is_found: bool,
    pub(crate) report: mpsc::Sender<Report>,
}

/// What a look came to.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) id: WorkloadId,
    pub(crate) awake_since: Option<Duration>,
    /// This one included.
    pub(crate) failures: Failures,
    /// `None`: when an event says so.
    pub(crate) look_again: Option<Duration>,
}

/// Looks at a workload that failed one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Failures {
    pub(crate) count: u32,
    /// Trying again may help.
    is_retryable: bool,
    /// One of them stands in the log.
    is_told: bool,
}

/// When to look again after so many failures in a row, of which the last one was this.
fn after_failure(failures: u32, error: &PortError) -> Duration {
    if *error == PortError::Conflict && failures <= CONFLICTS_AT_ONCE {
        return Duration::ZERO;
    }
    if error.is_retryable() {
        return ERROR_LOOK;
    }
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    ERROR_LOOK.saturating_mul(doubled).min(REFUSED_LOOK_MAX)
}

impl Looker {
    pub(crate) async fn run(mut self) {
        let (look_again, failures) = match self.look().await {
            Ok(look_again) => (look_again, Failures::default()),
            Err(PortError::NotFound) => (None, Failures::default()),
            Err(error) => {
                let mut failures = self.failures;
                // Another kind of failure has its own pauses.
                if failures.is_retryable != error.is_retryable() {
                    failures.count = 0;
                }
                failures.is_retryable = error.is_retryable();
                failures.count = failures.count.saturating_add(1);
                let again = after_failure(failures.count, &error);
                // Told at the first, second, fourth, eighth time and so on, not each second.
                if again > Duration::ZERO && failures.count.is_power_of_two() {
                    failures.is_told = true;
                    tracing::warn!(
                        namespace = %self.id.namespace, workload = %self.id.name, error = %error, failures = failures.count,
                        retry_in_seconds = again.as_secs(), "Workload could not be looked after, will try again"
                    );
                }
                (Some(again), failures)
            }
        };
        if failures.count == 0 && self.failures.is_told {
            tracing::info!(
                namespace = %self.id.namespace, workload = %self.id.name, failures = self.failures.count,
                "Workload is looked after again"
            );
        }
        let Self {
            id,
            awake_since,
            report,
            ..
        } = self;
        // The controller is gone only when the process ends.
        drop(
            report
                .send(Report {
                    id,
                    awake_since,
                    failures,
                    look_again,
                })
                .await,
        );
    }

    async fn look(&mut self) -> Result<Option<Duration>, PortError> {
        if let Err(forbidden) = self.ports.rails.check(&self.id.namespace) {
            tracing::debug!(
                namespace = %self.id.namespace, workload = %self.id.name, reason = %forbidden,
                "Workload is left alone"
            );
            return Ok(None);
        }
        let workload = self.ports.workloads.get(&self.id, Read::Cached).await?;
        let now = self.ports.clock.now();
        if scale::is_out_of_step(workload.desired, &workload.intent, workload.unrecorded) {
            let writer = self.ports.workloads.count_writer(&workload).await?;
            if let Some(update) = scale::outside_change(&workload, writer.as_ref(), now) {
                let is_wake = update.intent.changes.last().map(|change| change.action)
                    == Some(Action::WakeOnRequest);
                let written = self.write(&workload, update).await?;
                if scale::is_out_of_step(written.desired, &written.intent, written.unrecorded) {
                    // Somebody scaled it meanwhile.
                    if written.desired != workload.desired {
                        return Err(PortError::Conflict);
                    }
                    // Whoever keeps a part of it would have it written on and on.
                    return Err(PortError::Refused(
                        "what is remembered was written, and still does not fit the count"
                            .to_owned(),
                    ));
                }
                // Of a wake that has gone on for a while nobody can tell how long it took.
                if is_wake && !self.is_found && workload.available.is_zero() {
                    self.follow(written, Replicas::ZERO, Trigger::Request, Writer::Gateway);
                }
                return Ok(Some(Duration::ZERO));
            }
        }
        let schedule = match schedule::decide(&workload, now) {
            Due::Nothing => None,
            Due::NotYet(at) => {
                let left = Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
                Some(left.min(SCHEDULE_LOOK))
            }
            Due::Fire(update) => {
                let written = self.take_schedule(&workload, update).await?;
                let by = Writer::ThisProcess;
                self.follow(written, workload.desired, Trigger::Schedule, by);
                return Ok(Some(Duration::ZERO));
            }
            Due::Drop(update) => {
                self.take_schedule(&workload, update).await?;
                return Ok(Some(Duration::ZERO));
            }
            Due::Stuck => {
                tracing::error!(
                    namespace = %self.id.namespace, workload = %self.id.name,
                    "Scheduled wake is due but no replica count is known"
                );
                Some(schedule::STUCK_RETRY)
            }
        };
        let idle = self.look_at_idleness(&workload).await?;
        Ok([schedule, idle].into_iter().flatten().min())
    }

    /// Writes what takes the schedule away. One that is still there would run again, and again.
    async fn take_schedule(
        &self,
        workload: &Workload,
        update: IntentUpdate,
    ) -> Result<Arc<Workload>, PortError> {
        let written = self.write(workload, update).await?;
        if written.intent.scheduled == workload.intent.scheduled {
            return Err(PortError::Refused(
                "the schedule was taken away, and is still there: an admission webhook keeps it"
                    .to_owned(),
            ));
        }
        Ok(written)
    }

    async fn look_at_idleness(
        &mut self,
        workload: &Workload,
    ) -> Result<Option<Duration>, PortError> {
        let Some(idle_after) = workload.idle_after else {
            self.awake_since = None;
            return Ok(None);
        };
        let monotonic = self.ports.clock.monotonic();
        self.awake_since =
            (workload.status() == Status::Active).then(|| self.awake_since.unwrap_or(monotonic));
        let awake_for = self
            .awake_since
            .map_or(Duration::ZERO, |since| monotonic.saturating_sub(since));
        let activity = self.ports.traffic.activity(&self.id).await;
        let outcome = idle::decide(workload, activity, awake_for, self.ports.clock.now());
        match outcome.verdict {
            Verdict::Stay(stay) => {
                tracing::debug!(
                    namespace = %self.id.namespace, workload = %self.id.name, reason = ?stay,
                    "Workload is not put to sleep"
                );
                Ok(outcome.look_again.or(match stay {
                    Stay::NoPolicy | Stay::AsleepAlready | Stay::NotSettled(_) => None,
                    Stay::ActivityUnknown | Stay::InUse { .. } => {
                        Some((idle_after / 4).clamp(IN_USE_LOOK_MIN, IN_USE_LOOK_MAX))
                    }
                    Stay::NotYet { remaining } => Some(remaining),
                    Stay::KeptAwake { .. } => Some(IN_USE_LOOK_MAX),
                }))
            }
            Verdict::Sleep(_) => self.sleep(workload, awake_for, idle_after).await,
        }
    }

    /// Sleeps in the order of DESIGN §6: hold new arrivals, judge the counts again, write, settle.
    async fn sleep(
        &self,
        workload: &Workload,
        awake_for: Duration,
        idle_after: Duration,
    ) -> Result<Option<Duration>, PortError> {
        let traffic = &self.ports.traffic;
        let again = Some((idle_after / 4).clamp(IN_USE_LOOK_MIN, IN_USE_LOOK_MAX));
        let Some(activity) = traffic.prepare(&self.id).await else {
            return Ok(again);
        };
        let outcome = idle::decide(workload, Some(activity), awake_for, self.ports.clock.now());
        let Verdict::Sleep(update) = outcome.verdict else {
            traffic.settle(&self.id, Settled::Aborted).await;
            return Ok(outcome.look_again.or(again));
        };
        let written = self.write(workload, update).await;
        let settled = match &written {
            Ok(_) => Settled::Asleep,
            Err(error) => self.settled_by(error).await,
        };
        traffic.settle(&self.id, settled).await;
        written.map(|_| None)
    }

    /// A write whose answer was lost may have taken effect: the held must not be sent to replicas that are ending.
    async fn settled_by(&self, error: &PortError) -> Settled {
        match error {
            PortError::Unreachable(_) | PortError::Timeout(_) | PortError::Internal(_) => {
                match self.ports.workloads.get(&self.id, Read::Cached).await {
                    Ok(now) if now.desired.is_zero() => Settled::Asleep,
                    Ok(_) | Err(_) => Settled::Aborted,
                }
            }
            PortError::NotFound
            | PortError::NoSuchVersion { .. }
            | PortError::Conflict
            | PortError::Refused(_)
            | PortError::Busy { .. }
            | PortError::StorageFull(_) => Settled::Aborted,
        }
    }

    async fn write(
        &self,
        before: &Workload,
        update: IntentUpdate,
    ) -> Result<Arc<Workload>, PortError> {
        let change = update.intent.changes.last().cloned();
        let written = self.ports.workloads.write(before, update).await;
        if let Some(change) = change {
            let result = if written.is_ok() { "success" } else { "error" };
            self.ports
                .metrics
                .scale_operation(change.action.as_str(), result);
            if written.is_ok() {
                tracing::info!(
                    namespace = %self.id.namespace, workload = %self.id.name, action = change.action.as_str(),
                    actor = %change.actor, reason = %change.reason, from = change.from.0, to = change.to.0,
                    "Workload changed"
                );
            }
        }
        written
    }

    /// The count is written; follow the wake so that its stages are seen and learned like any other's.
    fn follow(&self, workload: Arc<Workload>, from: Replicas, trigger: Trigger, by: Writer) {
        let written = Written {
            workload,
            from,
            trigger,
            by,
        };
        if let Err(error) = self.ports.wakes.follow(written) {
            tracing::warn!(
                namespace = %self.id.namespace, workload = %self.id.name, trigger = trigger.as_str(), error = %error,
                "Wake is written but not followed"
            );
        }
    }
}
