//! Reviews of tokens and rights.

use serde_json::{Value, json};

use super::{NAMESPACE, Server};

// Issue 4 item 4
pub(crate) async fn answer_and_keep_nothing(server: &Server) {
    let tokens = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": { "token": "e30.e30.e30", "audiences": ["scale-api"] },
    });
    let (status, answer) = server.post(tokens, &review).await;
    assert_eq!(status, 201, "{answer}");
    assert_ne!(answer["status"]["authenticated"], json!(true));
    assert!(answer["status"]["audiences"].is_null());
    let access = |spec: Value| json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec });
    let rights = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let scale = json!({
        "verb": "update", "group": "apps", "resource": "deployments", "subresource": "scale", "namespace": NAMESPACE,
        "name": "any",
    });
    for (who, allowed) in [
        (json!({ "user": "nobody-of-this-name" }), false),
        (
            json!({ "user": "root", "groups": ["system:masters"] }),
            true,
        ),
    ] {
        let mut spec = who;
        spec["resourceAttributes"] = scale.clone();
        let (status, answer) = server.post(rights, &access(spec)).await;
        assert_eq!(
            (status, &answer["status"]["allowed"]),
            (201, &json!(allowed)),
            "{answer}"
        );
    }
    let of_nobody = access(json!({ "resourceAttributes": scale }));
    assert_eq!(server.post(rights, &of_nobody).await.0, 422);
    let of_nothing = access(json!({ "user": "a" }));
    assert_eq!(server.post(rights, &of_nothing).await.0, 422);
    let own = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": scale },
    });
    let (status, answer) = server
        .post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            &own,
        )
        .await;
    assert_eq!((status, &answer["status"]["allowed"]), (201, &json!(true)));
    let own = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let (status, answer) = server
        .post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &own)
        .await;
    assert_eq!(status, 201);
    assert!(answer["status"]["userInfo"]["username"].is_string());
    assert_eq!(server.get("/apis/nobody.serves.this/v1").await.0, 404);
}
