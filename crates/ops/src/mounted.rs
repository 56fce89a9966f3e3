//! Which filesystem a path lies on, also where files of one filesystem show several device numbers.
//!
//! Each subvolume of a btrfs has a device number and an `f_fsid` of its own, and all take space of the same disk. Its mounts
//! show one number in `/proc/self/mountinfo`; the kernel says through which mount a path is reached.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, major, minor};

/// Tells filesystems apart: the driver, and which of its devices.
pub(crate) type Filesystem = (u32, u32);

/// The filesystem of what is there.
///
/// # Errors
/// Nothing is there, or it may not be looked at.
pub(crate) fn filesystem(path: &Path) -> std::io::Result<Filesystem> {
    let asked = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if let Ok(stat) = rustix::fs::statx(CWD, path, AtFlags::empty(), asked)
        && let Some(found) = of_mount(&mounts, stat.stx_mnt_id)
    {
        return Ok(found);
    }
    // Before Linux 5.8 the kernel does not tell, nor of what is mounted out of sight.
    let device = std::fs::metadata(path)?.dev();
    Ok((major(device), minor(device)))
}

/// `ID PARENT MAJOR:MINOR …`
fn of_mount(mounts: &str, id: u64) -> Option<Filesystem> {
    let id = id.to_string();
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        if fields.next()? != id {
            return None;
        }
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_is_that_of_the_mount() {
        let mounts = "22 1 0:33 /@ / rw shared:1 - btrfs /dev/sda1 rw\n123 22 0:33 /@var /var rw - btrfs /dev/sda1 rw\n23 1 8:17 / /mnt rw - ext4 /dev/sdb1 rw\n";
        assert_eq!(of_mount(mounts, 22), of_mount(mounts, 123));
        assert_eq!(of_mount(mounts, 23), Some((8, 17)));
        assert_eq!(of_mount(mounts, 3), None);
        let root = filesystem(Path::new("/")).unwrap();
        assert_ne!(root, filesystem(Path::new("/proc")).unwrap());
        assert!(filesystem(Path::new("/nowhere")).is_err());
    }
}
