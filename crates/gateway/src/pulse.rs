//! Time limits of clients and answers without a timer per request.
//!
//! Each client connection has a [`Pulse`]: a few atomic marks of what it waits for and since when, in coarse time that
//! one ticker advances. The same ticker looks all connections through and cuts those that stand still: a head that
//! does not end, a connection that idles, a body or an answer that nobody sends or takes. A timer per request would
//! cost a system call each time it becomes the nearest one; this costs a store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::settings::Settings;

/// How coarse time may be at most; deadlines are late by no more than this.
const TICK_MAX: Duration = Duration::from_millis(500);
/// The ticker never runs faster.
const TICK_MIN: Duration = Duration::from_millis(5);
/// Ticks within the shortest limit, so that a limit is kept to an eighth.
const TICKS_PER_LIMIT: u32 = 8;
/// A mark that is not set. Coarse time starts above it.
const UNSET: u64 = 0;

/// The marks of one client connection.
#[derive(Debug)]
pub(crate) struct Pulse {
    pulses: Arc<Pulses>,
    key: u64,
    /// Since when a request head is being received, or the first one is awaited. While neither this nor `idle_since`
    /// is set, a request is being answered.
    head_since: AtomicU64,
    /// Since when the connection waits for its next request.
    idle_since: AtomicU64,
    /// Since when the socket takes no more bytes.
    write_blocked: AtomicU64,
    /// Since when the replica waits for body bytes that do not come.
    body_awaited: AtomicU64,
    /// When the head of the answer is overdue.
    answer_due: AtomicU64,
    cut: Notify,
    late: Notify,
}

/// All client connections, and coarse time.
#[derive(Debug)]
pub(crate) struct Pulses {
    now: AtomicU64,
    limits: Limits,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    next: u64,
    pulses: HashMap<u64, Weak<Pulse>>,
}

/// Limits in milliseconds of coarse time.
#[derive(Debug, Clone, Copy)]
struct Limits {
    head: u64,
    idle: u64,
    answer: u64,
    tick: Duration,
}

// === impl Pulses ===

impl Pulses {
    pub(crate) fn new(settings: &Settings) -> Arc<Self> {
        let (head, idle) = (settings.client.head_timeout, settings.client.idle_timeout);
        let answer = settings.upstream.answer_timeout;
        let shortest = head.min(idle).min(answer);
        let limits = Limits {
            head: millis(head),
            idle: millis(idle),
            answer: millis(answer),
            tick: (shortest / TICKS_PER_LIMIT).clamp(TICK_MIN, TICK_MAX),
        };
        Arc::new(Self {
            now: AtomicU64::new(UNSET + 1),
            limits,
            known: Mutex::default(),
        })
    }

    /// A connection that was just accepted.
    pub(crate) fn enter(self: &Arc<Self>) -> Arc<Pulse> {
        let mut known = self.lock();
        let key = known.next;
        known.next += 1;
        let pulse = Arc::new(Pulse {
            pulses: Arc::clone(self),
            key,
            head_since: AtomicU64::new(self.now()),
            idle_since: AtomicU64::new(UNSET),
            write_blocked: AtomicU64::new(UNSET),
            body_awaited: AtomicU64::new(UNSET),
            answer_due: AtomicU64::new(UNSET),
            cut: Notify::new(),
            late: Notify::new(),
        });
        known.pulses.insert(key, Arc::downgrade(&pulse));
        pulse
    }

    /// Advances coarse time and looks the connections through, for ever.
    pub(crate) async fn run(&self) {
        let start = tokio::time::Instant::now();
        let mut ticks = tokio::time::interval(self.limits.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.advance(millis(start.elapsed()) + UNSET + 1);
        }
    }

    fn advance(&self, now: u64) {
        self.now.fetch_max(now, Ordering::Relaxed);
        let now = self.now();
        let pulses: Vec<Arc<Pulse>> = self
            .lock()
            .pulses
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        for pulse in pulses {
            pulse.look(now, self.limits);
        }
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // No section leaves the map half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Pulse ===

impl Pulse {
    /// Bytes came from the client.
    pub(crate) fn received(&self) {
        if is_set(&self.idle_since) {
            self.mark(&self.idle_since, false);
            self.mark(&self.head_since, true);
        }
    }

    /// A request is being answered.
    pub(crate) fn busy(&self) {
        self.mark(&self.head_since, false);
        self.mark(&self.idle_since, false);
    }

    /// Its answer has been handed to the socket.
    pub(crate) fn idle(&self) {
        self.mark(&self.body_awaited, false);
        self.mark(&self.idle_since, true);
    }

    /// True while bytes from the client belong to a request head.
    pub(crate) fn reads_head(&self) -> bool {
        is_set(&self.head_since) || is_set(&self.idle_since)
    }

    /// The socket takes bytes, or does not.
    pub(crate) fn set_write_blocked(&self, blocked: bool) {
        self.mark(&self.write_blocked, blocked);
    }

    /// The replica asked for more of the body: the client has it, or it is awaited. The answer is due anew with each
    /// part, so that a long upload is no slow answer.
    pub(crate) fn body_moved(&self, awaited: bool) {
        self.mark(&self.body_awaited, awaited);
        if !awaited && is_set(&self.answer_due) {
            self.answer_due.store(self.due(), Ordering::Relaxed);
        }
    }

    /// The request was sent: its answer is due within the limit, until the guard is dropped.
    pub(crate) fn expect_answer(&self) -> AnswerDue<'_> {
        self.answer_due.store(self.due(), Ordering::Relaxed);
        AnswerDue { pulse: self }
    }

    /// Waits until the connection is to be cut. Cancel-safe: a permit is kept until it is taken.
    pub(crate) async fn cut(&self) {
        self.cut.notified().await;
    }

    fn due(&self) -> u64 {
        self.pulses.now().saturating_add(self.pulses.limits.answer)
    }

    fn mark(&self, mark: &AtomicU64, set: bool) {
        match (set, mark.load(Ordering::Relaxed)) {
            (true, UNSET) => mark.store(self.pulses.now(), Ordering::Relaxed),
            (false, since) if since != UNSET => mark.store(UNSET, Ordering::Relaxed),
            (true | false, _) => {}
        }
    }

    fn look(&self, now: u64, limits: Limits) {
        let older = |mark: &AtomicU64, limit: u64| {
            let since = mark.load(Ordering::Relaxed);
            since != UNSET && now.saturating_sub(since) > limit
        };
        let stands_still = older(&self.head_since, limits.head)
            || older(&self.idle_since, limits.idle)
            || older(&self.write_blocked, limits.idle)
            || older(&self.body_awaited, limits.idle);
        if stands_still {
            self.cut.notify_one();
        }
        if older(&self.answer_due, 0) {
            self.late.notify_one();
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.pulses.lock().pulses.remove(&self.key);
    }
}

/// An answer that is due; it no longer is when this is dropped.
#[derive(Debug)]
pub(crate) struct AnswerDue<'a> {
    pulse: &'a Pulse,
}

impl AnswerDue<'_> {
    /// Waits until it is overdue. Cancel-safe: what has become overdue stays so.
    pub(crate) async fn overdue(&self) {
        loop {
            self.pulse.late.notified().await;
            // A permit may be left from an earlier answer.
            let due = self.pulse.answer_due.load(Ordering::Relaxed);
            if due != UNSET && self.pulse.pulses.now() > due {
                return;
            }
        }
    }
}

impl Drop for AnswerDue<'_> {
    fn drop(&mut self) {
        self.pulse.answer_due.store(UNSET, Ordering::Relaxed);
    }
}

fn is_set(mark: &AtomicU64) -> bool {
    mark.load(Ordering::Relaxed) != UNSET
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulses() -> Arc<Pulses> {
        let mut settings = Settings::default();
        settings.client.head_timeout = Duration::from_secs(10);
        settings.client.idle_timeout = Duration::from_secs(75);
        settings.upstream.answer_timeout = Duration::from_mins(5);
        Pulses::new(&settings)
    }

    fn is_cut(pulse: &Pulse) -> bool {
        let mut cut = std::pin::pin!(pulse.cut());
        let waker = std::task::Waker::noop();
        cut.as_mut()
            .poll(&mut std::task::Context::from_waker(waker))
            .is_ready()
    }

    #[test]
    fn a_head_that_does_not_end_is_cut_at_its_limit_and_not_before() {
        let pulses = pulses();
        let pulse = pulses.enter();
        pulses.advance(10_001);
        assert!(!is_cut(&pulse));
        pulses.advance(10_002);
        assert!(is_cut(&pulse));
    }

    #[test]
    fn a_slow_answer_is_not_the_fault_of_the_client() {
        let pulses = pulses();
        let pulse = pulses.enter();
        pulse.busy();
        pulses.advance(1_000_000);
        assert!(!is_cut(&pulse));
        pulse.idle();
        pulses.advance(1_075_000);
        assert!(!is_cut(&pulse));
        pulse.received();
        pulses.advance(1_085_001);
        assert!(is_cut(&pulse), "the next head counts from its first byte");
    }

    #[test]
    fn bytes_that_nobody_takes_or_sends_cut_the_connection() {
        for mark in [Pulse::set_write_blocked, Pulse::body_moved] {
            let pulses = pulses();
            let pulse = pulses.enter();
            pulse.busy();
            mark(&pulse, true);
            pulses.advance(70_000);
            mark(&pulse, false);
            mark(&pulse, true);
            pulses.advance(140_000);
            assert!(!is_cut(&pulse), "progress starts the time anew");
            pulses.advance(145_001);
            assert!(is_cut(&pulse));
        }
    }

    #[test]
    fn an_answer_is_overdue_only_while_it_is_awaited() {
        let pulses = pulses();
        let pulse = pulses.enter();
        pulse.busy();
        drop(pulse.expect_answer());
        pulses.advance(400_000);
        let due = pulse.expect_answer();
        let mut overdue = std::pin::pin!(due.overdue());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(overdue.as_mut().poll(&mut context).is_pending());
        pulses.advance(700_001);
        assert!(overdue.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn a_long_upload_is_no_slow_answer() {
        let pulses = pulses();
        let pulse = pulses.enter();
        pulse.busy();
        let due = pulse.expect_answer();
        let mut overdue = std::pin::pin!(due.overdue());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for minute in 1..60 {
            pulses.advance(minute * 60_000);
            pulse.body_moved(false);
            assert!(overdue.as_mut().poll(&mut context).is_pending());
        }
        pulses.advance(59 * 60_000 + 300_001);
        assert!(overdue.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn connections_that_ended_are_forgotten() {
        let pulses = pulses();
        drop(pulses.enter());
        assert!(pulses.lock().pulses.is_empty());
    }
}
