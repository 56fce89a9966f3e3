//! A Rust file over 600 lines needs a reason, kept here beside its name.
//!
//! The admired codebases have a small median and let a few files grow: tables, flag lists, tests. A reason whose file
//! is gone or short again is a finding too, so that the list stays true.

use super::Finding;
use crate::checkout::TextFile;

const RULE: &str = "file-length";

/// Longer files have a row in [`REASONS`].
const LINES_MAX: usize = 600;

/// Why these files are longer.
const REASONS: &[(&str, &str)] = &[];

/// Checks the length of all Rust files.
pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    compare(files, REASONS)
}

fn compare(files: &[TextFile], reasons: &[(&str, &str)]) -> Vec<Finding> {
    let finding = |path: &str, line, advice| Finding {
        path: path.to_owned(),
        line,
        rule: RULE,
        advice,
    };
    let mut findings = Vec::new();
    for file in files {
        let lines = file.text.lines().count();
        if lines > LINES_MAX && !reasons.iter().any(|(path, _)| *path == file.path) {
            let advice = format!(
                "{lines} lines: split it, or give the reason in REASONS of xtask/src/tidy/lengths.rs"
            );
            findings.push(finding(&file.path, LINES_MAX + 1, advice));
        }
    }
    for (path, _) in reasons {
        let long = files
            .iter()
            .any(|file| file.path == *path && file.text.lines().count() > LINES_MAX);
        if !long {
            findings.push(finding(
                path,
                1,
                format!("not over {LINES_MAX} lines any more: take it out of REASONS"),
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(lines: usize) -> TextFile {
        TextFile {
            path: "crates/a/src/lib.rs".to_owned(),
            text: "//! x\n".repeat(lines),
        }
    }

    #[test]
    fn file_over_the_limit_needs_a_reason() {
        assert_eq!(compare(&[file(LINES_MAX)], &[]), []);
        assert_eq!(compare(&[file(LINES_MAX + 1)], &[]).len(), 1);
        assert_eq!(
            compare(
                &[file(LINES_MAX + 1)],
                &[("crates/a/src/lib.rs", "a table")]
            ),
            []
        );
    }

    #[test]
    fn reason_for_a_short_or_missing_file_is_found() {
        assert_eq!(
            compare(&[file(10)], &[("crates/a/src/lib.rs", "a table")]).len(),
            1
        );
        assert_eq!(
            compare(&[], &[("crates/a/src/gone.rs", "a table")]).len(),
            1
        );
    }
}
