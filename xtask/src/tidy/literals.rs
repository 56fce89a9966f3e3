//! Names that the outside relies on are constants, each defined once: environment variables (`NAGI_…`), annotations
//! (`nagi.dev/…`), headers (`Nagi-…`) and metrics (`nagi_…`).
//!
//! The rule counts string literals outside tests: the same name written twice is a finding at every place but the
//! first. It does not ask which place is the right one.

use std::collections::BTreeMap;

use super::Finding;
use crate::tokens::{Piece, PieceKind};

const RULE: &str = "name-once";

/// Checks the string literals of all files; takes each path with its pieces.
pub(super) fn check(files: &[(&str, Vec<Piece<'_>>)]) -> Vec<Finding> {
    let mut first: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    let mut findings = Vec::new();
    for (path, pieces) in files.iter().filter(|(path, _)| !path.starts_with("xtask/")) {
        let names = pieces
            .iter()
            .filter(|piece| piece.kind == PieceKind::Text && !piece.in_tests)
            .filter(|piece| is_outside_name(piece.text));
        for piece in names {
            let name = comparable(piece.text);
            let Some((elsewhere, line)) = first.get(&name) else {
                first.insert(name, (path, piece.line));
                continue;
            };
            let advice = format!(
                "\"{}\" stands in {elsewhere}:{line} already: use that constant",
                piece.text
            );
            findings.push(Finding {
                path: (*path).to_owned(),
                line: piece.line,
                rule: RULE,
                advice,
            });
        }
    }
    findings
}

/// Header names are the same in any case; the others are not.
fn comparable(name: &str) -> String {
    if name.starts_with("Nagi-") {
        name.to_ascii_lowercase()
    } else {
        name.to_owned()
    }
}

/// Whether a string literal is such a name, and nothing but the name.
fn is_outside_name(text: &str) -> bool {
    let rest_is = |prefix: &str, good: fn(char) -> bool| {
        text.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(good))
    };
    rest_is("NAGI_", |letter| {
        letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_'
    }) || rest_is("nagi.dev/", |letter| {
        letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_')
    }) || rest_is("Nagi-", |letter| {
        letter.is_ascii_alphanumeric() || letter == '-'
    }) || rest_is("nagi-", |letter| {
        letter.is_ascii_alphanumeric() || letter == '-'
    }) || rest_is("nagi_", |letter| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkout::TextFile;
    use crate::tokens::pieces;

    fn places_found(texts: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<TextFile> = texts
            .iter()
            .map(|(path, text)| TextFile {
                path: (*path).to_owned(),
                text: (*text).to_owned(),
            })
            .collect();
        let read: Vec<(&str, Vec<Piece<'_>>)> = files
            .iter()
            .map(|file| (file.path.as_str(), pieces(file)))
            .collect();
        check(&read)
            .iter()
            .map(|finding| format!("{}:{}", finding.path, finding.line))
            .collect()
    }

    #[test]
    fn name_written_twice_is_found_at_the_second_place() {
        for name in [
            "NAGI_STATE_DIR",
            "nagi.dev/replicas",
            "Nagi-Status",
            "nagi_wakes_total",
        ] {
            let (one, two) = (
                format!("const A: &str = \"{name}\";"),
                format!("\nf(\"{name}\");"),
            );
            assert_eq!(
                places_found(&[("a.rs", &one), ("b.rs", &two)]),
                ["b.rs:2"],
                "{name}"
            );
        }
        assert_eq!(
            places_found(&[("a.rs", "\"Nagi-Status\""), ("b.rs", "\"nagi-status\"")]),
            ["b.rs:1"]
        );
    }

    #[test]
    fn prose_tests_and_comments_may_repeat_a_name() {
        let once = ("a.rs", "const A: &str = \"NAGI_KEY\";");
        let test = (
            "b.rs",
            "#[cfg(test)]\nmod tests { const B: &str = \"NAGI_KEY\"; }",
        );
        let file = ("crates/cli/tests/keys.rs", "f(\"NAGI_KEY\")");
        let metric = ("d.rs", "\"nagi_key\"");
        let prose = ("c.rs", "// \"NAGI_KEY\"\nf(\"set NAGI_KEY first\")");
        assert_eq!(places_found(&[once, test, file, metric, prose]), [""; 0]);
    }
}
