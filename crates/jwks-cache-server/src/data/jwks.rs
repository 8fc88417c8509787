//! The key set, and single keys of it, as clients of every language read them.

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::header::{AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, LAST_MODIFIED, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use jwks_cache::ServedKeys;
use url::form_urlencoded;

use super::precondition::is_unchanged;
use super::shelf::Representation;
use super::{Names, Plane, cache_control, coding, for_everyone, refusal, unknown};
use crate::problem::{Code, Problem};

/// RFC 7517 §8.5.2.
const JWK_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");

const PEM: HeaderValue = HeaderValue::from_static("application/x-pem-file");

/// `GET …/jwks`, and `?kid=` for the keys of one kid.
pub(super) async fn set(
    State(plane): State<Plane>,
    names: Names<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Ok(Path((tenant, provider))) = names else { return unknown() };
    let kid = match kid(query.as_deref()) {
        Ok(kid) => kid,
        Err(problem) => return refusal(problem),
    };
    let keys = match plane.keys(&tenant, &provider, kid.as_deref()).await {
        Ok(keys) => keys,
        Err(answer) => return answer,
    };
    let now = u64::try_from(plane.clock.wall().timestamp()).unwrap_or(0);
    let rendered = plane.shelf.take(&plane.registry, (&tenant, &provider), keys.text(), now);
    let modified = rendered.modified();
    match kid {
        // Nothing of it is kept: who asks may make up kids without end.
        Some(kid) => {
            let part = Representation::of(Bytes::copy_from_slice(keys.only(&kid).as_bytes()));
            Answer { kind: JWK_SET, content: &part, modified, coding: Coding::Plain }.to(&headers, &keys)
        }
        None => {
            let gzip = if coding::prefers_gzip(&headers) { rendered.gzip() } else { None };
            let (content, coding) = match gzip {
                Some(gzip) => (gzip, Coding::Gzip),
                None => (rendered.plain(), Coding::Plain),
            };
            Answer { kind: JWK_SET, content, modified, coding }.to(&headers, &keys)
        }
    }
}

/// `GET …/keys/{kid}.pem`: the keys of this kid that may verify.
pub(super) async fn pem(
    State(plane): State<Plane>,
    names: Names<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let Ok(Path((tenant, provider, file))) = names else { return unknown() };
    let no_key = || {
        refusal(Problem::new(Code::NotFound, "no key of this name is served; the route is keys/{kid}.pem"))
    };
    let Some(kid) = file.strip_suffix(".pem") else { return no_key() };
    let keys = match plane.keys(&tenant, &provider, Some(kid)).await {
        Ok(keys) => keys,
        Err(answer) => return answer,
    };
    let Some(pem) = keys.pem(kid) else { return no_key() };
    let content = Representation::of(pem.into());
    Answer { kind: PEM, content: &content, modified: None, coding: Coding::One }.to(&headers, &keys)
}

/// The kid that is asked for.
fn kid(query: Option<&str>) -> Result<Option<String>, Problem> {
    let all = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut kids = all.filter(|(name, _)| name == "kid").map(|(_, kid)| kid.into_owned());
    match (kids.next(), kids.next()) {
        (kid, None) => Ok(kid),
        _ => Err(Problem::new(Code::InvalidInput, "kid: may stand in the query once").parameter("kid")),
    }
}

/// How content is coded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Never otherwise.
    One,
    /// It could have been gzip.
    Plain,
    Gzip,
}

/// What is answered, if the client does not have it.
pub(super) struct Answer<'a> {
    pub(super) kind: HeaderValue,
    pub(super) content: &'a Representation,
    pub(super) modified: Option<&'a (u64, HeaderValue)>,
    pub(super) coding: Coding,
}

impl Answer<'_> {
    /// To these request headers, with the times of these keys.
    pub(super) fn to(self, asked: &HeaderMap, keys: &ServedKeys) -> Response {
        let unchanged = is_unchanged(asked, &self.content.etag, self.modified.map(|modified| modified.0));
        let body = if unchanged { Body::empty() } else { Body::from(self.content.bytes.clone()) };
        let mut answer = Response::new(body);
        let headers = answer.headers_mut();
        for_everyone(headers);
        headers.insert(ETAG, self.content.etag.clone());
        headers.insert(CACHE_CONTROL, cache_control(keys));
        // `max-age` is what is left of the lifetime already. A cache deducts `Age` from it (RFC 9111 §4.2), so with the age
        // since the provider answered, time would count twice: for this answer, made now, it is 0.
        headers.insert(AGE, HeaderValue::from_static("0"));
        if let Some((_, date)) = self.modified {
            headers.insert(LAST_MODIFIED, date.clone());
        }
        if self.coding != Coding::One {
            headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        if unchanged {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            return answer;
        }
        headers.insert(CONTENT_TYPE, self.kind);
        if self.coding == Coding::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer
    }
}
