//! `GET /api/v1/events`: what happens, as it happens (R19).
//!
//! One task, [`fn@feed`], watches the workloads and the wakes, turns differences into events, and puts them into a ring of
//! the last [`RING_MAX`]. Every client reads from a bounded channel beside the ring; one that falls behind is told so (event
//! `reset`) and shown the current state. Ids name this life of the process too, so that a client that comes back after
//! a restart is not shown the wrong ones.

mod feed;
mod stream;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use nagi_api::Event;
use nagi_core::id::WorkloadId;
use tokio::sync::broadcast;

use crate::call::Caller;
use crate::keys::{hex, random};

pub(crate) use feed::feed;
pub(crate) use stream::{__path_events, events};

/// Events that are kept for clients that come back, and that a client may lag behind (R19). At under 1 KiB each this is 1 MiB.
const RING_MAX: usize = 1024;

/// The last events and those who listen.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Tells this life of the process from others.
    life: String,
    ring: Mutex<Ring>,
    sender: broadcast::Sender<Arc<Entry>>,
    listening: Mutex<Listening>,
    limits: Limits,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    total: usize,
    per_caller: usize,
}

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    entries: VecDeque<Arc<Entry>>,
}

#[derive(Debug, Default)]
struct Listening {
    total: usize,
    by_caller: HashMap<Caller, usize>,
}

/// One event, encoded once for all who listen.
#[derive(Debug)]
struct Entry {
    number: u64,
    workload: WorkloadId,
    frame: Bytes,
}

/// Where a client goes on.
#[derive(Debug)]
enum Resumed {
    /// It is new, and sees what comes behind the event with this id.
    Behind(String),
    /// With these, and then with what comes.
    After(Vec<Arc<Entry>>),
    /// What it missed is gone.
    Gone,
}

/// The place of one stream, given back when dropped.
#[derive(Debug)]
struct Listener {
    events: Events,
    caller: Caller,
}

// === impl Events ===

impl Events {
    pub(crate) fn new(streams_max: usize, streams_per_caller_max: usize) -> Self {
        let (sender, _) = broadcast::channel(RING_MAX);
        let life = random::<4>().map_or_else(|_| "0".to_owned(), |bytes| hex(&bytes));
        let inner = Inner {
            life,
            ring: Mutex::default(),
            sender,
            listening: Mutex::default(),
            limits: Limits {
                total: streams_max,
                per_caller: streams_per_caller_max,
            },
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Gives an event its id and shows it to all who listen. Its own id is ignored.
    fn publish(&self, workload: WorkloadId, mut event: Event) {
        let mut ring = self.ring();
        ring.last += 1;
        let number = ring.last;
        event.id = self.id(number);
        let entry = Arc::new(Entry {
            number,
            workload,
            frame: frame(event.kind.as_str(), Some(&event.id), &event),
        });
        ring.entries.push_back(Arc::clone(&entry));
        if ring.entries.len() > RING_MAX {
            ring.entries.pop_front();
        }
        // Sent under the lock, so that the order is that of the ring. Nobody listening is fine.
        drop(self.inner.sender.send(entry));
    }

    /// Listens from now on, or from behind the event that a client saw last.
    fn listen(&self, last_seen: Option<&str>) -> (broadcast::Receiver<Arc<Entry>>, Resumed) {
        let ring = self.ring();
        // Under the lock nothing is published: no event is lost between the ring and the channel, none comes twice.
        let receiver = self.inner.sender.subscribe();
        let Some(last_seen) = last_seen else {
            return (receiver, Resumed::Behind(self.id(ring.last)));
        };
        let oldest = ring
            .entries
            .front()
            .map_or(ring.last + 1, |entry| entry.number);
        let known = self
            .number(last_seen)
            .filter(|number| number + 1 >= oldest && *number <= ring.last);
        let resumed = match known {
            None => Resumed::Gone,
            Some(number) => {
                let missed = ring.entries.iter().filter(|entry| entry.number > number);
                Resumed::After(missed.cloned().collect())
            }
        };
        (receiver, resumed)
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.inner.life)
    }

    fn number(&self, id: &str) -> Option<u64> {
        let (life, number) = id.split_once('-')?;
        number.parse().ok().filter(|_| life == self.inner.life)
    }

    /// A place for one more stream, if there is one.
    fn enter(&self, caller: &Caller) -> Option<Listener> {
        let mut listening = self.listening();
        let limits = self.inner.limits;
        let of_caller = listening.by_caller.get(caller).copied().unwrap_or(0);
        if listening.total >= limits.total || of_caller >= limits.per_caller {
            return None;
        }
        listening.total += 1;
        listening.by_caller.insert(caller.clone(), of_caller + 1);
        Some(Listener {
            events: self.clone(),
            caller: caller.clone(),
        })
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // No section leaves the ring half changed.
        self.inner
            .ring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.inner
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listening = self.events.listening();
        listening.total = listening.total.saturating_sub(1);
        if let Some(count) = listening.by_caller.get_mut(&self.caller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                listening.by_caller.remove(&self.caller);
            }
        }
    }
}

/// One event as bytes of the stream. JSON has no line breaks, so one data line is enough.
fn frame(name: &str, id: Option<&str>, data: &impl serde::Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_default();
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    Bytes::from(format!("{id}event: {name}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests;
