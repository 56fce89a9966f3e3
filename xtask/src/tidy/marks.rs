//! Nothing unfinished and no test that is switched off: `TODO` only with an issue, no `todo!`, `unimplemented!` or
//! `dbg!`, no `#[ignore]`, no `#[should_panic]`.
//!
//! A `TODO` in backticks is talk about the word and is left alone.

use super::Finding;
use crate::tokens::{Piece, PieceKind};

const RULE: &str = "unfinished";

/// Checks the pieces of one Rust file.
pub(super) fn check(path: &str, pieces: &[Piece<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |line: usize, advice: &str| {
        findings.push(Finding {
            path: path.to_owned(),
            line,
            rule: RULE,
            advice: advice.to_owned(),
        });
    };
    for (at, piece) in pieces.iter().enumerate() {
        let behind = |offset: usize| pieces.get(at + offset).map_or("", |piece| piece.text);
        match (piece.kind, piece.text) {
            (PieceKind::Comment, text) => {
                for offset in unfinished_lines(text) {
                    found(
                        piece.line + offset,
                        "name the issue, as in `TODO(#123): …`, or do it now",
                    );
                }
            }
            (PieceKind::Word, "todo" | "unimplemented" | "dbg") if behind(1) == "!" => {
                found(piece.line, "finish it: this macro must not be committed");
            }
            (PieceKind::Mark, "#") if behind(1) == "[" && behind(2) == "ignore" => {
                found(
                    piece.line,
                    "run the test or delete it: `#[ignore]` hides what is broken",
                );
            }
            (PieceKind::Mark, "#") if behind(1) == "[" && behind(2) == "should_panic" => {
                found(
                    piece.line,
                    "assert on the error: `#[should_panic]` accepts any panic",
                );
            }
            (PieceKind::Word, "cfg_attr")
                if attribute_has(&pieces[at..], &["ignore", "should_panic"]) =>
            {
                found(piece.line, "run the test or delete it, on every platform");
            }
            _ => {}
        }
    }
    findings
}

fn attribute_has(pieces: &[Piece<'_>], words: &[&str]) -> bool {
    pieces
        .iter()
        .take_while(|piece| piece.text != "]")
        .any(|piece| piece.kind == PieceKind::Word && words.contains(&piece.text))
}

/// The lines of a comment, counted from 0, that mark something as unfinished without an issue.
fn unfinished_lines(comment: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    for (index, line) in comment.lines().enumerate() {
        // What stands between backticks has an odd number in this split.
        let prose: Vec<&str> = line.split('`').step_by(2).collect();
        let unfinished = prose.iter().any(|part| {
            ["TODO", "FIXME", "XXX"].iter().any(|mark| {
                part.match_indices(mark)
                    .any(|(at, _)| is_word(part, at, mark.len()) && !has_issue(part, at, mark))
            })
        });
        if unfinished {
            lines.push(index);
        }
    }
    lines
}

fn is_word(text: &str, at: usize, length: usize) -> bool {
    let part = |character: char| character.is_alphanumeric() || character == '_';
    let before = text.get(..at).and_then(|text| text.chars().next_back());
    let after = text.get(at + length..).and_then(|text| text.chars().next());
    !before.is_some_and(part) && !after.is_some_and(part)
}

fn has_issue(text: &str, at: usize, mark: &str) -> bool {
    let after = text.get(at + mark.len()..).unwrap_or_default();
    let Some((number, _)) = after
        .strip_prefix("(#")
        .and_then(|after| after.split_once(')'))
    else {
        return false;
    };
    mark == "TODO" && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkout::TextFile;
    use crate::tokens::pieces;

    fn lines_found(text: &str) -> Vec<usize> {
        let file = TextFile {
            path: "crates/a/src/lib.rs".to_owned(),
            text: text.to_owned(),
        };
        check(&file.path, &pieces(&file))
            .into_iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn todo_needs_an_issue() {
        assert_eq!(
            lines_found("// TODO(#12): wake dependencies\n// TODOS and `TODO` are words\n"),
            [0; 0]
        );
        assert_eq!(
            lines_found(
                "\n// TODO: later\n/* a\n FIXME */\n// XXX\n// TODO(me): x\n// TODO(#): x\n"
            ),
            [2, 4, 5, 6, 7]
        );
    }

    #[test]
    fn macro_that_stands_for_missing_code_is_found() {
        assert_eq!(
            lines_found(
                "fn a() { todo!() }\nfn b() { unimplemented!(\"x\") }\nfn c() { dbg!(1); }"
            ),
            [1, 2, 3]
        );
        assert_eq!(lines_found("// todo!()\nlet todo = \"dbg!()\";\n"), [0; 0]);
    }

    #[test]
    fn switched_off_test_is_found() {
        assert_eq!(
            lines_found("#[ignore]\n#[ignore = \"slow\"]\n#[should_panic(expected = \"x\")]\n"),
            [1, 2, 3]
        );
        assert_eq!(
            lines_found("#[cfg_attr(windows, ignore)]\nfn a() {}\n"),
            [1]
        );
        assert_eq!(
            lines_found("\"#[ignore]\"; // #[ignore]\n#[must_use]\n"),
            [0; 0]
        );
    }
}
