//! Which key would verify a token, or why none: for people who wonder.

use axum::extract::State as Extract;

use super::access::Reach;
use super::body::Json;
use super::guard::Caller;
use super::{Reply, State};
use crate::problem::{Code, Problem, ProblemDetails};
use crate::wire::{Explained, ToExplain};

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
    Json(ToExplain { token, tenant_id, provider_id }): Json<ToExplain>,
) -> Result<Reply<Explained>, Problem> {
    let verifier = state.verifier();
    let explanation = match (&tenant_id, &provider_id) {
        (Some(tenant), Some(provider)) => {
            if !grant.tenants.covers(tenant) {
                return Err(Problem::not_registered(tenant, provider));
            }
            state.registry().provider(tenant, provider)?;
            verifier.of_provider(tenant, provider).explain(&token)
        }
        // A tenant without providers, which no name is.
        (Some(tenant), None) if !grant.tenants.covers(tenant) => verifier.in_tenant("").explain(&token),
        (Some(tenant), None) => verifier.in_tenant(tenant).explain(&token),
        (None, Some(_)) => {
            let what = "tenantId: is missing; a provider's name means nothing without its tenant";
            return Err(Problem::new(Code::InvalidInput, what).at("/tenantId"));
        }
        (None, None) if grant.tenants == Reach::All => verifier.explain(&token),
        (None, None) => {
            let what = "tenantId: is missing; these credentials do not reach all tenants";
            return Err(Problem::new(Code::InvalidInput, what).at("/tenantId"));
        }
    };
    Ok(Reply(explanation.into()))
}
