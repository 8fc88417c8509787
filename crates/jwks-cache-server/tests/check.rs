//! `jwks-cache check`, `schema` and `health` as people and scripts run them.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jwks_cache_server::{Config, Listen, Server, Source};
use jwks_cache_testkit::tls::Authority;
use jwks_cache_testkit::{IdentityProvider, Reply};
use serde_json::Value;

/// A folder of this test.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("jwks-cache-check-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn run(args: &[&str], config: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jwks-cache"));
    command.args(args).arg("--config").arg(config).output().unwrap()
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_check_says_what_is_wrong_and_online_which_providers_have_keys() {
    let folder = folder("online");
    let (good, bad) = (IdentityProvider::start(), IdentityProvider::start());
    bad.origin().set("/jwks.json", Reply::status(500));
    let provider = |name: &str, url: &str| {
        format!(
            "[tenants.acme.providers.{name}]\njwks_url = {url:?}\nrequire_https = false\nretry_policy.max_retries = 0\n"
        )
    };
    let defaults =
        "[defaults]\nrequire_https = false\nprivate_networks = { deny_except = [\"127.0.0.1\"] }\n";
    let file = folder.join("c.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();

    write(&(defaults.to_owned() + &provider("good", good.jwks_url().as_str())));
    let (code, out, err) = said(&run(&["check"], &file));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("The configuration is good: 1 providers."), "{out}");
    let (code, out, err) = said(&run(&["check", "--online"], &file));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("all 1 providers have keys"), "{out}");

    write(
        &(defaults.to_owned()
            + &provider("good", good.jwks_url().as_str())
            + &provider("bad", bad.jwks_url().as_str())),
    );
    let (code, out, err) = said(&run(&["check", "--online", "--json"], &file));
    assert_eq!((code, err.as_str()), (1, ""));
    let told: Value = serde_json::from_str(&out).unwrap();
    let by_name = |name: &str| {
        told["providers"].as_array().unwrap().iter().find(|of| of["providerId"] == name).unwrap().clone()
    };
    assert_eq!((told["good"].as_bool(), by_name("good")["usable"].as_u64()), (Some(false), Some(1)));
    assert!(by_name("bad")["error"].as_str().unwrap().contains("500"));

    // Nobody may be on loopback unless it is said.
    write(&("[defaults]\nrequire_https = false\n".to_owned() + &provider("good", good.jwks_url().as_str())));
    let (code, out, _) = said(&run(&["check", "--online"], &file));
    assert!(code == 1 && out.contains("help: defaults.private_networks"), "{out}");

    write("[data]\nlisen = 1\n");
    let (code, out, err) = said(&run(&["check"], &file));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.ends_with("c.toml:2:1: data.lisen: there is no such field\n  help: did you mean listen?\n"),
        "{err}"
    );
    let (code, out, _) = said(&run(&["check", "--json"], &file));
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["problems"][0]["remedy"]), (1, &"did you mean listen?".into()));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_schema_is_printed_as_json() {
    let output = Command::new(env!("CARGO_BIN_EXE_jwks-cache")).arg("schema").output().unwrap();
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(&schema, jwks_cache_server::schema());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_asked_over_tls_too() {
    let folder = folder("tls");
    let certificate = Authority::new("ours").server(&["keys.example"]);
    std::fs::write(folder.join("cert.pem"), certificate.chain_pem()).unwrap();
    std::fs::write(folder.join("key.pem"), certificate.key_pem()).unwrap();
    let file = folder.join("c.toml");
    let text = |ops: &str| {
        let tls =
            format!("{{ certificate = {:?}, key = {:?} }}", folder.join("cert.pem"), folder.join("key.pem"));
        format!(
            "state_dir = {:?}\ndata.listen = \"off\"\nops = {{ listen = {ops:?}, tls = {tls} }}\n",
            folder.join("state")
        )
    };
    std::fs::write(&file, text("127.0.0.1:0")).unwrap();
    let load =
        || -> Config { Source { file: Some(file.clone()), ..Source::default() }.load().unwrap().config };
    let server = Server::bind(load()).await.unwrap();
    let Some(Listen::Tcp(address)) = server.addresses().ops.clone() else {
        panic!("{:?}", server.addresses())
    };
    std::fs::write(&file, text(&address)).unwrap();
    let asked = file.clone();
    let output = tokio::task::spawn_blocking(move || run(&["health"], &asked)).await.unwrap();
    assert_eq!(said(&output), (0, String::new(), String::new()));
    server.shutdown().await;
    let asked = file.clone();
    let output = tokio::task::spawn_blocking(move || run(&["health"], &asked)).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    std::fs::remove_dir_all(folder).unwrap();
}
