//! `nagi recover drill`: a recovery rehearsed. Diagnosis, plan and ladder are the real ones; nothing is done and nothing
//! written, not even a lock.

use clap::Args;
use nagi_ops::Policy;
use nagi_ops::recover::{Eyes, Hands, judge};

use super::on_node::{self, CutOff, OnNodeArgs};
use super::run::report::Report;
use super::run::{LookArgs, ProofArgs, blind, print};
use crate::failure::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  nagi recover drill                                 what would be done now, and how long looking takes
  nagi recover drill --nodes 3 --markdown            for the page of the monthly rehearsal
  nagi recover drill --ssh ubuntu@NODE               on a node, also without nagi there";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DrillArgs {
    #[command(flatten)]
    look: LookArgs,

    #[command(flatten)]
    proof: ProofArgs,

    #[command(flatten)]
    on_node: OnNodeArgs,
}

/// Runs the command.
pub(crate) async fn run(args: &DrillArgs, session: &Session) -> Result<(), Failure> {
    args.proof.check(session)?;
    if let Some(ended) = on_node::instead(&args.on_node, CutOff::Harmless, session).await {
        return ended;
    }
    let (mut hands, _room) = args.look.hands(None, false, session);
    let policy = Policy::default();
    let began = tokio::time::Instant::now();
    let world = Hands::look(&mut hands).await;
    let world = world.map_err(|why| blind(&why))?;
    let diagnosis = world.diagnosis(&policy);
    let plan = world.plan(&policy);
    let mut report = Report::of(&world, &diagnosis, &plan);
    report.timed("diagnosis and plan", began.elapsed());
    let began = tokio::time::Instant::now();
    let look = Eyes::look(&mut hands).await;
    let rules = args.proof.rules(args.look.target());
    // One look holds for no time: what must hold for a while is unknown, and so is a write that is not tried.
    let ladder = judge(&policy, &rules, &look, &look, std::time::Duration::ZERO);
    report.climbed(&ladder, &look.observed);
    // Nothing was done, so there is no afterwards.
    report.after = None;
    report.timed("proof", began.elapsed());
    report.status = "rehearsed";
    let steps: Vec<&str> = plan.steps().map(|(step, _)| step.name()).collect();
    let outcome = match (steps.is_empty(), plan.refusals.first()) {
        (true, None) => "nothing would be done".to_owned(),
        (true, Some(refusal)) => format!("refused: {}", refusal.blocks.words()),
        (false, _) => format!("would be done: {}", steps.join(", ")),
    };
    report.message = format!("{outcome}; nothing was changed");
    print(&report, args.proof.markdown, session)
}
