//! What a guard costs besides verifying: on a hit, nothing is allocated that the claims do not need.
#![cfg(all(feature = "axum", feature = "actix-web"))]
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use allocation_counter::measure;
use axum::extract::FromRequestParts as _;
use http::header::{AUTHORIZATION, COOKIE};
use http::{Request, Response};
use jwks_cache::{Claims, Scopes, StandardClaims, TokenSource};
use stage::at_once;
use stage::guarded::Guarded;
use tower::{Layer as _, Service};

struct Read;
impl Scopes for Read {
    const ALL: &'static [&'static str] = &["read"];
}

/// A service that does nothing.
#[derive(Clone)]
struct Nothing;

impl Service<Request<()>> for Nothing {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(String::new())))
    }
}

#[tokio::test]
async fn a_hit_allocates_the_claims_and_nothing_else() {
    let stage = Guarded::new().await;
    let token = stage.token(|it| it.claim("scope", "read"));
    let bearer = format!("Bearer {token}");
    let verifier = stage.guard.verifier();
    verifier.verify::<StandardClaims>(&token).await.unwrap();
    // It remembers the header of the first, so the second is as all others.
    let verified = || drop(verifier.verify_now::<StandardClaims>(&token).unwrap());
    verified();
    let alone = measure(verified).count_total;
    assert!(alone > 0);
    println!("verifying alone: {alone} allocations");
    let check = |what: &str, more: u64, run: &mut dyn FnMut()| {
        run();
        assert_eq!(measure(run).count_total, alone + more, "{what}");
    };

    let mut headers = http::HeaderMap::new();
    headers.insert(AUTHORIZATION, bearer.parse().unwrap());
    headers.insert("x-access-token", token.parse().unwrap());
    headers.insert(COOKIE, format!("a=b; token={token}").parse().unwrap());
    let sources = [
        TokenSource::Authorization,
        TokenSource::header("x-access-token").unwrap(),
        TokenSource::cookie("token").unwrap(),
    ];
    for source in sources {
        let guard = stage.guard.clone().sources([source.clone()]);
        let what = format!("{source:?}");
        check(&what, 0, &mut || drop(guard.verify_now::<StandardClaims>(&headers, &["read"]).unwrap()));
        check(&what, 0, &mut || drop(at_once(guard.verify::<StandardClaims>(&headers, &["read"])).unwrap()));
    }

    // The parts are made beforehand, as a server has them.
    let (mut parts, ()) = Request::get("/").header(AUTHORIZATION, &bearer).body(()).unwrap().into_parts();
    check("axum", 0, &mut || {
        let got = at_once(Claims::<StandardClaims, Read>::from_request_parts(&mut parts, &stage.guard));
        assert!(got.is_ok());
    });

    let mut service = stage.guard.layer::<StandardClaims>().scope("read").layer(Nothing);
    let mut requests: Vec<Request<()>> = (0..2)
        .map(|_| {
            let mut request = Request::get("/").header(AUTHORIZATION, &bearer).body(()).unwrap();
            request.extensions_mut().insert("a server has put something there");
            request
        })
        .collect();
    // One is the box that extensions keep each thing in.
    check("tower", 1, &mut || assert!(at_once(service.call(requests.pop().unwrap())).is_ok()));

    let request = actix_web::test::TestRequest::get()
        .app_data(stage.guard.clone())
        .append_header(("authorization", bearer.as_str()))
        .to_http_request();
    check("actix-web", 0, &mut || {
        let got = at_once(<Claims<StandardClaims, Read> as actix_web::FromRequest>::extract(&request));
        assert!(got.is_ok());
    });
}
