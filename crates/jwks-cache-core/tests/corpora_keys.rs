//! The shared corpora of key sets, run in addition to the project's own inputs where they are at hand.
#![allow(clippy::unwrap_used, reason = "a corpus that cannot be read must fail")]

mod corpora;

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use corpora::corpora;
use jwks_cache_core::Algorithm;
use jwks_cache_core::key::VerificationKey;
use jwks_cache_core::keyset::{KeyRules, KeySet, Refusal};
use jwks_cache_core::select::select;
use serde_json::Value;

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn every_bad_document_gets_the_verdict_expected_of_it() {
    let Some(folder) = corpora() else { return };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in json(folder.join("bad/expect.json")).as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        // Compression is undone before a document is judged.
        if file.ends_with(".gz") {
            *counts.entry("of transport, not judged here".into()).or_default() += 1;
            continue;
        }
        let document = std::fs::read(folder.join("bad").join(file)).unwrap();
        let judged = KeySet::judge(&document, &KeyRules::default());
        let seen = match &judged {
            Err(_) => "REJECT_KEEP",
            Ok(set) if set.usable().count() == set.ledger().len() => "ACCEPT",
            Ok(_) => "SKIP",
        };
        let usable: Vec<_> =
            judged.iter().flat_map(KeySet::usable).map(|key| key.kid().unwrap_or("(none)")).collect();
        let expected = case["expect"].as_str().unwrap();
        let tolerated = seen == expected || texts(&case["also_ok"]).contains(&seen);
        // A set with a key for encryption is accepted although that key is set aside: its kids decide.
        let kids_decide = expected == "ACCEPT" && seen == "SKIP";
        let all_there =
            seen == "REJECT_KEEP" || texts(&case["usable"]).iter().all(|kid| usable.contains(kid));
        // Where acceptance is tolerated, so is the key in question.
        let none_bad =
            tolerated && seen == "ACCEPT" || !texts(&case["must_not"]).iter().any(|kid| usable.contains(kid));
        if !((tolerated || kids_decide) && all_there && none_bad) {
            failures.push(format!("{file}: {expected} expected, {seen} seen, usable {usable:?}"));
        }
        *counts.entry(format!("expected {expected}, seen {seen}")).or_default() += 1;
    }
    println!("bad: {counts:#?}");
    for verdict in ["ACCEPT", "SKIP", "REJECT_KEEP"] {
        let is_seen = counts.keys().any(|judged| judged.ends_with(&format!("seen {verdict}")));
        assert!(is_seen, "no document was judged {verdict}: {counts:?}");
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn every_real_document_gives_the_keys_expected_of_it() {
    let Some(folder) = corpora() else { return };
    let (mut documents, mut usable, mut set_aside, mut refused) = (0, 0, 0, 0);
    for (file, expected) in json(folder.join("jwks_expect.json")).as_object().unwrap() {
        documents += 1;
        let document = std::fs::read(folder.join("jwks").join(file)).unwrap();
        let judged = KeySet::judge(&document, &KeyRules::default());
        if expected["verdict"] == "REJECT" {
            assert!(matches!(judged, Err(Refusal::NoKeysArray(_))), "{file}");
            refused += 1;
            continue;
        }
        let set = judged.unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
        assert_eq!(Some(set.ledger().len() as u64), expected["keys"].as_u64(), "{file}");
        let rows = |list: &str| -> Vec<(usize, Option<String>)> {
            let rows = expected[list].as_array().unwrap().iter();
            rows.map(|row| (row["i"].as_u64().unwrap() as usize, row["kid"].as_str().map(Into::into)))
                .collect()
        };
        let seen = |is_usable: bool| -> Vec<(usize, Option<String>)> {
            let rows = set.ledger().iter();
            rows.filter(|row| row.key().is_some_and(|key| key.is_usable()) == is_usable)
                .map(|row| (row.index(), row.kid().map(Into::into)))
                .collect()
        };
        assert_eq!(seen(true), rows("usable"), "{file}");
        assert_eq!(seen(false), rows("skipped"), "{file}");
        assert_eq!(set.is_empty(), expected["verdict"] == "EMPTY", "{file}");
        usable += seen(true).len();
        set_aside += seen(false).len();
        // Whatever is usable must parse, too.
        for key in set.shared().filter(|key| key.is_usable()) {
            for algorithm in key.algorithms().iter() {
                assert!(VerificationKey::new(&key, algorithm).is_some(), "{file}");
            }
        }
    }
    println!("real: {documents} documents, {usable} keys usable, {set_aside} set aside, {refused} refused");
    assert!(documents > 0 && usable > 0 && set_aside > 0 && refused > 0);
}

#[test]
fn tokens_verify_only_under_sound_keys() {
    let Some(folder) = corpora() else { return };
    let (mut run, mut symmetric) = (0, Vec::new());
    for group in json(folder.join("wycheproof/json_web_key_test.json"))["testGroups"].as_array().unwrap() {
        // The private half, where it is published, must serve nothing.
        let private = match &group["private"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let public = match &group["public"] {
            Value::Null => private.clone(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if !group["public"].is_null() {
            let judged = KeySet::judge(private.as_bytes(), &KeyRules::default());
            assert!(matches!(judged, Err(Refusal::NoneWellFormed { .. })), "{group}");
        }
        let set = KeySet::judge(public.as_bytes(), &KeyRules::default());
        for test in group["tests"].as_array().unwrap() {
            let id = &test["tcId"];
            let accepted = set.as_ref().is_ok_and(|set| verifies(set, test["jws"].as_str().unwrap()));
            let valid = test["result"] == "valid";
            if valid && !accepted && public.contains(r#""oct""#) {
                symmetric.push(id.clone());
                continue;
            }
            assert_eq!(accepted, valid, "tcId {id}: {}", test["comment"]);
            run += 1;
        }
    }
    println!("wycheproof keys: {run} as expected; refused by design, the key being symmetric: {symmetric:?}");
    assert!(run > 0);
}

/// As a verifier would: the header's algorithm and kid choose, the key's family decides.
fn verifies(set: &KeySet, jws: &str) -> bool {
    let Some((input, signature)) = jws.rsplit_once('.') else { return false };
    let header = input.split('.').next().unwrap();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    let Ok(algorithm) = header["alg"].as_str().unwrap().parse::<Algorithm>() else { return false };
    let Ok(at) = select(set.keys(), header["kid"].as_str(), algorithm) else { return false };
    let key = VerificationKey::new(&set.shared().nth(at).unwrap(), algorithm).unwrap();
    URL_SAFE_NO_PAD.decode(signature).is_ok_and(|made| key.verify(input.as_bytes(), &made).is_ok())
}
