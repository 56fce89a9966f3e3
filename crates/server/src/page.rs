//! Pages of a list: how many items, and where the next page begins (R18).
//!
//! A token carries its position itself, so that any replica of the API can go on where another stopped. It is bound to
//! the list and the filters it was made for, and it ends after [`TOKEN_LIFE`], so that nobody stores one.

use jiff::{SignedDuration, Timestamp};
use nagi_api::list::{LIMIT_DEFAULT, LIMIT_MAX};
use sha2::{Digest as _, Sha256};

use axum::http::StatusCode;

use crate::keys::{from_hex, hex};
use crate::problem::Problem;
use crate::query::Query;

/// How long a token lives: longer than any program takes between two pages.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_mins(15);
/// What a token begins with, so that its format can change.
const VERSION: &str = "1";
/// Longest position, in bytes: a resource, a namespace and a name, with separators.
const POSITION_BYTES_MAX: usize = 600;

/// What a caller asked of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// Items at most.
    pub(crate) limit: usize,
    /// Where the previous page ended.
    pub(crate) after: Option<String>,
    scope: String,
}

impl Page {
    /// Reads `limit` and `continue`. `scope` names the list and its filters.
    pub(crate) fn of(query: &Query, scope: String, now: Timestamp) -> Result<Self, Problem> {
        let limit = query
            .number("limit", 1, LIMIT_MAX)?
            .unwrap_or(LIMIT_DEFAULT);
        let after = match query.text("continue")? {
            None => None,
            Some(token) => Some(position(token, &scope, now)?),
        };
        Ok(Self {
            limit,
            after,
            scope,
        })
    }

    /// The token for the page that begins after `position`.
    pub(crate) fn token(&self, position: &str, now: Timestamp) -> String {
        let issued = now.as_second();
        let seal = seal(position, &self.scope, issued);
        format!("{VERSION}.{issued}.{seal}.{}", hex(position.as_bytes()))
    }
}

/// The token leads nowhere.
pub(crate) fn unknown_token() -> Problem {
    Problem::parameter(
        "continue",
        "is no token of this list and these filters",
        "the value of continue in the previous page, with the same filters",
    )
    .hint("start again without continue")
}

/// The position in a token.
fn position(token: &str, scope: &str, now: Timestamp) -> Result<String, Problem> {
    let mut parts = token.split('.');
    let (Some(VERSION), Some(issued), Some(sealed), Some(encoded), None) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        return Err(unknown_token());
    };
    let issued: i64 = issued.parse().map_err(|_| unknown_token())?;
    let position = decode(encoded).ok_or_else(unknown_token)?;
    if seal(&position, scope, issued) != sealed {
        return Err(unknown_token());
    }
    let issued = Timestamp::from_second(issued).map_err(|_| unknown_token())?;
    if now.duration_since(issued) > TOKEN_LIFE {
        return Err(Problem::new(StatusCode::GONE, "Continue token expired")
            .error("the token is older than 15 minutes")
            .field("continue", "at most 15 minutes old")
            .hint("start again without continue"));
    }
    Ok(position)
}

/// Ties a token to its list. Not a secret: a forged token only names a position that anybody may ask for.
fn seal(position: &str, scope: &str, issued: i64) -> String {
    let hash = Sha256::new()
        .chain_update(issued.to_be_bytes())
        .chain_update(scope.as_bytes())
        .chain_update([0])
        .chain_update(position.as_bytes())
        .finalize();
    hex(hash.get(..8).unwrap_or_default())
}

fn decode(encoded: &str) -> Option<String> {
    if encoded.len() > POSITION_BYTES_MAX * 2 {
        return None;
    }
    let bytes = from_hex(encoded)?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2029-06-01T00:00:00Z".parse().unwrap()
    }

    fn page(text: &str, scope: &str, now: Timestamp) -> Result<Page, Problem> {
        let query = Query::of(&format!("/x?{text}").parse().unwrap()).unwrap();
        Page::of(&query, scope.to_owned(), now)
    }

    // R18
    #[test]
    fn a_token_leads_back_to_its_place_in_its_own_list() {
        let first = page("", "all", now()).unwrap();
        assert_eq!((first.limit, first.after.clone()), (100, None));
        let token = first.token("deployments/a/b.c", now());
        let next = page(&format!("continue={token}"), "all", now()).unwrap();
        assert_eq!(next.after.as_deref(), Some("deployments/a/b.c"));
        let other = page(&format!("continue={token}"), "other", now()).unwrap_err();
        assert_eq!(other.status, StatusCode::BAD_REQUEST);
    }

    // R18
    #[test]
    fn unknown_tokens_are_400_and_old_ones_410() {
        for junk in [
            "",
            "x",
            "1.2.3.4",
            "1.0.00.61",
            "1.99999999999999999.aa.61",
            "1.1.1.1.1",
        ] {
            let problem = page(&format!("continue={junk}"), "all", now()).unwrap_err();
            assert_eq!(problem.status, StatusCode::BAD_REQUEST, "{junk}");
        }
        let token = page("", "all", now()).unwrap().token("a", now());
        let at = |after| page(&format!("continue={token}"), "all", now() + after);
        assert!(at(TOKEN_LIFE).is_ok());
        let late = at(TOKEN_LIFE + SignedDuration::from_secs(1)).unwrap_err();
        assert_eq!(late.status, StatusCode::GONE);
        assert!(late.hint.is_some());
    }
}
