//! Keys that no URL of a key set gives: files, texts, PEM, certificate maps. Each is judged like a fetched set.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jwks_cache::{
    Algorithm, Error, IdentityProviderRegistration, KeyFormat, Registry, Result, ServingSource, What,
};
use jwks_cache_testkit::tls::Authority;
use jwks_cache_testkit::{ManualClock, Origin, Reply};
use serde_json::json;
use stage::scripted::{Script, events, jwk};
use stage::socket::{document, is_security, is_validation, registry};
use stage::{PROVIDER, TENANT, kids, secs, settle, soon};

async fn of(registration: &IdentityProviderRegistration) -> Registry {
    let registry = registry(&ManualClock::new());
    registry.register(registration.clone()).await.unwrap();
    registry
}

async fn resolve(registry: &Registry) -> Result<Vec<String>> {
    soon(registry.resolve(TENANT, PROVIDER, None)).await.map(|set| kids(&set))
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("jwks-cache-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("keys.json")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn inline_keys_are_judged_like_a_fetched_set_and_cost_no_request() {
    let clock = ManualClock::new();
    let network = Script::new(&clock);
    let registry = Registry::builder().clock(Arc::new(clock.clone())).fetcher(network.clone()).build();
    let mut leaked = jwk("leaked", 3);
    leaked["d"] = "AAAA".into();
    let text = json!({"keys": [jwk("a", 1), leaked, {"kty": "oct", "kid": "s", "k": "AAAA"}]}).to_string();
    registry.register(IdentityProviderRegistration::from_inline(TENANT, PROVIDER, text)).await.unwrap();
    assert_eq!(resolve(&registry).await.unwrap(), ["a"]);
    let status = registry.provider_status(TENANT, PROVIDER).await.unwrap();
    assert_eq!(status.serving, Some(ServingSource::Primary));
    let reasons: Vec<_> = status.keys.iter().filter_map(|key| key.reason.clone()).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    for _ in 0..100 {
        clock.advance(secs(300));
        assert_eq!(resolve(&registry).await.unwrap(), ["a"]);
    }
    assert_eq!(network.asked(), 0);
}

#[tokio::test]
async fn another_text_is_another_source() {
    let registry = registry(&ManualClock::new());
    for kid in ["one", "two"] {
        let text = document(&[kid]);
        registry.register(IdentityProviderRegistration::from_inline(TENANT, PROVIDER, text)).await.unwrap();
        assert_eq!(resolve(&registry).await.unwrap(), [kid]);
    }
}

#[tokio::test]
async fn a_text_that_is_no_key_set_is_told_and_never_shown() {
    let secret = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----";
    let registration = IdentityProviderRegistration::from_inline(TENANT, PROVIDER, secret)
        .with_format(KeyFormat::Pem { kid: "k".into() });
    assert!(!format!("{registration:?}").contains("c2VjcmV0"));
    let error = resolve(&of(&registration).await).await.unwrap_err().to_string();
    assert!(error.contains("private key") && !error.contains("c2VjcmV0"), "{error}");
}

#[tokio::test]
async fn one_key_in_pem_gets_its_kid() {
    let certificate = Authority::new("root").server(&["id.example"]);
    let chain = certificate.chain_pem();
    let registration = IdentityProviderRegistration::from_inline(TENANT, PROVIDER, chain)
        .with_format(KeyFormat::Pem { kid: "k".into() });
    let registry = of(&registration).await;
    assert_eq!(resolve(&registry).await.unwrap(), ["k"]);
    registry.key(TENANT, PROVIDER, Some("k"), Algorithm::ES256).await.unwrap();
    let nameless = registration.with_format(KeyFormat::Pem { kid: String::new() });
    is_validation(nameless.validate(), "format");
}

#[tokio::test]
async fn a_map_of_certificates_is_a_key_set() {
    let root = Authority::new("root");
    let pem = |name: &str| root.server(&[name]).chain_pem();
    let map = json!({"one": pem("a.example"), "two": pem("b.example"), "bad": "none"});
    let origin = Origin::start();
    origin.set(
        "/x509",
        Reply::json(map.to_string()).header("Cache-Control", "max-age=300").etag("\"1\"").conditional(),
    );
    let mut registration = stage::socket::registration(origin.url("/x509"));
    registration = registration.with_format(KeyFormat::X509Map);
    let clock = ManualClock::new();
    let registry = registry(&clock);
    registry.register(registration.clone()).await.unwrap();
    let mut found = resolve(&registry).await.unwrap();
    found.sort();
    assert_eq!(found, ["one", "two"]);
    registry.key(TENANT, PROVIDER, Some("one"), Algorithm::ES256).await.unwrap();
    clock.advance(secs(2));
    soon(registry.refresh_and_wait(TENANT, PROVIDER)).await.unwrap();
    assert_eq!(origin.requests("/x509")[1].header("if-none-match"), Some("\"1\""));

    origin.set("/x509", Reply::json(document(&["k"])));
    let registry = of(&registration).await;
    let error = resolve(&registry).await.unwrap_err().to_string();
    assert!(error.contains("`format`"), "{error}");
}

/// A registry that watches a file, and what moves its time on.
struct Watched {
    folder: Folder,
    clock: ManualClock,
    registry: Registry,
}

impl Watched {
    async fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        fs::write(folder.file(), document(&["one"])).unwrap();
        let clock = ManualClock::new();
        let registry = registry(&clock);
        let registration = IdentityProviderRegistration::from_file(TENANT, PROVIDER, folder.file());
        registry.register(registration).await.unwrap();
        let watched = Self { folder, clock, registry };
        assert_eq!(resolve(&watched.registry).await.unwrap(), ["one"]);
        watched.seconds(2).await;
        watched
    }

    /// Lets so many seconds pass, one after the other, with time for each look.
    async fn seconds(&self, seconds: u32) {
        for _ in 0..seconds {
            self.clock.advance(secs(1));
            for _ in 0..5 {
                settle().await;
                tokio::task::spawn_blocking(|| ()).await.unwrap();
            }
        }
        stage::landed(&self.registry).await;
    }

    async fn held(&self) -> Vec<String> {
        let snapshot = self.registry.provider_status(TENANT, PROVIDER).await.unwrap();
        let published = snapshot.keys.into_iter().filter(|key| key.state != "retiring");
        published.filter_map(|key| key.kid).collect()
    }

    /// Puts another file in its place, as careful writers do.
    fn replace(&self, kid: &str) {
        let next = self.folder.0.join("next");
        fs::write(&next, document(&[kid])).unwrap();
        fs::rename(next, self.folder.file()).unwrap();
    }
}

#[tokio::test]
async fn a_file_put_in_place_of_another_is_seen() {
    let watched = Watched::new("replaced").await;
    for kid in ["two", "six", "ten"] {
        watched.replace(kid);
        watched.seconds(4).await;
        assert_eq!(watched.held().await, [kid], "of the same length, and maybe of the same second");
    }
}

#[tokio::test]
async fn a_file_behind_a_link_that_is_swapped_is_seen() {
    let watched = Watched::new("linked").await;
    let (a, b) = (watched.folder.0.join("a"), watched.folder.0.join("b"));
    fs::write(&a, document(&["a"])).unwrap();
    fs::write(&b, document(&["b"])).unwrap();
    let point_to = |to: &Path| {
        let link = watched.folder.0.join("link");
        std::os::unix::fs::symlink(to, &link).unwrap();
        fs::rename(link, watched.folder.file()).unwrap();
    };
    for (to, kid) in [(&a, "a"), (&b, "b")] {
        point_to(to);
        watched.seconds(4).await;
        assert_eq!(watched.held().await, [kid]);
    }
}

#[tokio::test]
async fn a_file_that_is_being_written_is_left_alone() {
    let watched = Watched::new("written").await;
    let mut told = watched.registry.subscribe();
    let whole = document(&["two"]);
    // Each look finds more of it.
    for part in [10, 30, 50, 70] {
        fs::write(watched.folder.file(), &whole[..part]).unwrap();
        watched.seconds(1).await;
    }
    let failed = |told: &mut _| events(told).iter().any(|what| matches!(what, What::RefreshFailed { .. }));
    assert!(!failed(&mut told), "it was not even read");
    // A writer that hangs leaves a half: that is refused, and the keys stay.
    watched.seconds(3).await;
    assert!(failed(&mut told));
    assert_eq!(watched.held().await, ["one"]);
    fs::write(watched.folder.file(), &whole).unwrap();
    watched.seconds(4).await;
    assert_eq!(watched.held().await, ["two"]);
}

#[tokio::test]
async fn a_file_that_is_gone_leaves_its_keys_for_the_stale_window() {
    let watched = Watched::new("gone").await;
    fs::remove_file(watched.folder.file()).unwrap();
    watched.seconds(3).await;
    assert_eq!(resolve(&watched.registry).await.unwrap(), ["one"]);
    watched.clock.advance(secs(400));
    let error = resolve(&watched.registry).await.unwrap_err();
    assert!(matches!(&error, Error::Fetch(error) if error.reason() == "file"), "{error}");
    watched.replace("two");
    watched.clock.advance(secs(20));
    assert_eq!(resolve(&watched.registry).await.unwrap(), ["two"]);
}

#[tokio::test]
async fn a_registry_whose_tenants_write_registrations_takes_no_file() {
    let registry = Registry::builder().local_files(false).build();
    let registration = IdentityProviderRegistration::from_file(TENANT, PROVIDER, "keys.json");
    assert!(is_security(registry.register(registration).await).contains("source"));
    let mut registration =
        IdentityProviderRegistration::new(TENANT, PROVIDER, "https://id.example/").unwrap();
    registration.fallbacks = vec![jwks_cache::Fallback::file("keys.json")];
    assert!(is_security(registry.register(registration).await).contains("fallbacks"));
}

#[tokio::test]
async fn who_asks_nothing_over_the_network_waits_for_nobody_who_does() {
    let clock = ManualClock::new();
    let network = Script::new(&clock);
    let builder = Registry::builder().clock(Arc::new(clock.clone())).fetcher(network.clone());
    let registry = builder.max_concurrent_fetches(1).build();
    registry.register(stage::scripted::registration("other", PROVIDER, "idp.test")).await.unwrap();
    network.hold();
    let other = registry.clone();
    let hung = tokio::spawn(async move { other.resolve("other", PROVIDER, None).await.map(drop) });
    network.wait_for(1).await;
    let text = json!({"keys": [jwk("a", 1)]}).to_string();
    registry.register(IdentityProviderRegistration::from_inline(TENANT, PROVIDER, text)).await.unwrap();
    assert_eq!(resolve(&registry).await.unwrap(), ["a"]);
    network.release();
    soon(hung).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_file_replaced_while_it_is_registered_again_is_seen() {
    let watched = Watched::new("again").await;
    watched.seconds(2).await;
    watched.replace("two");
    let registration = IdentityProviderRegistration::from_file(TENANT, PROVIDER, watched.folder.file())
        .with_require_https(false);
    watched.registry.register(registration).await.unwrap();
    watched.seconds(4).await;
    assert_eq!(watched.held().await, ["two"]);
}
