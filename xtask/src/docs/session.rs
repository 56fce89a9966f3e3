//! Runs the plan of one page: one bash session in a fresh copy of the repository.
//!
//! Blocks share the session, so `cd` and `export` last until the end of the page; a block that must fail runs in a
//! subshell. The output and the code of each block go to files beside the copy and stay there for a look afterwards.
//! The session sees no variable of the person who runs it but those named in [`Session::run`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::plan::{Plan, Shell, Step};
use crate::checkout::{Checkout, remove_directory};
use crate::command::{Network, Run};

/// A prepared directory to run a page in.
#[derive(Debug)]
pub(crate) struct Session {
    directory: PathBuf,
    path: String,
    limit: Duration,
}

/// On a terminal curl shows no progress for an answer that it prints there, so a reader does not see it.
const CURL_SETTINGS: &str = "silent\nshow-error\n";

/// How a block ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(super) line: usize,
    /// What went wrong, with the output.
    pub(crate) failure: Option<String>,
}

// === impl Session ===

impl Session {
    /// Copies the repository into `directory`, in place of what a run before left there.
    pub(crate) fn prepare(
        checkout: &Checkout,
        paths: &[String],
        directory: PathBuf,
        binaries: &Path,
        limit: Duration,
    ) -> anyhow::Result<Self> {
        remove_directory(&directory)?;
        for path in paths {
            let from = checkout.root().join(path);
            let to = directory.join("tree").join(path);
            let parent = to.parent().context("a file lies in a directory")?;
            std::fs::create_dir_all(parent)
                .with_context(|| format!("create {}", parent.display()))?;
            std::fs::copy(&from, &to).with_context(|| format!("copy {path}"))?;
        }
        for name in ["blocks", "home"] {
            let below = directory.join(name);
            std::fs::create_dir_all(&below)
                .with_context(|| format!("create {}", below.display()))?;
        }
        let curlrc = directory.join("home/.curlrc");
        std::fs::write(&curlrc, CURL_SETTINGS)
            .with_context(|| format!("write {}", curlrc.display()))?;
        Ok(Self {
            directory,
            path: search_path(binaries)?,
            limit,
        })
    }

    /// Runs all blocks. One that fails ends the session: what follows builds on it.
    pub(crate) fn run(&self, plan: &Plan) -> anyhow::Result<Vec<Ended>> {
        let blocks = self.directory.join("blocks");
        let driver = self.write_driver(plan, &blocks)?;
        // How it ended is read from the files of the blocks.
        let session = Run::limited("bash", self.limit, Network::Own)
            .arguments(["--noprofile", "--norc"])
            .argument(&driver)
            .within(&self.directory.join("tree"))
            .bare_environment()
            .environment("PATH", &self.path)
            .environment("HOME", self.directory.join("home"))
            .environment("LANG", "C.UTF-8")
            .environment("TERM", "dumb")
            .finish();
        let shells = plan.steps.iter().filter_map(|step| match step {
            Step::Shell(shell) => Some(shell),
            Step::Write { .. } | Step::Background { .. } | Step::Skipped { .. } => None,
        });
        let ended: Vec<Ended> = shells
            .enumerate()
            .map(|(index, shell)| Ended {
                line: shell.line,
                failure: failure(&blocks, index, shell),
            })
            .collect();
        if ended.iter().all(|block| block.failure.is_none()) {
            session.context("every block held, but the session did not end well")?;
        }
        Ok(ended)
    }

    fn write_driver(&self, plan: &Plan, blocks: &Path) -> anyhow::Result<PathBuf> {
        let mut lines = vec![PREAMBLE.replace("BLOCKS", &quoted(blocks))];
        let mut index = 0;
        for step in &plan.steps {
            match step {
                Step::Skipped { .. } => {}
                Step::Write { path, text } => {
                    let file = self.directory.join("tree").join(path);
                    let source = blocks.join(format!("file-{index}-{}", path.replace('/', "-")));
                    std::fs::write(&source, text)
                        .with_context(|| format!("write {}", source.display()))?;
                    lines.push(format!(
                        "install -D -m 644 {} {}",
                        quoted(&source),
                        quoted(&file)
                    ));
                }
                Step::Background { command } => {
                    lines.push(format!("background {}", quoted(Path::new(command))));
                }
                Step::Shell(shell) => {
                    let script = blocks.join(format!("{index}.sh"));
                    std::fs::write(&script, &shell.script)
                        .with_context(|| format!("write {}", script.display()))?;
                    let function = if shell.exit == 0 {
                        "block"
                    } else {
                        "failing_block"
                    };
                    lines.push(format!("{function} {index} {}", shell.exit));
                    index += 1;
                }
            }
        }
        let path = blocks.join("driver.sh");
        std::fs::write(&path, lines.join("\n") + "\n")
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

/// The functions that the session is written in. `block` sources a file, so that what it sets lasts.
const PREAMBLE: &str = r#"set -euo pipefail
blocks=BLOCKS
exec 2>"$blocks/session.out"
started=()
stop() {
    for process in "${started[@]}"; do kill -TERM "$process" 2>/dev/null || true; done
    for process in "${started[@]}"; do wait "$process" 2>/dev/null || true; done
}
trap stop EXIT
answers() { curl --disable --silent --fail --max-time 1 --output /dev/null http://127.0.0.1:8080/health; }
background() {
    if answers; then
        echo "something else answers on 127.0.0.1:8080: end it first" >&2
        exit 1
    fi
    bash -c "exec $1" >"$blocks/background.out" 2>&1 </dev/null &
    started+=("$!")
    for _ in $(seq 300); do
        if answers; then return 0; fi
        if ! kill -0 "${started[-1]}" 2>/dev/null; then break; fi
        sleep 0.1
    done
    echo "'$1' did not come up:" >&2
    cat "$blocks/background.out" >&2
    exit 1
}
block() {
    echo running >"$blocks/$1.code"
    . "$blocks/$1.sh" >"$blocks/$1.out" 2>&1
    echo "$2" >"$blocks/$1.code"
}
failing_block() {
    local code=0
    bash -euo pipefail "$blocks/$1.sh" >"$blocks/$1.out" 2>&1 || code=$?
    echo "$code" >"$blocks/$1.code"
    [ "$code" = "$2" ]
}
"#;

/// What went wrong with a block, judged by the files that it left.
fn failure(blocks: &Path, index: usize, shell: &Shell) -> Option<String> {
    let read = |suffix: &str| std::fs::read_to_string(blocks.join(format!("{index}.{suffix}")));
    let Ok(code) = read("code") else {
        let session = std::fs::read_to_string(blocks.join("session.out")).unwrap_or_default();
        return Some(format!(
            "did not run: what stands before it on the page failed\n{}",
            indented(&session)
        ));
    };
    let output = read("out").unwrap_or_default();
    if code.trim() != shell.exit.to_string() {
        let ended = if code.trim() == "running" {
            "failed or hung"
        } else {
            code.trim()
        };
        return Some(format!(
            "must end with {}, but: {ended}\n{}",
            shell.exit,
            indented(&output)
        ));
    }
    let expected = shell
        .expected
        .as_ref()
        .filter(|expected| !expected.accepts(&output))?;
    Some(format!(
        "prints something else than the page shows\n  the page:\n{}\n  it printed:\n{}",
        indented(expected.shown()),
        indented(&output)
    ))
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Single quotes for the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// `nagi` of this build first, then what the person has.
#[expect(
    clippy::disallowed_methods,
    reason = "the search path of the person who runs the task"
)]
fn search_path(binaries: &Path) -> anyhow::Result<String> {
    let path = std::env::var("PATH").context("read PATH")?;
    Ok(format!("{}:{path}", binaries.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markdown::Page;

    /// Runs a page in a scratch directory; gives for each block what went wrong.
    fn failures(page: &str) -> Vec<Option<String>> {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        for name in ["tree", "blocks", "home"] {
            std::fs::create_dir(scratch.path().join(name)).expect("a directory in it");
        }
        let path = search_path(Path::new("/nonexistent")).expect("there is a PATH");
        let session = Session {
            directory: scratch.path().to_owned(),
            path,
            limit: Duration::from_mins(1),
        };
        let plan = Plan::of("docs/a.md", &Page::read(page)).expect("the page is sound");
        let ended = session.run(&plan).expect("the session starts");
        ended.into_iter().map(|block| block.failure).collect()
    }

    #[test]
    fn blocks_share_one_session_and_files_are_there() {
        let page = "```yaml file=conf/a.yaml\na: 1\n```\n```sh\ncd conf\nexport B=2\n```\n\
            ```sh\ncat a.yaml\necho $B\n```\n```text\na: 1\n2\n```\n";
        assert_eq!(failures(page), [None, None]);
    }

    #[test]
    fn failing_block_fails_and_stops_what_follows() {
        let found = failures("```sh\necho so; false\n```\n```sh\ntrue\n```\n");
        assert!(found.iter().all(Option::is_some), "{found:?}");
        assert!(
            found
                .first()
                .is_some_and(|first| first.as_deref().is_some_and(|text| text.contains("so")))
        );
    }

    #[test]
    fn other_output_than_the_page_shows_is_a_failure() {
        assert!(matches!(
            failures("```sh\necho a\n```\n```text\nb\n```\n").as_slice(),
            [Some(_)]
        ));
    }

    #[test]
    fn stated_exit_code_must_be_met() {
        assert_eq!(failures("<!-- exits: 3 -->\n```sh\nexit 3\n```\n"), [None]);
        assert!(matches!(
            failures("<!-- exits: 3 -->\n```sh\ntrue\n```\n").as_slice(),
            [Some(_)]
        ));
        assert!(matches!(
            failures("<!-- exits: 3 -->\n```sh\nexit 4\n```\n").as_slice(),
            [Some(_)]
        ));
    }

    #[test]
    fn background_that_ends_at_once_is_a_failure() {
        assert!(matches!(
            failures("<!-- background: false -->\n```sh\ntrue\n```\n").as_slice(),
            [Some(_)]
        ));
    }
}
