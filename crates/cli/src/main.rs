//! The nagi binary: reads the command line and starts what it names.

mod all;
mod cmd;
mod commands;
mod curl;
mod demo;
mod exit;
mod failure;
mod order;
mod output;
mod progress;
mod sample;
mod serve;
mod session;
mod small_door;
mod target;
mod wait;
mod watch;
mod when;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::commands::{Cli, Command, ReadError};
use crate::exit::Exit;

/// The allocator of musl takes one lock and gives memory back at once: a list of 80 workloads costs three times the
/// processor time with it.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if Path::new(&name).file_name() == Some(curl::NAME.as_ref()) {
        return curl::run(arguments);
    }
    // The supervisor of a replica must begin before this process has a second thread.
    let first = arguments.next().unwrap_or_default();
    if first == "shim" {
        return nagi_local::shim::run(arguments);
    }
    if first == nagi_ops::TETHER {
        return nagi_ops::tether(arguments);
    }
    let Cli { global, command } = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return unread(&error),
    };
    let mut builder = if matches!(command, Some(Command::Guard(_))) {
        // It waits nearly all the time, on every node: one thread is enough, and each more costs memory.
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return serve::fail(&error, None),
    };
    let is_a_look = matches!(command, Some(Command::Verb(cmd::Verb::Recover(_))));
    let code = runtime.block_on(async {
        match command {
            // `nagi` alone, as the founding documents start it, is the server of the cluster.
            None => cmd::server::run_from_environment().await,
            Some(Command::Server(arguments)) => cmd::server::run(&arguments).await,
            Some(Command::Gateway(arguments)) => cmd::gateway::run(&arguments).await,
            Some(Command::Guard(arguments)) => cmd::guard::run(*arguments, &global).await,
            Some(Command::All(arguments)) => all::run(*arguments).await,
            Some(Command::Demo(arguments)) => demo::run(*arguments, global.key.as_deref()).await,
            Some(Command::Sample(arguments)) => {
                sample::run(arguments).await.unwrap_or(ExitCode::FAILURE)
            }
            Some(Command::Verb(verb)) => cmd::run(verb, &global).await,
        }
    });
    if is_a_look {
        // It only reads, and a disk or a volume that hangs may hold a thread of it forever.
        runtime.shutdown_background();
    }
    code
}

/// The end of a command line that could not be read, or that asked for help.
fn unread(error: &ReadError) -> ExitCode {
    let line = match error {
        ReadError::Line(line) => line,
        ReadError::NotText { .. } => {
            let command = std::env::args_os()
                .skip(1)
                .find(|word| !word.as_encoded_bytes().starts_with(b"-"));
            let serves =
                command.is_none_or(|command| ["all", "server"].iter().any(|one| command == *one));
            let hint = "set it to text, or unset it";
            if serves {
                return serve::refuse_settings(error, hint);
            }
            serve::complain(error, Some(hint));
            return Exit::Usage.into();
        }
    };
    // Help on a full disk is a failure; into a pipe that nobody reads any more it is none.
    let printed = line.print().and_then(|()| std::io::stdout().flush());
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            serve::complain(&error, None)
        }
        Ok(()) | Err(_) => u8::try_from(line.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
    }
}
