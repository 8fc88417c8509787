//! No input panics a flight; and a flight that panics all the same costs one failure, nothing more.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jwks_cache::{Clock, ErrorKind, Fetch, FetchRequest, Fetched, Fetching, Registry, Timing, What};
use jwks_cache_testkit::{ManualClock, Reply};
use stage::served::{HELD, JWKS, Stage, reason, registration, set};
use stage::soon;

/// What a [`Scripted`] fetcher does next.
#[derive(Clone, Debug)]
enum Act {
    /// Panics when it is called.
    PanicAtOnce,
    /// Panics when it is polled.
    PanicLater,
    Answer(HeaderMap, Vec<u8>),
}

#[derive(Debug)]
struct Scripted {
    clock: ManualClock,
    act: Mutex<Act>,
}

impl Scripted {
    fn set(&self, act: Act) {
        *self.act.lock().unwrap() = act;
    }
}

impl Fetch for Scripted {
    fn fetch<'a>(&'a self, _: &'a FetchRequest) -> Fetching<'a> {
        let act = self.act.lock().unwrap().clone();
        assert!(!matches!(act, Act::PanicAtOnce), "meant to panic");
        Box::pin(async move {
            tokio::task::yield_now().await;
            let Act::Answer(headers, body) = act else { panic!("meant to panic") };
            let (now, received_wall) = (self.clock.now(), self.clock.wall());
            let timing = Timing { requested_at: now, received_at: now, received_wall };
            Ok(Fetched { status: StatusCode::OK, headers, body, timing, requests: 1 })
        })
    }
}

/// A stage whose exchanges are scripted; its origin is not asked.
async fn scripted() -> (Stage, Arc<Scripted>) {
    let clock = ManualClock::new();
    let fetcher = Arc::new(Scripted { clock: clock.clone(), act: Mutex::new(answer("")) });
    let mut stage = Stage::new();
    stage.registry = Registry::builder()
        .require_https(false)
        .clock(Arc::new(clock.clone()))
        .fetcher(fetcher.clone())
        .build();
    stage.clock = clock;
    stage.register(registration("http://id.example/jwks")).await;
    (stage, fetcher)
}

fn answer(body: impl Into<Vec<u8>>) -> Act {
    Act::Answer(HeaderMap::new(), body.into())
}

#[tokio::test]
async fn a_flight_that_panics_is_a_failure_for_all_who_wait_and_the_next_one_flies() {
    for act in [Act::PanicAtOnce, Act::PanicLater] {
        let (stage, fetcher) = scripted().await;
        let mut events = stage.registry.subscribe();
        fetcher.set(act);
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let registry = stage.registry.clone();
                tokio::spawn(async move { registry.resolve("acme", "main", None).await })
            })
            .collect();
        for caller in callers {
            let error = soon(caller).await.unwrap().unwrap_err();
            assert_eq!((reason(&error), error.kind()), ("panic", ErrorKind::KeysUnavailable), "{error}");
            assert_eq!((error.provider(), error.attempt()), (Some(("acme", "main")), Some(1)));
        }
        assert_eq!(stage.metric("lost_flights_total").await, 1.0);
        assert_eq!(stage.metric("refresh_errors_total").await, 1.0);
        let told = events.try_next().map(|event| event.what);
        assert!(matches!(told, Some(What::RefreshFailed { reason: "panic", failures: 1 })), "{told:?}");

        // With nothing held, the first failure costs no wait, the second does.
        assert_eq!(reason(&stage.resolve().await.unwrap_err()), "panic");
        assert_eq!(stage.metric("lost_flights_total").await, 2.0);
        fetcher.set(answer(set(&["new"])));
        assert_eq!(reason(&stage.resolve().await.unwrap_err()), "panic");
        stage.clock.advance(Duration::from_secs(10));
        assert_eq!(stage.kids().await, ["new"]);
        let status = stage.registry.provider_status("acme", "main").await.unwrap();
        assert_eq!((status.error_count, status.last_error), (0, None));
    }
}

#[tokio::test]
async fn a_flight_that_panics_loses_no_key() {
    let (stage, fetcher) = scripted().await;
    fetcher.set(answer(set(&HELD)));
    stage.resolve().await.unwrap();
    for lost in 1..=5 {
        fetcher.set(Act::PanicLater);
        assert_eq!(reason(&stage.refresh().await.unwrap_err()), "panic");
        assert_eq!(stage.kids().await, HELD);
        assert_eq!(stage.metric("lost_flights_total").await, f64::from(lost));
    }
    fetcher.set(answer(set(&["new"])));
    stage.refresh().await.unwrap();
    assert_eq!(stage.kids().await, ["new"]);
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// Noise, tokens of a key set in any order, or `good` with some damage.
    fn document(&mut self, good: &str) -> Vec<u8> {
        const TOKENS: [&str; 30] = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"keys\"",
            "\"kty\"",
            "\"RSA\"",
            "\"EC\"",
            "\"OKP\"",
            "\"crv\"",
            "\"P-256\"",
            "\"Ed25519\"",
            "\"n\"",
            "\"e\"",
            "\"AQAB\"",
            "\"x\"",
            "\"y\"",
            "\"d\"",
            "\"kid\"",
            "\"\\ud800\"",
            "\"\\u0000\"",
            "null",
            "true",
            "-0",
            "1e999",
            "18446744073709551616",
            "\"\"",
            "\"====\"",
        ];
        match self.below(4) {
            0 => self.bytes(300),
            1 => {
                let tokens = (0..self.below(60)).map(|_| self.pick(&TOKENS)).collect::<String>();
                format!("{{\"keys\":[{tokens}").into_bytes()
            }
            2 => {
                // The value of some member becomes another token.
                let parts: Vec<_> = good.split(':').collect();
                let at = self.below(parts.len());
                let token = self.pick(&TOKENS);
                parts
                    .iter()
                    .enumerate()
                    .map(|(index, part)| {
                        let rest = part.find(',').map_or("", |comma| &part[comma..]);
                        if index == at { format!("{token}{rest}") } else { (*part).to_owned() }
                    })
                    .collect::<Vec<_>>()
                    .join(":")
                    .into_bytes()
            }
            _ => {
                let mut bytes = good.as_bytes().to_vec();
                for _ in 0..=self.below(4) {
                    let at = self.below(bytes.len());
                    match self.below(4) {
                        0 => bytes.truncate(at),
                        1 => bytes[at] ^= 1 << self.below(8),
                        2 => bytes.insert(at, self.next().to_le_bytes()[0]),
                        _ => drop(bytes.drain(at / 2..at)),
                    }
                    bytes.push(b'}');
                }
                bytes
            }
        }
    }

    fn headers(&mut self) -> HeaderMap {
        const NAMES: [&str; 10] = [
            "cache-control",
            "age",
            "expires",
            "date",
            "etag",
            "last-modified",
            "vary",
            "retry-after",
            "pragma",
            "content-type",
        ];
        const VALUES: [&str; 20] = [
            "max-age=",
            "s-maxage",
            "no-store",
            "no-cache=\"",
            "stale-if-error=",
            "immutable",
            "must-revalidate",
            ",",
            "=",
            "\"",
            "18446744073709551616",
            "-1",
            "4294967296",
            "0",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Fri, 31 Dec 9999 23:59:60 GMT",
            "W/",
            " ",
        ];
        let mut headers = HeaderMap::new();
        for _ in 0..self.below(8) {
            let name = HeaderName::from_static(self.pick(&NAMES));
            let value = match self.below(3) {
                0 => self.bytes(40),
                _ => (0..self.below(6)).map(|_| self.pick(&VALUES)).collect::<String>().into_bytes(),
            };
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(name, value);
            }
        }
        headers
    }
}

#[tokio::test]
async fn no_body_and_no_header_panics_a_flight_or_costs_a_key() {
    let good = set(&HELD);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (stage, fetcher) = scripted().await;
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..4000 {
        if stage.resolve().await.is_err() || stage.kids().await != HELD {
            fetcher.set(answer(good.clone()));
            stage.refresh().await.unwrap();
        }
        let (headers, document) = (numbers.headers(), numbers.document(&good));
        fetcher.set(Act::Answer(headers.clone(), document.clone()));
        match stage.refresh().await {
            Ok(()) => accepted += 1,
            Err(error) => {
                refused += 1;
                assert_ne!(reason(&error), "panic", "round {round}: {headers:?} {}", document.escape_ascii());
                assert_eq!(stage.kids().await, HELD, "round {round}");
            }
        }
        assert!(
            stage.registry.provider_status("acme", "main").await.unwrap().expires_at.is_some(),
            "round {round}"
        );
    }
    println!("{accepted} documents accepted, {refused} refused");
    assert!(accepted > 50 && refused > 50, "{accepted}, {refused}: one side was not tried");
    assert_eq!(stage.metric("lost_flights_total").await, 0.0);
}

#[tokio::test]
async fn no_bytes_on_the_wire_panic_a_flight_or_cost_a_key() {
    let good = set(&HELD);
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let stage = Stage::new();
    let mut registration = stage.registration();
    registration.retry_policy.max_retries = 0;
    stage.register(registration).await;
    stage.hold().await;
    for round in 0..300 {
        let document = numbers.document(&good);
        let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
        for (name, value) in &numbers.headers() {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        match numbers.below(4) {
            0 => bytes.extend(b"Transfer-Encoding: chunked\r\n"),
            1 => bytes.extend(b"Content-Encoding: gzip\r\n"),
            2 => bytes.extend(format!("Content-Length: {}\r\n", numbers.below(700)).bytes()),
            _ => {}
        }
        bytes.extend(b"\r\n");
        bytes.extend(&document);
        for _ in 0..numbers.below(3) {
            let at = numbers.below(bytes.len());
            bytes[at] = numbers.next().to_le_bytes()[0];
        }
        stage.origin.push(JWKS, Reply::raw(bytes.clone()));
        match stage.refresh().await {
            Ok(()) => {
                stage.origin.push(JWKS, Reply::json(&good).close_after());
                stage.refresh().await.unwrap();
            }
            Err(error) => assert_ne!(reason(&error), "panic", "round {round}: {}", bytes.escape_ascii()),
        }
        assert_eq!(stage.kids().await, HELD, "round {round}");
    }
    assert_eq!(stage.metric("lost_flights_total").await, 0.0);
}
