//! Visits: the selected workloads as the cache has them, and what of them cannot be read now.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use nagi_core::id::{Namespace, Resource};
use nagi_ports::{Facts, PortError, See, Selection, Unread, Visited};
use tokio::time::{Instant, timeout_at};

use super::{LIVE, Shared, Watched};
use crate::reflect::State;

/// What a visit reaches for.
struct Reach<'a> {
    /// All of them where nobody knows the kind that was asked for: it has no workloads, if the API server still says so.
    kinds: Vec<Arc<Watched>>,
    namespace: Option<&'a Namespace>,
    /// One kind was asked for by its name, and is known.
    is_by_name: bool,
}

/// What a visit cannot tell as it is now.
#[derive(Default)]
struct Gaps {
    unread: Vec<Unread>,
    /// For how long nobody has followed the oldest of what is told all the same.
    age: Duration,
}

impl Shared {
    /// [`nagi_ports::Workloads::visit`].
    pub(super) async fn visited(
        &self,
        selection: Selection<'_>,
        see: &mut See<'_>,
    ) -> Result<Visited, PortError> {
        let deadline = Instant::now() + LIVE;
        let kinds_missed = match selection.resource {
            None => self.kinds_missed(deadline).await,
            Some(_) => None,
        };
        let reach = self.reach(selection).await?;
        let mut gaps = Gaps::default();
        self.gaps_of_kinds(&reach, deadline, &mut gaps).await?;
        if let Some(problem) = kinds_missed {
            gaps.note(Facts::Definitions, &[problem], 1);
        }
        self.gaps_of_pods(&reach, deadline, &mut gaps).await?;
        if selection.resource.is_some() && !reach.is_by_name {
            gaps.unread.clear();
        }
        let observed_at = self.observed_at().min(self.clock.now() - gaps.age);
        self.store.visit(selection, observed_at, see);
        Ok(Visited {
            observed_at,
            unread: gaps.unread,
        })
    }

    /// A kind that is not known is looked for first.
    async fn reach<'a>(&self, selection: Selection<'a>) -> Result<Reach<'a>, PortError> {
        let mut kinds = self.all_watched();
        let mut is_by_name = false;
        if let Some(only) = selection.resource {
            let is_it = |watched: &Arc<Watched>| watched.kind.resource == *only;
            if !kinds.iter().any(is_it) {
                let looked = self.look_again_for(only).await;
                kinds = self.all_watched();
                if !kinds.iter().any(is_it) {
                    looked?;
                }
            }
            is_by_name = kinds.iter().any(is_it);
            if is_by_name {
                kinds.retain(is_it);
            }
        }
        Ok(Reach {
            kinds,
            namespace: selection.namespace,
            is_by_name,
        })
    }

    async fn gaps_of_kinds(
        &self,
        reach: &Reach<'_>,
        deadline: Instant,
        gaps: &mut Gaps,
    ) -> Result<(), PortError> {
        let deployments = Resource::deployments();
        for watched in &reach.kinds {
            let resource = &watched.kind.resource;
            let states: Vec<_> = reach.watches(&watched.states).collect();
            let mut missed = 0;
            let mut problems = Vec::new();
            for (namespace, state) in &states {
                // All others do not wait for a kind whose lists fail, as when the webhook that converts it is gone, or one
                // object of it cannot be decoded. Without Deployments a cluster has other sorrows.
                let is_one_of_several = states.len() > 1;
                let may_fail = is_one_of_several || (!reach.is_by_name && *resource != deployments);
                let Some(problem) = self.problem_of(state, deadline, may_fail).await? else {
                    continue;
                };
                let holds = self.holds(Some(resource), namespace.as_ref());
                // Without any of the Deployments a list would say less than nothing. Where one namespace was read and none is in
                // it, it may have gone with its rights.
                let is_missed = namespace.is_none() || !state.is_synced() || holds;
                missed += usize::from(*resource == deployments && is_missed);
                // Nobody knows any of those that were asked for.
                let is_unknown =
                    reach.is_by_name && !states.iter().any(|(_, state)| state.is_synced());
                if missed == states.len() || is_unknown {
                    return Err(problem);
                }
                // What is known of a kind that may not be read any more is from before its rights were taken away. It is told
                // with that time and not left out: whoever follows lists would take it for deleted.
                if holds {
                    gaps.age = gaps.age.max(state.dead_for());
                }
                problems.push(problem);
            }
            gaps.note(Facts::Kind(resource.clone()), &problems, states.len());
        }
        Ok(())
    }

    /// Without pods nobody knows where a workload serves, and what it waits for. In a namespace whose Deployments may not be
    /// read, none does.
    async fn gaps_of_pods(
        &self,
        reach: &Reach<'_>,
        deadline: Instant,
        gaps: &mut Gaps,
    ) -> Result<(), PortError> {
        let deployments = self.deployments();
        let scopes = self.pods.iter().zip(&deployments.states);
        let scopes = scopes.filter(|(_, (namespace, deployments))| {
            deployments.refusal().is_none() && reach.covers(namespace.as_ref())
        });
        let mut looked = 0;
        let mut problems = Vec::new();
        for (state, (namespace, _)) in scopes {
            looked += 1;
            // What was read once is told as old while it is read anew, which takes its time where there are many.
            let problem = if state.is_synced() {
                lasting_problem(state)
            } else {
                self.problem_of(state, deadline, true).await?
            };
            if self.holds(None, namespace.as_ref()) {
                gaps.age = gaps.age.max(state.dead_for());
            }
            problems.extend(problem);
        }
        gaps.note(Facts::Pods, &problems, looked);
        Ok(())
    }

    /// Whether any workload, of this kind, is known there.
    fn holds(&self, resource: Option<&Resource>, namespace: Option<&Namespace>) -> bool {
        let mut holds = false;
        let selection = Selection {
            resource,
            namespace,
            after: None,
        };
        self.store.visit(selection, self.observed_at(), &mut |_| {
            holds = true;
            ControlFlow::Break(())
        });
        holds
    }

    /// Why what a watch brought is old, or is not there. One that `may_fail` is not waited for while it fails for a reason, and
    /// no error when it takes long.
    async fn problem_of(
        &self,
        state: &State,
        deadline: Instant,
        may_fail: bool,
    ) -> Result<Option<PortError>, PortError> {
        if let Some(problem) = lasting_problem(state).filter(|_| may_fail && self.hears()) {
            return Ok(Some(problem));
        }
        match self.live_again(state, deadline).await {
            Err(problem) if may_fail && self.hears() => Ok(Some(problem)),
            other => other,
        }
    }

    /// Waits for a watch that is dead to live again. Where that may not be read, or is not served, the refusal.
    async fn live_again(
        &self,
        state: &State,
        deadline: Instant,
    ) -> Result<Option<PortError>, PortError> {
        let mut progress = state.progress();
        let mut nudged = false;
        loop {
            progress.mark_unchanged();
            if state.is_live() && self.hears() {
                return Ok(None);
            }
            if self.hears()
                && let Some(problem) = state.refusal()
            {
                return Ok(Some(problem));
            }
            if !nudged && state.is_synced() {
                nudged = true;
                state.nudge();
                continue;
            }
            if !matches!(timeout_at(deadline, progress.changed()).await, Ok(Ok(()))) {
                return Err(state.problem().unwrap_or_else(|| {
                    PortError::Timeout(format!("no list of workloads within {LIVE:?}"))
                }));
            }
        }
    }
}

// === impl Reach ===

impl Reach<'_> {
    /// Whether what is in this namespace, or everywhere, is reached for.
    fn covers(&self, scope: Option<&Namespace>) -> bool {
        self.namespace
            .zip(scope)
            .is_none_or(|(only, scope)| only == scope)
    }

    fn watches<'s, T>(
        &self,
        scopes: &'s [(Option<Namespace>, T)],
    ) -> impl Iterator<Item = &'s (Option<Namespace>, T)> {
        scopes
            .iter()
            .filter(|(namespace, _)| self.covers(namespace.as_ref()))
    }
}

// === impl Gaps ===

impl Gaps {
    /// Notes what cannot be read in some, or all, of so many places. Of several problems one that may be over soon counts.
    fn note(&mut self, facts: Facts, problems: &[PortError], places: usize) {
        let in_part = problems.len() < places;
        let worst = problems
            .iter()
            .find(|problem| problem.is_retryable())
            .or_else(|| problems.first());
        self.unread.extend(worst.map(|problem| Unread {
            facts,
            in_part,
            problem: problem.clone(),
        }));
    }
}

/// Why what a watch brought is old, or is not there. One that broke off a moment ago is back in another.
fn lasting_problem(state: &State) -> Option<PortError> {
    state
        .fails()
        .filter(|problem| !state.is_synced() || state.dead_for() > LIVE || !problem.is_retryable())
}
