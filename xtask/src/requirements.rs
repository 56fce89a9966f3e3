//! `cargo xtask requirements F01 …`: which rows of these features no test names.
//!
//! A row counts as named when its id stands in a comment of test code, or in a shell test. That says where to look
//! for a proof, not that it is one. Without arguments all features are listed with their counts.

use std::collections::BTreeSet;

use anyhow::bail;

use crate::checkout::{Checkout, TextFile, extension};
use crate::tokens::{PieceKind, pieces};

/// The list of ids: one a line, then the features that it belongs to; `#` opens a comment.
pub(crate) const LIST: &str = include_str!("../requirements.txt");

/// A row of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    /// Its id.
    pub(crate) id: &'a str,
    /// The features that it belongs to.
    pub(crate) features: Vec<&'a str>,
}

/// Reads a list of ids.
pub(crate) fn rows(list: &str) -> impl Iterator<Item = Row<'_>> {
    let lines = list
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let id = words.next()?;
        Some(Row {
            id,
            features: words.collect(),
        })
    })
}

/// Whether a word has the shape of an id.
pub(crate) fn looks_like_id(word: &str) -> bool {
    let digits = |text: &str, count: usize| {
        text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let after = |prefix: &str, count: usize| {
        word.strip_prefix(prefix)
            .is_some_and(|rest| digits(rest, count))
    };
    ["A-", "B-", "C-"].iter().any(|prefix| after(prefix, 3))
        || ["K-", "W-A", "W-B", "W-C", "F", "R", "G"]
            .iter()
            .any(|prefix| after(prefix, 2))
}

/// The ids in a text.
pub(crate) fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-')
        .filter(|word| looks_like_id(word))
}

/// Prints what no test names.
pub(crate) fn run(checkout: &Checkout, features: &[String]) -> anyhow::Result<()> {
    let rows: Vec<Row<'_>> = rows(LIST).collect();
    if let Some(unknown) = features
        .iter()
        .find(|feature| !rows.iter().any(|row| row.id == feature.as_str()))
    {
        bail!(
            "there is no feature '{unknown}'\nhint: name features as in 'cargo xtask requirements F01 F02'"
        );
    }
    let paths = checkout.paths()?;
    let files = checkout.read(&paths, |path| {
        matches!(extension(path), Some("rs" | "sh")) && !path.starts_with("xtask/src/tidy")
    })?;
    let named = named_by_tests(&files);
    for feature in rows.iter().filter(|row| row.id.starts_with('F')) {
        if features.is_empty() || features.iter().any(|wanted| wanted == feature.id) {
            let of_feature: Vec<&str> = rows
                .iter()
                .filter(|row| row.features.contains(&feature.id))
                .map(|row| row.id)
                .collect();
            let missing: Vec<&str> = of_feature
                .iter()
                .copied()
                .filter(|id| !named.contains(*id))
                .collect();
            println!(
                "{}: {} of {} named; missing: {}",
                feature.id,
                of_feature.len() - missing.len(),
                of_feature.len(),
                missing.join(" ")
            );
        }
    }
    Ok(())
}

fn named_by_tests(files: &[TextFile]) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for file in files {
        if extension(&file.path) == Some("sh") {
            named.extend(ids(&file.text).map(str::to_owned));
            continue;
        }
        let pieces = pieces(file);
        let comments = pieces
            .iter()
            .filter(|piece| piece.kind == PieceKind::Comment && piece.in_tests);
        named.extend(
            comments
                .flat_map(|piece| ids(piece.text))
                .map(str::to_owned),
        );
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_is_its_id_and_its_features() {
        let read: Vec<Row<'_>> = rows("# rows\n\nA-048 F14\nK-14 F10 F11\nF14\n").collect();
        assert_eq!(
            read.iter()
                .map(|row| row.features.len())
                .collect::<Vec<_>>(),
            [1, 2, 0]
        );
    }

    #[test]
    fn only_test_code_names_a_row() {
        let file = |text: &str| {
            [TextFile {
                path: "crates/a/src/lib.rs".to_owned(),
                text: text.to_owned(),
            }]
        };
        let named = named_by_tests(&file(
            "// A-001\n#[cfg(test)]\nmod tests {\n    // A-002, W-A03\n}\n",
        ));
        assert_eq!(named.into_iter().collect::<Vec<_>>(), ["A-002", "W-A03"]);
    }

    #[test]
    fn other_words_are_no_ids() {
        assert_eq!(
            ids("RFC 9110, A-1, GF99x, 0xF99, UTF-8, CVE-2024-999").count(),
            0
        );
        assert_eq!(
            ids("(A-048, W-A23; R09 G23.)").collect::<Vec<_>>(),
            ["A-048", "W-A23", "R09", "G23"]
        );
    }
}
