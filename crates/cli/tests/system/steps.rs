//! Which system calls of a process are durable steps, or steps that cannot be taken back, and what each is called.
//!
//! A step is: a file made, written, synced, renamed, shortened or removed in the state directory; a process started; a signal
//! sent. Ids that differ between runs are replaced, so that the same step has the same name in each.

use std::fmt;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::libc;

/// A step, by what it does to what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Step {
    pub(crate) verb: &'static str,
    pub(crate) object: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.object)
    }
}

/// What a thread is about to ask of the kernel.
struct Call {
    thread: i32,
    number: i64,
    arguments: [u64; 6],
}

/// The step that a thread, stopped at the entry of a system call, is about to take. `None` for any other call.
pub(crate) fn about_to_be_taken(thread: i32, state: &Path) -> Option<Step> {
    let call = Call::of(thread)?;
    let [first, second, third, fourth, ..] = call.arguments;
    let step = |verb, path: Option<PathBuf>| {
        let object = normal(path?.strip_prefix(state).ok()?);
        Some(Step { verb, object })
    };
    match call.number {
        libc::SYS_openat => {
            let creates = u64::try_from(libc::O_CREAT | libc::O_TRUNC).unwrap_or_default();
            if third & creates == 0 {
                None
            } else {
                step("open", call.path(Some(first), second))
            }
        }
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev => {
            step("write", call.opened(first))
        }
        libc::SYS_fsync | libc::SYS_fdatasync => step("sync", call.opened(first)),
        libc::SYS_ftruncate => step("shorten", call.opened(first)),
        libc::SYS_renameat | libc::SYS_renameat2 => {
            step("rename to", call.path(Some(third), fourth))
        }
        libc::SYS_unlinkat => step("remove", call.path(Some(first), second)),
        libc::SYS_mkdirat => step("make", call.path(Some(first), second)),
        libc::SYS_linkat => step("link", call.path(Some(third), fourth)),
        // The null signal asks and does nothing.
        libc::SYS_pidfd_send_signal | libc::SYS_kill if second != 0 => Some(Step {
            verb: "signal",
            object: second.to_string(),
        }),
        libc::SYS_clone => starts_process(first),
        libc::SYS_clone3 => starts_process(call.word(first)?),
        number => by_old_call(&call, number).and_then(|(verb, path)| step(verb, path)),
    }
}

/// Calls that only older architectures have.
#[cfg(target_arch = "x86_64")]
fn by_old_call(call: &Call, number: i64) -> Option<(&'static str, Option<PathBuf>)> {
    let [first, second, ..] = call.arguments;
    match number {
        libc::SYS_rename => Some(("rename to", call.path(None, second))),
        libc::SYS_unlink | libc::SYS_rmdir => Some(("remove", call.path(None, first))),
        libc::SYS_mkdir => Some(("make", call.path(None, first))),
        libc::SYS_creat => Some(("open", call.path(None, first))),
        _ => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn by_old_call(_: &Call, _: i64) -> Option<(&'static str, Option<PathBuf>)> {
    None
}

fn starts_process(flags: u64) -> Option<Step> {
    let thread = u64::try_from(libc::CLONE_THREAD).unwrap_or_default();
    (flags & thread == 0).then(|| Step {
        verb: "start",
        object: "a process".to_owned(),
    })
}

/// Replaces what differs from run to run: attempts, 16 hexadecimal digits, and the numbers of replicas, of which a free one
/// is taken.
fn normal(path: &Path) -> String {
    let parts = path.iter().map(|part| {
        let part = part.to_string_lossy();
        match part.split_once('.') {
            Some((id, rest))
                if id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
            {
                format!("ATTEMPT.{rest}")
            }
            None if part.bytes().all(|byte| byte.is_ascii_digit()) => "NUMBER".to_owned(),
            _ => part.into_owned(),
        }
    });
    let text = parts.collect::<Vec<_>>().join("/");
    if text.is_empty() {
        ".".to_owned()
    } else {
        text
    }
}

impl Call {
    /// Reads `/proc/THREAD/syscall`: the number and six arguments, in hexadecimal.
    fn of(thread: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
        let mut words = text.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok()?;
        }
        Some(Self {
            thread,
            number,
            arguments,
        })
    }

    /// What a descriptor has open; `None` for sockets and the like.
    fn opened(&self, descriptor: u64) -> Option<PathBuf> {
        let path = std::fs::read_link(format!("/proc/{}/fd/{descriptor}", self.thread)).ok()?;
        path.is_absolute().then_some(path)
    }

    /// The path at an address, from a directory's descriptor where it is relative.
    fn path(&self, directory: Option<u64>, address: u64) -> Option<PathBuf> {
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.thread)).ok()?;
        let mut bytes = [0; 4096];
        // A read stops at the end of the mapping; a path is shorter than what comes back.
        let read = memory.read_at(&mut bytes, address).ok()?;
        let text = bytes.get(..read)?.split(|byte| *byte == 0).next()?;
        let path = PathBuf::from(std::str::from_utf8(text).ok()?);
        if path.is_absolute() {
            return Some(path);
        }
        // The descriptor is an int: AT_FDCWD arrives as its low 32 bits.
        let at = directory.map(|descriptor| descriptor & 0xffff_ffff);
        let base = match at {
            Some(descriptor) if descriptor < 0x8000_0000 => {
                format!("/proc/{}/fd/{descriptor}", self.thread)
            }
            Some(_) | None => format!("/proc/{}/cwd", self.thread),
        };
        Some(std::fs::read_link(base).ok()?.join(path))
    }

    /// The 64 bits at an address.
    fn word(&self, address: u64) -> Option<u64> {
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.thread)).ok()?;
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, address).ok()?;
        Some(u64::from_ne_bytes(bytes))
    }
}
