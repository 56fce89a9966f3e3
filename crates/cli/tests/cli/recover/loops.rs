//! Real filesystems on loop devices, in mounts of the test's own: nothing of them is left when it ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Tells the second start of a test from the first.
const INSIDE: &str = "IN_MOUNTS_OF_ITS_OWN";

/// Runs the test in mounts of its own; false where it may not, and then it has run with what is allowed.
pub(crate) fn inside(test: impl FnOnce(Loops)) {
    if std::env::var_os(INSIDE).is_some() {
        return test(Loops::Allowed);
    }
    if let Err(why) = may_loop() {
        nagi_testkit::skipped(&why);
        return test(Loops::Forbidden);
    }
    let thread = std::thread::current();
    let name = thread.name().expect("libtest names its threads");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let told = said(&output);
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}"
    );
    println!("{told}");
}

/// A filesystem that is mounted; it is unmounted with this value.
#[derive(Debug)]
pub(crate) struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whatever is mounted in it goes with it, also where a socket listens in it, which would keep it: the directory is removed
        // next, and that must never reach what was only shown there. A test that failed leaves it to the namespace.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).output());
    }
}

/// Whether filesystems may be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loops {
    Allowed,
    Forbidden,
}

fn may_loop() -> Result<(), String> {
    let own = fs::metadata("/proc/self").map_err(|error| error.to_string())?;
    if own.uid() != 0 {
        return Err("filesystems on loop devices need root".to_owned());
    }
    for (program, asked) in [
        ("losetup", "--find"),
        ("mkfs.ext4", "-V"),
        ("mkfs.xfs", "-V"),
        ("mkfs.btrfs", "--version"),
        ("unshare", "--version"),
    ] {
        match Command::new(program).arg(asked).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => return Err(format!("{program} does not work here: {}", said(&output))),
            Err(error) => return Err(format!("{program} does not work here: {error}")),
        }
    }
    Ok(())
}

/// Makes a filesystem of so many MiB and mounts it there. Its image lies beside it.
pub(crate) fn mount(point: &Path, fstype: &str, mebibytes: u64, options: &[&str]) -> Mounted {
    let image = point.with_extension("image");
    mount_from(&image, point, fstype, mebibytes, options)
}

fn mount_from(
    image: &Path,
    point: &Path,
    fstype: &str,
    mebibytes: u64,
    options: &[&str],
) -> Mounted {
    fs::create_dir_all(point).unwrap();
    File::create(image)
        .unwrap()
        .set_len(mebibytes << 20)
        .unwrap();
    let program = format!("mkfs.{fstype}");
    let arguments = [&["-q"], options].concat();
    run(
        &program,
        arguments.iter().map(OsStr::new).chain([image.as_os_str()]),
    );
    let words: [&OsStr; 4] = [
        "-o".as_ref(),
        "loop".as_ref(),
        image.as_os_str(),
        point.as_os_str(),
    ];
    run("mount", words);
    Mounted(point.to_owned())
}

/// The same in place of a directory, which keeps what it holds, from an image there.
pub(crate) fn mount_over(
    point: &Path,
    image: &Path,
    fstype: &str,
    mebibytes: u64,
    options: &[&str],
) -> Mounted {
    let aside = point.with_extension("aside");
    fs::rename(point, &aside).unwrap();
    let mounted = mount_from(image, point, fstype, mebibytes, options);
    let from = aside.join(".");
    let words: [&OsStr; 3] = ["-a".as_ref(), from.as_os_str(), point.as_os_str()];
    run("cp", words);
    mounted
}

/// So many packages of apt of a megabyte each, or as many as there is room for, in the `/var` of a node.
pub(crate) fn packages(var: &Path, most: usize) {
    let archives = var.join("cache/apt/archives");
    fs::create_dir_all(&archives).unwrap();
    for number in 0..most {
        let path = archives.join(format!("p{number}_1.0_amd64.deb"));
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&vec![7; 1 << 20])?;
            file.sync_all()
        });
        if written.is_err() {
            return;
        }
    }
}

/// Makes it read-only, as the kernel does after an error: the filesystem, and not its mount.
pub(crate) fn withdraw(point: &Path) {
    for options in ["remount,ro", "remount,bind,rw"] {
        let words: [&OsStr; 3] = ["-o".as_ref(), options.as_ref(), point.as_os_str()];
        run("mount", words);
    }
}

/// Writes until not a byte is left for root either.
pub(crate) fn fill(point: &Path) {
    let mut file = File::create(point.join("filler")).unwrap();
    for piece in [1 << 20, 64 << 10, 4096, 512, 1] {
        let bytes = vec![0x5a; piece];
        while file.write_all(&bytes).is_ok() {}
        drop(file.sync_all());
    }
}

/// Writes until so many percent are taken, of what is available to all.
pub(crate) fn fill_to(point: &Path, percent: u64) {
    let stat = rustix::fs::statvfs(point).unwrap();
    let whole = stat.f_blocks * stat.f_frsize;
    let free = stat.f_bavail * stat.f_frsize;
    let wanted = usize::try_from(free - whole * (100 - percent) / 100).unwrap();
    let file = File::create(point.join("filler")).unwrap();
    (&file).write_all(&vec![0x5a; wanted]).unwrap();
    file.sync_all().unwrap();
}

/// Makes files until there are no more inodes.
pub(crate) fn take_inodes(point: &Path) {
    let taken =
        (0..).take_while(|number| File::create(point.join(format!("file-{number}"))).is_ok());
    assert!(taken.count() > 0);
}

fn run<I: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = I>) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", said(&output));
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}
