//! The local engine as a program of its own, for the tests of this crate; it is not installed.
//!
//! `nagi-local shim DIRECTORY ATTEMPT` is the supervisor of one replica, as `nagi shim` is in the shipped binary.
//! `nagi-local engine FILE STATE_DIRECTORY keep|end` runs an engine that takes orders on standard input, one a line, and
//! answers each with one line: `scale NAMESPACE NAME COUNT`, `reload`, `status NAMESPACE NAME`. At the end of its input it
//! shuts down in order. `nagi-local serve` is a small workload: it answers every request on `PORT`. What it deliberately lacks is everything that makes Nagi: rules, API, gateway.

use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nagi_core::id::{Name, Namespace, WorkloadId};
use nagi_core::intent::IntentUpdate;
use nagi_core::quantity::Replicas;
use nagi_local::{Begin, LocalConfig, LocalEngine, OnShutdown, ShimCommand, inherited_environment};
use nagi_ports::{Read, SystemClock, Workloads as _};
use nagi_runtime::Supervisor;
use nagi_telemetry::{LinesDropped, Metrics};
use tokio::sync::mpsc;

/// How long the shutdown may take.
const GRACE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|mode| mode.to_str()) {
        Some("shim") => nagi_local::shim::run(arguments),
        Some("engine") => {
            let rest: Vec<_> = arguments.collect();
            let [file, state_directory, at_end] = rest.as_slice() else {
                return usage();
            };
            let on_shutdown = if at_end == "keep" {
                OnShutdown::Keep
            } else {
                OnShutdown::End
            };
            let Ok(program) = std::env::current_exe() else {
                return usage();
            };
            engine(LocalConfig {
                file: file.into(),
                state_directory: state_directory.into(),
                shim: ShimCommand {
                    program,
                    arguments: vec!["shim".into()],
                },
                environment: variables(),
                on_shutdown,
                begin: Begin::WhereItWas,
                metrics: Metrics::new(env!("CARGO_PKG_VERSION"), LinesDropped::default()),
            })
        }
        Some("serve") => serve(),
        Some(_) | None => usage(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the binary, which reads the environment"
)]
fn serve() -> ExitCode {
    use std::io::Read as _;
    let port = std::env::var("PORT")
        .ok()
        .and_then(|port| port.parse::<u16>().ok())
        .unwrap_or(0);
    let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) else {
        say("port taken");
        return ExitCode::FAILURE;
    };
    say(&format!("serving on {port}"));
    for mut stream in listener.incoming().filter_map(Result::ok) {
        let mut request = [0_u8; 4_096];
        // One read is enough for the requests of these tests.
        drop(stream.read(&mut request));
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        drop(stream.write_all(answer.as_bytes()));
    }
    ExitCode::SUCCESS
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the binary, which reads the environment"
)]
fn variables() -> std::collections::BTreeMap<String, String> {
    inherited_environment(std::env::vars_os())
}

fn usage() -> ExitCode {
    say("usage: nagi-local shim DIRECTORY ATTEMPT | engine FILE STATE_DIRECTORY keep|end");
    ExitCode::from(2)
}

fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

fn engine(config: LocalConfig) -> ExitCode {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(async {
        let mut supervisor = Supervisor::new();
        let clock = Arc::new(SystemClock::new());
        let engine = match LocalEngine::start(config, clock, &mut supervisor).await {
            Ok(engine) => engine,
            Err(error) => {
                say(&format!("failed: {error}"));
                return ExitCode::FAILURE;
            }
        };
        say("started");
        let (send, mut lines) = mpsc::channel::<String>(16);
        let reader = tokio::task::spawn_blocking(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if send.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        let orders = async {
            while let Some(line) = lines.recv().await {
                say(&obey(&engine, &line).await);
            }
        };
        let ended = supervisor.run_until(orders, GRACE).await;
        drop(reader.await);
        if ended.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    })
}

async fn obey(engine: &LocalEngine, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let done = match words.as_slice() {
        ["scale", namespace, name, count] => scale(engine, namespace, name, count).await,
        ["status", namespace, name] => status(engine, namespace, name).await,
        ["reload"] => match engine.reload().await {
            Ok(_) => Some("reloaded".to_owned()),
            Err(error) => Some(format!("refused: {error}")),
        },
        _ => None,
    };
    done.unwrap_or_else(|| "not understood".to_owned())
}

fn id(namespace: &str, name: &str) -> Option<WorkloadId> {
    Some(WorkloadId::deployment(
        Namespace::new(namespace).ok()?,
        Name::new(name).ok()?,
    ))
}

async fn scale(engine: &LocalEngine, namespace: &str, name: &str, count: &str) -> Option<String> {
    let before = engine.get(&id(namespace, name)?, Read::Cached).await.ok()?;
    let desired = Replicas(count.parse().ok()?);
    let update = IntentUpdate {
        desired,
        intent: before.intent.clone(),
    };
    Some(match engine.write(&before, update).await {
        Ok(written) => format!("written {}", written.version),
        Err(error) => format!("refused: {error}"),
    })
}

async fn status(engine: &LocalEngine, namespace: &str, name: &str) -> Option<String> {
    let workload = engine.get(&id(namespace, name)?, Read::Cached).await.ok()?;
    let (desired, current, available) = (workload.desired, workload.current, workload.available);
    let ports: Vec<String> = workload
        .replicas
        .iter()
        .filter_map(|replica| Some(replica.address?.port().to_string()))
        .collect();
    Some(format!(
        "{desired} {current} {available} {}",
        ports.join(",")
    ))
}
