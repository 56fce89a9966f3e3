//! The wire form of an inference request and everything that can be wrong with one.
//!
//! Errors have the protocol's shape, `{"error": "…"}`, and name the tensor, what was expected and what came. Data may be
//! flat or nested by rows, as the protocol allows; it is flattened while it is read, so that nothing is held twice.

use std::fmt;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::json;

use super::model::{BATCH_MAX, IMAGE_VALUES, INPUT, MODEL, OUTPUT, SIDE, to_f32};

/// `[batch, colour, row, column]`.
const DATA_DEPTH_MAX: usize = 4;

/// A refusal in the protocol's own shape.
#[derive(Debug)]
pub(super) struct ProtocolError {
    status: StatusCode,
    message: String,
}

/// A request as it came. Unknown fields are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct InferRequest {
    pub(super) id: Option<String>,
    inputs: Vec<Input>,
    #[serde(default)]
    outputs: Vec<Wanted>,
}

#[derive(Debug, Deserialize)]
struct Input {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    data: Option<Pixels>,
}

#[derive(Debug, Deserialize)]
struct Wanted {
    name: String,
}

/// Checked images, one after the other.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    /// How many.
    pub(super) size: usize,
    /// Their values.
    pub(super) pixels: &'a [f32],
}

#[derive(Debug)]
struct Pixels(Vec<f32>);

// === impl ProtocolError ===

impl ProtocolError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// The request is wrong.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl IntoResponse for ProtocolError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.message}))).into_response()
    }
}

// === impl InferRequest ===

impl InferRequest {
    /// Reads a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ProtocolError> {
        serde_json::from_slice(body).map_err(|error| {
            ProtocolError::bad(format!("failed to parse the request JSON: {error}"))
        })
    }

    /// Checks names, type, shape and count.
    pub(super) fn check(&self) -> Result<Batch<'_>, ProtocolError> {
        if let Some(wanted) = self.outputs.iter().find(|wanted| wanted.name != OUTPUT) {
            return Err(ProtocolError::bad(format!(
                "unexpected inference output '{}' for model '{MODEL}': it has '{OUTPUT}' only",
                wanted.name
            )));
        }
        let [input] = self.inputs.as_slice() else {
            return Err(ProtocolError::bad(format!(
                "expected 1 input but got {} inputs for model '{MODEL}'",
                self.inputs.len()
            )));
        };
        input.check()
    }
}

impl Input {
    fn check(&self) -> Result<Batch<'_>, ProtocolError> {
        if self.name != INPUT {
            return Err(ProtocolError::bad(format!(
                "unexpected inference input '{}' for model '{MODEL}': it has '{INPUT}' only",
                self.name
            )));
        }
        if self.datatype != "FP32" {
            return Err(ProtocolError::bad(format!(
                "inference input '{INPUT}' data-type is '{}', but model '{MODEL}' expects 'FP32'",
                self.datatype
            )));
        }
        let size = self.batch_size()?;
        let Some(Pixels(pixels)) = &self.data else {
            return Err(ProtocolError::bad(format!(
                "inference input '{INPUT}' has no 'data'"
            )));
        };
        let expected = size * IMAGE_VALUES;
        if pixels.len() != expected {
            return Err(ProtocolError::bad(format!(
                "inference input '{INPUT}' has {} values, but its shape {:?} holds {expected}",
                pixels.len(),
                self.shape
            )));
        }
        Ok(Batch { size, pixels })
    }

    fn batch_size(&self) -> Result<usize, ProtocolError> {
        let edge = i64::try_from(SIDE).unwrap_or(i64::MAX);
        let size = match *self.shape.as_slice() {
            [size, 3, rows, columns] if rows == edge && columns == edge && size > 0 => size,
            _ => {
                return Err(ProtocolError::bad(format!(
                    "unexpected shape for input '{INPUT}' for model '{MODEL}': expected [-1,3,{SIDE},{SIDE}], got {:?}",
                    self.shape
                )));
            }
        };
        usize::try_from(size)
            .ok()
            .filter(|size| *size <= BATCH_MAX)
            .ok_or_else(|| {
                ProtocolError::bad(format!(
                    "inference request batch-size must be <= {BATCH_MAX} for '{MODEL}', got {size}"
                ))
            })
    }
}

// === impl Pixels ===

impl<'de> Deserialize<'de> for Pixels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut values = Vec::new();
        let depth = DATA_DEPTH_MAX;
        deserializer.deserialize_seq(Flatten {
            values: &mut values,
            depth,
        })?;
        Ok(Self(values))
    }
}

/// Collects the numbers of arrays inside arrays, down to `depth` levels.
struct Flatten<'a> {
    values: &'a mut Vec<f32>,
    depth: usize,
}

impl Flatten<'_> {
    fn push<E: Error>(&mut self, value: f64) -> Result<(), E> {
        if self.values.len() >= BATCH_MAX * IMAGE_VALUES {
            return Err(E::custom(format!(
                "input '{INPUT}' has more than {BATCH_MAX} images of {IMAGE_VALUES} values"
            )));
        }
        self.values.push(to_f32(value));
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Flatten<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flatten<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("numbers, flat or nested by rows")
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        self.push(value)
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<(), E> {
        self.push(whole(value))
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<(), E> {
        let size = whole(value.unsigned_abs());
        self.push(if value < 0 { -size } else { size })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let Some(depth) = self.depth.checked_sub(1) else {
            return Err(A::Error::custom(format!(
                "input '{INPUT}' is nested deeper than {DATA_DEPTH_MAX} levels"
            )));
        };
        while sequence
            .next_element_seed(Flatten {
                values: self.values,
                depth,
            })?
            .is_some()
        {}
        Ok(())
    }
}

/// A whole number as a float, without a lossy cast: pixels beyond 32 bits are clamped.
fn whole(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}
