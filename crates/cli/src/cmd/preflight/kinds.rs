//! The kinds that a cluster brings along: which of them can be scaled, and which of those Nagi's accounts may touch.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nagi_core::id::Namespace;
use nagi_kube::{CustomKind, Right, Survey, User};
use nagi_ports::PortError;

use super::Check;
use super::look::ASKED_AT_ONCE;
use super::rights::{Account, words};

const NAME: &str = "custom-kinds";
/// What the Scale API needs on a kind, and what the gateway does; its patch is one of the `scale`.
const SCALE_API: [&str; 4] = ["get", "list", "watch", "patch"];
const WAKE_GATEWAY: [&str; 3] = ["get", "list", "watch"];

/// The kinds that this cluster brings along and that can be scaled, and whether `accounts` may. What cannot be told is a
/// note: Nagi works without them.
pub(super) async fn judged(
    survey: &Survey,
    accounts: &[Account],
    own: Option<Account>,
    namespaces: Option<&[Namespace]>,
) -> Check {
    match looked_at(survey, accounts, own, namespaces).await {
        Ok(check) => check,
        Err(PortError::Refused(_)) => Check::note(NAME, "may not be looked at from here"),
        Err(error) => Check::note(NAME, format!("could not be looked at: {error}")),
    }
}

async fn looked_at(
    survey: &Survey,
    accounts: &[Account],
    own: Option<Account>,
    namespaces: Option<&[Namespace]>,
) -> Result<Check, PortError> {
    let user = |account: Account| own.is_none().then(|| User::account(account.name()));
    for account in accounts {
        let list = right(
            "list",
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            None,
        );
        if !survey.may(user(*account).as_ref(), &list).await? {
            let detail = format!(
                "not looked for: {} may not list their definitions, so only built-in kinds are served",
                account.name()
            );
            return Ok(Check::note(NAME, detail));
        }
    }
    let kinds = survey.custom_kinds().await?;
    let questions = kinds.iter().flat_map(|kind| {
        let of_account = move |account: &Account| needs(*account, kind, namespaces);
        accounts
            .iter()
            .flat_map(of_account)
            .map(move |needed| (kind, needed))
    });
    let asked = stream::iter(questions).map(async |(kind, (account, right))| {
        let has = survey.may(user(account).as_ref(), &right).await?;
        Ok::<_, PortError>((!has).then_some((kind, account, right)))
    });
    let lacking: Vec<Option<(&CustomKind, Account, Right)>> =
        asked.buffered(ASKED_AT_ONCE).try_collect().await?;
    Ok(of_kinds(&kinds, lacking.into_iter().flatten()))
}

fn right(verb: &str, group: &str, resource: &str, namespace: Option<&Namespace>) -> Right {
    Right {
        verb: verb.to_owned(),
        group: group.to_owned(),
        resource: resource.to_owned(),
        name: None,
        namespace: namespace.map(Namespace::to_string),
    }
}

/// What an account needs to serve a kind; with `namespaces`, in each of these.
fn needs(
    account: Account,
    kind: &CustomKind,
    namespaces: Option<&[Namespace]>,
) -> Vec<(Account, Right)> {
    let places = namespaces.map_or_else(|| vec![None], |chosen| chosen.iter().map(Some).collect());
    let CustomKind { group, plural } = kind;
    let scale = format!("{plural}/scale");
    let (verbs, patch): (&[&str], _) = match account {
        Account::ScaleApi => (&SCALE_API, None),
        Account::WakeGateway => (&WAKE_GATEWAY, Some(("patch", scale.as_str()))),
    };
    let each = verbs
        .iter()
        .map(|verb| (*verb, plural.as_str()))
        .chain(patch);
    let each: Vec<(&str, &str)> = each.collect();
    let of_place = |place: Option<&Namespace>| {
        let rights = each
            .iter()
            .map(|(verb, resource)| right(verb, group, resource, place));
        rights.map(|right| (account, right)).collect::<Vec<_>>()
    };
    places.into_iter().flat_map(of_place).collect()
}

/// The kinds, and which rights on them are lacking.
fn of_kinds<'k>(
    kinds: &'k [CustomKind],
    lacking: impl Iterator<Item = (&'k CustomKind, Account, Right)>,
) -> Check {
    let mut closed: BTreeMap<&CustomKind, Vec<(Account, Right)>> = BTreeMap::new();
    for (kind, account, right) in lacking {
        closed.entry(kind).or_default().push((account, right));
    }
    let Some((first, lacks)) = closed.pop_first() else {
        let served: Vec<String> = kinds.iter().map(name).collect();
        return Check::ok(
            NAME,
            if served.is_empty() {
                "no definition in this cluster has a scale that Nagi can read".to_owned()
            } else {
                format!("can be scaled: {}", served.join(", "))
            },
        );
    };
    let mut by_account = Vec::new();
    let mut fixes = Vec::new();
    for account in Account::ALL {
        let mut its = lacks.iter().filter(|(who, _)| *who == account).peekable();
        let Some((_, one)) = its.peek() else { continue };
        fixes.push(grant(account, first, one.namespace.as_deref()));
        let rights: Vec<String> = its.map(|(_, right)| words(right)).collect();
        by_account.push(format!("{} may not {}", account.name(), rights.join(", ")));
    }
    let others: Vec<String> = closed.keys().map(|kind| name(kind)).collect();
    let more = if others.is_empty() {
        String::new()
    } else {
        format!("; not served either: {}", others.join(", "))
    };
    let detail = format!(
        "{} could be scaled, but {}{more}",
        name(first),
        by_account.join("; ")
    );
    Check::note(NAME, detail).fix(fixes.join(" && "))
}

fn name(kind: &CustomKind) -> String {
    format!("{}.{}", kind.plural, kind.group)
}

/// The command that lets an account serve a kind.
fn grant(account: Account, kind: &CustomKind, namespace: Option<&str>) -> String {
    let kind = name(kind);
    let role = format!("nagi-{kind}");
    let verbs = SCALE_API.join(",");
    if let Some(namespace) = namespace {
        let account = account.name();
        return format!(
            "kubectl create role {role} -n {namespace} --verb={verbs} --resource={kind} && \
             kubectl create rolebinding {role} -n {namespace} --role={role} --serviceaccount=scale-system:{account}"
        );
    }
    let create = |role: &str, verbs: &str, resource: &str, aggregate: &str| {
        format!(
            "kubectl create clusterrole {role} --verb={verbs} --resource={resource} && \
             kubectl label clusterrole {role} nagi.dev/aggregate-to-{aggregate}=true"
        )
    };
    match account {
        Account::ScaleApi => create(&role, &verbs, &kind, "scale-api"),
        Account::WakeGateway => {
            let reads = create(
                &format!("{role}-gateway"),
                &WAKE_GATEWAY.join(","),
                &kind,
                "wake-gateway",
            );
            let scale = create(
                &format!("{role}-gateway-scale"),
                "patch",
                &format!("{kind}/scale"),
                "wake-gateway",
            );
            format!("{reads} && {scale}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Finding;
    use super::*;

    fn kind(plural: &str) -> CustomKind {
        CustomKind {
            group: "example.com".to_owned(),
            plural: plural.to_owned(),
        }
    }

    // Issue 4 item 4: preflight names the definitions and the command that opens them to Nagi.
    #[test]
    fn kinds_that_could_be_scaled_are_told_with_the_command_that_lets_nagi() {
        assert_eq!(of_kinds(&[], [].into_iter()).result, Finding::Ok);
        let kinds = ["games", "runners", "walkers"].map(kind);
        let served = of_kinds(&kinds[1..2], [].into_iter());
        assert_eq!(
            (served.result, served.detail.as_str()),
            (Finding::Ok, "can be scaled: runners.example.com")
        );
        let lacks = |n: usize, account, verb: &str, resource: &str| {
            (
                &kinds[n],
                account,
                right(verb, "example.com", resource, None),
            )
        };
        let lacking = [
            lacks(1, Account::ScaleApi, "list", "runners"),
            lacks(1, Account::WakeGateway, "patch", "runners/scale"),
            lacks(2, Account::ScaleApi, "get", "walkers"),
        ];
        let closed = of_kinds(&kinds, lacking.into_iter());
        assert_eq!(closed.result, Finding::Note);
        assert_eq!(
            closed.detail,
            "runners.example.com could be scaled, but scale-api-sa may not list runners.example.com; \
             wake-gateway-sa may not patch runners.example.com/scale; not served either: walkers.example.com"
        );
        let fix = closed.fix.unwrap();
        for part in [
            "create clusterrole nagi-runners.example.com --verb=get,list,watch,patch --resource=runners.example.com && ",
            "label clusterrole nagi-runners.example.com nagi.dev/aggregate-to-scale-api=true && ",
            "--verb=patch --resource=runners.example.com/scale && ",
            "label clusterrole nagi-runners.example.com-gateway-scale nagi.dev/aggregate-to-wake-gateway=true",
        ] {
            assert!(fix.contains(part), "{part}: {fix}");
        }
    }

    #[test]
    fn in_chosen_namespaces_the_one_that_lacks_it_is_named_and_mended() {
        let chosen = ["project-a", "project-b"].map(|name| Namespace::new(name).unwrap());
        let kinds = [kind("runners")];
        let needed = needs(Account::ScaleApi, &kinds[0], Some(&chosen));
        assert_eq!(needed.len(), 8);
        let lacking = needed
            .into_iter()
            .filter(|(_, right)| right.namespace.as_deref() == Some("project-b"))
            .map(|(account, right)| (&kinds[0], account, right));
        let closed = of_kinds(&kinds, lacking);
        assert!(
            closed
                .detail
                .contains("patch runners.example.com in project-b"),
            "{closed:?}"
        );
        let fix = closed.fix.unwrap();
        assert!(
            fix.contains("-n project-b") && !fix.contains("project-a"),
            "{fix}"
        );
    }
}
