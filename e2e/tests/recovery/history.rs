//! What a node that has been running for weeks has on its disk: packages that apt downloaded, and journals.
//!
//! Both are real: dpkg makes the packages, and systemd's own program writes the journals.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nagi_e2e::StackedCluster;
use nagi_e2e::call::Call;

use crate::decoys;

/// Packages, and how long each is. With the journals they are what brings a full disk below 80 %.
const PACKAGES: u64 = 13;
const PACKAGE_BYTES: usize = 100 << 20;

/// Journals, one for each day, and how many entries of how many bytes each has.
const DAYS: std::ops::RangeInclusive<u64> = 3..=11;
const ENTRIES: usize = 8000;
const ENTRY_BYTES: usize = 8 << 10;

const DAY: Duration = Duration::from_hours(24);

/// The program that writes a journal of what it reads.
const WRITER: &str = "/lib/systemd/systemd-journal-remote";

/// A package that somebody keeps under another name too: removing one would free nothing.
pub(crate) const TWICE: &str = "twice";

/// Where apt keeps what it downloaded.
pub(crate) const ARCHIVES: &str = "var/cache/apt/archives";

/// Writes it below the future root of a node, with things beside it that are nobody's to remove.
pub(crate) fn write(root: &Path) -> anyhow::Result<()> {
    packages(root)?;
    journals(root)?;
    decoys::old(root)
}

fn packages(root: &Path) -> anyhow::Result<()> {
    let archives = root.join(ARCHIVES);
    std::fs::create_dir_all(archives.join("partial"))?;
    let scratch = tempfile::tempdir_in(root.parent().context("it has a parent")?)?;
    let (control, content) = (scratch.path().join("DEBIAN"), scratch.path().join("srv"));
    std::fs::create_dir_all(&control)?;
    std::fs::create_dir_all(&content)?;
    std::fs::write(content.join("content"), random(PACKAGE_BYTES)?)?;
    let names = (1..=PACKAGES).map(|number| format!("history-{number}"));
    for name in names.chain([TWICE.to_owned()]) {
        if name == TWICE {
            std::fs::write(content.join("content"), random(1 << 20)?)?;
        }
        let text = format!(
            "Package: {name}\nVersion: 1.0-1\nArchitecture: amd64\nMaintainer: nobody <nobody@localhost>\n\
             Description: fills a disk\n"
        );
        std::fs::write(control.join("control"), text)?;
        let package = archives.join(format!("{name}_1.0-1_amd64.deb"));
        Call::new("dpkg-deb")
            .arguments(["--build", "-Znone"])
            .argument(scratch.path())
            .argument(&package)
            .succeed()?;
        is_of(&package, SystemTime::now() - DAY * 14)?;
    }
    Ok(())
}

fn journals(root: &Path) -> anyhow::Result<()> {
    let directory = own_journals(root);
    std::fs::create_dir_all(&directory)?;
    let words = letters(ENTRIES * ENTRY_BYTES)?;
    for (number, day) in DAYS.rev().enumerate() {
        let begin = SystemTime::now() - DAY * u32::try_from(day)?;
        let name = archived(number, begin)?;
        write_journal(&directory.join(name), begin, &words)?;
    }
    Ok(())
}

/// Where journald of the node keeps its files.
pub(crate) fn own_journals(root: &Path) -> PathBuf {
    root.join("var/log/journal")
        .join(StackedCluster::MACHINE_ID)
}

/// How journald names a file that is complete: by its writer, the number of its first entry, and when that was written.
pub(crate) fn archived(number: usize, begin: SystemTime) -> anyhow::Result<String> {
    let writer = "0123456789abcdef".repeat(2);
    let first = number * ENTRIES + 1;
    Ok(format!(
        "system@{writer}-{first:016x}-{:016x}.journal",
        micros(begin)?
    ))
}

fn micros(time: SystemTime) -> anyhow::Result<u64> {
    let since = time.duration_since(UNIX_EPOCH).context("after 1970")?;
    u64::try_from(since.as_micros()).context("before 586,524")
}

/// A journal of an hour.
fn write_journal(file: &Path, begin: SystemTime, words: &str) -> anyhow::Result<()> {
    let mut text = String::with_capacity(words.len() * 2);
    let begin_micros = micros(begin)?;
    let mut rest = words;
    for at in 0_u64.. {
        let Some((message, behind)) = rest.split_at_checked(ENTRY_BYTES) else {
            break;
        };
        rest = behind;
        let time = begin_micros + at * 450_000;
        writeln!(
            text,
            "__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={}\n_MACHINE_ID={}\nSYSLOG_IDENTIFIER=app\n\
             MESSAGE={message}\n",
            at + 1,
            "00ff".repeat(8),
            StackedCluster::MACHINE_ID,
        )?;
    }
    Call::new(WRITER)
        .arguments(["--split-mode=none", "--compress=no", "--output"])
        .argument(file)
        .argument("-")
        .input(text)
        .succeed()?;
    is_of(file, begin + Duration::from_hours(1))
}

/// Says of a file when it was written.
pub(crate) fn is_of(file: &Path, time: SystemTime) -> anyhow::Result<()> {
    File::options()
        .append(true)
        .open(file)
        .and_then(|open| open.set_modified(time))
        .with_context(|| format!("set the time of {}", file.display()))
}

/// Bytes that nothing can pack.
pub(crate) fn random(length: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(bytes)
}

/// Text that hardly packs.
pub(crate) fn letters(length: usize) -> anyhow::Result<String> {
    let bytes = random(length)?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(b'a' + byte % 26))
        .collect())
}
