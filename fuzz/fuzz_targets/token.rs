//! Any text as a token, a header or what `explain` is given: nobody but the key's holder gets in.
#![no_main]

use std::collections::BTreeMap;

use jwks_cache::StandardClaims;
use jwks_cache_core::token::{Compact, Header, Part, Room};
use jwks_cache_fuzz::issuer::VERIFIERS;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

fuzz_target!(|text: &str| {
    for verifier in &*VERIFIERS {
        for result in [
            verifier.verify_now::<StandardClaims>(text),
            verifier.in_tenant("acme").verify_now(text),
            verifier.of_provider("acme", "main").verify_now(text),
        ] {
            let why = result.expect_err("a token that nobody signed");
            let told = format!("{why} {why:?} {}", why.detail());
            assert!(!told.chars().any(char::is_control), "{told:?}");
        }
        let explained = verifier.of_provider("acme", "main").explain(text);
        assert!(explained.thumbprint.is_some() != explained.why_not.is_some(), "{explained:?}");
        assert!(!explained.to_string().chars().any(char::is_control), "{explained}");
    }
    if let Ok(header) = Header::read(text) {
        // Members that nobody reads may hold what no string can, as half of a surrogate pair.
        let said: BTreeMap<String, &RawValue> = serde_json::from_str(text).expect("a header is JSON");
        let text_of =
            |name| said.get(name).map(|raw| serde_json::from_str::<String>(raw.get()).expect("text"));
        assert_eq!(text_of("alg").and_then(|alg| alg.parse().ok()), Some(header.algorithm));
        assert_eq!(text_of("kid").as_deref(), header.kid.as_deref());
        assert!(!said.contains_key("crit") && !said.contains_key("enc"));
    }
    let Ok(parts) = Compact::split(text, 1 << 14) else { return };
    assert_eq!(text.split('.').collect::<Vec<_>>(), [parts.header(), parts.payload(), parts.signature()]);
    assert_eq!(format!("{}.{}", parts.signing_input(), parts.signature()), text);
    for part in [parts.header(), parts.payload(), parts.signature()] {
        let here = Room::<64>::new().decode(part, Part::Claims).map(<[u8]>::to_vec);
        let elsewhere = Room::<0>::new().decode(part, Part::Claims).map(<[u8]>::to_vec);
        assert_eq!(here, elsewhere);
    }
});
