//! Exchanges over HTTP. Everything that reqwest might do behind our back is off: redirects,
//! retries, decompression, environment proxies.

use std::cell::Cell;
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use jwks_cache_core::freshness::{Timing, retry_after};
use reqwest::{Client, Response};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tower_layer::Layer;
use tower_service::Service;
use url::Url;

use super::body::Body;
use super::{Fetch, FetchRequest, Fetched, Fetching, NotFetched, redirect};
use crate::clock::Clock;
use crate::error::{Error, Result};

const USER_AGENT: &str = concat!("jwks-cache/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections are few and short-lived: refreshes are minutes apart.
const IDLE_PER_HOST: usize = 4;
const IDLE_FOR: Duration = Duration::from_secs(30);
/// How much of an error's body is shown, and how long it is waited for.
const EXCERPT_BYTES: usize = 256;
const EXCERPT_WAIT: Duration = Duration::from_millis(250);

tokio::task_local! {
    /// Whether the exchange that runs in this task opened a connection.
    static CONNECTED: Cell<bool>;
}

/// Who we are towards a provider: the client that is shared by all who are the same.
#[derive(Clone)]
pub(crate) enum Identity {
    /// Our own clients: the pooled one, and one that always opens a connection.
    Own { pooled: Arc<OnceLock<Client>>, fresh: Arc<OnceLock<Client>> },
    /// A client that a user handed in.
    Given(Client),
}

impl Default for Identity {
    fn default() -> Self {
        Self::Own { pooled: Arc::default(), fresh: Arc::default() }
    }
}

/// Fetches over HTTP.
pub(crate) struct HttpFetch {
    identity: Identity,
    clock: Arc<dyn Clock>,
}

impl HttpFetch {
    pub(crate) fn new(identity: Identity, clock: Arc<dyn Clock>) -> Self {
        Self { identity, clock }
    }

    async fn exchange(&self, request: &FetchRequest) -> std::result::Result<Fetched, NotFetched> {
        redirect::check(request, &request.url).map_err(NotFetched::refused)?;
        let mut url = request.url.clone();
        let mut hop = 0;
        loop {
            let requested_at = self.clock.now();
            let response = self.send(request, &url).await?;
            let timing =
                Timing { requested_at, received_at: self.clock.now(), received_wall: self.clock.wall() };
            if response.url() != &url {
                return Err(NotFetched::refused(
                    "the answer came from another URL; give the client redirect::Policy::none()",
                ));
            }
            let status = response.status();
            if redirect::is_redirect(status) {
                hop += 1;
                url = redirect::next(request, &url, response.headers(), hop)
                    .map_err(|refused| NotFetched { status: Some(status), ..refused })?;
                continue;
            }
            let headers = response.headers().clone();
            let body = match status {
                StatusCode::OK => read(response, &headers, request.max_response_bytes).await?,
                StatusCode::NOT_MODIFIED if request.is_conditional() => Vec::new(),
                _ => return Err(unexpected(response, timing).await),
            };
            return Ok(Fetched { status, headers, body, timing, requests: request.sent.get() });
        }
    }

    /// Sends one request; one that a reused connection lost before an answer is sent once more on a new one.
    async fn send(&self, request: &FetchRequest, url: &Url) -> std::result::Result<Response, NotFetched> {
        let (pooled, fresh) = match &self.identity {
            Identity::Own { pooled, fresh } => (own(pooled, IDLE_PER_HOST)?, Some(fresh)),
            Identity::Given(client) => (client.clone(), None),
        };
        request.sent.one_more();
        let (sent, connected) = CONNECTED
            .scope(Cell::new(false), async {
                let sent = ask(&pooled, request, url).send().await;
                (sent, CONNECTED.with(Cell::get))
            })
            .await;
        let sent = match (sent, fresh) {
            (Err(error), Some(fresh)) if !connected && is_lost(&error) => {
                let fresh = own(fresh, 0)?;
                request.sent.one_more();
                ask(&fresh, request, url).send().await
            }
            (sent, _) => sent,
        };
        sent.map_err(|error| {
            if error.is_connect() {
                request.sent.one_less();
            }
            transport(error)
        })
    }
}

impl Fetch for HttpFetch {
    fn fetch<'a>(&'a self, request: &'a FetchRequest) -> Fetching<'a> {
        Box::pin(async move {
            let fetched = self.exchange(request).await;
            fetched.map_err(|failed| NotFetched { requests: request.sent.get(), ..failed })
        })
    }

    fn prepare(&self) {
        if let Identity::Own { pooled, .. } = &self.identity {
            // What fails here fails again, and is told, when a client is needed.
            let _ = own(pooled, IDLE_PER_HOST);
        }
    }
}

impl fmt::Debug for HttpFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpFetch")
    }
}

fn ask(client: &Client, request: &FetchRequest, url: &Url) -> reqwest::RequestBuilder {
    let mut ask = client
        .get(url.clone())
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::ACCEPT_ENCODING, "gzip");
    let validators = [
        (header::IF_NONE_MATCH, &request.if_none_match),
        (header::IF_MODIFIED_SINCE, &request.if_modified_since),
    ];
    for (name, value) in validators {
        // A validator that no longer fits into a header is simply not sent.
        if let Some(value) = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
            ask = ask.header(name, value);
        }
    }
    if request.bypass_caches {
        ask = ask.header(header::CACHE_CONTROL, "no-cache");
    }
    ask
}

async fn read(
    mut response: Response,
    headers: &HeaderMap,
    most: u64,
) -> std::result::Result<Vec<u8>, NotFetched> {
    let mut body = Body::new(headers, most)?;
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        body.push(&chunk)?;
    }
    body.finish()
}

/// An answer that is neither 200 nor a 304 we asked for.
async fn unexpected(mut response: Response, timing: Timing) -> NotFetched {
    let status = response.status();
    let retry_after = retry_after(response.headers(), timing.received_wall);
    let mut start = Vec::new();
    // A compressed error page cannot be looked through for keys.
    if !response.headers().contains_key(header::CONTENT_ENCODING) {
        let reading = async {
            while start.len() < EXCERPT_BYTES {
                match response.chunk().await {
                    Ok(Some(chunk)) => start.extend_from_slice(&chunk),
                    _ => break,
                }
            }
        };
        // A slow one must not use up the attempt.
        let _ = tokio::time::timeout(EXCERPT_WAIT, reading).await;
    }
    let message = match status {
        StatusCode::NOT_MODIFIED => "304 to a request without conditions".to_owned(),
        _ => format!("status {status}"),
    };
    NotFetched {
        status: Some(status),
        excerpt: excerpt(&start),
        retryable: status.is_server_error() || matches!(status.as_u16(), 408 | 429),
        retry_after,
        ..NotFetched::new("status", message)
    }
}

/// The start of an error's body, escaped. One that looks like keys is not shown at all: it may hold private ones.
fn excerpt(start: &[u8]) -> Option<String> {
    let start = &start[..start.len().min(EXCERPT_BYTES)];
    let text = String::from_utf8_lossy(start);
    if text.is_empty() || looks_like_keys(&text) {
        return None;
    }
    let mut shown = String::new();
    for c in text.chars().flat_map(char::escape_default) {
        if shown.len() == EXCERPT_BYTES {
            break;
        }
        shown.push(c);
    }
    Some(shown)
}

/// Whether `text` holds a member that keys have (JSON within JSON or HTML included), PEM, or a run as long
/// and dense as key material is.
fn looks_like_keys(text: &str) -> bool {
    const MEMBERS: [&str; 11] = ["kty", "keys", "d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];
    /// Ids of requests are shorter, and an octet of a key gives 4/3 of a character.
    const MATERIAL: usize = 40;

    let text = text.replace("&quot;", "\"").replace("&#34;", "\"").replace('\'', "\"");
    let bare: String = text.chars().filter(|c| *c != '\\' && !c.is_whitespace()).collect();
    let dense = |c: char| c.is_ascii_alphanumeric() || "-_+/=".contains(c);
    bare.contains("PRIVATE")
        || MEMBERS.iter().any(|name| bare.contains(&format!("\"{name}\":")))
        || text.split(|c| !dense(c)).any(|run| run.len() >= MATERIAL)
}

/// Whether the connection went away before an answer began. One that broke while connecting, or an
/// answer that is not HTTP, is another matter.
fn is_lost(error: &reqwest::Error) -> bool {
    !error.is_connect() && !error.is_timeout() && !error.is_builder() && !chain(error).any(is_not_http)
}

fn transport(error: reqwest::Error) -> NotFetched {
    let error = error.without_url();
    let (reason, message) = if error.is_timeout() && error.is_connect() {
        ("timeout", "no connection was made in time")
    } else if error.is_timeout() {
        ("timeout", "timed out")
    } else if chain(&error).any(is_tls) {
        ("tls", "the TLS handshake failed")
    } else if chain(&error).any(|cause| cause.to_string().starts_with("dns error")) {
        ("dns", "the host name could not be resolved")
    } else if error.is_connect() {
        ("connect", "no connection could be made")
    } else if chain(&error).any(is_not_http) {
        // The same answer would come again.
        return NotFetched::new("protocol", "the answer is not valid HTTP").because(error);
    } else if error.is_body() || error.is_decode() {
        ("body", "the connection broke before the whole body was here")
    } else if error.is_builder() {
        return NotFetched::new("request", "the request could not be built").because(error);
    } else {
        ("reset", "the connection broke before an answer")
    };
    let deepest = chain(&error).last().map(ToString::to_string).unwrap_or_default();
    NotFetched::new(reason, format!("{message}: {}", deepest.escape_default())).retryable().because(error)
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Whether the answer breaks the rules of HTTP: its head (RFC 9112 §2), or the framing of its body (§7.1).
fn is_not_http(error: &(dyn StdError + 'static)) -> bool {
    let malformed = |error: &std::io::Error| {
        matches!(error.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData)
    };
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse)
        || error.downcast_ref::<std::io::Error>().is_some_and(malformed)
}

/// The client behind `cell`, built when it is first asked for: reading the machine's roots takes a while.
fn own(cell: &OnceLock<Client>, idle_per_host: usize) -> std::result::Result<Client, NotFetched> {
    if let Some(client) = cell.get() {
        return Ok(client.clone());
    }
    let client = build(idle_per_host)
        .map_err(|error| NotFetched::new("client", "the HTTP client could not be built").because(error))?;
    Ok(cell.get_or_init(|| client).clone())
}

fn build(idle_per_host: usize) -> Result<Client> {
    let tls =
        rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_platform_verifier())
            .map_err(|error| Error::Cache(format!("TLS could not be set up: {error}")))?;
    let mut tls = tls.with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .referer(false)
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(idle_per_host)
        .pool_idle_timeout(IDLE_FOR)
        .connector_layer(NoteConnections)
        .build()?;
    Ok(client)
}

/// Notes in the task of an exchange that it opened a connection.
#[derive(Clone)]
struct NoteConnections;

#[derive(Clone)]
struct Noting<S>(S);

impl<S> Layer<S> for NoteConnections {
    type Service = Noting<S>;
    fn layer(&self, connector: S) -> Noting<S> {
        Noting(connector)
    }
}

impl<S: Service<R>, R> Service<R> for Noting<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> S::Future {
        // Outside an exchange (there is none) nobody asks.
        let _ = CONNECTED.try_with(|connected| connected.set(true));
        self.0.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_escaped_and_cut() {
        assert_eq!(excerpt(b"down\r\nfor \x1b[1mnow").unwrap(), "down\\r\\nfor \\u{1b}[1mnow");
        assert_eq!(excerpt(&[b'a', b' '].repeat(200)).unwrap().len(), EXCERPT_BYTES);
        assert_eq!(excerpt(b""), None);
    }

    #[test]
    fn an_excerpt_that_may_hold_keys_is_not_shown() {
        for body in [
            r#"{"keys":[{"kty":"RSA"}]}"#,
            r#"{"detail": {"d" : "abc"}}"#,
            r#"{"message":"cannot parse {\"d\":\"abc\"}"}"#,
            "<pre>{&quot;k&quot;:&quot;abc&quot;}</pre>",
            "{'q': 'abc'}",
            "-----BEGIN PRIVATE KEY-----",
            "d: 0123456789abcdefghijABCDEFGHIJ-_0123456789abcdef",
        ] {
            assert_eq!(excerpt(body.as_bytes()), None, "{body}");
        }
        for body in
            ["no keys today", r#"{"error":"invalid_request","id":"0f8fad5b-d9cb-469f-a165-70867728950e"}"#]
        {
            assert!(excerpt(body.as_bytes()).is_some(), "{body}");
        }
    }
}
