//! Wires the serving roles: log, listeners, engine, loops, faces, and an orderly end.
//!
//! A role is an engine and the faces in front of it: `nagi all` has the local engine and every face, `nagi server` a cluster,
//! the API and the loops of the leader, `nagi gateway` a cluster with the rights to wake, and the gateway.
//!
//! Everything that can fail at the start fails before anything runs, with the next step in its message: listeners are
//! bound before the engine takes its state directory, and the faces answer last. The end goes the other way round:
//! faces drain first, the engine last.

mod doors;
pub(crate) mod settings;

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nagi_control::Controller;
use nagi_gateway::{Gateway, HoldSettings, Settings};
use nagi_kube::{KubeEngine, KubeSettings, Leading};
use nagi_local::file::FileError;
use nagi_local::{
    Begin, LocalConfig, LocalEngine, OnShutdown, ShimCommand, StartError, inherited_environment,
};
use nagi_ports::{
    Accounts, Clock, Journal, Leadership, Logs, NoTraffic, Nodes, SystemClock, Traffic, Workloads,
};
use nagi_runtime::{Reload, Shutdown, SignalError, Supervisor, SupervisorError, Termination};
use nagi_server::{KeySources, Keyring, KeyringError, Listeners, Server, ServerConfig};
use nagi_telemetry::{LevelFilter, Log, LogError, Metrics, Sink};
use nagi_wake::Wakes;
use thiserror::Error;

use crate::exit::Exit;
use crate::serve::doors::{ClosedDoor, Doors, named};
use crate::serve::settings::ServeConfig;

/// What running requests get at the end.
const GRACE: Duration = Duration::from_secs(30);
/// A signal so soon after the first says the same once more: `timeout` and others send it to the process and to its group.
const SAME_REQUEST: Duration = Duration::from_millis(250);
/// For somebody who waits at a terminal for that end.
const INSIST: &str = "requests in flight get 30 s; a second signal ends it at once";

/// What to serve.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) config: ServeConfig,
    pub(crate) role: Role,
    pub(crate) on_hangup: OnHangup,
}

/// Which engine, and which faces.
#[derive(Debug)]
pub(crate) enum Role {
    /// Everything on this machine.
    All {
        /// The workload file.
        workloads: PathBuf,
        /// What becomes of the replicas when this process ends.
        on_exit: OnShutdown,
        /// Where the engine begins.
        begin: Begin,
    },
    /// API and loops on a cluster.
    Server {
        /// The cluster.
        settings: KubeSettings,
        /// What tokens of the cluster are worth.
        tokens: Tokens,
    },
    /// The gateway on a cluster.
    Gateway(KubeSettings),
}

/// What a bearer token of the cluster is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tokens {
    /// As much as its holder may do by the rules of the cluster.
    Taken,
    /// Nothing.
    Ignored,
}

/// What SIGHUP means, which also comes when the terminal is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnHangup {
    /// Log file and workload file are opened anew.
    Reload,
    /// The end: what was started for somebody to look at ends when nobody can.
    End,
}

/// Why serving could not begin, or ended by itself.
#[derive(Debug, Error)]
pub(crate) enum ServeError {
    #[error("the log could not be started")]
    Log(#[from] LogError),
    #[error("cannot listen on {}", named(doors))]
    Listen {
        /// All that failed alike.
        doors: Vec<ClosedDoor>,
        #[source]
        source: io::Error,
    },
    #[error("{address} is given twice: API, metrics and gateway need an address each")]
    SameAddress { address: SocketAddr },
    #[error("API keys cannot be used")]
    Keys(#[from] KeyringError),
    #[error("the local engine could not start")]
    Engine(#[from] StartError),
    #[error("cannot tell where this binary is")]
    OwnPath(#[source] io::Error),
    #[error("signals cannot be received")]
    Signals(#[from] SignalError),
    #[error("a part of the process ended")]
    Ended(#[from] SupervisorError),
}

// === impl ServeError ===

impl ServeError {
    /// The next step, where one is known.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Listen { doors, source } if source.kind() == io::ErrorKind::AddrInUse => {
                Some(match doors.as_slice() {
                    [one] if one.flag == "--listen" => {
                        "another program, perhaps another nagi, has this port: choose one with --listen"
                    }
                    [one] if one.flag == "--metrics-listen" => {
                        "another program has this port: choose one with --metrics-listen"
                    }
                    [_] => "another program has this port: choose one with --gateway-listen",
                    _ => {
                        "another nagi, or other programs, have these ports: choose others with --listen, --metrics-listen and --gateway-listen"
                    }
                })
            }
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("ports below 1024 need root: choose a higher one")
            }
            Self::Listen { .. } => Some("is this an address of this machine?"),
            Self::Engine(StartError::File(FileError::Read { .. })) => {
                Some("is the path right, and may you read it? See --workloads")
            }
            Self::Engine(StartError::File(_)) => {
                Some("mend the workload file; `nagi config check FILE` says the same")
            }
            Self::Engine(StartError::Store(error)) => Some(error.hint()),
            Self::SameAddress { .. } => Some("see --listen, --metrics-listen and --gateway-listen"),
            Self::Keys(_) => {
                Some("see `nagi key --help`, API_KEY, API_KEY_FILE and NAGI_KEYS_FILE")
            }
            Self::Log(_) => Some("choose a file that you may write with --log-file"),
            Self::Engine(StartError::Blocking(_))
            | Self::OwnPath(_)
            | Self::Signals(_)
            | Self::Ended(_) => None,
        }
    }
}

/// The last words of a server that could not start, or could not go on: for a person text, and where stdout is read by
/// machines a JSON line at level error, since its log goes there.
pub(crate) fn fail(error: &(dyn Error + 'static), hint: Option<&str>) -> ExitCode {
    if !io::IsTerminal::is_terminal(&io::stdout())
        && let Ok(log) = Log::start(LevelFilter::default(), Sink::Stdout)
    {
        log.fatal("Nagi could not start", &LastWords::new(error, hint));
        return Exit::Failed.into();
    }
    complain(error, hint)
}

/// The same for a setting that cannot be used.
pub(crate) fn refuse_settings(error: &(dyn Error + 'static), hint: &str) -> ExitCode {
    fail(error, Some(hint));
    Exit::Usage.into()
}

/// Text on stderr.
pub(crate) fn complain(error: &(dyn Error + 'static), hint: Option<&str>) -> ExitCode {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    complain_of(&error.to_string(), &causes, hint)
}

/// The same of an error that is no chain.
pub(crate) fn complain_of<'a>(
    error: &str,
    causes: &[String],
    hints: impl IntoIterator<Item = &'a str>,
) -> ExitCode {
    let mut text = format!("error: {error}");
    for cause in causes {
        text = format!("{text}\n  because: {cause}");
    }
    for hint in hints {
        text = format!("{text}\nhint: {hint}");
    }
    // Nobody reads stderr: the exit code still tells.
    drop(writeln!(io::stderr(), "{text}"));
    Exit::Failed.into()
}

/// An error with its causes and the next step in one line.
#[derive(Debug, Error)]
#[error("{0}")]
struct LastWords(String);

impl LastWords {
    fn new(error: &(dyn Error + 'static), hint: Option<&str>) -> Self {
        let mut words = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            words = format!("{words}: {cause}");
            source = cause.source();
        }
        Self(hint.map_or(words.clone(), |hint| format!("{words}; hint: {hint}")))
    }
}

/// Serves until a signal, or until the `guest` returns.
///
/// # Errors
/// Something could not be started, or ended before it was asked to.
pub(crate) async fn run(
    start: Start,
    guest: impl AsyncFnOnce(Arc<dyn Clock>),
) -> Result<(), ServeError> {
    let sink = start
        .config
        .log_file
        .clone()
        .map_or(Sink::Stdout, Sink::File);
    let log = Log::start(start.config.log_level, sink)?;
    log.install()?;
    let has_file = start.config.log_file.is_some();
    let ended = serve(start, log.clone(), guest).await;
    if let Err(error) = &ended
        && has_file
    {
        log.fatal(
            "Nagi ended with an error",
            &LastWords::new(error, error.hint()),
        );
    }
    ended
}

async fn serve(
    start: Start,
    log: Log,
    guest: impl AsyncFnOnce(Arc<dyn Clock>),
) -> Result<(), ServeError> {
    let config = start.config;
    let termination = tokio::sync::Mutex::new(Termination::listen()?);
    let mut reload = Reload::listen()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), log.lines_dropped());
    let doors = Doors::open(&config, &start.role).await?;
    let keys = match &start.role {
        Role::All { .. } => Keyring::open(key_sources(&config, Tokens::Ignored), metrics.clone())?,
        Role::Server { tokens, .. } => {
            Keyring::open(key_sources(&config, *tokens), metrics.clone())?
        }
        Role::Gateway(_) => Keyring::unused(metrics.clone()),
    };
    let mut supervisor = Supervisor::new();
    announce(&start.role, &config);
    let mut local = None;
    let engine = match start.role {
        Role::All {
            workloads,
            on_exit,
            begin,
        } => {
            let engine_config = LocalConfig {
                file: workloads,
                state_directory: config.state_dir.clone(),
                shim: shim_command()?,
                environment: environment(),
                on_shutdown: on_exit,
                begin,
                metrics: metrics.clone(),
            };
            let started = LocalEngine::start(engine_config, Arc::clone(&clock), &mut supervisor);
            let engine = started.await?;
            local = Some(engine.clone());
            Engine::local(engine)
        }
        Role::Server { settings, tokens } => {
            let engine = KubeEngine::start(settings, Arc::clone(&clock), &mut supervisor);
            let leading = engine.lead(&mut supervisor);
            Engine::cluster(engine, leading, tokens)
        }
        Role::Gateway(settings) => {
            let engine = KubeEngine::start(settings, Arc::clone(&clock), &mut supervisor);
            Engine::alone(engine)
        }
    };
    let common = Common {
        engine,
        clock: Arc::clone(&clock),
        metrics,
        log,
    };
    let hung_up: Pin<Box<dyn Future<Output = ()>>> = match start.on_hangup {
        OnHangup::Reload => {
            let followed = on_hangup(reload, local, common.log.clone(), supervisor.shutdown());
            supervisor.spawn("reload", followed);
            Box::pin(std::future::pending())
        }
        OnHangup::End => Box::pin(async move { reload.recv().await }),
    };
    common.start_faces(&config, doors, keys, &mut supervisor);
    let asked = async {
        tokio::select! {
            // Cancel-safe: the process ends either way.
            signal = next(&termination) => tracing::info!(signal, hint = INSIST, "Shutdown asked for"),
            () = hung_up => tracing::info!(signal = "SIGHUP", hint = INSIST, "Shutdown asked for"),
            () = guest(clock) => {}
        }
    };
    let insisted = async {
        let asked = tokio::time::Instant::now();
        let signal = loop {
            let signal = next(&termination).await;
            if asked.elapsed() >= SAME_REQUEST {
                break signal;
            }
        };
        tracing::warn!(signal, "Shutdown cut short");
    };
    supervisor
        .run_until_insisted(asked, insisted, GRACE)
        .await?;
    Ok(())
}

/// The next SIGINT or SIGTERM. Cancel-safe: a signal that was not taken is kept.
async fn next(termination: &tokio::sync::Mutex<Termination>) -> &'static str {
    termination.lock().await.recv().await
}

/// Says what starts, with what the role has of it.
fn announce(role: &Role, config: &ServeConfig) {
    let (api, gateway, state) = match role {
        Role::All { .. } => (true, true, true),
        Role::Server { .. } => (true, false, false),
        Role::Gateway(_) => (false, true, false),
    };
    tracing::info!(
        port = api.then(|| config.listen.port()),
        address = api.then(|| display(config.listen)),
        gateway = gateway.then(|| display(config.gateway_listen)),
        metrics = %config.metrics_listen,
        state_dir = state.then(|| display(config.state_dir.display())),
        "Server starting"
    );
}

/// An engine as the faces and loops see it.
struct Engine {
    workloads: Arc<dyn Workloads>,
    /// The same, as the one process writes to it that decides.
    deciding: Arc<dyn Workloads>,
    leadership: Leadership,
    journal: Arc<dyn Journal>,
    nodes: Arc<dyn Nodes>,
    logs: Arc<dyn Logs>,
    accounts: Option<Arc<dyn Accounts>>,
}

impl Engine {
    fn local(engine: LocalEngine) -> Self {
        Self::alone(engine)
    }

    fn cluster(engine: KubeEngine, leading: Leading, tokens: Tokens) -> Self {
        let accounts: Option<Arc<dyn Accounts>> = match tokens {
            Tokens::Taken => Some(Arc::new(engine.clone())),
            Tokens::Ignored => None,
        };
        Self {
            accounts,
            leadership: leading.leadership(),
            deciding: Arc::new(leading),
            ..Self::alone(engine)
        }
    }

    /// Of a process that asks nobody whether it may decide.
    fn alone(engine: impl Workloads + Journal + Nodes + Logs + Clone + 'static) -> Self {
        Self {
            workloads: Arc::new(engine.clone()),
            deciding: Arc::new(engine.clone()),
            leadership: Leadership::alone(),
            journal: Arc::new(engine.clone()),
            nodes: Arc::new(engine.clone()),
            logs: Arc::new(engine),
            accounts: None,
        }
    }
}

/// What every part is made on.
struct Common {
    engine: Engine,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    log: Log,
}

impl Common {
    /// Makes gateway, loops and API, and gives them to the supervisor.
    fn start_faces(
        self,
        config: &ServeConfig,
        doors: Doors,
        keys: Keyring,
        supervisor: &mut Supervisor,
    ) {
        let Self {
            engine,
            clock,
            metrics,
            log,
        } = self;
        let shutdown = supervisor.shutdown();
        let Engine {
            workloads,
            deciding,
            leadership,
            journal,
            nodes,
            logs,
            accounts,
        } = engine;
        let wakes = Wakes::new(
            Arc::clone(&workloads),
            Arc::clone(&clock),
            config.rails.clone(),
            metrics.clone(),
        );
        let mut traffic: Arc<dyn Traffic> = Arc::new(NoTraffic);
        let mut routes = None;
        if let Some(door) = doors.gateway {
            let gateway = Gateway::new(
                Arc::clone(&workloads),
                wakes.clone(),
                Arc::clone(&clock),
                metrics.clone(),
                gateway_settings(config),
                shutdown.clone(),
            );
            traffic = Arc::new(gateway.clone());
            routes = Some(gateway.loaded());
            let followed = gateway.clone();
            supervisor.spawn_foundation("gateway routes", async move { followed.follow().await });
            tracing::info!(address = %config.gateway_listen, port = config.gateway_listen.port(), "Gateway listens");
            supervisor.spawn("gateway", async move { gateway.serve(door).await });
        }
        if doors.api.is_some() {
            let controller = Controller::new(nagi_control::Ports {
                workloads: deciding,
                traffic: Arc::clone(&traffic),
                clock: Arc::clone(&clock),
                wakes: wakes.clone(),
                rails: config.rails.clone(),
                metrics: metrics.clone(),
            });
            supervisor.spawn("control", controller.run(leadership, shutdown.clone()));
        }
        let ports = nagi_server::Ports {
            workloads,
            traffic,
            journal,
            nodes,
            logs,
            accounts,
            routes,
            clock,
            wakes,
            metrics,
            log,
        };
        let server = Server::new(server_config(config), ports, keys, shutdown);
        let listeners = Listeners {
            api: doors.api,
            metrics: doors.metrics,
        };
        supervisor.spawn("api", server.run(listeners));
    }
}

fn key_sources(config: &ServeConfig, tokens: Tokens) -> KeySources {
    KeySources {
        api_key: config.api_key.clone(),
        api_key_file: config.api_key_file.clone(),
        keys_file: config.keys_file.clone(),
        tokens: tokens == Tokens::Taken,
        required: config.require_auth,
    }
}

fn gateway_settings(config: &ServeConfig) -> Settings {
    let defaults = Settings::default();
    let hold = HoldSettings {
        budget: config.hold,
        ..defaults.hold
    };
    Settings { hold, ..defaults }
}

fn server_config(config: &ServeConfig) -> ServerConfig {
    ServerConfig {
        rails: config.rails.clone(),
        rate: config.rate_limit,
        trusted_proxies: config.trusted_proxies.clone(),
        ..ServerConfig::default()
    }
}

/// Opens the log file anew and reads the workload file again at each SIGHUP, until the process drains. A role without a
/// workload file has nothing to read: keys and credentials are followed without being told.
async fn on_hangup(mut reload: Reload, engine: Option<LocalEngine>, log: Log, shutdown: Shutdown) {
    loop {
        tokio::select! {
            // Cancel-safe: a signal that was not taken is kept.
            () = reload.recv() => {
                log.reopen();
                if let Some(engine) = &engine {
                    // The engine logs what came of it, in the new file.
                    drop(engine.reload().await);
                }
            }
            // Cancel-safe: waiting on a watch channel loses nothing.
            () = shutdown.draining() => break,
        }
    }
}

/// How the engine starts the supervisor of a replica: this binary, again.
fn shim_command() -> Result<ShimCommand, ServeError> {
    let program = std::env::current_exe().map_err(ServeError::OwnPath)?;
    Ok(ShimCommand {
        program,
        arguments: vec!["shim".into()],
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the composition root reads the environment"
)]
fn environment() -> std::collections::BTreeMap<String, String> {
    inherited_environment(std::env::vars_os())
}
