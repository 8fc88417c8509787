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
    Pin(PinArgs),
}

/// Show the cache at work: load, rotation, a flood, a slow and a dead provider
///
/// Runs two identity providers and a cache in this process, on loopback only, lets things go wrong, and
/// compares what was promised with what was seen. Requests are counted at the providers. Takes about half a
/// minute.
///
/// Exit code: 0 if every promise held, 1 if not.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Run policy time 60 times as fast instead of 10: about 5 seconds in all
    #[arg(long)]
    pub(crate) fast: bool,

    /// Print one JSON document on stdout and nothing else
    #[arg(long)]
    pub(crate) json: bool,
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
    #[arg(value_name = "URL | FILE | -", required_unless_present_any = ["issuer", "preset"])]
    pub(crate) source: Option<String>,

    /// Ask this issuer where its keys are (OpenID Connect Discovery, RFC 8414)
    #[arg(long, value_name = "URL", conflicts_with_all = ["source", "preset"])]
    pub(crate) issuer: Option<String>,

    /// Look as a preset does: entra=DIRECTORY, google, auth0=DOMAIN, okta=ISSUER, keycloak=REALM, cognito=POOL,
    /// github-actions, kubernetes
    #[arg(long, value_name = "NAME[=VALUE]", conflicts_with = "source")]
    pub(crate) preset: Option<String>,

    /// A host that may be asked; can be given again. Needed where an issuer keeps its keys on another host
    #[arg(long, value_name = "HOST")]
    pub(crate) allow_host: Vec<String>,

    /// Print one JSON document on stdout and nothing else
    #[arg(long)]
    pub(crate) json: bool,

    /// Allow plain http, loopback included: whoever is on the way can then swap the keys
    #[arg(long)]
    pub(crate) insecure_http: bool,

    /// Refuse private addresses at every hop, as a server of many tenants should
    #[arg(long)]
    pub(crate) deny_private: bool,

    #[command(flatten)]
    pub(crate) identity: IdentityArgs,
}

/// Whom to believe, and who to be.
#[derive(Args, Debug)]
pub(crate) struct IdentityArgs {
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
