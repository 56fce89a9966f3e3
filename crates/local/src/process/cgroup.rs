//! A control group for each replica, where this machine lets us make one.
//!
//! A process cannot leave its control group by forking, by `setsid` or by losing its parent, so killing the group is
//! killing all of it, in one step of the kernel. Needed is a writable cgroup v2 hierarchy with `cgroup.kill` (Linux 5.14):
//! root has it, and so has a user whose session manager delegated one. Without it, `None`, and callers fall back
//! to walking descendants. No controller is enabled and no limit is set.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The directory of a control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlGroup {
    directory: PathBuf,
}

// === impl ControlGroup ===

impl ControlGroup {
    /// Makes the group `name` under the group of this process; `None` where that is not possible.
    pub fn make(name: &str) -> Option<Self> {
        let directory = own()?.join(name);
        Self::made(directory)
    }

    /// Makes the group `name` inside this one; `None` where that is not possible.
    pub fn make_inside(&self, name: &str) -> Option<Self> {
        Self::made(self.directory.join(name))
    }

    /// The group at a directory that was recorded earlier.
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Moves a process into the group.
    ///
    /// # Errors
    /// What the system said; `NotFound` or "no such process" when the process or the group is gone.
    pub fn take(&self, pid: i32) -> io::Result<()> {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string())
    }

    /// The processes in it; empty when it is gone.
    pub fn members(&self) -> Vec<i32> {
        fs::read_to_string(self.directory.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect()
    }

    /// Kills every process in it at once. A group that is gone is no error.
    ///
    /// # Errors
    /// What the system said otherwise.
    pub fn kill(&self) -> io::Result<()> {
        match fs::write(self.directory.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "removes an empty group that this crate made"
    )]
    /// Removes the group when it is empty. True when it is gone.
    pub fn remove(&self) -> bool {
        match fs::remove_dir(&self.directory) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    fn made(directory: PathBuf) -> Option<Self> {
        match fs::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => return None,
        }
        let group = Self { directory };
        if group.directory.join("cgroup.kill").exists() {
            return Some(group);
        }
        // An older kernel: an empty group that cannot be killed serves nobody.
        group.remove();
        None
    }
}

/// The directory of the group this process is in, on the cgroup v2 hierarchy.
fn own() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    own_in(&mounts, &groups)
}

/// The same from the content of `mountinfo` and `cgroup`.
fn own_in(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        // "41 31 0:38 /root /mount/point options - cgroup2 source options"
        let (before, after) = line.split_once(" - ")?;
        if after.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let inside = Path::new(group).strip_prefix(root).ok()?;
        Some(Path::new(point).join(inside))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_on_hybrid_pure_and_namespaced_machines() {
        let hybrid = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let expected = Path::new("/sys/fs/cgroup/unified/user.slice/a");
        assert_eq!(
            own_in(hybrid, "4:memory:/x\n0::/user.slice/a\n").as_deref(),
            Some(expected)
        );
        let pure = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            own_in(pure, "0::/\n").as_deref(),
            Some(Path::new("/sys/fs/cgroup/"))
        );
        let bound = "30 23 0:26 /pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            own_in(bound, "0::/pod/c\n").as_deref(),
            Some(Path::new("/sys/fs/cgroup/c"))
        );
        assert_eq!(own_in(bound, "0::/other\n"), None);
        assert_eq!(own_in("30 23 0:26 / /x rw - tmpfs t rw\n", "0::/\n"), None);
        assert_eq!(own_in(pure, "4:memory:/x\n"), None);
    }
}
