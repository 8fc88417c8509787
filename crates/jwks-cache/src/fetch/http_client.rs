//! Exchanges over HTTP: requests, redirects, answers. Which client makes them, and what of ours they carry, is
//! `dial`'s to say.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use hyper::body::{Frame, SizeHint};
use jwks_cache_core::freshness::{Timing, retry_after};
use reqwest::{Client, Response};
use url::Url;

use super::body::Body;
use super::{Fetch, FetchRequest, Fetched, Fetching, NotFetched, Sent, redirect};
use crate::clock::Clock;
use crate::dial::{
    Caller, Callers, Exchange, PinMismatch, Present, RefusedAddress, Resolver, SentHeaders, Unready,
};

/// How much of an error's body is shown, and how long it is waited for.
const EXCERPT_BYTES: usize = 256;
const EXCERPT_WAIT: Duration = Duration::from_millis(250);

/// Whose client makes the exchanges.
enum Whose {
    Ours(Arc<Callers>),
    /// One that a user handed in.
    Given(Client),
}

/// Fetches over HTTP.
pub(crate) struct HttpFetch {
    whose: Whose,
    clock: Arc<dyn Clock>,
}

/// What the requests of one exchange go out by.
enum Ready {
    Ours(Present),
    Given(Client, SentHeaders),
}

impl Ready {
    /// Whose client sends a request, if it is ours.
    fn caller(&self, at_home: bool) -> Option<&Arc<Caller>> {
        match self {
            Self::Ours(present) => Some(present.caller(at_home)),
            Self::Given(..) => None,
        }
    }
}

impl HttpFetch {
    /// With clients of our own, one for each identity, that dial what `resolver` finds.
    pub(crate) fn new(resolver: Arc<dyn Resolver>, clock: Arc<dyn Clock>) -> Self {
        Self { whose: Whose::Ours(Arc::new(Callers::new(resolver))), clock }
    }

    /// With a client that was handed in.
    pub(crate) fn with_client(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self { whose: Whose::Given(client), clock }
    }

    async fn exchange(&self, request: &FetchRequest) -> std::result::Result<Fetched, NotFetched> {
        redirect::check(request, &request.url).map_err(NotFetched::refused)?;
        let ready = self.ready(request).await?;
        let mut url = request.url.clone();
        let mut hop = 0;
        // Who has once been sent elsewhere comes back a stranger.
        let mut at_home = true;
        loop {
            at_home &= url.origin() == request.url.origin();
            let requested_at = self.clock.now();
            let response = send(&ready, at_home, request, &url).await?;
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
                StatusCode::OK => {
                    // HTTP/1.1 closes a connection whose body is not read to its end.
                    let over_h2 = response.version() == http::Version::HTTP_2;
                    let mut reading = Reading(ready.caller(at_home).filter(|_| over_h2));
                    let body = read(response, &headers, request.max_response_bytes).await?;
                    reading.0 = None;
                    body
                }
                StatusCode::NOT_MODIFIED if request.is_conditional() => Vec::new(),
                _ => return Err(unexpected(response, timing, &secrets(&ready, request, &url)).await),
            };
            return Ok(Fetched { status, headers, body, timing, requests: request.sent.get() });
        }
    }

    /// Reads the files that the registration names, and has a client at hand. Neither is done by a worker of the
    /// runtime.
    async fn ready(&self, request: &FetchRequest) -> std::result::Result<Ready, NotFetched> {
        let (dial, notes) = (&request.dial, &request.notes);
        match &self.whose {
            Whose::Ours(callers) => {
                if let Some(present) = dial.at_hand() {
                    return Ok(Ready::Ours(present));
                }
                let turn = dial.turn().await;
                // Whoever had the turn before may have left everything there.
                if let Some(present) = dial.at_hand() {
                    return Ok(Ready::Ours(present));
                }
                let (dial, notes, callers) = (dial.clone(), notes.clone(), callers.clone());
                blocking(turn, move || dial.ready(&callers, &notes)).await.map(Ready::Ours)
            }
            Whose::Given(client) => {
                if let Some(sent) = dial.headers_at_hand() {
                    return Ok(Ready::Given(client.clone(), sent));
                }
                let turn = dial.turn().await;
                let (dial, notes) = (dial.clone(), notes.clone());
                let sent = blocking(turn, move || dial.headers(&notes)).await?;
                Ok(Ready::Given(client.clone(), sent))
            }
        }
    }
}

/// Works where that may block. Nobody else's turn begins before it is done, even if nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    turn: impl Send + 'static,
    work: impl FnOnce() -> std::result::Result<T, Unready> + Send + 'static,
) -> std::result::Result<T, NotFetched> {
    let work = move || {
        let _turn = turn;
        work()
    };
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| NotFetched::new("client", "the runtime is going away").because(error))?;
    done.map_err(|Unready { setting, reason }| NotFetched::new("client", format!("{setting}: {reason}")))
}

/// Sends one request; one that a reused connection lost before an answer is sent once more on a new one.
async fn send(
    ready: &Ready,
    at_home: bool,
    request: &FetchRequest,
    url: &Url,
) -> std::result::Result<Response, NotFetched> {
    let (client, caller, sent) = match ready {
        Ready::Ours(present) => {
            let caller = present.caller(at_home);
            caller.check_literals(url).map_err(refused_address)?;
            (caller.client(url).map_err(not_built)?, Some(caller), &present.sent)
        }
        Ready::Given(client, sent) => (client.clone(), None, sent),
    };
    let (mut answer, reused) = leave(request, caller, ask(&client, sent, at_home, request, url)).await;
    if let (Err(error), Some(caller)) = (&answer, caller)
        && reused
        && is_lost(error)
    {
        let fresh = caller.fresh().map_err(not_built)?;
        (answer, _) = leave(request, Some(caller), ask(&fresh, sent, at_home, request, url)).await;
    }
    if let (Err(error), Some(caller)) = (&answer, caller)
        && chain(error).any(|cause| cause.is::<h2::Error>())
    {
        caller.leave_connections();
    }
    answer.map_err(transport)
}

/// Sends `asking`, and counts it when it leaves. Says also whether an idle connection was used.
async fn leave(
    request: &FetchRequest,
    caller: Option<&Arc<Caller>>,
    asking: reqwest::RequestBuilder,
) -> (reqwest::Result<Response>, bool) {
    /// A request on its way: unless it is answered, its connection is not used again.
    struct Leaving<'a> {
        nothing: Nothing,
        answered: bool,
        caller: Option<&'a Arc<Caller>>,
    }
    impl Drop for Leaving<'_> {
        fn drop(&mut self) {
            if let (false, true, Some(caller)) = (self.answered, self.nothing.has_left(), self.caller) {
                caller.leave_connections();
            }
        }
    }
    let exchange = Exchange::new(&request.notes);
    let nothing = Nothing { sent: request.sent.clone(), left: Arc::default() };
    let asking = asking.body(reqwest::Body::wrap(nothing.clone()));
    let mut leaving = Leaving { nothing, answered: false, caller };
    let answer = exchange.watch(asking.send()).await;
    leaving.answered = true;
    (answer, !exchange.opened_a_connection())
}

/// No body at all, which tells that its request leaves: that there is nothing to send is asked by the connection that
/// writes the request, when it does, and by nobody before. Which one that is, and when it was opened, is the pool's
/// affair: an idle one may take over while another connects.
#[derive(Clone)]
struct Nothing {
    sent: Sent,
    left: Arc<AtomicBool>,
}

impl Nothing {
    fn has_left(&self) -> bool {
        self.left.load(Relaxed)
    }
}

impl hyper::body::Body for Nothing {
    type Data = &'static [u8];
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        if !self.left.swap(true, Relaxed) {
            self.sent.one_more();
        }
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

/// Reads a body over HTTP/2. Unless it comes to its end, the connection is not used again.
struct Reading<'a>(Option<&'a Arc<Caller>>);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if let Some(caller) = self.0 {
            caller.leave_connections();
        }
    }
}

/// No address was dialled, and another attempt would find the same.
fn refused_address(refused: RefusedAddress) -> NotFetched {
    NotFetched { reason: NotFetched::ADDRESS, ..NotFetched::refused(refused.to_string()) }.because(refused)
}

fn not_built(reason: String) -> NotFetched {
    NotFetched::new("client", format!("the HTTP client could not be built: {reason}"))
}

impl Fetch for HttpFetch {
    fn fetch<'a>(&'a self, request: &'a FetchRequest) -> Fetching<'a> {
        Box::pin(async move {
            let fetched = self.exchange(request).await;
            fetched.map_err(|failed| NotFetched { requests: request.sent.get(), ..failed })
        })
    }

    fn prepare(&self) {
        if let Whose::Ours(callers) = &self.whose {
            callers.prepare();
        }
    }
}

impl fmt::Debug for HttpFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpFetch")
    }
}

fn ask(
    client: &Client,
    sent: &SentHeaders,
    at_home: bool,
    request: &FetchRequest,
    url: &Url,
) -> reqwest::RequestBuilder {
    let mut ask = client
        .get(url.clone())
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::ACCEPT_ENCODING, "gzip");
    if let Some(user_agent) = &sent.user_agent {
        ask = ask.header(header::USER_AGENT, user_agent);
    }
    if at_home {
        // They replace what has the same name.
        ask = ask.headers(sent.secret.clone());
    }
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

/// What a page may repeat of what was sent, and nobody is to read: headers, without the scheme of their credentials
/// (RFC 9110 §11.4), the queries of the URLs, and what the proxy knows us by.
fn secrets(ready: &Ready, request: &FetchRequest, url: &Url) -> Vec<Vec<u8>> {
    let (sent, proxy) = match ready {
        Ready::Ours(Present { sent, home, .. }) => (sent, home.proxy_credentials()),
        Ready::Given(_, sent) => (sent, Vec::new()),
    };
    let headers = sent.secret.iter().map(|(name, value)| {
        let value = value.as_bytes().trim_ascii();
        let scheme = value.iter().position(|byte| *byte == b' ').filter(|_| name == header::AUTHORIZATION);
        value.get(scheme.unwrap_or(0)..).unwrap_or(value).trim_ascii().to_vec()
    });
    let queries = [request.url.query(), url.query()].into_iter().flatten().map(|query| query.into());
    headers.chain(queries).chain(proxy).filter(|secret| !secret.is_empty()).collect()
}

/// An answer that is neither 200 nor a 304 we asked for.
async fn unexpected(mut response: Response, timing: Timing, secrets: &[Vec<u8>]) -> NotFetched {
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
        excerpt: excerpt(&start, secrets),
        retryable: status.is_server_error() || matches!(status.as_u16(), 408 | 429),
        retry_after,
        ..NotFetched::new("status", message)
    }
}

/// The start of an error's body, escaped. One that looks like keys is not shown at all: it may hold private ones. Nor is
/// one that repeats what we sent, as pages of gateways do.
fn excerpt(start: &[u8], secrets: &[Vec<u8>]) -> Option<String> {
    let start = &start[..start.len().min(EXCERPT_BYTES)];
    let text = String::from_utf8_lossy(start);
    if text.is_empty() || looks_like_keys(&text) || secrets.iter().any(|secret| repeats(start, secret)) {
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

/// Whether `page` shows `secret` or a telling part of it: it may be cut anywhere, and escaped or put in another case.
fn repeats(page: &[u8], secret: &[u8]) -> bool {
    const TELLING: usize = 4;
    let length = secret.len().min(TELLING);
    length > 0
        && secret.windows(length).any(|part| page.windows(length).any(|seen| seen.eq_ignore_ascii_case(part)))
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
    } else if let Some(mismatch) = chain(&error).find_map(pin_mismatch) {
        return NotFetched { reason: "pin", ..NotFetched::refused(mismatch.to_string()) };
    } else if let Some(refused) = chain(&error).find_map(|cause| cause.downcast_ref::<RefusedAddress>()) {
        return refused_address(refused.clone());
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
    let failed = |why: &str| NotFetched::new(reason, format!("{message}: {why}")).retryable();
    if let Some(h2) = chain(&error).find_map(|cause| cause.downcast_ref::<h2::Error>()) {
        // All its text is the server's choice, as long as it likes (RFC 9113 §6.8).
        return failed(&h2.reason().map_or_else(|| "HTTP/2".to_owned(), |reason| reason.to_string()));
    }
    let deepest = chain(&error).last().map(ToString::to_string).unwrap_or_default();
    let escaped: String = deepest.chars().flat_map(char::escape_default).take(EXCERPT_BYTES).collect();
    // A certificate may have as many names as it likes.
    let failed = failed(&escaped);
    if deepest.len() > EXCERPT_BYTES { failed } else { failed.because(error) }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

/// What TLS has to say, also from within an I/O error: those leave what they hold out of the chain of causes.
fn tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<std::io::Error>() {
        Some(io) => tls(io.get_ref()?),
        None => error.downcast_ref(),
    }
}

/// Whether TLS failed. HTTP/2 keeps of an alert its text alone.
fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    tls(error).is_some() || error.to_string().starts_with("received fatal alert")
}

fn pin_mismatch<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a PinMismatch> {
    match tls(error)? {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}

/// Whether the answer breaks the rules of HTTP: its head (RFC 9112 §2), or the framing of its body (§7.1).
fn is_not_http(error: &(dyn StdError + 'static)) -> bool {
    let malformed = |error: &std::io::Error| {
        matches!(error.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData)
    };
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse)
        || error.downcast_ref::<std::io::Error>().is_some_and(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_escaped_and_cut() {
        assert_eq!(excerpt(b"down\r\nfor \x1b[1mnow", &[]).unwrap(), "down\\r\\nfor \\u{1b}[1mnow");
        assert_eq!(excerpt(&[b'a', b' '].repeat(200), &[]).unwrap().len(), EXCERPT_BYTES);
        assert_eq!(excerpt(b"", &[]), None);
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
            assert_eq!(excerpt(body.as_bytes(), &[]), None, "{body}");
        }
        for body in
            ["no keys today", r#"{"error":"invalid_request","id":"0f8fad5b-d9cb-469f-a165-70867728950e"}"#]
        {
            assert!(excerpt(body.as_bytes(), &[]).is_some(), "{body}");
        }
    }

    #[test]
    fn an_excerpt_that_repeats_what_was_sent_is_not_shown() {
        let shown = |page: &str, secret: &str| excerpt(page.as_bytes(), &[secret.into()]).is_some();
        for page in [
            "denied: token-1/x",
            r"denied: token-1\/x",
            "denied: TOKEN-1%2FX",
            "denied: en-1 is what it ends with",
            &format!("{:250}token-1/x", ""),
        ] {
            assert!(!shown(page, "token-1/x"), "{page}");
        }
        assert!(!shown("pin 7 is wrong", "7") && shown("pin 8 is wrong", "7"));
        assert!(shown("denied: another", "token-1/x") && shown("denied", ""));
    }
}
