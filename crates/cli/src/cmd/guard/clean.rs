//! Cleaning on behalf of the guard: the engine of `nagi disk clean`, held to what can be had again and to a cap.

use std::path::PathBuf;
use std::time::Duration;

use nagi_guard::{ApplyError, CleanError, Consent, Device, Event, Plan, Policy, Reclaimer, Report};
use nagi_ports::Clock;
use thiserror::Error;

/// How far it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It says what would go.
    Plan,
    /// It lets it go.
    Apply,
}

/// What is to be cleaned, and within which limits.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) root: PathBuf,
    /// What lies elsewhere stays, however full that is.
    pub(super) disks: Vec<Device>,
    pub(super) mode: Mode,
    /// In one run.
    pub(super) bytes_max: u64,
    /// What is younger stays.
    pub(super) grace: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Cleaned {
    pub(super) plan: Plan,
    /// None when it was only planned.
    pub(super) report: Option<Report>,
}

/// Why nothing came of it.
#[derive(Debug, Error)]
pub(super) enum CleanFailure {
    #[error("the node cannot be looked at")]
    Plan(#[from] CleanError),
    #[error("the plan was not carried out")]
    Apply(#[from] ApplyError),
}

/// Plans, and carries the plan out where that is wanted. Each removal is in the log before it is made. Blocks.
///
/// # Errors
/// The node cannot be looked at, another cleaner is at work, or there is nowhere to write down what is removed.
pub(super) fn clean(order: &Order, clock: &dyn Clock) -> Result<Cleaned, CleanFailure> {
    let policy = policy(order);
    let plan = nagi_guard::plan_on(&order.disks, &policy, clock)?;
    let report = match order.mode {
        Mode::Apply if plan.expected() > 0 => {
            let mut tell = |event: &Event<'_>| match event {
                Event::Intent(line) => tracing::info!(record = *line, "Removal under way"),
                Event::Removed(..) | Event::Ended(_) => {}
            };
            Some(nagi_guard::apply(&plan, clock, &mut tell)?)
        }
        Mode::Apply | Mode::Plan => None,
    };
    Ok(Cleaned { plan, report })
}

/// Nobody looked at the plan, so nothing goes that cannot be had again. Images are kubelet's to collect: it does as long as it
/// runs, knows when each was used last, and must not be disturbed at it.
fn policy(order: &Order) -> Policy {
    Policy {
        only: Reclaimer::FILES.to_vec(),
        consent: Consent::Regenerable,
        bytes_max: Some(order.bytes_max),
        grace: order.grace,
        ..Policy::at(&order.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // N-4: kubelet collects images as long as it runs, and knows what is being pulled.
    #[test]
    fn the_guard_leaves_images_to_kubelet() {
        let order = Order {
            root: PathBuf::from("/"),
            disks: Vec::new(),
            mode: Mode::Plan,
            bytes_max: 1,
            grace: Duration::ZERO,
        };
        let kinds = policy(&order).only;
        assert!(!kinds.is_empty() && !kinds.iter().any(|kind| kind.is_of_runtime()));
        let all = Reclaimer::ALL.iter();
        assert_eq!(
            all.filter(|kind| !kind.is_of_runtime()).count(),
            kinds.len()
        );
    }
}
