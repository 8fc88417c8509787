//! How providers are doing: one, and lists in pages. Who asks sees the tenants that they reach, and no others.

use std::collections::BTreeMap;

use axum::extract::State as Extract;
use jwks_cache::ProviderState;
use serde::Deserialize;
use utoipa::IntoParams;

use super::access::Grant;
use super::body::Asked;
use super::book::Name;
use super::guard::{Caller, MayRead, Names, ProviderPath};
use super::{Reply, State};
use crate::problem::{Code, Problem, ProblemDetails};
use crate::wire::{Origin, Status, Statuses, Tenant, Tenants};

/// How many items a page has, and may have.
const USUAL: u16 = 100;
const MOST: u16 = 500;

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// The most items.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u16>,
    /// Where to go on: `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Which page of which statuses.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// The most items.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u16>,
    /// Where to go on: `nextCursor` of the page before.
    cursor: Option<String>,
    /// Only these.
    #[param(value_type = Option<crate::wire::State>, inline)]
    state: Option<ProviderState>,
    /// Only those that were registered there.
    #[param(inline)]
    origin: Option<Origin>,
    /// Only those whose last refresh failed, or did not.
    failing: Option<bool>,
}

/// Show how a provider is doing
#[utoipa::path(
    get,
    path = "/tenants/{tenant}/providers/{provider}/status",
    operation_id = "getStatus",
    tag = "status",
    params(ProviderPath),
    responses(
        (status = 200, description = "The status.", body = Status),
        (status = 400, response = ProblemDetails),
        (status = 404, response = ProblemDetails),
    )
)]
pub(super) async fn status(
    Extract(state): Extract<State>,
    MayRead(path): MayRead,
) -> Result<Reply<Status>, Problem> {
    Ok(Reply(state.status(&(path.tenant, path.provider)).await?))
}

/// List the tenants
///
/// Those that have providers, as far as the credentials reach.
#[utoipa::path(
    get,
    path = "/tenants",
    operation_id = "listTenants",
    tag = "status",
    params(Page),
    responses((status = 200, description = "A page of tenants.", body = Tenants), (status = 400, response = ProblemDetails))
)]
pub(super) async fn tenants(
    Extract(state): Extract<State>,
    Caller(grant): Caller,
    Asked(page): Asked<Page>,
) -> Result<Reply<Tenants>, Problem> {
    let (limit, after) = cut(page.limit, page.cursor.as_deref())?;
    let mut counts = BTreeMap::<String, usize>::new();
    for (tenant, _) in state.registry().names() {
        if grant.tenants.covers(&tenant) && after.as_ref().is_none_or(|(after, _)| tenant > *after) {
            *counts.entry(tenant).or_default() += 1;
        }
    }
    let more = counts.len() > limit;
    let items = counts.into_iter().take(limit).map(|(tenant_id, providers)| Tenant { tenant_id, providers });
    let items: Vec<Tenant> = items.collect();
    let last = items.last().filter(|_| more).map(|last| cursor(&(last.tenant_id.clone(), String::new())));
    Ok(Reply(Tenants { items, next_cursor: last }))
}

/// List a tenant's providers
///
/// Empty where there are none, or the credentials do not reach the tenant.
#[utoipa::path(
    get,
    path = "/tenants/{tenant}/providers",
    operation_id = "listProviders",
    tag = "status",
    params(("tenant" = String, Path, description = "The tenant.", example = "acme"), Filter),
    responses((status = 200, description = "A page of statuses.", body = Statuses), (status = 400, response = ProblemDetails))
)]
pub(super) async fn providers(
    Extract(state): Extract<State>,
    Caller(grant): Caller,
    Names(tenant): Names<String>,
    Asked(filter): Asked<Filter>,
) -> Result<Reply<Statuses>, Problem> {
    list(&state, &grant, |of| *of == tenant, &filter).await
}

/// List the statuses of all providers
///
/// As far as the credentials reach.
#[utoipa::path(
    get,
    path = "/statuses",
    operation_id = "listStatuses",
    tag = "status",
    params(Filter),
    responses((status = 200, description = "A page of statuses.", body = Statuses), (status = 400, response = ProblemDetails))
)]
pub(super) async fn statuses(
    Extract(state): Extract<State>,
    Caller(grant): Caller,
    Asked(filter): Asked<Filter>,
) -> Result<Reply<Statuses>, Problem> {
    list(&state, &grant, |_| true, &filter).await
}

async fn list(
    state: &State,
    grant: &Grant,
    of_tenant: impl Fn(&String) -> bool,
    filter: &Filter,
) -> Result<Reply<Statuses>, Problem> {
    let (limit, after) = cut(filter.limit, filter.cursor.as_deref())?;
    let wanted = |name: &Name| {
        of_tenant(&name.0) && grant.tenants.covers(&name.0) && after.as_ref().is_none_or(|after| name > after)
    };
    let mut names = state.registry().names().into_iter().filter(wanted).peekable();
    let (mut items, mut next_cursor) = (Vec::new(), None);
    while let Some(name) = names.next() {
        // One that was removed meanwhile has none.
        let Ok(status) = state.status(&name).await else { continue };
        let fits = filter.state.is_none_or(|of| of == status.state)
            && filter.origin.is_none_or(|of| of == status.origin)
            && filter.failing.is_none_or(|of| of == (status.error_count > 0));
        if fits {
            items.push(status);
        }
        if items.len() >= limit {
            next_cursor = names.peek().map(|_| cursor(&name));
            break;
        }
    }
    Ok(Reply(Statuses { items, next_cursor }))
}

/// How many items, and after which name.
fn cut(limit: Option<u16>, cursor: Option<&str>) -> Result<(usize, Option<Name>), Problem> {
    let limit = limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        let what = format!("limit: must be 1 to {MOST}");
        return Err(Problem::new(Code::InvalidInput, what).parameter("limit"));
    }
    // Any text is a place in the order of names.
    let after = cursor.map(|cursor| cursor.split_once('/').unwrap_or((cursor, "")));
    Ok((usize::from(limit), after.map(|(tenant, provider)| (tenant.to_owned(), provider.to_owned()))))
}

fn cursor((tenant, provider): &Name) -> String {
    format!("{tenant}/{provider}")
}
