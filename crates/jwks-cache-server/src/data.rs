//! The data plane: what services ask for. It knows the registry, and neither operators nor configuration.

use axum::Router;
use jwks_cache::Registry;

/// The routes.
pub(crate) fn router(_registry: Registry) -> Router {
    Router::new()
}
