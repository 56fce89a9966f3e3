//! Settings of the serving roles: read once, checked as a whole, before anything starts.
//!
//! Each setting is a flag and an environment variable; the flag wins. Values arrive as text and are checked here,
//! not by the argument parser, because a server's last words must be a JSON line of its log.
//! The reference page `docs/configuration.md` is generated from these declarations.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nagi_core::guardrail::{Guardrails, REPLICAS_MAX_DEFAULT};
use nagi_core::id::Namespace;
use nagi_core::quantity::Replicas;
use nagi_core::rate::{RateLimit, WRITES_BURST_DEFAULT, WRITES_PER_SECOND_DEFAULT};
use nagi_server::Network;
use nagi_telemetry::LevelFilter;
use thiserror::Error;

/// Port of the REST API.
const API_PORT: u16 = 8080;
/// Port of `/metrics`.
const METRICS_PORT: u16 = 9090;
/// Port of the gateway.
const GATEWAY_PORT: u16 = 8000;
/// How long the gateway holds a request: below the 30 s and 60 s after which usual proxies give up.
const HOLD_DEFAULT: Duration = Duration::from_secs(25);
/// Longest hold that may be asked for.
const HOLD_MAX: Duration = Duration::from_hours(1);

// The settings as people name them, as a flag and as a variable. What each means stands at its field in `ServeArgs`.
pub(crate) const LISTEN: Setting = Setting {
    flag: "--listen",
    env: "NAGI_LISTEN",
};
const PORT: Setting = Setting {
    flag: "--port",
    env: "PORT",
};
pub(crate) const METRICS_LISTEN: Setting = Setting {
    flag: "--metrics-listen",
    env: "NAGI_METRICS_LISTEN",
};
pub(crate) const GATEWAY_LISTEN: Setting = Setting {
    flag: "--gateway-listen",
    env: "NAGI_GATEWAY_LISTEN",
};
const STATE_DIR: Setting = Setting {
    flag: "--state-dir",
    env: "NAGI_STATE_DIR",
};
pub(crate) const LOG_LEVEL: Setting = Setting {
    flag: "--log-level",
    env: "LOG_LEVEL",
};
const LOG_FILE: Setting = Setting {
    flag: "--log-file",
    env: "NAGI_LOG_FILE",
};
const API_KEY: Setting = Setting {
    flag: "--api-key",
    env: "API_KEY",
};
const API_KEY_FILE: Setting = Setting {
    flag: "--api-key-file",
    env: "API_KEY_FILE",
};
pub(crate) const KEYS_FILE: Setting = Setting {
    flag: "--keys-file",
    env: "NAGI_KEYS_FILE",
};
const REQUIRE_AUTH: Setting = Setting {
    flag: "--require-auth",
    env: "NAGI_REQUIRE_AUTH",
};
const MAX_REPLICAS: Setting = Setting {
    flag: "--max-replicas",
    env: "NAGI_MAX_REPLICAS",
};
pub(crate) const ALLOWED_NAMESPACES: Setting = Setting {
    flag: "--allowed-namespaces",
    env: "NAGI_ALLOWED_NAMESPACES",
};
const RATE_LIMIT: Setting = Setting {
    flag: "--rate-limit",
    env: "NAGI_RATE_LIMIT",
};
const RATE_BURST: Setting = Setting {
    flag: "--rate-burst",
    env: "NAGI_RATE_BURST",
};
const TRUSTED_PROXIES: Setting = Setting {
    flag: "--trusted-proxies",
    env: "NAGI_TRUSTED_PROXIES",
};
pub(crate) const KUBECONFIG: Setting = Setting {
    flag: "--kubeconfig",
    env: "KUBECONFIG",
};
pub(crate) const CONTEXT: Setting = Setting {
    flag: "--context",
    env: "NAGI_CONTEXT",
};
pub(crate) const NAMESPACES: Setting = Setting {
    flag: "--namespaces",
    env: "NAGI_NAMESPACES",
};
pub(crate) const KUBERNETES_TOKENS: Setting = Setting {
    flag: "--kubernetes-tokens",
    env: "NAGI_KUBERNETES_TOKENS",
};
pub(crate) const HOLD_SECONDS: Setting = Setting {
    flag: "--hold-seconds",
    env: "NAGI_HOLD_SECONDS",
};

/// Variables that say something when they are set to nothing: `API_KEY` switches authentication off (K-14). The others
/// protect, and one that was left empty by mistake must not open a door: it is refused.
pub(crate) const EMPTY_IS_SAID: [&str; 6] = [
    API_KEY.env,
    API_KEY_FILE.env,
    KEYS_FILE.env,
    REQUIRE_AUTH.env,
    KUBERNETES_TOKENS.env,
    ALLOWED_NAMESPACES.env,
];

/// The settings of `nagi all` and `nagi demo`, as text.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServeArgs {
    /// Address of the REST API [default: 127.0.0.1:8080; in a pod 0.0.0.0:8080]
    #[arg(long, env = LISTEN.env, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,

    /// Port of the REST API when --listen is not given, 1 to 65535 [default: 8080]
    #[arg(long, env = PORT.env, value_name = "PORT")]
    pub(crate) port: Option<String>,

    /// Address of /metrics [default: 127.0.0.1:9090; in a pod 0.0.0.0:9090]
    #[arg(long, env = METRICS_LISTEN.env, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_listen: Option<String>,

    /// Address of the gateway, through which the workloads are reached [default: 127.0.0.1:8000; in a pod 0.0.0.0:8000]
    #[arg(long, env = GATEWAY_LISTEN.env, value_name = "ADDRESS:PORT")]
    pub(crate) gateway_listen: Option<String>,

    /// Directory for everything that must survive a restart; one process at a time
    /// [default: `$XDG_STATE_HOME/nagi` or `~/.local/state/nagi`]
    #[arg(long, env = STATE_DIR.env, value_name = "DIRECTORY")]
    pub(crate) state_dir: Option<String>,

    /// Least severe log lines to write: debug, info, warn, error or fatal [default: info]
    #[arg(long, env = LOG_LEVEL.env, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,

    /// File that the JSON log is appended to; opened anew on SIGHUP [default: standard output]
    #[arg(long, env = LOG_FILE.env, value_name = "FILE")]
    pub(crate) log_file: Option<String>,

    /// The one API key, for every caller; empty switches authentication off. Overrides --api-key-file
    #[arg(long, env = API_KEY.env, value_name = "KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,

    /// File that holds the one API key; absent means no authentication, empty or unreadable refuses to start
    #[arg(long, env = API_KEY_FILE.env, value_name = "FILE")]
    pub(crate) api_key_file: Option<String>,

    /// File with the digests of many keys, made by `nagi key`; while it is set, authentication stays on
    #[arg(long, env = KEYS_FILE.env, value_name = "FILE")]
    pub(crate) keys_file: Option<String>,

    /// Refuse to start without any key: true or false [default: false]
    #[arg(long, env = REQUIRE_AUTH.env, value_name = "BOOL")]
    pub(crate) require_auth: Option<String>,

    /// Most replicas that a call may ask for, 1 to 10000 [default: 100]
    #[arg(long, env = MAX_REPLICAS.env, value_name = "COUNT")]
    pub(crate) max_replicas: Option<String>,

    /// Namespaces that may be changed, separated by commas [default: all but the protected ones]
    #[arg(long, env = ALLOWED_NAMESPACES.env, value_name = "NAMES")]
    pub(crate) allowed_namespaces: Option<String>,

    /// Writes per second granted to one key, 0 to 10000; 0 is off [default: 10]
    #[arg(long, env = RATE_LIMIT.env, value_name = "COUNT")]
    pub(crate) rate_limit: Option<String>,

    /// Writes that one key may send at once, 1 to 100000 [default: 50]
    #[arg(long, env = RATE_BURST.env, value_name = "COUNT")]
    pub(crate) rate_burst: Option<String>,

    /// Addresses or networks of proxies whose X-Forwarded-For is believed in the log, separated by commas [default: none]
    #[arg(long, env = TRUSTED_PROXIES.env, value_name = "ADDRESSES")]
    pub(crate) trusted_proxies: Option<String>,

    /// How long the gateway holds a request for a sleeping workload, in seconds, 1 to 3600 [default: 25]
    #[arg(long, env = HOLD_SECONDS.env, value_name = "SECONDS")]
    pub(crate) hold_seconds: Option<String>,
}

/// The settings of the roles that work on a cluster, as text.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Kubernetes")]
pub(crate) struct KubeArgs {
    /// Files that say how the API server is reached, as kubectl reads them
    /// [default: the service account in a pod, else `~/.kube/config`]
    #[arg(long, env = KUBECONFIG.env, value_name = "FILES")]
    pub(crate) kubeconfig: Option<std::ffi::OsString>,

    /// Context of the kubeconfig, which is then used in a pod too [default: the current one]
    #[arg(long, env = CONTEXT.env, value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// Namespaces to look at, separated by commas; rights are needed in these only [default: all]
    #[arg(long, env = NAMESPACES.env, value_name = "NAMES")]
    pub(crate) namespaces: Option<String>,
}

/// The settings, checked.
#[derive(Debug, Clone)]
pub(crate) struct ServeConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) metrics_listen: SocketAddr,
    pub(crate) gateway_listen: SocketAddr,
    pub(crate) state_dir: PathBuf,
    pub(crate) log_level: LevelFilter,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) api_key: Option<String>,
    pub(crate) api_key_file: Option<PathBuf>,
    pub(crate) keys_file: Option<PathBuf>,
    pub(crate) require_auth: bool,
    pub(crate) rails: Guardrails,
    pub(crate) rate_limit: RateLimit,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) hold: Duration,
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{flag} (environment {env}) {rule}, got {value:?}")]
pub(crate) struct ConfigError {
    flag: &'static str,
    env: &'static str,
    rule: String,
    value: String,
}

/// One setting: how people name it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    flag: &'static str,
    /// Its environment variable.
    pub(crate) env: &'static str,
}

impl Setting {
    pub(crate) fn refuse(self, rule: impl Into<String>, value: &str) -> ConfigError {
        ConfigError {
            flag: self.flag,
            env: self.env,
            rule: rule.into(),
            value: value.to_owned(),
        }
    }

    fn number<T>(self, text: Option<&str>, default: T, min: T, max: T) -> Result<T, ConfigError>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let Some(text) = text else {
            return Ok(default);
        };
        match text.trim().parse::<T>() {
            Ok(number) if number >= min && number <= max => Ok(number),
            Ok(_) | Err(_) => {
                Err(self.refuse(format!("must be a whole number from {min} to {max}"), text))
            }
        }
    }

    /// The least severe lines of a log.
    ///
    /// # Errors
    /// A word that is no level.
    pub(crate) fn level(self, text: Option<&str>) -> Result<LevelFilter, ConfigError> {
        text.map_or(Ok(LevelFilter::default()), |text| {
            let refuse = |_| self.refuse("must be debug, info, warn, error or fatal", text);
            text.parse().map_err(refuse)
        })
    }

    fn address(self, text: Option<&str>, default: SocketAddr) -> Result<SocketAddr, ConfigError> {
        let Some(text) = text else {
            return Ok(default);
        };
        text.trim().parse().map_err(|_| {
            self.refuse(
                "must be ADDRESS:PORT, like 127.0.0.1:8080 or [::1]:8080",
                text,
            )
        })
    }

    fn path(self, text: Option<&str>) -> Result<Option<PathBuf>, ConfigError> {
        match text {
            Some(text) if text.trim().is_empty() => {
                let what = if self.flag == STATE_DIR.flag {
                    "directory"
                } else {
                    "file"
                };
                let rule = format!("must name a {what}, or not be set at all");
                Err(self.refuse(rule, text))
            }
            text => Ok(text.map(PathBuf::from)),
        }
    }

    /// `true` or `false`; not set is `false`.
    ///
    /// # Errors
    /// Any other text, nothing included.
    pub(crate) fn flag(self, text: Option<&str>) -> Result<bool, ConfigError> {
        match text.map(str::trim) {
            None | Some("false" | "0" | "no") => Ok(false),
            Some("true" | "1" | "yes") => Ok(true),
            Some(other) => Err(self.refuse("must be true or false", other)),
        }
    }
}

/// Every setting that cannot be used, so that a person mends them in one go.
#[derive(Debug, Default, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub(crate) struct ConfigErrors(pub(crate) Vec<ConfigError>);

impl ConfigErrors {
    /// The value, or a stand-in while the problem is noted.
    fn note<T>(&mut self, checked: Result<T, ConfigError>, stand_in: T) -> T {
        checked.unwrap_or_else(|error| {
            self.0.push(error);
            stand_in
        })
    }
}

// === impl ServeConfig ===

impl ServeConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// All settings that cannot be used, each with its rule.
    pub(crate) fn resolve(args: &ServeArgs, home: &Home) -> Result<Self, ConfigErrors> {
        let mut wrong = ConfigErrors::default();
        let config = Self::checked(args, home, &mut wrong);
        if wrong.0.is_empty() {
            Ok(config)
        } else {
            Err(wrong)
        }
    }

    fn checked(args: &ServeArgs, home: &Home, wrong: &mut ConfigErrors) -> Self {
        let host = if home.in_pod {
            Ipv4Addr::UNSPECIFIED
        } else {
            Ipv4Addr::LOCALHOST
        };
        let local = |port| SocketAddr::from((host, port));
        let port = PORT.number(args.port.as_deref(), API_PORT, 1, u16::MAX);
        let port = wrong.note(port, API_PORT);
        let mut address = |setting: Setting, text: &Option<String>, default| {
            wrong.note(
                setting.address(text.as_deref(), local(default)),
                local(default),
            )
        };
        let listen = address(LISTEN, &args.listen, port);
        let metrics_listen = address(METRICS_LISTEN, &args.metrics_listen, METRICS_PORT);
        let gateway_listen = address(GATEWAY_LISTEN, &args.gateway_listen, GATEWAY_PORT);
        let mut path = |setting: Setting, text: &Option<String>| {
            wrong.note(setting.path(text.as_deref()), None)
        };
        let log_file = path(LOG_FILE, &args.log_file);
        let api_key_file = path(API_KEY_FILE, &args.api_key_file);
        let keys_file = path(KEYS_FILE, &args.keys_file);
        let state_dir = STATE_DIR.path(args.state_dir.as_deref()).and_then(|given| {
            given.or_else(|| home.state_dir()).ok_or_else(|| {
                STATE_DIR.refuse("must be given, because no home directory is known", "")
            })
        });
        let level = LOG_LEVEL.level(args.log_level.as_deref());
        let hold = HOLD_SECONDS.number(
            args.hold_seconds.as_deref(),
            HOLD_DEFAULT.as_secs(),
            1,
            HOLD_MAX.as_secs(),
        );
        Self {
            listen,
            metrics_listen,
            gateway_listen,
            state_dir: wrong.note(state_dir, PathBuf::new()),
            log_level: wrong.note(level, LevelFilter::default()),
            log_file,
            api_key: args.api_key.clone(),
            api_key_file,
            keys_file,
            require_auth: wrong.note(REQUIRE_AUTH.flag(args.require_auth.as_deref()), false),
            rails: rails(args, wrong),
            rate_limit: rate_limit(args, wrong),
            trusted_proxies: wrong.note(trusted_proxies(args), Vec::new()),
            hold: Duration::from_secs(wrong.note(hold, HOLD_DEFAULT.as_secs())),
        }
    }
}

impl KubeArgs {
    /// The namespaces to look at; `None` for all.
    ///
    /// # Errors
    /// A text that is no namespace.
    pub(crate) fn namespaces(&self) -> Result<Option<Vec<Namespace>>, ConfigError> {
        match list(self.namespaces.as_deref()) {
            names if names.is_empty() => Ok(None),
            names => namespaces(NAMESPACES, names).map(Some),
        }
    }
}

fn rails(args: &ServeArgs, wrong: &mut ConfigErrors) -> Guardrails {
    let most = MAX_REPLICAS.number(
        args.max_replicas.as_deref(),
        REPLICAS_MAX_DEFAULT,
        1,
        10_000,
    );
    let allowed = args.allowed_namespaces.as_deref().map(|text| {
        let names = list(Some(text));
        if names.is_empty() {
            // A list that allows nothing is more likely a mistake than a wish, and must not become "all".
            let rule = "must name at least one namespace, or not be set at all";
            return Err(ALLOWED_NAMESPACES.refuse(rule, text));
        }
        namespaces(ALLOWED_NAMESPACES, names)
    });
    let allowed = allowed.transpose();
    Guardrails {
        replicas_max: Replicas(wrong.note(most, REPLICAS_MAX_DEFAULT)),
        allowed: wrong.note(allowed, None),
    }
}

fn rate_limit(args: &ServeArgs, wrong: &mut ConfigErrors) -> RateLimit {
    let (rate, burst) = (WRITES_PER_SECOND_DEFAULT, WRITES_BURST_DEFAULT);
    let per_second = RATE_LIMIT.number(args.rate_limit.as_deref(), rate, 0, 10_000);
    let at_once = RATE_BURST.number(args.rate_burst.as_deref(), burst, 1, 100_000);
    RateLimit {
        per_second: wrong.note(per_second, rate),
        burst: wrong.note(at_once, burst),
    }
}

fn trusted_proxies(args: &ServeArgs) -> Result<Vec<Network>, ConfigError> {
    let rule = "must be IP addresses or networks separated by commas";
    list(args.trusted_proxies.as_deref())
        .into_iter()
        .map(|text| {
            text.parse()
                .map_err(|_: nagi_server::NetworkError| TRUSTED_PROXIES.refuse(rule, &text))
        })
        .collect()
}

/// The parts of a list separated by commas; empty parts do not count.
fn list(text: Option<&str>) -> Vec<String> {
    let parts = text.unwrap_or_default().split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

fn namespaces(setting: Setting, names: Vec<String>) -> Result<Vec<Namespace>, ConfigError> {
    names
        .into_iter()
        .map(|name| {
            Namespace::new(name.as_str()).map_err(|error| setting.refuse(error.to_string(), &name))
        })
        .collect()
}

/// The directories of the user, read once.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    /// `$XDG_STATE_HOME`.
    pub(crate) state: Option<PathBuf>,
    /// `$HOME`.
    pub(crate) directory: Option<PathBuf>,
    /// Name of the state directory below them.
    pub(crate) name: &'static str,
    /// This process serves in a pod: kubelet and the Service reach it from outside.
    pub(crate) in_pod: bool,
}

impl Home {
    /// Reads the environment.
    #[expect(
        clippy::disallowed_methods,
        reason = "the composition root reads the environment"
    )]
    pub(crate) fn from_environment() -> Self {
        // The XDG rules: a relative path is ignored.
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        Self {
            state: absolute("XDG_STATE_HOME"),
            directory: absolute("HOME"),
            name: "nagi",
            in_pod: std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
        }
    }

    /// The same for a role of the cluster. Its state is there: a pod without a home directory is no error.
    pub(crate) fn of_cluster_role(self) -> Self {
        Self {
            directory: self.directory.or_else(|| Some(PathBuf::from("/"))),
            ..self
        }
    }

    /// The same user, with a state directory of the demo's own.
    pub(crate) fn demo(self) -> Self {
        Self {
            name: "nagi-demo",
            ..self
        }
    }

    fn state_dir(&self) -> Option<PathBuf> {
        let local = || {
            self.directory
                .as_ref()
                .map(|home| home.join(".local").join("state"))
        };
        self.state
            .clone()
            .or_else(local)
            .map(|base| base.join(self.name))
    }
}

#[cfg(test)]
mod tests;
