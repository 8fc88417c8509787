//! The examples, as they stand, where they need no network.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::PathBuf;
use std::process::Command;

/// What an example prints; `None` where examples were not built along, as by `cargo test --test examples`.
fn printed(name: &str, arguments: &[&str]) -> Option<String> {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.ancestors().nth(2).unwrap().join("examples");
    let example: PathBuf = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if !example.is_file() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is not there", example.display());
        println!("skipped {name}: build it by `cargo test --examples`");
        return None;
    }
    let output = Command::new(example).args(arguments).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{name}: {said}");
    Some(said)
}

#[test]
fn a_realm_that_cannot_be_asked_is_served_from_its_file() {
    let file = std::env::temp_dir().join(format!("jwks-cache-examples-{}.json", std::process::id()));
    let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    std::fs::write(&file, key).unwrap();
    let realm = "https://127.0.0.1:1/realms/acme";
    let said = printed("keycloak", &[realm, file.to_str().unwrap()]);
    let alone = printed("keycloak", &[realm]);
    std::fs::remove_file(&file).unwrap();
    let (Some(said), Some(alone)) = (said, alone) else { return };
    assert!(said.starts_with("1 keys from file://"), "{said}");
    assert!(alone.starts_with("no keys: ") && alone.contains("127.0.0.1:1"), "{alone}");
}

#[test]
fn outside_of_a_cluster_it_is_said_what_is_missing() {
    let Some(said) = printed("kubernetes", &[]) else { return };
    assert!(said.contains("service-accounts is not ready") && said.contains("ca.crt"), "{said}");
}
