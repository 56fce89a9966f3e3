//! The answer of `ListContainers` of `runtime.v1`, as far as it is needed: api.proto of `k8s.io/cri-api`.
//!
//! A message is a row of fields, each with its number and its kind. What is not known is passed over, so a newer runtime is
//! understood; what is cut off or malformed is nothing at all.

use crate::observed::{Container, ContainerState};

/// Labels that kubelet gives each container.
const POD_LABEL: &str = "io.kubernetes.pod.name";
const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A number of four or eight bytes, which no field here has.
    Fixed,
}

/// The containers of a body of gRPC: one frame with a flag and a length before it.
pub(super) fn containers(body: &[u8]) -> Option<Vec<Container>> {
    let (head, rest) = body.split_at_checked(5)?;
    let (flag, length) = head.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let message = rest.get(..usize::try_from(length).ok()?)?;
    if *flag != 0 {
        return None; // Packed, which was not asked for.
    }
    let mut listed = Vec::new();
    for field in fields(message) {
        if let (1, Value::Bytes(container)) = field? {
            listed.push(container_of(container)?);
        }
    }
    Some(listed)
}

/// `Container`: id 1, metadata 3, state 6, labels 8.
fn container_of(message: &[u8]) -> Option<Container> {
    let mut listed = Container {
        id: String::new(),
        namespace: String::new(),
        pod: String::new(),
        name: String::new(),
        // Proto3 leaves zero out.
        state: ContainerState::Created,
        attempt: 0,
    };
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(id)) => listed.id = text(id),
            (3, Value::Bytes(metadata)) => {
                for field in fields(metadata) {
                    match field? {
                        (1, Value::Bytes(name)) => listed.name = text(name),
                        (2, Value::Number(attempt)) => {
                            listed.attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
                        }
                        _ => {}
                    }
                }
            }
            (6, Value::Number(state)) => {
                listed.state = match state {
                    0 => ContainerState::Created,
                    1 => ContainerState::Running,
                    2 => ContainerState::Exited,
                    _ => ContainerState::Unknown,
                };
            }
            (8, Value::Bytes(label)) => {
                let (key, value) = entry(label)?;
                match key.as_str() {
                    NAMESPACE_LABEL => listed.namespace = value,
                    POD_LABEL => listed.pod = value,
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Some(listed)
}

/// An entry of a map: key 1, value 2.
fn entry(message: &[u8]) -> Option<(String, String)> {
    let mut pair = (String::new(), String::new());
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(key)) => pair.0 = text(key),
            (2, Value::Bytes(value)) => pair.1 = text(value),
            _ => {}
        }
    }
    Some(pair)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The fields of a message in their order; `None` once it is cut off.
fn fields(message: &[u8]) -> impl Iterator<Item = Option<(u64, Value<'_>)>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = number(rest)?;
    let mut take = |length: usize| {
        let (taken, behind) = rest.split_at_checked(length)?;
        *rest = behind;
        Some(taken)
    };
    let value = match key & 7 {
        1 => take(8).map(|_| Value::Fixed)?,
        5 => take(4).map(|_| Value::Fixed)?,
        0 => Value::Number(number(rest)?),
        2 => {
            let length = usize::try_from(number(rest)?).ok()?;
            let (taken, behind) = rest.split_at_checked(length)?;
            *rest = behind;
            Value::Bytes(taken)
        }
        _ => return None,
    };
    Some((key >> 3, value))
}

/// Seven bits in each byte, the lowest first; at most ten bytes.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A field with bytes.
    fn with(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        field.extend_from_slice(bytes);
        field
    }

    fn body() -> Vec<u8> {
        let label = |key: &str, value| [with(1, key.as_bytes()), with(2, value)].concat();
        let metadata = [with(1, b"etcd"), vec![2 << 3, 3]].concat();
        let container = [
            with(1, b"0123"),
            with(3, &metadata),
            vec![6 << 3, 2],
            vec![7 << 3, 0xff, 0xff, 0x01],
            with(8, &label(NAMESPACE_LABEL, b"kube-system")),
            with(8, &label(POD_LABEL, b"etcd-a")),
        ]
        .concat();
        let message = with(1, &container);
        let mut body = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        body.extend(message);
        body
    }

    // D-02
    #[test]
    fn a_container_is_read_with_its_pod() {
        let listed = containers(&body()).unwrap();
        let expected = Container {
            id: "0123".to_owned(),
            namespace: "kube-system".to_owned(),
            pod: "etcd-a".to_owned(),
            name: "etcd".to_owned(),
            state: ContainerState::Exited,
            attempt: 3,
        };
        assert_eq!(listed, [expected]);
        assert_eq!(containers(&[0; 5]), Some(Vec::new()));
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        let whole = body();
        for length in 0..whole.len() {
            assert_eq!(containers(&whole[..length]), None, "{length}");
        }
        // The frame is whole and what is in it is not.
        for byte in 6..whole.len() {
            let mut broken = whole.clone();
            broken[byte] = 0xff;
            // Whatever comes of it, it does not panic.
            drop(containers(&broken));
        }
    }
}
