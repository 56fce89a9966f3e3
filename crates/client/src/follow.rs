//! Follows the event stream over breaks: connects again with growing pauses and resumes after the last event.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::error::ClientError;
use crate::exchange::{Client, EventStream, ServerEvent};

/// Pause before the first new attempt.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Longest pause. One terminal that comes back every ten seconds is no load, so there is no jitter.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Reads events for as long as somebody wants them.
#[derive(Debug)]
pub struct EventFollower {
    client: Client,
    stream: Option<EventStream>,
    last_id: Option<String>,
    pause: Duration,
    resume_at: Option<Instant>,
}

/// What following brings.
#[derive(Debug)]
pub enum Followed {
    /// Something came.
    Event(ServerEvent),
    /// The stream broke; the next call of [`EventFollower::next`] waits this long and connects again.
    Lost {
        /// Why; `None` when the server ended the stream in order.
        error: Option<ClientError>,
        /// The pause.
        again_in: Duration,
    },
}

impl EventFollower {
    /// Follows from now on, or after the event with this id.
    pub fn new(client: Client, after: Option<String>) -> Self {
        Self {
            client,
            stream: None,
            last_id: after,
            pause: PAUSE_FIRST,
            resume_at: None,
        }
    }

    /// Goes on with a stream that is open already, and follows it over breaks.
    pub fn resume(client: Client, stream: EventStream) -> Self {
        Self {
            stream: Some(stream),
            ..Self::new(client, None)
        }
    }

    /// The next event, or the news that the stream broke. Cancel-safe: an event that was read
    /// is not lost, and a connection half made is made again.
    ///
    /// # Errors
    /// What coming back later will not mend: no key, a server without events.
    pub async fn next(&mut self) -> Result<Followed, ClientError> {
        if let Some(resume_at) = self.resume_at {
            sleep_until(resume_at).await;
            self.resume_at = None;
        }
        match self.read().await {
            Ok(Some(event)) => {
                self.pause = PAUSE_FIRST;
                Ok(Followed::Event(event))
            }
            Ok(None) => Ok(self.lost(None)),
            Err(error) if error.is_passing() => Ok(self.lost(Some(error))),
            Err(error) => Err(error),
        }
    }

    async fn read(&mut self) -> Result<Option<ServerEvent>, ClientError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none @ None => none.insert(self.client.events(self.last_id.clone()).await?),
        };
        let read = stream.next().await;
        self.last_id = stream.last_id().map(str::to_owned);
        read
    }

    fn lost(&mut self, error: Option<ClientError>) -> Followed {
        self.stream = None;
        let again_in = self.pause;
        self.pause = self.pause.saturating_mul(2).min(PAUSE_MAX);
        self.resume_at = Some(Instant::now() + again_in);
        Followed::Lost { error, again_in }
    }
}
