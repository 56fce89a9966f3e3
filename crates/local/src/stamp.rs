//! Instants in stored files: RFC 3339 text, for `#[serde(with = "crate::stamp")]`.
//!
//! Here and not by jiff's own serde feature, because a feature switched on here would be on in the core as well, which
//! is to know no serde.

use jiff::Timestamp;
use serde::{Deserialize as _, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    String::deserialize(from)?
        .parse()
        .map_err(serde::de::Error::custom)
}
