//! Processes as the kernel shows them: who is whose descendant, who carries our mark, and how to signal exactly one.
//!
//! A process id alone names nobody: it is given to somebody else once its owner is gone. So a process is always
//! a pid together with its start time (field 22 of `/proc/PID/stat`, in clock ticks since boot), and every signal
//! goes through a pidfd that was opened before the start time was compared. Everything here is read from `/proc` at
//! the moment of the call; nothing is cached.

pub mod cgroup;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// One life of one process on this boot of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub start: u64,
}

/// What `/proc/PID/stat` says about a process, as far as it is needed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: i32,
    start: u64,
    zombie: bool,
}

/// The id of this boot. Process ids of another boot mean nothing.
///
/// # Errors
/// What the system said when `/proc` could not be read.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

// === impl ProcessId ===

impl ProcessId {
    /// The process that has this pid now; `None` when there is none.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self {
            pid,
            start: stat(pid)?.start,
        })
    }

    /// This process.
    ///
    /// # Errors
    /// What the system said when `/proc` could not be read.
    pub fn current() -> io::Result<Self> {
        let pid = rustix::process::getpid().as_raw_pid();
        Self::of(pid).ok_or_else(|| io::Error::other("/proc does not show this process"))
    }

    /// Opens a handle to exactly this process; `None` when it is gone.
    ///
    /// # Errors
    /// What the system said, other than that there is no such process.
    pub fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let handle = match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Compared after opening: from here on the handle cannot come to mean somebody else.
        Ok(Self::of(self.pid)
            .is_some_and(|found| found == self)
            .then_some(handle))
    }

    /// True while it runs; a zombie does not run any more.
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start == self.start && !stat.zombie)
    }

    /// Sends a signal to exactly this process. A process that is gone is no error.
    ///
    /// # Errors
    /// What the system said, for example that it belongs to another user.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(handle) = self.open()? else {
            return Ok(());
        };
        match rustix::process::pidfd_send_signal(handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// All living descendants of `root`, without itself.
///
/// A process that is born while this runs may be missing; callers repeat until nothing is left.
pub fn descendants(root: i32) -> Vec<ProcessId> {
    let all: Vec<(i32, Stat)> = pids()
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .filter(|(_, stat)| !stat.zombie)
        .collect();
    let mut found: Vec<ProcessId> = Vec::new();
    let mut frontier = vec![root];
    while let Some(parent) = frontier.pop() {
        for (pid, stat) in &all {
            if stat.parent == parent && *pid != root {
                found.push(ProcessId {
                    pid: *pid,
                    start: stat.start,
                });
                frontier.push(*pid);
            }
        }
    }
    found
}

/// All living processes that were started with `marker` (`NAME=value`) in their environment.
///
/// Processes of other users cannot be read and are left out; the caller could not signal them either. A process in the middle
/// of `exec` shows no environment for some microseconds, so callers who must miss nothing look twice.
pub fn marked(marker: &str) -> Vec<ProcessId> {
    let found = marked_with_prefix(marker).into_iter();
    found
        .filter(|(_, entry)| entry == marker)
        .map(|(process, _)| process)
        .collect()
}

/// All living processes with an entry in their environment that starts with `prefix`, and the whole entry.
pub fn marked_with_prefix(prefix: &str) -> Vec<(ProcessId, String)> {
    pids()
        .filter_map(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let mut entries = environment.split(|byte| *byte == 0);
            let entry = entries.find(|entry| entry.starts_with(prefix.as_bytes()))?;
            let process = ProcessId::of(pid).filter(|process| process.is_alive())?;
            Some((process, String::from_utf8_lossy(entry).into_owned()))
        })
        .collect()
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a `stat` line. The second field is the name in parentheses and may itself hold blanks and parentheses.
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, after_name) = line.rsplit_once(')')?;
    // The first field here is number 3 of the line.
    let mut fields = after_name.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        parent,
        start,
        zombie,
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_stat_line_reads_even_when_the_name_holds_blanks_and_parentheses() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1 1";
        let expected = Stat {
            parent: 7,
            start: 98_765,
            zombie: false,
        };
        assert_eq!(parse_stat(line), Some(expected));
        assert_eq!(parse_stat("42 (a"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_pid_with_another_start_time_is_somebody_else() {
        let me = ProcessId::current().unwrap();
        assert!(me.is_alive());
        assert!(me.open().unwrap().is_some());
        let stranger = ProcessId {
            start: me.start + 1,
            ..me
        };
        assert!(!stranger.is_alive());
        assert!(stranger.open().unwrap().is_none());
        stranger.signal(Signal::KILL).unwrap();
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a child to look at")]
    fn marked_descendants_are_found_and_a_dead_one_is_not() {
        let marker = format!("NAGI_TEST_MARK={}", std::process::id());
        let (name, value) = marker.split_once('=').unwrap();
        let mut child = Command::new("sleep")
            .arg("60")
            .env(name, value)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = ProcessId::of(pid).unwrap();
        let me = ProcessId::current().unwrap();
        assert!(descendants(me.pid).contains(&process));
        // For a moment after its start the kernel does not show its environment yet.
        while marked(&marker).is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(marked(&marker), [process]);
        process.signal(Signal::KILL).unwrap();
        // A zombie until it is waited for: gone already for everybody who asks.
        while process.is_alive() {
            std::thread::yield_now();
        }
        assert_eq!(marked(&marker), []);
        child.wait().unwrap();
        assert!(process.open().unwrap().is_none());
    }
}
