//! Real issuers, through `from_issuer`: what each is like, and what it needed.

#![allow(clippy::unwrap_used, reason = "a test file: a panic is a failure")]

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwks_cache::{Algorithm, IdentityProviderRegistration, Registry};
use jwks_cache_acceptance::{NodePart, client};
use jwks_cache_testkit::tls::Authority;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const INSTALL: &str = "run `cargo xtask test sources --yes`";

/// A registry that takes plain http, as these issuers on loopback speak it, with one of them.
async fn registered(issuer: &str, change: impl FnOnce(&mut IdentityProviderRegistration)) -> Registry {
    let registry = Registry::builder().require_https(false).build();
    let mut registration = IdentityProviderRegistration::from_issuer("acme", "main", issuer).unwrap();
    change(&mut registration);
    registry.register(registration).await.unwrap();
    registry
}

/// Whether the cache's keys verify this token.
async fn verifies(registry: &Registry, token: &str) {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let header = URL_SAFE_NO_PAD.decode(input.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    let algorithm: Algorithm = header["alg"].as_str().unwrap().parse().unwrap();
    let key = registry.key("acme", "main", header["kid"].as_str(), algorithm).await.unwrap();
    key.verify(input.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

#[tokio::test]
async fn oidc_provider_needs_nothing() {
    let part = NodePart::start("oidc-provider").await;
    let registry = registered(part.issuer(), |_| ()).await;
    for algorithm in part.algorithms().await {
        verifies(&registry, &part.token(&algorithm).await).await;
    }
    assert_eq!(part.counts().await.requests, 1);
    part.rotate("ES256").await;
    verifies(&registry, &part.token("ES256").await).await;
    let status = registry.provider_status("acme", "main").await.unwrap();
    assert_eq!(status.jwks_uri.as_deref(), Some(part.jwks_url().as_str()));
}

#[tokio::test]
async fn canaille_has_keys_without_alg_and_use_and_needs_nothing() {
    let folder = Folder::new("canaille");
    let port = free_port();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("canaille");
    let mut child = Command::new(here.join(".venv/bin/python"))
        .args([here.join("run.py").into_os_string(), port.to_string().into(), folder.0.clone().into()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("canaille does not start ({error}); {INSTALL}"));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let tokens: Value = serde_json::from_str(&lines.next_line().await.unwrap().expect(INSTALL)).unwrap();
    let issuer = format!("http://127.0.0.1:{port}");
    up(&format!("{issuer}/.well-known/openid-configuration"), &mut child).await;

    let registry = registered(&issuer, |_| ()).await;
    let set = registry.resolve("acme", "main", None).await.unwrap();
    assert_eq!(set.keys.len(), 2);
    for key in &set.keys {
        assert!(key.common.key_algorithm.is_none() && key.common.public_key_use.is_none(), "{key:?}");
    }
    for algorithm in ["RS256", "ES256"] {
        verifies(&registry, tokens[algorithm].as_str().unwrap()).await;
    }
}

#[tokio::test]
async fn glewlwyd_names_another_host_and_needs_it_allowed() {
    let folder = Folder::new("glewlwyd");
    let port = free_port();
    let (issuer, _child) = glewlwyd(&folder.0, port).await;

    // Its keys are said to be on another host, which nobody allowed.
    let registry = registered(&issuer, |_| ()).await;
    let refused = registry.resolve("acme", "main", None).await.unwrap_err().to_string();
    assert!(refused.contains("jwks_uri") && refused.contains("allowed_domains"), "{refused}");

    let both = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let registry = registered(&issuer, |it| it.allowed_domains = both).await;
    let set = registry.resolve("acme", "main", None).await.unwrap();
    let kid = set.keys[0].common.key_id.clone();
    registry.key("acme", "main", kid.as_deref(), Algorithm::ES256).await.unwrap();
    let status = registry.provider_status("acme", "main").await.unwrap();
    assert_eq!(status.jwks_uri.unwrap(), format!("http://localhost:{port}//api/oidc/jwks"));
    // `no-store`: the floor, less the time in transit.
    let lifetime = (status.expires_at.unwrap() - status.last_refresh.unwrap()).num_seconds();
    assert!((28..=30).contains(&lifetime), "{lifetime} s");
}

/// A glewlwyd with its OpenID Connect plugin, whose external URL is another host than its issuer.
async fn glewlwyd(folder: &Path, port: u16) -> (String, Child) {
    let database = folder.join("glewlwyd.db");
    let made = Command::new("sqlite3")
        .args([database.to_str().unwrap(), ".read /usr/share/dbconfig-common/data/glewlwyd/install/sqlite3"])
        .status()
        .await
        .unwrap_or_else(|error| panic!("sqlite3 does not start ({error}); {INSTALL}"));
    assert!(made.success(), "glewlwyd's tables could not be made; {INSTALL}");
    let settings = folder.join("glewlwyd.conf");
    let text = format!(
        r#"port={port}
bind_address="127.0.0.1"
external_url="http://localhost:{port}/"
api_prefix="api"
log_mode="console"
log_level="ERROR"
cookie_secure=false
session_expiration=3600
session_key="session"
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="/usr/lib/glewlwyd/user"
user_middleware_module_path="/usr/lib/glewlwyd/user_middleware"
client_module_path="/usr/lib/glewlwyd/client"
user_auth_scheme_module_path="/usr/lib/glewlwyd/scheme"
plugin_module_path="/usr/lib/glewlwyd/plugin"
hash_algorithm="SHA512"
database = {{ type = "sqlite3" path = "{}" }};
"#,
        database.display()
    );
    std::fs::write(&settings, text).unwrap();
    let mut child = Command::new("glewlwyd")
        .arg("--config-file")
        .arg(&settings)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("glewlwyd does not start ({error}); {INSTALL}"));
    let base = format!("http://127.0.0.1:{port}/api");
    up(&format!("{base}/auth/"), &mut child).await;

    let post = async |path: &str, body: Value, cookie: &str| {
        let asking = client().post(format!("{base}/{path}")).header("content-type", "application/json");
        let answer = asking.header("cookie", cookie).body(body.to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        let cookie = answer.headers().get("set-cookie").map(|cookie| cookie.to_str().unwrap().to_owned());
        cookie.unwrap_or_default()
    };
    // As its tables come.
    let session = post("auth/", json!({"username": "admin", "password": "password"}), "").await;
    let session = session.split(';').next().unwrap().to_owned();
    let key = Authority::new("glewlwyd").server(&["127.0.0.1"]);
    let issuer = format!("{base}/oidc");
    let parameters = json!({
        "iss": issuer, "jwt-type": "ecdsa", "jwt-key-size": "256", "key": key.key_pem(), "cert": key.chain_pem(),
        "access-token-duration": 3600, "refresh-token-duration": 3600, "code-duration": 600,
        "refresh-token-rolling": true, "allow-non-oidc": true, "subject-type": "public", "jwks-show": true,
        "auth-type-code-enabled": true, "auth-type-client-enabled": true, "auth-type-token-enabled": false,
        "auth-type-id-token-enabled": true, "auth-type-none-enabled": false, "auth-type-password-enabled": false,
        "auth-type-refresh-enabled": true, "auth-type-device-enabled": false
    });
    let plugin = json!({
        "module": "oidc", "name": "oidc", "display_name": "oidc", "enabled": true, "parameters": parameters
    });
    post("mod/plugin/", plugin, &session).await;
    (issuer, child)
}

/// Waits until somebody answers at this URL.
async fn up(url: &str, child: &mut Child) {
    let client = client();
    let answered = async {
        while client.get(url).send().await.is_err() {
            assert!(child.try_wait().unwrap().is_none(), "{url}: the server ended; {INSTALL}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), answered)
        .await
        .unwrap_or_else(|_| panic!("{url}: no answer"));
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("jwks-cache-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
