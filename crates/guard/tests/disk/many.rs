//! Very many files: what a survey keeps does not grow with them, and a walk of the guard gives up where it would not end.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use nagi_guard::{Mounts, Watched};

use crate::machine::{Type, inside, settle, survey_below};

const MIB: u64 = 1 << 20;
/// Of one directory.
const FILES: u64 = 1000;
/// The bar of a survey of 5 million files (B2), kept for twice as many.
const SURVEY_MAX: u64 = 64 * MIB;
/// What a walk of the guard may take beside the 10 MiB of the guard at rest: names that wait, and links.
const WALK_MAX: u64 = 6 * MIB;

/// The most memory that this process has had, in bytes.
fn most_memory() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.unwrap().trim().strip_suffix("kB").unwrap().trim();
    kibibytes.parse::<u64>().unwrap() << 10
}

/// Makes directories of empty files, on as many threads as there are cores in a small machine.
fn plant(root: &Path, directories: u64) {
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn(move || {
                for directory in (thread..directories).step_by(2) {
                    let own = root.join(format!("{}/{}", directory % 100, directory / 100));
                    fs::create_dir_all(&own).unwrap();
                    for file in 0..FILES {
                        File::create(own.join(file.to_string())).unwrap();
                    }
                }
            });
        }
    });
}

// B2, B16: 10 million files with `NAGI_TEST_SOAK`, else 100,000; the same code.
#[test]
fn memory_does_not_grow_with_the_number_of_files() {
    inside("", || {
        let is_soak = std::env::var_os("NAGI_TEST_SOAK").is_some();
        let directories = if is_soak { 10_000 } else { 100 };
        let files = directories * FILES;
        // 256 bytes and a name for each, and as much again.
        let mebibytes = (files * 700 / MIB).max(200);
        let inodes = (files + files / 10).to_string();
        let disk = Type::Ext4.mounted(mebibytes, &["-m", "0", "-N", &inodes]);
        let began = Instant::now();
        plant(&disk.point, directories);
        settle(&disk.point);
        let planted = began.elapsed();

        let before = most_memory();
        let began = Instant::now();
        let table = fs::read("/proc/self/mountinfo").unwrap();
        let watched = Watched {
            point: disk.point.clone(),
            device: Mounts::parse(&table)
                .unwrap()
                .at(&disk.point)
                .unwrap()
                .device,
        };
        let shares = nagi_guard::shares(Path::new("/"), &[watched]).unwrap();
        let took = began.elapsed();
        let grown = most_memory() - before;
        println!(
            "a walk for owners of {files} files: {took:.1?}, {:.2?} of a processor, {:.1} MiB more",
            shares.cost,
            mebi(grown)
        );
        assert!(grown <= WALK_MAX, "{grown}");
        // Beyond four million it gives up and says so: unknown is not zero.
        assert_eq!(shares.disks.is_empty(), is_soak);
        assert_eq!(shares.unknown.len(), usize::from(is_soak));
        let rests = took.saturating_sub(shares.cost) > shares.cost * 4;
        assert!(
            rests,
            "it keeps out of the way: {took:?} for {:?}",
            shares.cost
        );

        let began = Instant::now();
        let survey = survey_below(Path::new("/"), &[&disk.point]).unwrap();
        let took = began.elapsed();
        let most = most_memory();
        println!(
            "a survey of {files} files, planted in {planted:.0?}: {took:.2?}, {:.1} MiB at most",
            mebi(most)
        );
        assert!(survey.places[0].visible.inodes >= files);
        assert!(most <= SURVEY_MAX, "{most}");
        assert!(took < Duration::from_mins(10));
    });
}

#[expect(
    clippy::cast_precision_loss,
    clippy::as_conversions,
    reason = "a figure for people"
)]
fn mebi(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}
