//! Paths and queries as bytes on the wire: percent-encoding, segments, which kinds there can be (R02, R04).

use std::borrow::Cow;

use axum::http::Uri;
use nagi_core::id::Resource;

/// Where segments of a workload's path stand: `/api/v1/{resource}/{namespace}/{name}/{verb}`.
const RESOURCE_AT: usize = 3;
const NAMESPACE_AT: usize = 4;
const NAME_AT: usize = 5;
/// What a template has in the place of the kind.
const RESOURCE_IN_TEMPLATE: &str = "{resource}";

/// The URI with every percent-encoded letter, digit, `-`, `.`, `_` and `~` in its path written plainly (RFC 3986
/// §6.2.2.2); `None` when it is so already. Everything else stays encoded, a slash above all (R04).
pub(crate) fn normal(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains('%') {
        return None;
    }
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        match encoded_byte(after) {
            Some((byte, tail)) if is_unreserved(byte) => {
                plain.push(char::from(byte));
                rest = tail;
            }
            Some(_) | None => {
                plain.push('%');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    if let Some(query) = uri.query() {
        plain.push('?');
        plain.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(plain.parse().ok()?);
    Uri::from_parts(parts).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// The byte behind a `%`, and what follows it.
fn encoded_byte(after: &str) -> Option<(u8, &str)> {
    let (digits, tail) = after.split_at_checked(2)?;
    let all_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let byte = u8::from_str_radix(digits, 16).ok().filter(|_| all_hex)?;
    Some((byte, tail))
}

/// Takes percent-encoding off. `None` for a `%` without two hexadecimal digits, and for bytes that are no UTF-8.
pub(crate) fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let (byte, tail) = encoded_byte(after)?;
        bytes.push(byte);
        rest = tail;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The kind in a path whose template has one: a built-in one, or `plural.group`.
pub(crate) fn resource(path: &str) -> Option<Resource> {
    let text = decoded(path.split('/').nth(RESOURCE_AT)?)?;
    let in_apps =
        |plural: &&str| Resource::BUILT_IN.contains(plural) && *plural != "replicationcontrollers";
    let text = text.strip_suffix(".apps").filter(in_apps).unwrap_or(&text);
    let known = Resource::BUILT_IN.contains(&text) || text.contains('.');
    Resource::new(text).ok().filter(|_| known)
}

/// False when the path only looks like its template: an empty segment, or something where the kind stands that can be none.
/// No such path, then.
pub(crate) fn fits(template: &str, path: &str) -> bool {
    let no_kind = !template.contains(RESOURCE_IN_TEMPLATE);
    !path.contains("//") && (no_kind || resource(path).is_some())
}

/// The namespace in the path of a workload, decoded.
pub(crate) fn namespace(path: &str) -> Option<Cow<'_, str>> {
    decoded(path.split('/').nth(NAMESPACE_AT)?)
}

/// The name in the path of a workload, decoded.
pub(crate) fn name(path: &str) -> Option<Cow<'_, str>> {
    decoded(path.split('/').nth(NAME_AT)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(path: &str) -> String {
        let uri: Uri = path.parse().unwrap();
        normal(&uri).unwrap_or(uri).to_string()
    }

    // R04
    #[test]
    fn encoded_letters_equal_plain_ones_and_a_slash_stays_encoded() {
        assert_eq!(
            normalised("/api/v1/deployments/%70roject%2Da/x/scale%2dup?dry_run=%74rue"),
            "/api/v1/deployments/project-a/x/scale-up?dry_run=%74rue"
        );
        assert_eq!(normalised("/a%2Fb%2fc"), "/a%2Fb%2fc");
        for broken in ["/a%", "/a%2", "/a%zz", "/a%+1"] {
            assert_eq!(normalised(broken), broken);
        }
    }

    #[test]
    fn decoding_takes_utf8_only() {
        assert_eq!(decoded("a%2Fb").as_deref(), Some("a/b"));
        assert_eq!(decoded("%E7%90%86").as_deref(), Some("理"));
        for broken in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decoded(broken), None, "{broken}");
        }
    }

    // R02
    #[test]
    fn a_kind_is_built_in_or_has_a_group() {
        let kind =
            |text: &str| resource(&format!("/api/v1/{text}/a/b/status")).map(|r| r.to_string());
        assert_eq!(kind("deployments").as_deref(), Some("deployments"));
        assert_eq!(kind("deployments.apps").as_deref(), Some("deployments"));
        assert_eq!(
            kind("rollouts.argoproj.io").as_deref(),
            Some("rollouts.argoproj.io")
        );
        for none in ["pods", "Deployments", "a..b", "deployments.", ""] {
            assert_eq!(kind(none), None, "{none}");
        }
    }
}
