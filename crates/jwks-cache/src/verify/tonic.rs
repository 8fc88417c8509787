//! A layer and an interceptor for tonic. Refusals are those of gRPC: `UNAUTHENTICATED`, `PERMISSION_DENIED`,
//! `UNAVAILABLE`, with the same `www-authenticate` and `retry-after` as metadata.
//!
//! Take the layer: the interceptor cannot wait, so the first requests after a start, and the first of each new key, get
//! `UNAVAILABLE`. In both, a service finds the claims in its request's extensions, as [`Verified<C>`].
//!
//! ```
//! use jwks_cache::{Guard, Registry, StandardClaims, Verified};
//! use tonic::{Request, Status, transport::Server};
//!
//! // In a method of a service:
//! fn subject<T>(request: &Request<T>) -> Result<&str, Status> {
//!     let user = request.extensions().get::<Verified<StandardClaims>>();
//!     user.and_then(|user| user.sub.as_deref()).ok_or_else(|| Status::internal("no layer"))
//! }
//!
//! # fn service() -> jwks_cache::Result<()> {
//! let guard = Guard::new(Registry::new().verifier().audience("orders").build()?);
//! let health = "/grpc.health.v1.Health/Check";
//! let server = Server::builder().layer(guard.grpc_layer::<StandardClaims>().skip(health));
//! # let _ = server; Ok(())
//! # }
//! ```

use std::fmt;
use std::marker::PhantomData;

use http::HeaderMap;
use serde::de::DeserializeOwned;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::{Code, Request, Status};

use super::Verified;
use super::bearer::{Guard, Refusal};
use super::tower::{Answer, GuardLayer};

impl Guard {
    /// A layer that lets calls through whose token is good. `C` is the type of the claims.
    pub fn grpc_layer<C>(&self) -> GuardLayer<C, Grpc> {
        GuardLayer::new(self)
    }

    /// An interceptor that does the same from keys at hand, and never waits for others.
    pub fn interceptor<C>(&self) -> GuardInterceptor<C> {
        GuardInterceptor { guard: self.clone(), scopes: Vec::new(), claims: PhantomData }
    }

    fn status(&self, refusal: &Refusal) -> Status {
        let code = match refusal {
            Refusal::InsufficientScope(_) => Code::PermissionDenied,
            Refusal::KeysUnavailable(_) => Code::Unavailable,
            _ => Code::Unauthenticated,
        };
        let headers: HeaderMap = self.challenge(refusal).collect();
        Status::with_metadata(code, refusal.to_string(), MetadataMap::from_headers(headers))
    }
}

/// The answers of gRPC.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Grpc;

impl<B: Default> Answer<B> for Grpc {
    fn answer(guard: &Guard, refusal: &Refusal) -> http::Response<B> {
        guard.status(refusal).into_http()
    }
}

/// Lets calls through whose token is good by keys at hand.
#[must_use]
pub struct GuardInterceptor<C> {
    guard: Guard,
    scopes: Vec<String>,
    claims: PhantomData<fn() -> C>,
}

impl<C> GuardInterceptor<C> {
    /// Adds a scope that every token must grant.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scopes.push(scope.into());
        self
    }
}

impl<C> Interceptor for GuardInterceptor<C>
where
    C: DeserializeOwned + Send + Sync + 'static,
{
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.extensions_mut().remove::<Verified<C>>();
        let verified = self.guard.now::<C, HeaderMap>(request.metadata().as_ref(), &self.scopes);
        request.extensions_mut().insert(verified.map_err(|refusal| self.guard.status(&refusal))?);
        Ok(request)
    }
}

impl<C> Clone for GuardInterceptor<C> {
    fn clone(&self) -> Self {
        Self { guard: self.guard.clone(), scopes: self.scopes.clone(), claims: PhantomData }
    }
}

impl<C> fmt::Debug for GuardInterceptor<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { guard, scopes, .. } = self;
        f.debug_struct("GuardInterceptor").field("guard", guard).field("scopes", scopes).finish()
    }
}
