//! The text dump of the runtime's tasks and the process's threads.
//!
//! What Go calls a goroutine profile: how many tasks live and wait, and each thread of the operating
//! system with its state and CPU time, from `/proc/self/task`. Tasks of tokio have no names in a
//! stable build, so they are counted, not listed.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use tokio::runtime::Handle;

/// Most threads listed: tokio runs up to 512 blocking threads, and workers besides; more than this is
/// a fault that the count alone shows.
const THREADS_MAX: usize = 1024;

/// One thread of this process.
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    id: u64,
    name: String,
    state: char,
    user_ticks: u64,
    system_ticks: u64,
}

/// Counts of the runtime that calls this, then one line per thread of the process.
/// Reads a small file per thread: microseconds each.
pub fn tasks_and_threads() -> String {
    let mut text = String::new();
    write_dump(&mut text).unwrap_or(()); // Writing into a `String` cannot fail.
    text
}

fn write_dump(text: &mut String) -> std::fmt::Result {
    writeln!(text, "runtime")?;
    match Handle::try_current() {
        Ok(handle) => {
            let metrics = handle.metrics();
            writeln!(text, "  workers             {}", metrics.num_workers())?;
            writeln!(text, "  tasks alive         {}", metrics.num_alive_tasks())?;
            writeln!(
                text,
                "  global queue depth  {}",
                metrics.global_queue_depth()
            )?;
            for worker in 0..metrics.num_workers() {
                let busy = metrics.worker_total_busy_duration(worker);
                let parks = metrics.worker_park_count(worker);
                writeln!(
                    text,
                    "  worker {worker}  busy {}  parked {parks} times",
                    seconds(busy)
                )?;
            }
        }
        Err(_) => writeln!(text, "  none: not called inside a runtime")?,
    }
    let threads = threads();
    writeln!(text, "\nthreads {}", threads.len())?;
    writeln!(
        text,
        "  {:>8}  {:<5}  {:>10}  {:>10}  name",
        "tid", "state", "user", "system"
    )?;
    for thread in threads.iter().take(THREADS_MAX) {
        writeln!(
            text,
            "  {:>8}  {:<5}  {:>10}  {:>10}  {}",
            thread.id,
            thread.state,
            seconds(ticks(thread.user_ticks)),
            seconds(ticks(thread.system_ticks)),
            thread.name
        )?;
    }
    Ok(())
}

fn seconds(duration: Duration) -> String {
    format!("{:.2}s", duration.as_secs_f64())
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(1000) / clock_ticks_per_second().max(1))
}

/// The threads by id. One that ended while we read is left out.
fn threads() -> Vec<Thread> {
    let Ok(entries) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    let stats =
        entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let mut threads: Vec<_> = stats.filter_map(|stat| Thread::parse(&stat)).collect();
    threads.sort_unstable_by_key(|thread| thread.id);
    threads
}

// === impl Thread ===

impl Thread {
    /// Parses one `stat` file: `ID (NAME) STATE …`, where the name may hold blanks and brackets.
    fn parse(stat: &str) -> Option<Self> {
        let (id, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?.chars().next()?;
        // utime and stime are fields 14 and 15; the state was field 3.
        let user_ticks = fields.nth(10)?.parse().ok()?;
        let system_ticks = fields.next()?.parse().ok()?;
        let name = name
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        Some(Self {
            id: id.parse().ok()?,
            name,
            state,
            user_ticks,
            system_ticks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_thread_whose_name_holds_brackets_is_read() {
        let stat = "42 (a) (b c) S 1 42 42 0 -1 4194304 9 0 0 0 123 45 0 0 20 0 3 0 99 0 0\n";
        let expected = Thread {
            id: 42,
            name: "a) (b c".to_owned(),
            state: 'S',
            user_ticks: 123,
            system_ticks: 45,
        };
        assert_eq!(Thread::parse(stat), Some(expected));
        assert_eq!(Thread::parse("42 (cut"), None);
    }

    //
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn dump_counts_the_tasks_and_names_the_threads() {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..5 {
            tasks.spawn(std::future::pending::<()>());
        }
        let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
        let (named, seen) = std::sync::mpsc::sync_channel::<()>(0);
        let thread = std::thread::Builder::new().name("dump-me".to_owned());
        // The new thread takes its name itself, before it runs this.
        let wait = move || {
            named.send(()).unwrap();
            held.recv().unwrap_err();
        };
        let thread = thread.spawn(wait).unwrap();
        seen.recv().unwrap();
        let dump = tasks_and_threads();
        drop(release);
        thread.join().unwrap();
        assert!(dump.contains("  workers             2\n"), "{dump}");
        assert!(dump.contains("  tasks alive         5\n"), "{dump}");
        assert!(
            dump.lines().any(|line| line.ends_with("s  dump-me")),
            "{dump}"
        );
    }

    #[test]
    fn dump_outside_a_runtime_still_lists_threads() {
        let dump = tasks_and_threads();
        assert!(dump.contains("not called inside a runtime"), "{dump}");
        assert!(!threads().is_empty());
    }
}
