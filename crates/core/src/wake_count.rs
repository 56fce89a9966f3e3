//! To how many replicas a workload wakes.
//!
//! The order is fixed (DESIGN §5): the number in the call, the policy, the minimum of an autoscaler, the count
//! remembered at sleep, the count that people declared; and only a request that a policy lets wake falls back to 1.

use crate::quantity::WakeCount;
use crate::workload::Workload;

/// Where a wake count came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The call named it.
    Call,
    /// A policy names it.
    Policy,
    /// The lower bound of an autoscaler on the workload.
    Autoscaler,
    /// Remembered when it went to sleep.
    Remembered,
    /// Declared by people on the object.
    Declared,
    /// Nobody said; one is enough to answer the request that waits.
    Default,
}

impl Source {
    /// The word for log and answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Policy => "policy",
            Self::Autoscaler => "autoscaler",
            Self::Remembered => "remembered",
            Self::Declared => "declared",
            Self::Default => "default",
        }
    }
}

/// What the caller of a wake brings to the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// The number in the call.
    pub call: Option<WakeCount>,
    /// `awakeReplicas` of the policy that governs the workload.
    pub policy: Option<WakeCount>,
    /// A policy lets requests wake this workload, so that 1 may be assumed when nobody knows better.
    pub default_allowed: bool,
}

/// The count to wake to and where it came from; `None` when nobody knows, which the caller must refuse and say so.
pub fn wake_count(wish: Wish, workload: &Workload) -> Option<(WakeCount, Source)> {
    let autoscaler = workload
        .autoscaler
        .as_ref()
        .and_then(|a| WakeCount::new(a.minimum.0));
    let fallback = wish.default_allowed.then_some(WakeCount::ONE);
    [
        (wish.call, Source::Call),
        (wish.policy, Source::Policy),
        (autoscaler, Source::Autoscaler),
        (workload.intent.remembered, Source::Remembered),
        (workload.awake_replicas, Source::Declared),
        (fallback, Source::Default),
    ]
    .into_iter()
    .find_map(|(count, source)| count.map(|count| (count, source)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::workload;
    use crate::quantity::Replicas;
    use crate::workload::Autoscaler;

    // DESIGN §5: each source wins over all that stand behind it.
    #[test]
    fn the_first_source_that_knows_decides() {
        let count = |n| WakeCount::new(n);
        let mut w = workload(0, 0, 0);
        let mut wish = Wish::default();
        assert_eq!(wake_count(wish, &w), None);
        wish.default_allowed = true;
        assert_eq!(
            wake_count(wish, &w),
            Some((WakeCount::ONE, Source::Default))
        );
        w.awake_replicas = count(2);
        assert_eq!(wake_count(wish, &w).map(|p| p.1), Some(Source::Declared));
        w.intent.remembered = count(3);
        assert_eq!(
            wake_count(wish, &w),
            Some((count(3).unwrap(), Source::Remembered))
        );
        w.autoscaler = Some(Autoscaler {
            name: "hpa".into(),
            minimum: Replicas(4),
        });
        assert_eq!(
            wake_count(wish, &w),
            Some((count(4).unwrap(), Source::Autoscaler))
        );
        wish.policy = count(5);
        assert_eq!(
            wake_count(wish, &w),
            Some((count(5).unwrap(), Source::Policy))
        );
        wish.call = count(6);
        assert_eq!(
            wake_count(wish, &w),
            Some((count(6).unwrap(), Source::Call))
        );
    }

    #[test]
    fn an_autoscaler_with_minimum_zero_says_nothing() {
        let mut w = workload(0, 0, 0);
        w.autoscaler = Some(Autoscaler {
            name: "hpa".into(),
            minimum: Replicas(0),
        });
        assert_eq!(wake_count(Wish::default(), &w), None);
    }
}
