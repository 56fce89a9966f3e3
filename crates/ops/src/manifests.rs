//! The manifests of static pods: what kubelet runs without an API server, and which files each needs.

use std::path::{Path, PathBuf};

use nagi_cri::kubelet::{self, Kubelet};
use serde::Deserialize;

use crate::kubeconfig::first_line;
use crate::observed::{Looked, Manifest, StaticPod, Unseen, on_the_node};
use crate::root::Root;

/// Flags whose value is a file that is read at the start.
const FILE_FLAGS: [&str; 4] = ["-file", "-certfile", "-keyfile", "-cafile"];
const FILE_FLAGS_WHOLE: [&str; 4] = [
    "kubeconfig",
    "authentication-kubeconfig",
    "authorization-kubeconfig",
    "etcd-cafile",
];

#[derive(Debug, Deserialize)]
struct Pod {
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    #[serde(default = "usual_namespace")]
    namespace: String,
}

/// kubelet's own rule.
fn usual_namespace() -> String {
    "default".to_owned()
}

#[derive(Debug, Deserialize)]
struct Spec {
    containers: Vec<Container>,
    #[serde(default)]
    volumes: Vec<Volume>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    name: String,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    volume_mounts: Vec<VolumeMount>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VolumeMount {
    name: String,
    mount_path: PathBuf,
    sub_path: Option<String>,
    sub_path_expr: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    host_path: Option<HostPath>,
}

#[derive(Debug, Deserialize)]
struct HostPath {
    path: PathBuf,
    #[serde(default, rename = "type")]
    kind: String,
}

/// kubelet's own settings, as far as they matter here; those of a file that is not there or cannot be read are unset.
pub(crate) fn kubelet(root: &Root) -> Kubelet {
    let read = |file: &str| root.read(Path::new(file)).unwrap_or_default();
    let settings = Kubelet::parse(&read(kubelet::CONFIG)).unwrap_or_default();
    settings.with_flags(&String::from_utf8_lossy(&read(kubelet::FLAGS)))
}

/// Reads every manifest.
///
/// # Errors
/// There is no directory of them, or it cannot be read.
pub(crate) fn look(root: &Root, kubelet: &Kubelet) -> Looked<Vec<Manifest>> {
    let directory = kubelet.manifests();
    let entries = root.list(directory).map_err(|error| {
        let why = format!("{}: {error}", directory.display());
        if error.kind() == std::io::ErrorKind::NotFound {
            Unseen::NotHere(why)
        } else {
            Unseen::Failed(why)
        }
    })?;
    let is_manifest = |name: &str| {
        let extension = Path::new(name).extension();
        !name.starts_with('.')
            && extension.is_some_and(|one| {
                one == "yaml" || one == "yml" || one == "json" || one == "manifest"
            })
    };
    let files = entries
        .iter()
        .filter(|entry| !entry.is_directory && is_manifest(&entry.name));
    let mut manifests = Vec::new();
    for file in files {
        let path = directory.join(&file.name);
        let pod = match root.read(&path) {
            Ok(bytes) => parse(&bytes).map(|pod| understood(root, pod)),
            // Who may not read it knows nothing of it; kubelet may.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(Unseen::Failed(format!("{}: {error}", path.display())));
            }
            Err(error) => Err(error.to_string()),
        };
        manifests.push(Manifest { path, pod });
    }
    Ok(manifests)
}

fn parse(bytes: &[u8]) -> Result<Pod, String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        // What a full disk leaves of a file that was being written.
        return Err("the file is empty".to_owned());
    }
    let pod: Pod =
        serde_saphyr::from_slice(bytes).map_err(|error| first_line(&error.to_string()))?;
    if pod.kind != "Pod" {
        return Err(format!("it is a {} and no Pod", pod.kind));
    }
    if pod.spec.containers.is_empty() {
        return Err("it has no container".to_owned());
    }
    Ok(pod)
}

fn understood(root: &Root, pod: Pod) -> StaticPod {
    let flags = pod.spec.containers.first().map(flags).unwrap_or_default();
    let mounts = mounts(&pod);
    let missing = missing(root, &pod, &flags, &mounts);
    // The name of the container is the same on every node; that of the pod may have the node's behind it.
    let name = pod
        .spec
        .containers
        .into_iter()
        .next()
        .map(|container| container.name)
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| pod.metadata.name.clone());
    StaticPod {
        name,
        namespace: pod.metadata.namespace,
        pod: pod.metadata.name,
        flags,
        mounts,
        missing,
    }
}

fn flags(container: &Container) -> Vec<(String, String)> {
    let words = container.command.iter().chain(&container.args);
    kubelet::flags(&words.map(String::as_str).collect::<Vec<_>>())
}

/// Files of the node that it needs and that are not there.
fn missing(
    root: &Root,
    pod: &Pod,
    flags: &[(String, String)],
    mounts: &[(PathBuf, Option<PathBuf>)],
) -> Vec<PathBuf> {
    let mut missing = Vec::new();
    let mut look = |path: PathBuf| {
        if root.lacks(&path) && !missing.contains(&path) {
            missing.push(path);
        }
    };
    for volume in &pod.spec.volumes {
        if let Some(host) = &volume.host_path
            && ["File", "Directory", "Socket"].contains(&host.kind.as_str())
        {
            look(host.path.clone());
        }
    }
    let is_file = |name: &str| {
        FILE_FLAGS.iter().any(|end| name.ends_with(end)) || FILE_FLAGS_WHOLE.contains(&name)
    };
    for (_, value) in flags.iter().filter(|(name, _)| is_file(name)) {
        if let Some(path) = on_the_node(mounts, Path::new(value)) {
            look(path);
        }
    }
    missing
}

/// What is mounted in the first container, and which path of the node that is; none where it is none.
fn mounts(pod: &Pod) -> Vec<(PathBuf, Option<PathBuf>)> {
    let container = pod.spec.containers.first();
    let mounts = container.map_or(&[][..], |one| &one.volume_mounts);
    let host = |mount: &VolumeMount| {
        // A part of a volume lies elsewhere than the volume.
        if mount.sub_path.is_some() || mount.sub_path_expr.is_some() {
            return None;
        }
        let mut volumes = pod.spec.volumes.iter();
        let volume = volumes.find(|volume| volume.name == mount.name)?;
        volume.host_path.as_ref().map(|host| host.path.clone())
    };
    mounts
        .iter()
        .map(|mount| (mount.mount_path.clone(), host(mount)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: { name: kube-apiserver-a }
spec:
  containers:
  - name: kube-apiserver
    command:
    - kube-apiserver
    - --secure-port=6443
    - --tls-cert-file=/pki/apiserver.crt
    - --client-ca-file
    - /pki/ca.crt
    - --allow-privileged
    volumeMounts:
    - { name: pki, mountPath: /pki }
  volumes:
  - { name: pki, hostPath: { path: /etc/kubernetes/pki, type: DirectoryOrCreate } }
  - { name: conf, hostPath: { path: /etc/kubernetes/scheduler.conf, type: File } }
";

    fn node() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        (directory, root)
    }

    // B-005, D-02
    #[test]
    fn a_static_pod_names_its_flags_and_the_files_that_are_missing() {
        let (directory, root) = node();
        let manifests = directory.path().join("etc/kubernetes/manifests");
        std::fs::create_dir_all(&manifests).unwrap();
        std::fs::create_dir_all(directory.path().join("etc/kubernetes/pki")).unwrap();
        std::fs::write(directory.path().join("etc/kubernetes/pki/ca.crt"), "").unwrap();
        std::fs::write(manifests.join("kube-apiserver.yaml"), POD).unwrap();
        std::fs::write(manifests.join(".kube-apiserver.yaml.swp"), "{").unwrap();
        let all = look(&root, &kubelet(&root)).unwrap();
        assert_eq!(all.len(), 1);
        let pod = all[0].pod.as_ref().unwrap();
        assert_eq!(pod.name, "kube-apiserver");
        assert_eq!(
            (&*pod.namespace, &*pod.pod),
            ("default", "kube-apiserver-a")
        );
        assert_eq!(pod.flag("secure-port"), Some("6443"));
        assert_eq!(pod.flag("client-ca-file"), Some("/pki/ca.crt"));
        assert_eq!(pod.flag("allow-privileged"), Some(""));
        let missing = [
            "/etc/kubernetes/scheduler.conf",
            "/etc/kubernetes/pki/apiserver.crt",
        ];
        assert_eq!(pod.missing, missing.map(PathBuf::from));
    }

    // kubeadm names the socket there and not in the file of settings, which has kubelet's default.
    #[test]
    fn the_socket_of_the_runtime_is_that_of_the_flags() {
        let (directory, root) = node();
        let own = directory.path().join("var/lib/kubelet");
        std::fs::create_dir_all(&own).unwrap();
        let write = |name: &str, text: &str| std::fs::write(own.join(name), text).unwrap();
        let socket = || kubelet(&root).socket();
        assert_eq!(kubelet(&root), Kubelet::default());
        write("config.yaml", "containerRuntimeEndpoint: unix:///a\n");
        assert_eq!(socket(), Path::new("/a"));
        let flags = "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///b\"\n";
        write("kubeadm-flags.env", flags);
        assert_eq!(socket(), Path::new("/b"));
        write("config.yaml", "staticPodPath: [");
        assert_eq!(socket(), Path::new("/b"), "the flags are whole");
    }

    #[test]
    fn a_manifest_that_is_no_pod_says_why() {
        for (text, why) in [
            ("", "empty"),
            ("kind: Pod", "missing"),
            ("a: [", ""),
            (
                "kind: Service\nmetadata: { name: a }\nspec: { containers: [] }",
                "no Pod",
            ),
            (
                "kind: Pod\nmetadata: { name: a }\nspec: { containers: [] }",
                "no container",
            ),
        ] {
            let said = parse(text.as_bytes()).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn a_machine_without_manifests_is_no_control_plane() {
        let (_directory, root) = node();
        assert!(matches!(
            look(&root, &kubelet(&root)),
            Err(Unseen::NotHere(_))
        ));
    }
}
