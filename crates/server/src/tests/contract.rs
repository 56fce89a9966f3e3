//! Every answer is checked against the OpenAPI document that the API itself serves.

use std::sync::LazyLock;

use axum::http::{HeaderMap, Method, StatusCode};
use nagi_api::routes;
use nagi_testkit::contract::{Answered, Contract, Validator};
use serde_json::{Value, json};

use crate::openapi as document;

static CONTRACT: LazyLock<Contract> =
    LazyLock::new(|| Contract::new(serde_json::to_value(document()).unwrap(), compile));

/// By the schema's own words, formats too.
fn compile(schema: &Value) -> Validator {
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .expect("a schema");
    Box::new(move |value| {
        let errors = validator.iter_errors(value);
        errors
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    })
}

/// Asserts that the document allows this answer to this request.
#[track_caller]
pub(super) fn check(
    method: &Method,
    path: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) {
    let uri: axum::http::Uri = path.parse().unwrap();
    let uri = crate::path::normal(&uri).unwrap_or(uri);
    CONTRACT.check(Answered {
        method: method.as_str(),
        path: uri.path(),
        status: status.as_u16(),
        content_type: headers
            .get("content-type")
            .map_or("", |v| v.to_str().unwrap()),
        body,
    });
}

#[test]
fn the_check_itself_can_fail() {
    let wrong = json!({"status": "healthy"}).to_string();
    let caught = std::panic::catch_unwind(|| {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        check(
            &Method::GET,
            "/health",
            StatusCode::OK,
            &headers,
            wrong.as_bytes(),
        );
    });
    assert!(caught.is_err());
}

// F07: the document is 3.1 and its schemas are complete.
#[test]
fn every_reference_of_the_document_leads_somewhere() {
    let document = CONTRACT.document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let text = document.to_string();
    for part in text.split("\"$ref\":\"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    let described = document["paths"].as_object().unwrap();
    for template in routes::ALL.into_iter().filter(|t| *t != routes::METRICS) {
        assert!(described.contains_key(template), "{template}");
    }
}

// R14, R16: what the document says about keys and bodies is what is in force.
#[tokio::test(start_paused = true)]
async fn the_document_says_whether_a_key_is_needed() {
    use super::world::{Setup, world};
    let open = world().get("/openapi.json").send().await.expect(200);
    assert_eq!(open.at("/security"), json!([{"key": []}, {}]));
    let mut setup = Setup::default();
    setup.keys.api_key = Some("k".to_owned());
    let closed = setup.world().get("/openapi.json").send().await.expect(200);
    assert_eq!(closed.at("/security"), json!([{"key": []}]));
    let wake = "/paths/~1api~1v1~1{resource}~1{namespace}~1{name}~1wake/post/requestBody";
    assert_eq!(closed.at(&format!("{wake}/required")), false);
    assert_eq!(closed.at("/paths/~1health/get/security"), json!([{}]));
}
