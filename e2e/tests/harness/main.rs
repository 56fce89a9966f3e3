//! The harness itself: what it promises to everyone who tests with it.
//!
//! The tests look only at what carries the name of their own cluster, since others may run on the same machine.

mod leftovers;
mod person;
mod played;

use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use leftovers::Leftovers;
use nagi_e2e::suite::{self, Needs, Test};
use nagi_e2e::wait::{self, Look};
use nagi_e2e::{Cluster, ClusterOptions, ControlPlane, Delays, NodeKind, Options, Where};
use serde_json::{Value, json};

const TESTS: &[Test<World>] = &[
    Test {
        name: "a_control_plane_on_the_loopback_keeps_objects_and_says_who_wrote_them",
        needs: Needs::Nothing,
        run: control_plane_on_the_loopback,
    },
    Test {
        name: "a_killed_component_comes_back_with_its_data",
        needs: Needs::Nothing,
        run: killed_component,
    },
    Test {
        name: "pods_on_fake_nodes_are_ready_without_a_machine",
        needs: Needs::Nothing,
        run: fake_nodes,
    },
    Test {
        name: "a_played_pool_goes_to_zero_and_comes_back_under_karpenter",
        needs: Needs::Nothing,
        run: played::pool,
    },
    Test {
        name: "every_standard_node_is_ready_with_its_labels_taints_and_devices",
        needs: Needs::Namespaces,
        run: standard_nodes,
    },
    Test {
        name: "a_pod_answers_by_address_by_service_and_by_name_from_every_node",
        needs: Needs::Namespaces,
        run: pods_answer,
    },
    Test {
        name: "logs_exec_and_top_reach_a_pod",
        needs: Needs::Namespaces,
        run: logs_exec_and_top,
    },
    Test {
        name: "an_empty_node_goes_and_a_pod_that_needs_it_brings_it_back",
        needs: Needs::Namespaces,
        run: autoscaled_node,
    },
    Test {
        name: "a_broken_node_is_not_ready_and_a_new_one_takes_its_place",
        needs: Needs::Namespaces,
        run: broken_node,
    },
    Test {
        name: "a_second_cluster_runs_beside_the_first",
        needs: Needs::Namespaces,
        run: second_cluster,
    },
    Test {
        name: "a_cluster_that_was_stopped_leaves_nothing",
        needs: Needs::Namespaces,
        run: stopped_cluster,
    },
    Test {
        name: "what_a_killed_harness_left_is_taken_away_by_the_next_start",
        needs: Needs::Namespaces,
        run: killed_harness,
    },
    Test {
        name: "the_commands_of_a_person_start_show_and_end_a_cluster",
        needs: Needs::Namespaces,
        run: person::commands,
    },
    Test {
        name: "an_interrupted_start_leaves_nothing",
        needs: Needs::Namespaces,
        run: person::interrupted,
    },
    Test {
        name: "without_root_there_is_a_control_plane_and_tests_of_pods_are_skipped",
        needs: Needs::Namespaces,
        run: person::nobody,
    },
];

/// With this the program is not a test but a harness that is about to be killed.
const HOLD: &str = "--hold";

/// The cluster that the tests share.
const SHARED: &str = "harness";
/// The cluster of the harness that is killed.
const HELD: &str = "harness-held";

/// On two cores that others use too.
const LIMIT: Duration = Duration::from_mins(2);

/// What the tests share.
#[derive(Default)]
struct World {
    cluster: Option<Cluster>,
}

// === impl World ===

impl World {
    fn cluster(&mut self) -> anyhow::Result<&mut Cluster> {
        if self.cluster.is_none() {
            let cluster = Cluster::start(SHARED, &ClusterOptions::default())?;
            self.cluster = Some(cluster);
        }
        self.cluster.as_mut().context("it was just started")
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(HOLD) => hold(),
        Some(person::CLUSTER) => person(&arguments.collect::<Vec<_>>()),
        Some(_) | None => suite::run(TESTS),
    }
}

/// Runs a command of `cargo xtask cluster`.
#[expect(clippy::print_stderr, reason = "as the command itself does it")]
fn person(words: &[String]) -> ExitCode {
    match nagi_e2e::command::run(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts a cluster and keeps it until this process is killed.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "how it tells the test that started it"
)]
fn hold() -> ExitCode {
    match Cluster::start(HELD, &ClusterOptions::default()) {
        Ok(_cluster) => {
            println!("up");
            loop {
                std::thread::park();
            }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn control_plane_on_the_loopback(_world: &mut World) -> anyhow::Result<()> {
    let control_plane = ControlPlane::start("harness-loopback", &loopback())?;
    create_deployment(&control_plane)?;
    let audit = std::fs::read_to_string(control_plane.audit_log())?;
    let written = audit.lines().any(|line| {
        let line: Value = serde_json::from_str(line).expect("each line is an object");
        line["verb"] == "create"
            && line["user"]["username"] == "admin"
            && line["objectRef"]["resource"] == "deployments"
            && line["requestObject"]["spec"]["replicas"] == 3
    });
    ensure!(written, "the audit log names the writer and the count");
    let directory = control_plane.directory().to_owned();
    let server = control_plane.process("kube-apiserver")?;
    control_plane.stop()?;
    ensure!(!directory.exists(), "no file is left");
    ensure!(!server.is_running(), "no process is left");
    Ok(())
}

fn killed_component(_world: &mut World) -> anyhow::Result<()> {
    let mut control_plane = ControlPlane::start("harness-restart", &loopback())?;
    create_deployment(&control_plane)?;
    for component in ["kube-apiserver", "etcd"] {
        let before = control_plane.process(component)?;
        control_plane.kill(component)?;
        ensure!(!before.is_running(), "{component} is dead");
        control_plane.restart(component)?;
        control_plane.wait_until_ready()?;
        ensure!(control_plane.process(component)? != before);
    }
    ensure!(replicas(&control_plane)? == "3");
    control_plane.stop()
}

fn fake_nodes(_world: &mut World) -> anyhow::Result<()> {
    let mut control_plane = ControlPlane::start("harness-fake", &loopback())?;
    control_plane.start_kwok(Delays::default())?;
    control_plane.add_fake_nodes(2)?;
    create_deployment(&control_plane)?;
    control_plane
        .kubectl()
        .arguments(["wait", "deployment/web", "--for=condition=Available"])
        .argument("--timeout=110s")
        .limit(LIMIT)
        .succeed()?;
    control_plane.stop()
}

fn loopback() -> Options {
    Options {
        place: Where::Loopback,
        ..Options::default()
    }
}

fn create_deployment(control_plane: &ControlPlane) -> anyhow::Result<()> {
    control_plane
        .kubectl()
        .arguments(["create", "deployment", "web", "--image=nagi.test/none:1"])
        .argument("--replicas=3")
        .succeed()?;
    ensure!(replicas(control_plane)? == "3");
    Ok(())
}

fn replicas(control_plane: &ControlPlane) -> anyhow::Result<String> {
    control_plane
        .kubectl()
        .arguments(["get", "deployment", "web"])
        .argument("--output=jsonpath={.spec.replicas}")
        .output()
}

fn standard_nodes(world: &mut World) -> anyhow::Result<()> {
    let cluster = world.cluster()?;
    for kind in NodeKind::standard() {
        let text = cluster
            .kubectl()
            .arguments(["get", "node", &kind.name, "--output=json"])
            .output()?;
        let node: Value = serde_json::from_str(&text)?;
        for (key, value) in &kind.labels {
            ensure!(node["metadata"]["labels"][key] == *value, "{key}={value}");
        }
        let taints = node["spec"]["taints"].as_array().map_or(0, Vec::len);
        ensure!(
            taints == kind.taints.len(),
            "{}: {}",
            kind.name,
            node["spec"]
        );
        if let Some((resource, count)) = &kind.devices {
            ensure!(node["status"]["allocatable"][resource] == count.to_string());
        }
    }
    Ok(())
}

/// A pod of the web server on one node.
fn web_pod(image: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("web-{node}"), "labels": {"app": "web", "on": node}},
        "spec": {
            "nodeSelector": {"agentpool": node},
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "web",
                "image": image,
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
            }],
        },
    })
}

/// Web servers on all nodes, and a Service in front of the one on the second.
fn start_web_pods(cluster: &Cluster) -> anyhow::Result<()> {
    let image = cluster.load_web_image()?;
    let mut items: Vec<Value> = NodeKind::standard()
        .iter()
        .map(|kind| web_pod(image, &kind.name))
        .collect();
    items.push(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web", "on": "projecta"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    apply(cluster, &list)?;
    wait_until_ready(cluster, "--selector=app=web")
}

fn apply(cluster: &Cluster, object: &Value) -> anyhow::Result<()> {
    cluster
        .kubectl()
        .arguments(["apply", "--filename=-"])
        .input(object.to_string())
        .succeed()
}

/// `which` is the name of a pod or a selector.
fn wait_until_ready(cluster: &Cluster, which: &str) -> anyhow::Result<()> {
    cluster
        .kubectl()
        .arguments(["wait", "pods", which])
        .arguments(["--for=condition=Ready", "--timeout=110s"])
        .limit(LIMIT)
        .succeed()
}

fn pods_answer(world: &mut World) -> anyhow::Result<()> {
    let cluster = world.cluster()?;
    start_web_pods(cluster)?;
    let of_service = cluster
        .kubectl()
        .arguments([
            "get",
            "service",
            "web",
            "--output=jsonpath={.spec.clusterIP}",
        ])
        .output()?;
    for kind in NodeKind::standard() {
        let pod = format!("web-{}", kind.name);
        let address = cluster
            .kubectl()
            .arguments(["get", "pod", &pod, "--output=jsonpath={.status.podIP}"])
            .output()?;
        // From the machine itself, past every Service.
        let from_machine = get(&format!("{address}:8080"))?;
        ensure!(
            from_machine.ends_with(&format!("{pod}\n")),
            "{from_machine}"
        );
        for host in [of_service.as_str(), "web", "web.default.svc.cluster.local"] {
            let url = format!("http://{host}/");
            // Rules of a new Service reach the nodes one by one.
            wait::until(&format!("an answer to {pod} from {url}"), LIMIT, || {
                let ended = cluster
                    .kubectl()
                    .arguments(["exec", &pod, "--", "/web", "-limit=2s", "-get", &url])
                    .end()?;
                Ok(if ended.output == "web-projecta\n" {
                    Look::There(())
                } else {
                    Look::NotYet(format!("{}{}", ended.output, ended.errors))
                })
            })?;
        }
    }
    Ok(())
}

/// A plain request; the answer with its head.
fn get(address: &str) -> anyhow::Result<String> {
    use std::io::{Read, Write};
    let mut connection = std::net::TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        connection,
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

fn logs_exec_and_top(world: &mut World) -> anyhow::Result<()> {
    let cluster = world.cluster()?;
    let log = cluster
        .kubectl()
        .arguments(["logs", "deployment/coredns", "--namespace=kube-system"])
        .output()?;
    ensure!(log.contains("CoreDNS"), "{log}");
    wait::until("figures of nodes and pods", LIMIT, || {
        let ended = cluster.kubectl().arguments(["top", "nodes"]).end()?;
        Ok(
            if ended.status.success() && ended.output.contains("projectb") {
                Look::There(())
            } else {
                Look::NotYet(format!("{}{}", ended.output, ended.errors))
            },
        )
    })
}

fn autoscaled_node(world: &mut World) -> anyhow::Result<()> {
    let cluster = world.cluster()?;
    let image = cluster.load_web_image()?;
    cluster
        .kubectl()
        .arguments(["delete", "pods", "--selector=app=web", "--wait=true"])
        .succeed()?;
    let _autoscaler = cluster.autoscale(Duration::from_secs(1))?;
    wait::until("the empty nodes to go", LIMIT, || {
        let nodes = nodes(cluster)?;
        Ok(if nodes == "system" {
            Look::There(())
        } else {
            Look::NotYet(nodes)
        })
    })?;
    let mut pod = web_pod(image, "projectb");
    pod["metadata"]["name"] = json!("gpu");
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"nvidia.com/gpu": 1}});
    apply(cluster, &pod)?;
    wait_until_ready(cluster, "gpu")?;
    ensure!(
        nodes(cluster)? == "projectb system",
        "only the node that is needed came"
    );
    let reasons = cluster
        .kubectl()
        .arguments(["get", "events", "--field-selector=involvedObject.name=gpu"])
        .argument("--output=jsonpath={.items[*].reason}")
        .output()?;
    for reason in ["FailedScheduling", "TriggeredScaleUp"] {
        ensure!(reasons.contains(reason), "{reasons}");
    }
    cluster
        .kubectl()
        .arguments(["delete", "pod", "gpu", "--wait=true"])
        .succeed()?;
    wait::until("node projectb to go", LIMIT, || {
        let nodes = nodes(cluster)?;
        Ok(if nodes == "system" {
            Look::There(())
        } else {
            Look::NotYet(nodes)
        })
    })
}

fn broken_node(world: &mut World) -> anyhow::Result<()> {
    let cluster = world.cluster()?;
    let kind = NodeKind::standard()
        .into_iter()
        .find(|kind| kind.name == "projecta")
        .context("there is a node for project a")?;
    if !nodes(cluster)?.contains(&kind.name) {
        cluster.add_node(&kind)?;
    }
    ensure!(
        cluster.break_node("system").is_err(),
        "the control plane stays"
    );
    let kubelet = cluster.node_process(&kind.name, "kubelet")?;
    cluster.break_node(&kind.name)?;
    ensure!(!kubelet.is_running());
    cluster
        .kubectl()
        .arguments(["wait", "node", &kind.name, "--for=condition=Ready=Unknown"])
        .argument("--timeout=110s")
        .limit(LIMIT)
        .succeed()?;
    // The same name comes back, as a machine that was repaired.
    cluster.add_node(&kind)
}

fn nodes(cluster: &Cluster) -> anyhow::Result<String> {
    cluster
        .kubectl()
        .arguments(["get", "nodes"])
        .argument("--output=jsonpath={.items[*].metadata.name}")
        .output()
}

fn second_cluster(world: &mut World) -> anyhow::Result<()> {
    let first = world.cluster()?.control_plane().server().to_owned();
    let second = ControlPlane::start("harness-second", &Options::default())?;
    ensure!(second.server() != first);
    create_deployment(&second)?;
    let directory = second.directory().to_owned();
    second.stop()?;
    let left = Leftovers::of("harness-second", &directory)?;
    ensure!(left.is_empty(), "{left:?}");
    // The first one is as it was.
    world
        .cluster()?
        .kubectl()
        .arguments(["get", "nodes"])
        .succeed()
}

fn stopped_cluster(world: &mut World) -> anyhow::Result<()> {
    let cluster = world.cluster()?;
    start_web_pods_on_what_is_there(cluster)?;
    let directory = cluster.control_plane().directory().to_owned();
    let before = Leftovers::of(SHARED, &directory)?;
    ensure!(
        before.is_complete(),
        "the search finds a running cluster: {before:?}"
    );
    world.cluster.take().context("it is there")?.stop()?;
    let left = Leftovers::of(SHARED, &directory)?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// A running container makes the search harder than an empty node; the node that is always there will do.
fn start_web_pods_on_what_is_there(cluster: &Cluster) -> anyhow::Result<()> {
    let image = cluster.load_web_image()?;
    let mut pod = web_pod(image, "system");
    pod["metadata"]["name"] = json!("left");
    apply(cluster, &pod)?;
    wait_until_ready(cluster, "left")
}

#[expect(
    clippy::disallowed_methods,
    reason = "a harness of its own, to be killed"
)]
fn killed_harness(_world: &mut World) -> anyhow::Result<()> {
    let directory = nagi_e2e::cache::directory()?.join("clusters").join(HELD);
    let mut harness = Held(
        Command::new(std::env::current_exe()?)
            .arg(HOLD)
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut line = String::new();
    let output = harness.0.stdout.take().context("its output is piped")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
    ensure!(line == "up\n", "the held cluster is up");
    harness.0.kill()?;
    harness.0.wait()?;
    let left = Leftovers::of(HELD, &directory)?;
    ensure!(left.is_complete(), "it had no chance to clean up: {left:?}");
    // Any start does it, not only one with the same name.
    let next = ControlPlane::start("harness-next", &loopback())?;
    let left = Leftovers::of(HELD, &directory)?;
    ensure!(left.is_empty(), "{left:?}");
    next.stop()
}

/// A child that does not outlive a failed test.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}
