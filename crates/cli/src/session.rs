//! What every command that talks to a server has: a client, the streams, a clock.

use nagi_client::{Client, Key, ServerAddress};
use nagi_ports::{Clock, SystemClock};

use crate::commands::GlobalArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::output::terminal::{Colours, Terminal};

/// One call of the command line.
#[derive(Debug)]
pub(crate) struct Session {
    /// The streams.
    pub(crate) output: Output,
    /// Wall time, for what is shown relative to now.
    pub(crate) clock: SystemClock,
    global: GlobalArgs,
}

impl Session {
    /// Asks the streams and takes the options; nothing is sent.
    pub(crate) fn new(global: &GlobalArgs) -> Self {
        let colours = if global.no_color {
            Colours::Never
        } else {
            Colours::Auto
        };
        Self {
            output: Output::new(global.output, global.quiet, Terminal::detect(colours)),
            clock: SystemClock::new(),
            global: global.clone(),
        }
    }

    /// The client of the server that the options name.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let GlobalArgs {
            server,
            key,
            request_timeout,
            ..
        } = &self.global;
        let address: ServerAddress = server
            .parse()
            .map_err(|error| Failure::usage(format!("--server (NAGI_SERVER) {error}")))?;
        let key = match key.as_deref().map(str::trim) {
            None | Some("") => None,
            Some(text) => Some(
                Key::new(text)
                    .map_err(|error| Failure::usage(format!("--key (NAGI_KEY) {error}")))?,
            ),
        };
        Ok(Client::new(address, key).with_call_timeout(*request_timeout))
    }

    /// Wall time.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }
}
