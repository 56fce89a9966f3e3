//! Identities: names that were checked once and are never bare strings again.
//!
//! The rules are those of Kubernetes (RFC 1123 label and subdomain), on every engine, so that a name accepted
//! on one machine is accepted on a cluster too. Names are shared, not copied: whoever keeps one of each of 100,000 workloads
//! keeps two words for it.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// Longest DNS label, in characters (RFC 1035 §2.3.4).
pub const LABEL_CHARS_MAX: usize = 63;
/// Longest DNS subdomain, in characters (Kubernetes object names).
pub const SUBDOMAIN_CHARS_MAX: usize = 253;
/// Longest user name that is taken from a cluster, in characters: a DNS subdomain behind an issuer's address fits.
pub const USER_NAME_CHARS_MAX: usize = 256;
/// Longest request id that is taken from a client, in characters (R21).
pub const REQUEST_ID_CHARS_MAX: usize = 128;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing, or blanks only.
    #[error("must not be empty")]
    Empty,
    /// More characters than the rule allows.
    #[error("must be at most {max} characters, got {got}")]
    TooLong {
        /// The limit, in characters.
        max: usize,
        /// What was given, in characters.
        got: usize,
    },
    /// A character outside the rule, or one in a place where it may not stand.
    #[error("{rule}")]
    Form {
        /// The rule, as a sentence.
        rule: &'static str,
    },
}

const LABEL_RULE: &str = "must be a DNS label: lower-case letters, digits and '-', beginning and ending with a letter or digit";
const SUBDOMAIN_RULE: &str = "must be a DNS subdomain: lower-case letters, digits, '-' and '.', each part beginning \
     and ending with a letter or digit";

fn check_label(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let got = text.chars().count();
    if got > LABEL_CHARS_MAX {
        return Err(NameError::TooLong {
            max: LABEL_CHARS_MAX,
            got,
        });
    }
    if is_label(text) {
        Ok(())
    } else {
        Err(NameError::Form { rule: LABEL_RULE })
    }
}

fn check_subdomain(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let got = text.chars().count();
    if got > SUBDOMAIN_CHARS_MAX {
        return Err(NameError::TooLong {
            max: SUBDOMAIN_CHARS_MAX,
            got,
        });
    }
    if text.split('.').all(is_label) {
        Ok(())
    } else {
        Err(NameError::Form {
            rule: SUBDOMAIN_RULE,
        })
    }
}

fn is_label(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// The rule that the text breaks.
            pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
                let text = text.as_ref();
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// A namespace: a DNS label. One project lives in one or more of them.
    Namespace,
    check_label
);
name_type!(
    /// The name of a workload: a DNS subdomain.
    Name,
    check_subdomain
);
name_type!(
    /// A pool of like nodes: a DNS label.
    PoolName,
    check_label
);
name_type!(
    /// A node of a pool: a DNS subdomain.
    NodeName,
    check_subdomain
);
name_type!(
    /// One replica (pod, process) of a workload: a DNS subdomain.
    ReplicaName,
    check_subdomain
);
name_type!(
    /// The id of an API key, which may be shown; the key itself never is. A DNS label.
    KeyId,
    check_label
);
name_type!(
    /// A host name by which the gateway finds a workload: a DNS subdomain, lower case, without port.
    Host,
    check_subdomain
);

/// The plural name of a kind, as it stands in a path: one of [`Resource::BUILT_IN`], or `plural.group`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource(Arc<str>);

impl Resource {
    /// The kinds that every cluster can scale. They need no group in their name.
    pub const BUILT_IN: [&str; 4] = [
        "deployments",
        "statefulsets",
        "replicasets",
        "replicationcontrollers",
    ];

    /// Checks and takes a plural name.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
        let text = text.as_ref();
        check_subdomain(text)?;
        Ok(Self(text.into()))
    }

    /// The kind that the founding documents speak of.
    pub fn deployments() -> Self {
        Self("deployments".into())
    }

    /// One of those, and none that a cluster brings along.
    pub fn is_built_in(&self) -> bool {
        !self.0.contains('.')
    }

    /// The plural as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The kind in the singular with a capital, for messages: `Deployment`.
    pub fn kind(&self) -> String {
        let plural = self.0.split('.').next().unwrap_or(&self.0);
        let singular = plural.strip_suffix('s').unwrap_or(plural);
        match singular {
            "statefulset" => "StatefulSet".to_owned(),
            "replicaset" => "ReplicaSet".to_owned(),
            "replicationcontroller" => "ReplicationController".to_owned(),
            other => {
                let mut chars = other.chars();
                chars.next().map_or_else(String::new, |c| {
                    c.to_ascii_uppercase().to_string() + chars.as_str()
                })
            }
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which workload: kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadId {
    /// Plural of the kind.
    pub resource: Resource,
    /// Namespace.
    pub namespace: Namespace,
    /// Name inside the namespace.
    pub name: Name,
}

impl WorkloadId {
    /// A Deployment.
    pub fn deployment(namespace: Namespace, name: Name) -> Self {
        Self {
            resource: Resource::deployments(),
            namespace,
            name,
        }
    }

    /// The host that it has when nobody gave it one: `NAME.NAMESPACE.localhost`.
    ///
    /// # Errors
    /// The name would be too long for a host.
    pub fn default_host(&self) -> Result<Host, NameError> {
        Host::new(format!("{}.{}.localhost", self.name, self.namespace))
    }
}

impl fmt::Display for WorkloadId {
    /// `namespace/name`, as the founding documents write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A user of the cluster, by the name that its API server tells: `system:serviceaccount:a:b`, `https://issuer#subject`,
/// `Jane Doe`. At most [`USER_NAME_CHARS_MAX`] characters, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

impl UserName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let got = text.chars().count();
        if text.trim().is_empty() {
            Err(NameError::Empty)
        } else if got > USER_NAME_CHARS_MAX {
            Err(NameError::TooLong {
                max: USER_NAME_CHARS_MAX,
                got,
            })
        } else if text.chars().any(char::is_control) {
            Err(NameError::Form {
                rule: "must be without control characters",
            })
        } else {
            Ok(Self(text))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in one word: blanks and `%` become `%` and two hexadecimal digits for each byte.
    pub fn to_word(&self) -> String {
        use fmt::Write as _;
        let mut word = String::with_capacity(self.0.len());
        for c in self.0.chars() {
            if c.is_whitespace() || c == '%' {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    // Writing into a `String` cannot fail.
                    write!(word, "%{byte:02x}").unwrap_or(());
                }
            } else {
                word.push(c);
            }
        }
        word
    }

    /// Reads what [`UserName::to_word`] wrote. `None` for anything else.
    pub fn from_word(word: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(word.len());
        let mut rest = word.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'%' {
                let digits = [rest.next()?, rest.next()?].map(char::from);
                let [high, low] = digits.map(|digit| digit.to_digit(16));
                bytes.push(u8::try_from(high? * 16 + low?).ok()?);
            } else {
                bytes.push(byte);
            }
        }
        Self::new(String::from_utf8(bytes).ok()?).ok()
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of one life of an object: a workload deleted and made again under its name has another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Arc<str>);

impl Uid {
    /// Takes what the engine gave; it is opaque.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The uid as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The version of an object, growing with every write of it (`resourceVersion`, comparable since Kubernetes 1.35).
///
/// Numbers are those of a timeline. Another one begins where what is known is read anew and smaller numbers are newer facts: the
/// data are those of a backup, or the kind is read from another place. Timelines are this process's own; nobody is told of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// How often the numbers of the object began anew, as far as this process saw.
    pub timeline: u32,
    /// As the store of the object counts.
    pub number: u64,
}

impl Version {
    /// Of the first timeline.
    pub const fn new(number: u64) -> Self {
        Self {
            timeline: 0,
            number,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

/// An id that follows one request through log, history and answer (R21).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// Takes a client's id when it is 1 to 128 of `A-Z a-z 0-9 . _ : / + = @ -`; anything else is `None`, and
    /// the caller makes one of its own.
    pub fn accept(text: &str) -> Option<Self> {
        let fits = (1..=REQUEST_ID_CHARS_MAX).contains(&text.len());
        let clean = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._:/+=@-".contains(&b));
        (fits && clean).then(|| Self(text.to_owned()))
    }

    /// An id of ours: 128 random bits as 32 hexadecimal digits. The bits are passed in; ids made from a clock repeat.
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{bits:032x}"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // R04
    #[test]
    fn names_follow_the_dns_rules_at_their_edges() {
        for good in ["a", "0", "a-b", &"a".repeat(63)] {
            assert!(Namespace::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "あ", &"a".repeat(64)] {
            assert!(Namespace::new(bad).is_err(), "{bad}");
        }
        assert!(Name::new("a.b-c").is_ok());
        for bad in ["a..b", ".a", "a.", "a/b", &"a".repeat(254)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    // A user name comes from whoever runs the cluster's identity provider: it may hold nearly anything.
    #[test]
    fn a_user_name_is_one_word_in_the_record_and_comes_back_whole() {
        for name in [
            "system:serviceaccount:project-a:ci",
            "https://issuer.example/#42",
            "CN=Jane Doe",
            "100% 凪\u{3000}x",
            "%20",
        ] {
            let user = UserName::new(name).unwrap();
            let word = user.to_word();
            assert!(!word.contains(char::is_whitespace), "{word}");
            assert_eq!(UserName::from_word(&word), Some(user), "{name}");
        }
        let longest = "x".repeat(USER_NAME_CHARS_MAX);
        assert!(UserName::new(&longest).is_ok());
        for bad in ["", "  ", "a\nb", "a\u{1b}[2J", &format!("{longest}x")] {
            assert!(UserName::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a%2", "a%zz", "%0a", "%ff"] {
            assert_eq!(UserName::from_word(bad), None, "{bad}");
        }
    }

    // A-161, W-A26, R21
    #[test]
    fn a_hostile_request_id_is_not_taken() {
        assert!(RequestId::accept("abc-1.2_3:4/5+6=7@8").is_some());
        assert!(RequestId::accept(&"x".repeat(128)).is_some());
        let ours = RequestId::from_random(0xabc);
        assert_eq!(RequestId::accept(ours.as_str()), Some(ours));
        for bad in ["", "a b", "a\nb", "é", "a\"b", &"x".repeat(129)] {
            assert!(RequestId::accept(bad).is_none(), "{bad:?}");
        }
    }

    //
    #[test]
    fn kinds_are_spelled_as_people_write_them() {
        assert_eq!(Resource::deployments().kind(), "Deployment");
        assert_eq!(Resource::new("statefulsets").unwrap().kind(), "StatefulSet");
        assert_eq!(
            Resource::new("rollouts.argoproj.io").unwrap().kind(),
            "Rollout"
        );
    }
}
