//! Asks the cluster, and says of each answer what it means for Nagi.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use nagi_core::guardrail::Guardrails;
use nagi_core::id::Namespace;
use nagi_kube::{Held, Home, Machine, Ready, Right, ServerVersion, Survey, Taint, User};
use nagi_ports::PortError;

use super::rights::{Account, Needed, Without, words};
use super::{Check, kinds};

/// The oldest version that serves all that Nagi relies on: admission policies are in it.
const OLDEST: (u32, u32) = (1, 30);
/// The newest version that the tests of this release ran on.
const NEWEST_TESTED: (u32, u32) = (1, 36);
/// Groups that Nagi cannot do without.
const GROUPS: [&str; 6] = [
    "apps/v1",
    "autoscaling/v2",
    "coordination.k8s.io/v1",
    "events.k8s.io/v1",
    "authorization.k8s.io/v1",
    "admissionregistration.k8s.io/v1",
];
const METRICS: &str = "metrics.k8s.io/v1beta1";
/// The policies that come with Nagi.
const POLICIES: [Policy; 2] = [
    Policy {
        name: "admission-policy",
        object: "nagi-changes-replicas-only",
        without: "a stolen token of Nagi could change more than replicas, as far as its roles go",
    },
    Policy {
        name: "history-policy",
        object: "nagi-writes-its-history",
        without: "whoever may create Events in a namespace could write into its history",
    },
];
/// The label of the nodes on which Nagi itself runs.
const OWN_NODES: &str = "agentpool=system";
/// The taint that Nagi's own pods tolerate as they are shipped.
const TOLERATED: &str = "CriticalAddonsOnly";
/// Where Nagi itself lives.
const OWN_NAMESPACE: &str = "scale-system";
/// A leader renews every two seconds; later than this, something keeps it.
const RENEWAL_LATE: jiff::SignedDuration = jiff::SignedDuration::from_secs(15);
/// Questions under way at once.
pub(super) const ASKED_AT_ONCE: usize = 8;
/// Rights that are named in one row; the others are counted.
const NAMED_MAX: usize = 6;

/// Looks at everything, in the order in which it is shown.
///
/// # Errors
/// The cluster went away in the middle.
pub(super) async fn at(
    survey: &Survey,
    version: &ServerVersion,
    namespaces: Option<&[Namespace]>,
    now: Timestamp,
) -> Result<Vec<Check>, PortError> {
    let mut checks = vec![of_version(version)];
    let mut unserved = Vec::new();
    for group in GROUPS {
        if !survey.serves(group).await? {
            unserved.push(group);
        }
    }
    checks.push(of_groups(&unserved));
    let caller = survey.caller().await?;
    let own = Account::ALL
        .into_iter()
        .find(|account| caller == User::account(account.name()).name);
    let homes = seen(survey.namespaces().await)?;
    checks.extend(of_home(homes.as_deref()));
    let mut accounts = Vec::new();
    let mut nagi = Nagi::RunsNowhere;
    for account in Account::ALL {
        if own.is_some_and(|own| own != account) {
            continue;
        }
        let deployment = found(survey.deployment(account.deployment()).await)?;
        if matches!(&deployment, Seen::There(ready) if ready.ready > 0) {
            nagi = Nagi::Runs;
        }
        checks.push(of_deployment(account, &deployment, namespaces));
        // The gateway is installed or not, as one likes.
        let installed =
            own.is_some() || seen(survey.has_account(account.name()).await)? != Some(false);
        if installed || account == Account::ScaleApi {
            checks.extend(rights(survey, account, own, namespaces).await?);
            accounts.push(account);
        }
    }
    checks.push(kinds::judged(survey, &accounts, own, namespaces).await);
    for policy in &POLICIES {
        let there = seen(survey.has_admission_policy(policy.object).await)?;
        checks.push(of_policy(policy, there, namespaces));
    }
    checks.push(of_lease(&found(survey.lease().await)?, now));
    checks.push(of_namespaces(namespaces, homes.as_deref()));
    let nodes = seen(survey.nodes_with(OWN_NODES).await)?;
    checks.push(of_nodes(nodes.as_deref(), nagi));
    checks.push(of_metrics(&survey.serves(METRICS).await));
    Ok(checks)
}

/// What was read; `None` when the caller may not look.
fn seen<T>(read: Result<T, PortError>) -> Result<Option<T>, PortError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(PortError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An object, as far as one can tell.
#[derive(Debug, PartialEq, Eq)]
enum Seen<T> {
    /// The caller may not look.
    Hidden,
    /// It is not there.
    Absent,
    /// It is there.
    There(T),
}

/// Whether any pod of Nagi is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nagi {
    Runs,
    RunsNowhere,
}

fn found<T>(read: Result<Option<T>, PortError>) -> Result<Seen<T>, PortError> {
    match read {
        Ok(Some(object)) => Ok(Seen::There(object)),
        Ok(None) => Ok(Seen::Absent),
        Err(PortError::Refused(_)) => Ok(Seen::Hidden),
        Err(error) => Err(error),
    }
}

fn of_version(version: &ServerVersion) -> Check {
    let ServerVersion { number, name } = version;
    if *number < OLDEST {
        let (major, minor) = OLDEST;
        return Check::missing(
            "api-server",
            format!("{name} is too old: Nagi needs {major}.{minor} or newer"),
        );
    }
    if *number > NEWEST_TESTED {
        let (major, minor) = NEWEST_TESTED;
        return Check::note(
            "api-server",
            format!(
                "{name}, newer than {major}.{minor}, the newest that this release was tested on"
            ),
        );
    }
    Check::ok("api-server", name.clone())
}

fn of_groups(unserved: &[&str]) -> Check {
    if unserved.is_empty() {
        return Check::ok("api-groups", "all that Nagi uses are served");
    }
    Check::missing("api-groups", format!("not served: {}", unserved.join(", ")))
        .fix("kubectl api-versions")
}

fn of_deployment(
    account: Account,
    deployment: &Seen<Ready>,
    namespaces: Option<&[Namespace]>,
) -> Check {
    let name = account.deployment();
    let absent = |check: Check| match account.directory(namespaces) {
        Some(directory) => check.fix(format!("kubectl apply -k {directory}")),
        None => check,
    };
    match (deployment, account) {
        (Seen::Hidden, _) => Check::note(name, "may not be looked at from here"),
        (Seen::Absent, Account::ScaleApi) => absent(Check::missing(name, "not installed")),
        (Seen::Absent, Account::WakeGateway) => absent(Check::note(
            name,
            "not installed: requests wake nothing, only calls and schedules do",
        )),
        (Seen::There(ready), _) if ready.ready == 0 && ready.wanted > 0 => {
            Check::missing(name, format!("none of {} pods is ready", ready.wanted)).fix(format!(
                "kubectl describe pods -n scale-system -l app.kubernetes.io/name={name}"
            ))
        }
        (Seen::There(ready), _) if ready.ready < ready.wanted => {
            let Ready { wanted, ready } = ready;
            Check::note(name, format!("{ready} of {wanted} pods are ready")).fix(format!(
                "kubectl rollout status deployment/{name} -n scale-system"
            ))
        }
        (Seen::There(ready), _) => Check::ok(name, format!("{} pods are ready", ready.ready)),
    }
}

/// The rights of an account: of the caller itself, or asked for by an administrator.
async fn rights(
    survey: &Survey,
    account: Account,
    own: Option<Account>,
    namespaces: Option<&[Namespace]>,
) -> Result<Vec<Check>, PortError> {
    let needed = account.needs(namespaces);
    let needed = needed.map_err(|error| PortError::Internal(error.to_string()))?;
    let user = own.is_none().then(|| User::account(account.name()));
    let asked = stream::iter(&needed).map(async |one| {
        let has = survey.may(user.as_ref(), &one.right).await?;
        Ok::<_, PortError>((!has).then_some(one))
    });
    let missing: Result<Vec<Option<&Needed>>, PortError> =
        asked.buffered(ASKED_AT_ONCE).try_collect().await;
    let missing = match missing {
        Ok(missing) => missing,
        Err(PortError::Refused(_)) => return Ok(vec![unasked(account)]),
        Err(error) => return Err(error),
    };
    let missing: Vec<&Needed> = missing.into_iter().flatten().collect();
    Ok(of_rights(account, namespaces, needed.len(), &missing))
}

const fn rights_of(account: Account) -> &'static str {
    match account {
        Account::ScaleApi => "rights of scale-api",
        Account::WakeGateway => "rights of wake-gateway",
    }
}

/// Whoever asks is no administrator and none of Nagi's accounts.
fn unasked(account: Account) -> Check {
    Check::unknown(
        rights_of(account),
        format!("you may not ask what {} may do", account.name()),
    )
    .fix("kubectl exec -n scale-system deploy/scale-api -- nagi preflight")
}

fn of_rights(
    account: Account,
    namespaces: Option<&[Namespace]>,
    all: usize,
    missing: &[&Needed],
) -> Vec<Check> {
    let name = rights_of(account);
    let broken: Vec<&Right> = missing
        .iter()
        .filter(|one| one.without == Without::Broken)
        .map(|one| &one.right)
        .collect();
    let mut checks = Vec::new();
    if broken.is_empty() {
        checks.push(Check::ok(
            name,
            format!("{} of {all} are there", all - missing.len()),
        ));
    } else {
        let named: Vec<String> = broken
            .iter()
            .take(NAMED_MAX)
            .map(|right| words(right))
            .collect();
        let more = match broken.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let detail = format!("{} may not {}{more}", account.name(), named.join(", "));
        checks.push(Check::missing(name, detail).fix(account.grants(namespaces)));
    }
    let mut lacks: Vec<&'static str> = Vec::new();
    for one in missing {
        if let Without::Lacks(what) = one.without
            && !lacks.contains(&what)
        {
            lacks.push(what);
        }
    }
    checks.extend(lacks.into_iter().map(|what| {
        let check = Check::note(name, format!("without some of them {what}"));
        match namespaces {
            // It was chosen so.
            Some(_) => check,
            None => check.fix(account.grants(None)),
        }
    }));
    checks
}

/// An admission policy that comes with Nagi.
struct Policy {
    /// Of the check, and of the manifest.
    name: &'static str,
    /// Of the object.
    object: &'static str,
    /// What can happen where it is not.
    without: &'static str,
}

fn of_policy(policy: &Policy, there: Option<bool>, namespaces: Option<&[Namespace]>) -> Check {
    let Policy {
        name,
        object,
        without,
    } = *policy;
    match (there, namespaces) {
        (Some(true), _) => Check::ok(name, object),
        (Some(false), Some(_)) => Check::note(name, format!("not installed: {without}")),
        (Some(false), None) => Check::missing(name, format!("{object} is not there: {without}"))
            .fix(format!("kubectl apply -f src/api/manifests/{name}.yaml")),
        (None, _) => Check::note(
            name,
            "may not be looked at from here; ask as an administrator",
        ),
    }
}

fn of_lease(lease: &Seen<Held>, now: Timestamp) -> Check {
    const NAME: &str = "leader";
    let look = "kubectl get pods -n scale-system -l app.kubernetes.io/name=scale-api";
    let held = match lease {
        Seen::Hidden => return Check::note(NAME, "the Lease may not be looked at from here"),
        Seen::Absent => {
            return Check::note(NAME, "nobody has led yet: schedules are not executed").fix(look);
        }
        Seen::There(held) => held,
    };
    let Some(holder) = &held.holder else {
        return Check::note(NAME, "nobody leads now: schedules are not executed").fix(look);
    };
    // Clocks differ; this is for a person to look at.
    match held.renewed.map(|renewed| now.duration_since(renewed)) {
        Some(age) if age > RENEWAL_LATE => {
            let seconds = age.as_secs();
            let detail = format!("{holder} has not renewed its Lease for {seconds} s");
            Check::note(NAME, detail).fix(look)
        }
        Some(_) | None => Check::ok(NAME, holder.clone()),
    }
}

/// The namespace of Nagi itself; nothing where one may not look.
fn of_home(there: Option<&[Home]>) -> Option<Check> {
    let own = there?.iter().find(|home| home.name == OWN_NAMESPACE);
    Some(match own {
        None => Check::missing(OWN_NAMESPACE, "the namespace of Nagi is not there")
            .fix("kubectl apply -k src/api"),
        Some(home) if home.terminating => deleted(OWN_NAMESPACE, home),
        Some(_) => Check::ok(OWN_NAMESPACE, "the namespace of Nagi is there"),
    })
}

/// A namespace that goes away: what it still waits for stands in its conditions.
fn deleted(name: &'static str, home: &Home) -> Check {
    let home = &home.name;
    Check::missing(
        name,
        format!("{home} is being deleted, and takes nothing new"),
    )
    .fix(format!("kubectl describe namespace {home}"))
}

fn of_namespaces(chosen: Option<&[Namespace]>, there: Option<&[Home]>) -> Check {
    const NAME: &str = "namespaces";
    let rails = Guardrails::default();
    let is_protected =
        |name: &str| Namespace::new(name).is_ok_and(|namespace| rails.check(&namespace).is_err());
    let Some(chosen) = chosen else {
        let protected: Vec<&str> = there
            .unwrap_or_default()
            .iter()
            .map(|home| home.name.as_str())
            .filter(|name| is_protected(name))
            .collect();
        return Check::ok(
            NAME,
            if protected.is_empty() {
                "kube-* and scale-system are protected, and never scaled".to_owned()
            } else {
                format!("protected, and never scaled: {}", protected.join(", "))
            },
        );
    };
    let protected = chosen.iter().find(|one| is_protected(one.as_str()));
    if let Some(protected) = protected {
        let detail =
            format!("{protected} is protected and never scaled: take it out of NAGI_NAMESPACES");
        return Check::missing(NAME, detail);
    }
    let absent = chosen
        .iter()
        .find(|one| there.is_some_and(|there| !there.iter().any(|home| home.name == one.as_str())));
    if let Some(absent) = absent {
        return Check::missing(NAME, format!("{absent} is not there"))
            .fix(format!("kubectl create namespace {absent}"));
    }
    let mut homes = there.unwrap_or_default().iter();
    let going =
        homes.find(|home| home.terminating && chosen.iter().any(|one| one.as_str() == home.name));
    if let Some(going) = going {
        return deleted(NAME, going);
    }
    let names: Vec<&str> = chosen.iter().map(Namespace::as_str).collect();
    Check::ok(NAME, format!("only these: {}", names.join(", ")))
}

/// Other taints than the one that Nagi tolerates as shipped may be tolerated by choice: then a pod of it runs.
fn of_nodes(nodes: Option<&[Machine]>, nagi: Nagi) -> Check {
    const NAME: &str = "nodes";
    let Some(nodes) = nodes else {
        return Check::note(NAME, "may not be looked at from here");
    };
    let keeps_away = |node: &Machine| -> Option<Taint> {
        let mut taints = node.taints.iter();
        taints.find(|taint| taint.key != TOLERATED).cloned()
    };
    let closed: Vec<(&Machine, Taint)> = nodes
        .iter()
        .filter_map(|node| Some((node, keeps_away(node)?)))
        .collect();
    let open = nodes.len() - closed.len();
    match (open, closed.first()) {
        (0, None) => Check::missing(
            NAME,
            format!("none has the label {OWN_NODES}, and Nagi runs on no other"),
        )
        .fix(format!("kubectl label node NODE {OWN_NODES}")),
        (0, Some((node, taint))) => {
            let detail = format!(
                "no node with {OWN_NODES} takes a pod that does not tolerate its taints: {} has {taint}",
                node.name
            );
            if nagi == Nagi::Runs {
                return Check::note(NAME, detail);
            }
            let fix = match taint.key.as_str() {
                "node.kubernetes.io/unschedulable" => format!("kubectl uncordon {}", node.name),
                key if key.starts_with("node.kubernetes.io/") => {
                    format!("kubectl describe node {}", node.name)
                }
                _ => format!("kubectl taint node {} {taint}-", node.name),
            };
            Check::missing(NAME, detail).fix(fix)
        }
        (open, None) => Check::ok(NAME, format!("{open} with {OWN_NODES}, for Nagi itself")),
        (open, Some((node, taint))) => Check::ok(
            NAME,
            format!(
                "{open} with {OWN_NODES}, for Nagi itself; {} more by its label, but closed: {} has {taint}",
                closed.len(),
                node.name
            ),
        ),
    }
}

/// It is a server of its own behind the API server: that it does not answer says nothing about the cluster.
fn of_metrics(served: &Result<bool, PortError>) -> Check {
    const NAME: &str = "metrics-server";
    const WITHOUT: &str = "kubectl top and autoscalers by load do not work; Nagi does without it";
    match served {
        Ok(true) => Check::ok(NAME, "there, for kubectl top and autoscalers"),
        Ok(false) => Check::note(NAME, format!("not there: {WITHOUT}")).fix(
            "kubectl apply -f https://github.com/kubernetes-sigs/metrics-server/releases/latest/download/components.yaml",
        ),
        Err(error) => Check::note(NAME, format!("does not answer ({error}): {WITHOUT}"))
            .fix("kubectl get apiservice v1beta1.metrics.k8s.io"),
    }
}

#[cfg(test)]
mod tests;
