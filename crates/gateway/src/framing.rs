//! Sees whether a request head names its length twice: by `Content-Length` and by `Transfer-Encoding`.
//!
//! hyper reads such a message by the coding alone, hides the length, and closes the connection after the answer, as
//! RFC 9112 §6.1 allows. The gateway refuses it instead: no honest client sends one, and whatever stands in front may
//! have read it by the other field. Since hyper hides the field, the bytes are looked at on their way in. A request
//! that was pipelined behind another's body is not seen here; for it hyper's rule holds.

/// Looks at the lines of one head at a time.
#[derive(Debug)]
pub(crate) struct HeadScan {
    /// The beginning of the line under way.
    line: [u8; LONGEST],
    len: usize,
    length: bool,
    coding: bool,
    ended: bool,
}

const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";
/// As much of a line as is needed to know it.
const LONGEST: usize = CODING.len();

impl HeadScan {
    pub(crate) const fn new() -> Self {
        Self {
            line: [0; LONGEST],
            len: 0,
            length: false,
            coding: false,
            ended: false,
        }
    }

    /// Takes bytes of the head, in any pieces. Bytes behind its end are ignored.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !self.ended && !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            if let Some(room) = self.line.get_mut(self.len..) {
                let taken = room.len().min(part.len());
                for (slot, byte) in room.iter_mut().zip(part) {
                    *slot = byte.to_ascii_lowercase();
                }
                self.len += taken;
            }
            if end.is_none() {
                return;
            }
            self.end_line();
            bytes = rest.get(1..).unwrap_or_default();
        }
    }

    /// Both fields were there. Call when the head was parsed; the next one begins afresh.
    pub(crate) fn take_conflict(&mut self) -> bool {
        let conflict = self.length && self.coding;
        *self = Self::new();
        conflict
    }

    fn end_line(&mut self) {
        let line = self.line.get(..self.len).unwrap_or_default();
        self.length |= line.starts_with(LENGTH);
        self.coding |= line.starts_with(CODING);
        self.ended = line.is_empty() || line == b"\r";
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(pieces: &[&[u8]]) -> bool {
        let mut scan = HeadScan::new();
        for piece in pieces {
            scan.feed(piece);
        }
        scan.take_conflict()
    }

    const BOTH: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\ncOntent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

    #[test]
    fn both_fields_in_one_head_are_a_conflict_however_the_bytes_come() {
        assert!(conflict(&[BOTH]));
        let single: Vec<&[u8]> = BOTH.chunks(1).collect();
        assert!(conflict(&single));
        assert!(conflict(&[
            b"POST / HTTP/1.1\nTransfer-Encoding: x\nContent-Length:1\n\n"
        ]));
    }

    #[test]
    fn one_field_alone_or_in_the_body_is_none() {
        assert!(!conflict(&[
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nTransfer-Encoding: chunked\r\n\r\n"
        ]));
        assert!(!conflict(&[
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX-Content-Length: 1\r\n\r\n"
        ]));
        assert!(!conflict(&[
            b"GET /content-length:?transfer-encoding: HTTP/1.1\r\nContent-Length-X: 1\r\n\r\n"
        ]));
    }

    #[test]
    fn the_next_head_begins_afresh() {
        let mut scan = HeadScan::new();
        scan.feed(BOTH);
        assert!(scan.take_conflict());
        scan.feed(b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        assert!(!scan.take_conflict());
    }
}
