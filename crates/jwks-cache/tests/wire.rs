//! Exchanges on real sockets: whatever an origin does, keys that are held stay, every wait ends, and every
//! request is counted.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jwks_cache::{
    Algorithm, CacheManager, CacheState, Error, ErrorKind, IdentityProviderRegistration, Material,
    SpkiFingerprint, reqwest,
};
use jwks_cache_testkit::{BlackHole, Gate, Origin, Reply};
use stage::names::{Lookup, Names, found};
use stage::served::{HELD, JWKS, Stage, reason, registration, set, whole_text};
use stage::{PROVIDER, TENANT, settle, soon};
use tokio::task::JoinSet;
use url::Url;

/// One thing that goes wrong, and what is to be seen of it.
struct Fault {
    name: &'static str,
    reply: Reply,
    /// The reason of the error that everyone gets.
    reason: &'static str,
    /// Requests at the origin, retries and redirects included.
    requests: usize,
}

fn fault(name: &'static str, reason: &'static str, requests: usize, reply: Reply) -> Fault {
    Fault { name, reply, reason, requests }
}

/// What fails, with two retries allowed: 3 requests where another attempt may do better, 1 where not.
fn faults() -> Vec<Fault> {
    let body = set(&["new"]);
    let good = || Reply::json(&body);
    let raw = |head: &str, body: &str| Reply::raw(format!("{head}\r\n\r\n{body}"));
    let encoded = |encoding: &str| good().header("Content-Encoding", encoding);
    let zipped = gzip(body.as_bytes());
    let cut = Reply::json("").body(zipped[..zipped.len() - 6].to_vec()).header("Content-Encoding", "gzip");
    let many = (0..10_000).fold(good(), |reply, n| reply.header(format!("X-{n}"), n));
    let tick = Duration::from_millis(100);
    vec![
        fault("reset before headers", "reset", 3, Reply::reset_before_headers()),
        fault("closed before headers", "reset", 3, Reply::close_before_headers()),
        fault("no answer", "timeout", 3, Reply::hang()),
        fault("slow headers", "timeout", 3, good().slow_headers(1, tick)),
        fault("slow body", "timeout", 3, good().slow_body(1, tick)),
        fault("stalled body", "timeout", 3, good().stall_at(20)),
        fault("reset within the body", "body", 3, good().reset_mid_body()),
        fault("closed within the body", "body", 3, good().truncate_at(20)),
        fault("length too long", "body", 3, good().content_length(9_999).close_after()),
        fault(
            "last chunk missing",
            "body",
            3,
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", &format!("{:x}\r\n{body}\r\n", body.len())),
        ),
        fault("two lengths", "protocol", 1, good().header("Content-Length", 7).close_after()),
        fault(
            "chunk size garbage",
            "protocol",
            1,
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "zz\r\n"),
        ),
        fault("no head at all", "protocol", 1, Reply::raw(body.clone())),
        fault("too many headers", "protocol", 1, many.close_after()),
        fault("cut where only the close tells", "not_json", 1, good().close_delimited().truncate_at(40)),
        fault("endless", "too_large", 1, good().endless()),
        fault("plain, labelled gzip", "encoding", 1, encoded("gzip")),
        fault("gzip cut short", "encoding", 1, cut),
        fault("brotli", "encoding", 1, encoded("br")),
        fault("zstd", "encoding", 1, encoded("zstd")),
        fault("an encoding nobody knows", "encoding", 1, encoded("foo")),
        fault("gzip twice", "encoding", 1, encoded("gzip, gzip")),
        fault("no content", "status", 1, Reply::status(204)),
        fault("a part", "status", 1, Reply::status(206).body(body.clone())),
        fault("not modified, unasked", "status", 1, Reply::status(304)),
        fault("bad request", "status", 1, Reply::status(400)),
        fault("unauthorized", "status", 1, Reply::status(401)),
        fault("forbidden, in HTML", "status", 1, Reply::status(403).body("<html>no</html>")),
        fault("not found", "status", 1, Reply::status(404)),
        fault("gone", "status", 1, Reply::status(410)),
        fault("request timeout", "status", 3, Reply::status(408)),
        fault("too many requests", "status", 3, Reply::status(429)),
        fault("server error", "status", 3, Reply::status(500)),
        fault("unavailable", "status", 3, Reply::status(503)),
        fault(
            "a login page",
            "not_json",
            1,
            Reply::status(200).body("<!doctype html><title>Sign in</title>"),
        ),
        fault("an error in JSON", "no_keys_array", 1, Reply::json(r#"{"error":"server_error"}"#)),
        fault("redirect to itself", "security", 4, Reply::redirect(302, JWKS)),
        fault("redirect to another host", "security", 1, Reply::redirect(302, "http://keys.invalid/jwks")),
        fault(
            "redirect to cloud metadata",
            "security",
            1,
            Reply::redirect(307, "http://169.254.169.254/jwks"),
        ),
        fault("redirect to a file", "security", 1, Reply::redirect(302, "file:///etc/passwd")),
        fault("redirect to gopher", "security", 1, Reply::redirect(301, "gopher://127.0.0.1/jwks")),
        fault("redirect with credentials", "security", 1, Reply::redirect(302, "http://a:b@127.0.0.1/")),
        fault("redirect to nowhere", "redirect", 1, Reply::status(302)),
    ]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Only these wait for the deadline of an attempt; the others must not be hurried.
fn attempt_timeout(fault: &Fault) -> Duration {
    if fault.reason == "timeout" { Duration::from_millis(400) } else { Duration::from_secs(10) }
}

async fn stage_for(fault: &Fault) -> Stage {
    let stage = Stage::new();
    let mut registration = registration(stage.origin.url("/jwks?key=in-the-query").as_str());
    registration.retry_policy.attempt_timeout = attempt_timeout(fault);
    stage.build_client().await;
    stage.register(registration).await;
    stage
}

fn check_error(fault: &Fault, error: &Error) {
    let (name, text) = (fault.name, error.to_string());
    assert_eq!(reason(error), fault.reason, "{name}: {text}");
    for part in ["acme/main", "/jwks ", "attempt "] {
        assert!(text.contains(part), "{name}: {part} is missing in {text}");
    }
    assert!(!whole_text(error).contains("in-the-query"), "{name}: {text}");
    if fault.reason == "security" {
        assert_eq!(error.kind(), ErrorKind::RefusedByPolicy, "{name}");
        return;
    }
    assert_eq!(error.kind(), ErrorKind::KeysUnavailable, "{name}");
    assert_eq!(error.provider(), Some(("acme", "main")), "{name}");
    assert_eq!(error.attempt(), Some(u32::try_from(fault.requests).unwrap()), "{name}");
    assert_eq!(error.url().unwrap().query(), None, "{name}");
    let cause = std::error::Error::source(error);
    assert!(
        error.status().is_some()
            || cause.is_some()
            || ["timeout", "encoding", "too_large"].contains(&fault.reason),
        "{name}: {text}"
    );
}

#[tokio::test]
async fn a_fault_after_a_good_set_loses_no_key() {
    for fault in faults() {
        let (name, stage) = (fault.name, stage_for(&fault).await);
        stage.hold().await;
        stage.origin.set(JWKS, fault.reply.clone());
        let error = stage.refresh().await.unwrap_err();
        check_error(&fault, &error);
        assert_eq!(stage.kids().await, HELD, "{name}");
        assert!(stage.is_usable("held-1").await, "{name}");
        assert_eq!(stage.origin.hits(JWKS), 1 + fault.requests, "{name}");
        assert_eq!(stage.metric("upstream_requests_total").await, (1 + fault.requests) as f64, "{name}");
        assert_eq!(stage.metric("refresh_errors_total").await, 1.0, "{name}");
        // Inside the stale window the same keys are still there.
        stage.clock.advance(Duration::from_secs(3601));
        assert_eq!(stage.kids().await, HELD, "{name}: stale");
    }
}

#[tokio::test]
async fn a_fault_on_the_first_fetch_names_what_failed() {
    for fault in faults() {
        let (name, stage) = (fault.name, stage_for(&fault).await);
        stage.origin.set(JWKS, fault.reply.clone());
        let error = stage.resolve().await.unwrap_err();
        check_error(&fault, &error);
        assert_eq!(stage.origin.hits(JWKS), fault.requests, "{name}");
        let status = stage.registry.provider_status("acme", "main").await.unwrap();
        assert_eq!((status.error_count, status.last_error.is_some()), (1, true), "{name}");
        // It recovers by itself.
        stage.origin.set(JWKS, Reply::json(set(&["new"])));
        stage.clock.advance(Duration::from_secs(11));
        assert_eq!(stage.kids().await, ["new"], "{name}");
    }
}

#[tokio::test]
async fn what_is_odd_but_whole_is_accepted() {
    let body = set(&["new"]);
    let good = || Reply::json(&body);
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let rows = [
        ("gzip", good().gzip()),
        (
            "gzip in another case",
            Reply::json("").body(gzip(body.as_bytes())).header("Content-Encoding", "X-GZip"),
        ),
        ("gzip in chunks", good().gzip().chunked()),
        ("identity", good().header("Content-Encoding", "identity")),
        ("interim answer", good().interim(103)),
        ("closed by the end", good().close_delimited()),
        (
            "more than the length says",
            Reply::json(format!("{body}garbage")).content_length(body.len() as u64),
        ),
        (
            "a length beside chunks",
            Reply::raw(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
            )),
        ),
        ("in pieces", good().slow_body(64, Duration::from_millis(1))),
        ("labelled as text", Reply::status(200).header("Content-Type", "text/plain").body(body.clone())),
    ];
    for (name, reply) in rows {
        let stage = Stage::new();
        stage.register(stage.registration()).await;
        stage.origin.set(JWKS, reply);
        assert_eq!(stage.kids().await, ["new"], "{name}");
        // What was left on the wire is not the start of the next answer.
        stage.origin.set(JWKS, Reply::json(set(&["newer"])));
        stage.refresh().await.unwrap();
        assert_eq!(stage.kids().await, ["newer"], "{name}");
        assert_eq!(stage.origin.hits(JWKS), 2, "{name}");
    }
}

#[tokio::test]
async fn the_bound_of_a_body_is_exact() {
    let body = set(&["new"]);
    let padded = |bytes: usize| format!("{body}{:1$}", "", bytes - body.len());
    let most = 4096;
    for (name, reply, fits) in [
        ("plain", Reply::json(padded(most)), true),
        ("plain, a byte more", Reply::json(padded(most + 1)), false),
        ("chunked", Reply::json(padded(most)).chunked(), true),
        ("chunked, a byte more", Reply::json(padded(most + 1)).chunked(), false),
        ("gzip", Reply::json(padded(most)).gzip(), true),
        ("gzip, a byte more", Reply::json(padded(most + 1)).gzip(), false),
    ] {
        let stage = Stage::new();
        let mut registration = stage.registration();
        registration.max_response_bytes = most as u64;
        stage.register(registration).await;
        stage.origin.set(JWKS, reply);
        match stage.resolve().await {
            Ok(_) => assert!(fits, "{name}"),
            Err(error) => assert_eq!((reason(&error), fits), ("too_large", false), "{name}: {error}"),
        }
        assert_eq!(stage.origin.hits(JWKS), 1, "{name}");
    }
}

#[tokio::test]
async fn redirects_on_the_same_host_are_followed_up_to_the_bound() {
    for (hops, most, arrives) in [(3, 3, true), (4, 3, false), (1, 0, false), (10, 10, true), (20, 10, false)]
    {
        let stage = Stage::new();
        let mut registration = stage.registration();
        registration.max_redirects = most;
        stage.register(registration).await;
        for hop in 0..hops {
            let at = if hop == 0 { JWKS.to_owned() } else { format!("/hop/{hop}") };
            let status = [301, 302, 303, 307, 308][hop % 5];
            stage.origin.set(&at, Reply::redirect(status, format!("/hop/{}", hop + 1)));
        }
        stage.origin.set(&format!("/hop/{hops}"), Reply::json(set(&["there"])));
        match stage.resolve().await {
            Ok(_) => assert!(arrives, "{hops} of {most}"),
            Err(error) => assert_eq!((reason(&error), arrives), ("security", false), "{error}"),
        }
        let requests = hops.min(usize::from(most)) + 1;
        assert_eq!(stage.origin.total(), requests, "{hops} of {most}");
        assert_eq!(stage.metric("upstream_requests_total").await, requests as f64, "{hops} of {most}");
    }
}

#[tokio::test]
async fn a_redirect_to_another_host_is_dialled_only_when_a_list_holds_it() {
    for (registration_allows, registry_allows, followed) in [
        (&[][..], &[][..], false),
        (&["127.0.0.1", "localhost"], &[], true),
        (&["127.0.0.1"], &[], false),
        (&[], &["127.0.0.1", "localhost"], true),
        (&["127.0.0.1", "localhost"], &["127.0.0.1"], false),
    ] {
        let other = Origin::start();
        other.set("/real", Reply::json(set(&["there"])));
        let stage = Stage::with(|builder| builder.allowed_domains(registry_allows.iter().copied()));
        let mut registration = stage.registration();
        registration.allowed_domains = registration_allows.iter().map(ToString::to_string).collect();
        stage.register(registration).await;
        let there = format!("http://localhost:{}/real", other.addr().port());
        stage.origin.set(JWKS, Reply::redirect(302, there).header("Set-Cookie", "id=1"));
        let resolved = stage.resolve().await;
        let case = format!("{registration_allows:?}, {registry_allows:?}");
        assert_eq!(resolved.is_ok(), followed, "{case}: {resolved:?}");
        assert_eq!(other.connections() > 0, followed, "{case}");
        if followed {
            let asked = &other.requests("/real")[0];
            assert_eq!(names(&asked.headers), ["accept", "accept-encoding", "host", "user-agent"], "{case}");
        }
    }
}

#[tokio::test]
async fn the_requests_of_a_flight_that_is_ended_are_counted() {
    let stage = Stage::new();
    stage.register(stage.registration()).await;
    stage.origin.set(JWKS, Reply::hang());
    let registry = stage.registry.clone();
    let waiting = tokio::spawn(async move { registry.resolve(TENANT, PROVIDER, None).await });
    stage.origin.wait_for_hits(JWKS, 1).await;
    stage.origin.set(JWKS, Reply::json(set(&HELD)));
    stage.register(stage.registration()).await;
    soon(waiting).await.unwrap().unwrap();
    let counted = async {
        while stage.metric("upstream_requests_total").await < 2.0 {
            tokio::task::yield_now().await;
        }
    };
    soon(counted).await;
    assert_eq!((stage.origin.hits(JWKS), stage.metric("upstream_requests_total").await), (2, 2.0));
}

/// The bound of `dial::idle`.
#[tokio::test]
async fn however_many_providers_16_origins_keep_connections_and_the_others_close_theirs() {
    let stage = Stage::new();
    let origins: Vec<_> = (0..22).map(|_| Origin::start()).collect();
    for (n, origin) in origins.iter().enumerate() {
        origin.set(JWKS, Reply::json(set(&HELD)));
        let mut registration = registration(origin.url(JWKS).as_str());
        registration.provider_id = format!("provider-{n}");
        stage.register(registration).await;
    }
    for _ in 0..2 {
        stage.clock.advance(Duration::from_secs(1));
        for n in 0..origins.len() {
            soon(stage.registry.refresh_and_wait(TENANT, &format!("provider-{n}"))).await.unwrap();
        }
    }
    let connections: Vec<_> = origins.iter().map(Origin::connections).collect();
    assert_eq!(connections, [vec![1; 16], vec![2; 6]].concat());
}

#[tokio::test]
async fn as_many_as_may_fetch_from_an_origin_at_once_find_their_connections_again() {
    let stage = Stage::new();
    let (there, elsewhere) = (Origin::start(), Origin::start());
    let provider = |n: usize| format!("provider-{n}");
    let path = |n: usize| format!("/{n}");
    let register = async |id: String, url: Url| {
        stage.register(IdentityProviderRegistration { provider_id: id, ..registration(url.as_str()) }).await;
    };
    for n in 0..8 {
        there.set(&path(n), Reply::json(set(&HELD)));
        register(provider(n), there.url(&path(n))).await;
    }
    elsewhere.set(JWKS, Reply::json(set(&HELD)));
    register("elsewhere".to_owned(), elsewhere.url(JWKS)).await;
    for burst in 1..=3 {
        stage.clock.advance(Duration::from_secs(1));
        let held: Vec<_> = (0..8).map(|n| there.hold(&path(n))).collect();
        let mut waiting = JoinSet::new();
        for n in 0..8 {
            let registry = stage.registry.clone();
            waiting.spawn(async move { registry.refresh_and_wait(TENANT, &provider(n)).await });
        }
        for n in 0..8 {
            soon(there.wait_for_hits(&path(n), burst)).await;
        }
        held.iter().for_each(Gate::release);
        assert!(soon(waiting.join_all()).await.iter().all(Result::is_ok));
        // The last of them has gone back by then.
        soon(stage.registry.refresh_and_wait(TENANT, "elsewhere")).await.unwrap();
        assert_eq!(there.connections(), 8, "burst {burst}");
    }
}

fn names(headers: &[(String, String)]) -> Vec<&str> {
    let mut names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn requests_carry_exactly_these_headers() {
    let stage = Stage::new();
    stage.register(stage.registration()).await;
    let date = "Thu, 01 Jan 2026 00:00:00 GMT";
    let reply =
        Reply::json(set(&HELD)).etag("W/\"v1\"").last_modified(date).header("Set-Cookie", "id=1; Path=/");
    stage.origin.set(JWKS, reply.conditional());
    stage.resolve().await.unwrap();
    stage.refresh().await.unwrap();
    let unknown = soon(stage.registry.key("acme", "main", Some("nobody"), Algorithm::ES256)).await;
    assert!(unknown.is_err());

    let requests = stage.origin.requests(JWKS);
    let plain = ["accept", "accept-encoding", "host", "user-agent"];
    let conditional =
        ["accept", "accept-encoding", "host", "if-modified-since", "if-none-match", "user-agent"];
    let missing = [
        "accept",
        "accept-encoding",
        "cache-control",
        "host",
        "if-modified-since",
        "if-none-match",
        "user-agent",
    ];
    let seen: Vec<_> = requests.iter().map(|request| names(&request.headers)).collect();
    assert_eq!(seen, [&plain[..], &conditional, &missing]);
    for request in &requests {
        assert_eq!(request.method, "GET");
        assert_eq!(request.header("accept"), Some("application/jwk-set+json, application/json"));
        assert_eq!(request.header("accept-encoding"), Some("gzip"));
        assert_eq!(request.header("user-agent"), Some(concat!("jwks-cache/", env!("CARGO_PKG_VERSION"))));
    }
    assert_eq!(requests[1].header("if-none-match"), Some("W/\"v1\""));
    assert_eq!(requests[1].header("if-modified-since"), Some(date));
    assert_eq!(requests[2].header("cache-control"), Some("no-cache"));
    assert_eq!(stage.metric("not_modified_total").await, 2.0);
}

#[tokio::test]
async fn a_page_that_repeats_our_credentials_is_not_shown() {
    type Page = fn(&str) -> String;
    let rows: [(&str, Page); 4] = [
        ("authorization", |value| format!("<p>turned away: {value}</p>")),
        ("authorization", |value| format!("<p>turned away: {}", value.split_once(' ').unwrap().1)),
        ("x-api-key", |value| format!("{{\"error\":\"no such key: {value}\"}}")),
        ("x-api-key", |value| format!("{:251}{value}", "no")),
    ];
    for (name, page) in rows {
        let stage = Stage::new();
        let mut registration = stage.registration();
        registration.headers.insert("X-Api-Key".into(), "api Wv7 key".into());
        registration.bearer_token = Some(Material::inline("tok-Zq8"));
        stage.register(registration).await;
        stage
            .origin
            .respond_with(JWKS, move |request| Reply::status(401).body(page(request.header(name).unwrap())));
        let error = stage.resolve().await.unwrap_err();
        assert_eq!(reason(&error), "status", "{error}");
        let status = stage.registry.provider_status(TENANT, PROVIDER).await.unwrap();
        assert!(status.last_error.is_some());
        let told = format!("{}{status:?}{}", whole_text(&error), serde_json::to_string(&status).unwrap());
        for part in ["tok-", "Zq8", "Wv7", "api ", "turned away", "no such key"] {
            assert!(!told.contains(part), "{part}: {told}");
        }
    }
    // What repeats nothing is shown.
    let stage = Stage::new();
    stage.register(stage.registration()).await;
    stage.origin.set(JWKS, Reply::status(401).body("turned away"));
    assert!(stage.resolve().await.unwrap_err().to_string().contains("turned away"));
}

#[tokio::test]
async fn a_refused_connection_is_a_failed_attempt_without_a_request() {
    let stage = Stage::new();
    stage.register(stage.registration()).await;
    stage.hold().await;
    stage.origin.pause();
    let error = stage.refresh().await.unwrap_err();
    assert_eq!((reason(&error), error.attempt()), ("connect", Some(3)), "{error}");
    assert_eq!(stage.kids().await, HELD);
    assert_eq!(stage.metric("upstream_requests_total").await, 1.0);
    stage.origin.resume();
    stage.origin.set(JWKS, Reply::json(set(&["new"])));
    stage.refresh().await.unwrap();
    assert_eq!(stage.kids().await, ["new"]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_takes_is_given_up_after_two_seconds() {
    let hole = BlackHole::start();
    let stage = Stage::new();
    let mut registration = registration(hole.url(JWKS).as_str());
    registration.retry_policy.max_retries = 0;
    stage.register(registration).await;
    // Nothing ever arrives here, so the paused clock jumps from one deadline to the next: the attempt's is
    // 10 s away.
    let lookup = stage.registry.resolve("acme", "main", None);
    let error = tokio::time::timeout(Duration::from_millis(2100), lookup).await.unwrap().unwrap_err();
    assert_eq!(reason(&error), "timeout", "{error}");
    assert!(error.to_string().contains("no connection"), "{error}");
    assert_eq!(stage.metric("upstream_requests_total").await, 0.0);
}

#[tokio::test]
async fn the_deadline_ends_a_flight_whatever_retries_are_left() {
    let stage = Stage::new();
    let mut registration = stage.registration();
    registration.retry_policy.max_retries = 1000;
    registration.retry_policy.attempt_timeout = Duration::from_millis(200);
    registration.retry_policy.deadline = Duration::from_millis(300);
    stage.build_client().await;
    stage.register(registration).await;
    stage.hold().await;
    stage.origin.set(JWKS, Reply::hang());
    let error = stage.refresh().await.unwrap_err();
    assert_eq!(reason(&error), "timeout", "{error}");
    // The second attempt got what the first had left; on a slow machine it got nothing.
    assert!((2..=3).contains(&stage.origin.hits(JWKS)), "{}", stage.origin.hits(JWKS));
    assert_eq!(stage.kids().await, HELD);
}

#[tokio::test]
async fn requests_of_an_attempt_that_was_given_up_are_counted() {
    let stage = Stage::new();
    let mut registration = stage.registration();
    registration.retry_policy.max_retries = 0;
    registration.retry_policy.attempt_timeout = Duration::from_millis(500);
    stage.build_client().await;
    stage.register(registration).await;
    stage.origin.set(JWKS, Reply::redirect(302, "/slow"));
    stage.origin.set("/slow", Reply::hang());
    assert_eq!(reason(&stage.resolve().await.unwrap_err()), "timeout");
    assert_eq!((stage.origin.hits(JWKS), stage.origin.hits("/slow")), (1, 1));
    assert_eq!(stage.metric("upstream_requests_total").await, 2.0);
}

/// It waits for an address that never comes when the other's connection becomes free, and goes by that one.
#[tokio::test]
async fn a_request_that_took_over_an_idle_connection_while_connecting_is_counted() {
    const NAME: &str = "keys.example";
    let names = Arc::new(Names::default());
    names.set(NAME, [found(&["127.0.0.1"]), Lookup::Silence, Lookup::Silence]);
    let resolver = names.clone();
    let stage = Stage::with(|builder| builder.with_resolver(resolver));
    stage.build_client().await;
    for (provider, path) in [("other", "/other"), (PROVIDER, JWKS)] {
        let mut registration = stage.registration();
        registration.provider_id = provider.into();
        registration.jwks_url.set_host(Some(NAME)).unwrap();
        registration.jwks_url.set_path(path);
        registration.retry_policy.max_retries = 0;
        registration.retry_policy.attempt_timeout = Duration::from_secs(1);
        stage.register(registration).await;
    }
    stage.origin.set("/other", Reply::json(set(&HELD)));
    stage.origin.set(JWKS, Reply::hang());
    let gate = stage.origin.hold("/other");
    let lookup = |provider: &'static str| {
        let registry = stage.registry.clone();
        tokio::spawn(async move { registry.resolve(TENANT, provider, None).await })
    };
    let other = lookup("other");
    stage.origin.wait_for_hits("/other", 1).await;
    let waiting = lookup(PROVIDER);
    while names.left(NAME) > 1 {
        tokio::task::yield_now().await;
    }
    gate.release();
    soon(other).await.unwrap().unwrap();
    assert_eq!(reason(&soon(waiting).await.unwrap().unwrap_err()), "timeout");
    assert!(stage.origin.requests(JWKS)[0].reused);
    assert_eq!(stage.metric("upstream_requests_total").await, 1.0);
}

#[tokio::test]
async fn retry_after_is_waited_for_inside_a_flight_only_if_it_has_the_time() {
    let stage = Stage::new();
    stage.register(stage.registration()).await;
    stage.origin.set(JWKS, Reply::status(429).header("Retry-After", 120));
    let error = stage.resolve().await.unwrap_err();
    assert_eq!((reason(&error), error.attempt()), ("status", Some(1)), "{error}");
    // Until then, nobody asks again.
    stage.origin.set(JWKS, Reply::json(set(&["new"])));
    stage.clock.advance(Duration::from_secs(119));
    assert!(stage.resolve().await.is_err());
    assert_eq!(stage.origin.hits(JWKS), 1);
    stage.clock.advance(Duration::from_secs(1));
    assert_eq!(stage.kids().await, ["new"]);
}

/// A set held over a connection that is idle now.
async fn hold_and_keep_the_connection() -> Stage {
    let stage = Stage::new();
    let mut registration = stage.registration();
    registration.retry_policy.max_retries = 0;
    stage.register(registration).await;
    stage.origin.push(JWKS, Reply::json(set(&HELD)));
    stage.resolve().await.unwrap();
    // The connection goes back to the pool in a task of its own, which is ready by now.
    settle().await;
    stage
}

#[tokio::test]
async fn a_request_lost_on_a_reused_connection_is_sent_once_more_on_a_new_one() {
    let stage = hold_and_keep_the_connection().await;
    stage.origin.set(JWKS, Reply::json(set(&["new"])).lost_when_reused());
    stage.refresh().await.unwrap();
    assert_eq!(stage.kids().await, ["new"]);
    let requests = stage.origin.requests(JWKS);
    assert_eq!(requests.iter().map(|request| request.reused).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(stage.metric("upstream_requests_total").await, 3.0);
}

#[tokio::test]
async fn a_request_lost_on_a_new_connection_is_an_attempt() {
    for reply in [Reply::reset_before_headers(), Reply::close_before_headers()] {
        let stage = hold_and_keep_the_connection().await;
        stage.origin.set(JWKS, reply);
        let error = stage.refresh().await.unwrap_err();
        assert_eq!((reason(&error), error.attempt()), ("reset", Some(1)), "{error}");
        // Lost on the reused one, sent once more, lost again, and no retry.
        assert_eq!(stage.origin.hits(JWKS), 3);
        assert_eq!(stage.kids().await, HELD);
    }
}

#[tokio::test]
async fn a_request_that_was_answered_is_not_sent_once_more() {
    let garbage = Reply::raw("HTTP/9.9 what\r\n\r\n");
    for (reply, expected) in [(garbage, "protocol"), (Reply::json(set(&["new"])).truncate_at(9), "body")] {
        let stage = hold_and_keep_the_connection().await;
        stage.origin.set(JWKS, reply);
        let error = stage.refresh().await.unwrap_err();
        assert_eq!(reason(&error), expected, "{error}");
        let requests = stage.origin.requests(JWKS);
        assert_eq!(requests.iter().map(|request| request.reused).collect::<Vec<_>>(), [false, true]);
    }
}

/// A cache on its own over somebody else's client, and what it was asked.
async fn with_client(
    origin: &Origin,
    change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    pins: Vec<SpkiFingerprint>,
) -> (CacheManager, jwks_cache::Result<usize>) {
    let mut registration = registration(origin.url(JWKS).as_str());
    registration.pinned_spki = pins;
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
    let client = change(builder).build().unwrap();
    let cache = CacheManager::with_client(registration, client);
    let keys = soon(cache.resolve(None)).await.map(|set| set.keys.len());
    (cache, keys)
}

#[tokio::test]
async fn a_client_that_was_handed_in_keeps_its_place() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let origin = Origin::start();
    origin.set(JWKS, Reply::json(set(&HELD)).gzip());
    origin.set("/elsewhere", Reply::json(set(&HELD)));

    let (_, inflated_by_us) = with_client(&origin, |builder| builder.no_gzip(), Vec::new()).await;
    assert_eq!(inflated_by_us.unwrap(), 2);
    let (_, inflated_by_it) = with_client(&origin, |builder| builder.gzip(true), Vec::new()).await;
    assert_eq!(inflated_by_it.unwrap(), 2);

    origin.clear_record();
    let pin = SpkiFingerprint::from_b64(&"A".repeat(43)).unwrap();
    let (_, pinned) = with_client(&origin, |builder| builder, vec![pin]).await;
    assert!(matches!(&pinned, Err(Error::Security(why)) if why.contains("pinned_spki")), "{pinned:?}");
    assert_eq!(origin.total(), 0);

    origin.set(JWKS, Reply::redirect(302, "/elsewhere"));
    let (_, ours) = with_client(&origin, |builder| builder, Vec::new()).await;
    assert_eq!(ours.unwrap(), 2);
    let follows = |builder: reqwest::ClientBuilder| builder.redirect(reqwest::redirect::Policy::default());
    let (cache, theirs) = with_client(&origin, follows, Vec::new()).await;
    assert!(matches!(&theirs, Err(Error::Security(why)) if why.contains("another URL")), "{theirs:?}");
    assert!(matches!(cache.snapshot().await.state, CacheState::Empty));
}

#[tokio::test]
async fn what_a_client_inflates_stays_within_the_bound() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let origin = Origin::start();
    origin.set(JWKS, Reply::json(" ".repeat(8 << 20)).gzip());
    for inflates in [false, true] {
        let (_, keys) = with_client(&origin, |builder| builder.gzip(inflates), Vec::new()).await;
        assert_eq!(reason(&keys.unwrap_err()), "too_large");
    }
}
