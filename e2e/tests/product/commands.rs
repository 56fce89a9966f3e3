//! The founding documents' commands, word for word, against Nagi on a real Kubernetes with the real kubectl.
//!
//! `tests/seeds/commands.yaml` holds them. They run inside the cluster, where `localhost` is nobody else's: port-forwards
//! listen where the documents say, and the name of the Service is resolved by the cluster's own DNS. Worlds that a command
//! names are made one after the other; within a world the order is that of the documents, because there they build on each
//! other. What a command takes away and the documents do not bring back, is brought back before the next one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use nagi_e2e::call::{Call, Ended};
use nagi_e2e::wait::{self, Look};
use nagi_seeds::{CURL_SETTINGS, Command, Expectation, World as Seen};

use crate::World;
use crate::installed::{API, Installed, SOON, TEST_POD};

/// What `<api-key>` stands for in the table.
const KEY: &str = "seed-key";
const SAMPLE: &str = "/api/v1/deployments/project-a/sample-app-a";

/// A tag of the same image under which `kubectl set image` finds it.
pub(crate) const NEW_IMAGE: &str = "scale-api:next";

/// The file that one of the commands applies.
const CONFIGURATION: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: { name: scale-api-config, namespace: scale-system }
data: { LOG_LEVEL: debug }
";

/// While this exists the API server refuses what the Scale API writes to the Deployments in project-a with this label.
const REFUSAL: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: { name: a-test-refuses }
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{ apiGroups: [apps], apiVersions: ["*"], operations: [UPDATE], resources: [deployments] }]
  validations: [{ expression: "false", message: a test refuses it }]
  matchConditions:
  - { name: by-nagi, expression: "request.userInfo.username == 'system:serviceaccount:scale-system:scale-api-sa'" }
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: { name: a-test-refuses }
spec: { policyName: a-test-refuses, validationActions: [Deny] }
"#;

/// Ends a command at its first output; it, and what it left in the background, is one process group.
pub(crate) const UNTIL_OUTPUT: &str = r#"
rm -f output errors
setsid bash --noprofile --norc -c "set -o pipefail
$ENDLESS" >output 2>errors &
group=$!
for ((look = 0; look < 600; look++)); do
  [[ -s output ]] && break
  sleep 0.1
done
kill -TERM -- "-$group"
wait "$group" 2>/dev/null
cat output
[[ -s output ]] || { cat errors; exit 1; }
"#;

// F01 to F23 and F36; each row stands beside its command in the table.
pub(crate) fn all(world: &mut World) -> anyhow::Result<()> {
    let mut tour = Tour::new(world.installed()?)?;
    let ran = tour.everything();
    tour.clean_up()?;
    ran?;
    tour.judge()
}

/// Runs commands and keeps what came of them.
pub(crate) struct Tour<'a> {
    pub(crate) installed: &'a mut Installed,
    /// Where the commands' curl finds its settings.
    home: PathBuf,
    runs: BTreeMap<Seen, usize>,
    exempt: BTreeMap<String, usize>,
    lines: usize,
    failures: Vec<String>,
}

impl<'a> Tour<'a> {
    pub(crate) fn new(installed: &'a mut Installed) -> anyhow::Result<Self> {
        let directory = installed.directory();
        let home = directory.join("home");
        std::fs::create_dir_all(&home).context("make a home directory")?;
        std::fs::write(home.join(".curlrc"), CURL_SETTINGS).context("write .curlrc")?;
        std::fs::write(directory.join("updated-configmap.yaml"), CONFIGURATION)
            .context("write a ConfigMap")?;
        let of_node = "docker.io/library/scale-api";
        installed.succeed(&format!(
            "ctr --namespace k8s.io images tag --force {of_node}:$(kubectl get deployment scale-api -n scale-system \
             -o 'jsonpath={{.spec.template.spec.containers[0].image}}' | cut -d: -f2) {of_node}:next"
        ))?;
        Ok(Self {
            installed,
            home,
            runs: BTreeMap::new(),
            exempt: BTreeMap::new(),
            lines: 0,
            failures: Vec::new(),
        })
    }

    fn everything(&mut self) -> anyhow::Result<()> {
        self.world(&[Seen::Down])?;
        self.world(&[Seen::Open])?;
        self.without_sample()?;
        self.world(&[Seen::Empty])?;
        self.sample(1)?;
        self.refusal(true)?;
        self.world(&[Seen::Refused])?;
        self.refusal(false)?;
        self.away()?;
        self.keyed()?;
        self.world(&[Seen::Keyed])?;
        self.world(&[Seen::Kubernetes])
    }

    /// The installation as it was before, for the tests behind this one.
    pub(crate) fn clean_up(&self) -> anyhow::Result<()> {
        self.stop_forwards()?;
        self.installed.succeed(
            "kubectl delete secret scale-api-key -n scale-system --ignore-not-found
             kubectl delete configmap scale-api-config -n scale-system --ignore-not-found
             kubectl delete validatingadmissionpolicy,validatingadmissionpolicybinding a-test-refuses --ignore-not-found
             kubectl delete deployment scale-api -n scale-system --ignore-not-found
             kubectl apply -k src/api",
        )?;
        self.api_settled()
    }

    /// Runs what is expected of any command in these worlds.
    fn world(&mut self, worlds: &[Seen]) -> anyhow::Result<()> {
        self.some(worlds, |_| true)
    }

    fn some(&mut self, worlds: &[Seen], wanted: impl Fn(&Command) -> bool) -> anyhow::Result<()> {
        for document in nagi_seeds::documents() {
            for seed in document.commands.iter().filter(|seed| wanted(seed)) {
                for expect in &seed.expect {
                    if seed.exempt.is_some() || !worlds.contains(&expect.world) {
                        continue;
                    }
                    let place = format!("{} line {}", document.document, seed.line);
                    let wrong = self
                        .one(seed, expect)
                        .with_context(|| format!("run {place}: {}", seed.command))?;
                    *self.runs.entry(expect.world).or_default() += 1;
                    if !wrong.is_empty() {
                        self.failures.push(format!(
                            "{place} ({:?}): {}\n    {}",
                            expect.world,
                            seed.command,
                            wrong.join("\n    ")
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs one command; gives what is not as expected.
    fn one(&mut self, seed: &Command, expect: &Expectation) -> anyhow::Result<Vec<String>> {
        self.prepare(seed, expect)?;
        let before = seed.before.as_deref().unwrap_or_default();
        let ended = self.run(seed, before)?;
        let mut wrong = expect.differences(ended.status.code(), &ended.output, &ended.errors);
        if let Some(after) = &expect.after {
            let comes = wait::until("what must be so afterwards", SOON, || {
                let ended = self.with_home(self.installed.bash(after)?).end()?;
                Ok(if ended.status.success() {
                    Look::There(())
                } else {
                    Look::NotYet(format!("{}{}", ended.output, ended.errors))
                })
            });
            if let Err(error) = comes {
                wrong.push(format!("fails afterwards: {after}: {error:#}"));
            }
        }
        if let Some(count) = expect.settles {
            self.installed.settle("project-a", "sample-app-a", count)?;
        }
        self.undo(seed)?;
        Ok(wrong)
    }

    fn run(&self, seed: &Command, before: &str) -> anyhow::Result<Ended> {
        let command = seed.filled();
        let values = |call: Call| {
            self.with_home(call)
                .environment("TEST_POD", TEST_POD)
                .environment("NEW_IMAGE", NEW_IMAGE)
        };
        if seed.endless {
            let call = self.installed.bash(UNTIL_OUTPUT)?;
            return values(call.environment("ENDLESS", command)).end();
        }
        values(self.installed.bash(&format!("{before}\n{command}"))?).end()
    }

    /// More settings for the commands' curl.
    pub(crate) fn add_settings(&self, more: &str) -> anyhow::Result<()> {
        std::fs::write(self.home.join(".curlrc"), format!("{CURL_SETTINGS}{more}"))
            .context("write .curlrc")
    }

    /// A person's curl finds its settings at home.
    pub(crate) fn with_home(&self, call: Call) -> Call {
        call.environment("HOME", &self.home)
    }

    /// What the command finds: the sample as its world says, an API behind `localhost`, logs that hold something.
    fn prepare(&mut self, seed: &Command, expect: &Expectation) -> anyhow::Result<()> {
        let text = seed.filled();
        let holds = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let has_sample = match expect.world {
            Seen::Open | Seen::Keyed | Seen::Refused => true,
            Seen::Kubernetes => holds(&["project", "sample-app"]),
            Seen::Down | Seen::Away | Seen::Empty | Seen::Local | Seen::Log => false,
        };
        if has_sample {
            self.sample(expect.replicas)?;
        }
        if expect.world == Seen::Kubernetes {
            if holds(&[
                "logs",
                "exec",
                "top",
                "curl",
                "port-forward",
                "endpoints",
                "describe",
                "get pods",
            ]) {
                self.api_settled()?;
            }
            if holds(&["logs"]) {
                self.fill_logs()?;
            }
            if holds(&["--previous"]) {
                self.restart_containers()?;
            }
            if holds(&["top"]) {
                self.figures()?;
            }
        }
        let has_forwards = match expect.world {
            Seen::Down | Seen::Away | Seen::Local | Seen::Log => false,
            Seen::Open | Seen::Keyed | Seen::Empty | Seen::Refused | Seen::Kubernetes => {
                holds(&["curl"]) && !holds(&["exec"])
            }
        };
        if has_forwards {
            self.forwards()
        } else {
            self.stop_forwards()
        }
    }

    /// Brings back what the documents leave changed.
    fn undo(&self, seed: &Command) -> anyhow::Result<()> {
        let text = &seed.command;
        if text.contains(r#""name":"API_KEY""#) {
            self.installed
                .succeed("kubectl set env deployment/scale-api -n scale-system API_KEY-")?;
        }
        if text.contains("kubectl apply -f /path/to/serviceaccount.yaml") {
            // The tokens of pods are those of the account before. The other document restarts them itself.
            self.installed
                .succeed("kubectl rollout restart deployment/scale-api -n scale-system")?;
        }
        if text.contains("--replicas=3") {
            self.installed
                .succeed("kubectl scale deployment scale-api --replicas=2 -n scale-system")?;
        }
        Ok(())
    }

    /// Brings the sample to a count of pods that run.
    pub(crate) fn sample(&self, replicas: u32) -> anyhow::Result<()> {
        self.installed
            .succeed("kubectl get deployment sample-app-a -n project-a >/dev/null 2>&1 || kubectl apply -k src/samples/app-a")?;
        self.installed.succeed(&format!(
            "[[ $(kubectl get deployment sample-app-a -n project-a -o 'jsonpath={{.spec.replicas}}') == {replicas} ]] || \
             kubectl scale deployment sample-app-a -n project-a --replicas={replicas}"
        ))?;
        self.installed.settle("project-a", "sample-app-a", replicas)
    }

    /// Waits until the Scale API is as it was asked to be.
    pub(crate) fn api_settled(&self) -> anyhow::Result<()> {
        self.installed.succeed(
            "kubectl get deployment/scale-api -n scale-system >/dev/null 2>&1 || kubectl apply -k src/api
             kubectl rollout status deployment/scale-api -n scale-system --timeout=300s",
        )?;
        self.installed.settle("scale-system", "scale-api", 2)
    }

    /// Every pod answers, refuses and fails once: whichever of them `kubectl logs` takes has all of it.
    pub(crate) fn fill_logs(&self) -> anyhow::Result<()> {
        self.sample(1)?;
        self.refusal(true)?;
        let script = format!(
            r#"
for address in $(kubectl get pods -n scale-system -l app.kubernetes.io/name=scale-api -o 'jsonpath={{.items[*].status.podIP}}'); do
  call() {{ curl --disable -s --max-time 20 -o /dev/null -w '%{{http_code}}\n' "$@"; }}
  for n in 1 2 3 4 5; do call -H 'Authorization: Bearer {KEY}' "http://$address:8080{SAMPLE}/status"; done
  call -X POST "http://$address:8080{SAMPLE}/scale-to-zero"
  call -X POST -H 'Authorization: Bearer {KEY}' -d '{{"reason":"a log to read"}}' "http://$address:8080{SAMPLE}/scale-to-zero"
done
"#
        );
        let statuses = self.installed.output(&script)?;
        self.refusal(false)?;
        for status in ["200", "401", "500"] {
            if statuses.lines().filter(|line| *line == status).count() < 2 {
                bail!("two pods were to answer {status} each:\n{statuses}");
            }
        }
        Ok(())
    }

    /// Lets the API server refuse what the Scale API writes, or accept it again; returns when it does.
    fn refusal(&self, is_wanted: bool) -> anyhow::Result<()> {
        let verb = if is_wanted { "apply" } else { "delete" };
        self.installed.succeed(&format!(
            "kubectl {verb} -f - <<'REFUSAL'\n{REFUSAL}\nREFUSAL"
        ))?;
        let probe = "kubectl annotate deployment sample-app-a -n project-a nagi.dev/reason=probe --overwrite --dry-run=server \
             --as=system:serviceaccount:scale-system:scale-api-sa";
        wait::until("a policy to take effect", SOON, || {
            let ended = self.installed.end(probe)?;
            Ok(if ended.status.success() == is_wanted {
                Look::NotYet(format!("{}{}", ended.output, ended.errors))
            } else {
                Look::There(())
            })
        })
    }

    /// Kills the program in each of its containers; kubelet starts it again.
    pub(crate) fn restart_containers(&self) -> anyhow::Result<()> {
        self.installed.succeed(
            r"
for container in $(kubectl get pods -n scale-system -l app.kubernetes.io/name=scale-api -o 'jsonpath={.items[*].status.containerStatuses[0].containerID}'); do
  ctr --namespace k8s.io tasks kill --signal SIGKILL ${container#containerd://}
done",
        )?;
        wait::until("containers that were started again", SOON, || {
            let counts = self.installed.output(
                "kubectl get pods -n scale-system -l app.kubernetes.io/name=scale-api -o 'jsonpath={.items[*].status.containerStatuses[0].restartCount}'",
            )?;
            Ok(if counts.split_whitespace().all(|count| count != "0") {
                Look::There(())
            } else {
                Look::NotYet(counts)
            })
        })
    }

    pub(crate) fn figures(&self) -> anyhow::Result<()> {
        wait::until("figures of the pods", SOON, || {
            let ended = self
                .installed
                .end("kubectl top pods -n scale-system && kubectl top nodes")?;
            Ok(
                if ended.status.success() && ended.output.contains("scale-api") {
                    Look::There(())
                } else {
                    Look::NotYet(format!("{}{}", ended.output, ended.errors))
                },
            )
        })
    }

    /// The port-forward that the documents' curl needs. One whose pod is gone is made anew.
    pub(crate) fn forwards(&self) -> anyhow::Result<()> {
        let begin = r#"
curl --disable -s --max-time 5 -o /dev/null http://localhost:8080/health &&
  curl --disable -s --max-time 5 -o /dev/null http://localhost:9090/metrics && exit 0
[[ -s forward ]] && kill "$(<forward)" 2>/dev/null
rm -f forwarded
setsid kubectl port-forward -n scale-system svc/scale-api 8080:80 9090:9090 >forwarded 2>&1 </dev/null &
echo $! >forward
for ((look = 0; look < 300; look++)); do
  grep -qs 'Forwarding from 127.0.0.1:9090' forwarded && exit 0
  kill -0 $! 2>/dev/null || break
  sleep 0.1
done
cat forwarded
exit 1"#;
        wait::until("a port-forward", SOON, || {
            let ended = self.installed.end(begin)?;
            Ok(if ended.status.success() {
                Look::There(())
            } else {
                Look::NotYet(format!("{}{}", ended.output, ended.errors))
            })
        })
    }

    pub(crate) fn stop_forwards(&self) -> anyhow::Result<()> {
        self.installed.succeed(
            r#"
[[ -s forward ]] || exit 0
kill "$(<forward)" 2>/dev/null
rm forward"#,
        )
    }

    fn without_sample(&self) -> anyhow::Result<()> {
        self.stop_forwards()?;
        self.installed
            .succeed("kubectl delete deployment sample-app-a -n project-a")?;
        self.installed.succeed(&format!(
            "for ((look = 0; look < 100; look++)); do
               [[ $(curl --disable -s -o /dev/null -w '%{{http_code}}' {API}{SAMPLE}/status) == 404 ]] && exit 0
               sleep 0.1
             done; exit 1"
        ))
    }

    /// The API server stands still. A port-forward goes through it, so `localhost` is here the address of the Service.
    fn away(&mut self) -> anyhow::Result<()> {
        self.stop_forwards()?;
        let address = self
            .installed
            .output("kubectl get svc scale-api -n scale-system -o 'jsonpath={.spec.clusterIP}'")?;
        let pods = self.installed.output(
            "kubectl get pods -n scale-system -l app.kubernetes.io/name=scale-api -o 'jsonpath={.items[*].status.podIP}'",
        )?;
        let settings = self.home.join(".curlrc");
        std::fs::write(
            &settings,
            format!("{CURL_SETTINGS}connect-to = \"localhost:8080:{address}:80\"\n"),
        )
        .context("write .curlrc")?;
        self.installed
            .cluster
            .control_plane()
            .suspend("kube-apiserver")?;
        let ran = self.while_away(&pods);
        self.installed
            .cluster
            .control_plane()
            .resume("kube-apiserver")?;
        ran?;
        std::fs::write(&settings, CURL_SETTINGS).context("write .curlrc")?;
        self.installed
            .cluster
            .control_plane_mut()
            .wait_until_ready()?;
        // What is read from the log can be read when it is back.
        self.some(&[Seen::Away], |seed| !seed.command.contains("curl"))?;
        wait::until("a Scale API that is ready again", SOON, || {
            let answer = self.installed.http(&format!("{API}/ready"), "")?;
            Ok(if answer.status == 200 {
                Look::There(())
            } else {
                Look::NotYet(answer.text)
            })
        })
    }

    /// Not before each replica has noticed that nobody answers is there a log of it.
    fn while_away(&mut self, pods: &str) -> anyhow::Result<()> {
        self.some(&[Seen::Away], |seed| seed.command.contains("curl"))?;
        for address in pods.split_whitespace() {
            let status = format!("http://{address}:8080{SAMPLE}/status");
            wait::until("a replica that says what it does not know", SOON, || {
                let answer = self.installed.http(&status, "")?;
                Ok(if answer.status == 503 {
                    Look::There(())
                } else {
                    Look::NotYet(answer.text)
                })
            })?;
        }
        Ok(())
    }

    /// From now on the Scale API asks for a key, from the Secret that the manifest names. The scripts send it.
    pub(crate) fn keyed(&self) -> anyhow::Result<()> {
        self.installed.succeed(&format!(
            "kubectl create secret generic scale-api-key -n scale-system --from-literal=api-key={KEY} && \
             kubectl rollout restart deployment/scale-api -n scale-system"
        ))?;
        self.api_settled()?;
        self.sample(1)?;
        let script = format!("SCALE_API_ENDPOINT={API} tests/integration/test-get-status.sh");
        self.installed.succeed(&format!("API_KEY={KEY} {script}"))?;
        let ended = self.installed.end(&script)?;
        ensure!(
            ended.status.code() == Some(1) && ended.output.contains("Unauthorized"),
            "{}",
            ended.output
        );
        Ok(())
    }

    /// Says what was run, and fails when anything was not as expected.
    #[expect(
        clippy::print_stdout,
        reason = "for the person who reads the report of the tests"
    )]
    fn judge(mut self) -> anyhow::Result<()> {
        for document in nagi_seeds::documents() {
            for seed in &document.commands {
                match &seed.exempt {
                    Some(reason) => *self.exempt.entry(reason.clone()).or_default() += 1,
                    None => self.lines += 1,
                }
            }
        }
        let list = |counts: &mut dyn Iterator<Item = (String, usize)>| {
            let mut text = String::new();
            for (name, count) in counts {
                let comma = if text.is_empty() { "" } else { ", " };
                write!(text, "{comma}{name} {count}").expect("a string takes everything");
            }
            text
        };
        println!(
            "product: {} commands of the founding documents ran as written (runs: {}); exempt: {}",
            self.lines,
            list(
                &mut self
                    .runs
                    .iter()
                    .map(|(world, count)| (format!("{world:?}").to_lowercase(), *count))
            ),
            list(
                &mut self
                    .exempt
                    .iter()
                    .map(|(reason, count)| (reason.clone(), *count))
            ),
        );
        if !self.failures.is_empty() {
            bail!(
                "{} commands do not work as written:\n{}",
                self.failures.len(),
                self.failures.join("\n")
            );
        }
        Ok(())
    }
}
