//! Every number there is about a provider: the one list of their names, which are API, and of what they mean.

use std::sync::atomic::Ordering::Relaxed;

use chrono::{DateTime, Utc};

use self::Of::{Counter, Gauge};
use crate::refresh::Provider;
use crate::status::{DENIED, RETIRING, SET_ASIDE, USABLE, key_states, wall_at};
use crate::telemetry::{Counters, Told, Value, number};

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
    pub(crate) series: &'static [(&'static str, Of)],
}

#[derive(Clone, Copy)]
pub(crate) enum Of {
    Counter(fn(&Counters) -> u64),
    /// `None` while there is nothing to measure.
    Gauge(fn(&Provider) -> Option<f64>),
}

const fn family(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    series: &'static [(&'static str, Of)],
) -> Family {
    Family { name, help, label, series }
}

/// All counters first: between flights they alone change.
pub(crate) static FAMILIES: &[Family] = &[
    family("jwks_cache_requests_total", "Lookups.", "", &[("", Counter(|of| of.counts().requests))]),
    family(
        "jwks_cache_hits_total",
        "Lookups answered from what was held.",
        "",
        &[("", Counter(|of| of.counts().hits))],
    ),
    family(
        "jwks_cache_misses_total",
        "Lookups that waited for a fetch that brought keys.",
        "",
        &[("", Counter(|of| of.counts().misses))],
    ),
    family(
        "jwks_cache_stale_total",
        "Lookups answered with expired keys.",
        "",
        &[("", Counter(|of| of.counts().stale))],
    ),
    family(
        "jwks_cache_failed_lookups_total",
        "Lookups that brought nothing.",
        "",
        &[("", Counter(|of| of.counts().failed))],
    ),
    family(
        "jwks_cache_refresh_total",
        "Flights by how they ended.",
        "status",
        &[
            ("success", Counter(|of| of.counts().refresh_successes.saturating_sub(of.not_modified()))),
            ("not_modified", Counter(Counters::not_modified)),
            ("error", Counter(|of| of.counts().refresh_errors)),
        ],
    ),
    family(
        "jwks_cache_not_modified_total",
        "Flights answered with 304.",
        "",
        &[("", Counter(Counters::not_modified))],
    ),
    family(
        "jwks_cache_refresh_errors_total",
        "Flights that failed.",
        "",
        &[("", Counter(|of| of.counts().refresh_errors))],
    ),
    family(
        "jwks_cache_upstream_requests_total",
        "Requests sent to providers.",
        "",
        &[("", Counter(|of| of.requests_sent.load(Relaxed)))],
    ),
    family(
        "jwks_cache_shared_refreshes_total",
        "Refreshes that another provider's exchange served.",
        "",
        &[("", Counter(|of| of.adopted.load(Relaxed)))],
    ),
    family(
        "jwks_cache_kid_misses_total",
        "Lookups of unknown kids by what became of them.",
        "outcome",
        &[
            ("known_missing", Counter(|of| of.count_of(|rare| &rare.kids_known_missing))),
            ("waited", Counter(|of| of.count_of(|rare| &rare.kids_waited_for))),
            ("not_now", Counter(|of| of.count_of(|rare| &rare.kids_not_asked_for))),
        ],
    ),
    family(
        "jwks_cache_kid_fetches_total",
        "Flights that unknown kids started.",
        "",
        &[("", Counter(|of| of.count_of(|rare| &rare.kid_fetches)))],
    ),
    family(
        "jwks_cache_lost_flights_total",
        "Flights that ended without an outcome.",
        "",
        &[("", Counter(|of| of.count_of(|rare| &rare.lost_flights)))],
    ),
    family(
        "jwks_cache_refused_addresses_total",
        "Addresses that were not dialled.",
        "",
        &[("", Counter(|of| of.count_of(|rare| &rare.refused_addresses)))],
    ),
    family(
        "jwks_cache_pin_mismatches_total",
        "Handshakes without a pinned key.",
        "",
        &[("", Counter(|of| of.count_of(|rare| &rare.pin_mismatches)))],
    ),
    family(
        "jwks_cache_credentials_not_renewed_total",
        "Changed credential files that could not be used.",
        "",
        &[("", Counter(|of| of.count_of(|rare| &rare.old_credentials_kept)))],
    ),
    family(
        "jwks_cache_store_operations_total",
        "Calls of stores by how they ended.",
        "outcome",
        &[
            ("saved", Counter(|of| of.count_of(|rare| &rare.stored.saved))),
            ("superseded", Counter(|of| of.count_of(|rare| &rare.stored.superseded))),
            ("loaded", Counter(|of| of.count_of(|rare| &rare.stored.loaded))),
            ("absent", Counter(|of| of.count_of(|rare| &rare.stored.absent))),
            ("failed", Counter(|of| of.count_of(|rare| &rare.stored.failed))),
            ("refused", Counter(|of| of.count_of(|rare| &rare.stored.refused))),
            ("set_aside", Counter(|of| of.count_of(|rare| &rare.stored.set_aside))),
        ],
    ),
    family(
        "jwks_cache_last_refresh_micros",
        "How long the last successful flight took, in microseconds.",
        "",
        &[("", Gauge(|of| of.counters.counts().last_refresh_micros.map(number)))],
    ),
    family(
        "jwks_cache_keys",
        "Keys of the held document by state.",
        "state",
        &[
            (USABLE, Gauge(|of| Some(of.keys_in(USABLE)))),
            (SET_ASIDE, Gauge(|of| Some(of.keys_in(SET_ASIDE)))),
            (DENIED, Gauge(|of| Some(of.keys_in(DENIED)))),
            (RETIRING, Gauge(|of| Some(of.keys_in(RETIRING)))),
        ],
    ),
    family(
        "jwks_cache_set_hash",
        "The first 48 bits of the held set's hash: replicas that agree show the same.",
        "",
        &[("", Gauge(set_hash))],
    ),
    family(
        "jwks_cache_last_refresh_timestamp_seconds",
        "When the provider last answered with what is held.",
        "",
        &[("", Gauge(received))],
    ),
    family("jwks_cache_expiry_timestamp_seconds", "When what is held expires.", "", &[("", Gauge(expiry))]),
    family(
        "jwks_cache_store_lag_seconds",
        "For how long the stores have owed the newest set.",
        "",
        &[("", Gauge(|of| of.store_lag().map(|lag| lag.as_secs_f64())))],
    ),
];

impl Family {
    /// The label and its value; nothing where this is the only series.
    pub(crate) fn label(&self, value: &'static str) -> Option<(&'static str, &'static str)> {
        (!self.label.is_empty()).then_some((self.label, value))
    }
}

impl Provider {
    /// Every number there is about this provider, each looked at when it is asked for.
    pub(crate) fn told(&self) -> impl Iterator<Item = Told> {
        let numbers = FAMILIES.iter().flat_map(|family| family.series.iter().map(move |of| (family, of)));
        numbers.map(|(family, &(value, of))| Told {
            name: family.name,
            label: family.label(value),
            value: match of {
                Counter(count) => Value::Counter(count(&self.counters)),
                Gauge(measure) => Value::Gauge(measure(self)),
            },
        })
    }

    /// Those that change between flights.
    pub(crate) fn counted(&self) -> impl Iterator<Item = Told> {
        self.told().take_while(|told| matches!(told.value, Value::Counter(_)))
    }

    /// How many keys of the held document are in this state.
    fn keys_in(&self, state: &str) -> f64 {
        let (view, now) = (self.slot.load(), self.engine.now());
        number(key_states(&view, now).filter(|of| *of == state).count() as u64)
    }
}

fn set_hash(of: &Provider) -> Option<f64> {
    let view = of.slot.load();
    // 48 bits are enough to tell sets apart, and exact in what recorders hold.
    let [a, b, c, d, e, f, ..] = view.published.held.as_deref()?.set.set_hash();
    Some(number(u64::from_be_bytes([0, 0, a, b, c, d, e, f])))
}

fn received(of: &Provider) -> Option<f64> {
    of.slot.load().published.held.as_deref().map(|held| seconds(held.received_wall))
}

fn expiry(of: &Provider) -> Option<f64> {
    let fresh_until = of.slot.load().published.held.as_deref()?.fresh_until();
    wall_at(fresh_until, of.engine.now(), of.engine.clock.wall()).map(seconds)
}

#[expect(clippy::cast_precision_loss, reason = "seconds are exact")]
fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp() as f64
}
