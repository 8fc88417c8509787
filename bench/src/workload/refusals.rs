//! S32: how long a refusal takes, by what is wrong with the token. Nothing is judged: what differs is for the reader
//! of `trust` to know. One thread; the causes take turns, each token timed by itself.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwks_cache_testkit::{Algorithm, IdentityProvider, Token};
use ours::verify::Scoped;
use ours::{IdentityProviderRegistration, Registry, Verifier, VerifyError};
use serde_json::Value;

use super::runtime;
use crate::report::{Cell, Table};

const REFUSED: usize = 10_000;
const TENANT: &str = "acme";

pub(super) fn run(_cap: Duration) -> Table {
    let runtime = runtime();
    let _inside = runtime.enter();
    let title = "10,000 tokens refused for each cause, `verify_now`, RS256; one thread";
    let mut table =
        Table::with_columns("S32", title, ["median", "1 in 4 under", "3 in 4 under", "99 in 100 under"]);
    let (verifier, tokens) = runtime.block_on(world());
    let at = |tenant| verifier.of_provider(tenant, "main");
    let causes = [
        ("the tenant is not registered", at("nobody"), &tokens.good),
        ("the kid is known to be missing", at(TENANT), &tokens.of_unknown_kid),
        ("the signature is wrong", at(TENANT), &tokens.forged),
    ];
    let mut took = causes.map(|_| Vec::with_capacity(REFUSED));
    for _ in 0..REFUSED {
        for ((_, scoped, token), took) in causes.iter().zip(&mut took) {
            took.push(refusal(*scoped, token));
        }
    }
    for ((what, ..), mut took) in causes.into_iter().zip(took) {
        took.sort();
        table.tell(what, [50, 25, 75, 99].map(|percent| Cell::Time(took[REFUSED * percent / 100])));
    }
    runtime.shutdown_background();
    table
}

fn refusal(scoped: Scoped<'_>, token: &str) -> Duration {
    let began = Instant::now();
    let refused = scoped.verify_now::<Value>(token);
    let took = began.elapsed();
    let told = refused.expect_err("it is good for nothing").to_string();
    assert_eq!(told, "the token's signature could not be verified");
    took
}

struct Tokens {
    good: String,
    of_unknown_kid: String,
    forged: String,
}

async fn world() -> (Verifier, Tokens) {
    let idp = IdentityProvider::builder().algorithm(Algorithm::RS256).cache_control("max-age=3600").start();
    let registry = Registry::builder().require_https(false).build();
    let registration = IdentityProviderRegistration::new(TENANT, "main", idp.jwks_url()).expect("a URL");
    registry.register(registration).await.expect("it is legal");
    let verifier = registry.verifier().any_audience().any_issuer().build().expect("it is legal");
    let good = idp.mint(&Token::new());
    let (input, signature) = good.rsplit_once('.').expect("it has dots");
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{input}.{first}{}", &signature[1..]);
    let after = good.split_once('.').expect("it has dots").1;
    let of_unknown_kid =
        format!("{}.{after}", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT","kid":"nobody"}"#));
    let tokens = Tokens { forged, of_unknown_kid, good };
    let scoped = verifier.of_provider(TENANT, "main");
    scoped.verify::<Value>(&tokens.good).await.expect("it is good");
    // The first one waits, and is how the kid comes to be known.
    let refused = scoped.verify::<Value>(&tokens.of_unknown_kid).await;
    assert!(matches!(refused, Err(VerifyError::UnknownKey(_))), "{refused:?}");
    (verifier, tokens)
}
