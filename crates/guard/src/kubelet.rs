//! When kubelet begins to kill pods for space: the thresholds of this node.
//!
//! They stand in `evictionHard` of its configuration file. What is absent has kubelet's default, with one trap: as soon as
//! one is set, the others count as none, unless `mergeDefaultEvictionSettings` is true (kubelet `v1beta1/types.go`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use thiserror::Error;

/// A threshold: an amount, or a part of the whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantity {
    /// Bytes, or a number of inodes.
    Amount(u64),
    /// Of what there is.
    Percent(f64),
}

/// Where the thresholds come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThresholdSource {
    /// The configuration file of this node's kubelet.
    File,
    /// There is none: kubelet's defaults.
    Defaults,
    /// There is one and it could not be read, for this reason: kubelet's defaults.
    Unreadable(String),
}

/// The hard eviction thresholds for disks. None means that kubelet does not look.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    /// Where they come from.
    pub source: ThresholdSource,
    /// Space of the filesystem with kubelet's directory.
    pub nodefs_available: Option<Quantity>,
    /// Inodes there.
    pub nodefs_inodes_free: Option<Quantity>,
    /// Space of the filesystem with the images.
    pub imagefs_available: Option<Quantity>,
    /// Inodes there.
    pub imagefs_inodes_free: Option<Quantity>,
}

/// Text that is no quantity of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no quantity")]
pub struct QuantityError(String);

/// The part of the file that matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    #[serde(default)]
    eviction_hard: BTreeMap<String, String>,
    #[serde(default)]
    merge_default_eviction_settings: bool,
}

// === impl Quantity ===

impl Quantity {
    /// The threshold in units, of a whole of so many.
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Percent(percent) => part(whole, percent),
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const UNITS: [(&str, u64); 12] = [
            ("Ki", 1 << 10),
            ("Mi", 1 << 20),
            ("Gi", 1 << 30),
            ("Ti", 1 << 40),
            ("Pi", 1 << 50),
            ("k", 1000),
            ("M", 1_000_000),
            ("G", 1_000_000_000),
            ("T", 1_000_000_000_000),
            ("P", 1_000_000_000_000_000),
            ("E", 1_000_000_000_000_000_000),
            ("", 1),
        ];
        let error = || QuantityError(text.to_owned());
        let number = |text: &str| -> Option<f64> {
            let number: f64 = text.parse().ok()?;
            (number.is_finite() && number >= 0.0).then_some(number)
        };
        let trimmed = text.trim();
        if let Some(percent) = trimmed.strip_suffix('%') {
            let percent = number(percent).filter(|percent| *percent <= 100.0);
            return percent.map(Self::Percent).ok_or_else(error);
        }
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((trimmed.strip_suffix(name)?, *unit)))
            .ok_or_else(error)?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) {
            return Err(error());
        }
        let whole: u64 = whole.parse().map_err(|_| error())?;
        let fraction = number(&format!("0.{fraction}")).ok_or_else(error)?;
        let amount = whole
            .checked_mul(unit)
            .and_then(|amount| amount.checked_add(part(unit, fraction * 100.0)));
        amount.map(Self::Amount).ok_or_else(error)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amount(amount) => write!(f, "{amount}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

// === impl Thresholds ===

impl Thresholds {
    /// What kubelet uses when nothing is set.
    pub const DEFAULT: Self = Self {
        source: ThresholdSource::Defaults,
        nodefs_available: Some(Quantity::Percent(10.0)),
        nodefs_inodes_free: Some(Quantity::Percent(5.0)),
        imagefs_available: Some(Quantity::Percent(15.0)),
        imagefs_inodes_free: Some(Quantity::Percent(5.0)),
    };

    /// Those of the kubelet with this configuration file.
    pub(crate) fn read(file: &Path) -> Self {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text).unwrap_or_else(Self::unreadable),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::DEFAULT,
            Err(error) => Self::unreadable(error.to_string()),
        }
    }

    fn unreadable(why: String) -> Self {
        Self {
            source: ThresholdSource::Unreadable(why),
            ..Self::DEFAULT
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let read: Configuration =
            serde_saphyr::from_str(text).map_err(|error| first_line(&error.to_string()))?;
        let set = &read.eviction_hard;
        let keeps_defaults = set.is_empty() || read.merge_default_eviction_settings;
        let of = |name: &str, default: Option<Quantity>| match set.get(name) {
            Some(text) => {
                let quantity: Quantity = text
                    .parse()
                    .map_err(|error| format!("evictionHard of {name}: {error}"))?;
                // Zero is how a threshold is switched off.
                Ok::<_, String>(Some(quantity).filter(|quantity| quantity.of(1 << 40) > 0))
            }
            None if keeps_defaults => Ok(default),
            None => Ok(None),
        };
        Ok(Self {
            source: ThresholdSource::File,
            nodefs_available: of("nodefs.available", Self::DEFAULT.nodefs_available)?,
            nodefs_inodes_free: of("nodefs.inodesFree", Self::DEFAULT.nodefs_inodes_free)?,
            imagefs_available: of("imagefs.available", Self::DEFAULT.imagefs_available)?,
            imagefs_inodes_free: of("imagefs.inodesFree", Self::DEFAULT.imagefs_inodes_free)?,
        })
    }
}

/// So many percent of a whole, in whole units.
fn part(whole: u64, percent: f64) -> u64 {
    // In steps of a millionth: exact for every threshold that people write, and within the range of integers.
    let steps = (percent * 10_000.0).round();
    let steps: u64 = format!("{steps:.0}").parse().unwrap_or(0);
    let product = u128::from(whole) * u128::from(steps) / 1_000_000;
    u64::try_from(product).unwrap_or(u64::MAX)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    // D-25
    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, expected) in [
            ("10%", Quantity::Percent(10.0)),
            ("0.5%", Quantity::Percent(0.5)),
            ("1Gi", Quantity::Amount(1 << 30)),
            ("1.5Gi", Quantity::Amount(3 << 29)),
            ("500M", Quantity::Amount(500_000_000)),
            ("100", Quantity::Amount(100)),
            (" 2Ti ", Quantity::Amount(2 << 40)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "%",
            "101%",
            "-1Gi",
            "1GiB",
            "x",
            "1.Gi",
            "99999999999P",
            "1e3",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
        assert_eq!(Quantity::Percent(15.0).of(8_000_000_000), 1_200_000_000);
        assert_eq!(Quantity::Percent(0.5).of(1000), 5);
        assert_eq!(Quantity::Percent(100.0).of(u64::MAX), u64::MAX);
    }

    // D-25
    #[test]
    fn what_is_absent_has_the_default_until_one_is_set() {
        let parse = |text: &str| Thresholds::parse(text).unwrap();
        let without = parse("kind: KubeletConfiguration\nmaxPods: 10\n");
        assert_eq!(without.nodefs_available, Some(Quantity::Percent(10.0)));
        let one = parse("evictionHard:\n  nodefs.available: 1Gi\n");
        assert_eq!(one.nodefs_available, Some(Quantity::Amount(1 << 30)));
        assert_eq!(
            one.imagefs_available, None,
            "one that is set switches the others off"
        );
        let merged = parse(
            "evictionHard:\n  nodefs.available: \"0%\"\nmergeDefaultEvictionSettings: true\n",
        );
        assert_eq!(merged.nodefs_available, None, "0 switches it off");
        assert_eq!(merged.imagefs_available, Some(Quantity::Percent(15.0)));
        assert_eq!(merged.source, ThresholdSource::File);
    }

    #[test]
    fn a_file_that_cannot_be_understood_leaves_the_defaults_and_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.yaml");
        assert_eq!(Thresholds::read(&file), Thresholds::DEFAULT);
        for broken in [
            "evictionHard: [",
            "evictionHard:\n  nodefs.available: much\n",
        ] {
            std::fs::write(&file, broken).unwrap();
            let read = Thresholds::read(&file);
            assert!(matches!(read.source, ThresholdSource::Unreadable(_)));
            assert_eq!(read.nodefs_available, Thresholds::DEFAULT.nodefs_available);
        }
        std::fs::write(&file, "evictionHard:\n  nodefs.available: 3%\n").unwrap();
        assert_eq!(
            Thresholds::read(&file).nodefs_available,
            Some(Quantity::Percent(3.0))
        );
    }
}
