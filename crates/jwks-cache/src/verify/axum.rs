//! [`Claims`] as an axum extractor. The [`Guard`] comes from the router's state, which is one or holds one
//! (`FromRef`).
//!
//! ```
//! use axum::{Router, routing::get};
//! use jwks_cache::{Claims, Guard, Registry, Scopes, StandardClaims};
//!
//! struct WriteOrders;
//! impl Scopes for WriteOrders {
//!     const ALL: &'static [&'static str] = &["orders:write"];
//! }
//!
//! async fn hello(user: Claims<StandardClaims>) -> String {
//!     format!("hello {:?}", user.sub)
//! }
//! async fn order(_: Claims<StandardClaims, WriteOrders>) {}
//! /// Nobody, or somebody whose token is good: a bad one is refused here too.
//! async fn offers(user: Option<Claims<StandardClaims>>) -> &'static str {
//!     if user.is_some() { "for you" } else { "for all" }
//! }
//!
//! # fn service() -> jwks_cache::Result<()> {
//! let guard = Guard::new(Registry::new().verifier().audience("orders").build()?);
//! let app: Router = Router::new()
//!     .route("/", get(hello))
//!     .route("/orders", get(offers).post(order))
//!     .with_state(guard);
//! # Ok(())
//! # }
//! ```
//!
//! For whole routers there is the [layer](super::tower); handlers behind it take
//! `Extension<Verified<StandardClaims>>`.

use axum_core::body::Body;
use axum_core::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::bearer::{Claims, Guard, Refusal, Refused, Scopes};

impl<T, C, S> FromRequestParts<T> for Claims<C, S>
where
    T: Send + Sync,
    Guard: FromRef<T>,
    C: DeserializeOwned + Send + Sync + 'static,
    S: Scopes,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &T) -> Result<Self, Refused> {
        let guard = Guard::from_ref(state);
        let verified = guard.verify(&parts.headers, S::ALL).await;
        verified.map(Self::new).map_err(|refusal| Refused::new(refusal, &guard))
    }
}

/// None where the request brings no token. One that is there must be good.
impl<T, C, S> OptionalFromRequestParts<T> for Claims<C, S>
where
    T: Send + Sync,
    Guard: FromRef<T>,
    C: DeserializeOwned + Send + Sync + 'static,
    S: Scopes,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &T) -> Result<Option<Self>, Refused> {
        match <Self as FromRequestParts<T>>::from_request_parts(parts, state).await {
            Ok(claims) => Ok(Some(claims)),
            Err(refused) if matches!(refused.refusal(), Refusal::NoToken) => Ok(None),
            Err(refused) => Err(refused),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.response::<Body>()
    }
}
