//! How a provider is doing, for people and their tools.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use jwks_cache_core::Moment;
use jwks_cache_core::key::SharedKey;
use jwks_cache_core::keyset::{LedgerEntry, Verdict};
use jwks_cache_core::published::Serving;
use serde::{Deserialize, Serialize};

use crate::refresh::Provider;
use crate::slot::View;
use crate::telemetry::{Told, Value, number};

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
    /// Which source the servable keys are of: `primary`, or a fallback. None where none are.
    #[serde(default)]
    pub serving: Option<ServingSource>,
    /// Where the issuer's metadata says that its keys are, without its query.
    #[serde(default)]
    pub jwks_uri: Option<String>,
}

/// Which source serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServingSource {
    /// The registered one.
    Primary,
    /// One of [`fallbacks`](crate::IdentityProviderRegistration::fallbacks), because the registered one fails.
    Fallback {
        /// Its place among them, from 0.
        index: u16,
        /// Where it is.
        place: String,
    },
}

/// One key of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStatus {
    /// Its kid, escaped, and cut after 128 characters.
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

/// The states of a key; API.
pub(crate) const USABLE: &str = "usable";
pub(crate) const SET_ASIDE: &str = "set_aside";
pub(crate) const DENIED: &str = "denied";
pub(crate) const RETIRING: &str = "retiring";

/// A kid as it may be shown: escaped and cut.
pub(crate) fn shown_kid(kid: &str) -> String {
    const LONGEST: usize = 128;
    let mut shown: String = kid.chars().take(LONGEST).flat_map(char::escape_default).collect();
    if kid.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

impl Provider {
    pub(crate) fn status(&self) -> ProviderStatus {
        let (now, wall) = (self.engine.now(), self.engine.clock.wall());
        let view = self.front.slot.load_full();
        let held = view.published.held.as_ref().filter(|held| held.is_servable(now));
        let counts = self.counts();
        let at = |moment: Moment| wall_at(moment, now, wall);
        ProviderStatus {
            tenant_id: self.tenant().to_owned(),
            provider_id: self.id().to_owned(),
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
            metrics: self.status_metrics(),
            last_error: view.last_error.as_ref().map(ToString::to_string),
            keys: key_statuses(&view, now),
            denied: view.published.denials.ids().map(shown_kid).collect(),
            serving: held.map(|held| match held.serving {
                Serving::Primary => ServingSource::Primary,
                Serving::Fallback(index) => {
                    ServingSource::Fallback { index, place: self.shown_fallback(index).to_string() }
                }
            }),
            jwks_uri: self.jwks_uri().map(String::from),
        }
    }

    /// Every key of the held document, and the retiring ones.
    pub(crate) fn key_statuses(&self) -> Vec<KeyStatus> {
        key_statuses(&self.front.slot.load_full(), self.engine.now())
    }

    fn status_metrics(&self) -> Vec<StatusMetric> {
        let label = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        // A copy costs less than a map that is made anew, and there are dozens.
        let labels: HashMap<_, _> =
            [("tenant", self.tenant()), ("provider", self.id())].map(label).into_iter().collect();
        let metric = |told: Told| {
            let value = match told.value {
                Value::Counter(count) => number(count),
                Value::Gauge(value) => value?,
            };
            let mut labels = labels.clone();
            labels.extend(told.label.map(label));
            Some(StatusMetric { name: told.name.to_owned(), value, labels })
        };
        self.told().filter_map(metric).collect()
    }

    /// Whether it has servable usable keys; asking is a read of one that has none.
    pub(crate) fn health(self: &Arc<Self>) -> ProviderHealth {
        let now = self.engine.now();
        let view = self.front.slot.load_full();
        let ready = view.published.has_usable_keys(now);
        if !ready {
            self.front.slot.note_read();
            self.nudge();
        }
        ProviderHealth {
            tenant_id: self.tenant().to_owned(),
            provider_id: self.id().to_owned(),
            required: self.registration().required,
            ready,
            last_error: view.last_error.as_ref().map(ToString::to_string),
        }
    }
}

fn key_statuses(view: &View, now: Moment) -> Vec<KeyStatus> {
    let published = &view.published;
    let Some(held) = &published.held else { return Vec::new() };
    let entry = |entry: &LedgerEntry| KeyStatus {
        kid: entry.kid().map(shown_kid),
        thumbprint: entry.thumbprint().map(|thumbprint| thumbprint.to_string()),
        state: state_of(entry, view).to_owned(),
        reason: match entry.verdict() {
            Verdict::SetAside { reason, .. } => Some(reason.as_str().to_owned()),
            Verdict::Usable => None,
        },
    };
    let old = |key: &SharedKey| KeyStatus {
        kid: key.kid().map(shown_kid),
        thumbprint: Some(key.thumbprint().to_string()),
        state: RETIRING.to_owned(),
        reason: None,
    };
    held.set.ledger().iter().map(entry).chain(retiring(view, now).map(old)).collect()
}

/// The state of every key of the held document, and of the retiring ones.
pub(crate) fn key_states(view: &View, now: Moment) -> impl Iterator<Item = &'static str> {
    let ledger = view.published.held.iter().flat_map(|held| held.set.ledger());
    ledger.map(|entry| state_of(entry, view)).chain(retiring(view, now).map(|_| RETIRING))
}

fn state_of(entry: &LedgerEntry, view: &View) -> &'static str {
    match entry.verdict() {
        Verdict::SetAside { .. } => SET_ASIDE,
        Verdict::Usable if entry.key().is_some_and(|key| view.published.denials.denies(key)) => DENIED,
        Verdict::Usable => USABLE,
    }
}

/// Keys that no document has any more, and that are still trusted.
fn retiring(view: &View, now: Moment) -> impl Iterator<Item = &SharedKey> {
    let held = view.published.held.is_some();
    view.published.retiring.iter().filter(move |old| held && now < old.until).map(|old| &old.key)
}

/// A moment on the wall, as far as the wall's calendar reaches.
pub(crate) fn wall_at(moment: Moment, now: Moment, wall: DateTime<Utc>) -> Option<DateTime<Utc>> {
    if moment >= now {
        wall.checked_add_signed(chrono::TimeDelta::from_std(moment.since(now)).ok()?)
    } else {
        wall.checked_sub_signed(chrono::TimeDelta::from_std(now.since(moment)).ok()?)
    }
}
