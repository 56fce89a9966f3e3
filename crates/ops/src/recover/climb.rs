//! Asking the ladder until it holds, or the time is over.

use std::time::Duration;

use nagi_runtime::Deadline;

use super::ladder::{Ladder, Look, Outcome, Rules, Rung, is_own, judge};
use crate::policy::Policy;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Who looks.
pub trait Eyes {
    /// Looks, and writes nothing.
    fn look(&mut self) -> impl Future<Output = Look>;

    /// Writes once through the API server, and puts into the look what came of it.
    fn write(&mut self, look: Look) -> impl Future<Output = Look>;
}

/// How it was climbed.
#[derive(Debug, Clone, PartialEq)]
pub struct Climb {
    /// The ladder at the end.
    pub ladder: Ladder,
    /// The last look.
    pub last: Look,
    /// How long it took.
    pub took: Duration,
}

/// Looks until everything that can hold has held for its time, or until the deadline, and then writes once where the API
/// server is up. With a deadline of zero it looks once.
pub async fn climb<E: Eyes>(
    eyes: &mut E,
    policy: &Policy,
    rules: &Rules,
    within: Duration,
    tell: &mut dyn FnMut(&Ladder),
) -> Climb {
    let began = tokio::time::Instant::now();
    let deadline = Deadline::in_(within);
    let mut first = eyes.look().await;
    let mut since = tokio::time::Instant::now();
    let mut last = first.clone();
    loop {
        let held = since.elapsed();
        let ladder = judge(policy, rules, &first, &last, held);
        tell(&ladder);
        if is_settled(&ladder, held >= rules.window) || deadline.has_passed() {
            // Nothing is written to a cluster that is another's.
            if outcome(&ladder, Rung::Api) == Outcome::Passed && is_own(&last) {
                last = eyes.write(last).await;
            }
            return Climb {
                ladder: judge(policy, rules, &first, &last, held),
                last,
                took: began.elapsed(),
            };
        }
        tokio::time::sleep(LOOK_EVERY.min(deadline.remaining())).await;
        last = eyes.look().await;
        // What fails does not hold, nor what could be seen and cannot, or could not and can; the time begins anew.
        let held = since.elapsed();
        let holds = is_standing(&judge(policy, rules, &first, &last, held))
            && state(policy, rules, &first) == state(policy, rules, &last);
        if !holds {
            first = last.clone();
            since = tokio::time::Instant::now();
        }
    }
}

fn outcome(ladder: &Ladder, rung: Rung) -> Outcome {
    ladder
        .rung(rung)
        .map_or(Outcome::Unknown, |one| one.outcome)
}

/// What must hold for the time of the window.
const STANDING: [Rung; 5] = [
    Rung::Units,
    Rung::Containers,
    Rung::Store,
    Rung::Api,
    Rung::Nodes,
];

fn is_standing(ladder: &Ladder) -> bool {
    let mut all = STANDING.iter();
    all.all(|rung| outcome(ladder, *rung) != Outcome::Failed)
}

/// What one look says by itself, as if it had held for its time and a write had gone through.
fn state(policy: &Policy, rules: &Rules, look: &Look) -> Vec<Outcome> {
    let mut look = look.clone();
    if let Ok(api) = &mut look.api {
        api.write = Some(Ok(()));
    }
    for unit in look.observed.units.iter_mut().flatten() {
        unit.active_for = None;
    }
    let ladder = judge(policy, rules, &look, &look, rules.window);
    let watched = STANDING.iter().chain(&[Rung::Space]);
    watched.map(|rung| outcome(&ladder, *rung)).collect()
}

/// Nothing more is worth waiting for: a pressure that ends is, unless the disk is too full to end it.
fn is_settled(ladder: &Ladder, is_window_over: bool) -> bool {
    let is_full = outcome(ladder, Rung::Space) == Outcome::Failed;
    let presses = outcome(ladder, Rung::Pressure) == Outcome::Failed;
    is_window_over && is_standing(ladder) && (is_full || !presses)
}
