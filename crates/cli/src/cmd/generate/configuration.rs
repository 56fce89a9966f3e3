//! The settings as a page: flags and variables of the serving roles, and the fields of the workload file.

use clap::{Command, CommandFactory};
use nagi_local::file::WorkloadFile;
use serde_json::Value;

use super::reference::{cell, line, spelled, split_default};
use crate::commands::Cli;

/// The page.
pub(super) fn page() -> String {
    let mut whole = Cli::command();
    whole.build();
    let mut page = String::from(
        "# Settings\n\n\
         A flag wins over its environment variable, which wins over the default.\n\
         A variable that is set to nothing counts as not set, but for `API_KEY`, where nothing means that no key is asked \
         for, and for those that protect: `API_KEY_FILE`, `NAGI_KEYS_FILE`, `NAGI_REQUIRE_AUTH`, \
         `NAGI_KUBERNETES_TOKENS` and `NAGI_ALLOWED_NAMESPACES` must say something, or the start is refused.\n\
         Settings are checked as a whole at the start; one that cannot be used stops it with the setting, its rule and \
         what was given.\n\n\
         ## Servers\n\n\
         `nagi all`, `nagi demo` and `nagi server` have these settings.\n\n",
    );
    let role = |name: &str| whole.find_subcommand(name);
    let all: Vec<String> = role("all").into_iter().flat_map(ids).collect();
    let mut shared: Vec<String> = role("server").into_iter().flat_map(ids).collect();
    let only_server: Vec<String> = shared
        .iter()
        .filter(|id| !all.contains(id))
        .cloned()
        .collect();
    shared.retain(|id| all.contains(id));
    settings(&mut page, role("server"), &only_server);
    page.push_str("\n### Only of `nagi server`\n\n");
    settings(&mut page, role("server"), &shared);
    page.push_str("\n### Only of `nagi all`\n\n");
    settings(&mut page, role("all"), &shared);
    page.push_str(
        "\n### Only of `nagi demo`\n\nThose of the shared ones are here that have another default.\n\n",
    );
    let help = |name: &str, id: &str| {
        let arg = role(name)?.get_arguments().find(|arg| arg.get_id() == id)?;
        arg.get_help().map(ToString::to_string)
    };
    shared.retain(|id| help("demo", id) == help("server", id));
    settings(&mut page, role("demo"), &shared);
    page.push_str("\n### Of `nagi gateway`\n\nIt has these, and no others.\n\n");
    settings(&mut page, role("gateway"), &[]);
    page.push_str("\n### Of `nagi guard`\n\nIt has these, and no others.\n\n");
    settings(&mut page, role("guard"), &[]);
    page.push_str("\n## Clients\n\nOf every command that calls a server; the others are in [the commands](cli.md).\n\n");
    heads(&mut page);
    for arg in whole.get_arguments().filter(|arg| arg.is_global_set()) {
        row(&mut page, arg);
    }
    page.push_str("| | `NO_COLOR` | | No colours when it is set and not empty |\n");
    workload_file(&mut page);
    page
}

fn ids(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter(|arg| !arg.is_global_set());
    own.map(|arg| arg.get_id().to_string()).collect()
}

fn settings(page: &mut String, command: Option<&Command>, without: &[String]) {
    heads(page);
    let Some(command) = command else { return };
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let skip = without.iter().any(|other| other == id) || id == "help" || arg.is_global_set();
        if !skip {
            row(page, arg);
        }
    }
}

fn heads(page: &mut String) {
    page.push_str("| Flag | Environment | Default | |\n|---|---|---|---|\n");
}

fn row(page: &mut String, arg: &clap::Arg) {
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
            default.map(|text| cell(&text)).unwrap_or_default(),
            cell(&text)
        ),
    );
}

fn workload_file(page: &mut String) {
    let schema = WorkloadFile::json_schema();
    page.push_str(
        "\n## The workload file\n\n\
         `nagi all --workloads FILE` reads pools and workloads from one YAML file ([how it is used](local-engine.md)).\n\
         Its [JSON schema](workloads.schema.json) is for editors; `nagi config check FILE` says what is wrong with a \
         file, and where.\n\
         Fields that are not listed here are errors.\n",
    );
    fields(page, "the file", &schema);
    let Some(types) = schema.get("$defs").and_then(Value::as_object) else {
        return;
    };
    for (name, schema) in types {
        if schema.get("properties").is_some() {
            fields(page, name, schema);
        } else if let Some(variants) = schema.get("oneOf").and_then(Value::as_array) {
            choices(page, name, schema, variants);
        }
    }
}

fn fields(page: &mut String, name: &str, schema: &Value) {
    line(page, &format!("\n### Fields of {}\n", title(name)));
    if let Some(text) = schema.get("description").and_then(Value::as_str) {
        line(page, &format!("{text}\n"));
    }
    page.push_str("| Field | Must be given | Form | |\n|---|---|---|---|\n");
    let required = schema.get("required").and_then(Value::as_array);
    let properties = schema.get("properties").and_then(Value::as_object);
    for (field, schema) in properties.into_iter().flatten() {
        let must = required.is_some_and(|names| names.iter().any(|name| name == field));
        let text = schema.get("description").and_then(Value::as_str);
        line(
            page,
            &format!(
                "| `{field}` | {} | {} | {} |",
                if must { "yes" } else { "" },
                cell(&form(schema)),
                cell(text.unwrap_or_default())
            ),
        );
    }
}

fn choices(page: &mut String, name: &str, schema: &Value, variants: &[Value]) {
    line(page, &format!("\n### Fields of {}\n", title(name)));
    if let Some(text) = schema.get("description").and_then(Value::as_str) {
        line(page, &format!("{text} One of:\n"));
    }
    page.push_str("| Field | |\n|---|---|\n");
    for variant in variants {
        let text = variant.get("description").and_then(Value::as_str);
        let properties = variant.get("properties").and_then(Value::as_object);
        for (field, inner) in properties.into_iter().flatten() {
            let inner = inner.get("properties").and_then(Value::as_object);
            let names: Vec<String> = inner
                .into_iter()
                .flatten()
                .map(|(name, schema)| {
                    let text = schema.get("description").and_then(Value::as_str);
                    format!(" `{name}`: {}", text.unwrap_or_default())
                })
                .collect();
            let text = format!("{}{}", text.unwrap_or_default(), names.concat());
            line(page, &format!("| `{field}` | {} |", cell(&text)));
        }
    }
}

fn title(name: &str) -> String {
    match name {
        "Pool" => "a pool".to_owned(),
        "Workload" => "a workload".to_owned(),
        other => other.to_lowercase(),
    }
}

/// The form of a value in a few words.
fn form(schema: &Value) -> String {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        return match name {
            "Number" => "number, or text with a unit".to_owned(),
            other => title(other),
        };
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", form(items));
    }
    if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
        let forms: Vec<String> = any.iter().map(form).filter(|form| form != "null").collect();
        return forms.join(" or ");
    }
    if let Some(values) = schema.get("additionalProperties")
        && values.is_object()
    {
        return format!("map of {}", form(values));
    }
    let word = match schema.get("type") {
        Some(Value::String(word)) => word.as_str(),
        Some(Value::Array(words)) => words
            .iter()
            .filter_map(Value::as_str)
            .find(|word| *word != "null")
            .unwrap_or("any"),
        _ => "any",
    };
    let word = match word {
        "integer" => "whole number",
        "string" => "text",
        "array" => "list",
        other => other,
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    // every setting with flag, environment and default.
    #[test]
    fn the_page_has_every_setting_and_every_field() {
        let page = page();
        for row in [
            "| `--port PORT` | `PORT` | 8080 |",
            "| `--log-level LEVEL` | `LOG_LEVEL` | info |",
            "| `--api-key KEY` | `API_KEY` |",
            "| `--workloads FILE` | `NAGI_WORKLOADS` |",
            "| `--once` |",
            "| `--syslog ADDRESS:PORT` | `NAGI_GUARD_SYSLOG` |",
            "| `--state-dir DIRECTORY` | `NAGI_STATE_DIR` | `$XDG_STATE_HOME/nagi-demo` or",
            "| `--log-file FILE` | `NAGI_LOG_FILE` | STATE_DIR/nagi.log |",
            "| `idle_after` |",
            "| `release_after` |",
            "| `http` |",
        ] {
            assert!(page.contains(row), "{row}\n{page}");
        }
        assert_eq!(page.matches("| `--listen ").count(), 1, "shared ones once");
    }
}
