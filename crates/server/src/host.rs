//! Does a request name one host, and in good form (RFC 9112 §3.2)?
//!
//! The API serves whatever host it is reached by. But a request that lacks the name, or has two, is read differently by
//! whatever stands in front, so it is refused before anybody looks at the rest. The gateway, which routes by the name,
//! has a stricter reading of its own.
//!
//! One name is not as good as another where a browser asks and no key is needed: whoever owns a name can have it lead to
//! this machine, and then their page is of the same site as this API (DNS rebinding). Nobody owns `localhost` and addresses.

use std::net::IpAddr;

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};
use thiserror::Error;

use crate::problem::Problem;

/// What is wrong with the host of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
enum HostError {
    #[error("the request has no Host header")]
    Missing,
    #[error("the request has more than one Host header")]
    Repeated,
    #[error("the Host header is not a host name with an optional port")]
    Form,
}

/// Refuses a request without exactly one host. HTTP/1.0 may leave it out.
///
/// # Errors
/// 400; the connection ends, since nobody knows where the next request on it would belong.
pub(crate) fn check(version: Version, headers: &HeaderMap) -> Result<(), Problem> {
    judge(version, headers).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "Invalid Host header")
            .error(&error)
            .field("Host", "one header: a host name with an optional port")
            .hint("every HTTP/1.1 client sends it; a proxy in front must pass it on once")
            .closing()
    })
}

/// What browsers add to requests by themselves, and programs do not. A page can leave out or change some of it; the
/// languages always go along (Fetch, "HTTP-network-or-cache fetch"; they may be changed and not removed).
const OF_BROWSERS: [&str; 4] = ["origin", "sec-fetch-site", "referer", "accept-language"];

/// Refuses a browser that reached this API by a name which somebody may own. For callers who need no key.
///
/// # Errors
/// 403.
pub(crate) fn refuse_owned_name(headers: &HeaderMap) -> Result<(), Problem> {
    let of_browser = OF_BROWSERS.iter().any(|name| headers.contains_key(*name));
    if !of_browser || names_this_machine(headers) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "Forbidden")
        .error("a browser may reach this API only as localhost or by its address while no API key is asked for")
        .field("Host", "localhost, or an IP address")
        .hint("open it by its address, or set API_KEY, API_KEY_FILE or NAGI_KEYS_FILE"))
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    let Some(authority) = host.and_then(|host| Authority::try_from(host).ok()) else {
        return false;
    };
    let name = authority.host().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

fn judge(version: Version, headers: &HeaderMap) -> Result<(), HostError> {
    let mut values = headers.get_all(HOST).iter();
    let Some(host) = values.next() else {
        return if version < Version::HTTP_11 {
            Ok(())
        } else {
            Err(HostError::Missing)
        };
    };
    if values.next().is_some() {
        return Err(HostError::Repeated);
    }
    if host.is_empty() {
        return Err(HostError::Missing);
    }
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| HostError::Form)?;
    let name = authority.host();
    // A name of a user, or a port that is no number, stays in what is around the host.
    let port = authority
        .as_str()
        .strip_prefix(name)
        .ok_or(HostError::Form)?;
    let digits = port.strip_prefix(':').unwrap_or(port);
    if name.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HostError::Form);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(version: Version, hosts: &[&str]) -> Result<(), HostError> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        judge(version, &headers)
    }

    #[test]
    fn one_host_in_good_form_passes() {
        for host in [
            "x",
            "scale-api.scale-system:80",
            "127.0.0.1:8080",
            "[::1]:8080",
            "my_host",
            "a:",
        ] {
            assert_eq!(hosts(Version::HTTP_11, &[host]), Ok(()), "{host}");
        }
        assert_eq!(hosts(Version::HTTP_10, &[]), Ok(()));
    }

    // Issue 3: whoever owns a name can have it lead here.
    #[test]
    fn a_browser_comes_by_a_name_that_nobody_owns() {
        let passes = |host: &str, mark: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
            if !mark.is_empty() {
                let name = axum::http::HeaderName::try_from(mark).unwrap();
                headers.insert(name, HeaderValue::from_static("x"));
            }
            refuse_owned_name(&headers).is_ok()
        };
        let ours = [
            "localhost",
            "LOCALHOST:8080",
            "localhost.:8080",
            "nagi.localhost:8080",
            "127.0.0.1:8080",
            "192.0.2.7",
            "[::1]:8080",
        ];
        let others = [
            "evil.example",
            "localhost.evil.example:8080",
            "evillocalhost",
            "127.0.0.1.evil.example",
            "scale-api.scale-system.svc.cluster.local",
        ];
        for mark in ["", "origin", "sec-fetch-site", "referer", "accept-language"] {
            for host in ours {
                assert!(passes(host, mark), "{host} {mark}");
            }
            for host in others {
                assert_eq!(passes(host, mark), mark.is_empty(), "{host} {mark}");
            }
        }
    }

    #[test]
    fn what_names_no_host_or_two_is_refused() {
        let v11 = Version::HTTP_11;
        assert_eq!(hosts(v11, &[]), Err(HostError::Missing));
        assert_eq!(hosts(v11, &[""]), Err(HostError::Missing));
        for version in [Version::HTTP_10, v11] {
            assert_eq!(hosts(version, &["a", "a"]), Err(HostError::Repeated));
        }
        for bad in ["a b", "a/b", "user@a", "a:port", "a:80:80", ":80", "あ"] {
            assert_eq!(hosts(v11, &[bad]), Err(HostError::Form), "{bad}");
        }
    }
}
