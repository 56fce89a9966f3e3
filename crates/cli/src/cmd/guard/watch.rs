//! The loop of the guard: a look every two seconds, alerts before anything else, then cleaning and owners beside it.
//!
//! Looks, what follows from them, cleaning and the walk over owners block, so each has a thread of its own, and each disk is
//! asked by itself ([`Looks`]): one that does not answer is told, and holds up nothing. Alerts are handed over before anything
//! is written or cleaned, so that a disk in trouble delays none.

use std::future::{Future, pending};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use nagi_guard::{
    Acted, Deeds, Device, DiskNow, Eyes, Growth, Guard, GuardError, GuardSettings, Hands, Looked,
    NotKnown, Owner, Round, Shares, SurveyError, Trouble,
};
use nagi_ports::{Clock, SystemClock};
use nagi_runtime::{
    Blocking, BlockingError, Shutdown, SignalError, Supervisor, SupervisorError, Termination,
};
use nagi_telemetry::{DiskFacts, Metrics, OwnerFacts};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch::Sender;
use tokio::time::MissedTickBehavior;

use super::clean::{self, CleanFailure, Cleaned, Mode, Order};
use super::door::{self, Health};
use super::looks::Looks;
use super::sinks::{Sinks, Ways};
use super::walks::Walks;
use super::words;
use crate::small_door::Door;

/// What is under way gets this at the end: one look, one record of the ring.
const GRACE: Duration = Duration::from_secs(10);
/// Paths of a node are looked up within milliseconds; whoever waits longer waits for a filesystem that hangs.
const BEGIN_MAX: Duration = Duration::from_secs(30);
/// A ring is read, or allocated, within a second; without what it remembers the first look would tell things twice.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// A scraper, a probe, and a person.
const CONNECTIONS_MAX: usize = 16;

/// How the loop is set.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) guard: GuardSettings,
    pub(super) every: Duration,
    pub(super) owners_every: Option<Duration>,
    pub(super) cleaning: Option<Mode>,
    pub(super) clean_max: u64,
    pub(super) clean_min_age: Duration,
    pub(super) ways: Ways,
    pub(super) address: std::net::SocketAddr,
}

/// Why the guard could not begin, or ended by itself.
#[derive(Debug, Error)]
pub(super) enum WatchError {
    #[error("this node cannot be guarded")]
    Guard(#[source] GuardError),
    #[error("cannot listen on {address}")]
    Listen {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the disks of this node did not answer within {} s", BEGIN_MAX.as_secs())]
    Late,
    #[error("signals cannot be received")]
    Signals(#[from] SignalError),
    #[error("a part of the process ended")]
    Ended(#[from] SupervisorError),
    #[error("the looks ended")]
    Look(#[from] BlockingError),
}

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The loop and what it holds.
struct Loop {
    /// None while a look is under way.
    guard: Option<Guard>,
    /// None while they write.
    hands: Option<Hands>,
    /// What waits until they have written: the newest state, so never more than one.
    deeds: Option<Deeds>,
    acting: Option<Work<Result<(Hands, Acted), BlockingError>>>,
    /// Since when something is written for longer than it may take a disk that is well.
    acting_since: Option<Duration>,
    settings: Settings,
    clock: Arc<SystemClock>,
    metrics: Metrics,
    sinks: Sinks,
    looked: Sender<Duration>,
    looks: Looks,
    decides: Blocking,
    /// Disks that are to be cleaned when that which is being cleaned is done.
    to_clean: Vec<Device>,
    cleaning: Option<Work<Result<Result<Cleaned, CleanFailure>, BlockingError>>>,
    owners: Option<Work<Result<Result<Shares, SurveyError>, BlockingError>>>,
    /// When it is time for one of them.
    walks: Option<Walks>,
    /// Disks whose owners are not known, as it was said.
    unknown: Vec<PathBuf>,
    /// Which disk has which label, as it was said: no more than there are disks and names.
    named: Vec<(PathBuf, Option<&'static str>)>,
    /// A disk is nearly full, or will be.
    is_urgent: bool,
    /// The last look failed: that is said once.
    is_blind: bool,
}

// === impl WatchError ===

impl WatchError {
    /// The next step, where one is known.
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Guard(GuardError::Lock(_)) => Some("root may make it: try with sudo"),
            Self::Guard(GuardError::NoRun) => Some("mount a tmpfs on /run"),
            Self::Guard(GuardError::Node(_) | GuardError::Look(_)) => Some(
                "--root names the root directory of the node, --path a directory that is there, on a disk",
            ),
            Self::Guard(GuardError::Paths(_)) => {
                Some("several paths on one disk are watched as one: name each disk once")
            }
            Self::Late => Some(
                "a filesystem that hangs lies on the way to a directory of the node or to a --path: 'findmnt' lists what is mounted",
            ),
            Self::Listen { .. } => Some("choose another address with --metrics-listen"),
            Self::Guard(GuardError::Busy) | Self::Signals(_) | Self::Ended(_) | Self::Look(_) => {
                None
            }
        }
    }
}

/// Guards until a signal.
///
/// # Errors
/// It could not begin, or a part of it ended.
pub(super) async fn run(
    settings: Settings,
    clock: Arc<SystemClock>,
    metrics: Metrics,
) -> Result<(), WatchError> {
    let termination = Termination::listen()?;
    let address = settings.address;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| WatchError::Listen { address, source })?;
    let (sinks, takers) = Sinks::open(&settings.ways, &settings.guard.root, metrics.clone());
    let (mut guard, eyes, hands) = begin(&settings.guard, &clock).await?;
    let mut acting = Some(open(hands, &clock));
    let opened = tokio::time::timeout(OPEN_MAX, done(&mut acting)).await;
    let since = clock.monotonic();
    let mut hands = None;
    match opened {
        Ok(opened) => {
            let (own, mut opened) = opened?;
            guard.done(&mut opened, &*clock);
            say_troubles(&opened.troubles);
            hands = Some(own);
        }
        // The loop goes on waiting for it, and tells that the disk is silent.
        Err(_elapsed) => tracing::warn!(
            waits_for = "the disk of /var/lib",
            waited_seconds = OPEN_MAX.as_secs(),
            "Disk does not answer; levels, history and ballast are left out until it does"
        ),
    }
    let (looked, looked_at) = tokio::sync::watch::channel(clock.monotonic());
    let mut supervisor = Supervisor::new();
    let health = Health {
        clock: clock.clone(),
        metrics: metrics.clone(),
        looked_at,
        every: settings.every,
    };
    let door = Door {
        name: "guard connections",
        connections_max: CONNECTIONS_MAX,
        grace: Duration::from_secs(1),
        not_accepted: |error| tracing::warn!(error = %error, "Connection could not be accepted"),
    };
    tracing::info!(
        metrics = %address,
        every_seconds = settings.every.as_secs(),
        remembers = hands.as_ref().is_some_and(Hands::has_memory),
        "Guard starting"
    );
    let shutdown = supervisor.shutdown();
    supervisor.spawn(
        "door",
        door.serve(listener, door::routes(health), shutdown.clone()),
    );
    if let Some(postman) = takers.postman {
        supervisor.spawn("webhook", postman.run(shutdown.clone()));
    }
    if let Some(scribe) = takers.scribe {
        supervisor.spawn("alert log", scribe.run(shutdown.clone()));
    }
    let walks = settings
        .owners_every
        .map(|every| Walks::every(every, since));
    let guarding = Loop {
        guard: Some(guard),
        acting_since: acting.as_ref().map(|_| since),
        hands,
        deeds: None,
        acting,
        settings,
        clock,
        metrics,
        sinks,
        looked,
        looks: Looks::new(eyes),
        decides: Blocking::new("disk round", 1),
        to_clean: Vec::new(),
        cleaning: None,
        owners: None,
        walks,
        unknown: Vec::new(),
        named: Vec::new(),
        is_urgent: false,
        is_blind: false,
    };
    supervisor.spawn("guard", guarding.run(shutdown));
    supervisor.run_until_terminated(termination, GRACE).await?;
    Ok(())
}

/// Looks at the node and takes the lock, on a thread: a path of the node may lead over a disk that does not answer.
async fn begin(
    settings: &GuardSettings,
    clock: &Arc<SystemClock>,
) -> Result<(Guard, Eyes, Hands), WatchError> {
    let (settings, clock) = (settings.clone(), Arc::clone(clock));
    let begins = Blocking::new("disk begin", 1);
    let begun = begins.run(move || Guard::begin(settings, &*clock));
    match tokio::time::timeout(BEGIN_MAX, begun).await {
        Ok(begun) => begun?.map_err(WatchError::Guard),
        Err(_elapsed) => Err(WatchError::Late),
    }
}

/// Opens what is written to, on a thread that nobody has to wait for.
fn open(mut hands: Hands, clock: &Arc<SystemClock>) -> Work<Result<(Hands, Acted), BlockingError>> {
    let now = clock.now();
    let opens = Blocking::new("disk open", 1);
    Box::pin(async move {
        let open = move || {
            let opened = hands.open(now);
            (hands, opened)
        };
        opens.run(open).await
    })
}

fn say_troubles(troubles: &[Trouble]) {
    for trouble in troubles {
        match trouble {
            Trouble::Memory(_)
            | Trouble::Record(_)
            | Trouble::Ballast(..)
            | Trouble::LeftOut(_) => {
                tracing::warn!(error = %words(trouble), "Guard goes on without");
            }
        }
    }
}

fn facts_of(growth: &Growth, room: u64) -> OwnerFacts {
    let days = growth.days_to(room);
    let span = |days: Option<f64>| Duration::try_from_secs_f64(days? * 86_400.0).ok();
    OwnerFacts {
        bytes: growth.used,
        growth: growth.trend.per_hour(),
        share: growth.share,
        full_in: [days.earliest, days.likely, days.latest].map(span),
    }
}

/// Whatever is under way, or never when nothing is.
async fn done<T>(work: &mut Option<Work<T>>) -> T {
    match work {
        Some(under_way) => {
            let ended = under_way.await;
            *work = None;
            ended
        }
        None => pending().await,
    }
}

// === impl Loop ===

impl Loop {
    async fn run(mut self, shutdown: Shutdown) -> Result<(), WatchError> {
        let mut turns = tokio::time::interval(self.settings.every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Cancel-safe: a tick that was not taken comes again.
                _ = turns.tick() => self.turn().await?,
                // Cancel-safe: it stays until it has ended.
                acted = done(&mut self.acting) => self.acted(acted?),
                // Cancel-safe: as above.
                cleaned = done(&mut self.cleaning) => {
                    self.cleaned(cleaned);
                    self.clean();
                }
                // Cancel-safe: as above.
                shares = done(&mut self.owners) => self.walked(shares),
                // Cancel-safe: a state, not an event.
                () = shutdown.draining() => break,
            }
        }
        if self.acting.is_some() {
            let (hands, mut done) = done(&mut self.acting).await?;
            self.hands = Some(hands);
            self.say(&mut done);
        }
        // What is being cleaned goes on to its record and ends with the process.
        if let (Some(guard), Some(mut hands)) = (self.guard.take(), self.hands.take()) {
            let clock = Arc::clone(&self.clock);
            let deeds = self.deeds.take();
            let end = move || {
                let done = deeds.map(|deeds| hands.carry_out(deeds));
                (done, guard.end(hands, &*clock))
            };
            let (done, kept) = self.decides.run(end).await?;
            if let Some(mut done) = done {
                self.say(&mut done);
            }
            if let Err(error) = kept {
                tracing::warn!(error = %error, "History could not be written down");
            }
        }
        Ok(())
    }

    /// One look, and what follows.
    async fn turn(&mut self) -> Result<(), WatchError> {
        match self.looks.look(&*self.clock).await? {
            Ok(looked) => {
                self.is_blind = false;
                let now = self.clock.monotonic();
                let round = self.round(Looked {
                    writing: self.acting_since.map(|since| now.saturating_sub(since)),
                    ..looked
                });
                if let Some(round) = round.await? {
                    self.looked.send_replace(self.clock.monotonic());
                    self.follow(&round);
                    self.act(round.deeds);
                }
            }
            Err(error) if !self.is_blind => {
                self.is_blind = true;
                tracing::error!(error = %words(&error), "Disks cannot be looked at");
            }
            Err(_) => {}
        }
        self.look_for_owners();
        Ok(())
    }

    async fn round(&mut self, looked: Looked) -> Result<Option<Round>, WatchError> {
        let Some(mut guard) = self.guard.take() else {
            return Ok(None);
        };
        let clock = Arc::clone(&self.clock);
        let decide = move || {
            let round = guard.round(looked, &*clock);
            (guard, round)
        };
        let (guard, round) = self.decides.run(decide).await?;
        self.guard = Some(guard);
        Ok(Some(round))
    }

    fn follow(&mut self, round: &Round) {
        for alert in &round.alerts {
            self.sinks.tell(alert);
        }
        say_troubles(&round.troubles);
        self.to_clean.extend(&round.clean);
        self.clean();
        self.is_urgent = round.disks.iter().any(|disk| disk.is_urgent);
        for disk in &round.disks {
            self.say_named(disk);
            self.show(disk);
        }
    }

    /// Begins what is to be written, unless something is being written: then it waits for that.
    fn act(&mut self, deeds: Option<Deeds>) {
        self.deeds = match (self.deeds.take(), deeds) {
            (Some(waiting), Some(later)) => Some(waiting.and(later)),
            (waiting, later) => waiting.or(later),
        };
        let Some(deeds) = self.deeds.take() else {
            return;
        };
        let Some(mut hands) = self.hands.take() else {
            self.deeds = Some(deeds);
            return;
        };
        self.acting_since = Some(self.clock.monotonic() + deeds.allowance());
        // Not a look: it waits for the disk, and looks go on meanwhile.
        let acts = Blocking::new("disk act", 1);
        self.acting = Some(Box::pin(async move {
            let act = move || {
                let done = hands.carry_out(deeds);
                (hands, done)
            };
            acts.run(act).await
        }));
    }

    fn acted(&mut self, (hands, mut done): (Hands, Acted)) {
        self.hands = Some(hands);
        self.acting_since = None;
        self.say(&mut done);
        self.act(None);
    }

    fn say(&mut self, done: &mut Acted) {
        if let Some(guard) = &mut self.guard {
            guard.done(done, &*self.clock);
        }
        say_troubles(&done.troubles);
        if let Some(changed) = &done.ballast
            && changed.held != changed.before
        {
            let (disk, bytes) = (changed.point.display(), changed.held);
            tracing::info!(%disk, bytes, "Ballast changed");
        }
    }

    fn clean(&mut self) {
        let (Some(mode), None) = (self.settings.cleaning, &self.cleaning) else {
            return;
        };
        let disks = std::mem::take(&mut self.to_clean);
        if disks.is_empty() {
            return;
        }
        let order = Order {
            root: self.settings.guard.root.clone(),
            disks,
            mode,
            bytes_max: self.settings.clean_max,
            grace: self.settings.clean_min_age,
        };
        let clock = Arc::clone(&self.clock);
        // Not a look: it may take minutes, and looks go on meanwhile.
        let cleans = Blocking::new("disk clean", 1);
        self.cleaning = Some(Box::pin(async move {
            cleans.run(move || clean::clean(&order, &*clock)).await
        }));
    }

    /// What came of cleaning. A disk that fills is watched on, whatever became of that.
    fn cleaned(&mut self, cleaned: Result<Result<Cleaned, CleanFailure>, BlockingError>) {
        let why = match &cleaned {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(words(error)),
            Err(error) => Some(words(error)),
        };
        let Ok(Ok(Cleaned { plan, report })) = cleaned else {
            tracing::error!(error = %why.unwrap_or_default(), "Cleaning failed");
            return;
        };
        let Some(report) = report else {
            if self.settings.cleaning == Some(Mode::Apply) {
                tracing::warn!("Nothing to clean");
                return;
            }
            tracing::warn!(
                expected_bytes = plan.expected(),
                hint = "'nagi disk clean' shows the plan; --clean apply carries it out next time",
                "Cleaning planned, nothing removed"
            );
            return;
        };
        if let Some(guard) = &mut self.guard {
            guard.cleaned(&plan, &report, &*self.clock);
        }
        for done in &report.done {
            let kind = done.reclaimer.name();
            let freed = u64::try_from(done.measured).unwrap_or(0);
            self.metrics.disk_freed(kind, freed);
            tracing::info!(
                kind,
                removed = done.removed,
                measured_bytes = done.measured,
                end = ?done.end,
                "Cleaning step ended"
            );
        }
        let is_clean = report.after.iter().all(|after| after.is_clean);
        tracing::info!(is_clean, "Cleaning ended");
    }

    /// A walk over the disks, when it is time for one.
    fn look_for_owners(&mut self) {
        let now = self.clock.monotonic();
        let (Some(walks), Some(guard), None) = (&mut self.walks, &self.guard, &self.owners) else {
            return;
        };
        if !walks.is_time(now, self.is_urgent) {
            return;
        }
        let disks = guard.watched();
        let root = self.settings.guard.root.clone();
        let blocking = Blocking::new("disk owners", 1);
        self.owners = Some(Box::pin(async move {
            blocking
                .run(move || nagi_guard::shares(&root, &disks))
                .await
        }));
    }

    /// What a walk found. Nothing hangs on it: where it broke off the guard goes on without.
    fn walked(&mut self, shares: Result<Result<Shares, SurveyError>, BlockingError>) {
        let why = match shares {
            Ok(Ok(shares)) => {
                if let Some(walks) = &mut self.walks {
                    walks.ended(shares.cost);
                }
                self.say_unknown(&shares.unknown);
                if let Some(guard) = &mut self.guard {
                    guard.walked(&shares, &*self.clock);
                }
                return;
            }
            Ok(Err(error)) => words(&error),
            Err(error) => words(&error),
        };
        if let Some(guard) = &mut self.guard {
            guard.not_walked();
        }
        tracing::warn!(error = %why, "Owners could not be told apart");
    }

    /// Once for as long as it is so.
    fn say_unknown(&mut self, unknown: &[(PathBuf, NotKnown)]) {
        let new = unknown
            .iter()
            .filter(|(disk, _)| !self.unknown.contains(disk));
        for (disk, why) in new {
            tracing::warn!(disk = %disk.display(), reason = %words(why), "Owners are not known");
        }
        self.unknown = unknown.iter().map(|(disk, _)| disk.clone()).collect();
    }

    /// Which disk of a path has which label in metrics, as a label may be no path.
    fn say_named(&mut self, disk: &DiskNow) {
        let named = (disk.reading.point.clone(), disk.reading.name);
        if !self.settings.guard.paths.is_empty() && !self.named.contains(&named) {
            let label = named.1.unwrap_or_default();
            tracing::info!(disk = %named.0.display(), label, "Disk has this label in metrics");
            self.named.push(named);
        }
    }

    fn show(&self, disk: &DiskNow) {
        // No guard begins with more paths than there are names.
        let Some(name) = disk.reading.name else {
            return;
        };
        let space = &disk.reading.space;
        let facts = DiskFacts {
            bytes: [space.used(), space.bytes_available, space.reserved()],
            inodes: [space.inodes_used(), space.inodes_free],
            levels: [disk.bytes.number(), disk.inodes.number()],
            full_in: disk.forecasts.each_ref().map(|forecast| {
                let forecast = forecast.as_ref();
                [
                    forecast.and_then(|forecast| forecast.earliest),
                    forecast.and_then(|forecast| forecast.full_in),
                    forecast.and_then(|forecast| forecast.latest),
                ]
            }),
            ballast: disk.ballast,
            looked_at: self.clock.now().as_second(),
        };
        self.metrics.set_disk(name, &facts);
        for owner in Owner::all() {
            let growth = disk.owners.iter().find(|growth| growth.owner == owner);
            let facts = growth.map(|growth| facts_of(growth, space.bytes_available));
            self.metrics.set_owner(name, owner.name(), facts.as_ref());
        }
    }
}
