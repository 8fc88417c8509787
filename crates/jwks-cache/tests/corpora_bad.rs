//! The shared corpora of documents, served by an origin to the whole library: what a document may do to keys
//! that are held, and which of its own keys serve.
#![allow(clippy::unwrap_used, reason = "a corpus that cannot be read must fail")]

#[path = "../../jwks-cache-core/tests/corpora/mod.rs"]
mod corpora;
mod stage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use corpora::corpora;
use jwks_cache_testkit::Reply;
use serde_json::Value;
use stage::served::{HELD, JWKS, Stage};

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn reply(path: &Path) -> Reply {
    let reply = Reply::json("").body(std::fs::read(path).unwrap());
    // A file that was compressed twice says so.
    match path.to_str().unwrap() {
        name if name.ends_with(".gz.gz") => reply.header("Content-Encoding", "gzip, gzip"),
        name if name.ends_with(".gz") => reply.header("Content-Encoding", "gzip"),
        _ => reply,
    }
}

/// Serves a document to a cache that holds a good set.
async fn serve_after_a_good_set(path: &Path) -> (Stage, jwks_cache::Result<()>) {
    let stage = Stage::new();
    stage.register(stage.registration()).await;
    stage.hold().await;
    stage.origin.set(JWKS, reply(path));
    let refreshed = stage.refresh().await;
    (stage, refreshed)
}

/// What must be true of the held set after a document was refused.
async fn check_kept(stage: &Stage, file: &str) {
    assert_eq!(stage.kids().await, HELD, "{file}");
    for kid in HELD {
        assert!(stage.is_usable(kid).await, "{file}: {kid}");
    }
    assert_eq!(stage.metric("refresh_errors_total").await, 1.0, "{file}");
}

async fn usable_of<'a>(stage: &Stage, kids: Vec<&'a str>) -> Vec<&'a str> {
    let mut usable = Vec::new();
    for kid in kids {
        if stage.is_usable(kid).await {
            usable.push(kid);
        }
    }
    usable
}

#[tokio::test]
async fn every_bad_document_after_a_good_set_does_what_is_expected_of_it() {
    let Some(folder) = corpora() else { return };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut tolerated_otherwise, mut failures) = (Vec::new(), Vec::new());
    for case in json(folder.join("bad/expect.json")).as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let (stage, refreshed) = serve_after_a_good_set(&folder.join("bad").join(file)).await;
        let keys = stage.registry.provider_status("acme", "main").await.unwrap().keys;
        let seen = match &refreshed {
            Err(_) => {
                check_kept(&stage, file).await;
                "REJECT_KEEP"
            }
            // Those of the good set stay for a while as retiring ones.
            Ok(()) if keys.iter().all(|key| key.state == "usable" || key.state == "retiring") => "ACCEPT",
            Ok(()) => "SKIP",
        };
        let expected = case["expect"].as_str().unwrap();
        let tolerated = seen == expected || texts(&case["also_ok"]).contains(&seen);
        // A set with a key for encryption is accepted although that key is set aside: its kids decide.
        let kids_decide = expected == "ACCEPT" && seen == "SKIP";
        let wanted = texts(&case["usable"]);
        let all_there = seen == "REJECT_KEEP" || usable_of(&stage, wanted.clone()).await == wanted;
        // Where acceptance is tolerated, so is the key in question.
        let unwanted = usable_of(&stage, texts(&case["must_not"])).await;
        if !((tolerated || kids_decide)
            && all_there
            && (unwanted.is_empty() || tolerated && seen == "ACCEPT"))
        {
            failures.push(format!(
                "{file}: {expected} expected, {seen} seen, {unwanted:?} usable: {refreshed:?}"
            ));
        }
        if seen != expected && !kids_decide {
            tolerated_otherwise.push(format!("{file}: {expected}, {seen}"));
        }
        *counts.entry(seen).or_default() += 1;
    }
    println!(
        "bad, through the library: {counts:?}; tolerated otherwise {tolerated_otherwise:?}; exceptions {}",
        failures.len()
    );
    for verdict in ["ACCEPT", "SKIP", "REJECT_KEEP"] {
        assert!(counts.contains_key(verdict), "no document was judged {verdict}: {counts:?}");
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[tokio::test]
async fn every_real_document_serves_the_keys_expected_of_it() {
    let Some(folder) = corpora() else { return };
    let (mut documents, mut usable, mut refused) = (0, 0, 0);
    for (file, expected) in json(folder.join("jwks_expect.json")).as_object().unwrap() {
        let path = folder.join("jwks").join(file);
        documents += 1;
        let kids = |list: &str| -> Vec<&str> {
            expected[list].as_array().unwrap().iter().filter_map(|row| row["kid"].as_str()).collect()
        };
        let is_set = expected["verdict"] != "REJECT";
        let has_usable = is_set && !expected["usable"].as_array().unwrap().is_empty();

        // With nothing held, every set is taken, an empty one too.
        let cold = Stage::new();
        cold.register(cold.registration()).await;
        cold.origin.set(JWKS, reply(&path));
        assert_eq!(cold.resolve().await.is_ok(), is_set, "{file}");

        // With usable keys held, only a set that has some.
        let (warm, refreshed) = serve_after_a_good_set(&path).await;
        assert_eq!(refreshed.is_ok(), has_usable, "{file}: {refreshed:?}");
        if !has_usable {
            check_kept(&warm, file).await;
            refused += 1;
            continue;
        }
        for stage in [&cold, &warm] {
            assert_eq!(usable_of(stage, kids("usable")).await, kids("usable"), "{file}");
            // A kid may stand there twice, once for each use.
            let only_skipped =
                kids("skipped").into_iter().filter(|kid| !kids("usable").contains(kid)).collect();
            assert_eq!(usable_of(stage, only_skipped).await, [""; 0], "{file}");
        }
        usable += kids("usable").len();
    }
    println!(
        "real, through the library: {documents} documents, {usable} usable kids, {refused} kept the old set"
    );
    assert!(documents > 0 && usable > 0 && refused > 0);
}
