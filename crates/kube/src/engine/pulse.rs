//! Is the API server there? Asked often enough that nobody trusts a cache that nobody feeds.

use std::time::Duration;

use nagi_ports::PortError;
use nagi_runtime::Shutdown;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{LIVE, SILENCE_MAX, Shared};
use crate::api::Call;
use crate::reflect::State;
use crate::wire::List;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at the version that the API server is at.
const COMPARE: Duration = Duration::from_secs(10);
/// Something is asked this often at least (DESIGN §5).
const ASK: Duration = Duration::from_secs(2);

impl Shared {
    /// Asks for a sign of life when there was none for a while, and begins the watches anew after an outage: their
    /// connections may be dead without knowing.
    pub(super) async fn pulse(&self, shutdown: Shutdown) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = Instant::now();
        let mut compared = Instant::now();
        let mut away = false;
        loop {
            tokio::select! {
                // Cancel-safe: waiting on a watch channel loses nothing.
                () = shutdown.stopped() => return,
                // Cancel-safe: a tick that was not taken comes again.
                _ = looks.tick() => {}
            }
            if asked.elapsed() >= ASK
                && self
                    .api
                    .silent_for()
                    .is_none_or(|silence| silence + LOOK >= ASK)
            {
                asked = Instant::now();
                // Whoever authenticated may read this; the answer is noted where it comes in, and so is the failure.
                drop(self.api.call(&Call::get("/version"), LIVE).await);
            }
            let silent = self
                .api
                .silent_for()
                .is_some_and(|silence| silence >= SILENCE_MAX);
            if silent && !away {
                // People look for connection and timeout failures by these words.
                let error =
                    PortError::Timeout(format!("no answer for {} s", SILENCE_MAX.as_secs()));
                tracing::warn!(%error, "API server does not answer");
            }
            let is_back = away && !silent;
            if is_back {
                tracing::info!("API server answers again");
                self.each_watch(State::nudge);
            }
            if is_back || (!silent && compared.elapsed() >= COMPARE) {
                compared = Instant::now();
                // Lists that hang must not keep the next sign of life waiting.
                if timeout(LIVE, self.went_back()).await.unwrap_or(false) {
                    tracing::warn!(
                        "API server is at a version from before what was seen, as after a restored backup: everything is read anew"
                    );
                    self.each_watch(State::begin_anew);
                }
            }
            away = silent;
        }
    }

    fn each_watch(&self, mut act: impl FnMut(&State)) {
        for watched in self.all_watched() {
            watched.states().for_each(|state| act(state));
        }
        let others = self.pods.iter().chain(&self.scalers);
        others.for_each(|state| act(state));
    }

    /// Whether the API server is at a version below one that was seen. Versions only grow, and a list that names none is
    /// as new as any: so its data is from a backup, and objects of before have the versions of later ones. A watch would go on
    /// from a version that is still to come.
    async fn went_back(&self) -> bool {
        // Read before any of the calls, which answer with what is later.
        let mut seen = Vec::new();
        self.each_watch(|state| seen.push((state.collection().to_owned(), state.seen())));
        let deployments = self.deployments();
        let known = self.store.newest(&deployments.kind.resource);
        for (namespace, _) in &deployments.states {
            let version = match self
                .version_of(&deployments.kind.path(namespace.as_ref()))
                .await
            {
                Ok(version) => version,
                // Rights differ from namespace to namespace.
                Err(PortError::Refused(_) | PortError::NotFound) => continue,
                Err(_) => return false,
            };
            if version < known {
                return true;
            }
            // Other kinds may lie in other stores, which count by themselves: they are asked when they seem to be ahead.
            for (collection, seen) in &seen {
                if *seen > version
                    && self
                        .version_of(collection)
                        .await
                        .is_ok_and(|now| now < *seen)
                {
                    return true;
                }
            }
            return false;
        }
        false
    }

    /// The version that a collection is at. Unknown is an error: the next look tells.
    async fn version_of(&self, collection: &str) -> Result<u64, PortError> {
        let call = Call::heads(format!("{collection}?limit=1"));
        let body = self.api.call(&call, LIVE).await?;
        let list: Option<List<'_>> = serde_json::from_slice(&body).ok();
        let version = list.and_then(|list| list.metadata.resource_version.parse().ok());
        version.ok_or_else(|| PortError::Internal("the list names no version".to_owned()))
    }
}
