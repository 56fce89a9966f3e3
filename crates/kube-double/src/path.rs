//! Paths of the API: which resource, which object, which part of it; and what the query asks for.

use crate::resources::GroupVersion;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group_version: GroupVersion,
    pub(crate) resource: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

/// The query, decoded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Target {
    /// `None` for a path that is none of the API's.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.split('/').skip(1);
        let group_version = match parts.next()? {
            "api" => GroupVersion::new("", parts.next()?),
            "apis" => GroupVersion::new(parts.next()?, parts.next()?),
            _ => return None,
        };
        let rest: Vec<&str> = parts.collect();
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, resource, ..] if !resource.is_empty() => {
                (Some((*namespace).to_owned()), rest.get(2..)?)
            }
            _ => (None, rest.as_slice()),
        };
        let (resource, name, subresource) = match rest {
            [resource] => (*resource, None, None),
            [resource, name] => (*resource, Some(*name), None),
            [resource, name, subresource] => (*resource, Some(*name), Some(*subresource)),
            _ => return None,
        };
        Some(Self {
            group_version,
            resource: resource.to_owned(),
            namespace,
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        })
    }
}

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&');
        Self(
            pairs
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decoded(name), decoded(value))
                })
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| matches!(value, "true" | "1"))
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next(), rest.next()].map(Option::unwrap_or_default);
                let digits = str::from_utf8(&digits).unwrap_or_default().to_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_resource_object_and_part() {
        let scale = Target::parse("/apis/apps/v1/namespaces/a/deployments/b/scale").unwrap();
        assert_eq!(scale.group_version, GroupVersion::new("apps", "v1"));
        assert_eq!(
            (scale.namespace.as_deref(), scale.name.as_deref()),
            (Some("a"), Some("b"))
        );
        assert_eq!(scale.subresource.as_deref(), Some("scale"));
        let all = Target::parse("/api/v1/pods").unwrap();
        assert_eq!(
            (all.resource.as_str(), all.namespace, all.name),
            ("pods", None, None)
        );
        let namespace = Target::parse("/api/v1/namespaces/a").unwrap();
        assert_eq!(
            (namespace.resource.as_str(), namespace.name.as_deref()),
            ("namespaces", Some("a"))
        );
        assert_eq!(Target::parse("/healthz"), None);
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse(Some("fieldSelector=metadata.name%3Da&watch=1&limit=2"));
        assert_eq!(query.get("fieldSelector"), Some("metadata.name=a"));
        assert!(query.flag("watch"));
        assert_eq!(query.number("limit"), Some(2));
    }
}
