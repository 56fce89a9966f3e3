//! The fields of one workload that have rules of their own: command, environment, labels, port, readiness, pool, hosts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nagi_core::id::{Host, PoolName, WorkloadId};
use serde_saphyr::{Location, Spanned};

use super::Checker;
use crate::file::{PoolSpec, Readiness, Resources, schema};

/// Words of a command at most.
const COMMAND_WORDS_MAX: usize = 256;
/// Bytes of one word of a command or one value of the environment (the kernel's `MAX_ARG_STRLEN` is 128 KiB).
const WORD_BYTES_MAX: usize = 64 << 10;
/// Variables of one workload at most.
const ENV_MAX: usize = 256;
/// Host names of one workload at most.
const HOSTS_MAX: usize = 32;
/// Labels of one workload at most.
const LABELS_MAX: usize = 64;
/// Characters of a label's name or value (Kubernetes).
const LABEL_CHARS_MAX: usize = 63;
/// Characters of a readiness path at most.
const PATH_CHARS_MAX: usize = 1_024;

impl Checker<'_> {
    pub(super) fn command(
        &mut self,
        command: &Spanned<Vec<schema::Text>>,
        path: &str,
        working_directory: &Path,
    ) -> Vec<String> {
        let words = &command.value;
        if words.is_empty() || words.len() > COMMAND_WORDS_MAX {
            let message = format!(
                "{} words; allowed: a program and its arguments, 1 to {COMMAND_WORDS_MAX} words",
                words.len()
            );
            self.report(command.referenced, format!("{path}.command"), message);
        }
        for (index, word) in words.iter().enumerate() {
            self.word(
                word.referenced,
                &word.value,
                format!("{path}.command[{index}]"),
            );
        }
        let mut words: Vec<String> = words.iter().map(|word| word.value.clone()).collect();
        match words.first_mut() {
            Some(program) if program.trim().is_empty() => {
                let at = command.referenced;
                self.report(
                    at,
                    format!("{path}.command[0]"),
                    "empty; allowed: the name of a program",
                );
            }
            // Resolved here, because how a relative program and a working directory combine differs between systems.
            Some(program) if program.contains('/') => {
                *program = working_directory
                    .join(&*program)
                    .to_string_lossy()
                    .into_owned();
            }
            Some(_) | None => {}
        }
        words
    }

    pub(super) fn word(&mut self, at: Location, word: &str, field: String) {
        if word.contains('\0') || word.len() > WORD_BYTES_MAX {
            let message = format!(
                "not usable as an argument or variable; allowed: at most {WORD_BYTES_MAX} bytes without NUL"
            );
            self.report(at, field, message);
        }
    }

    pub(super) fn directory(&mut self, given: Option<&schema::Text>, path: &str) -> PathBuf {
        let Some(given) = given else {
            return self.directory.to_path_buf();
        };
        self.word(
            given.referenced,
            &given.value,
            format!("{path}.working_directory"),
        );
        if given.value.is_empty() {
            let message = "empty; allowed: a directory, relative to that of this file";
            self.report(
                given.referenced,
                format!("{path}.working_directory"),
                message,
            );
        }
        self.directory.join(&given.value)
    }

    pub(super) fn environment(
        &mut self,
        given: BTreeMap<String, schema::Text>,
        path: &str,
        at: Location,
    ) -> BTreeMap<String, String> {
        if given.len() > ENV_MAX {
            let message = format!("{} variables; allowed: at most {ENV_MAX}", given.len());
            self.report(at, format!("{path}.env"), message);
        }
        for (name, value) in &given {
            let field = format!("{path}.env.{name}");
            let first = name.bytes().next();
            let named = first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !named {
                let message = "not the name of a variable; allowed: letters, digits and '_', not a digit first";
                self.report(value.referenced, field.clone(), message);
            }
            if name == "PORT" || name.starts_with("NAGI_") {
                let message = "set by Nagi; allowed: any name but PORT and NAGI_…";
                self.report(value.referenced, field.clone(), message);
            }
            self.word(value.referenced, &value.value, field);
        }
        given
            .into_iter()
            .map(|(name, value)| (name, value.value))
            .collect()
    }

    pub(super) fn labels(
        &mut self,
        given: BTreeMap<String, schema::Text>,
        path: &str,
        at: Location,
    ) -> BTreeMap<String, String> {
        if given.len() > LABELS_MAX {
            let message = format!("{} labels; allowed: at most {LABELS_MAX}", given.len());
            self.report(at, format!("{path}.labels"), message);
        }
        for (key, value) in &given {
            let (prefix, name) = key
                .rsplit_once('/')
                .map_or((None, &**key), |(p, n)| (Some(p), n));
            let key_fits = !name.is_empty()
                && is_label_text(name)
                && prefix.is_none_or(|prefix| Host::new(prefix).is_ok());
            if !key_fits || !is_label_text(&value.value) {
                let message = format!(
                    "not a label; allowed: at most {LABEL_CHARS_MAX} letters, digits, '-', '_' and '.', beginning \
                     and ending with a letter or digit; the key may have a prefix such as example.com/"
                );
                self.report(value.referenced, format!("{path}.labels.{key}"), message);
            }
        }
        given
            .into_iter()
            .map(|(name, value)| (name, value.value))
            .collect()
    }

    pub(super) fn port(&mut self, given: Option<&schema::Text>, path: &str) -> Option<u16> {
        let given = given?;
        // A wrong port is still a port: readiness must not be blamed for it as well.
        let port = self.count(
            Some(given),
            format!("{path}.port"),
            1..=u32::from(u16::MAX),
            1,
        );
        u16::try_from(port).ok()
    }

    pub(super) fn readiness(
        &mut self,
        given: Option<&Spanned<schema::Readiness>>,
        path: &str,
        port: Option<u16>,
    ) -> Readiness {
        let Some(given) = given else {
            return if port.is_some() {
                Readiness::Tcp
            } else {
                Readiness::Running
            };
        };
        if port.is_none() {
            let message = "there is no port to ask; allowed: only together with port";
            self.report(given.referenced, format!("{path}.readiness"), message);
        }
        match &given.value {
            schema::Readiness::Tcp {} => Readiness::Tcp,
            schema::Readiness::Http { path: asked } => {
                let text = &asked.value;
                let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
                if !text.starts_with('/') || !printable || text.len() > PATH_CHARS_MAX {
                    let message = format!(
                        "not a path; allowed: a slash and at most {PATH_CHARS_MAX} printable ASCII characters"
                    );
                    self.report(
                        asked.referenced,
                        format!("{path}.readiness.http.path"),
                        message,
                    );
                }
                Readiness::Http { path: text.clone() }
            }
        }
    }

    pub(super) fn pool_of(
        &mut self,
        given: Option<&schema::Text>,
        path: &str,
        at: Location,
        pools: &BTreeMap<PoolName, PoolSpec>,
    ) -> Option<PoolName> {
        let allowed = || {
            pools
                .keys()
                .map(PoolName::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let field = format!("{path}.pool");
        match given {
            Some(given) => {
                let found = PoolName::new(given.value.as_str())
                    .ok()
                    .filter(|name| pools.contains_key(name));
                if found.is_none() {
                    let message = format!("no pool {:?}; allowed: {}", given.value, allowed());
                    self.report(given.referenced, field, message);
                }
                found
            }
            None if pools.len() == 1 => pools.keys().next().cloned(),
            None => {
                let message = format!(
                    "missing, and there are several pools; allowed: {}",
                    allowed()
                );
                self.report(at, field, message);
                None
            }
        }
    }

    pub(super) fn fits(&mut self, asked: Resources, pool: &PoolSpec, path: &str, at: Location) {
        let offer = pool.capacity;
        let mut compare = |what: &str, asked: u64, offered: u64, show: &dyn Fn(u64) -> String| {
            if asked > offered {
                let message = format!(
                    "asks for {}; allowed: at most the {} of a node of pool {}",
                    show(asked),
                    show(offered),
                    pool.name
                );
                self.report(at, format!("{path}.resources.{what}"), message);
            }
        };
        compare("cpu", asked.cpu_milli, offer.cpu_milli, &|milli| {
            format!("{} processors", whole_and_thousandths(milli))
        });
        compare("memory", asked.memory_bytes, offer.memory_bytes, &|bytes| {
            format!("{bytes} bytes")
        });
        compare("gpu", asked.gpu.into(), offer.gpu.into(), &|gpus| {
            format!("{gpus} GPUs")
        });
    }

    /// Names that lead to it through the gateway, which reaches a workload by its port only.
    pub(super) fn hosts(
        &mut self,
        given: Option<Vec<schema::Text>>,
        path: &str,
        (id, port): (&WorkloadId, Option<u16>),
        at: Location,
    ) -> Vec<Host> {
        if port.is_none() {
            if let Some(first) = given.iter().flatten().next() {
                let message = "there is no port to forward to; allowed: only together with port";
                self.report(first.referenced, format!("{path}.hosts"), message);
            }
            return Vec::new();
        }
        let Some(given) = given else {
            return match id.default_host() {
                Ok(host) => vec![host],
                Err(error) => {
                    let message = format!("missing, and the default {error}");
                    self.report(at, format!("{path}.hosts"), message);
                    Vec::new()
                }
            };
        };
        if let Some(first) = given.get(HOSTS_MAX) {
            let message = format!("too many entries; allowed: at most {HOSTS_MAX}");
            self.report(first.referenced, format!("{path}.hosts"), message);
        }
        let mut hosts = Vec::with_capacity(given.len());
        for (index, host) in given.iter().enumerate() {
            // Host names compare without case (RFC 9110 §4.2.3).
            let text = host.value.to_ascii_lowercase();
            match Host::new(text) {
                Ok(host) => hosts.push(host),
                Err(error) => {
                    self.report(
                        host.referenced,
                        format!("{path}.hosts[{index}]"),
                        error.to_string(),
                    );
                }
            }
        }
        hosts
    }
}

/// The name part of a label's key, or its value (which may be empty), as Kubernetes has it.
fn is_label_text(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LABEL_CHARS_MAX
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// Thousandths as people write them: `4`, `0.5`.
fn whole_and_thousandths(milli: u64) -> String {
    let (whole, rest) = (milli / 1_000, milli % 1_000);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = format!("{rest:03}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}
