//! What the container runtime has, as one more place to look at.

use std::path::PathBuf;

use rustix::io::Errno;

use super::super::place::{self, Instant};
use super::super::policy::Reclaimer;
use super::super::runtime;
use super::{Discovery, Found, Node, Skipped, Why, on_disk};
use crate::blocks::Tally;

/// What the runtime said, which is asked once.
pub(super) enum Asked {
    /// It was not asked.
    NotYet,
    /// There is none, or it said nothing that may be acted on.
    HasNone,
    /// This.
    Has(Box<runtime::Asked>),
}

impl Node<'_> {
    /// What the container runtime has of one kind. Where it cannot be asked that is said once.
    pub(super) fn of_runtime(
        &self,
        kind: Reclaimer,
        at: Instant,
        asked: &mut Asked,
        discovery: &mut Discovery,
    ) {
        let mut skip = |reclaimer, directory: PathBuf, why| {
            discovery.skipped.push(Skipped {
                reclaimer,
                directory,
                why,
            });
        };
        if let Asked::NotYet = asked {
            let moments = (at, Instant::now(self.clock));
            *asked = match runtime::look(self.policy, self.root, self.reach, moments) {
                Ok(Some(looked)) => Asked::Has(Box::new(looked)),
                Ok(None) => Asked::HasNone,
                Err((socket, why)) => {
                    // Of its kinds images are those that people mean.
                    let images = Some(Reclaimer::Images).filter(|one| self.policy.asks_for(*one));
                    skip(images.unwrap_or(kind), socket, why);
                    Asked::HasNone
                }
            };
        }
        let asked = match asked {
            Asked::NotYet | Asked::HasNone => return,
            Asked::Has(asked) => asked,
        };
        let directory = asked.directory.clone();
        match self.sorted(kind, asked) {
            Ok(Some(found)) => discovery.found.push(found),
            Ok(None) => {}
            Err(why) => skip(kind, directory, why),
        }
    }

    fn sorted(&self, kind: Reclaimer, asked: &mut runtime::Asked) -> Result<Option<Found>, Why> {
        let directory = asked.directory.clone();
        if let Some(fstype) = self.reach.refuses(&directory) {
            return Err(Why::Type(fstype.to_owned()));
        }
        let Some(base) = place::open_base(self.root, &directory)? else {
            return Err(Why::Unreadable(Errno::NOENT));
        };
        let disk = on_disk(&base, &self.reach.mounts)?;
        let sorted = asked.sort(kind, self.policy, disk.device)?;
        if sorted.items.is_empty() && sorted.kept.is_empty() {
            return Ok(None);
        }
        Ok(Some(Found {
            reclaimer: kind,
            directory,
            base,
            disk,
            items: sorted.items,
            beyond: Tally::default(),
            kept: sorted.kept,
        }))
    }
}
