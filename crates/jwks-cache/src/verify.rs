//! Verifying tokens: from a header to typed claims, in the one order that is safe.
//!
//! ```text
//! token ─▶ three parts ─▶ header ─▶ provider ─▶ key ─▶ signature ─▶ claims ─▶ Verified
//! ```
//!
//! The provider is named by the caller, or found by the claimed issuer among those registered: nothing else of a
//! token is believed before its signature is verified. A token never causes a request to anything that is not
//! registered. This room does not know how keys are held or fetched.

#[cfg(feature = "actix-web")]
pub mod actix_web;
#[cfg(feature = "axum")]
pub mod axum;
pub mod bearer;
mod builder;
mod cache;
mod error;
mod explain;
mod headers;
#[cfg(feature = "tonic")]
pub mod tonic;
#[cfg(feature = "tower")]
pub mod tower;
mod verified;

use std::borrow::Cow;
use std::sync::Arc;

use jwks_cache_core::key::{KeyRef, VerificationKey};
use jwks_cache_core::token::{ClaimRules, Claims, Compact, Header, Room, Times, key_issuer_fits, text};
use jwks_cache_core::{Algorithm, AlgorithmSet};
use serde::de::DeserializeOwned;

use self::cache::{Digest, Entry, Tokens};
use self::headers::Headers;
use self::verified::By;
use crate::clock::Clock;
use crate::epoch::Shared;
use crate::error::{Error, KeyError};
use crate::front::Front;
use crate::refresh::Provider;
use crate::registry::Registry;
use crate::resolve::{self, KeyOfIssuer, OneKey, Whose};

pub use builder::VerifierBuilder;
pub use error::{KeyDetail, Malformed, Part, Unfit, Unsupported, VerifyError, VerifyErrorKind};
pub use explain::Explanation;
pub use verified::{StandardClaims, Verified};

/// Room for what is decoded, on the stack; what is longer goes to the heap.
const HEADER: usize = 384;
const PAYLOAD: usize = 768;
/// RSA of 2048 bits, and what decoding may need besides.
const SIGNATURE: usize = 264;

/// Verifies tokens by the keys of a registry. Cloning it is cheap.
///
/// It takes compact JWS signed by an asymmetric algorithm (RFC 8725 §3.1), whose key belongs to the provider that
/// the token should come from. `crit`, unencoded and detached payloads, JSON serialisation and JWE are refused;
/// `jku`, `jwk`, `x5u` and `x5c` are never looked at. The algorithm must be one that the key may verify: the header
/// alone never chooses it.
///
/// ```no_run
/// use jwks_cache::{IdentityProviderRegistration, Registry, StandardClaims, verify::VerifyErrorKind};
///
/// # async fn request(bearer: &str) -> jwks_cache::Result<()> {
/// let registry = Registry::new();
/// let mut registration = IdentityProviderRegistration::new("acme", "main", "https://id.example.com/jwks.json")?;
/// registration.issuer = Some("https://id.example.com".into());
/// registry.register(registration).await?;
///
/// // Once:
/// let verifier = registry.verifier().audience("orders").build()?;
/// // For each request:
/// match verifier.verify::<StandardClaims>(bearer).await {
///     Ok(token) => println!("{:?} of {}", token.sub, token.tenant_id()),
///     Err(why) => {
///         println!("{}: {why}", why.kind().status()); // for the client
///         eprintln!("{}", why.detail()); // for the log
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Verifier(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    /// The only provider, if it was built for one. It goes before the registry, which frees what is left.
    provider: Option<Shared<Front>>,
    registry: Registry,
    rules: Rules,
    headers: Headers,
    tokens: Option<Tokens>,
}

/// What tokens are held to.
#[derive(Debug)]
struct Rules {
    claims: ClaimRules,
    issuers: Vec<String>,
    any_issuer: bool,
    algorithms: AlgorithmSet,
    types: Vec<String>,
    max_bytes: usize,
}

/// Whose keys may verify.
#[derive(Clone, Copy, Debug)]
enum Scope<'a> {
    /// The provider registered under the token's issuer.
    Any,
    /// The same within a tenant.
    Tenant(&'a str),
    /// This one.
    Named(&'a str, &'a str),
    /// This one.
    Held(&'a Front),
}

impl Scope<'_> {
    const fn asks_for_issuer(self) -> bool {
        matches!(self, Self::Any | Self::Tenant(_))
    }
}

impl Verifier {
    /// Verifies a token of the one provider that its issuer (`iss`) is registered for: the field
    /// [`issuer`](crate::IdentityProviderRegistration::issuer), byte for byte. However many are registered, this
    /// costs the same. An issuer that several are registered for leads to none of them: name the tenant.
    ///
    /// A verifier that was built from a [`ProviderHandle`](crate::ProviderHandle) takes that provider's keys.
    ///
    /// # Errors
    /// See [`VerifyError`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing for other callers.
    pub async fn verify<C>(&self, token: &str) -> Result<Verified<C>, VerifyError>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        self.own().verify(token).await
    }

    /// The same from keys at hand: never waits. What [`Verifier::verify`] would wait for is started in the background,
    /// where there is a runtime.
    ///
    /// # Errors
    /// [`VerifyError::NotCached`] where [`Verifier::verify`] would wait; otherwise as that.
    pub fn verify_now<C>(&self, token: &str) -> Result<Verified<C>, VerifyError>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        self.own().verify_now(token)
    }

    /// Which key would verify a token, or why none would. Takes a token, its encoded header alone, or the header's
    /// JSON. Starts nothing, waits for nothing, and says nothing about the signature.
    #[must_use]
    pub fn explain(&self, token: &str) -> Explanation {
        self.own().explain(token)
    }

    /// The same rules, among a tenant's providers: the one that the token's issuer is registered for. A verifier that
    /// was built from a [`ProviderHandle`](crate::ProviderHandle) has that provider alone, whatever is named.
    #[must_use]
    pub fn in_tenant<'a>(&'a self, tenant_id: &'a str) -> Scoped<'a> {
        Scoped { of: &self.0, scope: Scope::Tenant(tenant_id) }
    }

    /// The same rules, for one provider; with the same exception.
    #[must_use]
    pub fn of_provider<'a>(&'a self, tenant_id: &'a str, provider_id: &'a str) -> Scoped<'a> {
        Scoped { of: &self.0, scope: Scope::Named(tenant_id, provider_id) }
    }

    fn own(&self) -> Scoped<'_> {
        let scope = self.0.provider.as_deref().map_or(Scope::Any, Scope::Held);
        Scoped { of: &self.0, scope }
    }
}

/// A [`Verifier`] for tokens of one tenant or provider: made in passing, for each token.
#[derive(Clone, Copy, Debug)]
pub struct Scoped<'a> {
    of: &'a Parts,
    scope: Scope<'a>,
}

/// Why a token is not verified yet.
enum Halt {
    Refused(VerifyError),
    Wait(Waiting),
}

/// A key that is to be waited for.
pub(crate) struct Waiting {
    provider: Arc<Provider>,
    kid: Option<String>,
    algorithm: Algorithm,
}

/// A key that was waited for: whose, and of which issuer, and whether that is a template.
type Waited = (Arc<Provider>, VerificationKey, Option<Arc<str>>, bool);

impl<E: Into<VerifyError>> From<E> for Halt {
    fn from(refused: E) -> Self {
        Self::Refused(refused.into())
    }
}

impl Scoped<'_> {
    /// As [`Verifier::verify`].
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    ///
    /// # Cancel safety
    /// As [`Verifier::verify`].
    pub async fn verify<C>(&self, token: &str) -> Result<Verified<C>, VerifyError>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        match self.begin(token) {
            Ok(verified) => verified,
            Err(waiting) => self.wait(token, waiting).await,
        }
    }

    /// The answer if it is at hand; else what to wait for.
    fn begin<C>(&self, token: &str) -> Result<Result<Verified<C>, VerifyError>, Waiting>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        match self.go(token, None) {
            Ok(verified) => Ok(Ok(verified)),
            Err(Halt::Refused(why)) => Ok(Err(why)),
            Err(Halt::Wait(waiting)) => Err(waiting),
        }
    }

    async fn wait<C>(&self, token: &str, waiting: Waiting) -> Result<Verified<C>, VerifyError>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        let Waiting { provider, kid, algorithm } = waiting;
        let kid = kid.as_deref();
        let (key, issuer, template) = resolve::waited(&provider, &KeyOfIssuer(OneKey { kid, algorithm }))
            .await
            .map_err(|error| VerifyError::of_lookup(error, &provider.front, kid))?;
        // From the start: beside what was waited for, a second look at the text costs nothing.
        self.go(token, Some((provider, key, issuer, template))).map_err(|halt| match halt {
            Halt::Refused(why) => why,
            Halt::Wait(_) => VerifyError::NotCached,
        })
    }

    /// As [`Verifier::verify_now`].
    ///
    /// # Errors
    /// As [`Verifier::verify_now`].
    pub fn verify_now<C>(&self, token: &str) -> Result<Verified<C>, VerifyError>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        self.go(token, None).map_err(|halt| match halt {
            Halt::Refused(why) => why,
            Halt::Wait(Waiting { provider, kid, algorithm }) => {
                let kid = kid.as_deref();
                let why = resolve::not_waited(&provider, &OneKey { kid, algorithm });
                VerifyError::of_lookup(why, &provider.front, kid)
            }
        })
    }

    /// As [`Verifier::explain`].
    #[must_use]
    pub fn explain(&self, token: &str) -> Explanation {
        explain::explain(self, token)
    }

    /// Goes as far as keys at hand reach, or with the key that was waited for.
    fn go<C>(&self, token: &str, waited_for: Option<Waited>) -> Result<Verified<C>, Halt>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        let Parts { rules, headers, tokens, .. } = self.of;
        let digest = tokens.as_ref().filter(|_| token.len() <= rules.max_bytes).map(|_| cache::digest(token));
        if let (Some(tokens), Some(digest), None) = (tokens, &digest, &waited_for)
            && let Some(verified) = self.recall(tokens, digest)
        {
            return verified.map_err(Halt::Refused);
        }
        let parts = Compact::split(token, rules.max_bytes)?;
        let headers = headers.open();
        let (known, mut room) = (headers.get(parts.header()), None);
        let header = match known {
            Some(known) => known.header(),
            None => {
                let room = room.insert(Room::<HEADER>::new());
                let header = Header::read(text(room.decode(parts.header(), Part::Header)?, Part::Header)?)?;
                rules.check_header(&header)?;
                header
            }
        };
        let (kid, algorithm) = (header.kid.as_deref(), header.algorithm);
        let (mut payload, mut signature) = (Room::new(), Room::new());
        // All that can be said of the text alone is said before anything is looked up: the same to everybody.
        let mut opened = Opened::new(parts, &mut payload, &mut signature)?;
        let (issuer, of_entra) =
            if self.scope.asks_for_issuer() { opened.claimed_issuer(rules)? } else { ("".into(), None) };

        let clock = self.of.registry.clock();
        let judge = |provider: &Front, key: KeyRef<'_>, of_provider: Whose<'_>| {
            opened.judge(self.of, provider, kid, key, of_provider, digest.is_some())
        };
        let (verified, entry) = match waited_for {
            Some((provider, key, issuer, template)) => {
                let whose = Whose { issuer: issuer.as_ref(), template: &template };
                judge(&provider.front, key.borrowed(), whose)?
            }
            None => self.with_provider(&issuer, of_entra.as_deref(), |provider| {
                let want = KeyOfIssuer(OneKey { kid, algorithm });
                match resolve::at_hand(provider, clock, &want, |(key, issuer)| judge(provider, key, issuer)) {
                    Some(Ok(judged)) => Ok(judged?),
                    Some(Err(why)) => Err(VerifyError::of_lookup(Error::Key(why), provider, kid).into()),
                    None => {
                        let provider = provider.provider().ok_or(VerifyError::UnknownProvider)?;
                        let kid = kid.map(str::to_owned);
                        Err(Halt::Wait(Waiting { provider, kid, algorithm }))
                    }
                }
            })??,
        };
        if known.is_none() {
            headers.insert(parts.header(), &header);
        }
        if let (Some(tokens), Some(digest), Some(entry)) = (tokens, digest, entry) {
            tokens.insert::<C>(digest, entry);
        }
        Ok(verified)
    }

    /// A token that was verified before, if all that made it so still holds: provider, key, issuer, times.
    fn recall<C>(&self, tokens: &Tokens, digest: &Digest) -> Option<Result<Verified<C>, VerifyError>>
    where
        C: Send + Sync + 'static,
    {
        let entry = tokens.get::<C>(digest)?;
        let holds = self.judge_again(&entry);
        if !matches!(holds, Some(Ok(_))) {
            tokens.remove::<C>(digest);
        }
        holds
    }

    /// Judges a remembered token by all but its signature. None where it must be looked at anew.
    fn judge_again<C>(&self, entry: &Entry) -> Option<Result<Verified<C>, VerifyError>>
    where
        C: Send + Sync + 'static,
    {
        let rules = &self.of.rules;
        let verified = entry.verified::<C>()?;
        let kid = verified.kid().filter(|_| entry.names_key);
        let want = KeyOfIssuer(OneKey { kid, algorithm: verified.algorithm() });
        let issuer = entry.issuer.as_deref();
        let clock = self.of.registry.clock();
        let judge = |provider: &Front| {
            if provider.serial != verified.serial() {
                return None;
            }
            resolve::at_hand_if(provider, clock, &want, |found| {
                let (key, of_provider) =
                    found.ok().filter(|(key, _)| key.thumbprint() == verified.thumbprint())?;
                let of_key = key.key().issuer();
                rules.check_issuer(issuer, entry.entra_tenant.as_deref(), of_provider, of_key).ok()?;
                Some(rules.check_times(entry.times, clock))
            })
        };
        let of_entra = entry.entra_tenant.as_deref();
        let times = self.with_provider(issuer.unwrap_or_default(), of_entra, judge).ok()??;
        Some(times.map(|()| verified))
    }

    /// Lends the provider whose keys may verify. The issuer counts where the scope asks for it: as it stands there, or
    /// else with `{tenantid}` where it names the token's directory.
    fn with_provider<R>(
        &self,
        issuer: &str,
        entra_tenant: Option<&str>,
        then: impl FnOnce(&Front) -> R,
    ) -> Result<R, VerifyError> {
        let Parts { registry, provider: own, .. } = self.of;
        let then =
            |found: &Front| own.as_deref().is_none_or(|own| std::ptr::eq(own, found)).then(|| then(found));
        let mut then = Some(then);
        let mut lend = |found: &Front| then.take().and_then(|then| then(found));
        let mut by_issuer = |tenant: Option<&str>| {
            let found = registry.with_issuer(tenant, issuer, &mut lend);
            let of_template = || registry.with_issuer(tenant, &of_template(issuer, entra_tenant?), &mut lend);
            // An issuer of several is somebody's: it is of no template.
            found.or_else(of_template).flatten()
        };
        let done = match self.scope {
            Scope::Held(provider) => Some(lend(provider)),
            Scope::Named(tenant, id) => registry.with_named(tenant, id, lend),
            Scope::Tenant(tenant) => by_issuer(Some(tenant)),
            Scope::Any => by_issuer(None),
        };
        done.flatten().ok_or(VerifyError::UnknownProvider)
    }
}

/// The template that an issuer is of, if it names the directory `tid` in a part of its own.
fn of_template(issuer: &str, tid: &str) -> String {
    let parts: Vec<_> = issuer.split('/').map(|part| if part == tid { "{tenantid}" } else { part }).collect();
    parts.join("/")
}

/// A token that was taken apart, and of which nothing is believed.
struct Opened<'t> {
    parts: Compact<'t>,
    payload: &'t [u8],
    signature: &'t [u8],
    /// Its text and what that claims, once somebody looked.
    claims: Option<(&'t str, Claims<'t>)>,
}

/// An issuer, and a directory of it.
type Claimed<'t> = (Cow<'t, str>, Option<Cow<'t, str>>);

impl<'t> Opened<'t> {
    fn new(
        parts: Compact<'t>,
        payload: &'t mut Room<PAYLOAD>,
        signature: &'t mut Room<SIGNATURE>,
    ) -> Result<Self, VerifyError> {
        let payload = payload.decode(parts.payload(), Part::Claims)?;
        let signature = signature.decode(parts.signature(), Part::Signature)?;
        Ok(Self { parts, payload, signature, claims: None })
    }

    /// Which issuer it claims to be of, and which directory of it: enough to choose among those registered, and for nothing else.
    fn claimed_issuer(&mut self, rules: &Rules) -> Result<Claimed<'t>, VerifyError> {
        if self.payload.is_empty() {
            return Err(VerifyError::Unsupported(Unsupported::Detached));
        }
        let read = self.read(rules)?;
        let (_, claims) = self.claims.insert(read);
        let issuer = claims.issuer()?.ok_or(VerifyError::MissingClaim("iss".into()))?;
        Ok((issuer, claims.entra_tenant()))
    }

    fn read(&self, rules: &Rules) -> Result<(&'t str, Claims<'t>), VerifyError> {
        let json = text(self.payload, Part::Claims)?;
        Ok((json, Claims::read(json, &rules.claims)?))
    }

    /// The token verified by a key, and held to its provider's issuer and the rules; and what to remember of it, if asked.
    fn judge<C>(
        self,
        of: &Parts,
        provider: &Front,
        kid: Option<&str>,
        key: KeyRef<'_>,
        of_provider: Whose<'_>,
        remembers: bool,
    ) -> Result<(Verified<C>, Option<Arc<Entry>>), VerifyError>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        let Parts { rules, registry, .. } = of;
        if key.verify(self.parts.signing_input().as_bytes(), self.signature).is_err() {
            // Over an empty payload it may be a detached one's, as its sender knows: no reason to doubt the key.
            if let Some(provider) = provider.provider().filter(|_| !self.payload.is_empty()) {
                provider.suspect_rotation();
            }
            return Err(VerifyError::BadSignature(KeyDetail::new(provider, kid, KeyError::NoMatch)));
        }
        // From here on the token's text is its provider's.
        let (json, claims) = match self.claims {
            Some(read) => read,
            None => self.read(rules)?,
        };
        let (issuer, of_entra) = (claims.issuer()?, claims.entra_tenant());
        let of_key = key.key().issuer();
        rules.check_issuer(issuer.as_deref(), of_entra.as_deref(), of_provider, of_key)?;
        claims.check(&rules.claims)?;
        let times = claims.times()?;
        rules.check_times(times, registry.clock())?;
        let typed =
            serde_json::from_str(json).map_err(|error| VerifyError::UnfitClaims(Unfit::new(&error)))?;
        let verified = Verified::new(typed, By::new(provider, key), times.exp);
        let entry = remembers.then(|| {
            Entry::new(&verified, kid.is_some(), issuer.as_deref(), of_entra.as_deref(), times, json)
        });
        Ok((verified, entry))
    }
}

impl Rules {
    fn check_header(&self, header: &Header<'_>) -> Result<(), VerifyError> {
        if !self.algorithms.contains(header.algorithm) {
            return Err(VerifyError::Unsupported(Unsupported::Algorithm));
        }
        if !self.types.is_empty() && !header.is_of_type(&self.types) {
            return Err(VerifyError::WrongType);
        }
        Ok(())
    }

    /// Byte for byte (RFC 8725 §3.8), but for a template's directory: the provider's issuer, one of the verifier's, and
    /// the key's own.
    fn check_issuer(
        &self,
        issuer: Option<&str>,
        entra_tenant: Option<&str>,
        of_provider: Whose<'_>,
        of_key: Option<&str>,
    ) -> Result<(), VerifyError> {
        let registered = of_provider.issuer.is_some();
        let nobody_asks = !registered && self.issuers.is_empty() && of_key.is_none();
        let Some(issuer) = issuer else {
            let fine = nobody_asks && self.any_issuer;
            return if fine { Ok(()) } else { Err(VerifyError::MissingClaim("iss".into())) };
        };
        let is_the_providers = |own: &Arc<str>| match own.contains('{') && *of_provider.template {
            false => **own == *issuer,
            true => key_issuer_fits(own, issuer, entra_tenant),
        };
        let is_ours = of_provider.issuer.is_none_or(is_the_providers)
            && (self.issuers.is_empty() || self.issuers.iter().any(|one| one == issuer))
            && (registered || !self.issuers.is_empty() || self.any_issuer);
        let is_the_keys = of_key.is_none_or(|own| key_issuer_fits(own, issuer, entra_tenant));
        if is_ours && is_the_keys { Ok(()) } else { Err(VerifyError::WrongIssuer) }
    }

    fn check_times(&self, times: Times, clock: &dyn Clock) -> Result<(), VerifyError> {
        let now = clock.coarse_wall();
        Ok(times.check(&self.claims, now)?)
    }
}
