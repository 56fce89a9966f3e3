//! The rules of the supervisor: nothing long-lived ends unseen, shutdown is ordered and bounded.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::*;

const GRACE: Duration = Duration::from_secs(20);

async fn until_draining(shutdown: Shutdown) {
    shutdown.draining().await;
}

fn ended(result: Result<ShutdownReport, SupervisorError>) -> (&'static str, TaskEnd) {
    let Err(SupervisorError::TaskEnded {
        name,
        end,
        report: _,
    }) = result
    else {
        unreachable!("expected a task that ended, got {result:?}")
    };
    (name, end)
}

#[tokio::test(start_paused = true)]
async fn clean_shutdown_takes_no_longer_than_its_tasks() {
    let mut supervisor = Supervisor::new();
    let shutdown = supervisor.shutdown();
    supervisor.spawn("listener", async move {
        shutdown.draining().await;
        sleep(Duration::from_secs(3)).await;
    });
    let begin = Instant::now();
    let report = supervisor
        .run_until(sleep(Duration::from_secs(5)), GRACE)
        .await
        .unwrap();
    assert_eq!(report, ShutdownReport::default());
    assert_eq!(begin.elapsed(), Duration::from_secs(8));
}

#[tokio::test(start_paused = true)]
async fn long_lived_task_that_returns_before_shutdown_is_fatal_and_the_others_drain() {
    let mut supervisor = Supervisor::new();
    let shutdown = supervisor.shutdown();
    let (drained, seen) = oneshot::channel();
    supervisor.spawn("other", async move {
        shutdown.draining().await;
        drained.send(()).unwrap();
    });
    supervisor.spawn("loop", sleep(Duration::from_secs(1)));
    let result = supervisor
        .run_until(std::future::pending::<()>(), GRACE)
        .await;
    let text = result.as_ref().unwrap_err().to_string();
    assert_eq!(text, "task loop ended before shutdown: returned");
    assert!(matches!(ended(result), ("loop", TaskEnd::Returned)));
    seen.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn task_that_fails_is_fatal_with_its_chain() {
    let mut supervisor = Supervisor::new();
    supervisor.spawn("journal", async {
        Err::<(), _>(io::Error::other("disk is full"))
    });
    let (name, end) = ended(
        supervisor
            .run_until(std::future::pending::<()>(), GRACE)
            .await,
    );
    assert_eq!(
        (name, end.to_string().as_str()),
        ("journal", "failed: disk is full")
    );
}

#[tokio::test(start_paused = true)]
async fn task_that_panics_is_fatal_with_its_message() {
    let mut supervisor = Supervisor::new();
    supervisor.spawn("loop", async {
        assert_eq!(std::hint::black_box(1), 2, "broken {}", "rule");
    });
    let (name, end) = ended(
        supervisor
            .run_until(std::future::pending::<()>(), GRACE)
            .await,
    );
    assert_eq!(name, "loop");
    assert!(end.to_string().contains("broken rule"), "{end}");
}

#[tokio::test(start_paused = true)]
async fn foundation_task_that_ends_early_is_fatal_too() {
    let mut supervisor = Supervisor::new();
    let shutdown = supervisor.shutdown();
    supervisor.spawn("listener", until_draining(shutdown));
    supervisor.spawn_foundation("journal", async {});
    let (name, _end) = ended(
        supervisor
            .run_until(std::future::pending::<()>(), GRACE)
            .await,
    );
    assert_eq!(name, "journal");
}

#[tokio::test(start_paused = true)]
async fn tasks_beyond_the_grace_period_are_cut_and_named() {
    let mut supervisor = Supervisor::new();
    let shutdown = supervisor.shutdown();
    supervisor.spawn("polite", until_draining(shutdown));
    supervisor.spawn("stubborn", std::future::pending::<()>());
    supervisor.spawn("deaf", std::future::pending::<()>());
    supervisor.spawn_foundation("stuck", std::future::pending::<()>());
    let begin = Instant::now();
    let report = supervisor.run_until(async {}, GRACE).await.unwrap();
    assert_eq!(report.cut, ["deaf", "stubborn", "stuck"]);
    assert_eq!(begin.elapsed(), GRACE);
}

#[tokio::test(start_paused = true)]
async fn foundation_stands_until_the_serving_tasks_have_ended_or_were_cut() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut supervisor = Supervisor::new();
    let (serving, foundation) = (supervisor.shutdown(), supervisor.shutdown());
    let serving_order = Arc::clone(&order);
    supervisor.spawn("serving", async move {
        serving.draining().await;
        sleep(Duration::from_secs(4)).await;
        serving_order.lock().unwrap().push("serving ended");
    });
    let foundation_order = Arc::clone(&order);
    supervisor.spawn_foundation("foundation", async move {
        foundation.stopped().await;
        foundation_order.lock().unwrap().push("foundation ended");
    });
    let begin = Instant::now();
    supervisor.run_until(async {}, GRACE).await.unwrap();
    assert_eq!(
        *order.lock().unwrap(),
        ["serving ended", "foundation ended"]
    );
    assert_eq!(begin.elapsed(), Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn serving_tasks_are_cut_before_the_foundation_is_told_to_stop() {
    struct Cut(Arc<Mutex<Vec<&'static str>>>);
    impl Drop for Cut {
        fn drop(&mut self) {
            self.0.lock().unwrap().push("serving cut");
        }
    }
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut supervisor = Supervisor::new();
    let cut = Cut(Arc::clone(&order));
    supervisor.spawn("serving", async move {
        let _cut = cut;
        std::future::pending::<()>().await;
    });
    let shutdown = supervisor.shutdown();
    let foundation_order = Arc::clone(&order);
    supervisor.spawn_foundation("foundation", async move {
        shutdown.stopped().await;
        foundation_order.lock().unwrap().push("foundation ended");
    });
    let begin = Instant::now();
    let report = supervisor.run_until(async {}, GRACE).await.unwrap();
    assert_eq!(report.cut, ["serving"]);
    assert_eq!(*order.lock().unwrap(), ["serving cut", "foundation ended"]);
    // A tenth of the grace period, at most two seconds, was kept for the foundation.
    assert_eq!(begin.elapsed(), Duration::from_secs(18));
}

#[tokio::test(start_paused = true)]
async fn task_that_ended_when_the_signal_is_there_already_is_no_error() {
    for _ in 0..20 {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("quick", async {});
        tokio::task::yield_now().await;
        let report = supervisor.run_until(async {}, GRACE).await.unwrap();
        assert_eq!(report, ShutdownReport::default());
    }
}

#[tokio::test(start_paused = true)]
async fn failure_while_draining_is_reported_and_does_not_stop_the_drain() {
    let mut supervisor = Supervisor::new();
    let (first, second) = (supervisor.shutdown(), supervisor.shutdown());
    supervisor.spawn("first", async move {
        first.draining().await;
        Err::<(), _>(io::Error::other("late trouble"))
    });
    supervisor.spawn("second", async move {
        second.draining().await;
        sleep(Duration::from_secs(2)).await;
    });
    let report = supervisor.run_until(async {}, GRACE).await.unwrap();
    assert_eq!(
        report.failed,
        [("first", "failed: late trouble".to_owned())]
    );
    assert!(report.cut.is_empty());
}

#[tokio::test(start_paused = true)]
async fn second_request_to_stop_cuts_the_grace_period() {
    let mut supervisor = Supervisor::new();
    supervisor.spawn("stubborn", std::future::pending::<()>());
    let begin = Instant::now();
    let insisted = sleep(Duration::from_secs(2));
    let report = supervisor
        .run_until_insisted(async {}, insisted, GRACE)
        .await
        .unwrap();
    assert_eq!(report.cut, ["stubborn"]);
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn grace_of_zero_cuts_at_once() {
    let mut supervisor = Supervisor::new();
    supervisor.spawn("stubborn", std::future::pending::<()>());
    let begin = Instant::now();
    let report = supervisor
        .run_until(async {}, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(report.cut, ["stubborn"]);
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_that_blocks_its_thread_does_not_hold_up_the_exit() {
    let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
    let (started, seen) = oneshot::channel();
    let mut supervisor = Supervisor::new();
    supervisor.spawn("blocked", async move {
        started.send(()).unwrap();
        held.recv().unwrap();
    });
    seen.await.unwrap();
    let report = supervisor
        .run_until(async {}, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(report.cut, ["blocked"]);
    release.send(()).unwrap();
}
