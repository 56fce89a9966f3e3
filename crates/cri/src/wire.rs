//! Messages of protobuf, as far as they are needed.
//!
//! A message is a row of fields, each with its number and its kind. What is not known is passed over, so a newer runtime is
//! understood; what is cut off or malformed is nothing at all.

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A number of four or eight bytes, which no field here has.
    Fixed,
}

/// The fields of a message in their order; `None` once it is cut off.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = Option<(u64, Value<'_>)>> {
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

/// The messages in the fields of this number. None when the message is cut off.
pub(crate) fn all<T>(
    message: &[u8],
    number: u64,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Option<Vec<T>> {
    let mut found = Vec::new();
    for field in fields(message) {
        if let (known, Value::Bytes(bytes)) = field?
            && known == number
        {
            found.push(read(bytes)?);
        }
    }
    Some(found)
}

/// An entry of a map: key 1, value 2.
pub(crate) fn entry(message: &[u8]) -> Option<(String, String)> {
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

/// A moment, as nanoseconds since 1970: seconds 1, nanoseconds 2.
pub(crate) fn moment(message: &[u8]) -> Option<i128> {
    let (mut seconds, mut nanoseconds) = (0, 0);
    for field in fields(message) {
        match field? {
            (1, Value::Number(number)) => seconds = number.cast_signed(),
            (2, Value::Number(number)) => nanoseconds = number.cast_signed(),
            _ => {}
        }
    }
    Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A field with bytes, to be sent. The number is below 16.
pub fn with(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        field.push(0x80 | u8::try_from(length & 0x7f).unwrap_or(0));
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap_or(0));
    field.extend_from_slice(bytes);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_whatever_its_length() {
        for length in [0, 1, 127, 128, 300, 20_000] {
            let bytes = vec![7; length];
            let message = with(4, &bytes);
            let read: Vec<_> = fields(&message).collect();
            assert_eq!(read, [Some((4, Value::Bytes(&bytes[..])))]);
            for cut in 1..message.len().min(40) {
                assert!(fields(&message[..message.len() - cut]).any(|field| field.is_none()));
            }
        }
    }

    #[test]
    fn a_moment_has_seconds_and_nanoseconds() {
        assert_eq!(moment(&[1 << 3, 2, 2 << 3, 5]), Some(2_000_000_005));
        assert_eq!(moment(&[]), Some(0));
        assert_eq!(moment(&[1 << 3]), None);
    }
}
