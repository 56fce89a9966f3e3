//! API servers that are wrong in one way each: real sockets, real handshakes, real certificates.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Years in which a certificate counts.
pub(crate) type Years = (i32, i32);
pub(crate) const GOOD: Years = (2020, 2090);
pub(crate) const ENDED: Years = (2020, 2021);
pub(crate) const TO_COME: Years = (2089, 2090);

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

// === impl Authority ===

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(parameters, key),
            pem,
        }
    }

    /// A certificate for these names and addresses.
    pub(crate) fn pair(&self, subject: &str, names: &[&str], years: Years) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters
            .distinguished_name
            .push(DnType::CommonName, subject);
        parameters.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// An answer of HTTP.
pub(crate) fn http(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// What kubectl shows, and what a program reads: an error of an API server.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> String {
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code
    });
    http(&format!("{code} {reason}"), &body.to_string())
}

pub(crate) fn ready() -> String {
    http("200 OK", "[+]ping ok\n[+]etcd ok\nreadyz check passed\n")
}

/// Answers every request over TLS with the same bytes. The thread ends with the test process.
pub(crate) fn tls(pair: &Pair, answer: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    tls_on(listener, pair, move |_| answer.clone());
    port
}

/// The same on a listener that is there; `answer` is chosen by the head of the request.
pub(crate) fn tls_on(
    listener: TcpListener,
    pair: &Pair,
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) {
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
    let chain: Vec<_> = chain.map(|one| one.unwrap()).collect();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    serve(listener, move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        exchange(&mut stream, &answer);
        stream.conn.send_close_notify();
        drop(stream.flush());
    });
}

/// The same without TLS; `answer` is chosen by the head of the request.
pub(crate) fn plain(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> u16 {
    listen(move |mut stream| {
        let mut head = [0; 4096];
        let length = stream.read(&mut head).unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..length]).into_owned();
        drop(stream.write_all(answer(&head).as_bytes()));
    })
}

/// Takes connections and says nothing, ever.
pub(crate) fn silent() -> u16 {
    let kept = std::sync::Mutex::new(Vec::new());
    listen(move |stream| kept.lock().unwrap().push(stream))
}

/// Takes connections and closes them.
pub(crate) fn closing() -> u16 {
    listen(drop)
}

/// A port that nobody has.
pub(crate) fn closed() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn listen(each: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(listener, each);
    port
}

fn serve(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) {
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
}

fn exchange(stream: &mut (impl std::io::Read + std::io::Write), answer: &impl Fn(&str) -> String) {
    let mut head = [0; 8192];
    // One read holds the whole request: it is small and sent at once. A client that does not trust us sends none.
    if let Ok(length @ 1..) = stream.read(&mut head) {
        let head = String::from_utf8_lossy(&head[..length]).into_owned();
        drop(stream.write_all(answer(&head).as_bytes()));
    }
}
