//! Which key would verify a token, or why none: for people who wonder.

use axum::extract::State as Extract;

use super::access::Reach;
use super::body::Json;
use super::guard::Caller;
use super::{Reply, State};
use crate::problem::{Code, Problem, ProblemDetails};
use crate::wire::{Explained, ToExplain, Within};

/// As long as a token may be that is verified.
const LONGEST_TOKEN: usize = 16 * 1024;

/// Say which key would verify a token
///
/// Nothing is counted, started or waited for, and nothing of the token is logged.
#[utoipa::path(
    post,
    path = "/explain",
    operation_id = "explainToken",
    tag = "status",
    request_body(content = ToExplain, description = "The token or its header, and whose keys to look at."),
    responses(
        (status = 200, description = "The key, or why there is none.", body = Explained),
        (status = 400, response = ProblemDetails),
        (status = 404, response = ProblemDetails),
        (status = 413, response = ProblemDetails),
        (status = 415, response = ProblemDetails),
    )
)]
pub(super) async fn explain(
    Extract(state): Extract<State>,
    Caller(grant): Caller,
    Json(ToExplain { token, within }): Json<ToExplain>,
) -> Result<Reply<Explained>, Problem> {
    if token.chars().count() > LONGEST_TOKEN {
        let what = format!("token: must be {LONGEST_TOKEN} characters at most");
        return Err(Problem::new(Code::InvalidInput, what).at("/token"));
    }
    let verifier = state.verifier();
    let explanation = match within {
        Some(Within { tenant_id: tenant, provider_id: Some(provider) }) => {
            if !grant.tenants.covers(&tenant) {
                return Err(Problem::not_registered(&tenant, &provider));
            }
            state.registry().provider(&tenant, &provider)?;
            verifier.of_provider(&tenant, &provider).explain(&token)
        }
        Some(Within { tenant_id: tenant, provider_id: None }) if grant.tenants.covers(&tenant) => {
            verifier.in_tenant(&tenant).explain(&token)
        }
        // As a tenant without providers: no tenant has this name.
        Some(_) => verifier.in_tenant("").explain(&token),
        None if grant.tenants == Reach::All => verifier.explain(&token),
        None => {
            let what = "these credentials do not reach all tenants";
            return Err(Problem::new(Code::Forbidden, what).at("/within").remedy("say within which tenant"));
        }
    };
    Ok(Reply(explanation.into()))
}
