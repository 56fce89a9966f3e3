//! `nagi recover run`: a plan, and on demand the plan carried out and its end proven.
//!
//! What is done and in which order is in `nagi_ops::recover`; what may go from the disks comes from `nagi-guard`, through
//! [`room`]. Here are the words, the lock, and the record that a killed run leaves for the report of the next.

mod record;
pub(super) mod report;
mod room;
pub(super) mod text;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use nagi_guard::{Policy as DiskPolicy, RunError};
use nagi_ops::recover::{
    Applied, Approved, Event, Hands as _, HandsRequest, Held, Ladder, NodeHands, Plan, Refusal,
    Rules, Rung, Step, Stopped, Verdict, World, apply, climb,
};
use nagi_ops::{Policy, Request, Verdict as Sight};
use nagi_ports::SystemClock;

use super::diagnose::unclear;
use super::node::NodeArgs;
use super::on_node::{self, CutOff, OnNodeArgs};
use crate::cmd::disk::{GoesArgs, parse_age};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Place, words};
use crate::session::Session;
use crate::when::parse_span;
use record::Journal;
use report::{DoneBody, LeftAloneBody, Report, SeenBody};
use room::NodeRoom;

/// kubelet's default of `evictionPressureTransitionPeriod`.
const TRANSITION: Duration = Duration::from_mins(5);
/// For how long the port of the API server is looked for after a restart: an etcd that replays its log and an API server
/// that starts take half a minute on a small machine.
const COMES_BACK: Duration = Duration::from_mins(2);

const EXAMPLES: &str = "\
Examples:
  nagi recover run                                   what would be done, and why
  nagi recover run --lossy                           old logs, journals and crash dumps may go too
  nagi recover run --apply                           do it, and prove that the cluster is back
  nagi recover run --apply --nodes 3                 ... which it is when three nodes are Ready
  nagi recover run --apply --snapshot /mnt/etcd.db   copy etcd there before it is touched
  nagi recover run --apply --markdown > report.md    for the ticket
  nagi recover run --ssh ubuntu@NODE                 on a node that kubectl does not reach, also without nagi there";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// Carry the plan out; without it nothing changes
    #[arg(long)]
    apply: bool,

    /// Do not ask, though '--lossy' without a digest removes what nobody has looked at
    #[arg(long, requires = "apply")]
    yes: bool,

    /// Carry the plan out only if what goes from the disks has this digest, as it was shown
    #[arg(long, value_name = "DIGEST", requires = "apply", value_parser = parse_digest)]
    digest: Option<String>,

    /// Where etcd is copied to before it is touched, a file that is not there yet [default: /run/nagi/etcd-snapshot-REVISION.db, if memory allows]
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,

    #[command(flatten)]
    look: LookArgs,

    #[command(flatten)]
    proof: ProofArgs,

    #[command(flatten)]
    on_node: OnNodeArgs,
}

/// What is looked at, and what may go.
#[derive(Debug, Args)]
pub(super) struct LookArgs {
    #[command(flatten)]
    node: NodeArgs,

    /// How long each probe may take; they run at the same time
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = parse_span)]
    timeout: Duration,

    /// A disk of which df says that more percent are used is not stable; it is freed until two less are
    #[arg(long, value_name = "PERCENT", default_value_t = DiskPolicy::TARGET_PERCENT, value_parser = clap::value_parser!(u8).range(0..=99))]
    target: u8,

    #[command(flatten)]
    goes: GoesArgs,
}

/// When a cluster counts as back.
#[derive(Debug, Args)]
pub(super) struct ProofArgs {
    /// So many nodes must be Ready [default: all that the cluster lists]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    nodes: Option<usize>,

    /// For so long nothing may be started again
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = parse_age)]
    stable: Duration,

    /// How long the proof may take in all
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = parse_age)]
    within: Duration,

    /// Print the report as Markdown
    #[arg(long)]
    pub(super) markdown: bool,
}

/// Runs the command.
pub(crate) async fn run(args: &RunArgs, session: &Session) -> Result<(), Failure> {
    let is_unseen = args.apply && args.look.goes.lossy && !args.yes && args.digest.is_none();
    let is_asked = session.output.terminal().asks && !args.on_node.is_elsewhere();
    if is_unseen && !is_asked {
        return Err(Failure::usage(
            "--apply --lossy would remove what cannot be had again, and nobody can be asked",
        )
        .hint("say so with --yes, or name a plan that was seen: --digest"));
    }
    args.proof.check(session)?;
    let cut_off = if args.apply {
        CutOff::Resumable
    } else {
        CutOff::Harmless
    };
    if let Some(ended) = on_node::instead(&args.on_node, cut_off, session).await {
        return ended;
    }
    let journal = if args.apply {
        Some(Journal::open(&args.look.node.root).map_err(|error| of_run(&error))?)
    } else {
        None
    };
    let is_resumed = journal
        .as_ref()
        .is_some_and(|journal| journal.is_resumed(session.now()));
    let (mut hands, room) = args.look.hands(args.snapshot.clone(), is_resumed, session);
    // A run that was cut off has changed the digest: what is left of the plan that was seen goes, and nothing else.
    let begun_with = { args.digest.as_deref().zip(journal.as_ref()) }
        .and_then(|(digest, journal)| journal.begun_with(digest, session.now()));
    let goes_on = begun_with.is_some();
    if let Some(files) = begun_with {
        room.only(files);
    }
    let policy = Policy::default();
    let began = tokio::time::Instant::now();
    let world = hands.look().await.map_err(|why| blind(&why))?;
    let diagnosis = world.diagnosis(&policy);
    let plan = world.plan(&policy);
    let mut report = Report::of(&world, &diagnosis, &plan);
    report.timed("diagnosis and plan", began.elapsed());
    let wanted = args.digest.as_deref().filter(|_| !goes_on);
    check_digest(wanted, &report)?;
    let seen = wanted.map(|digest| SeenBody {
        digest: digest.to_owned(),
        files: room.files(),
    });
    let Some(mut journal) = journal else {
        let is_clear = diagnosis.verdict != Sight::Unclear;
        return planned(report, &world, (&plan, is_clear), args, session);
    };
    if plan.steps().next().is_none() && !plan.refusals.is_empty() {
        report.status = "refused";
        report.message = refusal(&plan);
        print(&report, args.proof.markdown, session)?;
        return Err(refused(&plan));
    }
    if is_unseen && plan.has(Step::Free) {
        confirm(&report, session)?;
    }
    let began = tokio::time::Instant::now();
    // What was seen is what goes, and nothing where nothing was to go.
    let approved = if is_unseen || wanted.is_some() {
        let seen = world.freeing.as_ref().ok();
        let seen = seen.filter(|_| report.plan.digest.is_some());
        Approved::Only(seen.cloned().unwrap_or_default())
    } else {
        Approved::Anything
    };
    let applied = carried_out(
        &mut hands,
        (&policy, &approved),
        &mut report,
        (&mut journal, seen),
        session,
    )
    .await;
    report.timed("steps", began.elapsed());
    if let Some(Stopped::Changed { changes, .. }) = &applied.stopped {
        journal.end();
        return Err(changed(changes));
    }
    let ended = prove(hands, &policy, args, report, applied, session).await;
    // Locked, and written down, until the report is printed.
    journal.end();
    ended
}

/// Does the plan, and writes down what it did as it goes.
async fn carried_out(
    hands: &mut NodeHands,
    (policy, approved): (&Policy, &Approved),
    report: &mut Report,
    (journal, seen): (&mut Journal, Option<SeenBody>),
    session: &Session,
) -> Applied {
    let earlier = journal.begin(session.now(), &report.before, seen);
    let (before, done) = (earlier.before, earlier.done);
    report.before = before;
    let output = session.output.clone();
    let mut tell = |event: &Event<'_>| match event {
        Event::Begins(step, what) => {
            output.note(&format!("{}: {}", step.name(), words::clean(what)));
        }
        Event::Ended(one) => {
            for line in &one.did.evidence {
                output.note(&format!("  {}", words::clean(line)));
            }
            journal.add(DoneBody::of(one));
        }
    };
    let applied = apply(hands, policy, approved, &mut tell).await;
    if let Some(why) = journal.trouble() {
        session.output.note(&format!(
            "what was done is not written down, which a killed run would miss in its report: {why}"
        ));
        session.output.hint(RUN_FULL);
    }
    report.applied(&applied, done);
    applied
}

async fn prove(
    mut hands: NodeHands,
    policy: &Policy,
    args: &RunArgs,
    mut report: Report,
    applied: Applied,
    session: &Session,
) -> Result<(), Failure> {
    let rules = args.proof.rules(args.look.target);
    let within = args.proof.waits(&applied);
    session.output.note("proving that it is back, and stays");
    let climbed = Box::pin(climb(&mut hands, policy, &rules, within, &mut |_| {})).await;
    report.timed("proof", climbed.took);
    report.climbed(&climbed.ladder, &climbed.last.observed);
    let refusals = standing(&mut hands, policy, &applied).await;
    report.refused(&refusals);
    let verdict = with_what_is_open(climbed.ladder.verdict, &applied, &refusals);
    report.status = match verdict {
        Verdict::Recovered => "recovered",
        Verdict::UpNotStable => "up-not-stable",
        Verdict::NotRecovered => "not-recovered",
    };
    let stopped = report.stopped.iter().cloned();
    let why = stopped.chain(refusals.iter().map(refused_words)).collect();
    report.message = message(verdict, why, &climbed.ladder);
    print(&report, args.proof.markdown, session)?;
    ended(verdict, &report, &refusals)
}

/// A step that stopped and a person's part that is left are no end of an incident.
const fn with_what_is_open(verdict: Verdict, applied: &Applied, refusals: &[Refusal]) -> Verdict {
    let is_open = applied.stopped.is_some() || !refusals.is_empty();
    match verdict {
        Verdict::Recovered if is_open => Verdict::UpNotStable,
        Verdict::Recovered | Verdict::UpNotStable | Verdict::NotRecovered => verdict,
    }
}

/// What is refused still, behind the proof: what was refused while the API server came back may have passed.
async fn standing(hands: &mut NodeHands, policy: &Policy, applied: &Applied) -> Vec<Refusal> {
    let last = applied.last.iter().flat_map(|plan| plan.refusals.clone());
    let last: Vec<Refusal> = last.collect();
    if last.is_empty() {
        return last;
    }
    match hands.look().await {
        Ok(world) => world.plan(policy).refusals,
        Err(_) => last,
    }
}

/// The verdict, and why it is no better: what stopped the steps, what is refused, and the rungs that did not pass, the worst in full.
fn message(verdict: Verdict, mut why: Vec<String>, ladder: &Ladder) -> String {
    let counts = |held: &&Held| verdict != Verdict::Recovered || held.rung == Rung::Growth;
    let mut open: Vec<&Held> = ladder.open().filter(counts).collect();
    // Stable: of two that fail, the lower rung explains the higher.
    open.sort_by_key(|held| std::cmp::Reverse(held.outcome));
    for (at, held) in open.into_iter().enumerate() {
        let evidence = held.evidence.first().filter(|_| at == 0);
        let evidence = evidence.map_or_else(String::new, |evidence| format!(" ({evidence})"));
        why.push(format!(
            "{} {}{evidence}",
            held.rung.name(),
            held.outcome.name()
        ));
    }
    if why.is_empty() {
        return verdict.words().to_owned();
    }
    format!("{}: {}", verdict.words(), why.join(", "))
}

fn ended(verdict: Verdict, report: &Report, refusals: &[Refusal]) -> Result<(), Failure> {
    let exit = match verdict {
        Verdict::Recovered => return Ok(()),
        Verdict::UpNotStable => Exit::NotStable,
        Verdict::NotRecovered => Exit::NotRecovered,
    };
    let failure = Failure::new(exit, report.message.clone());
    let failure = refusals
        .iter()
        .fold(failure, |failure, refusal| failure.hint(&refusal.next));
    if failure.hints.is_empty() {
        return Err(failure.hint("nagi recover diagnose"));
    }
    Err(failure)
}

fn planned(
    mut report: Report,
    world: &World,
    (plan, is_clear): (&Plan, bool),
    args: &RunArgs,
    session: &Session,
) -> Result<(), Failure> {
    let has_steps = plan.steps().next().is_some();
    (report.status, report.message) = match (has_steps, plan.refusals.is_empty()) {
        (true, _) => ("planned", planned_words(plan)),
        (false, false) => ("refused", refusal(plan)),
        (false, true) if !is_clear => ("unclear", unclear().message),
        (false, true) => ("nothing-to-do", nothing(&report)),
    };
    print(&report, args.proof.markdown, session)?;
    if !has_steps && !plan.refusals.is_empty() {
        return Err(refused(plan));
    }
    if !has_steps && !is_clear {
        return Err(unclear());
    }
    let waits: u64 = world
        .freeing
        .iter()
        .flat_map(|freeing| &freeing.steps)
        .filter(|step| !step.has_consent)
        .map(|step| step.expected)
        .sum();
    if waits > 0 && plan.has(Step::Free) {
        session.output.hint(&format!(
            "--lossy would give back {} more, which cannot be had again",
            words::bytes(waits)
        ));
    }
    if has_steps {
        session
            .output
            .hint("nothing was changed; the same with --apply carries it out, as root");
    }
    Ok(())
}

fn planned_words(plan: &Plan) -> String {
    let steps: Vec<&str> = plan.steps().map(|(step, _)| step.name()).collect();
    format!("in this order: {}", steps.join(", "))
}

fn nothing(report: &Report) -> String {
    match &report.cause {
        None => "nothing is to be done".to_owned(),
        Some(cause) => format!("nothing is to be done on this node for {}", cause.id),
    }
}

fn refusal(plan: &Plan) -> String {
    let first = plan.refusals.first();
    first.map_or_else(|| "nothing is done".to_owned(), refused_words)
}

fn refused_words(refusal: &Refusal) -> String {
    let why = refusal.why.first().cloned().unwrap_or_default();
    format!("{}: {why}", refusal.blocks.words())
}

fn refused(plan: &Plan) -> Failure {
    let failure = Failure::new(Exit::Refused, refusal(plan));
    let hints = plan.refusals.iter();
    hints.fold(failure, |failure, refusal| failure.hint(&refusal.next))
}

pub(super) fn print(report: &Report, markdown: bool, session: &Session) -> Result<(), Failure> {
    let raw = serde_json::to_value(report)
        .map_err(|error| Failure::of(Exit::Failed, "cannot write the answer", &error))?;
    session.output.body(&raw, Place::Alone, |_detail| {
        if markdown {
            text::markdown(report)
        } else {
            text::whole(report, &session.output)
        }
    })
}

/// Shows the plan and asks.
fn confirm(report: &Report, session: &Session) -> Result<(), Failure> {
    let shown = text::whole(report, &session.output);
    if crate::output::is_confirmed(&format!("{shown}\ncarry this out"))? {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "nothing was changed"))
}

fn check_digest(wanted: Option<&str>, report: &Report) -> Result<(), Failure> {
    let Some(wanted) = wanted else {
        return Ok(());
    };
    if report.plan.digest.as_deref() == Some(wanted) {
        return Ok(());
    }
    // What was shown is not known here, but for its digest. What was left alone may be the whole difference.
    let left_alone = report.plan.left_alone.iter();
    let left_alone: Vec<String> = left_alone.map(LeftAloneBody::words).collect();
    Err(changed(&left_alone))
}

/// A runtime that is at work has nothing in a plan, and has it again some seconds later.
fn changed(what: &[String]) -> Failure {
    let mut failure = Failure::new(
        Exit::Conflict,
        "what would go is not what was shown: files came, went or grew old enough meanwhile, or a place was left alone now or then",
    );
    let lines = what.iter().map(|line| words::clean(line));
    failure.causes.extend(lines);
    failure.hint("look at the plan again: nagi recover run; where a pod is being started or an image pulled, no image is planned: again in 15 s")
}

fn parse_digest(text: &str) -> Result<String, String> {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest {
        Ok(text.to_lowercase())
    } else {
        Err("64 hexadecimal digits, as the plan shows them".to_owned())
    }
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("a number of nodes, 1 or more".to_owned()),
    }
}

pub(super) fn blind(why: &str) -> Failure {
    Failure::new(Exit::Usage, format!("cannot look at the node: {why}"))
        .hint("--root names the root directory of the node")
}

/// What lies there is in memory, and mostly the journal's.
const RUN_FULL: &str = "'df /run' and 'df -i /run' show whether it is full: journalctl --vacuum-size=8M, or mount -o remount,size=1G /run";

fn of_run(error: &RunError) -> Failure {
    match error {
        RunError::Busy(_) => Failure::new(Exit::Conflict, "another nagi recovers this node")
            .hint("wait for it, 20 s where a connection broke; its lock is /run/nagi/recover.lock"),
        RunError::NoRun => Failure::new(Exit::Failed, error.to_string())
            .hint("mount a tmpfs on /run: what is done is written down there first"),
        RunError::Look(_) | RunError::File { .. } => {
            let source = std::error::Error::source(error);
            let failure = match source {
                Some(source) => Failure::of(Exit::Failed, error.to_string(), source),
                None => Failure::new(Exit::Failed, error.to_string()),
            };
            if error.is_full() {
                return failure.hint(RUN_FULL);
            }
            failure.hint("root may use it: try with sudo")
        }
    }
}

// === impl LookArgs ===

impl LookArgs {
    pub(super) fn hands(
        &self,
        snapshot: Option<PathBuf>,
        is_resumed: bool,
        session: &Session,
    ) -> (NodeHands, Arc<NodeRoom>) {
        let looked = self.node.request(self.timeout, session.now());
        let request = HandsRequest {
            observe: Request {
                usual: looked
                    .usual
                    .filter(|_| !nagi_ops::has_admin(&self.node.root)),
                ..looked
            },
            snapshot,
            comes_back: COMES_BACK,
            is_resumed,
        };
        let room = Arc::new(NodeRoom::of(self.policy()));
        let hands = NodeHands::new(request, room.clone(), Arc::new(SystemClock::new()));
        (hands, room)
    }

    fn policy(&self) -> DiskPolicy {
        DiskPolicy {
            target_percent: self.target.saturating_sub(MARGIN_PERCENT),
            ..self.goes.policy(&self.node.root)
        }
    }

    pub(super) const fn target(&self) -> u8 {
        self.target
    }
}

/// What comes back writes: with nothing to spare, the first pod would put the disk above its target again.
const MARGIN_PERCENT: u8 = 2;

// === impl ProofArgs ===

impl ProofArgs {
    pub(super) fn check(&self, session: &Session) -> Result<(), Failure> {
        let is_other = !matches!(session.output.format(), Format::Table | Format::Wide);
        if self.markdown && is_other {
            return Err(Failure::usage(
                "--markdown and --output name two forms of one report",
            )
            .hint("leave one of them out; what --output json prints has all that the Markdown has"));
        }
        self.check_times()
    }

    fn check_times(&self) -> Result<(), Failure> {
        if self.stable <= self.within || self.within.is_zero() {
            return Ok(());
        }
        Err(
            Failure::usage("--stable is longer than --within, so nothing could hold for its time")
                .hint("give --within more than --stable"),
        )
    }

    /// What failed is not waited for, nor what a person has to mend first.
    fn waits(&self, applied: &Applied) -> Duration {
        let is_refused = applied.last.iter().any(|plan| !plan.refusals.is_empty());
        let has_started = applied.done.iter().any(|one| one.step.starts_something());
        match (&applied.stopped, is_refused) {
            (Some(_), _) => Duration::ZERO,
            (None, true) if !applied.is_ready && !has_started => Duration::ZERO,
            (None, true) if applied.is_ready => self.within.min(self.stable),
            (None, _) => self.within,
        }
    }

    pub(super) const fn rules(&self, target_percent: u8) -> Rules {
        Rules {
            target_percent,
            window: self.stable,
            transition: TRANSITION,
            nodes: self.nodes,
        }
    }
}

#[cfg(test)]
mod tests;
