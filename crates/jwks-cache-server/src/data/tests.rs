//! The data plane over real sockets: a provider behind it that rotates and fails, and policy time that stands until a test
//! moves it.

use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderName, Method};
use jwks_cache::reqwest::Client;
use jwks_cache::{Algorithm, IdentityProviderRegistration, KeyError};
use jwks_cache_testkit::{IdentityProvider, ManualClock, MemoryStore, Origin, Reply};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::config::Data;
use crate::config::PublicUrl;

const MAIN: &str = "/tenants/acme/providers/main";
const JWKS: &str = "/tenants/acme/providers/main/jwks";

/// A server, its registry and its clock.
struct Stage {
    clock: ManualClock,
    registry: Registry,
    address: String,
    client: Client,
}

/// What was answered.
struct Got {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn kids(&self) -> Vec<String> {
        let json = self.json();
        json["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// All that could tell one answer from another, but for the clock.
    fn all_but_the_date(&self) -> (u16, HeaderMap, &str) {
        let mut headers = self.headers.clone();
        headers.remove("date");
        (self.status, headers, self.text())
    }
}

impl Stage {
    async fn open() -> Self {
        Self::with(ManualClock::new(), MemoryStore::new(), &Data::default()).await
    }

    async fn with(clock: ManualClock, store: MemoryStore, settings: &Data) -> Self {
        let builder = Registry::builder().require_https(false).clock(Arc::new(clock.clone()));
        let registry = builder.with_store(Arc::new(store)).build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = router(
            registry.clone(),
            settings.public_url.as_ref(),
            settings.tls.is_some(),
            Arc::new(clock.clone()),
        );
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        // With a TLS of its own, which it does not use: one for the process would hide that the server has none.
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        let client = Client::builder().tls_backend_preconfigured(tls).no_proxy().no_gzip().build().unwrap();
        Self { clock, registry, address, client }
    }

    async fn register(&self, url: &str, change: impl FnOnce(&mut IdentityProviderRegistration)) {
        let mut it =
            IdentityProviderRegistration::new("acme", "main", url).unwrap().with_require_https(false);
        it.retry_policy.initial_backoff = Duration::from_millis(1);
        it.retry_policy.max_backoff = Duration::from_millis(1);
        change(&mut it);
        self.registry.register(it).await.unwrap();
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Got {
        let mut request = self.client.request(method, format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(name.parse::<HeaderName>().unwrap(), *value);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Got { status, headers, body: answer.bytes().await.unwrap() }
    }

    async fn get(&self, path: &str) -> Got {
        self.ask(Method::GET, path, &[]).await
    }

    async fn refresh(&self) {
        self.clock.advance(Duration::from_secs(2));
        self.registry.refresh_and_wait("acme", "main").await.unwrap();
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn idp() -> IdentityProvider {
    IdentityProvider::builder().cache_control("max-age=600").start()
}

#[tokio::test]
async fn the_set_is_served_byte_for_byte_with_all_that_caches_and_browsers_ask_for() {
    let (stage, origin) = (Stage::open().await, Origin::start());
    let text = format!(
        " {{ \"keys\":[ {{\"kty\":\"EC\" ,\"crv\":\"P-256\",\"kid\":\"a\",\"made-up\":[1 , 2],\"x\":\"{}\",\n\"y\":\"{}\"}}]}}\n",
        "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
    );
    origin.set("/jwks", Reply::json(&text).header("Cache-Control", "max-age=250"));
    stage.register(origin.url("/jwks").as_str(), |it| it.stale_while_error = seconds(7_200)).await;
    let got = stage.get(JWKS).await;
    assert_eq!((got.status, got.text()), (200, &*text));
    assert_eq!(got.header("content-type"), "application/jwk-set+json");
    assert_eq!(got.header("cache-control"), "public, max-age=250, stale-if-error=3600");
    assert_eq!(got.header("age"), "0");
    assert_eq!(got.header("last-modified"), "Thu, 01 Jan 2026 00:00:00 GMT");
    assert_eq!(got.header("vary"), "Accept-Encoding");
    assert_eq!(got.header("access-control-allow-origin"), "*");
    assert_eq!(got.header("x-content-type-options"), "nosniff");
    assert_eq!(got.header("content-length"), text.len().to_string());
    let etag = got.header("etag");
    assert!(etag.starts_with('"') && etag.len() == 45, "{etag}");

    let head = stage.ask(Method::HEAD, JWKS, &[]).await;
    let mut headers = head.headers.clone();
    headers.insert("date", got.headers["date"].clone());
    assert_eq!((head.status, &headers), (200, &got.headers), "as for GET");
    assert!(head.body.is_empty());

    let asked = [("origin", "https://a.example"), ("access-control-request-method", "GET")];
    let preflight = stage.ask(Method::OPTIONS, JWKS, &asked).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD, OPTIONS");

    let post = stage.ask(Method::POST, JWKS, &[]).await;
    assert_eq!((post.status, post.json()["error"].as_str()), (405, Some("method_not_allowed")));
    assert_eq!(post.header("allow"), "GET,HEAD,OPTIONS");
}

#[tokio::test]
async fn who_has_it_is_told_so_in_each_coding_for_itself() {
    let (stage, idp) = (Stage::open().await, idp());
    idp.rotate();
    stage.register(idp.jwks_url().as_str(), |_| {}).await;
    let plain = stage.get(JWKS).await;
    let zipped = stage.ask(Method::GET, JWKS, &[("accept-encoding", "gzip")]).await;
    let one = stage.get(&format!("{JWKS}?kid=k1")).await;
    assert_eq!(zipped.header("content-encoding"), "gzip");
    let mut unzipped = String::new();
    GzDecoder::new(&*zipped.body).read_to_string(&mut unzipped).unwrap();
    assert_eq!(unzipped, plain.text());
    let (plain, zipped, one) = (plain.header("etag"), zipped.header("etag"), one.header("etag"));
    assert!(plain != zipped && plain != one && zipped != one);

    let (weak, many) = (format!("W/{plain}"), format!("\"x\", {plain}"));
    let (before, at, gzip) =
        ("Wed, 31 Dec 2025 23:59:59 GMT", "Thu, 01 Jan 2026 00:00:00 GMT", ("accept-encoding", "gzip;q=1.0"));
    let part = format!("{JWKS}?kid=k1");
    // Path, request headers, status
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);
    let table: &[Row<'_>] = &[
        (JWKS, &[("if-none-match", plain)], 304),
        (JWKS, &[("if-none-match", &weak)], 304),
        (JWKS, &[("if-none-match", &many)], 304),
        (JWKS, &[("if-none-match", "*")], 304),
        (JWKS, &[("if-none-match", "\"x\"")], 200),
        (JWKS, &[("if-none-match", "\"x\""), ("if-modified-since", at)], 200),
        (JWKS, &[("if-none-match", plain), ("if-modified-since", before)], 304),
        (JWKS, &[("if-modified-since", at)], 304),
        (JWKS, &[("if-modified-since", before)], 200),
        (JWKS, &[("if-none-match", zipped)], 200),
        (JWKS, &[("if-none-match", zipped), gzip], 304),
        (JWKS, &[("if-none-match", plain), gzip], 200),
        (JWKS, &[("if-none-match", plain), ("accept-encoding", "gzip;q=0")], 304),
        (&part, &[("if-none-match", one)], 304),
        (&part, &[("if-none-match", plain)], 200),
    ];
    for (path, headers, status) in table {
        for method in [Method::GET, Method::HEAD] {
            let got = stage.ask(method.clone(), path, headers).await;
            assert_eq!(got.status, *status, "{method} {path} {headers:?}");
            if got.status == 304 {
                assert!(got.body.is_empty());
                for name in
                    ["etag", "cache-control", "age", "vary", "last-modified", "access-control-allow-origin"]
                {
                    assert!(got.headers.contains_key(name), "{name}");
                }
                assert!(!got.headers.contains_key("content-type"));
            }
        }
    }
}

#[tokio::test]
async fn a_tag_holds_as_long_as_the_bytes_do_over_refreshes_and_a_restart() {
    let (idp, store, clock) = (idp(), MemoryStore::new(), ManualClock::new());
    let stage = Stage::with(clock.clone(), store.clone(), &Data::default()).await;
    stage.register(idp.jwks_url().as_str(), |it| it.removal_grace = seconds(10_000)).await;
    let first = stage.get(JWKS).await;
    stage.refresh().await;
    let again = stage.get(JWKS).await;
    assert_eq!(again.header("etag"), first.header("etag"));
    assert_eq!(again.header("last-modified"), first.header("last-modified"));

    idp.rotate();
    idp.retire("k1");
    stage.refresh().await;
    let rotated = stage.get(JWKS).await;
    assert_eq!(rotated.kids(), ["k2", "k1"], "the new one, and the one that retires");
    assert_ne!(rotated.header("etag"), first.header("etag"));
    assert_eq!(rotated.header("last-modified"), "Thu, 01 Jan 2026 00:00:04 GMT");
    stage.refresh().await;
    assert_eq!(stage.get(JWKS).await.header("etag"), rotated.header("etag"));
    stage.registry.shutdown().await;

    let hits = idp.jwks_hits();
    let next = Stage::with(clock, store, &Data::default()).await;
    next.register(idp.jwks_url().as_str(), |it| it.removal_grace = seconds(10_000)).await;
    let restored = next.get(JWKS).await;
    assert_eq!((restored.header("etag"), &restored.body), (rotated.header("etag"), &rotated.body));
    assert_eq!(idp.jwks_hits(), hits);
}

#[tokio::test]
async fn a_denied_key_is_gone_at_once_and_a_removed_provider_too() {
    let (stage, idp) = (Stage::open().await, idp());
    idp.rotate();
    stage.register(idp.jwks_url().as_str(), |_| {}).await;
    let whole = stage.get(JWKS).await;
    assert_eq!(whole.kids(), ["k1", "k2"]);
    stage.registry.deny_key("acme", "main", "k1").await.unwrap();
    let headers =
        [("if-none-match", whole.header("etag")), ("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT")];
    for headers in [&headers[..], &headers[1..], &[]] {
        let less = stage.ask(Method::GET, JWKS, headers).await;
        assert_eq!((less.status, less.kids()), (200, vec!["k2".to_owned()]), "{headers:?}");
    }
    assert_eq!(stage.get(&format!("{JWKS}?kid=k1")).await.text(), "{\"keys\":[]}");
    assert_eq!(stage.get(&format!("{MAIN}/keys/k1.pem")).await.status, 404);
    stage.registry.allow_key("acme", "main", "k1").await.unwrap();
    assert_eq!(stage.get(JWKS).await.header("etag"), whole.header("etag"));

    stage.registry.unregister("acme", "main").await.unwrap();
    for path in [JWKS.to_owned(), format!("{MAIN}/keys/k1.pem"), format!("{JWKS}?kid=k1")] {
        let gone = stage.get(&path).await;
        assert_eq!((gone.status, gone.json()["error"].as_str()), (410, Some("removed")), "{path}");
        assert_eq!(gone.header("access-control-allow-origin"), "*");
        assert_eq!(gone.header("cache-control"), "no-store");
    }
    stage.register(idp.jwks_url().as_str(), |_| {}).await;
    assert_eq!(stage.get(JWKS).await.status, 200);
}

#[tokio::test]
async fn nobody_learns_which_tenants_there_are() {
    let (stage, idp) = (Stage::open().await, idp());
    stage.register(idp.jwks_url().as_str(), |_| {}).await;
    let first = stage.get("/tenants/acme/providers/other/jwks").await;
    assert_eq!((first.status, first.json()["error"].as_str()), (404, Some("not_registered")));
    for path in [
        "/tenants/other/providers/main/jwks",
        "/tenants/other/providers/other/jwks",
        "/tenants/acme%2Fmain/providers/x/jwks",
        "/tenants/acme/providers/%FF/jwks",
        "/tenants/ACME/providers/main/jwks",
        "/tenants/other/providers/main/jwks?kid=k1",
        "/tenants/acme/providers/other/jwks?kid=k1",
        "/tenants/acme/providers/other/keys/k1.pem",
        "/tenants/other/providers/main/keys/k1.pem",
        "/tenants/acme/providers/other/.well-known/openid-configuration",
        "/tenants/other/providers/main/.well-known/openid-configuration",
    ] {
        for headers in [&[][..], &[("if-none-match", "*")], &[("accept-encoding", "gzip")]] {
            let other = stage.ask(Method::GET, path, headers).await;
            assert_eq!(other.all_but_the_date(), first.all_but_the_date(), "{path} {headers:?}");
        }
    }
    // What is wrong with the request itself is said of any name, before one is looked up.
    for (method, rest) in [
        (Method::GET, "jwks?kid=a&kid=b"),
        (Method::GET, "keys/k1"),
        (Method::POST, "jwks"),
        (Method::OPTIONS, "jwks"),
    ] {
        let ask = async |tenant| {
            let path = format!("/tenants/{tenant}/providers/main/{rest}");
            stage.ask(method.clone(), &path, &[]).await
        };
        let (there, not_there) = (ask("acme").await, ask("other").await);
        assert_eq!(there.all_but_the_date(), not_there.all_but_the_date(), "{method} {rest}");
    }
}

#[tokio::test]
async fn a_key_that_is_withheld_is_as_one_that_was_never_there() {
    let (stage, origin) = (Stage::open().await, Origin::start());
    let idp = IdentityProvider::builder().kid("good").start();
    idp.rotate_to("denied", Algorithm::ES256);
    idp.rotate_to("private", Algorithm::ES256);
    let published = stage.client.get(idp.jwks_url()).send().await.unwrap().bytes().await.unwrap();
    let mut set: Value = serde_json::from_slice(&published).unwrap();
    set["keys"][2]["d"] = set["keys"][2]["x"].clone();
    let symmetric = json!({"kty": "oct", "kid": "symmetric", "k": "c2VjcmV0"});
    set["keys"].as_array_mut().unwrap().push(symmetric);
    let set = set.to_string();
    origin.set("/jwks", Reply::json(&set).header("Cache-Control", "max-age=600"));
    stage.register(origin.url("/jwks").as_str(), |_| {}).await;
    assert_eq!(stage.get(JWKS).await.kids(), ["good", "denied"]);
    stage.registry.deny_key("acme", "main", "denied").await.unwrap();
    let jwks = |kid: &str| format!("{JWKS}?kid={kid}");
    let pem = |kid: &str| format!("{MAIN}/keys/{kid}.pem");
    for path in [&jwks as &dyn Fn(&str) -> String, &pem] {
        let never = stage.get(&path("made-up")).await;
        assert_ne!(stage.get(&path("good")).await.all_but_the_date(), never.all_but_the_date());
        for kid in ["denied", "private", "symmetric"] {
            let withheld = stage.get(&path(kid)).await;
            assert_eq!(withheld.all_but_the_date(), never.all_but_the_date(), "{kid}");
        }
    }
}

#[tokio::test]
async fn an_outage_shortens_what_others_may_keep_until_there_is_nothing() {
    let (stage, idp) = (Stage::open().await, idp());
    stage.register(idp.jwks_url().as_str(), |it| it.stale_while_error = seconds(1_000)).await;
    stage.get(JWKS).await;
    idp.fail_with(500);
    for (after, want) in [
        (0, "public, max-age=300, stale-if-error=1000"),
        (400, "public, max-age=200, stale-if-error=1000"),
        (199, "public, max-age=1, stale-if-error=1000"),
        (1, "public, max-age=0, stale-if-error=1000"),
        (400, "public, max-age=0, stale-if-error=600"),
        (599, "public, max-age=0, stale-if-error=1"),
    ] {
        stage.clock.advance(seconds(after));
        let got = stage.get(JWKS).await;
        assert_eq!((got.status, got.header("cache-control")), (200, want), "after {after} more");
        assert_eq!(got.kids(), ["k1"]);
    }
    stage.clock.advance(seconds(1));
    let got = stage.get(JWKS).await;
    assert_eq!((got.status, got.json()["error"].as_str()), (503, Some("keys_unavailable")));
    assert!((1..=300).contains(&got.header("retry-after").parse::<u64>().unwrap()));
    assert_eq!(got.header("cache-control"), "no-store");
}

#[tokio::test]
async fn without_keys_it_says_whose_fault_that_is_and_when_to_come_back() {
    // What the provider does, the status, the error
    let html = || Reply::status(200).header("content-type", "text/html").body("<html>sign in</html>");
    let table = [
        (Reply::status(500), 503, "keys_unavailable"),
        (Reply::status(429), 503, "keys_unavailable"),
        (Reply::reset_before_headers(), 503, "keys_unavailable"),
        (Reply::status(404), 502, "refresh_failed"),
        (Reply::json("{}"), 502, "refresh_failed"),
        (html(), 502, "refresh_failed"),
    ];
    for (reply, status, error) in table {
        let (stage, origin) = (Stage::open().await, Origin::start());
        origin.set("/secret-path", reply);
        stage.register(origin.url("/secret-path").as_str(), |it| it.retry_policy.max_retries = 0).await;
        for asked in ["cold", "in the backoff"] {
            let got = stage.get(JWKS).await;
            assert_eq!((got.status, got.json()["error"].as_str()), (status, Some(error)), "{asked}");
            assert!((1..=300).contains(&got.header("retry-after").parse::<u64>().unwrap()), "{asked}");
            assert_eq!(got.header("access-control-allow-origin"), "*");
            assert!(
                !got.text().contains("secret-path") && !got.text().contains("127.0.0.1"),
                "{}",
                got.text()
            );
        }
    }
}

#[tokio::test]
async fn a_thousand_cold_clients_cost_one_request_upstream() {
    let (stage, origin) = (Stage::open().await, Origin::start());
    let set = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let gate = origin.hold("/jwks");
    origin.set("/jwks", Reply::json(set));
    stage.register(origin.url("/jwks").as_str(), |_| {}).await;
    let url = format!("http://{}{JWKS}", stage.address);
    let mut clients = JoinSet::new();
    for _ in 0..1_000 {
        let (client, url) = (stage.client.clone(), url.clone());
        clients.spawn(async move {
            let answer = client.get(url).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        });
    }
    origin.wait_for_hits("/jwks", 1).await;
    gate.release();
    let mut served = 0;
    while let Some(answer) = clients.join_next().await {
        assert_eq!(answer.unwrap(), (200, set.to_owned()));
        served += 1;
    }
    assert_eq!((served, origin.hits("/jwks")), (1_000, 1));
}

#[tokio::test]
async fn a_hostile_kid_is_a_kid_like_any_other_and_stands_in_no_header() {
    let (stage, idp) = (Stage::open().await, idp());
    let hostile = [
        "",
        " ",
        "\r\nset-cookie: a=b",
        "a\0b",
        "\u{1b}[31mred",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "..",
        "*1\r\n$4\r\nPING",
        "' OR 1=1 --",
        "a\"b",
        "ü\u{202e}",
        "%00",
        "a+b c",
        "a/b.pem",
        ".pem",
    ];
    for kid in hostile {
        idp.rotate_to(kid, Algorithm::ES256);
    }
    stage.register(idp.jwks_url().as_str(), |_| {}).await;
    let whole = stage.get(JWKS).await.kids();
    let encoded = |kid: &str| kid.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    for kid in hostile {
        assert!(whole.iter().any(|other| other == kid), "{kid:?}");
        let part = stage.get(&format!("{JWKS}?kid={}", encoded(kid))).await;
        assert_eq!((part.status, part.kids()), (200, vec![kid.to_owned()]), "{kid:?}");
        let pem = stage.get(&format!("{MAIN}/keys/{}.pem", encoded(kid))).await;
        assert_eq!(pem.status, 200, "{kid:?}: {}", pem.text());
        assert_eq!(pem.header("content-type"), "application/x-pem-file");
        assert!(pem.text().starts_with("-----BEGIN PUBLIC KEY-----\n"), "{kid:?}");
        // Asked for and not there: nothing of it comes back.
        let missing = format!("missing{kid}");
        let none = stage.get(&format!("{MAIN}/keys/{}.pem", encoded(&missing))).await;
        assert_eq!((none.status, none.json()["error"].as_str()), (404, Some("not_found")), "{kid:?}");
        for got in [part, pem, none] {
            let known = [
                "content-type",
                "content-length",
                "date",
                "etag",
                "cache-control",
                "age",
                "vary",
                "last-modified",
                "access-control-allow-origin",
                "access-control-expose-headers",
                "x-content-type-options",
            ];
            for (name, value) in &got.headers {
                assert!(known.contains(&name.as_str()), "{name}");
                assert!(value.as_bytes().iter().all(|byte| (0x20..0x7f).contains(byte)), "{name}");
                assert!(!value.to_str().unwrap().contains("missing"), "{name}");
            }
        }
    }
    for query in ["kid=%FF", "kid=nobody", "kid=k1%20"] {
        let none = stage.get(&format!("{JWKS}?{query}")).await;
        assert_eq!((none.status, none.text()), (200, "{\"keys\":[]}"), "{query}");
    }
    let two = stage.get(&format!("{JWKS}?kid=a&kid=b")).await;
    assert_eq!((two.status, two.json()["parameter"].as_str()), (400, Some("kid")));
    assert_eq!(stage.get(&format!("{JWKS}?other=1")).await.kids(), whole);
    assert_eq!(stage.get(&format!("{MAIN}/keys/%FF.pem")).await.status, 404);
    assert_eq!(stage.get(&format!("{MAIN}/keys/k1")).await.status, 404);
}

#[tokio::test]
async fn a_new_kid_is_asked_for_within_the_budget_and_made_up_ones_are_not() {
    let (stage, idp) = (Stage::open().await, idp());
    stage.register(idp.jwks_url().as_str(), |_| {}).await;
    stage.get(JWKS).await;
    let kid = idp.rotate();
    assert_eq!(stage.get(&format!("{JWKS}?kid={kid}")).await.kids(), [kid]);
    let hits = idp.jwks_hits();
    for n in 0..50 {
        assert_eq!(stage.get(&format!("{JWKS}?kid=made-up-{n}")).await.text(), "{\"keys\":[]}");
    }
    assert!(idp.jwks_hits() <= hits + 1, "{} for 50", idp.jwks_hits() - hits);
}

#[tokio::test]
async fn a_pem_verifies_what_the_key_signed() {
    let (stage, idp) = (Stage::open().await, idp());
    stage.register(idp.jwks_url().as_str(), |_| {}).await;
    let pem = stage.get(&format!("{MAIN}/keys/k1.pem")).await;
    let text: String = pem.text().lines().filter(|line| !line.starts_with("-----")).collect();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
    let key = aws_lc_rs::signature::ParsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, der);
    key.unwrap().verify_sig(b"words", &idp.sign("k1", b"words")).unwrap();
    let etag = pem.header("etag");
    let again = stage.ask(Method::GET, &format!("{MAIN}/keys/k1.pem"), &[("if-none-match", etag)]).await;
    assert_eq!((again.status, again.header("cache-control")), (304, pem.header("cache-control")));
}

#[tokio::test]
async fn discovery_names_the_providers_issuer_and_our_address_of_its_keys() {
    const DISCOVERY: &str = "/tenants/acme/providers/main/.well-known/openid-configuration";
    let (stage, idp) = (Stage::open().await, idp());
    stage.register(idp.jwks_url().as_str(), |it| it.issuer = Some(idp.issuer())).await;
    let got = stage.get(DISCOVERY).await;
    assert_eq!((got.status, got.header("content-type")), (200, "application/json"));
    let document = got.json();
    assert_eq!(document["issuer"], idp.issuer());
    assert_eq!(document["id_token_signing_alg_values_supported"], serde_json::json!(["ES256"]));
    let keys = stage.client.get(document["jwks_uri"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(keys.status(), 200);
    let named = stage.ask(Method::GET, DISCOVERY, &[("host", "keys.example.com:81")]).await;
    assert_eq!(named.json()["jwks_uri"], format!("http://keys.example.com:81{JWKS}"));
    for host in ["a/../b", "user@host", "a\"><script>", "a b"] {
        let refused = stage.ask(Method::GET, DISCOVERY, &[("host", host)]).await;
        assert_eq!((refused.status, refused.json()["parameter"].as_str()), (400, Some("Host")), "{host}");
        assert!(!refused.text().contains(host));
    }
    stage.register(idp.jwks_url().as_str(), |_| {}).await;
    assert_eq!(stage.get(DISCOVERY).await.status, 404, "no issuer");

    let url: PublicUrl = "https://keys.example.com/base/".parse().unwrap();
    let settings = Data { public_url: Some(url), ..Data::default() };
    let stage = Stage::with(ManualClock::new(), MemoryStore::new(), &settings).await;
    stage.register(idp.jwks_url().as_str(), |it| it.issuer = Some(idp.issuer())).await;
    let got = stage.ask(Method::GET, DISCOVERY, &[("host", "a/../b")]).await;
    assert_eq!(got.json()["jwks_uri"], format!("https://keys.example.com/base{JWKS}"));
}

#[tokio::test]
async fn another_url_is_another_set_at_once() {
    let (stage, first, second) =
        (Stage::open().await, idp(), IdentityProvider::builder().kid("other").start());
    stage.register(first.jwks_url().as_str(), |_| {}).await;
    assert_eq!(stage.get(JWKS).await.kids(), ["k1"]);
    second.fail_with(500);
    stage.register(second.jwks_url().as_str(), |it| it.retry_policy.max_retries = 0).await;
    assert_eq!(stage.get(JWKS).await.status, 503);
    let held = stage.registry.key("acme", "main", Some("k1"), Algorithm::ES256).await;
    assert!(!matches!(held, Ok(_) | Err(Error::Key(KeyError::UnknownKid))));
    second.come_back();
    stage.refresh().await;
    assert_eq!(stage.get(JWKS).await.kids(), ["other"]);
}

#[tokio::test]
async fn the_shelf_does_not_grow_with_providers_that_came_and_went() {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (registry, shelf) = (Registry::new(), Shelf::default());
    let text: Arc<str> = "{}".into();
    for _ in 0..1_000 {
        let tenant = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        shelf.take(&registry, (&tenant, "main"), &text, 1);
    }
    assert!(shelf.len() <= 64, "{}", shelf.len());
}
