//! `--wait`: follows a workload until it is where it was sent.
//!
//! Stages come from two sides. The event stream tells each one as it passes; the status, looked at now and then, holds
//! for what the stream missed and decides when the wait is over. Without a stream the status alone does.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use nagi_api::workload::FAILED_STAGE;
use nagi_api::{Event, EventKind, EventValue, StatusAnswer, WorkloadItem};
use nagi_client::{Answer, Client, EventFollower, Followed, ServerEvent};
use nagi_core::id::WorkloadId;
use nagi_core::status::Status;
use nagi_core::workload::Pending;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::away::Away;
use crate::output::words;
use crate::progress::Progress;
use crate::session::Session;
use crate::when::parse_span;

/// How often the status is looked at; one small read.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the line on a terminal is drawn over: smooth for the eye.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How long the event stream may take to open before the order is sent without it.
const OPEN_MAX: Duration = Duration::from_secs(2);

/// Options of commands that can wait.
#[derive(Debug, Clone, Args)]
pub(crate) struct WaitArgs {
    /// Wait until it is done, and show how it goes
    #[arg(short, long)]
    pub(crate) wait: bool,

    /// How long to wait at most: 90s, 10m, 1h30m
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = parse_span, requires = "wait")]
    pub(crate) timeout: Duration,
}

/// Where a workload was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// At least one replica serves.
    Awake,
    /// No replica is left.
    Asleep,
    /// This many replicas serve, no more and no fewer.
    Replicas(u32),
}

/// A wait that was prepared before the order was sent, so that no stage is missed.
#[derive(Debug)]
pub(crate) struct Waiting {
    events: Option<EventFollower>,
    began: Instant,
    seen: BTreeSet<String>,
    counts: Option<(u32, u32)>,
    /// Stages that events told of. The stream may open behind the first ones, so the status, which knows them all
    /// with the server's times, speaks first.
    heard: Vec<(Duration, String)>,
    /// Why a wake was given up, as an event told it.
    failure: Option<String>,
}

/// What an event means for the wait.
enum Told {
    Nothing,
    Look,
    Failed(String),
}

impl Goal {
    fn is_reached(self, item: &WorkloadItem) -> bool {
        let status = Status::parse(&item.status);
        match self {
            Self::Awake => status == Some(Status::Active),
            Self::Asleep => status == Some(Status::Inactive),
            Self::Replicas(count) => {
                item.available_replicas == count && item.current_replicas == count
            }
        }
    }

    /// Somebody asked for something else since: it will not get there.
    fn is_overtaken(self, item: &WorkloadItem) -> bool {
        match self {
            Self::Awake => item.desired_replicas == 0,
            Self::Asleep => item.desired_replicas > 0,
            Self::Replicas(count) => item.desired_replicas != count,
        }
    }

    /// Why the wake that leads there was given up; `told` by an event. A sleep ends each wake, and that is no failure of it.
    fn failure(self, item: &WorkloadItem, told: Option<String>) -> Option<String> {
        if matches!(self, Self::Asleep | Self::Replicas(0)) {
            return None;
        }
        match &item.wake {
            // What failed was an earlier one.
            Some(wake) => wake.failure.clone(),
            None => told,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Awake => "awake",
            Self::Asleep => "asleep",
            Self::Replicas(_) => "at its number of replicas",
        }
    }
}

impl Waiting {
    /// Opens the event stream. A server that has none is waited for by its status.
    pub(crate) async fn prepare(client: &Client) -> Self {
        let opened = tokio::time::timeout(OPEN_MAX, client.events(None)).await;
        let events = match opened {
            Ok(Ok(stream)) => Some(EventFollower::resume(client.clone(), stream)),
            Ok(Err(_)) | Err(_) => None,
        };
        Self {
            events,
            began: Instant::now(),
            seen: BTreeSet::new(),
            counts: None,
            heard: Vec::new(),
            failure: None,
        }
    }

    /// Follows until the goal is reached. Gives the last status and the time it took.
    ///
    /// # Errors
    /// The time is over, the wake was given up, or the server refuses to tell.
    pub(crate) async fn until(
        mut self,
        goal: Goal,
        id: &WorkloadId,
        version: &str,
        limit: Duration,
        client: &Client,
        session: &Session,
    ) -> Result<(Answer<StatusAnswer>, Duration), Failure> {
        let mut progress = Progress::new(&session.output);
        let deadline = self.began + limit;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut draws = interval(DRAW_EVERY);
        draws.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut last: Option<WorkloadItem> = None;
        let mut away = Away::default();
        loop {
            let look = tokio::select! {
                // Cancel-safe: a timer.
                () = sleep_until(deadline) => {
                    return Err(timed_out(goal, id, limit, last.as_ref()));
                }
                // Cancel-safe: an event that was read is not lost.
                told = told(&mut self.events, id) => match self.take(told) {
                    Told::Failed(reason) => {
                        self.failure = Some(reason);
                        true
                    }
                    Told::Look => true,
                    Told::Nothing => false,
                },
                // Cancel-safe: a timer.
                _tick = looks.tick() => true,
                // Cancel-safe: a timer.
                _tick = draws.tick() => false,
            };
            if look {
                let asked = timeout_at(deadline, client.status(id, Some(version)));
                // The time is over: the timer above says so.
                let Ok(asked) = asked.await else { continue };
                match asked {
                    Ok(answer) => {
                        away.is_back();
                        let item = &answer.body.deployment;
                        self.stages(item, &mut progress);
                        for (after, stage) in std::mem::take(&mut self.heard) {
                            self.stage(after, &stage, &mut progress);
                        }
                        if goal.is_reached(item) {
                            self.end(goal, &mut progress);
                            return Ok((answer, self.began.elapsed()));
                        }
                        // A wake that somebody ended has failed too; who did it says more.
                        if goal.is_overtaken(item) {
                            return Err(overtaken(goal, id, item));
                        }
                        if let Some(reason) = goal.failure(item, self.failure.take()) {
                            return Err(wake_failed(id, &reason));
                        }
                        last = Some(answer.body.deployment);
                    }
                    // A server that starts again is waited for; the deadline bounds it.
                    Err(error) if error.is_passing() => {
                        progress.clear();
                        away.warn(&session.output, error);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if let Some(item) = &last {
                progress.current(self.began.elapsed(), &current(goal, item));
            }
        }
    }

    fn take(&mut self, told: Option<Event>) -> Told {
        let Some(event) = told else {
            return Told::Nothing;
        };
        match event.kind {
            EventKind::Wake => {
                let Some(EventValue::Text(stage)) = event.to else {
                    return Told::Look;
                };
                if stage == FAILED_STAGE {
                    let reason = event.reason.unwrap_or_else(|| "no reason given".to_owned());
                    return Told::Failed(reason);
                }
                self.heard.push((self.began.elapsed(), stage));
                Told::Look
            }
            EventKind::Scale | EventKind::Status | EventKind::Schedule => Told::Look,
        }
    }

    fn stages(&mut self, item: &WorkloadItem, progress: &mut Progress<'_>) {
        for stage in item.wake.iter().flat_map(|wake| &wake.stages) {
            let after = Duration::try_from_secs_f64(stage.after_seconds).unwrap_or_default();
            self.stage(after, &stage.stage, progress);
        }
        let counts = (item.desired_replicas, item.current_replicas);
        let before = self.counts.replace(counts);
        let stopping = counts.1 > counts.0;
        if stopping && before != Some(counts) {
            let extra = words::count(u64::from(counts.1 - counts.0), "replica");
            progress.step(self.began.elapsed(), &format!("stopping {extra}"));
        }
    }

    fn stage(&mut self, after: Duration, stage: &str, progress: &mut Progress<'_>) {
        if self.seen.insert(stage.to_owned()) {
            progress.step(after, stage);
        }
    }

    /// The last step, when nobody told it.
    fn end(&mut self, goal: Goal, progress: &mut Progress<'_>) {
        let word = match goal {
            Goal::Awake | Goal::Replicas(_) => "ready",
            Goal::Asleep => "asleep",
        };
        self.stage(self.began.elapsed(), word, progress);
    }
}

/// The next event about a workload; nothing for others, for a break, and for ever without a stream.
async fn told(events: &mut Option<EventFollower>, id: &WorkloadId) -> Option<Event> {
    let Some(follower) = events else {
        return std::future::pending().await;
    };
    match follower.next().await {
        Ok(Followed::Event(ServerEvent::Event { event, .. })) => Some(*event).filter(|event| {
            event.namespace == id.namespace.as_str()
                && event.name == id.name.as_str()
                && event.resource == id.resource.as_str()
        }),
        Ok(
            Followed::Event(ServerEvent::Reset | ServerEvent::Unknown { .. })
            | Followed::Lost { .. },
        ) => None,
        Err(_) => {
            *events = None;
            None
        }
    }
}

fn current(goal: Goal, item: &WorkloadItem) -> String {
    if let Some(wake) = &item.wake {
        let eta = wake
            .eta_seconds
            .map(|seconds| format!(", about {seconds:.0} s left"))
            .unwrap_or_default();
        return format!("{}{eta}", wake.stage);
    }
    item.reason
        .clone()
        .unwrap_or_else(|| format!("not yet {}", goal.words()))
}

fn timed_out(goal: Goal, id: &WorkloadId, limit: Duration, last: Option<&WorkloadItem>) -> Failure {
    let span = words::span(limit);
    let mut failure = Failure::new(
        Exit::TimedOut,
        format!("{id} is not {} after {span}", goal.words()),
    );
    if let Some(item) = last {
        let stage = item
            .wake
            .as_ref()
            .map(|wake| format!("waking: {}", wake.stage));
        failure.causes.extend(item.reason.clone().or(stage));
        let running = [Pending::Starting, Pending::Unready(String::new())];
        if running
            .iter()
            .any(|pending| item.reason_code.as_deref() == Some(pending.code()))
        {
            failure = failure.hint(format!(
                "its replicas run and do not answer: do they listen on their port (on one machine the one in PORT)? \
                 'nagi logs {id}' shows what they print"
            ));
        }
    }
    failure
        .hint("it goes on: 'nagi status' shows how it stands")
        .hint("wait longer with --timeout")
}

fn overtaken(goal: Goal, id: &WorkloadId, item: &WorkloadItem) -> Failure {
    let mut failure = Failure::new(
        Exit::Conflict,
        format!(
            "{id} will not be {}: somebody changed it meanwhile",
            goal.words()
        ),
    );
    // The last one that is recorded may be the order that is waited for, and what a gateway woke is recorded a moment later.
    let change = item.last_change.as_ref();
    let change = change.filter(|change| change.to == item.desired_replicas);
    failure.causes.extend(change.map(|change| {
        format!(
            "{} by {}, from {} to {}: {}",
            change.action, change.actor, change.from, change.to, change.reason
        )
    }));
    if change.is_none() && goal == Goal::Asleep {
        failure
            .causes
            .push("it was woken again, by a request if nobody else did".to_owned());
    }
    failure.hint(format!("'nagi history {id}' shows all changes"))
}

fn wake_failed(id: &WorkloadId, reason: &str) -> Failure {
    let mut failure = Failure::new(Exit::WakeFailed, format!("the wake of {id} was given up"));
    failure.causes.push(reason.to_owned());
    failure.hint(format!("'nagi logs {id}' shows what its replicas printed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::sample_item;

    fn counts(desired: u32, current: u32, available: u32, status: &str) -> WorkloadItem {
        WorkloadItem {
            desired_replicas: desired,
            current_replicas: current,
            available_replicas: available,
            status: status.to_owned(),
            ..sample_item()
        }
    }

    #[test]
    fn a_wake_that_was_given_up_fails_who_waits_for_it_and_nobody_who_ended_it() {
        let told = || Some("put to sleep again".to_owned());
        let item = WorkloadItem {
            wake: None,
            ..counts(0, 1, 0, "scaling")
        };
        for (goal, fails) in [
            (Goal::Awake, true),
            (Goal::Replicas(2), true),
            (Goal::Replicas(0), false),
            (Goal::Asleep, false),
        ] {
            assert_eq!(goal.failure(&item, told()).is_some(), fails, "{goal:?}");
        }
    }

    #[test]
    fn a_goal_is_reached_neither_too_early_nor_by_the_wrong_state() {
        let starting = counts(1, 1, 0, "scaling");
        let awake = counts(1, 1, 1, "active");
        let stopping = counts(0, 1, 1, "scaling");
        let asleep = counts(0, 0, 0, "inactive");
        for (goal, item, reached) in [
            (Goal::Awake, &starting, false),
            (Goal::Awake, &awake, true),
            (Goal::Awake, &asleep, false),
            (Goal::Asleep, &stopping, false),
            (Goal::Asleep, &asleep, true),
            (Goal::Asleep, &awake, false),
            (Goal::Replicas(2), &awake, false),
            (Goal::Replicas(1), &awake, true),
            (Goal::Replicas(1), &counts(1, 2, 1, "scaling"), false),
        ] {
            assert_eq!(goal.is_reached(item), reached, "{goal:?} {item:?}");
        }
    }

    #[test]
    fn a_goal_is_overtaken_when_somebody_wants_something_else() {
        assert!(Goal::Awake.is_overtaken(&counts(0, 1, 0, "scaling")));
        assert!(
            !Goal::Awake.is_overtaken(&counts(2, 1, 0, "scaling")),
            "more are awake too"
        );
        assert!(Goal::Asleep.is_overtaken(&counts(1, 1, 1, "active")));
        assert!(!Goal::Asleep.is_overtaken(&counts(0, 1, 0, "scaling")));
        assert!(Goal::Replicas(2).is_overtaken(&counts(3, 2, 2, "scaling")));
        assert!(!Goal::Replicas(2).is_overtaken(&counts(2, 0, 0, "scaling")));
    }
}
