//! Who proved which key.
//!
//! Two kinds of keys live side by side (DESIGN §7): the single key of `API_KEY` or `API_KEY_FILE`, and the many of
//! `NAGI_KEYS_FILE`, of which only salted digests are stored. A key of the many has 256 random bits, so a plain SHA-256 is as good
//! as a slow hash: there is nothing to guess. It carries its id, `nagi_ID_SECRET`, so that one digest is computed
//! per request whatever the file holds; an unknown id costs the same work as a known one.
//!
//! [`mod@file`] reads and writes the file, also for `nagi key`; [`Keyring`] holds what counts now and follows the files.
//! There are deliberately no sessions and no passwords.

pub mod file;
mod ring;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use nagi_core::access::{Grant, Holder};
use nagi_core::id::KeyId;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

pub use file::{KeyEntry, KeyFileError};
pub(crate) use ring::WatchedKey;
pub use ring::{KeySources, Keyring, KeyringError};

/// The id under which the single key of `API_KEY` appears in log and history; no other key may have it.
pub const SINGLE_KEY_ID: &str = "api-key";
/// What every key of the many begins with, so that secret scanners find a leaked one.
const PREFIX: &str = "nagi_";
/// Random bits of a secret, in bytes.
const SECRET_BYTES: usize = 32;
/// Salt of a digest, in bytes.
const SALT_BYTES: usize = 16;

/// A salted SHA-256 of a key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Digest {
    salt: Vec<u8>,
    sha256: [u8; 32],
}

/// All keys that count at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    single: Option<Digest>,
    many: BTreeMap<KeyId, Key>,
    /// The file of many keys is configured, so that an empty one opens nothing.
    many_configured: bool,
    /// Tokens of the engine's accounts are taken too, so that no key opens nothing.
    tokens: bool,
}

/// Why a presented key grants nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unproven {
    /// It is unknown, wrong or revoked; these are told apart by nobody.
    Wrong,
    /// It is the key with this id, whose time is over. Only its holder gets to know.
    Expired(KeyId),
}

/// One of the many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    digest: Digest,
    grant: Grant,
}

/// No random bits from the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bits")]
pub struct NoRandomness;

pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

// === impl Digest ===

impl Digest {
    /// Of a key, with a fresh salt.
    pub(crate) fn of(key: &str) -> Result<Self, NoRandomness> {
        Ok(Self::with_salt(random::<SALT_BYTES>()?.to_vec(), key))
    }

    fn with_salt(salt: Vec<u8>, key: &str) -> Self {
        let sha256 = hash(&salt, key);
        Self { salt, sha256 }
    }

    /// Takes as long for a wrong key as for the right one.
    fn is_of(&self, key: &str) -> bool {
        bool::from(hash(&self.salt, key).ct_eq(&self.sha256))
    }
}

fn hash(salt: &[u8], key: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(salt)
        .chain_update(key.as_bytes())
        .finalize()
        .into()
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

// === impl Keys ===

impl Keys {
    /// True when no key is needed.
    pub(crate) fn are_off(&self) -> bool {
        self.single.is_none() && !self.many_configured && !self.tokens
    }

    /// Does a key count here as it did there? A key that counts nowhere does not.
    fn agree_on(&self, holder: &Holder, before: &Self) -> bool {
        match holder {
            Holder::Anybody => self.are_off() && before.are_off(),
            // Asked anew by whoever took the token.
            Holder::User(_) => true,
            Holder::Key(id) if id.as_str() == SINGLE_KEY_ID => {
                self.single.is_some() && self.single == before.single
            }
            Holder::Key(id) => {
                let now = self.many.get(id);
                now.is_some() && now == before.many.get(id)
            }
        }
    }

    /// What a presented key grants now.
    pub(crate) fn prove(&self, key: &str, now: Timestamp) -> Result<Grant, Unproven> {
        let nobody = Digest {
            salt: vec![0; SALT_BYTES],
            sha256: [0; 32],
        };
        let single = self.single.as_ref().unwrap_or(&nobody).is_of(key);
        let known = id_in(key).and_then(|id| self.many.get_key_value(&id));
        let one_of_many = known.map_or(&nobody, |(_, key)| &key.digest).is_of(key);
        if single && self.single.is_some() {
            let id = KeyId::new(SINGLE_KEY_ID).expect("a constant that is a name");
            return Ok(Grant::everything(Holder::Key(id)));
        }
        let (id, Key { grant, .. }) = known.filter(|_| one_of_many).ok_or(Unproven::Wrong)?;
        if grant.is_valid(now) {
            Ok(grant.clone())
        } else {
            Err(Unproven::Expired(id.clone()))
        }
    }
}

/// Does the text look like one of the many? Such a text is nobody else's business, whether it counts or not.
pub(crate) fn looks_like_ours(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// The id that a key of the many carries.
fn id_in(key: &str) -> Option<KeyId> {
    let (id, _secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    KeyId::new(id).ok()
}

/// A new key for this id: the text that is shown once.
fn generate(id: &KeyId) -> Result<String, NoRandomness> {
    Ok(format!("{PREFIX}{id}_{}", hex(&random::<SECRET_BYTES>()?)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a `String` cannot fail.
        write!(text, "{byte:02x}").unwrap_or(());
    }
    text
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    bytes
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
