//! W3: one token verified whole, header to claims, as a multiple of the bare signature check with a parsed key.
//! One thread; tokens of 0.6 to 0.9 kB; every contender checks signature, `exp`, `iss` where it can, and `aud`.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use axum_jwt_auth::JwtDecoder;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwks_cache_testkit::{Algorithm, IdentityProvider};
use ours::{IdentityProviderRegistration, Registry};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_oauth2_resource_server::server::OAuth2ResourceServer;
use tower_oauth2_resource_server::tenant::TenantConfiguration;
use tower_service::Service;

use super::runtime;
use crate::counting;
use crate::report::{Cell, Table};

const TENANTS: usize = 1_000;
/// Slices of all contenders follow each other; the median of the ratios to the bare check beside each counts.
const SLICES: usize = 41;
/// How long a slice of the bare check takes, about.
const SLICE: Duration = Duration::from_millis(8);
const COUNTED: usize = 200;
const AUDIENCE: &str = "https://orders.example.com";

/// What a service asks of a token.
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "they are read to be made, as a service would")]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    scope: String,
}

/// One way to verify the `n`th token; panics when it is refused.
struct Contender<'a> {
    name: &'static str,
    verify: Box<dyn Fn(usize) + 'a>,
}

const BARE: &str = "bare check, parsed key";
const OURS: &str = "jwks-cache: Verifier::verify";
const CACHED: &str = "jwks-cache: with a cache of verified tokens";

struct Seen {
    name: &'static str,
    micros: f64,
    times: f64,
    allocations: f64,
}

pub(super) fn run(_cap: Duration) -> Table {
    // Two backends are switched on here, as they are in many builds; jsonwebtoken wants one installed.
    let _ = jsonwebtoken_10::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let runtime = runtime();
    let _inside = runtime.enter();
    let columns = ["RS256", "of bare", "allocations", "1,000 tenants", "ES256", "Ed25519"];
    let title = "one token verified, as a multiple of the bare check with a parsed key; one thread";
    let mut table = Table::with_columns("W3", title, columns);
    let [rs, es, ed] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(|algorithm| {
        let world = runtime.block_on(World::new(algorithm, 1));
        measure(&world.contenders())
    });
    let many = {
        let world = runtime.block_on(World::new(Algorithm::RS256, TENANTS));
        measure(&world.contenders())
    };
    for seen in &rs {
        let of = |others: &[Seen]| {
            others.iter().find(|other| other.name == seen.name).map_or(f64::NAN, |other| other.times)
        };
        let cell = |times: f64| if times.is_nan() { Cell::None } else { Cell::Times(times) };
        let [thousand, es, ed] = [of(&many), of(&es), of(&ed)];
        let cells = [
            Cell::Time(Duration::from_secs_f64(seen.micros / 1e6)),
            cell(seen.times),
            Cell::Mean(seen.allocations),
            cell(thousand),
            cell(es),
            cell(ed),
        ];
        match seen.name {
            OURS => {
                let met = seen.times <= 1.10
                    && thousand <= 1.10
                    && es <= 1.03
                    && ed <= 1.05
                    && seen.allocations <= 8.0;
                table.judge(
                    seen.name,
                    cells,
                    "≤ 1.10 both, ES256 ≤ 1.03, Ed25519 ≤ 1.05, ≤ 8 allocations",
                    met,
                );
            }
            CACHED => table.judge(seen.name, cells, "≤ 0.08", seen.times <= 0.08),
            _ => table.tell(seen.name, cells),
        }
    }
    runtime.shutdown_background();
    table
}

/// Providers that publish one key, and a token of each.
struct World {
    _idp: IdentityProvider,
    algorithm: Algorithm,
    tokens: Vec<String>,
    issuers: Vec<String>,
    jwks: String,
    plain: ours::Verifier,
    caching: ours::Verifier,
}

impl World {
    async fn new(algorithm: Algorithm, tenants: usize) -> Self {
        let idp = IdentityProvider::builder().algorithm(algorithm).cache_control("max-age=3600").start();
        let registry = Registry::builder().require_https(false).build();
        let issuers: Vec<String> =
            (0..tenants).map(|n| format!("https://tenant-{n}.id.example.com/")).collect();
        let mut tokens = Vec::new();
        for (n, issuer) in issuers.iter().enumerate() {
            let tenant = format!("tenant-{n}");
            let mut registration =
                IdentityProviderRegistration::new(&tenant, "main", idp.jwks_url()).expect("a URL");
            registration.issuer = Some(issuer.clone());
            registry.register(registration).await.expect("it is legal");
            tokens.push(idp.token(&claims(issuer)));
        }
        registry.warm_up(Duration::from_secs(60)).await;
        let jwks = registry.resolve("tenant-0", "main", None).await.expect("keys are at hand");
        let verifier = || registry.verifier().audience(AUDIENCE);
        Self {
            _idp: idp,
            algorithm,
            tokens,
            issuers,
            jwks: serde_json::to_string(&*jwks).expect("a set is JSON"),
            plain: verifier().build().expect("it is legal"),
            caching: verifier().cache_bytes(64 << 20).build().expect("it is legal"),
        }
    }

    fn contenders<'a>(&'a self) -> Vec<Contender<'a>> {
        let token = |n: usize| self.tokens[n % self.tokens.len()].as_str();
        let mut all: Vec<Contender<'a>> = Vec::new();
        let mut enter = |name, verify: Box<dyn Fn(usize) + 'a>| all.push(Contender { name, verify });

        let key = self.parsed_key();
        let taken_apart: Vec<_> = self
            .tokens
            .iter()
            .map(|token| {
                let (input, signature) = token.rsplit_once('.').expect("it has dots");
                (input.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(signature).expect("it is base64"))
            })
            .collect();
        enter(
            BARE,
            Box::new(move |n| {
                let (input, signature) = &taken_apart[n % taken_apart.len()];
                key.verify_sig(input, signature).expect("it is signed");
            }),
        );
        enter(
            OURS,
            Box::new(move |n| {
                at_once(self.plain.verify::<Claims>(token(n))).expect("it is good");
            }),
        );
        enter(
            CACHED,
            Box::new(move |n| {
                at_once(self.caching.verify::<Claims>(token(n))).expect("it is good");
            }),
        );
        self.resource_server(&mut enter);
        if self.tokens.len() == 1 {
            self.single_tenant(&mut enter);
        }
        all
    }

    fn parsed_key(&self) -> ParsedPublicKey {
        let jwks: Value = serde_json::from_str(&self.jwks).expect("it is JSON");
        let member = |name: &str| {
            URL_SAFE_NO_PAD.decode(jwks["keys"][0][name].as_str().expect("it is there")).expect("base64")
        };
        match self.algorithm {
            Algorithm::RS256 => {
                let components = RsaPublicKeyComponents { n: member("n"), e: member("e") };
                components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).expect("it is a key")
            }
            Algorithm::ES256 => {
                let point = [vec![4], member("x"), member("y")].concat();
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).expect("it is a key")
            }
            _ => ParsedPublicKey::new(&ED25519, member("x")).expect("it is a key"),
        }
    }

    /// A tower layer: what it does besides verifying is a request and its extensions.
    fn resource_server<'a>(&'a self, enter: &mut impl FnMut(&'static str, Box<dyn Fn(usize) + 'a>)) {
        let tenants = self.issuers.iter().map(|issuer| {
            let tenant = TenantConfiguration::static_builder(self.jwks.as_str())
                .identifier(issuer)
                .audiences(&[AUDIENCE]);
            tenant.build().expect("it is legal")
        });
        let building = <OAuth2ResourceServer<Claims>>::builder().add_tenants(tenants.collect()).build();
        let server = tokio::runtime::Handle::current().block_on(building).expect("it is legal");
        let service = tower_layer::Layer::layer(&server.into_layer(), Answering);
        let headers: Vec<_> = self.tokens.iter().map(|token| format!("Bearer {token}")).collect();
        enter(
            "tower-oauth2-resource-server: its layer",
            Box::new(move |n| {
                let request =
                    http::Request::builder().header("authorization", headers[n % headers.len()].as_str());
                let answer = at_once(service.clone().call(request.body(String::new()).expect("a request")));
                assert_eq!(answer.map(|answer| answer.status().as_u16()), Ok(200));
            }),
        );
    }

    fn single_tenant<'a>(&'a self, enter: &mut impl FnMut(&'static str, Box<dyn Fn(usize) + 'a>)) {
        let (token, issuer) = (self.tokens[0].as_str(), self.issuers[0].as_str());
        macro_rules! kept_key {
            ($jsonwebtoken:ident) => {{
                use $jsonwebtoken::{DecodingKey, Validation, jwk};
                let jwks: jwk::JwkSet = serde_json::from_str(&self.jwks).expect("it is a set");
                let key = DecodingKey::from_jwk(&jwks.keys[0]).expect("it is a key");
                let mut validation = Validation::new(self.algorithm.as_str().parse().expect("it knows it"));
                validation.set_audience(&[AUDIENCE]);
                validation.set_issuer(&[issuer]);
                (key, validation)
            }};
        }
        let (key, validation) = kept_key!(jsonwebtoken_10);
        let (kept, rules) = (key.clone(), validation.clone());
        enter(
            "jsonwebtoken 10: decode, key and rules kept",
            Box::new(move |_| {
                jsonwebtoken_10::decode::<Claims>(token, &kept, &rules).expect("it is good");
            }),
        );
        let decoder = axum_jwt_auth::LocalDecoder::new(vec![key], validation).expect("it is legal");
        enter(
            "axum-jwt-auth: JwtDecoder::decode",
            Box::new(move |_| {
                let decoding = JwtDecoder::<Claims>::decode(&decoder, token);
                at_once(decoding).expect("it is good");
            }),
        );
        let (key, validation) = kept_key!(jsonwebtoken);
        enter(
            "jsonwebtoken 11: decode, key and rules kept",
            Box::new(move |_| {
                jsonwebtoken::decode::<Claims>(token, &key, &validation).expect("it is good");
            }),
        );
        let rules = jwt_authorizer::Validation::new().iss(&[issuer]).aud(&[AUDIENCE]);
        let built =
            jwt_authorizer::AuthorizerBuilder::<Claims>::from_jwks_text(&self.jwks).validation(rules).build();
        let authorizer = tokio::runtime::Handle::current().block_on(built).expect("it is legal");
        enter(
            "jwt-authorizer: check_auth",
            Box::new(move |_| {
                at_once(authorizer.check_auth(token)).expect("it is good");
            }),
        );
        let jwks: jwtk::jwk::JwkSet = serde_json::from_str(&self.jwks).expect("it is a set");
        let verifier = jwks.verifier();
        // On aws-lc it reads RSA keys alone.
        if verifier.verify::<Scope>(token).is_ok() {
            enter(
                "jwtk: JwkSetVerifier::verify",
                Box::new(move |_| {
                    verifier.verify::<Scope>(token).expect("it is good");
                }),
            );
        }
    }
}

/// What jwtk does not read itself.
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "read to be made")]
struct Scope {
    scope: String,
}

/// What stands behind the layer.
#[derive(Clone)]
struct Answering;

impl Service<http::Request<String>> for Answering {
    type Response = http::Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<http::Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<String>) -> Self::Future {
        ready(Ok(http::Response::new(String::new())))
    }
}

fn claims(issuer: &str) -> Value {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    json!({
        "iss": issuer, "sub": "auth0|65f1c0ffee0123456789abcd", "aud": AUDIENCE, "exp": now + 86_400, "iat": now,
        "jti": "6d0c8b1e-4f0a-4b53-9c1d-2f7a3b9c0d1e", "azp": "3q2x7Jm1yV0aK8dT5bNfRw", "scope": "orders:read orders:write",
        "gty": "client-credentials",
    })
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("keys are at hand, and it waits"),
    }
}

fn measure(contenders: &[Contender<'_>]) -> Vec<Seen> {
    let bare = &contenders[0];
    let slice = |of: &Contender<'_>, rounds: usize| {
        let start = Instant::now();
        (0..rounds).for_each(|n| (of.verify)(n));
        start.elapsed().as_secs_f64() / rounds as f64
    };
    let rounds = (SLICE.as_secs_f64() / slice(bare, 200)).max(1.0) as usize;
    let mut times = vec![Vec::new(); contenders.len()];
    let mut took = vec![Vec::new(); contenders.len()];
    for _ in 0..SLICES {
        for (at, contender) in contenders.iter().enumerate() {
            let (before, own, after) =
                (slice(bare, rounds / 2), slice(contender, rounds), slice(bare, rounds / 2));
            took[at].push(own);
            times[at].push(2.0 * own / (before + after));
        }
    }
    let median = |of: &mut Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    };
    contenders
        .iter()
        .zip(took.iter_mut().zip(&mut times))
        .map(|(contender, (took, times))| {
            let counted = counting::allocations(|| (0..COUNTED).for_each(|n| (contender.verify)(n)));
            let allocations = (counted as f64 / COUNTED as f64 * 10.0).round() / 10.0;
            Seen { name: contender.name, micros: median(took) * 1e6, times: median(times), allocations }
        })
        .collect()
}
