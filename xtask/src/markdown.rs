//! A Markdown page as the checks want it: headings, links, code blocks and comments, each with its line.
//!
//! The parser is a library; what is ours is the anchor that a heading gets on the forges that render these pages.

use std::collections::{BTreeMap, BTreeSet};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// What a page holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Links and images.
    pub(crate) links: Vec<Link>,
    /// What may stand behind `#` in a link to this page.
    pub(crate) anchors: BTreeSet<String>,
    /// Code blocks with fences, and comments, in order.
    pub(crate) parts: Vec<Part>,
}

/// A link or an image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) target: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// A part of a page that the runner of code blocks looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// A code block between fences.
    Code {
        /// What stands behind the opening fence.
        info: String,
        text: String,
        /// The line of the opening fence, counted from 1.
        line: usize,
    },
    /// An HTML comment, without its marks.
    Comment { text: String, line: usize },
    /// Anything else that a reader sees.
    Prose,
}

// === impl Page ===

impl Page {
    /// Reads a page.
    pub(crate) fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut headings = Headings::default();
        let lines = LineStarts::of(text);
        let mut heading: Option<String> = None;
        let mut code: Option<(String, usize, String)> = None;
        let mut html: Option<(usize, String)> = None;
        let options =
            Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_STRIKETHROUGH;
        for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
            let line = lines.line_at(range.start);
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(Link {
                        target: dest_url.into_string(),
                        line,
                    });
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    if let Some(words) = heading.take() {
                        page.anchors.insert(headings.anchor(&words));
                    }
                    page.prose();
                }
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                    code = Some((info.into_string(), line, String::new()));
                }
                Event::End(TagEnd::CodeBlock) => {
                    if let Some((info, line, text)) = code.take() {
                        page.parts.push(Part::Code { info, text, line });
                    }
                }
                Event::Text(words) | Event::Code(words) => {
                    if let Some((_, _, text)) = &mut code {
                        text.push_str(&words);
                    } else if let Some(heading) = &mut heading {
                        heading.push_str(&words);
                    } else {
                        page.prose();
                    }
                }
                Event::Start(Tag::HtmlBlock) => html = Some((line, String::new())),
                Event::Html(words) => match &mut html {
                    Some((_, block)) => block.push_str(&words),
                    None => page.html(&words, line),
                },
                Event::InlineHtml(words) => page.html(&words, line),
                Event::End(TagEnd::HtmlBlock) => {
                    if let Some((line, block)) = html.take() {
                        page.html(&block, line);
                    }
                }
                Event::Start(_)
                | Event::End(_)
                | Event::InlineMath(_)
                | Event::DisplayMath(_)
                | Event::FootnoteReference(_)
                | Event::SoftBreak
                | Event::HardBreak
                | Event::Rule
                | Event::TaskListMarker(_) => {}
            }
        }
        page
    }

    fn prose(&mut self) {
        if self.parts.last() != Some(&Part::Prose) {
            self.parts.push(Part::Prose);
        }
    }

    fn html(&mut self, html: &str, line: usize) {
        let comment = html
            .trim()
            .strip_prefix("<!--")
            .and_then(|rest| rest.split_once("-->"));
        if let Some((comment, _)) = comment {
            self.parts.push(Part::Comment {
                text: comment.trim().to_owned(),
                line,
            });
            return;
        }
        for name in ["href", "src"] {
            for target in attributes(html, name) {
                self.links.push(Link {
                    target: target.to_owned(),
                    line,
                });
            }
        }
        for name in ["id", "name"] {
            self.anchors
                .extend(attributes(html, name).map(str::to_owned));
        }
        self.prose();
    }
}

/// The values of an attribute in a piece of HTML.
fn attributes<'a>(html: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let opens = format!(" {name}=\"");
    let mut parts = Vec::new();
    for (at, matched) in html.match_indices(&opens) {
        let value = html
            .get(at + matched.len()..)
            .and_then(|rest| rest.split_once('"'));
        parts.extend(value.map(|(value, _)| value));
    }
    parts.into_iter()
}

/// Anchors of headings: lower case, blanks as dashes, no punctuation, a number behind a repeated one.
#[derive(Debug, Default)]
struct Headings(BTreeMap<String, usize>);

impl Headings {
    fn anchor(&mut self, words: &str) -> String {
        let mut anchor = String::new();
        for letter in words.trim().chars() {
            if letter.is_alphanumeric() || matches!(letter, '-' | '_') {
                anchor.extend(letter.to_lowercase());
            } else if letter == ' ' {
                anchor.push('-');
            }
        }
        let seen = self.0.entry(anchor.clone()).or_default();
        *seen += 1;
        if *seen > 1 {
            format!("{anchor}-{}", *seen - 1)
        } else {
            anchor
        }
    }
}

/// Turns offsets into line numbers.
struct LineStarts(Vec<usize>);

impl LineStarts {
    fn of(text: &str) -> Self {
        Self(
            std::iter::once(0)
                .chain(text.match_indices('\n').map(|(at, _)| at + 1))
                .collect(),
        )
    }

    fn line_at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_with_their_lines_but_not_in_code() {
        let page = Page::read(
            "# T\n\n[a](b.md) and ![c](d.png)\n\n`[x](y)`\n\n```sh\n[e](f)\n```\n<img src=\"g.svg\">\n",
        );
        let found: Vec<(&str, usize)> = page
            .links
            .iter()
            .map(|link| (link.target.as_str(), link.line))
            .collect();
        assert_eq!(found, [("b.md", 3), ("d.png", 3), ("g.svg", 10)]);
    }

    #[test]
    fn anchors_are_those_of_the_forges() {
        let page = Page::read(
            "# What it does, and why\n## `nagi all`\n## 使い方\n## 使い方\n<a id=\"here\"></a>\n",
        );
        for anchor in [
            "what-it-does-and-why",
            "nagi-all",
            "使い方",
            "使い方-1",
            "here",
        ] {
            assert!(
                page.anchors.contains(anchor),
                "{anchor} in {:?}",
                page.anchors
            );
        }
    }

    #[test]
    fn code_blocks_and_comments_keep_their_order() {
        let page = Page::read(
            "<!-- not-run: needs a cluster -->\n```sh\na\nb\n```\n\nText.\n\n```text\nc\n```\n",
        );
        let expected = [
            Part::Comment {
                text: "not-run: needs a cluster".to_owned(),
                line: 1,
            },
            Part::Code {
                info: "sh".to_owned(),
                text: "a\nb\n".to_owned(),
                line: 2,
            },
            Part::Prose,
            Part::Code {
                info: "text".to_owned(),
                text: "c\n".to_owned(),
                line: 9,
            },
        ];
        assert_eq!(page.parts, expected);
    }
}
