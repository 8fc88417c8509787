//! Forwards counts to the recorder of the `metrics` facade, with handles kept per provider.

use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use metrics::{Counter, Histogram, Key, Label, Level, Metadata, with_recorder};

use super::Counters;
use crate::lock;

/// The names we record, each once. They are API.
pub(super) const REQUESTS: &str = "jwks_cache_requests_total";
pub(super) const HITS: &str = "jwks_cache_hits_total";
pub(super) const MISSES: &str = "jwks_cache_misses_total";
pub(super) const STALE: &str = "jwks_cache_stale_total";
pub(super) const FAILED: &str = "jwks_cache_failed_lookups_total";
pub(super) const KID_MISSES: &str = "jwks_cache_kid_misses_total";
pub(super) const REFRESHES: &str = "jwks_cache_refresh_total";
pub(super) const REFRESH_ERRORS: &str = "jwks_cache_refresh_errors_total";
pub(super) const REFRESH_SECONDS: &str = "jwks_cache_refresh_duration_seconds";
pub(super) const UPSTREAM_REQUESTS: &str = "jwks_cache_upstream_requests_total";
pub(super) const LOST_FLIGHTS: &str = "jwks_cache_lost_flights_total";
pub(super) const NOT_MODIFIED: &str = "jwks_cache_not_modified_total";
pub(super) const KID_FETCHES: &str = "jwks_cache_kid_fetches_total";

/// What a flush forwards, in the order of [`Handles::counters`].
const FLUSHED: [&str; 10] = [
    REQUESTS,
    HITS,
    MISSES,
    STALE,
    FAILED,
    KID_MISSES,
    KID_FETCHES,
    UPSTREAM_REQUESTS,
    NOT_MODIFIED,
    LOST_FLIGHTS,
];

static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// The handles of one provider.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Option<Box<Handles>>>);

struct Handles {
    /// The recorder these were made by: a recorder that is installed later gets handles of its own.
    made_by: usize,
    counters: [(Counter, u64); FLUSHED.len()],
    failed: Counter,
    seconds: Histogram,
}

impl Recorder {
    pub(super) fn flush(&self, tenant: &str, provider: &str, counters: &Counters) {
        let counts = counters.counts();
        let now = [
            counts.requests,
            counts.hits,
            counts.misses,
            counts.stale,
            counts.failed,
            counters.kid_misses.load(Relaxed),
            counters.kid_fetches.load(Relaxed),
            counters.requests_sent.load(Relaxed),
            counters.not_modified.load(Relaxed),
            counters.lost_flights.load(Relaxed),
        ];
        self.with(tenant, provider, |handles| {
            for ((counter, told), now) in handles.counters.iter_mut().zip(now) {
                counter.increment(now.saturating_sub(*told));
                *told = now;
            }
        });
    }

    pub(super) fn flight(&self, tenant: &str, provider: &str, status: &'static str, took: Duration) {
        let failed = status == "error";
        self.with(tenant, provider, |handles| {
            handles.seconds.record(took);
            if failed {
                handles.failed.increment(1);
            }
        });
        // One handle per outcome would be kept for nothing: flights are rare.
        let labels = vec![
            Label::new("tenant", tenant.to_owned()),
            Label::new("provider", provider.to_owned()),
            Label::new("status", status),
        ];
        with_recorder(|recorder| {
            recorder.register_counter(&Key::from_parts(REFRESHES, labels), &METADATA).increment(1);
        });
    }

    fn with(&self, tenant: &str, provider: &str, act: impl FnOnce(&mut Handles)) {
        with_recorder(|recorder| {
            let made_by = std::ptr::from_ref(recorder).cast::<()>().addr();
            let mut kept = lock(&self.0);
            if kept.as_ref().is_none_or(|handles| handles.made_by != made_by) {
                let key = |name: &'static str| {
                    let labels = vec![
                        Label::new("tenant", tenant.to_owned()),
                        Label::new("provider", provider.to_owned()),
                    ];
                    Key::from_parts(name, labels)
                };
                let counter = |name| recorder.register_counter(&key(name), &METADATA);
                *kept = Some(Box::new(Handles {
                    made_by,
                    counters: FLUSHED.map(|name| (counter(name), 0)),
                    failed: counter(REFRESH_ERRORS),
                    seconds: recorder.register_histogram(&key(REFRESH_SECONDS), &METADATA),
                }));
            }
            if let Some(handles) = kept.as_mut() {
                act(handles);
            }
        });
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}
