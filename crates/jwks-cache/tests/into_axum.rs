//! Claims as handlers of axum take them, over real HTTP on loopback.
#![cfg(feature = "axum")]
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use axum::extract::FromRef;
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::HeaderValue;
use jwks_cache::{Claims, Guard, Scopes, StandardClaims, TokenSource, Verified};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use stage::guarded::Guarded;
use stage::soon;

struct WriteOrders;
impl Scopes for WriteOrders {
    const ALL: &'static [&'static str] = &["orders:read", "orders:write"];
}

/// Claims of the service's own.
#[derive(Deserialize)]
struct Own {
    sub: String,
    scope: Option<String>,
}

/// A state that holds a guard among other things.
#[derive(Clone, FromRef)]
struct State {
    guard: Guard,
    greeting: &'static str,
}

async fn hello(state: axum::extract::State<State>, user: Claims<StandardClaims>) -> String {
    format!("{} {}", state.greeting, user.sub.as_deref().unwrap_or_default())
}

async fn order(user: Claims<Own, WriteOrders>) -> String {
    format!("{} by {}", user.scope.as_deref().unwrap_or_default(), user.sub)
}

async fn offers(user: Option<Claims<Own>>) -> String {
    user.map_or_else(|| "for all".into(), |user| format!("for {}", user.sub))
}

async fn behind_a_layer(user: Extension<Verified<Own>>) -> String {
    format!("{} of {}", user.sub, user.tenant_id())
}

/// A service on loopback, and somebody who asks it.
struct Served {
    stage: Guarded,
    url: String,
    client: Client,
}

impl Served {
    async fn with(change: impl FnOnce(Guard) -> Guard) -> Self {
        let stage = Guarded::new().await;
        let guard = change(stage.guard.clone());
        let app = Router::new()
            .route("/layered", get(behind_a_layer))
            .route_layer(guard.layer::<Own>())
            .route("/", get(hello))
            .route("/orders", post(order))
            .route("/offers", get(offers))
            .with_state(State { guard, greeting: "hello" });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, app).await });
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self { stage, url, client: Client::builder().no_proxy().build().unwrap() }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = match path {
            "/orders" => self.client.post(self.url.clone() + path),
            _ => self.client.get(self.url.clone() + path),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        soon(request.send()).await.unwrap()
    }

    /// Status and text of the answer to a token with these scopes.
    async fn scoped(&self, path: &str, scope: &str) -> (StatusCode, String) {
        let bearer = format!("Bearer {}", self.stage.token(|it| it.claim("scope", scope)));
        let response = self.get(path, &[("authorization", &bearer)]).await;
        (response.status(), response.text().await.unwrap())
    }
}

fn challenge(response: &Response) -> &str {
    response.headers().get("www-authenticate").map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn handlers_run_for_good_tokens_only() {
    let served = Served::with(|it| it).await;
    for (case, authorization, status, wanted) in served.stage.cases() {
        for (path, greeting) in [("/", "hello ada"), ("/offers", "for ada"), ("/layered", "ada of acme")] {
            let headers: Vec<_> =
                authorization.iter().map(|value| ("authorization", value.as_str())).collect();
            let response = served.get(path, &headers).await;
            let is_optional = path == "/offers" && matches!(case, "none" | "another scheme");
            let want = if is_optional { 200 } else { status };
            assert_eq!(response.status(), want, "{case} {path}");
            assert!(is_optional || challenge(&response).starts_with(wanted), "{case} {path}");
            let text = response.text().await.unwrap();
            match want {
                200 => assert_eq!(text, if is_optional { "for all" } else { greeting }, "{case} {path}"),
                _ => assert!(text.starts_with(r#"{"error":""#), "{case} {path}: {text}"),
            }
        }
    }
}

#[tokio::test]
async fn scopes_stand_in_the_handlers_signature() {
    let served = Served::with(|it| it).await;
    let (status, text) = served.scoped("/orders", "orders:write orders:read").await;
    assert_eq!((status.as_u16(), text.as_str()), (200, "orders:write orders:read by ada"));
    for scope in ["orders:read", "", "orders:read orders:writer"] {
        let (status, text) = served.scoped("/orders", scope).await;
        assert_eq!(status, 403, "{scope}");
        assert!(text.contains("insufficient_scope"), "{text}");
    }
}

#[tokio::test]
async fn headers_sent_twice_and_cookies_planted_get_nobody_in() {
    let served =
        Served::with(|it| it.sources([TokenSource::Authorization, TokenSource::cookie("token").unwrap()]))
            .await;
    let (bearer, token) = (served.stage.bearer(), served.stage.token(|it| it));
    let cookie = format!("theme=dark; token={token}");
    let planted = format!("token={token}; token=x");
    for (headers, status) in [
        (vec![("authorization", bearer.as_str())], 200),
        (vec![("AUTHORIZATION", bearer.as_str())], 200),
        (vec![("authorization", bearer.as_str()), ("Authorization", bearer.as_str())], 400),
        (vec![("authorization", bearer.as_str()), ("Authorization", "Basic YTpi")], 400),
        (vec![("cookie", cookie.as_str())], 200),
        (vec![("cookie", planted.as_str())], 400),
        (vec![("cookie", cookie.as_str()), ("authorization", bearer.as_str())], 400),
        (vec![("cookie", cookie.as_str()), ("cookie", "token=x")], 400),
        (vec![("x-authorization", bearer.as_str())], 401),
        (vec![("x-forwarded-user", "ada")], 401),
    ] {
        let response = served.get("/", &headers).await;
        assert_eq!(response.status(), status, "{:?}", headers.iter().map(|it| it.0).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_provider_that_is_down_is_no_reason_to_blame_the_token() {
    let served = Served::with(|it| {
        it.body(HeaderValue::from_static("text/plain"), |refusal| refusal.code().to_owned())
    })
    .await;
    let bearer = served.stage.bearer();
    served.stage.idp.go_down();
    for path in ["/", "/orders", "/offers", "/layered"] {
        let response = served.get(path, &[("authorization", &bearer)]).await;
        assert_eq!((response.status().as_u16(), challenge(&response)), (503, ""), "{path}");
        assert_eq!(response.headers()["retry-after"], "5", "{path}");
        assert_eq!(response.headers()["content-type"], "text/plain", "{path}");
        assert_eq!(response.text().await.unwrap(), "temporarily_unavailable", "{path}");
    }
    served.stage.idp.come_back();
    served.stage.registry.refresh(stage::TENANT, stage::PROVIDER).await.unwrap();
    assert_eq!(served.get("/", &[("authorization", &bearer)]).await.status(), 200);
}
