//! Profiles of this process. The profiler is one per process, so these tests take turns.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::*;

/// One test at a time has the profiler.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The name that must appear. Not inlined, and called often enough to be hit.
#[inline(never)]
fn nagi_profile_test_burns_cpu(stop: &AtomicBool) -> u64 {
    let sum = AtomicU64::new(0);
    while !stop.load(Ordering::Relaxed) {
        for number in 0..1000_u64 {
            sum.fetch_xor(
                black_box(number).wrapping_mul(0x9e37_79b9),
                Ordering::Relaxed,
            );
        }
    }
    sum.into_inner()
}

/// Profiles one second in which a thread burns CPU.
async fn profile_while_burning() -> Vec<u8> {
    let stop = Arc::new(AtomicBool::new(false));
    let burner_stop = Arc::clone(&stop);
    let burner = thread::Builder::new().name("burner".to_owned());
    let burner = burner
        .spawn(move || nagi_profile_test_burns_cpu(&burner_stop))
        .unwrap();
    let profile = cpu(DURATION_MIN).await;
    stop.store(true, Ordering::Relaxed);
    burner.join().unwrap();
    profile.unwrap()
}

//
#[tokio::test]
async fn profile_names_the_function_that_burns_cpu() {
    let _turn = TURN.lock().await;
    let profile = profile_while_burning().await;
    // The protobuf is not compressed, so its strings can be found.
    let name = b"nagi_profile_test_burns_cpu";
    assert!(
        profile.windows(name.len()).any(|window| window == name),
        "{} bytes",
        profile.len()
    );
    shows_in_go_tool(&profile);
}

/// `go tool pprof -top` shows the function, where Go is installed.
#[expect(
    clippy::disallowed_methods,
    reason = "runs go tool pprof on the profile"
)]
fn shows_in_go_tool(profile: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("profile.pb");
    std::fs::write(&file, profile).unwrap();
    let output = std::process::Command::new("go")
        .args(["tool", "pprof", "-top"])
        .arg(&file)
        .env("PPROF_TMPDIR", directory.path())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("go is not installed: only the bytes of the profile were checked");
            return;
        }
        Err(error) => panic!("cannot start go: {error}"),
    };
    let top = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{complaints}");
    let row = top
        .lines()
        .find(|line| line.contains("nagi_profile_test_burns_cpu"));
    // Columns: flat, flat%, sum%, cum, cum%, name. Without optimisation `flat` lies in its callees.
    let row = row.unwrap_or_else(|| panic!("{top}"));
    let cumulative = row.split_whitespace().nth(3).unwrap();
    assert!(
        cumulative.ends_with("ms") || cumulative.ends_with('s'),
        "{top}"
    );
}

// What stops or kills a process whose signal handler takes a lock or allocates: threads that are
// inside the allocator, inside the unwinder, and inside the list of loaded objects.
#[tokio::test]
async fn profile_survives_threads_that_allocate_and_unwind() {
    let _turn = TURN.lock().await;
    let stop = Arc::new(AtomicBool::new(false));
    let busy = |stop: Arc<AtomicBool>| {
        let mut kept = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            kept.push(vec![1_u8; 100 + kept.len() * 7]);
            if kept.len() == 200 {
                kept.clear();
                drop(black_box(std::backtrace::Backtrace::force_capture()));
                // Unwinds without the panic hook, which would print.
                black_box(std::panic::catch_unwind(|| {
                    std::panic::resume_unwind(Box::new(1))
                }))
                .ok();
            }
        }
    };
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::Builder::new().spawn(move || busy(stop)).unwrap()
        })
        .collect();
    let profile = cpu(DURATION_MIN).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    // Samples inside the C library are there too, with the way up to our own function.
    let name = b"profile_survives_threads_that_allocate_and_unwind";
    assert!(
        profile.windows(name.len()).any(|window| window == name),
        "{} bytes",
        profile.len()
    );
}

#[tokio::test]
async fn second_profile_is_refused_while_one_is_taken() {
    let _turn = TURN.lock().await;
    let first = cpu(DURATION_MIN);
    let second = async {
        let busy = cpu(DURATION_MIN).await;
        assert!(matches!(busy, Err(ProfileError::Busy)), "{busy:?}");
    };
    // `join!` polls in order: the first has begun when the second is tried.
    let (first, ()) = tokio::join!(first, second);
    first.unwrap();
    // It is free again afterwards.
    drop(BusyGuard::take().unwrap());
}

#[tokio::test]
async fn profile_whose_caller_goes_away_is_stopped() {
    let _turn = TURN.lock().await;
    let mut profile = Box::pin(cpu(DURATION_MAX));
    let begun = std::future::poll_fn(|context| {
        assert!(profile.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    });
    begun.await;
    assert!(BUSY.load(Ordering::Acquire));
    drop(profile);
    // Freed within milliseconds; twenty seconds are for a busy machine, and far from the minute that
    // the profile was to take.
    let freed = async {
        while BUSY.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), freed)
        .await
        .unwrap();
}

#[tokio::test]
async fn duration_outside_its_bounds_is_refused() {
    for duration in [
        Duration::ZERO,
        Duration::from_millis(999),
        Duration::from_millis(60_001),
    ] {
        let refused = cpu(duration).await;
        assert!(
            matches!(refused, Err(ProfileError::Duration { .. })),
            "{refused:?}"
        );
    }
}
