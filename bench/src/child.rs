//! A sample app that tells in every answer when it opened its port: `child START_MILLISECONDS`, port from `PORT`.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use crate::clock;

/// The gateway and nobody else connects; more means that something runs away.
const CONNECTIONS_MAX: usize = 64;

/// Serves until it is killed.
#[expect(
    clippy::disallowed_methods,
    reason = "a child learns its port from its environment"
)]
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let start: u64 = arguments
        .first()
        .map_or(Ok(0), |text| text.parse())
        .context("read how long to start")?;
    let port: u16 = std::env::var("PORT")
        .context("read PORT")?
        .parse()
        .context("read PORT")?;
    // A moment that is not the same every time, so that it does not fall into step with the pace of a prober.
    let jitter = u64::from(std::process::id() % 23);
    clock::pause(Duration::from_millis(start + jitter));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("open the port")?;
    let opened = clock::now().as_nanos();
    let answer = opened.to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    );
    std::thread::scope(|scope| {
        for stream in listener.incoming().take(CONNECTIONS_MAX).flatten() {
            let answer = answer.as_bytes();
            // A connection that breaks is over; the next one has its own thread.
            scope.spawn(move || serve(stream, answer).ok());
        }
    });
    Ok(ExitCode::SUCCESS)
}

fn serve(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        // Requests here have no body.
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            stream.write_all(answer)?;
            filled = 0;
        }
    }
}
