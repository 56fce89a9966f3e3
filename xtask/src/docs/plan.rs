//! What the blocks of a page ask for, in order: read from the page, not yet run.
//!
//! - A block marked `sh`, `bash` or `console` runs. In `console`, lines after `$ ` are commands and the others what
//!   they print.
//! - `<!-- not-run: REASON -->` before a block: it does not run.
//! - `<!-- exits: 3 -->` before a block: it must end with that code.
//! - `<!-- background: COMMAND -->`: the command is started before the next block and stopped at the end of the page;
//!   it is up when `http://127.0.0.1:8080/health` answers.
//! - A block with `file=NAME` behind its language is written to that file.
//! - A `text` or `json` block right behind a shell block, or one marked `output`, is what that block must print.

use anyhow::bail;

use super::compare::Expected;
use crate::markdown::{Page, Part};

/// The blocks of a page and what they need.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(super) steps: Vec<Step>,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write a file that the page shows.
    Write { path: String, text: String },
    /// Start a command beside the blocks.
    Background { command: String },
    /// Run a block.
    Shell(Shell),
    /// A block that does not run.
    Skipped { line: usize, reason: String },
}

/// A block to run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shell {
    pub(super) script: String,
    /// The line of its opening fence, counted from 1.
    pub(super) line: usize,
    /// What it must print, if the page says so.
    pub(super) expected: Option<Expected>,
    /// The code it must end with.
    pub(super) exit: u8,
}

/// The commands of a page without comments and blank lines: what a twin must share.
pub(crate) fn commands(page: &Page) -> Vec<String> {
    let shells = page.parts.iter().filter_map(|part| match part {
        Part::Code { info, text, .. } if is_shell(language(info)) => Some(text.as_str()),
        Part::Code { .. } | Part::Comment { .. } | Part::Prose => None,
    });
    let lines = shells
        .flat_map(str::lines)
        .map(without_remark)
        .filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
}

/// A line without a remark at its end; a remark is what a translation changes.
fn without_remark(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with('#') {
        return "";
    }
    line.split_once(" # ")
        .map_or(line, |(command, _)| command.trim_end())
}

// === impl Plan ===

impl Plan {
    /// Reads what a page asks for.
    pub(super) fn of(path: &str, page: &Page) -> anyhow::Result<Self> {
        let mut steps: Vec<Step> = Vec::new();
        let mut not_run: Option<String> = None;
        let mut exit = 0;
        let mut follows_shell = false;
        for part in &page.parts {
            match part {
                Part::Prose => follows_shell = false,
                Part::Comment { text, line } => match directive(text) {
                    Some(("not-run", "")) => bail!("{path}:{line}: say why the block is not run"),
                    Some(("not-run", reason)) => not_run = Some(reason.to_owned()),
                    Some(("exits", code)) => match code.parse() {
                        Ok(code) => exit = code,
                        Err(_) => bail!("{path}:{line}: '{code}' is no exit code"),
                    },
                    Some(("background", command)) => {
                        steps.push(Step::Background {
                            command: command.to_owned(),
                        });
                    }
                    Some(_) | None => {}
                },
                Part::Code { info, text, line } => {
                    let reason = not_run.take();
                    let code = std::mem::take(&mut exit);
                    let shell = is_shell(language(info));
                    if let Some(reason) = reason {
                        steps.push(Step::Skipped {
                            line: *line,
                            reason,
                        });
                    } else if shell {
                        steps.push(Step::Shell(Shell::of(language(info), text, *line, code)));
                    } else if let Some(name) = attribute(info, "file") {
                        steps.push(Step::Write {
                            path: safe(path, *line, name)?,
                            text: text.clone(),
                        });
                    } else if is_output(info, follows_shell)
                        && let Some(Step::Shell(shell)) = steps.last_mut()
                    {
                        shell.expected = Some(Expected::of(language(info), text));
                    }
                    follows_shell = matches!(steps.last(), Some(Step::Shell(_))) && shell;
                }
            }
        }
        Ok(Self { steps })
    }

    /// One block beside one command in the background.
    pub(crate) fn background_and_block(command: &str, script: &str) -> Self {
        let shell = Shell {
            script: script.to_owned(),
            line: 1,
            expected: None,
            exit: 0,
        };
        Self {
            steps: vec![
                Step::Background {
                    command: command.to_owned(),
                },
                Step::Shell(shell),
            ],
        }
    }

    /// How many blocks run.
    pub(super) fn blocks(&self) -> usize {
        self.steps
            .iter()
            .filter(|step| matches!(step, Step::Shell(_)))
            .count()
    }
}

// === impl Shell ===

impl Shell {
    fn of(language: &str, text: &str, line: usize, exit: u8) -> Self {
        if language != "console" {
            return Self {
                script: text.to_owned(),
                line,
                expected: None,
                exit,
            };
        }
        let mut script = String::new();
        let mut output = String::new();
        for shown in text.lines() {
            let command = shown
                .strip_prefix("$ ")
                .or_else(|| shown.strip_prefix("> "));
            let into = if command.is_some() {
                &mut script
            } else {
                &mut output
            };
            into.push_str(command.unwrap_or(shown));
            into.push('\n');
        }
        let expected = (!output.is_empty()).then(|| Expected::of("text", &output));
        Self {
            script,
            line,
            expected,
            exit,
        }
    }
}

fn directive(comment: &str) -> Option<(&str, &str)> {
    let (name, value) = comment.split_once(':')?;
    Some((name.trim(), value.trim()))
}

fn language(info: &str) -> &str {
    info.split_whitespace().next().unwrap_or_default()
}

fn is_shell(language: &str) -> bool {
    matches!(language, "sh" | "bash" | "console")
}

fn attribute<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn is_output(info: &str, follows_shell: bool) -> bool {
    let marked = info.split_whitespace().any(|word| word == "output");
    marked || (follows_shell && matches!(language(info), "text" | "json"))
}

/// A page writes only below its own directory.
fn safe(page: &str, line: usize, name: &str) -> anyhow::Result<String> {
    let climbs = name.starts_with('/') || name.split('/').any(|part| part == "..");
    if climbs || name.is_empty() {
        bail!("{page}:{line}: 'file={name}' must stay below the page's directory");
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        Plan::of("docs/a.md", &Page::read(text)).expect("the page is sound")
    }

    fn shell(script: &str, line: usize) -> Shell {
        Shell {
            script: script.to_owned(),
            line,
            expected: None,
            exit: 0,
        }
    }

    #[test]
    fn shell_blocks_run_and_other_languages_do_not() {
        let plan = plan("```sh\na\n```\n```yaml\nb: 1\n```\n```bash\nc\n```\n");
        assert_eq!(
            plan.steps,
            [Step::Shell(shell("a\n", 1)), Step::Shell(shell("c\n", 7))]
        );
    }

    #[test]
    fn block_that_is_not_run_needs_a_reason() {
        let skipped = plan(
            "<!-- not-run: needs a cluster -->\n```sh\nkubectl get pods\n```\n```sh\na\n```\n",
        );
        let expected = [
            Step::Skipped {
                line: 2,
                reason: "needs a cluster".to_owned(),
            },
            Step::Shell(shell("a\n", 5)),
        ];
        assert_eq!(skipped.steps, expected);
        assert!(Plan::of("a.md", &Page::read("<!-- not-run: -->\n```sh\na\n```\n")).is_err());
    }

    #[test]
    fn output_right_behind_a_block_is_what_it_must_print() {
        let with_prose = "```sh\na\n```\nprints:\n```text output\nb\n```\n";
        for text in ["```sh\na\n```\n\n```text\nb\n```\n", with_prose] {
            let expected = Some(Expected::of("text", "b\n"));
            assert_eq!(
                plan(text).steps,
                [Step::Shell(Shell {
                    expected,
                    ..shell("a\n", 1)
                })]
            );
        }
        let unrelated = "```sh\na\n```\nAn answer looks like this:\n```json\n{}\n```\n";
        assert_eq!(plan(unrelated).steps, [Step::Shell(shell("a\n", 1))]);
    }

    #[test]
    fn console_block_shows_commands_and_what_they_print() {
        let expected = Some(Expected::of("text", "1\n2\n"));
        let asked = Shell {
            expected,
            ..shell("echo 1\necho \\\n2\n", 1)
        };
        assert_eq!(
            plan("```console\n$ echo 1\n1\n$ echo \\\n> 2\n2\n```\n").steps,
            [Step::Shell(asked)]
        );
    }

    #[test]
    fn exit_code_background_and_file_are_read() {
        let text = "<!-- background: nagi all -->\n```yaml file=local.yaml\na: 1\n```\n<!-- exits: 3 -->\n```sh\nb\n```\n";
        let expected = [
            Step::Background {
                command: "nagi all".to_owned(),
            },
            Step::Write {
                path: "local.yaml".to_owned(),
                text: "a: 1\n".to_owned(),
            },
            Step::Shell(Shell {
                exit: 3,
                ..shell("b\n", 6)
            }),
        ];
        assert_eq!(plan(text).steps, expected);
    }

    #[test]
    fn file_must_stay_below_the_page() {
        for name in ["/etc/passwd", "../a", "a/../../b", ""] {
            let text = format!("```yaml file={name}\na: 1\n```\n");
            assert!(Plan::of("a.md", &Page::read(&text)).is_err(), "{name}");
        }
    }

    #[test]
    fn commands_leave_out_what_a_translation_changes() {
        let english = Page::read("```sh\n# start it\nnagi all # in front\n\nnagi list\n```\n");
        let japanese = Page::read("```sh\n# 起動\nnagi all # 前景\nnagi list\n```\n");
        assert_eq!(commands(&english), ["nagi all", "nagi list"]);
        assert_eq!(commands(&english), commands(&japanese));
    }
}
