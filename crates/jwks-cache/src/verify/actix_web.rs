//! [`Claims`] as an actix-web extractor. The [`Guard`] is what `app_data(guard)` gave to the app, or to the innermost scope
//! that has one; not within `web::Data`.
//!
//! A handler that also serves requests without a token takes [`MaybeClaims`]. Not `Option<Claims<C>>`: to actix-web that
//! means to go on after *any* refusal, so a forged token would pass for none.
//!
//! ```
//! use actix_web::{App, web};
//! use jwks_cache::{Claims, Guard, Registry, StandardClaims, verify::actix_web::MaybeClaims};
//!
//! async fn hello(user: Claims<StandardClaims>) -> String {
//!     format!("hello {:?}", user.sub)
//! }
//! async fn offers(user: MaybeClaims<StandardClaims>) -> &'static str {
//!     if user.0.is_some() { "for you" } else { "for all" }
//! }
//!
//! # fn service() -> jwks_cache::Result<()> {
//! let guard = Guard::new(Registry::new().verifier().audience("orders").build()?);
//! let app = App::new()
//!     .app_data(guard.clone())
//!     .route("/", web::get().to(hello))
//!     .route("/offers", web::get().to(offers));
//! # let _ = app; Ok(())
//! # }
//! ```

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError};
use http::HeaderName;
use serde::de::DeserializeOwned;

use super::bearer::{Claims, Fields, Guard, Refusal, Refused, Scopes};

/// The claims of a request that brings a token, which must then be good; none of one that does not.
#[derive(Debug)]
pub struct MaybeClaims<C, S = ()>(pub Option<Claims<C, S>>);

/// An extractor's outcome: most often there at once, and never boxed then.
pub struct Extracting<T>(State<T>);

type Outcome<T> = Result<T, actix_web::Error>;

enum State<T> {
    Done(Option<Outcome<T>>),
    Waiting(Pin<Box<dyn Future<Output = Outcome<T>>>>),
}

/// It is never pinned in place: what is in the box does not move.
impl<T> Unpin for Extracting<T> {}

impl<T> Future for Extracting<T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<T>> {
        match &mut self.0 {
            State::Done(outcome) => outcome.take().map_or(Poll::Pending, Poll::Ready),
            State::Waiting(wait) => wait.as_mut().poll(context),
        }
    }
}

impl<T> fmt::Debug for Extracting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extracting").finish_non_exhaustive()
    }
}

/// The claims, made into what the handler takes.
fn extract<C, S, T>(
    request: &HttpRequest,
    make: impl Fn(Result<Claims<C, S>, Refusal>) -> Result<T, Refusal> + 'static,
) -> Extracting<T>
where
    C: DeserializeOwned + Send + Sync + 'static,
    S: Scopes,
    T: 'static,
{
    // One type alone: of two, an outer scope's would come before an inner one's.
    let Some(guard) = request.app_data::<Guard>() else {
        let absent = actix_web::error::ErrorInternalServerError("the app has no Guard among its data");
        return Extracting(State::Done(Some(Err(absent))));
    };
    let finish = move |outcome: Result<_, Refusal>, guard: &Guard| {
        make(outcome.map(Claims::new)).map_err(|refusal| Refused::new(refusal, guard).into())
    };
    Extracting(match guard.begin(request.headers(), S::ALL) {
        Ok(outcome) => State::Done(Some(finish(outcome, guard))),
        Err(waiting) => {
            let (request, guard) = (request.clone(), guard.clone());
            State::Waiting(Box::pin(async move {
                finish(guard.wait(request.headers(), S::ALL, waiting).await, &guard)
            }))
        }
    })
}

impl<C, S> FromRequest for Claims<C, S>
where
    C: DeserializeOwned + Send + Sync + 'static,
    S: Scopes,
{
    type Error = actix_web::Error;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Extracting<Self> {
        extract(request, |outcome| outcome)
    }
}

impl<C, S> FromRequest for MaybeClaims<C, S>
where
    C: DeserializeOwned + Send + Sync + 'static,
    S: Scopes,
{
    type Error = actix_web::Error;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Extracting<Self> {
        extract(request, |outcome| match outcome {
            Ok(claims) => Ok(Self(Some(claims))),
            Err(Refusal::NoToken) => Ok(Self(None)),
            Err(refusal) => Err(refusal),
        })
    }
}

impl Fields for HeaderMap {
    fn each<'h>(&'h self, name: &HeaderName, see: &mut dyn FnMut(&'h [u8])) {
        // Its names are of an older `http`, and making one of ours could allocate.
        let named = self.iter().filter(|(other, _)| other.as_str() == name.as_str());
        named.for_each(|(_, value)| see(value.as_bytes()));
    }
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.refusal().status().as_u16()).unwrap_or(StatusCode::UNAUTHORIZED)
    }

    fn error_response(&self) -> HttpResponse {
        let response = self.response::<String>();
        let mut answer = HttpResponse::build(self.status_code());
        for (name, value) in response.headers() {
            answer.insert_header((name.as_str(), value.as_bytes()));
        }
        answer.body(response.into_body())
    }
}
