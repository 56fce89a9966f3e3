//! What may go from the disks of a node: the options that every command has which gives space back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nagi_guard::{Consent, Policy};

use super::clean::{parse_absolute, parse_age, parse_bytes};

#[derive(Debug, Args)]
pub(crate) struct GoesArgs {
    /// Also what cannot be had again may go: old revisions, dead containers, logs, journals, crash dumps, imported images
    #[arg(long)]
    pub(crate) lossy: bool,

    /// At most so many bytes go in one run: 500M, 2G
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    max: Option<u64>,

    /// What was written, renamed, pulled or ended within this time stays: 1h, 30m, 0 for no limit
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = parse_age)]
    min_age: Duration,

    /// A file or directory of the node that stays, whatever the rules say; may be given several times
    #[arg(long, value_name = "PATH", value_parser = parse_absolute)]
    pub(crate) keep: Vec<PathBuf>,

    /// An image that stays: its name in full, short or as it begins, or how its id begins; may be given several times
    #[arg(long, value_name = "IMAGE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) keep_image: Vec<String>,
}

// === impl GoesArgs ===

impl GoesArgs {
    /// The rules of the command line for this root; what is not said is as the policy has it.
    pub(crate) fn policy(&self, root: &Path) -> Policy {
        Policy {
            consent: if self.lossy {
                Consent::Lossy
            } else {
                Consent::Regenerable
            },
            bytes_max: self.max,
            grace: self.min_age,
            keep: self.keep.clone(),
            keep_images: self.keep_image.clone(),
            ..Policy::at(root)
        }
    }
}
