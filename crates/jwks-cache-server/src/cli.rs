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
    Serve(ServeArgs),
    Check(CheckArgs),
    /// Print the JSON Schema of the configuration file
    Schema,
    Health(HealthArgs),
    Status(StatusArgs),
    Refresh(RefreshArgs),
    Register(RegisterArgs),
    Deny(DenyArgs),
    Allow(AllowArgs),
    Token(TokenArgs),
    Demo(DemoArgs),
    Fetch(FetchArgs),
    Verify(VerifyArgs),
    Explain(ExplainArgs),
    Pin(PinArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Run the server: keys for every language, kept fresh here
///
/// Settings come from a TOML file, over it environment variables (JWKS_CACHE__DATA__LISTEN for data.listen), over them
/// flags. The file is read again when it changes and on SIGHUP: all of it is taken, or nothing. SIGTERM and Ctrl-C let
/// requests end first.
///
/// Exit code: 0 after a signal, 1 if a setting is wrong or something it asks for cannot be had.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,

    /// Start with a provider of our own on loopback, and print five curl lines to try
    #[arg(long, conflicts_with = "config")]
    pub(crate) demo: bool,
}

/// Check a configuration, and say what to do about what is wrong
///
/// Reads what `serve` would read. With --online each provider is fetched as well, by the same rules.
///
/// Exit code: 0 if all is well, 1 if not.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,

    /// Fetch each provider's keys too
    #[arg(long)]
    pub(crate) online: bool,

    /// Print one JSON document on stdout and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// Ask a running server how it is, for container checks
///
/// Asks the ops listener that the settings name. Over TLS its certificate is not verified: the name in it is not this
/// machine's own.
///
/// Exit code: 0 if it is well, 1 if not or if nobody answers.
#[derive(Args, Debug)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,

    /// Ask whether it is ready: every required provider has keys
    #[arg(long)]
    pub(crate) ready: bool,
}

/// Where settings come from.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SettingsArgs {
    /// A TOML file; otherwise what $JWKS_CACHE_CONFIG names, otherwise none
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Where services get keys: host:port, unix:/path or off
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) data: Option<String>,

    /// Where operators register, refresh and deny: unix:/path, off, or host:port with credentials
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) control: Option<String>,

    /// Where health and metrics are
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ops: Option<String>,

    /// The folder of what outlives a restart
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<String>,

    /// error, warn, info, debug or trace, or by target as in info,jwks_cache=debug
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,

    /// json or pretty
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,

    /// Any other field, as in limits.connections=100; can be given again
    #[arg(long, value_name = "FIELD=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Which running server, and how to be let in.
#[derive(Args, Debug)]
pub(crate) struct ServerArgs {
    /// The control plane of the server: an http or https URL, or unix:/path of its socket. Without it, what
    /// JWKS_CACHE_SERVER says, or the socket in the usual state folder
    #[arg(long, value_name = "URL | unix:PATH")]
    pub(crate) server: Option<String>,

    /// Show the bearer token in this file. Without it, what JWKS_CACHE_TOKEN says
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Trust the CA certificates of this PEM file as well
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// Show this client certificate: a PEM file, intermediates after it
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,

    /// The private key of --cert, if that file does not hold it
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,

    /// Allow plain http to another machine: whoever is on the way can take the token
    #[arg(long)]
    pub(crate) insecure_http: bool,

    /// Print one JSON document on stdout and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// A provider's name.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) tenant: String,
    pub(crate) provider: String,
}

impl std::str::FromStr for Named {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts =
            text.split_once('/').filter(|(tenant, provider)| !tenant.is_empty() && !provider.is_empty());
        let (tenant, provider) = parts.ok_or("write it as TENANT/PROVIDER")?;
        Ok(Self { tenant: tenant.to_owned(), provider: provider.to_owned() })
    }
}

/// Show how the providers of a running server are doing
///
/// Exit code: 0 if each of them has keys, 1 if one has none, 2 if the server does not say.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// One tenant, or one provider with its keys; without it, all that the credentials reach
    #[arg(value_name = "TENANT[/PROVIDER]")]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Have a running server fetch a provider's keys now, and say what came of it
///
/// Exit code: 0 if they were fetched, 1 if not, 2 if the server cannot be asked.
#[derive(Args, Debug)]
pub(crate) struct RefreshArgs {
    /// Which provider
    #[arg(value_name = "TENANT/PROVIDER")]
    pub(crate) name: Named,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Register a provider in a running server, or replace its registration
///
/// It is kept there through restarts. Settings that are not given have their defaults, also where they had other values.
///
/// Exit code: 0 if it is registered, 1 if it was refused, 2 if the server cannot be asked.
#[derive(Args, Debug)]
pub(crate) struct RegisterArgs {
    /// Which provider
    #[arg(value_name = "TENANT/PROVIDER")]
    pub(crate) name: Named,

    /// Where its key set is
    #[arg(value_name = "URL")]
    pub(crate) jwks_url: Option<String>,

    /// The issuer of its tokens
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Option<String>,

    /// A JSON file of settings as PUT takes them, or `-` for standard input; secrets belong there
    #[arg(long, value_name = "FILE | -")]
    pub(crate) settings: Option<String>,

    /// A setting, as in staleWhileError=PT24H; can be given again, over --settings
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Switch a key off in a running server, at once and until it is allowed again
///
/// Exit code: 0 if it is denied, 1 if that was refused, 2 if the server cannot be asked.
#[derive(Args, Debug)]
pub(crate) struct DenyArgs {
    /// Which provider
    #[arg(value_name = "TENANT/PROVIDER")]
    pub(crate) name: Named,

    /// The key's kid or thumbprint
    #[arg(value_name = "KID")]
    pub(crate) id: String,

    /// Why, for those who find it denied
    #[arg(long)]
    pub(crate) reason: Option<String>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Switch a key on again in a running server
///
/// Exit code: 0 if it was denied and is no more, 1 if not, 2 if the server cannot be asked.
#[derive(Args, Debug)]
pub(crate) struct AllowArgs {
    /// Which provider
    #[arg(value_name = "TENANT/PROVIDER")]
    pub(crate) name: Named,

    /// The key's kid or thumbprint
    #[arg(value_name = "KID")]
    pub(crate) id: String,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Make a bearer token for the control plane, and print it with the hash that the configuration keeps of it
///
/// The token is shown once, here: give it to whoever is to use it, and its sha256 to the configuration, in [[control.tokens]].
#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    /// Print one JSON document on stdout and nothing else
    #[arg(long)]
    pub(crate) json: bool,
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
