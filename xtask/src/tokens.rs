//! A Rust file as the other rules want it: code, comments and string literals told apart, each with its line and
//! with whether it belongs to tests.
//!
//! The lexer is rustc's own, so a mark inside a string or a comment is never taken for code. There is no parser:
//! "belongs to tests" means a file under `tests/` or `benches/`, a file called `tests.rs`, or the item that follows
//! `#[cfg(test)]` up to its closing brace or semicolon.

use std::collections::BTreeSet;

use ra_ap_rustc_lexer::{FrontmatterAllowed, LiteralKind, TokenKind, tokenize};

use crate::checkout::TextFile;

/// What a piece of a Rust file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PieceKind {
    /// A name or a keyword.
    Word,
    /// One character of punctuation.
    Mark,
    /// A string literal; the text is what stands between the quotes.
    Text,
    /// A comment, documentation included.
    Comment,
    /// A number, a character, a lifetime.
    Other,
}

/// A piece of a Rust file. White space is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) kind: PieceKind,
    pub(crate) text: &'a str,
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) in_tests: bool,
}

/// Splits a Rust file into its pieces.
pub(crate) fn pieces(file: &TextFile) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = file.text.as_str();
    let mut line = 1;
    let whole_file = is_test_file(&file.path);
    for token in tokenize(&file.text, FrontmatterAllowed::No) {
        let length = usize::try_from(token.len).unwrap_or(rest.len());
        let (text, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        if let Some((kind, text)) = classify(token.kind, text) {
            pieces.push(Piece {
                kind,
                text,
                line,
                in_tests: whole_file,
            });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    mark_tests(&mut pieces);
    pieces
}

/// Says whether all of a file is there for tests.
pub(crate) fn is_test_file(path: &str) -> bool {
    path.split('/')
        .any(|part| matches!(part, "tests" | "benches" | "tests.rs" | "e2e"))
}

/// The lines that belong to tests.
pub(crate) fn test_lines(file: &TextFile) -> BTreeSet<usize> {
    let pieces = pieces(file);
    let mut lines = BTreeSet::new();
    let mut previous: Option<usize> = None;
    for piece in &pieces {
        // From the piece before, so that blank lines and the lines of a long literal are counted with it.
        if piece.in_tests {
            lines.extend(previous.unwrap_or(piece.line)..=piece.line);
        }
        previous = piece.in_tests.then_some(piece.line);
    }
    lines
}

fn classify(kind: TokenKind, text: &str) -> Option<(PieceKind, &str)> {
    match kind {
        TokenKind::Whitespace | TokenKind::Frontmatter { .. } | TokenKind::Eof => None,
        TokenKind::LineComment { .. } | TokenKind::BlockComment { .. } => {
            Some((PieceKind::Comment, text))
        }
        TokenKind::Ident | TokenKind::RawIdent => Some((PieceKind::Word, text)),
        TokenKind::Literal {
            kind: LiteralKind::Str { .. } | LiteralKind::RawStr { .. },
            ..
        } => Some((PieceKind::Text, unquoted(text))),
        TokenKind::Literal { .. }
        | TokenKind::Lifetime { .. }
        | TokenKind::RawLifetime
        | TokenKind::InvalidIdent
        | TokenKind::ForcedKeywordIdent
        | TokenKind::UnknownPrefix
        | TokenKind::UnknownPrefixLifetime
        | TokenKind::GuardedStrPrefix
        | TokenKind::Unknown => Some((PieceKind::Other, text)),
        TokenKind::Semi
        | TokenKind::Comma
        | TokenKind::Dot
        | TokenKind::OpenParen
        | TokenKind::CloseParen
        | TokenKind::OpenBrace
        | TokenKind::CloseBrace
        | TokenKind::OpenBracket
        | TokenKind::CloseBracket
        | TokenKind::At
        | TokenKind::Pound
        | TokenKind::Tilde
        | TokenKind::Question
        | TokenKind::Colon
        | TokenKind::Dollar
        | TokenKind::Eq
        | TokenKind::Bang
        | TokenKind::Lt
        | TokenKind::Gt
        | TokenKind::Minus
        | TokenKind::And
        | TokenKind::Or
        | TokenKind::Plus
        | TokenKind::Star
        | TokenKind::Slash
        | TokenKind::Caret
        | TokenKind::Percent => Some((PieceKind::Mark, text)),
    }
}

/// The inside of `"…"` or `r#"…"#`.
fn unquoted(literal: &str) -> &str {
    literal
        .trim_start_matches('r')
        .trim_matches('#')
        .trim_matches('"')
}

/// Marks each item that follows `#[cfg(test)]`.
fn mark_tests(pieces: &mut [Piece<'_>]) {
    let mut at = 0;
    while at < pieces.len() {
        if !is_test_attribute(&pieces[at..]) {
            at += 1;
            continue;
        }
        let end = end_of_item(pieces, at);
        for piece in &mut pieces[at..end] {
            piece.in_tests = true;
        }
        at = end;
    }
}

/// `#[cfg(test)]`, and `#[cfg(all(test, …))]`.
fn is_test_attribute(pieces: &[Piece<'_>]) -> bool {
    let starts = ["#", "[", "cfg", "("];
    let begins = pieces
        .iter()
        .zip(starts)
        .filter(|(piece, text)| piece.text == *text)
        .count()
        == starts.len();
    begins
        && pieces
            .iter()
            .take_while(|piece| piece.text != "]")
            .any(|piece| piece.kind == PieceKind::Word && piece.text == "test")
        && !pieces
            .iter()
            .take_while(|piece| piece.text != "]")
            .any(|piece| piece.text == "not")
}

/// The index behind the closing brace, or the semicolon, of the item that starts at `from`.
fn end_of_item(pieces: &[Piece<'_>], from: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, piece) in pieces[from..].iter().enumerate() {
        if piece.kind != PieceKind::Mark {
            continue;
        }
        match piece.text {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return from + offset + 1;
                }
            }
            ";" if depth == 0 => return from + offset + 1,
            _ => {}
        }
    }
    pieces.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, kind: PieceKind) -> Vec<(String, usize, bool)> {
        let file = TextFile {
            path: "crates/a/src/lib.rs".to_owned(),
            text: text.to_owned(),
        };
        let pieces = pieces(&file);
        pieces
            .iter()
            .filter(|piece| piece.kind == kind)
            .map(|piece| (piece.text.to_owned(), piece.line, piece.in_tests))
            .collect()
    }

    #[test]
    fn strings_comments_and_code_are_told_apart() {
        let text = "// one \"x\"\nlet a = \"b // c\";\nlet d = r#\"e \"f\" g\"#; /* h\n */ 'i'";
        let strings = texts(text, PieceKind::Text);
        assert_eq!(
            strings,
            [
                ("b // c".to_owned(), 2, false),
                ("e \"f\" g".to_owned(), 3, false)
            ]
        );
        let comments = texts(text, PieceKind::Comment);
        assert_eq!(
            comments.iter().map(|comment| comment.1).collect::<Vec<_>>(),
            [1, 3]
        );
    }

    #[test]
    fn item_behind_cfg_test_belongs_to_tests_and_the_next_does_not() {
        let text = "\"a\";\n#[cfg(test)]\nmod tests { fn f() { \"b\"; } }\nfn g() { \"c\"; }\n#[cfg(not(test))]\nfn h() { \"d\"; }";
        let in_tests: Vec<bool> = texts(text, PieceKind::Text)
            .iter()
            .map(|text| text.2)
            .collect();
        assert_eq!(in_tests, [false, true, false, false]);
    }

    #[test]
    fn lines_of_tests_are_those_of_their_items() {
        let text = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n\n    fn b() {}\n}\n\nfn c() {}\n";
        let file = TextFile {
            path: "crates/a/src/lib.rs".to_owned(),
            text: text.to_owned(),
        };
        assert_eq!(
            test_lines(&file).into_iter().collect::<Vec<_>>(),
            [3, 4, 5, 6, 7]
        );
    }

    #[test]
    fn declared_test_module_ends_at_its_semicolon() {
        let text = "#[cfg(test)]\nmod tests;\nfn g() { \"c\"; }";
        assert_eq!(texts(text, PieceKind::Text), [("c".to_owned(), 3, false)]);
    }
}
