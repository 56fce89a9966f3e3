//! Limits that somebody else has set: one that is as strict as ours counts as held, and ours never loosens it.
//!
//! Files are read as their owner reads them: systemd's by the order of its directories and names, kubelet's main file before its
//! drop-ins. What the last of them says is what holds. Every value has a rank, and the smaller one is the stricter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::files::Node;
use super::render::MIB;
use super::{CapError, Capped, Limits};
use crate::kubelet::Quantity;

/// Where systemd reads configuration, the first before the others.
const SYSTEMD: [&str; 5] = [
    "/etc/systemd",
    "/run/systemd",
    "/usr/local/lib/systemd",
    "/usr/lib/systemd",
    "/lib/systemd",
];

/// A value of somebody else that is at least as strict as ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What its owner calls it.
    pub key: &'static str,
    /// As it stands there.
    pub value: String,
    /// The file, on the node.
    pub path: PathBuf,
}

/// What others have set of one limit.
#[derive(Debug, Default)]
pub(super) struct Theirs {
    /// Values that are at least as strict as ours.
    pub(super) held: Vec<Held>,
    /// What a file of ours leaves to them.
    pub(super) left_out: Vec<&'static str>,
    /// They hold the limit: nothing of ours is needed.
    pub(super) is_whole: bool,
    /// A file of ours is there, is read after theirs, and says less.
    pub(super) is_loosened: bool,
}

/// What one file says.
struct Said {
    path: PathBuf,
    values: Vec<(&'static str, String)>,
}

/// The part of kubelet's files that matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Kubelet {
    container_log_max_size: Option<String>,
    container_log_max_files: Option<u64>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    high: Option<u64>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    low: Option<u64>,
}

/// The part of docker's file that matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Docker {
    log_driver: Option<String>,
    log_opts: BTreeMap<String, String>,
}

const JOURNAL_MAX: &str = "SystemMaxUse";
const JOURNAL_FREE: &str = "SystemKeepFree";
const COREDUMP_MAX: &str = "MaxUse";
const LOG_SIZE: &str = "containerLogMaxSize";
const LOG_FILES: &str = "containerLogMaxFiles";
const IMAGES_HIGH: &str = "imageGCHighThresholdPercent";
const IMAGES_LOW: &str = "imageGCLowThresholdPercent";
const DOCKER_SIZE: &str = "max-size";
const DOCKER_FILES: &str = "max-file";

/// What others have set of a limit whose file of ours would be `own`. Reads only.
///
/// # Errors
/// A file is there and cannot be read: what stands in it must not be loosened.
pub(super) fn theirs(
    node: &Node,
    what: Capped,
    limits: &Limits,
    own: &Path,
    is_own_ours: bool,
) -> Result<Theirs, CapError> {
    let mut said = match what {
        Capped::Journal => systemd(
            node,
            "journald.conf",
            "Journal",
            &[JOURNAL_MAX, JOURNAL_FREE],
        )?,
        Capped::Coredumps => systemd(node, "coredump.conf", "Coredump", &[COREDUMP_MAX])?,
        Capped::Kubelet => kubelet(node, own)?,
        Capped::Docker => docker(node, own)?,
        Capped::Snaps => Vec::new(),
    };
    let own_at = said.iter().position(|one| one.path == own);
    let ours = own_at
        .filter(|_| is_own_ours)
        .map(|at| (at, said.remove(at)));
    let mut found = Theirs::default();
    for (key, wanted) in wanted(what, limits) {
        let last = said.iter().enumerate().rev().find_map(|(at, one)| {
            let (value, theirs) = one.of(key)?;
            Some((at, one, value, theirs))
        });
        let Some((at, one, value, theirs)) = last.filter(|(.., theirs)| *theirs <= wanted) else {
            continue;
        };
        found.held.push(Held {
            key,
            value: value.to_owned(),
            path: one.path.clone(),
        });
        // Ours was taken out of the list: what stood behind it stands at its place or later now.
        found.is_loosened |= ours.as_ref().is_some_and(|(place, ours)| {
            at < *place && ours.of(key).is_some_and(|(_, ours)| ours > theirs)
        });
    }
    found.left_out = found.held.iter().map(|held| held.key).collect();
    // Kubelet starts with no low mark that is not below the high one, and theirs may be below our low one.
    let high = found.held.iter().find(|held| held.key == IMAGES_HIGH);
    let high = high.and_then(|held| rank(IMAGES_HIGH, &held.value));
    if high.is_some_and(|high| u64::from(limits.images_low) >= high) {
        found.left_out.push(IMAGES_LOW);
    }
    let bounds: &[&str] = match what {
        Capped::Journal => &[JOURNAL_MAX],
        Capped::Coredumps => &[COREDUMP_MAX],
        Capped::Kubelet => &[LOG_SIZE, LOG_FILES, IMAGES_HIGH, IMAGES_LOW],
        Capped::Docker => &[DOCKER_SIZE, DOCKER_FILES],
        Capped::Snaps => return Ok(found),
    };
    found.is_whole = bounds.iter().all(|key| found.left_out.contains(key));
    Ok(found)
}

/// Each value that we would write, with its rank.
fn wanted(what: Capped, limits: &Limits) -> Vec<(&'static str, u64)> {
    // As they are written: whole MiB.
    let whole = |bytes: u64| bytes / MIB * MIB;
    match what {
        Capped::Journal => vec![
            (JOURNAL_MAX, whole(limits.journal_max)),
            (JOURNAL_FREE, u64::MAX - whole(limits.journal_keep_free)),
        ],
        Capped::Coredumps => vec![(COREDUMP_MAX, whole(limits.coredump_max))],
        Capped::Kubelet => vec![
            (LOG_SIZE, whole(limits.log_max)),
            (LOG_FILES, limits.log_files.into()),
            (IMAGES_HIGH, limits.images_high.into()),
            (IMAGES_LOW, limits.images_low.into()),
        ],
        Capped::Docker => vec![
            (DOCKER_SIZE, whole(limits.log_max)),
            (DOCKER_FILES, limits.log_files.into()),
        ],
        Capped::Snaps => Vec::new(),
    }
}

/// How strict a value is, the smaller the stricter; none where its owner would not take it, or it is no limit.
fn rank(key: &str, value: &str) -> Option<u64> {
    match key {
        // For systemd 0 is no limit.
        JOURNAL_MAX | COREDUMP_MAX => systemd_size(value).filter(|bytes| *bytes > 0),
        JOURNAL_FREE => systemd_size(value).map(|bytes| u64::MAX - bytes),
        LOG_SIZE => match value.parse() {
            Ok(Quantity::Amount(bytes)) => Some(bytes).filter(|bytes| *bytes > 0),
            Ok(Quantity::Percent(_)) | Err(_) => None,
        },
        DOCKER_SIZE => docker_size(value).filter(|bytes| *bytes > 0),
        _ => value.trim().parse().ok(),
    }
}

/// Sizes as systemd reads them: `500M`, `1.5G`, `1G 500M`, by powers of 1024.
fn systemd_size(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut bytes = (!rest.is_empty()).then_some(0_u64)?;
    while !rest.is_empty() {
        let number = |byte: char| byte.is_ascii_digit() || byte == '.';
        let (digits, behind) = rest.split_at(rest.find(|one| !number(one)).unwrap_or(rest.len()));
        let behind = behind.trim_start();
        let letters = behind
            .find(|one: char| !one.is_ascii_alphabetic())
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let shift = match unit {
            "" | "B" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            "P" => 50,
            "E" => 60,
            _ => return None,
        };
        bytes = bytes.checked_add(scaled(digits, 1 << shift)?)?;
        rest = behind.trim_start();
    }
    Some(bytes)
}

/// Sizes as docker reads them: `10m`, `1.5g`, by powers of 1024.
fn docker_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let short = lower.trim_end_matches('b').trim_end_matches('i');
    let (digits, shift) = [("k", 10), ("m", 20), ("g", 30), ("t", 40), ("p", 50)]
        .into_iter()
        .find_map(|(unit, shift)| Some((short.strip_suffix(unit)?, shift)))
        .unwrap_or((short, 0));
    scaled(digits.trim(), 1 << shift)
}

/// A decimal number of a unit, rounded down.
fn scaled(digits: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    // Nine digits are more than a limit is told with.
    let fraction = fraction.get(..fraction.len().min(9))?;
    let tens = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = match fraction {
        "" => 0,
        some => some.parse::<u128>().ok()? * u128::from(unit) / tens,
    };
    whole.checked_add(u64::try_from(part).ok()?)
}

// === What files say, in the order in which they are read ===

/// The main file, then the drop-ins by their names, of which each counts for the first directory that has it.
fn systemd(
    node: &Node,
    name: &str,
    section: &str,
    keys: &[&'static str],
) -> Result<Vec<Said>, CapError> {
    let mut texts = Vec::new();
    for directory in SYSTEMD {
        let path = Path::new(directory).join(name);
        if let Some(text) = node.text(&path)? {
            texts.push((path, text));
            break;
        }
    }
    let mut drop_ins = BTreeMap::new();
    for directory in SYSTEMD {
        let directory = Path::new(directory).join(format!("{name}.d"));
        for name in node.drop_ins(&directory)? {
            drop_ins
                .entry(name.clone())
                .or_insert_with(|| directory.join(name));
        }
    }
    for path in drop_ins.into_values() {
        if let Some(text) = node.text(&path)? {
            texts.push((path, text));
        }
    }
    let said = texts.into_iter().map(|(path, text)| Said {
        values: assignments(&text, section, keys),
        path,
    });
    Ok(said.collect())
}

/// Values of a file of systemd in one of its sections.
fn assignments(text: &str, section: &str, keys: &[&'static str]) -> Vec<(&'static str, String)> {
    let mut values = Vec::new();
    let mut is_in = false;
    for line in text.replace("\\\n", " ").lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            is_in = name.strip_suffix(']') == Some(section);
        } else if is_in
            && let Some((key, value)) = line.split_once('=')
            && let Some(key) = keys.iter().find(|one| **one == key.trim())
        {
            values.push((*key, value.trim().to_owned()));
        }
    }
    values
}

/// Kubelet's file, then the drop-ins in the directory of ours.
fn kubelet(node: &Node, own: &Path) -> Result<Vec<Said>, CapError> {
    let mut paths = vec![PathBuf::from(nagi_cri::kubelet::CONFIG)];
    if let Some(directory) = own.parent() {
        let names = node.drop_ins(directory)?;
        paths.extend(names.into_iter().map(|name| directory.join(name)));
    }
    let mut said = Vec::new();
    for path in paths {
        // A file that kubelet cannot read either says nothing: it would not start.
        let Some(text) = node.text(&path)? else {
            continue;
        };
        let Kubelet {
            container_log_max_size,
            container_log_max_files,
            high,
            low,
        } = serde_saphyr::from_str(&text).unwrap_or_default();
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let values = [
            (LOG_SIZE, container_log_max_size),
            (LOG_FILES, number(container_log_max_files)),
            (IMAGES_HIGH, number(high)),
            (IMAGES_LOW, number(low)),
        ];
        said.push(Said {
            path,
            values: { values.into_iter() }
                .filter_map(|(key, value)| Some((key, value?)))
                .collect(),
        });
    }
    Ok(said)
}

/// Docker's one file. Without a number of files it keeps one; other drivers have options of their own.
fn docker(node: &Node, own: &Path) -> Result<Vec<Said>, CapError> {
    let Some(text) = node.text(own)? else {
        return Ok(Vec::new());
    };
    let file: Docker = serde_saphyr::from_str(&text).unwrap_or_default();
    let is_ours = file.log_driver.is_none_or(|driver| driver == "json-file");
    let mut options = file.log_opts;
    let values = match options.remove(DOCKER_SIZE).filter(|_| is_ours) {
        Some(size) => {
            let files = options.remove(DOCKER_FILES);
            vec![
                (DOCKER_SIZE, size),
                (DOCKER_FILES, files.unwrap_or_else(|| "1".to_owned())),
            ]
        }
        None => Vec::new(),
    };
    Ok(vec![Said {
        path: own.to_owned(),
        values,
    }])
}

// === impl Said ===

impl Said {
    /// The last value of a key that its owner takes, and its rank.
    fn of(&self, key: &str) -> Option<(&str, u64)> {
        let values = self.values.iter().rev().filter(|(name, _)| *name == key);
        { values }.find_map(|(_, value)| Some((value.as_str(), rank(key, value)?)))
    }
}
