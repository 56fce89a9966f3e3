//! Filesystems to fill and to break, and the tools to look at them with.

use std::ffi::OsStr;
use std::fmt;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nagi_guard::{Effort, Request, Survey, SurveyError, Watch};

/// Tells the second start of a test from the first.
const INSIDE: &str = "IN_MOUNTS_OF_ITS_OWN";
/// Without these root is nobody special: it neither reads everything nor sees past mounts.
pub(crate) const NOBODY_SPECIAL: &str = "-sys_admin,-dac_override,-dac_read_search";

/// What the tests are made with, each with a question that changes nothing.
const NEEDED: [(&str, &str); 7] = [
    ("losetup", "--find"),
    ("mkfs.ext4", "-V"),
    ("mkfs.xfs", "-V"),
    ("mkfs.btrfs", "--version"),
    ("btrfs", "--version"),
    ("setpriv", "--version"),
    ("unshare", "--version"),
];

/// A filesystem that a node may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Ext4,
    Xfs,
    Btrfs,
}

/// One that is mounted. It goes away with the namespace.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) point: PathBuf,
    _directory: tempfile::TempDir,
}

// === impl Type ===

impl Type {
    pub(crate) const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    fn make(self, image: &Path, options: &[&str]) {
        let program = format!("mkfs.{}", self.name());
        let quiet: &[&str] = &["-q"];
        run(
            &program,
            quiet
                .iter()
                .chain(options)
                .map(OsStr::new)
                .chain([image.as_os_str()]),
        );
    }

    /// Makes one of so many MiB and mounts it.
    pub(crate) fn mounted(self, mebibytes: u64, options: &[&str]) -> Mounted {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(mebibytes << 20).unwrap();
        self.make(&image, options);
        let point = directory.path().join("disk");
        std::fs::create_dir(&point).unwrap();
        mount_image(&image, &point);
        Mounted {
            point: point.canonicalize().unwrap(),
            _directory: directory,
        }
    }
}

/// Mounts the filesystem of an image there.
pub(crate) fn mount_image(image: &Path, point: &Path) {
    let words = ["-o".as_ref(), "loop".as_ref()];
    let paths = [image.as_os_str(), point.as_os_str()];
    run("mount", words.into_iter().chain(paths));
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Drop for Mounted ===

impl Drop for Mounted {
    fn drop(&mut self) {
        // Also where a socket of the test still listens in it: the directory is removed next, with what is to be seen in it. A test
        // that failed leaves the rest to the namespace.
        let words = ["--recursive", "--lazy"];
        drop(command("umount").args(words).arg(&self.point).output());
    }
}

/// Runs the test in mounts of its own, with these capabilities taken away first (`setpriv`; empty for none). What it tells with
/// [`nagi_testkit::measured`] is told here.
#[expect(
    clippy::print_stdout,
    reason = "figures for the person who reads the run"
)]
pub(crate) fn inside(without: &str, test: impl FnOnce()) {
    if is_inside() {
        return test();
    }
    if let Err(why) = may_loop() {
        return nagi_testkit::skipped(&why);
    }
    let thread = std::thread::current();
    let name = thread.name().expect("libtest names its threads");
    let mut command = command("unshare");
    command.args(["--mount", "--propagation", "private", "--"]);
    if !without.is_empty() {
        command.args(["setpriv", "--bounding-set", without, "--inh-caps=-all"]);
    }
    command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        // What is in front of it on this machine could be in front of a program that a test lays down.
        .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env(INSIDE, "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("1 passed"), "it did not run: {told}");
    for figure in told.lines().filter(|line| line.starts_with("measured: ")) {
        println!("{figure}");
    }
}

/// Root, and loop devices to mount.
fn may_loop() -> Result<(), String> {
    let own = std::fs::metadata("/proc/self").map_err(|error| error.to_string())?;
    if own.uid() != 0 {
        return Err("filesystems on loop devices need root".to_owned());
    }
    for (program, asked) in NEEDED {
        let why = match command(program).arg(asked).output() {
            Ok(output) if output.status.success() => continue,
            Ok(output) => said(&output),
            Err(error) => error.to_string(),
        };
        return Err(format!("{program} does not work here: {why}"));
    }
    Ok(())
}

fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

pub(crate) fn command(program: &str) -> Command {
    Command::new(program)
}

/// Runs a program to its end.
pub(crate) fn run<I: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = I>,
) -> String {
    let output = command(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Lays a filesystem in memory over a directory.
pub(crate) fn cover(point: &Path) {
    run(
        "mount",
        [
            "-t".as_ref(),
            "tmpfs".as_ref(),
            "cover".as_ref(),
            point.as_os_str(),
        ],
    );
}

/// Writes everything back, so that blocks are given out.
pub(crate) fn settle(path: &Path) {
    run("sync", ["-f".as_ref(), path.as_os_str()]);
}

pub(crate) fn survey_below(root: &Path, paths: &[&Path]) -> Result<Survey, SurveyError> {
    let request = Request {
        root: root.to_owned(),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        effort: Effort::Whole,
        top: 10,
        threads: NonZeroUsize::new(2).unwrap(),
    };
    nagi_guard::survey(&request, &Watch::new())
}

/// Surveys one directory.
pub(crate) fn survey(path: &Path) -> Survey {
    survey_below(Path::new("/"), &[path]).unwrap()
}

/// What `du -x` says, in blocks of 512 bytes.
pub(crate) fn du(path: &Path) -> u64 {
    let text = run(
        "du",
        [
            "-sx".as_ref(),
            "--block-size=512".as_ref(),
            path.as_os_str(),
        ],
    );
    text.split('\t').next().unwrap().parse().unwrap()
}

/// What it counts as inodes.
pub(crate) fn du_inodes(path: &Path) -> u64 {
    let text = run(
        "du",
        ["-sx".as_ref(), "--inodes".as_ref(), path.as_os_str()],
    );
    text.split('\t').next().unwrap().parse().unwrap()
}

/// Fills a file with this many bytes that no filesystem packs.
pub(crate) fn fill(path: &Path, bytes: usize) {
    let mut state = 0x9e37_79b9_u32;
    let data: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(bytes)
    .collect();
    std::fs::write(path, data).unwrap();
}
