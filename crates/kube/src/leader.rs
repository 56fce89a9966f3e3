//! Who decides: one process at a time, by a Lease (DESIGN §5).
//!
//! The holder renews every two seconds and stops to decide by itself before others may take over. Whether the holder is
//! gone is judged by how long the Lease has not changed here, not by the times in it: clocks differ. Each term has a number,
//! `leaseTransitions`, which the leader writes on every object as its epoch.
//!
//! Own code and not `kube-lease-manager`: that one neither tells the number of the term nor raises it, which a leader must
//! that meets an object of a later term, and it brings the runtime of `kube` along.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use nagi_ports::{Clock, Leadership, PortError};
use nagi_runtime::Shutdown;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::api::{Api, ApiError, Call, Content};
use crate::names::{FIELD_MANAGER, LEASE, NAMESPACE};

/// The highest term of an object that the Lease is raised above. A leader a second for 34 years comes to this; a person who
/// may edit an object can write any number on it, and must leave room to count on from in 32 bits (`leaseTransitions`).
pub(crate) const FOLLOWED_MAX: u64 = 1 << 30;

/// A holder that has not renewed for this long is gone.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long stops to decide: a third of the duration is left for what is under way.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two renewals, and with them the sign of life that DESIGN §5 asks for.
const RENEW: Duration = Duration::from_secs(2);
/// Between two looks of those who wait: a Lease that was let go is taken within a second.
const LOOK: Duration = Duration::from_millis(500);
/// One call.
const CALL: Duration = Duration::from_millis(1500);

/// The Lease, and whether this process holds it.
#[derive(Debug)]
pub(crate) struct Lead {
    api: Api,
    clock: Arc<dyn Clock>,
    identity: String,
    term: Mutex<Option<Term>>,
    state: watch::Sender<bool>,
    /// The number of the last term of this process.
    terms: watch::Sender<u64>,
    /// What the looks at the Lease came to.
    looked: watch::Sender<Looked>,
    /// A term above this one is asked for.
    above: Mutex<u64>,
    raise: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Term {
    epoch: u64,
    until: Instant,
}

/// What the looks at the Lease came to: when it could last be used, and what was wrong since.
#[derive(Debug, Clone, Default)]
struct Looked {
    well: Option<Instant>,
    problem: Option<PortError>,
}

/// The Lease as it was last read, and since when it has not changed.
#[derive(Debug, Clone)]
struct Seen {
    version: String,
    since: Instant,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Lease {
    metadata: LeaseMeta,
    spec: LeaseSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LeaseMeta {
    resource_version: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LeaseSpec {
    holder_identity: Option<String>,
    lease_transitions: Option<u64>,
    lease_duration_seconds: Option<u64>,
}

// === impl Looked ===

impl Looked {
    /// Whoever held the Lease at the last good look may hold it still.
    fn is_well(&self) -> bool {
        self.well.is_some_and(|well| well.elapsed() < DURATION)
    }
}

// === impl Lead ===

impl Lead {
    pub(crate) fn new(api: Api, clock: Arc<dyn Clock>, identity: String) -> Self {
        Self {
            api,
            clock,
            identity,
            term: Mutex::new(None),
            state: watch::Sender::new(false),
            terms: watch::Sender::new(0),
            looked: watch::Sender::new(Looked::default()),
            above: Mutex::new(0),
            raise: Notify::new(),
        }
    }

    /// Follows whether this process leads.
    pub(crate) fn leadership(&self) -> Leadership {
        Leadership::new(self.state.subscribe())
    }

    /// The number of the term, while this process leads and is sure of it.
    pub(crate) fn epoch(&self) -> Option<u64> {
        let term = *self.term();
        term.filter(|term| Instant::now() < term.until)
            .map(|term| term.epoch)
    }

    /// Whether somebody carries out what is promised for later: this process, or another one that holds the Lease.
    ///
    /// A process that has just begun waits for its first look.
    ///
    /// # Errors
    /// Nobody does, as far as can be seen from here.
    pub(crate) async fn keeps_promises(&self) -> Result<(), PortError> {
        let mut looks = self.looked.subscribe();
        let has_looked = looks.wait_for(|looked| looked.well.is_some() || looked.problem.is_some());
        // Cancel-safe: a watch channel keeps its value.
        drop(tokio::time::timeout(CALL * 2, has_looked).await);
        let looked = self.looked.borrow().clone();
        if looked.is_well() {
            return Ok(());
        }
        Err(looked
            .problem
            .unwrap_or_else(|| PortError::Timeout(format!("the Lease {LEASE} was not read yet"))))
    }

    /// Why nobody carries out what is due by itself, as far as can be seen from here; `None` before the first look.
    pub(crate) fn unattended(&self) -> Option<PortError> {
        let looked = self.looked.borrow();
        looked.problem.clone().filter(|_| !looked.is_well())
    }

    /// An object of a later term, of [`FOLLOWED_MAX`] at most, was met: waits until the term of this process is above it.
    /// False when that took too long, as it does for a process that does not hold the Lease any more. Cancel-safe.
    pub(crate) async fn rise_above(&self, epoch: u64) -> bool {
        {
            let mut above = self.above.lock().unwrap_or_else(PoisonError::into_inner);
            *above = (*above).max(epoch);
        }
        let mut terms = self.terms.subscribe();
        self.raise.notify_one();
        let risen = terms.wait_for(|term| *term > epoch);
        matches!(tokio::time::timeout(CALL * 2, risen).await, Ok(Ok(_)))
    }

    /// Holds or awaits the Lease until the process drains, then lets it go.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let mut seen: Option<Seen> = None;
        let mut problem: Option<String> = None;
        while !shutdown.is_draining() {
            let begun = Instant::now();
            match self.step(&mut seen, begun).await {
                Ok(()) => {
                    self.looked.send_replace(Looked {
                        well: Some(begun),
                        problem: None,
                    });
                    if problem.take().is_some() {
                        tracing::info!("Leader lease can be used again");
                    }
                }
                Err(error) => {
                    let words = error.to_string();
                    if problem.as_ref() != Some(&words) {
                        tracing::warn!(error = %words, lease = LEASE, "Leader lease cannot be used, will try again");
                    }
                    problem = Some(words);
                    let problem = Some(self.unusable(error));
                    self.looked.send_modify(|looked| looked.problem = problem);
                }
            }
            self.settle();
            let pause = if self.epoch().is_some() { RENEW } else { LOOK };
            tokio::select! {
                // Cancel-safe: waiting on a watch channel loses nothing.
                () = shutdown.draining() => {}
                // Cancel-safe: a permit is kept.
                () = self.raise.notified() => {}
                () = tokio::time::sleep_until(begun + pause) => {}
            }
        }
        self.release().await;
    }

    /// Reads the Lease and does what follows: renew it, take it, or wait.
    async fn step(&self, seen: &mut Option<Seen>, begun: Instant) -> Result<(), ApiError> {
        let lease = match self.api.call(&Call::get(self.path()), CALL).await {
            Ok(body) => read(&body)?,
            Err(ApiError::Status { code: 404, .. }) => return self.create(begun).await,
            Err(error) => return Err(error),
        };
        let version = lease.metadata.resource_version.clone();
        let since = match seen {
            Some(seen) if seen.version == version => seen.since,
            _ => begun,
        };
        *seen = Some(Seen { version, since });
        let holder = lease.spec.holder_identity.as_deref().unwrap_or_default();
        let transitions = lease.spec.lease_transitions.unwrap_or(0);
        let duration = lease
            .spec
            .lease_duration_seconds
            .map_or(DURATION, Duration::from_secs);
        let above = *self.above.lock().unwrap_or_else(PoisonError::into_inner);
        if holder == self.identity {
            let epoch = if transitions > above {
                transitions
            } else {
                above + 1
            };
            self.put(&lease, epoch, begun).await
        } else if holder.is_empty() || begun.duration_since(since) >= duration {
            self.put(&lease, transitions.max(above) + 1, begun).await
        } else {
            *self.term() = None;
            Ok(())
        }
    }

    /// Writes the Lease as held by this process in this term.
    async fn put(&self, lease: &Lease, epoch: u64, begun: Instant) -> Result<(), ApiError> {
        let now = micros(self.clock.now());
        let mut spec = json!({
            "holderIdentity": self.identity, "leaseDurationSeconds": DURATION.as_secs(),
            "renewTime": now, "leaseTransitions": epoch,
        });
        if lease.spec.holder_identity.as_deref() != Some(&*self.identity) {
            spec["acquireTime"] = json!(now);
        }
        let patch = json!({
            "metadata": { "resourceVersion": lease.metadata.resource_version }, "spec": spec,
        });
        self.hold(self.api.call(&self.patch(&patch), CALL).await, epoch, begun)
    }

    async fn create(&self, begun: Instant) -> Result<(), ApiError> {
        let now = micros(self.clock.now());
        let above = *self.above.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = above + 1;
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": LEASE, "namespace": self.namespace() },
            "spec": {
                "holderIdentity": self.identity, "leaseDurationSeconds": DURATION.as_secs(),
                "acquireTime": now, "renewTime": now, "leaseTransitions": epoch,
            },
        });
        let path = format!("{}?fieldManager={FIELD_MANAGER}", self.leases());
        let call = Call::with(Method::POST, path, Content::Json, &lease);
        self.hold(self.api.call(&call, CALL).await, epoch, begun)
    }

    /// What a write of the Lease came to. The term counts from before it was asked for.
    fn hold(
        &self,
        written: Result<bytes::Bytes, ApiError>,
        epoch: u64,
        begun: Instant,
    ) -> Result<(), ApiError> {
        match written {
            Ok(_) => {
                *self.term() = Some(Term {
                    epoch,
                    until: begun + RENEW_DEADLINE,
                });
                self.terms.send_replace(epoch);
                Ok(())
            }
            // Somebody else was faster; the next look tells who.
            Err(ApiError::Status { code: 409, .. }) => {
                *self.term() = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Tells those who follow.
    fn settle(&self) {
        let epoch = self.epoch();
        let changed = self.state.send_if_modified(|leads| {
            let changed = *leads != epoch.is_some();
            *leads = epoch.is_some();
            changed
        });
        if changed {
            if let Some(epoch) = epoch {
                tracing::info!(epoch, identity = self.identity, "This process leads");
            } else {
                tracing::info!(identity = self.identity, "This process no longer leads");
            }
        }
    }

    /// Lets the Lease go, so that another process takes it at once.
    async fn release(&self) {
        let held = self.term().take();
        self.state.send_replace(false);
        let Some(_term) = held else {
            return;
        };
        let released = async {
            let body = self.api.call(&Call::get(self.path()), CALL).await?;
            let lease = read(&body)?;
            if lease.spec.holder_identity.as_deref() != Some(&*self.identity) {
                return Ok(());
            }
            let patch = json!({
                "metadata": { "resourceVersion": lease.metadata.resource_version },
                "spec": { "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micros(self.clock.now()) },
            });
            self.api.call(&self.patch(&patch), CALL).await.map(drop)
        };
        match released.await {
            Ok(()) => tracing::info!(lease = LEASE, "Leader lease released"),
            Err::<(), ApiError>(error) => {
                tracing::warn!(error = %error, lease = LEASE, "Leader lease could not be released");
            }
        }
    }

    /// Why nobody carries out what is promised for later.
    fn unusable(&self, error: ApiError) -> PortError {
        let words = match error {
            ApiError::Status {
                code: 400..=404,
                message,
                ..
            } => message,
            other @ (ApiError::Status { .. }
            | ApiError::Unreachable(_)
            | ApiError::Timeout(_)
            | ApiError::TooLarge
            | ApiError::Broken(_)) => return other.into(),
        };
        PortError::Refused(format!(
            "nobody carries out schedules and idle sleep, because the Lease {}/{LEASE} cannot be used: {words}; \
             'nagi preflight' names what is missing",
            self.namespace()
        ))
    }

    fn patch(&self, patch: &serde_json::Value) -> Call {
        let at = format!("{}?fieldManager={FIELD_MANAGER}", self.path());
        Call::with(Method::PATCH, at, Content::MergePatch, patch)
    }

    fn namespace(&self) -> String {
        self.api
            .own_namespace()
            .unwrap_or_else(|| NAMESPACE.to_owned())
    }

    fn leases(&self) -> String {
        format!(
            "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
            self.namespace()
        )
    }

    fn path(&self) -> String {
        format!("{}/{LEASE}", self.leases())
    }

    fn term(&self) -> MutexGuard<'_, Option<Term>> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(body: &[u8]) -> Result<Lease, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::Broken(error.to_string()))
}

/// An instant as a `MicroTime`.
pub(crate) fn micros(instant: Timestamp) -> String {
    instant.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
