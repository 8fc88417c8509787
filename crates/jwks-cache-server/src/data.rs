//! The data plane: what services ask for. Which routes there are and what every answer of theirs carries; it knows the
//! registry, and neither operators nor configuration beyond its own URL.
//!
//! Everything here is public: keys, to whom it may concern, on any page (CORS). So nothing here says more than the keys do:
//! why a provider cannot be reached stands in the log.

mod coding;
mod discovery;
mod jwks;
mod precondition;
mod shelf;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use jwks_cache::{Clock, Error, Registry, ServedKeys};

use crate::config::PublicUrl;
use crate::problem::{Code, Problem};
use discovery::Base;
use shelf::Shelf;

/// The longest that others keep an answer without asking again: so long may a denial take to reach them.
const MAX_AGE: Duration = Duration::from_secs(300);

/// The longest that others use an answer while this server fails.
const STALE_IF_ERROR: Duration = Duration::from_secs(3600);

/// The longest that others are asked to wait.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(300);

/// What the routes answer from.
#[derive(Clone)]
struct Plane {
    registry: Registry,
    /// Dates what is served.
    clock: Arc<dyn Clock>,
    base: Arc<Base>,
    shelf: Arc<Shelf>,
}

/// The routes, for who is called so, or is asked with or without TLS.
pub(crate) fn router(
    registry: Registry,
    public_url: Option<&PublicUrl>,
    tls: bool,
    clock: Arc<dyn Clock>,
) -> Router {
    let plane = Plane { registry, clock, base: Arc::new(Base::new(public_url, tls)), shelf: Arc::default() };
    let route = |it: MethodRouter<Plane>| it.options(preflight).fallback(no_such_method);
    Router::new()
        .route("/tenants/{tenant}/providers/{provider}/jwks", route(get(jwks::set)))
        .route("/tenants/{tenant}/providers/{provider}/keys/{file}", route(get(jwks::pem)))
        .route(
            "/tenants/{tenant}/providers/{provider}/.well-known/openid-configuration",
            route(get(discovery::document)),
        )
        .with_state(plane)
}

/// The names in a path; `Err` where they are no text.
type Names<T> = Result<Path<T>, PathRejection>;

impl Plane {
    /// The keys, after waiting for what has to be waited for.
    async fn keys(&self, tenant: &str, provider: &str, kid: Option<&str>) -> Result<ServedKeys, Response> {
        self.registry.served(tenant, provider, kid).await.map_err(|error| match error {
            Error::NotRegistered { .. } if self.registry.was_removed(tenant, provider) => {
                refusal(Problem::new(Code::Removed, "this provider was removed"))
            }
            Error::NotRegistered { .. } => unknown(),
            error => {
                tracing::debug!(tenant, provider, %error, "no keys to serve");
                let backoff = self.registry.provider(tenant, provider).map(|handle| handle.backoff());
                no_keys(&error, backoff.unwrap_or_default())
            }
        })
    }
}

/// The same whether tenant or provider is unknown, or no name at all.
fn unknown() -> Response {
    refusal(Problem::new(Code::NotRegistered, "there is no such provider"))
}

/// Nothing is held, and nothing could be had. A gateway's words: an answer that was no key set is a bad one; none, or one
/// that asks for patience, is what time may cure.
fn no_keys(error: &Error, backoff: Duration) -> Response {
    let patience = |status: StatusCode| status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    let problem = match error.status() {
        Some(status) if !patience(status) => {
            Problem::new(Code::RefreshFailed, "the provider answers, but not with a key set")
        }
        _ => Problem::new(
            Code::KeysUnavailable,
            "no keys of this provider are at hand, and it could not be asked",
        ),
    };
    let wait = backoff.clamp(Duration::from_secs(1), RETRY_AFTER_MOST);
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let mut answer = refusal(problem);
    answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    answer
}

async fn no_such_method() -> Response {
    refusal(Problem::new(Code::MethodNotAllowed, "the route has GET, HEAD and OPTIONS"))
}

/// A page of another site may ask, with any header (Fetch §3.3).
async fn preflight() -> Response {
    let mut answer = StatusCode::NO_CONTENT.into_response();
    let headers = answer.headers_mut();
    for_everyone(headers);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    answer
}

/// A refusal, which nobody keeps.
fn refusal(problem: Problem) -> Response {
    let mut answer = problem.into_response();
    let headers = answer.headers_mut();
    for_everyone(headers);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// What every answer carries.
fn for_everyone(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("ETag, Age, Retry-After, X-Request-Id"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// For how long others may keep what is served of `keys`.
fn cache_control(keys: &ServedKeys) -> HeaderValue {
    let fresh = keys.fresh_for().min(MAX_AGE).as_secs();
    let stale = keys.stale_for().min(STALE_IF_ERROR).as_secs();
    let text = format!("public, max-age={fresh}, stale-if-error={stale}");
    HeaderValue::from_str(&text).expect("words and digits are legal in a header")
}
