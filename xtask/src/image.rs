//! `cargo xtask image`: the container image of Nagi, without a container engine.
//!
//! The binary is linked statically against musl and knows nothing of the directory that it was built in, so the same
//! commit gives the same image, byte for byte, wherever it is built; `--prove` shows that with a second build in a container.
//! The image holds the binary, a link to it named `curl`, and the list of what it was built from. There is no shell, no
//! libc and no CA bundle: in a cluster the CA comes with the pod's token.
//!
//! The samples' stand-ins for test clusters are the same binary under another name: it can play both apps.

mod binary;
mod dockerfile;
mod sbom;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use nagi_e2e::oci::{Content, Image};

use crate::checkout::Checkout;

/// Where archives go unless told otherwise, below the root of the working copy.
pub(crate) const OUTPUT: &str = "target/image";

/// The image may be this large: 25 MB.
const IMAGE_BYTES_MAX: u64 = 25_000_000;

/// Number of the user and group that it runs as; it has no name, because there is no file that could name it.
const USER: u32 = 65532;

/// Where the binary lies in the image.
const PROGRAM: &str = "usr/bin/nagi";

/// The tag of every image that is built here; the manifests name it.
const TAG: &str = env!("CARGO_PKG_VERSION");

/// An image that this task can write. All of them hold the same binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// API and gateway.
    Nagi,
    /// Plays sample-app-a, in test clusters.
    SampleA,
    /// Plays sample-app-b, in test clusters.
    SampleB,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Archives in this directory; of the stand-ins too, or not.
    Archives {
        directory: PathBuf,
        samples: bool,
        prove: bool,
    },
    /// The files of the image in this directory, for a build that goes on with them.
    Tree(PathBuf),
}

/// Builds the binary and writes what the command line asks for.
pub(crate) fn run(checkout: &Checkout, arguments: &[String]) -> anyhow::Result<()> {
    let wanted = parse(arguments)?;
    match wanted {
        Wanted::Tree(directory) => {
            let binary = binary::build(checkout, checkout.root())?;
            image(checkout, Kind::Nagi, &binary)?.write_tree(&directory)
        }
        Wanted::Archives {
            directory,
            samples,
            prove,
        } => {
            let directory = checkout.root().join(directory);
            let kinds: &[Kind] = if samples { &Kind::ALL } else { &[Kind::Nagi] };
            archives(checkout, kinds, &directory)?;
            if prove {
                let archive = directory.join(Kind::Nagi.archive());
                dockerfile::prove(checkout, &archive)?;
            }
            Ok(())
        }
    }
}

/// Builds the binary and writes the archives of `kinds` into `directory`; gives their paths.
pub(crate) fn archives(
    checkout: &Checkout,
    kinds: &[Kind],
    directory: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    let binary = binary::build(checkout, checkout.root())?;
    kinds
        .iter()
        .map(|kind| write(checkout, *kind, &binary, directory))
        .collect()
}

fn parse(arguments: &[String]) -> anyhow::Result<Wanted> {
    let mut directory = PathBuf::from(OUTPUT);
    let mut tree = None;
    let mut samples = false;
    let mut prove = false;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .map(PathBuf::from)
                .with_context(|| format!("{word} needs a directory"))
        };
        match word.as_str() {
            "--output" => directory = value()?,
            "--root" => tree = Some(value()?),
            "--samples" => samples = true,
            "--prove" => prove = true,
            _ => bail!(
                "image knows no '{word}'\n\
                 hint: --output DIRECTORY, --samples, --prove, or --root DIRECTORY alone"
            ),
        }
    }
    match tree {
        Some(tree) if arguments.len() == 2 => Ok(Wanted::Tree(tree)),
        Some(_) => bail!("--root stands alone: it writes files and no archive"),
        None => Ok(Wanted::Archives {
            directory,
            samples,
            prove,
        }),
    }
}

/// Describes an image around the binary.
fn image(checkout: &Checkout, kind: Kind, binary: &Path) -> anyhow::Result<Image> {
    let sbom = sbom::of_binary(checkout)?;
    let image = Image::new()
        .file(PROGRAM, 0o755, 0, Content::File(binary.to_owned()))
        .link("usr/bin/curl", "nagi")
        .directory("tmp", 0o1777, 0)
        .file(
            "usr/share/nagi/sbom.cdx.json",
            0o644,
            0,
            Content::Bytes(sbom),
        )
        .environment("PATH", "/usr/bin");
    Ok(match kind {
        Kind::Nagi => image
            .entrypoint(["/usr/bin/nagi"])
            .user(USER)
            .port(8080)
            .port(9090),
        Kind::SampleA => image
            .entrypoint(["/usr/bin/nagi", "sample", "web"])
            .arguments(["--listen", "0.0.0.0", "--port", "8080"])
            .user(101)
            .port(8080),
        Kind::SampleB => image
            .entrypoint(["/usr/bin/nagi", "sample", "inference"])
            .arguments(["--listen", "0.0.0.0", "--port", "8000"])
            .user(1000)
            .port(8000),
    })
}

fn write(
    checkout: &Checkout,
    kind: Kind,
    binary: &Path,
    directory: &Path,
) -> anyhow::Result<PathBuf> {
    let path = directory.join(kind.archive());
    let written = image(checkout, kind, binary)?.write(&path, &kind.name())?;
    let shown = path.strip_prefix(checkout.root()).unwrap_or(&path);
    println!(
        "{}: {} bytes as {}, {}",
        shown.display(),
        written.bytes,
        kind.name(),
        written.digest
    );
    if written.bytes > IMAGE_BYTES_MAX {
        bail!(
            "{} has {} bytes, and {IMAGE_BYTES_MAX} are allowed",
            shown.display(),
            written.bytes
        );
    }
    Ok(path)
}

// === impl Kind ===

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Nagi, Self::SampleA, Self::SampleB];

    /// The name in the manifests, without its tag.
    const fn repository(self) -> &'static str {
        match self {
            Self::Nagi => "scale-api",
            Self::SampleA => "sample-app-a",
            Self::SampleB => "sample-app-b",
        }
    }

    /// The file that it is written to.
    fn archive(self) -> String {
        format!("{}.tar", self.repository())
    }

    /// The name in the manifests.
    pub(crate) fn name(self) -> String {
        format!("{}:{TAG}", self.repository())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Wanted, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parse(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read_and_unknown_ones_refused() {
        let archives = |directory: &str, samples, prove| Wanted::Archives {
            directory: PathBuf::from(directory),
            samples,
            prove,
        };
        assert_eq!(parsed(&[]), Ok(archives(OUTPUT, false, false)));
        assert_eq!(
            parsed(&["--samples", "--output", "/x", "--prove"]),
            Ok(archives("/x", true, true))
        );
        assert_eq!(
            parsed(&["--root", "/out"]),
            Ok(Wanted::Tree(PathBuf::from("/out")))
        );
        for words in [
            &["--root"][..],
            &["--push"],
            &["--root", "/out", "--samples"],
        ] {
            parsed(words).unwrap_err();
        }
    }
}
