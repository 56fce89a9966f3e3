//! The JSON log: exactly one compact JSON object per line, from the first byte to the last.
//!
//! A [`Log`] owns the queue in front of its sink. Request lines are handed to it directly by
//! [`Log::emit`]; `tracing` events come through its layer; panics through its hook. All three meet in
//! the same queue, so a line is never torn by another.
//! It deliberately holds no global state until [`Log::install`] is called: tests make as many as
//! they like.

mod layer;
mod line;
mod panic;
mod queue;
mod request;

use std::cell::RefCell;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tracing::Subscriber;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::level::{Level, LevelFilter};
use crate::names::field;
use line::Line;
use queue::{Open, Queue, Urgency};

pub use layer::EmitLayer;
pub use line::LINE_BYTES_MAX;
pub use queue::LinesDropped;
pub use request::{Failure, FieldValue, RequestLine};

/// How long the end of the process waits for the last lines: a reader that still reads needs
/// milliseconds, and one that has stopped must not hold up the exit.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Where the lines go.
pub enum Sink {
    /// The standard output, whole lines in each write call, past the buffer of `std`.
    Stdout,
    /// Appended to this file, which is made if it is not there.
    File(PathBuf),
    /// Anything else; gets one `write` and one `flush` for some whole lines, on the writer thread.
    Writer(Box<dyn Write + Send>),
}

/// The log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Standard output is not usable.
    #[error("cannot open standard output for the log")]
    OpenStdout(#[source] io::Error),
    /// The file could not be opened for appending.
    #[error("cannot open log file {path}")]
    OpenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The writer thread could not be started.
    #[error("cannot start the thread that writes the log")]
    StartThread(#[source] io::Error),
    /// Another subscriber is installed for the process.
    #[error("a log is already installed")]
    AlreadyInstalled,
}

/// The log of this process. Clones share it; the last one flushes, for at most a second.
#[derive(Debug, Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    level: LevelFilter,
    default_panic_text: panic::DefaultText,
    queue: Queue,
    /// Events and panics of the whole process still come when the last handle is gone.
    installed: AtomicBool,
}

// === impl Log ===

impl Log {
    /// Opens `sink` and starts the writer. Lines below `level` are not written.
    ///
    /// # Errors
    /// When the sink cannot be opened or the thread cannot be started.
    pub fn start(level: LevelFilter, sink: Sink) -> Result<Self, LogError> {
        let default_panic_text = match sink {
            // Container logs merge stdout and stderr, and every line must be JSON.
            Sink::Stdout => panic::DefaultText::Suppress,
            Sink::File(_) | Sink::Writer(_) => panic::DefaultText::Print,
        };
        let (sink, open) = sink.open()?;
        let queue = Queue::start(sink, open).map_err(LogError::StartThread)?;
        Ok(Self {
            inner: Arc::new(Inner {
                level,
                default_panic_text,
                queue,
                installed: AtomicBool::new(false),
            }),
        })
    }

    /// Makes this the log of the process: `tracing` events and panics of all threads go here.
    /// Keep the handle until the end of `main`: its drop is what waits for the last lines.
    ///
    /// # Errors
    /// [`LogError::AlreadyInstalled`] the second time.
    pub fn install(&self) -> Result<(), LogError> {
        let subscriber = tracing_subscriber::registry().with(self.layer());
        tracing::subscriber::set_global_default(subscriber)
            .map_err(|_error| LogError::AlreadyInstalled)?;
        self.inner.installed.store(true, Ordering::Relaxed);
        panic::install(self.inner.queue.clone(), self.inner.default_panic_text);
        Ok(())
    }

    /// The layer that writes `tracing` events to this log: our own targets down to the level of the
    /// log, those of libraries down to `warn` at most.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + 'static + use<S>
    where
        S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    {
        EmitLayer::new(self.inner.queue.clone()).with_filter(layer::filter(self.inner.level))
    }

    /// The threshold that this log was started with.
    pub fn level(&self) -> LevelFilter {
        self.inner.level
    }

    /// Writes the line of one request, if its level is written. Never waits.
    pub fn emit(&self, request: &RequestLine<'_>) {
        let level = request.level();
        if !self.inner.level.allows(level) {
            return;
        }
        BUFFER.with_borrow_mut(|buffer| {
            let empty = std::mem::take(buffer);
            let mut line = Line::begin(empty, now(), level, request.message());
            request.write(&mut line);
            *buffer = line.end();
            self.inner.queue.push(buffer, Urgency::Normal);
        });
    }

    /// Writes the error that ends the process, with its causes, whatever the threshold, and waits
    /// until it is written (at most a second): the last words. Blocks the thread.
    pub fn fatal(&self, message: &'static str, error: &(dyn Error + 'static)) {
        let buffer = String::with_capacity(LINE_BYTES_MAX);
        let mut line = Line::begin(buffer, now(), Level::Error, message);
        line.text(field::ERROR, &layer::error_chain(error));
        self.inner.queue.push(&line.end(), Urgency::LastWords);
        self.flush(FLUSH_MAX);
    }

    /// Waits until every line so far is written or given up, at most `limit`; true when it is.
    /// Blocks the thread: for the end of the process and for tests.
    pub fn flush(&self, limit: Duration) -> bool {
        self.inner.queue.flush(limit)
    }

    /// Opens the file anew under its path, as after a rotation that renamed it (SIGHUP); lines from now on go there. A file
    /// that cannot be opened leaves the former one in use, and an error line in it. Does nothing for other sinks; never
    /// waits.
    pub fn reopen(&self) {
        self.inner.queue.reopen();
    }

    /// The count of lines that were lost, for [`Metrics`](crate::Metrics).
    pub fn lines_dropped(&self) -> LinesDropped {
        self.inner.queue.dropped()
    }

    /// Bytes that wait to be written now; at most 2 MiB, and 64 KiB more for last words.
    pub fn queue_depth_bytes(&self) -> usize {
        self.inner.queue.depth_bytes()
    }
}

thread_local! {
    /// The buffer in which this thread builds its request lines, used again and again.
    static BUFFER: RefCell<String> = RefCell::new(String::with_capacity(LINE_BYTES_MAX));
}

/// The time of a line.
#[expect(
    clippy::disallowed_methods,
    reason = "the time of a log line decides nothing, and a panic hook has no Clock port"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

// === impl Inner ===

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.flush(FLUSH_MAX);
        if !self.installed.load(Ordering::Relaxed) {
            self.queue.close();
        }
    }
}

// === impl Sink ===

impl Sink {
    /// The place that is written to, and how to open it anew.
    fn open(self) -> Result<(Box<dyn Write + Send>, Option<Open>), LogError> {
        match self {
            Self::Stdout => {
                // A duplicate as a plain file: each write is one system call, nothing is buffered.
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                let stdout = File::from(stdout.map_err(LogError::OpenStdout)?);
                Ok((Box::new(stdout), None))
            }
            Self::File(path) => {
                let open = {
                    let path = path.clone();
                    move || -> io::Result<Box<dyn Write + Send>> {
                        let opened = OpenOptions::new().append(true).create(true).open(&path);
                        Ok(Box::new(opened?))
                    }
                };
                match open() {
                    Ok(file) => Ok((file, Some(Box::new(open)))),
                    Err(source) => Err(LogError::OpenFile { path, source }),
                }
            }
            Self::Writer(writer) => Ok((writer, None)),
        }
    }
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => formatter.write_str("Stdout"),
            Self::File(path) => formatter.debug_tuple("File").field(path).finish(),
            Self::Writer(_) => formatter.write_str("Writer"),
        }
    }
}

#[cfg(test)]
mod tests;
