//! The long-lived programs of a cluster: how they are started, recorded, recognised and ended.
//!
//! Every one carries the directory of its cluster or node in its environment, and so does whatever it starts. That mark finds
//! them all, also those whose number no file records because the harness was killed in between, and it cannot be somebody
//! else's. A recorded process is its number together with the time at which it started: numbers are used again.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::call::search_path;
use crate::wait::{self, Look};

/// The mark.
const MARK: &str = "NAGI_PROCESS_OF_CLUSTER";

/// Closes what its caller left open, and becomes the program: a pipe or a lock of whoever started the harness would stay open
/// for as long as the cluster lives. A number above 9 is a word of its own to other shells, so it is bash, which Debian always
/// has; between fork and exec nothing can be closed without `unsafe`.
const CLOSE_AND_RUN: &str = r#"
for open in /proc/self/fd/*; do
  number=${open##*/}
  if ((number > 2)); then eval "exec $number>&-"; fi
done
exec "$@""#;

/// How long the kernel may take to end a killed process: one that waits for a disk ends late.
const END_LIMIT: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Component {
    /// Its name, for people.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Variables that it has beside this process' own.
    pub(crate) environment: Vec<(String, String)>,
    /// Where it lives.
    pub(crate) place: Place,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

/// Namespaces that a component lives in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The file of its network namespace; without it, the machine's.
    pub(crate) network: Option<PathBuf>,
    /// A process whose mounts it sees; without it, the machine's.
    pub(crate) mounts_of: Option<u32>,
    /// A process that made namespaces of processes and of the machine's name for those that it starts, and is left for them.
    pub(crate) machine_of: Option<u32>,
}

/// A component that was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Recorded {
    pub(crate) component: Component,
    pub(crate) process: Process,
}

/// A process, told from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub id: u32,
    /// When it started, in clock ticks since the machine started.
    pub started: u64,
}

/// A component that this process started and waits for.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) recorded: Recorded,
    child: Child,
}

// === impl Component ===

impl Component {
    /// Starts it in a process group of its own, so that Ctrl-C reaches the harness alone and it takes things down in order.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the harness starts what lives on"
    )]
    ///
    /// `owner` is the directory of its cluster or node.
    pub(crate) fn start(&self, owner: &Path) -> anyhow::Result<Started> {
        if let Some(parent) = self.log.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("create {}", parent.display()))?;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        let errors = log
            .try_clone()
            .with_context(|| format!("open {}", self.log.display()))?;
        let mut line = [
            "bash",
            "--noprofile",
            "--norc",
            "-c",
            CLOSE_AND_RUN,
            &self.name,
        ]
        .map(str::to_owned)
        .to_vec();
        line.extend(self.place.prefix());
        line.push(self.program.to_string_lossy().into_owned());
        line.extend(self.arguments.iter().cloned());
        let (program, arguments) = line.split_first().context("a component has a program")?;
        let child = Command::new(program)
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env(MARK, owner)
            .env_remove("BASH_ENV")
            .env("PATH", search_path()?)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .current_dir(owner)
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        let process = Process::look(child.id())
            .with_context(|| format!("look at {} right after its start", self.name))?;
        Ok(Started {
            recorded: Recorded {
                component: self.clone(),
                process,
            },
            child,
        })
    }
}

// === impl Place ===

impl Place {
    /// `nsenter` becomes the program, so the number of its process is the program's. `ip netns exec` is no way in: it mounts a
    /// new `/sys`, in which a kubelet finds no control groups.
    fn prefix(&self) -> Vec<String> {
        let mut line = Vec::new();
        if let Some(network) = &self.network {
            line.push(format!("--net={}", network.display()));
        }
        if let Some(process) = self.mounts_of {
            line.push(format!("--mount=/proc/{process}/ns/mnt"));
        }
        if let Some(process) = self.machine_of {
            line.push(format!("--pid=/proc/{process}/ns/pid_for_children"));
            line.push(format!("--uts=/proc/{process}/ns/uts"));
        }
        if line.is_empty() {
            return line;
        }
        line.insert(0, "nsenter".to_owned());
        line.push("--".to_owned());
        line
    }

    /// A call of a program at this place.
    pub(crate) fn call(&self, program: impl AsRef<std::ffi::OsStr>) -> crate::call::Call {
        let prefix = self.prefix();
        match prefix.split_first() {
            None => crate::call::Call::new(program),
            Some((first, rest)) => crate::call::Call::new(first)
                .arguments(rest)
                .argument(program),
        }
    }
}

// === impl Started ===

impl Started {
    /// Fails, with the end of its log, when it does not run any more.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let name = &self.recorded.component.name;
        let ended = self
            .child
            .try_wait()
            .with_context(|| format!("look at {name}"))?;
        let Some(status) = ended else {
            return Ok(());
        };
        bail!(
            "{name} ended with {status}; the end of {}:\n{}",
            self.recorded.component.log.display(),
            last_lines(&self.recorded.component.log)
        );
    }

    /// Ends it and waits for it.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        let name = &self.recorded.component.name;
        self.child.kill().with_context(|| format!("end {name}"))?;
        self.child
            .wait()
            .with_context(|| format!("wait for {name}"))?;
        Ok(())
    }
}

// === impl Process ===

impl Process {
    /// The process that has this number now.
    pub(crate) fn look(id: u32) -> Option<Self> {
        let (started, _) = stat(id)?;
        Some(Self { id, started })
    }

    /// Whether it still runs: it is neither gone nor a corpse that nobody has asked for.
    pub fn is_running(self) -> bool {
        stat(self.id).is_some_and(|(started, state)| started == self.started && state != 'Z')
    }

    /// Sends it a signal; one that has ended already gets none.
    pub fn signal(self, signal: Signal) -> anyhow::Result<()> {
        signal_if(self.id, signal, || self.is_running())
    }

    /// How long it has been running.
    pub fn age(self) -> Option<Duration> {
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        let ticks = rustix::param::clock_ticks_per_second();
        let started = Duration::from_millis(self.started.saturating_mul(1000) / ticks);
        Duration::try_from_secs_f64(seconds)
            .ok()?
            .checked_sub(started)
    }
}

/// Ends every process that carries the mark of this cluster or node, or of a node of this cluster.
pub(crate) fn end_marked(owner: &Path) -> anyhow::Result<()> {
    let mark = format!("{MARK}=");
    let carries = |id: u32| {
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment
            .split(|&byte| byte == 0)
            .filter_map(|variable| variable.strip_prefix(mark.as_bytes()))
            .any(|path| Path::new(OsStr::from_bytes(path)).starts_with(owner))
    };
    end_all("processes to end", || {
        Ok(all()?.into_iter().filter(|&id| carries(id)).collect())
    })
}

/// Kills what `find` finds until it finds nothing; a process may start another before it is hit.
pub(crate) fn end_all(
    what: &str,
    find: impl Fn() -> anyhow::Result<Vec<u32>>,
) -> anyhow::Result<()> {
    let started = wait::now();
    loop {
        let found = find()?;
        if found.is_empty() {
            return Ok(());
        }
        for &id in &found {
            // Between the look and the signal the number could become another's; after it the question is asked again.
            signal_if(id, Signal::KILL, || {
                find().is_ok_and(|found| found.contains(&id))
            })?;
        }
        if started.elapsed() > END_LIMIT {
            bail!("waited {} s for {what}: {found:?}", END_LIMIT.as_secs());
        }
        wait::pause(Duration::from_millis(5));
    }
}

/// Signals a process by a handle that stays its own, after `is_meant` has looked at it.
fn signal_if(id: u32, signal: Signal, is_meant: impl Fn() -> bool) -> anyhow::Result<()> {
    let Some(number) = i32::try_from(id).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let Ok(handle) = pidfd_open(number, PidfdFlags::empty()) else {
        return Ok(());
    };
    if !is_meant() {
        return Ok(());
    }
    match pidfd_send_signal(&handle, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("signal process {id}")),
    }
}

/// The numbers of all processes but this one.
fn all() -> anyhow::Result<Vec<u32>> {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").context("look into /proc")?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&id| id != own)
        .collect())
}

/// When a process started, and its state.
fn stat(id: u32) -> Option<(u64, char)> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((started, state))
}

/// The end of a log, for an error.
pub(crate) fn last_lines(log: &Path) -> String {
    const LINES: usize = 12;
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// Waits until something is there, and fails at once when one of the components that it depends on has ended.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    needed: &mut [Started],
    mut look: impl FnMut() -> anyhow::Result<Look<T>>,
) -> anyhow::Result<T> {
    wait::until(what, limit, || {
        for component in &mut *needed {
            component.check()?;
        }
        look()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(scratch: &Path) -> Component {
        Component {
            name: "sleeper".to_owned(),
            program: PathBuf::from("sh"),
            arguments: vec!["-c".to_owned(), "sleep 1000 & echo up; wait".to_owned()],
            environment: Vec::new(),
            place: Place::default(),
            log: scratch.join("logs/sleeper.log"),
        }
    }

    #[test]
    fn all_that_a_component_starts_ends_with_its_cluster_and_nothing_else() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let other = tempfile::tempdir().expect("another");
        let ours = sleeper(scratch.path())
            .start(scratch.path())
            .expect("it starts");
        let mut theirs = sleeper(other.path())
            .start(other.path())
            .expect("it starts");
        wait::until("its first line", Duration::from_secs(10), || {
            let said = last_lines(&ours.recorded.component.log);
            Ok(if said == "up" {
                Look::There(())
            } else {
                Look::NotYet(said)
            })
        })
        .expect("it says that it is up");
        end_marked(scratch.path()).expect("all end");
        assert!(!ours.recorded.process.is_running());
        theirs.check().expect("the other cluster's goes on");
        end_marked(other.path()).expect("all end");
        assert!(theirs.check().is_err());
    }

    // Issue 4: a cluster that lives on must hold nothing of the terminal, the make or the lock that it was started under.
    #[test]
    fn a_component_holds_nothing_that_its_caller_left_open() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let held = File::create(scratch.path().join("held")).expect("a file");
        let low = rustix::io::fcntl_dupfd_cloexec(&held, 3).expect("a descriptor");
        // With two digits, as shells other than bash do not close it.
        let high = rustix::io::fcntl_dupfd_cloexec(&held, 40).expect("a descriptor");
        for left_open in [&low, &high] {
            rustix::io::fcntl_setfd(left_open, rustix::io::FdFlags::empty())
                .expect("it is handed on");
        }
        let started = sleeper(scratch.path())
            .start(scratch.path())
            .expect("it starts");
        wait::until("its first line", Duration::from_secs(10), || {
            let said = last_lines(&started.recorded.component.log);
            Ok(if said == "up" {
                Look::There(())
            } else {
                Look::NotYet(said)
            })
        })
        .expect("it says that it is up");
        let id = started.recorded.process.id;
        let open = std::fs::read_dir(format!("/proc/{id}/fd")).expect("its descriptors");
        let held_by_it = open
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target.ends_with("held"))
            .count();
        end_marked(scratch.path()).expect("it ends");
        assert_eq!(held_by_it, 0);
    }

    #[test]
    fn process_is_its_number_and_its_start() {
        let own = Process::look(std::process::id()).expect("this process runs");
        assert!(own.is_running());
        let earlier = Process {
            started: own.started - 1,
            ..own
        };
        assert!(!earlier.is_running());
        assert!(own.age().is_some());
    }
}
