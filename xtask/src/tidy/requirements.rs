//! Requirement ids that a comment or a page names exist: rows of the ledger (`A-…`, `B-…`, `C-…`), conflicts (`K-…`),
//! weaknesses (`W-A…`, `W-B…`, `W-C…`), features (`F…`), details of the REST API (`R…`), goals (`G…`).
//!
//! The list is `xtask/requirements.txt`. So a search for an id finds its tests, and a typing error is found here.
//! Whether a test proves the row that it names is for the reviewer.

use std::collections::BTreeSet;

use super::Finding;
use crate::checkout::TextFile;
use crate::requirements::{ids, rows};
use crate::tokens::{Piece, PieceKind};

const RULE: &str = "requirement-id";

/// The ids that exist.
#[derive(Debug)]
pub(super) struct Ids<'a>(BTreeSet<&'a str>);

// === impl Ids ===

impl<'a> Ids<'a> {
    /// Reads the list.
    pub(super) fn read(list: &'a str) -> Self {
        Self(rows(list).map(|row| row.id).collect())
    }

    /// Checks the comments of one Rust file.
    pub(super) fn check_comments(&self, path: &str, pieces: &[Piece<'_>]) -> Vec<Finding> {
        let comments = pieces
            .iter()
            .filter(|piece| piece.kind == PieceKind::Comment);
        comments
            .flat_map(|piece| self.check_lines(path, piece.text, piece.line))
            .collect()
    }

    /// Checks all of a page or a script.
    pub(super) fn check_page(&self, file: &TextFile) -> Vec<Finding> {
        self.check_lines(&file.path, &file.text, 1)
    }

    fn check_lines(&self, path: &str, text: &str, first: usize) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (index, line) in text.lines().enumerate() {
            for word in ids(line) {
                if !self.0.contains(word) {
                    let advice = format!(
                        "there is no requirement '{word}': correct it, or add it to xtask/requirements.txt"
                    );
                    findings.push(Finding {
                        path: path.to_owned(),
                        line: first + index,
                        rule: RULE,
                        advice,
                    });
                }
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::pieces;

    use crate::requirements::LIST as LIST_OF_ALL;

    const LIST: &str = "# rows\nA-048\nK-14\nW-A23\nF06\nR09\nG23\n";

    fn lines_found(text: &str) -> Vec<usize> {
        let file = TextFile {
            path: "crates/a/src/lib.rs".to_owned(),
            text: text.to_owned(),
        };
        let list = Ids::read(LIST);
        list.check_comments(&file.path, &pieces(&file))
            .into_iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn id_that_exists_may_be_named() {
        assert_eq!(
            lines_found("// A-048, W-A23 and K-14 (F06, R09, G23).\n"),
            [0; 0]
        );
    }

    #[test]
    fn id_that_does_not_exist_is_found_on_its_line() {
        let text = "\n// A-999\n//! K-99\n/* one\n W-A99 */\n// F99\n// R99 G99\n";
        assert_eq!(lines_found(text), [2, 3, 5, 6, 7, 7]);
    }

    #[test]
    fn committed_list_holds_every_kind() {
        let ids = Ids::read(LIST_OF_ALL);
        for id in [
            "A-001", "A-188", "B-043", "C-082", "K-54", "W-A55", "W-B15", "W-C18", "F64", "R24",
            "G23",
        ] {
            assert!(ids.0.contains(id), "{id}");
        }
    }
}
