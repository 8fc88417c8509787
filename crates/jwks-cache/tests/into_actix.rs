//! Claims as handlers of actix-web take them, through its own test service.
#![cfg(feature = "actix-web")]
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use actix_web::dev::ServiceResponse;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, web};
use http::HeaderValue;
use jwks_cache::verify::actix_web::MaybeClaims;
use jwks_cache::{Claims, Guard, Scopes, StandardClaims, TokenSource};
use stage::guarded::Guarded;

struct WriteOrders;
impl Scopes for WriteOrders {
    const ALL: &'static [&'static str] = &["orders:write"];
}

async fn hello(user: Claims<StandardClaims>) -> String {
    format!("hello {}", user.sub.as_deref().unwrap_or_default())
}

async fn order(_: Claims<StandardClaims, WriteOrders>) -> &'static str {
    "ordered"
}

async fn offers(user: MaybeClaims<StandardClaims>) -> String {
    user.0.map_or_else(|| "for all".into(), |user| format!("for {}", user.sub.as_deref().unwrap_or_default()))
}

/// What the service answers to a request with these headers.
async fn ask(guard: &Guard, path: &str, headers: &[(&str, &str)]) -> ServiceResponse {
    let app = App::new()
        .app_data(guard.clone())
        .route("/", web::get().to(hello))
        .route("/orders", web::get().to(order))
        .route("/offers", web::get().to(offers));
    let mut request = TestRequest::get().uri(path);
    for header in headers {
        request = request.append_header(*header);
    }
    call_service(&init_service(app).await, request.to_request()).await
}

async fn text(response: ServiceResponse) -> String {
    String::from_utf8(read_body(response).await.to_vec()).unwrap()
}

fn challenge(response: &ServiceResponse) -> &str {
    response.headers().get("www-authenticate").map_or("", |value| value.to_str().unwrap())
}

#[actix_web::test]
async fn handlers_run_for_good_tokens_only() {
    let stage = Guarded::new().await;
    for (case, authorization, status, wanted) in stage.cases() {
        for (path, greeting) in [("/", "hello ada"), ("/offers", "for ada")] {
            let headers: Vec<_> =
                authorization.iter().map(|value| ("authorization", value.as_str())).collect();
            let response = ask(&stage.guard, path, &headers).await;
            let is_optional = path == "/offers" && matches!(case, "none" | "another scheme");
            let want = if is_optional { 200 } else { status };
            assert_eq!(response.status().as_u16(), want, "{case} {path}");
            assert!(is_optional || challenge(&response).starts_with(wanted), "{case} {path}");
            let text = text(response).await;
            match want {
                200 => assert_eq!(text, if is_optional { "for all" } else { greeting }, "{case} {path}"),
                _ => assert!(text.starts_with(r#"{"error":""#), "{case} {path}: {text}"),
            }
        }
    }
}

#[actix_web::test]
async fn scopes_stand_in_the_handlers_signature() {
    let stage = Guarded::new().await;
    for (scope, status) in [("orders:write x", 200), ("orders:read", 403), ("", 403)] {
        let bearer = format!("Bearer {}", stage.token(|it| it.claim("scope", scope)));
        let response = ask(&stage.guard, "/orders", &[("authorization", &bearer)]).await;
        assert_eq!(response.status().as_u16(), status, "{scope}");
    }
}

#[actix_web::test]
async fn headers_sent_twice_and_cookies_planted_get_nobody_in() {
    let stage = Guarded::new().await;
    let sources = [
        TokenSource::Authorization,
        TokenSource::header("X-Access-Token").unwrap(),
        TokenSource::cookie("token").unwrap(),
    ];
    let guard = stage.guard.clone().sources(sources);
    let (bearer, token) = (stage.bearer(), stage.token(|it| it));
    let cookie = format!("a=b; token={token}");
    let planted = format!("token={token}; token=x");
    for (headers, status) in [
        (vec![("authorization", bearer.as_str())], 200),
        (vec![("authorization", bearer.as_str()), ("Authorization", bearer.as_str())], 400),
        (vec![("x-access-token", token.as_str())], 200),
        (vec![("X-ACCESS-TOKEN", token.as_str())], 200),
        (vec![("x-access-token", token.as_str()), ("authorization", bearer.as_str())], 400),
        (vec![("cookie", cookie.as_str())], 200),
        (vec![("cookie", planted.as_str())], 400),
        (vec![("cookie", cookie.as_str()), ("cookie", "token=x")], 400),
    ] {
        let response = ask(&guard, "/", &headers).await;
        assert_eq!(
            response.status().as_u16(),
            status,
            "{:?}",
            headers.iter().map(|it| it.0).collect::<Vec<_>>()
        );
    }
}

#[actix_web::test]
async fn a_provider_that_is_down_is_no_reason_to_blame_the_token() {
    let stage = Guarded::new().await;
    let guard =
        stage.guard.clone().body(HeaderValue::from_static("text/plain"), |refusal| refusal.code().to_owned());
    let bearer = stage.bearer();
    stage.idp.go_down();
    for path in ["/", "/orders", "/offers"] {
        let response = ask(&guard, path, &[("authorization", &bearer)]).await;
        assert_eq!((response.status().as_u16(), challenge(&response)), (503, ""), "{path}");
        assert_eq!(response.headers().get("retry-after").unwrap(), "5", "{path}");
        assert_eq!(response.headers().get("content-type").unwrap(), "text/plain", "{path}");
        assert_eq!(text(response).await, "temporarily_unavailable", "{path}");
    }
}

#[actix_web::test]
async fn the_innermost_guard_counts_and_none_lets_nobody_in() {
    let stage = Guarded::new().await;
    let bearer = stage.bearer();
    let ask = |path: &str| {
        TestRequest::get().uri(path).append_header(("authorization", bearer.as_str())).to_request()
    };
    let others = stage.registry.verifier().any_issuer().audience("others").build().unwrap();
    let inner = web::scope("/inner").app_data(Guard::new(others)).route("", web::get().to(hello));
    let app = App::new().app_data(stage.guard.clone()).service(inner).route("/", web::get().to(hello));
    let app = init_service(app).await;
    assert_eq!(call_service(&app, ask("/")).await.status().as_u16(), 200);
    assert_eq!(call_service(&app, ask("/inner")).await.status().as_u16(), 401);
    for without in [App::new(), App::new().app_data(web::Data::new(stage.guard.clone()))] {
        let without = without.route("/", web::get().to(hello));
        assert_eq!(call_service(&init_service(without).await, ask("/")).await.status().as_u16(), 500);
    }
}
