//! Reads a stream of server-sent events, as WHATWG HTML §9.2.6 says: pure, from bytes to messages.

/// Longest message, in bytes. An event of the API holds a reason of at most 500 characters; the rest is smaller.
pub(crate) const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Message {
    /// Its type; empty means `message`.
    pub(crate) event: String,
    /// Its text, lines joined by `\n`.
    pub(crate) data: String,
    /// The id to resume after, when the message set one.
    pub(crate) id: Option<String>,
}

/// The stream holds a message that is larger than [`MESSAGE_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// What was read and is not yet a message.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    message: Message,
    has_data: bool,
    after_cr: bool,
    begun: bool,
}

impl Parser {
    /// Takes bytes in and gives the messages that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Message>, TooLarge> {
        let mut messages = Vec::new();
        for &byte in bytes {
            let after_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    messages.extend(self.end_line());
                }
                _ => {
                    if self.line.len() + self.message.data.len() >= MESSAGE_BYTES_MAX {
                        return Err(TooLarge);
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(messages)
    }

    fn end_line(&mut self) -> Option<Message> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let first = !std::mem::replace(&mut self.begun, true);
        let line = if first {
            line.trim_start_matches('\u{feff}')
        } else {
            line.as_ref()
        };
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            let has_data = std::mem::take(&mut self.has_data);
            return (has_data || message.id.is_some()).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.message.event),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.message.id = Some(value.to_owned()),
            // `retry`, comments (an empty field) and what later versions add.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(event: &str, data: &str, id: Option<&str>) -> Message {
        Message {
            event: event.into(),
            data: data.into(),
            id: id.map(Into::into),
        }
    }

    // R19
    #[test]
    fn messages_come_out_whole_wherever_the_bytes_are_cut() {
        let text = "\u{feff}: hello\n\nid: 7\nevent: wake\ndata: {\"a\":\"凪\"}\n\ndata: x\r\ndata\r\ndata:  y\r\n\r\n: ping\n\nid: 8\n\n";
        let expected = vec![
            message("wake", "{\"a\":\"凪\"}", Some("7")),
            message("", "x\n\n y", None),
            message("", "", Some("8")),
        ];
        for size in 1..=text.len() {
            let mut parser = Parser::default();
            let mut messages = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                messages.extend(parser.push(piece).unwrap());
            }
            assert_eq!(messages, expected, "pieces of {size}");
        }
    }

    #[test]
    fn an_unfinished_message_is_not_given_out() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(b"data: half\n"), Ok(vec![]));
        assert_eq!(parser.push(b"\n").unwrap(), vec![message("", "half", None)]);
    }

    #[test]
    fn a_message_without_end_is_cut_off() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(&vec![b'x'; MESSAGE_BYTES_MAX]), Ok(vec![]));
        assert_eq!(parser.push(b"x"), Err(TooLarge));
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "x".repeat(1000));
        let endless = std::iter::repeat_with(|| parser.push(line.as_bytes()));
        assert!(endless.take(300).any(|pushed| pushed.is_err()));
    }
}
