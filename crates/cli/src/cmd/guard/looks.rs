//! Asks the disks, each on a thread of its own, and waits for none that does not answer.
//!
//! Where the disks are is looked up on a thread too, because paths of a node lead over them. Who does not answer within
//! [`PATIENCE`] is left to it and not asked a second time meanwhile: so there are never more threads than disks.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use nagi_guard::{DISKS_MAX, Eyes, Looked, Question, Questions, Reading, Silent, SurveyError};
use nagi_ports::Clock;
use nagi_runtime::{Blocking, BlockingError};
use tokio::task::{JoinError, JoinSet};

/// A disk that is well answers within a millisecond; one that is busy within this, or with the next look.
const PATIENCE: Duration = Duration::from_secs(1);

type Found = (Eyes, Result<Questions, SurveyError>);
type Finding = Pin<Box<dyn Future<Output = Result<Found, BlockingError>> + Send>>;
type Answer = (PathBuf, Result<Option<Reading>, BlockingError>);

/// The disks, and who is being asked.
pub(super) struct Looks {
    /// None while the disks are looked up.
    eyes: Option<Eyes>,
    finding: Option<Finding>,
    finds: Blocking,
    /// As they were found last.
    known: Questions,
    asks: Blocking,
    asking: JoinSet<Answer>,
    /// Who is being asked, and since when on the clock that never goes back.
    asked: BTreeMap<PathBuf, Duration>,
}

// === impl Looks ===

impl Looks {
    pub(super) fn new(eyes: Eyes) -> Self {
        Self::with(Some(eyes))
    }

    fn with(eyes: Option<Eyes>) -> Self {
        Self {
            eyes,
            finding: None,
            finds: Blocking::new("disk find", 1),
            known: Questions::default(),
            asks: Blocking::new("disk look", DISKS_MAX),
            asking: JoinSet::new(),
            asked: BTreeMap::new(),
        }
    }

    /// What answers now.
    ///
    /// # Errors
    /// The first: a thread ended by itself. The second: the mounts cannot be read, or there is no disk any more.
    pub(super) async fn look(
        &mut self,
        clock: &dyn Clock,
    ) -> Result<Result<Looked, SurveyError>, BlockingError> {
        if let Err(error) = self.find().await? {
            return Ok(Err(error));
        }
        let questions = self.known.disks.clone();
        if questions.is_empty() {
            // The first time that they are looked up takes too long: nothing is watched yet.
            return Ok(Err(SurveyError::NoDisk));
        }
        let readings = self.ask(questions, Question::ask, clock).await?;
        let now = clock.monotonic();
        let silent = self.asked.iter().map(|(point, since)| Silent {
            point: point.clone(),
            lasts: now.saturating_sub(*since),
        });
        Ok(Ok(Looked {
            readings,
            silent: silent.collect(),
            writing: None,
            left_out: self.known.left_out,
        }))
    }

    /// Where that takes long, the disks of before are asked.
    async fn find(&mut self) -> Result<Result<(), SurveyError>, BlockingError> {
        if let Some(mut eyes) = self.eyes.take() {
            let finds = self.finds.clone();
            self.finding = Some(Box::pin(async move {
                let find = move || {
                    let found = eyes.disks();
                    (eyes, found)
                };
                finds.run(find).await
            }));
        }
        let Some(finding) = &mut self.finding else {
            return Ok(Ok(()));
        };
        let Ok(found) = tokio::time::timeout(PATIENCE, finding).await else {
            return Ok(Ok(()));
        };
        self.finding = None;
        let (eyes, found) = found?;
        self.eyes = Some(eyes);
        Ok(found.map(|found| self.known = found))
    }

    async fn ask(
        &mut self,
        questions: Vec<Question>,
        how: impl Fn(&Question) -> Option<Reading> + Copy + Send + 'static,
        clock: &dyn Clock,
    ) -> Result<Vec<Reading>, BlockingError> {
        let now = clock.monotonic();
        let points: Vec<PathBuf> = questions.iter().map(|one| one.point.clone()).collect();
        for question in questions {
            let point = question.point.clone();
            // Of those that are stuck there may be as many as disks, and of others none waits for a thread.
            if self.asked.contains_key(&point) || self.asked.len() >= DISKS_MAX {
                continue;
            }
            self.asked.insert(point.clone(), now);
            let asks = self.asks.clone();
            self.asking
                .spawn(async move { (point, asks.run(move || how(&question)).await) });
        }
        let mut readings = Vec::new();
        let until = tokio::time::Instant::now() + PATIENCE;
        while self.awaits_one_of(now) {
            let Ok(next) = tokio::time::timeout_at(until, self.asking.join_next()).await else {
                break;
            };
            self.take(next, &mut readings)?;
        }
        // Whoever was given up and has answered since.
        while let Some(next) = self.asking.try_join_next() {
            self.take(Some(next), &mut readings)?;
        }
        readings.retain(|reading: &Reading| points.contains(&reading.point));
        Ok(readings)
    }

    /// Somebody was asked just now and has not answered.
    fn awaits_one_of(&self, now: Duration) -> bool {
        self.asked.values().any(|since| *since == now)
    }

    fn take(
        &mut self,
        next: Option<Result<Answer, JoinError>>,
        readings: &mut Vec<Reading>,
    ) -> Result<(), BlockingError> {
        let Some(Ok((point, answer))) = next else {
            // A task of this set neither panics nor is it aborted: a panic of its thread is its answer.
            return Ok(());
        };
        self.asked.remove(&point);
        readings.extend(answer?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nagi_guard::{Device, Space};
    use nagi_testkit::TestClock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};

    /// While this is set, the disk does not answer.
    static STUCK: Mutex<bool> = Mutex::new(true);
    static LOOSE: Condvar = Condvar::new();
    static ASKED: AtomicUsize = AtomicUsize::new(0);

    #[expect(clippy::unnecessary_wraps, reason = "as a question is asked")]
    fn answer(question: &Question) -> Option<Reading> {
        if question.point == std::path::Path::new("/stuck") {
            ASKED.fetch_add(1, Ordering::SeqCst);
            let held = STUCK.lock().unwrap();
            // Not for ever: where this test fails, its threads end too.
            let most = Duration::from_secs(30);
            drop(
                LOOSE
                    .wait_timeout_while(held, most, |stuck| *stuck)
                    .unwrap(),
            );
        }
        Some(Reading {
            point: question.point.clone(),
            name: None,
            device: question.device,
            fstype: question.fstype.clone(),
            space: Space {
                bytes: 1,
                bytes_free: 1,
                bytes_available: 1,
                inodes: 1,
                inodes_free: 1,
            },
        })
    }

    // One disk that does not answer: the others are read at each look, it is asked once, and its silence lasts.
    #[tokio::test]
    async fn a_disk_that_does_not_answer_holds_up_no_other() {
        let mut looks = Looks::with(None);
        let named = |point: &str| Question {
            path: point.into(),
            point: point.into(),
            name: None,
            device: Device { major: 0, minor: 0 },
            fstype: "ext4".to_owned(),
        };
        let questions = vec![named("/stuck"), named("/well")];
        let clock = TestClock::start();
        for _ in 0..3 {
            let readings = looks.ask(questions.clone(), answer, &*clock).await.unwrap();
            let points: Vec<_> = readings.into_iter().map(|reading| reading.point).collect();
            assert_eq!(points, [PathBuf::from("/well")]);
            assert!(looks.asked.contains_key(std::path::Path::new("/stuck")));
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), 1);
        *STUCK.lock().unwrap() = false;
        LOOSE.notify_all();
        let answers = async {
            loop {
                let readings = looks.ask(questions.clone(), answer, &*clock).await.unwrap();
                if readings.len() == 2 {
                    break;
                }
            }
        };
        answers.await;
        assert!(looks.asked.is_empty());
    }
}
