//! Every number there is about a provider: the one list of their names, which are API, and of what they mean.

use std::sync::atomic::Ordering::Relaxed;

use chrono::{DateTime, Utc};
use jwks_cache_core::Moment;
use jwks_cache_core::published::Held;

use self::Number::{Counter, Gauge};
use crate::refresh::Provider;
use crate::slot::SharedView;
use crate::status::{DENIED, RETIRING, SET_ASIDE, USABLE, key_states, wall_at};
use crate::telemetry::{Counters, Counts, Told, Value, number};

/// Not in the list, as who is told of flights keeps them.
#[cfg(feature = "metrics")]
pub(crate) const REFRESH_SECONDS: &str = "jwks_cache_refresh_duration_seconds";
#[cfg(feature = "metrics")]
pub(crate) const REFRESH_SECONDS_HELP: &str = "How long flights took.";
#[cfg(feature = "metrics")]
pub(crate) const RESPONSES: &str = "jwks_cache_upstream_responses_total";
#[cfg(feature = "metrics")]
pub(crate) const RESPONSES_HELP: &str = "Answers of providers by status code.";

/// What has one name.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "for who is told"))]
    pub(crate) help: &'static str,
    /// The label that tells its series apart; empty where there is one.
    label: &'static str,
    /// Each with the value of that label.
    pub(crate) series: &'static [(&'static str, Number)],
}

#[derive(Clone, Copy)]
pub(crate) enum Number {
    Counter(fn(&Seen<'_>) -> u64),
    /// `None` while there is nothing to measure.
    Gauge(fn(&Seen<'_>) -> Option<f64>),
}

const fn family(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    series: &'static [(&'static str, Number)],
) -> Family {
    Family { name, help, label, series }
}

/// All counters first: between flights they alone change.
pub(crate) static FAMILIES: &[Family] = &[
    family(
        "jwks_cache_hits_total",
        "Lookups answered from what was held.",
        "",
        &[("", Counter(|of| of.counts.hits))],
    ),
    family(
        "jwks_cache_misses_total",
        "Lookups that waited for a fetch that brought keys.",
        "",
        &[("", Counter(|of| of.counts.misses))],
    ),
    family(
        "jwks_cache_stale_total",
        "Lookups answered with expired keys.",
        "",
        &[("", Counter(|of| of.counts.stale))],
    ),
    family(
        "jwks_cache_failed_lookups_total",
        "Lookups that brought nothing.",
        "",
        &[("", Counter(|of| of.counts.failed))],
    ),
    // After its parts, so that who looks at one after another never sees more of them than of it.
    family("jwks_cache_requests_total", "Lookups.", "", &[("", Counter(|of| of.counts.requests))]),
    family(
        "jwks_cache_refresh_total",
        "Flights by how they ended.",
        "status",
        &[
            ("success", Counter(|of| of.counts.refresh_successes.saturating_sub(of.counts.not_modified))),
            ("not_modified", Counter(|of| of.counts.not_modified)),
            ("error", Counter(|of| of.counts.refresh_errors)),
        ],
    ),
    family(
        "jwks_cache_not_modified_total",
        "Flights answered with 304.",
        "",
        &[("", Counter(|of| of.counts.not_modified))],
    ),
    family(
        "jwks_cache_refresh_errors_total",
        "Flights that failed.",
        "",
        &[("", Counter(|of| of.counts.refresh_errors))],
    ),
    family(
        "jwks_cache_upstream_requests_total",
        "Requests sent to providers.",
        "",
        &[("", Counter(|of| of.counters().requests_sent.load(Relaxed)))],
    ),
    family(
        "jwks_cache_shared_refreshes_total",
        "Refreshes that another provider's exchange served.",
        "",
        &[("", Counter(|of| of.counters().adopted.load(Relaxed)))],
    ),
    family(
        "jwks_cache_kid_misses_total",
        "Lookups of unknown kids by what became of them.",
        "outcome",
        &[
            ("known_missing", Counter(|of| of.counters().count_of(|rare| &rare.kids_known_missing))),
            ("waited", Counter(|of| of.counters().count_of(|rare| &rare.kids_waited_for))),
            ("not_now", Counter(|of| of.counters().count_of(|rare| &rare.kids_not_asked_for))),
        ],
    ),
    family(
        "jwks_cache_kid_fetches_total",
        "Flights that unknown kids started.",
        "",
        &[("", Counter(|of| of.counters().count_of(|rare| &rare.kid_fetches)))],
    ),
    family(
        "jwks_cache_lost_flights_total",
        "Flights that ended without an outcome.",
        "",
        &[("", Counter(|of| of.counters().count_of(|rare| &rare.lost_flights)))],
    ),
    family(
        "jwks_cache_refused_addresses_total",
        "Addresses that were not dialled.",
        "",
        &[("", Counter(|of| of.counters().count_of(|rare| &rare.refused_addresses)))],
    ),
    family(
        "jwks_cache_pin_mismatches_total",
        "Handshakes without a pinned key.",
        "",
        &[("", Counter(|of| of.counters().count_of(|rare| &rare.pin_mismatches)))],
    ),
    family(
        "jwks_cache_credentials_not_renewed_total",
        "Changed credential files that could not be used.",
        "",
        &[("", Counter(|of| of.counters().count_of(|rare| &rare.old_credentials_kept)))],
    ),
    family(
        "jwks_cache_store_operations_total",
        "Calls of stores by how they ended.",
        "outcome",
        &[
            ("saved", Counter(|of| of.counters().count_of(|rare| &rare.stored.saved))),
            ("superseded", Counter(|of| of.counters().count_of(|rare| &rare.stored.superseded))),
            ("loaded", Counter(|of| of.counters().count_of(|rare| &rare.stored.loaded))),
            ("absent", Counter(|of| of.counters().count_of(|rare| &rare.stored.absent))),
            ("failed", Counter(|of| of.counters().count_of(|rare| &rare.stored.failed))),
            ("refused", Counter(|of| of.counters().count_of(|rare| &rare.stored.refused))),
            ("set_aside", Counter(|of| of.counters().count_of(|rare| &rare.stored.set_aside))),
        ],
    ),
    family(
        "jwks_cache_last_refresh_micros",
        "How long the last successful flight took, in microseconds.",
        "",
        &[("", Gauge(|of| of.counts.last_refresh_micros.map(number)))],
    ),
    family(
        "jwks_cache_keys",
        "Keys of the held document by state.",
        "state",
        &[
            (USABLE, Gauge(|of| Some(of.keys(USABLE)))),
            (SET_ASIDE, Gauge(|of| Some(of.keys(SET_ASIDE)))),
            (DENIED, Gauge(|of| Some(of.keys(DENIED)))),
            (RETIRING, Gauge(|of| Some(of.keys(RETIRING)))),
        ],
    ),
    family(
        "jwks_cache_set_hash",
        "The first 48 bits of the held set's hash: replicas that agree show the same.",
        "",
        &[("", Gauge(|of| of.set_hash()))],
    ),
    family(
        "jwks_cache_last_refresh_timestamp_seconds",
        "When the provider last answered with what is held.",
        "",
        &[("", Gauge(|of| of.held().map(|held| seconds(held.received_wall))))],
    ),
    family(
        "jwks_cache_expiry_timestamp_seconds",
        "When what is held expires.",
        "",
        &[("", Gauge(|of| of.expiry()))],
    ),
    family(
        "jwks_cache_store_lag_seconds",
        "For how long the stores have owed the newest set.",
        "",
        &[("", Gauge(|of| of.provider.store_lag().map(|lag| lag.as_secs_f64())))],
    ),
];

impl Family {
    /// The label and its value; nothing where this is the only series.
    pub(crate) fn label(&self, value: &'static str) -> Option<(&'static str, &'static str)> {
        (!self.label.is_empty()).then_some((self.label, value))
    }
}

/// A provider as it is at one moment.
pub(crate) struct Seen<'p> {
    provider: &'p Provider,
    counts: Counts,
    view: SharedView,
    now: Moment,
}

impl Seen<'_> {
    fn counters(&self) -> &Counters {
        &self.provider.counters
    }

    fn held(&self) -> Option<&Held> {
        self.view.published.held.as_deref()
    }

    /// How many keys are in this state.
    fn keys(&self, state: &str) -> f64 {
        number(key_states(&self.view, self.now).filter(|of| *of == state).count() as u64)
    }

    fn set_hash(&self) -> Option<f64> {
        // 48 bits are enough to tell sets apart, and exact in what recorders hold.
        let [a, b, c, d, e, f, ..] = self.held()?.set.set_hash();
        Some(number(u64::from_be_bytes([0, 0, a, b, c, d, e, f])))
    }

    fn expiry(&self) -> Option<f64> {
        let wall = self.provider.engine.clock.wall();
        wall_at(self.held()?.fresh_until(), self.now, wall).map(seconds)
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds are exact")]
fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp() as f64
}

impl Provider {
    pub(crate) fn seen(&self) -> Seen<'_> {
        let (counts, view) = (self.counts(), self.front.slot.load_full());
        Seen { provider: self, counts, view, now: self.engine.now() }
    }

    /// Every number there is about this provider.
    pub(crate) fn told(&self) -> impl Iterator<Item = Told> {
        let seen = self.seen();
        let numbers = FAMILIES.iter().flat_map(|family| family.series.iter().map(move |of| (family, of)));
        numbers.map(move |(family, &(value, of))| Told {
            name: family.name,
            label: family.label(value),
            value: match of {
                Counter(count) => Value::Counter(count(&seen)),
                Gauge(measure) => Value::Gauge(measure(&seen)),
            },
        })
    }

    /// Those that change between flights.
    pub(crate) fn counted(&self) -> impl Iterator<Item = Told> {
        self.told().take_while(|told| matches!(told.value, Value::Counter(_)))
    }
}
