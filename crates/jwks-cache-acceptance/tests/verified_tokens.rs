//! A verifier under the real oidc-provider: access tokens of every algorithm while keys rotate under load.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use jwks_cache::{
    Clock, IdentityProviderRegistration, Registry, StandardClaims, SystemClock, Verifier, VerifyError,
};
use jwks_cache_acceptance::NodePart;
use jwks_cache_testkit::{ManualClock, split};
use tokio::sync::watch;

/// Callers who verify all the time.
const CALLERS: usize = 4;
/// Rotations of each algorithm.
const ROTATIONS: usize = 3;
/// Policy time between them: unknown kids may cause a request every 10 s.
const BETWEEN: Duration = Duration::from_secs(11);

/// A verifier of the part's access tokens, whose audience is their resource.
async fn verifier(part: &NodePart, clock: &ManualClock, alg: &str, cache_bytes: usize) -> Verifier {
    clock.advance((SystemClock.wall() - clock.wall()).to_std().unwrap_or_default());
    let registry = Registry::builder().require_https(false).clock(Arc::new(clock.clone())).build();
    let mut registration = IdentityProviderRegistration::new("acme", "main", part.jwks_url()).unwrap();
    registration.issuer = Some(part.issuer().to_owned());
    // Longer than an answer takes on a slow machine: a caller who gives up would be told that the kid is unknown.
    registration.kid_miss_wait = Duration::from_secs(30);
    registry.register(registration).await.unwrap();
    let rules =
        registry.verifier().audience(format!("urn:resource:{alg}")).typ("at+jwt").require_claim("client_id");
    rules.cache_bytes(cache_bytes).build().unwrap()
}

#[tokio::test]
async fn tokens_of_every_algorithm_verify_and_tampered_or_foreign_ones_do_not() {
    let part = NodePart::start("oidc-provider").await;
    for alg in part.algorithms().await {
        let verifier = verifier(&part, &ManualClock::new(), &alg, 0).await;
        let token = part.token(&alg).await;
        let verified = verifier.verify::<StandardClaims>(&token).await.unwrap();
        assert_eq!((verified.iss.as_deref(), verified.algorithm().as_str()), (Some(part.issuer()), &*alg));
        assert_eq!(verified.kid(), split(&token).unwrap().0["kid"].as_str());
        let (input, signature) = token.rsplit_once('.').unwrap();
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let tampered = format!("{input}.{first}{}", &signature[1..]);
        let refused = verifier.verify::<StandardClaims>(&tampered).await;
        assert!(matches!(refused, Err(VerifyError::BadSignature(_))), "{alg}: {refused:?}");
        for other in part.algorithms().await.iter().filter(|other| **other != alg) {
            let refused = verifier.verify::<StandardClaims>(&part.token(other).await).await;
            assert!(matches!(refused, Err(VerifyError::WrongAudience)), "{other} for {alg}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn while_keys_rotate_under_load_no_good_token_is_refused() {
    let part = NodePart::start("oidc-provider").await;
    for (alg, cache_bytes) in part.algorithms().await.into_iter().zip([0, 1 << 20].into_iter().cycle()) {
        let clock = ManualClock::new();
        let verifier = verifier(&part, &clock, &alg, cache_bytes).await;
        let (newest, tokens) = watch::channel(Arc::new(vec![part.token(&alg).await]));
        let (done, verified) = (Arc::new(AtomicBool::new(false)), watch::Sender::new(0_usize));
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (verifier, tokens, done, verified) =
                    (verifier.clone(), tokens.clone(), done.clone(), verified.clone());
                tokio::spawn(async move {
                    let mut refused = Vec::new();
                    while !done.load(Relaxed) {
                        let tokens = tokens.borrow().clone();
                        for token in tokens.iter() {
                            match verifier.verify::<StandardClaims>(token).await {
                                Ok(_) => verified.send_modify(|count| *count += 1),
                                Err(why) => refused.push(why.detail().to_string()),
                            }
                        }
                        tokio::task::yield_now().await;
                    }
                    refused
                })
            })
            .collect();
        for _ in 0..ROTATIONS {
            part.rotate(&alg).await;
            let token = part.token(&alg).await;
            newest.send_modify(|tokens| Arc::make_mut(tokens).push(token));
            // The next rotation comes when this one is known, and the budget has a fetch again.
            let before = *verified.borrow();
            verified.subscribe().wait_for(|count| *count >= before + 200).await.unwrap();
            clock.advance(BETWEEN);
        }
        assert_eq!(part.retire(&alg).await.len(), ROTATIONS);
        let kept = newest.borrow().clone();
        // They left the set, and are within their grace.
        for token in kept.iter() {
            verifier.verify::<StandardClaims>(token).await.unwrap();
        }
        done.store(true, Relaxed);
        let mut refused = Vec::new();
        for caller in callers {
            refused.extend(caller.await.unwrap());
        }
        println!(
            "{alg}: {} verified over {ROTATIONS} rotations, {} refused",
            *verified.borrow(),
            refused.len()
        );
        assert!(refused.is_empty(), "{alg}: {refused:#?}");
    }
}
