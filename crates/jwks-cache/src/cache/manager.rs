//! One provider's cache on its own: the same as in a registry, without one.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::jwk::JwkSet;
use jwks_cache_core::key::VerificationKey;
use jwks_cache_core::{Algorithm, Moment};
use tokio::time::Instant;

use super::state::{CachePayload, CacheState};
use crate::clock::{later, socket_now};
use crate::engine::{Engine, EngineParts};
use crate::error::{Error, Result};
use crate::refresh::{Provider, Source};
use crate::registration::IdentityProviderRegistration;
use crate::resolve::{self, OneKey, Want, WholeSet};
use crate::snapshot::PersistentSnapshot;

/// The cache of one provider, usable without a registry. Clones are one; dropping the last ends
/// its flight and timer.
#[derive(Clone, Debug)]
pub struct CacheManager(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    provider: Arc<Provider>,
    /// A registration that [`CacheManager::with_client`] could not refuse.
    invalid: bool,
}

impl CacheManager {
    /// A cache for one registration.
    ///
    /// # Errors
    /// As [`IdentityProviderRegistration::validate`].
    pub fn new(registration: IdentityProviderRegistration) -> Result<Self> {
        registration.validate()?;
        Ok(Self::build(registration, None))
    }

    /// A cache that uses your client. Give it `redirect::Policy::none()`: an answer from another URL
    /// than the one asked is refused. Its TLS, addresses and decompression are yours; deadlines and
    /// sizes stay ours. The `reqwest` that this crate re-exports brings no TLS backend of its own: install
    /// a default `rustls` crypto provider before you build a client from it. A registration that is not valid is
    /// refused at its first use, and one that sets `pinned_spki`, `tls`, `proxy`, `connect_timeout`,
    /// `private_networks`, or `headers` other than `Authorization`, at its first fetch: your client cannot be held to
    /// them. Headers it would take along when it follows a redirect to another origin; set them as the client's
    /// default headers if it follows none. `Authorization` and `bearer_token` go out: `reqwest` drops them there.
    #[must_use]
    pub fn with_client(registration: IdentityProviderRegistration, client: reqwest::Client) -> Self {
        Self::build(registration, Some(client))
    }

    fn build(registration: IdentityProviderRegistration, client: Option<reqwest::Client>) -> Self {
        let invalid = registration.validate().is_err();
        let engine = Engine::new(EngineParts { client, ..EngineParts::default() });
        let source = Source::new(registration, Arc::default(), &Arc::default(), &engine);
        Self(Arc::new(Inner { provider: Provider::new(engine, source), invalid }))
    }

    /// The provider's counters.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn metrics(&self) -> Arc<crate::metrics::ProviderMetrics> {
        Arc::new(crate::metrics::ProviderMetrics::of(self.0.provider.clone()))
    }

    /// What is held now.
    pub async fn snapshot(&self) -> CacheSnapshot {
        let provider = &self.0.provider;
        let (now, wall, instant) = (provider.engine.now(), provider.engine.clock.wall(), socket_now());
        let view = provider.front.slot.load_full();
        let at = |moment: Moment| instant_at(moment, now, instant);
        let payload = view.published.held.as_ref().filter(|held| held.is_servable(now)).map(|held| {
            let backoff = view.published.backoff_until.since(now);
            CachePayload {
                jwks: view.published.jwks().clone(),
                etag: held.headers.etag().map(ToOwned::to_owned),
                last_modified: held.headers.last_modified(),
                last_refresh_at: held.received_wall,
                expires_at: at(held.fresh_until()),
                next_refresh_at: at(held.refresh_at),
                stale_deadline: (held.servable_until > held.expires_at).then(|| at(held.servable_until)),
                retry_backoff: (!backoff.is_zero()).then_some(backoff),
                error_count: provider.failures(),
            }
        });
        let state = match (payload, &view.flight) {
            (None, None) => CacheState::Empty,
            (None, Some(_)) => CacheState::Loading,
            (Some(payload), None) => CacheState::Ready(payload),
            (Some(payload), Some(_)) => CacheState::Refreshing(payload),
        };
        CacheSnapshot { captured_at: instant, captured_at_wallclock: wall, state }
    }

    /// What the source brought last, to be stored, with the times it was granted: what is held, or what a fallback serves in
    /// place of. `None` before it brought anything.
    ///
    /// # Errors
    /// [`Error::Cache`] when a time is beyond the calendar.
    pub async fn persistent_snapshot(&self) -> Result<Option<PersistentSnapshot>> {
        self.0.provider.persistent_snapshot()
    }

    /// Takes a stored set. It is judged like a fetched body, gains no lifetime by it, and never
    /// replaces newer keys; its validators are not sent.
    ///
    /// # Errors
    /// [`Error::Validation`] naming the snapshot's field: `expires_at` when it is too old to serve.
    pub async fn restore_snapshot(&self, snapshot: PersistentSnapshot) -> Result<()> {
        self.valid()?;
        self.0.provider.restore(&snapshot)
    }

    /// As [`Registry::resolve`](crate::Registry::resolve).
    ///
    /// # Errors
    /// As [`Registry::resolve`](crate::Registry::resolve).
    pub async fn resolve(&self, kid: Option<&str>) -> Result<Arc<JwkSet>> {
        self.look(&WholeSet { kid }).await
    }

    /// As [`Registry::key`](crate::Registry::key).
    ///
    /// # Errors
    /// As [`Registry::key`](crate::Registry::key).
    pub async fn key(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<VerificationKey> {
        self.look(&OneKey { kid, algorithm }).await
    }

    /// As [`Registry::refresh`](crate::Registry::refresh).
    ///
    /// # Errors
    /// As [`Registry::refresh`](crate::Registry::refresh).
    pub async fn trigger_refresh(&self) -> Result<()> {
        self.valid()?;
        self.0.provider.engine.prepare().await;
        resolve::refresh(&self.0.provider).await
    }

    async fn look<W: Want>(&self, want: &W) -> Result<W::Answer> {
        self.valid()?;
        match resolve::at_hand(&self.0.provider.front, &*self.0.provider.engine.clock, want, W::keep) {
            Some(answer) => answer.map_err(Error::from),
            None => {
                self.0.provider.engine.prepare().await;
                resolve::waited(&self.0.provider, want).await
            }
        }
    }

    fn valid(&self) -> Result<()> {
        if !self.0.invalid {
            return Ok(());
        }
        // Pins come first: whatever else is wrong, this client cannot be held to them.
        self.0.provider.pins_are_enforceable()?;
        self.0.provider.registration().validate()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.provider.engine.schedule.close();
        self.provider.shut_down();
    }
}

/// What a cache held at one moment.
#[derive(Clone, Debug)]
pub struct CacheSnapshot {
    /// When.
    pub captured_at: Instant,
    /// The same on the wall.
    pub captured_at_wallclock: DateTime<Utc>,
    /// What.
    pub state: CacheState,
}

impl CacheSnapshot {
    /// An instant of this snapshot on the wall; `None` beyond the calendar.
    #[must_use]
    pub fn to_datetime(&self, instant: Instant) -> Option<DateTime<Utc>> {
        let wall = self.captured_at_wallclock;
        match instant.checked_duration_since(self.captured_at) {
            Some(ahead) => wall.checked_add_signed(TimeDelta::from_std(ahead).ok()?),
            None => {
                let behind = self.captured_at.saturating_duration_since(instant);
                wall.checked_sub_signed(TimeDelta::from_std(behind).ok()?)
            }
        }
    }
}

/// A moment as an instant. One before the machine's first instant becomes that.
fn instant_at(moment: Moment, now: Moment, instant: Instant) -> Instant {
    if moment >= now {
        later(instant, moment.since(now))
    } else {
        instant.checked_sub(now.since(moment)).unwrap_or(instant)
    }
}
