//! Nobody gets past here unknown: who asks, whether they may, and what the audit log says of it. What is then done is the
//! routes' to say.

use std::sync::{Arc, OnceLock};

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, MatchedPath, Path, RawPathParams, Request, State as Extract};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::State;
use super::access::{Grant, Peer, Presented, Right, Stranger};
use crate::logs::AUDIT;
use crate::problem::{Code, Problem};
use crate::terminal::shown;

/// Lets known callers through, and tells the audit log how it ended.
pub(super) async fn guard(
    Extract(state): Extract<State>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    route: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let who = from_here(request.headers())
        .and_then(|()| state.access().who(presented(request.headers()), &peer).map_err(unknown));
    // What is no text names nothing; the routes refuse it, each after asking who asks.
    let param = |name: &str| {
        let mut all = params.iter().flatten();
        all.find(|(of, _)| *of == name).map(|(_, value)| shown(value, 128)).unwrap_or_default()
    };
    let mut line = Line {
        who: who.as_ref().map_or_else(|_| "unknown".to_owned(), |grant| grant.name.clone()),
        method: request.method().clone(),
        route: route.as_ref().map_or("", MatchedPath::as_str).to_owned(),
        tenant: param("tenant"),
        provider: param("provider"),
        id: param("id"),
        subject: Subject::default(),
        status: None,
    };
    let mut response = match who {
        Ok(grant) => {
            request.extensions_mut().insert(grant);
            request.extensions_mut().insert(line.subject.clone());
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    };
    line.status = Some(response.status());
    drop(line);
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A line of the audit log. It is written when this is dropped, so also when the client hangs up or time is up first: then
/// there is no status (0), and what was begun goes on.
struct Line {
    who: String,
    method: Method,
    route: String,
    tenant: String,
    provider: String,
    id: String,
    subject: Subject,
    status: Option<StatusCode>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let Self { who, route, tenant, provider, id, .. } = self;
        let (method, subject) = (self.method.as_str(), self.subject.0.get().unwrap_or(id));
        let status = self.status.map_or(0, |status| status.as_u16());
        let looks = self.method == Method::GET && self.status.is_some_and(|status| status.is_success());
        if looks || self.method == Method::HEAD {
            tracing::debug!(target: AUDIT, who, method, route, tenant, provider, subject, status, "control");
        } else {
            tracing::info!(target: AUDIT, who, method, route, tenant, provider, subject, status, "control");
        }
    }
}

/// What a route does something to, beside the provider, for the audit log: said before it is done.
#[derive(Clone, Default)]
pub(super) struct Subject(Arc<OnceLock<String>>);

impl Subject {
    /// This kid or thumbprint.
    pub(super) fn is(&self, id: &str) {
        // One request has one.
        let _ = self.0.set(shown(id, 128));
    }
}

/// Refuses what another site's page has a browser ask: a certificate, or a socket on loopback, would let it in.
fn from_here(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let ours = match (text(header::HeaderName::from_static("sec-fetch-site")), text(header::ORIGIN)) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        // A browser that is too old to say it.
        (None, Some(origin)) => {
            origin.split_once("://").is_some_and(|(_, host)| Some(host) == text(header::HOST))
        }
        (None, None) => true,
    };
    if ours {
        return Ok(());
    }
    Err(Problem::new(Code::CrossSite, "a page of another site asked, through a browser")
        .remedy("ask from a program, or from a page that this server gave"))
}

/// The bearer token (RFC 6750 §2.1); the scheme in any case (RFC 9110 §11.1).
fn presented(headers: &HeaderMap) -> Presented<'_> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else {
        let none = !headers.contains_key(header::AUTHORIZATION);
        return if none { Presented::Nothing } else { Presented::Unreadable };
    };
    match one.to_str().ok().and_then(|of| of.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Presented::Token(token.trim()),
        _ => Presented::Unreadable,
    }
}

/// A refusal that says how to be known (RFC 6750 §3).
fn unknown(stranger: Stranger) -> Problem {
    let (what, challenge) = match stranger {
        Stranger::WithoutToken => (
            "this route needs a bearer token, or a client certificate that is known",
            r#"Bearer realm="jwks-cache""#,
        ),
        Stranger::WrongToken => {
            ("the bearer token is not known", r#"Bearer realm="jwks-cache", error="invalid_token""#)
        }
    };
    Problem::new(Code::Unauthenticated, what).challenge(challenge)
}

/// Which provider a path names.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ProviderPath {
    /// The tenant.
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9-]{1,64}$", example = "acme")]
    pub(super) tenant: String,
    /// The provider.
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]{1,64}$", example = "main")]
    pub(super) provider: String,
}

/// A provider's name, asked by somebody who may look at it.
pub(super) struct MayRead(pub(super) ProviderPath);

/// A provider's name, asked by somebody who may change it.
pub(super) struct MayWrite(pub(super) ProviderPath, pub(super) Arc<Grant>);

impl FromRequestParts<State> for MayRead {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        named(parts, state).await.map(|(path, _)| Self(path))
    }
}

impl FromRequestParts<State> for MayWrite {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let (path, grant) = named(parts, state).await?;
        if grant.right < Right::Write {
            let what = "these credentials only read";
            return Err(Problem::new(Code::Forbidden, what)
                .remedy("ask with credentials whose right is write")
                .challenge(r#"Bearer realm="jwks-cache", error="insufficient_scope""#));
        }
        Ok(Self(path, grant))
    }
}

async fn named(parts: &mut Parts, state: &State) -> Result<(ProviderPath, Arc<Grant>), Problem> {
    let Caller(grant) = Caller::from_request_parts(parts, state).await?;
    let Names(path) = Names::<ProviderPath>::from_request_parts(parts, state).await?;
    // As if it were not there: whoever may not look learns nothing of who is.
    if !grant.tenants.covers(&path.tenant) {
        return Err(Problem::not_registered(&path.tenant, &path.provider));
    }
    Ok((path, grant))
}

/// The names in a path. To be taken after who asks is known: the order of a handler's arguments counts.
pub(super) struct Names<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<State> for Names<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let Path(names) = Path::<T>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::new(Code::InvalidInput, error.body_text()).parameter("path"))?;
        Ok(Self(names))
    }
}

/// Who asks.
pub(super) struct Caller(pub(super) Arc<Grant>);

impl FromRequestParts<State> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &State) -> Result<Self, Problem> {
        // A route that stands outside the guard has nobody.
        parts.extensions.get::<Arc<Grant>>().cloned().map(Self).ok_or_else(|| unknown(Stranger::WithoutToken))
    }
}
