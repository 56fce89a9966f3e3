//! `cargo xtask watch`: runs the unit tests again whenever a file of the working copy changes.
//!
//! It looks once a second at the times of the files that git knows of: a few hundred, so no watcher of the system's
//! is needed. It ends with Ctrl-C.

use std::time::{Duration, SystemTime};

use crate::checkout::Checkout;
use crate::command::Run;

/// How often it looks: quicker than a person saves twice, and a fraction of a per cent of one core.
const PAUSE: Duration = Duration::from_secs(1);

/// Watches until it is interrupted.
#[expect(
    clippy::disallowed_methods,
    reason = "a developer task without a runtime may block its only thread"
)]
pub(crate) fn run(checkout: &Checkout, _arguments: &[String]) -> anyhow::Result<()> {
    let mut seen: Option<SystemTime> = None;
    loop {
        let newest = newest_change(checkout)?;
        if newest != seen {
            seen = newest;
            let tests =
                Run::cargo().arguments(["test", "--workspace", "--lib", "--bins", "--quiet"]);
            match tests.within(checkout.root()).finish() {
                Ok(()) => println!("watch: all tests pass"),
                Err(error) => println!("watch: {error:#}"),
            }
        }
        std::thread::sleep(PAUSE);
    }
}

fn newest_change(checkout: &Checkout) -> anyhow::Result<Option<SystemTime>> {
    let modified = |path: &String| {
        checkout
            .root()
            .join(path)
            .metadata()
            .and_then(|file| file.modified())
            .ok()
    };
    Ok(checkout.paths()?.iter().filter_map(modified).max())
}
