//! What the server is told: types, defaults and rules. In which order file, environment and flags count, and where a
//! value stood, is said in `config/tree.rs`; what each field is for, in the JSON Schema that these types make.
//!
//! Nothing here opens sockets or stores.

mod place;
mod provider;
mod schema;
mod source;
mod tree;
mod types;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jwks_cache::{IdentityProviderRegistration, KeyRing, PrivateNetworks, Secret};
use schemars::JsonSchema;
use serde::Deserialize;

pub use place::{Place, Problem, Problems};
pub use provider::Provider;
pub use schema::schema;
pub use source::{Loaded, Source, Stamp};
pub use types::{Digest, Listen, PublicUrl, Span};

use types::{Rule, rule};

/// What a token must have at least to be looked at: fewer characters than 32 random bytes make were chosen by a person, and
/// can be found by trying.
pub(crate) const SHORTEST_TOKEN: usize = 32;

/// Everything a server is told.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "jwks-cache.toml")]
pub struct Config {
    /// The folder of what outlives a restart: snapshots, run-time registrations and the control socket. Default:
    /// $STATE_DIRECTORY (systemd sets it), else $XDG_STATE_HOME/jwks-cache, else $HOME/.local/state/jwks-cache.
    pub state_dir: Option<PathBuf>,
    /// Where services get keys.
    pub data: Data,
    /// Where operators register, refresh and deny.
    pub control: Control,
    /// Where machines ask for health and metrics.
    pub ops: Ops,
    /// What one client may take.
    pub limits: Limits,
    /// What holds for every provider.
    pub defaults: Defaults,
    /// Where keys outlive the process.
    pub store: Store,
    /// What is logged, and how.
    pub log: Log,
    /// Tenants by name: 1 to 64 letters, digits and `-`.
    pub tenants: BTreeMap<String, Tenant>,
}

/// The data plane's listener.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// host:port as in 127.0.0.1:8080, unix:/path for a socket of mode 0600, or off. Default 127.0.0.1:8080.
    pub listen: Listen,
    /// TLS of our own. Default none.
    pub tls: Option<Tls>,
    /// What clients call this plane, where a proxy stands before it or they use a name of its own: the beginning of the
    /// URLs it gives out, as in `https://keys.example.com`. Default: what each request names as its host.
    pub public_url: Option<PublicUrl>,
}

/// The control plane's listener, and who may use it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// host:port, unix:/path for a socket of mode 0600, or off. A network address needs tokens or clients, and so does a
    /// socket that is another plane's too. Without them, who may open the socket may do everything; with them, they are asked
    /// for there too. Default unix:control.sock in state_dir.
    pub listen: Option<Listen>,
    /// TLS of our own. Default none.
    pub tls: Option<Tls>,
    /// Bearer tokens that are let in (RFC 6750).
    pub tokens: Vec<Token>,
    /// Client certificates that are let in; needs tls.client_ca.
    pub clients: Vec<Client>,
}

/// The ops listener.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ops {
    /// host:port as in 127.0.0.1:9090, unix:/path, or off. Asks for no credentials, and names tenants and providers.
    /// Default 127.0.0.1:9090.
    pub listen: Listen,
    /// TLS of our own. Default none.
    pub tls: Option<Tls>,
}

/// TLS of a listener. The files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// A PEM file: our certificate, its intermediates after it.
    pub certificate: PathBuf,
    /// A PEM file: its private key.
    pub key: PathBuf,
    /// A PEM file of authorities. With it, only clients that show a certificate of theirs are let in, and no
    /// longer than it is good. Default none.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// A bearer token of the control plane.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What the audit log calls its bearer.
    pub name: String,
    /// SHA-256 of the token in hexadecimal, as `printf %s TOKEN | sha256sum` prints it; or give token_file.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub sha256: Option<Digest>,
    /// The token itself: better as token_file, or as sha256.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub token: Option<Secret>,
    /// The tenants it is good for. Default all.
    #[serde(default)]
    pub tenants: Option<Vec<String>>,
    /// read or write. Default read.
    #[serde(default)]
    pub access: Access,
}

/// A client certificate of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// What the audit log calls it.
    pub name: String,
    /// A name in the certificate with its kind, as in uri:spiffe://prod/deployer, dns:deployer.example,
    /// email:ops@example.com or cn:deployer, which counts only in a certificate without the others; or give sha256.
    #[serde(default)]
    pub identity: Option<String>,
    /// SHA-256 of the certificate in hexadecimal, as `openssl x509 -fingerprint -sha256` prints it.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub sha256: Option<Digest>,
    /// The tenants it is good for. Default all.
    #[serde(default)]
    pub tenants: Option<Vec<String>>,
    /// read or write. Default read.
    #[serde(default)]
    pub access: Access,
}

/// What credentials are good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// To look.
    #[default]
    Read,
    /// To look and to change.
    Write,
}

/// What one client may take, on each listener.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at once; when there are more, the idle ones are closed. Default 16384, or what the machine's limit of
    /// open files leaves.
    pub connections: usize,
    /// Bytes of a request's headers, 8192 to 1048576. Default 32768.
    pub header_bytes: u32,
    /// How long a connection may take to bring its first request, and any request to bring its headers. Default 10s.
    pub header_timeout: Span,
    /// Bytes of a request's body. Default 1 MiB.
    pub body_bytes: u64,
    /// How long a request may take in all, its body included. Default 30s: more than a cold provider's deadline.
    pub request_timeout: Span,
    /// How long a connection may be kept without a request. Default 75s.
    pub idle_timeout: Span,
    /// How long a TLS handshake may take. Default 10s.
    pub handshake_timeout: Span,
    /// Requests at once on one HTTP/2 connection. Default 128.
    pub http2_streams: u32,
    /// How long requests in flight may take to end at shutdown. Default 20s.
    pub drain_timeout: Span,
    /// What registrations at run time may ask for.
    pub registrations: Registrations,
}

/// What registrations at run time may ask for of a process that serves others too. Those of the file may ask for more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Registrations {
    /// Providers of one tenant that are registered at run time. Default 1000.
    pub per_tenant: usize,
    /// The most that max_response_bytes may be. Default 16 MiB.
    pub response_bytes: u64,
    /// The most that max_keys may be. Default 10000.
    pub keys: u32,
    /// The most that retries may be. Default 10.
    pub retries: u32,
    /// The longest of each timeout, deadline, backoff and wait. Default 60s.
    pub longest_wait: Span,
}

/// What holds for every provider, those registered at run time too.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// Whether providers must use https. Default true; false allows http for those that ask for it.
    pub require_https: bool,
    /// Hosts that may be fetched from, their subdomains included. Default empty: any.
    pub allowed_domains: Vec<String>,
    /// Where providers may be: "deny" (public addresses only), "allow", or { deny_except = ["10.0.0.0/8"] }. Default deny.
    #[schemars(schema_with = "provider::networks_schema")]
    pub private_networks: PrivateNetworks,
    /// How long expired keys are served while a provider fails, where its registration does not say. Default 24h.
    pub stale_while_error: Span,
    /// Fetches at once, over all providers. Default 64.
    pub max_concurrent_fetches: usize,
}

/// Where keys outlive the process.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Whether snapshots are kept in files below state_dir. Default true.
    pub files: bool,
    /// A Redis or Valkey beside them, shared with other processes. Default none.
    pub redis: Option<Redis>,
    /// Secrets that sign what is stored, one a line, each of 32 bytes or more: the first signs, all are believed. Without
    /// them, who can write to a store can inject keys.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub signing_keys: Option<Secret>,
}

/// A Redis or Valkey.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// redis://, rediss:// (TLS) or several of them separated by commas; may hold a password: then better as url_file.
    #[serde(deserialize_with = "secret")]
    #[schemars(with = "String", extend("writeOnly" = true))]
    pub url: Secret,
    /// single, sentinel or cluster. Default single.
    #[serde(default)]
    pub mode: RedisMode,
    /// The master's name, for sentinel. Default mymaster.
    #[serde(default = "mymaster")]
    pub master: String,
    /// The first part of every key. Default jwks-cache.
    #[serde(default = "namespace")]
    pub namespace: String,
}

/// How a Redis is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RedisMode {
    /// One server.
    #[default]
    Single,
    /// The master that the servers at the URLs name.
    Sentinel,
    /// A cluster.
    Cluster,
}

/// What is logged, to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// json or pretty. Default: pretty on a terminal, else json.
    pub format: Option<LogFormat>,
    /// error, warn, info, debug or trace; or by target, as in info,jwks_cache=debug. Default info. Who did what
    /// in the control plane (audit) is logged whatever stands here, unless audit=off does.
    pub level: String,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One object a line.
    Json,
    /// For people.
    Pretty,
}

/// A tenant.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tenant {
    /// Its providers by name: 1 to 64 letters, digits, `-` and `_`.
    pub providers: BTreeMap<String, Provider>,
}

impl Default for Data {
    fn default() -> Self {
        Self { listen: Listen::Tcp("127.0.0.1:8080".into()), tls: None, public_url: None }
    }
}

impl Default for Ops {
    fn default() -> Self {
        Self { listen: Listen::Tcp("127.0.0.1:9090".into()), tls: None }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Self {
            connections: 16_384,
            header_bytes: 32 << 10,
            header_timeout: seconds(10),
            body_bytes: 1 << 20,
            request_timeout: seconds(30),
            idle_timeout: seconds(75),
            handshake_timeout: seconds(10),
            http2_streams: 128,
            drain_timeout: seconds(20),
            registrations: Registrations::default(),
        }
    }
}

impl Default for Registrations {
    fn default() -> Self {
        Self {
            per_tenant: 1000,
            response_bytes: 16 << 20,
            keys: 10_000,
            retries: 10,
            longest_wait: Span(Duration::from_secs(60)),
        }
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            require_https: true,
            allowed_domains: Vec::new(),
            private_networks: PrivateNetworks::Deny,
            stale_while_error: Span(Duration::from_secs(24 * 3600)),
            max_concurrent_fetches: 64,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { files: true, redis: None, signing_keys: None }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: None, level: "info".into() }
    }
}

impl Config {
    /// Every rule that a type alone does not hold.
    ///
    /// # Errors
    /// Each broken rule, with the field and what to do.
    pub fn check(&self) -> Result<(), Problems> {
        let rules = self.rules();
        if rules.is_empty() {
            Ok(())
        } else {
            Err(rules.into_iter().map(|rule| source::told(rule, None)).collect())
        }
    }

    /// The broken rules, with the path of the field.
    fn rules(&self) -> Vec<Rule> {
        let mut broken = Vec::new();
        let mut no = |holds: bool, field: &str, what: &str, remedy: &str| {
            if !holds {
                broken.push(rule(field, what, remedy));
            }
        };
        let limits = &self.limits;
        no(limits.connections >= 8, "limits.connections", "must be at least 8", "1024 suits a small sidecar");
        no(
            (8192..=1 << 20).contains(&limits.header_bytes),
            "limits.header_bytes",
            "must be 8192 to 1048576",
            "32768 is usual",
        );
        no(
            limits.http2_streams > 0,
            "limits.http2_streams",
            "must be at least 1: no request would be answered",
            "128 is usual",
        );
        for (field, span) in [
            ("limits.header_timeout", limits.header_timeout),
            ("limits.request_timeout", limits.request_timeout),
            ("limits.idle_timeout", limits.idle_timeout),
            ("limits.handshake_timeout", limits.handshake_timeout),
        ] {
            let second = Duration::from_secs(1);
            no(
                span.0 >= second,
                field,
                "must be at least 1s: clients far away need a moment",
                "10s or more is usual",
            );
        }
        no(
            self.defaults.max_concurrent_fetches > 0,
            "defaults.max_concurrent_fetches",
            "must be at least 1: nothing would be fetched",
            "64 is usual",
        );
        let networks = self.defaults.private_networks.check().err().map(|broken| broken.reason);
        no(
            networks.is_none(),
            "defaults.private_networks",
            networks.as_deref().unwrap_or_default(),
            "list addresses, networks or host names, as in { deny_except = [\"10.0.0.0/8\", \"keys.internal\"] }",
        );
        no(
            tracing_subscriber::EnvFilter::try_new(&self.log.level).is_ok() && !self.log.level.is_empty(),
            "log.level",
            "is no level",
            "use error, warn, info, debug or trace, or targets as in info,jwks_cache=debug",
        );
        no(
            self.signing_ring().is_ok(),
            "store.signing_keys",
            "needs one secret a line, each of 32 random bytes or more",
            "`openssl rand -hex 32` prints one",
        );
        self.control_rules(&mut broken);
        self.address_rules(&mut broken);
        for (tenant, of) in &self.tenants {
            for (provider, registration) in &of.providers {
                broken.extend(provider::rule_of(tenant, provider, registration, &self.defaults));
            }
        }
        broken
    }

    fn control_rules(&self, broken: &mut Vec<Rule>) {
        let control = &self.control;
        let mut hashes = BTreeMap::new();
        for (at, token) in control.tokens.iter().enumerate() {
            let field = format!("control.tokens[{at}]");
            broken.extend(blank(&field, &token.name, token.tenants.as_deref()));
            if let Some(before) = token.hash().and_then(|hash| hashes.insert(hash, at)) {
                let what =
                    format!("has the token of control.tokens[{before}], and only one of the two would count");
                broken.push(rule(&field, &what, "give each a token of its own"));
            }
            if token.sha256.is_some() == token.token.is_some() {
                let what = "needs either sha256 or token_file";
                broken.push(rule(
                    &field,
                    what,
                    "`openssl rand -hex 32` makes a token; keep it in a file of mode 0600",
                ));
            }
            if token.token.as_ref().is_some_and(|token| token.expose().len() < SHORTEST_TOKEN) {
                let what = "is shorter than 32 characters: it can be guessed, so it would let nobody in";
                broken.push(rule(&format!("{field}.token"), what, "`openssl rand -hex 32` makes one"));
            }
        }
        let mut clients = BTreeMap::new();
        for (at, client) in control.clients.iter().enumerate() {
            let field = format!("control.clients[{at}]");
            broken.extend(blank(&field, &client.name, client.tenants.as_deref()));
            let name = client.identity.as_deref().and_then(|name| name.split_once(':'));
            let known = |(kind, rest): (&str, &str)| {
                ["uri", "dns", "email", "cn"].contains(&kind) && rest.trim() == rest && !rest.is_empty()
            };
            if client.identity.is_some() && !name.is_some_and(known) {
                let what = "does not say which kind of name it is";
                let remedy = "write it as in uri:spiffe://prod/deployer, dns:deployer.example, email:ops@example.com or cn:deployer";
                broken.push(rule(&format!("{field}.identity"), what, remedy));
            }
            if let Some(before) = clients.insert((client.sha256.map(|of| of.0), client.identity()), at) {
                let what = format!("is control.clients[{before}] again, and only one of the two would count");
                broken.push(rule(&field, &what, "remove one"));
            }
            if client.sha256.is_some() == client.identity.is_some() {
                let what = "needs either identity or sha256";
                let remedy = "identity is a name in the certificate, sha256 its fingerprint";
                broken.push(rule(&format!("control.clients[{at}]"), what, remedy));
            }
        }
        let verifies = self.tls_at(&self.control_listen()).is_some_and(|tls| tls.client_ca.is_some());
        if !control.clients.is_empty() && !verifies {
            let remedy = "set control.tls with certificate, key and client_ca";
            broken.push(rule("control.clients", "needs a listener that asks for certificates", remedy));
        }
        if matches!(self.control_listen(), Listen::Tcp(_)) && !control.is_guarded() {
            broken.push(rule(
                "control.listen",
                "is a network address, and nobody would have to show credentials there",
                "add control.tokens or control.clients, or use unix:/path, or off",
            ));
        }
        if matches!(self.control_listen(), Listen::Unix(_))
            && !self.control_is_alone()
            && !control.is_guarded()
        {
            broken.push(rule(
                "control.listen",
                "is the socket of another plane, and who asks there would have to show no credentials",
                "give it a socket of its own, or add control.tokens",
            ));
        }
    }

    fn address_rules(&self, broken: &mut Vec<Rule>) {
        let planes = [
            ("data.tls", self.data.listen.clone(), &self.data.tls),
            ("control.tls", self.control_listen(), &self.control.tls),
            ("ops.tls", self.ops.listen.clone(), &self.ops.tls),
        ];
        for (at, (field, listen, tls)) in planes.iter().enumerate() {
            let before = planes.iter().take(at);
            let other =
                before.filter(|(_, at, tls)| at == listen && tls.is_some()).find(|(_, _, of)| of != tls);
            if let (Some((other, ..)), Some(_)) = (other, tls) {
                let what = format!("differs from {other}, and both are on {listen}");
                broken.push(rule(
                    field,
                    &what,
                    "set it at one of the two, or give each an address of its own",
                ));
            }
            if matches!(listen, Listen::Unix(_)) && tls.is_some() {
                broken.push(rule(
                    field,
                    "is of no use on a Unix socket",
                    "remove it, or listen on host:port",
                ));
            }
        }
    }

    /// The TLS that is spoken at an address, whichever of the planes there says so.
    pub(crate) fn tls_at(&self, listen: &Listen) -> Option<&Tls> {
        let control = self.control_listen();
        let planes = [
            (&self.data.listen, &self.data.tls),
            (&control, &self.control.tls),
            (&self.ops.listen, &self.ops.tls),
        ];
        planes.into_iter().filter(|(at, _)| *at == listen).find_map(|(_, tls)| tls.as_ref())
    }

    /// Whether nothing but the control plane answers where it listens.
    pub(crate) fn control_is_alone(&self) -> bool {
        let control = self.control_listen();
        control != self.data.listen && control != self.ops.listen
    }

    /// Where the control plane listens.
    #[must_use]
    pub fn control_listen(&self) -> Listen {
        self.control.listen.clone().unwrap_or_else(|| match self.state_folder() {
            Some(folder) => Listen::Unix(folder.join("control.sock")),
            None => Listen::Off,
        })
    }

    /// The folder of what outlives a restart, if there is one.
    #[must_use]
    pub fn state_folder(&self) -> Option<PathBuf> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // systemd separates several by colons; ours is the first.
        let given = || {
            variable("STATE_DIRECTORY").and_then(|all| {
                let all = all.to_string_lossy().into_owned();
                all.split(':').next().map(PathBuf::from)
            })
        };
        let home =
            || variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
        self.state_dir.clone().or_else(given).or_else(|| home().map(|folder| folder.join("jwks-cache")))
    }

    /// The secrets that sign what is stored.
    pub(crate) fn signing_ring(&self) -> Result<Option<KeyRing>, String> {
        let Some(secrets) = &self.store.signing_keys else { return Ok(None) };
        KeyRing::new(secrets.expose().split_whitespace()).map(Some).map_err(|unfit| unfit.to_string())
    }

    /// The registrations of the file, by tenant and provider.
    pub fn registrations(&self) -> impl Iterator<Item = &IdentityProviderRegistration> {
        self.tenants.values().flat_map(|tenant| tenant.providers.values()).map(|provider| &provider.0)
    }

    /// Whether the file registers this provider: then only the file changes it.
    #[must_use]
    pub fn registers(&self, tenant: &str, provider: &str) -> bool {
        self.tenants.get(tenant).is_some_and(|tenant| tenant.providers.contains_key(provider))
    }

    /// The first section that only a restart can change, where the two differ in one.
    pub(crate) fn needs_restart_for(&self, next: &Self) -> Option<&'static str> {
        let control = |of: &Self| (of.control.listen.clone(), of.control.tls.clone());
        [
            ("state_dir", self.state_dir == next.state_dir),
            ("data", self.data == next.data),
            ("control.listen", control(self) == control(next)),
            ("ops", self.ops == next.ops),
            ("limits", self.limits == next.limits),
            ("defaults", self.defaults == next.defaults),
            ("store", self.store == next.store),
            ("log", self.log == next.log),
        ]
        .into_iter()
        .find_map(|(section, same)| (!same).then_some(section))
    }
}

/// What is left blank of credentials' name and tenants.
fn blank(field: &str, name: &str, tenants: Option<&[String]>) -> Option<Rule> {
    if name.trim().is_empty() {
        let what = "is blank: the audit log could not say who it was";
        return Some(rule(&format!("{field}.name"), what, "name its bearer"));
    }
    let void = tenants.is_some_and(|all| all.is_empty() || all.iter().any(|tenant| tenant.trim().is_empty()));
    void.then(|| {
        rule(
            &format!("{field}.tenants"),
            "names no tenant, or one without a name",
            "leave it out for all tenants",
        )
    })
}

impl Token {
    /// The token's SHA-256, if one is given.
    pub(crate) fn hash(&self) -> Option<[u8; 32]> {
        let of = |token: &Secret| {
            let mut hash = [0; 32];
            hash.copy_from_slice(digest(&SHA256, token.expose().as_bytes()).as_ref());
            hash
        };
        self.sha256.map(|digest| digest.0).or_else(|| self.token.as_ref().map(of))
    }
}

impl Client {
    /// The name that is meant, as a listener tells it: host names in lower case.
    pub(crate) fn identity(&self) -> Option<String> {
        let lower = |name: &String| match name.strip_prefix("dns:") {
            Some(host) => format!("dns:{}", host.to_ascii_lowercase()),
            None => name.clone(),
        };
        self.identity.as_ref().map(lower)
    }
}

impl Control {
    /// Whether somebody has to show credentials.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        !self.tokens.is_empty() || !self.clients.is_empty()
    }
}

/// Through a function of its own, so that a missing one is told as missing.
fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    Secret::deserialize(deserializer)
}

fn mymaster() -> String {
    "mymaster".into()
}

fn namespace() -> String {
    "jwks-cache".into()
}
