//! Tokens that somebody made to get in. Each is tried on a verifier that would take any issuer and audience, so
//! that nothing but the property under test can be what refuses it.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use jwks_cache::verify::{Malformed, Part, Unsupported};
use jwks_cache::{StandardClaims, Verifier, VerifyError};
use serde_json::{Value, json};
use stage::scripted::{Stage, b64, document};
use stage::tokens::{ALGORITHMS, Signer, hmac_of, signed};
use stage::{PROVIDER, TENANT};

/// A verifier by keys that were fetched already, and how often they were asked for.
struct Target {
    stage: Stage,
    verifier: Verifier,
}

impl Target {
    async fn new(keys: Vec<Value>) -> Self {
        let stage = Stage::with(|_| {}).await;
        stage.source.set(document(keys, "max-age=300"));
        let _ = stage.resolve().await;
        let handle = stage.registry.provider(TENANT, PROVIDER).unwrap();
        let verifier = handle.verifier().any_audience().any_issuer().expiry_optional().build().unwrap();
        Self { stage, verifier }
    }

    async fn of(signer: &Signer) -> Self {
        Self::new(vec![signer.jwk(Some("k"), None)]).await
    }

    fn verify(&self, token: &str) -> Result<(), VerifyError> {
        self.verifier.verify_now::<Value>(token).map(|_| ())
    }

    async fn verify_waiting(&self, token: &str) -> Result<(), VerifyError> {
        self.verifier.verify::<Value>(token).await.map(|_| ())
    }

    fn malformed(&self, token: &str, want: Malformed) {
        match self.verify(token) {
            Err(VerifyError::Malformed(why)) if why == want => {}
            other => panic!("{want:?} expected, {other:?} seen: {:.200}", token),
        }
    }

    fn unsupported(&self, token: &str, want: Unsupported) {
        match self.verify(token) {
            Err(VerifyError::Unsupported(why)) if why == want => {}
            other => panic!("{want:?} expected, {other:?} seen: {:.200}", token),
        }
    }
}

#[tokio::test]
async fn a_key_verifies_the_algorithms_that_fit_it_and_what_it_declares_and_no_other() {
    let (mut verified, mut refused) = (0, 0);
    for signer in Signer::of_every_type() {
        let is_public = !matches!(signer, Signer::Oct(_));
        let right = *signer.fits().first().unwrap();
        let wrong = if right == "ES256" { "RS256" } else { "ES256" };
        for declared in [None, Some(right), Some(wrong)] {
            // A key that is sound in any case keeps the document from being refused.
            let other = Signer::ed().jwk(Some("other"), None);
            let target = Target::new(vec![signer.jwk(Some("k"), declared), other]).await;
            for alg in ALGORITHMS {
                let fits = is_public && signer.fits().contains(&alg) && declared.is_none_or(|own| own == alg);
                // The key that declares a wrong algorithm is none: its kid is waited for, once.
                let result = target.verify_waiting(&signer.token(alg, &json!({"sub": "x"}))).await;
                assert_eq!(result.is_ok(), fits, "{alg} by {right}, declared {declared:?}: {result:?}");
                *(if fits { &mut verified } else { &mut refused }) += 1;
                match result {
                    Err(VerifyError::Unsupported(Unsupported::Algorithm)) => {
                        assert!(alg.starts_with("HS") || alg == "none");
                    }
                    Err(why) => assert!(matches!(why, VerifyError::UnknownKey(_)), "{alg}: {why:?}"),
                    Ok(()) => {}
                }
                // Nor without a kid, where any key that fits might be tried.
                let header = json!({"alg": alg}).to_string();
                let result = target.verify(&signer.token_as(&header, alg, "{}"));
                let may = fits && alg != "EdDSA";
                assert_eq!(
                    result.is_ok(),
                    may,
                    "{alg} by {right}, declared {declared:?}, no kid: {result:?}"
                );
            }
        }
    }
    println!("15 algorithms x 7 key types x 3 declarations: {verified} verified, {refused} refused");
    assert_eq!((verified, verified + refused), (6 + 1 + 2 * 5, 15 * 7 * 3));
}

#[tokio::test]
async fn no_spelling_of_none_is_an_algorithm() {
    let signer = Signer::rsa();
    let target = Target::of(&signer).await;
    let mut tried = 0;
    for bits in 0..16 {
        let letter = |(n, c): (usize, char)| if bits & (1 << n) != 0 { c.to_ascii_uppercase() } else { c };
        let alg: String = "none".chars().enumerate().map(letter).collect();
        for header in [json!({"alg": alg, "kid": "k"}), json!({"alg": alg})] {
            for signature in [Vec::new(), vec![0], signer.sign("RS256", b"x")] {
                let token = signed(&header.to_string(), "{}", |_| signature);
                target.unsupported(&token, Unsupported::Algorithm);
                tried += 1;
            }
        }
    }
    for alg in ["", " none", "none ", "no\u{0}ne", "\u{ff4e}one", "null", "NONE\n"] {
        let token = signed(&json!({"alg": alg}).to_string(), "{}", |_| Vec::new());
        target.unsupported(&token, Unsupported::Algorithm);
    }
    target.malformed(&signed(r#"{"alg":null}"#, "{}", |_| Vec::new()), Malformed::IllTypedHeader);
    target.malformed(&signed("{}", "{}", |_| Vec::new()), Malformed::NoAlgorithm);
    assert_eq!(tried, 96);
}

#[tokio::test]
async fn a_public_key_is_no_hmac_secret_in_any_of_its_forms() {
    for signer in Signer::of_every_type() {
        let target =
            Target::new(vec![signer.jwk(Some("k"), None), Signer::ed().jwk(Some("other"), None)]).await;
        let der = signer.public_der();
        let pem = |lines: usize| {
            use base64::Engine;
            let text = base64::engine::general_purpose::STANDARD.encode(&der);
            let lines: Vec<_> =
                text.as_bytes().chunks(lines).map(|line| std::str::from_utf8(line).unwrap()).collect();
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", lines.join("\n"))
        };
        let jwk = signer.jwk(Some("k"), None);
        let member = |name: &str| jwk[name].as_str().unwrap_or_default().as_bytes().to_vec();
        for secret in [
            der.clone(),
            pem(64).into_bytes(),
            format!("{}\n", pem(64)).into_bytes(),
            pem(4_000).into_bytes(),
            jwk.to_string().into_bytes(),
            member("n"),
            member("x"),
            member("k"),
            vec![],
        ] {
            for alg in ["HS256", "HS384", "HS512"] {
                for header in [json!({"alg": alg, "kid": "k"}), json!({"alg": alg})] {
                    let token = signed(&header.to_string(), "{}", |input| hmac_of(alg, &secret, input));
                    target.unsupported(&token, Unsupported::Algorithm);
                }
            }
            // The same bytes under the key's own algorithm.
            for alg in signer.fits() {
                let header = json!({"alg": alg, "kid": "k"}).to_string();
                let result = target.verify(&signed(&header, "{}", |input| hmac_of("HS256", &secret, input)));
                assert!(result.is_err(), "{alg}");
            }
        }
    }
}

#[tokio::test]
async fn a_signature_of_zeros_or_in_another_form_verifies_nothing() {
    for signer in Signer::of_every_type() {
        let target =
            Target::new(vec![signer.jwk(Some("k"), None), Signer::ed().jwk(Some("other"), None)]).await;
        for alg in signer.fits() {
            let header = json!({"alg": alg, "kid": "k"}).to_string();
            let good = |input: &[u8]| signer.sign(alg, input);
            let length = good(b"x").len();
            type Forge = Box<dyn Fn(&[u8]) -> Vec<u8>>;
            let zeros = |n: usize| -> Forge { Box::new(move |_| vec![0; n]) };
            let mut one = vec![0; length];
            one[length / 2 - 1] = 1;
            one[length - 1] = 1;
            let forgeries: Vec<Forge> = vec![
                zeros(0),
                zeros(1),
                zeros(length),
                zeros(length - 1),
                zeros(length + 1),
                zeros(64),
                zeros(4_096),
                Box::new(move |_| one.clone()),
                Box::new(move |_| vec![0xff; length]),
                // The DER of r = s = 0, and of r = s = 1.
                Box::new(|_| vec![0x30, 6, 2, 1, 0, 2, 1, 0]),
                Box::new(|_| vec![0x30, 6, 2, 1, 1, 2, 1, 1]),
            ];
            for (n, forge) in forgeries.iter().enumerate() {
                let result = target.verify(&signed(&header, "{}", |input| forge(input)));
                assert!(result.is_err(), "{alg}, forgery {n}");
            }
            for cut in [0, 1, length / 2, length - 1] {
                let result = target.verify(&signed(&header, "{}", |input| good(input)[..cut].to_vec()));
                assert!(result.is_err(), "{alg}, cut at {cut}");
            }
            let longer = signed(&header, "{}", |input| [good(input), vec![0]].concat());
            assert!(target.verify(&longer).is_err(), "{alg}");
        }
    }
}

#[tokio::test]
async fn a_key_in_the_header_or_at_an_address_there_is_never_looked_at() {
    let signer = Signer::ec("ES256");
    let target = Target::of(&signer).await;
    let asked = target.stage.source.asked();
    let mallory = Signer::ec("ES256");
    let own = mallory.jwk(Some("k"), Some("ES256"));
    let chain = json!([base64_standard(&mallory.public_der())]);
    for (name, value) in [
        ("jwk", own.clone()),
        ("jku", json!("https://mallory.test/jwks.json")),
        ("jku", json!("https://idp.test/jwks.json")),
        ("x5u", json!("https://mallory.test/cert.pem")),
        ("x5c", chain),
        ("x5t", json!("AAAA")),
        ("keys", json!([own])),
    ] {
        for kid in [Some("k"), Some("mallory"), None] {
            let mut header = json!({"alg": "ES256", name: value});
            if let Some(kid) = kid {
                header["kid"] = kid.into();
            }
            let result =
                target.verifier.verify::<Value>(&mallory.token_as(&header.to_string(), "ES256", "{}")).await;
            assert!(
                matches!(result, Err(VerifyError::BadSignature(_) | VerifyError::UnknownKey(_))),
                "{name} {kid:?}"
            );
        }
        // Whose signature is good is not refused for what he adds.
        let header = json!({"alg": "ES256", "kid": "k", name: value}).to_string();
        target.verify(&signer.token_as(&header, "ES256", "{}")).unwrap();
    }
    stage::settle().await;
    target.stage.landed().await;
    // One of the tokens started the one refresh that an interval has; it went to the registered place.
    let requests: Vec<_> =
        (asked..target.stage.source.asked()).map(|n| target.stage.source.request(n)).collect();
    assert!(requests.len() <= 1 && requests.iter().all(|request| request.url.host_str() == Some("idp.test")));
}

fn base64_standard(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[tokio::test]
async fn only_a_compact_jws_with_its_payload_inside_is_a_token() {
    let signer = Signer::ed();
    let target = Target::of(&signer).await;
    let good = signer.token("EdDSA", &json!({"sub": "x"}));
    target.verify(&good).unwrap();
    let [header, payload, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();

    let flat = json!({"protected": header, "payload": payload, "signature": signature});
    let general = json!({"payload": payload, "signatures": [{"protected": header, "signature": signature}]});
    for serialised in [flat.to_string(), general.to_string(), "{}".into(), "{.a.b.}".into()] {
        target.unsupported(&serialised, Unsupported::JsonSerialization);
    }
    // An empty payload is a payload: whether this is one or a detached one's place, the signature says.
    let detached = target.verify(&format!("{header}..{signature}"));
    assert!(matches!(detached, Err(VerifyError::BadSignature(_))), "{detached:?}");
    target
        .unsupported(&format!("{header}.{payload}.{payload}.{payload}.{signature}"), Unsupported::Encrypted);
    for header in
        [json!({"alg": "dir", "enc": "A256GCM"}), json!({"alg": "EdDSA", "kid": "k", "enc": "A128GCM"})]
    {
        target.unsupported(&signer.token_as(&header.to_string(), "EdDSA", "{}"), Unsupported::Encrypted);
    }
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!("exp"), json!(null), json!({})] {
        let header = json!({"alg": "EdDSA", "kid": "k", "crit": crit}).to_string();
        target.unsupported(&signer.token_as(&header, "EdDSA", "{}"), Unsupported::Critical);
    }
    for b64 in [json!(false), json!(null), json!(0), json!("true")] {
        let header = json!({"alg": "EdDSA", "kid": "k", "b64": b64}).to_string();
        target.unsupported(&signer.token_as(&header, "EdDSA", "{}"), Unsupported::Unencoded);
    }
    // An unencoded payload, signed as RFC 7797 has it.
    let input = format!("{}.{{}}", b64(r#"{"alg":"EdDSA","b64":false,"crit":["b64"]}"#));
    target.unsupported(
        &format!("{input}.{}", b64(signer.sign("EdDSA", input.as_bytes()))),
        Unsupported::Critical,
    );

    for (token, part) in [
        (format!("{header}=.{payload}.{signature}"), Part::Header),
        (format!(" {good}"), Part::Header),
        (format!("{header}.{payload}==.{signature}"), Part::Claims),
        (format!("{header}.{payload}\n.{signature}"), Part::Claims),
        (format!("{good}="), Part::Signature),
        (format!("{good}\n"), Part::Signature),
        (format!("{header}.{payload}.{}", signature.replacen(|_: char| true, "+", 1)), Part::Signature),
    ] {
        target.malformed(&token, Malformed::NotBase64(part));
    }
    assert_eq!(target.stage.source.asked(), 1);
}

#[tokio::test]
async fn what_stands_twice_is_refused_whichever_was_meant() {
    let signer = Signer::ed();
    let target = Target::of(&signer).await;
    for header in [
        r#"{"alg":"EdDSA","alg":"EdDSA","kid":"k"}"#,
        r#"{"alg":"none","alg":"EdDSA","kid":"k"}"#,
        r#"{"alg":"EdDSA","kid":"other","kid":"k"}"#,
        r#"{"alg":"EdDSA","kid":"k","\u006bid":"k"}"#,
        r#"{"alg":"EdDSA","kid":"k","crit":["x"],"crit":["x"]}"#,
        r#"{"alg":"EdDSA","kid":"k","x":1,"x":1}"#,
    ] {
        target.malformed(&signer.token_as(header, "EdDSA", "{}"), Malformed::RepeatedMember(Part::Header));
    }
    for payload in [
        r#"{"exp":1,"exp":9999999999}"#,
        r#"{"iss":"a","iss":"b"}"#,
        r#"{"sub":"a","\u0073ub":"b"}"#,
        r#"{"x":{},"x":{}}"#,
    ] {
        let token = signer.token_as(r#"{"alg":"EdDSA","kid":"k"}"#, "EdDSA", payload);
        target.malformed(&token, Malformed::RepeatedMember(Part::Claims));
    }
}

#[tokio::test]
async fn a_signed_payload_that_is_no_object_has_no_claims() {
    let signer = Signer::ed();
    let target = Target::of(&signer).await;
    for payload in
        ["foo", "[]", "null", "\"a\"", "1", "{} {}", "{", "\u{feff}{}", r#"{"a":1,}"#, r#"{"a":NaN}"#]
    {
        let token = signer.token_as(r#"{"alg":"EdDSA","kid":"k"}"#, "EdDSA", payload);
        target.malformed(&token, Malformed::NotJson(Part::Claims));
    }
    let header = r#"{"alg":"EdDSA","kid":"k"}"#;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(1_000), close.repeat(1_000));
    for (open, close) in [("[", "]"), (r#"{"b":"#, "}")] {
        let deep = deep(open, close).replace(":}", ":1}");
        // Nobody asked what `a` holds; who does gets an error, not the end of the stack.
        let token = signer.token_as(header, "EdDSA", &format!(r#"{{"a":{deep}}}"#));
        let seen = target.verify(&token);
        assert!(matches!(seen, Err(VerifyError::UnfitClaims(_))), "{seen:?}");
        target.verifier.verify_now::<StandardClaims>(&token).unwrap();
        let nested = format!(r#"{{"alg":"EdDSA","kid":"k","a":{deep}}}"#);
        target.verify(&signer.token_as(&nested, "EdDSA", "{}")).unwrap();
    }
    let open = format!(r#"{{"alg":"EdDSA","kid":"k","a":{}"#, "[".repeat(5_000));
    target.malformed(&signer.token_as(&open, "EdDSA", "{}"), Malformed::NotJson(Part::Header));
}

#[tokio::test]
async fn a_token_of_any_size_costs_no_more_than_its_limit() {
    let signer = Signer::ed();
    let target = Target::of(&signer).await;
    for token in [
        ".".repeat(1_000_000),
        "A".repeat(1 << 20),
        signer.token("EdDSA", &json!({"a": "x".repeat(1 << 20)})),
    ] {
        target.malformed(&token, Malformed::TooLong);
    }
    let roomy = target
        .stage
        .registry
        .verifier()
        .any_audience()
        .any_issuer()
        .expiry_optional()
        .max_token_bytes(2 << 20);
    let roomy = Target { verifier: roomy.build().unwrap(), ..target };
    let at = roomy.verifier.of_provider(TENANT, PROVIDER);
    let dots = at.verify_now::<Value>(&".".repeat(1_000_000)).map(|_| ());
    assert!(matches!(dots, Err(VerifyError::Malformed(Malformed::NotThreeParts))), "{dots:?}");
    let large = signer.token("EdDSA", &json!({"a": "x".repeat(1 << 20)}));
    assert_eq!(at.verify_now::<Value>(&large).unwrap()["a"].as_str().map(str::len), Some(1 << 20));
    let many: Value =
        (0..20_000).map(|n| (format!("c{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(
        at.verify_now::<Value>(&signer.token("EdDSA", &many)).unwrap().as_object().map(|it| it.len()),
        Some(20_000)
    );
    let long_header = json!({"alg": "EdDSA", "kid": "k", "x": "y".repeat(10_000)}).to_string();
    at.verify_now::<Value>(&signer.token_as(&long_header, "EdDSA", "{}")).unwrap();
}
