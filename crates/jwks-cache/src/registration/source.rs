//! Where keys come from: kinds and places, and which of them are legal. This room fetches and reads nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jwks_cache_core::allow;
use serde::{Deserialize, Serialize};
use url::Url;

use super::IdentityProviderRegistration;
use crate::dial::Secret;
use crate::duration_text;
use crate::error::{Error, Result, redacted};
use crate::security::enforce_https;

/// How long a fallback serves when nothing else is set.
const DEFAULT_FALLBACK_TRUST: Duration = Duration::from_secs(24 * 3600);
/// More than anybody can keep in order of health.
const MOST_FALLBACKS: usize = 8;
/// The longest issuer, in bytes: browsers and proxies take no longer URL.
const LONGEST_ISSUER: usize = 2048;
/// The longest kid that is given by hand, in bytes.
const LONGEST_KID: usize = 1024;

/// Where a provider's keys come from. A source is its kind and its place, nothing else.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeySource {
    /// [`jwks_url`](IdentityProviderRegistration::jwks_url) gives them. The default.
    #[default]
    Url,
    /// The metadata of [`issuer`](IdentityProviderRegistration::issuer) names their URL (OpenID Connect Discovery 1.0,
    /// RFC 8414). That URL has to keep every rule that `jwks_url` keeps; without `allowed_domains` it stays on the
    /// issuer's host.
    Discovery,
    /// The same, published under another URL than the issuer's own.
    DiscoveryAt(Box<Url>),
    /// A file of this machine, looked at each second for a change.
    File(PathBuf),
    /// The text itself.
    Inline(Secret),
}

/// How keys are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyFormat {
    /// A JWK Set (RFC 7517 §5). The default.
    #[default]
    Jwks,
    /// A JSON object of kids and X.509 certificates in PEM, as Google serves it. Dates and signatures of the
    /// certificates are not looked at: whoever publishes them vouches for them.
    X509Map,
    /// One public key in PEM (RFC 7468): `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`. It gets this kid.
    Pem {
        /// The kid that tokens name.
        kid: String,
    },
}

/// Another source, for while the registered one fails and none of its keys may be served any more.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// Where it is.
    pub source: FallbackSource,
    /// How its keys are written.
    #[serde(default)]
    pub format: KeyFormat,
    /// The longest it serves in one outage, from its first use by this process until the registered source answers
    /// again; more than 0. A process that starts anew counts anew.
    /// Default 24 h: whoever wrote it was sure of it, but not for ever.
    #[serde(with = "duration_text", default = "default_fallback_trust")]
    pub max_trust_age: Duration,
}

/// Where a fallback is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FallbackSource {
    /// A URL, under the rules of `jwks_url`. Headers, tokens and the client certificate go there only if it is of the
    /// registered origin.
    Url(Url),
    /// A file of this machine.
    File(PathBuf),
    /// The text itself.
    Inline(Secret),
}

impl Fallback {
    /// What this URL publishes.
    ///
    /// # Errors
    /// [`Error::Url`] when it is not one.
    pub fn url(url: impl AsRef<str>) -> Result<Self> {
        Ok(Self::of(FallbackSource::Url(Url::parse(url.as_ref())?)))
    }

    /// What the file at `path` holds when it is needed.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::of(FallbackSource::File(path.into()))
    }

    /// This very text.
    #[must_use]
    pub fn inline(text: impl Into<Secret>) -> Self {
        Self::of(FallbackSource::Inline(text.into()))
    }

    fn of(source: FallbackSource) -> Self {
        Self { source, format: KeyFormat::default(), max_trust_age: DEFAULT_FALLBACK_TRUST }
    }

    /// Where it is, as it may be shown.
    pub(crate) fn shown(&self) -> Url {
        match &self.source {
            FallbackSource::Url(url) => redacted(url),
            FallbackSource::File(path) => of_file(path),
            FallbackSource::Inline(_) => nowhere(),
        }
    }
}

/// Without the URL's query.
impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str("Url"),
            Self::Discovery => f.write_str("Discovery"),
            Self::DiscoveryAt(url) => f.debug_tuple("DiscoveryAt").field(&redacted(url).as_str()).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Inline(_) => f.write_str("Inline(hidden)"),
        }
    }
}

impl fmt::Debug for FallbackSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.debug_tuple("Url").field(&redacted(url).as_str()).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Inline(_) => f.write_str("Inline(hidden)"),
        }
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, format, max_trust_age } = self;
        write!(f, "Fallback({source:?}, {format:?}, {max_trust_age:?})")
    }
}

fn of_file(path: &Path) -> Url {
    Url::from_file_path(path).unwrap_or_else(|()| nowhere())
}

fn default_fallback_trust() -> Duration {
    DEFAULT_FALLBACK_TRUST
}

/// What `jwks_url` is where the source is something else.
pub(super) fn nowhere() -> Url {
    Url::parse("none:").expect("a scheme alone is a URL")
}

pub(super) fn is_nowhere(url: &Url) -> bool {
    url.scheme() == "none"
}

impl IdentityProviderRegistration {
    /// The keys that `issuer` names in its metadata, which is looked for by OpenID Connect Discovery 1.0 and then
    /// RFC 8414. The metadata has to name `issuer` byte for byte. Every setting is at its default; validates nothing
    /// else.
    ///
    /// ```
    /// use jwks_cache::IdentityProviderRegistration;
    ///
    /// let mut registration =
    ///     IdentityProviderRegistration::from_issuer("acme", "main", "https://id.example.com/realms/acme")?;
    /// // Where the keys are on another host than the issuer:
    /// registration.allowed_domains = vec!["id.example.com".into(), "keys.example.net".into()];
    /// registration.validate()?;
    /// # Ok::<(), jwks_cache::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Url`] when `issuer` is not a URL.
    pub fn from_issuer(
        tenant_id: impl Into<String>,
        provider_id: impl Into<String>,
        issuer: impl Into<String>,
    ) -> Result<Self> {
        let issuer = issuer.into();
        Url::parse(&issuer)?;
        let mut registration = Self::new(tenant_id, provider_id, nowhere())?;
        (registration.source, registration.issuer) = (KeySource::Discovery, Some(issuer));
        Ok(registration)
    }

    /// The keys in a file, which is watched: another one put in its place is taken, one that is being written is not.
    #[must_use]
    pub fn from_file(
        tenant_id: impl Into<String>,
        provider_id: impl Into<String>,
        path: impl AsRef<Path>,
    ) -> Self {
        Self::elsewhere(tenant_id, provider_id, KeySource::File(path.as_ref().to_owned()))
    }

    /// The keys in this text.
    #[must_use]
    pub fn from_inline(
        tenant_id: impl Into<String>,
        provider_id: impl Into<String>,
        text: impl Into<Secret>,
    ) -> Self {
        Self::elsewhere(tenant_id, provider_id, KeySource::Inline(text.into()))
    }

    fn elsewhere(tenant_id: impl Into<String>, provider_id: impl Into<String>, source: KeySource) -> Self {
        let mut registration = Self::new(tenant_id, provider_id, nowhere()).expect("it is a URL already");
        registration.source = source;
        registration
    }

    /// Sets `format`.
    #[must_use]
    pub fn with_format(mut self, format: KeyFormat) -> Self {
        self.format = format;
        self
    }

    /// The URL that is asked first, and whose origin gets headers, tokens and the client certificate; none where
    /// nothing is fetched.
    pub(crate) fn home(&self) -> Option<Url> {
        match &self.source {
            KeySource::Url => Some(self.jwks_url.clone()),
            KeySource::Discovery => Url::parse(self.issuer.as_deref()?).ok(),
            KeySource::DiscoveryAt(url) => Some((**url).clone()),
            KeySource::File(_) | KeySource::Inline(_) => None,
        }
    }

    /// Where keys come from, as it may be shown.
    pub(crate) fn shown_place(&self) -> Url {
        match &self.source {
            KeySource::File(path) => of_file(path),
            KeySource::Inline(_) => nowhere(),
            _ => redacted(&self.home().unwrap_or_else(nowhere)),
        }
    }

    /// The hosts that are asked.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let host = |url: &Url| url.host_str().unwrap_or_default().to_owned();
        let of_fallback = |fallback: &Fallback| match &fallback.source {
            FallbackSource::Url(url) => Some(host(url)),
            _ => None,
        };
        self.home()
            .as_ref()
            .map(host)
            .into_iter()
            .chain(self.fallbacks.iter().filter_map(of_fallback))
            .collect()
    }

    /// The setting that names the URL asked first.
    fn home_setting(&self) -> &'static str {
        match self.source {
            KeySource::Url => "jwks_url",
            KeySource::Discovery => "issuer",
            _ => "source",
        }
    }

    /// A file that the source or a fallback is.
    pub(crate) fn source_files(&self) -> Option<&'static str> {
        let of_fallback = |fallback: &Fallback| matches!(fallback.source, FallbackSource::File(_));
        match self.source {
            KeySource::File(_) => Some("source"),
            _ if self.fallbacks.iter().any(of_fallback) => Some("fallbacks"),
            _ => None,
        }
    }

    pub(super) fn validate_source(&self) -> Result<()> {
        if self.source != KeySource::Url && !is_nowhere(&self.jwks_url) {
            return Err(Error::validation(
                "jwks_url",
                "is not asked where `source` says something else; leave it out (none:)",
            ));
        }
        if let Some(issuer) = &self.issuer
            && (issuer.is_empty() || issuer.len() > LONGEST_ISSUER)
        {
            return Err(Error::validation(
                "issuer",
                format!(
                    "must be 1 to {LONGEST_ISSUER} bytes, as in the tokens' `iss`; leave it out to take any"
                ),
            ));
        }
        self.validate_template()?;
        if matches!(self.source, KeySource::Discovery | KeySource::DiscoveryAt(_)) {
            self.validate_discovery()?;
        }
        if let Some(home) = self.home() {
            self.validate_url(self.home_setting(), &home)?;
        }
        validate_format("format", &self.format)?;
        if self.fallbacks.len() > MOST_FALLBACKS {
            return Err(Error::validation("fallbacks", format!("must be at most {MOST_FALLBACKS}")));
        }
        for fallback in &self.fallbacks {
            if let FallbackSource::Url(url) = &fallback.source {
                self.validate_url("fallbacks", url)?;
            }
            validate_format("fallbacks", &fallback.format)?;
            if fallback.max_trust_age.is_zero() {
                return Err(Error::validation(
                    "fallbacks",
                    "max_trust_age must be more than 0; 24h is the default",
                ));
            }
        }
        Ok(())
    }

    fn validate_template(&self) -> Result<()> {
        let parts = self.issuer.iter().flat_map(|issuer| issuer.split('/'));
        if self.issuer_template && parts.filter(|part| *part == "{tenantid}").count() != 1 {
            return Err(Error::validation(
                "issuer_template",
                "needs an issuer with {tenantid} as one part of its path, as the preset entra sets it",
            ));
        }
        Ok(())
    }

    fn validate_discovery(&self) -> Result<()> {
        let refuse = |field, reason: &str| Err(Error::validation(field, reason));
        let Some(issuer) = &self.issuer else {
            return refuse("issuer", "must be set for discovery: its metadata has to name it");
        };
        if self.format != KeyFormat::Jwks {
            return refuse("format", "must be jwks for discovery: a jwks_uri gives a key set");
        }
        let Ok(url) = Url::parse(issuer) else {
            return refuse("issuer", "must be a URL for discovery, as in https://id.example.com");
        };
        // OpenID Connect Discovery 1.0 §3, RFC 8414 §2.
        if url.query().is_some() || url.fragment().is_some() {
            return refuse("issuer", "must have neither query nor fragment");
        }
        if self.issuer_template && self.source == KeySource::Discovery {
            return refuse("source", "must be discovery_at where the issuer is a template");
        }
        Ok(())
    }

    fn validate_url(&self, setting: &'static str, url: &Url) -> Result<()> {
        let refuse = |reason: String| Err(Error::validation(setting, reason));
        let Some(host) = url.host_str() else {
            return refuse("must have a host, as in https://id.example.com/jwks.json".into());
        };
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("must not carry credentials".into());
        }
        if url.fragment().is_some() {
            return refuse("must not have a fragment; drop the part from '#' on".into());
        }
        if self.require_https {
            enforce_https(url)?;
        } else if !matches!(url.scheme(), "https" | "http") {
            return Err(Error::Security(format!("scheme {} is not http or https", url.scheme())));
        }
        if !allow::host_is_allowed(host, &self.allowed_domains) {
            return refuse(format!("host {host} is not in this registration's allowed_domains"));
        }
        Ok(())
    }
}

fn validate_format(setting: &'static str, format: &KeyFormat) -> Result<()> {
    match format {
        KeyFormat::Pem { kid } if kid.is_empty() || kid.len() > LONGEST_KID => {
            Err(Error::validation(setting, format!("the kid of a PEM must be 1 to {LONGEST_KID} bytes")))
        }
        _ => Ok(()),
    }
}
