//! What a cache holds, as a view built when asked for.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::JwkSet;
use tokio::time::Instant;

/// What a cache holds and does.
#[derive(Clone, Debug)]
pub enum CacheState {
    /// Nothing servable is held.
    Empty,
    /// Nothing servable is held, and a flight runs.
    Loading,
    /// Keys are servable.
    Ready(CachePayload),
    /// Keys are servable, and a flight runs.
    Refreshing(CachePayload),
}

/// A held set with its times.
#[derive(Clone, Debug)]
pub struct CachePayload {
    /// The set, as published.
    pub jwks: Arc<JwkSet>,
    /// Its `ETag`.
    pub etag: Option<String>,
    /// Its `Last-Modified`.
    pub last_modified: Option<DateTime<Utc>>,
    /// When the provider last answered with it.
    pub last_refresh_at: DateTime<Utc>,
    /// Fresh until.
    pub expires_at: Instant,
    /// A refresh is due from.
    pub next_refresh_at: Instant,
    /// Served until while the provider fails; `None` when not beyond expiry.
    pub stale_deadline: Option<Instant>,
    /// How long no flight starts by itself.
    pub retry_backoff: Option<Duration>,
    /// Flights that failed in a row.
    pub error_count: u32,
}

impl CachePayload {
    /// Whether its lifetime is over.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        now >= self.expires_at
    }

    /// Whether its lifetime is over and its stale window is not.
    #[must_use]
    pub fn can_serve_stale(&self, now: Instant) -> bool {
        self.is_expired(now) && self.stale_deadline.is_some_and(|deadline| now < deadline)
    }
}
