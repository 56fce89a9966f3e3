//! The owner of the long-lived tasks of a process.
//!
//! Serving tasks (listeners, loops) and foundation tasks (journal, lease, metrics listener) are
//! spawned by name. Until shutdown each of them must run: the first one that returns, fails or panics
//! ends the process with an error. Shutdown is ordered: [`Phase::Draining`] is told to all; serving
//! tasks get the grace period; then [`Phase::Stopped`] is told and foundation tasks get the rest;
//! what still runs is aborted and named. It deliberately restarts nothing: the orchestrator does.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::shutdown::ShutdownControl;
use crate::{Deadline, Phase, Shutdown, Termination};

/// The part of the grace period that is kept for foundation tasks: a tenth, because closing a journal
/// and releasing a lease are each one call, while serving tasks wait for clients …
const FOUNDATION_SHARE: u32 = 10;
/// … and at most two seconds, the time of one call to a slow API server.
const FOUNDATION_GRACE_MAX: Duration = Duration::from_secs(2);
/// How long an aborted task may take to end. An abort takes effect at the task's next await, within
/// microseconds; a task that blocks its thread cannot be aborted and must not hold up the exit.
const ABORT_WAIT: Duration = Duration::from_millis(250);

/// How a task ended.
#[derive(Debug)]
pub enum TaskEnd {
    /// It returned.
    Returned,
    /// It returned an error.
    Failed(Box<dyn Error + Send + Sync>),
    /// It panicked with this message.
    Panicked(String),
    /// It was aborted.
    Cancelled,
}

/// What a supervised task may return: nothing, or a `Result` whose error becomes the reason.
pub trait TaskOutput: Send + 'static {
    /// How the task ended.
    fn into_end(self) -> TaskEnd;
}

/// Why the process must end with an error.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A long-lived task ended although nobody asked for shutdown. The others were drained.
    #[error("task {name} ended before shutdown: {end}")]
    TaskEnded {
        /// The task.
        name: &'static str,
        /// How it ended.
        end: TaskEnd,
        /// How the shutdown of the others went.
        report: ShutdownReport,
    },
}

/// How a shutdown went.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ShutdownReport {
    /// The tasks that did not end within the grace period and were aborted, by name.
    pub cut: Vec<&'static str>,
    /// The tasks that failed or panicked while they drained, by name, with the reason.
    pub failed: Vec<(&'static str, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Serving,
    Foundation,
}

/// Owns named long-lived tasks and ends them in order. Dropping it aborts all.
#[derive(Debug)]
pub struct Supervisor {
    control: ShutdownControl,
    tasks: JoinSet<TaskEnd>,
    known: HashMap<Id, Known>,
}

#[derive(Debug)]
struct Known {
    name: &'static str,
    class: Class,
    abort: AbortHandle,
}

// === impl Supervisor ===

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// A supervisor without tasks, in [`Phase::Running`].
    pub fn new() -> Self {
        Self {
            control: ShutdownControl::new(),
            tasks: JoinSet::new(),
            known: HashMap::new(),
        }
    }

    /// A token for tasks that must know about the shutdown.
    pub fn shutdown(&self) -> Shutdown {
        self.control.token()
    }

    /// Starts a serving task: it must run until draining, and end within the grace period after.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        self.start(name, Class::Serving, task);
    }

    /// Starts a foundation task: others rely on it while they drain, so it must run until
    /// [`Phase::Stopped`], and then end at once.
    pub fn spawn_foundation<F>(&mut self, name: &'static str, task: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        self.start(name, Class::Foundation, task);
    }

    /// Runs until `signal` resolves, then shuts down within `grace`. Not cancel-safe: dropping the
    /// future aborts all tasks.
    ///
    /// # Errors
    /// When a task ended before the signal; the others were drained within `grace`.
    pub async fn run_until<S>(
        self,
        signal: S,
        grace: Duration,
    ) -> Result<ShutdownReport, SupervisorError>
    where
        S: Future,
    {
        self.run_until_insisted(
            async {
                signal.await;
            },
            std::future::pending(),
            grace,
        )
        .await
    }

    /// Runs until SIGINT or SIGTERM, then shuts down within `grace`; a second signal cuts the grace
    /// period short. Not cancel-safe: dropping the future aborts all tasks.
    ///
    /// # Errors
    /// As [`Supervisor::run_until`].
    pub async fn run_until_terminated(
        self,
        termination: Termination,
        grace: Duration,
    ) -> Result<ShutdownReport, SupervisorError> {
        let termination = tokio::sync::Mutex::new(termination);
        let first = async {
            let signal = termination.lock().await.recv().await;
            tracing::info!(signal, grace_seconds = grace.as_secs(), "Shutdown started");
        };
        let second = async {
            let signal = termination.lock().await.recv().await;
            tracing::warn!(signal, "Shutdown cut short by a signal");
        };
        self.run_until_insisted(first, second, grace).await
    }

    /// Runs until `asked` resolves, then shuts down within `grace`. `insisted` is polled only once `asked` is ready or a
    /// task ended, and then makes the grace period end at once. Not cancel-safe: dropping the future aborts all tasks.
    ///
    /// # Errors
    /// As [`Supervisor::run_until`].
    pub async fn run_until_insisted(
        mut self,
        asked: impl Future<Output = ()>,
        insisted: impl Future<Output = ()>,
        grace: Duration,
    ) -> Result<ShutdownReport, SupervisorError> {
        let ended = tokio::select! {
            biased; // A task that ends in the moment the signal comes was asked to.
            // Cancel-safe: resolved or never looked at again.
            () = asked => None,
            // Cancel-safe: `JoinSet::join_next_with_id` keeps a result that was not taken.
            ended = self.first_end() => Some(ended),
        };
        let report = self.shut_down(insisted, grace).await;
        match ended {
            None => Ok(report),
            Some((name, end)) => Err(SupervisorError::TaskEnded { name, end, report }),
        }
    }

    fn start<F>(&mut self, name: &'static str, class: Class, task: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        let handle = self.tasks.spawn(async move { task.await.into_end() });
        self.known.insert(
            handle.id(),
            Known {
                name,
                class,
                abort: handle,
            },
        );
    }

    /// Waits for the first task that ends; forever when there is none.
    async fn first_end(&mut self) -> (&'static str, TaskEnd) {
        match self.next_end().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Waits for the next task that ends; `None` when no task is left. Cancel-safe.
    async fn next_end(&mut self) -> Option<(&'static str, TaskEnd)> {
        let (id, end) = match self.tasks.join_next_with_id().await? {
            Ok((id, end)) => (id, end),
            Err(error) => (error.id(), TaskEnd::from(error)),
        };
        let name = self
            .known
            .remove(&id)
            .map_or("already cut", |task| task.name);
        Some((name, end))
    }

    async fn shut_down(
        &mut self,
        insisted: impl Future<Output = ()>,
        grace: Duration,
    ) -> ShutdownReport {
        let deadline = Deadline::in_(grace);
        let foundation_grace = (grace / FOUNDATION_SHARE).min(FOUNDATION_GRACE_MAX);
        let serving_deadline = Deadline::in_(grace.saturating_sub(foundation_grace));
        let mut report = ShutdownReport::default();

        let in_order = async {
            self.control.drain(deadline);
            // Past the deadline the serving tasks are cut first, while the foundation still stands.
            let serving = serving_deadline
                .timeout(self.drain(Class::Serving, &mut report))
                .await;
            if serving.is_err() {
                self.cut(Class::Serving, &mut report).await;
            }
            self.control.advance(Phase::Stopped);
            // Past the deadline, what is left is cut below.
            deadline
                .timeout(self.drain(Class::Foundation, &mut report))
                .await
                .unwrap_or(());
        };
        tokio::select! {
            // Cancel-safe: what it leaves undone is cut below.
            () = in_order => {}
            // Cancel-safe: resolved or never looked at again.
            () = insisted => {}
        }
        self.control.advance(Phase::Stopped);
        self.cut(Class::Serving, &mut report).await;
        self.cut(Class::Foundation, &mut report).await;
        report
    }

    /// Collects ends until no task of `class` is left. Cancel-safe.
    async fn drain(&mut self, class: Class, report: &mut ShutdownReport) {
        while self.names(class).next().is_some() {
            let Some((name, end)) = self.next_end().await else {
                return;
            };
            match end {
                // Only `cut` aborts, and it names the task itself.
                TaskEnd::Returned | TaskEnd::Cancelled => {}
                TaskEnd::Failed(_) | TaskEnd::Panicked(_) => {
                    report.failed.push((name, end.to_string()));
                }
            }
        }
    }

    /// Aborts the tasks of `class` that still run, names them, and waits shortly for their end.
    async fn cut(&mut self, class: Class, report: &mut ShutdownReport) {
        let mut cut: Vec<_> = self.names(class).collect();
        if cut.is_empty() {
            return;
        }
        cut.sort_unstable();
        for task in self.known.values().filter(|task| task.class == class) {
            tracing::warn!(task = task.name, "Task cut at the end of the grace period");
            task.abort.abort();
        }
        report.cut.extend(cut);
        // Past it, the task blocks its thread and is left behind.
        Deadline::in_(ABORT_WAIT)
            .timeout(self.drain(class, report))
            .await
            .unwrap_or(());
        self.known.retain(|_id, task| task.class != class);
    }

    fn names(&self, class: Class) -> impl Iterator<Item = &'static str> {
        self.known
            .values()
            .filter(move |task| task.class == class)
            .map(|task| task.name)
    }
}

// === impl TaskEnd ===

impl fmt::Display for TaskEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned => formatter.write_str("returned"),
            Self::Failed(error) => {
                write!(formatter, "failed: {error}")?;
                let mut source = error.source();
                while let Some(cause) = source {
                    write!(formatter, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
            Self::Panicked(message) => write!(formatter, "panicked: {message}"),
            Self::Cancelled => formatter.write_str("was aborted"),
        }
    }
}

impl From<JoinError> for TaskEnd {
    fn from(error: JoinError) -> Self {
        let Ok(payload) = error.try_into_panic() else {
            return Self::Cancelled;
        };
        let text = payload
            .downcast_ref::<&'static str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Self::Panicked(text.unwrap_or_else(|| "without a text".to_owned()))
    }
}

// === impl TaskOutput ===

impl TaskOutput for () {
    fn into_end(self) -> TaskEnd {
        TaskEnd::Returned
    }
}

impl<E: Error + Send + Sync + 'static> TaskOutput for Result<(), E> {
    fn into_end(self) -> TaskEnd {
        match self {
            Ok(()) => TaskEnd::Returned,
            Err(error) => TaskEnd::Failed(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests;
