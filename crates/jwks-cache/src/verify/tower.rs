//! A [`tower`](tower_layer) layer: requests without a good token do not reach the service behind it.
//!
//! The claims stand in the request's extensions, as [`Verified<C>`]. Where a token is looked for and what is answered
//! is the [`Guard`]'s to say. Put it behind layers that answer by themselves (CORS preflights, compression, time limits)
//! and before the service: a layer between the two that rewrites paths would make `skip` speak of other ones. A hit costs no allocation beyond the claims and their place among the extensions; only a
//! request that must wait for keys is put in a box.
//!
//! ```
//! use http::{Request, Response};
//! use jwks_cache::{Guard, Registry, StandardClaims, Verified};
//! use tower::{ServiceBuilder, service_fn};
//!
//! # fn service() -> jwks_cache::Result<()> {
//! let guard = Guard::new(Registry::new().verifier().audience("orders").build()?);
//! let service = ServiceBuilder::new()
//!     .layer(guard.layer::<StandardClaims>().skip("/healthz"))
//!     .service(service_fn(async |request: Request<String>| {
//!         let user = request.extensions().get::<Verified<StandardClaims>>();
//!         Ok::<_, std::convert::Infallible>(Response::new(format!("{:?}", user.map(|user| &user.sub))))
//!     }));
//! # let _ = service; Ok(())
//! # }
//! ```

use std::fmt;
use std::future::{Future, Ready, ready};
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready as poll_ready};

use http::request::Parts;
use http::{Extensions, Request, Response};
use pin_project_lite::pin_project;
use serde::de::DeserializeOwned;
use tower_layer::Layer;
use tower_service::Service;

use super::bearer::{Guard, Refusal};
use super::{Verified, Waiting};

impl Guard {
    /// A layer that lets requests through whose token is good. `C` is the type of the claims.
    pub fn layer<C>(&self) -> GuardLayer<C> {
        GuardLayer::new(self)
    }
}

/// Puts a [`GuardService`] before a service.
#[must_use]
pub struct GuardLayer<C, A = Plain> {
    guard: Guard,
    rules: Arc<Rules>,
    types: PhantomData<fn() -> (C, A)>,
}

#[derive(Clone, Debug, Default)]
struct Rules {
    skipped: Vec<String>,
    optional: bool,
    scopes: Vec<String>,
}

impl<C, A> GuardLayer<C, A> {
    pub(super) fn new(guard: &Guard) -> Self {
        Self { guard: guard.clone(), rules: Arc::default(), types: PhantomData }
    }

    /// Lets requests for this path through untouched, whatever they bring: their extensions hold no claims. Byte for
    /// byte the path that the layer sees, without the query; there are no patterns, which a service behind could read
    /// otherwise.
    pub fn skip(mut self, path: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.rules).skipped.push(path.into());
        self
    }

    /// Lets requests without a token through as well: their extensions hold no claims. A token that is there must be
    /// good all the same.
    pub fn optional(mut self) -> Self {
        Arc::make_mut(&mut self.rules).optional = true;
        self
    }

    /// Adds a scope that every token must grant.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.rules).scopes.push(scope.into());
        self
    }
}

impl<S, C, A> Layer<S> for GuardLayer<C, A> {
    type Service = GuardService<S, C, A>;

    fn layer(&self, inner: S) -> Self::Service {
        GuardService { inner, layer: self.clone() }
    }
}

/// Calls the service behind it for requests whose token is good.
#[must_use]
pub struct GuardService<S, C, A = Plain> {
    inner: S,
    layer: GuardLayer<C, A>,
}

/// How a refusal becomes a response with a body of type `B`. Sealed: nobody else can name it; what a body says is set by
/// [`Guard::body`].
pub trait Answer<B>: 'static {
    /// Makes it.
    fn answer(guard: &Guard, refusal: &Refusal) -> Response<B>;
}

/// The answers of plain HTTP.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Plain;

impl<B: From<String>> Answer<B> for Plain {
    fn answer(guard: &Guard, refusal: &Refusal) -> Response<B> {
        guard.response(refusal)
    }
}

impl<C, A> GuardLayer<C, A>
where
    C: DeserializeOwned + Send + Sync + 'static,
{
    /// Puts the claims into the extensions. `Err` where keys are to be waited for.
    fn admit<B>(&self, request: &mut Request<B>) -> Result<Result<(), Refusal>, Waiting> {
        let Self { guard, rules, .. } = self;
        // Only what was verified here is believed behind.
        request.extensions_mut().remove::<Verified<C>>();
        if rules.skipped.iter().any(|path| path == request.uri().path()) {
            return Ok(Ok(()));
        }
        let outcome = guard.begin(request.headers(), &rules.scopes)?;
        Ok(self.enter(request.extensions_mut(), outcome))
    }

    fn enter(
        &self,
        extensions: &mut Extensions,
        outcome: Result<Verified<C>, Refusal>,
    ) -> Result<(), Refusal> {
        match outcome {
            Ok(verified) => {
                extensions.insert(verified);
                Ok(())
            }
            Err(Refusal::NoToken) if self.rules.optional => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    async fn admit_later(self, mut parts: Parts, waiting: Waiting) -> (Self, Parts, Result<(), Refusal>) {
        let outcome = self.guard.wait(&parts.headers, &self.rules.scopes, waiting).await;
        let outcome = self.enter(&mut parts.extensions, outcome);
        (self, parts, outcome)
    }
}

impl<S, C, A, B, R> Service<Request<B>> for GuardService<S, C, A>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    C: DeserializeOwned + Send + Sync + 'static,
    A: Answer<R>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Guarded<S::Future, Response<R>, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let turn = match self.layer.admit(&mut request) {
            Ok(Ok(())) => Turn::Let { inner: self.inner.call(request) },
            Ok(Err(refusal)) => Turn::Refused { answer: ready(A::answer(&self.layer.guard, &refusal)) },
            Err(waiting) => {
                // The one that was found ready goes with the request.
                let next = self.inner.clone();
                let mut inner = mem::replace(&mut self.inner, next);
                let (layer, (parts, body)) = (self.layer.clone(), request.into_parts());
                let wait = async move {
                    let (layer, parts, outcome) = layer.admit_later(parts, waiting).await;
                    match outcome {
                        Ok(()) => inner.call(Request::from_parts(parts, body)).await,
                        Err(refusal) => Ok(A::answer(&layer.guard, &refusal)),
                    }
                };
                Turn::Waiting { wait: Box::pin(wait) }
            }
        };
        Guarded { turn }
    }
}

pin_project! {
    /// The response, of the service behind or of its guard.
    pub struct Guarded<F, R, E> {
        #[pin]
        turn: Turn<F, R, E>,
    }
}

pin_project! {
    #[project = TurnNow]
    enum Turn<F, R, E> {
        Let { #[pin] inner: F },
        Refused { answer: Ready<R> },
        Waiting { wait: Pin<Box<dyn Future<Output = Result<R, E>> + Send>> },
    }
}

impl<F, R, E> Future for Guarded<F, R, E>
where
    F: Future<Output = Result<R, E>>,
{
    type Output = Result<R, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().turn.project() {
            TurnNow::Let { inner } => inner.poll(context),
            TurnNow::Refused { answer } => Poll::Ready(Ok(poll_ready!(Pin::new(answer).poll(context)))),
            TurnNow::Waiting { wait } => wait.as_mut().poll(context),
        }
    }
}

impl<C, A> Clone for GuardLayer<C, A> {
    fn clone(&self) -> Self {
        Self { guard: self.guard.clone(), rules: self.rules.clone(), types: PhantomData }
    }
}

impl<S: Clone, C, A> Clone for GuardService<S, C, A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<C, A> fmt::Debug for GuardLayer<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardLayer").field("guard", &self.guard).field("rules", &self.rules).finish()
    }
}

impl<S: fmt::Debug, C, A> fmt::Debug for GuardService<S, C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardService").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}

impl<F, R, E> fmt::Debug for Guarded<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}
