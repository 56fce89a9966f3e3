//! `nagi recover kubeconfig`: a cluster of a kubeconfig by another way, as a tunnel needs it. A plan first.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nagi_ops::{Check, Checked, KubeconfigEdit, KubeconfigError, KubeconfigPlan};
use serde_json::{Value, json};

use crate::cmd::disk::shown;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Place, words};
use crate::serve::settings::{CONTEXT, KUBECONFIG};
use crate::session::Session;
use crate::when::parse_span;

const EXAMPLES: &str = "\
Examples:
  nagi recover kubeconfig                            which name the certificate needs, and what would change
  nagi recover kubeconfig --apply                    write it
  nagi recover kubeconfig --api-server https://127.0.0.1:6443 --apply
                                                     through a tunnel: server and name in one edit
  nagi recover kubeconfig --api-server https://ip-172-31-37-254:6443 --apply
                                                     by a name of the hosts file, see 'nagi recover hosts'
  nagi recover kubeconfig --undo                     the file as it was before";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KubeconfigArgs {
    /// Kubeconfigs, as kubectl reads them; the one with the cluster is changed [default: `~/.kube/config`]
    #[arg(long, env = KUBECONFIG.env, value_name = "FILES")]
    kubeconfig: Option<OsString>,

    /// Context whose cluster is meant [default: the current one]
    #[arg(long, env = CONTEXT.env, value_name = "NAME")]
    context: Option<String>,

    /// The cluster itself, whatever contexts say
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,

    /// Where the API server is called from now on [default: as it is]
    #[arg(long, value_name = "URL")]
    api_server: Option<String>,

    /// The name that its certificate must have [default: none where the host is among its names, else one of them]
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,

    /// Do not call the server: write what is said here, unchecked
    #[arg(long)]
    offline: bool,

    /// Write it; without it nothing changes
    #[arg(long)]
    apply: bool,

    /// Put the file back as it was before the first edit
    #[arg(long, conflicts_with_all = ["apply", "api_server", "tls_server_name", "cluster", "offline"])]
    undo: bool,

    /// How long the server may take to show its certificate
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = parse_span)]
    timeout: Duration,
}

/// Runs the command.
pub(super) async fn run(args: &KubeconfigArgs, session: &Session) -> Result<(), Failure> {
    let files = files(args)?;
    if args.undo {
        let file = nagi_ops::undo_kubeconfig(&files).map_err(failure)?;
        let file = shown(&file);
        let raw = json!({ "status": "undone", "file": file });
        let said = format!("{} is as it was before", words::clean(&file));
        return session.output.body(&raw, Place::Alone, |_| said);
    }
    let edit = KubeconfigEdit {
        files,
        context: args.context.clone(),
        cluster: args.cluster.clone(),
        server: args.api_server.clone(),
        tls_server_name: args.tls_server_name.clone(),
        check: if args.offline {
            Check::Nobody
        } else {
            Check::Server
        },
        timeout: args.timeout,
    };
    let plan = nagi_ops::plan_kubeconfig(&edit).await.map_err(failure)?;
    if args.apply {
        plan.apply().map_err(failure)?;
    }
    let status = match (plan.changes(), args.apply) {
        (false, _) => "unchanged",
        (true, false) => "planned",
        (true, true) => "written",
    };
    let raw = raw(&plan, status);
    session
        .output
        .body(&raw, Place::Alone, |_| text(&plan, status))?;
    match status {
        "planned" => session
            .output
            .hint("--apply writes it; nothing has changed"),
        "written" => session.output.hint(&format!(
            "the file as it was is {}; --undo puts it back",
            words::clean(&shown(&plan.backup))
        )),
        _ => {}
    }
    if plan.checked == Checked::Unchecked && plan.changes() {
        session
            .output
            .warn("the server was not asked for its certificate");
    }
    Ok(())
}

fn raw(plan: &KubeconfigPlan, status: &str) -> Value {
    let names = match &plan.checked {
        Checked::Fits(names) => Some(names),
        Checked::Unchecked => None,
    };
    let side = |side: &nagi_ops::Server| json!({ "server": side.server, "tls_server_name": side.tls_server_name });
    json!({
        "status": status, "file": shown(&plan.file), "cluster": plan.cluster,
        "before": side(&plan.before), "after": side(&plan.after),
        "certificate_names": names, "backup": shown(&plan.backup),
    })
}

fn text(plan: &KubeconfigPlan, status: &str) -> String {
    let (before, after) = (&plan.before, &plan.after);
    let none = || "-".to_owned();
    let names = [&before.tls_server_name, &after.tls_server_name];
    let [old, new] = names.map(|name| name.clone().unwrap_or_else(none));
    let step = |one: &str, other: &str| {
        if one == other {
            one.to_owned()
        } else {
            format!("{one} -> {other}")
        }
    };
    let mut lines = vec![
        format!("{}, cluster {}: {status}", shown(&plan.file), plan.cluster),
        format!("  server           {}", step(&before.server, &after.server)),
        format!("  tls-server-name  {}", step(&old, &new)),
    ];
    if let Checked::Fits(names) = &plan.checked {
        lines.push(format!("  certificate for  {}", names.join(", ")));
    }
    let lines: Vec<String> = lines.iter().map(|line| words::clean(line)).collect();
    lines.join("\n")
}

fn files(args: &KubeconfigArgs) -> Result<Vec<PathBuf>, Failure> {
    let named = super::node::kubeconfigs(args.kubeconfig.as_ref());
    let usual = super::node::usual();
    let files = match (named.as_slice(), usual) {
        ([_], _) | ([], None) => named,
        ([], Some(usual)) => vec![usual],
        // As kubectl does.
        (_, _) => named.into_iter().filter(|path| path.exists()).collect(),
    };
    let absolute = files.iter().map(std::path::absolute);
    let files: std::io::Result<Vec<PathBuf>> = absolute.collect();
    let files = files.map_err(|error| Failure::of(Exit::Failed, "no current directory", &error))?;
    if files.is_empty() {
        return Err(Failure::usage("no kubeconfig").hint("name one with --kubeconfig"));
    }
    Ok(files)
}

fn failure(error: KubeconfigError) -> Failure {
    match error {
        KubeconfigError::Usage(why) => Failure::usage(why)
            .hint("as in --api-server https://127.0.0.1:6443 --tls-server-name kubernetes"),
        KubeconfigError::Unusable(why) => Failure::new(Exit::Refused, why)
            .hint("nothing has changed; 'kubectl config view' shows what kubectl makes of it"),
        KubeconfigError::Unasked { server, why } => Failure::new(
            Exit::Unreachable,
            format!("{server} shows no certificate: {why}"),
        )
        .hint("does it need a tunnel? 'nagi recover tunnel HOST' opens one")
        .hint("--offline writes what --api-server and --tls-server-name say, unchecked"),
        KubeconfigError::Name {
            server,
            expected,
            names,
        } => {
            let names = if names.is_empty() {
                "no name at all".to_owned()
            } else {
                names.join(", ")
            };
            Failure::new(
                Exit::Refused,
                format!("the certificate of {server} is for {names}, not {expected}"),
            )
            .hint("--tls-server-name names one of them, if it is that of your API server")
        }
        KubeconfigError::Untrusted { server, why } => Failure::new(
            Exit::Refused,
            format!("the certificate of {server} is not accepted: {why}"),
        )
        .hint("does the tunnel lead to the right machine? 'nagi recover diagnose' tells more"),
        KubeconfigError::Locked(lock) => Failure::new(
            Exit::Conflict,
            format!("somebody is writing it: {} is there", shown(&lock)),
        )
        .hint(format!(
            "when neither kubectl nor nagi runs, one left it that was killed: rm {}",
            shown(&lock)
        )),
        KubeconfigError::Stale(backup) => Failure::new(
            Exit::Conflict,
            format!(
                "{} is of an earlier edit, and the file was changed since",
                shown(&backup)
            ),
        )
        .hint("move it away; it is what the file was before that edit"),
        KubeconfigError::NoBackup(file) => Failure::new(
            Exit::NotFound,
            format!("{} was not edited here, or that is undone", shown(&file)),
        ),
        KubeconfigError::Changed { file, backup } => Failure::new(
            Exit::Conflict,
            format!("{} was changed by somebody else since", shown(&file)),
        )
        .hint(format!(
            "'diff {} {}' shows what",
            shown(&backup),
            shown(&file)
        )),
        KubeconfigError::Write { file, source } => {
            let message = format!("{} cannot be written", shown(&file));
            Failure::of(Exit::Failed, message, &source)
        }
    }
}
