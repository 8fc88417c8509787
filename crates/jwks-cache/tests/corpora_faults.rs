//! Every fault that the shared corpora list for the way to a provider, on real sockets: what happens, and what
//! is seen of it. The list is printed, a verdict a row.
//!
//! The scenarios are here and need no corpora; these only say that none is missing.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "../../jwks-cache-core/tests/corpora/mod.rs"]
mod corpora;
mod stage;

use std::future::Future;
use std::io::{Read, Write};
use std::pin::Pin;
use std::sync::Arc;

use corpora::corpora;
use jwks_cache::{IdentityProviderRegistration, Material, PrivateNetworks, What};
use jwks_cache_testkit::tls::{Authority, Certificate, TlsOrigin, TlsServer, hello_of_tls11};
use jwks_cache_testkit::{BlackHole, Origin, Reply};
use serde_json::Value;
use stage::names::{Lookup, Names, found};
use stage::peer::{
    FLOODS, GOAWAY, Peer, RST_STREAM, answer, begin_http2, drain, frame, next_request, read_head,
};
use stage::served::{HELD, JWKS, Stage, reason, registration, set};
use stage::{millis, secs, settle};

/// What is done about a row.
enum How {
    /// It happens here; what was seen of it.
    Here(fn() -> Seen),
    /// It happens in another test.
    In(&'static str),
}

type Seen = Pin<Box<dyn Future<Output = String>>>;

/// A scenario as a row has it.
macro_rules! here {
    ($scenario:expr) => {
        How::Here(|| Box::pin($scenario))
    };
}

fn rows() -> Vec<(&'static str, How)> {
    use How::In;
    vec![
        ("tcp-refused", here!(refused())),
        ("tcp-blackhole", here!(black_hole())),
        ("tcp-accept-no-answer", here!(costs_nothing("timeout", 3, |_| Reply::hang()))),
        ("tcp-rst-before-headers", here!(reset_before_headers())),
        ("tcp-rst-mid-body", here!(costs_nothing("body", 3, |good| good.reset_mid_body()))),
        ("slowloris-headers", here!(costs_nothing("timeout", 3, |good| good.slow_headers(1, secs(1))))),
        ("slowloris-body", here!(costs_nothing("timeout", 3, |good| good.slow_body(1, secs(1))))),
        ("infinite-body", here!(costs_nothing("too_large", 1, |good| good.endless()))),
        ("cl-too-long", here!(costs_nothing("body", 3, |good| good.content_length(9_999).close_after()))),
        ("cl-too-short", here!(length_too_short())),
        ("cl-and-te", here!(is_taken(|_| Reply::raw(two_framings())))),
        (
            "cl-duplicate-differ",
            here!(costs_nothing("protocol", 1, |good| good.header("Content-Length", 7).close_after())),
        ),
        ("chunk-size-garbage", here!(costs_nothing("protocol", 1, |_| chunked("zz\r\n")))),
        ("chunk-truncated", here!(costs_nothing("body", 3, |_| chunked(&one_chunk())))),
        (
            "no-cl-close-delimited",
            here!(costs_nothing("not_json", 1, |good| good.close_delimited().truncate_at(40))),
        ),
        ("http09", here!(costs_nothing("protocol", 1, |_| Reply::raw(set(&["new"]))))),
        ("gzip-bomb", here!(costs_nothing("too_large", 1, |_| Reply::json(" ".repeat(64 << 20)).gzip()))),
        // Our requests always offer gzip; so this is an answer that carries it.
        ("gzip-unrequested", here!(is_taken(|good| good.gzip()))),
        ("encoding-unknown", here!(unknown_encodings())),
        (
            "plain-labelled-gzip",
            here!(costs_nothing("encoding", 1, |good| good.header("Content-Encoding", "gzip"))),
        ),
        ("status-204", here!(costs_nothing("status", 1, |_| Reply::status(204)))),
        ("status-206", here!(costs_nothing("status", 1, |_| Reply::status(206).body(set(&["new"]))))),
        (
            "status-200-html",
            here!(costs_nothing("not_json", 1, |_| Reply::status(200).body("<!doctype html><p>Sign in"))),
        ),
        ("status-301-same-host", here!(same_host())),
        ("redirect-loop", here!(costs_nothing("security", 4, |_| Reply::redirect(302, JWKS)))),
        ("redirect-chain-20", here!(chain_of_20())),
        ("redirect-downgrade", here!(downgrade())),
        ("redirect-private", here!(to_metadata())),
        ("redirect-other-host", here!(other_host())),
        (
            "redirect-file",
            here!(costs_nothing("security", 1, |_| Reply::redirect(302, "file:///etc/passwd"))),
        ),
        ("status-401-403-404-410", here!(permanent_looking())),
        ("status-429-retry-after", here!(retry_after())),
        ("status-500-503", here!(server_errors())),
        ("interim-103", here!(is_taken(|good| good.interim(103)))),
        ("tls-expired", here!(shown(|authority| authority.expired_server(&["127.0.0.1"])))),
        ("tls-wrong-host", here!(shown(|authority| authority.server(&["keys.example", "127.0.0.2"])))),
        ("tls-self-signed", here!(unknown_authority())),
        ("tls-1.0-only", here!(old_protocols())),
        ("tls-handshake-hang", here!(handshake_hangs())),
        ("tls-mid-close", here!(no_close_notify())),
        ("h2-goaway", here!(goaway())),
        ("h2-rst-stream", here!(stream_reset())),
        ("h2-settings-flood / continuation-flood / rapid-reset", here!(floods())),
        ("dns-nxdomain", here!(no_such_name())),
        ("dns-timeout", here!(silent_resolver())),
        ("dns-rebind", here!(moved("127.0.0.2"))),
        ("dns-mixed", here!(mixed())),
        ("dns-ipv4-mapped", here!(mapped())),
        ("ip-literal-url", here!(literals(&["[::1]"]))),
        ("flap-two-backends", In("key_sets.rs: a_key_survives_a_flapping_set_and_goes_in_the_end")),
        ("empty-then-full", In("field_reports.rs: an_empty_document_never_replaces_good_keys")),
        ("old-document", In("field_reports.rs: the_refetch_for_a_new_kid_gets_past_a_cdn_with_the_old_set")),
        (
            "clock-jump-forward",
            In("standing.rs: a_wall_that_is_set_moves_neither_standing_nor_the_due_refresh"),
        ),
        ("clock-jump-back", In("standing.rs: a_wall_that_is_set_moves_neither_standing_nor_the_due_refresh")),
        ("suspend-6h", In("standing.rs: after_a_suspension_nothing_is_served_that_outlived_its_window")),
        ("redis-down", In("../../jwks-cache-acceptance/tests/stores/main.rs: down")),
        ("redis-slow", In("../../jwks-cache-acceptance/tests/stores/main.rs: slow")),
        ("redis-partition", In("../../jwks-cache-acceptance/tests/stores/main.rs: partition")),
        ("redis-evicted", In("../../jwks-cache-acceptance/tests/stores/main.rs: evicted")),
        ("redis-flushall", In("../../jwks-cache-acceptance/tests/stores/main.rs: flushall")),
        ("redis-failover-old", In("../../jwks-cache-acceptance/tests/stores/main.rs: failover_old")),
        ("redis-poisoned", In("../../jwks-cache-acceptance/tests/stores/main.rs: poisoned")),
        ("redis-cross-key-replay", In("../../jwks-cache-acceptance/tests/stores/main.rs: cross_key_replay")),
        ("redis-wrongtype", In("../../jwks-cache-acceptance/tests/stores/main.rs: wrongtype")),
        ("redis-huge", In("../../jwks-cache-acceptance/tests/stores/main.rs: huge")),
        ("redis-readonly", In("../../jwks-cache-acceptance/tests/stores/main.rs: readonly")),
        ("redis-proto-garbage", In("../../jwks-cache-acceptance/tests/stores/main.rs: garbage")),
        ("kill9-during-snapshot", In("kills.rs: two_hundred_kills_tear_and_lose_nothing")),
        ("disk-full", In("../src/store/file.rs: a_full_disk_refuses_and_keeps_what_was_there")),
        (
            "snapshot-bitflip",
            In("../src/store/file.rs: whatever_bit_is_flipped_or_part_is_missing_the_file_is_set_aside"),
        ),
    ]
}

#[test]
fn every_fault_behaves_as_its_row_says() {
    let (mut here, mut elsewhere) = (0, 0);
    for (id, how) in rows() {
        let (count, seen) = match how {
            How::Here(scenario) => {
                // A runtime each: nothing is left over from the row before.
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                (&mut here, runtime.block_on(scenario()))
            }
            How::In(test) => (&mut elsewhere, format!("in {test}")),
        };
        *count += 1;
        println!("{id:24} {seen}");
    }
    println!("{here} seen here, {elsewhere} in other tests");
}

#[test]
fn no_row_of_the_corpora_is_missing() {
    let Some(folder) = corpora() else { return };
    let text = std::fs::read_to_string(folder.join("http_faults.json")).unwrap();
    let listed: Vec<Value> = serde_json::from_str(&text).unwrap();
    let rows = rows();
    for row in &listed {
        let id = row["id"].as_str().unwrap();
        assert!(rows.iter().any(|(known, _)| id == *known), "{id} has no scenario: {row}");
    }
    assert_eq!(listed.len(), rows.len());
}

#[test]
fn a_test_that_a_row_names_exists() {
    for (id, how) in rows() {
        let How::In(place) = how else { continue };
        let (file, name) = place.split_once(": ").unwrap();
        let path = format!("{}/tests/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(&format!("fn {name}(")), "{id}: {place}");
    }
}

/// A stage that holds a good set, over a connection that nobody uses again.
async fn holding(change: impl FnOnce(&mut IdentityProviderRegistration)) -> Stage {
    let stage = Stage::new();
    // Before attempts that have little time.
    stage.build_client().await;
    let mut registration = stage.registration();
    change(&mut registration);
    stage.register(registration).await;
    stage.hold().await;
    stage
}

/// The stage's origin goes wrong as `make` makes of a good reply: the flight fails for `reason` after so many
/// requests, and the held set stays.
async fn costs_nothing(reason: &'static str, requests: usize, make: fn(Reply) -> Reply) -> String {
    let short = |it: &mut IdentityProviderRegistration| {
        // Only these wait for the deadline of an attempt; the others must not be hurried.
        if reason == "timeout" {
            it.retry_policy.attempt_timeout = millis(300);
        }
    };
    let stage = holding(short).await;
    stage.origin.set(JWKS, make(Reply::json(set(&["new"]))));
    keeps_the_set(&stage, reason, requests).await
}

/// The same where every request was this origin's.
async fn keeps_the_set(stage: &Stage, expected: &str, requests: usize) -> String {
    keeps_the_set_beyond(stage, expected, requests, 0).await
}

/// A flight fails for `reason` after so many requests here and beyond. The held set stays up to its stale limit, the failure is
/// counted by its reason, and within the backoff nobody asks again.
async fn keeps_the_set_beyond(stage: &Stage, expected: &str, requests: usize, beyond: usize) -> String {
    let (hits, sent) = (stage.origin.total(), stage.metric("upstream_requests_total").await);
    let mut events = stage.registry.subscribe();
    let error = stage.refresh().await.unwrap_err();
    assert_eq!(reason(&error), expected, "{error}");
    let all = requests + beyond;
    assert_eq!(stage.metric("upstream_requests_total").await - sent, all as f64, "{error}");
    assert_eq!(stage.origin.total() - hits, requests, "{error}");
    assert_eq!(stage.kids().await, HELD);
    assert!(stage.is_usable("held-1").await);
    let failed = events.try_next().unwrap();
    let What::RefreshFailed { reason: told, failures: 1 } = failed.what else { panic!("{failed:?}") };
    assert!(told == expected || ["policy", "address"].contains(&told), "{told}");

    // Expired: the set is served, one flight of one attempt is started, and then none within the backoff.
    stage.clock.advance(secs(3601));
    assert_eq!(stage.kids().await, HELD);
    stage::landed(&stage.registry).await;
    let after = stage.metric("upstream_requests_total").await;
    for _ in 0..10 {
        assert_eq!(stage.kids().await, HELD);
    }
    settle().await;
    assert_eq!(stage.metric("upstream_requests_total").await, after);
    assert_eq!(stage.metric("refresh_errors_total").await, 2.0);
    // Past the stale limit it is gone.
    stage.clock.advance(secs(3600));
    stage.origin.pause();
    assert!(stage.resolve().await.is_err());
    let text = error.to_string();
    let why = text.split_once(" failed at attempt ").map_or(&*text, |(_, why)| why);
    format!("the set stays to its stale limit; {all} requests, {expected} at attempt {why}")
}

/// The reply counts as good.
async fn is_taken(make: fn(Reply) -> Reply) -> String {
    let stage = holding(|_| ()).await;
    stage.origin.set(JWKS, make(Reply::json(set(&["new"]))));
    stage.refresh().await.unwrap();
    assert_eq!(stage.kids().await, ["new"]);
    "the new set is adopted".to_owned()
}

async fn refused() -> String {
    let stage = holding(|_| ()).await;
    stage.origin.pause();
    keeps_the_set(&stage, "connect", 0).await
}

async fn black_hole() -> String {
    let hole = BlackHole::start();
    let stage = holding(|it| it.retry_policy.max_retries = 0).await;
    stage.origin.set(JWKS, Reply::redirect(302, hole.url(JWKS)));
    let seen = keeps_the_set(&stage, "timeout", 1).await;
    // The attempt had 10 s: it was the connect timeout that ended it.
    assert!(seen.contains("no connection was made in time"), "{seen}");
    seen
}

async fn reset_before_headers() -> String {
    let stage = Stage::new();
    let mut registration = stage.registration();
    registration.retry_policy.max_retries = 0;
    stage.register(registration).await;
    stage.origin.push(JWKS, Reply::json(set(&HELD)).header("Cache-Control", "max-age=3600"));
    stage.resolve().await.unwrap();
    // The connection is idle now, and is taken again.
    settle().await;
    stage.origin.set(JWKS, Reply::reset_before_headers());
    let seen = keeps_the_set(&stage, "reset", 2).await;
    let requests = stage.origin.requests(JWKS);
    let reused: Vec<_> = requests.iter().map(|request| request.reused).collect();
    assert_eq!(reused[..3], [false, true, false]);
    format!("{seen}; the second on a fresh connection")
}

async fn length_too_short() -> String {
    let stage = holding(|_| ()).await;
    let body = set(&["new"]);
    stage.origin.set(JWKS, Reply::json(format!("{body}garbage")).content_length(body.len() as u64));
    stage.refresh().await.unwrap();
    assert_eq!(stage.kids().await, ["new"]);
    stage.refresh().await.unwrap();
    let requests = stage.origin.requests(JWKS);
    assert!(requests.iter().all(|request| !request.reused));
    "the length counts, and the connection is not used again".to_owned()
}

fn one_chunk() -> String {
    let body = set(&["new"]);
    format!("{:x}\r\n{body}\r\n", body.len())
}

fn chunked(body: &str) -> Reply {
    Reply::raw(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
}

fn two_framings() -> String {
    let body = one_chunk();
    format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n")
}

async fn unknown_encodings() -> String {
    let mut seen = String::new();
    for encoding in ["zstd", "br", "foo"] {
        let stage = holding(|_| ()).await;
        stage.origin.set(JWKS, Reply::json(set(&["new"])).header("Content-Encoding", encoding));
        seen = keeps_the_set(&stage, "encoding", 1).await;
    }
    seen
}

async fn same_host() -> String {
    let stage = holding(|_| ()).await;
    stage.origin.set(JWKS, Reply::redirect(301, "/2"));
    stage.origin.set("/2", Reply::redirect(308, "/3"));
    stage.origin.set("/3", Reply::redirect(307, "/4"));
    stage.origin.set("/4", Reply::json(set(&["new"])));
    stage.refresh().await.unwrap();
    assert_eq!(stage.kids().await, ["new"]);
    "three hops are followed".to_owned()
}

async fn chain_of_20() -> String {
    let stage = holding(|_| ()).await;
    stage.origin.set(JWKS, Reply::redirect(302, "/hop/1"));
    for hop in 1..=20 {
        stage.origin.set(&format!("/hop/{hop}"), Reply::redirect(302, format!("/hop/{}", hop + 1)));
    }
    keeps_the_set(&stage, "security", 4).await
}

async fn other_host() -> String {
    let other = Origin::start();
    other.set("/real", Reply::json(set(&["there"])));
    let there = format!("http://localhost:{}/real", other.addr().port());
    let stage = holding(|_| ()).await;
    stage.origin.set(JWKS, Reply::redirect(302, &there));
    let seen = keeps_the_set(&stage, "security", 1).await;
    assert_eq!(other.connections(), 0);

    let listed = |it: &mut IdentityProviderRegistration| {
        it.allowed_domains = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    };
    let stage = holding(listed).await;
    stage.origin.set(JWKS, Reply::redirect(302, &there));
    stage.refresh().await.unwrap();
    assert_eq!(stage.kids().await, ["there"]);
    format!("{seen}; followed when the list holds it")
}

async fn permanent_looking() -> String {
    let mut seen = String::new();
    for status in [401, 403, 404, 410] {
        let stage = holding(|_| ()).await;
        stage.origin.set(JWKS, Reply::status(status).body("<html>no</html>"));
        seen = keeps_the_set(&stage, "status", 1).await;
    }
    seen
}

async fn retry_after() -> String {
    let stage = holding(|it| it.retry_policy.max_retries = 0).await;
    stage.origin.set(JWKS, Reply::status(429).header("Retry-After", 7));
    let expired = secs(3601);
    stage.clock.advance(expired);
    assert_eq!(stage.kids().await, HELD);
    stage::landed(&stage.registry).await;
    let asked = stage.origin.hits(JWKS);
    stage.origin.set(JWKS, Reply::json(set(&["new"])));
    stage.clock.advance(millis(6_900));
    for _ in 0..10 {
        assert_eq!(stage.kids().await, HELD);
    }
    settle().await;
    assert_eq!(stage.origin.hits(JWKS), asked);
    stage.clock.advance(millis(100));
    stage.kids().await;
    stage::landed(&stage.registry).await;
    assert_eq!(stage.origin.hits(JWKS), asked + 1);
    assert_eq!(stage.kids().await, ["new"]);
    "no request before 7 s".to_owned()
}

async fn server_errors() -> String {
    let mut seen = String::new();
    for status in [500, 502, 503, 504] {
        let stage = holding(|_| ()).await;
        stage.origin.set(JWKS, Reply::status(status));
        seen = keeps_the_set(&stage, "status", 3).await;
    }
    seen
}

async fn to_metadata() -> String {
    let listed = |it: &mut IdentityProviderRegistration| {
        it.allowed_domains = vec!["127.0.0.1".to_owned(), "169.254.169.254".to_owned()];
    };
    let stage = holding(listed).await;
    stage.origin.set(JWKS, Reply::redirect(302, "http://169.254.169.254/"));
    let seen = keeps_the_set(&stage, "security", 1).await;
    assert_eq!(stage.metric("refused_addresses_total").await, 2.0);
    format!("{seen}; counted as a refused address")
}

/// The origin sends us on to `port`, where someone in TLS is to be believed on the word of `authority`.
async fn sent_to(port: u16, authority: &Authority) -> Stage {
    sent_with(port, authority, |_| ()).await
}

async fn sent_with(
    port: u16,
    authority: &Authority,
    change: impl FnOnce(&mut IdentityProviderRegistration),
) -> Stage {
    let believes = |it: &mut IdentityProviderRegistration| {
        change(it);
        it.tls.ca = Some(Material::inline(authority.pem()));
        it.tls.replace_roots = true;
    };
    let stage = holding(believes).await;
    stage.origin.set(JWKS, Reply::redirect(307, format!("https://127.0.0.1:{port}{JWKS}")));
    stage
}

async fn downgrade() -> String {
    let authority = Authority::new("root");
    let secure = TlsOrigin::start(&TlsServer::new(authority.server(&["127.0.0.1"])));
    let stage = sent_to(secure.addr().port(), &authority).await;
    secure.set(JWKS, Reply::redirect(302, stage.origin.url("/plain")));
    let seen = keeps_the_set_beyond(&stage, "security", 1, 1).await;
    assert_eq!(stage.origin.hits("/plain"), 0);
    seen
}

/// A server shows this certificate: no request reaches it, and nothing falls back to plain http.
async fn shown(certificate: fn(&Authority) -> Certificate) -> String {
    let authority = Authority::new("root");
    let server = TlsOrigin::start(&TlsServer::new(certificate(&authority)));
    server.set(JWKS, Reply::json(set(&["new"])));
    let stage = sent_to(server.addr().port(), &authority).await;
    let seen = keeps_the_set(&stage, "tls", 3).await;
    assert_eq!(server.total(), 0);
    // The same with a good one: it was the certificate.
    server.show(&TlsServer::new(authority.server(&["127.0.0.1"])));
    let stage = sent_to(server.addr().port(), &authority).await;
    stage.refresh().await.unwrap();
    assert_eq!(stage.kids().await, ["new"]);
    seen
}

async fn unknown_authority() -> String {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = TlsOrigin::start(&TlsServer::new(theirs.server(&["127.0.0.1"])));
    server.set(JWKS, Reply::json(set(&["new"])));
    let stage = sent_to(server.addr().port(), &ours).await;
    let seen = keeps_the_set(&stage, "tls", 3).await;
    let stage = sent_to(server.addr().port(), &theirs).await;
    stage.refresh().await.unwrap();
    format!("{seen}; taken when its CA is set")
}

async fn old_protocols() -> String {
    let mut seen = String::new();
    for minor in [1, 2] {
        let mut hello = hello_of_tls11();
        (hello[2], hello[10]) = (minor, minor);
        let server = Peer::start(move |mut stream, _| {
            let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(&hello));
            drain(&mut stream);
        });
        let stage = sent_to(server.port, &Authority::new("root")).await;
        seen = keeps_the_set(&stage, "tls", 3).await;
    }
    seen
}

async fn handshake_hangs() -> String {
    let server = Peer::start(|mut stream, _| drain(&mut stream));
    let short = |it: &mut IdentityProviderRegistration| it.retry_policy.attempt_timeout = millis(300);
    let stage = sent_with(server.port, &Authority::new("root"), short).await;
    let seen = keeps_the_set(&stage, "timeout", 3).await;
    assert!(server.connections() >= 3);
    seen
}

async fn no_close_notify() -> String {
    let body = set(&["new"]);
    let head = |rest: String| format!("HTTP/1.1 200 OK\r\n{rest}\r\n\r\n{body}");
    let by_length = head(format!("Content-Length: {}", body.len()));
    let by_close = head("Connection: close".to_owned());
    let mut seen = String::new();
    for (answer, whole) in [(by_length, true), (by_close, false)] {
        let authority = Authority::new("root");
        let server = Peer::start_tls(&authority, "http/1.1", move |stream, _| {
            read_head(stream)?;
            stream.write_all(answer.as_bytes())?;
            stream.flush()
        });
        let stage = sent_to(server.port, &authority).await;
        if whole {
            stage.refresh().await.unwrap();
            assert_eq!(stage.kids().await, ["new"]);
        } else {
            seen = keeps_the_set_beyond(&stage, "body", 3, 3).await;
        }
    }
    format!("complete by its length: adopted; else {seen}")
}

async fn goaway() -> String {
    let authority = Authority::new("root");
    // Every connection answers once, and has gone away when it is used again.
    let server = Peer::start_tls(&authority, "h2", |stream, number| {
        begin_http2(stream)?;
        let first = next_request(stream)?;
        answer(stream, first, &set(&[if number == 0 { "first" } else { "second" }]))?;
        next_request(stream)?;
        let [last, no_error] = [first, 0].map(u32::to_be_bytes);
        stream.write_all(&frame(GOAWAY, 0, 0, &[last, no_error].concat()))?;
        stream.flush()?;
        drain(stream);
        Ok(())
    });
    let stage = sent_with(server.port, &authority, |it| it.retry_policy.max_retries = 0).await;
    stage.refresh().await.unwrap();
    assert_eq!(stage.kids().await, ["first"]);
    settle().await;
    let before = stage.metric("upstream_requests_total").await;
    stage.refresh().await.unwrap();
    assert_eq!((stage.kids().await, server.connections()), (vec!["second".to_owned()], 2));
    // The redirect, the lost one, the one that was sent once more.
    assert_eq!(stage.metric("upstream_requests_total").await - before, 3.0);
    "sent once more at once on a new connection, and counted".to_owned()
}

async fn stream_reset() -> String {
    let authority = Authority::new("root");
    let server = Peer::start_tls(&authority, "h2", |stream, _| {
        begin_http2(stream)?;
        loop {
            let id = next_request(stream)?;
            // INTERNAL_ERROR (RFC 9113 §7)
            stream.write_all(&frame(RST_STREAM, 0, id, &2_u32.to_be_bytes()))?;
            stream.flush()?;
        }
    });
    let stage = sent_with(server.port, &authority, |it| it.retry_policy.max_retries = 0).await;
    keeps_the_set_beyond(&stage, "reset", 1, 1).await
}

async fn floods() -> String {
    let mut seen = Vec::new();
    for (name, expected, flood) in FLOODS {
        let authority = Authority::new("root");
        let server = Peer::start_tls(&authority, "h2", flood);
        let short = |it: &mut IdentityProviderRegistration| {
            it.retry_policy.max_retries = 0;
            it.retry_policy.attempt_timeout = millis(1000);
        };
        let stage = sent_with(server.port, &authority, short).await;
        let error = stage.refresh().await.unwrap_err();
        assert_eq!(
            (reason(&error), stage.kids().await),
            (expected, HELD.map(str::to_owned).to_vec()),
            "{name}"
        );
        let text = error.to_string();
        seen.push(format!("{name}: {expected} ({})", text.rsplit(": ").next().unwrap_or_default()));
        server.was_left().await;
    }
    format!("{}; memory in memory.rs", seen.join(", "))
}

const NAME: &str = "keys.example";

/// A stage that holds a good set from a host name, which then leads elsewhere. Only its first address is allowed,
/// as only a public one would be.
async fn holding_from_a_name(then: Lookup, change: impl FnOnce(&mut IdentityProviderRegistration)) -> Stage {
    let names = Arc::new(Names::default());
    names.set(NAME, [found(&["127.0.0.1"]), then]);
    let stage = Stage::with(|builder| builder.with_resolver(names));
    stage.build_client().await;
    let mut registration = stage.registration();
    registration.jwks_url.set_host(Some(NAME)).unwrap();
    registration.private_networks = PrivateNetworks::DenyExcept(vec!["127.0.0.1".to_owned()]);
    change(&mut registration);
    stage.register(registration).await;
    stage.hold().await;
    stage
}

async fn no_such_name() -> String {
    let stage = holding_from_a_name(Lookup::NoSuchName, |_| ()).await;
    keeps_the_set(&stage, "dns", 0).await
}

async fn silent_resolver() -> String {
    let short = |it: &mut IdentityProviderRegistration| it.retry_policy.attempt_timeout = millis(300);
    let stage = holding_from_a_name(Lookup::Silence, short).await;
    keeps_the_set(&stage, "timeout", 0).await
}

/// A name moves to this address, which is not dialled.
async fn moved(to: &'static str) -> String {
    let stage = holding_from_a_name(found(&[to]), |_| ()).await;
    let seen = keeps_the_set(&stage, "security", 0).await;
    assert!(stage.metric("refused_addresses_total").await >= 2.0);
    seen
}

async fn mixed() -> String {
    let stage = holding_from_a_name(found(&["10.0.0.1", "127.0.0.1"]), |_| ()).await;
    stage.origin.set(JWKS, Reply::json(set(&["new"])));
    stage.refresh().await.unwrap();
    assert_eq!(stage.kids().await, ["new"]);
    "only the allowed address is dialled".to_owned()
}

async fn mapped() -> String {
    for to in ["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "0.0.0.0"] {
        moved(to).await;
    }
    format!(
        "as names: refused; as literals: {}",
        literals(&["2130706433", "0.0.0.0", "[::ffff:a9fe:a9fe]"]).await
    )
}

/// Addresses in URLs are refused before anything is dialled.
async fn literals(hosts: &[&str]) -> String {
    let stage = Stage::new();
    for host in hosts {
        let mut registration = registration(&format!("https://{host}/"));
        registration.private_networks = PrivateNetworks::Deny;
        stage.register(registration).await;
        let error = stage.resolve().await.unwrap_err();
        assert_eq!(reason(&error), "security", "{host}: {error}");
        assert!(error.to_string().contains("private_networks"), "{host}: {error}");
        assert_eq!(stage.metric("upstream_requests_total").await, 0.0, "{host}");
    }
    "refused before anything is dialled".to_owned()
}
