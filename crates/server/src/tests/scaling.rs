//! Sleep, scale up, status: the founding documents' calls, word for word.

use serde_json::json;

use super::world::{BASE, world};

// A-120, A-122, A-128, A-152, K-23, W-A12, W-A13, W-A14
#[tokio::test(start_paused = true)]
async fn scale_to_zero_answers_as_documented() {
    let w = world();
    let path = format!("{BASE}/scale-to-zero");
    let answer = w
        .post(&path, r#"{"reason": "コスト最適化のため"}"#)
        .send()
        .await
        .expect(200);
    assert_eq!(answer.at("/status"), "success");
    assert_eq!(answer.at("/message"), "Deployment scaled to zero");
    let deployment = answer.at("/deployment");
    assert_eq!(deployment["name"], "sample-app-a");
    assert_eq!(deployment["namespace"], "project-a");
    assert_eq!(deployment["previous_replicas"], 1);
    assert_eq!(deployment["current_replicas"], 0);
    assert_eq!(deployment["target_replicas"], 0);
    assert_eq!(deployment["observed_replicas"], 1);
    assert_eq!(deployment["remembered_replicas"], 1);
    assert_eq!(deployment["target_status"], "scaled-to-zero");
    assert_eq!(deployment["scaling_reason"], "コスト最適化のため");
    assert_eq!(w.app_a().desired.0, 0);
    assert_eq!(
        answer.at("/timestamp"),
        json!(nagi_api::Time::in_millis(w.now()))
            .as_str()
            .unwrap()
            .to_owned()
    );
}
