//! The control plane: providers are registered, looked at, refreshed and removed, keys are switched off, by those who may.
//! It knows neither sockets nor TLS, nor what the data plane serves; the listener tells it who is at the other end.

pub mod access;
mod body;
mod book;
mod denials;
mod document;
mod explain;
mod guard;
mod providers;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use http::header;
use jwks_cache::store::StoreError;
use jwks_cache::{Error, IdentityProviderRegistration, Registry, Verifier};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use book::Book;

use crate::config::Registrations;
use crate::problem::{Code, Problem};
use crate::wire::{Origin, Status};
use access::Access;
use book::Name;

/// What the routes act on. Clones are one.
#[derive(Clone, Debug)]
pub struct State(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    verifier: Verifier,
    book: Book,
    stale_while_error: Duration,
    limits: Registrations,
    /// Where a refresh that nobody waits for has not begun yet: one a provider is enough.
    asked_for: Mutex<BTreeSet<Name>>,
    access: ArcSwap<Access>,
    configured: ArcSwap<BTreeMap<Name, IdentityProviderRegistration>>,
}

/// What [`Held::restore`] did.
#[derive(Debug, Default)]
pub struct Restored {
    /// How many providers were registered.
    pub providers: usize,
    /// How many keys were denied.
    pub denials: usize,
    /// What the registry refused, by tenant and provider: policy has changed since. It stays in the book.
    pub refused: Vec<(String, String, Error)>,
}

impl State {
    /// The state of a server that lets in [`Peer::Owner`](access::Peer::Owner) alone and has no configured providers.
    /// Registrations that do not say for how long expired keys are served get `stale_while_error`, and none may ask for more
    /// than `limits`.
    #[must_use]
    pub fn new(registry: Registry, book: Book, stale_while_error: Duration, limits: Registrations) -> Self {
        let verifier = registry.verifier().any_audience().any_issuer().build();
        let verifier = verifier.expect("both are said, and nothing else");
        Self(Arc::new(Inner {
            registry,
            verifier,
            book,
            stale_while_error,
            limits,
            asked_for: Mutex::default(),
            access: ArcSwap::default(),
            configured: ArcSwap::default(),
        }))
    }

    /// Says who is let in from the next request on.
    pub fn let_in(&self, access: Access) {
        self.0.access.store(Arc::new(access));
    }

    /// Says which registrations are the configuration file's: they are told apart, and changed there alone. Registering them
    /// is the caller's matter; call [`Held::restore`] afterwards, for a name that the file no longer has may stand in the
    /// book.
    pub fn configure(&self, registrations: impl IntoIterator<Item = IdentityProviderRegistration>) {
        let name = |of: &IdentityProviderRegistration| (of.tenant_id.clone(), of.provider_id.clone());
        let map = registrations.into_iter().map(|of| (name(&of), of)).collect();
        self.0.configured.store(Arc::new(map));
    }

    /// Keeps everybody else from changing anything until this is dropped: while a configuration is exchanged, and at the start.
    pub async fn hold(&self) -> Held<'_> {
        Held { state: self, _pen: self.book().pen(self.book().turn().await) }
    }

    /// What is denied of this provider, whoever registers it: to be told to the registry with the registration.
    pub(crate) fn denied(&self, of: &IdentityProviderRegistration) -> Vec<String> {
        let record = self.book().get(&(of.tenant_id.clone(), of.provider_id.clone()));
        record.denials.keys().cloned().collect()
    }

    /// What was registered at run time under the name of this one.
    pub(crate) fn at_run_time(
        &self,
        of: &IdentityProviderRegistration,
    ) -> Option<IdentityProviderRegistration> {
        let record = self.book().get(&(of.tenant_id.clone(), of.provider_id.clone()));
        record.registered.as_ref().map(|of| of.registration.clone())
    }

    /// The providers.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    fn verifier(&self) -> &Verifier {
        &self.0.verifier
    }

    fn book(&self) -> &Book {
        &self.0.book
    }

    fn access(&self) -> Arc<Access> {
        self.0.access.load_full()
    }

    fn configured(&self) -> Arc<BTreeMap<Name, IdentityProviderRegistration>> {
        self.0.configured.load_full()
    }

    async fn status(&self, name: &Name) -> Result<Status, Problem> {
        let of = self.registry().provider_status(&name.0, &name.1).await?;
        let in_file = self.configured().contains_key(name);
        Ok(Status::of(of, if in_file { Origin::File } else { Origin::Runtime }))
    }
}

/// See [`State::hold`].
#[derive(Debug)]
pub struct Held<'a> {
    state: &'a State,
    _pen: book::Pen<'a>,
}

impl Held<'_> {
    /// Registers what stands in the book and is not there yet, and denies what is denied there. A provider of the
    /// configuration file wins over the book's of the same name.
    pub async fn restore(&self) -> Restored {
        let mut restored = Restored::default();
        let state = self.state;
        for (name, record) in state.book().all() {
            let (tenant, provider) = &name;
            let in_file = state.configured().contains_key(&name);
            let is_there = state.registry().provider(tenant, provider).is_ok();
            if let Some(registered) = record.registered.as_ref().filter(|_| !in_file && !is_there) {
                let (registration, denied) = (registered.registration.clone(), record.denials.keys());
                match state.registry().register_denying(registration, denied).await {
                    Ok(()) => {
                        restored.providers += 1;
                        restored.denials += record.denials.len();
                    }
                    Err(error) => {
                        tracing::error!(tenant, provider, %error, "a registration of the book is refused");
                        restored.refused.push((tenant.clone(), provider.clone(), error));
                    }
                }
            }
            for id in record.denials.keys() {
                // Of a provider that the file no longer has, they wait for it.
                if let Ok(is_new) = state.registry().deny_key(tenant, provider, id).await {
                    restored.denials += usize::from(is_new);
                }
            }
        }
        restored
    }
}

/// The routes of the control plane, and `/openapi.json`. The listener puts an [`access::Peer`] into each request's extensions.
pub fn router(state: State) -> Router {
    let (router, document) = documented();
    let document = document::finish(document);
    // The document is open to all: it says what this program can do, nothing of what it holds.
    let text: Arc<str> = document.to_json().unwrap_or_default().into();
    let open = axum::routing::get(move || async move {
        ([(header::CONTENT_TYPE, "application/json")], text.to_string())
    });
    let refuse_method = || async {
        Problem::new(Code::MethodNotAllowed, "this route does not have the method; Allow says which it has")
    };
    router
        .route_layer(from_fn_with_state(state.clone(), guard::guard))
        .route("/openapi.json", open)
        .method_not_allowed_fallback(refuse_method)
        .layer(DefaultBodyLimit::max(body::MOST_BYTES))
        .with_state(state)
}

/// Every route with its part of the document.
fn documented() -> (Router<State>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(document::empty())
        .routes(routes!(providers::get, providers::put, providers::delete))
        .routes(routes!(providers::refresh))
        .routes(routes!(views::status))
        .routes(routes!(views::tenants))
        .routes(routes!(views::providers))
        .routes(routes!(views::statuses))
        .routes(routes!(denials::list, denials::deny))
        .routes(routes!(denials::allow))
        .routes(routes!(explain::explain))
        .split_for_parts()
}

/// A body in JSON.
struct Reply<T>(T);

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(_) => Problem::new(Code::Internal, "the answer is no JSON").into_response(),
        }
    }
}

/// What is said of a change that could not be kept.
fn not_kept(error: &StoreError, now: &str) -> Problem {
    tracing::error!(error = error as &dyn std::error::Error, "the book was not written");
    Problem::new(Code::StoreUnavailable, format!("{error}; {now}"))
        .remedy("look at the disk of the state folder, then ask again")
}
