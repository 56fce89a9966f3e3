//! Who calls, for what: the checks before a handler runs, in one place and in one order (R01).
//!
//! The router has said 404 and 405 by then. Here follow 401, the names (400), 403 for namespace, role and protection, and
//! for writes the rate (429). What is wrong with a body comes after, in the handlers.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use nagi_core::access::{Denied, Grant, Holder, Role, Sight};
use nagi_core::guardrail::Forbidden;
use nagi_core::id::{KeyId, Name, Namespace, UserName, WorkloadId};
use nagi_core::intent::Actor;
use nagi_ports::Deed;
use nagi_telemetry::names::field;

use crate::app::App;
use crate::exchange::Exchange;
use crate::host;
use crate::keys::{self, Unproven};
use crate::path;
use crate::problem::Problem;
use crate::query::{DRY_RUN, Query};
use crate::visitors::{self, Visitor};

/// Whose bucket a write is taken from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// Of a key.
    Key(KeyId),
    /// Of a user of the cluster.
    User(UserName),
    /// Of an address, while no key is needed.
    Address(IpAddr),
}

/// Who calls, as far as it is proven.
#[derive(Debug)]
pub(crate) enum Proven {
    /// What a key grants, or everybody while none is needed.
    Grant(Grant),
    /// A user of the cluster, of whom the cluster says what they may do.
    Visitor(Visitor),
}

/// A call that reads about many workloads: a proven caller of any role, and what of them they may see.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) holder: Holder,
    pub(crate) sight: Sight,
    /// The first instant at which the key no longer counts.
    pub(crate) expires: Option<Timestamp>,
    pub(crate) query: Query,
}

/// A call that reads about nodes.
#[derive(Debug)]
pub(crate) struct NodeReader {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) query: Query,
}

/// A call that reads one workload, which the caller may see.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) id: WorkloadId,
    pub(crate) query: Query,
    visitor: Option<Visitor>,
}

/// A call that changes one workload, which the caller may do, and not too often.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) id: WorkloadId,
    pub(crate) actor: Actor,
    pub(crate) query: Query,
}

impl FromRequestParts<App> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let exchange = exchange(parts)?;
        let proven = authenticate(app, &exchange, &parts.headers).await?;
        let query = Query::of(&parts.uri)?;
        let (holder, sight, expires) = match proven {
            Proven::Grant(grant) => (grant.holder, Sight::Reach(grant.reach), grant.expires),
            Proven::Visitor(visitor) => {
                let only = namespace(&query)?;
                let sight = app.visitors.sight(app, &exchange, &visitor, only.as_ref());
                let holder = Holder::User(visitor.account.name.clone());
                (holder, sight.await?, None)
            }
        };
        Ok(Self {
            exchange,
            holder,
            sight,
            expires,
            query,
        })
    }
}

impl Reader {
    /// `namespace`, checked, and within what the caller may see.
    pub(crate) fn namespace(&self) -> Result<Option<Namespace>, Problem> {
        let Some(namespace) = namespace(&self.query)? else {
            return Ok(None);
        };
        if self.sight.enters(&namespace) {
            return Ok(Some(namespace));
        }
        Err(match &self.holder {
            Holder::User(name) => visitors::outside(name, &namespace),
            Holder::Key(_) | Holder::Anybody => denied(Denied::Namespace { namespace }),
        })
    }
}

/// The parameter `namespace`.
fn namespace(query: &Query) -> Result<Option<Namespace>, Problem> {
    let wrong =
        |error| Problem::parameter("namespace", error, "a DNS label of at most 63 characters");
    let text = query.text("namespace")?;
    text.map(|text| Namespace::new(text).map_err(wrong))
        .transpose()
}

impl FromRequestParts<App> for NodeReader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let exchange = exchange(parts)?;
        match authenticate(app, &exchange, &parts.headers).await? {
            // Nodes belong to no namespace: every key may see them.
            Proven::Grant(_) => {}
            Proven::Visitor(visitor) => {
                let check = app
                    .visitors
                    .check(app, &exchange, &visitor, Deed::ReadNodes);
                check.await?;
            }
        }
        Ok(Self {
            exchange,
            query: Query::of(&parts.uri)?,
        })
    }
}

impl FromRequestParts<App> for Target {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let exchange = exchange(parts)?;
        let proven = authenticate(app, &exchange, &parts.headers).await?;
        let id = workload_id(&exchange, parts.uri.path())?;
        let visitor = match proven {
            Proven::Grant(grant) => {
                grant.check(Role::Viewer, &id.namespace).map_err(denied)?;
                None
            }
            Proven::Visitor(visitor) => {
                let read = Deed::Read(id.clone());
                app.visitors.check(app, &exchange, &visitor, read).await?;
                Some(visitor)
            }
        };
        Ok(Self {
            exchange,
            id,
            query: Query::of(&parts.uri)?,
            visitor,
        })
    }
}

impl Target {
    /// Refuses a caller who may see the workload and not what it prints. Whoever may see it by a key may see that too.
    pub(crate) async fn check_logs(&self, app: &App) -> Result<(), Problem> {
        let Some(visitor) = &self.visitor else {
            return Ok(());
        };
        let deed = Deed::ReadLogs(self.id.namespace.clone());
        app.visitors.check(app, &self.exchange, visitor, deed).await
    }
}

impl FromRequestParts<App> for Change {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let exchange = exchange(parts)?;
        let proven = authenticate(app, &exchange, &parts.headers).await?;
        let id = workload_id(&exchange, parts.uri.path())?;
        let holder = match proven {
            Proven::Grant(grant) => {
                grant.check(Role::Operator, &id.namespace).map_err(denied)?;
                grant.holder
            }
            Proven::Visitor(visitor) => {
                let change = Deed::Change(id.clone());
                app.visitors.check(app, &exchange, &visitor, change).await?;
                Holder::User(visitor.account.name.clone())
            }
        };
        app.config
            .rails
            .check(&id.namespace)
            .map_err(|forbidden| protected(&forbidden))?;
        let caller = Caller::of(&holder, &exchange);
        let actor = match holder {
            Holder::Key(key) => Actor::Key(key),
            Holder::User(name) => Actor::User(name),
            Holder::Anybody => Actor::Anonymous,
        };
        if matches!(actor, Actor::Anonymous) {
            refuse_other_sites(&parts.headers)?;
        }
        take_token(app, &caller)?;
        let query = Query::of(&parts.uri)?;
        query.only(&[DRY_RUN])?;
        Ok(Self {
            exchange,
            id,
            actor,
            query,
        })
    }
}

// === impl Caller ===

impl Caller {
    pub(crate) fn of(holder: &Holder, exchange: &Exchange) -> Self {
        match holder {
            Holder::Key(key) => Self::Key(key.clone()),
            Holder::User(name) => Self::User(name.clone()),
            Holder::Anybody => Self::Address(exchange.client()),
        }
    }
}

/// Where no key is asked for, a page of some other site could call through the browser of whoever can reach this API.
/// Browsers name the site that a request comes from; other clients name none and pass.
pub(crate) fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let of_this_site = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            origin.split_once("://").map(|(_, authority)| authority) == text("host")
        }
        (None, None) => true,
    };
    if of_this_site {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "Forbidden")
        .error("a page of another site may not call what needs no API key")
        .hint("set API_KEY, API_KEY_FILE or NAGI_KEYS_FILE, or call without a browser"))
}

/// The exchange that this request belongs to.
pub(crate) fn exchange(parts: &Parts) -> Result<Arc<Exchange>, Problem> {
    let exchange = parts.extensions.get::<Arc<Exchange>>().cloned();
    // Every request comes through `exchange::serve`, which puts it there.
    exchange.ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error"))
}

/// What the holder of a key that has expired does next.
const EXPIRED_HINT: &str = "ask for a new key: an administrator makes one with nagi key create";

/// What the caller has proven, or 401 (A-030, K-04, R16). Nothing in the answer tells whether a key exists to anybody who
/// does not hold it. What is none of our keys may be a token of the cluster, where those are taken.
pub(crate) async fn authenticate(
    app: &App,
    exchange: &Exchange,
    headers: &HeaderMap,
) -> Result<Proven, Problem> {
    let keys = app.keys.current();
    if keys.are_off() {
        host::refuse_owned_name(headers)?;
        return Ok(Proven::Grant(Grant::everything(Holder::Anybody)));
    }
    let token = bearer(app, headers)?;
    let grant = match keys.prove(token, app.clock.now()) {
        Ok(grant) => grant,
        Err(Unproven::Expired(id)) => {
            exchange.note_key(Some(&id));
            return Err(unauthorized(app, "API key expired").hint(EXPIRED_HINT));
        }
        Err(Unproven::Wrong) if app.visitors.are_welcome() && !keys::looks_like_ours(token) => {
            let found = app.visitors.identify(app, exchange, token).await?;
            let visitor = found.ok_or_else(|| unauthorized(app, "Invalid API key or token"))?;
            exchange.note(field::USER, visitor.account.name.as_str());
            return Ok(Proven::Visitor(visitor));
        }
        Err(Unproven::Wrong) => return Err(unauthorized(app, "Invalid API key")),
    };
    if let Holder::Key(id) = &grant.holder {
        exchange.note_key(Some(id));
    }
    Ok(Proven::Grant(grant))
}

/// 401, and how to come in.
fn unauthorized(app: &App, error: &str) -> Problem {
    let hint = if app.visitors.are_welcome() {
        "send the header Authorization: Bearer KEY, with an API key or a token of the cluster for the audience scale-api: \
         kubectl create token ACCOUNT --audience scale-api"
    } else {
        "send the header Authorization: Bearer KEY"
    };
    Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized")
        .error(error)
        .hint(hint)
}

/// The one word behind `Authorization: Bearer`.
fn bearer<'h>(app: &App, headers: &'h HeaderMap) -> Result<&'h str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(unauthorized(app, "Authorization header required"));
    };
    if values.next().is_some() {
        return Err(unauthorized(app, "Authorization header must stand once"));
    }
    value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim())
        .filter(|key| !key.is_empty())
        .ok_or_else(|| unauthorized(app, "Invalid authorization header format"))
}

/// The workload that a path names, or 400 with the rule that a name breaks (R04).
fn workload_id(exchange: &Exchange, path: &str) -> Result<WorkloadId, Problem> {
    let resource = path::resource(path).ok_or_else(Problem::no_route)?;
    let namespace = path::namespace(path).ok_or_else(|| invalid_name("namespace", NOT_ENCODED))?;
    let namespace = Namespace::new(namespace).map_err(|error| invalid_name("namespace", error))?;
    let name = path::name(path).ok_or_else(|| invalid_name("name", NOT_ENCODED))?;
    let name = Name::new(name).map_err(|error| invalid_name("name", error))?;
    let id = WorkloadId {
        resource,
        namespace,
        name,
    };
    exchange.note_workload(&id);
    Ok(id)
}

/// What is wrong with a segment of the path that cannot be decoded.
const NOT_ENCODED: &str = "is not percent-encoded UTF-8: behind a % two hexadecimal digits must follow, and together they must be characters";

fn invalid_name(field: &str, error: impl Display) -> Problem {
    let limit = match field {
        "namespace" => "a DNS label of at most 63 characters",
        _ => "a DNS subdomain of at most 253 characters",
    };
    Problem::new(StatusCode::BAD_REQUEST, "Invalid name")
        .error(&format!("{field} {error}"))
        .field(field, limit)
}

/// 403 for a key that does not reach or a role that is too weak.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
pub(crate) fn denied(denied: Denied) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "Forbidden")
        .error(&denied)
        .hint("ask for a key with this right: an administrator makes one with nagi key create")
}

/// Nothing in the namespace may be changed, by nobody.
pub(crate) fn protected(forbidden: &Forbidden) -> Problem {
    let hint = match forbidden {
        Forbidden::Protected(_) => "what runs the cluster or Nagi itself is scaled by kubectl only",
        Forbidden::NotAllowed(_) => {
            "an administrator adds the namespace to NAGI_ALLOWED_NAMESPACES"
        }
    };
    Problem::new(StatusCode::FORBIDDEN, "Forbidden")
        .error(forbidden)
        .hint(hint)
}

fn take_token(app: &App, caller: &Caller) -> Result<(), Problem> {
    let now = app.clock.monotonic();
    let mut rates = app.rates.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = rates.take(caller, now);
    drop(rates);
    taken.map_err(|wait| {
        let rate = app.config.rate;
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests")
            .error(&format!(
                "at most {} writes per second and {} at once for one caller",
                rate.per_second, rate.burst
            ))
            .retry_after(whole_seconds(wait))
    })
}

/// Seconds, rounded up, at least one: a client that comes back then is not too early.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    let up = u64::from(wait.subsec_nanos() > 0);
    (wait.as_secs() + up).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // R17
    #[test]
    fn retry_after_is_whole_seconds_and_never_too_early() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            assert_eq!(
                whole_seconds(Duration::from_millis(millis)),
                seconds,
                "{millis}"
            );
        }
    }
}
