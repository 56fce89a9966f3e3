//! A control plane with played nodes, and two replicas of the API as processes of this machine before it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nagi_e2e::faults::Words;
use nagi_e2e::wait::{self, Look};
use nagi_e2e::{ControlPlane, Delays, Options, Program};
use serde_json::{Value, json};

use crate::http::{Answer, exchange};

/// On two cores that others use too.
pub(crate) const SOON: Duration = Duration::from_mins(2);

/// Where the workloads are.
pub(crate) const NAMESPACE: &str = "project-a";
/// The group that has the rights of `src/api`.
const GROUP: &str = "faults";
/// Its binding, which a case takes away.
pub(crate) const BINDING: &str = "faults";

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

/// What the cases share.
#[derive(Debug, Default)]
pub(crate) struct World {
    lab: Option<Lab>,
    seen: Option<Words>,
    /// What the control plane took to start, which is no case's time.
    set_up: Duration,
}

/// A control plane, and what runs before it.
#[derive(Debug)]
pub(crate) struct Lab {
    // Dropped before the control plane, whose directory holds their logs.
    pub(crate) one: Option<Server>,
    pub(crate) two: Option<Server>,
    /// `kubectl proxy` as administrator.
    admin: Proxy,
    pub(crate) control_plane: ControlPlane,
    binary: PathBuf,
}

/// A replica of the API.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) program: Program,
    pub(crate) port: u16,
}

/// `kubectl proxy`: plain HTTP on this machine, to the API server as some user.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Ended when this is dropped.
    _program: Program,
    pub(crate) port: u16,
}

/// The codes with which the audit log says that a write was carried out, and that nobody waited for it any more.
const TAKEN: u64 = 200;
const TIMED_OUT: u64 = 504;

/// The count of a workload and what is remembered of it, as they lie in the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) replicas: u64,
    /// How often its spec was written, its creation included.
    pub(crate) generation: u64,
    pub(crate) annotations: Value,
}

// === impl World ===

impl World {
    pub(crate) fn lab(&mut self) -> anyhow::Result<&mut Lab> {
        if self.lab.is_none() {
            let begun = std::time::Instant::now();
            self.lab = Some(Lab::start()?);
            self.set_up = begun.elapsed();
        }
        self.lab.as_mut().context("it was just started")
    }

    /// What a case tells in the page.
    pub(crate) fn saw(&mut self, english: impl Into<String>, japanese: impl Into<String>) {
        self.seen = Some(Words::new(english, japanese));
    }

    pub(crate) fn take_set_up(&mut self) -> Duration {
        std::mem::take(&mut self.set_up)
    }

    pub(crate) fn take_seen(&mut self) -> Option<Words> {
        self.seen.take()
    }

    /// Adds the ends of the replicas' logs to a failure, and ends them: the next case begins with fresh ones.
    pub(crate) fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        let Some(lab) = &mut self.lab else {
            return error;
        };
        let servers = [lab.one.take(), lab.two.take()];
        let logs = servers.iter().flatten().map(|server| {
            let log = server.program.last_lines();
            format!("\n--- the end of the log of {}\n{log}", server.name)
        });
        anyhow::anyhow!("{error:#}{}", logs.collect::<String>())
    }
}

// === impl Lab ===

/// The root of the working copy.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Lab {
    fn start() -> anyhow::Result<Self> {
        let binary = nagi_e2e::build_nagi()?;
        let mut control_plane = ControlPlane::start("faults", &Options::default())?;
        control_plane.start_kwok(Delays {
            node_joins: Duration::ZERO,
            driver: Duration::ZERO,
            image_pull: Duration::ZERO,
            pod_starts: Duration::from_millis(300),
        })?;
        control_plane.add_fake_nodes(2)?;
        // A copy: a build in the middle of a long run changes nothing.
        let copy = control_plane.directory().join("nagi");
        std::fs::copy(&binary, &copy).with_context(|| format!("write {}", copy.display()))?;
        let manifests = root().join("src/api");
        for file in [
            "namespace.yaml",
            "manifests/serviceaccount.yaml",
            "manifests/rbac.yaml",
        ] {
            control_plane
                .kubectl()
                .arguments(["apply", "--filename"])
                .argument(manifests.join(file))
                .succeed()?;
        }
        let subject =
            json!([{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": GROUP}]);
        let role = |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
        let items = json!([
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            cluster_role_binding(),
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": BINDING, "namespace": "scale-system"},
                "roleRef": role("Role", "scale-api-lease"), "subjects": subject,
            },
        ]);
        let admin = Proxy::start(&control_plane, "admin", &control_plane.kubeconfig())?;
        let lab = Self {
            one: None,
            two: None,
            admin,
            control_plane,
            binary: copy,
        };
        lab.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?;
        Ok(lab)
    }

    /// The certificate of a replica, with the rights of `src/api`.
    pub(crate) fn user(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.control_plane.user(name, Some(GROUP))
    }

    /// Two replicas that are ready, the first of which leads.
    pub(crate) fn pair(&mut self) -> anyhow::Result<()> {
        for server in [&mut self.one, &mut self.two].into_iter().flatten() {
            server.program.check()?;
        }
        if self.one.is_some() && self.two.is_some() && self.leader()?.starts_with("one_") {
            return Ok(());
        }
        self.alone()?;
        let kubeconfig = self.user("two")?;
        self.two = Some(self.server("two", &kubeconfig, &[])?);
        self.ready().map(drop)
    }

    /// The first replica alone, which leads.
    fn alone(&mut self) -> anyhow::Result<()> {
        let kubeconfig = self.user("one")?;
        self.restart_as_leader(&kubeconfig, &[])
    }

    /// Ends both replicas and starts the first one anew with this configuration; it leads when this returns.
    pub(crate) fn restart_as_leader(
        &mut self,
        kubeconfig: &Path,
        more: &[(&str, String)],
    ) -> anyhow::Result<()> {
        self.one = None;
        self.two = None;
        self.let_lease_go()?;
        self.one = Some(self.server("one", kubeconfig, more)?);
        self.ready()?;
        self.wait_for_leader("one_", SOON).map(drop)
    }

    /// Starts a replica; it is not ready yet.
    pub(crate) fn server(
        &self,
        name: &'static str,
        kubeconfig: &Path,
        more: &[(&str, String)],
    ) -> anyhow::Result<Server> {
        let [port, metrics] = nagi_e2e::free_ports()?;
        let mut environment = vec![
            // The name in the Lease begins with it.
            ("HOSTNAME", name.to_owned()),
            ("HOME", self.control_plane.directory().display().to_string()),
            ("KUBECONFIG", kubeconfig.display().to_string()),
            ("PORT", port.to_string()),
            ("NAGI_METRICS_LISTEN", format!("127.0.0.1:{metrics}")),
            ("NAGI_RATE_LIMIT", "0".to_owned()),
            ("API_KEY", String::new()),
        ];
        environment.extend(more.iter().cloned());
        let arguments = ["server".to_owned()];
        let program = self.control_plane.start_program(
            &format!("nagi-{name}"),
            &self.binary,
            &arguments,
            &environment,
        )?;
        Ok(Server {
            name,
            program,
            port,
        })
    }

    /// The replicas that run.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Server> {
        [&self.one, &self.two].into_iter().flatten()
    }

    pub(crate) fn first(&self) -> anyhow::Result<&Server> {
        self.one.as_ref().context("the first replica runs")
    }

    pub(crate) fn second(&self) -> anyhow::Result<&Server> {
        self.two.as_ref().context("the second replica runs")
    }

    /// Waits until every replica says that it is ready; gives how long that took.
    pub(crate) fn ready(&mut self) -> anyhow::Result<Duration> {
        let begun = std::time::Instant::now();
        for server in [&mut self.one, &mut self.two].into_iter().flatten() {
            let what = format!("replica {}", server.name);
            wait::until(&what, SOON, || {
                server.program.check()?;
                Ok(match exchange(server.port, "GET", "/ready", JSON, "") {
                    Ok(answer) if answer.status == 200 => Look::There(()),
                    Ok(answer) => Look::NotYet(answer.text),
                    Err(error) => Look::NotYet(format!("{error:#}")),
                })
            })?;
        }
        Ok(begun.elapsed())
    }

    // --- the API server, as administrator

    pub(crate) fn kube(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
        let kind = if method == "PATCH" { MERGE } else { JSON };
        exchange(self.admin.port, method, path, kind, body)
    }

    /// The port of the administrator's way to the API server.
    pub(crate) fn admin_port(&self) -> u16 {
        self.admin.port
    }

    pub(crate) fn apply(&self, object: &Value) -> anyhow::Result<()> {
        self.control_plane
            .kubectl()
            .arguments(["apply", "--filename=-"])
            .input(object.to_string())
            .succeed()
    }

    /// Starts the administrator's own way in again, after its authority changed.
    pub(crate) fn renew_admin(&mut self) -> anyhow::Result<()> {
        self.admin = Proxy::start(
            &self.control_plane,
            "admin",
            &self.control_plane.kubeconfig(),
        )?;
        Ok(())
    }

    /// Makes a Deployment and waits until its pods are ready and every replica of the API says so.
    pub(crate) fn deployment(&self, name: &str, replicas: u64) -> anyhow::Result<()> {
        self.apply(&deployment(name, replicas))?;
        self.settled(name, replicas)
    }

    /// Waits until every replica of the API says that so many pods are wanted and serve.
    pub(crate) fn settled(&self, name: &str, replicas: u64) -> anyhow::Result<()> {
        for server in self.servers() {
            let what = format!("{replicas} pods of {name} at replica {}", server.name);
            wait::until(&what, SOON, || {
                let answer = server.get(&status(name))?;
                let item = &answer.body["deployment"];
                let counts = ["desired_replicas", "available_replicas", "current_replicas"];
                let fits =
                    answer.status == 200 && counts.iter().all(|count| item[*count] == replicas);
                Ok(if fits {
                    Look::There(())
                } else {
                    Look::NotYet(answer.text)
                })
            })?;
        }
        Ok(())
    }

    /// What the API server holds.
    pub(crate) fn kept(&self, name: &str) -> anyhow::Result<Kept> {
        let answer = self.kube("GET", &object(name), "")?;
        ensure!(answer.status == 200, "GET {name}: {}", answer.text);
        Ok(Kept {
            replicas: answer.body["spec"]["replicas"]
                .as_u64()
                .context("a count")?,
            generation: answer.body["metadata"]["generation"]
                .as_u64()
                .context("a generation")?,
            annotations: answer.body["metadata"]["annotations"].clone(),
        })
    }

    /// Waits until the API server holds this count, asked every 20 ms.
    pub(crate) fn wait_for_count(
        &self,
        name: &str,
        replicas: u64,
        limit: Duration,
    ) -> anyhow::Result<()> {
        wait::until(&format!("{replicas} wanted of {name}"), limit, || {
            Ok(match self.kept(name) {
                Ok(kept) if kept.replicas == replicas => Look::There(()),
                Ok(kept) => Look::NotYet(format!("{kept:?}")),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })
    }

    /// Writes of a count by Nagi that the API server took, as the audit log has them: who, and which count.
    pub(crate) fn counts_written(&self, name: &str) -> anyhow::Result<Vec<(String, u64)>> {
        let asked = self.counts_asked(name)?.into_iter();
        let taken = asked.filter(|(_, _, code)| *code == TAKEN);
        Ok(taken.map(|(user, count, _)| (user, count)).collect())
    }

    /// The same with those that were not taken, each with the code of its answer.
    fn counts_asked(&self, name: &str) -> anyhow::Result<Vec<(String, u64, u64)>> {
        let path = self.control_plane.audit_log();
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let quoted = format!("\"name\":\"{name}\"");
        let mut asked = Vec::new();
        for line in text.lines().filter(|line| line.contains(&quoted)) {
            let line: Value = serde_json::from_str(line).context("read a line of the audit log")?;
            let user = line["user"]["username"].as_str().unwrap_or_default();
            let is_ours = ["one", "two"].contains(&user) || user.ends_with(":scale-api-sa");
            let count = line["requestObject"]["spec"]["replicas"].as_u64();
            let code = line["responseStatus"]["code"].as_u64();
            if let (true, true, Some(count), Some(code)) =
                (is_ours, line["verb"] == "patch", count, code)
            {
                asked.push((user.to_owned(), count, code));
            }
        }
        Ok(asked)
    }

    /// Fails unless Nagi wrote this count exactly once.
    ///
    /// A write whose asker has gone may be carried out all the same, and stands in the audit log as timed out. Whether it
    /// was is seen by the generation, which every change of a count raises by one.
    pub(crate) fn wrote_once(&self, name: &str, replicas: u64) -> anyhow::Result<()> {
        let asked = self.counts_asked(name)?;
        let answered = |wanted: u64| {
            let of_count = asked.iter().filter(|(_, count, _)| *count == replicas);
            of_count.filter(|(_, _, code)| *code == wanted).count()
        };
        let times = answered(TAKEN);
        let mut once = times == 1;
        if times == 0 && answered(TIMED_OUT) > 0 {
            let taken = asked.iter().filter(|(_, _, code)| *code == TAKEN).count();
            once = self.kept(name)?.generation == u64::try_from(taken)? + 2;
        }
        ensure!(
            once,
            "{replicas} of {name} was written {times} times: {asked:?}"
        );
        Ok(())
    }

    // --- who leads

    pub(crate) fn leader(&self) -> anyhow::Result<String> {
        let answer = self.kube("GET", LEASE, "")?;
        let holder = answer.body["spec"]["holderIdentity"].as_str();
        Ok(holder.unwrap_or_default().to_owned())
    }

    /// Waits until a replica leads whose name in the Lease begins so; gives how long that took.
    pub(crate) fn wait_for_leader(
        &self,
        begins: &str,
        limit: Duration,
    ) -> anyhow::Result<Duration> {
        let begun = std::time::Instant::now();
        wait::until(&format!("leader {begins}"), limit, || {
            let leader = self.leader()?;
            Ok(if leader.starts_with(begins) {
                Look::There(())
            } else {
                Look::NotYet(leader)
            })
        })?;
        Ok(begun.elapsed())
    }

    /// Takes the Lease from a replica that is dead, as it would have let it go itself in order: saves 15 s where they prove
    /// nothing.
    pub(crate) fn let_lease_go(&self) -> anyhow::Result<()> {
        let body = json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}});
        let answer = self.kube("PATCH", LEASE, &body.to_string())?;
        ensure!([200, 404].contains(&answer.status), "{}", answer.text);
        Ok(())
    }
}

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/scale-system/leases/nagi-leader";

/// The binding that gives the replicas their rights.
pub(crate) fn cluster_role_binding() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": BINDING},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "scale-api-role"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": GROUP}],
    })
}

/// A Deployment for played nodes.
pub(crate) fn deployment(name: &str, replicas: u64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "web", "image": "nagi.test/none:1"}],
                },
            },
        },
    })
}

/// The path of a Deployment at the API server.
pub(crate) fn object(name: &str) -> String {
    format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}")
}

/// The path of a Deployment at the Scale API.
pub(crate) fn path(name: &str, verb: &str) -> String {
    format!("/api/v1/deployments/{NAMESPACE}/{name}/{verb}")
}

pub(crate) fn status(name: &str) -> String {
    path(name, "status")
}

/// An instant so far from now, as the API takes it.
pub(crate) fn in_(time: Duration) -> String {
    (jiff::Timestamp::now() + time).to_string()
}

// === impl Server ===

impl Server {
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Answer> {
        exchange(self.port, "GET", path, JSON, "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        exchange(self.port, "POST", path, JSON, &body.to_string())
    }

    /// A call that must succeed.
    pub(crate) fn order(&self, name: &str, verb: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.post(&path(name, verb), body)?;
        ensure!(
            [200, 202].contains(&answer.status),
            "{verb} of {name} at replica {}: {} {}",
            self.name,
            answer.status,
            answer.text
        );
        Ok(answer.body)
    }

    /// Puts a workload to sleep, with a wake at an instant.
    pub(crate) fn sleep(&self, name: &str, until: Option<&str>) -> anyhow::Result<Value> {
        let mut body = json!({"reason": "a test of faults"});
        if let Some(until) = until {
            body["scheduled_scale_up"] = json!(until);
        }
        self.order(name, "scale-to-zero", &body)
    }

    /// What it says of a workload.
    pub(crate) fn item(&self, name: &str) -> anyhow::Result<Value> {
        let mut answer = self.get(&status(name))?;
        if answer.status != 200 {
            bail!("status of {name}: {} {}", answer.status, answer.text);
        }
        Ok(answer.body["deployment"].take())
    }
}

// === impl Proxy ===

impl Proxy {
    pub(crate) fn start(
        control_plane: &ControlPlane,
        name: &str,
        kubeconfig: &Path,
    ) -> anyhow::Result<Self> {
        let [port, _] = nagi_e2e::free_ports()?;
        let arguments = [
            "proxy".to_owned(),
            format!("--port={port}"),
            format!("--kubeconfig={}", kubeconfig.display()),
            // By default it refuses what could run a program in a pod, and patches of some paths.
            "--reject-paths=^$".to_owned(),
            "--reject-methods=^$".to_owned(),
        ];
        let kubectl = nagi_e2e::tools::KUBERNETES.build()?.program("kubectl");
        let mut program =
            control_plane.start_program(&format!("proxy-{name}"), &kubectl, &arguments, &[])?;
        wait::until("kubectl proxy", SOON, || {
            program.check()?;
            Ok(match exchange(port, "GET", "/version", JSON, "") {
                Ok(answer) if answer.status == 200 => Look::There(()),
                Ok(answer) => Look::NotYet(answer.text),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })?;
        Ok(Self {
            _program: program,
            port,
        })
    }
}
