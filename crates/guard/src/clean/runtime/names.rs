//! Names of images: which of them mean the same, and which a person or the runtime wants kept. Pure.

/// Fewer digits of an id are more likely a word: `crictl images` shows 13 of them.
const HASH_MIN: usize = 6;

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

/// The registry of a reference, without its port, and the repository there: as containerd marks what it pulled.
pub(super) fn source(reference: &str) -> (String, String) {
    let whole = in_full(reference);
    let name = whole.split('@').next().unwrap_or_default();
    let path = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        Some(_) | None => name,
    };
    // In full there is a registry before the first slash.
    let (registry, repository) = path.split_once('/').unwrap_or_default();
    let registry = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => registry,
    };
    let registry = registry.trim_matches(['[', ']']);
    (registry.to_owned(), repository.to_owned())
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

/// An entry of a person's list names an image: its name, whole, short or as it begins, or how its id begins.
///
/// A name that is short means what a runtime takes it for, with any tag: `nginx` is `docker.io/library/nginx` and not
/// `docker.io/library/nginx-exporter`.
pub(super) fn lists(kept: &str, id: &str, names: &[String]) -> bool {
    let hash = id.strip_prefix("sha256:").unwrap_or(id);
    let of_id = kept.strip_prefix("sha256:").unwrap_or(kept);
    let is_hash = of_id.len() >= HASH_MIN && of_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if kept.is_empty() {
        return false;
    }
    let is_whole = is_meant(kept, id, names) || (is_hash && hash.starts_with(of_id));
    // In full it has a tag, which was not asked for, and what ends with a slash is no name yet.
    let whole = match kept.strip_suffix('/') {
        Some(_) => in_full(&format!("{kept}x")),
        None => in_full(kept),
    };
    let begins = match whole.strip_suffix(":latest") {
        Some(path) if kept.ends_with('/') => path.strip_suffix('x').unwrap_or(path),
        Some(path) if !kept.ends_with(":latest") => path,
        Some(_) | None => whole.as_str(),
    };
    let is_short = |name: &String| {
        let rest = name.strip_prefix(begins);
        rest.is_some_and(|rest| begins.ends_with('/') || rest.starts_with([':', '@', '/']))
    };
    is_whole
        || names
            .iter()
            .any(|name| name.starts_with(kept) || is_short(name))
}

/// It is called as sandboxes' images are, which may be copies of others: `mirrored-pause`. Nothing else says so where the runtime marks none and its settings cannot be read.
pub(super) fn is_like_pause(names: &[String]) -> bool {
    names.iter().any(|name| {
        let last = name.rsplit('/').next().unwrap_or_default();
        let name = last.split([':', '@']).next().unwrap_or_default();
        name.contains("pause")
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

    // 5-06 of the review: what people type.
    #[test]
    fn a_list_names_images_in_full_in_short_as_they_begin_and_by_id() {
        let names = [
            "docker.io/library/nginx:1".to_owned(),
            "docker.io/library/nginx@sha256:bb".to_owned(),
        ];
        let id = "sha256:6270bb605e12e581514ada5fd5b3216f727db55dc87d5889c790e4c760683fee";
        for kept in [
            "docker.io/library/nginx:1",
            "docker.io/library/",
            "docker.io/library/ngi",
            "docker.io",
            "nginx",
            "nginx:1",
            "library/nginx",
            "nginx@sha256:bb",
            id,
            "6270bb605e12e",
            "sha256:6270bb",
        ] {
            assert!(lists(kept, id, &names), "{kept}");
        }
        for kept in [
            "",
            "docker.io/other/",
            "ngin",
            "nginx:2",
            "nginx:latest",
            "me/nginx",
            "6270",
            "70bb605e12e",
            "sha256:7270bb",
        ] {
            assert!(!lists(kept, id, &names), "{kept}");
        }
        let own = [
            "docker.io/me/app:1".to_owned(),
            "docker.io/library/nginx-exporter:1".to_owned(),
        ];
        assert!(lists("me/app", id, &own) && lists("me/", id, &own));
        assert!(!lists("nginx", id, &own) && !lists("me/ap", id, &own) && !lists("m/", id, &own));
    }

    #[test]
    fn the_source_of_a_reference_is_its_registry_without_the_port_and_its_repository() {
        for (name, registry, repository) in [
            ("nginx:1", "docker.io", "library/nginx"),
            ("r.example:5000/a/b:1", "r.example", "a/b"),
            ("r.example/a@sha256:bb", "r.example", "a"),
            ("127.0.0.1:80/a", "127.0.0.1", "a"),
            ("[::1]:5000/a:1", "::1", "a"),
        ] {
            let (of, there) = source(name);
            assert_eq!((&*of, &*there), (registry, repository), "{name}");
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
        for pause in [
            "registry.k8s.io/pause:3.8",
            "rancher/mirrored-pause:3.6",
            "r.example/k8s-pause@sha256:aa",
        ] {
            assert!(is_like_pause(&[pause.to_owned()]), "{pause}");
        }
        assert!(!is_like_pause(&["r.example/pause/app:1".to_owned()]));
    }
}
