//! A caching proxy around the freshness rules, so that a suite for HTTP caches can ask them questions.
//!
//! The rules decide how long a response is good, how long past that it may be served, how a 304 changes it
//! and what a request is conditional on. What the library does not do is done here in the plainest way:
//! storing fields and an opaque body, handing them on with an `Age`. As in the library, only a complete 200
//! is kept, and a request says nothing that the cache heeds.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, CONNECTION, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{client, server};
use hyper_util::rt::TokioIo;
use jwks_cache::{Clock, SystemClock};
use jwks_cache_core::freshness::{Freshness, FreshnessRules, Stated, StoredHeaders, Timing, assess};
use tokio::net::{TcpListener, TcpStream};

/// The floor and the default would fail half of the suite, if `http_strict` did not put them aside.
const RULES: FreshnessRules = FreshnessRules {
    min_ttl: Duration::from_secs(30),
    max_ttl: Duration::from_secs(86_400),
    default_ttl: Duration::from_secs(300),
    stale_while_error: Duration::from_secs(60),
    http_strict: true,
};

/// Fields about one connection, which RFC 9111 §3.1 keeps out of the store.
const OF_A_CONNECTION: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Fields about the body that is held, which a 304 does not change (RFC 9111 §3.2).
const OF_THE_BODY: &[&str] = &["content-encoding", "content-length", "content-range", "content-md5"];

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = Result<Response<Full<Bytes>>, Failure>;

/// Listens on loopback for as long as the runtime lives, and gives the address.
pub(crate) async fn start(origin: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Arc::new(Proxy { origin, held: Mutex::default() });
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let proxy = Arc::clone(&proxy);
            let answer = service_fn(move |request| {
                let proxy = Arc::clone(&proxy);
                async move { proxy.answer(request).await }
            });
            tokio::spawn(server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer));
        }
    });
    address
}

struct Proxy {
    origin: SocketAddr,
    /// By path and query.
    held: Mutex<HashMap<String, Held>>,
}

/// A stored response.
#[derive(Clone)]
struct Held {
    fields: HeaderMap,
    body: Bytes,
    stored: StoredHeaders,
    timing: Timing,
}

impl Proxy {
    /// An error ends the client's connection without an answer: that is how it sees that the origin is
    /// gone and nothing may stand in.
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, Full::new(body.collect().await?.to_bytes()));
        let key = request.uri().to_string();
        if request.method() != Method::GET || !key.starts_with("/test/") {
            return self.exchange(request).await;
        }
        let held = self.held.lock().unwrap().get(&key).cloned();
        match &held {
            Some(held) if held.age_here() < held.freshness().lifetime => Ok(held.response()),
            _ => self.refresh(key, held, request).await,
        }
    }

    async fn refresh(&self, key: String, held: Option<Held>, mut request: Request<Full<Bytes>>) -> Answer {
        if let Some(held) = &held {
            let ask = held.stored.validators();
            for (name, text) in [(IF_NONE_MATCH, ask.etag), (IF_MODIFIED_SINCE, ask.last_modified)] {
                if let Some(text) = text {
                    request.headers_mut().insert(name, HeaderValue::from_str(&text)?);
                }
            }
        }
        let requested_at = SystemClock.now();
        let response = self.exchange(request).await;
        let timing =
            Timing { requested_at, received_at: SystemClock.now(), received_wall: SystemClock.wall() };
        let keep = |held: Held| {
            let response = held.response();
            self.held.lock().unwrap().insert(key, held);
            Ok(response)
        };
        match (response, held) {
            (Ok(response), _) if response.status() == StatusCode::OK => {
                let (parts, body) = response.into_parts();
                let stored = StoredHeaders::from_response(&parts.headers);
                let body = body.collect().await?.to_bytes();
                keep(Held { fields: storable(&parts.headers), body, stored, timing })
            }
            (Ok(response), Some(held)) if response.status() == StatusCode::NOT_MODIFIED => {
                keep(held.confirmed(response.headers(), timing))
            }
            (Ok(response), Some(held)) if response.status().is_server_error() && held.may_be_stale() => {
                Ok(held.response())
            }
            (Err(_), Some(held)) if held.may_be_stale() => Ok(held.response()),
            (response, _) => response,
        }
    }

    /// One request to the origin, on a connection of its own.
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Answer {
        let socket = TcpStream::connect(self.origin).await?;
        let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = parts.status;
        *response.headers_mut() = storable(&parts.headers);
        Ok(response)
    }
}

impl Held {
    fn freshness(&self) -> Freshness {
        assess(&self.stored, &self.timing, &RULES)
    }

    fn age_here(&self) -> Duration {
        SystemClock.now().since(self.timing.received_at)
    }

    fn may_be_stale(&self) -> bool {
        let Freshness { lifetime, stale_window, .. } = self.freshness();
        self.age_here() < lifetime + stale_window
    }

    /// The stored response, with the age it has by now (RFC 9111 §4, §5.1).
    fn response(&self) -> Response<Full<Bytes>> {
        let age_on_arrival = match self.freshness().stated {
            Stated::MaxAge { age, .. } | Stated::Expires { age, .. } => age,
            _ => Duration::ZERO,
        };
        let mut response = Response::new(Full::new(self.body.clone()));
        *response.headers_mut() = self.fields.clone();
        response.headers_mut().insert(AGE, (age_on_arrival + self.age_here()).as_secs().into());
        response
    }

    fn confirmed(mut self, headers: &HeaderMap, timing: Timing) -> Self {
        self.stored.merge_not_modified(headers);
        let newer = storable(headers);
        for name in newer.keys().filter(|name| !OF_THE_BODY.contains(&name.as_str())) {
            self.fields.remove(name);
            for value in newer.get_all(name) {
                self.fields.append(name, value.clone());
            }
        }
        // Which tag is held is for the rules to say.
        self.fields.remove(ETAG);
        if let Some(tag) = self.stored.etag().and_then(|tag| HeaderValue::from_str(tag).ok()) {
            self.fields.insert(ETAG, tag);
        }
        Self { timing, ..self }
    }
}

/// The fields that may be stored and handed on (RFC 9111 §3.1).
fn storable(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    let listed = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let listed = listed.flat_map(|line| line.split(',')).map(str::trim);
    for name in listed.chain(OF_A_CONNECTION.iter().copied()) {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            kept.remove(name);
        }
    }
    kept
}
