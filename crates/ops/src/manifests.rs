//! The manifests of static pods: what kubelet runs without an API server, and which files each needs.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use nagi_cri::kubelet::{self, Entry, Files, Kubelet};
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
    let settings = kubelet::settings(&Readable(root));
    settings.unwrap_or_default().kubelet
}

/// The files of a node, of which those that cannot be read are taken for none.
struct Readable<'a>(&'a Root);

impl Files for Readable<'_> {
    type Error = Infallible;

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.read(file).ok())
    }

    fn list(&self, directory: &Path) -> Result<Option<Vec<Entry>>, Infallible> {
        Ok(self.0.list(directory).ok().map(entries))
    }
}

impl Files for Root {
    type Error = std::io::Error;

    fn read(&self, file: &Path) -> std::io::Result<Option<Vec<u8>>> {
        Self::read(self, file).map(Some)
    }

    fn list(&self, directory: &Path) -> std::io::Result<Option<Vec<Entry>>> {
        match Self::list(self, directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Ok(None),
            listed => listed.map(|all| Some(entries(all))),
        }
    }
}

fn entries(all: Vec<crate::root::Entry>) -> Vec<Entry> {
    let all = all.into_iter();
    all.map(|entry| Entry {
        name: entry.name.into(),
        kind: entry.kind,
        is_link: entry.is_link,
    })
    .collect()
}

/// Reads every manifest that kubelet takes. Of two of one pod kubelet has the last, and so has this.
///
/// # Errors
/// There is no directory of them, or it cannot be read.
pub(crate) fn look(root: &Root, kubelet: &Kubelet) -> Looked<Vec<Manifest>> {
    let files = kubelet.manifest_files(root).map_err(|error| {
        let why = format!("{}: {error}", kubelet.manifests().display());
        if error.kind() == std::io::ErrorKind::NotFound {
            Unseen::NotHere(why)
        } else {
            Unseen::Failed(why)
        }
    })?;
    let mut manifests: Vec<Manifest> = Vec::new();
    for path in files {
        let pod = match root.read(&path) {
            Ok(bytes) => parse(&bytes).map(|pod| understood(root, pod)),
            // Who may not read it knows nothing of it; kubelet may.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(Unseen::Failed(format!("{}: {error}", path.display())));
            }
            Err(error) => Err(error.to_string()),
        };
        if let Ok(pod) = &pod {
            let name = |pod: &StaticPod| (pod.namespace.clone(), pod.pod.clone());
            let is_same = |one: &Manifest| one.pod.as_ref().is_ok_and(|one| name(one) == name(pod));
            manifests.retain(|one| !is_same(one));
        }
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

    // 5-03, 5-30 of the review: kubelet asks for no ending and follows links, so that a copy that somebody put beside a manifest
    // is one too; of two of one pod it runs the last. What a link leads to that is not there it cannot read.
    #[test]
    fn every_file_that_kubelet_takes_is_a_manifest_whatever_it_is_called() {
        let (directory, root) = node();
        let at = directory.path();
        let write = |path: &str, text: &str| {
            std::fs::create_dir_all(at.join(path).parent().unwrap()).unwrap();
            std::fs::write(at.join(path), text).unwrap();
        };
        let names = |root: &Root| {
            let all = look(root, &kubelet(root)).unwrap();
            let all = all.into_iter();
            all.map(|one| (one.path.display().to_string(), one.pod.map(|pod| pod.name)))
                .collect::<Vec<_>>()
        };
        let pod = |name: &str| POD.replace("kube-apiserver", name);
        write("etc/kubernetes/manifests/etcd.yaml", &pod("etcd"));
        write(
            "etc/kubernetes/manifests/kube-apiserver.yaml",
            &pod("kube-apiserver"),
        );
        write("etc/kubernetes/manifests/kube-apiserver.yaml.bak", POD);
        write("etc/kubernetes/manifests/old/etcd.yaml", "{");
        write("data/haproxy", &pod("haproxy"));
        let manifests = at.join("etc/kubernetes/manifests");
        std::os::unix::fs::symlink("/data/haproxy", manifests.join("haproxy")).unwrap();
        std::os::unix::fs::symlink("/data/none", manifests.join("lost")).unwrap();
        let found = names(&root);
        let paths: Vec<&str> = found
            .iter()
            .map(|one| one.0.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(
            paths,
            ["etcd.yaml", "haproxy", "kube-apiserver.yaml.bak", "lost"]
        );
        assert!(found[3].1.is_err() && found[..3].iter().all(|one| one.1.is_ok()));
        // Where they are is said by a drop-in, and it may be one file.
        write(
            "var/lib/kubelet/kubeadm-flags.env",
            "KUBELET_KUBEADM_ARGS=\"--config-dir=/etc/kubelet.d\"",
        );
        write("etc/kubelet.d/a.conf", "staticPodPath: data/haproxy");
        assert_eq!(
            names(&root),
            [("/data/haproxy".to_owned(), Ok("haproxy".to_owned()))]
        );
        rustix::fs::unlink(at.join("data/haproxy")).unwrap();
        assert!(matches!(
            look(&root, &kubelet(&root)),
            Err(Unseen::NotHere(_))
        ));
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
