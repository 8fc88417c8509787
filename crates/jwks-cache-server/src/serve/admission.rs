//! What the control plane is told by the frame: who is let in by this configuration, and who is at the other end of a
//! connection. What they then may do is the control plane's to say.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::map_request;

use jwks_cache::store::StoreErrorKind;

use super::{Peer, StartError};
use crate::config::{self, Config};
use crate::control::access::{self, Access, Certificate, Grant, Reach, Right, TokenHash};
use crate::control::{self, Book};

/// The control plane's state under this configuration. Nothing is restored yet.
pub(super) async fn state(
    config: &Config,
    registry: jwks_cache::Registry,
) -> Result<control::State, StartError> {
    let (stale, limits) = (config.defaults.stale_while_error.0, config.limits.registrations.clone());
    let state = control::State::new(registry, book(config).await?, stale, limits);
    apply(&state, config);
    Ok(state)
}

/// Has the control plane go by this configuration.
pub(super) fn apply(state: &control::State, config: &Config) {
    state.let_in(admitted(config));
    state.configure(config.registrations().cloned());
}

/// The routes, told who asks. An entrance that serves other planes too is opened to others, by who puts it behind a proxy or
/// widens its mode.
pub(super) fn router(state: control::State, alone: bool) -> Router {
    control::router(state).layer(map_request(move |mut request: Request| {
        let peer = request.extensions().get::<Arc<Peer>>().map(|peer| known(peer, alone)).unwrap_or_default();
        request.extensions_mut().insert(peer);
        std::future::ready(request)
    }))
}

fn known(peer: &Peer, alone: bool) -> access::Peer {
    match (&peer.address, &peer.identity) {
        // Its mode lets in our own user alone.
        (None, _) if alone => access::Peer::Owner,
        (None, _) => access::Peer::Anyone,
        (Some(_), Some(of)) => {
            access::Peer::Certificate(access::Identity { sha256: of.sha256.0, names: of.names.clone() })
        }
        (Some(_), None) => access::Peer::Anyone,
    }
}

async fn book(config: &Config) -> Result<Book, StartError> {
    let folder = config.state_folder().filter(|_| config.store.files);
    let Some(folder) = folder else {
        tracing::warn!(
            "what is registered or denied at run time is forgotten at the end: there is no folder to keep it in"
        );
        return Ok(Book::in_memory());
    };
    let folder = folder.join("control");
    Book::open(&folder).await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let remedy = match error.kind() {
            StoreErrorKind::Corrupt | StoreErrorKind::TooLarge => {
                "bring it back from a backup, or move it away: then what it said of one provider, its denials too, is forgotten"
            }
            _ => "name a folder that this process alone writes to, or set store.files = false to keep nothing",
        };
        StartError::new("state_dir", format!("{error}{cause}"), remedy)
    })
}

fn admitted(config: &Config) -> Access {
    let mut access = Access::default();
    for of in &config.control.tokens {
        // The configuration's rules refuse one without.
        let Some(hash) = of.hash() else { continue };
        access = access.token(TokenHash(hash), grant(&of.name, of.tenants.as_deref(), of.access));
    }
    for of in &config.control.clients {
        let certificate = match (&of.sha256, of.identity()) {
            (Some(digest), _) => Certificate::Exactly(digest.0),
            (None, Some(name)) => Certificate::Named(name),
            (None, None) => continue,
        };
        access = access.certificate(certificate, grant(&of.name, of.tenants.as_deref(), of.access));
    }
    access
}

fn grant(name: &str, tenants: Option<&[String]>, may: config::Access) -> Grant {
    let tenants = tenants
        .map_or(Reach::All, |tenants| Reach::Tenants(tenants.iter().cloned().collect::<BTreeSet<_>>()));
    let right = match may {
        config::Access::Read => Right::Read,
        config::Access::Write => Right::Write,
    };
    Grant { name: name.to_owned(), tenants, right }
}
