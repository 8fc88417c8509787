//! `status`, `refresh`, `register`, `deny`, `allow` and `token` as people and scripts run them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::folder::Folder;
use crate::stage::{Stage, settings, token};
use jwks_cache_testkit::IdentityProvider;
use serde_json::{Value, json};

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{} {}", self.out, self.err))
    }
}

/// Runs it against the stage, which answers meanwhile.
async fn run(stage: &Stage, with: Option<&str>, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jwks-cache"));
    command
        .args(args)
        .stdin(Stdio::null())
        .env("JWKS_CACHE_SERVER", &stage.all.url)
        .env_remove("JWKS_CACHE_TOKEN");
    if let Some(name) = with {
        command.env("JWKS_CACHE_TOKEN", token(name));
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

#[tokio::test]
async fn a_provider_is_registered_refreshed_and_shown_from_the_command_line() {
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    let all = Some("all-write");
    let url = idp.jwks_url().to_string();
    let registered = run(
        &stage,
        all,
        &["register", "acme/main", &url, "--set", "requireHttps=false", "--set", "maxTtl=PT1H"],
    )
    .await;
    assert_eq!((registered.code, registered.err.as_str()), (0, ""));
    assert!(registered.out.contains("acme/main") && registered.out.contains("Empty"), "{}", registered.out);
    assert_eq!(stage.all.get("/tenants/acme/providers/main").await.body["maxTtl"], json!("PT1H"));

    let before = run(&stage, all, &["status"]).await;
    assert_eq!(before.code, 1, "it has no keys yet");
    let refreshed = run(&stage, all, &["refresh", "acme/main", "--json"]).await;
    assert_eq!((refreshed.code, &refreshed.json()["state"]), (0, &json!("Ready")));
    let one = run(&stage, all, &["status", "acme/main"]).await;
    let lines: Vec<&str> = one.out.lines().collect();
    assert_eq!(one.code, 0);
    assert!(lines[0].trim_start().starts_with("PROVIDER") && lines[1].contains("Ready"), "{}", one.out);
    assert!(
        lines.iter().any(|line| line.contains(&idp.signing_kid()) && line.contains("usable")),
        "{}",
        one.out
    );
    for name in [&["status"][..], &["status", "acme"]] {
        let listed = run(&stage, Some("acme-read"), &[name, &["--json"]].concat()).await;
        assert_eq!((listed.code, listed.json().as_array().unwrap().len()), (0, 1));
    }
    let none = run(&stage, all, &["status", "nobody"]).await;
    assert!(none.code == 0 && none.out.contains("no providers"), "{}", none.out);

    idp.fail_with(500);
    let failed = run(&stage, all, &["refresh", "acme/main"]).await;
    assert_eq!(failed.code, 1);
    assert!(failed.out.contains("500"), "{}", failed.out);
}

#[tokio::test]
async fn a_key_is_denied_and_allowed_from_the_command_line() {
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    stage.all.put("/tenants/acme/providers/main", &settings(&idp)).await;
    let all = Some("all-write");
    let kid = "k/1 ü";
    let denied = run(&stage, all, &["deny", "acme/main", kid, "--reason", "leaked"]).await;
    assert_eq!(
        (denied.code, denied.out.as_str()),
        (0, "k/1 \\u{fc} of acme/main is denied.\n"),
        "{}",
        denied.err
    );
    let list = stage.all.get("/tenants/acme/providers/main/denials").await.body;
    assert_eq!((&list["items"][0]["id"], &list["items"][0]["reason"]), (&json!(kid), &json!("leaked")));
    assert_eq!(run(&stage, all, &["allow", "acme/main", kid]).await.code, 0);
    let again = run(&stage, all, &["allow", "acme/main", kid]).await;
    assert_eq!(again.code, 1);
    assert!(again.err.contains("is not denied"), "{}", again.err);
}

#[tokio::test]
async fn what_does_not_work_says_why_and_what_to_do() {
    let stage = Stage::forgetful().await;
    let folder = Folder::new();
    let file = |name: &str, text: &str| -> PathBuf {
        let path = folder.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let broken = file("broken.json", "{\"bearerToken\": s3cret");
    let good = file("token", &format!("{}\n", token("all-write")));
    let (broken, good) = (broken.to_str().unwrap(), good.to_str().unwrap());
    let all = Some("all-write");
    for (with, args, code, says) in [
        (None, &["status"][..], 2, "JWKS_CACHE_TOKEN"),
        (Some("nobody"), &["status"], 2, "not known"),
        (Some("acme-read"), &["deny", "acme/main", "k"], 1, "only read"),
        (all, &["refresh", "acme/none"], 1, "not registered"),
        (all, &["refresh", "acme"], 2, "TENANT/PROVIDER"),
        (all, &["register", "acme/main", "http://x.example"], 1, "allowed_domains"),
        (all, &["register", "acme/main", "--set", "maxTl=PT1S"], 1, "did you mean maxTtl?"),
        (all, &["register", "acme/main", "--set", "maxTtl"], 2, "has no ="),
        (all, &["register", "acme/main", "--settings", broken], 2, "is no JSON object at line 1"),
        (all, &["status", "--server", "http://127.0.0.1:1"], 2, "does not answer"),
        (all, &["status", "--server", "unix:/nowhere"], 2, "does not answer"),
        (all, &["status", "--server", "nowhere"], 2, "is no server"),
        (all, &["status", "--server", "http://198.51.100.7"], 2, "plain http"),
        (None, &["status", "--token-file", "/nowhere"], 2, "cannot be read"),
        (None, &["status", "--token-file", good], 0, ""),
    ] {
        let said = run(&stage, with, args).await;
        assert_eq!(said.code, code, "{args:?}: {} {}", said.out, said.err);
        assert!(said.err.contains(says) && !said.err.contains("s3cret"), "{args:?}: {}", said.err);
        assert!(
            code == 0 || said.out.is_empty() && said.err.contains("help: ") || said.err.contains("--help"),
            "{}",
            said.err
        );
    }
}

#[tokio::test]
async fn a_token_is_made_with_the_hash_that_lets_it_in() {
    let stage = Stage::forgetful().await;
    let said = run(&stage, None, &["token", "--json"]).await.json();
    let (token, sha256) = (said["token"].as_str().unwrap(), said["sha256"].as_str().unwrap());
    let hash = jwks_cache_server::control::access::TokenHash::of(token);
    let hex: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sha256, hex);
    let text = run(&stage, None, &["token"]).await.out;
    assert!(text.starts_with("token   jwkc_") && text.contains("\nsha256  "), "{text}");
}
