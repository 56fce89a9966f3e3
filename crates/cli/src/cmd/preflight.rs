//! `nagi preflight`: has this cluster what Nagi needs? What is missing is named with the command that mends it.
//!
//! Asked from a laptop it looks with the rights of an administrator and asks about the accounts of Nagi; in a pod of Nagi it
//! asks about its own. It changes nothing. [`look`] and [`kinds`] ask and judge, [`rights`] knows what the shipped roles grant.

mod kinds;
mod look;
mod rights;

use std::fmt::Write as _;

use clap::Args;
use nagi_kube::{Rights, Survey};
use serde::Serialize;

use super::release::away;
use super::server::kube_settings;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::style::Tone;
use crate::output::table::{Cell, Table};
use crate::output::{Place, words};
use crate::serve::settings::KubeArgs;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  nagi preflight                                     before and after the installation, as an administrator
  kubectl exec -n scale-system deploy/scale-api -- nagi preflight
                                                     the same from inside: the rights of the pod itself
  nagi preflight --namespaces project-a,project-b    for an installation with rights in these only
  nagi preflight --output json | jq -r '.checks[] | select(.fix) | .fix'
                                                     only the commands that mend what is missing";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PreflightArgs {
    #[command(flatten)]
    kube: KubeArgs,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    /// What it is about.
    name: &'static str,
    result: Finding,
    detail: String,
    /// The command that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Finding {
    /// It is as it must be.
    Ok,
    /// It works, with a limit that one should know.
    Note,
    /// Nagi does not work without it.
    Missing,
    /// Nobody can tell from here.
    Unknown,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    status: &'static str,
    message: String,
    checks: &'a [Check],
}

// === impl Finding ===

impl Finding {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }

    const fn tone(self) -> Tone {
        match self {
            Self::Ok => Tone::Good,
            Self::Note => Tone::Calm,
            Self::Missing | Self::Unknown => Tone::Bad,
        }
    }

    const fn is_well(self) -> bool {
        match self {
            Self::Ok | Self::Note => true,
            Self::Missing | Self::Unknown => false,
        }
    }
}

// === impl Check ===

impl Check {
    fn new(name: &'static str, result: Finding, detail: impl Into<String>) -> Self {
        Self {
            name,
            result,
            detail: detail.into(),
            fix: None,
        }
    }

    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Finding::Ok, detail)
    }

    fn note(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Finding::Note, detail)
    }

    fn missing(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Finding::Missing, detail)
    }

    fn unknown(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Finding::Unknown, detail)
    }

    fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix = Some(command.into());
        self
    }
}

/// Runs the command.
pub(crate) async fn run(args: &PreflightArgs, session: &Session) -> Result<(), Failure> {
    let settings = kube_settings(&args.kube, Rights::Full)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let survey = Survey::new(settings.source);
    let version = survey.version().await.map_err(|error| away(&error))?;
    let looked = look::at(
        &survey,
        &version,
        settings.namespaces.as_deref(),
        session.now(),
    )
    .await;
    let checks = looked.map_err(|error| away(&error))?;
    let left = checks
        .iter()
        .filter(|check| !check.result.is_well())
        .count();
    let answer = Answer {
        status: if left == 0 { "success" } else { "error" },
        message: summary(left),
        checks: &checks,
    };
    let raw = serde_json::to_value(&answer)
        .map_err(|error| Failure::of(Exit::Failed, "cannot write the answer", &error))?;
    session
        .output
        .body(&raw, Place::Alone, |_detail| text(&checks, session))?;
    if left == 0 {
        session.output.note(&answer.message);
        return Ok(());
    }
    Err(Failure::new(Exit::Missing, answer.message))
}

fn summary(left: usize) -> String {
    match left {
        0 => "this cluster has what Nagi needs".to_owned(),
        left => format!(
            "{} missing, or cannot be told from here",
            words::count(u64::try_from(left).unwrap_or(u64::MAX), "thing is")
                .replace("thing iss", "things are")
        ),
    }
}

/// What people see: a row for each check, and under them what to run.
fn text(checks: &[Check], session: &Session) -> String {
    let mut table = Table::new(["RESULT", "CHECK", "DETAIL"]);
    for check in checks {
        table.row([
            Cell::toned(check.result.tone(), check.result.word()),
            Cell::from(check.name),
            Cell::from(words::clean(&check.detail)),
        ]);
    }
    let mut text = session.output.table(&table);
    text.push_str(&fixes(checks));
    text
}

fn fixes(checks: &[Check]) -> String {
    let mut text = String::new();
    let mut said: Vec<&str> = Vec::new();
    for check in checks {
        let Some(fix) = &check.fix else { continue };
        if said.contains(&fix.as_str()) {
            continue;
        }
        said.push(fix);
        if text.is_empty() {
            let all_well = checks.iter().all(|check| check.result.is_well());
            text.push_str(if all_well {
                "\nIf you like:\n"
            } else {
                "\nTo mend it:\n"
            });
        }
        // Writing into a `String` cannot fail.
        writeln!(text, "  {}", words::clean(fix)).unwrap_or(());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_that_mends_something_is_named_once() {
        let checks = [
            Check::ok("api-server", "v1.36.0"),
            Check::missing("rights", "no patch deployments.apps").fix("kubectl apply -f a"),
            Check::missing("lease", "may not be read").fix("kubectl apply -f a"),
            Check::note("nodes", "none has the label").fix("kubectl label node NODE a=b"),
        ];
        assert_eq!(
            fixes(&checks),
            "\nTo mend it:\n  kubectl apply -f a\n  kubectl label node NODE a=b\n"
        );
        assert_eq!(fixes(&checks[..1]), "");
        assert_eq!(
            fixes(&checks[3..]),
            "\nIf you like:\n  kubectl label node NODE a=b\n"
        );
    }

    #[test]
    fn what_is_left_is_counted() {
        assert_eq!(summary(0), "this cluster has what Nagi needs");
        assert_eq!(
            summary(1),
            "1 thing is missing, or cannot be told from here"
        );
        assert_eq!(
            summary(2),
            "2 things are missing, or cannot be told from here"
        );
        assert!(Finding::Note.is_well() && !Finding::Unknown.is_well());
    }
}
