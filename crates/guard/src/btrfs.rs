//! What btrfs itself takes, from the numbers that it shows in sysfs.
//!
//! The kernel makes `f_bfree` of what its three kinds of space have in use on disk and of a reserve for its own emergencies.
//! So data, metadata and reserve are told apart exactly, without a call that needs more than reading.

use std::path::Path;

/// What is used, by kind, in bytes on disk: two copies count twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Extents of files; an extent that several files or snapshots share counts once.
    pub(crate) data: u64,
    /// Trees, and what the filesystem keeps back to be able to remove files when it is full.
    pub(crate) own: u64,
}

/// The usage of the filesystem on a block device (`/dev/sda1`), below `sysfs` (`/sys`). None when it is not shown.
pub(crate) fn usage(sysfs: &Path, source: &Path) -> Option<Usage> {
    let device = source.file_name()?;
    let filesystems = std::fs::read_dir(sysfs.join("fs/btrfs")).ok()?;
    let own = filesystems.filter_map(Result::ok).find(|filesystem| {
        let devices = filesystem.path().join("devices");
        devices.join(device).exists()
    })?;
    let allocation = own.path().join("allocation");
    let number = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(allocation.join(name)).ok()?;
        text.trim().parse().ok()
    };
    let metadata = number("metadata/disk_used")?.checked_add(number("system/disk_used")?)?;
    Some(Usage {
        data: number("data/disk_used")?,
        own: metadata.checked_add(number("global_rsv_size")?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_of_the_filesystem_on_the_device() {
        let sysfs = tempfile::tempdir().unwrap();
        for (uuid, device, used) in [("a", "sda1", "1"), ("b", "sdb1", "40")] {
            let own = sysfs.path().join("fs/btrfs").join(uuid);
            std::fs::create_dir_all(own.join("devices").join(device)).unwrap();
            for kind in ["data", "metadata", "system"] {
                let kind = own.join("allocation").join(kind);
                std::fs::create_dir_all(&kind).unwrap();
                std::fs::write(kind.join("disk_used"), format!("{used}\n")).unwrap();
            }
            std::fs::write(own.join("allocation/global_rsv_size"), "5\n").unwrap();
        }
        let of = |device| usage(sysfs.path(), Path::new(device));
        assert_eq!(of("/dev/sdb1"), Some(Usage { data: 40, own: 85 }));
        assert_eq!(of("/dev/sda1"), Some(Usage { data: 1, own: 7 }));
        assert_eq!(of("/dev/sdc1"), None);
        assert_eq!(usage(Path::new("/nowhere"), Path::new("/dev/sda1")), None);
    }
}
