//! `nagi recover hosts`: a name of a certificate for the near end of a tunnel, in the hosts file. A plan first.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::Args;
use nagi_ops::{HostsChange, HostsEntry, HostsError, HostsStep, plan_hosts};
use serde_json::json;

use crate::cmd::disk::shown;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Place, words};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  nagi recover hosts ip-172-31-37-254                what would be written
  sudo nagi recover hosts ip-172-31-37-254 --apply   127.0.0.1 ip-172-31-37-254
  sudo nagi recover hosts ip-172-31-37-254 --remove --apply

'nagi recover kubeconfig' does without it, and without root.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct HostsArgs {
    /// The name
    #[arg(value_parser = parse_name)]
    name: String,

    /// What it leads to
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,

    /// Take away the line that was added
    #[arg(long)]
    remove: bool,

    /// Write it; without it nothing changes
    #[arg(long)]
    apply: bool,

    /// The hosts file
    #[arg(long, value_name = "FILE", default_value = "/etc/hosts")]
    file: PathBuf,
}

/// Runs the command.
pub(super) fn run(args: &HostsArgs, session: &Session) -> Result<(), Failure> {
    let entry = HostsEntry {
        address: args.address,
        name: args.name.clone(),
    };
    let change = if args.remove {
        HostsChange::Remove
    } else {
        HostsChange::Add
    };
    let plan = plan_hosts(&args.file, &entry, change).map_err(|error| failure(args, error))?;
    if args.apply {
        plan.apply().map_err(|error| failure(args, error))?;
    }
    let changes = matches!(plan.step, HostsStep::Add(_) | HostsStep::Remove(_));
    let status = match (changes, args.apply) {
        (false, _) => "unchanged",
        (true, false) => "planned",
        (true, true) => "written",
    };
    let (action, line) = match &plan.step {
        HostsStep::Add(line) => ("add", Some(line)),
        HostsStep::Remove(line) => ("remove", Some(line)),
        HostsStep::AsItIs => ("none", None),
        HostsStep::OfOthers(line) => ("none", Some(line)),
    };
    let file = shown(&args.file);
    let raw = json!({ "status": status, "file": file, "action": action, "line": line });
    session
        .output
        .body(&raw, Place::Alone, |_| match &plan.step {
            HostsStep::Add(line) => format!("{file}: {status}\n  + {}", words::clean(line)),
            HostsStep::Remove(line) => format!("{file}: {status}\n  - {}", words::clean(line)),
            HostsStep::AsItIs => format!("{file}: it is as it is to be"),
            HostsStep::OfOthers(line) => {
                format!(
                    "{file}: this line is somebody else's and stays\n    {}",
                    words::clean(line)
                )
            }
        })?;
    if status == "planned" {
        session
            .output
            .hint("--apply writes it; nothing has changed");
    }
    Ok(())
}

fn failure(args: &HostsArgs, error: HostsError) -> Failure {
    let file = shown(&args.file);
    match error {
        HostsError::File(source) => {
            let failure = Failure::of(Exit::Failed, format!("{file} cannot be changed"), &source);
            if source.kind() == std::io::ErrorKind::PermissionDenied {
                failure.hint("it belongs to root: sudo nagi recover hosts")
            } else if source.kind() == std::io::ErrorKind::ResourceBusy {
                failure.hint(
                    "it is a mount of its own, as in a container; 'nagi recover kubeconfig' needs no hosts file",
                )
            } else {
                failure
            }
        }
        HostsError::Taken { line, text } => Failure::new(
            Exit::Refused,
            format!(
                "line {line} of {file} leads {} elsewhere: {text}",
                args.name
            ),
        )
        .hint("'nagi recover kubeconfig' needs no hosts file"),
        HostsError::Other { line, address } => Failure::new(
            Exit::Refused,
            format!(
                "line {line} of {file}, which is ours, leads {} to {address}",
                args.name
            ),
        )
        .hint(format!("--address {address} takes it away")),
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let is_plain = |one: char| one.is_ascii_alphanumeric() || "-_".contains(one);
        !label.is_empty() && !label.starts_with('-') && label.chars().all(is_plain)
    };
    if text.len() <= 253 && text.split('.').all(is_label) && text.parse::<IpAddr>().is_err() {
        Ok(text.to_owned())
    } else {
        Err("must be the name of a host".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A blank or a line end would write more than one name.
    #[test]
    fn a_name_is_one_word() {
        assert!(parse_name("ip-172-31-37-254").is_ok() && parse_name("a.b.example").is_ok());
        for wrong in ["", "a b", "a\nb", "a#", "10.0.0.1", "a..b", "-a", "*.a"] {
            assert!(parse_name(wrong).is_err(), "{wrong:?}");
        }
    }
}
