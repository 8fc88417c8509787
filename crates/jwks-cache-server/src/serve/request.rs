//! One request: who sends it, under which id, how much it may bring, how long it may take. What is answered is the
//! router's to say.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::Limited;
use hyper::body::{Body as _, Incoming};
use jwks_cache::{Clock as _, SystemClock};
use metrics::Counter;
use tokio::time::timeout;
use tower::Service as _;

use super::tls::Identity;
use crate::config::Limits;
use crate::logs::AUDIT;
use crate::problem::{Code, Problem};

/// The header that names a request.
const REQUEST_ID: &str = "x-request-id";

/// The longest id that is taken over.
const LONGEST_ID: usize = 64;

/// Who is at the other end of a connection; an extension of each request, as `Arc<Peer>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address; `None` on a Unix socket, where the file's mode says who gets in.
    pub address: Option<SocketAddr>,
    /// Who it is by its verified certificate.
    pub identity: Option<Identity>,
}

impl Peer {
    pub(super) fn unix() -> Self {
        Self { address: None, identity: None }
    }

    pub(super) fn tcp(address: SocketAddr, identity: Option<Identity>) -> Self {
        Self { address: Some(address), identity }
    }

    /// Whether its certificate was good when it was shown, and is no more.
    pub(super) fn has_expired(&self) -> bool {
        let now = SystemClock.wall().timestamp();
        self.identity.as_ref().is_some_and(|of| now > of.good_until.timestamp())
    }
}

/// What a request is called, by its sender or by us: 1 to 64 ASCII letters, digits and `-_.`; an extension of each
/// request, and the header `x-request-id` of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The sender's, if it is one id and sound; otherwise one of ours.
    fn of(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(REQUEST_ID).iter();
        let sound = |id: &&HeaderValue| {
            let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
            (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().all(legal)
        };
        match (given.next().filter(sound), given.next()) {
            (Some(id), None) => Self(id.clone()),
            _ => Self::new(),
        }
    }

    /// One that no other request of this process has, and hardly one of another.
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let start = *START.get_or_init(|| {
            let mut bytes = [0; 8];
            // Where the machine has no chance to give, ids tell apart the requests of this process alone.
            let _ = aws_lc_rs::rand::fill(&mut bytes);
            u64::from_ne_bytes(bytes)
        });
        let id = format!("{start:016x}-{:x}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self(HeaderValue::from_str(&id).expect("hexadecimal digits are legal in a header"))
    }
}

static START: std::sync::OnceLock<u64> = std::sync::OnceLock::new();

/// Where requests of a listener are answered.
pub(super) struct Desk {
    router: Router,
    name: String,
    body_bytes: u64,
    request_timeout: Duration,
    /// By the first digit of the status.
    answered: [Counter; 6],
}

impl Desk {
    pub(super) fn new(router: Router, name: &str, limits: &Limits) -> Self {
        let counter = |class: usize| metrics::counter!("jwks_cache_server_requests_total", "listener" => name.to_owned(), "code" => format!("{class}xx"));
        Self {
            router: router.fallback(async || Problem::new(Code::NotFound, "there is no such route here")),
            name: name.to_owned(),
            body_bytes: limits.body_bytes,
            request_timeout: limits.request_timeout.0,
            answered: std::array::from_fn(counter),
        }
    }

    /// Answers a request, whatever becomes of it.
    pub(super) async fn answer(&self, request: Request<Incoming>, peer: &Arc<Peer>) -> Response {
        let (mut head, body) = request.into_parts();
        let id = RequestId::of(&head.headers);
        let began = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| (SystemClock.now(), head.method.clone(), head.uri.clone()));
        let mut answer = if peer.has_expired() {
            // A handshake would fail now, so what the last one agreed on is over; a token does not mend that.
            let certificate = peer.identity.as_ref().map(|of| of.sha256.to_string());
            let (method, path) = (head.method.as_str(), crate::terminal::shown(head.uri.path(), 200));
            tracing::info!(target: AUDIT, who = "expired", certificate, listener = self.name, method, path, status = 401, "refused");
            let what =
                "the client certificate of this connection has expired, or nobody can read when it does";
            Problem::new(Code::Unauthenticated, what)
                .remedy("connect anew, with one that is good")
                .challenge(r#"Bearer realm="jwks-cache""#)
                .into_response()
        } else if body.size_hint().lower() > self.body_bytes {
            let what = format!("the body is longer than {} bytes", self.body_bytes);
            Problem::new(Code::BodyTooLarge, what).into_response()
        } else {
            head.extensions.insert(peer.clone());
            head.extensions.insert(id.clone());
            let most = usize::try_from(self.body_bytes).unwrap_or(usize::MAX);
            let request = Request::from_parts(head, Body::new(Limited::new(body, most)));
            self.route(request, &id).await
        };
        let status = answer.status();
        if let Some(counter) = self.answered.get(usize::from(status.as_u16() / 100)) {
            counter.increment(1);
        }
        if let Some((began, method, uri)) = began {
            let millis = u64::try_from(SystemClock.now().since(began).as_millis()).unwrap_or(u64::MAX);
            // Without the query, which may say what is nobody's business.
            let path = crate::terminal::shown(uri.path(), 200);
            tracing::debug!(listener = self.name, request_id = id.as_str(), %method, path, status = status.as_u16(), millis, "answered");
        }
        answer.headers_mut().insert(REQUEST_ID, id.0);
        answer
    }

    async fn route(&self, request: Request<Body>, id: &RequestId) -> Response {
        let routed = AssertUnwindSafe(self.router.clone().call(request)).catch_unwind();
        match timeout(self.request_timeout, routed).await {
            Ok(Ok(Ok(answer))) => answer,
            Ok(Ok(Err(never))) => match never {},
            Ok(Err(_)) => {
                tracing::error!(request_id = id.as_str(), "a handler panicked; please report this");
                Problem::new(Code::Internal, "the server made a mistake, which its log tells of")
                    .into_response()
            }
            Err(_) => Problem::new(Code::TimedOut, "the request took too long").into_response(),
        }
    }
}
