//! What the double is trusted with, on a real API server: the same conformance suite, and the engine over TLS with real
//! credentials.
//!
//! `NAGI_TEST_KUBECONFIG` names the API server, which must have been started anew since it was made, so that the versions
//! before are too old for it. The tests of what is delivered (`e2e/tests/delivery`) start one and run this.

#![expect(
    clippy::similar_names,
    clippy::unwrap_used,
    reason = "tests fail by panicking"
)]

mod engine;
#[path = "../engine/lab.rs"]
#[expect(dead_code, reason = "tests against the double use the rest")]
mod lab;
#[path = "../conformance/suite.rs"]
mod suite;

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Names the kubeconfig of a real API server.
const REAL: &str = "NAGI_TEST_KUBECONFIG";

#[expect(
    clippy::disallowed_methods,
    reason = "the harness names the API server by the environment"
)]
fn kubeconfig() -> PathBuf {
    std::env::var_os(REAL)
        .expect("NAGI_TEST_KUBECONFIG names the kubeconfig of a real API server")
        .into()
}

async fn client() -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.unwrap()).unwrap()
}

#[tokio::test]
async fn a_real_api_server_answers_as_the_double() {
    suite::ask_everything(client().await, None).await;
}
