//! Files without a name that a loop device holds: an image that was removed while it is mounted, a snap that was replaced.
//!
//! No process has them open, so proc does not show them; the kernel names the file of each loop device in sysfs. It does not
//! say what the file takes, only how long it is: of one with holes that is more than comes back.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::blocks::Blocks;
use crate::mounts::Mounts;
use crate::open_files::{Deleted, GONE, Holder, OpenFiles};

/// Bytes of a block, as `Blocks` counts.
const BLOCK: u64 = 512;

/// Adds what loop devices hold to what processes do. `sysfs` is where the kernel shows its devices.
pub(crate) fn add(sysfs: &Path, mounts: &Mounts, found: &mut OpenFiles) {
    // A machine without sysfs shows none.
    let Ok(devices) = std::fs::read_dir(sysfs.join("block")) else {
        return;
    };
    for device in devices.flatten() {
        let name = device.file_name().to_string_lossy().into_owned();
        let Some((path, length)) = backing(&device.path()) else {
            continue;
        };
        let Some(mount) = mounts.at(&path) else {
            continue;
        };
        let holder = Holder {
            pid: 0,
            command: name,
            fd: None,
        };
        let mut known = found.deleted.iter_mut();
        let known = known.find(|file| file.path == path && file.device == mount.device);
        if let Some(known) = known {
            known.holders.push(holder);
        } else {
            found.deleted.push(Deleted {
                device: mount.device,
                inode: 0,
                blocks: Blocks(length.div_ceil(BLOCK)),
                path,
                holders: vec![holder],
            });
        }
    }
    found
        .deleted
        .sort_by_key(|file| std::cmp::Reverse(file.blocks));
}

/// The file of a loop device that has no name any more, and how long it is.
fn backing(device: &Path) -> Option<(PathBuf, u64)> {
    let own = device.join("loop");
    let text = std::fs::read(own.join("backing_file")).ok()?;
    let path = text.strip_suffix(b"\n").unwrap_or(&text);
    let path = path.strip_suffix(GONE)?;
    let number =
        |path: PathBuf| -> Option<u64> { std::fs::read_to_string(path).ok()?.trim().parse().ok() };
    let sectors = number(device.join("size"))?;
    let offset = number(own.join("offset")).unwrap_or(0);
    let length = sectors.saturating_mul(BLOCK).saturating_add(offset);
    Some((PathBuf::from(OsString::from_vec(path.to_vec())), length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::Device;

    const MOUNTS: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /data rw - xfs /dev/b rw\n";

    fn device(sysfs: &Path, name: &str, file: &str, sectors: u64) {
        let own = sysfs.join("block").join(name);
        std::fs::create_dir_all(own.join("loop")).unwrap();
        std::fs::write(own.join("size"), format!("{sectors}\n")).unwrap();
        std::fs::write(own.join("loop/backing_file"), format!("{file}\n")).unwrap();
        std::fs::write(own.join("loop/offset"), "1024\n").unwrap();
    }

    // D-06: only what has no name any more, on the disk that it lies on, and once where a process holds it too.
    #[test]
    fn a_removed_file_behind_a_loop_device_is_found_once() {
        let sysfs = tempfile::tempdir().unwrap();
        device(sysfs.path(), "loop0", "/data/image (deleted)", 2048);
        device(sysfs.path(), "loop1", "/data/other", 2048);
        device(sysfs.path(), "loop2", "/srv/held (deleted)", 8);
        std::fs::create_dir_all(sysfs.path().join("block/vda")).unwrap();
        let mounts = Mounts::parse(MOUNTS).unwrap();
        let held = Deleted {
            device: Device { major: 8, minor: 1 },
            inode: 7,
            blocks: Blocks(4),
            path: "/srv/held".into(),
            holders: vec![Holder {
                pid: 9,
                command: "editor".to_owned(),
                fd: Some(3),
            }],
        };
        let mut found = OpenFiles {
            deleted: vec![held],
            ..OpenFiles::default()
        };
        add(sysfs.path(), &mounts, &mut found);
        let [image, held] = &found.deleted[..] else {
            panic!("{found:?}");
        };
        assert_eq!(image.path, Path::new("/data/image"));
        assert_eq!(image.device, Device { major: 8, minor: 2 });
        assert_eq!(
            image.blocks,
            Blocks(2050),
            "with what lies before the device"
        );
        assert_eq!(
            (image.holders[0].pid, &*image.holders[0].command),
            (0, "loop0")
        );
        assert_eq!((held.holders.len(), held.blocks), (2, Blocks(4)));
    }
}
