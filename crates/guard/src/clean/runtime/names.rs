//! Names of images: which of them mean the same, and which a person or the runtime wants kept. Pure.

/// A reference as runtimes write it in full: `nginx` is `docker.io/library/nginx:latest`. With a digest, a tag says nothing.
pub(super) fn in_full(reference: &str) -> String {
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (reference, None),
    };
    let (path, tag) = match name.rsplit_once(':') {
        // A colon before the last slash is that of a port.
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        Some(_) | None => (name, None),
    };
    let is_registry =
        |first: &str| first.contains('.') || first.contains(':') || first == "localhost";
    let path = match path.split_once('/') {
        Some((first, _)) if is_registry(first) => path.to_owned(),
        Some(_) => format!("docker.io/{path}"),
        None => format!("docker.io/library/{path}"),
    };
    match (digest, tag) {
        (Some(digest), _) => format!("{path}@{digest}"),
        (None, Some(tag)) => format!("{path}:{tag}"),
        (None, None) => format!("{path}:latest"),
    }
}

/// An image of these names is meant by a reference: by its name, or by the digest of its configuration.
pub(super) fn is_meant(reference: &str, id: &str, names: &[String]) -> bool {
    if reference.is_empty() {
        return false;
    }
    if reference == id || id.strip_prefix("sha256:") == Some(reference) {
        return true;
    }
    let whole = in_full(reference);
    names
        .iter()
        .any(|name| name == reference || in_full(name) == whole)
}

/// The list of a person names it: whole, or how it begins.
pub(super) fn is_listed(list: &[String], id: &str, names: &[String]) -> bool {
    list.iter().any(|kept| {
        let begins = |name: &String| name.starts_with(kept.as_str());
        !kept.is_empty() && (is_meant(kept, id, names) || names.iter().any(begins))
    })
}

/// It is called as sandboxes' images are. Nothing else says so where the runtime marks none and its settings cannot be read.
pub(super) fn is_like_pause(names: &[String]) -> bool {
    names.iter().any(|name| {
        let last = name.rsplit('/').next().unwrap_or_default();
        last.starts_with("pause")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_references_mean_what_runtimes_write_in_full() {
        let rows = [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1", "docker.io/library/nginx:1"),
            ("me/app", "docker.io/me/app:latest"),
            ("localhost/app:1", "localhost/app:1"),
            ("r.example:5000/app", "r.example:5000/app:latest"),
            ("r.example/app:1@sha256:aa", "r.example/app@sha256:aa"),
        ];
        for (short, whole) in rows {
            assert_eq!(in_full(short), whole);
            assert_eq!(in_full(whole), whole);
        }
    }

    #[test]
    fn an_image_is_meant_by_name_digest_and_id() {
        let names = [
            "docker.io/library/nginx:1".to_owned(),
            "docker.io/library/nginx@sha256:bb".to_owned(),
        ];
        let id = "sha256:aa";
        for reference in ["nginx:1", "nginx:9@sha256:bb", "sha256:aa", "aa"] {
            assert!(is_meant(reference, id, &names), "{reference}");
        }
        for reference in ["nginx", "nginx:12", "x/nginx:1", "sha256:bb", ""] {
            assert!(!is_meant(reference, id, &names), "{reference}");
        }
        let list = |kept: &str| is_listed(&[kept.to_owned()], id, &names);
        assert!(list("docker.io/library/") && list("nginx:1") && list("sha256:aa"));
        assert!(!list("docker.io/other/") && !list(""));
        assert!(is_like_pause(&["registry.k8s.io/pause:3.8".to_owned()]));
        assert!(!is_like_pause(&["r.example/pause/app:1".to_owned()]));
    }
}
