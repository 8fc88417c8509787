//! The tower layer before a service: who gets through, with which claims, and what it costs.
#![cfg(feature = "tower")]
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::convert::Infallible;

use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Request, Response};
use jwks_cache::verify::tower::GuardLayer;
use jwks_cache::{StandardClaims, Verified};
use stage::guarded::Guarded;
use stage::{at_once, soon};
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};

/// Says who came, or that nobody did.
async fn who(request: Request<()>) -> Result<Response<String>, Infallible> {
    let user = request.extensions().get::<Verified<StandardClaims>>();
    Ok(Response::new(user.and_then(|user| user.sub.clone()).unwrap_or_else(|| "nobody".into())))
}

fn request(path: &str, authorization: Option<&str>) -> Request<()> {
    let request = Request::get(path);
    match authorization {
        Some(value) => request.header(AUTHORIZATION, value),
        None => request,
    }
    .body(())
    .unwrap()
}

async fn ask(layer: GuardLayer<StandardClaims>, request: Request<()>) -> Response<String> {
    let service = ServiceBuilder::new().layer(layer).service(service_fn(who));
    soon(service.oneshot(request)).await.unwrap()
}

fn outcome(response: &Response<String>) -> (u16, &str) {
    let is_ok = response.status().is_success();
    (response.status().as_u16(), if is_ok { response.body() } else { "" })
}

#[tokio::test]
async fn only_requests_with_a_good_token_get_through_and_bring_its_claims() {
    let stage = Guarded::new().await;
    for (case, authorization, status, challenge) in stage.cases() {
        let response = ask(stage.guard.layer(), request("/", authorization.as_deref())).await;
        let who = if status == 200 { "ada" } else { "" };
        assert_eq!(outcome(&response), (status, who), "{case}");
        let said = response.headers().get(WWW_AUTHENTICATE).map_or("", |value| value.to_str().unwrap());
        assert!(said.starts_with(challenge), "{case}: {said}");
    }
}

#[tokio::test]
async fn a_skipped_path_is_that_path_and_no_other() {
    let stage = Guarded::new().await;
    for (path, status) in [
        ("/healthz", 200),
        ("/healthz?x=1", 200),
        ("/healthz/", 401),
        ("/healthz/../orders", 401),
        ("//healthz", 401),
        ("/HEALTHZ", 401),
        ("/%68ealthz", 401),
        ("/", 401),
    ] {
        let response = ask(stage.guard.layer().skip("/healthz"), request(path, None)).await;
        let who = if status == 200 { "nobody" } else { "" };
        assert_eq!(outcome(&response), (status, who), "{path}");
    }
    let response = ask(stage.guard.layer().skip("/healthz"), request("/healthz", Some("Bearer x"))).await;
    assert_eq!(outcome(&response), (200, "nobody"));
}

#[tokio::test]
async fn an_optional_token_may_be_missing_but_not_bad() {
    let stage = Guarded::new().await;
    for (case, authorization, status, _) in stage.cases() {
        let response = ask(stage.guard.layer().optional(), request("/", authorization.as_deref())).await;
        let want = match case {
            "none" | "another scheme" => (200, "nobody"),
            _ if status == 200 => (200, "ada"),
            _ => (status, ""),
        };
        assert_eq!(outcome(&response), want, "{case}");
    }
    stage.idp.go_down();
    let fresh = Guarded::new().await;
    let bearer = fresh.bearer();
    fresh.idp.go_down();
    let response = ask(fresh.guard.layer().optional(), request("/", Some(&bearer))).await;
    assert_eq!(outcome(&response), (503, ""));
    assert!(response.headers().contains_key(RETRY_AFTER));
}

#[tokio::test]
async fn scopes_of_a_layer_are_all_needed() {
    let stage = Guarded::new().await;
    for (granted, status) in [("read write", 200), ("write", 403), ("", 403)] {
        let bearer = format!("Bearer {}", stage.token(|it| it.claim("scope", granted)));
        let layer = stage.guard.layer().scope("read").scope("write");
        let response = ask(layer, request("/", Some(&bearer))).await;
        assert_eq!(response.status(), status, "{granted:?}");
    }
}

#[tokio::test]
async fn claims_that_somebody_before_put_there_are_not_believed() {
    let stage = Guarded::new().await;
    let mut headers = http::HeaderMap::new();
    headers.insert(AUTHORIZATION, stage.bearer().parse().unwrap());
    let planted: Verified<StandardClaims> = stage.guard.verify(&headers, &[]).await.unwrap();
    for layer in [stage.guard.layer().optional(), stage.guard.layer().skip("/")] {
        let mut request = request("/", None);
        request.extensions_mut().insert(planted.clone());
        assert_eq!(outcome(&ask(layer, request).await), (200, "nobody"));
    }
}

/// A service that must be found ready before each call, as those with limits must.
#[derive(Default)]
struct Careful {
    ready: bool,
}

impl Clone for Careful {
    fn clone(&self) -> Self {
        Self { ready: false }
    }
}

impl Service<Request<()>> for Careful {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        self.ready = true;
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        std::future::ready(Ok(Response::new(String::new())))
    }
}

#[tokio::test]
async fn the_first_request_waits_for_keys_and_the_next_ones_do_not() {
    let stage = Guarded::new().await;
    let bearer = stage.bearer();
    let mut service =
        ServiceBuilder::new().layer(stage.guard.layer::<StandardClaims>()).service(Careful::default());
    let gate = stage.idp.origin().hold("/jwks.json");
    let asked = stage.idp.origin().next_request("/jwks.json");
    let waits = tokio::spawn(service.ready().await.unwrap().call(request("/", Some(&bearer))));
    soon(asked).await;
    assert!(!waits.is_finished());
    gate.release();
    assert_eq!(soon(waits).await.unwrap().unwrap().status(), 200);
    for _ in 0..3 {
        let answer = at_once(service.ready().await.unwrap().call(request("/", Some(&bearer))));
        assert_eq!(answer.unwrap().status(), 200);
    }
    assert_eq!(stage.idp.jwks_hits(), 1);
}
