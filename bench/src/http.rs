//! The calling side of HTTP/1.1, as little of it as a measurement needs: one connection, one exchange at a time.
//!
//! A general client would cost more than what is measured. It understands answers with a length, which is what both
//! sides send here, and refuses all others.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use nagi_e2e::wait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::clock;

/// Nothing that is measured takes longer; what does is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
    /// When its first byte was here.
    pub(crate) first_byte: Duration,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

/// The bytes of a request.
pub(crate) fn request(method: &str, host: &str, path: &str, body: &str) -> Vec<u8> {
    let length = if method == "GET" {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n{body}").into_bytes()
}

// === impl Connection ===

impl Connection {
    /// Connects to a port of this machine.
    pub(crate) async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .await
            .with_context(|| format!("connect to port {port}"))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        Ok(Self {
            stream,
            buffer: vec![0; 16 << 10],
            filled: 0,
        })
    }

    /// Sends a request and waits for the whole answer; fails at once after Ctrl-C.
    pub(crate) async fn call(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        wait::check_interrupted()?;
        timeout(ANSWER_TIMEOUT, self.exchange(request))
            .await
            .context("no answer within its time")?
    }

    /// Sends a request whose answer nobody waits for.
    pub(crate) async fn send(&mut self, request: &[u8]) -> anyhow::Result<()> {
        wait::check_interrupted()?;
        self.stream
            .write_all(request)
            .await
            .context("send a request")
    }

    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        self.stream
            .write_all(request)
            .await
            .context("send a request")?;
        self.filled = 0;
        let mut first_byte = None;
        let (head, length) = loop {
            self.read().await?;
            first_byte.get_or_insert_with(clock::now);
            let seen = &self.buffer[..self.filled];
            if let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
                break (end + 4, content_length(&seen[..end])?);
            }
        };
        while self.filled < head + length {
            self.read().await?;
        }
        if self.filled > head + length {
            bail!("more bytes came than the answer says");
        }
        let status = std::str::from_utf8(&self.buffer[9..12])
            .ok()
            .and_then(|code| code.parse().ok());
        Ok(Answer {
            status: status.context("read a status")?,
            head: self.buffer[..head].to_vec(),
            body: self.buffer[head..head + length].to_vec(),
            first_byte: first_byte.unwrap_or_default(),
        })
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.filled * 2, 0);
        }
        let read = self
            .stream
            .read(&mut self.buffer[self.filled..])
            .await
            .context("read an answer")?;
        if read == 0 {
            bail!("the connection ended before its answer");
        }
        self.filled += read;
        Ok(())
    }
}

fn content_length(head: &[u8]) -> anyhow::Result<usize> {
    header(head, "content-length")?
        .parse()
        .context("read a length")
}

/// The value of a header in `head`; `name` is in small letters.
pub(crate) fn header<'a>(head: &'a [u8], name: &str) -> anyhow::Result<&'a str> {
    let found = head.split(|byte| *byte == b'\n').find_map(|line| {
        let (before, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        before
            .eq_ignore_ascii_case(name.as_bytes())
            .then_some(value)
    });
    let value = found.with_context(|| format!("an answer without {name}"))?;
    std::str::from_utf8(value)
        .map(str::trim)
        .with_context(|| format!("read {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_found_whatever_its_case() {
        assert_eq!(
            content_length(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nA: b").unwrap(),
            12
        );
        assert_eq!(
            content_length(b"HTTP/1.1 200 OK\r\ncontent-length:0").unwrap(),
            0
        );
        assert!(content_length(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked").is_err());
        assert!(content_length(b"HTTP/1.1 200 OK\r\nContent-Length-Not: 3").is_err());
    }
}
