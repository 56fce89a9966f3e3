//! People scale a workload at random while others put it to sleep and wake it.
//!
//! Every version of the object is read from a watch, in the order in which the API server made them, so that nothing needs to
//! be guessed about who was first: whatever sleeps remembers the last count above zero that somebody had wanted before.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::lab::{Lab, NAMESPACE, SOON, World, object, path};

/// Rounds of a run in every test, and of the long one.
const SHORT: u32 = 60;
const LONG: u32 = 1000;

/// Versions that wait to be judged.
const VERSIONS_MAX: usize = 10_000;

/// What was counted.
#[derive(Debug, Default)]
struct Tally {
    versions: u32,
    sleepers: u32,
    wakes: u32,
    by_people: u32,
}

pub(crate) fn short(world: &mut World) -> anyhow::Result<()> {
    race(world, "race", SHORT)
}

pub(crate) fn long(world: &mut World) -> anyhow::Result<()> {
    race(world, "race-long", LONG)
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    /// From 0 to below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn race(world: &mut World, name: &str, rounds: u32) -> anyhow::Result<()> {
    let lab = world.lab()?;
    lab.pair()?;
    lab.deployment(name, 2)?;
    let versions = watch(lab, name)?;
    let mut tally = Tally::default();
    let mut judge = Judge {
        version: String::new(),
        last_wanted: 2,
        count: 2,
        annotations: lab.kept(name)?.annotations,
    };
    let mut dice = Dice(0x6e61_6769);
    for round in 0..rounds {
        // Two at once, so that they meet.
        let (one, two) = (dice.roll(5), dice.roll(5));
        let counts = (dice.roll(6), dice.roll(6));
        let (left, right) = std::thread::scope(|scope| {
            let left = scope.spawn(|| act(lab, name, one, counts.0));
            let right = scope.spawn(|| act(lab, name, two, counts.1));
            (left.join(), right.join())
        });
        for ended in [left, right] {
            ended
                .unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")))
                .with_context(|| format!("round {round}"))?;
        }
        while let Ok(version) = versions.try_recv() {
            judge.look(&version, &mut tally)?;
        }
    }
    // What a person's last 0 left is the leader's to record.
    let last = settle(lab, name)?;
    while judge.version != last {
        let version = versions
            .recv_timeout(SOON)
            .context("the watch brings the last version")?;
        judge.look(&version, &mut tally)?;
    }
    ensure!(
        tally.sleepers > 0 && tally.wakes > 0 && tally.by_people > 0,
        "{tally:?}"
    );
    let kept = lab.kept(name)?;
    if kept.replicas == 0 {
        let remembered = kept.annotations["nagi.dev/replicas"].as_str();
        let wanted = judge.last_wanted.to_string();
        ensure!(
            remembered == Some(&*wanted),
            "{kept:?}, and {wanted} was wanted last"
        );
    }
    for server in lab.servers() {
        let item = server.item(name)?;
        ensure!(item["desired_replicas"] == kept.replicas, "{item} {kept:?}");
    }
    let Tally {
        versions,
        sleepers,
        wakes,
        by_people,
    } = tally;
    world.saw(
        format!("{rounds} rounds, {versions} versions of the object, {sleepers} of them asleep, {wakes} woken, {by_people} counts by people; none remembered or woke to anything else"),
        format!("{rounds} 回、オブジェクトの版 {versions} 個(うちスリープ {sleepers} 個、起動 {wakes} 回、人による台数変更 {by_people} 回)。ほかの値を記憶した版も、ほかの台数で起きた版もなし"),
    );
    Ok(())
}

/// One deed of somebody.
fn act(lab: &Lab, name: &str, deed: u64, count: u64) -> anyhow::Result<()> {
    let server = if count.is_multiple_of(2) {
        lab.first()?
    } else {
        lab.second()?
    };
    let ordered = |verb: &str, body: Value| -> anyhow::Result<()> {
        let answer = server.post(&path(name, verb), &body)?;
        // A crowd that is faster five times is a refusal that says so.
        let is_told = [200, 202].contains(&answer.status)
            || (answer.status == 500 && answer.text.contains("others keep changing it"));
        ensure!(is_told, "{verb}: {} {}", answer.status, answer.text);
        Ok(())
    };
    match deed {
        0 | 1 => lab
            .control_plane
            .kubectl()
            .arguments(["scale", "deployment", name, "--namespace", NAMESPACE])
            .argument(format!("--replicas={count}"))
            .succeed(),
        2 => ordered("scale-to-zero", json!({"reason": "race"})),
        3 => {
            let answer = server.post(&path(name, "wake"), &json!({}))?;
            let is_told = [200, 202, 400].contains(&answer.status)
                || (answer.status == 500 && answer.text.contains("others keep changing it"));
            ensure!(is_told, "wake: {} {}", answer.status, answer.text);
            Ok(())
        }
        _ => ordered("scale-up", json!({"replicas": count + 1, "reason": "race"})),
    }
}

/// Follows the object.
#[derive(Debug)]
struct Judge {
    version: String,
    last_wanted: u64,
    /// Of the version before.
    count: u64,
    annotations: Value,
}

impl Judge {
    fn look(&mut self, object: &Value, tally: &mut Tally) -> anyhow::Result<()> {
        let metadata = &object["metadata"];
        let version = metadata["resourceVersion"].as_str();
        self.version = version.context("a version")?.into();
        let count = object["spec"]["replicas"].as_u64().context("a count")?;
        let annotations = &metadata["annotations"];
        tally.versions += 1;
        // What Nagi wakes to is judged, and is no want of anybody.
        let woken = changed_by_us(annotations, &self.annotations)?
            .filter(|change| change["action"] == "wake" && change["from"] == 0);
        if let Some(change) = woken {
            let wanted = self.last_wanted;
            ensure!(
                count == wanted,
                "{wanted} was wanted last, and it woke to {count} ({change}): {metadata}"
            );
            tally.wakes += 1;
        } else if count > 0 {
            self.last_wanted = count;
        }
        let remembered = annotations["nagi.dev/replicas"].as_str();
        if let Some(remembered) = remembered {
            ensure!(remembered != "0", "0 is no count to wake to: {metadata}");
        }
        // People change the count and nothing else. What they leave on a sleeper is Nagi's to put right with its next write,
        // and what that writes is judged.
        let is_ours = *annotations != self.annotations;
        if is_ours {
            self.annotations.clone_from(annotations);
        }
        if is_ours && count == 0 {
            tally.sleepers += 1;
            let wanted = self.last_wanted.to_string();
            if remembered != Some(&*wanted) {
                bail!("{wanted} was wanted last, and it remembers {remembered:?}: {metadata}");
            }
        }
        if !is_ours && count != self.count {
            tally.by_people += 1;
        }
        self.count = count;
        Ok(())
    }
}

/// The last change that Nagi recorded, where this version brought it.
fn changed_by_us(now: &Value, before: &Value) -> anyhow::Result<Option<Value>> {
    let text = |annotations: &Value| annotations["nagi.dev/changes"].as_str().map(str::to_owned);
    let Some(changes) = text(now).filter(|changes| Some(changes) != text(before).as_ref()) else {
        return Ok(None);
    };
    let changes: Vec<Value> = serde_json::from_str(&changes).context("read the changes")?;
    Ok(changes.last().cloned())
}

/// Waits until the object does not change any more; gives its version.
fn settle(lab: &Lab, name: &str) -> anyhow::Result<String> {
    let version = || -> anyhow::Result<String> {
        let answer = lab.kube("GET", &object(name), "")?;
        let version = answer.body["metadata"]["resourceVersion"].as_str();
        Ok(version.context("a version")?.to_owned())
    };
    let mut last = version()?;
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let now = version()?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}

/// Every version of an object, from now on.
fn watch(lab: &Lab, name: &str) -> anyhow::Result<Receiver<Value>> {
    use std::io::Write as _;
    let mut stream = TcpStream::connect(("127.0.0.1", lab.admin_port())).context("connect")?;
    let version = lab.kube("GET", &object(name), "")?.body["metadata"]["resourceVersion"].clone();
    let version = version.as_str().context("a version")?;
    write!(
        stream,
        "GET /apis/apps/v1/namespaces/{NAMESPACE}/deployments?watch=true&fieldSelector=metadata.name%3D{name}\
         &resourceVersion={version} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"
    )
    .context("ask for a watch")?;
    let (sender, receiver) = sync_channel(VERSIONS_MAX);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let Ok(event) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            if !event["object"].is_object() || sender.send(event["object"].clone()).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
