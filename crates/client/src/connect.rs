//! The way to a server: TCP, and TLS where its address asks for it.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::address::ServerAddress;

/// What bytes go over, plain or not.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connects.
///
/// # Errors
/// Nobody answers there, or whoever does is not who the address names.
pub(crate) async fn connect(server: &ServerAddress) -> io::Result<Box<dyn Wire>> {
    let stream = TcpStream::connect((server.host(), server.port())).await?;
    // Without it a small request may wait for an acknowledgement; failure costs speed only.
    drop(stream.set_nodelay(true));
    if !server.is_tls() {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(server.host().to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(trust()?).connect(name, stream).await?;
    Ok(Box::new(stream))
}

/// The authorities of this machine, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Read once.
fn trust() -> io::Result<Arc<ClientConfig>> {
    static TRUST: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(known) = TRUST.get() {
        return Ok(Arc::clone(known));
    }
    let native = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        return Err(io::Error::other(
            "no certificate authority is known on this machine: SSL_CERT_FILE names a file with those to trust",
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::clone(TRUST.get_or_init(|| Arc::new(config))))
}
