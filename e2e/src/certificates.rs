//! The certificates of one cluster: one authority, and a pair of files for each component.
//!
//! A library writes them: certificates are not what Nagi exists for, and `rcgen` signs with the same `ring` that the adapter's
//! TLS uses anyway. They are valid for ever, so a cluster that runs for long does not stop by itself.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// An authority whose key stays in this process.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Use<'a> {
    /// To show who the caller is.
    Client,
    /// To answer under these names and addresses, and to call others.
    Server(&'a [&'a str]),
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

// === impl Authority ===

impl Authority {
    /// Makes a new one; its certificate is `NAME.crt` in `directory`, its key `NAME.key`.
    pub(crate) fn create(directory: &Path, name: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let key = KeyPair::generate().context("make a key")?;
        let mut parameters = CertificateParams::new(Vec::new()).context("describe an authority")?;
        parameters.distinguished_name = subject(name, None);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = parameters.self_signed(&key).context("sign an authority")?;
        let pair = pair(directory, name);
        write(&pair.certificate, &certificate.pem())?;
        write(&pair.key, &key.serialize_pem())?;
        Ok(Self {
            issuer: Issuer::new(parameters, key),
            directory: directory.to_owned(),
        })
    }

    /// Takes up the one that [`Authority::create`] made: nodes join later, from another process.
    pub(crate) fn open(directory: &Path, name: &str) -> anyhow::Result<Self> {
        let path = pair(directory, name).key;
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let key = KeyPair::from_pem(&text).with_context(|| format!("read {}", path.display()))?;
        let mut parameters = CertificateParams::new(Vec::new()).context("describe an authority")?;
        parameters.distinguished_name = subject(name, None);
        Ok(Self {
            issuer: Issuer::new(parameters, key),
            directory: directory.to_owned(),
        })
    }

    /// Writes `NAME.crt` and `NAME.key` for someone.
    pub(crate) fn issue(
        &self,
        name: &str,
        common_name: &str,
        organization: Option<&str>,
        usage: Use<'_>,
    ) -> anyhow::Result<Pair> {
        let names = match usage {
            Use::Client => Vec::new(),
            Use::Server(names) => names.iter().map(|&name| name.to_owned()).collect(),
        };
        let mut parameters = CertificateParams::new(names)
            .with_context(|| format!("describe the certificate of {name}"))?;
        parameters.distinguished_name = subject(common_name, organization);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = match usage {
            Use::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Use::Server(_) => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        };
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("make a key")?;
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("sign the certificate of {name}"))?;
        let pair = pair(&self.directory, name);
        write(&pair.certificate, &certificate.pem())?;
        write(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }
}

/// Where the files of `name` are.
pub(crate) fn pair(directory: &Path, name: &str) -> Pair {
    Pair {
        certificate: directory.join(format!("{name}.crt")),
        key: directory.join(format!("{name}.key")),
    }
}

/// Writes a key that signs the tokens of service accounts, as `NAME.key`, and what checks them, as `NAME.pub`.
pub(crate) fn write_signing_key(directory: &Path, name: &str) -> anyhow::Result<()> {
    let key = KeyPair::generate().context("make a key")?;
    write(&directory.join(format!("{name}.key")), &key.serialize_pem())?;
    write(
        &directory.join(format!("{name}.pub")),
        &key.public_key_pem(),
    )
}

fn subject(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        subject.push(DnType::OrganizationName, organization);
    }
    subject
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    crate::files::write_private(path, text)
}
