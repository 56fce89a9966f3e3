//! Users of the engine's own accounts: who they are and what they may do, asked of the engine and remembered shortly.
//!
//! A bearer token that is none of our keys may be one of the cluster. The engine is asked whose it is, and then, thing by
//! thing, what its holder may do. A yes is kept for [`KEPT`], so that a right that was taken away, and a token that was
//! revoked, count that much longer at most. A no is asked again each time, with one exception: lists ask about every
//! namespace, most of which a person may not see, and a list that is fetched each second must not ask all of it each
//! time. There a no is kept for [`REFUSAL_KEPT`]; that hides a new right for a moment and opens nothing.
//!
//! Tokens themselves are not kept, only salted digests of them. When the engine cannot be asked, the answer is 503: not
//! knowing somebody is not the same as refusing them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nagi_core::access::{Places, Sight};
use nagi_core::id::{Namespace, Resource};
use nagi_core::rate::{Buckets, RateLimit};
use nagi_ports::{Account, Accounts, Deed, Glance, PortError, Selection};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::app::App;
use crate::call::whole_seconds;
use crate::exchange::Exchange;
use crate::keys;
use crate::problem::{Doing, Problem};

/// How long a yes counts, from the moment at which it was asked for.
pub(crate) const KEPT: Duration = Duration::from_secs(10);
/// How long a no counts in lists.
const REFUSAL_KEPT: Duration = Duration::from_secs(2);
/// Users that are remembered: more than ever call within [`KEPT`]. Under 1 KiB each, this is 1 MiB.
const USERS_MAX: usize = 1024;
/// Answers that are remembered: a hundred users who each look at eighty namespaces. Under 512 bytes each, this is 4 MiB.
const ANSWERS_MAX: usize = 8192;
/// Questions under way at once, in the whole process. The engine answers one in milliseconds, and has others to serve.
const ASKED_AT_ONCE: usize = 16;
/// Of these, for one list.
const ASKED_AT_ONCE_FOR_A_LIST: usize = 8;
/// Namespaces and kinds that are asked about one by one for a list; a person with rights in all of them is asked for once.
const PLACES_MAX: usize = 100;
/// Tokens that nobody vouches for, from one address: each costs the engine a look, and who has none is free to guess.
const GUESSES: RateLimit = RateLimit {
    per_second: 5,
    burst: 50,
};

/// A digest of a token, by which it is known again.
type TokenDigest = [u8; 32];

/// What is known of users, for a while.
#[derive(Debug)]
pub(crate) struct Visitors {
    /// `None`: tokens are not taken.
    accounts: Option<Arc<dyn Accounts>>,
    /// Makes the digests of this process unlike those of any other; `None` without random bits, and then nothing is kept.
    salt: Option<[u8; 32]>,
    users: Mutex<Kept<TokenDigest, Visitor>>,
    answers: Mutex<Kept<(TokenDigest, Deed), bool>>,
    guesses: Mutex<Buckets<IpAddr>>,
    asking: Semaphore,
}

/// A caller whom the engine vouches for.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    token: Option<TokenDigest>,
    pub(crate) account: Arc<Account>,
}

// === impl Visitors ===

impl Visitors {
    pub(crate) fn new(accounts: Option<Arc<dyn Accounts>>) -> Self {
        Self {
            accounts,
            salt: keys::random().ok(),
            users: Mutex::new(Kept::new(USERS_MAX)),
            answers: Mutex::new(Kept::new(ANSWERS_MAX)),
            guesses: Mutex::new(Buckets::new(GUESSES)),
            asking: Semaphore::new(ASKED_AT_ONCE),
        }
    }

    /// Are tokens of the engine taken?
    pub(crate) fn are_welcome(&self) -> bool {
        self.accounts.is_some()
    }

    /// Who holds this token; `None` when nobody vouches for it.
    ///
    /// # Errors
    /// 503 when the engine cannot tell, 429 when the address has sent too many unknown ones.
    pub(crate) async fn identify(
        &self,
        app: &App,
        exchange: &Exchange,
        token: &str,
    ) -> Result<Option<Visitor>, Problem> {
        let Some(accounts) = &self.accounts else {
            return Ok(None);
        };
        let digest = self.salt.map(|salt| digest(&salt, token));
        let known = digest.and_then(|digest| locked(&self.users).get(&digest, now(app)));
        if known.is_some() {
            return Ok(known);
        }
        let address = exchange.client();
        let asked = async {
            let _room = self.room().await?;
            if let Err(wait) = locked(&self.guesses).take(&address, now(app)) {
                return Ok(Err(wait));
            }
            let asked_at = now(app);
            let account = accounts.identify(token).await?;
            Ok(Ok(account.map(|account| (account, asked_at))))
        };
        let told = exchange.upstream(asked).await;
        let told = told
            .map_err(|error| Problem::port(&error, Doing::Read("the owner of the token"), None));
        let found = told?.map_err(too_many_guesses)?;
        let Some((account, asked_at)) = found else {
            return Ok(None);
        };
        locked(&self.guesses).give_back(&address);
        let visitor = Visitor {
            token: digest,
            account: Arc::new(account),
        };
        if let Some(digest) = digest {
            locked(&self.users).put(digest, visitor.clone(), asked_at + KEPT);
        }
        Ok(Some(visitor))
    }

    /// Refuses what the user may not do.
    ///
    /// # Errors
    /// 403 when they may not, 503 when the engine cannot tell.
    pub(crate) async fn check(
        &self,
        app: &App,
        exchange: &Exchange,
        visitor: &Visitor,
        deed: Deed,
    ) -> Result<(), Problem> {
        let words = deed.to_string();
        if self.may(app, exchange, visitor, deed.clone(), None).await? {
            Ok(())
        } else {
            Err(forbidden(visitor, &deed, &words))
        }
    }

    /// The workloads that the user may read, of those that there are; with `only`, in this namespace.
    ///
    /// # Errors
    /// 503 when the engine cannot tell, 400 when there are too many namespaces to ask about.
    pub(crate) async fn sight(
        &self,
        app: &App,
        exchange: &Exchange,
        visitor: &Visitor,
        only: Option<&Namespace>,
    ) -> Result<Sight, Problem> {
        let places = places(app, exchange, only).await?;
        let mut kinds = BTreeMap::new();
        let mut left: Vec<(Resource, Namespace)> = Vec::new();
        if only.is_none() {
            let everywhere = places
                .keys()
                .map(|resource| Deed::ReadAll(resource.clone(), None))
                .collect();
            for deed in self.allowed(app, exchange, visitor, everywhere).await? {
                if let Deed::ReadAll(resource, _) = deed {
                    kinds.insert(resource, Places::Everywhere);
                }
            }
        }
        for (resource, namespaces) in places {
            if !kinds.contains_key(&resource) {
                left.extend(namespaces.into_iter().map(|one| (resource.clone(), one)));
            }
        }
        if left.len() > PLACES_MAX {
            return Err(too_many_places());
        }
        let left = left
            .into_iter()
            .map(|(resource, namespace)| Deed::ReadAll(resource, Some(namespace)))
            .collect();
        for deed in self.allowed(app, exchange, visitor, left).await? {
            if let Deed::ReadAll(resource, Some(namespace)) = deed {
                let at = kinds
                    .entry(resource)
                    .or_insert_with(|| Places::In(BTreeSet::new()));
                if let Places::In(namespaces) = at {
                    namespaces.insert(namespace);
                }
            }
        }
        Ok(Sight::Kinds(kinds))
    }

    /// Those of the deeds that the user may do.
    async fn allowed(
        &self,
        app: &App,
        exchange: &Exchange,
        visitor: &Visitor,
        deeds: Vec<Deed>,
    ) -> Result<Vec<Deed>, Problem> {
        let answers = stream::iter(deeds).map(|deed| async move {
            let kept = Some(REFUSAL_KEPT);
            let yes = self.may(app, exchange, visitor, deed.clone(), kept).await?;
            Ok::<_, Problem>(yes.then_some(deed))
        });
        let answers = answers.buffer_unordered(ASKED_AT_ONCE_FOR_A_LIST);
        let answers: Vec<Option<Deed>> = answers.try_collect().await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// May they? `refusal_kept`: how long a no counts; `None` neither takes nor keeps one.
    async fn may(
        &self,
        app: &App,
        exchange: &Exchange,
        visitor: &Visitor,
        deed: Deed,
        refusal_kept: Option<Duration>,
    ) -> Result<bool, Problem> {
        let Some(accounts) = &self.accounts else {
            return Ok(false);
        };
        let key = visitor.token.map(|token| (token, deed.clone()));
        let known = key
            .as_ref()
            .and_then(|key| locked(&self.answers).get(key, now(app)));
        if let Some(yes) = known.filter(|yes| *yes || refusal_kept.is_some()) {
            return Ok(yes);
        }
        let asked = async {
            let _room = self.room().await?;
            let asked_at = now(app);
            let yes = accounts.may(&visitor.account, &deed).await?;
            Ok((yes, asked_at))
        };
        let told = exchange.upstream(asked).await;
        let told = told
            .map_err(|error| Problem::port(&error, Doing::Read("the rights of this user"), None));
        let (yes, asked_at) = told?;
        let kept = if yes { Some(KEPT) } else { refusal_kept };
        if let (Some(key), Some(kept)) = (key, kept) {
            locked(&self.answers).put(key, yes, asked_at + kept);
        }
        Ok(yes)
    }

    async fn room(&self) -> Result<tokio::sync::SemaphorePermit<'_>, PortError> {
        // It is never closed.
        let room = self.asking.acquire().await;
        room.map_err(|_closed| PortError::Internal("nothing is asked any more".to_owned()))
    }
}

/// Where there are workloads, by kind. A namespace that was named is asked about even when it is empty.
async fn places(
    app: &App,
    exchange: &Exchange,
    only: Option<&Namespace>,
) -> Result<BTreeMap<Resource, BTreeSet<Namespace>>, Problem> {
    let mut places: BTreeMap<Resource, BTreeSet<Namespace>> = BTreeMap::new();
    let selection = Selection {
        namespace: only,
        ..Selection::default()
    };
    let see = &mut |glance: &dyn Glance| {
        let id = glance.id();
        let namespaces = match places.get_mut(&id.resource) {
            Some(namespaces) => namespaces,
            None => places.entry(id.resource.clone()).or_default(),
        };
        if !namespaces.contains(&id.namespace) {
            namespaces.insert(id.namespace.clone());
        }
        ControlFlow::Continue(())
    };
    let visited = exchange.upstream(app.workloads.visit(selection, see)).await;
    visited.map_err(|error| Problem::port(&error, Doing::Read("workloads"), None))?;
    if let Some(only) = only {
        let namespaces = places.entry(Resource::deployments()).or_default();
        namespaces.insert(only.clone());
    }
    Ok(places)
}

fn now(app: &App) -> Duration {
    app.clock.monotonic()
}

fn digest(salt: &[u8; 32], token: &str) -> TokenDigest {
    Sha256::new()
        .chain_update(salt)
        .chain_update(token.as_bytes())
        .finalize()
        .into()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No section leaves it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 403 with the right that is missing, and how an administrator of the cluster gives it.
fn forbidden(visitor: &Visitor, deed: &Deed, words: &str) -> Problem {
    let name = &visitor.account.name;
    let problem = Problem::new(StatusCode::FORBIDDEN, "Forbidden")
        .error(&format!("user {name} may not {words}"));
    let grant = |namespace: &Namespace, role: &str| {
        format!(
            "an administrator of the cluster grants it: kubectl create rolebinding NAME -n {namespace} \
             --clusterrole={role} --user='{name}'"
        )
    };
    problem.hint(match deed {
        Deed::Change(id) => grant(&id.namespace, "edit"),
        Deed::Read(id) => grant(&id.namespace, "view"),
        Deed::ReadLogs(namespace) | Deed::ReadAll(_, Some(namespace)) => grant(namespace, "view"),
        Deed::ReadAll(_, None) | Deed::ReadNodes => {
            "an administrator of the cluster grants it with a ClusterRole".to_owned()
        }
    })
}

/// 403 for a namespace in which the user may read nothing.
pub(crate) fn outside(name: &nagi_core::id::UserName, namespace: &Namespace) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "Forbidden")
        .error(&format!(
            "user {name} may not get deployments/scale in namespace {namespace}"
        ))
        .hint(format!(
            "an administrator of the cluster grants it: kubectl create rolebinding NAME -n {namespace} \
             --clusterrole=view --user='{name}'"
        ))
}

fn too_many_guesses(wait: Duration) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests")
        .error("too many tokens that nobody vouches for came from this address")
        .retry_after(whole_seconds(wait))
}

fn too_many_places() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "Namespace needed")
        .error(&format!(
            "rights are asked for namespace by namespace, and workloads lie in more than {PLACES_MAX}"
        ))
        .field("namespace", "the namespace to list")
        .hint("add ?namespace=NAME, or ask for the right to read the scale of workloads in all namespaces")
}

/// Values that count until an instant, at most so many: the one that was put in first goes first.
#[derive(Debug)]
struct Kept<K, V> {
    max: usize,
    entries: HashMap<K, (V, Duration)>,
    order: VecDeque<(K, Duration)>,
}

impl<K: Clone + Eq + Hash, V: Clone> Kept<K, V> {
    fn new(max: usize) -> Self {
        Self {
            max,
            entries: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    fn get(&self, key: &K, now: Duration) -> Option<V> {
        let (value, until) = self.entries.get(key)?;
        (now < *until).then(|| value.clone())
    }

    fn put(&mut self, key: K, value: V, until: Duration) {
        self.entries.insert(key.clone(), (value, until));
        self.order.push_back((key, until));
        while self.order.len() > self.max {
            let Some((oldest, was_until)) = self.order.pop_front() else {
                return;
            };
            // It may have been put in again since.
            if self
                .entries
                .get(&oldest)
                .is_some_and(|(_, until)| *until == was_until)
            {
                self.entries.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_ends_at_its_instant_and_never_grows_past_its_limit() {
        let at = Duration::from_secs;
        let mut kept = Kept::new(2);
        kept.put("a", 1, at(10));
        assert_eq!(kept.get(&"a", Duration::from_millis(9_999)), Some(1));
        assert_eq!(kept.get(&"a", at(10)), None);
        kept.put("a", 2, at(20));
        kept.put("b", 3, at(20));
        // The place of the first `a` is gone, its successor stays.
        assert_eq!(kept.get(&"a", at(11)), Some(2));
        kept.put("c", 4, at(20));
        assert_eq!(kept.get(&"a", at(11)), None);
        assert_eq!((kept.entries.len(), kept.order.len()), (2, 2));
    }

    #[test]
    fn a_digest_is_another_with_another_salt() {
        assert_eq!(digest(&[1; 32], "t"), digest(&[1; 32], "t"));
        assert_ne!(digest(&[1; 32], "t"), digest(&[2; 32], "t"));
        assert_ne!(digest(&[1; 32], "t"), digest(&[1; 32], "u"));
    }
}
