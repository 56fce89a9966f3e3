//! How fast one caller may write, and how many streams there may be (R17).

use std::time::Duration;

use super::world::{BASE, Setup, world};
use crate::keys::KeySources;

const WAKE: &str = "/api/v1/deployments/project-a/sample-app-a/wake";

// A-159, R17
#[tokio::test(start_paused = true)]
async fn writes_are_limited_per_caller_and_reads_are_not() {
    let w = world();
    for _ in 0..50 {
        w.post(WAKE, "").send().await.expect(200);
    }
    let refused = w.post(WAKE, "").send().await.expect(429);
    assert_eq!(refused.at("/message"), "Too many requests");
    assert_eq!(refused.header("retry-after"), "1");
    w.get(&format!("{BASE}/status")).send().await.expect(200);
    w.post(WAKE, "").from("192.0.2.2").send().await.expect(200);
    tokio::time::sleep(Duration::from_millis(100)).await;
    w.post(WAKE, "").send().await.expect(200);
    w.post(WAKE, "").send().await.expect(429);
}

// R17: a key has one bucket wherever it calls from; dry runs and refusals count too.
#[tokio::test(start_paused = true)]
async fn a_key_has_one_bucket_from_all_addresses() {
    let mut setup = Setup {
        keys: KeySources {
            api_key: Some("k".to_owned()),
            ..KeySources::default()
        },
        ..Setup::default()
    };
    setup.config.rate.burst = 2;
    let w = setup.world();
    w.post(WAKE, "")
        .key("k")
        .from("192.0.2.1")
        .send()
        .await
        .expect(200);
    w.post(&format!("{WAKE}?dry_run=true"), "")
        .key("k")
        .from("192.0.2.2")
        .send()
        .await
        .expect(200);
    w.post(WAKE, "")
        .key("k")
        .from("192.0.2.3")
        .send()
        .await
        .expect(429);
    // Nobody's guesses empty the bucket of the key.
    w.post(WAKE, "").key("guess").send().await.expect(401);
}

// R17: configurable, 0 is off.
#[tokio::test(start_paused = true)]
async fn a_rate_of_zero_is_off() {
    let mut setup = Setup::default();
    setup.config.rate.per_second = 0;
    let w = setup.world();
    for _ in 0..200 {
        w.post(WAKE, "").send().await.expect(200);
    }
}
