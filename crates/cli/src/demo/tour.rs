//! The tour of the demo: does what a person would do, through the same doors, and tells what happens.
//!
//! It waits for events and looks at the status when one comes, so that the log of the demo tells of the demo and not of
//! somebody who asks all the time.
//!
//! Every step states what it expects and fails with what it saw instead, so that the demo without a terminal is a
//! test of the whole. Nothing here looks inside the process: it speaks REST and plain HTTP only.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::{Timestamp, Unit};
use nagi_api::{PoolItem, ScaleToZeroRequest, Time, WakeRequest, WorkloadItem};
use nagi_client::{Client, ClientError, DryRun, EventFollower, Followed, ServerEvent};
use nagi_core::id::{Name, Namespace, WorkloadId};
use nagi_core::wake::Stage;
use nagi_ports::Clock;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::exit::Exit;
use crate::failure::Failure;

/// How long a step may take. The slowest one boots a node for 5 s and loads a model for 2 s.
const STEP_MAX: Duration = Duration::from_mins(1);
/// How often the tour looks at nodes, of which no event tells.
const NODES_EVERY: Duration = Duration::from_secs(1);
/// How often it looks at a workload of which no event came: what a stream that broke has missed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Largest answer read from a sample app.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How far ahead the tour schedules a wake.
const SCHEDULE_AHEAD: Duration = Duration::from_secs(4);
/// A scheduled wake must fire within this of its time (F06).
const SCHEDULE_LATE_MAX: Duration = Duration::from_secs(1);
/// The namespaces that the tour changes something in.
pub(crate) const NAMESPACES: [&str; 2] = ["project-a", "project-b"];
/// How long the gateway must hold a request for the tour: a node boots for 2 s meanwhile and an app starts, on a machine that
/// may have something else to do.
pub(crate) const HOLD_MIN: Duration = Duration::from_secs(10);

/// Why the tour stopped.
#[derive(Debug, Error)]
pub(crate) enum TourError {
    /// A call of the REST API failed.
    #[error("step {step}: the API could not be called")]
    Api {
        step: &'static str,
        #[source]
        source: ClientError,
    },
    /// A request through the gateway failed.
    #[error("step {step}: the gateway could not be reached")]
    Gateway {
        step: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// Something else than expected was seen.
    #[error("step {step}: expected {expected}, saw {saw}")]
    Unexpected {
        step: &'static str,
        expected: String,
        saw: String,
    },
    /// The narration could not be written.
    #[error("cannot write to standard output")]
    Output(#[source] std::io::Error),
}

// === impl TourError ===

impl TourError {
    /// What failed, and why; of an answer of the API all that it says.
    pub(crate) fn into_failure(self) -> Failure {
        let message = self.to_string();
        match self {
            Self::Api { source, .. } => {
                let mut failure = Failure::from(source);
                failure.causes.insert(0, failure.message);
                Failure { message, ..failure }
            }
            Self::Gateway { source, .. } | Self::Output(source) => {
                let mut failure = Failure::new(Exit::Failed, message);
                failure.causes.push(source.to_string());
                failure
            }
            Self::Unexpected { .. } => Failure::new(Exit::Failed, message),
        }
    }
}

/// The tour and what it needs.
pub(crate) struct Tour<'a, W> {
    pub(crate) client: Client,
    pub(crate) events: EventFollower,
    pub(crate) gateway: SocketAddr,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) out: W,
    pub(crate) step: &'static str,
}

impl<W: Write> Tour<'_, W> {
    /// Goes through all steps.
    ///
    /// # Errors
    /// The first step that did not go as expected.
    pub(crate) async fn run(&mut self) -> Result<(), TourError> {
        let (web, model) = (
            app(NAMESPACES[0], "sample-app-a"),
            app(NAMESPACES[1], "sample-app-b"),
        );
        self.arrive(&web, &model).await?;
        self.fall_asleep(&web).await?;
        self.wake_by_request(&web).await?;
        self.wake_by_call(&model).await?;
        self.wake_by_schedule(&web).await?;
        self.count_the_money().await
    }

    async fn arrive(&mut self, web: &WorkloadId, model: &WorkloadId) -> Result<(), TourError> {
        self.begin(
            "start",
            "Two projects share this machine: a web page and an inference server.",
        )?;
        self.until(model, "inactive", |w| w.status == "inactive")
            .await?;
        self.until(web, "active", |w| w.status == "active").await?;
        self.until_pool("standard", "a node", |pool| !pool.nodes.is_empty())
            .await?;
        self.say("project-a/sample-app-a is awake on pool standard, which booted a node for it.")?;
        let costs_nothing =
            |pool: &PoolItem| pool.nodes.is_empty() && pool.spent.unwrap_or_default() <= 0.0;
        self.until_pool("gpu", "no node and no cost", costs_nothing)
            .await?;
        self.say("project-b/sample-app-b sleeps; pool gpu has no node and costs nothing.")
    }

    async fn fall_asleep(&mut self, web: &WorkloadId) -> Result<(), TourError> {
        self.begin(
            "idle sleep",
            "Nobody asks for the page. After 5 s it goes to sleep by itself.",
        )?;
        let began = Instant::now();
        let asleep = self
            .until(web, "inactive", |w| w.status == "inactive")
            .await?;
        let by = asleep.asleep_by.unwrap_or_default();
        self.expect(by.starts_with("policy/"), "asleep by its idle policy", &by)?;
        self.say(&format!(
            "Asleep after {:.1} s, put to sleep by {by}.",
            began.elapsed().as_secs_f64()
        ))?;
        self.until_pool("standard", "no node", |pool| pool.nodes.is_empty())
            .await?;
        self.say("Its node was empty and is released: pool standard is at zero.")
    }

    async fn wake_by_request(&mut self, web: &WorkloadId) -> Result<(), TourError> {
        self.begin(
            "wake by request",
            "Somebody opens the page while everything is asleep:",
        )?;
        self.say(&format!(
            "$ curl http://sample-app-a.project-a.localhost:{}/",
            self.gateway.port()
        ))?;
        let began = Instant::now();
        let answer = self.get("sample-app-a.project-a.localhost", "/").await?;
        self.expect(
            answer.starts_with("HTTP/1.1 200"),
            "200 for the request that woke it",
            first_line(&answer),
        )?;
        let took = began.elapsed().as_secs_f64();
        self.say(&format!(
            "{}, after {took:.1} s: a node booted (2 s), the app started.",
            first_line(&answer)
        ))?;
        let status = self.status(web).await?;
        let action = status.last_change.map(|c| c.action).unwrap_or_default();
        self.expect(
            action == "wake-on-request",
            "the change wake-on-request",
            &action,
        )?;
        let began = Instant::now();
        self.get("sample-app-a.project-a.localhost", "/").await?;
        self.say(&format!(
            "The next one took {:.1} ms.",
            began.elapsed().as_secs_f64() * 1000.0
        ))
    }

    async fn wake_by_call(&mut self, model: &WorkloadId) -> Result<(), TourError> {
        self.begin(
            "wake by call",
            "A member of project B wakes the inference server before the demo:",
        )?;
        self.say("$ nagi wake sample-app-b -n project-b --wait")?;
        let request = WakeRequest {
            replicas: None,
            reason: Some("tour".to_owned()),
        };
        let began = Instant::now();
        let answer = self.sent(self.client.wake(model, &request, DryRun::No).await)?;
        self.expect(
            answer.status == 202,
            "202 Wake started",
            &answer.status.to_string(),
        )?;
        let (mut shown, mut ready) = (0, false);
        let deadline = Instant::now() + STEP_MAX;
        loop {
            let now = self.status(model).await?;
            let stages = now
                .wake
                .as_ref()
                .map(|wake| wake.stages.as_slice())
                .unwrap_or_default();
            for stage in stages.iter().skip(shown) {
                self.say(&format!("{:>6.2} s  {}", stage.after_seconds, stage.stage))?;
                ready |= stage.stage == Stage::Ready.as_str();
            }
            shown = shown.max(stages.len());
            if now.status == "active" {
                // A wake that has ended soon is no longer in the status; then the tour saw its end itself.
                if !ready {
                    let took = began.elapsed().as_secs_f64();
                    self.say(&format!("{took:>6.2} s  {}", Stage::Ready))?;
                }
                break;
            }
            self.expect(Instant::now() < deadline, "active", &describe(&now))?;
            self.news(model).await?;
        }
        self.until_pool("gpu", "a node", |pool| !pool.nodes.is_empty())
            .await?;
        self.say("A node of pool gpu booted, the model is loaded, it serves.")?;
        let ready = self
            .get("sample-app-b.project-b.localhost", "/v2/models/resnet50")
            .await?;
        self.expect(
            ready.contains("resnetv17_dense0_fwd"),
            "the metadata of model resnet50",
            first_line(&ready),
        )
    }

    async fn wake_by_schedule(&mut self, web: &WorkloadId) -> Result<(), TourError> {
        self.begin(
            "scheduled wake",
            "The page sleeps now and is needed again in 4 s:",
        )?;
        let at = (self.clock.now() + SCHEDULE_AHEAD)
            .round(Unit::Millisecond)
            .expect("an instant near now can be rounded to milliseconds");
        let request = ScaleToZeroRequest {
            reason: "コスト最適化のため".to_owned(),
            scheduled_scale_up: Some(at.to_string()),
        };
        let sent = self.client.scale_to_zero(web, &request, DryRun::No).await;
        let answer = self.sent(sent)?;
        self.say(&wakes(&answer.body.message, at))?;
        let awake = self
            .until(web, "a wanted replica", |w| w.desired_replicas > 0)
            .await?;
        let fired = awake
            .last_scale_time
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let late = Duration::try_from(fired.duration_since(at)).unwrap_or(Duration::MAX);
        self.expect(
            late <= SCHEDULE_LATE_MAX,
            "a wake within 1 s of its time",
            &format!("{fired} for {at}"),
        )?;
        self.say(&format!(
            "It fired {:.0} ms after its time.",
            late.as_secs_f64() * 1000.0
        ))?;
        self.until(web, "active", |w| w.status == "active")
            .await
            .map(drop)
    }

    async fn count_the_money(&mut self) -> Result<(), TourError> {
        self.begin(
            "money",
            "What it cost, and what the same nodes would have cost on top had they stayed on:",
        )?;
        let pools = self.pools().await?;
        for pool in &pools {
            self.say(&format!(
                "pool {:<9} spent {:.6}   saved {:.6}",
                pool.name,
                pool.spent.unwrap_or_default(),
                pool.saved.unwrap_or_default()
            ))?;
        }
        let saved = pools
            .iter()
            .filter_map(|pool| pool.saved)
            .fold(0.0, f64::max);
        self.expect(saved > 0.0, "some money saved", &saved.to_string())
    }

    // What the steps are made of.

    fn begin(&mut self, step: &'static str, text: &str) -> Result<(), TourError> {
        self.step = step;
        writeln!(self.out, "\n{text}").map_err(TourError::Output)
    }

    fn say(&mut self, text: &str) -> Result<(), TourError> {
        writeln!(self.out, "  {text}")
            .and_then(|()| self.out.flush())
            .map_err(TourError::Output)
    }

    fn expect(&self, holds: bool, expected: &str, saw: &str) -> Result<(), TourError> {
        if holds {
            return Ok(());
        }
        Err(TourError::Unexpected {
            step: self.step,
            expected: expected.to_owned(),
            saw: saw.to_owned(),
        })
    }

    /// The answer to a call in this step.
    fn sent<T>(&self, answer: Result<T, ClientError>) -> Result<T, TourError> {
        answer.map_err(|source| TourError::Api {
            step: self.step,
            source,
        })
    }

    async fn status(&self, id: &WorkloadId) -> Result<WorkloadItem, TourError> {
        let answer = self.sent(self.client.status(id, None).await)?;
        Ok(answer.body.deployment)
    }

    async fn pools(&self) -> Result<Vec<PoolItem>, TourError> {
        let answer = self.sent(self.client.pools().await)?;
        Ok(answer.body.items)
    }

    /// Waits until something happened to this workload, or it is time to look anyway.
    async fn news(&mut self, id: &WorkloadId) -> Result<(), TourError> {
        let look = Instant::now() + LOOK_EVERY;
        while let Ok(next) = timeout_at(look, self.events.next()).await {
            let next = next.map_err(|source| TourError::Api {
                step: self.step,
                source,
            })?;
            match next {
                Followed::Event(ServerEvent::Event { event, .. })
                    if event.name != id.name.as_str() => {}
                Followed::Event(_) => return Ok(()),
                // It is followed again; the clock looks meanwhile.
                Followed::Lost { .. } => {}
            }
        }
        Ok(())
    }

    async fn until(
        &mut self,
        id: &WorkloadId,
        expected: &str,
        holds: impl Fn(&WorkloadItem) -> bool,
    ) -> Result<WorkloadItem, TourError> {
        let deadline = Instant::now() + STEP_MAX;
        loop {
            let now = self.status(id).await?;
            if holds(&now) {
                return Ok(now);
            }
            self.expect(
                Instant::now() < deadline,
                &format!("{id} to be {expected}"),
                &describe(&now),
            )?;
            self.news(id).await?;
        }
    }

    async fn until_pool(
        &self,
        name: &str,
        expected: &str,
        holds: impl Fn(&PoolItem) -> bool,
    ) -> Result<(), TourError> {
        let deadline = Instant::now() + STEP_MAX;
        loop {
            let pools = self.pools().await?;
            let pool = pools.iter().find(|pool| pool.name == name);
            if pool.is_some_and(&holds) {
                return Ok(());
            }
            let saw = pool.map_or_else(
                || "no such pool".to_owned(),
                |pool| {
                    let spent = pool.spent.unwrap_or_default();
                    format!("{} of its nodes, {spent} spent", pool.nodes.len())
                },
            );
            self.expect(
                Instant::now() < deadline,
                &format!("pool {name} to have {expected}"),
                &saw,
            )?;
            sleep(NODES_EVERY).await;
        }
    }

    async fn get(&self, host: &str, path: &str) -> Result<String, TourError> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.gateway).await?;
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream
                .take(ANSWER_BYTES_MAX)
                .read_to_end(&mut answer)
                .await?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        let answer = timeout(STEP_MAX, exchange)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        answer.map_err(|source| TourError::Gateway {
            step: self.step,
            source,
        })
    }
}

fn app(namespace: &str, name: &str) -> WorkloadId {
    let namespace = Namespace::new(namespace).expect("a constant that is a DNS label");
    WorkloadId::deployment(
        namespace,
        Name::new(name).expect("a constant that is a DNS label"),
    )
}

fn wakes(message: &str, at: Timestamp) -> String {
    format!("{message}; wakes at {}", Time(at))
}

fn first_line(answer: &str) -> &str {
    answer.lines().next().unwrap_or("an empty answer")
}

fn describe(w: &WorkloadItem) -> String {
    let why = w.reason.as_deref().unwrap_or("no reason given");
    format!(
        "{} ({} of {} serve: {why})",
        w.status, w.available_replicas, w.desired_replicas
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    // The change log: times always have three digits behind the second.
    #[test]
    fn the_time_of_the_scheduled_wake_has_its_three_digits() {
        let at: Timestamp = "2030-01-31T07:00:34.910Z".parse().unwrap();
        assert_eq!(wakes("Done", at), "Done; wakes at 2030-01-31T07:00:34.910Z");
    }
}
