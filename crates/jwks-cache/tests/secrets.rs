//! Marked secrets go in wherever an origin or a registration can put them, and come out nowhere.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::fmt::Write as _;
use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwks_cache::{
    Algorithm, CacheManager, ClientCertificate, IdentityProviderRegistration, Material, Subscription,
};
use jwks_cache_testkit::tls::Authority;
use jwks_cache_testkit::{Origin, Reply};
use serde_json::{Value, json};
use stage::peer::{GOAWAY, Peer, begin_http2, drain, frame, next_request, read_head};
use stage::record::Records;
use stage::secured::Folder;
use stage::served::{HELD, JWKS, Stage, jwk, registration, set, whole_text};
use stage::soon;

/// Stands in everything that must not come out. Letters only, so that no escaping hides it.
const MARK: &str = "SeCrEtMaRk";

/// A marked text, also fit for base64url, of which no two are the same.
fn marked(what: &str) -> String {
    format!("{MARK}{what}")
}

/// Private and symmetric keys of every kind, each private member marked.
fn private_keys() -> Vec<Value> {
    let n = URL_SAFE_NO_PAD.encode([0xc5; 256]);
    let mut rsa = json!({"kty": "RSA", "kid": "rsa", "n": n, "e": "AQAB"});
    for member in ["d", "p", "q", "dp", "dq", "qi"] {
        rsa[member] = marked(member).into();
    }
    rsa["oth"] = json!([{"r": marked("r"), "d": marked("othd"), "t": marked("t")}]);
    let mut ec = jwk("ec");
    ec["d"] = marked("ecd").into();
    let okp = json!({"kty": "OKP", "crv": "Ed25519", "kid": "okp", "x": "A".repeat(43), "d": marked("okpd")});
    let oct = json!({"kty": "oct", "kid": "oct", "alg": "HS256", "k": marked("octk")});
    let akp =
        json!({"kty": "AKP", "kid": "akp", "alg": "ML-DSA-44", "pub": "AAAA", "priv": marked("akppriv")});
    let mut keys = vec![rsa, ec, okp, oct, akp];
    // Each member on an otherwise sound key, and with a wrong type.
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"] {
        let mut key = jwk(member);
        key[member] = marked(&format!("single{member}")).into();
        keys.push(key.clone());
        key[member] = json!({"nested": [marked(&format!("nested{member}"))]});
        keys.push(key);
    }
    keys
}

/// The same answer with a marked value in every header that means something, and in some that do not. A
/// `Location` that is there already counts.
fn with_marked_headers(mut reply: Reply) -> Reply {
    for name in [
        "Cache-Control",
        "Age",
        "Expires",
        "Retry-After",
        "Last-Modified",
        "Content-Type",
        "Content-Language",
        "Set-Cookie",
        "WWW-Authenticate",
        "Authorization",
        "Server",
        "Via",
        "Link",
        "Vary",
        "Warning",
        "X-Request-Id",
        "Alt-Svc",
        "Location",
    ] {
        reply = reply.header(name, marked(&name.replace('-', "")));
    }
    // An ETag is kept for revalidation; it is no part of what is looked through below.
    reply.etag(format!("\"{}\"", marked("etag")))
}

/// Everything that a user, an operator or their tools get to see.
async fn everything_shown(stage: &Stage, records: &Records, events: &mut Subscription) -> String {
    let mut shown = records.text();
    let status = stage.registry.provider_status("acme", "main").await.unwrap();
    write!(shown, "{}{status:?}", serde_json::to_string(&status).unwrap()).unwrap();
    write!(shown, "{:?}", stage.registry.all_statuses().await).unwrap();
    let health = stage.registry.health().await;
    write!(shown, "{}{health:?}", serde_json::to_string(&health).unwrap()).unwrap();
    if let Ok(set) = stage.resolve().await {
        write!(shown, "{}{set:?}", serde_json::to_string(&*set).unwrap()).unwrap();
    }
    write!(shown, "{:?}", stage.registry).unwrap();
    while let Some(event) = events.try_next() {
        write!(shown, "{event:?}").unwrap();
    }
    #[cfg(feature = "prometheus")]
    write!(shown, "{}", jwks_cache::metrics::prometheus_handle().unwrap().render()).unwrap();
    shown
}

fn check(what: &str, shown: &str) {
    if let Some(at) = shown.find(MARK) {
        let from = shown[..at].char_indices().rev().nth(200).map_or(0, |(index, _)| index);
        panic!("{what}: {}", &shown[from..shown.len().min(at + 40)]);
    }
}

async fn stage() -> Stage {
    #[cfg(feature = "prometheus")]
    jwks_cache::install_default_exporter().unwrap();
    let stage = Stage::new();
    let url = stage.origin.url(&format!("/jwks?key={}", marked("query")));
    stage.register(registration(url.as_str())).await;
    stage
}

#[tokio::test]
async fn a_private_key_beside_a_sound_one_comes_out_nowhere() {
    let (records, _listening) = Records::listen();
    let stage = stage().await;
    let mut events = stage.registry.subscribe();
    let mut keys = private_keys();
    keys.push(jwk("sound"));
    let document = json!({"keys": keys, "comment": "kept"});
    stage.origin.set(JWKS, with_marked_headers(Reply::json(&document)).conditional());
    assert_eq!(stage.kids().await, ["sound"]);
    stage.refresh().await.unwrap();
    assert_eq!(stage.metric("not_modified_total").await, 1.0);
    let shown = everything_shown(&stage, &records, &mut events).await;
    for expected in ["private_members", "symmetric", "jwks_cache_flight", "SetChanged", "sound"] {
        let found = shown.contains(expected) || records.all().iter().any(|record| record.name == expected);
        assert!(found, "{expected} is missing, so this test looks at nothing");
    }
    check("served", &shown);
    let key = soon(stage.registry.key("acme", "main", Some("sound"), Algorithm::ES256)).await.unwrap();
    check("the key", &format!("{key:?}"));
}

#[tokio::test]
async fn a_failed_exchange_tells_no_secret() {
    let document = json!({"keys": private_keys()}).to_string();
    let single = private_keys()[1].to_string();
    let quoted = json!({"message": format!("cannot sign with {single}")}).to_string();
    let late = format!("{{\"k\":\"{}\",\"kty\":\"oct\"}}", marked("early"));
    let secret_in = |location: &str| Reply::redirect(302, location.replace("MARK", MARK));
    let mut rows = vec![
        ("all private", Reply::json(&document)),
        ("cut within a secret", Reply::json(&document[..document.find(MARK).unwrap() + MARK.len() + 3])),
        ("a single key", Reply::json(&single)),
        ("an error", Reply::json(json!({"error": marked("error")}))),
        ("keys of a wrong type", Reply::json(json!({"keys": marked("string")}))),
        ("entries of a wrong type", Reply::json(json!({"keys": [marked("entry"), [marked("list")]]}))),
        ("a page", Reply::status(200).body(format!("<html>{MARK}</html>"))),
        ("not UTF-8", Reply::status(200).body([marked("bytes").as_bytes(), &[0xff]].concat())),
        ("an unknown encoding", Reply::json(&document).header("Content-Encoding", marked("encoding"))),
        ("redirect with a query", secret_in("http://elsewhere.invalid/MARK?MARK#MARK")),
        ("redirect with credentials", secret_in("http://MARK:MARK@127.0.0.1/")),
        ("redirect to a file", secret_in("file:///MARK")),
        ("redirect that is no URL", secret_in("http://[MARK")),
        ("redirect to itself with a query", secret_in("/jwks?MARK")),
        ("a phrase", Reply::raw(format!("HTTP/1.1 500 {MARK}\r\nContent-Length: 0\r\n\r\n"))),
        ("a broken header", Reply::raw(format!("HTTP/1.1 200 OK\r\n{MARK} {MARK}\r\n\r\n"))),
        ("a broken status line", Reply::raw(format!("HTTP/1.1 {MARK}\r\n\r\n"))),
        (
            "a broken chunk",
            Reply::raw(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{MARK}\r\n")),
        ),
        ("a length that is none", Reply::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {MARK}\r\n\r\n"))),
    ];
    for status in [400, 401, 403, 404, 500, 503] {
        rows.push(("error page with a set", Reply::status(status).body(document.clone())));
        rows.push(("error page with a key", Reply::status(status).body(single.clone())));
        rows.push(("error page that quotes a key", Reply::status(status).body(quoted.clone())));
        rows.push(("error page with a secret first", Reply::status(status).body(late.clone())));
        rows.push(("compressed error page", Reply::status(status).body(single.clone()).gzip()));
    }
    for held in [false, true] {
        for (what, reply) in &rows {
            let (records, _listening) = Records::listen();
            let stage = stage().await;
            let mut events = stage.registry.subscribe();
            if held {
                stage.hold().await;
            }
            stage.origin.set(JWKS, with_marked_headers(reply.clone()));
            let error = stage.refresh().await.unwrap_err();
            assert!(records.text().contains("keys could not be refreshed"), "{what}");
            check(what, &whole_text(&error));
            check(what, &everything_shown(&stage, &records, &mut events).await);
            if held {
                assert_eq!(stage.kids().await, HELD, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_server_says_when_it_goes_away_is_not_shown() {
    let (records, _listening) = Records::listen();
    let authority = Authority::new("root");
    // RFC 9113 §6.8: the last stream, ENHANCE_YOUR_CALM, and as much text as the server likes.
    let said = [&[0, 0, 0, 0, 0, 0, 0, 11][..], marked("goes away").as_bytes(), &[b'x'; 8_000]].concat();
    let server = Peer::start_tls(&authority, "h2", move |stream, _| {
        begin_http2(stream)?;
        next_request(stream)?;
        stream.write_all(&frame(GOAWAY, 0, 0, &said))?;
        stream.flush()?;
        drain(stream);
        Ok(())
    });
    let stage = Stage::new();
    let mut events = stage.registry.subscribe();
    let mut registration = registration(&format!("https://127.0.0.1:{}/jwks", server.port));
    registration.tls.ca = Some(Material::inline(authority.pem()));
    stage.register(registration).await;
    let error = stage.refresh().await.unwrap_err();
    let text = whole_text(&error);
    assert!(text.contains("excessive load") && text.len() < 1_000, "{text}");
    check("goes away", &text);
    check("goes away", &everything_shown(&stage, &records, &mut events).await);
}

#[tokio::test]
async fn a_page_that_repeats_what_a_proxy_or_a_redirects_target_was_told_is_not_shown() {
    for (page, shown) in [("nobody I know", true), ("Basic dTpwYXNzMQ==", false), ("u and pass1", false)] {
        let proxy = Peer::start(move |mut stream, _| {
            let _ = read_head(&mut stream);
            let length = page.len();
            let head = format!("HTTP/1.1 407 No\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(format!("{head}{page}").as_bytes());
        });
        let stage = Stage::new();
        let mut registration = stage.registration();
        registration.proxy = Some(format!("http://u:pass1@127.0.0.1:{}", proxy.port).parse().unwrap());
        stage.register(registration).await;
        let text = whole_text(&stage.refresh().await.unwrap_err());
        assert_eq!((text.contains("407"), text.contains(page)), (true, shown), "{text}");
    }
    for (page, shown) in [("it expired", true), ("sig=abcd1234 expired", false)] {
        let stage = Stage::new();
        stage.register(stage.registration()).await;
        stage.origin.set(JWKS, Reply::redirect(302, "/there?sig=abcd1234"));
        stage.origin.set("/there", Reply::status(403).body(page));
        let text = whole_text(&stage.refresh().await.unwrap_err());
        assert_eq!((text.contains("403"), text.contains(page)), (true, shown), "{text}");
    }
}

#[tokio::test]
async fn an_origin_that_cannot_be_reached_tells_no_query() {
    let (records, _listening) = Records::listen();
    let stage = stage().await;
    let mut events = stage.registry.subscribe();
    stage.origin.pause();
    let error = stage.resolve().await.unwrap_err();
    check("refused", &whole_text(&error));
    check("refused", &everything_shown(&stage, &records, &mut events).await);
}

#[tokio::test]
async fn a_snapshot_holds_no_private_key_and_a_refused_one_tells_none() {
    let (records, _listening) = Records::listen();
    let origin = Origin::start();
    let mut keys = private_keys();
    keys.push(jwk("sound"));
    origin.set(JWKS, Reply::json(json!({"keys": keys})));
    let cache = CacheManager::new(registration(origin.url(JWKS).as_str())).unwrap();
    soon(cache.resolve(None)).await.unwrap();
    let snapshot = cache.persistent_snapshot().await.unwrap().unwrap();
    assert!(snapshot.jwks_json.contains("sound"));
    check("snapshot", &format!("{snapshot:?}{}", serde_json::to_string(&snapshot).unwrap()));
    check("view", &format!("{:?}{cache:?}", cache.snapshot().await));

    for jwks_json in [
        json!({"keys": private_keys()}).to_string(),
        marked("text"),
        json!({"keys": marked("keys")}).to_string(),
    ] {
        let error =
            cache.restore_snapshot(jwks_cache::PersistentSnapshot { jwks_json, ..snapshot.clone() }).await;
        check("refused snapshot", &whole_text(&error.unwrap_err()));
    }
    check("log", &records.text());
}

/// A registration with a secret in each setting that may hold one.
fn with_secrets(stage: &Stage, authority: &Authority) -> IdentityProviderRegistration {
    let mut it = stage.registration();
    it.headers.insert("X-Api-Key".into(), marked("header").into());
    it.bearer_token = Some(Material::inline(marked("token")));
    let certificate = authority.client("us");
    // Outside of the armour anything may stand (RFC 7468 §2).
    let key = format!("{}\n{}", marked("key"), certificate.key_pem());
    let chain = Material::inline(certificate.chain_pem());
    it.tls.client_certificate = Some(ClientCertificate { chain, key: Material::inline(key) });
    it.tls.ca = Some(Material::inline(format!("{}\n{}", marked("ca"), authority.pem())));
    it
}

#[tokio::test]
async fn what_we_authenticate_by_comes_out_nowhere() {
    let (records, _listening) = Records::listen();
    let authority = Authority::new("ours");
    let elsewhere = Origin::start();
    elsewhere.set("/there", Reply::status(403));
    let rows = [
        ("accepted", Reply::json(set(&["sound"]))),
        ("refused", Reply::status(401)),
        ("sent elsewhere", Reply::redirect(302, elsewhere.url("/there"))),
        ("not HTTP", Reply::raw("nonsense\r\n\r\n")),
    ];
    for proxied in [false, true] {
        for (what, reply) in &rows {
            let stage = stage().await;
            let mut events = stage.registry.subscribe();
            stage.origin.set(JWKS, reply.clone());
            let mut registration = with_secrets(&stage, &authority);
            registration.allowed_domains = vec!["127.0.0.1".into()];
            if proxied {
                // Nobody listens there.
                let proxy = format!("http://{MARK}:{MARK}@127.0.0.1:9");
                registration.proxy = Some(proxy.parse().unwrap());
            }
            check(what, &format!("{registration:?}{registration:#?}"));
            stage.register(registration).await;
            let outcome = stage.refresh().await;
            assert_eq!(outcome.is_ok(), !proxied && *what == "accepted", "{what}");
            if let Err(error) = outcome {
                check(what, &whole_text(&error));
            }
            check(what, &everything_shown(&stage, &records, &mut events).await);
            if !proxied {
                let asked = &stage.origin.requests(JWKS)[0];
                assert_eq!(asked.header("authorization"), Some(&*format!("Bearer {}", marked("token"))));
            }
        }
    }
    let builder = jwks_cache::Registry::builder()
        .header("X-Api-Key", marked("header"))
        .bearer_token(Material::inline(marked("token")))
        .proxy(format!("http://{MARK}:{MARK}@127.0.0.1:9").parse().unwrap());
    check("builder", &format!("{builder:?}"));
    check("registry", &format!("{:?}", builder.build()));
}

#[tokio::test]
async fn a_credential_that_cannot_be_used_is_not_quoted() {
    let (records, _listening) = Records::listen();
    let folder = Folder::new();
    let authority = Authority::new("ours");
    let broken = [
        format!("{MARK} {MARK}"),
        format!("-----BEGIN CERTIFICATE-----\n{MARK}\n-----END CERTIFICATE-----\n"),
        format!("-----BEGIN PRIVATE KEY-----\n{MARK}\n-----END PRIVATE KEY-----\n"),
        format!("-----BEGIN PRIVATE KEY-----\n{MARK}"),
    ];
    for (n, text) in broken.iter().enumerate() {
        for (setting, inline) in (0..4).flat_map(|setting| [(setting, false), (setting, true)]) {
            let stage = stage().await;
            let mut events = stage.registry.subscribe();
            let of = if inline { Material::inline(text.clone()) } else { folder.write("broken", text) };
            let mut registration = stage.registration();
            let sound = stage::secured::client_certificate(&authority.client("us"));
            match setting {
                0 => registration.bearer_token = Some(of),
                1 => registration.tls.ca = Some(of),
                2 => registration.tls.client_certificate = Some(ClientCertificate { chain: of, ..sound }),
                _ => registration.tls.client_certificate = Some(ClientCertificate { key: of, ..sound }),
            }
            if inline {
                let error = stage.registry.register(registration).await.unwrap_err();
                check("refused", &whole_text(&error));
                continue;
            }
            stage.register(registration).await;
            let error = stage.refresh().await.unwrap_err();
            assert!(error.to_string().contains("broken"), "row {n}, setting {setting}: {error}");
            check("file", &whole_text(&error));
            check("file", &everything_shown(&stage, &records, &mut events).await);
        }
    }
}

#[test]
fn debug_of_a_registration_names_every_field() {
    let registration = registration("https://id.example.com/jwks?key=SeCrEtMaRk");
    let shown = format!("{registration:?}");
    for (name, _) in serde_json::to_value(&registration).unwrap().as_object().unwrap() {
        assert!(shown.contains(&format!("{name}: ")), "{name}");
    }
    check("query", &shown);
}

#[tokio::test]
async fn a_hostile_kid_is_shown_escaped_and_cut() {
    let (records, _listening) = Records::listen();
    let stage = stage().await;
    let mut events = stage.registry.subscribe();
    let long = "k".repeat(1000);
    let hostile = ["a\r\nevil: 1", "b\u{1b}[2J\u{1b}]0;x\u{7}", "c\0d", "e\u{202e}f\u{2028}", &long];
    stage.origin.set(JWKS, Reply::json(set(&hostile)));
    for kid in hostile {
        assert!(soon(stage.registry.key("acme", "main", Some(kid), Algorithm::ES256)).await.is_ok());
    }
    for kid in hostile {
        let unknown = format!("{kid}?");
        let error =
            soon(stage.registry.key("acme", "main", Some(&unknown), Algorithm::ES256)).await.unwrap_err();
        no_controls("error", &error.to_string());
        assert!(stage.registry.deny_key("acme", "main", kid).await.unwrap());
    }
    stage.refresh().await.unwrap();
    for record in records.all() {
        for (name, value) in &record.fields {
            no_controls(name, value);
            assert!(!value.contains(&"k".repeat(129)), "{name} is not cut");
        }
    }
    let status = stage.registry.provider_status("acme", "main").await.unwrap();
    assert_eq!((status.keys.len(), status.denied.len()), (hostile.len(), hostile.len()));
    for kid in status
        .keys
        .iter()
        .filter_map(|key| key.kid.as_deref())
        .chain(status.denied.iter().map(String::as_str))
    {
        no_controls("status", kid);
        assert!(kid.chars().filter(|c| *c == 'k').count() <= 128, "{kid}");
    }
    while let Some(event) = events.try_next() {
        no_controls("event", &format!("{event:?}"));
    }
}

fn no_controls(what: &str, text: &str) {
    let bad = |c: char| c.is_control() || "\u{202e}\u{2028}".contains(c);
    assert!(!text.contains(bad), "{what}: {text:?}");
}

#[test]
fn a_registration_that_cannot_be_read_is_not_quoted() {
    let tls = |field: &str, value: Value| ("tls", json!({field: value}), "tls must be");
    let certificate = |value| tls("client_certificate", value);
    for (field, value, expected) in [
        ("jwks_url", json!(MARK), "jwks_url must be a URL"),
        ("jwks_url", json!(format!("https://{MARK}:{MARK}@[{MARK}/")), "jwks_url must be a URL"),
        ("jwks_url", json!({ MARK: 1 }), "jwks_url must be a URL"),
        ("proxy", json!(MARK), "proxy must be a URL"),
        ("proxy", json!(format!("http://{MARK}:{MARK}@proxy.example:{MARK}")), "proxy must be a URL"),
        ("proxy", json!([MARK]), "proxy must be a URL"),
        ("headers", json!(MARK), "headers must be"),
        ("headers", json!([MARK]), "headers must be"),
        ("headers", json!({"X-Api-Key": [MARK]}), "headers must be"),
        ("headers", json!({"X-Api-Key": {MARK: MARK}}), "headers must be"),
        ("bearer_token", json!(MARK), "bearer_token must be"),
        ("bearer_token", json!([MARK]), "bearer_token must be"),
        ("bearer_token", json!({ MARK: MARK }), "bearer_token must be"),
        ("bearer_token", json!({"inline": {MARK: MARK}}), "bearer_token must be"),
        ("bearer_token", json!({"inline": MARK, "file": MARK}), "bearer_token must be"),
        ("tls", json!(MARK), "tls must be"),
        tls("ca", json!(MARK)),
        tls("ca", json!({ MARK: MARK })),
        tls("ca", json!({"file": [MARK]})),
        tls("replace_roots", json!(MARK)),
        tls("min_version", json!(MARK)),
        certificate(json!(MARK)),
        certificate(json!({"chain": MARK, "key": MARK})),
        certificate(json!({"chain": {"inline": MARK}, "key": {MARK: MARK}})),
        certificate(json!({"chain": {"inline": MARK}})),
    ] {
        let mut registration =
            json!({"tenant_id": "a", "provider_id": "b", "jwks_url": "https://id.example.com/"});
        registration[field] = value.clone();
        let of_text = serde_json::from_str::<IdentityProviderRegistration>(&registration.to_string());
        let of_value = serde_json::from_value::<IdentityProviderRegistration>(registration);
        for error in [of_text.unwrap_err(), of_value.unwrap_err()] {
            assert!(error.to_string().contains(expected), "{field} {value}: {error}");
            check(field, &whole_text(&error.into()));
        }
    }
    let alone = [
        serde_json::from_value::<Material>(json!({ MARK: MARK })).unwrap_err(),
        serde_json::from_value::<jwks_cache::Secret>(json!([MARK])).unwrap_err(),
        serde_json::from_str::<jwks_cache::Secret>(&format!("{{\"{MARK}\":1}}")).unwrap_err(),
        serde_json::from_value::<ClientCertificate>(json!(MARK)).unwrap_err(),
        serde_json::from_value::<jwks_cache::TlsSettings>(json!(MARK)).unwrap_err(),
    ];
    for error in alone {
        check("alone", &whole_text(&error.into()));
    }
}
