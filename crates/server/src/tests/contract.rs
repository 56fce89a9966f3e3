//! Every answer is checked against the OpenAPI document that the API itself serves.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use axum::http::{HeaderMap, Method, StatusCode};
use jsonschema::Validator;
use nagi_api::routes;
use serde_json::{Value, json};

use crate::openapi as document;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(document()).unwrap());
static VALIDATORS: LazyLock<Mutex<HashMap<String, Validator>>> = LazyLock::new(Mutex::default);

/// Asserts that the document allows this answer to this request.
#[track_caller]
pub(super) fn check(
    method: &Method,
    path: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) {
    let kind = headers
        .get("content-type")
        .map_or("", |v| v.to_str().unwrap());
    let media = kind.split(';').next().unwrap_or_default();
    if *method == Method::HEAD {
        return;
    }
    let pointer = described(method, path, status, media);
    let Some(pointer) = pointer else {
        // What no operation describes (unknown paths, wrong methods) still has the one envelope.
        assert!(
            status.is_client_error() || media == "text/plain",
            "{method} {path}: {status} is not described"
        );
        if status.is_client_error() {
            valid("/components/schemas/ErrorBody", body);
        }
        return;
    };
    if media == "application/json" {
        valid(&pointer, body);
    }
}

/// Where the document describes this answer.
fn described(method: &Method, path: &str, status: StatusCode, media: &str) -> Option<String> {
    let uri: axum::http::Uri = path.parse().unwrap();
    let uri = crate::path::normal(&uri).unwrap_or(uri);
    let template = template(uri.path())?;
    let escape = |text: &str| text.replace('~', "~0").replace('/', "~1");
    let operation = format!(
        "/paths/{}/{}",
        escape(template),
        method.as_str().to_lowercase()
    );
    DOCUMENT.pointer(&operation)?;
    let pointer = format!(
        "{operation}/responses/{}/content/{}/schema",
        status.as_u16(),
        escape(media)
    );
    assert!(
        DOCUMENT.pointer(&pointer).is_some(),
        "the document does not know {pointer}"
    );
    Some(pointer)
}

fn template(path: &str) -> Option<&'static str> {
    let fits = |template: &&str| {
        let (mut wanted, mut given) = (template.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(one), Some(other)) if one == other || one.starts_with('{') => {}
                _ => return false,
            }
        }
    };
    // Plain templates win over those with parameters, as in the router.
    let mut all = routes::ALL;
    all.sort_by_key(|template| template.contains('{'));
    all.into_iter().find(fits)
}

#[track_caller]
fn valid(pointer: &str, body: &[u8]) {
    let value: Value = serde_json::from_slice(body).expect("a JSON body");
    let mut validators = VALIDATORS.lock().unwrap();
    let validator = validators.entry(pointer.to_owned()).or_insert_with(|| {
        let mut schema = DOCUMENT.pointer(pointer).unwrap().clone();
        schema["components"] = DOCUMENT["components"].clone();
        jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap()
    });
    let errors: Vec<String> = validator
        .iter_errors(&value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    drop(validators);
    assert!(errors.is_empty(), "{pointer}: {errors:?} in {value}");
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
    assert!(DOCUMENT["openapi"].as_str().unwrap().starts_with("3.1"));
    let text = DOCUMENT.to_string();
    for part in text.split("\"$ref\":\"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(DOCUMENT.pointer(pointer).is_some(), "{pointer}");
    }
    let described = DOCUMENT["paths"].as_object().unwrap();
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
