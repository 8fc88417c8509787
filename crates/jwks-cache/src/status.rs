//! How a provider is doing, for people and their tools.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use jwks_cache_core::Moment;
use jwks_cache_core::keyset::{LedgerEntry, Verdict};
use jwks_cache_core::published::{Published, Retiring, Serving};
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

/// What became of a key.
#[derive(Clone, Copy)]
enum Fate {
    Usable,
    SetAside,
    Denied,
    Retiring,
}

impl Fate {
    const ALL: [Self; 4] = [Self::Usable, Self::SetAside, Self::Denied, Self::Retiring];

    /// The state of a key; API.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::SetAside => "set_aside",
            Self::Denied => "denied",
            Self::Retiring => "retiring",
        }
    }

    fn of(entry: &LedgerEntry, published: &Published) -> Self {
        match entry.verdict() {
            Verdict::SetAside { .. } => Self::SetAside,
            Verdict::Usable if entry.key().is_some_and(|key| published.denials.denies(key)) => Self::Denied,
            Verdict::Usable => Self::Usable,
        }
    }

    /// How many keys there are of each.
    fn counts(published: &Published, now: Moment) -> [u64; 4] {
        let mut counts = [0; 4];
        let held = published.held.iter().flat_map(|held| held.set.ledger());
        let held = held.map(|entry| Self::of(entry, published));
        for fate in held.chain(retiring(published, now).map(|_| Self::Retiring)) {
            counts[fate as usize] += 1;
        }
        counts
    }
}

/// The keys that retire, while anything is held.
fn retiring(published: &Published, now: Moment) -> impl Iterator<Item = &Retiring> {
    let retiring: &[Retiring] = if published.held.is_some() { &published.retiring } else { &[] };
    retiring.iter().filter(move |old| now < old.until)
}

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
        key_statuses(&self.slot.load(), self.engine.now())
    }

    fn status_metrics(&self) -> Vec<StatusMetric> {
        let label = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        // A copy costs less than a map that is made anew, and there are dozens.
        let labels: HashMap<_, _> =
            [("tenant", &*self.tenant), ("provider", &*self.id)].map(label).into_iter().collect();
        let metric = |told: Told| {
            let value = match told.value {
                Value::Counter(count) => number(count),
                Value::Gauge(value) => value?,
            };
            let mut labels = labels.clone();
            labels.extend(told.label.map(label));
            Some(StatusMetric { name: told.name.to_owned(), value, labels })
        };
        self.told().into_iter().filter_map(metric).collect()
    }

    /// Every number there is about this provider; this and what it calls is the one list of their names.
    pub(crate) fn told(&self) -> Vec<Told> {
        let (now, wall) = (self.engine.now(), self.engine.clock.wall());
        let view = self.slot.load();
        let held = view.published.held.as_deref();
        let counts = Fate::counts(&view.published, now);
        let keys = |fate: Fate| Told {
            name: "jwks_cache_keys",
            label: Some(("state", fate.as_str())),
            value: Value::Gauge(Some(number(counts[fate as usize]))),
        };
        let gauge = |name, value| Told { name, label: None, value: Value::Gauge(value) };
        #[expect(clippy::cast_precision_loss, reason = "seconds and 48 bits are exact")]
        let seconds = |at: DateTime<Utc>| at.timestamp() as f64;
        let expiry = held.and_then(|held| wall_at(held.fresh_until(), now, wall));
        // 48 bits are enough to tell sets apart, and exact in what recorders hold.
        let hash = held.map(|held| {
            let [a, b, c, d, e, f, ..] = held.set.set_hash();
            number(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
        });
        self.counters
            .told()
            .chain(Fate::ALL.map(keys))
            .chain([
                gauge("jwks_cache_set_hash", hash),
                gauge(
                    "jwks_cache_last_refresh_timestamp_seconds",
                    held.map(|held| seconds(held.received_wall)),
                ),
                gauge("jwks_cache_expiry_timestamp_seconds", expiry.map(seconds)),
                gauge("jwks_cache_store_lag_seconds", self.store_lag().map(|lag| lag.as_secs_f64())),
            ])
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
    let entry = |entry: &LedgerEntry| KeyStatus {
        kid: entry.kid().map(shown_kid),
        thumbprint: entry.thumbprint().map(|thumbprint| thumbprint.to_string()),
        state: Fate::of(entry, published).as_str().to_owned(),
        reason: match entry.verdict() {
            Verdict::SetAside { reason, .. } => Some(reason.as_str().to_owned()),
            Verdict::Usable => None,
        },
    };
    let mut keys: Vec<KeyStatus> = held.set.ledger().iter().map(entry).collect();
    keys.extend(retiring(published, now).map(|old| KeyStatus {
        kid: old.key.kid().map(shown_kid),
        thumbprint: Some(old.key.thumbprint().to_string()),
        state: Fate::Retiring.as_str().to_owned(),
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
