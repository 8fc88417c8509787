//! The demonstration as a test: what it promises holds on this machine, and a script can read that.
//!
//! A machine may stand still for a moment. So what measures time must have been seen here; whether it held is
//! for the command's exit code to say, to whoever runs it.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::process::Command;

use serde_json::Value;

#[test]
fn every_promise_holds_and_json_stands_alone_on_stdout() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_jwks-cache")).args(["demo", "--fast", "--json"]).output().unwrap();
    let story: Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps = story["steps"].as_array().unwrap();
    let promises: Vec<_> = steps.iter().flat_map(|step| step["promises"].as_array().unwrap()).collect();
    let (timed, certain): (Vec<&Value>, Vec<&Value>) =
        promises.iter().partition(|promise| promise["timed"] == true);
    assert_eq!((steps.len(), String::from_utf8_lossy(&output.stderr).as_ref()), (10, ""));
    assert!(timed.len() >= 3 && certain.len() > 20, "{} and {}", timed.len(), certain.len());

    let broken: Vec<_> = certain.iter().filter(|promise| promise["held"] != true).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    let unseen: Vec<_> = timed.iter().filter(|promise| !promise["seen"].is_u64()).collect();
    assert!(unseen.is_empty(), "{unseen:#?}");

    // The verdict, as every promise has it.
    let held = promises.iter().all(|promise| promise["held"] == true);
    assert_eq!((&story["held"], output.status.code()), (&Value::Bool(held), Some(i32::from(!held))));
    // One request at each provider, although a thousand callers came to each.
    let cold = &steps[0]["requests_at_providers"];
    assert_eq!((&cold["acme"], &cold["globex"]), (&1.into(), &1.into()));
}

#[test]
fn with_a_store_the_second_run_verifies_although_the_provider_is_down_from_the_start() {
    let folder = std::env::temp_dir().join(format!("jwks-cache-demo-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jwks-cache"));
        let output = command.args(["demo", "--json", "--store"]).arg(&folder).output().unwrap();
        let story: Value = serde_json::from_slice(&output.stdout).unwrap();
        (story, output.status.code())
    };
    let (first, code) = run();
    assert_eq!((&first["provider"], &first["verified"], code), (&"up".into(), &true.into(), Some(0)));
    assert_eq!(first["requests"], 1);
    let (second, _) = run();
    assert_eq!((&second["provider"], &second["verified"]), (&"down".into(), &true.into()));
    // Without what was stored there is nothing to verify with.
    for file in std::fs::read_dir(&folder).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|end| end == "snapshot") {
            std::fs::remove_file(file).unwrap();
        }
    }
    let lost = Command::new(env!("CARGO_BIN_EXE_jwks-cache")).args(["demo", "--store"]).arg(&folder).output();
    assert_eq!(lost.unwrap().status.code(), Some(1));
    std::fs::remove_dir_all(folder).unwrap();
}
