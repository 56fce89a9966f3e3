//! Does a request name one host, and in good form (RFC 9112 §3.2)?
//!
//! The API serves whatever host it is reached by. But a request that lacks the name, or has two, is read differently by
//! whatever stands in front, so it is refused before anybody looks at the rest. The gateway, which routes by the name,
//! has a stricter reading of its own.

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Version};
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
    use axum::http::HeaderValue;

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
