//! Header fields on their way through: what belongs to one hop is taken off, what a proxy must say is put on.
//!
//! Framing is never passed through as text: hyper read the message by its own rules and writes it anew, so that the
//! replica cannot read another message than the one that was judged here.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderName, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderValue};

use crate::names;
use crate::settings::Forwarded;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// A transfer coding that is not ours to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Another one than `chunked`: what is under it is not what it seems.
    Unknown,
    /// `chunked` more than once, which nobody may send (RFC 9112 §7.1).
    Repeated,
}

/// Looks at the transfer codings of a message. hyper undoes `chunked`, which it makes sure stands last, and no other.
pub(crate) fn foreign_coding(headers: &HeaderMap) -> Option<Coding> {
    let mut seen = 0;
    for value in headers.get_all(TRANSFER_ENCODING) {
        let Ok(text) = value.to_str() else {
            return Some(Coding::Unknown);
        };
        for coding in text.split(',').map(str::trim) {
            if coding.eq_ignore_ascii_case("chunked") {
                seen += 1;
            } else if !coding.is_empty() {
                return Some(Coding::Unknown);
            }
        }
    }
    (seen > 1).then_some(Coding::Repeated)
}

/// The protocol that a request asks to change to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpgradeTo(HeaderValue);

/// The upgrade that a request asks for, if it is one that can be tunnelled. `h2c` cannot: through it a client would
/// speak to the replica past all of this file.
pub(crate) fn upgrade_of(headers: &HeaderMap) -> Option<UpgradeTo> {
    let asked = connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let mut values = headers.get_all(UPGRADE).iter();
    let (Some(value), None, true) = (values.next(), values.next(), asked) else {
        return None;
    };
    let text = value.to_str().ok()?;
    let mut protocols = text.split(',').map(str::trim);
    let refused = protocols.any(|p| {
        let name = p.split('/').next().unwrap_or(p);
        name.is_empty() || name.eq_ignore_ascii_case("h2c") || name.eq_ignore_ascii_case("h2")
    });
    (!refused).then(|| UpgradeTo(value.clone()))
}

/// Takes off what belongs to the hop between client and gateway or between gateway and replica (RFC 9110 §7.6.1).
/// `TE: trailers` is said again, because trailers pass.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let takes_trailers = headers.get_all(TE).iter().any(|value| {
        value.to_str().is_ok_and(|text| {
            text.split(',')
                .any(|part| part.trim().eq_ignore_ascii_case("trailers"))
        })
    });
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = connection_tokens(headers)
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            // Nobody may have the framing or the routing taken off by naming it here.
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        UPGRADE,
        HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
    // A coding beside a length: the coding is what was read (RFC 9112 §6.3), so the length is a lie.
    if headers.remove(TRANSFER_ENCODING).is_some() {
        headers.remove(CONTENT_LENGTH);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// Asks the replica for the same upgrade.
pub(crate) fn ask_upgrade(headers: &mut HeaderMap, to: &UpgradeTo) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, to.0.clone());
}

/// What a request says about the way it came.
pub(crate) fn add_forwarding(
    headers: &mut HeaderMap,
    client: IpAddr,
    host: &HeaderValue,
    trust: Forwarded,
) {
    // The gateway itself answers `100 Continue` once the replica reads.
    headers.remove(EXPECT);
    headers.insert(HOST, host.clone());
    let address = client.to_canonical().to_string();
    let chain = match trust {
        Forwarded::Replace => {
            headers.remove(FORWARDED);
            headers.remove(X_REAL_IP);
            headers.insert(X_FORWARDED_HOST, host.clone());
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
            address
        }
        Forwarded::Append => {
            headers
                .entry(X_FORWARDED_HOST)
                .or_insert_with(|| host.clone());
            headers
                .entry(X_FORWARDED_PROTO)
                .or_insert_with(|| HeaderValue::from_static("http"));
            let before: Vec<&str> = headers
                .get_all(X_FORWARDED_FOR)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .collect();
            if before.is_empty() {
                address
            } else {
                format!("{}, {address}", before.join(", "))
            }
        }
    };
    if let Ok(chain) = HeaderValue::try_from(chain) {
        headers.insert(X_FORWARDED_FOR, chain);
    }
    add_via(headers);
}

/// What an answer of a replica says about the way it came. `Nagi-Status` is ours: clients tell by it who answered.
pub(crate) fn mark_passed(headers: &mut HeaderMap) {
    headers.remove(names::STATUS_HEADER);
    add_via(headers);
}

/// Adds us to `Via`.
fn add_via(headers: &mut HeaderMap) {
    headers.append(VIA, HeaderValue::from_static(names::VIA));
}

/// How often a message has passed a gateway of ours: a loop shows here before it eats all connections.
pub(crate) fn hops(headers: &HeaderMap) -> usize {
    let values = headers
        .get_all(VIA)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|text| text.split(','))
        .filter(|hop| hop.trim() == names::VIA)
        .count()
}

#[cfg(test)]
mod tests;
