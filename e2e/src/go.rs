//! The Go toolchain that builds the tools: found, not installed; `cargo xtask cluster` installs one where there is none.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::cache;
use crate::call::{Call, on_path};
use crate::files;

/// The oldest minor version of Go 1 that builds every tool.
const MINOR_VERSION_MIN: u32 = 26;

/// Where the installer from Go's own site puts it; often not on the path.
const USUAL_PLACE: &str = "/usr/local/go/bin/go";

/// The beginning of the directory, among the tools of the cache, into which `cargo xtask cluster` installs one.
pub const INSTALLED: &str = "go-bin";

/// Finds a Go that is new enough.
pub fn find() -> anyhow::Result<PathBuf> {
    let mut places: Vec<PathBuf> = on_path("go").into_iter().collect();
    places.push(PathBuf::from(USUAL_PLACE));
    for environment in files::entries(&cache::tools()?)? {
        if files::name(&environment).is_some_and(|name| name.starts_with(INSTALLED)) {
            let packages = files::entries(&environment.join("lib"))?;
            places.extend(
                packages
                    .iter()
                    .map(|python| python.join("site-packages/go/bin/go")),
            );
        }
    }
    for place in places {
        if place.is_file() && is_new_enough(&place)? {
            return Ok(place);
        }
    }
    bail!(
        "there is no Go 1.{MINOR_VERSION_MIN} or newer, and Kubernetes is built with it\n\
         hint: run 'cargo xtask cluster setup', which installs one"
    );
}

fn is_new_enough(go: &Path) -> anyhow::Result<bool> {
    let version = Call::new(go)
        .argument("version")
        .environment("GOTOOLCHAIN", "local")
        .output()?;
    Ok(minor_version(&version).is_some_and(|minor| minor >= MINOR_VERSION_MIN))
}

/// Reads `go version go1.26.8 linux/amd64`.
fn minor_version(text: &str) -> Option<u32> {
    let rest = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("go1."))?;
    let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_of_go_is_read() {
        assert_eq!(minor_version("go version go1.26.8 linux/amd64"), Some(26));
        assert_eq!(minor_version("go version go1.27rc1 linux/amd64"), Some(27));
        assert_eq!(minor_version("go version devel linux/amd64"), None);
    }
}
