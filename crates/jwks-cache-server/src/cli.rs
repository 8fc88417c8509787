//! The command line: which words it takes, and what `--help` says of them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Keeps the public keys of identity providers at hand, so that services can verify JWTs.
#[derive(Debug, Parser)]
#[command(name = "jwks-cache", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(DemoArgs),
    Fetch(FetchArgs),
    Verify(VerifyArgs),
    Explain(ExplainArgs),
    Pin(PinArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Show the cache at work: load, rotation, a flood, a slow and a dead provider
///
/// Runs two identity providers and a cache in this process, on loopback only, lets things go wrong, and
/// compares what was promised with what was seen. Requests are counted at the providers. Takes about half a
/// minute.
///
/// Exit code: 0 if every promise held, 1 if not, 2 if --serve cannot have its port.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Show a restart instead: keys are stored in this folder, and when you run it again the provider is down from the
    /// start
    #[arg(long, value_name = "DIR", conflicts_with_all = ["fast", "serve"])]
    pub(crate) store: Option<PathBuf>,

    /// Run policy time 60 times as fast instead of 10: about 5 seconds in all
    #[arg(long)]
    pub(crate) fast: bool,

    /// Print one JSON document on stdout and nothing else
    #[arg(long)]
    pub(crate) json: bool,

    /// Tell no story: run one identity provider until Ctrl-C, and print a token to try a service with
    #[arg(long, conflicts_with = "fast")]
    pub(crate) serve: bool,

    /// The port of --serve, 0 for any
    #[arg(long, default_value_t = 4000, requires = "serve")]
    pub(crate) port: u16,
}

/// Look into a key set: which keys are usable, which are not and why, how long it is fresh
///
/// Fetches and judges it as the cache does, so redirects, sizes and https are treated as in production.
///
/// Exit code: 0 if a key is usable, 1 if none is, 2 if there was nothing to judge: not fetched, or not a key
/// set.
#[derive(Args, Debug)]
pub(crate) struct FetchArgs {
    /// An https URL, a file, or `-` for standard input
    #[arg(value_name = "URL | FILE | -")]
    pub(crate) source: String,

    /// Print one JSON document on stdout and nothing else
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) manner: MannerArgs,
}

/// How to fetch: whom to believe, and who to be.
#[derive(Args, Clone, Debug)]
pub(crate) struct MannerArgs {
    /// Allow plain http, loopback included: whoever is on the way can then swap the keys
    #[arg(long)]
    pub(crate) insecure_http: bool,

    /// Refuse private addresses at every hop, as a server of many tenants should
    #[arg(long)]
    pub(crate) deny_private: bool,

    /// A pin that must stand on the certificate path (see `pin`); can be given again, one of them is enough
    #[arg(long, value_name = "BASE64")]
    pub(crate) pin: Vec<String>,

    /// Trust the CA certificates of this PEM file as well
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// Show this client certificate: a PEM file, intermediates after it
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,

    /// The private key of --cert, if that file does not hold it
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,

    /// Send this header, to the URL's own origin only; can be given again. Others may see it among the processes of
    /// this machine
    #[arg(long, value_name = "NAME: VALUE")]
    pub(crate) header: Vec<String>,
}

/// Show the pins of a server's certificate path, ready to paste
///
/// Shakes hands with the server, verifies it as the cache does, and prints the pin of each certificate that vouches
/// for it. What a server merely appends to its chain is not shown: a pin on it would be worth nothing.
///
/// Exit code: 0 if there is a path, 2 if the server cannot be reached or is not believed.
#[derive(Args, Debug)]
pub(crate) struct PinArgs {
    /// A host, with a port if it is not 443, or an https URL
    #[arg(value_name = "HOST[:PORT]")]
    pub(crate) host: String,

    /// Trust the CA certificates of this PEM file as well
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// Print one JSON document on stdout and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// Verify a token: its header and claims, which key it wants, and each check with its verdict
///
/// Without a token it asks for one, and does not show what you type. A token on the command line stands in your
/// shell's history, and others may see it among the processes of this machine: `-` reads it from standard input.
///
/// Without --issuer and --jwks the token is only taken apart, and nothing is asked of anybody: where it says that
/// it comes from is not believed.
///
/// Exit code: 0 if the token is good, 1 if not, 2 if nothing can be said of it: no keys.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The token, or `-` for standard input
    #[arg(value_name = "TOKEN | -")]
    pub(crate) token: Option<String>,

    #[command(flatten)]
    pub(crate) keys: KeysArgs,

    /// Whom the token must be for (`aud`); can be given again, one of them is enough. Without it, anybody
    #[arg(long)]
    pub(crate) audience: Vec<String>,

    /// Of which type the token must be (`typ`), such as at+jwt; can be given again
    #[arg(long)]
    pub(crate) typ: Vec<String>,

    /// How far clocks may be apart, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) leeway: u64,

    /// Print one JSON document on stdout and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// Say which key would verify a token, or why none would
///
/// Takes a token, its header as it is encoded, or the header's JSON. The signature is not looked at.
///
/// Exit code: 0 if there is such a key, 1 if not, 2 if no keys can be had.
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The token or header, or `-` for standard input; without it you are asked for one
    #[arg(value_name = "TOKEN | HEADER | -")]
    pub(crate) token: Option<String>,

    #[command(flatten)]
    pub(crate) keys: KeysArgs,

    /// Print one JSON document on stdout and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whose keys, and how they are fetched.
#[derive(Args, Debug)]
pub(crate) struct KeysArgs {
    /// The issuer: its keys are found by OpenID Connect Discovery, and the token must be of it (`iss`)
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Option<String>,

    /// The key set: an https URL or a file. Given with --issuer, nothing is discovered
    #[arg(long, value_name = "URL | FILE")]
    pub(crate) jwks: Option<String>,

    #[command(flatten)]
    pub(crate) manner: MannerArgs,
}

/// Print a script that completes this command's words in a shell
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Print the manual page, or write one for each command
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Write the pages into this folder, which must be there
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,
}
