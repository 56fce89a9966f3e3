//! `nagi key`: makes, shows and revokes the keys of `NAGI_KEYS_FILE`.
//!
//! It works on the file; a running server follows within 5 s. The text of a key is printed once and stored nowhere.

use crate::serve::settings::KEYS_FILE;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use nagi_api::Time;
use nagi_core::access::{Reach, Role};
use nagi_core::id::KeyId;
use nagi_server::keys::file::{self as keys, KeyEntry, KeyFileError};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{self, Place, words};
use crate::session::Session;
use crate::target::nearest;
use crate::when::When;

const CREATE_EXAMPLES: &str = "\
Examples:
  nagi key create --file keys.yaml --id alice --role operator --namespace project-a
  nagi key create --file keys.yaml --id ci --role viewer --namespace '*' --expires +90d
  NAGI_KEY=$(nagi key create --file keys.yaml --id bob --role viewer --namespace project-b)";
const LIST_EXAMPLES: &str = "\
Examples:
  nagi key list --file keys.yaml";
const REVOKE_EXAMPLES: &str = "\
Examples:
  nagi key revoke alice --file keys.yaml
  nagi key revoke alice --file keys.yaml --yes       without being asked";

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, and print it once
    Create(CreateArgs),
    /// Show the keys of a file: who may do what where
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Take a key away; it stops to count within 5 seconds
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// The keys file, as the server has it in --keys-file
    #[arg(short, long, env = KEYS_FILE.env, value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = CREATE_EXAMPLES)]
pub(crate) struct CreateArgs {
    /// Who it is for: a DNS label, which log and history show
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    id: KeyId,

    /// What it may do: viewer, operator or admin
    #[arg(long, value_name = "ROLE", value_parser = parse_role)]
    role: Role,

    /// Where: a namespace; more of them by commas or by giving it again, '*' for all
    #[arg(
        short,
        long,
        value_name = "NAMESPACE",
        required = true,
        value_delimiter = ','
    )]
    namespace: Vec<String>,

    /// When it stops to count: RFC 3339 with a zone, or a span from now like +90d [default: never]
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    expires: Option<When>,

    #[command(flatten)]
    file: FileArgs,
}

#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    file: FileArgs,
}

#[derive(Debug, Args)]
#[command(after_help = REVOKE_EXAMPLES)]
pub(crate) struct RevokeArgs {
    /// Id of the key
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: KeyId,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    file: FileArgs,
}

fn parse_id(text: &str) -> Result<KeyId, String> {
    KeyId::new(text).map_err(|rule| rule.to_string())
}

fn parse_role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "must be viewer, operator or admin".to_owned())
}

/// Runs the command.
pub(crate) fn run(command: &KeyCommand, session: &Session) -> Result<(), Failure> {
    match command {
        KeyCommand::Create(args) => create(args, session),
        KeyCommand::List(args) => list(args, session),
        KeyCommand::Revoke(args) => revoke(args, session),
    }
}

fn create(args: &CreateArgs, session: &Session) -> Result<(), Failure> {
    let now = session.now();
    let reach = keys::reach(&args.namespace).map_err(Failure::usage)?;
    let expires = args.expires.as_ref().map(|when| when.instant(now));
    if expires.is_some_and(|at| at <= now) {
        return Err(Failure::usage("--expires lies in the past"));
    }
    let entry = KeyEntry {
        id: args.id.clone(),
        role: args.role,
        reach,
        created: jiff::Timestamp::from_second(now.as_second()).unwrap_or(now),
        expires,
    };
    let key = keys::create(&args.file.file, &entry).map_err(|error| failure(&error))?;
    let mut shown = body(&entry);
    if let Some(object) = shown.as_object_mut() {
        object.insert("key".to_owned(), Value::from(key.clone()));
    }
    // Data alone on stdout, so that `$(nagi key create …)` is the key.
    session.output.body(&shown, Place::Alone, |_| key)?;
    session.output.note(&format!(
        "this is the key of {}: it is shown once and stored nowhere",
        entry.id
    ));
    Ok(())
}

fn list(args: &ListArgs, session: &Session) -> Result<(), Failure> {
    let entries = keys::list(&args.file.file).map_err(|error| failure(&error))?;
    let shown = json!({ "items": entries.iter().map(body).collect::<Vec<_>>() });
    session.output.body(&shown, Place::Alone, |_| {
        if entries.is_empty() {
            return String::new();
        }
        session.output.table(&table(&entries, session.now()))
    })?;
    if entries.is_empty() {
        session.output.note("no keys");
    }
    Ok(())
}

fn revoke(args: &RevokeArgs, session: &Session) -> Result<(), Failure> {
    let path = &args.file.file;
    let entries = keys::list(path).map_err(|error| failure(&error))?;
    let Some(entry) = entries.iter().find(|entry| entry.id == args.id) else {
        let mut failure = Failure::new(Exit::NotFound, format!("no key has the id {}", args.id));
        let ids = entries.iter().map(|entry| entry.id.as_str());
        for id in nearest(args.id.as_str(), ids) {
            failure = failure.hint(format!("did you mean {id}?"));
        }
        return Err(failure);
    };
    if !args.yes {
        confirm(entry, session)?;
    }
    let entry = keys::revoke(path, &args.id).map_err(|error| failure(&error))?;
    session.output.body(&body(&entry), Place::Alone, |_| {
        format!("{} is revoked; it counts for at most 5 s more", entry.id)
    })
}

fn confirm(entry: &KeyEntry, session: &Session) -> Result<(), Failure> {
    let what = format!(
        "revoke {} ({}, {})",
        entry.id,
        entry.role.as_str(),
        reach(&entry.reach)
    );
    if !session.output.terminal().asks {
        return Err(
            Failure::usage(format!("would {what}, and nobody can be asked"))
                .hint("say so with --yes"),
        );
    }
    if output::is_confirmed(&what)? {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "not revoked"))
}

fn failure(error: &KeyFileError) -> Failure {
    let (exit, hint) = match error {
        KeyFileError::Unknown { .. } => (Exit::NotFound, None),
        KeyFileError::Exists { .. } => (
            Exit::Refused,
            Some("choose another id, or revoke that key first"),
        ),
        KeyFileError::Reserved { .. } => (Exit::Refused, Some("choose another id")),
        KeyFileError::Full => (Exit::Refused, Some("revoke keys that nobody uses")),
        KeyFileError::Malformed { .. } | KeyFileError::TooLarge { .. } => {
            (Exit::Refused, Some("is this the keys file?"))
        }
        KeyFileError::Read { .. } => (
            Exit::Usage,
            Some("is the path right, and may you read it? 'nagi key create' makes a keys file"),
        ),
        KeyFileError::Write { .. } => (
            Exit::Failed,
            Some("is the directory there, may you write there, and is there room?"),
        ),
        KeyFileError::Randomness(_) => (Exit::Failed, None),
    };
    let mut failure = Failure::new(exit, error.to_string());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        failure.causes.push(cause.to_string());
        source = cause.source();
    }
    failure.hints.extend(hint.map(str::to_owned));
    failure
}

fn reach(reach: &Reach) -> String {
    match reach {
        Reach::All => "*".to_owned(),
        Reach::Only(names) => {
            let names: Vec<&str> = names.iter().map(nagi_core::id::Namespace::as_str).collect();
            names.join(",")
        }
    }
}

fn body(entry: &KeyEntry) -> Value {
    let namespaces: Vec<String> = match &entry.reach {
        Reach::All => vec!["*".to_owned()],
        Reach::Only(names) => names.iter().map(ToString::to_string).collect(),
    };
    let mut body = json!({
        "id": entry.id.as_str(), "role": entry.role.as_str(), "namespaces": namespaces,
        "created": Time(entry.created).to_string()
    });
    if let (Some(object), Some(at)) = (body.as_object_mut(), entry.expires) {
        object.insert("expires".to_owned(), Value::from(Time(at).to_string()));
    }
    body
}

fn table(entries: &[KeyEntry], now: jiff::Timestamp) -> Table {
    let mut table = Table::new(["ID", "ROLE", "NAMESPACES", "CREATED", "EXPIRES"]);
    for entry in entries {
        let expires = entry.expires.map(|at| {
            if at <= now {
                format!("{at} (expired)")
            } else {
                format!("{at} ({})", words::relative(at, now))
            }
        });
        table.row([
            Cell::from(entry.id.as_str()),
            Cell::from(entry.role.as_str()),
            Cell::from(reach(&entry.reach)),
            Cell::from(entry.created.to_string()),
            Cell::or_dash(expires),
        ]);
    }
    table
}
