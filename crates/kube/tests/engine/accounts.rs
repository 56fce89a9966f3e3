//! Users of the cluster: what is asked of the API server about a token and about a right, and what its silence means.

use std::time::Duration;

use nagi_core::id::UserName;
use nagi_kube_double::{Effect, Fault};
use nagi_ports::{AUDIENCE, Accounts, Deed, PortError};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::lab::{Lab, id, is_unreachable};

fn asked(lab: &Lab, part: &str) -> Vec<Value> {
    let requests = lab.double.requests().into_iter();
    requests
        .filter(|request| request.method == "POST" && request.path.ends_with(part))
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect()
}

// Issue 4 item 4: TokenReview (audience `scale-api`), then SubjectAccessReview
#[tokio::test]
async fn a_token_is_reviewed_and_then_the_right_of_its_holder() {
    let lab = Lab::new().await;
    lab.double.vouch("t-jane", "jane", AUDIENCE);
    lab.double
        .vouch("t-other", "jane", "https://kubernetes.default.svc");
    lab.double.grant(
        "jane",
        "get",
        "apps",
        "deployments/scale",
        Some("project-a"),
    );
    let jane = lab.engine.identify("t-jane").await.unwrap().unwrap();
    assert_eq!(jane.name, UserName::new("jane").unwrap());
    assert_eq!(lab.engine.identify("t-other").await, Ok(None));
    assert_eq!(lab.engine.identify("t-nobody").await, Ok(None));
    let reviews = asked(&lab, "/tokenreviews");
    assert_eq!(
        reviews[0]["spec"],
        json!({ "token": "t-jane", "audiences": ["scale-api"] })
    );
    let may = async |deed: Deed| lab.engine.may(&jane, &deed).await;
    assert_eq!(may(Deed::Read(id())).await, Ok(true));
    assert_eq!(may(Deed::Change(id())).await, Ok(false));
    let all = Deed::ReadAll(id().resource, None);
    assert_eq!(
        may(all).await,
        Ok(false),
        "one namespace is not all of them"
    );
    // Everything that the review told of the user goes back with the question.
    assert_eq!(
        asked(&lab, "/subjectaccessreviews")[0]["spec"],
        json!({
            "user": "jane", "uid": "uid-of-jane", "groups": ["system:authenticated"],
            "extra": { "authentication.kubernetes.io/credential-id": ["JTI=1"] },
            "resourceAttributes": { "verb": "get", "group": "apps", "resource": "deployments",
                "subresource": "scale", "namespace": "project-a", "name": "sample-app-a" },
        })
    );
}

#[tokio::test]
async fn an_api_server_that_cannot_be_asked_has_said_nothing() {
    let lab = Lab::new().await;
    lab.double.vouch("t-jane", "jane", AUDIENCE);
    let jane = lab.engine.identify("t-jane").await.unwrap().unwrap();
    for (effect, expected) in [
        (status(503), "connection failed"),
        (status(500), "engine error"),
        (status(403), "refused by the engine"),
        // Whose version serves no reviews has no opinion on anybody.
        (status(404), "engine error"),
    ] {
        let fault = lab.double.inject(Fault::always(effect).at("reviews"));
        for error in [
            lab.engine.identify("t-jane").await.unwrap_err(),
            lab.engine.may(&jane, &Deed::ReadNodes).await.unwrap_err(),
        ] {
            assert!(error.to_string().starts_with(expected), "{error}");
        }
        lab.double.lift(fault);
    }
    let fault = Fault::always(Effect::Hang).at("reviews");
    let fault = lab.double.inject(fault);
    let begun = Instant::now();
    let error = lab.engine.identify("t-jane").await.unwrap_err();
    assert!(matches!(error, PortError::Timeout(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    lab.double.lift(fault);
    lab.double.stop().await;
    let error = lab.engine.identify("t-jane").await.unwrap_err();
    assert!(is_unreachable(&error), "{error}");
    lab.double.resume().await;
    assert!(lab.engine.identify("t-jane").await.unwrap().is_some());
}

fn status(code: u16) -> Effect {
    Effect::Status {
        code,
        retry_after: None,
    }
}
