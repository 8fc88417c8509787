//! The public test suite for HTTP caches (`http-cache-tests`), held against the freshness rules in
//! `http_strict`: as they read RFC 9111, what is fresh, what must be asked again, and what never stands in.
//!
//! `scope.rs` lists what does not apply; every other *required* test passes. *Optimal* tests, which a cache
//! may fail, are counted. The suite's *checks* only ask how a cache behaves, so they are not scored.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod adapter;
mod scope;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use scope::{GROUPS, MUST_END_WITHOUT_ANSWER, OUTSIDE, Outside, TESTS};

/// The suite takes one minute, most of it pauses.
const DEADLINE: Duration = Duration::from_secs(300);

#[tokio::test]
async fn every_required_test_that_applies_passes() {
    let tests = tokio::time::timeout(DEADLINE, run()).await.expect("the suite comes to an end");
    println!("http-cache-tests: {} tests", tests.len());
    for outside in OUTSIDE {
        println!(
            "  {:3} not for us: {}",
            tests.iter().filter(|test| outside.holds(test)).count(),
            outside.why
        );
        let ids: Vec<&str> = tests.iter().filter(|test| outside.holds(test)).map(|test| &*test.id).collect();
        println!("      {}", ids.join(" "));
    }
    let applicable = |kind| tests.iter().filter(move |test| test.kind == kind && test.applies());
    for kind in ["required", "optimal"] {
        let passed = applicable(kind).filter(|test| test.passes()).count();
        println!("  {kind}: {passed} of {} pass", applicable(kind).count());
    }
    for test in applicable("optimal").filter(|test| !test.passes()) {
        println!("    {test:?}");
    }

    let failed: Vec<&Test> = applicable("required").filter(|test| !test.passes()).collect();
    assert!(failed.is_empty(), "required tests failed: {failed:#?}");
    the_scope_is_about_this_suite(&tests);
}

/// Nothing new goes unjudged, and nothing is excused that is not there.
fn the_scope_is_about_this_suite(tests: &[Test]) {
    assert_eq!(tests.len(), TESTS);
    for test in tests {
        let outside = OUTSIDE.iter().filter(|outside| outside.holds(test)).count();
        assert!(
            outside == 1 || outside == 0 && GROUPS.contains(&&*test.group),
            "unjudged, or twice: {test:?}"
        );
    }
    let ids = OUTSIDE.iter().flat_map(|outside| outside.ids).chain(MUST_END_WITHOUT_ANSWER);
    for id in ids {
        assert!(tests.iter().any(|test| test.id == *id), "the suite has no test {id}");
    }
    for group in OUTSIDE.iter().flat_map(|outside| outside.groups).chain(GROUPS) {
        assert!(tests.iter().any(|test| test.group == *group), "the suite has no group {group}");
    }
}

/// A test, and how it went.
#[derive(Debug, Deserialize)]
struct Test {
    id: String,
    group: String,
    kind: String,
    /// The error's name and text; `None` when the test passed.
    failure: Option<String>,
}

impl Test {
    fn applies(&self) -> bool {
        !OUTSIDE.iter().any(|outside| outside.holds(self))
    }

    fn passes(&self) -> bool {
        if MUST_END_WITHOUT_ANSWER.contains(&&*self.id) {
            return self
                .failure
                .as_ref()
                .is_some_and(|why| why.starts_with("FetchError: ") && why.contains("socket hang up"));
        }
        self.failure.is_none()
    }
}

impl Outside {
    fn holds(&self, test: &Test) -> bool {
        self.groups.contains(&&*test.group) || self.ids.contains(&&*test.id)
    }
}

/// Starts the suite's origin, our cache before it, and the suite's client.
async fn run() -> Vec<Test> {
    #[derive(Deserialize)]
    struct Ready {
        port: u16,
    }
    #[derive(Deserialize)]
    struct Done {
        tests: Vec<Test>,
    }

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cache-tests");
    let install = "run `cargo xtask test cache-tests --yes`";
    assert!(folder.join("node_modules").is_dir(), "the suite is missing; {install}");
    let mut child = Command::new("node")
        .args(["--no-warnings", "run.mjs"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("`node` does not start ({error}); {install}"));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();

    let ready = lines.next_line().await.unwrap().expect("the suite says where its origin listens");
    let Ready { port } = serde_json::from_str(&ready).unwrap();
    let cache = adapter::start(SocketAddr::from(([127, 0, 0, 1], port))).await;
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("http://{cache}\n").as_bytes()).await.unwrap();

    // What the suite itself has to say comes before the result.
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Ok(Done { tests }) = serde_json::from_str(&line) {
            return tests;
        }
    }
    panic!("the suite ended without a result: its standard error says why")
}
