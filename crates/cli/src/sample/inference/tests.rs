//! The protocol as a client sees it, with everything that can be wrong first.

use super::model::IMAGE_VALUES;
use super::*;
use crate::sample::serve::tests::call;

const INFER: &str = "/v2/models/resnet50/infer";

fn loaded() -> Router {
    router(Duration::ZERO)
}

fn request(shape: &str, values: usize) -> String {
    let data = vec!["0.5"; values].join(",");
    format!(r#"{{"inputs":[{{"name":"data","shape":{shape},"datatype":"FP32","data":[{data}]}}]}}"#)
}

async fn refused(app: &Router, body: String) -> String {
    let (status, body) = call(app, "POST", INFER, body).await;
    assert_eq!(status, 400, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        body.as_object().unwrap().len(),
        1,
        "the protocol's shape: {body}"
    );
    body["error"].as_str().unwrap().to_owned()
}

// A-174
#[tokio::test]
async fn wrong_requests_are_refused_with_what_was_expected() {
    let app = loaded();
    let good = request("[1,3,224,224]", 1);
    let cases = [
        (String::new(), "failed to parse"),
        ("{".to_owned(), "failed to parse"),
        (r#"{"inputs":[]}"#.to_owned(), "expected 1 input but got 0"),
        (
            good.replace(r#""data","shape""#, r#""image","shape""#),
            "unexpected inference input 'image'",
        ),
        (good.replace("FP32", "INT8"), "data-type is 'INT8'"),
        (good.replace(r#","data":[0.5]"#, ""), "has no 'data'"),
        (
            good.replace("[0.5]", r#"["0.5"]"#),
            "numbers, flat or nested",
        ),
        (
            good.replace("[0.5]", "[[[[[0.5]]]]]"),
            "nested deeper than 4",
        ),
        (good.replace("[0.5]", "[1e999]"), "number out of range"),
        (
            good.clone(),
            "has 1 values, but its shape [1, 3, 224, 224] holds 150528",
        ),
        (request("[3,224,224]", 1), "expected [-1,3,224,224]"),
        (request("[1,3,224,223]", 1), "expected [-1,3,224,224]"),
        (request("[0,3,224,224]", 1), "expected [-1,3,224,224]"),
        (request("[-1,3,224,224]", 1), "expected [-1,3,224,224]"),
        (request("[9,3,224,224]", 1), "batch-size must be <= 8"),
        (request("[2,3,224,224]", IMAGE_VALUES), "holds 301056"),
        (
            request("[8,3,224,224]", 8 * IMAGE_VALUES + 1),
            "more than 8 images",
        ),
        (
            good.replace(
                r#"{"inputs""#,
                r#"{"outputs":[{"name":"probabilities"}],"inputs""#,
            ),
            "unexpected inference output 'probabilities'",
        ),
    ];
    for (body, expected) in cases {
        let start: String = body.chars().take(120).collect();
        let error = refused(&app, body).await;
        assert!(error.contains(expected), "{start}: {error}");
    }
}

// A-174
#[tokio::test]
async fn an_image_gets_a_thousand_logits_and_its_id_back() {
    let app = loaded();
    let body = request("[1,3,224,224]", IMAGE_VALUES).replacen('{', r#"{"id":"42","#, 1);
    let (status, first) = call(&app, "POST", INFER, body.clone()).await;
    assert_eq!(status, 200, "{first}");
    let answer: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(answer["id"], "42");
    assert_eq!(answer["model_name"], "resnet50");
    let output = &answer["outputs"][0];
    assert_eq!(output["name"], "resnetv17_dense0_fwd");
    assert_eq!(output["datatype"], "FP32");
    assert_eq!(output["shape"], json!([1, 1000]));
    let logits = output["data"].as_array().unwrap();
    assert_eq!(logits.len(), 1000);
    assert!(logits.iter().all(Value::is_number));
    assert_eq!(
        call(&app, "POST", INFER, body).await.1,
        first,
        "equal in, equal out"
    );
}

#[tokio::test]
async fn a_full_batch_and_nested_data_are_taken() {
    let app = loaded();
    let (status, body) = call(
        &app,
        "POST",
        INFER,
        request("[8,3,224,224]", 8 * IMAGE_VALUES),
    )
    .await;
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["outputs"][0]["shape"], json!([8, 1000]));
    assert_eq!(answer["outputs"][0]["data"].as_array().unwrap().len(), 8000);

    let row = format!("[{}]", vec!["1"; SIDE].join(","));
    let plane = format!("[{}]", vec![row; SIDE].join(","));
    let image = format!("[[{plane},{plane},{plane}]]");
    let nested = request("[1,3,224,224]", 1).replace("[0.5]", &image);
    assert_eq!(call(&app, "POST", INFER, nested).await.0, 200);
}

// A-172, A-173
#[tokio::test(start_paused = true)]
async fn it_is_live_at_once_and_ready_when_the_model_is_loaded() {
    let app = router(Duration::from_secs(3));
    for path in ["/v2/health/ready", "/v2/models/resnet50/ready"] {
        assert_eq!(call(&app, "GET", path, "").await.0, 400, "{path}");
    }
    assert_eq!(call(&app, "GET", "/v2/health/live", "").await.0, 200);
    let (status, body) = call(&app, "POST", INFER, request("[1,3,224,224]", 1)).await;
    assert_eq!(
        (status, body.as_str()),
        (
            503,
            r#"{"error":"model 'resnet50' is loading, ready in 3.0 s"}"#
        )
    );

    tokio::time::advance(Duration::from_secs(3)).await;
    for path in [
        "/v2/health/ready",
        "/v2/models/resnet50/ready",
        "/v2/models/resnet50/versions/1/ready",
    ] {
        assert_eq!(call(&app, "GET", path, "").await.0, 200, "{path}");
    }
}

// A-173
#[tokio::test]
async fn metadata_and_configuration_are_those_of_the_shipped_model() {
    let app = loaded();
    let read = async |path: &str| -> Value {
        let (status, body) = call(&app, "GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    };
    assert_eq!(
        read("/v2").await["extensions"],
        json!(["model_configuration"])
    );
    let model = read("/v2/models/resnet50").await;
    assert_eq!(model["platform"], "onnxruntime_onnx");
    assert_eq!(
        model["inputs"][0],
        json!({"name": "data", "datatype": "FP32", "shape": [-1, 3, 224, 224]})
    );
    assert_eq!(model["outputs"][0]["name"], "resnetv17_dense0_fwd");
    let config = read("/v2/models/resnet50/config").await;
    assert_eq!(config["max_batch_size"], 8);
    assert_eq!(config["input"][0]["dims"], json!([3, 224, 224]));
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_protocols_shape() {
    let app = loaded();
    for path in ["/v2/models/other", "/v2/models/resnet50/versions/2", "/v3"] {
        let (status, body) = call(&app, "GET", path, "").await;
        assert_eq!(status, 404, "{path}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["error"].is_string(), "{path}: {body}");
    }
}
