//! The command `jwks-cache`: a demonstration of the cache, and a look into any key set.
//!
//! - `jwks-cache demo` runs two identity providers and a registry in this process, lets things go wrong, and
//!   holds what it sees against what the cache promises.
//! - `jwks-cache fetch` judges one key set as the cache would, and says what it is worth.
//! - `jwks-cache verify` holds a token against keys, check by check; `jwks-cache explain` says which key it wants.
//! - `jwks-cache pin` shows which keys vouch for a server.
//! - `jwks-cache completions` and `jwks-cache man` say for shells and `man` what the command takes.
//!
//! Nothing here decides how keys are fetched, judged or kept: that is the library's to say. This crate knows
//! arguments, exit codes and what stands on a terminal.

mod cli;
mod demo;
mod document;
mod fetch;
mod keys;
mod manual;
mod pin;
mod terminal;
mod token;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

/// Runs the command that the process was started with.
///
/// The exit code is the command's verdict (see `--help` of each); a command line that cannot be read is 2.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::complain(&error, "the machine is out of threads or files; close something, try again");
            return ExitCode::from(2);
        }
    };
    runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => demo::run(&args).await,
            Command::Fetch(args) => fetch::run(&args).await,
            Command::Verify(args) => verify::run(&args).await,
            Command::Explain(args) => verify::explain(&args).await,
            Command::Pin(args) => pin::run(&args).await,
            Command::Completions(args) => manual::completions(&args),
            Command::Man(args) => manual::pages(&args),
        }
    })
}
