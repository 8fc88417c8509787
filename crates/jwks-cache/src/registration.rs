//! What a tenant registers: a key source and the settings it is cached by.

mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jwks_cache_core::address::PrivateNetworks;
use jwks_cache_core::policy::{Policy, Retry};
use jwks_cache_core::{AlgorithmSet, allow, ids};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

use crate::clock::seeded_dice;
use crate::dial::{Material, PinMode, Secret, TlsSettings, Transport, unquoted};
use crate::duration_text;
use crate::error::{Error, Result, redacted};
use crate::security::SpkiFingerprint;

pub use self::source::{Fallback, FallbackSource, KeyFormat, KeySource};
pub use jwks_cache_core::Algorithm;
pub use jwks_cache_core::policy::{
    DEFAULT_MAX_RESPONSE_BYTES, DEFAULT_MAX_TTL, DEFAULT_PREFETCH_JITTER, DEFAULT_REFRESH_EARLY,
    DEFAULT_STALE_WHILE_ERROR, JitterStrategy, MAX_REDIRECTS, MIN_TTL_FLOOR, RefreshMode,
};

/// A provider: whose it is, where its keys are, how they are cached.
///
/// ```
/// use std::time::Duration;
/// use jwks_cache::IdentityProviderRegistration;
///
/// let mut registration =
///     IdentityProviderRegistration::new("acme", "main", "https://id.example.com/jwks.json")?;
/// registration.stale_while_error = Duration::from_secs(24 * 3600);
/// registration.validate()?;
/// # Ok::<(), jwks_cache::Error>(())
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct IdentityProviderRegistration {
    /// The tenant: 1–64 ASCII letters, digits, `-`.
    pub tenant_id: String,
    /// The provider within the tenant: 1–64 ASCII letters, digits, `-`, `_`.
    pub provider_id: String,
    /// Where the JWKS is published. Has a host, no credentials, no fragment.
    /// Where `source` is another, nothing is asked here: it is `none:`, and left out of JSON.
    #[serde(
        default = "source::nowhere",
        skip_serializing_if = "source::is_nowhere",
        deserialize_with = "unquoted::jwks_url"
    )]
    pub jwks_url: Url,
    /// The issuer of this provider's tokens, as their `iss` says it, byte for byte: then a [`Verifier`](crate::Verifier)
    /// finds the provider by it, and takes no other issuer's tokens from it. Discovery asks it where its keys are. 1 to
    /// 2,048 bytes. Default none.
    #[serde(default)]
    pub issuer: Option<String>,
    /// Whether `{tenantid}` in `issuer` stands for the `tid` of each token, as Entra's multi-tenant issuers have it.
    /// Default false; of the presets only Entra's sets it, for elsewhere it would let anyone's tokens in.
    #[serde(default)]
    pub issuer_template: bool,
    /// Where keys come from. Default [`KeySource::Url`]: `jwks_url`.
    #[serde(default)]
    pub source: KeySource,
    /// How they are written there. Default [`KeyFormat::Jwks`].
    #[serde(default)]
    pub format: KeyFormat,
    /// Other sources in their order, for while this one fails and none of its keys may be served any more: at most 8.
    /// The way back is automatic, with the first document of this one. Default none.
    #[serde(default)]
    pub fallbacks: Vec<Fallback>,
    /// Whether only https will do. Default true. An https URL is never downgraded by a redirect,
    /// whatever this says.
    #[serde(default = "yes")]
    pub require_https: bool,
    /// Hosts that may be asked: each name allows itself and its subdomains, at every redirect too.
    /// Default empty: any host, and redirects stay on the registered one.
    #[serde(default)]
    pub allowed_domains: Vec<String>,
    /// How long before the end of their lifetime keys are refreshed, at most two fifths of it.
    /// At least 1 s, less than `max_ttl`. Default 30 s, or the registry's default.
    #[serde(with = "duration_text", default = "default_refresh_early")]
    pub refresh_early: Duration,
    /// How long expired keys are served while the provider fails; 0 is never. A response's
    /// `stale-if-error` extends it (RFC 5861 §4); only `max_trust_age` and `http_strict` shorten it. Default 60 s, or the
    /// registry's default; 24 h outlives most outages.
    #[serde(with = "duration_text", default = "default_stale_while_error")]
    pub stale_while_error: Duration,
    /// The shortest lifetime a response is given. At least, and by default, 30 s.
    #[serde(with = "duration_text", default = "default_min_ttl")]
    pub min_ttl: Duration,
    /// The longest lifetime a response is given. Default 24 h: some providers state months.
    #[serde(with = "duration_text", default = "default_max_ttl")]
    pub max_ttl: Duration,
    /// The lifetime of a response that states none. Default 5 min.
    #[serde(with = "duration_text", default = "default_ttl")]
    pub default_ttl: Duration,
    /// No key is served later than this after a document last held it, whatever else is set.
    /// At least `min_ttl`. Default: the larger of 48 h and `max_ttl` + `stale_while_error`.
    #[serde(with = "duration_text::option", default)]
    pub max_trust_age: Option<Duration>,
    /// Obeys HTTP caching to the letter (RFC 9111): no floor, no default lifetime, and no stale
    /// window where the response forbids it. Default false, because many providers send
    /// `no-store` or `must-revalidate` with their keys, and then an outage of theirs is yours.
    #[serde(default)]
    pub http_strict: bool,
    /// The most bytes of a body, compressed and inflated. Default 1 MiB; real sets have some 20 kB.
    #[serde(default = "default_max_response_bytes")]
    pub max_response_bytes: u64,
    /// The most keys in a document. Default 512; real sets have some 15.
    #[serde(default = "default_max_keys")]
    pub max_keys: u32,
    /// RSA keys below this are not used. 1024–4096, default 2048 (RFC 7518 §3.3).
    #[serde(default = "default_min_rsa_bits")]
    pub min_rsa_bits: u32,
    /// The algorithms `key()` may answer with. Default empty: all asymmetric ones.
    #[serde(default)]
    pub algorithms: Vec<Algorithm>,
    /// How long a failed fetch answers callers who have nothing, without the network. 0 (off) or at
    /// least 1 s. Default off.
    #[serde(with = "duration_text", default)]
    pub negative_cache_ttl: Duration,
    /// The least time between two requests that unknown kids cause. At least 1 s, default 10 s.
    #[serde(with = "duration_text", default = "default_kid_miss_interval")]
    pub kid_miss_interval: Duration,
    /// The longest a caller waits for an unknown kid. Default 2 s: most such tokens are worth nothing.
    #[serde(with = "duration_text", default = "default_kid_miss_wait")]
    pub kid_miss_wait: Duration,
    /// How long `key()` goes on with a key that left the document: sets of large providers flap.
    /// Default 10 min; 0 is at once.
    #[serde(with = "duration_text", default = "default_removal_grace")]
    pub removal_grace: Duration,
    /// Who starts refreshes. Default [`RefreshMode::WhileInUse`].
    #[serde(default)]
    pub refresh_mode: RefreshMode,
    /// Whether readiness waits for it. Default true.
    #[serde(default = "yes")]
    pub required: bool,
    /// How long a caller waits for a refresh before it gets expired keys inside the stale window.
    /// Default 250 ms: a round trip to most providers, and not yet noticed by most users.
    #[serde(with = "duration_text", default = "default_stale_wait")]
    pub stale_wait: Duration,
    /// The most redirects followed. At most 10, default 3: none is usual.
    #[serde(default = "default_max_redirects")]
    pub max_redirects: u8,
    /// Pins: at every hop one of these keys must stand on the verified TLS certificate path, be it the server's, an
    /// intermediate's or the root's. Name a second one that you can change over to. Needs an https URL. Default none.
    /// `jwks-cache pin HOST` prints them.
    #[serde(default)]
    pub pinned_spki: Vec<SpkiFingerprint>,
    /// What happens when no key on the path is pinned. Default [`PinMode::Enforce`].
    #[serde(default)]
    pub pin_mode: PinMode,
    /// Roots, client certificate and versions of TLS. Default: the machine's roots, TLS 1.2 or newer.
    #[serde(default)]
    pub tls: TlsSettings,
    /// Headers of each request to the registered origin; a redirect to another gets none. Default empty: the
    /// registry's.
    #[serde(default, deserialize_with = "unquoted::headers")]
    pub headers: BTreeMap<String, Secret>,
    /// A token sent as `Authorization: Bearer` (RFC 6750 §2.1), to the registered origin alone. It is readable by
    /// whoever is on the way where the URL is plain http. Default none: the registry's.
    #[serde(default, deserialize_with = "unquoted::bearer_token")]
    pub bearer_token: Option<Material>,
    /// The `User-Agent`. Default `jwks-cache/` and the version, or the registry's.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// A proxy, as in `http://user:password@proxy.example:3128`; https goes through it in a tunnel. Default none, or
    /// the registry's. Environment variables name none.
    #[serde(default, deserialize_with = "unquoted::proxy")]
    pub proxy: Option<Url>,
    /// The longest that connecting may take, TLS included; more than 0. Default 2 s, or the registry's.
    #[serde(with = "duration_text::option", default)]
    pub connect_timeout: Option<Duration>,
    /// Where the host may be, at every hop and each time it is dialled: `Allow`, `Deny` private addresses, or
    /// `DenyExcept` some. Default [`PrivateNetworks::Allow`]. The registry's policy has to pass too, where it is not
    /// `Allow`. Not to be set beside `proxy`, which chooses addresses itself.
    #[serde(default)]
    pub private_networks: PrivateNetworks,
    /// A random part taken off the refresh time, at most a tenth of the lifetime. Default 5 s.
    #[serde(with = "duration_text", default = "default_prefetch_jitter")]
    pub prefetch_jitter: Duration,
    /// Retries within one flight.
    #[serde(default)]
    pub retry_policy: RetryPolicy,
}

impl IdentityProviderRegistration {
    /// A registration with every setting at its default. Parses the URL and validates nothing else.
    ///
    /// # Errors
    /// [`Error::Url`] when `jwks_url` is not a URL.
    pub fn new(
        tenant_id: impl Into<String>,
        provider_id: impl Into<String>,
        jwks_url: impl AsRef<str>,
    ) -> Result<Self> {
        Ok(Self {
            tenant_id: tenant_id.into(),
            provider_id: provider_id.into(),
            jwks_url: Url::parse(jwks_url.as_ref())?,
            issuer: None,
            issuer_template: false,
            source: KeySource::default(),
            format: KeyFormat::default(),
            fallbacks: Vec::new(),
            require_https: true,
            allowed_domains: Vec::new(),
            refresh_early: DEFAULT_REFRESH_EARLY,
            stale_while_error: DEFAULT_STALE_WHILE_ERROR,
            min_ttl: MIN_TTL_FLOOR,
            max_ttl: DEFAULT_MAX_TTL,
            default_ttl: default_ttl(),
            max_trust_age: None,
            http_strict: false,
            max_response_bytes: DEFAULT_MAX_RESPONSE_BYTES,
            max_keys: default_max_keys(),
            min_rsa_bits: default_min_rsa_bits(),
            algorithms: Vec::new(),
            negative_cache_ttl: Duration::ZERO,
            kid_miss_interval: default_kid_miss_interval(),
            kid_miss_wait: default_kid_miss_wait(),
            removal_grace: default_removal_grace(),
            refresh_mode: RefreshMode::default(),
            required: true,
            stale_wait: default_stale_wait(),
            max_redirects: default_max_redirects(),
            pinned_spki: Vec::new(),
            pin_mode: PinMode::default(),
            tls: TlsSettings::default(),
            headers: BTreeMap::new(),
            bearer_token: None,
            user_agent: None,
            proxy: None,
            connect_timeout: None,
            private_networks: PrivateNetworks::default(),
            prefetch_jitter: DEFAULT_PREFETCH_JITTER,
            retry_policy: RetryPolicy::default(),
        })
    }

    /// Sets `require_https`.
    #[must_use]
    pub fn with_require_https(mut self, require_https: bool) -> Self {
        self.require_https = require_https;
        self
    }

    /// Brings `allowed_domains` into canonical form: trimmed, lower case, no trailing dot, no duplicates.
    pub fn normalize_allowed_domains(&mut self) {
        self.allowed_domains = allow::normalize_allowlist(std::mem::take(&mut self.allowed_domains));
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Validation`] names the first field that breaks its rule; [`Error::Security`] for a
    /// scheme other than https where that is required.
    pub fn validate(&self) -> Result<()> {
        ids::check_tenant_id(&self.tenant_id)?;
        ids::check_provider_id(&self.provider_id)?;
        for domain in &self.allowed_domains {
            check_domain(domain)?;
        }
        self.validate_source()?;
        self.policy().check()?;
        let plain = |fallback: &Fallback| matches!(&fallback.source, FallbackSource::Url(url) if url.scheme() != "https");
        if !self.pinned_spki.is_empty()
            && (self.home().is_none_or(|url| url.scheme() != "https") || self.fallbacks.iter().any(plain))
        {
            return Err(Error::validation(
                "pinned_spki",
                "needs https URLs, of fallbacks too: plain http has no certificate that a pin could match",
            ));
        }
        self.transport().check()
    }

    /// Refuses what reaches into this machine or its network: files, and a proxy.
    ///
    /// # Errors
    /// [`Error::Security`] names the first field that does.
    pub(crate) fn refuse_local_files(&self) -> Result<()> {
        let refuse = |field: &str, what: &str, remedy: &str| {
            Err(Error::Security(format!(
                "{field} names {what}, which this registry's registrations may not; {remedy}, or build the registry with \
                 local_files(true) where its owner writes them"
            )))
        };
        if let Some(field) = self.source_files() {
            return refuse(field, "a file", "give the keys themselves (inline), or their URL");
        }
        let certificate = self.tls.client_certificate.as_ref();
        let materials = [
            ("tls.ca", self.tls.ca.as_ref()),
            ("tls.client_certificate.chain", certificate.map(|of| &of.chain)),
            ("tls.client_certificate.key", certificate.map(|of| &of.key)),
            ("bearer_token", self.bearer_token.as_ref()),
        ];
        for (field, material) in materials {
            if let Some(Material::File(_)) = material {
                return refuse(field, "a file", "give the text itself (inline)");
            }
        }
        if self.proxy.is_some() {
            return refuse("proxy", "a proxy", "remove it");
        }
        Ok(())
    }

    /// The settings about dialling.
    pub(crate) fn transport(&self) -> Transport {
        Transport {
            tls: self.tls.clone(),
            headers: self.headers.clone(),
            bearer_token: self.bearer_token.clone(),
            user_agent: self.user_agent.clone(),
            proxy: self.proxy.clone(),
            connect_timeout: self.connect_timeout,
            private_networks: self.private_networks.clone().into(),
        }
    }

    /// The settings that decisions depend on.
    pub(crate) fn policy(&self) -> Policy {
        let algorithms = if self.algorithms.is_empty() {
            AlgorithmSet::ALL
        } else {
            self.algorithms.iter().copied().collect()
        };
        Policy {
            refresh_early: self.refresh_early,
            stale_while_error: self.stale_while_error,
            min_ttl: self.min_ttl,
            max_ttl: self.max_ttl,
            default_ttl: self.default_ttl,
            max_trust_age: self.max_trust_age,
            http_strict: self.http_strict,
            max_response_bytes: self.max_response_bytes,
            max_keys: self.max_keys,
            min_rsa_bits: self.min_rsa_bits,
            algorithms,
            negative_cache_ttl: self.negative_cache_ttl,
            kid_miss_interval: self.kid_miss_interval,
            kid_miss_wait: self.kid_miss_wait,
            removal_grace: self.removal_grace,
            refresh_mode: self.refresh_mode,
            stale_wait: self.stale_wait,
            max_redirects: self.max_redirects,
            prefetch_jitter: self.prefetch_jitter,
            retry: self.retry_policy.rules(),
            fallbacks: self.fallbacks.iter().map(|fallback| fallback.max_trust_age).collect(),
        }
    }

    /// Whether both are of one source: kind and place. What is inline is its own place.
    pub(crate) fn is_same_source(&self, next: &Self) -> bool {
        let place = |of: &Self| (of.jwks_url.clone(), of.source.clone(), of.format.clone());
        let asks_issuer = matches!(self.source, KeySource::Discovery | KeySource::DiscoveryAt(_));
        place(self) == place(next) && (!asks_issuer || self.issuer == next.issuer)
    }

    /// Whether going from `self` to `next` allows fewer places than before: then what is held must go. Who is
    /// believed there is `Dial`'s to compare.
    pub(crate) fn is_tightened_by(&self, next: &Self) -> bool {
        !(self.allowed_domains == next.allowed_domains
            || allow::is_loosening(&self.allowed_domains, &next.allowed_domains))
            || (next.require_https && !self.require_https)
    }
}

impl Serialize for IdentityProviderRegistration {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// `jwks_url` may be left out only where the source is another.
impl<'de> Deserialize<'de> for IdentityProviderRegistration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let read = Self::deserialize(deserializer)?;
        if read.source == KeySource::Url && source::is_nowhere(&read.jwks_url) {
            return Err(de::Error::missing_field("jwks_url"));
        }
        Ok(read)
    }
}

/// Without what may be secret: header values, tokens, keys, credentials and queries of URLs.
impl fmt::Debug for IdentityProviderRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityProviderRegistration")
            .field("tenant_id", &self.tenant_id)
            .field("provider_id", &self.provider_id)
            .field("jwks_url", &redacted(&self.jwks_url).as_str())
            .field("issuer", &self.issuer)
            .field("issuer_template", &self.issuer_template)
            .field("source", &self.source)
            .field("format", &self.format)
            .field("fallbacks", &self.fallbacks)
            .field("require_https", &self.require_https)
            .field("allowed_domains", &self.allowed_domains)
            .field("refresh_early", &self.refresh_early)
            .field("stale_while_error", &self.stale_while_error)
            .field("min_ttl", &self.min_ttl)
            .field("max_ttl", &self.max_ttl)
            .field("default_ttl", &self.default_ttl)
            .field("max_trust_age", &self.max_trust_age)
            .field("http_strict", &self.http_strict)
            .field("max_response_bytes", &self.max_response_bytes)
            .field("max_keys", &self.max_keys)
            .field("min_rsa_bits", &self.min_rsa_bits)
            .field("algorithms", &self.algorithms)
            .field("negative_cache_ttl", &self.negative_cache_ttl)
            .field("kid_miss_interval", &self.kid_miss_interval)
            .field("kid_miss_wait", &self.kid_miss_wait)
            .field("removal_grace", &self.removal_grace)
            .field("refresh_mode", &self.refresh_mode)
            .field("required", &self.required)
            .field("stale_wait", &self.stale_wait)
            .field("max_redirects", &self.max_redirects)
            .field("pinned_spki", &self.pinned_spki)
            .field("pin_mode", &self.pin_mode)
            .field("tls", &self.tls)
            .field("headers", &self.headers)
            .field("bearer_token", &self.bearer_token)
            .field("user_agent", &self.user_agent)
            .field("proxy", &self.proxy.as_ref().map(|proxy| redacted(proxy).to_string()))
            .field("connect_timeout", &self.connect_timeout)
            .field("private_networks", &self.private_networks)
            .field("prefetch_jitter", &self.prefetch_jitter)
            .field("retry_policy", &self.retry_policy)
            .finish()
    }
}

fn check_domain(domain: &str) -> Result<()> {
    let Some(name) = allow::canonicalize_dns_name(domain) else {
        return Err(Error::validation("allowed_domains", "has a blank entry; remove it"));
    };
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-_.:[]".contains(&c);
    if name.starts_with('.') || !name.bytes().all(legal) {
        return Err(Error::validation(
            "allowed_domains",
            format!(
                "{domain:?} is not a host name; write it as in example.com (its subdomains are included)"
            ),
        ));
    }
    Ok(())
}

/// Retries within one flight: what is tried again, how soon, and until when.
///
/// Retried are connection errors, broken connections, timeouts, 408, 429 and 5xx; never other 4xx,
/// refused bodies or refusals by policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryPolicy {
    /// Attempts after the first. Default 2.
    pub max_retries: u32,
    /// The deadline of one attempt, connecting and body included. At least 100 ms, default 3 s.
    #[serde(with = "duration_text")]
    pub attempt_timeout: Duration,
    /// The first wait, more than 0. Default 250 ms. Also the base of the backoff between flights.
    #[serde(with = "duration_text")]
    pub initial_backoff: Duration,
    /// The longest wait, at least `initial_backoff`. Default 2 s.
    #[serde(with = "duration_text")]
    pub max_backoff: Duration,
    /// The deadline of a flight, waits included, and of every caller. At least `attempt_timeout`, default 8 s.
    #[serde(with = "duration_text")]
    pub deadline: Duration,
    /// How waits are spread. Default [`JitterStrategy::Full`].
    pub jitter: JitterStrategy,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 2,
            attempt_timeout: Duration::from_secs(3),
            initial_backoff: Duration::from_millis(250),
            max_backoff: Duration::from_secs(2),
            deadline: Duration::from_secs(8),
            jitter: JitterStrategy::default(),
        }
    }
}

impl RetryPolicy {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Validation`] names the first field that breaks its rule, as `retry_policy.…`.
    pub fn validate(&self) -> Result<()> {
        Ok(self.rules().check()?)
    }

    /// The wait after attempt `attempt` (counted from 0): `initial_backoff` × 2^attempt, at most
    /// `max_backoff`, spread by [`RetryPolicy::jitter`].
    #[must_use]
    pub fn compute_backoff(&self, attempt: u32) -> Duration {
        let mut dice = seeded_dice(None);
        self.rules().wait(attempt, None, &mut || dice.f64())
    }

    /// The same as [`RetryPolicy::compute_backoff`].
    #[must_use]
    pub fn default_backoff(&self, attempt: u32) -> Duration {
        self.compute_backoff(attempt)
    }

    pub(crate) fn rules(&self) -> Retry {
        Retry {
            max_retries: self.max_retries,
            attempt_timeout: self.attempt_timeout,
            initial_backoff: self.initial_backoff,
            max_backoff: self.max_backoff,
            deadline: self.deadline,
            jitter: self.jitter,
        }
    }
}

// Serde takes defaults as functions.
fn yes() -> bool {
    true
}
fn default_refresh_early() -> Duration {
    DEFAULT_REFRESH_EARLY
}
fn default_stale_while_error() -> Duration {
    DEFAULT_STALE_WHILE_ERROR
}
fn default_min_ttl() -> Duration {
    MIN_TTL_FLOOR
}
fn default_max_ttl() -> Duration {
    DEFAULT_MAX_TTL
}
fn default_ttl() -> Duration {
    Duration::from_secs(300)
}
fn default_max_response_bytes() -> u64 {
    DEFAULT_MAX_RESPONSE_BYTES
}
fn default_max_keys() -> u32 {
    512
}
fn default_min_rsa_bits() -> u32 {
    2048
}
fn default_kid_miss_interval() -> Duration {
    Duration::from_secs(10)
}
fn default_kid_miss_wait() -> Duration {
    Duration::from_secs(2)
}
fn default_removal_grace() -> Duration {
    Duration::from_secs(600)
}
fn default_stale_wait() -> Duration {
    Duration::from_millis(250)
}
fn default_max_redirects() -> u8 {
    3
}
fn default_prefetch_jitter() -> Duration {
    DEFAULT_PREFETCH_JITTER
}
