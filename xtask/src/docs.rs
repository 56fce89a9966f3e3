//! `cargo xtask docs`: runs the shell blocks of README.md and of every page under docs/, as a reader would.
//!
//! A page is one shell session: its blocks run in order, in a fresh copy of the repository, with `nagi` on the path
//! and in a network of its own where the machine allows that. What a block must print, what is started beside it
//! and what is not run, and why, stands on the page itself; CONTRIBUTING.md describes the marks.
//!
//! Japanese twins are not run: tidy sees to it that they hold the same commands.

mod compare;
mod plan;
mod session;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::checkout::{Checkout, TextFile, extension};
use crate::command::Run;
use crate::markdown;
use crate::steps::{Counts, Outcome, failure_line};
use plan::Step;

pub(crate) use plan::{Plan, commands};
pub(crate) use session::Session;

/// A page's blocks take seconds; a hanging one must not hang the whole run.
const PAGE_LIMIT: Duration = Duration::from_mins(5);

/// Runs the pages that are named, or all of them, with a debug build of `nagi`.
pub(crate) fn run(checkout: &Checkout, arguments: &[String]) -> anyhow::Result<()> {
    Run::cargo()
        .arguments(["build", "--locked", "--package", "nagi-cli"])
        .within(checkout.root())
        .finish()?;
    let outcome = run_pages(checkout, &checkout.root().join("target/debug"), arguments)?;
    match outcome {
        Outcome::Tests(counts) if counts.failed > 0 => bail!("{} blocks failed", counts.failed),
        Outcome::Tests(_) | Outcome::Held => Ok(()),
    }
}

/// Runs pages with the `nagi` of one directory.
pub(crate) fn run_pages(
    checkout: &Checkout,
    binaries: &std::path::Path,
    wanted: &[String],
) -> anyhow::Result<Outcome> {
    let paths = checkout.paths()?;
    if let Some(unknown) = wanted.iter().find(|page| !paths.contains(page)) {
        bail!(
            "there is no page '{unknown}'\nhint: name it from the root of the repository, as in docs/cli.md"
        );
    }
    let pages = checkout.read(&paths, |path| {
        is_run(path) && (wanted.is_empty() || wanted.iter().any(|page| page == path))
    })?;
    let scratch = checkout.root().join("target/docs-blocks");
    let mut counts = Counts::default();
    for page in &pages {
        let plan = Plan::of(&page.path, &markdown::Page::read(&page.text))?;
        if plan.blocks() > 0 {
            let session = Session::prepare(
                checkout,
                &paths,
                scratch.join(slug(&page.path)),
                binaries,
                PAGE_LIMIT,
            )?;
            let page_counts = run_page(page, &plan, &session)?;
            counts.passed += page_counts.passed;
            counts.failed += page_counts.failed;
            counts.failures.extend(page_counts.failures);
        }
        print_skipped(page, &plan);
    }
    println!(
        "{} blocks ran, {} of them failed",
        counts.passed + counts.failed,
        counts.failed
    );
    Ok(Outcome::Tests(counts))
}

fn run_page(page: &TextFile, plan: &Plan, session: &Session) -> anyhow::Result<Counts> {
    let ended = session
        .run(plan)
        .with_context(|| format!("run the blocks of {}", page.path))?;
    let mut counts = Counts::default();
    for block in ended {
        match block.failure {
            None => counts.passed += 1,
            Some(failure) => {
                counts.failed += 1;
                let name = format!("{}:{}", page.path, block.line);
                println!("{name}: {failure}");
                counts.failures.push(failure_line(&name, &failure));
            }
        }
    }
    println!(
        "{}: {} blocks held, {} failed",
        page.path, counts.passed, counts.failed
    );
    Ok(counts)
}

fn print_skipped(page: &TextFile, plan: &Plan) {
    for step in &plan.steps {
        if let Step::Skipped { line, reason } = step {
            println!("{}:{line}: not run: {reason}", page.path);
        }
    }
}

/// README.md and the English pages under docs/. Decision records are history: their commands need not work today.
fn is_run(path: &str) -> bool {
    let below_docs = path
        .strip_prefix("docs/")
        .filter(|_| extension(path) == Some("md"));
    path == "README.md"
        || below_docs.is_some_and(|below| !below.starts_with("ja/") && !below.starts_with("adr/"))
}

fn slug(path: &str) -> PathBuf {
    PathBuf::from(path.replace(['/', '.'], "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn english_pages_are_run_and_their_twins_and_records_are_not() {
        for path in ["README.md", "docs/cli.md", "docs/runbooks/disk.md"] {
            assert!(is_run(path), "{path}");
        }
        for path in [
            "README.ja.md",
            "docs/ja/cli.md",
            "docs/adr/0001-a.md",
            "STYLE.md",
            "docs/a.svg",
        ] {
            assert!(!is_run(path), "{path}");
        }
    }
}
