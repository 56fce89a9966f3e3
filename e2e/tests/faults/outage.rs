//! One thing is away for a while, and comes back: what is said meanwhile, and what holds afterwards.
//!
//! The same is asked of every fault. A workload sleeps, with a wake scheduled in the middle of the outage; another one is
//! awake, and its sleep is ordered in the middle. Meanwhile every answer must come in time and say what is true. Afterwards,
//! without a restart, the schedule has fired exactly once and to the remembered count, and the order that failed works when
//! it is repeated.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::http::Answer;
use crate::lab::{Kept, Lab, SOON, Server, World, in_, path, status};

/// An answer may take this long, whatever is away: the API's own limit for all calls of one request, and two busy cores.
const ANSWER_MAX: Duration = Duration::from_secs(12);
/// How long the readiness probe of the manifests waits.
const PROBE: Duration = Duration::from_secs(5);
/// A cache may be believed for 5 s after the last sign of life (DESIGN §5), and a live read takes 1.5 s.
const BELIEVED_MAX: Duration = Duration::from_secs(8);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Time that the controller must have to fire what is overdue, once everything is back: a Lease that others held for 15 s, and
/// a repeated look.
const FIRED_MAX: Duration = Duration::from_secs(45);

/// What the replicas can say meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    /// Nothing is known any more: after [`BELIEVED_MAX`] every read is refused with 503.
    Blind,
    /// The facts are still true, but no change can be made.
    ReadsOnly,
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Answers by status, of both replicas.
    pub(crate) answers: BTreeMap<u16, u32>,
    /// The slowest.
    pub(crate) slowest: Duration,
    /// The status of the order in the middle.
    pub(crate) order: u16,
    /// From the end of the fault to two replicas that are ready.
    pub(crate) ready: Duration,
    /// From the end of the fault, or from when it was due, to the scheduled wake.
    pub(crate) fired: Duration,
}

/// Plays an outage. `name` begins the names of its workloads.
pub(crate) fn play(
    world: &mut World,
    name: &str,
    lasts: Duration,
    meanwhile: Meanwhile,
    begin: impl FnOnce(&mut Lab) -> anyhow::Result<()>,
    heal: impl FnOnce(&mut Lab) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let lab = world.lab()?;
    lab.pair()?;
    let (sleeper, other) = (format!("{name}-sleeper"), format!("{name}-other"));
    lab.deployment(&sleeper, 2)?;
    lab.deployment(&other, 3)?;
    let due = Instant::now() + lasts / 2;
    lab.first()?.sleep(&sleeper, Some(&in_(lasts / 2)))?;
    lab.wait_for_count(&sleeper, 0, SOON)?;
    let since = Instant::now();
    let watched = begin(lab).and_then(|()| watch(lab, &sleeper, &other, lasts, meanwhile, since));
    // Also after a failure: the next case needs it.
    heal(lab)?;
    let healed = Instant::now();
    let (answers, slowest, order) = watched?;
    let ready = lab.ready()?;
    lab.wait_for_count(&sleeper, 2, FIRED_MAX)?;
    let fired = Instant::now().duration_since(due.max(healed));
    judge(lab, &sleeper, &other, &order)?;
    Ok(Outcome {
        answers,
        slowest,
        order: order.status,
        ready,
        fired,
    })
}

type Watched = (BTreeMap<u16, u32>, Duration, Answer);

/// Asks both replicas all the time, and orders a sleep in the middle.
fn watch(
    lab: &Lab,
    sleeper: &str,
    other: &str,
    lasts: Duration,
    meanwhile: Meanwhile,
    since: Instant,
) -> anyhow::Result<Watched> {
    let mut answers = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    let mut order = None;
    while since.elapsed() < lasts {
        if order.is_none() && since.elapsed() >= lasts / 2 {
            let body = json!({"reason": "a test of faults"});
            let answer = lab.second()?.post(&path(other, "scale-to-zero"), &body)?;
            order = Some(told(answer, other)?);
        }
        for server in lab.servers() {
            for asked in ["/ready", "/api/v1/workloads", &status(sleeper)] {
                let after = since.elapsed();
                let answer = server.get(asked)?;
                *answers.entry(answer.status).or_default() += 1;
                slowest = slowest.max(answer.took);
                look_at(server, asked, &answer, after, meanwhile)?;
            }
        }
        std::thread::sleep(LOOK);
    }
    Ok((answers, slowest, order.context("an order in the middle")?))
}

/// One answer meanwhile.
fn look_at(
    server: &Server,
    asked: &str,
    answer: &Answer,
    since: Duration,
    meanwhile: Meanwhile,
) -> anyhow::Result<()> {
    let said = format!(
        "replica {}, {asked}, {since:?} after it began: {answer:?}",
        server.name
    );
    let limit = if asked == "/ready" { PROBE } else { ANSWER_MAX };
    ensure!(answer.took < limit, "late: {said}");
    let problem = answer.body["status"] == "error" || answer.body["status"] == "not ready";
    ensure!(
        answer.status == 200 || (problem && [500, 503].contains(&answer.status)),
        "neither an answer nor a refusal with a reason: {said}"
    );
    if let Some(count) = answer.body["deployment"]["desired_replicas"].as_u64() {
        ensure!(count == 0 || count == 2, "that was never so: {said}");
    }
    if meanwhile == Meanwhile::Blind && since > BELIEVED_MAX {
        ensure!(answer.status != 200, "nobody can know that: {said}");
    }
    Ok(())
}

/// The order in the middle.
fn told(answer: Answer, name: &str) -> anyhow::Result<Answer> {
    ensure!(answer.took < ANSWER_MAX, "late: {name}: {answer:?}");
    ensure!(
        [500, 503].contains(&answer.status) && answer.body["error"].is_string(),
        "an order that cannot be carried out is refused with a reason: {name}: {answer:?}"
    );
    Ok(answer)
}

/// What must hold after everything is back.
fn judge(lab: &Lab, sleeper: &str, other: &str, order: &Answer) -> anyhow::Result<()> {
    lab.settled(sleeper, 2)?;
    lab.wrote_once(sleeper, 2)?;
    let item = lab.second()?.item(sleeper)?;
    ensure!(
        item["last_change"]["action"] == "scheduled-wake" && item["scheduled_scale_up"].is_null(),
        "{item}"
    );
    let kept = lab.kept(other)?;
    if order.status == 200 {
        ensure!(kept.replicas == 0, "it was answered as done: {kept:?}");
    }
    ensure!(
        [0, 3].contains(&kept.replicas),
        "nobody wanted that: {kept:?}"
    );
    let again = lab.first()?.sleep(other, None)?;
    ensure!(again["deployment"]["remembered_replicas"] == 3, "{again}");
    sleeps(&lab.kept(other)?, 3)?;
    lab.settled(other, 0)?;
    lab.wrote_once(other, 0)
}

/// A sleeper and the count that it wakes to.
pub(crate) fn sleeps(kept: &Kept, remembered: u64) -> anyhow::Result<()> {
    let annotation = kept.annotations["nagi.dev/replicas"].as_str();
    ensure!(
        kept.replicas == 0 && annotation == Some(&*remembered.to_string()),
        "{remembered} must be remembered: {kept:?}"
    );
    Ok(())
}

// === impl Outcome ===

impl Outcome {
    /// Tells it in the page.
    pub(crate) fn tell(&self, world: &mut World) {
        let answers: Vec<String> = self
            .answers
            .iter()
            .map(|(status, count)| format!("{count} × {status}"))
            .collect();
        let answers = answers.join(", ");
        let (slowest, ready, fired) = (
            seconds(self.slowest),
            seconds(self.ready),
            seconds(self.fired),
        );
        let order = self.order;
        world.saw(
            format!(
                "answers {answers}, slowest {slowest} s; order {order}; ready {ready} s and schedule fired {fired} s after \
                 the end, one write"
            ),
            format!(
                "応答 {answers}(最長 {slowest} 秒)、命令は {order}。復旧から {ready} 秒で ready、{fired} 秒でスケジュール実行、書き込みは一回"
            ),
        );
    }
}

/// With one digit after the point.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}
