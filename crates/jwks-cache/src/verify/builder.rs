//! How a verifier is built: what it demands of tokens.

use std::sync::Arc;
use std::time::Duration;

use jwks_cache_core::token::{ClaimRules, DEFAULT_MAX_TOKEN_BYTES};
use jwks_cache_core::{Algorithm, AlgorithmSet};

use super::cache::Tokens;
use super::headers::Headers;
use super::{Parts, Rules, Verifier};
use crate::epoch::Shared;
use crate::error::{Error, Result};
use crate::front::Front;
use crate::registry::{ProviderHandle, Registry};

/// How far the clocks of a provider and of this machine may be apart by default: a minute, as common elsewhere.
const LEEWAY: Duration = Duration::from_secs(60);

/// Tokens name few claims; the rules have a bit for each.
const MOST_REQUIRED: usize = 64;

impl Registry {
    /// A [`Verifier`] of its providers' tokens.
    pub fn verifier(&self) -> VerifierBuilder {
        VerifierBuilder::new(self.clone(), None)
    }
}

impl ProviderHandle {
    /// A [`Verifier`] of this provider's tokens alone.
    pub fn verifier(&self) -> VerifierBuilder {
        VerifierBuilder::new(self.registry().clone(), Some(self.front().clone()))
    }
}

/// Builds a [`Verifier`]. Who a token is for must be said: by [`VerifierBuilder::audience`], or by
/// [`VerifierBuilder::any_audience`].
#[derive(Debug)]
#[must_use]
pub struct VerifierBuilder {
    /// It goes before the registry, which frees what is left.
    provider: Option<Shared<Front>>,
    registry: Registry,
    issuers: Vec<String>,
    any_issuer: bool,
    audiences: Vec<String>,
    any_audience: bool,
    algorithms: Vec<Algorithm>,
    leeway: Duration,
    required: Vec<String>,
    may_lack_expiry: bool,
    types: Vec<String>,
    max_age: Option<Duration>,
    max_token_bytes: usize,
    cache_bytes: usize,
}

impl VerifierBuilder {
    fn new(registry: Registry, provider: Option<Shared<Front>>) -> Self {
        Self {
            registry,
            provider,
            issuers: Vec::new(),
            any_issuer: false,
            audiences: Vec::new(),
            any_audience: false,
            algorithms: Vec::new(),
            leeway: LEEWAY,
            required: Vec::new(),
            may_lack_expiry: false,
            types: Vec::new(),
            max_age: None,
            max_token_bytes: DEFAULT_MAX_TOKEN_BYTES,
            cache_bytes: 0,
        }
    }

    /// Adds an issuer (`iss`) that is accepted, byte for byte (RFC 8725 §3.8). Default none: the one that the token's
    /// provider is [registered with](crate::IdentityProviderRegistration::issuer). That one must fit as well.
    ///
    /// Of several providers without a registered issuer, each may then issue tokens in the name of all these.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuers.push(issuer.into());
        self
    }

    /// Takes tokens of any issuer from providers that are registered without one. Default false. It is enough that
    /// the provider's key signed them; a key that names its own issuer still verifies none but its.
    pub fn any_issuer(mut self) -> Self {
        self.any_issuer = true;
        self
    }

    /// Adds an audience: a token must be for one of them (`aud`), byte for byte (RFC 8725 §3.9).
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// Takes tokens for anybody. Whoever gets a token for another service can then use it here.
    pub fn any_audience(mut self) -> Self {
        self.any_audience = true;
        self
    }

    /// The algorithms that are accepted. Default, and when empty: all that the key may verify, which are asymmetric
    /// ones that its registration allows. There is no way to accept `none` or HMAC.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = algorithms.into_iter().collect();
        self
    }

    /// How far the clocks of provider and verifier may be apart: `exp`, `nbf` and ages are taken so much more
    /// kindly. Default 60 s.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Adds a claim that must be there, and not null. `exp`, and `aud` where an audience is asked for, need not be
    /// named. At most 64.
    pub fn require_claim(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.required.contains(&name) {
            self.required.push(name);
        }
        self
    }

    /// Takes tokens that never expire, for want of `exp`. Default: they are refused.
    pub fn expiry_optional(mut self) -> Self {
        self.may_lack_expiry = true;
        self
    }

    /// Adds a type (`typ`) that is accepted, such as `at+jwt` (RFC 9068 §4), compared as media types are. Default
    /// none: any type, or none. Naming it keeps ID tokens from passing for access tokens (RFC 8725 §3.11).
    pub fn typ(mut self, typ: impl Into<String>) -> Self {
        self.types.push(typ.into());
        self
    }

    /// The longest time since a token was issued (`iat`), which must then be there. Default none.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// The longest token, in bytes. Default 16 KiB, more than proxies let through in a header.
    pub fn max_token_bytes(mut self, bytes: usize) -> Self {
        self.max_token_bytes = bytes;
        self
    }

    /// Remembers verified tokens, in about so many bytes; 0, the default, does not. A token that comes again costs
    /// its SHA-256 and a look at its key: `exp`, `nbf`, age, denials and the key's standing are checked each time,
    /// and claims are shared. They are counted as what they would take as a [`serde_json::Value`], which most types
    /// stay below; a token's keys and provider are not held by it.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Builds it.
    ///
    /// # Errors
    /// [`Error::Validation`]: `audiences` when neither an audience nor that any will do was said, or both; `issuers`
    /// when an issuer and that any will do were both said, or neither, for one provider that is registered without;
    /// `required_claims` when there are too many.
    pub fn build(self) -> Result<Verifier> {
        let refuse = |field, reason: &str| Err(Error::validation(field, reason));
        if self.audiences.is_empty() && !self.any_audience {
            return refuse(
                "audiences",
                "say whom tokens are for by `audience`, or that it does not matter by `any_audience`",
            );
        }
        if !self.audiences.is_empty() && self.any_audience {
            return refuse("audiences", "`audience` and `any_audience` are both said: leave one out");
        }
        if !self.issuers.is_empty() && self.any_issuer {
            return refuse("issuers", "`issuer` and `any_issuer` are both said: leave one out");
        }
        let registered = self.provider.as_ref().is_none_or(|of| of.slot.load_full().issuer.is_some());
        if !registered && self.issuers.is_empty() && !self.any_issuer {
            return refuse(
                "issuers",
                "say whose tokens these are by the registration's `issuer` or by `issuer`, or that it does not \
                 matter by `any_issuer`",
            );
        }
        if self.required.len() > MOST_REQUIRED {
            return refuse("required_claims", "at most 64 claims can be required");
        }
        let algorithms = if self.algorithms.is_empty() {
            AlgorithmSet::ALL
        } else {
            self.algorithms.into_iter().collect()
        };
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let rules = Rules {
            claims: ClaimRules {
                audiences: self.audiences,
                required: self.required,
                may_lack_expiry: self.may_lack_expiry,
                leeway: millis(self.leeway),
                max_age: self.max_age.map(millis),
            },
            issuers: self.issuers,
            any_issuer: self.any_issuer,
            algorithms,
            types: self.types,
            max_bytes: self.max_token_bytes,
        };
        let tokens = (self.cache_bytes > 0).then(|| Tokens::new(self.cache_bytes));
        let (registry, provider, headers) = (self.registry, self.provider, Headers::default());
        Ok(Verifier(Arc::new(Parts { registry, provider, rules, headers, tokens })))
    }
}
