//! One exchange over HTTP on a connection of its own, with a limit: so that a server that stands still is told, too.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

/// No answer that a test asks for takes longer, but the one of a server that stands still.
const LIMIT: Duration = Duration::from_secs(30);

/// An answer as it came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) text: String,
    /// Until its last byte.
    pub(crate) took: Duration,
}

/// Asks a server on this machine. `kind` is the media type of the body.
pub(crate) fn exchange(
    port: u16,
    method: &str,
    path: &str,
    kind: &str,
    body: &str,
) -> anyhow::Result<Answer> {
    let begun = Instant::now();
    let ask = || -> std::io::Result<Vec<u8>> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = ask().with_context(|| format!("{method} {path} on port {port}"))?;
    let text = String::from_utf8_lossy(&bytes);
    let Some((head, rest)) = text.split_once("\r\n\r\n") else {
        bail!("{method} {path} on port {port}: the answer broke off: {text:?}");
    };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("{method} {path}: no status in {head:?}"))?;
    let text = if head.to_lowercase().contains("transfer-encoding: chunked") {
        unchunked(rest)
    } else {
        rest.to_owned()
    };
    Ok(Answer {
        status,
        body: serde_json::from_str(&text).unwrap_or_default(),
        text,
        took: begun.elapsed(),
    })
}

/// The text of chunks; sizes count bytes, and a cut within a character is not ours to make.
fn unchunked(mut rest: &str) -> String {
    let mut text = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = after.get(..size).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        text.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    text
}
