//! Which host a request is for: one answer, or the request is refused.
//!
//! Two parties that read different hosts out of one request are the root of many routing attacks, so everything
//! ambiguous is a 400: no host, two hosts, a host that is no name.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri};
use thiserror::Error;

/// Longest `Host` that is looked at, in bytes: a DNS name (253), a port, brackets.
const HOST_BYTES_MAX: usize = 300;

/// Why a request names no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum HostError {
    #[error("the request has no Host header")]
    Missing,
    #[error("the request has more than one Host header")]
    Repeated,
    #[error("the Host header is not a host name with an optional port")]
    Form,
}

/// The host of a request: what to look up, and what to send on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostName {
    /// Lower case, without port and trailing dot.
    pub(crate) key: String,
    /// As the client sent it, with its port.
    pub(crate) sent: HeaderValue,
}

/// Reads the host. In absolute form the authority of the target wins over `Host` (RFC 9112 §3.2.2), but both must be
/// there in good form.
pub(crate) fn host_of(uri: &Uri, headers: &HeaderMap) -> Result<HostName, HostError> {
    let mut values = headers.get_all(HOST).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(HostError::Repeated);
    }
    match (uri.authority(), first) {
        (Some(authority), _) => {
            if authority.as_str().contains('@') {
                return Err(HostError::Form);
            }
            let sent = HeaderValue::from_str(authority.as_str()).map_err(|_| HostError::Form)?;
            Ok(HostName {
                key: normal(authority)?,
                sent,
            })
        }
        (None, Some(value)) => Ok(HostName {
            key: key_of(value)?,
            sent: value.clone(),
        }),
        (None, None) => Err(HostError::Missing),
    }
}

fn key_of(value: &HeaderValue) -> Result<String, HostError> {
    let bytes = value.as_bytes();
    if bytes.is_empty() {
        return Err(HostError::Missing);
    }
    if bytes.len() > HOST_BYTES_MAX || bytes.contains(&b'@') {
        return Err(HostError::Form);
    }
    let authority = Authority::try_from(bytes).map_err(|_| HostError::Form)?;
    normal(&authority)
}

fn normal(authority: &Authority) -> Result<String, HostError> {
    let host = authority.host();
    // A port that is no number stays in the text that follows the host.
    let rest = authority.as_str().get(host.len()..).unwrap_or_default();
    let port_is_fine = rest.is_empty() || rest == ":" || authority.port_u16().is_some();
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.is_empty() || !port_is_fine {
        return Err(HostError::Form);
    }
    Ok(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(uri: &str, hosts: &[&str]) -> Result<String, HostError> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        host_of(&uri.parse().unwrap(), &headers).map(|host| host.key)
    }

    #[test]
    fn port_case_and_trailing_dot_do_not_matter() {
        for sent in [
            "app.project-a.localhost",
            "App.Project-A.LOCALHOST:8000",
            "app.project-a.localhost.",
            "app.project-a.localhost.:80",
        ] {
            assert_eq!(
                host("/", &[sent]).as_deref(),
                Ok("app.project-a.localhost"),
                "{sent}"
            );
        }
        assert_eq!(host("/", &["[::1]:8000"]).as_deref(), Ok("[::1]"));
    }

    #[test]
    fn a_request_without_exactly_one_host_is_refused() {
        assert_eq!(host("/", &[]), Err(HostError::Missing));
        assert_eq!(host("/", &[""]), Err(HostError::Missing));
        assert_eq!(host("/", &["a", "a"]), Err(HostError::Repeated));
        assert_eq!(host("http://a/", &["a", "b"]), Err(HostError::Repeated));
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        for bad in [
            "a b", "a/b", "user@a", "a:port", "a:80:80", ".", ":80", "a:99999", "あ",
        ] {
            assert_eq!(host("/", &[bad]), Err(HostError::Form), "{bad}");
        }
    }

    #[test]
    fn the_target_in_absolute_form_wins() {
        assert_eq!(host("http://A.b:80/x", &["other"]).as_deref(), Ok("a.b"));
        assert_eq!(host("http://u@a/x", &["other"]), Err(HostError::Form));
    }
}
