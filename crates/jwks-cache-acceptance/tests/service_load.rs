//! 10,000 requests through axum, and as many through tonic, over real sockets while keys rotate and retire, and the provider
//! dies and comes back. No good token may be refused, and none for another service taken.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "../../jwks-cache/examples/tonic_service/greeter.rs"]
mod greeter;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::{Router, routing::get};
use greeter::Greeter;
use jwks_cache::{Claims, Guard, IdentityProviderRegistration, Registry, StandardClaims, Verified};
use jwks_cache_testkit::{IdentityProvider, ManualClock, Token};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response, Status};

const REQUESTS: usize = 10_000;
const CALLERS: usize = 16;
/// Something happens every so many requests.
const EACH: usize = 500;
/// One token in so many is for another service. (A forged one could spend the budget for unknown keys just before a
/// rotation, and then the new key waits for 10 s: so it is promised.)
const FOREIGN: usize = 10;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A provider that is never left alone, and a guard for its tokens.
struct World {
    clock: ManualClock,
    idp: IdentityProvider,
    registry: Registry,
    guard: Guard,
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::new();
        let idp =
            IdentityProvider::builder().cache_control("max-age=60").clock(Arc::new(clock.clone())).start();
        let registry = Registry::builder().require_https(false).clock(Arc::new(clock.clone())).build();
        let mut registration = IdentityProviderRegistration::new("acme", "main", idp.jwks_url()).unwrap();
        registration.require_https = false;
        registration.issuer = Some(idp.issuer());
        registration.stale_while_error = secs(24 * 3600);
        // Longer than an answer takes on a slow machine: who gives up would be told that the kid is unknown.
        registration.kid_miss_wait = secs(30);
        registry.register(registration).await.unwrap();
        let guard = Guard::new(registry.verifier().audience("orders").build().unwrap());
        Self { clock, idp, registry, guard }
    }

    /// A token for the request of that number, and whether it is good.
    fn token(&self, number: usize) -> (String, bool) {
        let is_good = !number.is_multiple_of(FOREIGN);
        let audience = if is_good { "orders" } else { "bills" };
        let token = Token::new().subject("ada").audience(audience).expires_in(secs(3600));
        (self.idp.mint(&token), is_good)
    }

    /// What happens at that step, while requests go on.
    async fn happen(&self, step: usize) {
        match step {
            // Dead, for longer than the keys are fresh.
            8 => self.idp.go_down(),
            9 | 10 => self.clock.advance(secs(90)),
            11 => self.idp.fail_with(500),
            12 => self.clock.advance(secs(90)),
            13 => {
                self.idp.come_back();
                self.clock.advance(secs(360));
                self.registry.refresh_and_wait("acme", "main").await.unwrap();
            }
            // Unknown kids may cause a request every 10 s of policy time.
            _ => {
                self.clock.advance(secs(11));
                self.idp.rotate();
                if step > 2 && step < 8 {
                    self.idp.retire(&format!("k{}", step - 2));
                }
            }
        }
    }

    /// Sends the requests, `ask` by `ask`: whether each was let in, or what else became of it.
    async fn endure<F>(self: Arc<Self>, ask: impl Fn(String) -> F + Clone + Send + 'static)
    where
        F: Future<Output = Result<bool, String>> + Send,
    {
        let (next, right) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut callers = Vec::new();
        for _ in 0..CALLERS {
            let (world, next, right, ask) = (self.clone(), next.clone(), right.clone(), ask.clone());
            callers.push(tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, SeqCst);
                    if number >= REQUESTS {
                        break;
                    }
                    if number.is_multiple_of(EACH) {
                        world.happen(number / EACH).await;
                    }
                    let (token, is_good) = world.token(number);
                    let got = ask(token).await;
                    assert_eq!(got, Ok(is_good), "request {number}");
                    right.fetch_add(1, SeqCst);
                }
            }));
        }
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(right.load(SeqCst), REQUESTS);
        // The death was one: keys were served beyond their lifetime.
        let status = self.registry.provider_status("acme", "main").await.unwrap();
        assert!(status.stale_serve_ratio > 0.0, "{status:?}");
        println!("{REQUESTS} requests, 0 false answers, {} fetches", self.idp.jwks_hits());
    }
}

async fn hello(user: Claims<StandardClaims>) -> String {
    user.sub.clone().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum_refuses_no_good_token_while_keys_rotate_and_the_provider_dies() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let world = Arc::new(World::new().await);
    let app = Router::new().route("/", get(hello)).with_state(world.guard.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = move |token: String| {
        let request = client.get(&url).bearer_auth(token);
        async move {
            let response = request.send().await.map_err(|error| error.to_string())?;
            match (response.status().as_u16(), response.text().await.as_deref()) {
                (200, Ok("ada")) => Ok(true),
                (401, Ok(body)) if body.contains("invalid_token") => Ok(false),
                other => Err(format!("{other:?}")),
            }
        }
    };
    world.endure(ask).await;
}

/// Says who calls.
fn who(request: Request<String>) -> Result<Response<String>, Status> {
    let user = request.extensions().get::<Verified<StandardClaims>>();
    Ok(Response::new(user.and_then(|user| user.sub.clone()).unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tonic_refuses_no_good_token_while_keys_rotate_and_the_provider_dies() {
    let world = Arc::new(World::new().await);
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let layer = world.guard.grpc_layer::<StandardClaims>();
    let router = Server::builder().layer(layer).add_service(Greeter(who));
    tokio::spawn(router.serve_with_incoming(incoming));
    let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let ask = move |token: String| {
        let channel = channel.clone();
        async move {
            let mut request = Request::new(String::new());
            let value = format!("Bearer {token}").parse().map_err(|_| "no metadata")?;
            request.metadata_mut().insert("authorization", value);
            match greeter::greet(channel, request).await.map(Response::into_inner) {
                Ok(subject) if subject == "ada" => Ok(true),
                Err(status) if status.code() == Code::Unauthenticated => Ok(false),
                other => Err(format!("{other:?}")),
            }
        }
    };
    world.endure(ask).await;
}
