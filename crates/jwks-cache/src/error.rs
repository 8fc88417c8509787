//! Errors, shaped by what their reader can do: [`Error::kind`] says that, the variants say why.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use jwks_cache_core::policy::Broken;
use url::Url;

use crate::store::StoreError;

/// The result of this crate's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
///
/// Everyone who waited for one flight gets an error of its own that shares the flight's cause
/// ([`StdError::source`]).
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting or an input breaks its rule.
    Validation {
        /// The field, as the type that holds it names it.
        field: &'static str,
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// Refused by policy: a scheme, a host, a redirect, a pin.
    Security(String),
    /// No such provider is registered.
    NotRegistered {
        /// The tenant asked for.
        tenant: String,
        /// The provider asked for.
        provider: String,
    },
    /// The provider answered, but not with a key set.
    HttpStatus {
        /// Its status.
        status: StatusCode,
        /// The URL, without credentials, query and fragment.
        url: Url,
        /// At most 256 bytes of the body, escaped.
        body: Option<String>,
        /// The exchange that failed.
        exchange: FetchError,
    },
    /// No keys are at hand and none could be had in time.
    Cache(String),
    /// An exchange failed before it brought an answer, or its answer was refused.
    Fetch(FetchError),
    /// Keys are at hand, but none for this lookup.
    Key(KeyError),
    /// A text that is not a URL.
    Url(url::ParseError),
    /// A text that is not the JSON expected.
    Json(serde_json::Error),
    /// The HTTP client could not be built or used.
    Client(reqwest::Error),
    /// An HTTP value that is none.
    Http(http::Error),
    /// A store did not do what it was asked; what is held is served all the same.
    Store(StoreError),
    /// The Redis client could not be built or used.
    #[cfg(feature = "redis")]
    Redis(redis::RedisError),
}

/// Why a lookup found no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// No published or retiring key has this kid.
    UnknownKid,
    /// The kid or the key is switched off by [`deny_key`](crate::Registry::deny_key).
    Denied,
    /// Keys are there, but none of them may verify this algorithm under this kid.
    NoMatch,
    /// Without a kid, several keys could verify this algorithm.
    Ambiguous,
    /// The set holds no usable key.
    NoKeys,
    /// The key is not at hand, and the call does not wait for it.
    NotCached,
}

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Register the provider first.
    NotRegistered,
    /// Try again later; a server answers 503.
    KeysUnavailable,
    /// The token's key is not one of the provider's; a server answers 401.
    UnknownKey,
    /// The operator's policy forbids it.
    RefusedByPolicy,
    /// Correct the input that the message names.
    InvalidInput,
}

impl Error {
    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotRegistered { .. } => ErrorKind::NotRegistered,
            Self::Security(_) => ErrorKind::RefusedByPolicy,
            Self::Validation { .. } | Self::Url(_) | Self::Json(_) | Self::Http(_) => ErrorKind::InvalidInput,
            Self::Key(KeyError::NoKeys | KeyError::NotCached) => ErrorKind::KeysUnavailable,
            Self::Key(_) => ErrorKind::UnknownKey,
            Self::HttpStatus { .. } | Self::Cache(_) | Self::Fetch(_) | Self::Client(_) | Self::Store(_) => {
                ErrorKind::KeysUnavailable
            }
            #[cfg(feature = "redis")]
            Self::Redis(_) => ErrorKind::KeysUnavailable,
        }
    }

    /// Tenant and provider whose exchange failed.
    #[must_use]
    pub fn provider(&self) -> Option<(&str, &str)> {
        match self {
            Self::NotRegistered { tenant, provider } => Some((tenant, provider)),
            _ => self.exchange().map(|of| (&*of.0.tenant, &*of.0.provider)),
        }
    }

    /// Which attempt of its flight failed, counted from 1.
    #[must_use]
    pub fn attempt(&self) -> Option<u32> {
        self.exchange().map(|of| of.0.attempt)
    }

    /// The URL asked, without credentials, query and fragment.
    #[must_use]
    pub fn url(&self) -> Option<&Url> {
        self.exchange().map(|of| &of.0.url)
    }

    /// The status answered, if one was.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.exchange().and_then(|of| of.0.status)
    }

    fn exchange(&self) -> Option<&FetchError> {
        match self {
            Self::HttpStatus { exchange, .. } | Self::Fetch(exchange) => Some(exchange),
            _ => None,
        }
    }

    pub(crate) fn validation(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Validation { field, reason: reason.into() }
    }
}

/// A failed exchange, shared by all who waited for its flight.
#[derive(Clone)]
pub struct FetchError(pub(crate) Arc<Failure>);

/// The facts of a failed exchange.
pub(crate) struct Failure {
    pub(crate) tenant: Arc<str>,
    pub(crate) provider: Arc<str>,
    pub(crate) attempt: u32,
    pub(crate) url: Url,
    pub(crate) status: Option<StatusCode>,
    pub(crate) body: Option<String>,
    /// A metric label: `timeout`, `connect`, `status`, `not_json`, …
    pub(crate) reason: &'static str,
    pub(crate) refused_by_policy: bool,
    pub(crate) message: String,
    pub(crate) cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl FetchError {
    /// A short name of the reason, as metrics label it: `connect`, `timeout`, `status`, `not_json`, …
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// The error one waiter gets.
    pub(crate) fn to_error(&self) -> Error {
        let of = &self.0;
        match of.status {
            _ if of.refused_by_policy => Error::Security(self.to_string()),
            Some(status) if of.reason == "status" => Error::HttpStatus {
                status,
                url: of.url.clone(),
                body: of.body.clone(),
                exchange: self.clone(),
            },
            _ => Error::Fetch(self.clone()),
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = &self.0;
        write!(
            f,
            "fetching keys of {}/{} from {} failed at attempt {}: {}",
            of.tenant, of.provider, of.url, of.attempt, of.message
        )
    }
}

impl fmt::Debug for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FetchError({self})")
    }
}

impl StdError for FetchError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_ref().map(|cause| &**cause as &(dyn StdError + 'static))
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownKid => "no key with this kid",
            Self::Denied => "this key is denied",
            Self::NoMatch => "no key fits this algorithm",
            Self::Ambiguous => "several keys fit; the token names no kid",
            Self::NoKeys => "the provider publishes no usable key",
            Self::NotCached => "the key is not at hand, and this call does not wait",
        })
    }
}

impl StdError for KeyError {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Validation { field, reason } => write!(f, "invalid {field}: {reason}"),
            Self::Security(reason) => write!(f, "refused by policy: {reason}"),
            Self::NotRegistered { tenant, provider } => {
                write!(f, "provider {tenant}/{provider} is not registered")
            }
            Self::HttpStatus { exchange, .. } => {
                write!(f, "{exchange}")?;
                match &exchange.0.body {
                    Some(body) => write!(f, " (body: {body})"),
                    None => Ok(()),
                }
            }
            Self::Cache(reason) => write!(f, "keys unavailable: {reason}"),
            Self::Fetch(exchange) => write!(f, "{exchange}"),
            Self::Key(reason) => write!(f, "{reason}"),
            Self::Url(_) => f.write_str("not a URL"),
            Self::Json(_) => f.write_str("not the JSON expected"),
            Self::Client(_) => f.write_str("the HTTP client failed"),
            Self::Http(_) => f.write_str("not a valid HTTP value"),
            Self::Store(error) => write!(f, "the store failed: {error}"),
            #[cfg(feature = "redis")]
            Self::Redis(_) => f.write_str("the Redis client failed"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::HttpStatus { exchange, .. } | Self::Fetch(exchange) => exchange.source(),
            Self::Url(cause) => Some(cause),
            Self::Json(cause) => Some(cause),
            Self::Client(cause) => Some(cause),
            Self::Http(cause) => Some(cause),
            Self::Store(error) => error.source(),
            #[cfg(feature = "redis")]
            Self::Redis(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        Self::Validation { field: broken.field, reason: broken.reason }
    }
}

impl From<KeyError> for Error {
    fn from(cause: KeyError) -> Self {
        Self::Key(cause)
    }
}

impl From<url::ParseError> for Error {
    fn from(cause: url::ParseError) -> Self {
        Self::Url(cause)
    }
}

impl From<serde_json::Error> for Error {
    fn from(cause: serde_json::Error) -> Self {
        Self::Json(cause)
    }
}

impl From<reqwest::Error> for Error {
    fn from(cause: reqwest::Error) -> Self {
        // A URL may carry credentials in its query.
        Self::Client(cause.without_url())
    }
}

impl From<http::Error> for Error {
    fn from(cause: http::Error) -> Self {
        Self::Http(cause)
    }
}

impl From<StoreError> for Error {
    fn from(cause: StoreError) -> Self {
        Self::Store(cause)
    }
}

#[cfg(feature = "redis")]
impl From<redis::RedisError> for Error {
    fn from(cause: redis::RedisError) -> Self {
        Self::Redis(cause)
    }
}

/// A URL as it may be shown: without credentials, query and fragment.
pub(crate) fn redacted(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for URLs that cannot have credentials in the first place.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}
