//! What a refusal says: problem details (RFC 9457) that name the field and what to do about it. Which route refuses
//! what is not known here.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use jwks_cache::{Error, ErrorKind};
use serde::Serialize;
use utoipa::{ToResponse, ToSchema};

/// Where the codes are explained.
const PAGE: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/problems.md#");

/// Why a request was refused; `docs/problems.md` has a row for each. API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    InvalidInput,
    Unauthenticated,
    Forbidden,
    CrossSite,
    RefusedByPolicy,
    NotFound,
    NotRegistered,
    Removed,
    MethodNotAllowed,
    ConfiguredInFile,
    PreconditionFailed,
    BodyTooLarge,
    UnsupportedMediaType,
    RefreshFailed,
    KeysUnavailable,
    StoreUnavailable,
    TimedOut,
    Internal,
}

impl Code {
    #[cfg(test)]
    const ALL: [Self; 17] = [
        Self::InvalidInput,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::CrossSite,
        Self::RefusedByPolicy,
        Self::NotFound,
        Self::NotRegistered,
        Self::Removed,
        Self::MethodNotAllowed,
        Self::ConfiguredInFile,
        Self::PreconditionFailed,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::RefreshFailed,
        Self::KeysUnavailable,
        Self::StoreUnavailable,
        Self::TimedOut,
        Self::Internal,
    ];

    /// Its status, its name and its title.
    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InvalidInput => {
                (StatusCode::BAD_REQUEST, "invalid_input", "Something given breaks its rule")
            }
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated", "Who asks is not known"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Who asks may not do this"),
            Self::CrossSite => (StatusCode::FORBIDDEN, "cross_site", "Another site's page may not ask"),
            Self::RefusedByPolicy => {
                (StatusCode::FORBIDDEN, "refused_by_policy", "The operator's policy forbids it")
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "There is no such thing"),
            Self::NotRegistered => (StatusCode::NOT_FOUND, "not_registered", "There is no such provider"),
            Self::Removed => (StatusCode::GONE, "removed", "There was such a provider"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "The route has no such method")
            }
            Self::ConfiguredInFile => (
                StatusCode::CONFLICT,
                "configured_in_file",
                "The configuration file says how this provider is",
            ),
            Self::PreconditionFailed => {
                (StatusCode::PRECONDITION_FAILED, "precondition_failed", "It is not as it was expected to be")
            }
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large"),
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "The body is not said to be JSON",
            ),
            Self::RefreshFailed => {
                (StatusCode::BAD_GATEWAY, "refresh_failed", "The provider gave no key set")
            }
            Self::KeysUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "keys_unavailable", "No keys are at hand now")
            }
            Self::StoreUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "It could not be kept for a restart")
            }
            Self::TimedOut => (StatusCode::SERVICE_UNAVAILABLE, "timed_out", "The request took too long"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed"),
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    pointer: Option<Box<str>>,
    parameter: Option<Box<str>>,
    remedy: Option<Box<str>>,
    /// `WWW-Authenticate`.
    challenge: Option<&'static str>,
}

/// Why a request was refused (RFC 9457).
#[derive(Debug, Serialize, ToSchema, ToResponse)]
#[response(
    description = "Refused; the body says why.",
    content_type = "application/problem+json",
    example = json!({
        "type": "https://github.com/jwks-cache/jwks-cache/blob/main/docs/problems.md#invalid_input",
        "title": "Something given breaks its rule",
        "status": 400,
        "detail": "maxTtl: must be at least min_ttl (30s)",
        "error": "invalid_input",
        "message": "maxTtl: must be at least min_ttl (30s)",
        "pointer": "/maxTtl",
    })
)]
pub(crate) struct ProblemDetails {
    /// What kind of problem this is: a page that explains it.
    #[serde(rename = "type")]
    #[schema(format = "uri")]
    kind: String,
    /// The same for every problem of this kind.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong here.
    detail: String,
    /// A short name of the kind, for programs.
    error: &'static str,
    /// The same as `detail`.
    message: String,
    /// Which field of the body is meant, as a JSON pointer (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pointer: Option<Box<str>>,
    /// Which part of the path, the query or the headers is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    parameter: Option<Box<str>>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    remedy: Option<Box<str>>,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), pointer: None, parameter: None, remedy: None, challenge: None }
    }

    /// Names the field of the body, as a JSON pointer.
    pub(crate) fn at(mut self, pointer: impl Into<Box<str>>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// Names the parameter or header.
    pub(crate) fn parameter(mut self, name: impl Into<Box<str>>) -> Self {
        self.parameter = Some(name.into());
        self
    }

    /// Says what to do.
    pub(crate) fn remedy(mut self, remedy: impl Into<Box<str>>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Says how to be let in.
    pub(crate) fn challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// The same whether there is no such provider or whoever asks may not know of it.
    pub(crate) fn not_registered(tenant: &str, provider: &str) -> Self {
        let what =
            format!("provider {tenant}/{provider} is not registered, or these credentials do not reach it");
        Self::new(Code::NotRegistered, what)
    }

    /// What the answer says.
    pub(crate) fn details(self) -> ProblemDetails {
        let (status, error, title) = self.code.row();
        ProblemDetails {
            kind: format!("{PAGE}{error}"),
            title,
            status: status.as_u16(),
            message: self.detail.clone(),
            detail: self.detail,
            error,
            pointer: self.pointer,
            parameter: self.parameter,
            remedy: self.remedy,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotRegistered { tenant, provider } => Self::not_registered(&tenant, &provider),
            Error::Validation { field: "tenant_id", reason } => {
                Self::new(Code::InvalidInput, format!("tenant: {reason}")).parameter("tenant")
            }
            Error::Validation { field: "provider_id", reason } => {
                Self::new(Code::InvalidInput, format!("provider: {reason}")).parameter("provider")
            }
            Error::Validation { field, reason } => {
                let field = camel_case(field);
                Self::new(Code::InvalidInput, format!("{field}: {reason}"))
                    .at(format!("/{}", field.replace('.', "/")))
            }
            Error::Security(reason) => Self::new(Code::RefusedByPolicy, reason),
            Error::Store(error) => Self::new(Code::StoreUnavailable, error.to_string()),
            Error::HttpStatus { .. } | Error::Fetch(_) => Self::new(Code::RefreshFailed, text),
            other if other.kind() == ErrorKind::KeysUnavailable => Self::new(Code::KeysUnavailable, text),
            _ => Self::new(Code::InvalidInput, text),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, ..) = self.code.row();
        let challenge = self.challenge;
        // Texts and numbers only: it cannot fail.
        let body = serde_json::to_vec(&self.details()).unwrap_or_default();
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The library's name of a setting, as the wire has it.
pub(crate) fn camel_case(name: &str) -> String {
    let mut upper = false;
    let mut camel = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '_' => upper = true,
            _ if std::mem::take(&mut upper) => camel.push(letter.to_ascii_uppercase()),
            _ => camel.push(letter),
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_row_in_the_docs() {
        let page = include_str!("../../../docs/problems.md");
        for code in Code::ALL {
            let (status, name, _) = code.row();
            assert!(page.contains(&format!("\n## {name}\n\n{}", status.as_u16())), "{name}");
        }
    }

    #[test]
    fn a_broken_setting_is_named_as_the_wire_has_it() {
        let error =
            Error::Validation { field: "retry_policy.attempt_timeout", reason: "too short".to_owned() };
        let problem = Problem::from(error);
        assert_eq!(problem.pointer.as_deref(), Some("/retryPolicy/attemptTimeout"));
        assert_eq!(problem.detail, "retryPolicy.attemptTimeout: too short");
        assert_eq!(problem.details().status, 400);
    }
}
