//! Follows a process with ptrace, counts the steps it takes over all its threads, and kills it at one of them.
//!
//! strace can inject a signal, but counts for each thread by itself, and which thread of a pool takes a step is chance. Here
//! the count is one for the process. A kill at the entry of a call keeps the kernel from executing it; a kill at
//! its exit comes when it has been executed and before the thread knows.
//!
//! ptrace belongs to the thread that attached, so all of it happens on a thread of its own.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::steps::{self, Step};

/// On which side of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Instead of it.
    Before,
    /// When it is done.
    After,
}

/// When to kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Never: only record.
    Record,
    /// At one step, counted from 1 among equal ones.
    Kill {
        step: Step,
        occurrence: usize,
        phase: Phase,
    },
}

/// What was seen until the process ended.
#[derive(Debug)]
pub(crate) struct Trace {
    /// Every step that was begun, the one that was killed instead of being taken included.
    pub(crate) steps: Vec<Step>,
    /// The plan was carried out.
    pub(crate) killed: bool,
}

/// A process under observation.
pub(crate) struct Tracer {
    thread: JoinHandle<Trace>,
    taken: Arc<AtomicUsize>,
    plan: Plan,
}

struct Observation {
    process: Pid,
    state: PathBuf,
    plan: Plan,
    known: HashSet<Pid>,
    inside: HashSet<Pid>,
    /// The thread that is taking the step after which to kill.
    last: Option<Pid>,
    trace: Trace,
    taken: Arc<AtomicUsize>,
}

impl Tracer {
    /// Attaches to all threads of a process; steps are those on files below `state`.
    pub(crate) fn attach(process: i32, state: PathBuf, plan: Plan) -> Self {
        let (attached, wait) = sync_channel(1);
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let planned = plan.clone();
        let thread = std::thread::spawn(move || {
            let mut observation = Observation {
                process: Pid::from_raw(process),
                state,
                plan,
                known: HashSet::new(),
                inside: HashSet::new(),
                last: None,
                trace: Trace {
                    steps: Vec::new(),
                    killed: false,
                },
                taken: counter,
            };
            observation.seize();
            observation.follow(&attached);
            observation.trace
        });
        // The thread drops its end when the process dies first; what it saw tells.
        wait.recv().ok();
        Self {
            thread,
            taken,
            plan: planned,
        }
    }

    /// When it kills.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many steps were begun so far.
    pub(crate) fn steps_so_far(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Waits for the end of the process.
    pub(crate) fn finish(self) -> Trace {
        self.thread.join().expect("the tracer does not panic")
    }

    /// The process has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Observation {
    /// Attaches to every thread that there is; later ones are attached by the kernel.
    fn seize(&mut self) {
        let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
        loop {
            let mut found = false;
            for thread in threads(self.process) {
                if self.known.contains(&thread) {
                    continue;
                }
                match ptrace::seize(thread, options) {
                    Ok(()) => {
                        found = true;
                        self.known.insert(thread);
                        ptrace::interrupt(thread).expect("a thread that was just attached");
                    }
                    // Ended meanwhile, or attached by the kernel as the child of one that we have.
                    Err(Errno::ESRCH) => {}
                    Err(Errno::EPERM) if found || !self.known.is_empty() => {}
                    Err(error) => panic!(
                        "this machine does not let a test observe its own child with ptrace: {error}"
                    ),
                }
            }
            if !found {
                return;
            }
        }
    }

    fn follow(&mut self, attached: &SyncSender<()>) {
        let mut running: HashSet<Pid> = HashSet::new();
        let mut told = false;
        loop {
            if !told && self.known.is_subset(&running) {
                told = true;
                attached.send(()).ok();
            }
            // Only what this thread attached: other tests have children of their own.
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::PtraceSyscall(thread)) => {
                    self.syscall(thread);
                    go_on(thread, None);
                }
                Ok(WaitStatus::PtraceEvent(thread, _, _)) => {
                    running.insert(thread);
                    go_on(thread, None);
                }
                Ok(WaitStatus::Stopped(thread, signal)) => go_on(thread, Some(signal)),
                Ok(WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, _, _)) => {
                    self.known.remove(&thread);
                    self.inside.remove(&thread);
                    if thread == self.process {
                        return;
                    }
                }
                Ok(WaitStatus::Continued(_) | WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// A thread stands at the entry of a call or, every second time, at its exit.
    fn syscall(&mut self, thread: Pid) {
        if self.inside.remove(&thread) {
            if self.last == Some(thread) {
                self.kill();
            }
            return;
        }
        self.inside.insert(thread);
        if self.trace.killed {
            return;
        }
        let Some(step) = steps::about_to_be_taken(thread.as_raw(), &self.state) else {
            return;
        };
        self.trace.steps.push(step);
        self.taken.store(self.trace.steps.len(), Ordering::Relaxed);
        let Plan::Kill {
            step,
            occurrence,
            phase,
        } = &self.plan
        else {
            return;
        };
        let (newest, before) = self.trace.steps.split_last().expect("one was just pushed");
        if newest == step
            && before.iter().filter(|earlier| *earlier == step).count() + 1 == *occurrence
        {
            match phase {
                Phase::Before => self.kill(),
                Phase::After => self.last = Some(thread),
            }
        }
    }

    fn kill(&mut self) {
        self.trace.killed = true;
        kill(self.process, Signal::SIGKILL).expect("the process stands still");
    }
}

/// To the next entry or exit of a call. A thread that was killed meanwhile is reported by its end.
fn go_on(thread: Pid, signal: Option<Signal>) {
    match ptrace::syscall(thread, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("cannot let thread {thread} go on: {error}"),
    }
}

fn threads(process: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    names.map(Pid::from_raw).collect()
}
