//! A cache of verified tokens keeps within its bytes whatever claims are made of. One test in a process of its own,
//! because it reads the process's peak.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![cfg(target_os = "linux")]

mod stage;

use jwks_cache::{Clock, Verifier};
use serde_json::Value;
use stage::peak::{peak, peak_from_now};
use stage::scripted::{Stage, document};
use stage::tokens::Signer;
use stage::{PROVIDER, TENANT};

const BYTES: usize = 8 << 20;
const HEADER: &str = r#"{"alg":"EdDSA","kid":"k"}"#;

/// Claims of some 10 kB, most of them `piece` over and over.
fn claims(piece: &str, n: usize, now: i64) -> String {
    let mut pieces = String::new();
    for i in 0.. {
        pieces += &piece.replace('%', &i.to_string());
        if pieces.len() > 9_000 {
            break;
        }
        pieces.push(',');
    }
    let (open, close) = if piece.contains(":") && !piece.starts_with('{') { ('{', '}') } else { ('[', ']') };
    format!(r#"{{"exp":{},"jti":"{n}","a":{open}{pieces}{close}}}"#, now + 300)
}

#[tokio::test]
async fn no_shape_of_claims_makes_a_cache_outgrow_its_bytes() {
    let signer = Signer::ed();
    let stage = Stage::with(|_| {}).await;
    stage.source.set(document(vec![signer.jwk(Some("k"), None)], "max-age=300"));
    stage.resolve().await.unwrap();
    let handle = stage.registry.provider(TENANT, PROVIDER).unwrap();
    let build = |bytes| -> Verifier {
        handle.verifier().any_audience().any_issuer().cache_bytes(bytes).build().unwrap()
    };
    let now = stage.clock.wall().timestamp();
    // None gives its memory to the next.
    let mut full = Vec::new();
    for piece in ["0", "[]", "[0]", "{}", r#"{"a":0}"#, r#""a""#, r#""%":0"#, r#""%":{"a":[0]}"#, r#""""#] {
        // More than the cache holds, if claims took but twice their text.
        let fill = |verifier: &Verifier, tokens: usize| {
            for n in 0..tokens {
                let token = signer.token_as(HEADER, "EdDSA", &claims(piece, n, now));
                verifier.verify_now::<Value>(&token).unwrap();
            }
        };
        // What it takes to verify at all is there before.
        fill(&build(0), 2);
        let before = peak_from_now();
        let verifier = build(BYTES);
        fill(&verifier, BYTES / 20_000);
        let grown = peak().saturating_sub(before) as usize * 1024;
        let told = format!("{verifier:?}");
        println!("{piece}: {grown} of {BYTES} bytes; {}", &told[told.rfind("Tokens").unwrap()..]);
        assert!(grown <= BYTES + BYTES / 4, "{piece}: {grown} bytes");
        full.push(verifier);
    }
}
