//! The keys that count now, and how they follow their files.
//!
//! Sources and what their absence means are in DESIGN §7. Files are looked at once a second: identity, size and
//! time of change first, content only when one of these differs, so that neither editors nor mounted secrets (which swap a
//! link) are missed. A file that went bad changes nothing: the last good content stays, and an error is logged once
//! for each content.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nagi_core::access::Holder;
use nagi_runtime::{Blocking, Shutdown};
use nagi_telemetry::{Authentication, ConfigFile, Metrics};
use thiserror::Error;
use tokio::sync::watch;

use super::{Digest, KeyFileError, Keys, NoRandomness, file};

/// How often the files are looked at. DESIGN promises 5 s; one leaves room for a slow disk.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest single key, in bytes: longer than any key, shorter than any file named by mistake.
const SINGLE_BYTES_MAX: u64 = 8 * 1024;

/// Where keys come from.
#[derive(Clone, Default)]
pub struct KeySources {
    /// `API_KEY`: overrides `api_key_file`; empty switches both off.
    pub api_key: Option<String>,
    /// `API_KEY_FILE`: one plain key; absent at the start means none.
    pub api_key_file: Option<PathBuf>,
    /// `NAGI_KEYS_FILE`: the digests of many; while set, authentication stays on.
    pub keys_file: Option<PathBuf>,
    /// `NAGI_KUBERNETES_TOKENS`: tokens of the cluster are taken beside keys; while set, authentication stays on.
    pub tokens: bool,
    /// `NAGI_REQUIRE_AUTH`: refuse to start without any key, unless tokens are taken.
    pub required: bool,
}

impl std::fmt::Debug for KeySources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let api_key = self
            .api_key
            .as_ref()
            .map(|key| if key.is_empty() { "empty" } else { "set" });
        f.debug_struct("KeySources")
            .field("api_key", &api_key)
            .field("api_key_file", &self.api_key_file)
            .field("keys_file", &self.keys_file)
            .field("tokens", &self.tokens)
            .field("required", &self.required)
            .finish()
    }
}

/// Why the keys cannot be used.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// `NAGI_KEYS_FILE` cannot be used.
    #[error(transparent)]
    KeysFile(#[from] KeyFileError),
    /// `API_KEY_FILE` is there but cannot be read.
    #[error("cannot read the key file {path}")]
    ReadSingle {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `API_KEY_FILE` holds nothing.
    #[error("the key file {path} is empty")]
    EmptySingle {
        /// The file.
        path: PathBuf,
    },
    /// `API_KEY_FILE` holds something that can be no key.
    #[error(
        "the key file {path} holds no key: one line of at most {SINGLE_BYTES_MAX} bytes of printable ASCII"
    )]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// No header can carry `API_KEY`, so nobody could ever come in.
    #[error(
        "API_KEY can be sent by nobody: a key is of printable ASCII characters, without a blank at its ends"
    )]
    Unsendable,
    /// `NAGI_REQUIRE_AUTH` is set, and there is no key.
    #[error(
        "authentication is required, but no key is configured: set API_KEY, API_KEY_FILE or NAGI_KEYS_FILE, or on \
         Kubernetes NAGI_KUBERNETES_TOKENS"
    )]
    Required,
    /// No random bits for a salt.
    #[error("cannot salt the key")]
    Randomness(#[from] NoRandomness),
}

/// The keys that count now. Clones share them.
#[derive(Debug, Clone)]
pub struct Keyring {
    sources: Arc<KeySources>,
    keys: Arc<watch::Sender<Arc<Keys>>>,
    seen: Arc<Mutex<Seen>>,
    metrics: Metrics,
}

/// Waits until a key does not count as it did.
#[derive(Debug)]
pub(crate) struct WatchedKey {
    keys: watch::Receiver<Arc<Keys>>,
    holder: Holder,
    before: Arc<Keys>,
}

impl WatchedKey {
    /// Waits. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        loop {
            let now = Arc::clone(&self.keys.borrow_and_update());
            if !now.agree_on(&self.holder, &self.before) {
                return;
            }
            if self.keys.changed().await.is_err() {
                // The ring is gone, and with it whatever could change.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The state of the files at the last look.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Seen {
    single: Option<Stamp>,
    many: Option<Stamp>,
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed_seconds: i64,
    changed_nanoseconds: i64,
}

// === impl Keyring ===

impl Keyring {
    /// Reads every source. Blocks on files: call it before serving begins.
    ///
    /// # Errors
    /// What DESIGN §7 says that a server must not start with.
    pub fn open(sources: KeySources, metrics: Metrics) -> Result<Self, KeyringError> {
        let mut keys = Keys {
            tokens: sources.tokens,
            ..Keys::default()
        };
        let seen = Seen::now(&sources);
        if let Some(path) = &sources.keys_file {
            keys.many = file::load(path)?;
            keys.many_configured = true;
        }
        keys.single = match (&sources.api_key, &sources.api_key_file) {
            (Some(key), _) if key.is_empty() => None,
            (Some(key), _) if !is_sendable(key) => return Err(KeyringError::Unsendable),
            (Some(key), _) => Some(Digest::of(key)?),
            (None, Some(path)) => {
                let key = single(path)?;
                if key.is_none() {
                    tracing::warn!(path = %path.display(), "API_KEY_FILE names a file that is not there");
                }
                key
            }
            (None, None) => None,
        };
        let nobody_comes_in = keys.single.is_none() && keys.many.is_empty() && !keys.tokens;
        if sources.required && nobody_comes_in {
            return Err(KeyringError::Required);
        }
        if keys.are_off() {
            tracing::warn!(
                "Requests are taken without a key: set API_KEY, API_KEY_FILE or NAGI_KEYS_FILE to ask for one"
            );
        }
        let ring = Self {
            sources: Arc::new(sources),
            keys: Arc::new(watch::Sender::new(Arc::new(keys))),
            seen: Arc::new(Mutex::new(seen)),
            metrics,
        };
        if ring.sources.keys_file.is_some() {
            ring.metrics.set_file_in_force(ConfigFile::Keys, true);
        }
        if ring.followed_single().is_some() {
            let there = ring.current().single.is_some();
            ring.metrics.set_file_in_force(ConfigFile::ApiKey, there);
        }
        ring.publish_state();
        Ok(ring)
    }

    /// Of a role that serves no API: no key, and nothing is said about it.
    pub fn unused(metrics: Metrics) -> Self {
        Self {
            sources: Arc::new(KeySources::default()),
            keys: Arc::new(watch::Sender::new(Arc::new(Keys::default()))),
            seen: Arc::new(Mutex::new(Seen::default())),
            metrics,
        }
    }

    /// What counts now.
    pub(crate) fn current(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.borrow())
    }

    /// Tells when this key, or that none is needed, no longer counts as it does now.
    pub(crate) fn watch(&self, holder: Holder) -> WatchedKey {
        WatchedKey {
            keys: self.keys.subscribe(),
            holder,
            before: self.current(),
        }
    }

    /// Follows the files until the process drains.
    pub async fn follow(self, shutdown: Shutdown) {
        if !self.sources.have_files() {
            return shutdown.draining().await;
        }
        let blocking = Blocking::new("keys", 1);
        loop {
            tokio::select! {
                // Cancel-safe: a timer and a watch.
                () = shutdown.draining() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let ring = self.clone();
            if let Err(error) = blocking.run(move || ring.look()).await {
                tracing::error!(error = %error, "Keys could not be looked at");
            }
        }
    }

    /// Reads what changed since the last look.
    fn look(&self) {
        let now = Seen::now(&self.sources);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        let mut keys = (*self.current()).clone();
        if seen.many != now.many
            && let Some(path) = &self.sources.keys_file
        {
            let loaded = file::load(path);
            self.metrics
                .set_file_in_force(ConfigFile::Keys, loaded.is_ok());
            match loaded {
                Ok(many) => {
                    tracing::info!(path = %path.display(), keys = many.len(), "Keys file read again");
                    keys.many = many;
                }
                Err(error) => complain(path, &error),
            }
        }
        if seen.single != now.single
            && let Some(path) = self.followed_single()
        {
            let loaded = single(path);
            self.metrics
                .set_file_in_force(ConfigFile::ApiKey, matches!(loaded, Ok(Some(_))));
            match loaded {
                Ok(Some(digest)) => {
                    tracing::info!(path = %path.display(), "Key file read again");
                    keys.single = Some(digest);
                }
                Ok(None) if keys.single.is_none() => {}
                Ok(None) => complain(path, &io::Error::from(io::ErrorKind::NotFound)),
                Err(error) => complain(path, &error),
            }
        }
        *seen = now;
        drop(seen);
        self.keys.send_replace(Arc::new(keys));
        self.publish_state();
    }

    /// `API_KEY_FILE`, unless `API_KEY` takes its place.
    fn followed_single(&self) -> Option<&Path> {
        let overruled = self.sources.api_key.is_some();
        self.sources.api_key_file.as_deref().filter(|_| !overruled)
    }

    fn publish_state(&self) {
        self.metrics
            .set_authentication(if self.current().are_off() {
                Authentication::Disabled
            } else {
                Authentication::Enabled
            });
    }
}

fn complain(path: &Path, error: &dyn std::error::Error) {
    let cause = error.source().map(ToString::to_string);
    tracing::error!(
        path = %path.display(), error = %error, cause = cause.as_deref(),
        "Keys could not be read again, the last good ones stay"
    );
}

/// Can it stand in `Authorization: Bearer KEY` and arrive unchanged?
fn is_sendable(key: &str) -> bool {
    key.trim() == key && key.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The digest of the key in a file; `None` when there is no file.
fn single(path: &Path) -> Result<Option<Digest>, KeyringError> {
    let failed = |source| KeyringError::ReadSingle {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(SINGLE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let not_a_key = || KeyringError::NotAKey {
        path: path.to_owned(),
    };
    let text = String::from_utf8(bytes).map_err(|_| not_a_key())?;
    let key = text.trim();
    if key.is_empty() {
        return Err(KeyringError::EmptySingle {
            path: path.to_owned(),
        });
    }
    let too_long = u64::try_from(text.len()).map_or(true, |len| len > SINGLE_BYTES_MAX);
    if too_long || !is_sendable(key) {
        return Err(not_a_key());
    }
    Ok(Some(Digest::of(key)?))
}

// === impl KeySources ===

impl KeySources {
    fn have_files(&self) -> bool {
        self.keys_file.is_some() || (self.api_key.is_none() && self.api_key_file.is_some())
    }
}

// === impl Seen ===

impl Seen {
    fn now(sources: &KeySources) -> Self {
        let stamp = |path: &Option<PathBuf>| path.as_deref().and_then(Stamp::of);
        Self {
            single: stamp(&sources.api_key_file),
            many: stamp(&sources.keys_file),
        }
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed_seconds: metadata.ctime(),
            changed_nanoseconds: metadata.ctime_nsec(),
        })
    }
}
