//! A provider's settings as they are sent and shown. Which values are legal, the library says.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jwks_cache::{
    Algorithm, ClientCertificate, Fallback, FallbackSource, IdentityProviderRegistration, JitterStrategy,
    KeyFormat, KeySource, Material, PinMode, PrivateNetworks, RefreshMode, Secret, SpkiFingerprint,
    TlsSettings, TlsVersion,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;
use utoipa::ToSchema;

use super::object::{object, some};
use crate::config::Registrations;
use crate::problem::{Code, Problem};

const LONGEST_URL: usize = 2048;
const MOST_NAMES: usize = 64;
const LONGEST_TEXT: usize = 65_536;

/// A duration in ISO 8601, of hours and less. `30s` and `5m` are read as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(
    value_type = String,
    example = "PT30S",
    pattern = r"^PT([0-9]{1,6}H([0-9]{1,6}M)?([0-9]{1,6}(\.[0-9]{1,9})?S)?|[0-9]{1,6}M([0-9]{1,6}(\.[0-9]{1,9})?S)?|[0-9]{1,6}(\.[0-9]{1,9})?S)$"
)]
pub(crate) struct Iso8601(pub(crate) Duration);

impl fmt::Display for Iso8601 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = jiff::SignedDuration::MAX;
        write!(f, "{}", jiff::SignedDuration::try_from(self.0).unwrap_or(longest))
    }
}

impl Serialize for Iso8601 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Iso8601 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let duration = text.parse::<jiff::SignedDuration>().ok().and_then(|of| Duration::try_from(of).ok());
        duration.map(Self).ok_or_else(|| de::Error::custom("must be a duration, as in PT30S, PT24H or 30s"))
    }
}

/// A provider's settings. What is left out has its default; a PUT replaces all of them, secrets too.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(example = json!({
    "jwksUrl": "https://id.example.com/.well-known/jwks.json",
    "issuer": "https://id.example.com",
    "staleWhileError": "PT24H",
    "allowedDomains": ["id.example.com"]
}))]
pub(crate) struct ProviderSettings {
    /// Where the key set is published. Given back without its query, which may hold a secret.
    #[schema(format = "uri", max_length = 2048, pattern = r"^https?://[^@#]+$")]
    jwks_url: Option<String>,
    /// The issuer of its tokens, as their `iss` says it. Without `jwksUrl`, its metadata says where the key set is.
    #[schema(min_length = 1, max_length = 2048)]
    issuer: Option<String>,
    /// Whether `{tenantid}` in `issuer` stands for each token's `tid`. Default false.
    issuer_template: Option<bool>,
    /// Where else the issuer's metadata is published. Given back without its query.
    #[schema(format = "uri", max_length = 2048, pattern = r"^https?://[^@#]+$")]
    discovery_url: Option<String>,
    /// How keys are written. Default `jwks`.
    format: Option<Format>,
    /// Other sources in their order, for while this one fails and none of its keys may be served.
    #[schema(max_items = 8)]
    fallbacks: Option<Vec<Other>>,
    /// Whether only https will do. Default true.
    require_https: Option<bool>,
    /// Hosts that may be asked, with their subdomains. Default any; redirects then stay on the host.
    #[schema(max_items = 64)]
    allowed_domains: Option<Vec<String>>,
    /// How long before their expiry keys are refreshed. Default PT30S.
    refresh_early: Option<Iso8601>,
    /// How long expired keys are served while the provider fails. Default that of the server's configuration.
    stale_while_error: Option<Iso8601>,
    /// The shortest lifetime that a response is given; PT30S at least.
    min_ttl: Option<Iso8601>,
    /// The longest. Default PT24H.
    max_ttl: Option<Iso8601>,
    /// The lifetime of a response that states none. Default PT5M.
    default_ttl: Option<Iso8601>,
    /// No key is served later than this after a document last held it.
    max_trust_age: Option<Iso8601>,
    /// Obeys HTTP caching to the letter. Default false.
    http_strict: Option<bool>,
    /// The most bytes of a body; the server's `limits.registrations` has to pass. Default 1 MiB.
    #[schema(minimum = 1, maximum = 16777216)]
    max_response_bytes: Option<u64>,
    /// The most keys. Default 512.
    #[schema(minimum = 1, maximum = 10000)]
    max_keys: Option<u32>,
    /// RSA keys below this are not used. Default 2048.
    #[schema(minimum = 1024, maximum = 4096)]
    min_rsa_bits: Option<u32>,
    /// The algorithms that tokens may have. Default all asymmetric ones.
    #[schema(value_type = Option<Vec<Jwa>>)]
    algorithms: Option<Vec<Algorithm>>,
    /// How long a failure answers those who have nothing; PT0S (the default) or PT1S at least.
    negative_cache_ttl: Option<Iso8601>,
    /// The least time between requests that unknown kids cause. Default PT10S.
    kid_miss_interval: Option<Iso8601>,
    /// How long somebody waits for an unknown kid. Default PT2S.
    kid_miss_wait: Option<Iso8601>,
    /// How long a key that left the document is still used. Default PT10M.
    removal_grace: Option<Iso8601>,
    /// Who starts refreshes. Default `while_in_use`; `always` where it is required.
    #[schema(value_type = Option<Mode>)]
    refresh_mode: Option<RefreshMode>,
    /// Whether the server is ready only with its keys. Default false for what is registered at run time; true takes credentials
    /// for all tenants, for it is ready or not for all of them.
    required: Option<bool>,
    /// How long a reader waits for a refresh before it gets expired keys. Default PT0.25S.
    stale_wait: Option<Iso8601>,
    /// The most redirects. Default 3.
    #[schema(maximum = 10)]
    max_redirects: Option<u8>,
    /// Pins: SHA-256 of public keys on the certificate path, in base64.
    #[schema(value_type = Option<Vec<String>>, max_items = 64)]
    pinned_spki: Option<Vec<SpkiFingerprint>>,
    /// What happens when no pin fits. Default `enforce`.
    #[schema(value_type = Option<Pinning>)]
    pin_mode: Option<PinMode>,
    /// Roots, client certificate and versions of TLS.
    #[serde(deserialize_with = "some")]
    tls: Option<Tls>,
    /// Headers of each request to the registered origin. Never given back.
    #[serde(skip_serializing)]
    #[schema(value_type = Option<BTreeMap<String, String>>, write_only)]
    headers: Option<BTreeMap<String, Secret>>,
    /// A token that is sent to the registered origin. Never given back.
    #[serde(skip_serializing, deserialize_with = "some")]
    #[schema(write_only)]
    bearer_token: Option<Given>,
    /// The `User-Agent`.
    user_agent: Option<String>,
    /// The longest that connecting may take. Default PT2S.
    connect_timeout: Option<Iso8601>,
    /// Whether the host may be at a private address. The server's policy has to pass too.
    private_networks: Option<Networks>,
    /// A random part taken off the refresh time. Default PT5S.
    prefetch_jitter: Option<Iso8601>,
    /// Retries within one refresh.
    #[serde(deserialize_with = "some")]
    retry_policy: Option<Retries>,
}

/// How keys are written.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Format {
    /// A JWK Set.
    #[default]
    Jwks,
    /// A JSON object of kids and certificates in PEM.
    X509Map,
    /// One public key in PEM, which gets this kid.
    Pem { kid: String },
}

/// Another source: a URL or a text.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Other {
    /// Where it is published. Given back without its query.
    #[serde(default)]
    #[schema(format = "uri", max_length = 2048, pattern = r"^https?://[^@#]+$")]
    url: Option<String>,
    /// The keys themselves. Never given back.
    #[serde(default, skip_serializing)]
    #[schema(write_only, value_type = Option<String>, min_length = 1, max_length = 1048576)]
    inline: Option<Secret>,
    /// How its keys are written. Default `jwks`.
    #[serde(default)]
    format: Format,
    /// The longest it serves in one outage. Default PT24H.
    #[serde(default)]
    max_trust_age: Option<Iso8601>,
}

/// Whether private addresses may be asked.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum Networks {
    Allow,
    Deny,
    /// Addresses, networks and host names that may be asked although they are private.
    DenyExcept(Vec<String>),
}

/// How TLS is spoken.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Tls {
    /// CA certificates in PEM.
    #[serde(deserialize_with = "some")]
    ca: Option<Given>,
    /// Whether these stand alone. Default false.
    replace_roots: bool,
    /// The certificate that is shown to who asks for one.
    #[serde(deserialize_with = "some")]
    client_certificate: Option<Certificate>,
    /// `1.2` (the default) or `1.3`.
    #[schema(value_type = Option<String>, pattern = "^1\\.[23]$")]
    min_version: Option<TlsVersion>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Certificate {
    #[serde(deserialize_with = "object")]
    chain: Given,
    /// Never given back.
    #[serde(skip_serializing, deserialize_with = "object")]
    #[schema(write_only)]
    key: Given,
}

/// A text that is given inline. Files are for the configuration file alone.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Given {
    #[serde(deserialize_with = "some_text")]
    #[schema(value_type = String, min_length = 1, max_length = 65536)]
    inline: Secret,
}

/// Retries within one refresh.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Retries {
    /// Attempts after the first. Default 2.
    #[schema(value_type = Option<i32>, minimum = 0, maximum = 10)]
    max_retries: Option<u32>,
    /// The deadline of one attempt. Default PT3S.
    attempt_timeout: Option<Iso8601>,
    /// The first wait. Default PT0.25S.
    initial_backoff: Option<Iso8601>,
    /// The longest wait. Default PT2S.
    max_backoff: Option<Iso8601>,
    /// The deadline of all of it. Default PT8S.
    deadline: Option<Iso8601>,
    /// How waits are spread. Default `full`.
    #[schema(value_type = Option<Jitter>)]
    jitter: Option<JitterStrategy>,
}

#[expect(dead_code, reason = "the library's values, for the document")]
mod library {
    use utoipa::ToSchema;

    #[derive(ToSchema)]
    pub(super) enum Jwa {
        RS256,
        RS384,
        RS512,
        PS256,
        PS384,
        PS512,
        ES256,
        ES384,
        ES512,
        ES256K,
        EdDSA,
    }

    #[derive(ToSchema)]
    #[schema(rename_all = "snake_case")]
    pub(super) enum Mode {
        OnDemand,
        WhileInUse,
        Always,
    }

    #[derive(ToSchema)]
    #[schema(rename_all = "snake_case")]
    pub(super) enum Pinning {
        Enforce,
        ReportOnly,
    }

    #[derive(ToSchema)]
    #[schema(rename_all = "snake_case")]
    pub(super) enum Jitter {
        None,
        Full,
        Decorrelated,
    }
}
use library::{Jitter, Jwa, Mode, Pinning};

/// Refuses what this server does not give to who registers at run time.
fn bounded(of: &IdentityProviderRegistration, limits: &Registrations) -> Result<(), Problem> {
    let refused = |field: &str, most: &dyn fmt::Display| {
        let what = format!("{field}: must be at most {most}");
        Problem::new(Code::InvalidInput, what).at(format!("/{}", field.replace('.', "/")))
    };
    let sizes = [
        ("allowedDomains", of.allowed_domains.len() as u64, MOST_NAMES as u64),
        ("pinnedSpki", of.pinned_spki.len() as u64, MOST_NAMES as u64),
        ("maxResponseBytes", of.max_response_bytes, limits.response_bytes),
        ("maxKeys", of.max_keys.into(), limits.keys.into()),
        ("retryPolicy.maxRetries", of.retry_policy.max_retries.into(), limits.retries.into()),
    ];
    if let Some((field, _, most)) = sizes.into_iter().find(|(_, value, most)| value > most) {
        return Err(refused(field, &most));
    }
    let (retries, longest) = (&of.retry_policy, limits.longest_wait.0);
    let waits = [
        ("retryPolicy.deadline", retries.deadline),
        ("retryPolicy.attemptTimeout", retries.attempt_timeout),
        ("retryPolicy.initialBackoff", retries.initial_backoff),
        ("retryPolicy.maxBackoff", retries.max_backoff),
        ("connectTimeout", of.connect_timeout.unwrap_or_default()),
        ("kidMissWait", of.kid_miss_wait),
        ("staleWait", of.stale_wait),
    ];
    match waits.into_iter().find(|(_, wait)| *wait > longest) {
        Some((field, _)) => Err(refused(field, &Iso8601(longest))),
        None => Ok(()),
    }
}

/// Both ways for every setting that is the same on both sides, so that none is forgotten in one.
macro_rules! settings {
    (same: $($same:ident)*; times: $($time:ident)*) => {
        impl ProviderSettings {
            fn set(&self, of: &mut IdentityProviderRegistration) {
                $(if let Some(value) = &self.$same { of.$same = value.clone(); })*
                $(if let Some(Iso8601(value)) = self.$time { of.$time = value; })*
            }

            fn shown(of: &IdentityProviderRegistration) -> Self {
                Self {
                    $($same: Some(of.$same.clone()),)*
                    $($time: Some(Iso8601(of.$time)),)*
                    ..Self::default()
                }
            }
        }
    };
}

settings! {
    same: issuer_template require_https allowed_domains http_strict max_response_bytes max_keys min_rsa_bits algorithms refresh_mode
        required max_redirects pinned_spki pin_mode;
    times: refresh_early stale_while_error min_ttl max_ttl default_ttl negative_cache_ttl kid_miss_interval kid_miss_wait
        removal_grace stale_wait prefetch_jitter
}

impl ProviderSettings {
    /// With this where they do not say for how long expired keys are served.
    pub(crate) fn or_stale_while_error(self, span: Duration) -> Self {
        Self { stale_while_error: self.stale_while_error.or(Some(Iso8601(span))), ..self }
    }

    /// What is registered at run time under this name by somebody who may, or may not, speak for all tenants.
    pub(crate) fn registration(
        self,
        tenant: &str,
        provider: &str,
        for_all: bool,
        limits: &Registrations,
    ) -> Result<IdentityProviderRegistration, Problem> {
        let mut of = match (&self.jwks_url, &self.discovery_url, &self.issuer) {
            (Some(url), None, _) => {
                IdentityProviderRegistration::new(tenant, provider, parsed(url, "jwksUrl", "/jwksUrl")?)?
            }
            (None, None, Some(issuer)) => {
                parsed(issuer, "issuer", "/issuer")?;
                IdentityProviderRegistration::from_issuer(tenant, provider, issuer.clone())?
            }
            (None, Some(url), Some(issuer)) => {
                let mut of = IdentityProviderRegistration::from_issuer(tenant, provider, issuer.clone())?;
                of.source = KeySource::DiscoveryAt(Box::new(parsed(url, "discoveryUrl", "/discoveryUrl")?));
                of
            }
            (Some(_), Some(_), _) => {
                let what = "discoveryUrl: is not asked beside jwksUrl";
                return Err(Problem::new(Code::InvalidInput, what)
                    .at("/discoveryUrl")
                    .remedy("leave one out"));
            }
            (None, Some(_), None) => {
                let what = "issuer: is missing, and its metadata has to name it";
                return Err(Problem::new(Code::InvalidInput, what).at("/issuer"));
            }
            (None, None, None) => {
                let remedy = "name the key set, or leave it out and name the issuer";
                return Err(Problem::new(Code::InvalidInput, "jwksUrl: is missing")
                    .at("/jwksUrl")
                    .remedy(remedy));
            }
        };
        of.required = false;
        self.set(&mut of);
        if of.required {
            if !for_all {
                let what = "required: takes credentials for all tenants, because the server is ready for all or none";
                return Err(Problem::new(Code::RefusedByPolicy, what).at("/required").remedy("leave it out"));
            }
            if self.refresh_mode.is_some_and(|mode| mode != RefreshMode::Always) {
                let what = "refreshMode: must be always where the provider is required";
                return Err(Problem::new(Code::InvalidInput, what).at("/refreshMode"));
            }
            of.refresh_mode = RefreshMode::Always;
        }
        of.issuer = self.issuer;
        of.format = self.format.unwrap_or_default().into();
        for (index, other) in self.fallbacks.unwrap_or_default().into_iter().enumerate() {
            of.fallbacks.push(other.fallback(index)?);
        }
        of.max_trust_age = self.max_trust_age.map(|of| of.0);
        of.connect_timeout = self.connect_timeout.map(|of| of.0);
        of.user_agent = self.user_agent;
        of.tls = self.tls.map(TlsSettings::from).unwrap_or_default();
        of.headers = self.headers.unwrap_or_default();
        of.bearer_token = self.bearer_token.map(Material::from);
        of.private_networks = match self.private_networks {
            None | Some(Networks::Allow) => PrivateNetworks::Allow,
            Some(Networks::Deny) => PrivateNetworks::Deny,
            Some(Networks::DenyExcept(places)) => PrivateNetworks::DenyExcept(places),
        };
        if let Some(retries) = self.retry_policy {
            let policy = &mut of.retry_policy;
            let set = |at: &mut Duration, to: Option<Iso8601>| *at = to.map_or(*at, |to| to.0);
            policy.max_retries = retries.max_retries.unwrap_or(policy.max_retries);
            policy.jitter = retries.jitter.unwrap_or(policy.jitter);
            set(&mut policy.attempt_timeout, retries.attempt_timeout);
            set(&mut policy.initial_backoff, retries.initial_backoff);
            set(&mut policy.max_backoff, retries.max_backoff);
            set(&mut policy.deadline, retries.deadline);
        }
        bounded(&of, limits)?;
        Ok(of)
    }

    /// What may be shown of a registration.
    pub(super) fn of(of: &IdentityProviderRegistration) -> Self {
        let retries = &of.retry_policy;
        let time = |of| Some(Iso8601(of));
        Self {
            jwks_url: (of.source == KeySource::Url).then(|| bare(&of.jwks_url)),
            discovery_url: match &of.source {
                KeySource::DiscoveryAt(url) => Some(bare(url)),
                _ => None,
            },
            format: Some((&of.format).into()),
            fallbacks: Some(of.fallbacks.iter().map(Other::of).collect()),
            issuer: of.issuer.clone(),
            max_trust_age: of.max_trust_age.map(Iso8601),
            connect_timeout: of.connect_timeout.map(Iso8601),
            user_agent: of.user_agent.clone(),
            tls: (of.tls != TlsSettings::default()).then(|| Tls {
                ca: of.tls.ca.as_ref().and_then(Given::of),
                replace_roots: of.tls.replace_roots,
                client_certificate: of.tls.client_certificate.as_ref().and_then(|of| {
                    Some(Certificate { chain: Given::of(&of.chain)?, key: Given { inline: "".into() } })
                }),
                min_version: of.tls.min_version,
            }),
            private_networks: Some(match &of.private_networks {
                PrivateNetworks::Allow => Networks::Allow,
                PrivateNetworks::Deny => Networks::Deny,
                PrivateNetworks::DenyExcept(places) => Networks::DenyExcept(places.clone()),
            }),
            retry_policy: Some(Retries {
                max_retries: Some(retries.max_retries),
                attempt_timeout: time(retries.attempt_timeout),
                initial_backoff: time(retries.initial_backoff),
                max_backoff: time(retries.max_backoff),
                deadline: time(retries.deadline),
                jitter: Some(retries.jitter),
            }),
            ..Self::shown(of)
        }
    }
}

/// Which secrets a registration has.
pub(super) fn secrets_set(of: &IdentityProviderRegistration) -> Vec<String> {
    let names = [
        ("bearerToken", of.bearer_token.is_some()),
        ("jwksUrl.query", of.jwks_url.query().is_some()),
        ("discoveryUrl.query", matches!(&of.source, KeySource::DiscoveryAt(url) if url.query().is_some())),
        ("source.inline", matches!(of.source, KeySource::Inline(_))),
        ("proxy.password", of.proxy.as_ref().is_some_and(|of| of.password().is_some())),
        ("tls.clientCertificate.key", of.tls.client_certificate.is_some()),
    ];
    let set = names.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned());
    let hidden = of.fallbacks.iter().enumerate().filter_map(|(index, fallback)| match &fallback.source {
        FallbackSource::Inline(_) => Some(format!("fallbacks.{index}.inline")),
        FallbackSource::Url(url) => url.query().map(|_| format!("fallbacks.{index}.url.query")),
        _ => None,
    });
    set.chain(of.headers.keys().map(|name| format!("headers.{name}"))).chain(hidden).collect()
}

/// Which settings the configuration reads from files.
pub(super) fn files(of: &IdentityProviderRegistration) -> Vec<String> {
    let certificate = of.tls.client_certificate.as_ref();
    let materials = [
        ("bearerToken", of.bearer_token.as_ref()),
        ("tls.ca", of.tls.ca.as_ref()),
        ("tls.clientCertificate.chain", certificate.map(|of| &of.chain)),
        ("tls.clientCertificate.key", certificate.map(|of| &of.key)),
    ];
    let files = materials.into_iter().filter(|(_, of)| matches!(of, Some(Material::File(_))));
    let source = matches!(of.source, KeySource::File(_)).then(|| "source".to_owned());
    let of_file = |fallback: &Fallback| matches!(fallback.source, FallbackSource::File(_));
    let others = of.fallbacks.iter().enumerate().filter(|(_, fallback)| of_file(fallback));
    let others = others.map(|(index, _)| format!("fallbacks.{index}"));
    files.map(|(name, _)| name.to_owned()).chain(source).chain(others).collect()
}

/// The URL that a member holds.
fn parsed(text: &str, name: &str, pointer: &str) -> Result<Url, Problem> {
    if text.chars().count() > LONGEST_URL {
        let what = format!("{name}: must be {LONGEST_URL} characters at most");
        return Err(Problem::new(Code::InvalidInput, what).at(pointer));
    }
    Url::parse(text).map_err(|why| {
        let what = format!("{name}: is no URL ({why}); write it as in https://id.example.com/jwks.json");
        Problem::new(Code::InvalidInput, what).at(pointer)
    })
}

impl From<Format> for KeyFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Jwks => Self::Jwks,
            Format::X509Map => Self::X509Map,
            Format::Pem { kid } => Self::Pem { kid },
        }
    }
}

impl From<&KeyFormat> for Format {
    fn from(format: &KeyFormat) -> Self {
        match format {
            KeyFormat::X509Map => Self::X509Map,
            KeyFormat::Pem { kid } => Self::Pem { kid: kid.clone() },
            _ => Self::Jwks,
        }
    }
}

impl Other {
    fn fallback(self, index: usize) -> Result<Fallback, Problem> {
        let pointer = format!("/fallbacks/{index}");
        let mut fallback = match (&self.url, self.inline) {
            (Some(url), None) => Fallback::url(parsed(url, "fallbacks: url", &format!("{pointer}/url"))?)?,
            (None, Some(text)) => Fallback::inline(text),
            _ => {
                let what = "fallbacks: has to name one of url and inline";
                return Err(Problem::new(Code::InvalidInput, what).at(pointer));
            }
        };
        fallback.format = self.format.into();
        fallback.max_trust_age = self.max_trust_age.map_or(fallback.max_trust_age, |of| of.0);
        Ok(fallback)
    }

    /// What may be shown.
    fn of(fallback: &Fallback) -> Self {
        let url = match &fallback.source {
            FallbackSource::Url(url) => Some(bare(url)),
            _ => None,
        };
        let (format, max_trust_age) = ((&fallback.format).into(), Some(Iso8601(fallback.max_trust_age)));
        Self { url, inline: None, format, max_trust_age }
    }
}

/// A URL without credentials, query and fragment.
pub(super) fn bare(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for URLs that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

fn some_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    let text = Secret::deserialize(deserializer)?;
    if !(1..=LONGEST_TEXT).contains(&text.expose().chars().count()) {
        return Err(de::Error::custom("must be a text of 1 to 65536 characters"));
    }
    Ok(text)
}

impl Given {
    /// What may be shown: a file's content is not read for that.
    fn of(material: &Material) -> Option<Self> {
        match material {
            Material::Inline(text) => Some(Self { inline: text.clone() }),
            Material::File(_) => None,
        }
    }
}

impl From<Given> for Material {
    fn from(given: Given) -> Self {
        Self::Inline(given.inline)
    }
}

impl From<Tls> for TlsSettings {
    fn from(of: Tls) -> Self {
        let mut tls = Self::default();
        tls.ca = of.ca.map(Material::from);
        tls.replace_roots = of.replace_roots;
        tls.client_certificate =
            of.client_certificate.map(|of| ClientCertificate { chain: of.chain.into(), key: of.key.into() });
        tls.min_version = of.min_version;
        tls
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Every setting with a value of its own.
    fn all_set() -> Value {
        let mut all = json!({
            "jwksUrl": "https://id.example.com/keys", "issuer": "https://id.example.com", "requireHttps": true,
            "allowedDomains": ["example.com"], "refreshEarly": "PT31S", "staleWhileError": "PT32S", "minTtl": "PT33S",
            "maxTtl": "PT34M", "defaultTtl": "PT35S", "maxTrustAge": "PT36H", "httpStrict": true,
            "maxResponseBytes": 37, "maxKeys": 38, "minRsaBits": 3900, "algorithms": ["ES256"],
            "negativeCacheTtl": "PT40S", "kidMissInterval": "PT41S", "kidMissWait": "PT42S", "removalGrace": "PT43S",
            "refreshMode": "on_demand", "required": false, "staleWait": "PT0.044S", "maxRedirects": 4,
            "pinnedSpki": ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="], "pinMode": "report_only",
            "tls": {"minVersion": "1.3", "replaceRoots": false},
            "headers": {"X-Api-Key": "h4rd"}, "bearerToken": {"inline": "t0ken"}, "userAgent": "agent/1",
            "connectTimeout": "PT45S", "privateNetworks": {"denyExcept": ["10.0.0.0/8"]}, "prefetchJitter": "PT46S",
            "retryPolicy": {"maxRetries": 4, "attemptTimeout": "PT4.7S", "initialBackoff": "PT0.48S",
                "maxBackoff": "PT49S", "deadline": "PT50S", "jitter": "none"}
        });
        all["issuerTemplate"] = json!(true);
        all["format"] = json!({"pem": {"kid": "k1"}});
        all["fallbacks"] =
            json!([{"url": "https://mirror.example/", "format": "x509Map", "maxTrustAge": "PT2H"}]);
        all
    }

    #[test]
    fn every_setting_of_the_library_goes_in_and_comes_out() {
        let sent = all_set();
        let settings: ProviderSettings = serde_json::from_value(sent.clone()).unwrap();
        let of = settings.registration("acme", "main", false, &Registrations::default()).unwrap();
        let plain = IdentityProviderRegistration::new("x", "y", "https://other.example").unwrap();
        let (set, default) = (serde_json::to_value(&of).unwrap(), serde_json::to_value(&plain).unwrap());
        for (name, value) in set.as_object().unwrap() {
            // Only what has one value for those who may not speak for all, or is the file's alone, may be the same.
            let alike = *value == default[name];
            let may = ["require_https", "proxy", "source"].contains(&name.as_str());
            assert_eq!(alike, may, "{name} is not taken over");
        }
        let shown = serde_json::to_value(ProviderSettings::of(&of)).unwrap();
        for (name, value) in sent.as_object().unwrap() {
            match name.as_str() {
                "headers" | "bearerToken" => assert!(shown.get(name).is_none(), "{name} is shown"),
                "tls" => assert_eq!(shown["tls"]["minVersion"], "1.3"),
                _ => assert_eq!(shown[name], *value, "{name}"),
            }
        }
        assert_eq!(secrets_set(&of), ["bearerToken", "headers.X-Api-Key"]);
    }

    #[test]
    fn an_issuer_alone_or_with_its_metadata_elsewhere_is_a_source() {
        let take = |sent: Value| {
            let settings: ProviderSettings = serde_json::from_value(sent).unwrap();
            settings.registration("acme", "main", false, &Registrations::default()).map(|of| {
                let shown = serde_json::to_value(ProviderSettings::of(&of)).unwrap();
                (of.source, shown["jwksUrl"].clone(), shown["discoveryUrl"].clone())
            })
        };
        let (issuer, at) = ("https://id.example.com", "https://meta.example/x");
        assert_eq!(
            take(json!({ "issuer": issuer })).unwrap(),
            (KeySource::Discovery, json!(null), json!(null))
        );
        let elsewhere = KeySource::DiscoveryAt(Box::new(at.parse().unwrap()));
        let both = json!({"issuer": issuer, "discoveryUrl": at});
        assert_eq!(take(both).unwrap(), (elsewhere, json!(null), json!(at)));
        for wrong in [
            json!({}),
            json!({"discoveryUrl": at}),
            json!({"jwksUrl": at, "discoveryUrl": at}),
            json!({"issuer": "no url"}),
            json!({"jwksUrl": at, "fallbacks": [{}]}),
            json!({"jwksUrl": at, "fallbacks": [{"url": "none"}]}),
            json!({"jwksUrl": at, "fallbacks": [{"url": at, "inline": "{}"}]}),
        ] {
            assert!(take(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let mut of =
            IdentityProviderRegistration::new("acme", "main", "https://a.example/keys?code=s3cret").unwrap();
        of.bearer_token = Some(Material::inline("s3cret"));
        of.headers.insert("X-Api-Key".to_owned(), "s3cret".into());
        of.proxy = Some("http://user:s3cret@proxy.example:3128".parse().unwrap());
        of.tls.client_certificate =
            Some(ClientCertificate { chain: Material::inline("chain"), key: Material::inline("s3cret") });
        let shown =
            serde_json::to_string(&super::super::Registration::of(&of, super::super::Origin::File)).unwrap();
        assert!(!shown.contains("s3cret"), "{shown}");
        let value: Value = serde_json::from_str(&shown).unwrap();
        let all = json!([
            "bearerToken",
            "jwksUrl.query",
            "proxy.password",
            "tls.clientCertificate.key",
            "headers.X-Api-Key"
        ]);
        assert_eq!(value["secretsSet"], all);
    }

    #[test]
    fn files_and_proxies_are_the_configurations_alone() {
        for (body, at) in [
            (json!({"jwksUrl": "https://a.example", "bearerToken": {"file": "/etc/shadow"}}), "file"),
            (json!({"jwksUrl": "https://a.example", "tls": {"ca": {"file": "/etc/shadow"}}}), "file"),
            (json!({"jwksUrl": "https://a.example", "proxy": "http://proxy.example"}), "proxy"),
        ] {
            let error = serde_json::from_value::<ProviderSettings>(body).unwrap_err().to_string();
            assert!(error.starts_with(&format!("unknown field `{at}`")), "{error}");
        }
    }
}
