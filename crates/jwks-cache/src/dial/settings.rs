//! What can be set about how providers are dialled, for a registry or a registration, and which of it is legal.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use super::places::Places;
use super::{tls, unquoted};
use crate::error::{Error, Result, redacted};

/// What connecting may take when nothing else is set: a round trip around the world, with one loss.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// More than any provider asks for.
const MOST_HEADERS: usize = 64;

/// Headers that an exchange sets itself, or that change what an answer means.
const RESERVED: [HeaderName; 18] = [
    header::ACCEPT_ENCODING,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::USER_AGENT,
];

/// A text that is never printed: `Debug` hides it. Serde writes it out, because a registration that is stored has
/// to work when it is read back; whoever stores one stores its secrets.
///
/// ```
/// use jwks_cache::Secret;
///
/// let secret = Secret::from("hunter2");
/// assert_eq!(format!("{secret:?}"), "Secret(hidden)");
/// assert_eq!(secret.expose(), "hunter2");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        unquoted::read::<String, D>(deserializer, "a secret must be a text").map(Self::from)
    }
}

/// Where a certificate, a key or a token comes from.
///
/// A file is read at the first fetch and looked at again at each one, so what is renewed in place is used from the
/// next fetch on. A new file that cannot be used leaves the old content in force, with a warning and an event.
/// Files are regular files of at most 1 MiB; a link to one will do.
///
/// Whoever writes a registration names the file, and the URL that it may be sent to: a registry whose tenants write
/// theirs refuses files by [`RegistryBuilder::local_files`](crate::RegistryBuilder::local_files).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Material {
    /// The path of a file.
    File(PathBuf),
    /// The text itself.
    Inline(Secret),
}

impl Material {
    /// What the file at `path` holds.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }

    /// This very text.
    #[must_use]
    pub fn inline(text: impl Into<Secret>) -> Self {
        Self::Inline(text.into())
    }
}

/// How TLS is spoken, and who is believed.
///
/// ```
/// use jwks_cache::{Material, TlsSettings};
///
/// // A Kubernetes API server: only the cluster's own CA speaks for it.
/// let mut tls = TlsSettings::default();
/// tls.ca = Some(Material::file("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"));
/// tls.replace_roots = true;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct TlsSettings {
    /// CA certificates in PEM that are trusted besides the machine's. Default none.
    pub ca: Option<Material>,
    /// Whether `ca` stands alone: the machine's roots are trusted no more. Needs `ca`. Default false.
    pub replace_roots: bool,
    /// The certificate we show to who asks for one. Only the registered origin gets it. Default none.
    pub client_certificate: Option<ClientCertificate>,
    /// The oldest version spoken. Default TLS 1.2, the oldest there is here.
    pub min_version: Option<TlsVersion>,
}

/// A certificate with its key, in PEM (RFC 7468). Both may be in one file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ClientCertificate {
    /// Our certificate, followed by its intermediates.
    pub chain: Material,
    /// The private key: PKCS #8, SEC 1 or PKCS #1, not encrypted.
    pub key: Material,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246), with the safe cipher suites only.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    Tls13,
}

/// Everything that is set about dialling, by a registry or by a registration.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Transport {
    pub(crate) tls: TlsSettings,
    pub(crate) headers: BTreeMap<String, Secret>,
    pub(crate) bearer_token: Option<Material>,
    pub(crate) user_agent: Option<String>,
    pub(crate) proxy: Option<Url>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) private_networks: Places,
}

impl Transport {
    /// These settings, and `defaults` where they are not set. What the defaults refuse stays refused: neither the
    /// machine's roots, addresses nor older versions of TLS are let in again.
    pub(crate) fn over(self, defaults: &Self) -> Self {
        let own_authorization = self.names(&header::AUTHORIZATION);
        let tls = TlsSettings {
            ca: self.tls.ca.or_else(|| defaults.tls.ca.clone()),
            replace_roots: self.tls.replace_roots || defaults.tls.replace_roots,
            client_certificate: self
                .tls
                .client_certificate
                .or_else(|| defaults.tls.client_certificate.clone()),
            min_version: self.tls.min_version.max(defaults.tls.min_version),
        };
        Self {
            tls,
            bearer_token: self
                .bearer_token
                .or_else(|| defaults.bearer_token.clone().filter(|_| !own_authorization)),
            headers: if self.headers.is_empty() { defaults.headers.clone() } else { self.headers },
            user_agent: self.user_agent.or_else(|| defaults.user_agent.clone()),
            proxy: self.proxy.or_else(|| defaults.proxy.clone()),
            connect_timeout: self.connect_timeout.or(defaults.connect_timeout),
            private_networks: self.private_networks.and(&defaults.private_networks),
        }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(CONNECT_TIMEOUT)
    }

    /// Whether a header of this name is set.
    fn names(&self, name: &HeaderName) -> bool {
        self.headers.keys().any(|key| key.eq_ignore_ascii_case(name.as_str()))
    }

    /// Checks what can be checked without reading files.
    ///
    /// # Errors
    /// [`Error::Validation`] naming the first setting that breaks its rule.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_tls()?;
        self.headers()?;
        if self.bearer_token.is_some() && self.names(&header::AUTHORIZATION) {
            return Err(Error::validation(
                "bearer_token",
                "stands beside a header Authorization; set one of them",
            ));
        }
        if let Some(Material::Inline(token)) = &self.bearer_token {
            bearer(token.expose().as_bytes()).map_err(|why| Error::validation("bearer_token", why))?;
        }
        if let Some(user_agent) = &self.user_agent
            && (user_agent.trim().is_empty() || HeaderValue::from_str(user_agent).is_err())
        {
            return Err(Error::validation("user_agent", "must be visible ASCII, as in my-service/1.0"));
        }
        if self.connect_timeout.is_some_and(|time| time.is_zero()) {
            return Err(Error::validation("connect_timeout", "must be more than 0; 2s is the default"));
        }
        self.private_networks.check()?;
        self.check_proxy()
    }

    fn check_tls(&self) -> Result<()> {
        let TlsSettings { ca, replace_roots, client_certificate, .. } = &self.tls;
        if *replace_roots && ca.is_none() {
            return Err(Error::validation(
                "tls.replace_roots",
                "would leave no root to trust; set tls.ca beside it",
            ));
        }
        if let Some(Material::Inline(pem)) = ca {
            tls::roots(pem.expose().as_bytes()).map_err(|why| Error::validation("tls.ca", why))?;
        }
        if let Some(ClientCertificate { chain: Material::Inline(chain), key: Material::Inline(key) }) =
            client_certificate
        {
            tls::certified(chain.expose().as_bytes(), key.expose().as_bytes())
                .map_err(|why| Error::validation("tls.client_certificate", why))?;
        }
        Ok(())
    }

    /// A proxy is reached by plain http: what is secret goes through its tunnel (RFC 9110 §9.3.6).
    /// It chooses the address too, so no policy about addresses can be kept beside it.
    ///
    /// # Errors
    /// [`Error::Validation`] for `proxy`.
    pub(crate) fn check_proxy(&self) -> Result<()> {
        let Some(proxy) = &self.proxy else { return Ok(()) };
        let bare = matches!(proxy.path(), "" | "/") && proxy.query().is_none() && proxy.fragment().is_none();
        if proxy.scheme() != "http" || proxy.host_str().is_none() || !bare {
            return Err(Error::validation("proxy", "must be host and port, as in http://proxy.example:3128"));
        }
        if !self.private_networks.is_open() {
            return Err(Error::validation(
                "proxy",
                "resolves names itself, so private_networks cannot be kept; remove it, or set private_networks to Allow \
                 and let the proxy refuse addresses",
            ));
        }
        Ok(())
    }

    /// The headers of each request to the registered origin, without the token's.
    ///
    /// # Errors
    /// [`Error::Validation`] for `headers`. Values are not shown.
    pub(crate) fn headers(&self) -> Result<HeaderMap> {
        let refuse = |name: &str, why: &str| {
            Err(Error::validation("headers", format!("{} {why}", name.escape_default())))
        };
        if self.headers.len() > MOST_HEADERS {
            return Err(Error::validation("headers", format!("must be at most {MOST_HEADERS}")));
        }
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
                return refuse(name, "is not the name of a header (RFC 9110 §5.1)");
            };
            if parsed == header::USER_AGENT {
                return refuse(name, "has a setting of its own: user_agent");
            }
            if RESERVED.contains(&parsed) {
                return refuse(name, "is set by each exchange itself; remove it");
            }
            let Ok(mut value) = HeaderValue::from_str(value.expose()) else {
                return refuse(name, "has a value that is not visible ASCII");
            };
            value.set_sensitive(true);
            if headers.insert(parsed, value).is_some() {
                return refuse(name, "is there twice, in different spellings; remove one");
            }
        }
        Ok(headers)
    }
}

/// The value of `Authorization` for a token (RFC 6750 §2.1); blanks around it are a file's.
pub(super) fn bearer(token: &[u8]) -> std::result::Result<HeaderValue, String> {
    let token = token.trim_ascii();
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err("must be a token: visible ASCII without blanks, and not empty".to_owned());
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
        .map_err(|_| "must be visible ASCII".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Without header values and the proxy's credentials.
impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("tls", &self.tls)
            .field("headers", &self.headers)
            .field("bearer_token", &self.bearer_token)
            .field("user_agent", &self.user_agent)
            .field("proxy", &self.proxy.as_ref().map(|proxy| redacted(proxy).to_string()))
            .field("connect_timeout", &self.connect_timeout)
            .field("private_networks", &self.private_networks)
            .finish()
    }
}
