//! A TLS handshake that learns what certificate was presented, and verifies it as strictly as any other.
//!
//! [`Recorder`] keeps the bytes of the certificate and hands every question on to the verifier of webpki. It can only learn,
//! never allow.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};

use nagi_runtime::Deadline;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificate::{Certificate, read_der, read_pem};

/// How a connection says that the other side closed it.
pub(super) const CLOSED: [ErrorKind; 4] = [
    ErrorKind::UnexpectedEof,
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionAborted,
    ErrorKind::BrokenPipe,
];

/// Whom to trust, and who to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trust<'a> {
    /// PEM of the authorities; none means those of the machine.
    pub(crate) authority: Option<&'a [u8]>,
    /// The name that the certificate must have.
    pub(crate) name: &'a str,
    /// PEM of a certificate and its key.
    pub(crate) client: Option<&'a (Vec<u8>, Vec<u8>)>,
}

/// How it ended, and what was presented, accepted or not.
#[derive(Debug)]
pub(crate) struct Handshake<S = TcpStream> {
    pub(crate) stream: Result<TlsStream<S>, HandshakeError>,
    pub(crate) presented: Option<Certificate>,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HandshakeError {
    TimedOut,
    Closed,
    Name,
    Expired,
    NotYetValid,
    UnknownAuthority,
    /// What was given to do it with cannot be used.
    Unusable(String),
    Failed(String),
}

/// Keeps what was presented; decides nothing.
#[derive(Debug)]
struct Recorder {
    /// None accepts nothing.
    inner: Option<Arc<WebPkiServerVerifier>>,
    presented: Mutex<Option<Vec<u8>>>,
}

/// Shakes hands.
pub(crate) async fn handshake(
    stream: TcpStream,
    trust: &Trust<'_>,
    deadline: Deadline,
) -> Handshake {
    match prepared(trust) {
        Ok(prepared) => shake(stream, trust, prepared, deadline).await,
        Err(why) => Handshake {
            stream: Err(HandshakeError::Unusable(why)),
            presented: None,
        },
    }
}

/// Learns what is presented, and accepts nothing: the handshake always ends in an error.
pub(crate) async fn look<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    name: &str,
    deadline: Deadline,
) -> Handshake<S> {
    let trust = Trust {
        authority: None,
        name,
        client: None,
    };
    match recording(None) {
        Ok((config, recorder)) => {
            let prepared = (config.with_no_client_auth(), recorder);
            shake(stream, &trust, prepared, deadline).await
        }
        Err(why) => Handshake {
            stream: Err(HandshakeError::Unusable(why)),
            presented: None,
        },
    }
}

async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    trust: &Trust<'_>,
    (config, recorder): (ClientConfig, Arc<Recorder>),
    deadline: Deadline,
) -> Handshake<S> {
    let plain = trust.name.trim_start_matches('[').trim_end_matches(']');
    let Ok(name) = ServerName::try_from(plain.to_owned()) else {
        return Handshake {
            stream: Err(HandshakeError::Unusable(format!(
                "{plain:?} is no name that a certificate can have"
            ))),
            presented: None,
        };
    };
    let connector = TlsConnector::from(Arc::new(config));
    let ended = deadline.timeout(connector.connect(name, stream)).await;
    let presented = recorder.presented();
    let stream = match ended {
        Err(_) => Err(HandshakeError::TimedOut),
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(class(&error, presented.as_ref(), trust)),
    };
    Handshake { stream, presented }
}

fn prepared(trust: &Trust<'_>) -> Result<(ClientConfig, Arc<Recorder>), String> {
    let roots = Arc::new(roots(trust.authority)?);
    let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::new(provider()))
        .build()
        .map_err(|error| format!("the authorities cannot be used: {error}"))?;
    let (config, recorder) = recording(Some(inner))?;
    let config = match trust.client {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
            let chain =
                chain.map_err(|error| format!("the client certificate is no PEM: {error}"))?;
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|error| format!("the client key is no PEM: {error}"))?;
            config
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("the client certificate cannot be used: {error}"))?
        }
    };
    Ok((config, recorder))
}

type WithoutClient = rustls::ConfigBuilder<ClientConfig, WantsClientCert>;

fn recording(
    inner: Option<Arc<WebPkiServerVerifier>>,
) -> Result<(WithoutClient, Arc<Recorder>), String> {
    let recorder = Arc::new(Recorder {
        inner,
        presented: Mutex::new(None),
    });
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Recorder>::clone(&recorder));
    Ok((config, recorder))
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn roots(authority: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = authority else {
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        if roots.is_empty() {
            return Err("no authority is named, and this machine has none".to_owned());
        }
        return Ok(roots);
    };
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| format!("certificate-authority is no PEM: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("certificate-authority cannot be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err("certificate-authority has no certificate".to_owned());
    }
    Ok(roots)
}

/// One class for each way that it can fail.
fn class(
    error: &std::io::Error,
    presented: Option<&Certificate>,
    trust: &Trust<'_>,
) -> HandshakeError {
    let of_tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    let Some(of_tls) = of_tls else {
        return if CLOSED.contains(&error.kind()) {
            HandshakeError::Closed
        } else {
            HandshakeError::Failed(error.to_string())
        };
    };
    let Error::InvalidCertificate(why) = of_tls else {
        return HandshakeError::Failed(of_tls.to_string());
    };
    if matches!(
        why,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
    ) {
        return HandshakeError::Name;
    }
    if matches!(
        why,
        CertificateError::Expired | CertificateError::ExpiredContext { .. }
    ) {
        return HandshakeError::Expired;
    }
    if matches!(
        why,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }
    ) {
        return HandshakeError::NotYetValid;
    }
    let is_unknown = matches!(
        why,
        CertificateError::UnknownIssuer | CertificateError::BadSignature
    );
    // An authority that is presented as itself, and is none of ours, is refused for that first.
    if is_unknown || presented.is_some_and(|one| is_foreign(one, trust)) {
        return HandshakeError::UnknownAuthority;
    }
    HandshakeError::Failed(of_tls.to_string())
}

fn is_foreign(presented: &Certificate, trust: &Trust<'_>) -> bool {
    let authorities = trust.authority.map(read_pem);
    match authorities {
        Some(Ok(authorities)) => !authorities.iter().any(|one| presented.is_signed_by(one)),
        Some(Err(_)) | None => false,
    }
}

// === impl Recorder ===

impl Recorder {
    fn presented(&self) -> Option<Certificate> {
        let der = self
            .presented
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        der.as_deref().and_then(|der| read_der(der).ok())
    }

    /// Asked only behind a certificate that was accepted.
    fn signer(&self) -> Result<&WebPkiServerVerifier, Error> {
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        self.inner.as_deref().ok_or(unknown)
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self
            .presented
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(end_entity.to_vec());
        let Some(inner) = &self.inner else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signer()?.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signer()?.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
