//! The command `jwks-cache`: the cache as a server for every language, a demonstration of it, and a look into any key
//! set.
//!
//! - `jwks-cache serve` is the server: a [`Server`] of a [`Config`]. `jwks-cache check` and `jwks-cache schema` say what
//!   it may be told, `jwks-cache health` whether it is well.
//! - `jwks-cache status`, `refresh`, `register`, `deny` and `allow` ask a running server's control plane; `jwks-cache token`
//!   makes what it lets one in by.
//! - `jwks-cache demo` runs two identity providers and a registry in this process, lets things go wrong, and
//!   holds what it sees against what the cache promises.
//! - `jwks-cache fetch` judges one key set as the cache would, and says what it is worth.
//! - `jwks-cache verify` holds a token against keys, check by check; `jwks-cache explain` says which key it wants.
//! - `jwks-cache pin` shows which keys vouch for a server.
//! - `jwks-cache completions` and `jwks-cache man` say for shells and `man` what the command takes.
//!
//! Nothing here decides how keys are fetched, judged or kept: that is the library's to say. This crate knows
//! arguments, settings, sockets, routes, exit codes and what stands on a terminal.

mod check;
mod cli;
mod config;
pub mod control;
mod data;
mod demo;
mod document;
mod fetch;
mod health;
mod keys;
mod logs;
mod manual;
mod mint;
mod ops;
mod pin;
mod problem;
mod remote;
mod run;
mod serve;
mod terminal;
mod token;
mod verify;
mod wire;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

pub use config::{
    Access, Client, Config, Control, Data, Defaults, Digest, Limits, Listen, Loaded, Log, LogFormat, Ops,
    Place, Problem, Problems, Provider, PublicUrl, Redis, RedisMode, Registrations, Source, Span, Stamp,
    Store, Tenant, Tls, Token, schema,
};
pub use serve::{Addresses, Identity, Peer, RequestId, Server, StartError};

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
            Command::Serve(args) => run::run(&args).await,
            Command::Check(args) => check::run(&args).await,
            Command::Schema => check::schema(),
            Command::Health(args) => health::run(&args).await,
            Command::Status(args) => remote::status(&args).await,
            Command::Refresh(args) => remote::refresh(&args).await,
            Command::Register(args) => remote::register(&args).await,
            Command::Deny(args) => remote::deny(&args).await,
            Command::Allow(args) => remote::allow(&args).await,
            Command::Token(args) => mint::run(&args),
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
