//! One exchange outside of any registry, for people and tools that look at a source by hand. Nothing is
//! judged, kept or tried again here.

use std::sync::Arc;

use jwks_cache_core::AlgorithmSet;
use jwks_cache_core::freshness::Validators;
use tokio::time::timeout;
use url::Url;

use super::Source;
use super::place::Asking;
use crate::engine::{Engine, EngineParts};
use crate::error::Result;
use crate::fetch::{Fetched, NotFetched};
use crate::registration::IdentityProviderRegistration;

/// What one look at a source brought.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Looked {
    /// The answer; its body is written as a key set, whatever the source's format.
    pub fetched: Fetched,
    /// The URL that gave it: the registered one, or the one that the issuer's metadata names.
    pub url: Url,
    /// What the issuer's metadata said, where it was asked.
    pub discovery: Option<LookedUp>,
}

/// What an issuer's metadata said.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LookedUp {
    /// Where it was found.
    pub location: Url,
    /// The algorithms that keys without `alg` may verify. Empty: it names none, so all.
    pub algorithms: Vec<crate::Algorithm>,
}

/// Fetches the registered URL once, by the rules of production: scheme, allowed hosts, redirects, TLS,
/// pins, credentials, sizes and `attempt_timeout` are the registration's. Sends no validators, so the answer is a 200.
///
/// The body is not judged, and no other attempt is made.
///
/// ```no_run
/// use jwks_cache::{IdentityProviderRegistration, fetch_once};
///
/// # async fn look() -> jwks_cache::Result<()> {
/// let registration = IdentityProviderRegistration::new("acme", "main", "https://id.example.com/jwks.json")?;
/// let fetched = fetch_once(&registration).await?;
/// println!("{} bytes", fetched.body.len());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Validation`](crate::Error::Validation) or [`Error::Security`](crate::Error::Security) when the
/// registration breaks a rule; otherwise as a flight whose only attempt failed.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn fetch_once(registration: &IdentityProviderRegistration) -> Result<Fetched> {
    look_once(registration).await.map(|looked| looked.fetched)
}

/// The same for any source, an issuer's metadata included, and where that led.
///
/// # Errors
/// As [`fetch_once`].
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn look_once(registration: &IdentityProviderRegistration) -> Result<Looked> {
    registration.validate()?;
    let time = registration.retry_policy.attempt_timeout;
    let engine = Engine::new(EngineParts::default());
    let source = Source::new(registration.clone(), Arc::default(), &Arc::default(), &engine);
    let policy = registration.policy();
    let asking =
        Asking { engine: &engine, source: &source, policy: &policy, provider: None, held_from: None };
    let place = &source.primary();
    let request = asking.request(place, &Validators::default(), false);
    // Reading the machine's roots is not the provider's time.
    engine.prepare().await;
    let asked = timeout(time, asking.ask(place, &request)).await;
    let fetched = asked.unwrap_or_else(|_| Err(NotFetched::timed_out(time)));
    let (fetched, discovered) = fetched.map_err(|failed| source.failure(place, failed, 1).to_error())?;
    let url = discovered.as_ref().map_or(request.url, |found| found.metadata.jwks_uri.clone());
    let discovery = discovered.map(|found| LookedUp {
        location: found.location.clone(),
        algorithms: match found.metadata.algorithms {
            AlgorithmSet::ALL => Vec::new(),
            some => some.iter().collect(),
        },
    });
    Ok(Looked { fetched, url, discovery })
}
