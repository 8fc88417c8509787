//! A number of lookups of one fresh key and nothing else, for a tool that counts instructions:
//! `read_path <resolve|key|with_key> <lookups>`. `cargo xtask test bench-guard` runs it under callgrind.
//!
//! Without arguments it makes one lookup of each kind. Times are measured elsewhere, in `bench/`.

#![allow(clippy::unwrap_used, reason = "a benchmark may fail by panicking")]

use std::hint::black_box;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, HeaderValue};
use jwks_cache::{
    Algorithm, Clock, Fetch, FetchRequest, Fetched, Fetching, IdentityProviderRegistration, Registry,
    SystemClock, Timing,
};

/// Four keys, as providers publish them; the third is looked up.
const KIDS: [&str; 4] = ["2026-01-a7c93f1e", "2026-02-5b0d8e42", "2026-03-e61f7a09", "2026-04-90c2b4d3"];
const KID: Option<&str> = Some(KIDS[2]);

/// Answers without a network.
#[derive(Debug)]
struct AtOnce;

impl Fetch for AtOnce {
    fn fetch<'a>(&'a self, _: &'a FetchRequest) -> Fetching<'a> {
        let now = SystemClock.now();
        let timing = Timing { requested_at: now, received_at: now, received_wall: SystemClock.wall() };
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let keys = KIDS.map(|kid| format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{x}"}}"#));
        Box::pin(std::future::ready(Ok(Fetched {
            status: http::StatusCode::OK,
            headers: [(CACHE_CONTROL, HeaderValue::from_static("max-age=86400"))].into_iter().collect(),
            body: format!(r#"{{"keys":[{}]}}"#, keys.join(",")).into_bytes(),
            timing,
            requests: 1,
        })))
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let registry = Registry::builder().fetcher(Arc::new(AtOnce)).build();
        let made = IdentityProviderRegistration::new("acme", "main", "https://id.example.com/jwks.json");
        registry.register(made.unwrap()).await.unwrap();
        registry.resolve("acme", "main", KID).await.unwrap();
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [what, lookups] => look(&registry, what, lookups.parse().unwrap()).await,
            _ => {
                for what in ["resolve", "key", "with_key"] {
                    look(&registry, what, 1).await;
                }
            }
        }
    });
}

async fn look(registry: &Registry, what: &str, lookups: u32) {
    let handle = registry.provider("acme", "main").unwrap();
    for _ in 0..lookups {
        let kid = black_box(KID);
        match what {
            "resolve" => drop(black_box(registry.resolve("acme", "main", kid).await.unwrap())),
            "key" => drop(black_box(handle.key(kid, Algorithm::EdDSA).await.unwrap())),
            "with_key" => {
                _ = black_box(handle.with_key(kid, Algorithm::EdDSA, |key| key.algorithm()).unwrap())
            }
            _ => panic!("resolve, key or with_key"),
        }
    }
}
