//! Names, dates and signers of certificates: what a person needs to see why one is not accepted.
//!
//! It reads and explains. Whether a certificate is accepted in a handshake is rustls' decision alone.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Host names and addresses that it is for.
    pub names: Vec<String>,
    /// It does not count before this …
    pub not_before: Timestamp,
    /// … nor after this.
    pub not_after: Timestamp,
    /// It may sign others.
    pub is_authority: bool,
    /// All of it.
    pub der: Vec<u8>,
}

/// Every certificate of a PEM text, in its order; keys and other things in it are passed over.
///
/// # Errors
/// It is no PEM, has no certificate, or one that cannot be understood.
pub(crate) fn read_pem(text: &[u8]) -> Result<Vec<Certificate>, String> {
    let mut found = Vec::new();
    for der in CertificateDer::pem_slice_iter(text) {
        let der = der.map_err(|error| format!("no PEM: {error}"))?;
        found.push(read_der(&der)?);
    }
    if found.is_empty() {
        return Err("no certificate in it".to_owned());
    }
    Ok(found)
}

/// A certificate out of its bytes.
///
/// # Errors
/// It cannot be understood.
pub(crate) fn read_der(der: &[u8]) -> Result<Certificate, String> {
    let parsed = X509Certificate::from_der(der);
    let (_, parsed) = parsed.map_err(|error| format!("no certificate: {error}"))?;
    let time = |seconds: i64| {
        Timestamp::from_second(seconds).map_err(|error| format!("a date of no calendar: {error}"))
    };
    let names = match parsed.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().filter_map(name).collect(),
        Ok(None) => Vec::new(),
        Err(error) => return Err(format!("its names cannot be understood: {error}")),
    };
    Ok(Certificate {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        names,
        not_before: time(parsed.validity().not_before.timestamp())?,
        not_after: time(parsed.validity().not_after.timestamp())?,
        is_authority: parsed.is_ca(),
        der: der.to_vec(),
    })
}

/// A name or address; none for what no server is called by.
fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|octets| std::net::Ipv4Addr::from(octets).to_string()),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|octets| std::net::Ipv6Addr::from(octets).to_string()),
            _ => None,
        },
        GeneralName::OtherName(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::URI(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    }
}

// === impl Certificate ===

impl Certificate {
    /// `authority` signed it: its name is the issuer's, and the signature is of its key.
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        if self.issuer != authority.subject {
            return false;
        }
        let (Ok((_, own)), Ok((_, other))) = (
            X509Certificate::from_der(&self.der),
            X509Certificate::from_der(&authority.der),
        ) else {
            return false;
        };
        own.verify_signature(Some(other.public_key())).is_ok()
    }
}
