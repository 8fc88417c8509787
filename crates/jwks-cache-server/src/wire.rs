//! The JSON of the server: camelCase, durations in ISO 8601. What is promised here is in `/openapi.json`; secrets come in and
//! never go out. Who may see what is not known here.

mod object;
mod settings;

use chrono::{DateTime, Utc};
use jwks_cache::verify::Explanation;
use jwks_cache::{Algorithm, IdentityProviderRegistration, KeyStatus, ProviderState, ProviderStatus};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) use object::Object;
pub(crate) use settings::ProviderSettings;

/// Who registered a provider: the configuration file, or somebody at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// It stands in the configuration file, and is changed there.
    File,
    /// It was registered by this API, and is kept in the state folder.
    Runtime,
}

/// A registration, without its secrets.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Registration {
    tenant_id: String,
    provider_id: String,
    origin: Origin,
    /// Which secrets are set; their values are never given back.
    #[schema(example = json!(["bearerToken", "headers.X-Api-Key"]))]
    secrets_set: Vec<String>,
    /// Which settings the configuration reads from files; they are not shown.
    #[schema(example = json!(["tls.ca"]))]
    files: Vec<String>,
    /// The proxy, without credentials; only the configuration file may set one.
    proxy: Option<String>,
    #[serde(flatten)]
    settings: ProviderSettings,
}

impl Registration {
    pub(crate) fn of(of: &IdentityProviderRegistration, origin: Origin) -> Self {
        Self {
            tenant_id: of.tenant_id.clone(),
            provider_id: of.provider_id.clone(),
            origin,
            secrets_set: settings::secrets_set(of),
            files: settings::files(of),
            proxy: of.proxy.as_ref().map(settings::bare),
            settings: ProviderSettings::of(of),
        }
    }
}

/// How a provider is doing.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) tenant_id: String,
    pub(crate) provider_id: String,
    pub(crate) origin: Origin,
    /// Whether keys are servable (`Ready`, `Refreshing`) or not (`Empty`, `Loading`), and whether a refresh runs.
    #[schema(value_type = State)]
    pub(crate) state: ProviderState,
    /// When the provider last answered with what is held.
    pub(crate) last_refresh: Option<DateTime<Utc>>,
    /// When the next refresh is due.
    pub(crate) next_refresh: Option<DateTime<Utc>>,
    /// When what is held expires.
    pub(crate) expires_at: Option<DateTime<Utc>>,
    /// Refreshes that failed in a row.
    pub(crate) error_count: u32,
    /// Why the last refresh failed, if it did.
    pub(crate) last_error: Option<String>,
    /// The share of lookups that were answered at once.
    pub(crate) hit_rate: f64,
    /// The share of lookups that were answered with expired keys.
    pub(crate) stale_serve_ratio: f64,
    /// Every key of the held document, and the retiring ones.
    pub(crate) keys: Vec<Key>,
    /// Kids and thumbprints that are denied, escaped.
    pub(crate) denied: Vec<String>,
    /// Counters and gauges.
    pub(crate) metrics: Vec<Metric>,
}

/// What a provider is doing.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the library's, for the document")]
pub(crate) enum State {
    Empty,
    Loading,
    Ready,
    Refreshing,
}

/// One key of a provider.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Key {
    /// Escaped, and cut after 128 characters.
    pub(crate) kid: Option<String>,
    /// Its thumbprint (RFC 7638).
    pub(crate) thumbprint: Option<String>,
    /// `usable`, `set_aside`, `denied` or `retiring`.
    pub(crate) state: String,
    /// Why it was set aside.
    pub(crate) reason: Option<String>,
}

/// One number.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metric {
    name: String,
    value: f64,
    labels: std::collections::BTreeMap<String, String>,
}

impl Status {
    pub(crate) fn of(of: ProviderStatus, origin: Origin) -> Self {
        let metric = |of: jwks_cache::StatusMetric| Metric {
            name: of.name,
            value: of.value,
            labels: of.labels.into_iter().collect(),
        };
        Self {
            tenant_id: of.tenant_id,
            provider_id: of.provider_id,
            origin,
            state: of.state,
            last_refresh: of.last_refresh,
            next_refresh: of.next_refresh,
            expires_at: of.expires_at,
            error_count: of.error_count,
            last_error: of.last_error,
            hit_rate: of.hit_rate,
            stale_serve_ratio: of.stale_serve_ratio,
            keys: of.keys.into_iter().map(Key::from).collect(),
            denied: of.denied,
            metrics: of.metrics.into_iter().map(metric).collect(),
        }
    }
}

impl From<KeyStatus> for Key {
    fn from(of: KeyStatus) -> Self {
        Self { kid: of.kid, thumbprint: of.thumbprint, state: of.state, reason: of.reason }
    }
}

/// A page of statuses.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Statuses {
    pub(crate) items: Vec<Status>,
    /// The `cursor` of the next page; null where this one is the last.
    pub(crate) next_cursor: Option<String>,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tenant {
    pub(crate) tenant_id: String,
    /// How many providers it has.
    pub(crate) providers: usize,
}

/// A page of tenants.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tenants {
    pub(crate) items: Vec<Tenant>,
    /// The `cursor` of the next page; null where this one is the last.
    pub(crate) next_cursor: Option<String>,
}

/// A key to switch off.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"id": "2024-06-key", "reason": "its private half leaked"}))]
pub(crate) struct NewDenial {
    /// Its kid as it is published, or its thumbprint (RFC 7638).
    #[schema(min_length = 1, max_length = 1024)]
    pub(crate) id: String,
    /// Why, for those who find it denied.
    #[serde(default)]
    #[schema(max_length = 500)]
    pub(crate) reason: Option<String>,
}

/// A key that is switched off.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Denial {
    /// Its kid or thumbprint; escaped if it was denied elsewhere.
    pub(crate) id: String,
    pub(crate) reason: Option<String>,
    /// When; null if it was denied elsewhere.
    pub(crate) denied_at: Option<DateTime<Utc>>,
    /// By whom, as the server's configuration calls them.
    pub(crate) denied_by: Option<String>,
}

/// What is switched off.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Denials {
    pub(crate) items: Vec<Denial>,
}

/// A token, or its header, to be explained.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "token": "{\"alg\":\"RS256\",\"kid\":\"2024-06-key\"}",
    "within": {"tenantId": "acme", "providerId": "main"}
}))]
pub(crate) struct ToExplain {
    /// The header: as JSON, as it is encoded, or with the rest of the token. The signature is not looked at, and nothing of
    /// it is logged.
    #[schema(max_length = 16384)]
    pub(crate) token: String,
    /// Whose keys to look at; without it, those of any tenant. Who does not reach all of them has to say it.
    #[serde(default, deserialize_with = "object::some")]
    pub(crate) within: Option<Within>,
}

/// A tenant, or one of its providers.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Within {
    pub(crate) tenant_id: String,
    /// Without it, the one that is registered for the token's issuer.
    #[serde(default)]
    pub(crate) provider_id: Option<String>,
}

/// Which key would verify a token, or why none would.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explained {
    #[schema(value_type = Option<String>)]
    algorithm: Option<Algorithm>,
    /// The header's kid, escaped, and cut after 128 characters.
    kid: Option<String>,
    tenant_id: Option<String>,
    provider_id: Option<String>,
    /// The key that would verify it.
    thumbprint: Option<String>,
    /// Why none would.
    why_not: Option<String>,
    /// The provider's keys of that kid, or all of them.
    keys: Vec<Key>,
}

impl From<Explanation> for Explained {
    fn from(of: Explanation) -> Self {
        Self {
            algorithm: of.algorithm,
            kid: of.kid,
            tenant_id: of.tenant_id,
            provider_id: of.provider_id,
            thumbprint: of.thumbprint,
            why_not: of.why_not,
            keys: of.keys.into_iter().map(Key::from).collect(),
        }
    }
}
