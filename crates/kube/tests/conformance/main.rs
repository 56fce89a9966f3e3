//! The double of an API server answers as Nagi relies on. The test target `real` asks a real one the same: a difference
//! fails, so that no test against the double proves something that a cluster would not do.

#![expect(
    clippy::similar_names,
    clippy::unwrap_used,
    reason = "tests fail by panicking"
)]

mod suite;

use kube::{Client, Config};
use nagi_kube_double::Double;

#[tokio::test]
async fn the_double_answers_as_nagi_relies_on() {
    let double = Double::start().await;
    let client = Client::try_from(Config::new(double.url().parse().unwrap())).unwrap();
    suite::ask_everything(client, Some(double)).await;
}
