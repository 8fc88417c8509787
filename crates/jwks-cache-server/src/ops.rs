//! The ops plane: is it alive, has it started, is it ready and why not, and what does it count? It asks for no
//! credentials, and changes nothing.

use std::time::Duration;

use axum::extract::State as Of;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use jwks_cache::metrics::prometheus_handle;
use jwks_cache::{ProviderHealth, Registry};
use serde::Serialize;
use tokio::sync::watch;

use crate::serve::Phase;

/// The most providers that `/readyz` names.
const MOST_NAMED: usize = 100;

/// How often what was measured is put together.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the ops plane looks at.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) registry: Registry,
    pub(crate) phase: watch::Receiver<Phase>,
    /// Whether each provider has been tried once.
    pub(crate) warmed: watch::Receiver<bool>,
}

/// The routes.
pub(crate) fn router(state: State) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/startupz", get(started))
        .route("/readyz", get(ready))
        .route("/metrics", get(measured))
        .with_state(state)
}

/// Whether to send requests here, and why not.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Readiness {
    ready: bool,
    /// Why not, beside providers.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// How many providers there are.
    providers: usize,
    /// How many of them have no keys.
    without_keys: usize,
    /// The first of those; who is required comes first.
    missing: Vec<Missing>,
}

/// A provider that has no keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Missing {
    tenant_id: String,
    provider_id: String,
    required: bool,
    /// Why the last fetch failed; nothing while the first one runs.
    last_error: Option<String>,
}

async fn started(Of(state): Of<State>) -> Response {
    match *state.warmed.borrow() {
        true => "started\n".into_response(),
        false => {
            (StatusCode::SERVICE_UNAVAILABLE, "keys are being fetched for the first time\n").into_response()
        }
    }
}

async fn ready(Of(state): Of<State>) -> Response {
    let leaving = *state.phase.borrow() > Phase::Serving;
    let health = state.registry.health().await;
    let providers = health.providers.len();
    let mut missing: Vec<ProviderHealth> = health.providers.into_iter().filter(|of| !of.ready).collect();
    missing.sort_by_key(|of| !of.required);
    let readiness = Readiness {
        ready: health.ready && !leaving,
        reason: leaving.then_some("the server is shutting down"),
        providers,
        without_keys: missing.len(),
        missing: missing.into_iter().take(MOST_NAMED).map(Missing::from).collect(),
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(readiness)).into_response()
}

impl From<ProviderHealth> for Missing {
    fn from(of: ProviderHealth) -> Self {
        let ProviderHealth { tenant_id, provider_id, required, last_error, .. } = of;
        Self { tenant_id, provider_id, required, last_error }
    }
}

async fn measured() -> Response {
    let Some(handle) = prometheus_handle() else {
        return (StatusCode::NOT_FOUND, "another metrics recorder is installed in this process\n")
            .into_response();
    };
    // Of many providers there is much to write.
    let Ok(text) = tokio::task::spawn_blocking(|| handle.render()).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Installs the recorder, and says what each number is.
pub(crate) fn install_metrics() {
    if let Err(error) = jwks_cache::install_default_exporter() {
        tracing::warn!(%error, "/metrics will be empty");
    }
    for (name, help) in COUNTERS {
        metrics::describe_counter!(*name, *help);
    }
    for (name, help) in GAUGES {
        metrics::describe_gauge!(*name, *help);
    }
    metrics::describe_histogram!("jwks_cache_refresh_duration_seconds", "How long flights took.");
}

/// Puts together what was measured, for ever: whether anybody asks for `/metrics` or not, times that were told must not pile
/// up.
pub(crate) async fn keep_up_metrics() {
    let mut turns = tokio::time::interval(UPKEEP);
    loop {
        turns.tick().await;
        if let Some(handle) = prometheus_handle() {
            // Of many providers there is much to do. It panics for nobody.
            let _ = tokio::task::spawn_blocking(|| handle.run_upkeep()).await;
        }
    }
}

const COUNTERS: &[(&str, &str)] = &[
    ("jwks_cache_requests_total", "Lookups."),
    ("jwks_cache_hits_total", "Lookups answered from what was held."),
    ("jwks_cache_misses_total", "Lookups that waited for a fetch that brought keys."),
    ("jwks_cache_stale_total", "Lookups answered with expired keys."),
    ("jwks_cache_failed_lookups_total", "Lookups that brought nothing."),
    ("jwks_cache_refresh_total", "Flights by how they ended."),
    ("jwks_cache_not_modified_total", "Flights answered with 304."),
    ("jwks_cache_refresh_errors_total", "Flights that failed."),
    ("jwks_cache_upstream_requests_total", "Requests sent to providers."),
    ("jwks_cache_upstream_responses_total", "Answers of providers by status code."),
    ("jwks_cache_kid_misses_total", "Lookups of unknown kids by what became of them."),
    ("jwks_cache_kid_fetches_total", "Flights that unknown kids started."),
    ("jwks_cache_lost_flights_total", "Flights that ended without an outcome."),
    ("jwks_cache_shared_refreshes_total", "Refreshes that another provider's exchange served."),
    ("jwks_cache_refused_addresses_total", "Addresses that were not dialled."),
    ("jwks_cache_pin_mismatches_total", "Handshakes without a pinned key."),
    ("jwks_cache_credentials_not_renewed_total", "Changed credential files that could not be used."),
    ("jwks_cache_store_operations_total", "Calls of stores by how they ended."),
    (
        "jwks_cache_server_requests_total",
        "Requests answered by this server, by listener and class of status.",
    ),
    ("jwks_cache_server_config_reloads_total", "Reloads of the configuration by outcome."),
    (
        "jwks_cache_server_certificate_reloads_total",
        "Changes of a listener's certificate by outcome: where one is refused, the old one stays in force.",
    ),
];

const GAUGES: &[(&str, &str)] = &[
    ("jwks_cache_keys", "Keys of the held document by state."),
    ("jwks_cache_set_hash", "The first 48 bits of the held set's hash: replicas that agree show the same."),
    ("jwks_cache_last_refresh_micros", "How long the last successful flight took, in microseconds."),
    ("jwks_cache_last_refresh_timestamp_seconds", "When the provider last answered with what is held."),
    ("jwks_cache_expiry_timestamp_seconds", "When what is held expires."),
    ("jwks_cache_store_lag_seconds", "For how long the stores have owed the newest set."),
    ("jwks_cache_server_connections", "Connections that are open, by listener."),
    (
        "jwks_cache_server_config_last_reload_successful",
        "1 if the configuration in force is what was last read, else 0.",
    ),
];
