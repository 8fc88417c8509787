//! The server's OpenAPI document, under the linter and the generator of requests that others wrote: no answer that it does not
//! announce, nothing taken that it does not allow, and each operation does what it is for at least once.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use jwks_cache_server::control::access::{TokenHash, new_token};
use jwks_cache_server::{Config, Listen, Server, Source};
use jwks_cache_testkit::IdentityProvider;
use serde_json::{Value, json};

/// What the tools are installed into.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi")
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Stage {
    folder: Folder,
    url: String,
    token: String,
    _server: Server,
}

impl Stage {
    async fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("jwks-cache-openapi-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let folder = Folder(folder);
        let token = new_token().unwrap();
        let sha256: String = TokenHash::of(&token).0.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!(
            "state_dir = {:?}\ndata.listen = \"off\"\nops.listen = \"off\"\ncontrol.listen = \"127.0.0.1:0\"\n\
             [defaults]\nrequire_https = false\nprivate_networks = {{ deny_except = [\"127.0.0.1\"] }}\n\
             [[control.tokens]]\nname = \"all\"\naccess = \"write\"\nsha256 = \"{sha256}\"\n",
            folder.0.join("state")
        );
        let server = Server::bind(load(&folder.0, &text)).await.unwrap();
        let Some(Listen::Tcp(address)) = &server.addresses().control else { panic!("it listens nowhere") };
        let url = format!("http://{address}");
        Self { folder, url, token, _server: server }
    }

    /// Runs a tool, which must be content.
    async fn run(&self, tool: &str, args: &[&str]) {
        let program = tools().join(tool);
        assert!(program.exists(), "{tool} is missing: run `cargo xtask test openapi`");
        let mut command = Command::new(&program);
        command.current_dir(tools()).args(args).env("NO_COLOR", "1").env("REDOCLY_TELEMETRY", "off");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        println!(
            "{tool}: {}",
            said.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
        );
        assert!(output.status.success(), "{tool} {args:?}\n{said}");
    }

    fn path(&self, name: &str) -> String {
        self.folder.0.join(name).display().to_string()
    }

    async fn document(&self) -> Value {
        let answer = reqwest_client().get(format!("{}/openapi.json", self.url)).send().await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }
}

fn load(folder: &Path, text: &str) -> Config {
    let file = folder.join("jwks-cache.toml");
    std::fs::write(&file, text).unwrap();
    Source { file: Some(file), ..Source::default() }.load().unwrap().config
}

fn reqwest_client() -> jwks_cache::reqwest::Client {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    jwks_cache::reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_linter_finds_nothing() {
    let stage = Stage::start("lint").await;
    let file = stage.path("openapi.json");
    std::fs::write(&file, stage.document().await.to_string()).unwrap();
    stage
        .run("node_modules/.bin/redocly", &["lint", "--config", "redocly.yaml", "--max-problems=50", &file])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_answered_other_than_the_document_says() {
    const REMOVES: &str = "removeProvider";
    let stage = Stage::start("known").await;
    let idp = IdentityProvider::start();
    let header = format!("Authorization: Bearer {}", stage.token);
    let schema = format!("{}/openapi.json", stage.url);
    let st = "venv/bin/st";
    let run = |more: Vec<String>| {
        let fixed = [
            "--config-file",
            "schemathesis.toml",
            "run",
            &schema,
            "--checks=all",
            "--no-color",
            "--max-examples=50",
            "--seed=1",
        ];
        fixed.map(str::to_owned).into_iter().chain(more).collect::<Vec<_>>()
    };
    let known = run(vec!["--header".into(), header.clone()]);
    stage.run(st, &known.iter().map(String::as_str).collect::<Vec<_>>()).await;

    // The same for a provider that is there, and each operation has to do what it is for.
    let client = reqwest_client();
    let main = format!("{}/tenants/acme/providers/main", stage.url);
    let body = json!({"jwksUrl": idp.jwks_url()}).to_string();
    let mut good = BTreeSet::new();
    for (method, path, body) in [
        ("PUT", "", body.as_str()),
        ("GET", "", ""),
        ("POST", "/refresh", ""),
        ("GET", "/status", ""),
        ("POST", "/denials", r#"{"id": "2024-06-key"}"#),
        ("GET", "/denials", ""),
        ("DELETE", "/denials/2024-06-key", ""),
    ] {
        let request =
            client.request(method.parse().unwrap(), format!("{main}{path}")).bearer_auth(&stage.token);
        let request = if body.is_empty() {
            request
        } else {
            request.header("content-type", "application/json").body(body.to_owned())
        };
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{method} {path} {}", answer.status());
    }
    // Who removes the provider comes last: the others would find none.
    for (which, turn) in [("--exclude-operation-id", "first"), ("--include-operation-id", "last")] {
        let har = stage.path(&format!("{turn}.har"));
        let seen = run(vec![
            "--header".into(),
            header.clone(),
            "--phases=examples,coverage,fuzzing".into(),
            format!("{which}={REMOVES}"),
            "--report=har".into(),
            format!("--report-har-path={har}"),
        ]);
        stage.run(st, &seen.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let log: Value = serde_json::from_slice(&std::fs::read(&har).unwrap()).unwrap();
        for entry in log["log"]["entries"].as_array().unwrap() {
            if matches!(entry["response"]["status"].as_u64(), Some(200..=299)) {
                let url = entry["request"]["url"].as_str().unwrap();
                let path = url.strip_prefix(&stage.url).unwrap_or(url).split('?').next().unwrap();
                good.insert((entry["request"]["method"].as_str().unwrap().to_owned(), template(path)));
            }
        }
    }
    let document = stage.document().await;
    let mut missing = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| ["get", "put", "post", "delete"].contains(&name.as_str()))
        {
            if !good.contains(&(method.to_uppercase(), path.clone())) {
                missing.push(format!("{method} {path}"));
            }
        }
    }
    println!("operations that did what they are for: {}, not: {missing:?}", good.len());
    assert!(missing.is_empty(), "{missing:?}");
}

/// The path as the document has it.
fn template(path: &str) -> String {
    let names = ["", "tenants", "{tenant}", "providers", "{provider}"];
    let parts = path.split('/').enumerate().map(|(at, part)| match (at, names.get(at)) {
        (2 | 4, Some(name)) => name,
        (6, _) => "{id}",
        _ => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_credentials() {
    let stage = Stage::start("unknown").await;
    let schema = format!("{}/openapi.json", stage.url);
    let args = [
        "--config-file",
        "schemathesis.toml",
        "run",
        &schema,
        "--checks=all",
        "--no-color",
        "--max-examples=20",
        "--seed=1",
    ];
    stage.run("venv/bin/st", &args).await;
}
