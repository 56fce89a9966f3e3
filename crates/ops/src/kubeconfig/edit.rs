//! Leading a cluster of a kubeconfig another way: `server` and `tls-server-name` in one edit, with a way back.
//!
//! A name is written only when the certificate that the server presents is of the cluster's own authority and has it; what is
//! written can therefore not weaken what is verified. Without a server to ask, only what the caller names is written, and said
//! to be unchecked. The file as it was lies beside it until the edit is undone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nagi_runtime::Deadline;
use rustls::pki_types::ServerName;

use super::text::{self, Has, Wanted};
use super::{Choice, Kubeconfig, without_userinfo};
use crate::decide::best_name;
use crate::edit::{Lock, Original};
use crate::endpoint::{HandshakeError, Trust, present, tls_host};
use crate::remote::digest;
use crate::root::Root;

/// The file as it was before the first edit.
const BACKUP: &str = ".nagi-backup";
/// The SHA-256 of everything that was written here since, a line each: what has none of them, somebody else has changed.
const WRITTEN: &str = ".nagi-backup.sha256";
/// What kubectl makes beside a kubeconfig while it writes it, and only where it is not there.
const LOCK: &str = ".lock";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct KubeconfigEdit {
    /// The kubeconfigs that are read as one; the one with the cluster is changed.
    pub files: Vec<PathBuf>,
    /// The context whose cluster is meant; none means the current one.
    pub context: Option<String>,
    /// The cluster itself.
    pub cluster: Option<String>,
    /// The new server; none leaves it.
    pub server: Option<String>,
    /// The new name; none takes what the certificate needs.
    pub tls_server_name: Option<String>,
    /// Whether the server is asked.
    pub check: Check,
    /// How long it may take.
    pub timeout: Duration,
}

/// Whether the server is asked for its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It must show one that fits.
    Server,
    /// It is not called.
    Nobody,
}

/// What a cluster has, or is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The URL, without a user and password in it.
    pub server: String,
    /// The name that the certificate must have instead of its host.
    pub tls_server_name: Option<String>,
}

/// What is known of the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// The server presents one of the cluster's authority, with these names; the expected one is among them.
    Fits(Vec<String>),
    /// Nobody was asked.
    Unchecked,
}

/// An edit that can be looked at, and made.
#[derive(Debug)]
pub struct KubeconfigPlan {
    /// The file, behind every link.
    pub file: PathBuf,
    /// The cluster in it.
    pub cluster: String,
    /// What it has.
    pub before: Server,
    /// What it is to have.
    pub after: Server,
    /// What is known of that.
    pub checked: Checked,
    /// Where the file as it was is kept.
    pub backup: PathBuf,
    original: Original,
    new: String,
}

/// Why a kubeconfig is not changed.
#[derive(Debug)]
pub enum KubeconfigError {
    /// What is asked for makes no sense.
    Usage(String),
    /// It cannot be read as what it should be, or not be changed in this one place.
    Unusable(String),
    /// The server cannot be asked.
    Unasked {
        /// It.
        server: String,
        /// Why.
        why: String,
    },
    /// Its certificate is for other names.
    Name {
        /// The server.
        server: String,
        /// The name that was asked for.
        expected: String,
        /// The names that it has.
        names: Vec<String>,
    },
    /// Its certificate is not of the cluster's authority.
    Untrusted {
        /// The server.
        server: String,
        /// Why.
        why: String,
    },
    /// Somebody is at it, or was killed: the lock that kubectl and this program take is there.
    Locked(PathBuf),
    /// There is a backup that is not of this file.
    Stale(PathBuf),
    /// There is no backup.
    NoBackup(PathBuf),
    /// The file was changed by somebody else since it was edited.
    Changed {
        /// The file.
        file: PathBuf,
        /// The backup.
        backup: PathBuf,
    },
    /// It cannot be written.
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What would change.
///
/// # Errors
/// It cannot be changed, or would then not be verified.
pub async fn plan_kubeconfig(edit: &KubeconfigEdit) -> Result<KubeconfigPlan, KubeconfigError> {
    let choice = match &edit.cluster {
        Some(cluster) => Choice::Cluster(cluster),
        None => Choice::Context(edit.context.as_deref()),
    };
    let config = own_root()
        .and_then(|root| super::read(&root, &edit.files, choice))
        .map_err(KubeconfigError::Unusable)?;
    let (original, text) = opened(&config.holder)?;
    let named =
        |why: String| KubeconfigError::Unusable(format!("{}: {why}", config.holder.display()));
    let before = text::has(&text, &config.cluster).map_err(named)?;
    let server = edit.server.as_deref().unwrap_or(&before.server);
    let host = tls_host(server).map_err(KubeconfigError::Usage)?;
    if let Some(name) = &edit.tls_server_name
        && ServerName::try_from(name.as_str()).is_err()
    {
        let why = format!("{name:?} is no name that a certificate can have");
        return Err(KubeconfigError::Usage(why));
    }
    let (name, checked) = match edit.check {
        Check::Nobody => (edit.tls_server_name.clone(), Checked::Unchecked),
        Check::Server => {
            let asking = Asking {
                config: &config,
                server: &without_userinfo(server),
                host: &host,
                timeout: edit.timeout,
            };
            let known = before.tls_server_name.as_deref();
            asking.name(edit.tls_server_name.as_deref(), known).await?
        }
    };
    let wanted = Wanted {
        cluster: &config.cluster,
        server,
        tls_server_name: name.as_deref(),
    };
    let new = text::edited(&text, wanted).map_err(named)?;
    let after = text::has(&new, &config.cluster).map_err(named)?;
    Ok(KubeconfigPlan {
        file: original.path().to_owned(),
        backup: original.beside(BACKUP),
        cluster: config.cluster,
        before: before.into(),
        after: after.into(),
        checked,
        original,
        new,
    })
}

/// Puts a kubeconfig back as it was before its first edit; which one it was. Of several files it is the first with a backup.
///
/// # Errors
/// None has one, or it was changed by somebody else since.
pub fn undo_kubeconfig(files: &[PathBuf]) -> Result<PathBuf, KubeconfigError> {
    let first = files.first().cloned().unwrap_or_default();
    for file in files {
        let (original, text) = opened(file)?;
        let backup = original.beside(BACKUP);
        if !backup.exists() {
            continue;
        }
        let _lock = locked(&original)?;
        let (kept, old) = opened(&backup)?;
        if old != text && !is_ours(&original, &text)? {
            let file = original.path().to_owned();
            return Err(KubeconfigError::Changed { file, backup });
        }
        let list = original.beside(WRITTEN);
        let written = original
            .replace(&kept.bytes)
            .and_then(|()| original.remove_copy(&backup))
            .and_then(|()| original.remove_copy(&list));
        let file = original.path().to_owned();
        return match written {
            Ok(()) => Ok(file),
            Err(source) => Err(KubeconfigError::Write { file, source }),
        };
    }
    Err(KubeconfigError::NoBackup(first))
}

fn own_root() -> Result<Root, String> {
    Root::open(Path::new("/")).map_err(|error| format!("/: {error}"))
}

fn opened(file: &Path) -> Result<(Original, String), KubeconfigError> {
    let unusable = |why: &dyn std::fmt::Display| {
        KubeconfigError::Unusable(format!("{}: {why}", file.display()))
    };
    let original = Original::read(file).map_err(|error| unusable(&error))?;
    let text = String::from_utf8(original.bytes.clone()).map_err(|error| unusable(&error))?;
    Ok((original, text))
}

fn locked(original: &Original) -> Result<Lock, KubeconfigError> {
    original.lock(LOCK).map_err(|(lock, source)| {
        if source.kind() == std::io::ErrorKind::AlreadyExists {
            KubeconfigError::Locked(lock)
        } else {
            KubeconfigError::Write { file: lock, source }
        }
    })
}

/// The file is as one of our edits left it.
fn is_ours(original: &Original, text: &str) -> Result<bool, KubeconfigError> {
    let list = original.beside(WRITTEN);
    match std::fs::read_to_string(&list) {
        Ok(lines) => Ok(lines.lines().any(|line| line == digest(text.as_bytes()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(KubeconfigError::Unusable(format!(
            "{}: {error}",
            list.display()
        ))),
    }
}

/// Asking a server for its certificate.
#[derive(Debug, Clone, Copy)]
struct Asking<'a> {
    config: &'a Kubeconfig,
    server: &'a str,
    host: &'a str,
    timeout: Duration,
}

// === impl Asking ===

impl Asking<'_> {
    /// The name to write, if one is needed beside what is there.
    async fn name(
        self,
        wanted: Option<&str>,
        known: Option<&str>,
    ) -> Result<(Option<String>, Checked), KubeconfigError> {
        let names = match self.presents(wanted.or(known).unwrap_or(self.host)).await {
            Ok(names) => return Ok((wanted.map(str::to_owned), Checked::Fits(names))),
            Err(KubeconfigError::Name { names, .. }) if wanted.is_none() => names,
            Err(error) => return Err(error),
        };
        let offered = if known.is_some() && names.iter().any(|name| name == self.host) {
            // An older name is in the way of the host that is right.
            Some(self.host.to_owned())
        } else {
            best_name(&names, self.host)
        };
        let Some(name) = offered else {
            return Err(KubeconfigError::Name {
                server: self.server.to_owned(),
                expected: known.unwrap_or(self.host).to_owned(),
                names,
            });
        };
        let names = self.presents(&name).await?;
        Ok((Some(name), Checked::Fits(names)))
    }

    /// The names of its certificate, which is of the cluster's authority and has this one.
    async fn presents(self, expected: &str) -> Result<Vec<String>, KubeconfigError> {
        let server = self.server.to_owned();
        if let Some(proxy) = &self.config.proxy {
            let why = format!("the way goes over the proxy {proxy}, which is not followed");
            return Err(KubeconfigError::Unasked { server, why });
        }
        let trust = Trust {
            authority: self.config.authority.as_deref(),
            name: expected,
            client: None,
        };
        let shaken = present(&server, &trust, Deadline::in_(self.timeout)).await;
        let shaken = match shaken {
            Ok(shaken) => shaken,
            Err(why) => return Err(KubeconfigError::Unasked { server, why }),
        };
        let names = shaken.presented.map(|one| one.names).unwrap_or_default();
        let untrusted = |why: &str| KubeconfigError::Untrusted {
            server: self.server.to_owned(),
            why: why.to_owned(),
        };
        Err(match shaken.stream {
            Ok(_) => return Ok(names),
            Err(HandshakeError::Name) => KubeconfigError::Name {
                server,
                expected: expected.to_owned(),
                names,
            },
            Err(HandshakeError::UnknownAuthority) => {
                untrusted("it is of an authority that the cluster does not have")
            }
            Err(HandshakeError::Expired) => untrusted("it has ended"),
            Err(HandshakeError::NotYetValid) => untrusted("it begins later than now"),
            Err(HandshakeError::Unusable(why)) => KubeconfigError::Unusable(why),
            Err(HandshakeError::Failed(why)) => KubeconfigError::Unasked { server, why },
            Err(HandshakeError::Closed) => {
                let why = "the connection is closed before a word".to_owned();
                KubeconfigError::Unasked { server, why }
            }
            Err(HandshakeError::TimedOut) => {
                let why = format!("no answer within {} ms", self.timeout.as_millis());
                KubeconfigError::Unasked { server, why }
            }
        })
    }
}

// === impl KubeconfigPlan ===

impl KubeconfigPlan {
    /// It changes something.
    pub fn changes(&self) -> bool {
        self.new.as_bytes() != self.original.bytes
    }

    /// Makes the edit, if it changes something. The file as it was is kept first.
    ///
    /// # Errors
    /// It cannot be written, somebody is at it, or the backup that is there is not of it. Nothing has changed then.
    pub fn apply(&self) -> Result<(), KubeconfigError> {
        if !self.changes() {
            return Ok(());
        }
        let _lock = locked(&self.original)?;
        let failed = |source| KubeconfigError::Write {
            file: self.file.clone(),
            source,
        };
        if std::fs::symlink_metadata(&self.backup).is_ok() {
            let (_, old) = opened(&self.backup)?;
            let now = String::from_utf8_lossy(&self.original.bytes);
            if old != now && !is_ours(&self.original, &now)? {
                return Err(KubeconfigError::Stale(self.backup.clone()));
            }
            self.write().map_err(failed)
        } else {
            self.original.copy_to(&self.backup).map_err(failed)?;
            self.write().map_err(|source| {
                // Nothing was edited, so nothing is to be undone. That they stay is no harm: they say the same.
                for ours in [&self.backup, &self.original.beside(WRITTEN)] {
                    drop(self.original.remove_copy(ours));
                }
                failed(source)
            })
        }
    }

    /// Says first what is going to be written: whoever is killed in between has changed nothing.
    fn write(&self) -> std::io::Result<()> {
        let list = self.original.beside(WRITTEN);
        let mut lines = match std::fs::read_to_string(&list) {
            Ok(lines) => lines,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        lines.push_str(&digest(self.new.as_bytes()));
        lines.push('\n');
        self.original.lay(&list, lines.as_bytes())?;
        self.original.replace(self.new.as_bytes())
    }
}

impl From<Has> for Server {
    fn from(has: Has) -> Self {
        Self {
            server: without_userinfo(&has.server),
            tls_server_name: has.tls_server_name,
        }
    }
}
