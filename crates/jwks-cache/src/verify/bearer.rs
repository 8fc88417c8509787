//! Tokens in requests: where they stand, and what to answer when one is not good (RFC 6750). For every framework, and
//! for services without one. This room does not know frameworks; theirs are beside it.
//!
//! # Where a token is looked for
//!
//! In `Authorization: Bearer` (RFC 6750 §2.1), unless [`Guard::sources`] says otherwise. All of the sources are looked
//! at, and only one may hold a token.
//!
//! | the request has | outcome |
//! |---|---|
//! | nothing, or `Authorization` of another scheme, such as `Basic` | [`Refusal::NoToken`] |
//! | `bearer`, `BEARER`, several spaces after it, spaces or tabs around the whole value | the token |
//! | `Bearer` alone, a tab after it, two words after it, characters that are not ASCII | [`Refusal::InvalidRequest`] |
//! | two `Authorization` headers, equal or not, of whatever schemes | [`Refusal::InvalidRequest`] |
//! | a named header with a token, or with `Bearer` and a token | the token |
//! | a named header twice | [`Refusal::InvalidRequest`] |
//! | a named header that is empty, as proxies leave it | no token |
//! | a cookie of that name, compared byte for byte, maybe in quotes, in one `Cookie` header or one of several | the token |
//! | two cookies of that name, equal or not, empty or not: one may have been planted from a neighbouring host | [`Refusal::InvalidRequest`] |
//! | a cookie of that name that is empty, as it is left on logging out | no token |
//! | a token in each of two sources (RFC 6750 §2) | [`Refusal::InvalidRequest`] |
//!
//! URLs and bodies are never looked at: URLs end up in logs (RFC 6750 §5.3). A browser sends cookies with requests that
//! other sites cause, so a service that takes tokens from them needs a defence against that (`SameSite`, a CSRF token).
//!
//! # What is answered
//!
//! | refusal | status | `WWW-Authenticate` | gRPC |
//! |---|---|---|---|
//! | [`Refusal::NoToken`] | 401 | `Bearer` | `UNAUTHENTICATED` |
//! | [`Refusal::InvalidRequest`] | 400 | `Bearer error="invalid_request", …` | `UNAUTHENTICATED` |
//! | [`Refusal::InvalidToken`] | 401 | `Bearer error="invalid_token", …` | `UNAUTHENTICATED` |
//! | [`Refusal::InsufficientScope`] | 403 | `Bearer error="insufficient_scope", …, scope="…"` | `PERMISSION_DENIED` |
//! | [`Refusal::KeysUnavailable`] | 503, with `Retry-After` | – | `UNAVAILABLE` |
//!
//! The body is JSON with `error` and `error_description`, unless [`Guard::body`] says otherwise. No answer repeats
//! anything of the token, or tells which of tenant, key and signature was wrong; that goes to the log as an event of
//! level debug.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use jwks_cache_core::token::grants;
use serde::de::DeserializeOwned;

use super::{Scoped, Verified, Verifier, VerifyError, VerifyErrorKind, Waiting};
use crate::error::{Error, Result as LibraryResult};

/// Lets nobody in without a good token: finds the token of a request, has it verified, and says what to answer if
/// that fails. Cloning it is cheap.
///
/// ```
/// use http::HeaderMap;
/// use jwks_cache::{Guard, Registry, StandardClaims};
///
/// # async fn request(headers: &HeaderMap) -> jwks_cache::Result<()> {
/// let registry = Registry::new();
/// // Once:
/// let guard = Guard::new(registry.verifier().audience("orders").build()?).realm("orders");
/// // For each request, where no framework does it:
/// let answer: http::Response<String> = match guard.verify::<StandardClaims>(headers, &["orders:read"]).await {
///     Ok(claims) => http::Response::new(format!("hello {:?}", claims.sub)),
///     Err(why) => guard.response(&why),
/// };
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Guard {
    verifier: Verifier,
    tenant: Option<Arc<str>>,
    manner: Arc<Manner>,
}

/// Where tokens are looked for, and how refusals are told.
#[derive(Clone)]
struct Manner {
    sources: Vec<TokenSource>,
    realm: Option<String>,
    retry_after: u64,
    content_type: HeaderValue,
    body: Option<Arc<Body>>,
}

type Body = dyn Fn(&Refusal) -> String + Send + Sync;

/// Where a token may stand in a request. How each is read, the [module](self) says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenSource {
    /// `Authorization: Bearer` (RFC 6750 §2.1).
    Authorization,
    /// A header of that name, such as the one that a proxy sets. Have the proxy drop what clients send under it.
    Header(HeaderName),
    /// A cookie of that name.
    Cookie(String),
}

impl TokenSource {
    /// The header of that name, in any case; `Authorization` is what it always is.
    ///
    /// # Errors
    /// [`Error::Validation`] for `header` where that is no name of one.
    pub fn header(name: &str) -> LibraryResult<Self> {
        let name = HeaderName::try_from(name).map_err(|_| {
            Error::validation("header", "not a header's name: letters, digits and dashes are")
        })?;
        Ok(if name == AUTHORIZATION { Self::Authorization } else { Self::Header(name) })
    }

    /// The cookie of that name, in that case.
    ///
    /// # Errors
    /// [`Error::Validation`] for `cookie` where that is no name of one (RFC 6265 §4.1.1).
    pub fn cookie(name: impl Into<String>) -> LibraryResult<Self> {
        let name = name.into();
        let is_sign = |byte: u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_sign) {
            return Err(Error::validation("cookie", "not a cookie's name: letters, digits and dashes are"));
        }
        Ok(Self::Cookie(name))
    }

    fn field(&self) -> &HeaderName {
        match self {
            Self::Authorization => &AUTHORIZATION,
            Self::Header(name) => name,
            Self::Cookie(_) => &COOKIE,
        }
    }
}

/// Why a request is not let in. Its `Display` is fit for whoever sent it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// It brings no token.
    NoToken,
    /// It brings more than one token, or something that is none (RFC 6750 §3.1).
    InvalidRequest(&'static str),
    /// Its token is not accepted.
    InvalidToken(VerifyError),
    /// Its token does not grant all of these scopes, which stand here with spaces between them.
    InsufficientScope(String),
    /// Nothing can be said of its token for now.
    KeysUnavailable(VerifyError),
}

impl From<VerifyError> for Refusal {
    fn from(error: VerifyError) -> Self {
        match error.kind() {
            VerifyErrorKind::KeysUnavailable => Self::KeysUnavailable(error),
            VerifyErrorKind::InvalidToken => Self::InvalidToken(error),
        }
    }
}

impl Refusal {
    /// The HTTP status to answer with.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::InvalidToken(_) => StatusCode::UNAUTHORIZED,
            Self::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Self::InsufficientScope(_) => StatusCode::FORBIDDEN,
            Self::KeysUnavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Its short name, for machines: those of RFC 6750 §3.1, `missing_token` and `temporarily_unavailable`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoToken => "missing_token",
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidToken(_) => "invalid_token",
            Self::InsufficientScope(_) => "insufficient_scope",
            Self::KeysUnavailable(_) => "temporarily_unavailable",
        }
    }

    /// What happened, for logs; see [`VerifyError::detail`].
    #[must_use]
    pub fn detail(&self) -> impl fmt::Display + '_ {
        Detail(self)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("a bearer token is required"),
            Self::InvalidRequest(why) => f.write_str(why),
            Self::InvalidToken(why) | Self::KeysUnavailable(why) => why.fmt(f),
            Self::InsufficientScope(_) => f.write_str("the token does not grant what this needs"),
        }
    }
}

struct Detail<'a>(&'a Refusal);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Refusal::InvalidToken(why) | Refusal::KeysUnavailable(why) => why.detail().fmt(f),
            Refusal::InsufficientScope(scopes) => write!(f, "the token does not grant {scopes}"),
            other => other.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InvalidToken(why) | Self::KeysUnavailable(why) => Some(why),
            _ => None,
        }
    }
}

impl Guard {
    /// A guard that has tokens verified by `verifier`.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        let manner = Manner {
            sources: vec![TokenSource::Authorization],
            realm: None,
            retry_after: 5,
            content_type: HeaderValue::from_static("application/json"),
            body: None,
        };
        Self { verifier, tenant: None, manner: Arc::new(manner) }
    }

    /// Where tokens are looked for, instead of `Authorization: Bearer` alone. With none, every request lacks one.
    #[must_use]
    pub fn sources(mut self, sources: impl IntoIterator<Item = TokenSource>) -> Self {
        Arc::make_mut(&mut self.manner).sources = sources.into_iter().collect();
        self
    }

    /// Takes tokens of that tenant's providers alone, as [`Verifier::in_tenant`] does. Default: of any provider; where
    /// tenants write registrations, name the tenant always.
    #[must_use]
    pub fn in_tenant(mut self, tenant_id: impl Into<Arc<str>>) -> Self {
        self.tenant = Some(tenant_id.into());
        self
    }

    fn scoped(&self) -> Scoped<'_> {
        self.tenant.as_deref().map_or_else(|| self.verifier.own(), |tenant| self.verifier.in_tenant(tenant))
    }

    /// What the token is for, as clients may show it (RFC 9110 §11.5). Default none. What a quoted text in a header
    /// cannot hold is replaced.
    #[must_use]
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.manner).realm = Some(realm.into());
        self
    }

    /// What clients are asked to wait while keys are unavailable, in whole seconds, at least one. Default 5 s: the
    /// cache itself tries again after at most 10 s.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        Arc::make_mut(&mut self.manner).retry_after = wait.as_secs().max(1);
        self
    }

    /// What the body of a refusal says, and of which media type it is. Status and headers stay as they are.
    #[must_use]
    pub fn body(
        mut self,
        content_type: HeaderValue,
        body: impl Fn(&Refusal) -> String + Send + Sync + 'static,
    ) -> Self {
        let manner = Arc::make_mut(&mut self.manner);
        manner.content_type = content_type;
        manner.body = Some(Arc::new(body));
        self
    }

    /// What verifies the tokens.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The token of a request with these headers; for who verifies it otherwise, such as
    /// [`of_provider`](Verifier::of_provider).
    ///
    /// # Errors
    /// [`Refusal::NoToken`], [`Refusal::InvalidRequest`].
    pub fn token<'h>(&self, headers: &'h HeaderMap) -> Result<&'h str, Refusal> {
        self.find(headers)
    }

    /// The claims of a request with these headers, if its token is good and grants all of `scopes`, which are the
    /// words of the claim `scope`, or those of `scp`, written as words or as a list.
    ///
    /// # Errors
    /// See [`Refusal`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing for other callers.
    pub async fn verify<C>(&self, headers: &HeaderMap, scopes: &[&str]) -> Result<Verified<C>, Refusal>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        match self.begin(headers, scopes) {
            Ok(outcome) => outcome,
            Err(waiting) => self.wait(headers, scopes, waiting).await,
        }
    }

    /// The same from keys at hand: never waits. What would be waited for is started in the background.
    ///
    /// # Errors
    /// See [`Refusal`]; [`Refusal::KeysUnavailable`] where [`Guard::verify`] would wait.
    pub fn verify_now<C>(&self, headers: &HeaderMap, scopes: &[&str]) -> Result<Verified<C>, Refusal>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        self.now(headers, scopes)
    }

    /// The answer to a refusal. What it may not tell is logged.
    #[must_use]
    pub fn response<B: From<String>>(&self, refusal: &Refusal) -> Response<B> {
        let body = self.manner.body.as_ref().map_or_else(|| plain(refusal), |body| body(refusal));
        let mut response = Response::new(body.into());
        *response.status_mut() = refusal.status();
        response.headers_mut().insert(CONTENT_TYPE, self.manner.content_type.clone());
        response.headers_mut().extend(self.challenge(refusal));
        response
    }

    pub(super) fn find<'h, F: Fields>(&self, fields: &'h F) -> Result<&'h str, Refusal> {
        const TWICE: &str = "the request brings more than one token";
        let (mut found, mut wrong) = (None, None);
        for source in &self.manner.sources {
            // A request is cut into several `Cookie` fields at will (RFC 9113 §8.2.3), so there its cookies count.
            let mut times = 0_u32;
            fields.each(source.field(), &mut |value| {
                let mut see = |read| {
                    times += 1;
                    match read {
                        Read::None => {}
                        Read::Token(token) if found.is_none() => found = Some(token),
                        Read::Token(_) => wrong = Some(TWICE),
                        Read::Wrong => wrong = Some("what the request brings as a bearer token is none"),
                    }
                };
                match source {
                    TokenSource::Authorization => see(credentials(value)),
                    TokenSource::Header(_) => see(bare(value)),
                    TokenSource::Cookie(name) => cookies(value, name).for_each(see),
                }
            });
            if times > 1 {
                wrong = Some(TWICE);
            }
        }
        match wrong {
            Some(why) => Err(Refusal::InvalidRequest(why)),
            None => found.ok_or(Refusal::NoToken),
        }
    }

    /// The outcome from keys at hand.
    pub(super) fn now<C, F>(&self, fields: &F, scopes: &[impl AsRef<str>]) -> Result<Verified<C>, Refusal>
    where
        C: DeserializeOwned + Send + Sync + 'static,
        F: Fields,
    {
        let token = self.find(fields)?;
        granting(token, scopes, self.scoped().verify_now(token))
    }

    /// The outcome if it is at hand; else what to wait for.
    pub(super) fn begin<C, F>(
        &self,
        fields: &F,
        scopes: &[impl AsRef<str>],
    ) -> Result<Result<Verified<C>, Refusal>, Waiting>
    where
        C: DeserializeOwned + Send + Sync + 'static,
        F: Fields,
    {
        let token = match self.find(fields) {
            Ok(token) => token,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.scoped().begin(token).map(|verified| granting(token, scopes, verified))
    }

    /// The outcome for the same fields, after the wait.
    pub(super) async fn wait<C, F>(
        &self,
        fields: &F,
        scopes: &[impl AsRef<str>],
        waiting: Waiting,
    ) -> Result<Verified<C>, Refusal>
    where
        C: DeserializeOwned + Send + Sync + 'static,
        F: Fields,
    {
        let token = self.find(fields)?;
        granting(token, scopes, self.scoped().wait(token, waiting).await)
    }

    /// What a refusal brings along, whatever its body says. It is logged here, with what it may not tell.
    pub(super) fn challenge(
        &self,
        refusal: &Refusal,
    ) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        tracing::debug!(code = refusal.code(), detail = %refusal.detail(), "a request is refused");
        let retry = match refusal {
            Refusal::KeysUnavailable(_) => Some((RETRY_AFTER, HeaderValue::from(self.manner.retry_after))),
            _ => None,
        };
        let challenge = self.manner.challenge(refusal).map(|value| (WWW_AUTHENTICATE, value));
        challenge.into_iter().chain(retry)
    }
}

fn plain(refusal: &Refusal) -> String {
    serde_json::json!({"error": refusal.code(), "error_description": refusal.to_string()}).to_string()
}

fn granting<C>(
    token: &str,
    scopes: &[impl AsRef<str>],
    verified: Result<Verified<C>, VerifyError>,
) -> Result<Verified<C>, Refusal> {
    let verified = verified?;
    if scopes.is_empty() || grants(token, scopes) {
        return Ok(verified);
    }
    let scopes: Vec<&str> = scopes.iter().map(AsRef::as_ref).collect();
    Err(Refusal::InsufficientScope(scopes.join(" ")))
}

impl Manner {
    /// RFC 6750 §3: without a token, no error is named; and where no token would do, none is asked for.
    fn challenge(&self, refusal: &Refusal) -> Option<HeaderValue> {
        let mut text = String::from("Bearer");
        let mut add = |name: &str, value: &str| {
            let comma = if text.len() > "Bearer".len() { "," } else { "" };
            text.push_str(&format!("{comma} {name}=\"{}\"", quotable(value)));
        };
        if let Some(realm) = &self.realm {
            add("realm", realm);
        }
        match refusal {
            Refusal::KeysUnavailable(_) => return None,
            Refusal::NoToken => {}
            other => {
                add("error", other.code());
                add("error_description", &other.to_string());
            }
        }
        if let Refusal::InsufficientScope(scopes) = refusal {
            add("scope", scopes);
        }
        // It is printable ASCII.
        HeaderValue::try_from(text).ok()
    }
}

/// What may stand between quotes without being escaped (RFC 6750 §3).
fn quotable(text: &str) -> String {
    let sign = |c: char| match c {
        '"' | '\\' => '\'',
        ' '..='~' => c,
        _ => '?',
    };
    text.chars().map(sign).collect()
}

impl fmt::Debug for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sources, realm, retry_after, content_type, body } = self;
        f.debug_struct("Manner")
            .field("sources", sources)
            .field("realm", realm)
            .field("retry_after", retry_after)
            .field("content_type", content_type)
            .field("body", &body.is_some())
            .finish()
    }
}

/// The header fields of a request, of whichever framework.
pub(super) trait Fields {
    /// Shows the value of each field of that name, in order.
    fn each<'h>(&'h self, name: &HeaderName, see: &mut dyn FnMut(&'h [u8]));
}

impl Fields for HeaderMap {
    fn each<'h>(&'h self, name: &HeaderName, see: &mut dyn FnMut(&'h [u8])) {
        self.get_all(name).iter().for_each(|value| see(value.as_bytes()));
    }
}

/// What stands in one place for a token.
#[derive(Debug, PartialEq, Eq)]
enum Read<'h> {
    None,
    Token(&'h str),
    Wrong,
}

/// `Bearer`, one or more spaces, one token (RFC 9110 §11.4).
fn credentials(value: &[u8]) -> Read<'_> {
    let value = trimmed(value);
    let scheme = value.split(|byte| matches!(byte, b' ' | b'\t')).next().unwrap_or_default();
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return Read::None;
    }
    let rest = value.get(scheme.len()..).unwrap_or_default();
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    token(rest.get(spaces..).unwrap_or_default())
}

/// A token, or the same as in `Authorization`.
fn bare(value: &[u8]) -> Read<'_> {
    let value = trimmed(value);
    match credentials(value) {
        Read::None if value.is_empty() => Read::None,
        Read::None => token(value),
        read => read,
    }
}

/// The cookies of that name (RFC 6265 §5.4), of which browsers send one after another.
fn cookies<'h>(value: &'h [u8], name: &str) -> impl Iterator<Item = Read<'h>> {
    value.split(|byte| *byte == b';').filter_map(move |pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (said, value) = (pair.get(..at)?, pair.get(at + 1..)?);
        (trimmed(said) == name.as_bytes()).then(|| {
            let value = trimmed(value);
            let inside = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
            match inside.unwrap_or(value) {
                b"" => Read::None,
                value => token(value),
            }
        })
    })
}

/// Without the whitespace that may surround a field's value (RFC 9110 §5.5).
fn trimmed(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

/// One word of ASCII. Whether it is a token, the verifier says.
fn token(value: &[u8]) -> Read<'_> {
    match std::str::from_utf8(value) {
        Ok(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => Read::Token(text),
        _ => Read::Wrong,
    }
}

/// The scopes that [`Claims`] asks for, as a type.
///
/// ```
/// use jwks_cache::Scopes;
///
/// struct WriteOrders;
/// impl Scopes for WriteOrders {
///     const ALL: &'static [&'static str] = &["orders:write"];
/// }
/// ```
pub trait Scopes: 'static {
    /// All of them must be granted; none may be empty.
    const ALL: &'static [&'static str];
}

/// No scope at all.
impl Scopes for () {
    const ALL: &'static [&'static str] = &[];
}

/// The claims of a request's token, taken by a handler: it runs only if the token is good, and grants `S`. An extractor
/// of axum (feature `axum`; `Option<Claims<C>>` lets in those without a token) and of actix-web (feature `actix-web`;
/// there `MaybeClaims` does, and `Option` would let in everybody).
///
/// It gives the [`Verified`] token by [`Deref`], and that its claims.
pub struct Claims<C, S = ()> {
    /// The token.
    pub verified: Verified<C>,
    scopes: PhantomData<fn() -> S>,
}

impl<C, S> Claims<C, S> {
    #[cfg_attr(
        not(any(feature = "axum", feature = "actix-web")),
        expect(dead_code, reason = "for frameworks")
    )]
    pub(super) fn new(verified: Verified<C>) -> Self {
        Self { verified, scopes: PhantomData }
    }
}

impl<C, S> Deref for Claims<C, S> {
    type Target = Verified<C>;

    fn deref(&self) -> &Verified<C> {
        &self.verified
    }
}

impl<C, S> Clone for Claims<C, S> {
    fn clone(&self) -> Self {
        Self { verified: self.verified.clone(), scopes: PhantomData }
    }
}

impl<C, S> fmt::Debug for Claims<C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.verified.fmt(f)
    }
}

/// What a framework sends to who is refused; made by the guard that refused.
pub struct Refused {
    refusal: Refusal,
    guard: Guard,
}

impl Refused {
    #[cfg_attr(
        not(any(feature = "axum", feature = "actix-web")),
        expect(dead_code, reason = "for frameworks")
    )]
    pub(super) fn new(refusal: Refusal, guard: &Guard) -> Self {
        Self { refusal, guard: guard.clone() }
    }

    /// Why.
    #[must_use]
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// The answer. What it may not tell is logged.
    #[must_use]
    pub fn response<B: From<String>>(&self) -> Response<B> {
        self.guard.response(&self.refusal)
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Refused").field(&self.refusal).finish()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.refusal.source()
    }
}
