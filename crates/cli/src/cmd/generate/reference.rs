//! The commands as a page: what `--help` says, in one place.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory};

use crate::commands::Cli;
use crate::exit::Exit;

/// The page.
pub(super) fn page() -> String {
    let mut whole = Cli::command();
    whole.build();
    let mut page = String::from(
        "# Commands\n\nEvery command of `nagi`, as its `--help` says it.\n\
         Data goes to standard output, everything else to standard error.\n\n",
    );
    page.push_str("| Command | |\n|---|---|\n");
    let mut commands = Vec::new();
    collect(&whole, "nagi", &mut commands);
    for (name, command) in &commands {
        if command.get_subcommands().any(|child| !child.is_hide_set()) && name != "nagi" {
            continue;
        }
        let about = about(command);
        line(
            &mut page,
            &format!("| [`{name}`](#{}) | {about} |", anchor(name)),
        );
    }
    page.push_str("\n## Exit codes\n\n| Code | Meaning |\n|---|---|\n");
    for exit in Exit::ALL {
        line(
            &mut page,
            &format!("| {} | {} |", exit.code(), exit.meaning()),
        );
    }
    page.push_str("\n## Options of every command\n\n");
    let global: Vec<&Arg> = whole
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .collect();
    options(&mut page, &global);
    for (name, command) in &commands {
        section(&mut page, name, command);
    }
    page
}

fn collect<'c>(command: &'c Command, name: &str, into: &mut Vec<(String, &'c Command)>) {
    into.push((name.to_owned(), command));
    for child in command
        .get_subcommands()
        .filter(|child| !child.is_hide_set())
    {
        collect(child, &format!("{name} {}", child.get_name()), into);
    }
}

fn section(page: &mut String, name: &str, command: &Command) {
    line(page, &format!("\n## {name}\n\n{}.\n", about(command)));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    line(page, &format!("```text\n{usage}\n```"));
    let aliases: Vec<&str> = command.get_visible_aliases().collect();
    if !aliases.is_empty() {
        line(page, &format!("\nAlso: `{}`.", aliases.join("`, `")));
    }
    let own = |arg: &&Arg| {
        let id = arg.get_id().as_str();
        !arg.is_global_set() && !arg.is_hide_set() && id != "help" && id != "version"
    };
    let positionals: Vec<&Arg> = command.get_positionals().filter(own).collect();
    if !positionals.is_empty() {
        page.push_str("\n| Argument | |\n|---|---|\n");
        for arg in positionals {
            line(
                page,
                &format!("| `{}` | {} |", value(arg), cell(&help(arg))),
            );
        }
    }
    let flags: Vec<&Arg> = command.get_opts().filter(own).collect();
    let switches = command
        .get_arguments()
        .filter(|arg| !arg.is_positional() && !arg.get_action().takes_values())
        .filter(own);
    let all: Vec<&Arg> = flags.into_iter().chain(switches).collect();
    if !all.is_empty() {
        page.push('\n');
        options(page, &all);
    }
    let examples = command.get_after_help().map(ToString::to_string);
    if let Some(text) = examples {
        let text = text.strip_prefix("Examples:\n").unwrap_or(&text);
        let lines: Vec<&str> = text
            .lines()
            .map(|line| line.strip_prefix("  ").unwrap_or(line))
            .collect();
        line(page, &format!("\n```text\n{}\n```", lines.join("\n")));
    }
}

fn options(page: &mut String, args: &[&Arg]) {
    page.push_str("| Option | Environment | Default | |\n|---|---|---|---|\n");
    for arg in args {
        let (text, default) = split_default(arg);
        let env = arg
            .get_env()
            .map(|env| format!("`{}`", env.to_string_lossy()));
        line(
            page,
            &format!(
                "| `{}` | {} | {} | {} |",
                cell(&spelled(arg)),
                env.unwrap_or_default(),
                default
                    .map(|text| format!("`{}`", cell(&text)))
                    .unwrap_or_default(),
                cell(&text)
            ),
        );
    }
}

/// `-n, --namespace NAMESPACE`.
pub(super) fn spelled(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("-{short}, "));
    let mut longs: Vec<String> = arg
        .get_long()
        .map(|long| format!("--{long}"))
        .into_iter()
        .collect();
    for alias in arg.get_visible_aliases().unwrap_or_default() {
        longs.push(format!("--{alias}"));
    }
    let mut text = format!("{}{}", short.unwrap_or_default(), longs.join(", "));
    if arg.get_action().takes_values() {
        text.push(' ');
        text.push_str(&value(arg));
    }
    text
}

fn value(arg: &Arg) -> String {
    let names: Vec<&str> = arg
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(clap::builder::Str::as_str)
        .collect();
    names.join(" ")
}

/// What an option means, and its default: declared, or written as `[default: …]` where the value is checked later.
pub(super) fn split_default(arg: &Arg) -> (String, Option<String>) {
    let text = help(arg);
    let declared: Vec<String> = if arg.get_action().takes_values() {
        arg.get_default_values()
            .iter()
            .map(|value| value.to_string_lossy().into_owned())
            .collect()
    } else {
        Vec::new()
    };
    if !declared.is_empty() {
        return (text, Some(declared.join(" ")));
    }
    match text.split_once("[default: ") {
        Some((before, after)) => (
            before.trim().to_owned(),
            Some(after.trim_end_matches(']').to_owned()),
        ),
        None => (text, None),
    }
}

fn help(arg: &Arg) -> String {
    let text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut text = text.replace('\n', " ");
    let values: Vec<String> = if arg.get_action().takes_values() {
        arg.get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| value.get_name().to_owned())
            .collect()
    } else {
        Vec::new()
    };
    if !values.is_empty() {
        text.push_str(": ");
        text.push_str(&values.join(", "));
    }
    text
}

fn about(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string);
    about.unwrap_or_default().trim_end_matches('.').to_owned()
}

/// Text inside a cell of a Markdown table.
pub(super) fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// The anchor that Markdown makes of a heading.
pub(super) fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

/// Adds a line.
pub(super) fn line(page: &mut String, text: &str) {
    // Writing to a string cannot fail.
    writeln!(page, "{text}").unwrap_or(());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_command_every_exit_code_and_every_option() {
        let page = page();
        for name in ["all", "demo", "wake", "key create", "config check", "man"] {
            assert!(page.contains(&format!("\n## nagi {name}\n")), "{name}");
        }
        for exit in Exit::ALL {
            assert!(page.contains(&format!("| {} | {} |", exit.code(), exit.meaning())));
        }
        assert!(page.contains("| `--server URL` | `NAGI_SERVER` | `http://127.0.0.1:8080` |"));
        assert!(page.contains("`--wake-at, --at, --until TIME`"));
        assert!(!page.contains("nagi generate"), "hidden");
    }
}
