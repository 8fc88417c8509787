//! Any text as the payload of a well-signed token: what is accepted is what another reader finds acceptable.
#![no_main]

use jwks_cache::{StandardClaims, VerifyError};
use jwks_cache_fuzz::issuer::{AUDIENCE, ISSUER, NOW, VERIFIERS, token};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|payload: &str| {
    let token = token(payload);
    let [plain, remembering] = &*VERIFIERS;
    let first = plain.verify_now::<Value>(&token);
    for again in [remembering.verify_now::<Value>(&token), remembering.verify_now::<Value>(&token)] {
        assert_eq!(first.is_ok(), again.is_ok(), "{payload}");
    }
    // Nor does the type asked for decide, unless it cannot hold what is claimed, as a number beyond a double's reach.
    let typed = plain.verify_now::<StandardClaims>(&token);
    let holds_all = serde_json::from_str::<Value>(payload).is_ok();
    assert!(typed.is_err() || first.is_ok() || !holds_all, "{payload}");
    match first {
        Ok(verified) => {
            let said: Value = serde_json::from_str(payload).expect("claims are JSON");
            assert_eq!(*verified, said);
            assert_eq!(said["iss"], ISSUER, "{payload}");
            let aud = &said["aud"];
            assert!(
                aud == AUDIENCE || aud.as_array().is_some_and(|all| all.iter().any(|one| one == AUDIENCE))
            );
            assert!(said["exp"].as_f64().is_some_and(|exp| exp > NOW as f64), "{payload}");
            assert!(said.get("nbf").is_none_or(|nbf| nbf.as_f64().is_some_and(|nbf| nbf < NOW as f64 + 1.0)));
            assert!(!said["sub"].is_null());
        }
        Err(why) => {
            assert!(
                !matches!(why, VerifyError::BadSignature(_) | VerifyError::NotCached),
                "{payload}: {why:?}"
            );
        }
    }
});
