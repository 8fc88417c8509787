//! The counters of a provider, and the Prometheus exporter.

use std::sync::Arc;

use crate::refresh::Provider;
use crate::telemetry::ratio;

#[cfg(feature = "prometheus")]
mod exporter;
mod text;

#[cfg(feature = "prometheus")]
pub use exporter::{install_default_exporter, prometheus_handle};
pub(crate) use text::Text;

/// The counters of one provider.
#[derive(Clone, Debug)]
pub struct ProviderMetrics(Arc<Provider>);

impl ProviderMetrics {
    pub(crate) fn of(provider: Arc<Provider>) -> Self {
        Self(provider)
    }

    /// The counters now, without lag.
    #[must_use]
    pub fn snapshot(&self) -> ProviderMetricsSnapshot {
        let counts = self.0.counts();
        ProviderMetricsSnapshot {
            total_requests: counts.requests,
            cache_hits: counts.hits,
            stale_serves: counts.stale,
            refresh_successes: counts.refresh_successes,
            refresh_errors: counts.refresh_errors,
            last_refresh_micros: counts.last_refresh_micros,
            failed_lookups: counts.failed,
        }
    }
}

/// The counters of one provider at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProviderMetricsSnapshot {
    /// All lookups.
    pub total_requests: u64,
    /// Lookups answered from what was held, stale ones included.
    pub cache_hits: u64,
    /// Lookups answered with expired keys.
    pub stale_serves: u64,
    /// Flights that brought keys or a new lifetime.
    pub refresh_successes: u64,
    /// Flights that failed.
    pub refresh_errors: u64,
    /// How long the last successful flight took.
    pub last_refresh_micros: Option<u64>,
    /// Lookups that brought nothing.
    pub failed_lookups: u64,
}

impl ProviderMetricsSnapshot {
    /// The share of lookups answered from what was held; 0.0 before the first.
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        ratio(self.cache_hits, self.total_requests)
    }

    /// The share of lookups answered with expired keys; 0.0 before the first.
    #[must_use]
    pub fn stale_ratio(&self) -> f64 {
        ratio(self.stale_serves, self.total_requests)
    }
}
