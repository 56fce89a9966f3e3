//! Every relative link in Markdown leads to a file of the repository, and its anchor to a heading there.
//!
//! A link that begins with `/` starts at the root of the repository. Links to the outside are not followed: that
//! would make a check depend on other people's machines. Proves as far as paths go.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use crate::markdown::{Link, Page};

const RULE: &str = "link";

/// Checks the links of all pages against all paths of the working copy.
pub(super) fn check(pages: &BTreeMap<&str, Page>, paths: &[String]) -> Vec<Finding> {
    let places = places(paths);
    let mut findings = Vec::new();
    for (path, page) in pages {
        for link in &page.links {
            if let Some(advice) = broken(path, link, pages, &places) {
                findings.push(Finding {
                    path: (*path).to_owned(),
                    line: link.line,
                    rule: RULE,
                    advice,
                });
            }
        }
    }
    findings
}

/// All files, and the directories that hold them.
fn places(paths: &[String]) -> BTreeSet<&str> {
    let mut places = BTreeSet::from([""]);
    for path in paths {
        places.insert(path);
        places.extend(path.match_indices('/').filter_map(|(at, _)| path.get(..at)));
    }
    places
}

fn broken(
    path: &str,
    link: &Link,
    pages: &BTreeMap<&str, Page>,
    places: &BTreeSet<&str>,
) -> Option<String> {
    if leads_outside(&link.target) {
        return None;
    }
    let (target, anchor) = match link.target.split_once('#') {
        Some((target, anchor)) => (target, Some(anchor)),
        None => (link.target.as_str(), None),
    };
    let Some(resolved) = resolve(path, target) else {
        return Some(format!("'{}' leads out of the repository", link.target));
    };
    if !places.contains(resolved.as_str()) {
        return Some(format!(
            "there is no '{resolved}': correct the link '{}'",
            link.target
        ));
    }
    let anchor = anchor.filter(|anchor| !anchor.is_empty())?;
    let page = pages.get(resolved.as_str())?;
    let missing = !page.anchors.contains(&decoded(anchor));
    missing.then(|| format!("'{resolved}' has no heading '#{anchor}'"))
}

fn leads_outside(target: &str) -> bool {
    let scheme = target.split_once(':').map(|(scheme, _)| scheme);
    target.starts_with("//")
        || scheme.is_some_and(|scheme| {
            !scheme.is_empty() && scheme.chars().all(|letter| letter.is_ascii_alphanumeric())
        })
}

/// The path that a link on the page `from` means, from the root; nothing when it climbs above the root.
fn resolve(from: &str, target: &str) -> Option<String> {
    if target.is_empty() {
        return Some(from.to_owned());
    }
    let decoded = decoded(target);
    let mut parts: Vec<&str> = Vec::new();
    if !decoded.starts_with('/') {
        parts.extend(from.split('/'));
        parts.pop();
    }
    for part in decoded.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex
            .filter(|_| *first == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() {
            after.get(2..).unwrap_or_default()
        } else {
            after
        };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_found(text: &str) -> Vec<usize> {
        let paths: Vec<String> = [
            "README.md",
            "docs/a.md",
            "docs/ja/a.md",
            "docs/img/b.svg",
            "LICENSE",
        ]
        .iter()
        .map(|path| (*path).to_owned())
        .collect();
        let pages = BTreeMap::from([
            ("docs/a.md", Page::read(text)),
            (
                "README.md",
                Page::read("# Nagi\n## First start\n## 最初の起動\n"),
            ),
        ]);
        check(&pages, &paths)
            .into_iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn link_to_a_file_a_directory_or_a_heading_holds() {
        for target in [
            "../README.md",
            "../README.md#first-start",
            "ja/a.md",
            "img",
            "img/b.svg",
            "/LICENSE",
            "#here",
            "../README.md#%E6%9C%80%E5%88%9D%E3%81%AE%E8%B5%B7%E5%8B%95",
            "https://example.com/x",
            "mailto:a@example.com",
            "..",
        ] {
            assert_eq!(
                lines_found(&format!("# Here\n[x]({target})\n")),
                [0; 0],
                "{target}"
            );
        }
    }

    #[test]
    fn link_that_leads_nowhere_is_found() {
        for target in [
            "b.md",
            "../README.md#second-start",
            "#there",
            "/docs/b.md",
            "../../x.md",
            "README.md",
        ] {
            assert_eq!(
                lines_found(&format!("# Here\n[x]({target})\n")),
                [2],
                "{target}"
            );
        }
    }
}
