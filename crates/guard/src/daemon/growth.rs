//! How fast the disks of a node grow, by the history that a guard wrote down. It only reads, with or without a guard at work.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::forecast::Trend;
use super::history::{LONG_POINTS, LONG_SECONDS, Series};
use super::level::Resource;
use super::memory::{RING, RING_BYTES, What, read_points};
use crate::clean::reach::Reach;
use crate::ring::Ring;

/// Bytes a day of each disk of which the history is long enough, and not too old to tell something of now.
///
/// # Errors
/// There is no history, or it cannot be read; in words.
pub fn growth(root: &Path, now: Timestamp) -> Result<BTreeMap<PathBuf, i64>, String> {
    let root = crate::clean::open_root(root).map_err(|error| error.to_string())?;
    let reach = Reach::of(&root).map_err(|error| error.to_string())?;
    let failed = |error: rustix::io::Errno| format!("the history of the guard: {error}");
    let ring = Ring::existing(&root, &reach, RING, RING_BYTES).map_err(failed)?;
    let ring = ring.ok_or("there is no history: no guard has run here")?;
    let mut past: BTreeMap<PathBuf, Series> = BTreeMap::new();
    for (_, record) in ring.records().map_err(failed)? {
        if let Some((key, points)) = read_points(&record)
            && key.what == What::All(Resource::Bytes)
        {
            let series = past.entry(key.point).or_default();
            for point in points {
                series.restore(point);
            }
        }
    }
    let span = now.as_second().div_euclid(LONG_SECONDS);
    let oldest = span - i64::try_from(LONG_POINTS).unwrap_or(0);
    let of_disks = past.into_iter().filter_map(|(point, series)| {
        let last = series.long().back()?;
        let trend = Trend::of(&series)?;
        let is_recent = (oldest..=span).contains(&last.span);
        is_recent.then(|| (point, trend.middle_whole() * 24))
    });
    Ok(of_disks.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_guard_there_is_no_history_and_none_is_made() {
        let node = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(node.path().join("var/lib")).unwrap();
        let why = growth(node.path(), Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(why.contains("no guard has run here"), "{why}");
        assert!(!node.path().join("var/lib/nagi-guard").exists());
    }

    // §5.4: what a guard wrote down is what is read.
    #[test]
    fn a_disk_that_grew_a_megabyte_an_hour_grows_24_a_day() {
        use crate::daemon::memory::{Key, Memory, Past};
        let node = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(node.path().join("var/lib")).unwrap();
        let root = crate::clean::open_root(node.path()).unwrap();
        let reach = Reach::of(&root).unwrap();
        let at = |hour: i64| Timestamp::from_second(1_900_000_000 + hour * 3600).unwrap();
        let (mut memory, _, opened) = Memory::open(&root, &reach, at(0));
        if opened.is_err() {
            return nagi_testkit::skipped("no room for a ring");
        }
        let mut series = Series::default();
        for hour in 0..24_i64 {
            series.add(at(hour), u64::try_from(hour).unwrap() << 20);
        }
        let key = Key {
            point: "/data".into(),
            what: What::All(Resource::Bytes),
        };
        memory
            .keep_past(&Past::from([(key, series)]), at(24), true)
            .unwrap();
        let found = growth(node.path(), at(24)).unwrap();
        assert_eq!(found.get(Path::new("/data")), Some(&(24 << 20)));
        // What is older than the history is long tells nothing.
        assert!(growth(node.path(), at(24 + 96)).unwrap().is_empty());
    }
}
