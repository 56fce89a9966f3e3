//! Reads manifests as the API server would: by file, by directory, or as kustomize renders them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A path from the root of the working copy.
pub(crate) fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The objects of one text.
pub(crate) fn parse(text: &str) -> Vec<Value> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
    for object in &objects {
        for field in ["apiVersion", "kind"] {
            assert!(object[field].is_string(), "no {field} in {object}");
        }
        assert!(
            object["metadata"]["name"].is_string(),
            "no name in {object}"
        );
    }
    objects
}

/// The objects of one file.
pub(crate) fn of_file(path: &str) -> Vec<Value> {
    parse(&read(path))
}

/// The one object of a file.
pub(crate) fn only(path: &str) -> Value {
    let mut objects = of_file(path);
    assert_eq!(objects.len(), 1, "{path} holds one object");
    objects.remove(0)
}

/// The objects of a directory as `kubectl apply -f DIRECTORY` takes them: every file that it would read, in the order of
/// their names.
pub(crate) fn of_directory(path: &str) -> Vec<Value> {
    let entries = std::fs::read_dir(at(path)).expect(path);
    let mut files: Vec<String> = entries
        .map(|entry| entry.expect(path).file_name().into_string().expect("UTF-8"))
        .filter(|name| {
            [".yaml", ".yml", ".json"]
                .iter()
                .any(|extension| name.ends_with(extension))
        })
        .collect();
    files.sort_unstable();
    files
        .iter()
        .flat_map(|name| of_file(&format!("{path}/{name}")))
        .collect()
}

/// What `kubectl kustomize DIRECTORY` prints.
#[expect(clippy::disallowed_methods, reason = "the test asks kubectl itself")]
pub(crate) fn rendered(path: &str) -> Vec<Value> {
    let output = Command::new("kubectl")
        .arg("kustomize")
        .arg(at(path))
        .output()
        .expect("kubectl is on the path: install it, or take the one of the test cluster");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{path}: {errors}");
    parse(&String::from_utf8(output.stdout).expect("UTF-8"))
}

/// The object of this kind and name.
#[track_caller]
pub(crate) fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects
        .iter()
        .filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let first = found
        .next()
        .unwrap_or_else(|| panic!("there is no {kind} {name}"));
    assert!(found.next().is_none(), "{kind} {name} is there twice");
    first
}

/// `kind/name` of each, in order.
pub(crate) fn names(objects: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    objects
        .iter()
        .map(|object| {
            format!(
                "{}/{}",
                text(&object["kind"]),
                text(&object["metadata"]["name"])
            )
        })
        .collect()
}

/// The only container of a workload.
#[track_caller]
pub(crate) fn container(workload: &Value) -> &Value {
    let containers = workload["spec"]["template"]["spec"]["containers"]
        .as_array()
        .expect("containers");
    assert_eq!(containers.len(), 1);
    &containers[0]
}

/// Grants of the rules of a role: group, resource, verb, and the name where one is given.
pub(crate) fn grants(role: &Value) -> Vec<String> {
    let words = |rule: &Value, field: &str| -> Vec<String> {
        let list = rule[field].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|word| word.as_str().expect("text").to_owned())
            .collect()
    };
    let mut grants = Vec::new();
    for rule in role["rules"].as_array().expect("rules") {
        let names = words(rule, "resourceNames");
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                for verb in words(rule, "verbs") {
                    let what = [group.as_str(), &resource, &names.join("+")];
                    let what: Vec<&str> =
                        what.into_iter().filter(|part| !part.is_empty()).collect();
                    grants.push(format!("{verb} {}", what.join("/")));
                }
            }
        }
    }
    grants.sort_unstable();
    grants
}

/// Applies a strategic merge patch as `kubectl patch` does, for what the founding documents patch: maps are merged, and
/// lists of containers and of variables by name.
pub(crate) fn patched(object: &Value, patch: &Value) -> Value {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            let mut merged = object.clone();
            for (key, value) in patch {
                let old = object.get(key).unwrap_or(&Value::Null);
                merged.insert(key.clone(), patched(old, value));
            }
            Value::Object(merged)
        }
        (Value::Array(items), Value::Array(changes)) => {
            let mut merged = items.clone();
            for change in changes {
                match merged
                    .iter_mut()
                    .find(|item| item["name"] == change["name"])
                {
                    Some(item) => *item = patched(item, change),
                    None => merged.push(change.clone()),
                }
            }
            Value::Array(merged)
        }
        (_, value) => value.clone(),
    }
}
