//! Every Rust file opens with `//!`: what it is for, how it works, what it deliberately does not do.
//!
//! Only that the head is there and says something is checked; whether it is true is for the reviewer.

use super::Finding;
use crate::checkout::TextFile;

/// Checks the head of one Rust file.
pub(super) fn check(file: &TextFile) -> Option<Finding> {
    let first = file.text.lines().next().unwrap_or_default();
    let says_something = first
        .strip_prefix("//!")
        .is_some_and(|words| !words.trim().is_empty());
    if says_something {
        return None;
    }
    Some(Finding {
        path: file.path.clone(),
        line: 1,
        rule: "file-head",
        advice: "open the file with '//!': what it is for, how it works, what it does not do"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> TextFile {
        TextFile {
            path: "crates/core/src/lib.rs".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn file_must_open_with_what_it_is_for() {
        assert_eq!(check(&file("//! The rules.\n\nfn main() {}\n")), None);
        for broken in [
            "fn main() {}\n",
            "",
            "//!\nfn main() {}\n",
            "\n//! Late.\n",
            "// Plain.\n",
        ] {
            assert_eq!(
                check(&file(broken)).map(|finding| finding.line),
                Some(1),
                "{broken:?}"
            );
        }
    }
}
