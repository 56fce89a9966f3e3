//! Changing the server of one cluster in the text of a kubeconfig, and not a byte beside it.
//!
//! Where the values stand is told by the parser. What comes of an edit is read again, and counts only if it says what the old
//! text said with these two fields changed: a text in which the edit would mean more (an anchor that others use, an odd
//! layout) is refused, not guessed at.

use std::ops::Range;

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::first_line;

const SERVER: &str = "server";
const NAME: &str = "tls-server-name";

/// What a cluster is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) server: &'a str,
    /// None leaves it as it is.
    pub(crate) tls_server_name: Option<&'a str>,
}

/// What a cluster has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Has {
    pub(crate) server: String,
    pub(crate) tls_server_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Text {
    #[serde(default)]
    clusters: Option<Vec<Named>>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: Spanned<String>,
    tls_server_name: Option<Spanned<String>>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

/// What the cluster has now.
///
/// # Errors
/// It is not there, twice there, or not verified.
pub(crate) fn has(text: &str, cluster: &str) -> Result<Has, String> {
    let (_, found) = find(text, cluster)?;
    Ok(Has {
        server: found.server.value,
        tls_server_name: found.tls_server_name.map(|name| name.value),
    })
}

/// The text with what is wanted; the same where it has it already.
///
/// # Errors
/// As [`has`], or the text cannot be changed in these two fields only.
pub(crate) fn edited(text: &str, wanted: Wanted<'_>) -> Result<String, String> {
    let (index, cluster) = find(text, wanted.cluster)?;
    let mut expected = value(text)?;
    {
        let fields = expected
            .pointer_mut(&format!("/clusters/{index}/cluster"))
            .and_then(Value::as_object_mut)
            .ok_or("its clusters are not written as a list")?;
        fields.insert(SERVER.to_owned(), wanted.server.into());
        if let Some(name) = wanted.tls_server_name {
            fields.insert(NAME.to_owned(), name.into());
        }
    }
    let mut changes = Vec::new();
    let server = span(text, &cluster.server)?;
    if cluster.server.value != wanted.server {
        changes.push((server.clone(), scalar(text, &server, wanted.server)));
    }
    let mut ways = vec![changes.clone()];
    if let Some(name) = wanted.tls_server_name {
        match &cluster.tls_server_name {
            Some(old) if old.value == name => {}
            Some(old) => {
                let at = span(text, old)?;
                let new = scalar(text, &at, name);
                ways = vec![[changes, vec![(at, new)]].concat()];
            }
            None => {
                ways = [line_below(text, &server, name), behind(text, &server, name)]
                    .into_iter()
                    .flatten()
                    .map(|added| [changes.clone(), vec![added]].concat())
                    .collect();
            }
        }
    }
    let results = ways.into_iter().map(|changes| changed(text, changes));
    let mut right = results.filter(|new| value(new).is_ok_and(|new| new == expected));
    right.next().ok_or_else(|| {
        format!(
            "the server of the cluster '{}' cannot be changed without changing more",
            wanted.cluster
        )
    })
}

fn find(text: &str, name: &str) -> Result<(usize, Cluster), String> {
    let parsed: Text =
        serde_saphyr::from_str(text).map_err(|error| first_line(&error.to_string()))?;
    let clusters = parsed.clusters.into_iter().flatten().enumerate();
    let mut found = clusters.filter(|(_, known)| known.name == name);
    let Some((index, Named { cluster, .. })) = found.next() else {
        return Err(format!("it has no cluster '{name}'"));
    };
    if found.next().is_some() {
        return Err(format!("it has two clusters '{name}'"));
    }
    if cluster.insecure_skip_tls_verify {
        return Err(format!(
            "the cluster '{name}' has insecure-skip-tls-verify, so no name of it is verified"
        ));
    }
    Ok((index, cluster))
}

fn value(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| first_line(&error.to_string()))
}

/// Where a scalar stands, with its quotes.
fn span(text: &str, scalar: &Spanned<String>) -> Result<Range<usize>, String> {
    let odd = || "where its server stands cannot be told".to_owned();
    let span = scalar.defined.span();
    let (Some(start), Some(length)) = (span.byte_offset(), span.byte_len()) else {
        return Err(odd());
    };
    let start = usize::try_from(start).map_err(|_| odd())?;
    let length = usize::try_from(length).map_err(|_| odd())?;
    let whole = text.get(start..start + length).ok_or_else(odd)?;
    Ok(start..start + whole.trim_end().len())
}

/// A value, quoted as the old one was.
fn scalar(text: &str, old: &Range<usize>, new: &str) -> String {
    let old = text.get(old.clone()).unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:/".contains(&byte);
    match old.chars().next() {
        Some('\'') => format!("'{new}'"),
        Some('"') => format!("\"{new}\""),
        Some(_) | None if new.bytes().all(is_plain) => new.to_owned(),
        Some(_) | None => format!("\"{new}\""),
    }
}

type Change = (Range<usize>, String);

/// A line of its own below that of the server, as a block has it.
fn line_below(text: &str, server: &Range<usize>, name: &str) -> Option<Change> {
    let line = text.get(..server.start)?.rfind('\n').map_or(0, |at| at + 1);
    let before = text.get(line..server.start)?;
    let key = before.trim_start();
    let indent = before.get(..before.len() - key.len())?;
    let rest = text.get(server.end..)?;
    let (end, line_end) = match rest.find('\n') {
        Some(at) if rest.get(..at)?.ends_with('\r') => (server.end + at - 1, "\r\n"),
        Some(at) => (server.end + at, "\n"),
        None => (text.len(), "\n"),
    };
    let value = scalar(text, server, name);
    Some((end..end, format!("{line_end}{indent}{NAME}: {value}")))
}

/// Behind the server, between braces: on its line, or in JSON that is indented on one of its own.
fn behind(text: &str, server: &Range<usize>, name: &str) -> Option<Change> {
    let line = text.get(..server.start)?.rfind('\n').map_or(0, |at| at + 1);
    let before = text.get(line..server.start)?;
    let key = before.trim_start();
    let begins_line = key.starts_with(SERVER) || key.starts_with("\"server\"");
    let lead = if begins_line {
        let indent = before.get(..before.len() - key.len())?;
        format!(",\n{indent}")
    } else {
        ", ".to_owned()
    };
    let quote = if before.trim_end().ends_with("\":") {
        "\""
    } else {
        ""
    };
    let value = scalar(text, server, name);
    let added = format!("{lead}{quote}{NAME}{quote}: {value}");
    Some((server.end..server.end, added))
}

fn changed(text: &str, mut changes: Vec<Change>) -> String {
    let mut new = text.to_owned();
    // From the end, so that what stands before keeps its place.
    changes.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    for (range, with) in changes {
        new.replace_range(range, &with);
    }
    new
}

#[cfg(test)]
mod tests;
