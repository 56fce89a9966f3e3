//! Where the server is: `http[s]://HOST[:PORT][/PREFIX]`, checked once.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use thiserror::Error;

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// The base address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    is_tls: bool,
    host: String,
    port: u16,
    prefix: String,
}

/// Why a text is no address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// No URL at all.
    #[error("must be like http://127.0.0.1:8080")]
    Form,
    /// Something else than HTTP.
    #[error("must begin with http:// or https://, got {0}://")]
    Scheme(String),
    /// Credentials, a query or a fragment.
    #[error("must not hold {0}")]
    Extra(&'static str),
}

impl From<std::net::SocketAddr> for ServerAddress {
    /// A server on this machine, or on a network that resolves nothing.
    fn from(address: std::net::SocketAddr) -> Self {
        let host = match address {
            std::net::SocketAddr::V4(v4) => v4.ip().to_string(),
            std::net::SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        Self {
            is_tls: false,
            host,
            port: address.port(),
            prefix: String::new(),
        }
    }
}

impl ServerAddress {
    /// Whether it must prove who it is, and nobody else may read.
    pub const fn is_tls(&self) -> bool {
        self.is_tls
    }

    const fn default_port(&self) -> u16 {
        if self.is_tls { HTTPS_PORT } else { HTTP_PORT }
    }

    /// The host, without brackets.
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The value of the `Host` header.
    pub(crate) fn authority(&self) -> String {
        if self.port == self.default_port() {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// A path of the API as this server sees it.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.contains('#') {
            return Err(AddressError::Extra("a fragment"));
        }
        // Without a scheme, `localhost:8080` would parse as a scheme or an authority, and mean neither.
        let (scheme, _) = text.split_once("://").ok_or(AddressError::Form)?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            other => return Err(AddressError::Scheme(other.to_owned())),
        };
        let uri: Uri = text.parse().map_err(|_| AddressError::Form)?;
        let authority = uri.authority().ok_or(AddressError::Form)?;
        if authority.as_str().contains('@') {
            return Err(AddressError::Extra("a user or password: use NAGI_KEY"));
        }
        if uri.query().is_some() {
            return Err(AddressError::Extra("a query"));
        }
        let behind = authority.as_str().strip_prefix(authority.host());
        let port = match behind.and_then(|rest| rest.strip_prefix(':')) {
            Some(port) => port.parse().ok().filter(|port| *port != 0),
            None if behind == Some("") && is_tls => Some(HTTPS_PORT),
            None if behind == Some("") => Some(HTTP_PORT),
            None => None,
        };
        let port = port.ok_or(AddressError::Form)?;
        if authority.host().is_empty() {
            return Err(AddressError::Form);
        }
        Ok(Self {
            is_tls,
            host: authority.host().to_owned(),
            port,
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, AddressError> {
        text.parse::<ServerAddress>()
            .map(|address| address.to_string())
    }

    #[test]
    fn what_is_no_http_address_is_refused_with_the_reason() {
        for text in [
            "",
            " ",
            "localhost:8080",
            "127.0.0.1",
            "http://",
            "http:///x",
            "http://a b",
            "http://a:0",
            "http://a:x",
            "http://a:",
            "http://a:70000",
            "//a",
        ] {
            assert_eq!(parse(text), Err(AddressError::Form), "{text:?}");
        }
        assert_eq!(parse("ftp://a"), Err(AddressError::Scheme("ftp".into())));
        assert_eq!(parse("http://a?x=1"), Err(AddressError::Extra("a query")));
        assert_eq!(parse("http://a/#x"), Err(AddressError::Extra("a fragment")));
        assert!(matches!(
            parse("http://me:pw@a"),
            Err(AddressError::Extra(_))
        ));
    }

    #[test]
    fn addresses_keep_host_port_and_prefix() {
        assert_eq!(
            parse("http://127.0.0.1:8080").unwrap(),
            "http://127.0.0.1:8080"
        );
        assert_eq!(
            parse(" HTTP://nagi.example/ ").unwrap(),
            "http://nagi.example"
        );
        assert_eq!(
            parse("http://[::1]:8080/scale/").unwrap(),
            "http://[::1]:8080/scale"
        );
        assert_eq!(parse("https://a:443/x").unwrap(), "https://a/x");
        assert_eq!(parse("https://a:80").unwrap(), "https://a:80");
        let address: ServerAddress = "https://a".parse().unwrap();
        assert_eq!((address.is_tls(), address.port()), (true, 443));
        let address: ServerAddress = "http://[::1]:8080/scale/".parse().unwrap();
        assert_eq!((address.host(), address.port()), ("::1", 8080));
        assert_eq!(address.path("/health"), "/scale/health");
    }
}
