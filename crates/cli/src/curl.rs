//! What this binary does when it is called `curl`: a small part of that program, for people inside a container.
//!
//! The founding documents take profiles with `kubectl exec POD -- curl http://localhost:8080/debug/pprof/profile`
//! and the image holds nothing but this binary. Options mean what they mean for the real one, its exit codes
//! are used, and an option that is not here is refused by name: better than a call that does something else. There is
//! deliberately no TLS, no redirect, no proxy and no progress meter.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::response::Parts;
use axum::http::{Method, Request, Uri};
use clap::Parser;
use futures_util::StreamExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

/// The name under which the binary is this program.
pub(crate) const NAME: &str = "curl";

const HTTP_PORT: u16 = 80;

const SUBSET: &str = "\
This is the part of curl that the image of Nagi holds. From a machine with the real one:
  kubectl port-forward -n scale-system svc/scale-api 8080:80
  curl http://localhost:8080/health";

/// Fetches a URL over HTTP/1.1 and prints what it says.
#[derive(Debug, Parser)]
#[command(name = NAME, version, about, after_help = SUBSET)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "curl's own switches, each a flag of its own on the command line"
)]
struct Curl {
    /// What to fetch, such as <http://localhost:8080/health>
    url: String,

    /// Method; GET, or POST when there is data
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    request: Option<String>,

    /// Header to send, may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,

    /// Data to send; several are joined by `&`
    #[arg(short = 'd', long = "data", value_name = "DATA")]
    data: Vec<String>,

    /// File to write the body to, instead of standard output
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    output: Option<PathBuf>,

    /// Print status and headers before the body
    #[arg(short = 'i', long = "include")]
    include: bool,

    /// Ask for the headers only, and print them
    #[arg(short = 'I', long = "head", conflicts_with_all = ["request", "data"])]
    head: bool,

    /// A status of 400 or more is a failure (code 22) without a body
    #[arg(short = 'f', long = "fail")]
    fail: bool,

    /// Say nothing when it fails
    #[arg(short = 's', long = "silent")]
    silent: bool,

    /// Say why it failed even so
    #[arg(short = 'S', long = "show-error")]
    show_error: bool,

    /// Give up after so many seconds
    #[arg(short = 'm', long = "max-time", value_name = "SECONDS", value_parser = seconds)]
    max_time: Option<Duration>,
}

/// Why nothing, or not everything, was fetched. The numbers are those of curl.
#[derive(Debug, Error)]
enum CurlError {
    #[error("protocol \"{0}\" not supported: only http is")]
    Protocol(String),
    #[error("{0}")]
    Usage(&'static str),
    #[error("URL malformed: {0}")]
    Url(String),
    #[error("could not resolve host: {0}")]
    Resolve(String),
    #[error("failed to connect to {host} port {port}: {source}")]
    Connect {
        host: String,
        port: u16,
        source: io::Error,
    },
    #[error("the requested URL returned error: {0}")]
    Status(u16),
    #[error("failure writing output: {0}")]
    Write(#[source] io::Error),
    #[error("operation timed out after {} milliseconds", .0.as_millis())]
    Timeout(Duration),
    #[error("empty reply from server")]
    Empty,
    #[error("failure receiving data: {0}")]
    Receive(String),
}

/// Where to go and what to ask for there.
#[derive(Debug)]
struct Target {
    host: String,
    port: u16,
    /// Value of the `Host` header.
    authority: String,
    /// Path and query.
    path: String,
}

/// Does what the command line says.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let curl = match Curl::try_parse_from(std::iter::once(NAME.into()).chain(arguments)) {
        Ok(curl) => curl,
        Err(error) => {
            // Nobody reads it: the exit code still tells.
            drop(error.print());
            return if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(curl.fetch()),
        Err(_) => Err(CurlError::Usage("failed initialization")),
    };
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    let code = error.code();
    if !curl.silent || curl.show_error {
        drop(writeln!(io::stderr(), "{NAME}: ({code}) {error}"));
    }
    ExitCode::from(code)
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|limit| !limit.is_zero())
        .ok_or_else(|| "must be a number of seconds above 0".to_owned())
}

fn header_of(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
}

// === impl Curl ===

impl Curl {
    async fn fetch(&self) -> Result<(), CurlError> {
        let Some(limit) = self.max_time else {
            return self.exchange().await;
        };
        tokio::time::timeout(limit, self.exchange())
            .await
            .unwrap_or(Err(CurlError::Timeout(limit)))
    }

    async fn exchange(&self) -> Result<(), CurlError> {
        let target: Target = self.url.parse()?;
        let request = self.request_to(&target)?;
        let stream = target.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| CurlError::Receive(error.to_string()))?;
        let answered = async {
            let response = sender.send_request(request).await.map_err(|error| {
                if error.is_incomplete_message() || error.is_canceled() {
                    CurlError::Empty
                } else {
                    CurlError::Receive(error.to_string())
                }
            })?;
            let (parts, body) = response.into_parts();
            self.print(&parts, Body::new(body).into_data_stream()).await
        };
        tokio::pin!(answered, connection);
        tokio::select! {
            // Cancel-safe: both are pinned, and the answer is polled on below.
            outcome = &mut answered => outcome,
            // Cancel-safe: what the connection ended with reaches the answer too.
            _ = &mut connection => answered.await,
        }
    }

    fn request_to(&self, target: &Target) -> Result<Request<Body>, CurlError> {
        let data = (!self.data.is_empty()).then(|| self.data.join("&"));
        if self.data.iter().any(|data| data.starts_with('@')) {
            return Err(CurlError::Usage(
                "reading data from a file is not supported: give it as it is",
            ));
        }
        let method = match &self.request {
            Some(method) => method
                .parse()
                .map_err(|_| CurlError::Usage("the method is not one"))?,
            None if self.head => Method::HEAD,
            None if data.is_some() => Method::POST,
            None => Method::GET,
        };
        let mut headers = HeaderMap::new();
        let agent = concat!("nagi-curl/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        if data.is_some() {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, form);
        }
        let host = HeaderValue::from_str(&target.authority)
            .map_err(|_| CurlError::Url(self.url.clone()))?;
        headers.insert(header::HOST, host);
        let mut given = HeaderMap::new();
        for text in &self.headers {
            let (name, value) =
                header_of(text).ok_or(CurlError::Usage("a header is `NAME: VALUE`"))?;
            given.append(name, value);
        }
        // A header that is given replaces ours of that name.
        headers.extend(given);
        let mut request = Request::new(data.map_or_else(Body::empty, Body::from));
        *request.method_mut() = method;
        *request.uri_mut() = target
            .path
            .parse()
            .map_err(|_| CurlError::Url(self.url.clone()))?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn print(&self, parts: &Parts, mut body: BodyDataStream) -> Result<(), CurlError> {
        let status = parts.status.as_u16();
        if self.fail && status >= 400 {
            return Err(CurlError::Status(status));
        }
        let mut output: Box<dyn Write> = match &self.output {
            Some(path) => Box::new(std::fs::File::create(path).map_err(CurlError::Write)?),
            None => Box::new(io::stdout()),
        };
        if self.include || self.head {
            output.write_all(&head(parts)).map_err(CurlError::Write)?;
        }
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| CurlError::Receive(error.to_string()))?;
            // Whoever follows a stream sees each piece as it comes.
            output
                .write_all(&bytes)
                .and_then(|()| output.flush())
                .map_err(CurlError::Write)?;
        }
        output.flush().map_err(CurlError::Write)
    }
}

fn head(parts: &Parts) -> Vec<u8> {
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let mut bytes =
        format!("{:?} {} {reason}\r\n", parts.version, parts.status.as_u16()).into_bytes();
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

// === impl Target ===

impl Target {
    async fn connect(&self) -> Result<TcpStream, CurlError> {
        let addresses = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|_| CurlError::Resolve(self.host.clone()))?;
        let addresses: Vec<_> = addresses.collect();
        if addresses.is_empty() {
            return Err(CurlError::Resolve(self.host.clone()));
        }
        TcpStream::connect(addresses.as_slice())
            .await
            .map_err(|source| CurlError::Connect {
                host: self.host.clone(),
                port: self.port,
                source,
            })
    }
}

impl std::str::FromStr for Target {
    type Err = CurlError;

    fn from_str(text: &str) -> Result<Self, CurlError> {
        let malformed = || CurlError::Url(text.to_owned());
        let full = match text.split_once("://") {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => text.to_owned(),
            Some((scheme, _)) => return Err(CurlError::Protocol(scheme.to_owned())),
            None => format!("http://{text}"),
        };
        // What is behind `#` is for the reader, not for the server.
        let full = full.split_once('#').map_or(full.as_str(), |(url, _)| url);
        let uri: Uri = full.parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?;
        if authority.as_str().contains('@') {
            return Err(CurlError::Usage(
                "a user in the URL is not supported: use -H 'Authorization: …'",
            ));
        }
        let host = authority.host();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == host => HTTP_PORT,
            // Something stands behind the host that is no port.
            None => return Err(malformed()),
        };
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            path: uri
                .path_and_query()
                .map_or_else(|| "/".to_owned(), ToString::to_string),
        })
    }
}

// === impl CurlError ===

impl CurlError {
    const fn code(&self) -> u8 {
        match self {
            Self::Protocol(_) => 1,
            Self::Usage(_) => 2,
            Self::Url(_) => 3,
            Self::Resolve(_) => 6,
            Self::Connect { .. } => 7,
            Self::Status(_) => 22,
            Self::Write(_) => 23,
            Self::Timeout(_) => 28,
            Self::Empty => 52,
            Self::Receive(_) => 56,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, u8> {
        url.parse::<Target>().map_err(|error| error.code())
    }

    #[test]
    fn url_may_leave_out_scheme_port_and_path() {
        for (url, host, port, authority, path) in [
            ("localhost", "localhost", 80, "localhost", "/"),
            (
                "localhost:8080/a?b=c#d",
                "localhost",
                8080,
                "localhost:8080",
                "/a?b=c",
            ),
            ("http://[::1]:8080/x", "::1", 8080, "[::1]:8080", "/x"),
            ("HTTP://a.example", "a.example", 80, "a.example", "/"),
        ] {
            let target = target(url).expect(url);
            assert_eq!(
                (
                    target.host.as_str(),
                    target.port,
                    target.authority.as_str(),
                    target.path.as_str()
                ),
                (host, port, authority, path),
                "{url}"
            );
        }
    }

    #[test]
    fn url_that_cannot_be_fetched_ends_with_the_code_of_curl() {
        assert_eq!(target("https://localhost").unwrap_err(), 1);
        assert_eq!(target("http://user@localhost").unwrap_err(), 2);
        for url in ["http://", "http://a b", "http://a:70000/"] {
            assert_eq!(target(url).unwrap_err(), 3, "{url}");
        }
    }

    #[test]
    fn given_header_replaces_the_one_of_its_name() {
        let curl = Curl::parse_from([
            "curl",
            "-sSf",
            "-XPUT",
            "-d",
            "a=1",
            "-d",
            "b",
            "-H",
            "Content-Type: application/json",
            "http://localhost/x",
        ]);
        let request = curl.request_to(&target(&curl.url).unwrap()).unwrap();
        assert_eq!(request.method(), Method::PUT);
        assert_eq!(request.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(request.headers()[header::HOST], "localhost");
        let posted = Curl::parse_from(["curl", "--data", "{}", "http://localhost/x"]);
        let request = posted.request_to(&target(&posted.url).unwrap()).unwrap();
        assert_eq!(request.method(), Method::POST);
    }

    #[test]
    fn unknown_option_is_refused_by_name() {
        for option in ["-k", "-L", "--compressed", "-T"] {
            let error = Curl::try_parse_from(["curl", option, "http://localhost/"]).unwrap_err();
            assert!(error.to_string().contains(option), "{error}");
        }
    }
}
