//! How a request's body and query are read: bounded, and refused by the name of the field that is wrong. Which fields there
//! are is the wire's to say.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use crate::problem::{Code, Problem};
use crate::wire::Object;

/// The most bytes of a body: a registration with certificates and a thousand pins has fewer.
pub(super) const MOST_BYTES: usize = 256 * 1024;

/// How like a name has to be to be suggested.
const ALIKE: f64 = 0.75;

/// A body in JSON.
pub(super) struct Json<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|of| of.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let what = "the body must be JSON, and say so";
            return Err(Problem::new(Code::UnsupportedMediaType, what)
                .parameter("Content-Type")
                .remedy("send Content-Type: application/json"));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|error| {
            if error.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
                Problem::new(Code::BodyTooLarge, format!("the body has more than {MOST_BYTES} bytes"))
            } else {
                Problem::new(Code::InvalidInput, "the body broke off")
            }
        })?;
        read(&bytes).map(Self)
    }
}

/// The query.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Query(asked) = Query::try_from_uri(&parts.uri)
            .map_err(|error| Problem::new(Code::InvalidInput, error.body_text()).parameter("query"))?;
        Ok(Self(asked))
    }
}

/// Reads a value. What was sent is not quoted: it may be a secret at the wrong place.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut document = serde_json::Deserializer::from_slice(bytes);
    let not_json = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        Problem::new(Code::InvalidInput, format!("the body is not JSON from line {line}, column {column} on"))
    };
    let Object(value) = serde_path_to_error::deserialize(&mut document).map_err(|error| {
        let path = pointer(error.path());
        let error = error.into_inner();
        if error.is_data() { wrong_field(path, &error.to_string()) } else { not_json(error) }
    })?;
    document.end().map_err(not_json)?;
    Ok(value)
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &Path) -> String {
    let part = |segment: &Segment| match segment {
        Segment::Map { key } => Some(escaped(key)),
        Segment::Seq { index } => Some(format!("/{index}")),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    path.iter().filter_map(part).collect()
}

fn escaped(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Serde's message, without where it is and without what was sent.
fn wrong_field(path: String, message: &str) -> Problem {
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    let named = |rest: &str| rest.split('`').next().unwrap_or_default().to_owned();
    let refuse = |at: &str, what: &str| {
        let field = at.trim_start_matches('/').replace('/', ".");
        let field = if field.is_empty() { "the body" } else { &field };
        Problem::new(Code::InvalidInput, format!("{field}: {what}")).at(at)
    };
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let name = named(rest);
        let at = path.strip_suffix(&escaped(&name)).unwrap_or(&path).to_owned() + &escaped(&name);
        let problem = refuse(&at, "is no setting");
        let known = rest.split('`').skip(2).step_by(2);
        let like = |known: &&str| strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase());
        let best =
            known.max_by(|one, other| like(one).total_cmp(&like(other))).filter(|best| like(best) >= ALIKE);
        return match (best, &*name) {
            (_, "proxy" | "file") => problem.remedy("only the configuration file may set it"),
            (Some(best), _) => problem.remedy(format!("did you mean {best}?")),
            (None, _) => problem.remedy("remove it; /openapi.json has the settings that there are"),
        };
    }
    if let Some(rest) = message.strip_prefix("missing field `") {
        return refuse(&(path + &escaped(&named(rest))), "is missing");
    }
    if let Some(rest) = message.strip_prefix("duplicate field `") {
        return refuse(&(path + &escaped(&named(rest))), "is there twice; remove one");
    }
    match message.split_once(", expected ") {
        Some((_, expected)) => refuse(&path, &format!("must be {expected}")),
        None => refuse(&path, message),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::ProviderSettings;

    fn refused(body: &str) -> (String, String, String) {
        let problem = read::<ProviderSettings>(body.as_bytes()).map(drop).unwrap_err();
        let told = serde_json::to_value(problem.details()).unwrap();
        let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
        (text("pointer"), text("detail"), text("remedy"))
    }

    #[test]
    fn a_refusal_names_the_field_and_never_quotes_what_was_sent() {
        for (body, pointer, detail, remedy) in [
            (r#"{"jwksURL": "x"}"#, "/jwksURL", "jwksURL: is no setting", "did you mean jwksUrl?"),
            (r#"{"jwks_url": "x"}"#, "/jwks_url", "jwks_url: is no setting", "did you mean jwksUrl?"),
            (
                r#"{"retryPolicy": {"deadlin": "PT1S"}}"#,
                "/retryPolicy/deadlin",
                "retryPolicy.deadlin: is no setting",
                "did you mean deadline?",
            ),
            (
                r#"{"bearerToken": {"file": "/x"}}"#,
                "/bearerToken/file",
                "bearerToken.file: is no setting",
                "only the configuration file may set it",
            ),
            (
                r#"{"zzz": 1}"#,
                "/zzz",
                "zzz: is no setting",
                "remove it; /openapi.json has the settings that there are",
            ),
            (
                r#"{"minTtl": "s3cret"}"#,
                "/minTtl",
                "minTtl: must be a duration, as in PT30S, PT24H or 30s",
                "",
            ),
            (r#"{"maxKeys": "s3cret"}"#, "/maxKeys", "maxKeys: must be u32", ""),
            (r#"{"httpStrict": 1, "httpStrict": 2}"#, "/httpStrict", "httpStrict: must be a boolean", ""),
            (
                r#"{"httpStrict": true, "httpStrict": true}"#,
                "/httpStrict",
                "httpStrict: is there twice; remove one",
                "",
            ),
            (
                r#"{"allowedDomains": ["a", 7]}"#,
                "/allowedDomains/1",
                "allowedDomains.1: must be a string",
                "",
            ),
            ("[]", "", "the body: must be an object", ""),
            (r#"{"tls": []}"#, "/tls", "tls: must be an object", ""),
            ("{\"jwksUrl\":", "", "the body is not JSON from line 1, column 11 on", ""),
            ("{} {}", "", "the body is not JSON from line 1, column 4 on", ""),
        ] {
            let want = (pointer.to_owned(), detail.to_owned(), remedy.to_owned());
            assert_eq!(refused(body), want, "{body}");
        }
        for secret in
            [json!({"bearerToken": "s3cret"}), json!({"headers": "s3cret"}), json!({"headers": {"a": 5}})]
        {
            let (pointer, detail, _) = refused(&secret.to_string());
            assert!(!pointer.is_empty() && !detail.contains("s3cret"), "{pointer} {detail}");
        }
    }
}
