//! How a provider is doing, for people and their tools.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use chrono::{DateTime, Utc};
use jwks_cache_core::Moment;
use jwks_cache_core::keyset::{LedgerEntry, Verdict};
use serde::{Deserialize, Serialize};

use crate::refresh::Provider;
use crate::slot::View;

/// What a provider is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum ProviderState {
    /// Nothing servable is held, and nothing runs.
    Empty,
    /// Nothing servable is held, and a flight runs.
    Loading,
    /// Keys are servable.
    Ready,
    /// Keys are servable, and a flight runs.
    Refreshing,
}

/// The status of one provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProviderStatus {
    /// The tenant.
    pub tenant_id: String,
    /// The provider.
    pub provider_id: String,
    /// What it is doing.
    pub state: ProviderState,
    /// When the provider last answered with what is held, by a 200 or a 304.
    pub last_refresh: Option<DateTime<Utc>>,
    /// When the next refresh is due.
    pub next_refresh: Option<DateTime<Utc>>,
    /// When what is held expires.
    pub expires_at: Option<DateTime<Utc>>,
    /// Flights that failed in a row.
    pub error_count: u32,
    /// The share of lookups answered at once; 0 before the first.
    pub hit_rate: f64,
    /// The share of lookups answered with expired keys; 0 before the first.
    pub stale_serve_ratio: f64,
    /// Counters and gauges by name.
    pub metrics: Vec<StatusMetric>,
    /// Why the last flight failed, if the last one did.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Every key of the held document, and what became of it.
    #[serde(default)]
    pub keys: Vec<KeyStatus>,
    /// Kids and thumbprints that are denied.
    #[serde(default)]
    pub denied: Vec<String>,
}

/// One key of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStatus {
    /// Its kid, escaped and cut to 64 characters.
    pub kid: Option<String>,
    /// Its RFC 7638 thumbprint.
    pub thumbprint: Option<String>,
    /// `usable`, `set_aside`, `denied` or `retiring`.
    pub state: String,
    /// Why it was set aside.
    pub reason: Option<String>,
}

/// One number of a status.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusMetric {
    /// The name; counters are named as in the recorder.
    pub name: String,
    /// The value.
    pub value: f64,
    /// `tenant` and `provider`.
    #[serde(default)]
    pub labels: HashMap<String, String>,
}

/// Whether a provider is ready.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProviderHealth {
    /// The tenant.
    pub tenant_id: String,
    /// The provider.
    pub provider_id: String,
    /// Whether readiness waits for it.
    pub required: bool,
    /// Whether it has servable usable keys.
    pub ready: bool,
    /// Why the last flight failed, if the last one did.
    pub last_error: Option<String>,
}

/// Whether a registry is ready.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Health {
    /// Whether every required provider has servable usable keys.
    pub ready: bool,
    /// Each provider.
    pub providers: Vec<ProviderHealth>,
}

impl Health {
    pub(crate) fn of(providers: Vec<ProviderHealth>) -> Self {
        Self { ready: providers.iter().all(|provider| provider.ready || !provider.required), providers }
    }
}

/// A kid as it may be shown: escaped and cut.
pub(crate) fn shown_kid(kid: &str) -> String {
    kid.chars().take(64).flat_map(char::escape_default).collect()
}

impl Provider {
    pub(crate) fn status(&self) -> ProviderStatus {
        let (now, wall) = (self.engine.now(), self.engine.clock.wall());
        let view = self.slot.load_full();
        let held = view.published.held.as_ref().filter(|held| held.is_servable(now));
        let counts = self.counters.counts();
        let at = |moment: Moment| wall_at(moment, now, wall);
        ProviderStatus {
            tenant_id: self.tenant.to_string(),
            provider_id: self.id.to_string(),
            state: match (held, &view.flight) {
                (None, None) => ProviderState::Empty,
                (None, Some(_)) => ProviderState::Loading,
                (Some(_), None) => ProviderState::Ready,
                (Some(_), Some(_)) => ProviderState::Refreshing,
            },
            last_refresh: view.published.held.as_ref().map(|held| held.received_wall),
            next_refresh: held.and_then(|held| at(held.refresh_at.max(view.published.backoff_until))),
            expires_at: view.published.held.as_ref().and_then(|held| at(held.fresh_until())),
            error_count: self.failures(),
            hit_rate: counts.hit_rate(),
            stale_serve_ratio: counts.stale_ratio(),
            metrics: self.status_metrics(&view, now),
            last_error: view.last_error.as_ref().map(ToString::to_string),
            keys: key_statuses(&view, now),
            denied: view.published.denials.ids().map(shown_kid).collect(),
        }
    }

    fn status_metrics(&self, view: &View, now: Moment) -> Vec<StatusMetric> {
        let counts = self.counters.counts();
        let labels: HashMap<_, _> = [("tenant", &self.tenant), ("provider", &self.id)]
            .map(|(name, value)| (name.to_owned(), value.to_string()))
            .into();
        let age = view.published.held.as_ref().map(|held| now.since(held.received_at).as_secs());
        #[expect(clippy::cast_precision_loss, reason = "a number for people; exact below 2^53")]
        let metric = |(name, value): (&str, u64)| StatusMetric {
            name: format!("jwks_cache_{name}"),
            value: value as f64,
            labels: labels.clone(),
        };
        [
            Some(("requests_total", counts.requests)),
            Some(("hits_total", counts.hits)),
            Some(("misses_total", counts.misses)),
            Some(("stale_total", counts.stale)),
            Some(("failed_lookups_total", counts.failed)),
            Some(("refresh_total", counts.refresh_successes + counts.refresh_errors)),
            Some(("refresh_errors_total", counts.refresh_errors)),
            Some(("not_modified_total", self.counters.not_modified.load(Relaxed))),
            Some(("upstream_requests_total", self.counters.requests_sent.load(Relaxed))),
            Some(("kid_misses_total", self.counters.kid_misses.load(Relaxed))),
            Some(("kid_fetches_total", self.counters.kid_fetches.load(Relaxed))),
            Some(("lost_flights_total", self.counters.lost_flights.load(Relaxed))),
            counts.last_refresh_micros.map(|micros| ("last_refresh_micros", micros)),
            age.map(|seconds| ("age_seconds", seconds)),
        ]
        .into_iter()
        .flatten()
        .map(metric)
        .collect()
    }

    /// Whether it has servable usable keys; asking is a read of one that has none.
    pub(crate) fn health(self: &Arc<Self>) -> ProviderHealth {
        let now = self.engine.now();
        let view = self.slot.load_full();
        let ready = view.published.has_usable_keys(now);
        if !ready {
            self.slot.note_read();
            self.nudge();
        }
        ProviderHealth {
            tenant_id: self.tenant.to_string(),
            provider_id: self.id.to_string(),
            required: self.registration().required,
            ready,
            last_error: view.last_error.as_ref().map(ToString::to_string),
        }
    }
}

fn key_statuses(view: &View, now: Moment) -> Vec<KeyStatus> {
    let published = &view.published;
    let Some(held) = &published.held else { return Vec::new() };
    let entry = |entry: &LedgerEntry| {
        let (state, reason) = match entry.verdict() {
            Verdict::SetAside { reason, .. } => ("set_aside", Some(reason.as_str().to_owned())),
            Verdict::Usable if entry.key().is_some_and(|key| published.denials.denies(key)) => {
                ("denied", None)
            }
            Verdict::Usable => ("usable", None),
        };
        KeyStatus {
            kid: entry.kid().map(shown_kid),
            thumbprint: entry.thumbprint().map(|thumbprint| thumbprint.to_string()),
            state: state.to_owned(),
            reason,
        }
    };
    let mut keys: Vec<KeyStatus> = held.set.ledger().iter().map(entry).collect();
    keys.extend(published.retiring.iter().filter(|old| now < old.until).map(|old| KeyStatus {
        kid: old.key.kid().map(shown_kid),
        thumbprint: Some(old.key.thumbprint().to_string()),
        state: "retiring".to_owned(),
        reason: None,
    }));
    keys
}

/// A moment on the wall, as far as the wall's calendar reaches.
pub(crate) fn wall_at(moment: Moment, now: Moment, wall: DateTime<Utc>) -> Option<DateTime<Utc>> {
    if moment >= now {
        wall.checked_add_signed(chrono::TimeDelta::from_std(moment.since(now)).ok()?)
    } else {
        wall.checked_sub_signed(chrono::TimeDelta::from_std(now.since(moment)).ok()?)
    }
}
