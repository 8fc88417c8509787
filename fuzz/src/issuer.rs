//! A provider with one Ed25519 key, its tokens, and verifiers of them.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwks_cache::{
    Clock, Fetch, FetchRequest, Fetched, Fetching, IdentityProviderRegistration, Moment, NotFetched,
    Registry, Sleep, Timing, Verifier,
};

/// The issuer of its tokens.
pub const ISSUER: &str = "https://idp";
/// Whom they are for.
pub const AUDIENCE: &str = "a";
/// The time, in seconds.
pub const NOW: i64 = 1_000_000;

/// Two verifiers of the same rules by keys at hand; the second remembers.
pub static VERIFIERS: LazyLock<[Verifier; 2]> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let registry = Registry::builder().clock(Arc::new(Still)).fetcher(Arc::new(Publishing)).build();
        let url = "https://idp.example/jwks.json";
        let mut registration = IdentityProviderRegistration::new("acme", "main", url).expect("a URL");
        registration.issuer = Some(ISSUER.to_owned());
        registration.max_trust_age = Some(Duration::from_secs(1 << 30));
        registry.register(registration).await.expect("it is legal");
        registry.resolve("acme", "main", None).await.expect("keys are published");
        let rules = || registry.verifier().audience(AUDIENCE).require_claim("sub").leeway(Duration::ZERO);
        [rules().build().expect("legal rules"), rules().cache_bytes(1 << 20).build().expect("legal rules")]
    })
});

static KEY: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed of 32 bytes"));

/// A token with this payload, signed by the published key.
pub fn token(payload: &str) -> String {
    let input = format!("{}.{}", encode(r#"{"alg":"EdDSA","kid":"k"}"#), encode(payload));
    let signature = encode(KEY.sign(input.as_bytes()).as_ref());
    format!("{input}.{signature}")
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[derive(Debug)]
struct Publishing;

impl Fetch for Publishing {
    fn fetch<'a>(&'a self, _: &'a FetchRequest) -> Fetching<'a> {
        let key = encode(KEY.public_key().as_ref());
        let body = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{key}"}}]}}"#);
        let timing =
            Timing { requested_at: Still.now(), received_at: Still.now(), received_wall: Still.wall() };
        let (status, headers) = (http::StatusCode::OK, http::HeaderMap::new());
        Box::pin(async move {
            Ok::<_, NotFetched>(Fetched { status, headers, body: body.into(), timing, requests: 1 })
        })
    }
}

/// A clock that stands still.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Moment {
        Moment::ORIGIN + Duration::from_secs(1 << 30)
    }

    fn wall(&self) -> chrono::DateTime<chrono::Utc> {
        chrono::DateTime::from_timestamp(NOW, 0).unwrap_or_default()
    }

    fn sleep_until(&self, _: Moment) -> Sleep {
        Box::pin(std::future::pending())
    }
}
