//! The ops plane: is it alive, has it started, is it ready and why not, and what does it count? It asks for no
//! credentials, and changes nothing.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State as Of;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream::{self, StreamExt as _};
use jwks_cache::metrics::prometheus_handle;
use jwks_cache::{ProviderHealth, Registry};
use serde::Serialize;
use tokio::sync::watch;

use crate::serve::Phase;

/// The most providers that `/readyz` names.
const MOST_NAMED: usize = 100;

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

async fn measured(Of(state): Of<State>) -> Response {
    // What the server counts is the recorder's; of providers, who may be many, the registry tells as it is read.
    let server = prometheus_handle().map(|handle| handle.render());
    let pieces = server.into_iter().chain(state.registry.metrics_text());
    // Of many providers there is much to write: others have their turn between two pieces.
    let pieces = stream::iter(pieces).then(async |piece| {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(piece)
    });
    let body = Body::from_stream(pieces);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// Installs the recorder of what the server itself counts, and says what each number is.
pub(crate) fn install_metrics() {
    if let Err(error) = jwks_cache::install_default_exporter() {
        tracing::warn!(%error, "/metrics will tell of providers alone");
    }
    for (name, help) in COUNTERS {
        metrics::describe_counter!(*name, *help);
    }
    for (name, help) in GAUGES {
        metrics::describe_gauge!(*name, *help);
    }
}

const COUNTERS: &[(&str, &str)] = &[
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
    ("jwks_cache_server_connections", "Connections that are open, by listener."),
    (
        "jwks_cache_server_config_last_reload_successful",
        "1 if the configuration in force is what was last read, else 0.",
    ),
];
