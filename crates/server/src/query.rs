//! Query parameters: known ones are checked, each may stand once; unknown ones are refused. A list with a misspelled filter
//! would show everything, a write with a misspelled `dry_run` would do the real thing.

use std::fmt;
use std::str::FromStr;

use axum::http::Uri;

use crate::path::decoded;
use crate::problem::Problem;

/// Most parameters of a query; the head's limit allows thousands, no caller needs more than ten.
const PARAMETERS_MAX: usize = 64;

/// The one parameter of a write (R13).
pub(crate) const DRY_RUN: &str = "dry_run";
/// How fresh a read must be (DESIGN §5).
pub(crate) const MIN_RESOURCE_VERSION: &str = "min_resource_version";
/// Most characters of an unknown name that are said back.
const NAME_CHARS_MAX: usize = 64;

/// The parameters of one request, decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads the query of a URI.
    pub(crate) fn of(uri: &Uri) -> Result<Self, Problem> {
        let text = uri.query().unwrap_or_default();
        let malformed = || {
            Problem::parameter(
                "query",
                "is malformed",
                "name=value pairs, percent-encoded UTF-8, at most 64",
            )
        };
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plain = |text: &str| {
                let spaced = text.replace('+', " ");
                decoded(&spaced).map(std::borrow::Cow::into_owned)
            };
            let (Some(name), Some(value)) = (plain(name), plain(value)) else {
                return Err(malformed());
            };
            pairs.push((name, value));
            if pairs.len() > PARAMETERS_MAX {
                return Err(malformed());
            }
        }
        Ok(Self { pairs })
    }

    /// Refuses every parameter but these.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Problem> {
        let unknown = self
            .pairs
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()));
        match unknown {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(NAME_CHARS_MAX).collect();
                let limit = if known.is_empty() {
                    "no parameter".to_owned()
                } else {
                    format!("one of: {}", known.join(", "))
                };
                Err(Problem::parameter(&name, "is not known here", &limit))
            }
        }
    }

    /// The value of a parameter that may stand once.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(Problem::parameter(
                name,
                "stands twice",
                "at most one value",
            ));
        }
        Ok(first)
    }

    /// Every value of a parameter that may stand more than once.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// `true` or `false`; left out is `false`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::parameter(
                name,
                "must be true or false",
                "true or false",
            )),
        }
    }

    /// A whole number within bounds.
    pub(crate) fn number<T>(&self, name: &str, least: T, most: T) -> Result<Option<T>, Problem>
    where
        T: FromStr + PartialOrd + fmt::Display + Copy,
    {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse::<T>().ok().filter(|_| plain);
        let limit = format!("a whole number from {least} to {most}");
        number
            .filter(|number| *number >= least && *number <= most)
            .map(Some)
            .ok_or_else(|| Problem::parameter(name, format_args!("must be {limit}"), &limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/x?{text}").parse().unwrap()).unwrap()
    }

    #[test]
    fn parameters_are_decoded_and_stand_once() {
        let q = query("label=a%3Db&label=c&name=a+b&&x=1&y");
        assert_eq!(q.all("label").collect::<Vec<_>>(), ["a=b", "c"]);
        assert_eq!(q.text("name"), Ok(Some("a b")));
        assert_eq!(q.text("y"), Ok(Some("")));
        assert_eq!(q.text("z"), Ok(None));
        assert!(q.text("label").is_err());
        assert!(Query::of(&"/x?a=%ff".parse().unwrap()).is_err());
    }

    #[test]
    fn a_misspelled_parameter_is_refused() {
        assert_eq!(query("dry_run=true").only(&["dry_run"]), Ok(()));
        assert!(query("dryrun=true").only(&["dry_run"]).is_err());
    }

    // R13, R18
    #[test]
    fn flags_and_numbers_are_strict() {
        assert_eq!(query("dry_run=true").flag("dry_run"), Ok(true));
        assert_eq!(query("dry_run=false").flag("dry_run"), Ok(false));
        assert_eq!(query("").flag("dry_run"), Ok(false));
        for bad in [
            "dry_run=1",
            "dry_run=TRUE",
            "dry_run",
            "dry_run=true&dry_run=true",
        ] {
            assert!(query(bad).flag("dry_run").is_err(), "{bad}");
        }
        assert_eq!(query("limit=500").number("limit", 1, 500), Ok(Some(500)));
        for bad in [
            "limit=0",
            "limit=501",
            "limit=",
            "limit=%2B1",
            "limit=1.0",
            "limit=-1",
            "limit=99999999999999999999",
        ] {
            assert!(query(bad).number("limit", 1, 500).is_err(), "{bad}");
        }
    }
}
