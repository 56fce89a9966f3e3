//! What people, controllers and autoscalers do to a workload while it sleeps or is about to.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nagi_e2e::wait::{self, Look};
use serde_json::{Value, json};

use crate::lab::{Lab, NAMESPACE, SOON, World, deployment, in_, object};
use crate::outage::{seconds, sleeps};

/// So long something is watched that must not happen: the controllers of Kubernetes look every 15 s at most, and Nagi's at
/// least every half second.
const NOTHING_HAPPENS: Duration = Duration::from_secs(17);

/// A new object of the same name: the schedule was the old one's.
pub(crate) fn deleted_and_recreated(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    lab.pair()?;
    let name = "recreated";
    lab.deployment(name, 2)?;
    let due = Instant::now() + Duration::from_secs(8);
    lab.first()?
        .sleep(name, Some(&in_(Duration::from_secs(8))))?;
    let before = lab.kube("GET", &object(name), "")?.body["metadata"]["uid"].clone();
    lab.control_plane
        .kubectl()
        .arguments(["delete", "deployment", name, "--namespace", NAMESPACE])
        .succeed()?;
    // The new one is asleep as well, by its own manifest: a schedule that is not its own must not wake it.
    lab.apply(&deployment(name, 0))?;
    lab.settled(name, 0)?;
    let uid = lab.kube("GET", &object(name), "")?.body["metadata"]["uid"].clone();
    ensure!(uid != before, "it is another object");
    for server in lab.servers() {
        let item = server.item(name)?;
        ensure!(item["scheduled_scale_up"].is_null(), "{item}");
        let list = server.get("/api/v1/scheduled-scale-ups")?;
        ensure!(!list.text.contains(name), "{list:?}");
    }
    while Instant::now() < due + Duration::from_secs(4) {
        ensure!(
            lab.kept(name)?.replicas == 0,
            "the old schedule woke the new one"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    // Nobody knows a count for it: told, not guessed.
    let wake = lab
        .first()?
        .post(&crate::lab::path(name, "wake"), &json!({}))?;
    ensure!(
        wake.status == 400 && wake.text.contains("nagi.dev/awake-replicas"),
        "{wake:?}"
    );
    lab.first()?
        .order(name, "scale-up", &json!({"replicas": 1, "reason": "x"}))?;
    lab.settled(name, 1)?;
    world.saw(
        "the new object has no schedule and stayed at 0 past the time; a wake without a count is refused with 400 and names \
         the annotation",
        "新しいオブジェクトにスケジュールはなく、予定時刻を過ぎても 0 のまま。台数の分からない起動は 400 で拒否し、注釈の名前を示す",
    );
    Ok(())
}

pub(crate) fn paused(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    lab.pair()?;
    let name = "paused";
    lab.deployment(name, 2)?;
    lab.control_plane
        .kubectl()
        .arguments([
            "rollout",
            "pause",
            "deployment",
            name,
            "--namespace",
            NAMESPACE,
        ])
        .succeed()?;
    let took = sleep_and_wake(lab, name, 2)?;
    let held = lab.kube("GET", &object(name), "")?;
    ensure!(
        held.body["spec"]["paused"] == true,
        "its pause is its owner's: {held:?}"
    );
    world.saw(
        format!("slept and woke to 2 in {took} s, still paused"),
        format!("一時停止のまま、{took} 秒でスリープして 2 台に復帰"),
    );
    Ok(())
}

/// Sleeps, wakes by a call without a count, and gives how long both took.
fn sleep_and_wake(lab: &Lab, name: &str, replicas: u64) -> anyhow::Result<String> {
    let begun = Instant::now();
    lab.first()?.sleep(name, None)?;
    sleeps(&lab.kept(name)?, replicas)?;
    lab.settled(name, 0)?;
    lab.second()?.order(name, "wake", &json!({}))?;
    lab.settled(name, replicas)?;
    Ok(seconds(begun.elapsed()))
}

/// A new template that never becomes ready on the way, then one that does.
pub(crate) fn mid_rollout(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    lab.pair()?;
    let name = "rollout";
    lab.deployment(name, 3)?;
    // Pods that ask for a node that is not there stay pending: the rollout stands in the middle.
    let patch = json!({"spec": {"template": {"spec": {"nodeSelector": {"nagi.test/none": "x"}}}}});
    let answer = lab.kube("PATCH", &object(name), &patch.to_string())?;
    ensure!(answer.status == 200, "{answer:?}");
    wait::until("a rollout under way", SOON, || {
        let answer = lab.kube("GET", &object(name), "")?;
        let status = &answer.body["status"];
        Ok(
            if status["updatedReplicas"] == 1 && status["replicas"] == 4 {
                Look::There(())
            } else {
                Look::NotYet(status.to_string())
            },
        )
    })?;
    let item = lab.second()?.item(name)?;
    ensure!(
        item["desired_replicas"] == 3,
        "the surge is nobody's wish: {item}"
    );
    lab.first()?.sleep(name, None)?;
    sleeps(&lab.kept(name)?, 3)?;
    lab.settled(name, 0)?;
    lab.second()?.order(name, "wake", &json!({}))?;
    lab.wait_for_count(name, 3, SOON)?;
    let pending = wait::until("pods that wait", SOON, || {
        let item = lab.second()?.item(name)?;
        let waits = item["status"] == "scaling" && item["reason"].is_string();
        Ok(if waits {
            Look::There(item)
        } else {
            Look::NotYet(item.to_string())
        })
    })?;
    ensure!(
        pending["available_replicas"] == 0,
        "never told as running: {pending}"
    );
    let mend = json!({"spec": {"template": {"spec": {"nodeSelector": null}}}});
    lab.kube("PATCH", &object(name), &mend.to_string())?;
    lab.settled(name, 3)?;
    world.saw(
        "3 remembered although 4 pods ran, woke to 3 of the new template; while they waited: `scaling` with the scheduler's \
         reason; ready after the template was mended",
        "Pod は 4 個動いていたが 3 を記憶し、新しいテンプレートの 3 台で復帰。待機中は `scaling` とスケジューラーの理由を返し、修正後に稼働",
    );
    Ok(())
}

pub(crate) fn recreate(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    lab.pair()?;
    let name = "recreate";
    let mut object = deployment(name, 2);
    object["spec"]["strategy"] = json!({"type": "Recreate"});
    lab.apply(&object)?;
    lab.settled(name, 2)?;
    let took = sleep_and_wake(lab, name, 2)?;
    world.saw(
        format!("slept and woke to 2 in {took} s"),
        format!("{took} 秒でスリープして 2 台に復帰"),
    );
    Ok(())
}

/// A real controller, which raises any count above 0 to its minimum.
pub(crate) fn autoscaled(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    lab.pair()?;
    let name = "autoscaled";
    let path =
        format!("/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers/{name}");
    lab.deployment(name, 3)?;
    let hpa = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 2, "maxReplicas": 5,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        },
    });
    lab.apply(&hpa)?;
    let spec = |lab: &Lab| -> anyhow::Result<Value> {
        let answer = lab.kube("GET", &path, "")?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer.body["spec"].clone())
    };
    let before = spec(lab)?;
    wait::until("the autoscaler at both replicas", SOON, || {
        let items = [lab.first()?.item(name)?, lab.second()?.item(name)?];
        Ok(if items.iter().all(|item| item["autoscaler"].is_string()) {
            Look::There(())
        } else {
            Look::NotYet(format!("{items:?}"))
        })
    })?;
    lab.first()?.sleep(name, None)?;
    let asleep = Instant::now();
    // Its controller looks every 15 s.
    while asleep.elapsed() < NOTHING_HAPPENS {
        ensure!(lab.kept(name)?.replicas == 0, "it did not stay at 0");
        std::thread::sleep(Duration::from_millis(500));
    }
    lab.second()?.order(name, "wake", &json!({}))?;
    let woken = wait::until("a wake", SOON, || {
        let kept = lab.kept(name)?;
        Ok(if kept.replicas > 0 {
            Look::There(kept.replicas)
        } else {
            Look::NotYet(format!("{kept:?}"))
        })
    })?;
    ensure!(
        woken >= 2,
        "woken to {woken}, below the autoscaler's minimum"
    );
    let after = Instant::now();
    while after.elapsed() < NOTHING_HAPPENS {
        let kept = lab.kept(name)?;
        ensure!(kept.replicas >= 2, "{kept:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
    ensure!(
        spec(lab)? == before,
        "nobody but its owner changes an autoscaler"
    );
    let held = seconds(NOTHING_HAPPENS);
    world.saw(
        format!("stayed at 0 for {held} s, woke to {woken}, and its spec is what it was"),
        format!("{held} 秒のあいだ 0 のまま、{woken} 台で復帰。HPA の spec は元のまま"),
    );
    Ok(())
}

/// A budget binds evictions, not a count that its owner sets.
pub(crate) fn disruption_budget(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    lab.pair()?;
    let name = "budgeted";
    lab.deployment(name, 2)?;
    lab.apply(&json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": name}}},
    }))?;
    let took = sleep_and_wake(lab, name, 2)?;
    world.saw(
        format!("slept and woke to 2 in {took} s; no pod was evicted, so the budget was not asked"),
        format!("{took} 秒でスリープして 2 台に復帰。Pod の退避は行わないため、PDB は関与しない"),
    );
    Ok(())
}

/// Whoever applies a manifest with a count wants that count, also when Nagi had put it to sleep.
pub(crate) fn applied_again(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    lab.pair()?;
    let name = "applied";
    lab.deployment(name, 2)?;
    lab.first()?
        .sleep(name, Some(&in_(Duration::from_hours(1))))?;
    lab.settled(name, 0)?;
    lab.apply(&deployment(name, 2))?;
    lab.settled(name, 2)?;
    // The leader clears what only a sleeper has, and says who it was.
    let item = wait::until("a cleared mark of the sleep", SOON, || {
        let item = lab.second()?.item(name)?;
        Ok(
            if item["asleep_since"].is_null() && item["last_change"]["action"] == "outside-change" {
                Look::There(item)
            } else {
                Look::NotYet(item.to_string())
            },
        )
    })?;
    let who = item["last_change"]["reason"].as_str().context("a reason")?;
    ensure!(who.contains("kubectl"), "{item}");
    ensure!(item["remembered_replicas"] != 0, "{item}");
    // A manifest without a count leaves it alone.
    lab.first()?.sleep(name, None)?;
    lab.settled(name, 0)?;
    let mut without = deployment(name, 2);
    let spec = without["spec"].as_object_mut().context("a spec")?;
    spec.shift_remove("replicas");
    lab.control_plane
        .kubectl()
        .arguments([
            "apply",
            "--server-side",
            "--field-manager=deployer",
            "--filename=-",
        ])
        .arguments(["--force-conflicts"])
        .input(without.to_string())
        .succeed()?;
    std::thread::sleep(Duration::from_secs(2));
    sleeps(&lab.kept(name)?, 2)?;
    world.saw(
        format!("with a count it woke at once, and the history says \"{who}\"; without a count it slept on and kept its memory"),
        format!("台数つきなら直ちに復帰し、履歴に「{who}」と残る。台数なしならスリープと記憶を維持"),
    );
    Ok(())
}

/// The node goes with its pods: what is told meanwhile, and that the sleep is none of its business.
pub(crate) fn node_gone(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    lab.pair()?;
    let name = "node-gone";
    let kubectl = |words: &[&str]| lab.control_plane.kubectl().arguments(words).succeed();
    let mut object = deployment(name, 2);
    object["spec"]["template"]["spec"]["nodeSelector"] = json!({"nagi.test/pool": "lost"});
    kubectl(&["label", "node", "fake-1", "nagi.test/pool=lost"])?;
    lab.apply(&object)?;
    lab.settled(name, 2)?;
    let node = lab.kube("GET", "/api/v1/nodes/fake-1", "")?;
    kubectl(&["delete", "node", "fake-1"])?;
    let begun = Instant::now();
    let told = wait::until("pods that are not told as running", SOON, || {
        let item = lab.second()?.item(name)?;
        let waits = item["available_replicas"] == 0
            && item["status"] == "scaling"
            && item["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("no node takes it"));
        Ok(if waits {
            Look::There(item)
        } else {
            Look::NotYet(item.to_string())
        })
    })?;
    let noticed = seconds(begun.elapsed());
    ensure!(told["desired_replicas"] == 2, "{told}");
    lab.first()?.sleep(name, None)?;
    sleeps(&lab.kept(name)?, 2)?;
    lab.settled(name, 0)?;
    lab.second()?.order(name, "wake", &json!({}))?;
    lab.wait_for_count(name, 2, SOON)?;
    let mut back = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": "fake-1", "labels": node.body["metadata"]["labels"],
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
    });
    back["status"] = json!({
        "capacity": node.body["status"]["capacity"], "allocatable": node.body["status"]["allocatable"],
    });
    lab.control_plane
        .kubectl()
        .arguments(["create", "--filename=-"])
        .input(back.to_string())
        .succeed()?;
    lab.settled(name, 2)?;
    world.saw(
        format!("{noticed} s later `scaling`, \"no node takes it\" with the scheduler's words, none available; slept and woke meanwhile, served when the node was back"),
        format!("{noticed} 秒後に `scaling`、稼働 0、載せられるノードがないこととスケジューラーの説明を応答。その間もスリープと起動が可能で、ノードが戻ると稼働"),
    );
    Ok(())
}
