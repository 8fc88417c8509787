//! The demonstration as a test: every promise holds on this machine, and a script can read that.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::process::Command;

use serde_json::Value;

#[test]
fn every_promise_holds_and_json_stands_alone_on_stdout() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_jwks-cache")).args(["demo", "--fast", "--json"]).output().unwrap();
    let story: Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps = story["steps"].as_array().unwrap();
    let promises = steps.iter().flat_map(|step| step["promises"].as_array().unwrap());
    let broken: Vec<_> = promises.clone().filter(|promise| promise["held"] != true).collect();
    assert!(broken.is_empty(), "{broken:#?}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((steps.len(), output.status.code(), &story["held"]), (10, Some(0), &Value::Bool(true)));
    assert!(promises.count() > 20 && output.stderr.is_empty());
    // One request at each provider, although a thousand callers came to each.
    let cold = &steps[0]["requests_at_providers"];
    assert_eq!((&cold["acme"], &cold["globex"]), (&1.into(), &1.into()));
}
