//! What the origin promises, seen through a plain TCP client that sends and reads bytes.

#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use jwks_cache::Clock;
use jwks_cache_testkit::{BlackHole, Gate, ManualClock, Origin, Phase, Reply};

const JWKS: &str = r#"{"keys":[]}"#;
const LONG: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// Nothing more comes, and the connection is open.
    Open,
    Closed,
    Reset,
}

struct Client(TcpStream);

impl Client {
    fn connect(origin: &Origin) -> Self {
        let stream = TcpStream::connect(origin.addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(stream)
    }

    fn ask(&mut self, path: &str, headers: &str) {
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").unwrap();
    }

    /// Reads until what came ends so, or no more comes.
    fn read_to(&mut self, end: &str) -> String {
        let mut got = Vec::new();
        let mut piece = [0; 4_096];
        while !got.ends_with(end.as_bytes()) {
            match self.0.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(read) => got.extend_from_slice(&piece[..read]),
            }
        }
        String::from_utf8_lossy(&got).into_owned()
    }

    #[track_caller]
    fn assert_end(&mut self, want: End) {
        // That nothing comes can only be seen by giving it a moment; what does come has all the time.
        let patience = if want == End::Open { 30 } else { 10_000 };
        self.0.set_read_timeout(Some(Duration::from_millis(patience))).unwrap();
        let end = match self.0.read(&mut [0; 64]).map_err(|error| error.kind()) {
            Ok(0) => End::Closed,
            Ok(_) => panic!("more came than expected"),
            Err(ErrorKind::WouldBlock | ErrorKind::TimedOut) => End::Open,
            Err(ErrorKind::ConnectionReset) => End::Reset,
            Err(kind) => panic!("{kind}"),
        };
        assert_eq!(end, want);
        self.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
}

fn get(origin: &Origin, path: &str) -> String {
    let mut client = Client::connect(origin);
    client.ask(path, "");
    let head = client.read_to("\r\n\r\n");
    head.lines().next().unwrap_or_default().to_owned()
}

/// The reply's bytes hold `parts` in this order, the last at their very end, and then the connection ends so.
#[track_caller]
fn check(reply: Reply, parts: &[&str], end: End) {
    let origin = Origin::start();
    origin.set("/jwks", reply.clone());
    let mut client = Client::connect(&origin);
    client.ask("/jwks", "");
    let got = client.read_to(parts.last().unwrap());
    let mut rest = got.as_str();
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("no {part:?} in {got:?} of {reply:?}"));
        rest = &rest[at + part.len()..];
    }
    assert_eq!(rest, "", "{reply:?}");
    client.assert_end(end);
    assert_eq!(origin.hits("/jwks"), 1);
}

#[test]
fn replies_say_what_they_were_told() {
    let ok = Reply::json(JWKS);
    check(ok.clone(), &["HTTP/1.1 200 OK\r\n", "Content-Length: 11", "\r\n\r\n{\"keys\":[]}"], End::Open);
    check(Reply::status(204), &["HTTP/1.1 204 No Content\r\n", "\r\n\r\n"], End::Open);
    check(
        Reply::status(503).header("Retry-After", 7),
        &["503 Service Unavailable\r\n", "Retry-After: 7\r\n", "Content-Length: 0\r\n\r\n"],
        End::Open,
    );
    check(
        Reply::redirect(302, "file:///etc/passwd"),
        &["HTTP/1.1 302 Found\r\n", "Location: file:///etc/passwd\r\n", "\r\n\r\n"],
        End::Open,
    );
    check(ok.clone().close_after(), &["Connection: close", JWKS], End::Closed);
    check(ok.clone().interim(103), &["HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n", JWKS], End::Open);
    check(
        ok.clone().chunked(),
        &["Transfer-Encoding: chunked\r\n\r\nb\r\n", JWKS, "\r\n0\r\n\r\n"],
        End::Open,
    );
    check(Reply::status(200).chunked(), &["Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], End::Open);
}

#[test]
fn replies_fail_as_they_were_told() {
    let ok = Reply::json(JWKS);
    check(Reply::hang(), &[""], End::Open);
    check(Reply::close_before_headers(), &[""], End::Closed);
    check(Reply::reset_before_headers(), &[""], End::Reset);
    check(ok.clone().reset_mid_body(), &["Content-Length: 11", "\r\n\r\n{\"key"], End::Reset);
    check(ok.clone().truncate_at(4), &["Content-Length: 11", "\r\n\r\n{\"ke"], End::Closed);
    check(ok.clone().stall_at(4), &["Content-Length: 11", "\r\n\r\n{\"ke"], End::Open);
    check(ok.clone().chunked().truncate_at(11), &["\r\nb\r\n{\"keys\":[]}"], End::Closed);
    check(ok.clone().content_length(99).close_after(), &["Content-Length: 99", JWKS], End::Closed);
    check(ok.clone().content_length(2), &["Content-Length: 2", JWKS], End::Open);
    let two = ok.clone().header("Content-Length", 5);
    check(two, &["Content-Length: 5", "Content-Length: 11", JWKS], End::Open);
    let both = ok.clone().header("Transfer-Encoding", "chunked");
    check(both, &["Transfer-Encoding: chunked\r\n", "Content-Length: 11", JWKS], End::Open);
    check(ok.clone().close_delimited(), &["HTTP/1.0 200 OK\r\n", JWKS], End::Closed);
    check(Reply::raw("{}"), &["{}"], End::Closed);
    check(ok.clone().slow_headers(1, LONG), &["H"], End::Open);
    check(ok.clone().slow_body(2, LONG), &["\r\n\r\n{\""], End::Open);
    check(ok.clone().delay(Phase::Headers, LONG), &[""], End::Open);
    check(ok.delay(Phase::Body, LONG), &["Content-Length: 11", "\r\n\r\n"], End::Open);
}

#[test]
fn a_head_request_gets_no_body() {
    let origin = Origin::start();
    origin.set("/", Reply::json(JWKS));
    let mut client = Client::connect(&origin);
    client.0.write_all(b"HEAD / HTTP/1.1\r\n\r\n").unwrap();
    assert!(client.read_to("\r\n\r\n").contains("Content-Length: 11"));
    client.assert_end(End::Open);
}

#[test]
fn slow_replies_arrive_whole() {
    let tick = Duration::from_millis(1);
    let slow = Reply::json(JWKS).slow_headers(40, tick).slow_body(1, tick);
    check(slow.delay(Phase::Headers, tick).delay(Phase::Body, tick), &["HTTP/1.1 200", JWKS], End::Open);
}

#[test]
fn an_endless_reply_goes_on_until_the_client_leaves() {
    let origin = Origin::start();
    origin.set("/", Reply::json(JWKS).endless());
    let mut client = Client::connect(&origin);
    client.ask("/", "");
    let mut megabytes = vec![0; 4 << 20];
    client.0.read_exact(&mut megabytes).unwrap();
    assert!(String::from_utf8_lossy(&megabytes).contains("\r\n\r\nb\r\n{\"keys\":[]}\r\n400\r\n "));
    drop(client);
    assert_eq!(get(&origin, "/other"), "HTTP/1.1 404 Not Found");
}

#[test]
fn a_compressed_body_inflates_to_what_it_was() {
    let origin = Origin::start();
    origin.set("/", Reply::json(JWKS).gzip().close_after());
    let mut client = Client::connect(&origin);
    client.ask("/", "");
    let mut got = Vec::new();
    client.0.read_to_end(&mut got).unwrap();
    let body = got.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert!(String::from_utf8_lossy(&got[..body]).contains("Content-Encoding: gzip\r\n"));
    let mut inflated = String::new();
    flate2::read::GzDecoder::new(&got[body..]).read_to_string(&mut inflated).unwrap();
    assert_eq!(inflated, JWKS);
}

#[test]
fn validators_that_match_get_304() {
    let origin = Origin::start();
    let date = "Thu, 01 Jan 2026 00:00:00 GMT";
    origin.set("/both", Reply::json(JWKS).etag("W/\"a\"").last_modified(date).conditional());
    origin.set("/none", Reply::json(JWKS).conditional());
    origin.set("/deaf", Reply::json(JWKS).etag("\"a\""));
    let status = |path: &str, headers: &str| {
        let mut client = Client::connect(&origin);
        client.ask(path, headers);
        let head = client.read_to("\r\n\r\n");
        head.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    for (path, headers, want) in [
        ("/both", String::new(), 200),
        ("/both", "If-None-Match: \"a\"\r\n".into(), 304),
        ("/both", "if-none-match: \"b\", W/\"a\"\r\n".into(), 304),
        ("/both", "If-None-Match: *\r\n".into(), 304),
        ("/both", format!("If-None-Match: \"b\"\r\nIf-Modified-Since: {date}\r\n"), 200),
        ("/both", format!("If-Modified-Since: {date}\r\n"), 304),
        ("/both", "If-Modified-Since: Fri, 02 Jan 2026 00:00:00 GMT\r\n".into(), 200),
        ("/none", "If-None-Match: *\r\n".into(), 200),
        ("/deaf", "If-None-Match: \"a\"\r\n".into(), 200),
    ] {
        assert_eq!(status(path, &headers), want, "{path} {headers}");
    }
}

#[test]
fn pushed_replies_go_first_and_once() {
    let origin = Origin::start();
    origin.set("/", Reply::status(200));
    origin.push("/", Reply::status(500));
    origin.push("/", Reply::status(502));
    let statuses: Vec<_> = (0..4).map(|_| get(&origin, "/")[9..12].to_owned()).collect();
    assert_eq!(statuses, ["500", "502", "200", "200"]);
    origin.respond_with("/", |request| Reply::status(if request.query.is_some() { 400 } else { 201 }));
    assert_eq!(get(&origin, "/?x"), "HTTP/1.1 400 Bad Request");
    assert_eq!(get(&origin, "/"), "HTTP/1.1 201 Created");
}

#[test]
fn requests_are_recorded_as_they_came() {
    let clock = ManualClock::new();
    let origin = Origin::start_with_clock(Arc::new(clock.clone()));
    origin.set("/a", Reply::status(204));
    let mut client = Client::connect(&origin);
    client.ask("/a?x=1", "ACCEPT:  text/plain \r\n");
    assert!(client.read_to("\r\n\r\n").contains("\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"));
    let start = clock.now();
    clock.advance(Duration::from_secs(7));
    write!(client.0, "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /a HTTP/1.1\r\n\r\n").unwrap();
    assert!(client.read_to("\r\n\r\n").contains("\r\nDate: Thu, 01 Jan 2026 00:00:07 GMT\r\n"));
    client.read_to("\r\n\r\n");
    get(&origin, "/b");

    let seen = origin.requests("/a");
    assert_eq!(seen.iter().map(|request| &*request.method).collect::<Vec<_>>(), ["GET", "POST", "GET"]);
    assert_eq!(seen.iter().map(|request| request.reused).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!((seen[0].query.as_deref(), seen[1].query.as_deref()), (Some("x=1"), None));
    assert_eq!((seen[0].header("Accept"), seen[1].header("accept")), (Some("text/plain"), None));
    assert_eq!(seen[1].at.since(seen[0].at), Duration::from_secs(7));
    assert_eq!(seen[0].at, start);
    assert!(seen.iter().all(|request| request.connection == 0));
    assert_eq!(origin.requests("/b")[0].connection, 1);
    assert_eq!((origin.hits("/a"), origin.total(), origin.connections()), (3, 4, 2));
    origin.clear_record();
    assert_eq!((origin.hits("/a"), origin.total(), origin.connections()), (0, 0, 2));
}

#[test]
fn only_a_reused_connection_loses_its_request() {
    let origin = Origin::start();
    origin.set("/", Reply::status(204).lost_when_reused());
    let mut client = Client::connect(&origin);
    client.ask("/", "");
    assert!(client.read_to("\r\n\r\n").starts_with("HTTP/1.1 204"));
    client.ask("/", "");
    client.assert_end(End::Reset);
    assert_eq!(get(&origin, "/"), "HTTP/1.1 204 No Content");
}

#[test]
fn a_paused_origin_refuses_and_comes_back_on_its_port() {
    let origin = Origin::start();
    origin.set("/", Reply::status(204));
    let mut client = Client::connect(&origin);
    client.ask("/", "");
    client.read_to("\r\n\r\n");
    for _ in 0..2 {
        origin.pause();
        origin.pause();
        client.assert_end(End::Closed);
        assert_eq!(TcpStream::connect(origin.addr()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        origin.resume();
        origin.resume();
        assert_eq!(get(&origin, "/"), "HTTP/1.1 204 No Content");
    }
    let addr = origin.addr();
    drop(origin);
    assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn held_replies_wait_for_their_gate_and_no_other() {
    let origin = Origin::start();
    let own = Gate::new();
    origin.push("/", Reply::status(201).held_by(&own));
    origin.set("/", Reply::status(202));
    let mut first = Client::connect(&origin);
    first.ask("/", "");
    origin.wait_for_hits("/", 1).await;
    assert_eq!(get(&origin, "/"), "HTTP/1.1 202 Accepted");

    let all = origin.hold("/");
    let mut third = Client::connect(&origin);
    third.ask("/", "");
    origin.wait_for_hits("/", 3).await;
    origin.set("/", Reply::status(203));
    third.assert_end(End::Open);
    drop(all);
    assert!(third.read_to("\r\n\r\n").starts_with("HTTP/1.1 202"), "chosen when the request came");
    assert_eq!(get(&origin, "/"), "HTTP/1.1 203 Non Authoritative Information");

    first.assert_end(End::Open);
    own.release();
    assert!(first.read_to("\r\n\r\n").starts_with("HTTP/1.1 201"));
}

#[tokio::test(start_paused = true)]
async fn requests_are_awaited_in_any_runtime() {
    let origin = Origin::start();
    get(&origin, "/a?old");
    let next = origin.next_request("/a");
    origin.clear_record();
    get(&origin, "/b");
    let mut client = Client::connect(&origin);
    client.ask("/a?new", "");
    assert_eq!(next.await.query.as_deref(), Some("new"));
    origin.wait_for_hits("/a", 1).await;
}

#[test]
fn a_panic_in_a_responder_costs_one_connection() {
    let origin = Origin::start();
    origin.respond_with(
        "/",
        |request| if request.serial == 0 { panic!("as scripted") } else { Reply::status(204) },
    );
    assert_eq!(get(&origin, "/"), "");
    assert_eq!(get(&origin, "/"), "HTTP/1.1 204 No Content");
}

#[cfg(target_os = "linux")]
#[test]
fn a_black_hole_neither_accepts_nor_refuses() {
    let hole = BlackHole::start();
    let failed = TcpStream::connect_timeout(&hole.addr(), Duration::from_millis(50)).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::TimedOut);
    assert_eq!(hole.url("/jwks").port(), Some(hole.addr().port()));
}
