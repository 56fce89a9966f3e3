//! The settings of kubelet that say where its runtime and its static pods are: its file, and the flags that kubeadm gives it.
//!
//! Only text is read here. Those who work on a node reach its files in ways of their own.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where kubeadm puts kubelet's file.
pub const CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// Flags that kubeadm gives kubelet by systemd; by many of its versions the socket of the runtime is one of them.
pub const FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// Where kubeadm puts manifests of static pods, and where kubelet is told to look.
const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// What kubelet uses unless it is told otherwise.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// What matters of them. What is not set has kubelet's or kubeadm's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kubelet {
    container_runtime_endpoint: Option<String>,
    static_pod_path: Option<PathBuf>,
}

// === impl Kubelet ===

impl Kubelet {
    /// What its file says. None when it cannot be understood, or holds nothing: that is what a full disk leaves of a file that
    /// was being written.
    pub fn parse(file: &[u8]) -> Option<Self> {
        if file.iter().all(u8::is_ascii_whitespace) {
            return None;
        }
        serde_saphyr::from_slice(file).ok()
    }

    /// With what kubeadm's file of flags says, which kubelet takes for more than its file:
    /// `KUBELET_KUBEADM_ARGS="--name=value --other value"`.
    #[must_use]
    pub fn with_flags(mut self, file: &str) -> Self {
        let mut lines = file.lines().map(str::trim);
        let line = lines.find_map(|line| line.strip_prefix("KUBELET_KUBEADM_ARGS="));
        let line = line.unwrap_or_default().trim_matches(['"', '\'']);
        let words: Vec<&str> = line.split_whitespace().collect();
        // Of a flag that is said twice the last counts.
        for (name, value) in flags(&words).into_iter().filter(|flag| !flag.1.is_empty()) {
            match name.as_str() {
                "container-runtime-endpoint" => self.container_runtime_endpoint = Some(value),
                "pod-manifest-path" => self.static_pod_path = Some(value.into()),
                _ => {}
            }
        }
        self
    }

    /// The socket of its runtime.
    pub fn socket(&self) -> PathBuf {
        let named = self.container_runtime_endpoint.as_deref();
        let named = named.map(|one| one.trim_start_matches("unix://"));
        PathBuf::from(named.filter(|one| !one.is_empty()).unwrap_or(SOCKET))
    }

    /// The directory of manifests of static pods, or the one file of them.
    pub fn manifests(&self) -> &Path {
        let named = self.static_pod_path.as_deref();
        let is_set = |path: &&Path| !path.as_os_str().is_empty();
        named.filter(is_set).unwrap_or(Path::new(MANIFESTS))
    }
}

/// `--name=value`, and `--name value` in two words.
pub fn flags(words: &[&str]) -> Vec<(String, String)> {
    let mut flags = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let Some(flag) = word.strip_prefix("--") else {
            continue;
        };
        let next = words.get(index + 1).filter(|next| !next.starts_with("--"));
        let (name, value) = match (flag.split_once('='), next) {
            (Some((name, value)), _) => (name, value),
            (None, Some(next)) => (flag, *next),
            (None, None) => (flag, ""),
        };
        flags.push((name.to_owned(), value.to_owned()));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_where_things_are_and_defaults_say_the_rest() {
        let default = Kubelet::parse(b"kind: KubeletConfiguration\n").unwrap();
        assert_eq!(default, Kubelet::default());
        assert_eq!(default.socket(), Path::new(SOCKET));
        assert_eq!(default.manifests(), Path::new(MANIFESTS));
        let told = b"containerRuntimeEndpoint: unix:///a\nstaticPodPath: /b\n";
        let told = Kubelet::parse(told).unwrap();
        assert_eq!(told.socket(), Path::new("/a"));
        assert_eq!(told.manifests(), Path::new("/b"));
        let empty = Kubelet::parse(b"staticPodPath: ''\ncontainerRuntimeEndpoint: ''\n");
        let empty = empty.unwrap();
        assert_eq!(empty.socket(), Path::new(SOCKET));
        assert_eq!(empty.manifests(), Path::new(MANIFESTS));
        for broken in ["", "\n", "staticPodPath: [", "staticPodPath: [a]"] {
            assert_eq!(Kubelet::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    // 5-04 of the review: kubeadm before 1.35 names the socket there and leaves the file of settings empty.
    #[test]
    fn kubelet_takes_a_flag_for_more_than_its_file() {
        let file = || Kubelet::parse(b"containerRuntimeEndpoint: unix:///a\n").unwrap();
        let other = "KUBELET_KUBEADM_ARGS=\"--pod-infra-container-image=a/pause:3.9\"\n";
        assert_eq!(file().with_flags(other), file());
        assert_eq!(file().with_flags(""), file());
        for text in [
            "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///var/run/crio/crio.sock --a=b\"\n",
            "# a\nKUBELET_KUBEADM_ARGS='--a --container-runtime-endpoint unix:///var/run/crio/crio.sock'",
            "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=/b --container-runtime-endpoint=/var/run/crio/crio.sock\"",
        ] {
            let socket = file().with_flags(text).socket();
            assert_eq!(socket, Path::new("/var/run/crio/crio.sock"), "{text}");
        }
        let moved = "KUBELET_KUBEADM_ARGS=\"--pod-manifest-path=/etc/pods\"";
        assert_eq!(file().with_flags(moved).manifests(), Path::new("/etc/pods"));
    }
}
