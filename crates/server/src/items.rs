//! Workloads as items of lists, in bytes: each is made once for each revision, not once for each request.
//!
//! What is kept ends before the time of observation, which every answer adds anew. An item that tells something else that
//! time alone changes, or a wake under way, is made for each answer. A revision names facts for ever, so nothing kept is ever
//! wrong; what nobody asks for is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use nagi_api::{ListAnswer, Time, WorkloadItem};
use nagi_core::workload::{Pending, Workload};
use nagi_ports::Revision;

use crate::answer;

/// Bytes of one generation, two of which are kept: 8,000 items of 500 bytes, so that all pages of most installations stay,
/// and a large cluster costs no more than 8 MiB.
const GENERATION_BYTES_MAX: usize = 4 << 20;
/// What an entry takes beside its bytes, about.
const ENTRY_BYTES: usize = 64;
/// Where the items of an answer stand. Nothing before it holds a quotation mark that is not escaped.
const ITEMS: &[u8] = b"\"items\":[";

/// An item without its end, as far as its revision determines it.
pub(crate) type Kept = Arc<[u8]>;

/// Items that were made before.
#[derive(Debug, Default)]
pub(crate) struct Items {
    generations: Mutex<Generations>,
}

/// Items that were used lately, and those that were before.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Revision, Kept>,
    old: HashMap<Revision, Kept>,
    young_bytes: usize,
}

/// An item of a page.
#[derive(Debug)]
pub(crate) enum Item {
    /// Made before.
    Kept(Kept),
    /// To be made.
    New(Revision, Arc<Workload>),
}

// === impl Items ===

impl Items {
    /// What was made of this revision.
    pub(crate) fn get(&self, revision: Revision) -> Option<Kept> {
        self.lock().get(revision)
    }

    /// A page as its answer: `envelope` with these items, all of them observed when it says. `make` makes an item.
    pub(crate) fn answer(
        &self,
        envelope: &ListAnswer,
        items: &[Item],
        make: impl Fn(&Workload) -> WorkloadItem,
    ) -> Result<Response, serde_json::Error> {
        let outside = serde_json::to_vec(envelope)?;
        let inside = outside.windows(ITEMS.len()).position(|part| part == ITEMS);
        let (before, after) = outside.split_at(inside.map_or(0, |at| at + ITEMS.len()));
        let end = end(envelope.observed_at.0)?;
        let kept: usize = items.iter().map(|item| item.len() + end.len() + 1).sum();
        let mut bytes = Vec::with_capacity(outside.len() + kept);
        bytes.extend_from_slice(before);
        for (number, item) in items.iter().enumerate() {
            if number > 0 {
                bytes.push(b',');
            }
            match item {
                Item::Kept(kept) => {
                    bytes.extend_from_slice(kept);
                    bytes.extend_from_slice(&end);
                }
                Item::New(revision, workload) => {
                    let item = WorkloadItem {
                        observed_at: envelope.observed_at,
                        ..make(workload)
                    };
                    let begin = bytes.len();
                    serde_json::to_writer(&mut bytes, &item)?;
                    let new = bytes.get(begin..).and_then(|new| new.strip_suffix(&*end));
                    if let Some(new) = new.filter(|_| stays_true(&item, workload)) {
                        self.lock().put(*revision, new.into());
                    }
                }
            }
        }
        bytes.extend_from_slice(after);
        Ok(answer::json_bytes(StatusCode::OK, bytes))
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        // No section leaves it half changed.
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of an item: when it was observed, and the bracket.
fn end(observed_at: Timestamp) -> Result<Vec<u8>, serde_json::Error> {
    let mut end = serde_json::to_vec(&Time::in_millis(observed_at))?;
    end.push(b'}');
    Ok(end)
}

/// Does the item, but for its end, hold for as long as the facts do?
fn stays_true(item: &WorkloadItem, workload: &Workload) -> bool {
    let counts_down = matches!(
        workload.pending,
        Some(Pending::NodeBooting {
            ready_in: Some(_),
            ..
        })
    );
    item.wake.is_none() && !counts_down
}

// === impl Generations ===

impl Generations {
    fn get(&mut self, revision: Revision) -> Option<Kept> {
        if let Some(kept) = self.young.get(&revision) {
            return Some(Arc::clone(kept));
        }
        let kept = self.old.remove(&revision)?;
        self.put(revision, Arc::clone(&kept));
        Some(kept)
    }

    fn put(&mut self, revision: Revision, kept: Kept) {
        let bytes = kept.len() + ENTRY_BYTES;
        if self.young_bytes + bytes > GENERATION_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(revision, kept).is_none() {
            self.young_bytes += bytes;
        }
    }
}

// === impl Item ===

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Kept(kept) => kept.len(),
            // The vector grows by itself.
            Self::New(..) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use jiff::SignedDuration;
    use nagi_api::problem::Succeeded;

    use super::*;

    fn kept(bytes: usize) -> Kept {
        vec![b'x'; bytes].into()
    }

    // G17: byte for byte what the types of the wire say, with the time of this answer and not of the one that made the item.
    #[tokio::test]
    async fn kept_items_are_observed_when_the_answer_says() {
        let items = Items::default();
        let workload = Arc::new(nagi_testkit::workload("project-a/a", 2, 1, 1));
        let revision = Revision(7);
        for (seconds, kept) in [(0, false), (1, true), (86_400, true)] {
            let observed_at = Time(nagi_testkit::epoch() + SignedDuration::from_secs(seconds));
            let item = match items.get(revision) {
                Some(kept) => Item::Kept(kept),
                None => Item::New(revision, Arc::clone(&workload)),
            };
            assert_eq!(matches!(item, Item::Kept(_)), kept);
            let mut page = ListAnswer {
                status: Succeeded::Success,
                message: "\"items\":[ and more".to_owned(),
                items: Vec::new(),
                continue_token: Some("next".to_owned()),
                observed_at,
                unread: Vec::new(),
            };
            let made = items.answer(&page, &[item], |w| WorkloadItem::from(w));
            let bytes = made.unwrap().into_body().collect().await.unwrap();
            page.items.push(WorkloadItem {
                observed_at,
                ..WorkloadItem::from(&*workload)
            });
            assert_eq!(bytes.to_bytes(), serde_json::to_vec(&page).unwrap());
        }
    }

    // G13: whatever is asked for, memory stays bounded, and what is in use stays.
    #[test]
    fn what_is_kept_is_bounded_and_what_is_used_stays() {
        let mut generations = Generations::default();
        let (used, size) = (Revision(0), 1 << 10);
        generations.put(used, kept(size));
        for revision in 1..100_000 {
            generations.put(Revision(revision), kept(size));
            let bytes: usize = [&generations.young, &generations.old]
                .iter()
                .flat_map(|generation| generation.values())
                .map(|kept| kept.len() + ENTRY_BYTES)
                .sum::<usize>();
            assert!(revision % 1_000 != 0 || bytes <= 2 * GENERATION_BYTES_MAX);
            if revision % 1_000 == 0 {
                assert!(generations.get(used).is_some(), "{revision}");
            }
        }
        assert!(
            generations.get(Revision(1)).is_none(),
            "nobody asked for it"
        );
        assert!(generations.get(Revision(99_999)).is_some());
    }
}
