//! `nagi config`: checks a workload file as `nagi all` would read it, and prints its schema.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use nagi_local::file::{FileError, Problem, WorkloadFile};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Place, tell, words, write};
use crate::session::Session;

const CHECK_EXAMPLES: &str = "\
Examples:
  nagi config check local.yaml
  nagi config check local.yaml --output json | jq '.problems[]'";
const SCHEMA_EXAMPLES: &str = "\
Examples:
  nagi config schema > workloads.schema.json";

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say what is wrong with a workload file, and where
    Check(CheckArgs),
    /// Print the JSON schema of workload files, for editors
    Schema(SchemaArgs),
}

#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct CheckArgs {
    /// The workload file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = SCHEMA_EXAMPLES)]
pub(crate) struct SchemaArgs {}

/// Runs the command.
pub(crate) fn run(command: &ConfigCommand, session: &Session) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(args) => check(args, session),
        ConfigCommand::Schema(SchemaArgs {}) => {
            write(&format!("{:#}", WorkloadFile::json_schema()))
        }
    }
}

fn check(args: &CheckArgs, session: &Session) -> Result<(), Failure> {
    let name = args.file.display().to_string();
    let output = &session.output;
    match WorkloadFile::read(&args.file) {
        Ok(file) => {
            let workloads = u64::try_from(file.workloads.len()).unwrap_or(u64::MAX);
            let pools = u64::try_from(file.pools.len()).unwrap_or(u64::MAX);
            let body = json!({
                "file": name, "valid": true, "workloads": workloads, "pools": pools, "problems": [],
                "warnings": file.warnings.iter().map(body).collect::<Vec<_>>()
            });
            if matches!(output.format(), Format::Table | Format::Wide) {
                for warning in &file.warnings {
                    tell(&line(&name, "warning: ", warning));
                }
            }
            output.body(&body, Place::Alone, |_| {
                format!(
                    "{name}: valid, {} on {}",
                    words::count(workloads, "workload"),
                    words::count(pools, "pool")
                )
            })
        }
        Err(FileError::Invalid { problems, .. }) => {
            match output.format() {
                Format::Table | Format::Wide => {
                    for problem in &problems {
                        tell(&line(&name, "", problem));
                    }
                }
                Format::Json | Format::Yaml => {
                    let body = json!({
                        "file": name, "valid": false,
                        "problems": problems.iter().map(body).collect::<Vec<_>>(), "warnings": []
                    });
                    output.body(&body, Place::Alone, |_| String::new())?;
                }
            }
            let count = u64::try_from(problems.len()).unwrap_or(u64::MAX);
            let found = words::count(count, "problem");
            Err(
                Failure::new(Exit::Refused, format!("{name} is not valid: {found}"))
                    .hint("'nagi config schema' prints what may stand where"),
            )
        }
        Err(error @ (FileError::Read { .. } | FileError::TooLarge { .. })) => {
            let mut failure = Failure::new(Exit::Failed, error.to_string());
            let source = std::error::Error::source(&error);
            failure.causes.extend(source.map(ToString::to_string));
            Err(failure)
        }
    }
}

/// `FILE:LINE:COLUMN: [warning: ]FIELD: what is wrong`, which editors know how to jump to.
fn line(file: &str, severity: &str, problem: &Problem) -> String {
    let place = if problem.line == 0 {
        String::new()
    } else {
        format!("{}:{}:", problem.line, problem.column)
    };
    words::clean(&format!(
        "{file}:{place} {severity}{}: {}",
        problem.field, problem.message
    ))
}

fn body(problem: &Problem) -> Value {
    json!({
        "line": problem.line, "column": problem.column, "field": problem.field,
        "message": problem.message
    })
}
