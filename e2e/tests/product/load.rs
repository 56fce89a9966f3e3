//! Requests at a constant pace while those who answer them are replaced: none is lost, and a schedule that is due meanwhile
//! fires once.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nagi_e2e::wait::{self, Look};

use crate::World;
use crate::installed::{API, Installed, SOON};
use crate::path::{GATEWAY, HOST};
use crate::workload::Workload;

/// Reads of each client in a second.
const READS: u32 = 20;

/// Writes of each client in a second: together fewer than the Scale API takes from one caller for as long as he likes.
const WRITES: u32 = 2;

/// A client gives up on a request after this, in seconds.
const PATIENCE: u32 = 10;

/// The share of its pace that a client keeps on a machine with other work. Below it the load would not be constant.
const KEPT_SHARE: f64 = 0.4;

/// As many as a person reads of what was lost.
const LOST_SHOWN: usize = 10;

/// How long the clients may run.
const LIMIT: Duration = Duration::from_mins(10);

/// Starts the clients, says that they run, and ends them when it is told to. The part of a URL behind `#` is not sent: it
/// only makes one request a million.
const CLIENTS: &str = r#"
rm -f load-*.log loaded stop
client() {
  curl --disable --silent --rate "$2/s" --max-time "$PATIENCE" --output /dev/null \
    --write-out '%{stderr}%{http_code} %{time_total} %{errormsg}\n' "${@:3}#[1-1000000]" 2>"load-$1.log" &
  clients+=($!)
}
eval "$START"
touch loaded
until [[ -e stop ]]; do sleep 0.1; done
kill "${clients[@]}"
wait "${clients[@]}"
true
"#;

/// Who calls.
#[derive(Debug)]
struct Client {
    name: &'static str,
    /// Requests in a second.
    pace: u32,
    /// What curl is told, the URL last.
    arguments: String,
}

/// What a client saw.
#[derive(Debug, Default)]
struct Seen {
    answered: u32,
    /// Requests without the answer 200, as curl says it.
    lost: Vec<String>,
    slowest: f64,
}

/// A Deployment that is put to sleep and woken all the time. No node takes its pods: only its writes matter.
const RESTLESS: Workload = Workload {
    kind: "Deployment",
    name: "restless",
    project: "nowhere",
};

/// A Deployment that sleeps until a schedule wakes it.
const SLEEPER: Workload = Workload {
    kind: "Deployment",
    name: "sleeper",
    project: "a",
};

// F12, F19, A-092, A-110: restarts, rollbacks and a change of the leader
pub(crate) fn scale_api(world: &mut World) -> anyhow::Result<()> {
    let installed = world.installed()?;
    installed.settle("scale-system", "scale-api", 2)?;
    SLEEPER.apply(installed, 0)?;
    RESTLESS.apply(installed, 1)?;
    let clients = scale_api_clients();
    let seen = under_load(installed, &clients, || {
        due_meanwhile(installed, 10, || {
            installed.succeed(
                "kubectl rollout restart deployment/scale-api -n scale-system
                 kubectl rollout status deployment/scale-api -n scale-system --timeout=180s",
            )
        })
        .context("while it was restarted")?;
        due_meanwhile(installed, 10, || {
            installed.succeed(
                "kubectl rollout undo deployment/scale-api -n scale-system
                 kubectl rollout status deployment/scale-api -n scale-system --timeout=180s",
            )
        })
        .context("while it was rolled back")?;
        // The last one is due while nobody leads, or just after.
        due_meanwhile(installed, 2, || change_leader(installed)).context("while the leader changed")
    });
    SLEEPER.delete(installed)?;
    RESTLESS.delete(installed)?;
    report("Scale API: restart, rollback, another leader", &seen?);
    Ok(())
}

// F11, F19
pub(crate) fn gateway(world: &mut World) -> anyhow::Result<()> {
    let installed = world.installed()?;
    let up = "/api/v1/deployments/project-a/sample-app-a/scale-up";
    installed.api("POST", up, r#"{"replicas":1,"reason":"a test"}"#)?;
    installed.settle("project-a", "sample-app-a", 1)?;
    let clients = old_and_new_connections(&format!("{HOST} '{GATEWAY}'"));
    let seen = under_load(installed, &clients, || {
        installed.succeed(
            "kubectl rollout restart deployment/wake-gateway -n scale-system
             kubectl rollout status deployment/wake-gateway -n scale-system --timeout=180s",
        )?;
        // Those that were replaced are still there for as long as they have requests.
        installed.settle("scale-system", "wake-gateway", 2)
    })?;
    report("gateway: restart", &seen);
    Ok(())
}

fn scale_api_clients() -> Vec<Client> {
    let status = format!("{API}/api/v1/deployments/project-a/sample-app-a/status");
    let write = |name, verb: &str, body: &str| {
        let of = format!(
            "{API}/api/v1/deployments/project-a/{}/{verb}",
            RESTLESS.name
        );
        let body = format!("--header 'Content-Type: application/json' --data '{body}'");
        Client {
            name,
            pace: WRITES,
            arguments: format!("{body} '{of}'"),
        }
    };
    let mut clients = old_and_new_connections(&format!("'{status}'"));
    // Each undoes what the other did, so that there is always a write on its way.
    clients.push(write("sleeps", "scale-to-zero", r#"{"reason":"a test"}"#));
    clients.push(write(
        "wakes",
        "scale-up",
        r#"{"replicas":1,"reason":"a test"}"#,
    ));
    clients
}

/// One client that keeps its connection, and one that makes another for each request.
fn old_and_new_connections(arguments: &str) -> Vec<Client> {
    let client = |name, arguments| Client {
        name,
        pace: READS,
        arguments,
    };
    vec![
        client("reads", arguments.to_owned()),
        client(
            "reads-anew",
            format!("--header 'Connection: close' {arguments}"),
        ),
    ]
}

/// Lets clients call while something is done, and says what each of them saw.
fn under_load<'a>(
    installed: &Installed,
    clients: &'a [Client],
    done: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<(&'a Client, Seen)>> {
    let directory = installed.directory();
    let started: Vec<String> = clients
        .iter()
        .map(|client| {
            format!(
                "client {} {} {}",
                client.name, client.pace, client.arguments
            )
        })
        .collect();
    let call = installed
        .bash(CLIENTS)?
        .environment("PATIENCE", PATIENCE.to_string())
        .environment("START", started.join("\n"))
        .limit(LIMIT);
    let (ended, took) = std::thread::scope(|scope| {
        let calling = scope.spawn(move || call.output());
        let ended = wait::until("clients that call", SOON, || {
            Ok(if directory.join("loaded").exists() {
                Look::There(())
            } else {
                Look::NotYet("they do not run yet".to_owned())
            })
        });
        let begun = now();
        let ended = ended.and_then(|()| done());
        let took = begun.elapsed();
        // Without it they would go on until their limit.
        let told = std::fs::write(directory.join("stop"), "").context("tell the clients to end");
        let called = calling
            .join()
            .unwrap_or_else(|_| bail!("the clients' thread panicked"));
        (ended.and(told).and(called.map(drop)), took)
    });
    let seen = clients
        .iter()
        .map(|client| Ok((client, Seen::read(directory, client.name)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    // What was lost says more than what came of it.
    for (Client { name, .. }, seen) in &seen {
        let shown = seen.lost.get(..LOST_SHOWN).unwrap_or(&seen.lost);
        ensure!(
            seen.lost.is_empty(),
            "{name}: {} requests were lost, {} were answered: {}",
            seen.lost.len(),
            seen.answered,
            shown.join("; ")
        );
    }
    ended?;
    for (Client { name, pace, .. }, seen) in &seen {
        let least = f64::from(*pace) * took.as_secs_f64() * KEPT_SHARE;
        ensure!(
            f64::from(seen.answered) >= least,
            "{name}: {} requests in {} s are no constant load",
            seen.answered,
            took.as_secs()
        );
    }
    Ok(seen)
}

/// Puts the sleeper to sleep until `seconds` from now, does something, and sees it woken by exactly one write.
fn due_meanwhile(
    installed: &Installed,
    seconds: u32,
    done: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let path = "/api/v1/deployments/project-a/sleeper";
    let up = r#"{"replicas":1,"reason":"a test"}"#;
    installed.api("POST", &format!("{path}/scale-up"), up)?;
    let due = installed.output(&format!(
        "date -u -d '+{seconds} seconds' +%Y-%m-%dT%H:%M:%SZ"
    ))?;
    let asleep = format!(
        r#"{{"reason":"a test","scheduled_scale_up":"{}"}}"#,
        due.trim()
    );
    installed.api("POST", &format!("{path}/scale-to-zero"), &asleep)?;
    let before = installed.wakes_in_audit_log(SLEEPER.name)?;
    done()?;
    wait::until("the scheduled wake", SOON, || {
        let wanted = installed.wanted("project-a", SLEEPER.name)?;
        Ok(if wanted == "1" {
            Look::There(())
        } else {
            Look::NotYet(format!("{wanted} replicas wanted"))
        })
    })?;
    // Also of those who were slow, or came late.
    installed.settle("scale-system", "scale-api", 2)?;
    let wakes = installed.wakes_in_audit_log(SLEEPER.name)? - before;
    ensure!(wakes == 1, "{wakes} writes for one schedule");
    Ok(())
}

/// Deletes the pod that leads, and waits until another leads.
fn change_leader(installed: &Installed) -> anyhow::Result<()> {
    let leader = || {
        installed.output(
            "kubectl get lease nagi-leader -n scale-system -o 'jsonpath={.spec.holderIdentity}'",
        )
    };
    let before = leader()?;
    let pods = installed.output(
        "kubectl get pods -n scale-system -l app.kubernetes.io/name=scale-api -o 'jsonpath={.items[*].metadata.name}'",
    )?;
    let pod = pods
        .split_whitespace()
        .find(|pod| before.contains(pod))
        .with_context(|| format!("'{before}' leads, and the pods are {pods}"))?;
    installed.succeed(&format!(
        "kubectl delete pod {pod} -n scale-system --wait=false"
    ))?;
    wait::until("another leader", SOON, || {
        let now = leader()?;
        Ok(if now.is_empty() || now == before {
            Look::NotYet(format!("'{now}' leads"))
        } else {
            Look::There(())
        })
    })
}

#[expect(
    clippy::print_stdout,
    reason = "for the person who reads the report of the tests"
)]
fn report(what: &str, seen: &[(&Client, Seen)]) {
    let clients: Vec<String> = seen
        .iter()
        .map(|(client, seen)| {
            format!(
                "{} {}, the slowest {:.0} ms",
                seen.answered,
                client.name,
                seen.slowest * 1000.0
            )
        })
        .collect();
    println!("product: {what}: 0 lost of {}", clients.join("; "));
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures how long a test lasts, nothing of the product"
)]
fn now() -> Instant {
    Instant::now()
}

// === impl Seen ===

impl Seen {
    fn read(directory: &Path, client: &str) -> anyhow::Result<Self> {
        let path = directory.join(format!("load-{client}.log"));
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut seen = Self::default();
        // A client that is ended may be in the middle of a line.
        let whole = text
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'));
        for line in whole {
            let (status, rest) = line.split_once(' ').context("curl writes its figures")?;
            let (took, error) = rest.split_once(' ').context("curl writes its figures")?;
            if status == "200" && error.is_empty() {
                seen.answered += 1;
            } else {
                seen.lost.push(line.to_owned());
            }
            let took: f64 = took.parse().context("a time is a number")?;
            seen.slowest = seen.slowest.max(took);
        }
        Ok(seen)
    }
}
