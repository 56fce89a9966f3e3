//! The double as a process of its own, for measurements: fills itself, says where it listens, and serves until it is ended.
//!
//! `nagi-kube-double DEPLOYMENTS` prints its URL on one line once it holds that many Deployments of realistic size.

use std::io::Write as _;

use nagi_kube_double::{Double, objects};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok());
    let double = Double::start().await;
    for number in 0..count.unwrap_or(0) {
        double.put(objects::realistic_deployment(number));
    }
    // Nobody reads: nobody will find it either.
    if writeln!(std::io::stdout(), "{}", double.url()).is_ok() {
        std::future::pending::<()>().await;
    }
}
