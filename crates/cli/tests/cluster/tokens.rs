//! Users of the cluster, before the shipped binary: `NAGI_KUBERNETES_TOKENS` and what it leaves as it was.

use nagi_kube_double::{Double, Fault, objects};
use serde_json::json;

use crate::process::Process;

const PATH: &str = "/apis/apps/v1/namespaces/project-a/deployments/sample-app-a";
const BASE: &str = "/api/v1/deployments/project-a/sample-app-a";
const REASON: &str = r#"{"reason":"x"}"#;

async fn cluster() -> Double {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double.vouch("t-jane", "jane", "scale-api");
    double.vouch("t-else", "jane", "something-else");
    double
}

// Issue 4 item 4
#[tokio::test]
async fn a_user_of_the_cluster_does_what_the_cluster_allows() {
    let double = cluster().await;
    let environment = [
        ("NAGI_KUBERNETES_TOKENS", "true"),
        ("NAGI_REQUIRE_AUTH", "true"),
    ];
    let server = Process::start("server", Some(&double), &environment);
    server.ready().await;
    let (status, to_zero) = (format!("{BASE}/status"), format!("{BASE}/scale-to-zero"));
    assert_eq!(server.get(&status).await.unwrap().status, 401);
    for token in ["t-nobody", "t-else"] {
        let refused = server.call_as(token, "GET", &status, "").await;
        assert_eq!(refused.status, 401, "{refused:?}");
    }
    let refused = server.call_as("t-jane", "GET", &status, "").await;
    assert_eq!(refused.status, 403, "{refused:?}");
    double.grant(
        "jane",
        "get",
        "apps",
        "deployments/scale",
        Some("project-a"),
    );
    assert_eq!(
        server.call_as("t-jane", "GET", &status, "").await.status,
        200
    );
    let refused = server.call_as("t-jane", "POST", &to_zero, REASON).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(double.get(PATH).unwrap()["spec"]["replicas"], 2);
    double.grant(
        "jane",
        "update",
        "apps",
        "deployments/scale",
        Some("project-a"),
    );
    let asleep = server.call_as("t-jane", "POST", &to_zero, REASON).await;
    assert_eq!(asleep.status, 200, "{asleep:?}");
    let object = double.get(PATH).unwrap();
    assert_eq!(
        object["metadata"]["annotations"]["nagi.dev/actor"],
        "user/jane"
    );
    // Nobody can be asked: not a word about the token.
    let fault = double.inject(Fault::status(503).at("reviews"));
    double.vouch("t-new", "joe", "scale-api");
    let unknown = server.call_as("t-new", "GET", &status, "").await;
    assert_eq!(unknown.status, 503, "{unknown:?}");
    double.lift(fault);
    assert_eq!(
        server.call_as("t-new", "GET", &status, "").await.status,
        403
    );
    server.logs(r#""user":"jane""#).await;
    let log = server.log();
    assert!(!log.contains("t-jane") && !log.contains("t-new"), "{log}");
}

// K-14: nobody asked for it, so nothing is closed and nothing is asked.
#[tokio::test]
async fn without_the_setting_a_token_is_worth_nothing_and_opens_nothing() {
    let double = cluster().await;
    let server = Process::server(&double);
    server.ready().await;
    let status = format!("{BASE}/status");
    assert_eq!(server.get(&status).await.unwrap().status, 200);
    assert_eq!(
        server.call_as("t-jane", "GET", &status, "").await.status,
        200
    );
    let keyed = Process::start("server", Some(&double), &[("API_KEY", "secret")]);
    keyed.ready().await;
    double.grant("jane", "get", "apps", "deployments/scale", None);
    assert_eq!(
        keyed.call_as("t-jane", "GET", &status, "").await.status,
        401
    );
    let asked = double.requests();
    assert!(!asked.iter().any(|request| request.path.contains("review")));
    // A protecting variable that was left empty opens nothing: it is refused.
    for wrong in ["", "maybe"] {
        let refused = Process::start(
            "server",
            Some(&double),
            &[("NAGI_KUBERNETES_TOKENS", wrong)],
        );
        let (code, log) = refused.ended();
        assert_eq!(code, Some(2), "{log}");
        assert!(
            log.contains("NAGI_KUBERNETES_TOKENS) must be true or false"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn the_api_server_says_who_may_list_what() {
    let double = cluster().await;
    double.put(objects::deployment("project-b", "sample-app-b", 1));
    let server = Process::start(
        "server",
        Some(&double),
        &[("NAGI_KUBERNETES_TOKENS", "true")],
    );
    server.ready().await;
    double.grant(
        "jane",
        "get",
        "apps",
        "deployments/scale",
        Some("project-b"),
    );
    let list = server
        .call_as("t-jane", "GET", "/api/v1/workloads", "")
        .await;
    assert_eq!(
        (
            list.status,
            &list.body["items"][0]["namespace"],
            &list.body["items"][1]
        ),
        (200, &json!("project-b"), &json!(null)),
        "{list:?}"
    );
}
