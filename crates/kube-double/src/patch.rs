//! Patches: merge patches and JSON patches, on an object or on its `scale`.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use crate::answer::Refusal;

/// Applies a patch of the kind that the headers name.
pub(crate) fn apply(headers: &HeaderMap, body: &Bytes, target: &mut Value) -> Result<(), Refusal> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let broken = |error: serde_json::Error| Refusal::new(400, error.to_string());
    match kind.split(';').next().unwrap_or_default() {
        "application/merge-patch+json" => {
            let patch: Value = serde_json::from_slice(body).map_err(broken)?;
            json_patch::merge(target, &patch);
            Ok(())
        }
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_slice(body).map_err(broken)?;
            // The real one answers a failed `test` and a path that is not there with 422 alike.
            json_patch::patch(target, &patch).map_err(|error| {
                Refusal::new(
                    422,
                    format!(
                        "the server rejected our request due to an error in our request: {error}"
                    ),
                )
            })
        }
        other => Err(Refusal::new(
            415,
            format!(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json; got {other:?}"
            ),
        )),
    }
}
