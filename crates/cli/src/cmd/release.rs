//! `nagi release`: before Nagi leaves a cluster, what it put to sleep wakes and serves, and its marks are taken away.
//!
//! It speaks to the cluster itself and needs no server of ours, since it is what an uninstallation runs. It goes round after
//! round over the facts, as a controller does: whoever kills it loses nothing, and another run goes on from there.

mod rounds;

use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use nagi_core::id::{Namespace, UserName, WorkloadId};
use nagi_core::intent::Actor;
use nagi_kube::{KubeEngine, Rights, Survey};
use nagi_ports::{Clock, Facts, PortError, SystemClock, Unread};
use nagi_runtime::Supervisor;
use serde::Serialize;

use self::rounds::{Rounds, Row, State};
use super::server::kube_settings;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::style::Tone;
use crate::output::table::{Cell, Table};
use crate::output::{Place, words};
use crate::serve::settings::KubeArgs;
use crate::session::Session;
use crate::target::TargetArgs;
use crate::when::parse_span;

const EXAMPLES: &str = "\
Examples:
  nagi release --all --dry-run                       what would be woken and let go; changes nothing
  nagi release --all                                 before Nagi is uninstalled
  nagi release --all --timeout 30m                   where a node of a GPU pool takes its time
  nagi release sample-app-a -n project-a             one workload, which Nagi may put to sleep again";

/// Time for the first lists of everything.
const FIRST_LISTS: Duration = Duration::from_secs(30);
/// Time for the last Events to be written.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    group(ArgGroup::new("what").required(true).args(["workload", "all"])),
)]
pub(crate) struct ReleaseArgs {
    /// Name of the workload: NAME or NAMESPACE/NAME
    #[arg(value_name = "NAME")]
    workload: Option<String>,

    /// Its namespace; may be left out while the name is unique
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all")]
    namespace: Option<String>,

    /// Every workload
    #[arg(long)]
    all: bool,

    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// How long woken workloads may take until they serve: 90s, 10m
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = parse_span)]
    timeout: Duration,

    /// Let go as soon as the wake is written, whether anything serves or not
    #[arg(long)]
    no_wait: bool,

    #[command(flatten)]
    kube: KubeArgs,
}

/// Whether a run changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Real,
    DryRun,
}

/// Whether a woken workload must serve before it is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    UntilItServes,
    None,
}

/// What is printed as JSON or YAML.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    status: &'static str,
    message: String,
    dry_run: bool,
    items: Vec<Item<'a>>,
}

#[derive(Debug, Serialize)]
struct Item<'a> {
    resource: &'a str,
    namespace: &'a str,
    name: &'a str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    woken_to: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

/// Runs the command.
pub(crate) async fn run(args: &ReleaseArgs, session: &Session) -> Result<(), Failure> {
    let settings = kube_settings(&args.kube, Rights::Full)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let survey = Survey::new(settings.source.clone());
    // A cluster that is not there, or not described, is told at once and not when lists are given up.
    survey.version().await.map_err(|error| away(&error))?;
    there_are(settings.namespaces.as_deref(), &survey).await?;
    let actor = actor(&survey).await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut supervisor = Supervisor::new();
    let engine = KubeEngine::start(settings, Arc::clone(&clock), &mut supervisor);
    let mut done = None;
    let working = Box::pin(async {
        done = Some(released(args, session, &engine, clock, actor).await);
    });
    let ended = supervisor.run_until(working, GRACE).await;
    ended.map_err(|error| Failure::of(Exit::Failed, "a part of the program ended", &error))?;
    let (rows, unread) = done.unwrap_or(Ok(Default::default()))?;
    show(args, session, &rows)?;
    verdict(&rows)?;
    read_all(&unread)
}

/// What carries something of Nagi's may be among those that nobody could read.
fn read_all(unread: &[Unread]) -> Result<(), Failure> {
    let mut hidden = unread.iter().filter(|unread| unread.may_hide_workloads());
    let Some(unread) = hidden.next() else {
        return Ok(());
    };
    let problem = &unread.problem;
    let message =
        format!("{unread} could not be read, so what Nagi put to sleep among them still sleeps");
    let failure = Failure::of(Exit::Failed, message, problem);
    Err(failure.hint(match &unread.facts {
        _ if !problem.is_retryable() => {
            "'nagi preflight' names the right that is missing and the command that grants it; then run this again".into()
        }
        Facts::Kind(kind) if !kind.is_built_in() => format!(
            "mend what fails, or delete the kind if nobody needs it ('kubectl delete crd {kind}'), then run this again"
        ),
        Facts::Kind(_) | Facts::Definitions | Facts::Pods => "mend what fails, then run this again".into(),
    }))
}

/// A namespace that is written wrong must not look like one in which all is awake. Whoever may not list namespaces is believed.
async fn there_are(wanted: Option<&[Namespace]>, survey: &Survey) -> Result<(), Failure> {
    let (Some(wanted), Ok(homes)) = (wanted, survey.namespaces().await) else {
        return Ok(());
    };
    let is_there = |name: &Namespace| homes.iter().any(|home| home.name == name.as_str());
    match wanted.iter().find(|name| !is_there(name)) {
        None => Ok(()),
        Some(name) => Err(
            Failure::new(Exit::NotFound, format!("there is no namespace {name}"))
                .hint("'kubectl get namespaces' shows what there is"),
        ),
    }
}

/// Who does it, as the history tells it later.
async fn actor(survey: &Survey) -> Actor {
    let name = survey.caller().await.ok();
    let name = name.and_then(|name| UserName::new(name).ok());
    name.map_or(Actor::Outside, Actor::User)
}

async fn released(
    args: &ReleaseArgs,
    session: &Session,
    engine: &KubeEngine,
    clock: Arc<dyn Clock>,
    actor: Actor,
) -> Result<(Vec<Row>, Vec<Unread>), Failure> {
    let first = engine.settled(FIRST_LISTS.min(args.timeout)).await;
    let (all, unread) = first.map_err(|error| away(&error))?;
    if let Some(problem) = engine.kinds_problem() {
        session.output.warn(&format!(
            "only built-in kinds are looked at, because others are not known: {problem}"
        ));
    }
    for missed in &unread {
        // Pods tell where a workload serves, and nothing of what Nagi put to sleep; of definitions it was said.
        if let Facts::Kind(_) = missed.facts {
            session.output.warn(&format!(
                "{missed} are not looked at, because they cannot be read: {}",
                missed.problem
            ));
        }
    }
    let only = match &args.workload {
        None => None,
        Some(workload) => {
            let target = TargetArgs {
                workload: workload.clone(),
                namespace: args.namespace.clone(),
            };
            let ids: Vec<WorkloadId> = all.iter().map(|w| w.id.clone()).collect();
            Some(target.among(&ids)?)
        }
    };
    let rounds = Rounds {
        engine,
        clock,
        actor,
        only,
        patience: if args.no_wait {
            Patience::None
        } else {
            Patience::UntilItServes
        },
    };
    if args.dry_run {
        return Ok((rounds.rehearse(&all), unread));
    }
    rounds
        .run(args.timeout, &session.output)
        .await
        .map_err(|error| away(&error))
}

/// The cluster could not be asked.
pub(super) fn away(error: &PortError) -> Failure {
    let exit = match error {
        PortError::Unreachable(_) | PortError::Timeout(_) | PortError::Busy { .. } => {
            Exit::Unreachable
        }
        PortError::Refused(_) => Exit::Denied,
        PortError::Conflict => Exit::Conflict,
        PortError::NotFound | PortError::NoSuchVersion { .. } => Exit::NotFound,
        PortError::StorageFull(_) | PortError::Internal(_) => Exit::Failed,
    };
    let mut failure = Failure::of(exit, "the cluster cannot be asked", error);
    if exit == Exit::Unreachable {
        failure.hints.push(
            "is KUBECONFIG the cluster that you mean? 'kubectl version' asks the same one"
                .to_owned(),
        );
    }
    if exit == Exit::Denied {
        failure.hints.push(
            "'nagi preflight' names the rights that are missing, and the command that grants them"
                .to_owned(),
        );
    }
    failure
}

fn show(args: &ReleaseArgs, session: &Session, rows: &[Row]) -> Result<(), Failure> {
    let left = rows.iter().filter(|row| !row.state.is_well()).count();
    let answer = Answer {
        status: if left == 0 { "success" } else { "error" },
        message: summary(rows, mode(args)),
        dry_run: args.dry_run,
        items: rows.iter().map(item).collect(),
    };
    let raw = serde_json::to_value(&answer)
        .map_err(|error| Failure::of(Exit::Failed, "cannot write the answer", &error))?;
    session.output.body(&raw, Place::Alone, |_detail| {
        if rows.is_empty() {
            return String::new();
        }
        session.output.table(&table(rows))
    })?;
    session.output.note(&answer.message);
    Ok(())
}

const fn mode(args: &ReleaseArgs) -> Mode {
    if args.dry_run {
        Mode::DryRun
    } else {
        Mode::Real
    }
}

fn summary(rows: &[Row], mode: Mode) -> String {
    if rows.is_empty() {
        return "nothing to release: no workload carries anything of Nagi's".to_owned();
    }
    let count = |of: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| of(row)).count();
    let released = count(&|row| row.state.is_well());
    let woken = count(&|row| row.state.is_well() && row.woken_to.is_some());
    let released = words::count(u64::try_from(released).unwrap_or(u64::MAX), "workload");
    match mode {
        Mode::DryRun => format!("{released} would be let go, {woken} of them woken first"),
        Mode::Real => format!("{released} let go, {woken} of them woken first"),
    }
}

fn item(row: &Row) -> Item<'_> {
    Item {
        resource: row.id.resource.as_str(),
        namespace: row.id.namespace.as_str(),
        name: row.id.name.as_str(),
        result: row.state.word(),
        woken_to: row.woken_to,
        detail: row.state.detail(),
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["NAMESPACE", "NAME", "KIND", "RESULT", "WOKEN TO", "DETAIL"]);
    for row in rows {
        let tone = if row.state.is_well() {
            Tone::Good
        } else {
            Tone::Bad
        };
        table.row([
            Cell::from(row.id.namespace.as_str()),
            Cell::from(row.id.name.as_str()),
            Cell::from(row.id.resource.as_str()),
            Cell::toned(tone, row.state.word()),
            Cell::or_dash(row.woken_to.map(|count| count.to_string())),
            Cell::or_dash(row.state.detail().map(words::clean)),
        ]);
    }
    table
}

/// What is left decides how the command ends.
fn verdict(rows: &[Row]) -> Result<(), Failure> {
    let left: Vec<&Row> = rows.iter().filter(|row| !row.state.is_well()).collect();
    let Some(first) = left.first() else {
        return Ok(());
    };
    let of = words::count(u64::try_from(rows.len()).unwrap_or(u64::MAX), "workload");
    let message = format!("{} of {of} could not be let go", left.len());
    let stuck = left.iter().find(|row| matches!(row.state, State::Stuck(_)));
    let waits = left
        .iter()
        .any(|row| matches!(row.state, State::Waiting(_)));
    let exit = match (stuck, waits) {
        (None, true) => Exit::TimedOut,
        (Some(_) | None, _) => Exit::Refused,
    };
    let mut failure = Failure::new(exit, message);
    if let Some(row) = stuck {
        let id = &row.id;
        failure = failure.hint(format!(
            "decide for it yourself, then run this again: kubectl scale {}/{} -n {} --replicas=N",
            id.resource, id.name, id.namespace
        ));
    }
    if waits {
        failure = failure.hint(
            "they go on waking: run this again, with a longer --timeout, or with --no-wait to let go all the same",
        );
    } else if stuck.is_none() {
        failure = failure.hint(format!(
            "see why at {}: 'nagi preflight' names missing rights",
            first.id
        ));
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::style::Style;

    fn row(name: &str, state: State, woken_to: Option<u32>) -> Row {
        Row {
            id: WorkloadId::deployment(
                nagi_core::id::Namespace::new("project-a").unwrap(),
                nagi_core::id::Name::new(name).unwrap(),
            ),
            state,
            woken_to,
        }
    }

    #[test]
    fn what_is_left_decides_the_exit_code_and_names_the_next_step() {
        let well = || row("web", State::Released, Some(2));
        assert_eq!(verdict(&[]), Ok(()));
        assert_eq!(verdict(&[well()]), Ok(()));
        let waiting = || row("gpu", State::Waiting("starting".to_owned()), Some(1));
        let failure = verdict(&[well(), waiting()]).unwrap_err();
        assert_eq!(failure.exit, Exit::TimedOut);
        assert_eq!(failure.message, "1 of 2 workloads could not be let go");
        let stuck = || row("old", State::Stuck("no count".to_owned()), None);
        let failure = verdict(&[stuck(), waiting()]).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(failure.hints.len(), 2);
        assert!(
            failure.hints[0].contains("kubectl scale deployments/old -n project-a"),
            "{failure:?}"
        );
        let refused = row("web", State::Refused("403".to_owned()), None);
        assert_eq!(verdict(&[refused]).unwrap_err().exit, Exit::Refused);
    }

    #[test]
    fn what_was_done_is_told_row_by_row_and_in_one_line() {
        let rows = [
            row("web", State::Released, None),
            row("model", State::Released, Some(3)),
            row(
                "gpu",
                State::Waiting("waiting for a node".to_owned()),
                Some(1),
            ),
        ];
        assert_eq!(
            table(&rows).text(Style::Plain, None),
            "NAMESPACE   NAME    KIND          RESULT     WOKEN TO   DETAIL\n\
             project-a   web     deployments   released   -          -\n\
             project-a   model   deployments   released   3          -\n\
             project-a   gpu     deployments   waiting    1          waiting for a node\n"
        );
        assert_eq!(
            summary(&rows, Mode::Real),
            "2 workloads let go, 1 of them woken first"
        );
        assert!(summary(&[], Mode::DryRun).starts_with("nothing to release"));
    }

    #[test]
    fn a_cluster_that_cannot_be_asked_is_told_with_the_next_step() {
        let failure = away(&PortError::Unreachable("refused".to_owned()));
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.hints[0].contains("KUBECONFIG"), "{failure:?}");
        let failure = away(&PortError::Refused("403".to_owned()));
        assert_eq!(failure.exit, Exit::Denied);
        assert!(failure.hints[0].contains("nagi preflight"), "{failure:?}");
    }
}
