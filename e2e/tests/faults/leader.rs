//! Who leads: replicas that die, that stand still inside a decision, and whose clock jumps, with a schedule pending.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nagi_e2e::Signal;
use nagi_e2e::wait::{self, Look};
use serde_json::json;

use crate::away::relayed;
use crate::lab::{Lab, NAMESPACE, SOON, World, in_, object, status};
use crate::outage::{seconds, sleeps};
use crate::relay::{Deed, Plan};

/// A holder that is dead is followed after 15 s, and then what is overdue is done at once.
const FOLLOWED_MAX: Duration = Duration::from_secs(40);
/// Between the answer and the time for which it promised the wake.
const DUE: Duration = Duration::from_secs(5);

pub(crate) fn both_killed(world: &mut World) -> anyhow::Result<()> {
    both_killed_times(world, 1)
}

pub(crate) fn both_killed_often(world: &mut World) -> anyhow::Result<()> {
    both_killed_times(world, 20)
}

/// Both are killed after the answer and before it is due, and started again: one write, whatever dies.
fn both_killed_times(world: &mut World, runs: u32) -> anyhow::Result<()> {
    let mut slowest = Duration::ZERO;
    let lab = world.lab()?;
    for run in 1..=runs {
        lab.pair()?;
        let name = format!("both-killed-{runs}-{run}");
        lab.deployment(&name, 2)?;
        let due = Instant::now() + DUE;
        lab.second()?.sleep(&name, Some(&in_(DUE)))?;
        // Every run dies a little later.
        std::thread::sleep(Duration::from_millis(u64::from(run - 1) * 200));
        for server in [&mut lab.one, &mut lab.two].into_iter().flatten() {
            server.program.kill()?;
        }
        let (one, two) = (lab.user("one")?, lab.user("two")?);
        lab.one = Some(lab.server("one", &one, &[])?);
        lab.two = Some(lab.server("two", &two, &[])?);
        lab.wait_for_count(&name, 2, FOLLOWED_MAX)?;
        slowest = slowest.max(Instant::now().saturating_duration_since(due));
        lab.ready()?;
        lab.settled(&name, 2)?;
        // Past another look of whoever leads.
        std::thread::sleep(Duration::from_secs(1));
        lab.wrote_once(&name, 2)
            .with_context(|| format!("run {run}"))?;
    }
    let slowest = seconds(slowest);
    world.saw(
        format!("{runs} of {runs} runs: exactly one write of the count, at most {slowest} s late (the Lease of a dead leader is held for 15 s)"),
        format!("{runs} 回中 {runs} 回とも台数の書き込みは一回だけ。遅れは最長 {slowest} 秒(異常終了したリーダーの Lease は 15 秒残る)"),
    );
    Ok(())
}

/// The leader is stopped when its write of a scheduled wake is on the way, for a minute; another one leads and does it. Then
/// both go on, the old leader and its old write.
pub(crate) fn stopped_inside_a_decision(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    let (relay, _proxy, kubeconfig) = relayed(lab)?;
    lab.restart_as_leader(&kubeconfig, &[])?;
    let two = lab.user("two")?;
    lab.two = Some(lab.server("two", &two, &[])?);
    lab.ready()?;
    let (name, later) = ("stopped-leader", "stopped-leader-later");
    lab.deployment(name, 2)?;
    lab.deployment(later, 3)?;
    lab.second()?.sleep(name, Some(&in_(DUE)))?;
    // Due while the old leader stands still.
    lab.second()?.sleep(later, Some(&in_(DUE * 4)))?;
    lab.wait_for_count(name, 0, SOON)?;
    let victim = lab.first()?.program.process();
    let plan = Plan {
        request: "PATCH deployments/NAME".to_owned(),
        occurrence: 1,
        deed: Deed::Stop,
        victim,
    };
    relay.watch(name, Some(plan));
    wait::until("a write on the way", SOON, || {
        Ok(if relay.is_done() {
            Look::There(())
        } else {
            Look::NotYet(format!("{:?}", relay.noted()))
        })
    })?;
    let stopped = Instant::now();
    let followed = lab.wait_for_leader("two_", FOLLOWED_MAX)?;
    lab.wait_for_count(name, 2, FOLLOWED_MAX)?;
    lab.wait_for_count(later, 3, FOLLOWED_MAX)?;
    std::thread::sleep(Duration::from_mins(1).saturating_sub(stopped.elapsed()));
    relay.release();
    victim.signal(Signal::CONT)?;
    lab.ready()?;
    lab.settled(name, 2)?;
    lab.settled(later, 3)?;
    std::thread::sleep(Duration::from_secs(3));
    lab.wrote_once(name, 2)?;
    lab.wrote_once(later, 3)?;
    let leader = lab.leader()?;
    ensure!(
        leader.starts_with("two_"),
        "the old leader is none: {leader}"
    );
    let refused = refusals(lab, name)?;
    ensure!(
        refused > 0,
        "the old write reached the API server and was refused"
    );
    lab.one = None;
    lab.two = None;
    let followed = seconds(followed);
    world.saw(
        format!("another led after {followed} s and fired both schedules, one write each; the old leader's write came a minute late and was refused with 409"),
        format!("{followed} 秒後に別のレプリカが引き継ぎ、二つのスケジュールを一回ずつ実行。旧リーダーの書き込みは一分後に届き、409 で拒否"),
    );
    Ok(())
}

/// Writes of a replica that the API server refused with 409.
fn refusals(lab: &Lab, name: &str) -> anyhow::Result<usize> {
    let text =
        std::fs::read_to_string(lab.control_plane.audit_log()).context("read the audit log")?;
    let quoted = format!("\"name\":\"{name}\"");
    let refused = text.lines().filter(|line| {
        line.contains(&quoted)
            && line.contains("\"verb\":\"patch\"")
            && line.contains("\"code\":409")
    });
    Ok(refused.count())
}

/// The wall clock of the leader jumps back one hour and later comes right again. Waiting goes by a clock that does not jump.
pub(crate) fn clock_set_back(world: &mut World) -> anyhow::Result<()> {
    let library = faketime()?;
    let lab = world.lab()?;
    let clock = lab.control_plane.directory().join("clock");
    let set = |offset: &str| std::fs::write(&clock, offset).context("set the clock");
    set("+0")?;
    let kubeconfig = lab.user("one")?;
    let more = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    lab.restart_as_leader(&kubeconfig, &more)?;
    let two = lab.user("two")?;
    lab.two = Some(lab.server("two", &two, &[])?);
    lab.ready()?;
    let (name, awake) = ("clock", "clock-awake");
    lab.deployment(name, 2)?;
    lab.deployment(awake, 1)?;
    let due = Instant::now() + Duration::from_secs(8);
    lab.second()?
        .sleep(name, Some(&in_(Duration::from_secs(8))))?;
    lab.settled(name, 0)?;
    set("-1h")?;
    // Only where the jump is seen is anything proven.
    let behind = wait::until("the jump", SOON, || {
        let answer = lab.first()?.get(&status(name))?;
        let said = answer.body["timestamp"].as_str().unwrap_or_default();
        let said: jiff::Timestamp = said.parse().context("an instant")?;
        let behind = jiff::Timestamp::now().duration_since(said).as_secs();
        Ok(if behind > 3500 {
            Look::There(behind)
        } else {
            Look::NotYet(format!("{behind} s"))
        })
    })?;
    // Past the time by every other clock; longer than a Lease is held.
    while Instant::now() < due + Duration::from_secs(20) {
        ensure!(
            lab.kept(name)?.replicas == 0,
            "its own clock says it is an hour early"
        );
        ensure!(
            lab.kept(awake)?.replicas == 1,
            "nobody is put to sleep by a jump"
        );
        let leader = lab.leader()?;
        ensure!(
            leader.starts_with("one_"),
            "a clock in the Lease takes nobody's lead: {leader}"
        );
        for server in lab.servers() {
            let answer = server.get(&status(name))?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    set("+0")?;
    let right = Instant::now();
    lab.wait_for_count(name, 2, SOON)?;
    let fired = seconds(right.elapsed());
    lab.settled(name, 2)?;
    lab.wrote_once(name, 2)?;
    ensure!(lab.kube("GET", &object(awake), "")?.body["spec"]["replicas"] == 1);
    lab.one = None;
    lab.two = None;
    world.saw(
        format!("{behind} s behind for 20 s past the time: nothing fired, slept or changed hands, reads went on; right again, it fired after {fired} s, one write"),
        format!("時計が {behind} 秒遅れたまま予定時刻を 20 秒過ぎても、実行・スリープ・リーダー交代なし、読み取りは継続。時計が戻ると {fired} 秒で実行、書き込みは一回"),
    );
    Ok(())
}

/// Debian's library that shows another time to a program.
fn faketime() -> anyhow::Result<PathBuf> {
    let found = std::fs::read_dir("/usr/lib").context("look into /usr/lib")?;
    let mut places = found
        .flatten()
        .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    places
        .find(|path| path.is_file())
        .context("there is no libfaketime\nhint: apt-get install faketime; 'cargo xtask setup' does it for clusters")
}

/// What a sleeper keeps when nobody is left to say so.
pub(crate) fn all_dead(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    lab.pair()?;
    let name = "all-dead";
    lab.deployment(name, 4)?;
    lab.first()?.sleep(name, None)?;
    for server in [&mut lab.one, &mut lab.two].into_iter().flatten() {
        server.program.kill()?;
    }
    lab.one = None;
    lab.two = None;
    // A person wakes it by hand meanwhile, and puts it to sleep again.
    sleeps(&lab.kept(name)?, 4)?;
    for count in [6, 0] {
        let patch = json!({"spec": {"replicas": count}}).to_string();
        let answer = lab.kube("PATCH", &object(name), &patch)?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    lab.pair()?;
    let item = lab.second()?.item(name)?;
    ensure!(item["desired_replicas"] == 0, "{item}");
    lab.second()?.order(name, "wake", &json!({}))?;
    let woken = wait::until("a wake", SOON, || {
        let kept = lab.kept(name)?;
        Ok(if kept.replicas > 0 {
            Look::There(kept.replicas)
        } else {
            Look::NotYet(format!("{kept:?}"))
        })
    })?;
    // Nobody saw the 6: no version of the object that is left tells of it.
    ensure!(woken == 4, "woken to {woken}");
    world.saw(
        format!("the sleep and its count lay on the object; woken to {woken} by a replica that started later"),
        format!("スリープと台数はオブジェクトに残り、後から起動したレプリカが {woken} 台で復帰"),
    );
    Ok(())
}

/// The leader dies, and before another one leads a person wakes a sleeper to another count and ends it again. Whoever follows
/// finds a workload at 0 whose record says 0, and must not have missed what was wanted in between.
pub(crate) fn scaled_while_nobody_leads(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    lab.pair()?;
    let name = "nobody-leads";
    lab.deployment(name, 2)?;
    lab.first()?.sleep(name, None)?;
    lab.settled(name, 0)?;
    sleeps(&lab.kept(name)?, 2)?;
    lab.one = None;
    for count in ["6", "0"] {
        lab.control_plane
            .kubectl()
            .arguments(["scale", "deployment", name, "--namespace", NAMESPACE])
            .arguments(["--replicas", count])
            .succeed()?;
    }
    let leader = lab.leader()?;
    ensure!(
        leader.starts_with("one_"),
        "it was too late: {leader} leads"
    );
    let followed = lab.wait_for_leader("two_", FOLLOWED_MAX)?;
    wait::until("6 remembered", SOON, || {
        let kept = lab.kept(name)?;
        Ok(if sleeps(&kept, 6).is_ok() {
            Look::There(())
        } else {
            Look::NotYet(format!("{kept:?}"))
        })
    })?;
    lab.second()?.order(name, "wake", &json!({}))?;
    lab.wait_for_count(name, 6, SOON)?;
    lab.two = None;
    let followed = seconds(followed);
    world.saw(
        format!("followed after {followed} s; 6 was recorded and woken to"),
        format!("{followed} 秒後に引き継ぎ、6 台を記録して 6 台で復帰"),
    );
    Ok(())
}
