//! The way from the threads that log to the place that is written to.
//!
//! A bounded buffer and one writer thread stand between them, so that a slow or stopped reader of
//! stdout never holds up a request. The writer makes one write call for as many whole lines as
//! a pipe takes in one piece: at once after a quiet time, otherwise within [`REST`], so that many lines cost one wake of its
//! thread and few system calls. What does not
//! fit is dropped and counted, and when the reader is back a line says how many are missing.
//! It deliberately never waits in `push`, and never retries a line whose write failed.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use crate::level::Level;
use crate::log::line::{LINE_BYTES_MAX, Line};
use crate::names::field;

/// Most bytes that wait for the writer: about 6,000 request lines, what 50,000 requests a second log
/// in 100 ms. A reader that stalls longer at that rate loses lines; memory stays far below the 25 MB
/// that an idle process may use.
pub(crate) const QUEUE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What last words may take beyond that, so that a full queue does not swallow a panic.
const LAST_WORDS_BYTES_MAX: usize = 64 * 1024;
/// A buffer that grew beyond this in a burst is given back once it is empty.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;
/// How long the writer rests after it wrote. Waking it for each line costs a request two switches of
/// threads, a quarter of all that it takes; lines must appear within 100 ms.
const REST: Duration = Duration::from_millis(5);
/// Pause before a non-blocking stdout that is full is tried again. `std` has no poll; a millisecond
/// costs nothing and keeps lines within the 100 ms in which they must appear.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(1);
/// How often that is tried before the line is dropped: about five seconds, then the queue moves on.
const WOULD_BLOCK_TRIES: u32 = 5_000;

/// Opens the place that is written to, anew.
pub(crate) type Open = Box<dyn FnMut() -> io::Result<Box<dyn Write + Send>> + Send>;

/// How many lines were lost. Clones share the count.
pub type LinesDropped = Counter;

/// What the writer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Write,
    Reopen,
    End,
}

/// How much a line matters when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    Normal,
    /// A panic or the error that ends the process.
    LastWords,
}

/// The shared end of the queue. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, the place is to be opened anew, or the queue was closed.
    filled: Condvar,
    /// Something was written, or the writer ended.
    written: Condvar,
    dropped: LinesDropped,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines, each with its line feed.
    waiting: String,
    /// Bytes that the writer took and has not written yet.
    writing_bytes: usize,
    /// Bytes ever accepted, and of these, written or given up.
    accepted_total: u64,
    done_total: u64,
    /// Lines dropped since the last line that said so.
    unreported: u64,
    /// The writer is to open its place anew once this many of the waiting bytes are written.
    reopen: Option<usize>,
    writer: Writer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Writer {
    /// Writes, and looks again before it sleeps.
    #[default]
    Busy,
    /// Sleeps and must be woken.
    Idle,
    /// Has just written, and looks again soon without being woken.
    Resting,
    /// Asked to end once everything is written.
    Closing,
    /// Gone: nothing will be written any more.
    Ended,
}

// === impl Queue ===

impl Queue {
    /// Starts the writer thread on `sink`; `open` opens that place anew, where there is such a thing.
    pub(crate) fn start(sink: Box<dyn Write + Send>, open: Option<Open>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            dropped: LinesDropped::default(),
        });
        let writer = WriterThread {
            shared: Arc::clone(&shared),
            sink,
            open,
            line_is_torn: false,
        };
        // The handle is not kept: `close` waits for the end with a limit, which `join` does not have,
        // and a writer stuck in a write call must not hold up the exit.
        thread::Builder::new()
            .name("nagi-log".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self { shared })
    }

    /// Queues a whole line, or drops and counts it. Never waits for the writer.
    pub(crate) fn push(&self, line: &str, urgency: Urgency) {
        let limit = match urgency {
            Urgency::Normal => QUEUE_BYTES_MAX,
            Urgency::LastWords => QUEUE_BYTES_MAX + LAST_WORDS_BYTES_MAX,
        };
        let mut state = self.shared.lock();
        let used = state.waiting.len() + state.writing_bytes;
        if state.writer == Writer::Ended || used + line.len() > limit {
            state.unreported += 1;
            drop(state);
            self.shared.dropped.inc();
            return;
        }
        state.waiting.push_str(line);
        state.accepted_total += bytes(line.len());
        let wake = match state.writer {
            Writer::Idle => true,
            Writer::Resting => urgency == Urgency::LastWords,
            Writer::Busy | Writer::Closing | Writer::Ended => false,
        };
        if wake {
            // Whoever comes next finds it busy and spares the system call.
            state.writer = Writer::Busy;
        }
        drop(state);
        if wake {
            self.shared.filled.notify_one();
        }
    }

    /// Waits until everything accepted so far is written or given up, at most `limit`.
    /// True when it is. Blocks the thread.
    #[expect(
        clippy::disallowed_methods,
        reason = "waits on a condition variable, outside any runtime whose time could be paused"
    )]
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        let begin = Instant::now();
        let mut state = self.shared.lock();
        let wanted = state.accepted_total;
        if state.writer == Writer::Resting {
            state.writer = Writer::Busy;
            self.shared.filled.notify_one();
        }
        while state.done_total < wanted && state.writer != Writer::Ended {
            let Some(rest) = limit.checked_sub(begin.elapsed()) else {
                return false;
            };
            let outcome = self.shared.written.wait_timeout(state, rest);
            state = outcome.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.done_total >= wanted
    }

    /// Asks the writer to open its place anew; everything that is queued from now on goes there. Never waits for it.
    pub(crate) fn reopen(&self) {
        let mut state = self.shared.lock();
        state.reopen = Some(state.waiting.len());
        if matches!(state.writer, Writer::Idle | Writer::Resting) {
            state.writer = Writer::Busy;
        }
        drop(state);
        self.shared.filled.notify_one();
    }

    /// Asks the writer to end once everything is written.
    pub(crate) fn close(&self) {
        let mut state = self.shared.lock();
        if state.writer != Writer::Ended {
            state.writer = Writer::Closing;
        }
        drop(state);
        self.shared.filled.notify_one();
    }

    /// Bytes that wait or are being written.
    pub(crate) fn depth_bytes(&self) -> usize {
        let state = self.shared.lock();
        state.waiting.len() + state.writing_bytes
    }

    /// The count of lost lines.
    pub(crate) fn dropped(&self) -> LinesDropped {
        self.shared.dropped.clone()
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No section of this file leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn line_feeds(bytes: &[u8]) -> u64 {
    self::bytes(bytes.split(|byte| *byte == b'\n').skip(1).count())
}

/// Where the whole lines end that one write call takes: as many as stay whole in a pipe, and at least one.
fn piece_end(lines: &str) -> usize {
    let feed = |byte: &u8| *byte == b'\n';
    let bytes = lines.as_bytes();
    let head = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let end = head.iter().rposition(feed);
    let end = end.or_else(|| bytes.iter().position(feed));
    end.map_or(bytes.len(), |at| at + 1)
}

/// What runs on the writer thread.
struct WriterThread {
    shared: Arc<Shared>,
    sink: Box<dyn Write + Send>,
    open: Option<Open>,
    /// The last line was written in part only: the next must begin on a new line.
    line_is_torn: bool,
}

// === impl WriterThread ===

impl WriterThread {
    fn run(mut self) {
        let mut batch = String::new();
        loop {
            match self.take(&mut batch) {
                Next::Write => {}
                Next::Reopen => {
                    self.reopen();
                    continue;
                }
                Next::End => return,
            }
            let mut rest = batch.as_str();
            while !rest.is_empty() {
                let (piece, next) = rest.split_at(piece_end(rest));
                let lost = self.write_lines(piece);
                self.done(piece.len(), lost);
                rest = next;
            }
            self.report_dropped();
            self.rest();
        }
    }

    /// Lets lines gather, until [`REST`] is over or somebody is in a hurry.
    fn rest(&self) {
        let mut state = self.shared.lock();
        // Asked to end or to hurry meanwhile: nothing to wait for.
        if state.writer != Writer::Busy || state.reopen.is_some() {
            return;
        }
        state.writer = Writer::Resting;
        let resting = |state: &mut State| state.writer == Writer::Resting;
        let rested = self.shared.filled.wait_timeout_while(state, REST, resting);
        let mut state = rested.unwrap_or_else(PoisonError::into_inner).0;
        if state.writer == Writer::Resting {
            state.writer = Writer::Busy;
        }
    }

    /// Waits for something to do. Lines are taken all at once, up to where the place is to be opened anew.
    fn take(&self, batch: &mut String) -> Next {
        batch.clear();
        if batch.capacity() > BUFFER_BYTES_KEPT {
            *batch = String::new();
        }
        let mut state = self.shared.lock();
        loop {
            match state.reopen {
                Some(0) => {
                    state.reopen = None;
                    return Next::Reopen;
                }
                Some(before) => {
                    // What was queued before belongs into the former place.
                    let after = state.waiting.split_off(before);
                    std::mem::swap(&mut state.waiting, batch);
                    state.waiting = after;
                    state.writing_bytes = batch.len();
                    state.reopen = Some(0);
                    return Next::Write;
                }
                None => {}
            }
            if !state.waiting.is_empty() {
                break;
            }
            if state.writer == Writer::Closing {
                return Next::End;
            }
            state.writer = Writer::Idle;
            state = self
                .shared
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            if state.writer == Writer::Idle {
                state.writer = Writer::Busy;
            }
        }
        std::mem::swap(&mut state.waiting, batch);
        state.writing_bytes = batch.len();
        Next::Write
    }

    /// Goes on in the place opened anew. While that cannot be opened the old one serves, so that nothing is lost.
    fn reopen(&mut self) {
        let Some(open) = &mut self.open else {
            return;
        };
        match open() {
            Ok(sink) => self.sink = sink,
            Err(error) => {
                let message =
                    "Log file could not be opened again, the former one is still written to";
                let buffer = String::with_capacity(LINE_BYTES_MAX);
                let mut line = Line::begin(buffer, crate::log::now(), Level::Error, message);
                line.text(field::ERROR, &error.to_string());
                let lost = self.write_lines(&line.end());
                self.shared.lock().unreported += lost;
                self.shared.dropped.inc_by(lost);
            }
        }
    }

    fn done(&self, length: usize, lost: u64) {
        let mut state = self.shared.lock();
        state.writing_bytes = state.writing_bytes.saturating_sub(length);
        state.done_total += bytes(length);
        state.unreported += lost;
        let flushed = state.done_total == state.accepted_total;
        drop(state);
        self.shared.dropped.inc_by(lost);
        if flushed {
            self.shared.written.notify_all();
        }
    }

    /// One write call for these lines, unless the kernel takes less than it was given. Returns how many of them are lost.
    fn write_lines(&mut self, lines: &str) -> u64 {
        if self.line_is_torn {
            if self.write_all(b"\n") > 0 {
                return line_feeds(lines.as_bytes());
            }
            self.line_is_torn = false;
        }
        let bytes = lines.as_bytes();
        let left = self.write_all(bytes);
        let (written, unwritten) = bytes.split_at(bytes.len() - left);
        self.line_is_torn = written.last().is_some_and(|last| *last != b'\n');
        if left > 0 {
            return line_feeds(unwritten);
        }
        match self.sink.flush() {
            Ok(()) => 0,
            Err(_unknown_how_much) => line_feeds(bytes),
        }
    }

    /// Writes what it can, and returns how many bytes are left when it gave up.
    #[expect(
        clippy::disallowed_methods,
        reason = "sleeps on the writer's own thread"
    )]
    fn write_all(&mut self, mut rest: &[u8]) -> usize {
        let mut tries = 0;
        while !rest.is_empty() {
            let error = match self.sink.write(rest) {
                Ok(0) => return rest.len(),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    continue;
                }
                Err(error) => error,
            };
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            if error.kind() == io::ErrorKind::WouldBlock && tries < WOULD_BLOCK_TRIES {
                tries += 1;
                thread::sleep(WOULD_BLOCK_PAUSE);
                continue;
            }
            break;
        }
        rest.len()
    }

    /// Says how many lines are missing, once a line can be written again.
    fn report_dropped(&mut self) {
        let lines = std::mem::take(&mut self.shared.lock().unreported);
        if lines == 0 {
            return;
        }
        let buffer = String::with_capacity(LINE_BYTES_MAX);
        let mut line = Line::begin(buffer, crate::log::now(), Level::Warn, "Log lines dropped");
        line.literal(field::LINES, lines);
        if self.write_lines(&line.end()) > 0 {
            self.shared.lock().unreported += lines;
        }
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.shared.lock().writer = Writer::Ended;
        self.shared.written.notify_all();
    }
}

#[cfg(test)]
mod tests;
