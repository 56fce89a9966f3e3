//! Is the API server there? Asked often enough that nobody trusts a cache that nobody feeds.

use std::time::Duration;

use nagi_runtime::Shutdown;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{LIVE, SILENCE_MAX, Shared};
use crate::api::Call;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Something is asked this often at least (DESIGN §5).
const ASK: Duration = Duration::from_secs(2);

impl Shared {
    /// Asks for a sign of life when there was none for a while, and begins the watches anew after an outage: their
    /// connections may be dead without knowing.
    pub(super) async fn pulse(&self, shutdown: Shutdown) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = Instant::now();
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
                tracing::warn!(
                    seconds = SILENCE_MAX.as_secs(),
                    "API server does not answer"
                );
            }
            if away && !silent {
                tracing::info!("API server answers again");
                for state in self
                    .all_watched()
                    .iter()
                    .flat_map(|watched| watched.states())
                {
                    state.nudge();
                }
                for state in &self.others {
                    state.nudge();
                }
            }
            away = silent;
        }
    }
}
