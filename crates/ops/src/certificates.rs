//! Every certificate of a node in a file: those of `/etc/kubernetes/pki`, of the kubeconfigs, and of kubelet.

use std::path::{Path, PathBuf};

use crate::certificate::{Certificate, read_pem};
use crate::kubeconfig::{self, Choice};
use crate::observed::{CertificateFile, Looked, Manifest, Signed, Unseen};
use crate::root::Root;

const PKI: &str = "/etc/kubernetes/pki";
const KUBERNETES: &str = "/etc/kubernetes";
const KUBELET_PKI: &str = "/var/lib/kubelet/pki";

/// What each is read by, in the order in which it matters, with the authority that must have signed it: the names of
/// kubeadm, below [`PKI`].
const KNOWN: [(&str, Option<&str>); 9] = [
    ("apiserver.crt", Some("ca.crt")),
    ("etcd/server.crt", Some("etcd/ca.crt")),
    ("apiserver-etcd-client.crt", Some("etcd/ca.crt")),
    ("apiserver-kubelet-client.crt", Some("ca.crt")),
    ("etcd/peer.crt", Some("etcd/ca.crt")),
    ("front-proxy-client.crt", Some("front-proxy-ca.crt")),
    ("ca.crt", None),
    ("etcd/ca.crt", None),
    ("front-proxy-ca.crt", None),
];

/// The kubeconfigs of kubeadm.
const KUBECONFIGS: [&str; 5] = [
    "admin.conf",
    "super-admin.conf",
    "controller-manager.conf",
    "scheduler.conf",
    "kubelet.conf",
];

/// What kubelet is known to the API server by. Its serving certificate, `kubelet.crt`, is signed by itself and verified by
/// nobody; as etcd's `healthcheck-client.crt`, it is among the others.
const KUBELET: [&str; 1] = ["kubelet-client-current.pem"];

/// What was found, and the first that could not be read.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) files: Vec<CertificateFile>,
    pub(crate) denied: Option<String>,
}

/// Reads all.
///
/// # Errors
/// There are none here, or their directory cannot be read.
pub(crate) fn look(root: &Root, manifests: &[Manifest]) -> Looked<Found> {
    let mut found = Vec::new();
    let mut denied = None;
    for (name, authority) in KNOWN {
        let path = Path::new(PKI).join(name);
        let authority = authority.map(|name| Path::new(PKI).join(name));
        found.extend(of_file(
            root,
            &path,
            authority.as_deref(),
            true,
            &mut denied,
        ));
    }
    for name in KUBECONFIGS {
        let path = Path::new(KUBERNETES).join(name);
        found.extend(of_kubeconfig(root, &path, &mut denied));
    }
    for name in KUBELET {
        let path = Path::new(KUBELET_PKI).join(name);
        found.extend(of_file(root, &path, None, true, &mut denied));
    }
    let named = named(manifests);
    for path in others(root) {
        let is_known = found
            .iter()
            .any(|one: &CertificateFile| Path::new(&one.place) == path);
        if !is_known {
            let is_used = named.contains(&path);
            found.extend(of_file(root, &path, None, is_used, &mut denied));
        }
    }
    if found.is_empty() {
        return Err(match denied {
            Some(why) => Unseen::Failed(why),
            None => Unseen::NotHere(format!("there are none in {PKI}")),
        });
    }
    Ok(Found {
        files: found,
        denied,
    })
}

/// Files that the flags of static pods name.
fn named(manifests: &[Manifest]) -> Vec<PathBuf> {
    let pods = manifests.iter().filter_map(|one| one.pod.as_ref().ok());
    let values = pods.flat_map(|pod| pod.flags.iter().map(|(_, value)| value));
    values
        .filter(|value| value.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// Other certificates below [`PKI`] and [`KUBELET_PKI`].
fn others(root: &Root) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in [PKI, "/etc/kubernetes/pki/etcd", KUBELET_PKI] {
        for entry in root.list(Path::new(directory)).unwrap_or_default() {
            let extension = Path::new(&entry.name).extension();
            if extension.is_some_and(|one| one == "crt" || one == "pem") && !entry.is_directory() {
                found.push(Path::new(directory).join(entry.name));
            }
        }
    }
    found
}

/// The certificates of a file; nothing when it is not there.
fn of_file(
    root: &Root,
    path: &Path,
    authority: Option<&Path>,
    is_used: bool,
    denied: &mut Option<String>,
) -> Vec<CertificateFile> {
    let place = path.display().to_string();
    let bytes = match root.read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            *denied = Some(format!("{place}: {error}"));
            return Vec::new();
        }
    };
    let certificates = match read_pem(&bytes) {
        // A bundle of authorities is as good as its best; a chain is led by its own.
        Ok(certificates) => certificates,
        Err(why) => {
            return vec![CertificateFile {
                place,
                certificate: Err(why),
                is_used,
                authority: None,
            }];
        }
    };
    let Some(first) = certificates.into_iter().next() else {
        return Vec::new();
    };
    let signed = authority.and_then(|authority| signed(root, &first, authority));
    vec![CertificateFile {
        place,
        certificate: Ok(first),
        is_used,
        authority: signed,
    }]
}

/// Whether one of the authorities of this file signed it; none when there is no such file.
fn signed(root: &Root, certificate: &Certificate, authority: &Path) -> Option<Signed> {
    let bytes = root.read(authority).ok()?;
    let authorities = read_pem(&bytes).ok()?;
    Some(Signed {
        by: authority.display().to_string(),
        matches: authorities.iter().any(|one| certificate.is_signed_by(one)),
    })
}

/// The client's certificate and the authority of a kubeconfig; nothing when it is not there or has none.
fn of_kubeconfig(root: &Root, path: &Path, denied: &mut Option<String>) -> Vec<CertificateFile> {
    if let Err(error) = root.file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        *denied = Some(format!("{}: {error}", path.display()));
    }
    let Ok(kubeconfig) = kubeconfig::read(root, &[path.to_owned()], Choice::Context(None)) else {
        return Vec::new(); // Whether it can be used is said where it is used.
    };
    let Some((client, _)) = kubeconfig.credentials.certificate else {
        return Vec::new();
    };
    let place = format!("{} (client)", path.display());
    let ca = Path::new(PKI).join("ca.crt");
    let read = read_pem(&client).map(|all| all.into_iter().next());
    match read {
        Ok(None) => Vec::new(),
        Ok(Some(certificate)) => {
            let authority = signed(root, &certificate, &ca);
            vec![CertificateFile {
                place,
                certificate: Ok(certificate),
                is_used: true,
                authority,
            }]
        }
        Err(why) => vec![CertificateFile {
            place,
            certificate: Err(why),
            is_used: true,
            authority: None,
        }],
    }
}
