//! The control plane: what operators ask for.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use jwks_cache::Registry;
use tokio::sync::watch;

use crate::config::Config;

/// What the control plane works on.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "the routes that read it are written beside this")]
pub(crate) struct State {
    pub(crate) registry: Registry,
    /// The configuration in force: whom to let in, and which providers only the file may change.
    pub(crate) config: watch::Receiver<Arc<Config>>,
    /// Where what is registered at run time outlives a restart; `None` where there is no such folder.
    pub(crate) state_folder: Option<PathBuf>,
}

/// The routes.
pub(crate) fn router(_state: State) -> Router {
    Router::new()
}
