//! `nagi demo`: two sample projects on the local engine, and a tour that shows what Nagi does with them.
//!
//! On a terminal the tour runs and everything stays up until Ctrl-C. Without one the tour is a check: it runs once and
//! the exit code tells whether every step went as it should. Either way the sample apps are ended at the end, also when the
//! terminal is closed.

mod tour;

use std::io::ErrorKind::ReadOnlyFilesystem;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use nagi_client::{Client, EventFollower, Key, KeyError, ServerAddress};
use nagi_local::store::StoreError;
use nagi_local::{Begin, OnShutdown, WriteError};
use nagi_ports::Clock;
use thiserror::Error;

use crate::commands::CLIENT_KEY;
use crate::demo::tour::{HOLD_MIN, NAMESPACES, Tour, TourError};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::serve::settings::{
    ALLOWED_NAMESPACES, ConfigErrors, GATEWAY_LISTEN, HOLD_SECONDS, Home, LISTEN, ServeArgs,
    ServeConfig, Setting,
};
use crate::serve::{self, OnHangup, Role, Start};

/// The workload file of the demo; `NAGI` stands for the path of this binary.
const WORKLOADS: &str = include_str!("demo/workloads.yaml");
/// The first line of the file as it is written, by which the demo knows it again.
const OURS: &str =
    "# Written anew by each start of the demo, which replaces no file that begins otherwise.\n";
/// The word in it that stands for the binary.
const PLACEHOLDER: &str = "NAGI";
/// What a tour writes at most, in bytes: state, log and output of the apps take some 200 KiB.
const TOUR_BYTES: u64 = 1 << 20;
/// By this a directory is known in which an engine has begun.
const ENGINE_FILE: &str = "engine.json";
/// What stands for the key in the commands that are told: the key itself is nobody's business who looks at the screen.
const KEY: &str = "KEY";

/// Of the shared settings, those that have a default of the demo's own.
pub(crate) const STATE_DIR_HELP: &str = "Directory for everything of the demo; one process at a time \
     [default: `$XDG_STATE_HOME/nagi-demo` or `~/.local/state/nagi-demo`]";
pub(crate) const LOG_FILE_HELP: &str =
    "File that the JSON log is appended to [default: STATE_DIR/nagi.log]";

/// The command line of `nagi demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    serve: ServeArgs,

    /// Run the tour once and exit, as without a terminal
    #[arg(long)]
    once: bool,
}

/// Why the demo could not be prepared.
#[derive(Debug, Error)]
enum DemoError {
    #[error("{} is not a directory of the demo, which begins anew each time", path.display())]
    Foreign {
        path: PathBuf,
        #[source]
        source: StoreError,
    },
    #[error("cannot use {}", path.display())]
    State {
        path: PathBuf,
        #[source]
        source: StoreError,
    },
    #[error("cannot tell where this binary is")]
    OwnPath(#[source] std::io::Error),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the demo has no room to run")]
    NoRoom(#[source] WriteError),
    #[error("the API of the demo will ask for a key, and NAGI_KEYS_FILE holds digests only")]
    NoKey,
    #[error("{from} holds what cannot be sent as an API key")]
    Key {
        from: &'static str,
        #[source]
        source: KeyError,
    },
}

/// What the tour calls with.
struct Access {
    key: Key,
    /// How people name where it came from.
    from: &'static str,
}

/// What the demo made before its start, to be taken back when it does not come to one.
#[derive(Debug)]
struct Prepared {
    workloads: PathBuf,
    /// What the workload file will hold.
    text: String,
    /// The state directory, when there was none before.
    made: Option<PathBuf>,
}

// === impl DemoError ===

impl DemoError {
    const fn hint(&self) -> &'static str {
        match self {
            Self::NoRoom(_) => {
                "make room on the disk of the state directory, or choose one elsewhere with --state-dir"
            }
            Self::Foreign { .. } => {
                "choose a directory of its own with --state-dir (NAGI_STATE_DIR); what a demo of an earlier version left may be removed"
            }
            Self::State { .. } | Self::OwnPath(_) | Self::Write { .. } => {
                "choose a directory of its own that you may write with --state-dir (NAGI_STATE_DIR)"
            }
            Self::NoKey => {
                "give the tour one of those keys with NAGI_KEY, or start it without: env -u NAGI_KEYS_FILE nagi demo"
            }
            Self::Key { .. } => "a key has printable ASCII characters only, without blanks",
        }
    }
}

/// Runs the demo. `key` is the one of the clients: the tour calls with it where it knows no key of the server.
pub(crate) async fn run(args: DemoArgs, key: Option<&str>) -> ExitCode {
    let mut config = match checked(&args.serve) {
        Ok(config) => config,
        Err(wrong) => return refuse(&wrong),
    };
    let log_file = (config.log_file.take()).unwrap_or_else(|| config.state_dir.join("nagi.log"));
    let access = match access(&config, key) {
        Ok(access) => access,
        Err(error) => return serve::complain(&error, Some(error.hint())),
    };
    let prepared = match prepare(&config.state_dir, &log_file) {
        Ok(prepared) => prepared,
        Err(error) => return serve::complain(&error, Some(error.hint())),
    };
    let stay = std::io::stdout().is_terminal() && !args.once;
    let (api, gateway) = (config.listen, config.gateway_listen);
    let banner = format!(
        "Nagi demo: API http://{api}  gateway http://{gateway}  metrics http://{}/metrics\nLog: {}",
        config.metrics_listen,
        log_file.display()
    );
    let state_dir = config.state_dir.clone();
    config.log_file = Some(log_file.clone());
    let mut outcome = None;
    let ended = Box::pin(serve::run(
        Start {
            config,
            role: Role::All {
                workloads: prepared.workloads.clone(),
                on_exit: OnShutdown::End,
                begin: Begin::Anew {
                    text: prepared.text.clone(),
                },
            },
            on_hangup: OnHangup::End,
        },
        async |clock: Arc<dyn Clock>| {
            println_now(&banner);
            let result = guide(api, gateway, access.as_ref(), &*clock).await;
            let failed = result.is_err();
            outcome = Some(result.map_err(|error| stuck(error, &state_dir)));
            if stay && !failed {
                println_now(&stay_text(api, gateway, access.as_ref()));
                std::future::pending::<()>().await;
            }
        },
    ))
    .await;
    if ended.is_err() && outcome.is_none() {
        prepared.take_back();
    }
    match (ended, outcome) {
        (Err(error), _) => serve::complain(&error, error.hint()),
        (Ok(()), Some(Err(failure))) => {
            let log = format!("the log of the demo says more: {}", log_file.display());
            let hints = failure.hints.iter().chain([&log]).map(String::as_str);
            serve::complain_of(&failure.message, &failure.causes, hints)
        }
        (Ok(()), Some(Ok(()))) => {
            println_now("\nThe tour is complete; the sample apps are stopped.");
            ExitCode::SUCCESS
        }
        // Ended by a signal before the tour was through.
        (Ok(()), None) => {
            println_now(
                "\nEnded by a signal before the tour was through; the sample apps are stopped.",
            );
            if stay {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// The settings, with what the tour asks of them: a person learns what stands in its way before anything starts.
fn checked(args: &ServeArgs) -> Result<ServeConfig, ConfigErrors> {
    let config = ServeConfig::resolve(args, &Home::from_environment().demo())?;
    let mut wrong = Vec::new();
    let mut refuse = |setting: Setting, rule: &str, value: &Option<String>| {
        wrong.push(setting.refuse(rule, value.as_deref().unwrap_or_default()));
    };
    let allowed = config.rails.allowed.as_deref();
    let missing = |wanted: &&str| {
        allowed.is_some_and(|names| names.iter().all(|name| name.as_str() != *wanted))
    };
    if NAMESPACES.iter().any(missing) {
        let rule = format!("must hold {} for the tour", NAMESPACES.join(" and "));
        refuse(ALLOWED_NAMESPACES, &rule, &args.allowed_namespaces);
    }
    if config.hold < HOLD_MIN {
        let rule = format!(
            "must be at least {} for the tour, in which a node boots meanwhile",
            HOLD_MIN.as_secs()
        );
        refuse(HOLD_SECONDS, &rule, &args.hold_seconds);
    }
    for (setting, address, value) in [
        (LISTEN, config.listen, &args.listen),
        (GATEWAY_LISTEN, config.gateway_listen, &args.gateway_listen),
    ] {
        if address.port() == 0 {
            refuse(setting, "must name its port for the tour", value);
        }
    }
    if wrong.is_empty() {
        Ok(config)
    } else {
        Err(ConfigErrors(wrong))
    }
}

/// Settings that cannot be used, for a person: no machine reads the standard output of a demo.
fn refuse(wrong: &ConfigErrors) -> ExitCode {
    let causes: Vec<String> = wrong.0.iter().map(ToString::to_string).collect();
    let hint = "change it for the demo, or leave it out: env -u VARIABLE nagi demo; `nagi demo --help` has every setting";
    serve::complain_of("the demo cannot run with these settings", &causes, [hint]);
    Exit::Usage.into()
}

/// The key that the tour must call with, found as the server finds the keys that it takes (see `KeySources`). What is wrong
/// with those themselves, the server says when it starts.
fn access(config: &ServeConfig, client: Option<&str>) -> Result<Option<Access>, DemoError> {
    let single = match (&config.api_key, &config.api_key_file) {
        (Some(key), _) => Some(("API_KEY", key.clone())),
        (None, Some(path)) => std::fs::read_to_string(path)
            .ok()
            .map(|text| ("API_KEY_FILE", text)),
        (None, None) => None,
    };
    let client = client.map(|key| (CLIENT_KEY, key.to_owned()));
    let given = |(_, key): &(&str, String)| !key.trim().is_empty();
    let found = match single.filter(given) {
        Some(found) => found,
        None if config.keys_file.is_none() => return Ok(None),
        None => client.filter(given).ok_or(DemoError::NoKey)?,
    };
    let (from, key) = found;
    let key = Key::new(key.trim()).map_err(|source| DemoError::Key { from, source })?;
    Ok(Some(Access { key, from }))
}

/// Looks whether the directory is the demo's, makes it where there is none, and begins the log. What an earlier demo left in
/// it stays untouched: that is for the engine, once it has the lock.
fn prepare(state_dir: &Path, log_file: &Path) -> Result<Prepared, DemoError> {
    let binary = std::env::current_exe().map_err(DemoError::OwnPath)?;
    // A JSON string is a YAML string, whatever the path holds.
    let quoted = serde_json::Value::from(binary.to_string_lossy().into_owned()).to_string();
    let named = WORKLOADS.replace(&format!("[{PLACEHOLDER},"), &format!("[{quoted},"));
    let text = format!("{OURS}{named}");
    let workloads = state_dir.join("workloads.yaml");
    nagi_local::check_new_beginning(state_dir, &workloads, &text).map_err(|source| {
        let path = state_dir.to_owned();
        if matches!(source, StoreError::Foreign { .. }) {
            DemoError::Foreign { path, source }
        } else {
            DemoError::State { path, source }
        }
    })?;
    let write = |path: &Path, source| DemoError::Write {
        path: path.to_owned(),
        source,
    };
    let is_new = !state_dir.exists();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .map_err(|source| write(state_dir, source))?;
    let prepared = Prepared {
        workloads,
        text,
        made: is_new.then(|| state_dir.to_owned()),
    };
    let begun = nagi_local::store::check_room(state_dir, TOUR_BYTES)
        .map_err(|error| match error {
            // No room will help.
            WriteError::Full { path, source } if source.kind() == ReadOnlyFilesystem => {
                DemoError::Write { path, source }
            }
            WriteError::Full { .. } | WriteError::Away { .. } | WriteError::Other { .. } => {
                DemoError::NoRoom(error)
            }
        })
        .and_then(|()| begin_log(log_file).map_err(|source| write(log_file, source)));
    match begun {
        Ok(()) => Ok(prepared),
        Err(error) => {
            prepared.take_back();
            Err(error)
        }
    }
}

/// What the tour failed of, and the disk where that is full: then it is the cause of everything else.
fn stuck(error: TourError, state_dir: &Path) -> Failure {
    let mut failure = error.into_failure();
    if let Err(disk) = nagi_local::store::check_room(state_dir, 0) {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&disk);
        while let Some(error) = cause {
            failure.causes.push(error.to_string());
            cause = error.source();
        }
        failure = failure.hint(DemoError::NoRoom(disk).hint());
    }
    failure
}

/// Makes the log file like everything else of the demo, for its user only. One that is there stays as it is.
fn begin_log(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options.open(path).map(drop)
}

// === impl Prepared ===

impl Prepared {
    /// Removes the directory of a demo that did not start. One in which an engine has begun stays.
    #[expect(
        clippy::disallowed_methods,
        reason = "removes three names that this process has just made, in a directory that it made"
    )]
    fn take_back(&self) {
        let Some(made) = &self.made else { return };
        if made.join(ENGINE_FILE).exists() {
            return;
        }
        for file in [&self.workloads, &made.join("nagi.log")] {
            drop(std::fs::remove_file(file));
        }
        // Only while it is empty.
        drop(std::fs::remove_dir(made));
    }
}

async fn guide(
    api: SocketAddr,
    gateway: SocketAddr,
    access: Option<&Access>,
    clock: &dyn Clock,
) -> Result<(), TourError> {
    let server = ServerAddress::from(api);
    let client = Client::new(server, access.map(|access| access.key.clone()));
    let mut tour = Tour {
        events: EventFollower::new(client.clone(), None),
        client,
        gateway,
        clock,
        out: std::io::stdout(),
        step: "start",
    };
    tour.run().await
}

/// Commands that do what they say when they are typed as they are, but for the key.
fn stay_text(api: SocketAddr, gateway: SocketAddr, access: Option<&Access>) -> String {
    let port = gateway.port();
    // As the person called it: `make demo` does not put it on the PATH.
    let nagi = std::env::args().next().unwrap_or_else(|| "nagi".to_owned());
    let (mut header, mut flag, mut whose) = (String::new(), String::new(), String::new());
    if let Some(access) = access {
        header = format!("-H \"Authorization: Bearer {KEY}\" ");
        flag = format!(" --key {KEY}");
        whose = format!("\n\n{KEY} stands for the key in {}.", access.from);
    }
    format!(
        "\nThe tour is complete, and everything stays up. Try it in another terminal:\n\n  \
         curl {header}http://{api}/api/v1/deployments/project-a/sample-app-a/status\n  \
         curl http://sample-app-a.project-a.localhost:{port}/\n  \
         {nagi} list --server http://{api}{flag}{whose}\n\nCtrl-C ends the demo and its apps."
    )
}

fn println_now(text: &str) {
    let mut out = std::io::stdout();
    // Nobody reads any more: the demo goes on, its exit code still tells.
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &ServeArgs) -> ServeConfig {
        let home = Home {
            state: None,
            directory: Some(PathBuf::from("/home/me")),
            name: "nagi-demo",
            in_pod: false,
        };
        ServeConfig::resolve(args, &home).unwrap()
    }

    fn tried(args: &ServeArgs, client: Option<&str>) -> Result<&'static str, String> {
        let found = access(&config(args), client).map_err(|error| error.to_string())?;
        Ok(found.map_or("none", |access| access.from))
    }

    #[test]
    fn the_workload_file_of_the_demo_is_valid_wherever_the_binary_lies() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let prepared = prepare(&state, &state.join("nagi.log")).unwrap();
        assert!(!prepared.workloads.exists(), "that is for the lock's owner");
        std::fs::write(&prepared.workloads, &prepared.text).unwrap();
        let file = nagi_local::file::WorkloadFile::read(&prepared.workloads).unwrap();
        assert_eq!(file.workloads.len(), 2);
        for workload in &file.workloads {
            assert!(
                Path::new(&workload.command[0]).is_absolute(),
                "{:?}",
                workload.command
            );
        }
    }

    #[test]
    fn the_tour_calls_with_the_key_that_the_server_takes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "secret\n").unwrap();
        let open = ServeArgs::default();
        let one = ServeArgs {
            api_key: Some("secret".into()),
            ..ServeArgs::default()
        };
        let in_file = ServeArgs {
            api_key_file: Some(file.display().to_string()),
            ..ServeArgs::default()
        };
        let off = ServeArgs {
            api_key: Some(String::new()),
            ..in_file.clone()
        };
        let many = ServeArgs {
            keys_file: Some("/keys.yaml".into()),
            ..ServeArgs::default()
        };
        assert_eq!(tried(&open, Some("mine")).unwrap(), "none");
        assert_eq!(tried(&one, Some("mine")).unwrap(), "API_KEY");
        assert_eq!(tried(&in_file, None).unwrap(), "API_KEY_FILE");
        assert_eq!(tried(&off, None).unwrap(), "none");
        assert_eq!(tried(&many, Some("mine")).unwrap(), "NAGI_KEY");
        assert!(tried(&many, None).unwrap_err().contains("NAGI_KEYS_FILE"));
        let not_sent = ServeArgs {
            api_key: Some("two words".into()),
            ..ServeArgs::default()
        };
        assert!(tried(&not_sent, None).unwrap_err().contains("API_KEY"));
    }

    #[test]
    fn what_is_told_to_try_needs_the_key_where_one_is_asked_for() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let open = stay_text(at(1), at(2), None);
        assert!(
            open.contains("curl http://127.0.0.1:1/api/") && !open.contains(KEY),
            "{open}"
        );
        let access = Access {
            key: Key::new("secret").unwrap(),
            from: "API_KEY",
        };
        let keyed = stay_text(at(1), at(2), Some(&access));
        for expected in [
            "curl -H \"Authorization: Bearer KEY\" http://127.0.0.1:1/api/",
            "--server http://127.0.0.1:1 --key KEY\n",
            "KEY stands for the key in API_KEY.",
        ] {
            assert!(keyed.contains(expected), "{keyed}");
        }
        assert!(!keyed.contains("secret"), "{keyed}");
    }
}
