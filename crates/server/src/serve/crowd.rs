//! Who gives way when connections run out.
//!
//! A client that opens many connections and says little must not keep others out, and must not even keep itself out: a
//! health check may come from the same address. So a new connection is never refused while an old one only waits for its
//! client; the one that has waited longest is closed. Connections whose request is being worked on are never closed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::network::client_of;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its client has nothing to ask, since then.
    Idle,
    /// Its client is sending the head of a request.
    Head,
    /// Its client is sending the body of a request.
    Body,
    /// A request is being worked on or answered.
    Busy,
    /// An answer goes out that has no end of its own.
    Streaming,
}

/// What a connection is doing and since when. Shared by those who move it forward and those who judge it.
#[derive(Debug)]
pub(crate) struct Pulse {
    state: Mutex<(Phase, Instant)>,
    /// The last request had no body, so that its head was the last of it.
    ended_with_head: AtomicBool,
    /// The wire, while it waits without a limit of time: the next phase may have one.
    reader: AtomicWaker,
}

impl Pulse {
    /// A connection that was just opened: its client is expected to speak.
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new((Phase::Head, Instant::now())),
            ended_with_head: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        }
    }

    /// The phase and its beginning.
    pub(crate) fn get(&self) -> (Phase, Instant) {
        *self.lock()
    }

    /// A request was read; says whether more of it than its head is to come.
    pub(crate) fn take_request(&self, ended_with_head: bool) {
        self.ended_with_head
            .store(ended_with_head, Ordering::Relaxed);
        self.begin(Phase::Busy);
    }

    /// The last request had no body.
    pub(crate) fn ended_with_head(&self) -> bool {
        self.ended_with_head.load(Ordering::Relaxed)
    }

    /// Begins a phase now, and says when that was.
    pub(crate) fn begin(&self, phase: Phase) -> Instant {
        let now = Instant::now();
        *self.lock() = (phase, now);
        self.reader.wake();
        now
    }

    /// Wakes this task when the next phase begins.
    pub(crate) fn wake_at_next(&self, cx: &Context<'_>) {
        self.reader.register(cx.waker());
    }

    /// Begins a phase now if another one is under way.
    pub(crate) fn turn(&self, from: Phase, to: Phase) {
        let mut state = self.lock();
        if state.0 == from {
            *state = (to, Instant::now());
        }
    }

    /// Since when it waits for its client, if it does.
    fn waits_since(&self) -> Option<Instant> {
        let (phase, since) = self.get();
        match phase {
            Phase::Idle | Phase::Head | Phase::Body => Some(since),
            Phase::Busy | Phase::Streaming => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Phase, Instant)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All open connections of one listener.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connections_max: usize,
    per_client_max: usize,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    next: u64,
    by_number: HashMap<u64, Member>,
    by_client: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Member {
    client: IpAddr,
    pulse: Arc<Pulse>,
    leave: Arc<Notify>,
}

/// The place of one connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    number: u64,
    crowd: Crowd,
    /// What the connection is doing.
    pub(crate) pulse: Arc<Pulse>,
    /// Notified when it must give way.
    pub(crate) leave: Arc<Notify>,
}

impl Crowd {
    pub(crate) fn new(connections_max: usize, per_client_max: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                connections_max: connections_max.max(1),
                per_client_max: per_client_max.max(1),
                members: Mutex::default(),
            }),
        }
    }

    /// Takes a connection in; another one may have to give way. `None` when all that could are busy.
    pub(crate) fn admit(&self, peer: IpAddr) -> Option<Admitted> {
        let client = client_of(peer);
        let mut members = self.lock();
        if members.of_client(client) >= self.inner.per_client_max {
            members
                .dismiss_longest_waiting(Some(client))
                .then_some(())?;
        } else if members.by_number.len() >= self.inner.connections_max {
            members.dismiss_longest_waiting(None).then_some(())?;
        }
        let number = members.next;
        members.next += 1;
        let pulse = Arc::new(Pulse::new());
        let leave = Arc::new(Notify::new());
        let member = Member {
            client,
            pulse: Arc::clone(&pulse),
            leave: Arc::clone(&leave),
        };
        members.by_number.insert(number, member);
        *members.by_client.entry(client).or_default() += 1;
        Some(Admitted {
            number,
            crowd: self.clone(),
            pulse,
            leave,
        })
    }

    /// Makes the connection that has waited longest give way, if there is one.
    pub(crate) fn make_room(&self) {
        self.lock().dismiss_longest_waiting(None);
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        // No section leaves the maps half changed.
        self.inner
            .members
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    fn of_client(&self, client: IpAddr) -> usize {
        self.by_client.get(&client).copied().unwrap_or(0)
    }

    /// True when one had to go. Looks at every connection: a few hundred, and only when the limit is reached.
    fn dismiss_longest_waiting(&mut self, client: Option<IpAddr>) -> bool {
        let longest = self
            .by_number
            .iter()
            .filter(|(_, member)| client.is_none_or(|client| client == member.client))
            .filter_map(|(number, member)| Some((*number, member.pulse.waits_since()?)))
            .min_by_key(|(number, since)| (*since, *number));
        let Some(member) = longest.and_then(|(number, _)| self.remove(number)) else {
            return false;
        };
        member.leave.notify_one();
        true
    }

    fn remove(&mut self, number: u64) -> Option<Member> {
        let member = self.by_number.remove(&number)?;
        if let Some(count) = self.by_client.get_mut(&member.client) {
            *count -= 1;
            if *count == 0 {
                self.by_client.remove(&member.client);
            }
        }
        Some(member)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        // Gone already when it had to give way.
        drop(self.crowd.lock().remove(self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    async fn left(admitted: &Admitted) -> bool {
        tokio::time::timeout(Duration::ZERO, admitted.leave.notified())
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_waiting_of_the_same_client_gives_way_first() {
        let crowd = Crowd::new(10, 2);
        let other = crowd.admit(ip(2)).unwrap();
        let first = crowd.admit(ip(1)).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = crowd.admit(ip(1)).unwrap();
        first.pulse.begin(Phase::Busy);
        let third = crowd.admit(ip(1)).unwrap();
        assert!(
            left(&second).await,
            "the busy one stays, the waiting one goes"
        );
        assert!(!left(&first).await && !left(&third).await && !left(&other).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_client_is_not_closed_for_a_slow_one() {
        let crowd = Crowd::new(3, 3);
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(crowd.admit(ip(1)).unwrap());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // The oldest connection has just been used, so the second is the one that waited longest.
        waiting[0].pulse.begin(Phase::Idle);
        let _newcomer = crowd.admit(ip(2)).unwrap();
        for (n, one) in waiting.iter().enumerate() {
            assert_eq!(left(one).await, n == 1, "{n}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_busy_is_ever_closed_and_the_newcomer_is_refused() {
        let crowd = Crowd::new(2, 2);
        let busy = [crowd.admit(ip(1)).unwrap(), crowd.admit(ip(2)).unwrap()];
        for one in &busy {
            one.pulse.begin(Phase::Busy);
        }
        assert!(crowd.admit(ip(3)).is_none());
        drop(busy);
        assert!(crowd.admit(ip(3)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_total_is_kept_and_places_come_back() {
        let crowd = Crowd::new(3, 2);
        let mut held = Vec::new();
        for n in 0..200 {
            held.push(crowd.admit(ip(n)).unwrap());
            assert!(crowd.lock().by_number.len() <= 3);
        }
        drop(held);
        assert!(crowd.lock().by_number.is_empty());
        assert!(crowd.lock().by_client.is_empty());
    }
}
