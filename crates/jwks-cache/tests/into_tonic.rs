//! The layer and the interceptor before a gRPC service, over real HTTP/2 on loopback.
#![cfg(feature = "tonic")]
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "../examples/tonic_service/greeter.rs"]
mod greeter;
mod stage;

use greeter::{GREET, Greeter, greet};
use http::header::AUTHORIZATION;
use jwks_cache::{StandardClaims, Verified};
use stage::guarded::Guarded;
use stage::soon;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};

/// Says who calls, or that nobody does.
const WHO: Greeter = Greeter(|request| {
    let user = request.extensions().get::<Verified<StandardClaims>>();
    let subject = user.and_then(|user| user.sub.clone()).unwrap_or_else(|| "nobody".into());
    Ok(Response::new(format!("{} {subject}", request.get_ref())))
});

macro_rules! serve {
    ($router:expr) => {{
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}", incoming.local_addr().unwrap());
        let router: Router<_> = $router;
        tokio::spawn(router.serve_with_incoming(incoming));
        Endpoint::from_shared(url).unwrap().connect().await.unwrap()
    }};
}

async fn ask(channel: &Channel, authorizations: &[&str]) -> Result<String, Status> {
    let mut request = Request::new("hello".to_owned());
    for value in authorizations {
        request.metadata_mut().append(AUTHORIZATION.as_str(), MetadataValue::try_from(*value).unwrap());
    }
    soon(greet(channel.clone(), request)).await.map(Response::into_inner)
}

fn challenge(status: &Status) -> &str {
    status.metadata().get("www-authenticate").map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn calls_get_through_with_a_good_token_only() {
    let stage = Guarded::new().await;
    let channel =
        serve!(Server::builder().layer(stage.guard.grpc_layer::<StandardClaims>()).add_service(WHO));
    for (case, authorization, status, wanted) in stage.cases() {
        let values: Vec<_> = authorization.iter().map(String::as_str).collect();
        match ask(&channel, &values).await {
            Ok(text) => assert_eq!((text.as_str(), status), ("hello ada", 200), "{case}"),
            Err(refused) => {
                assert_eq!(
                    (refused.code(), status == 200),
                    (Code::Unauthenticated, false),
                    "{case}: {refused}"
                );
                assert!(challenge(&refused).starts_with(wanted), "{case}: {refused:?}");
            }
        }
    }
    let bearer = stage.bearer();
    let twice = ask(&channel, &[&bearer, &bearer]).await.unwrap_err();
    assert_eq!(twice.code(), Code::Unauthenticated);
    assert!(challenge(&twice).starts_with(r#"Bearer error="invalid_request""#), "{twice:?}");
}

#[tokio::test]
async fn scopes_skips_and_optional_tokens_are_the_layers() {
    let stage = Guarded::new().await;
    let (bearer, layer) = (stage.bearer(), || stage.guard.grpc_layer::<StandardClaims>());
    let scoped = serve!(Server::builder().layer(layer().scope("read")).add_service(WHO));
    assert_eq!(ask(&scoped, &[&bearer]).await.unwrap_err().code(), Code::PermissionDenied);
    let granting = format!("Bearer {}", stage.token(|it| it.claim("scope", "read")));
    assert_eq!(ask(&scoped, &[&granting]).await.unwrap(), "hello ada");
    let skipping = serve!(Server::builder().layer(layer().skip(GREET)).add_service(WHO));
    assert_eq!(ask(&skipping, &[]).await.unwrap(), "hello nobody");
    let optional = serve!(Server::builder().layer(layer().optional()).add_service(WHO));
    assert_eq!(ask(&optional, &[]).await.unwrap(), "hello nobody");
    assert_eq!(ask(&optional, &["Bearer x"]).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn without_keys_a_call_is_to_be_made_again() {
    let stage = Guarded::new().await;
    let channel =
        serve!(Server::builder().layer(stage.guard.grpc_layer::<StandardClaims>()).add_service(WHO));
    let bearer = stage.bearer();
    stage.idp.go_down();
    let refused = ask(&channel, &[&bearer]).await.unwrap_err();
    assert_eq!((refused.code(), challenge(&refused)), (Code::Unavailable, ""));
    assert_eq!(refused.metadata().get("retry-after").unwrap(), "5");
}

#[tokio::test]
async fn an_interceptor_goes_by_keys_at_hand_and_never_waits() {
    let stage = Guarded::new().await;
    let guarded = InterceptedService::new(WHO, stage.guard.interceptor::<StandardClaims>().scope("read"));
    let channel = serve!(Server::builder().add_service(guarded));
    let bearer = format!("Bearer {}", stage.token(|it| it.claim("scope", "read")));
    assert_eq!(ask(&channel, &[&bearer]).await.unwrap_err().code(), Code::Unavailable);
    stage.registry.refresh(stage::TENANT, stage::PROVIDER).await.unwrap();
    assert_eq!(ask(&channel, &[&bearer]).await.unwrap(), "hello ada");
    assert_eq!(ask(&channel, &[&stage.bearer()]).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(ask(&channel, &["Bearer x"]).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(ask(&channel, &[]).await.unwrap_err().code(), Code::Unauthenticated);
}
