//! Documents in two languages: a page in English has a twin in Japanese, and the twin says which English text it was
//! written from.
//!
//! `README.md` belongs to `README.ja.md`, `docs/PAGE.md` to `docs/ja/PAGE.md`. Generated pages and decision records
//! (`docs/adr/`) have no twin. The twin's first line is `<!-- english: HASH -->`, where HASH is what `git hash-object`
//! prints for the English page; when that page changes, the twin is stale until a person has updated it and run
//! `cargo xtask tidy --accept-twins`. Because the hash is git's own, `git diff HASH PAGE` shows what is new.
//!
//! Nothing here can tell whether the translation is right.

use std::collections::BTreeMap;

use super::Finding;
use crate::generate;

const RULE: &str = "twin";

const STAMP_OPENS: &str = "<!-- english: ";
const STAMP_CLOSES: &str = " -->";

/// A Markdown page as this rule sees it.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) path: &'a str,
    pub(super) text: &'a str,
    /// What `git hash-object` prints for it.
    pub(super) hash: &'a str,
    /// The shell commands that it shows.
    pub(super) commands: Vec<String>,
}

/// A twin whose stamp must be written anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamped {
    pub(super) path: String,
    pub(super) text: String,
}

/// Checks all Markdown pages.
pub(super) fn check(pages: &[Page<'_>]) -> Vec<Finding> {
    let by_path: BTreeMap<&str, &Page<'_>> = pages.iter().map(|page| (page.path, page)).collect();
    let finding = |path: &str, advice: String| Finding {
        path: path.to_owned(),
        line: 1,
        rule: RULE,
        advice,
    };
    let mut findings = Vec::new();
    for page in pages {
        if let Some(english) = english_of(page.path) {
            if !by_path.contains_key(english.as_str()) {
                findings.push(finding(
                    page.path,
                    format!("its English page {english} is gone: delete it, or rename it too"),
                ));
            }
            continue;
        }
        let Some(japanese) = japanese_of(page) else {
            continue;
        };
        let Some(twin) = by_path.get(japanese.as_str()) else {
            findings.push(finding(
                page.path,
                format!("write its Japanese twin, {japanese}"),
            ));
            continue;
        };
        if let Some(command) = first_difference(&page.commands, &twin.commands) {
            let advice = format!(
                "its shell blocks differ from those of {}, first at '{command}'",
                page.path
            );
            findings.push(finding(twin.path, advice));
        }
        match stamp_of(twin.text) {
            Some(hash) if hash == page.hash => {}
            Some(hash) => findings.push(finding(
                twin.path,
                format!(
                    "{} changed since this was written ('git diff {hash} {}' shows how): update it, \
                     then run 'cargo xtask tidy --accept-twins {}'",
                    page.path, page.path, twin.path
                ),
            )),
            None => findings.push(finding(
                twin.path,
                format!("say which English text it was written from: 'cargo xtask tidy --accept-twins {}'", twin.path),
            )),
        }
    }
    findings
}

/// The twins whose stamp differs from their English page, with the stamp written anew.
pub(super) fn accept(pages: &[Page<'_>]) -> Vec<Stamped> {
    let by_path: BTreeMap<&str, &Page<'_>> = pages.iter().map(|page| (page.path, page)).collect();
    let mut stamped = Vec::new();
    for page in pages {
        let Some(english) =
            english_of(page.path).and_then(|path| by_path.get(path.as_str()).copied())
        else {
            continue;
        };
        let old = stamp_of(page.text);
        if old == Some(english.hash) {
            continue;
        }
        let body = match old {
            Some(_) => page.text.split_once('\n').map_or("", |(_, body)| body),
            None => page.text,
        };
        let text = format!("{STAMP_OPENS}{}{STAMP_CLOSES}\n{body}", english.hash);
        stamped.push(Stamped {
            path: page.path.to_owned(),
            text,
        });
    }
    stamped
}

/// The first command that one page shows and the other does not show at that place. Only the English blocks are run,
/// so the twin's must be the same.
fn first_difference<'a>(english: &'a [String], japanese: &'a [String]) -> Option<&'a str> {
    let length = english.len().max(japanese.len());
    let at = (0..length).find(|at| english.get(*at) != japanese.get(*at))?;
    english
        .get(at)
        .or_else(|| japanese.get(at))
        .map(String::as_str)
}

/// Where the twin of an English page belongs; nothing for a page without one.
fn japanese_of(page: &Page<'_>) -> Option<String> {
    if page.text.starts_with(generate::MARK) {
        return None;
    }
    if page.path == "README.md" {
        return Some("README.ja.md".to_owned());
    }
    let below_docs = page.path.strip_prefix("docs/")?;
    (!below_docs.starts_with("adr/")).then(|| format!("docs/ja/{below_docs}"))
}

/// The English page of a Japanese twin; nothing for any other page.
fn english_of(path: &str) -> Option<String> {
    if path == "README.ja.md" {
        return Some("README.md".to_owned());
    }
    path.strip_prefix("docs/ja/")
        .map(|below| format!("docs/{below}"))
}

fn stamp_of(text: &str) -> Option<&str> {
    text.lines()
        .next()?
        .strip_prefix(STAMP_OPENS)?
        .strip_suffix(STAMP_CLOSES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page<'a>(path: &'a str, text: &'a str, hash: &'a str) -> Page<'a> {
        let commands = crate::docs::commands(&crate::markdown::Page::read(text));
        Page {
            path,
            text,
            hash,
            commands,
        }
    }

    fn paths_found(pages: &[Page<'_>]) -> Vec<String> {
        check(pages)
            .into_iter()
            .map(|finding| finding.path)
            .collect()
    }

    #[test]
    fn twin_of_the_present_text_is_accepted() {
        let pages = [
            page("README.md", "# Nagi\n", "aa"),
            page("README.ja.md", "<!-- english: aa -->\n# Nagi\n", "bb"),
            page("docs/local-engine.md", "# Local\n", "cc"),
            page("docs/ja/local-engine.md", "<!-- english: cc -->\n", "dd"),
        ];
        assert_eq!(paths_found(&pages), [""; 0]);
    }

    #[test]
    fn page_without_a_twin_is_found() {
        assert_eq!(
            paths_found(&[page("docs/guides/a.md", "# A\n", "aa")]),
            ["docs/guides/a.md"]
        );
    }

    #[test]
    fn stale_or_missing_stamp_is_found_at_the_twin() {
        for text in ["<!-- english: old -->\n# N\n", "# N\n"] {
            let pages = [
                page("README.md", "# Nagi\n", "aa"),
                page("README.ja.md", text, "bb"),
            ];
            assert_eq!(paths_found(&pages), ["README.ja.md"], "{text}");
        }
    }

    #[test]
    fn twin_with_other_commands_is_found() {
        let twin = "<!-- english: aa -->\n```sh\nnagi lst # 一覧\n```\n";
        let pages = |english| {
            [
                page("README.md", english, "aa"),
                page("README.ja.md", twin, "bb"),
            ]
        };
        assert_eq!(
            paths_found(&pages("```sh\nnagi lst # all of them\n```\n")),
            [""; 0]
        );
        assert_eq!(
            paths_found(&pages("```sh\nnagi list\n```\n")),
            ["README.ja.md"]
        );
        assert_eq!(paths_found(&pages("")), ["README.ja.md"]);
    }

    #[test]
    fn twin_whose_page_is_gone_is_found() {
        assert_eq!(
            paths_found(&[page("docs/ja/a.md", "<!-- english: aa -->\n", "bb")]),
            ["docs/ja/a.md"]
        );
    }

    #[test]
    fn generated_pages_records_and_other_places_have_no_twin() {
        let pages = [
            page(
                "docs/cli.md",
                "<!-- generated by cargo xtask gen -->\n",
                "aa",
            ),
            page("docs/adr/0001-one-binary.md", "# One binary\n", "bb"),
            page("CONTRIBUTING.md", "# Contributing\n", "cc"),
        ];
        assert_eq!(paths_found(&pages), [""; 0]);
    }

    #[test]
    fn accepting_writes_the_stamp_and_keeps_the_text() {
        let pages = [
            page("README.md", "# Nagi\n", "aa"),
            page("README.ja.md", "<!-- english: old -->\n# Nagi\n", "bb"),
            page("docs/a.md", "# A\n", "cc"),
            page("docs/ja/a.md", "# A\n", "dd"),
            page("docs/b.md", "# B\n", "ee"),
            page("docs/ja/b.md", "<!-- english: ee -->\n# B\n", "ff"),
        ];
        let stamped: Vec<(String, String)> = accept(&pages)
            .into_iter()
            .map(|twin| (twin.path, twin.text))
            .collect();
        let expected = [
            (
                "README.ja.md".to_owned(),
                "<!-- english: aa -->\n# Nagi\n".to_owned(),
            ),
            (
                "docs/ja/a.md".to_owned(),
                "<!-- english: cc -->\n# A\n".to_owned(),
            ),
        ];
        assert_eq!(stamped, expected);
    }
}
