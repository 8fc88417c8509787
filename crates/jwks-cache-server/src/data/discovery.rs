//! The part of a provider's discovery document that verifiers read (OpenID Connect Discovery 1.0 §3): its own issuer, and
//! our address of its keys. And what that address begins with.

use std::net::Ipv6Addr;

use axum::extract::{Path, State};
use axum::response::Response;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri};
use serde_json::json;

use super::jwks::{Answer, Coding};
use super::shelf::Representation;
use super::{Names, Plane, refusal, unknown};
use crate::config::PublicUrl;
use crate::problem::{Code, Problem};

/// What URLs of this server begin with.
pub(super) enum Base {
    /// This, without a slash at the end.
    Known(String),
    /// The scheme, and the host that a request names.
    Asked(&'static str),
}

impl Base {
    pub(super) fn new(public_url: Option<&PublicUrl>, tls: bool) -> Self {
        match public_url {
            Some(url) => Self::Known(url.as_str().to_owned()),
            None => Self::Asked(if tls { "https" } else { "http" }),
        }
    }

    fn of(&self, uri: &Uri, headers: &HeaderMap) -> Option<String> {
        match self {
            Self::Known(base) => Some(base.clone()),
            Self::Asked(scheme) => Some(format!("{scheme}://{}", host(uri, headers)?)),
        }
    }
}

/// `GET …/.well-known/openid-configuration`
pub(super) async fn document(
    State(plane): State<Plane>,
    names: Names<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let Ok(Path((tenant, provider))) = names else { return unknown() };
    let keys = match plane.keys(&tenant, &provider, None).await {
        Ok(keys) => keys,
        Err(answer) => return answer,
    };
    let Some(issuer) = keys.issuer() else {
        let problem = Problem::new(Code::NotFound, "this provider is registered without an issuer");
        return refusal(problem.remedy("read its keys at …/jwks, or register it with an issuer"));
    };
    let Some(base) = plane.base.of(&uri, &headers) else {
        let problem = Problem::new(Code::InvalidInput, "Host: is no host and port").parameter("Host");
        return refusal(problem);
    };
    let document = json!({
        "issuer": issuer,
        // Names are letters, digits and hyphens.
        "jwks_uri": format!("{base}/tenants/{tenant}/providers/{provider}/jwks"),
        "id_token_signing_alg_values_supported": keys.algorithms(),
    });
    let content = Representation::of(document.to_string().into());
    let kind = HeaderValue::from_static("application/json");
    Answer { kind, content: &content, modified: None, coding: Coding::One }.to(&headers, &keys)
}

/// The host that a request names (RFC 9110 §7.2), if it is one: what it says comes back in a URL.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let named = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => {
            let mut lines = headers.get_all(HOST).iter();
            let (line, None) = (lines.next()?, lines.next()) else { return None };
            line.to_str().ok()?
        }
    };
    let authority: Authority = named.parse().ok()?;
    let (host, rest) = (authority.host(), named.strip_prefix(authority.host())?);
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok() && port.bytes().all(|digit| digit.is_ascii_digit()),
        None => rest.is_empty(),
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let sound = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => (1..=253).contains(&host.len()) && host.bytes().all(legal),
    };
    (sound && port).then(|| named.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_taken_at_its_word_only_if_it_is_one() {
        let table = [
            ("id.example.com", true),
            ("id.example.com:8443", true),
            ("keys_1", true),
            ("127.0.0.1:80", true),
            ("[::1]:80", true),
            ("[::1]", true),
            ("", false),
            (":80", false),
            ("a:", false),
            ("a:+80", false),
            ("a:99999", false),
            ("a:80:80", false),
            ("user@a", false),
            ("a/../b", false),
            ("a?b", false),
            ("a#b", false),
            ("a\\b", false),
            ("a\"><script>", false),
            ("a b", false),
            ("a,b", false),
            ("[::g]", false),
            ("[::1", false),
            ("%61", false),
        ];
        for (named, want) in table {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(named));
            assert_eq!(host(&Uri::from_static("/x"), &headers).is_some(), want, "{named}");
        }
        let mut two = HeaderMap::new();
        two.append(HOST, HeaderValue::from_static("a"));
        two.append(HOST, HeaderValue::from_static("b"));
        assert_eq!(host(&Uri::from_static("/x"), &two), None);
        assert_eq!(host(&Uri::from_static("/x"), &HeaderMap::new()), None);
        assert_eq!(host(&Uri::from_static("http://c/x"), &two).as_deref(), Some("c"));
        assert_eq!(host(&Uri::from_static("http://[::g]/x"), &two), None);
    }
}
