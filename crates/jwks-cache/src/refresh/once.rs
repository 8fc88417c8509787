//! One exchange outside of any registry, for people and tools that look at a source by hand. Nothing is
//! judged, kept or tried again here.

use std::sync::Arc;

use jwks_cache_core::freshness::Validators;
use tokio::time::timeout;

use super::Source;
use crate::engine::{Engine, EngineParts};
use crate::error::Result;
use crate::fetch::{Fetched, NotFetched};
use crate::registration::IdentityProviderRegistration;

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
    registration.validate()?;
    let time = registration.retry_policy.attempt_timeout;
    let source = Source::new(registration.clone(), Arc::default(), &Arc::default());
    let request = source.request(&Validators::default(), false);
    let engine = Engine::new(EngineParts::default());
    // Reading the machine's roots is not the provider's time.
    engine.prepare().await;
    let exchange = async {
        timeout(time, engine.fetch.fetch(&request)).await.unwrap_or_else(|_| Err(NotFetched::timed_out(time)))
    };
    exchange.await.map_err(|failed| source.failure(failed, 1).to_error())
}
