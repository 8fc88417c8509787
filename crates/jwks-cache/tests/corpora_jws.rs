//! The shared corpora of signed tokens, verified by the whole library: Wycheproof's JWS and key sets, and the
//! examples of RFC 7520, RFC 8037 and RFC 7797.
//!
//! Their payloads are no claims, mostly. A verifier looks at a payload only after the signature, so what is asked
//! is whether it got that far.
#![allow(clippy::unwrap_used, reason = "a corpus that cannot be read must fail")]

#[path = "../../jwks-cache-core/tests/corpora/mod.rs"]
mod corpora;
mod stage;

use std::collections::BTreeMap;
use std::path::Path;

use corpora::corpora;
use jwks_cache::verify::{Malformed, Part};
use jwks_cache::{Algorithm, VerifyError};
use serde_json::Value;
use stage::scripted::{Stage, document};
use stage::{PROVIDER, TENANT};

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .unwrap()
}

/// Members that only the holder of a private key has.
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

fn public(mut jwk: Value) -> Value {
    let members = jwk.as_object_mut().unwrap();
    PRIVATE.iter().for_each(|name| drop(members.remove(*name)));
    jwk
}

/// Whether the signature is accepted by a provider that publishes these keys.
async fn is_signed(keys: &[Value], token: &str) -> Result<(), VerifyError> {
    let stage = Stage::with(|_| {}).await;
    stage.source.set(document(keys.to_vec(), "max-age=300"));
    let handle = stage.registry.provider(TENANT, PROVIDER).unwrap();
    let verifier = handle.verifier().any_issuer().any_audience().expiry_optional().build().unwrap();
    match verifier.verify::<Value>(token).await {
        Ok(_) | Err(VerifyError::Malformed(Malformed::NotJson(Part::Claims))) => Ok(()),
        Err(why) => Err(why),
    }
}

/// A vector that does not end as it says, and why that is right.
type Exceptions = [(&'static str, &'static str)];

const WYCHEPROOF: &Exceptions = &[
    (
        "json_web_signature_test.json#346",
        "PS384 by a key whose `alg` is PS256, which it is then for (RFC 7517 §4.4)",
    ),
    ("json_web_signature_test.json#350", "the same with `key_ops`"),
];

/// Runs every vector of a Wycheproof file; `keys` takes a group's.
async fn wycheproof(file: &str, keys: impl Fn(&Value) -> Vec<Value>) {
    let Some(folder) = corpora() else { return };
    let vectors = json(&folder.join("wycheproof").join(file));
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let (mut failures, mut used) = (Vec::new(), Vec::new());
    for group in vectors["testGroups"].as_array().unwrap() {
        let keys = keys(group);
        // Secrets have no place in a published set: their tokens are refused, be they valid or not. Nor is a key
        // trusted that declares an algorithm which does not exist, such as ES521.
        let unsupported =
            |key: &Value| key["alg"].as_str().is_some_and(|alg| alg.parse::<Algorithm>().is_err());
        let refused_anyway = keys.iter().all(|key| key["kty"] == "oct" || unsupported(key));
        for test in group["tests"].as_array().unwrap() {
            let id = format!("{file}#{}", test["tcId"]);
            let jws = test["jws"].as_str().map_or_else(|| test["jws"].to_string(), str::to_owned);
            let seen = is_signed(&keys, &jws).await;
            let valid = test["result"] == "valid";
            let want = valid && !refused_anyway;
            let what = match (valid, seen.is_ok()) {
                (true, true) => "verified",
                (false, false) => "refused",
                (true, false) if refused_anyway => "valid, refused: HMAC or unsupported",
                _ => "otherwise",
            };
            *counts.entry(what.into()).or_default() += 1;
            match WYCHEPROOF.iter().find(|(exception, _)| *exception == id) {
                Some(exception) => {
                    assert_ne!(seen.is_ok(), want, "{id} is no exception");
                    used.push(exception);
                }
                None if seen.is_ok() == want => {}
                None => failures.push(format!("{id}: {} {} {seen:?}", test["comment"], test["flags"])),
            }
        }
    }
    println!("{file}: {counts:?}; exceptions {used:?}");
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(counts.values().sum::<usize>(), vectors["numberOfTests"].as_u64().unwrap() as usize);
}

#[tokio::test]
async fn wycheproof_signatures_end_as_they_say() {
    wycheproof("json_web_signature_test.json", |group| {
        let key = if group["public"].is_object() { &group["public"] } else { &group["private"] };
        vec![public(key.clone())]
    })
    .await;
}

#[tokio::test]
async fn wycheproof_key_sets_end_as_they_say() {
    wycheproof("json_web_key_test.json", |group| {
        let keys =
            if group["public"].is_object() { &group["public"]["keys"] } else { &group["private"]["keys"] };
        keys.as_array().unwrap().iter().cloned().map(public).collect()
    })
    .await;
}

#[tokio::test]
async fn the_examples_of_the_standards_verify_and_what_is_no_compact_jws_is_refused() {
    let Some(folder) = corpora() else { return };
    let (mut verified, mut refused) = (Vec::new(), Vec::new());
    for part in ["jws", "curve25519", "rfc7797"] {
        let mut files: Vec<_> = std::fs::read_dir(folder.join("cookbook").join(part))
            .unwrap()
            .map(|it| it.unwrap().path())
            .collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "json")) {
            let name = format!("{part}/{}", file.file_stem().unwrap().to_string_lossy());
            let example = json(file);
            let key = &example["input"]["key"];
            let keys: Vec<Value> = match key {
                Value::Array(keys) => keys.iter().cloned().map(public).collect(),
                one => vec![public(one.clone())],
            };
            let output = &example["output"];
            for (form, token) in output.as_object().into_iter().flatten() {
                let text = token.as_str().map_or_else(|| token.to_string(), str::to_owned);
                let seen = is_signed(&keys, &text).await;
                let name = format!("{name} {form}");
                match seen {
                    Ok(()) => verified.push(name),
                    Err(why) => refused.push(format!("{name}: {why}")),
                }
            }
        }
    }
    println!("cookbook: verified {verified:?}; refused {}: {refused:#?}", refused.len());
    assert_eq!(
        verified,
        [
            "jws/4_1.rsa_v15_signature compact",
            "jws/4_2.rsa-pss_signature compact",
            "jws/4_3.ecdsa_signature compact",
            "curve25519/jws compact",
        ]
    );
    let compact: Vec<_> = refused.iter().filter(|name| name.contains(" compact: ")).collect();
    assert_eq!(compact.len(), 4, "HMAC, HMAC with its payload detached, unencoded, encrypted: {compact:?}");
    assert_eq!(verified.len() + refused.len(), 31);
}
