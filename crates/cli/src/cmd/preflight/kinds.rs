//! The kinds that a cluster brings along: which of them can be scaled, and which of those the Scale API may touch.

use nagi_core::id::Namespace;
use nagi_kube::{CustomKind, Right, Survey, User};
use nagi_ports::PortError;

use super::Check;
use super::look::seen;
use super::rights::Account;

/// What the Scale API must be allowed on a kind that it serves.
const VERBS: [&str; 4] = ["get", "list", "watch", "patch"];

/// The kinds that this cluster brings along and that can be scaled: which of them the Scale API serves.
pub(super) async fn judged(
    survey: &Survey,
    own: Option<Account>,
    namespaces: Option<&[Namespace]>,
) -> Result<Check, PortError> {
    let Some(kinds) = seen(survey.custom_kinds().await)? else {
        return Ok(of_kinds(None, namespaces));
    };
    let user = own
        .is_none()
        .then(|| User::account(Account::ScaleApi.name()));
    let places: Vec<Option<String>> = match namespaces {
        None => vec![None],
        Some(chosen) => chosen.iter().map(|one| Some(one.to_string())).collect(),
    };
    let mut kinds_judged = Vec::new();
    for kind in kinds {
        let mut lacks = Vec::new();
        for (verb, namespace) in VERBS
            .iter()
            .flat_map(|verb| places.iter().map(move |place| (*verb, place)))
        {
            let right = Right {
                verb: verb.to_owned(),
                group: kind.group.clone(),
                resource: kind.plural.clone(),
                name: None,
                namespace: namespace.clone(),
            };
            match survey.may(user.as_ref(), &right).await {
                Ok(true) => {}
                Ok(false) if lacks.contains(&verb) => {}
                Ok(false) => lacks.push(verb),
                Err(PortError::Refused(_)) => return Ok(of_kinds(None, namespaces)),
                Err(error) => return Err(error),
            }
        }
        kinds_judged.push((kind, lacks));
    }
    Ok(of_kinds(Some(&kinds_judged), namespaces))
}

/// Each kind with the verbs that the Scale API may not use on it; `None` when nobody can tell from here.
fn of_kinds(
    kinds: Option<&[(CustomKind, Vec<&'static str>)]>,
    namespaces: Option<&[Namespace]>,
) -> Check {
    const NAME: &str = "custom-kinds";
    let Some(kinds) = kinds else {
        return Check::note(NAME, "may not be looked at from here");
    };
    let name = |kind: &CustomKind| format!("{}.{}", kind.plural, kind.group);
    let closed = kinds.iter().filter(|(_, lacks)| !lacks.is_empty());
    let closed: Vec<&(CustomKind, Vec<&str>)> = closed.collect();
    let Some((first, lacks)) = closed.first() else {
        let served: Vec<String> = kinds.iter().map(|(kind, _)| name(kind)).collect();
        return Check::ok(
            NAME,
            if served.is_empty() {
                "no definition in this cluster has a scale that Nagi can read".to_owned()
            } else {
                format!("served: {}", served.join(", "))
            },
        );
    };
    let others: Vec<String> = closed.iter().skip(1).map(|(kind, _)| name(kind)).collect();
    let more = if others.is_empty() {
        String::new()
    } else {
        format!("; not served either: {}", others.join(", "))
    };
    let detail = format!(
        "{} could be scaled, but {} may not {} it{more}",
        name(first),
        Account::ScaleApi.name(),
        lacks.join(", ")
    );
    let check = Check::note(NAME, detail);
    let role = format!("nagi-{}", first.plural);
    let create = format!("--verb={} --resource={}", VERBS.join(","), name(first));
    check.fix(match namespaces {
        None => format!(
            "kubectl create clusterrole {role} {create} && \
             kubectl label clusterrole {role} nagi.dev/aggregate-to-scale-api=true"
        ),
        Some(chosen) => {
            let place = chosen.first().map_or("NAMESPACE", Namespace::as_str);
            format!(
                "kubectl create role {role} -n {place} {create} && \
                 kubectl create rolebinding {role} -n {place} --role={role} --serviceaccount=scale-system:{}",
                Account::ScaleApi.name()
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::Finding;
    use super::*;

    // Issue 4 item 4: preflight names the definitions and the command that opens them to Nagi.
    #[test]
    fn kinds_that_could_be_scaled_are_told_with_the_command_that_lets_nagi() {
        let kind = |plural: &str| CustomKind {
            group: "example.com".to_owned(),
            plural: plural.to_owned(),
        };
        assert_eq!(of_kinds(None, None).result, Finding::Note);
        assert_eq!(of_kinds(Some(&[]), None).result, Finding::Ok);
        let served = of_kinds(Some(&[(kind("runners"), vec![])]), None);
        assert_eq!(
            (served.result, served.detail.as_str()),
            (Finding::Ok, "served: runners.example.com")
        );
        let kinds = [
            (kind("games"), vec![]),
            (kind("runners"), vec!["list", "patch"]),
            (kind("walkers"), vec!["get"]),
        ];
        let closed = of_kinds(Some(&kinds), None);
        assert_eq!(closed.result, Finding::Note);
        assert_eq!(
            closed.detail,
            "runners.example.com could be scaled, but scale-api-sa may not list, patch it; not served either: walkers.example.com"
        );
        assert_eq!(
            closed.fix.as_deref(),
            Some(
                "kubectl create clusterrole nagi-runners --verb=get,list,watch,patch --resource=runners.example.com && \
                 kubectl label clusterrole nagi-runners nagi.dev/aggregate-to-scale-api=true"
            )
        );
        let chosen = [Namespace::new("project-a").unwrap()];
        let fix = of_kinds(Some(&kinds), Some(&chosen)).fix.unwrap();
        assert!(
            fix.contains("create role nagi-runners -n project-a"),
            "{fix}"
        );
    }
}
