//! The file of many keys: its format, and what `nagi key` does to it.
//!
//! ```yaml
//! version: 1
//! keys:
//!   - id: ci
//!     role: operator            # viewer, operator, admin
//!     namespaces: [project-a]   # "*" reaches all
//!     created: 2030-01-31T07:00:00Z
//!     expires: 2031-01-31T07:00:00Z   # may be left out
//!     salt: 00112233445566778899aabbccddeeff
//!     sha256: …
//! ```
//!
//! YAML, of which JSON is a part. It is replaced as a whole: written beside, flushed, renamed. A lock file beside it
//! keeps two `nagi key` at a time from losing one's work. The plain key is never stored.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nagi_api::Time;
use nagi_core::access::{Grant, Holder, Reach, Role};
use nagi_core::id::{KeyId, Namespace};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Digest, Key, NoRandomness, SINGLE_KEY_ID, from_hex, generate, hex};

/// Largest file that is read: room for ten thousand keys.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most keys. A lookup is by id, so this bounds memory and reload, not requests.
const KEYS_MAX: usize = 10_000;
/// The version of the format that this code writes.
const VERSION: u32 = 1;
/// The word that reaches every namespace.
const ALL: &str = "*";
/// Read and write for the owner only: digests are no secrets, but who has which rights is nobody else's business.
const MODE: u32 = 0o600;

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the keys file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is larger than anything this program wrote.
    #[error("the keys file {path} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is no YAML or JSON of the expected form.
    #[error("the keys file {path} is malformed: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column where the parser tells.
        reason: String,
    },
    /// It cannot be replaced.
    #[error("cannot write the keys file {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The id is taken.
    #[error("a key with the id {id} exists already")]
    Exists {
        /// The id.
        id: KeyId,
    },
    /// The id belongs to the single key of `API_KEY`.
    #[error("the id {id} is reserved for the key of API_KEY")]
    Reserved {
        /// The id.
        id: KeyId,
    },
    /// No key has this id.
    #[error("no key has the id {id}")]
    Unknown {
        /// The id.
        id: KeyId,
    },
    /// No more keys fit.
    #[error("the keys file holds {KEYS_MAX} keys already")]
    Full,
    /// No random bits.
    #[error("cannot make a key")]
    Randomness(#[from] NoRandomness),
}

/// A key as `nagi key list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// Its id.
    pub id: KeyId,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub reach: Reach,
    /// When it was made.
    pub created: Timestamp,
    /// The first instant at which it no longer counts.
    pub expires: Option<Timestamp>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    keys: Vec<Row>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    role: String,
    namespaces: Vec<String>,
    created: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Time>,
    salt: String,
    sha256: String,
}

/// Every key of the file, by id.
///
/// # Errors
/// It cannot be read, or is malformed.
pub fn list(path: &Path) -> Result<Vec<KeyEntry>, KeyFileError> {
    let rows = read(path)?;
    Ok(rows.into_values().map(|(entry, _)| entry).collect())
}

/// Every key in the bytes of a file, by id.
///
/// # Errors
/// Why they are no keys file; never a salt or digest.
pub fn entries(bytes: &[u8]) -> Result<Vec<KeyEntry>, String> {
    let rows = parse(bytes)?;
    Ok(rows.into_values().map(|(entry, _)| entry).collect())
}

/// Adds a key and returns its text, which is stored nowhere. A file that does not exist is made.
///
/// # Errors
/// The id is taken or reserved, or the file cannot be read or replaced; then nothing changed.
pub fn create(path: &Path, entry: &KeyEntry) -> Result<String, KeyFileError> {
    if entry.id.as_str() == SINGLE_KEY_ID {
        return Err(KeyFileError::Reserved {
            id: entry.id.clone(),
        });
    }
    let _lock = lock(path)?;
    let mut rows = read_or_empty(path)?;
    if rows.contains_key(&entry.id) {
        return Err(KeyFileError::Exists {
            id: entry.id.clone(),
        });
    }
    if rows.len() >= KEYS_MAX {
        return Err(KeyFileError::Full);
    }
    let key = generate(&entry.id)?;
    let digest = Digest::of(&key)?;
    rows.insert(entry.id.clone(), (entry.clone(), digest));
    write(path, &rows)?;
    Ok(key)
}

/// Takes a key away. It stops to count in every running server within 5 s.
///
/// # Errors
/// No such key, or the file cannot be read or replaced; then nothing changed.
pub fn revoke(path: &Path, id: &KeyId) -> Result<KeyEntry, KeyFileError> {
    let _lock = lock(path)?;
    let mut rows = read(path)?;
    let Some((entry, _)) = rows.remove(id) else {
        return Err(KeyFileError::Unknown { id: id.clone() });
    };
    write(path, &rows)?;
    Ok(entry)
}

/// Checks the bytes of a keys file without using them: how many keys it holds.
///
/// # Errors
/// What is wrong, with line and column where the parser tells; never a salt or digest.
pub fn validate(bytes: &[u8]) -> Result<usize, String> {
    parse(bytes).map(|rows| rows.len())
}

/// What counts, for the server.
pub(super) fn load(path: &Path) -> Result<BTreeMap<KeyId, Key>, KeyFileError> {
    let rows = read(path)?;
    let keys = rows.into_iter().map(|(id, (entry, digest))| {
        let grant = Grant {
            holder: Holder::Key(id.clone()),
            role: entry.role,
            reach: entry.reach,
            expires: entry.expires,
        };
        (id, Key { digest, grant })
    });
    Ok(keys.collect())
}

type Rows = BTreeMap<KeyId, (KeyEntry, Digest)>;

fn read_or_empty(path: &Path) -> Result<Rows, KeyFileError> {
    match read(path) {
        Err(KeyFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Rows::new())
        }
        other => other,
    }
}

fn read(path: &Path) -> Result<Rows, KeyFileError> {
    let failed = |source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX) {
        return Err(KeyFileError::TooLarge {
            path: path.to_owned(),
        });
    }
    parse(&bytes).map_err(|reason| KeyFileError::Malformed {
        path: path.to_owned(),
        reason,
    })
}

/// Reads the bytes of a keys file. The reason never repeats a salt or digest.
pub(super) fn parse(bytes: &[u8]) -> Result<Rows, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
    };
    let document: Document =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| misread(&error))?;
    if document.version != VERSION {
        return Err(format!(
            "version {} is not known, this program reads {VERSION}",
            document.version
        ));
    }
    if document.keys.len() > KEYS_MAX {
        return Err(format!("it holds more than {KEYS_MAX} keys"));
    }
    let mut rows = Rows::new();
    for (index, row) in document.keys.iter().enumerate() {
        let at = |why: String| format!("keys[{index}]: {why}");
        let (entry, digest) = check(row).map_err(at)?;
        let id = entry.id.clone();
        if rows.insert(id.clone(), (entry, digest)).is_some() {
            return Err(at(format!("the id {id} stands twice")));
        }
    }
    Ok(rows)
}

/// What is wrong with the form of the file, and where. The library's words are not for those who keep keys, and content of
/// the file is not for a log.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "an enum of the library with sixty variants; `nagi key` writes the file, so that few matter"
)]
fn misread(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as E;
    let error = error.without_snippet();
    let what = match error {
        // Of `Time`.
        E::Message { msg, .. } => msg.clone(),
        E::SerdeUnknownField { expected, .. } => {
            format!("an unknown field; allowed: {}", expected.join(", "))
        }
        E::SerdeMissingField { field, .. } => format!("the field {field} is missing"),
        E::DuplicateMappingKey { .. } => "a field stands twice".to_owned(),
        _ => "not what `nagi key create` writes: `version: 1`, and a list of `keys`".to_owned(),
    };
    match error.location() {
        Some(at) => format!("line {}, column {}: {what}", at.line(), at.column()),
        None => what,
    }
}

fn check(row: &Row) -> Result<(KeyEntry, Digest), String> {
    let id = KeyId::new(row.id.as_str()).map_err(|e| format!("id {e}"))?;
    if id.as_str() == SINGLE_KEY_ID {
        return Err(format!("the id {id} is reserved for the key of API_KEY"));
    }
    let role = Role::parse(&row.role)
        .ok_or_else(|| "role must be viewer, operator or admin".to_owned())?;
    let reach = reach(&row.namespaces)?;
    let salt = from_hex(&row.salt).filter(|salt| salt.len() >= 8);
    let salt = salt.ok_or_else(|| "salt must be at least 16 hexadecimal digits".to_owned())?;
    let sha256 = from_hex(&row.sha256).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let sha256 = sha256.ok_or_else(|| "sha256 must be 64 hexadecimal digits".to_owned())?;
    let entry = KeyEntry {
        id,
        role,
        reach,
        created: row.created.0,
        expires: row.expires.map(|time| time.0),
    };
    Ok((entry, Digest { salt, sha256 }))
}

/// Reads namespaces as the file and the command line name them: names, or `*` alone.
///
/// # Errors
/// None, a name that is none, or `*` among names.
pub fn reach(names: &[String]) -> Result<Reach, String> {
    if names.iter().any(|name| name == ALL) {
        return if names.len() == 1 {
            Ok(Reach::All)
        } else {
            Err("namespaces: \"*\" stands alone".to_owned())
        };
    }
    if names.is_empty() {
        return Err("namespaces must name at least one, or \"*\" for all".to_owned());
    }
    let set = names
        .iter()
        .map(|name| Namespace::new(name.as_str()).map_err(|e| format!("namespace {name:?} {e}")));
    Ok(Reach::Only(set.collect::<Result<_, _>>()?))
}

fn row(entry: &KeyEntry, digest: &Digest) -> Row {
    let namespaces = match &entry.reach {
        Reach::All => vec![ALL.to_owned()],
        Reach::Only(set) => set.iter().map(ToString::to_string).collect(),
    };
    Row {
        id: entry.id.to_string(),
        role: entry.role.as_str().to_owned(),
        namespaces,
        created: Time::in_millis(entry.created),
        expires: entry.expires.map(Time),
        salt: hex(&digest.salt),
        sha256: hex(&digest.sha256),
    }
}

fn write(path: &Path, rows: &Rows) -> Result<(), KeyFileError> {
    let document = Document {
        version: VERSION,
        keys: rows
            .values()
            .map(|(entry, digest)| row(entry, digest))
            .collect(),
    };
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    let text = if is_json {
        serde_json::to_string_pretty(&document).map_err(io::Error::other)
    } else {
        serde_saphyr::to_string(&document).map_err(io::Error::other)
    };
    text.and_then(|text| replace(path, &text))
        .map_err(|source| KeyFileError::Write {
            path: path.to_owned(),
            source,
        })
}

/// Replaces the file as a whole: whoever reads sees the old content or the new, also after a crash.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // A link stays a link: the file that it names is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mode = match fs::metadata(&target) {
        Ok(metadata) => metadata.permissions().mode() & 0o777,
        Err(_) => MODE,
    };
    let beside = sibling(&target, "new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(text.trim_end().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&beside, &target)?;
    File::open(directory_of(&target))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Holds off other `nagi key` until dropped.
fn lock(path: &Path) -> Result<File, KeyFileError> {
    let beside = sibling(path, "lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .open(&beside)
        .and_then(|file| file.lock().map(|()| file));
    file.map_err(|source| KeyFileError::Write {
        path: beside,
        source,
    })
}

/// `.NAME.SUFFIX` in the same directory, so that a rename stays inside one filesystem.
fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{suffix}"))
}
