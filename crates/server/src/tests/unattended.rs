//! What is due by itself while nobody carries it out: it is not promised, and whoever relies on it is told.

use std::time::Duration;

use nagi_ports::PortError;
use serde_json::Value;

use super::world::{BASE, app_a, world};

// R13: what the real call is refused for, when there is nobody to keep a schedule, the dry run is refused for too.
#[tokio::test(start_paused = true)]
async fn a_dry_run_of_a_schedule_that_nobody_would_keep_is_refused_like_the_real_one() {
    let w = world();
    w.workloads
        .leave_unattended(PortError::Refused("the Lease cannot be used".to_owned()));
    let body = r#"{"reason":"night","scheduled_scale_up":"2030-06-01T00:00:00Z"}"#;
    let mut answers = Vec::new();
    for query in ["?dry_run=true", ""] {
        let path = format!("{BASE}/scale-to-zero{query}");
        let answer = w.post(&path, body).send().await;
        answers.push((answer.status, answer.at("/error"), answer.at("/hint")));
    }
    assert_eq!(answers[0], answers[1]);
    assert!(!answers[0].0.is_success(), "{answers:?}");
    let words = answers[0].1.to_string();
    assert!(words.contains("the Lease"), "{answers:?}");
    // Without a schedule nothing is promised.
    let path = format!("{BASE}/scale-to-zero?dry_run=true");
    w.post(&path, r#"{"reason":"x"}"#).send().await.expect(200);
}

// Issue 4: whoever relies on idle sleep or on a schedule sees that nobody carries it out.
#[tokio::test(start_paused = true)]
async fn a_status_tells_that_nobody_carries_out_what_is_due_by_itself() {
    let w = world();
    w.workloads
        .leave_unattended(PortError::Refused("the Lease cannot be used".to_owned()));
    let told = async || {
        let answer = w.get(&format!("{BASE}/status")).send().await.expect(200);
        answer.at("/deployment/unattended")
    };
    w.workloads.change(&app_a(), |w| w.idle_after = None);
    assert_eq!(told().await, Value::Null, "nothing is due");
    w.workloads
        .change(&app_a(), |w| w.idle_after = Some(Duration::from_mins(10)));
    let words = told().await.to_string();
    assert!(words.contains("the Lease cannot be used"), "{words}");
}
