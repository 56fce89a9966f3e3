//! The API server, etcd, the way to them, and the rights: each is away for a while.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, ensure};
use nagi_e2e::wait::{self, Look};
use serde_json::{Value, json};

use crate::lab::{
    BINDING, Lab, NAMESPACE, Proxy, SOON, World, cluster_role_binding, deployment, object,
};
use crate::outage::{Meanwhile, play, seconds};
use crate::relay::Relay;

const TEN: Duration = Duration::from_secs(10);
/// Long enough that a cache is not believed any more, and that a Lease is lost.
const TWENTY: Duration = Duration::from_secs(20);

pub(crate) fn api_server_stands_still(world: &mut World) -> anyhow::Result<()> {
    stands_still(world, "stopped", "kube-apiserver", TEN)
}

pub(crate) fn api_server_stands_still_for_long(world: &mut World) -> anyhow::Result<()> {
    stands_still(
        world,
        "stopped-long",
        "kube-apiserver",
        Duration::from_mins(5),
    )
}

fn stands_still(
    world: &mut World,
    name: &str,
    component: &str,
    lasts: Duration,
) -> anyhow::Result<()> {
    let outcome = play(
        world,
        name,
        lasts,
        Meanwhile::Blind,
        |lab| lab.control_plane.suspend(component),
        |lab| lab.control_plane.resume(component),
    )?;
    outcome.tell(world);
    Ok(())
}

pub(crate) fn api_server_dies(world: &mut World) -> anyhow::Result<()> {
    let outcome = play(
        world,
        "killed",
        TEN,
        Meanwhile::Blind,
        |lab| lab.control_plane.kill("kube-apiserver"),
        |lab| {
            lab.control_plane.restart("kube-apiserver")?;
            lab.control_plane.wait_until_ready()
        },
    )?;
    outcome.tell(world);
    Ok(())
}

/// The API server lives and tells its version, and what its watches brought stays true: nobody can write.
pub(crate) fn etcd_stands_still(world: &mut World) -> anyhow::Result<()> {
    let outcome = play(
        world,
        "etcd",
        TEN,
        Meanwhile::ReadsOnly,
        |lab| lab.control_plane.suspend("etcd"),
        |lab| {
            lab.control_plane.resume("etcd")?;
            lab.control_plane.wait_until_ready()
        },
    )?;
    outcome.tell(world);
    Ok(())
}

/// Both replicas are stopped while so much changes that no watch can go on from where it was, and what changed is forgotten.
pub(crate) fn etcd_compacted(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    lab.pair()?;
    lab.deployment("compacted", 2)?;
    lab.deployment("compacted-gone", 1)?;
    let before = lists(lab)?;
    for server in lab.servers() {
        server.program.signal(nagi_e2e::Signal::STOP)?;
    }
    let changed = change_meanwhile(lab);
    for server in lab.servers() {
        server.program.signal(nagi_e2e::Signal::CONT)?;
    }
    let revision = changed?;
    let begun = std::time::Instant::now();
    lab.ready()?;
    lab.settled("compacted", 5)?;
    for server in lab.servers() {
        wait::until("the deletion", SOON, || {
            let answer = server.get(&crate::lab::status("compacted-gone"))?;
            Ok(if answer.status == 404 {
                Look::There(())
            } else {
                Look::NotYet(answer.text)
            })
        })?;
    }
    let caught_up = seconds(begun.elapsed());
    let listed = lists(lab)? - before;
    ensure!(listed >= 2, "watches went on as if nothing was forgotten");
    lab.first()?.sleep("compacted", None)?;
    crate::outage::sleeps(&lab.kept("compacted")?, 5)?;
    world.saw(
        format!(
            "forgotten up to revision {revision}; {listed} lists anew, and both knew the change and the deletion {caught_up} s later"
        ),
        format!(
            "リビジョン {revision} まで消去。一覧を {listed} 回取り直し、両方のレプリカが {caught_up} 秒後に変更と削除を把握"
        ),
    );
    Ok(())
}

/// Lists of Deployments by the replicas, whole ones and not looks at one.
fn lists(lab: &Lab) -> anyhow::Result<usize> {
    let text =
        std::fs::read_to_string(lab.control_plane.audit_log()).context("read the audit log")?;
    let lists = text.lines().filter(|line| {
        line.contains("\"verb\":\"list\"") && line.contains("/deployments?limit=500")
    });
    Ok(lists.count())
}

fn change_meanwhile(lab: &mut Lab) -> anyhow::Result<String> {
    let answer = lab.kube("PATCH", &object("compacted"), r#"{"spec":{"replicas":5}}"#)?;
    ensure!(answer.status == 200, "{answer:?}");
    let answer = lab.kube("DELETE", &object("compacted-gone"), "")?;
    ensure!(answer.status == 200, "{answer:?}");
    let revision = lab.control_plane.compact()?;
    // Its cache of what happened ends with it.
    lab.control_plane.restart("kube-apiserver")?;
    lab.control_plane.wait_until_ready()?;
    Ok(revision)
}

/// Every connection of the leader is cut, again and again.
pub(crate) fn watches_cut(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    let (relay, _proxy, kubeconfig) = relayed(lab)?;
    lab.restart_as_leader(&kubeconfig, &[])?;
    lab.deployment("cut", 1)?;
    let mut cut = 0;
    for count in 2..=9 {
        // Half of the changes come while nobody watches, half while somebody does.
        if count % 2 == 0 {
            cut += relay.cut();
        }
        let answer = lab.kube(
            "PATCH",
            &object("cut"),
            &json!({"spec": {"replicas": count}}).to_string(),
        )?;
        ensure!(answer.status == 200, "{answer:?}");
        if count % 2 == 1 {
            cut += relay.cut();
        }
        lab.settled("cut", count)?;
    }
    ensure!(cut > 0, "no connection was cut");
    lab.first()?.sleep("cut", None)?;
    crate::outage::sleeps(&lab.kept("cut")?, 9)?;
    lab.one = None;
    world.saw(
        format!("{cut} connections cut in 8 rounds; every change was seen, and the sleep remembered the last count"),
        format!("8 回で {cut} 本の接続を切断。すべての変更を把握し、スリープ時に最後の台数を記憶"),
    );
    Ok(())
}

/// A way to the API server, as the first replica, that sees its requests.
pub(crate) fn relayed(lab: &Lab) -> anyhow::Result<(Relay, Proxy, std::path::PathBuf)> {
    let proxy = Proxy::start(&lab.control_plane, "one", &lab.user("one")?)?;
    let relay = Relay::start(proxy.port)?;
    let path = lab.control_plane.directory().join("relay.kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": format!("http://127.0.0.1:{}", relay.port)}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    });
    std::fs::write(&path, config.to_string()).context("write a kubeconfig")?;
    Ok((relay, proxy, path))
}

pub(crate) fn rights_taken_away(world: &mut World) -> anyhow::Result<()> {
    let outcome = play(
        world,
        "rights",
        TWENTY,
        Meanwhile::ReadsOnly,
        |lab| {
            let path = format!("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{BINDING}");
            let answer = lab.kube("DELETE", &path, "")?;
            ensure!(answer.status == 200, "{answer:?}");
            // Until the API server acts on it.
            wait::until("a refusal", SOON, || {
                let answer = lab.first()?.get("/ready")?;
                Ok(if answer.status == 503 {
                    Look::There(())
                } else {
                    Look::NotYet(answer.text)
                })
            })
        },
        |lab| lab.apply(&cluster_role_binding()),
    )?;
    outcome.tell(world);
    Ok(())
}

/// The API server has nothing to execute the calls of the replicas with: it answers each with 429.
pub(crate) fn starved(world: &mut World) -> anyhow::Result<()> {
    let seat = std::cell::RefCell::new(None);
    let outcome = play(
        world,
        "starved",
        TWENTY,
        Meanwhile::ReadsOnly,
        |lab| {
            lab.apply(&starvation())?;
            *seat.borrow_mut() = Some(take_seat(lab)?);
            wait::until("a refusal", SOON, || {
                let answer = lab.first()?.get("/ready")?;
                Ok(if answer.status == 503 {
                    Look::There(())
                } else {
                    Look::NotYet(answer.text)
                })
            })
        },
        |lab| {
            drop(seat.take());
            lab.control_plane
                .kubectl()
                .arguments(["delete", "flowschema,prioritylevelconfiguration"])
                .argument("starve-faults")
                .succeed()
        },
    )?;
    let refused = std::fs::read_to_string(world.lab()?.control_plane.audit_log())
        .context("read the audit log")?
        .lines()
        .filter(|line| line.contains("\"code\":429"))
        .count();
    ensure!(refused > 10, "the API server refused {refused} calls");
    outcome.tell(world);
    Ok(())
}

/// A call of a replica's account whose body never comes. A priority level without seats still executes one call when it
/// executes nothing else, and this is it.
fn take_seat(lab: &Lab) -> anyhow::Result<(TcpStream, Proxy)> {
    let proxy = Proxy::start(&lab.control_plane, "seat", &lab.user("one")?)?;
    let port = proxy.port;
    let taken = wait::until("the only seat", SOON, || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connect")?;
        write!(
            stream,
            "POST /apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\
             Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
        )
        .context("ask for a seat")?;
        stream
            .set_read_timeout(Some(Duration::from_millis(500)))
            .context("set a limit")?;
        let mut answer = [0; 512];
        Ok(match stream.read(&mut answer) {
            // Nothing comes: it is being executed.
            Err(_) => Look::There(stream),
            Ok(length) => Look::NotYet(
                String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned(),
            ),
        })
    })?;
    Ok((taken, proxy))
}

/// A flow schema that takes all calls of the replicas, and a priority level without a seat.
fn starvation() -> Value {
    let subject = |name: &str| json!({"kind": "User", "user": {"name": name}});
    let meta = json!({"name": "starve-faults"});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": meta,
            "spec": {
                "type": "Limited",
                "limited": {
                    "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
                    "limitResponse": {"type": "Reject"},
                },
            },
        },
        {
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": meta,
            "spec": {
                "matchingPrecedence": 10,
                "priorityLevelConfiguration": meta,
                "rules": [{
                    "subjects": [subject("one"), subject("two")],
                    "resourceRules": [{
                        "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
                    }],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                }],
            },
        },
    ]})
}

/// The token of a service account is not accepted any more; the file has another one later.
pub(crate) fn token_expired(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    let directory = lab.control_plane.directory().to_owned();
    let (token, kubeconfig) = (directory.join("token"), directory.join("token.kubeconfig"));
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {
            "server": lab.control_plane.server(), "certificate-authority": lab.control_plane.authority(),
        }}],
        "users": [{"name": "u", "user": {"tokenFile": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    });
    std::fs::write(&kubeconfig, config.to_string()).context("write a kubeconfig")?;
    write_token(lab, &token, "first")?;
    lab.restart_as_leader(&kubeconfig, &[])?;
    lab.deployment("token", 2)?;
    lab.first()?
        .sleep("token", Some(&crate::lab::in_(Duration::from_secs(25))))?;
    // A token that is bound to an object ends with it, which is the only end that need not be waited for.
    lab.control_plane
        .kubectl()
        .arguments(["delete", "secret", "first", "--namespace=scale-system"])
        .succeed()?;
    let begun = std::time::Instant::now();
    let refused = wait::until("a refusal", SOON, || {
        let answer = lab.first()?.get("/ready")?;
        Ok(if answer.status == 503 {
            Look::There(answer)
        } else {
            Look::NotYet(answer.text)
        })
    })?;
    ensure!(refused.body["status"] == "not ready", "{refused:?}");
    let noticed = seconds(begun.elapsed());
    write_token(lab, &token, "second")?;
    let begun = std::time::Instant::now();
    lab.ready()?;
    let ready = seconds(begun.elapsed());
    lab.wait_for_count("token", 2, SOON)?;
    lab.settled("token", 2)?;
    lab.wrote_once("token", 2)?;
    lab.one = None;
    world.saw(
        format!("refused {noticed} s later (the API server remembers a token for 10 s), ready {ready} s after the new one; the schedule fired once"),
        format!("{noticed} 秒後に拒否(API サーバーはトークンを 10 秒記憶)、新しいトークンから {ready} 秒で ready。スケジュールは一回だけ実行"),
    );
    Ok(())
}

fn write_token(lab: &Lab, path: &std::path::Path, name: &str) -> anyhow::Result<()> {
    let kubectl = || lab.control_plane.kubectl();
    kubectl()
        .arguments([
            "create",
            "secret",
            "generic",
            name,
            "--namespace=scale-system",
        ])
        .succeed()?;
    let token = kubectl()
        .arguments([
            "create",
            "token",
            "scale-api-sa",
            "--namespace=scale-system",
        ])
        .arguments(["--bound-object-kind=Secret", "--bound-object-name", name])
        .output()?;
    std::fs::write(path, token.trim()).with_context(|| format!("write {}", path.display()))
}

/// The API server shows a certificate of an authority that nobody knows, until the file that every kubeconfig names has it.
pub(crate) fn certificate_changed(world: &mut World) -> anyhow::Result<()> {
    let outcome = play(
        world,
        "certificate",
        TWENTY,
        Meanwhile::Blind,
        |lab| lab.control_plane.change_authority(),
        |lab| {
            lab.control_plane.trust_other_authority()?;
            lab.renew_admin()
        },
    )?;
    outcome.tell(world);
    Ok(())
}

/// A namespace that is being deleted, and that something holds on to.
pub(crate) fn namespace_terminating(world: &mut World) -> anyhow::Result<()> {
    let lab = world.lab()?;
    lab.pair()?;
    let namespace = "terminating";
    let mut object = deployment("web", 2);
    object["metadata"]["namespace"] = json!(namespace);
    let holder = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "holder", "namespace": namespace, "finalizers": ["nagi.test/hold"]},
    });
    let items = json!([
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, object, holder,
    ]);
    lab.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?;
    let base = format!("/api/v1/deployments/{namespace}/web");
    let asleep = wait::until("the workload", SOON, || {
        let body =
            json!({"reason": "x", "scheduled_scale_up": crate::lab::in_(Duration::from_secs(6))});
        let answer = lab.first()?.post(&format!("{base}/scale-to-zero"), &body)?;
        Ok(if answer.status == 200 {
            Look::There(answer)
        } else {
            Look::NotYet(answer.text)
        })
    })?;
    lab.control_plane
        .kubectl()
        .arguments(["delete", "namespace", namespace, "--wait=false"])
        .succeed()?;
    for server in lab.servers() {
        wait::until("no such workload", SOON, || {
            let answer = server.get(&format!("{base}/status"))?;
            Ok(if answer.status == 404 {
                Look::There(())
            } else {
                Look::NotYet(answer.text)
            })
        })?;
        let up = server.post(
            &format!("{base}/scale-up"),
            &json!({"replicas": 1, "reason": "x"}),
        )?;
        ensure!(up.status == 404, "{up:?}");
        let scheduled = server.get("/api/v1/scheduled-scale-ups")?;
        ensure!(!scheduled.text.contains(namespace), "{scheduled:?}");
    }
    // Past the time for which it was scheduled nobody writes, and nobody fails at it.
    std::thread::sleep(Duration::from_secs(7));
    let written = lab.counts_written("web")?;
    ensure!(written.iter().all(|(_, count)| *count == 0), "{written:?}");
    let phase = lab.kube("GET", &format!("/api/v1/namespaces/{namespace}"), "")?;
    ensure!(phase.body["status"]["phase"] == "Terminating", "{phase:?}");
    let nulled = json!({"metadata": {"finalizers": null}}).to_string();
    lab.kube(
        "PATCH",
        &format!("/api/v1/namespaces/{namespace}/configmaps/holder"),
        &nulled,
    )?;
    ensure!(
        asleep.body["deployment"]["scheduled_scale_up"].is_string(),
        "{asleep:?}"
    );
    ensure!(
        lab.kube("GET", &format!("/api/v1/namespaces/{NAMESPACE}"), "")?
            .status
            == 200
    );
    world.saw(
        "404 for status and orders at both replicas, the schedule left the list, and nothing was written when it was due",
        "両方のレプリカで状態も命令も 404。スケジュールは一覧から消え、予定時刻に書き込みなし",
    );
    Ok(())
}
