//! What an account may do by its roles, beside what it did by the audit log of an API server.
//!
//! Both are sets of [`Right`]. A call uses the narrowest right that covers it: a rule that is wider than what is called counts
//! as not used, so that nobody can hide a narrow rule behind a wide one. Only calls of Nagi itself count, told by their user
//! agent, not those that a test makes with the same token.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

/// How the user agent of Nagi's own calls begins.
const AGENT: &str = "nagi/";

/// How the reason ends for which something is allowed to whoever has authenticated.
const EVERYBODY: &str = "to Group \"system:authenticated\"";

/// One verb on one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Empty for the core group.
    group: String,
    /// With its subresource, if any: `pods/log`.
    resource: String,
    verb: String,
    /// `None`: in all of them, or for what has none.
    namespace: Option<String>,
    /// `None`: whatever it is called.
    name: Option<String>,
}

/// The calls of one account.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    allowed: BTreeSet<Right>,
    refused: BTreeSet<Right>,
}

/// An audit log that is still being written.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    /// Where the next line begins.
    read: u64,
    calls: BTreeMap<String, Calls>,
}

/// The user that a `ServiceAccount` is for the API server.
pub fn user(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

/// What the roles among `objects` grant a `ServiceAccount`, by the bindings among them.
///
/// # Errors
///
/// A binding to a role that is not among them, and rules for paths that are no resources: they cannot be compared.
pub fn granted(
    objects: &[Value],
    namespace: &str,
    account: &str,
) -> anyhow::Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    for binding in objects {
        let kind = text(&binding["kind"]);
        let is_ours = list(&binding["subjects"]).iter().any(|subject| {
            subject["kind"] == "ServiceAccount"
                && subject["name"] == account
                && subject["namespace"] == namespace
        });
        if !matches!(kind, "ClusterRoleBinding" | "RoleBinding") || !is_ours {
            continue;
        }
        let within = (kind == "RoleBinding").then(|| text(&binding["metadata"]["namespace"]));
        let wanted = &binding["roleRef"];
        let role = objects
            .iter()
            .find(|role| {
                role["kind"] == wanted["kind"]
                    && role["metadata"]["name"] == wanted["name"]
                    && (wanted["kind"] == "ClusterRole"
                        || role["metadata"]["namespace"].as_str() == within)
            })
            .with_context(|| {
                format!(
                    "{} names a role that is not there",
                    binding["metadata"]["name"]
                )
            })?;
        // A role that the cluster fills has none.
        for rule in list(&role["rules"]) {
            expand(rule, within, &mut rights)
                .with_context(|| format!("read {}", role["metadata"]["name"]))?;
        }
    }
    Ok(rights)
}

/// Calls that nothing grants, whether they were refused or not.
pub fn missing(granted: &BTreeSet<Right>, calls: &Calls) -> Vec<String> {
    let is_missing = |call: &&Right| narrowest(granted, call).is_none();
    let done = calls.allowed.iter().filter(is_missing);
    let done = done.map(|call| (call.of_any(), "is done, and no rule says so"));
    // Tests take rights away and give them back; meanwhile what a rule grants is refused as well.
    let refused = calls.refused.iter().filter(is_missing);
    let refused = refused.map(|call| (call.of_any(), "is asked for, and was refused"));
    let each: BTreeSet<_> = done.chain(refused).collect();
    each.into_iter()
        .map(|(call, what)| format!("one too few: '{call}' {what}"))
        .collect()
}

/// What is wrong: calls that are [`missing`], and rights that are granted and not used. `unused` names rights that are
/// granted and not used on purpose, as [`Right`] is written; one that is used, or not granted, is wrong as well.
pub fn differences(granted: &BTreeSet<Right>, calls: &Calls, unused: &[&str]) -> Vec<String> {
    let allowed = calls.allowed.iter();
    let used: BTreeSet<&Right> = allowed
        .filter_map(|call| narrowest(granted, call))
        .collect();
    let mut wrong = missing(granted, calls);
    for right in granted {
        let written = right.to_string();
        if !used.contains(right) && !unused.contains(&written.as_str()) {
            wrong.push(format!("one too many: '{written}' was never used"));
        }
    }
    for exception in unused {
        match granted.iter().find(|right| right.to_string() == *exception) {
            None => wrong.push(format!("'{exception}' is an exception, and is not granted")),
            Some(right) if used.contains(right) => {
                wrong.push(format!("'{exception}' is an exception, and is used"));
            }
            Some(_) => {}
        }
    }
    wrong
}

fn narrowest<'a>(granted: &'a BTreeSet<Right>, call: &Right) -> Option<&'a Right> {
    let covering = granted.iter().filter(|right| right.covers(call));
    covering.max_by_key(|right| (right.name.is_some(), right.namespace.is_some()))
}

/// Takes the rights of one rule apart. A `*` stays as it is: no call uses it.
fn expand(rule: &Value, within: Option<&str>, rights: &mut BTreeSet<Right>) -> anyhow::Result<()> {
    if !rule["nonResourceURLs"].is_null() {
        bail!("rules for paths that are no resources are not compared");
    }
    let names: Vec<Option<&str>> = match rule["resourceNames"].as_array() {
        Some(names) if !names.is_empty() => names.iter().map(|name| Some(text(name))).collect(),
        Some(_) | None => vec![None],
    };
    for group in list(&rule["apiGroups"]) {
        for resource in list(&rule["resources"]) {
            for verb in list(&rule["verbs"]) {
                rights.extend(names.iter().map(|name| Right {
                    group: text(group).to_owned(),
                    resource: text(resource).to_owned(),
                    verb: text(verb).to_owned(),
                    namespace: within.map(str::to_owned),
                    name: name.map(str::to_owned),
                }));
            }
        }
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

// === impl Right ===

impl Right {
    /// What a line of the log asks for; `None` for what is no resource.
    fn asked(line: &Value) -> Option<Self> {
        let object = line["objectRef"].as_object()?;
        let field = |name: &str| {
            let value = object.get(name).and_then(Value::as_str).unwrap_or_default();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let resource = field("resource")?;
        Some(Self {
            group: field("apiGroup").unwrap_or_default(),
            resource: match field("subresource") {
                Some(part) => format!("{resource}/{part}"),
                None => resource,
            },
            verb: text(&line["verb"]).to_owned(),
            namespace: field("namespace"),
            name: field("name"),
        })
    }

    fn covers(&self, call: &Self) -> bool {
        self.group == call.group
            && self.resource == call.resource
            && self.verb == call.verb
            && (self.namespace.is_none() || self.namespace == call.namespace)
            && (self.name.is_none() || self.name == call.name)
    }

    /// The same of any object in any namespace: a log names more objects than anybody wants to read.
    #[must_use]
    pub fn of_any(&self) -> Self {
        Self {
            namespace: None,
            name: None,
            ..self.clone()
        }
    }
}

impl fmt::Display for Right {
    /// As `kubectl auth can-i` takes it: `patch deployments.apps`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resource, part) = match self.resource.split_once('/') {
            Some((resource, part)) => (resource, format!("/{part}")),
            None => (self.resource.as_str(), String::new()),
        };
        write!(formatter, "{} {resource}", self.verb)?;
        if !self.group.is_empty() {
            write!(formatter, ".{}", self.group)?;
        }
        formatter.write_str(&part)?;
        if let Some(name) = &self.name {
            write!(formatter, " {name}")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(formatter, " in {namespace}")?;
        }
        Ok(())
    }
}

// === impl AuditLog ===

impl AuditLog {
    /// Begins at the first line.
    pub fn open(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            read: 0,
            calls: BTreeMap::new(),
        }
    }

    /// Begins at what is written from now on.
    ///
    /// # Errors
    ///
    /// There is no such file.
    pub fn from_now(path: &Path) -> anyhow::Result<Self> {
        let known = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self {
            read: known.len(),
            ..Self::open(path)
        })
    }

    /// The calls of a user in all that is written by now.
    pub fn calls(&mut self, user: &str) -> anyhow::Result<Calls> {
        let context = || format!("read {}", self.path.display());
        let mut file = File::open(&self.path).with_context(context)?;
        file.seek(SeekFrom::Start(self.read))
            .with_context(context)?;
        let mut lines = BufReader::new(file);
        let mut line = String::new();
        loop {
            line.clear();
            let length = lines.read_line(&mut line).with_context(context)?;
            if !line.ends_with('\n') {
                break;
            }
            self.read += u64::try_from(length).context("a length")?;
            // Most lines are somebody else's, and reading JSON is dear.
            if line.contains(AGENT) {
                let line = serde_json::from_str(&line).with_context(context)?;
                take(&mut self.calls, &line);
            }
        }
        Ok(self.calls.get(user).cloned().unwrap_or_default())
    }
}

fn take(calls: &mut BTreeMap<String, Calls>, line: &Value) {
    if !text(&line["userAgent"]).starts_with(AGENT) {
        return;
    }
    let Some(call) = Right::asked(line) else {
        return;
    };
    // What anybody may who has authenticated, nobody has to grant.
    if text(&line["annotations"]["authorization.k8s.io/reason"]).ends_with(EVERYBODY) {
        return;
    }
    let calls = calls
        .entry(text(&line["user"]["username"]).to_owned())
        .or_default();
    // What was turned away before anybody asked for its right has no decision.
    match text(&line["annotations"]["authorization.k8s.io/decision"]) {
        "allow" => calls.allowed.insert(call),
        "forbid" => calls.refused.insert(call),
        _ => false,
    };
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::json;

    use super::*;

    const USER: &str = "system:serviceaccount:scale-system:scale-api-sa";

    /// A cluster-wide role, and one in the namespace for an object of one name.
    fn shipped(rules: &Value) -> BTreeSet<Right> {
        let subjects = json!([{"kind": "ServiceAccount", "name": "scale-api-sa", "namespace": "scale-system"}]);
        let objects = [
            json!({"kind": "ClusterRole", "metadata": {"name": "a"}, "rules": rules}),
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "a"},
                "roleRef": {"kind": "ClusterRole", "name": "a"}, "subjects": subjects}),
            json!({"kind": "Role", "metadata": {"name": "b", "namespace": "scale-system"}, "rules": [
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["nagi-leader"], "verbs": ["get"]}]}),
            json!({"kind": "RoleBinding", "metadata": {"name": "b", "namespace": "scale-system"},
                "roleRef": {"kind": "Role", "name": "b"}, "subjects": subjects}),
            json!({"kind": "ClusterRole", "metadata": {"name": "of-others"}, "rules": [
                {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]}),
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "of-others"},
                "roleRef": {"kind": "ClusterRole", "name": "of-others"},
                "subjects": [{"kind": "ServiceAccount", "name": "wake-gateway-sa", "namespace": "scale-system"}]}),
        ];
        granted(&objects, "scale-system", "scale-api-sa").expect("they can be read")
    }

    fn rules() -> Value {
        json!([
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "update"]},
            {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        ])
    }

    fn line(user: &str, agent: &str, decision: &str, verb: &str, object: &Value) -> Value {
        json!({
            "user": {"username": user}, "userAgent": agent, "verb": verb, "objectRef": object,
            "annotations": {"authorization.k8s.io/decision": decision},
        })
    }

    fn ours(decision: &str, verb: &str, object: &Value) -> Value {
        line(USER, "nagi/0.1.0", decision, verb, object)
    }

    fn deployment() -> Value {
        json!({"apiGroup": "apps", "resource": "deployments", "namespace": "project-a", "name": "x"})
    }

    fn lease(name: &str) -> Value {
        json!({"apiGroup": "coordination.k8s.io", "resource": "leases", "namespace": "scale-system", "name": name})
    }

    /// Uses all that is granted but for the update.
    fn usual() -> Vec<Value> {
        vec![
            ours("allow", "get", &deployment()),
            ours(
                "allow",
                "get",
                &json!({"resource": "pods", "subresource": "log", "namespace": "a", "name": "x-1"}),
            ),
            ours("allow", "get", &lease("nagi-leader")),
            ours("allow", "get", &Value::Null),
        ]
    }

    fn calls(lines: &[Value]) -> Calls {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        for line in lines {
            writeln!(file, "{line}").expect("it takes a line");
        }
        write!(file, "{{\"half\": \"nagi/").expect("a line that is being written");
        AuditLog::open(file.path())
            .calls(USER)
            .expect("it can be read")
    }

    const UNUSED: [&str; 1] = ["update deployments.apps"];

    #[test]
    fn rights_that_are_all_used_are_enough() {
        let wrong = differences(&shipped(&rules()), &calls(&usual()), &UNUSED);
        assert_eq!(wrong, [""; 0]);
    }

    #[test]
    fn one_right_too_many_is_named() {
        let mut more = rules();
        more[1]["verbs"] = json!(["get", "list"]);
        let wrong = differences(&shipped(&more), &calls(&usual()), &UNUSED);
        assert_eq!(wrong, ["one too many: 'list pods/log' was never used"]);
        let wrong = differences(&shipped(&rules()), &calls(&usual()[1..]), &UNUSED);
        assert_eq!(
            wrong,
            ["one too many: 'get deployments.apps' was never used"]
        );
    }

    #[test]
    fn a_wide_right_beside_a_narrow_one_is_too_many() {
        let with = |rule: Value| {
            let mut rules = rules();
            let all = rules.as_array_mut().expect("a list of rules");
            all.push(rule);
            shipped(&rules)
        };
        let wide = with(
            json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]}),
        );
        assert_eq!(
            differences(&wide, &calls(&usual()), &UNUSED),
            ["one too many: 'get leases.coordination.k8s.io' was never used"]
        );
        let everything = with(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}));
        assert_eq!(
            differences(&everything, &calls(&usual()), &UNUSED),
            ["one too many: '* *.*' was never used"]
        );
    }

    #[test]
    fn one_right_too_few_is_named_refused_or_not() {
        let mut lines = usual();
        lines.push(ours("forbid", "delete", &deployment()));
        lines.push(ours("forbid", "get", &deployment()));
        lines.push(ours("allow", "get", &lease("another")));
        assert_eq!(
            differences(&shipped(&rules()), &calls(&lines), &UNUSED),
            [
                "one too few: 'delete deployments.apps' is asked for, and was refused",
                "one too few: 'get leases.coordination.k8s.io' is done, and no rule says so",
            ]
        );
    }

    #[test]
    fn calls_of_others_use_no_right() {
        let delete = |user, agent| line(user, agent, "allow", "delete", &deployment());
        let mut lines = usual();
        lines.extend([
            delete("admin", "nagi/0.1.0"),
            delete(USER, "kubectl/v1.36.3"),
        ]);
        lines.push(line(USER, "nagi/0.1.0", "", "delete", &deployment()));
        // Nor do those that everybody may make.
        let mut review = ours(
            "allow",
            "create",
            &json!({"apiGroup": "authorization.k8s.io", "resource": "selfsubjectaccessreviews"}),
        );
        review["annotations"]["authorization.k8s.io/reason"] = json!(
            "RBAC: allowed by ClusterRoleBinding \"system:basic-user\" of ClusterRole \"system:basic-user\" to Group \"system:authenticated\""
        );
        lines.push(review);
        assert_eq!(
            differences(&shipped(&rules()), &calls(&lines), &UNUSED),
            [""; 0]
        );
    }

    #[test]
    fn an_exception_that_is_none_is_named() {
        let mut lines = usual();
        lines.push(ours("allow", "update", &deployment()));
        let wrong = differences(
            &shipped(&rules()),
            &calls(&lines),
            &["update deployments.apps", "get secrets"],
        );
        assert_eq!(
            wrong,
            [
                "'update deployments.apps' is an exception, and is used",
                "'get secrets' is an exception, and is not granted",
            ]
        );
    }

    #[test]
    fn what_is_written_later_is_read_later() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let mut log = AuditLog::open(file.path());
        for (count, line) in usual().iter().take(3).enumerate() {
            assert_eq!(
                log.calls(USER).expect("it can be read").allowed.len(),
                count
            );
            writeln!(file, "{line}").expect("it takes a line");
        }
        assert_eq!(log.calls(USER).expect("it can be read").allowed.len(), 3);
    }

    #[test]
    fn roles_that_cannot_be_compared_are_refused() {
        let subjects = json!([{"kind": "ServiceAccount", "name": "a", "namespace": "b"}]);
        let binding = json!({"kind": "ClusterRoleBinding", "metadata": {"name": "x"},
            "roleRef": {"kind": "ClusterRole", "name": "x"}, "subjects": subjects});
        let role = json!({"kind": "ClusterRole", "metadata": {"name": "x"}, "rules": [
            {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]});
        granted(std::slice::from_ref(&binding), "b", "a").expect_err("there is no such role");
        granted(&[binding, role], "b", "a").expect_err("a path is no resource");
    }
}
