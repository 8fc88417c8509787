//! Why a token is refused: one text for its bearer, another for the log.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use jwks_cache_core::token::{ClaimFault, Fault};

pub use jwks_cache_core::token::{Malformed, Part, Unsupported};

use crate::error::{Error, KeyError};
use crate::front::Front;
use crate::status::shown_kid;

/// Why a token was not verified.
///
/// Its `Display` is fit for whoever sent the token: it does not tell which of tenant, key and signature was wrong,
/// and repeats nothing of the token. [`VerifyError::detail`] is for logs. What to answer: [`VerifyError::kind`].
#[derive(Debug)]
#[non_exhaustive]
pub enum VerifyError {
    /// It is no compact JWS with claims.
    Malformed(Malformed),
    /// It is one of a kind that is not taken: another serialisation, an extension, an algorithm.
    Unsupported(Unsupported),
    /// Neither the tenant nor the claimed issuer leads to one registered provider.
    UnknownProvider,
    /// The provider has no key that may verify it.
    UnknownKey(Box<KeyDetail>),
    /// Its key is switched off by [`deny_key`](crate::Registry::deny_key).
    DeniedKey(Box<KeyDetail>),
    /// The signature is not of the key that the token names. A refresh was started, within its budget: the provider
    /// may have changed the key in place.
    BadSignature(Box<KeyDetail>),
    /// `exp` has passed.
    Expired,
    /// `nbf` is to come; or `iat` is, where an age is asked for.
    NotYetValid,
    /// It was issued longer ago than is accepted.
    TooOld,
    /// It is of another type (`typ`) than is accepted.
    WrongType,
    /// Its issuer is not accepted here, or not the one that its key or provider belongs to.
    WrongIssuer,
    /// It is for somebody else.
    WrongAudience,
    /// A claim is missing that was asked for.
    MissingClaim(Cow<'static, str>),
    /// A claim has a wrong type.
    IllTypedClaim(Cow<'static, str>),
    /// The claims do not fit the type asked for.
    UnfitClaims(Unfit),
    /// The keys are not at hand, and the call does not wait.
    NotCached,
    /// No keys could be had.
    KeysUnavailable(Box<Error>),
}

/// What to answer to the bearer of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerifyErrorKind {
    /// The token is not accepted: 401, with `error="invalid_token"` (RFC 6750 §3.1).
    InvalidToken,
    /// Nothing can be said of the token for now: 503. It is not accepted either.
    KeysUnavailable,
}

impl VerifyErrorKind {
    /// The HTTP status to answer with.
    #[must_use]
    pub const fn status(self) -> http::StatusCode {
        match self {
            Self::InvalidToken => http::StatusCode::UNAUTHORIZED,
            Self::KeysUnavailable => http::StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Which key a token was tried with; for logs.
#[derive(Clone, Debug)]
pub struct KeyDetail {
    tenant: Arc<str>,
    provider: Arc<str>,
    kid: Option<String>,
    why: KeyError,
}

impl KeyDetail {
    pub(super) fn new(provider: &Front, kid: Option<&str>, why: KeyError) -> Box<Self> {
        let kid = kid.map(shown_kid);
        Box::new(Self { tenant: provider.tenant().into(), provider: provider.id().into(), kid, why })
    }

    /// The tenant.
    #[must_use]
    pub fn tenant_id(&self) -> &str {
        &self.tenant
    }

    /// The provider.
    #[must_use]
    pub fn provider_id(&self) -> &str {
        &self.provider
    }

    /// The kid that the token names, escaped, and cut after 128 characters.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }
}

impl fmt::Display for KeyDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, ", self.tenant, self.provider)?;
        match &self.kid {
            Some(kid) => write!(f, "kid \"{kid}\""),
            None => f.write_str("no kid"),
        }
    }
}

/// Where claims do not fit the type asked for.
#[derive(Clone, Debug)]
pub struct Unfit {
    column: usize,
    /// Names of the type asked for alone.
    field: Option<String>,
}

impl Unfit {
    pub(super) fn new(error: &serde_json::Error) -> Self {
        // Other messages quote the claims.
        let text = error.to_string();
        let harmless = text.starts_with("missing field") || text.starts_with("duplicate field");
        let field = text.split(" at line ").next().filter(|_| harmless).map(str::to_owned);
        Self { column: error.column(), field }
    }
}

impl VerifyError {
    /// What to answer.
    #[must_use]
    pub const fn kind(&self) -> VerifyErrorKind {
        match self {
            Self::NotCached | Self::KeysUnavailable(_) => VerifyErrorKind::KeysUnavailable,
            _ => VerifyErrorKind::InvalidToken,
        }
    }

    /// What happened, for logs: tenant, provider and kid as well, escaped. Nothing else of the token is in it.
    #[must_use]
    pub fn detail(&self) -> impl fmt::Display + '_ {
        Detail(self)
    }

    /// Why no key was found.
    pub(super) fn of_lookup(error: Error, provider: &Front, kid: Option<&str>) -> Self {
        match error {
            Error::Key(KeyError::Denied) => Self::DeniedKey(KeyDetail::new(provider, kid, KeyError::Denied)),
            Error::Key(why @ (KeyError::UnknownKid | KeyError::NoMatch | KeyError::Ambiguous)) => {
                Self::UnknownKey(KeyDetail::new(provider, kid, why))
            }
            Error::Key(KeyError::NotCached) => Self::NotCached,
            Error::NotRegistered { .. } => Self::UnknownProvider,
            other => Self::KeysUnavailable(Box::new(other)),
        }
    }
}

impl From<Fault> for VerifyError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(malformed) => Self::Malformed(malformed),
            Fault::Unsupported(unsupported) => Self::Unsupported(unsupported),
        }
    }
}

impl From<ClaimFault> for VerifyError {
    fn from(fault: ClaimFault) -> Self {
        match fault {
            ClaimFault::Expired => Self::Expired,
            ClaimFault::NotYetValid => Self::NotYetValid,
            ClaimFault::TooOld => Self::TooOld,
            ClaimFault::WrongAudience => Self::WrongAudience,
            ClaimFault::Missing(name) => Self::MissingClaim(name),
            ClaimFault::IllTyped(name) => Self::IllTypedClaim(name),
        }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Unsupported(unsupported) => unsupported.fmt(f),
            // One text: a difference would let anybody try out tenants and key ids.
            Self::UnknownProvider | Self::UnknownKey(_) | Self::DeniedKey(_) | Self::BadSignature(_) => {
                f.write_str("the token's signature could not be verified")
            }
            Self::Expired => f.write_str("the token has expired"),
            Self::NotYetValid => f.write_str("the token is not valid yet"),
            Self::TooOld => f.write_str("the token was issued too long ago"),
            Self::WrongType => f.write_str("the token is of another type than is accepted"),
            Self::WrongIssuer => f.write_str("the token's issuer is not accepted"),
            Self::WrongAudience => f.write_str("the token is for another audience"),
            Self::MissingClaim(name) => write!(f, "the token lacks the claim {name:?}"),
            Self::IllTypedClaim(name) => write!(f, "the token's claim {name:?} has a wrong type"),
            Self::UnfitClaims(_) => f.write_str("the token's claims do not fit"),
            Self::NotCached | Self::KeysUnavailable(_) => {
                f.write_str("the keys to verify the token are not available now")
            }
        }
    }
}

struct Detail<'a>(&'a VerifyError);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            VerifyError::UnknownProvider => {
                f.write_str("neither tenant nor issuer leads to exactly one registered provider")
            }
            VerifyError::UnknownKey(of) | VerifyError::DeniedKey(of) => write!(f, "{}: {of}", of.why),
            VerifyError::BadSignature(of) => write!(f, "the signature does not verify: {of}"),
            VerifyError::UnfitClaims(Unfit { column, field }) => {
                write!(f, "the claims do not fit the type asked for, at column {column}")?;
                field.as_ref().map_or(Ok(()), |field| write!(f, ": {field}"))
            }
            VerifyError::NotCached => f.write_str("the key is not at hand, and the call does not wait"),
            VerifyError::KeysUnavailable(error) => write!(f, "{error}"),
            other => other.fmt(f),
        }
    }
}

impl std::error::Error for VerifyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::KeysUnavailable(error) => Some(error),
            _ => None,
        }
    }
}
