//! Registering, looking at and removing a provider at run time, and refreshing it.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jwks_cache::Clock as _;
use jwks_cache::SystemClock;
use serde::Deserialize;
use utoipa::IntoParams;

use super::access::Reach;
use super::body::{Asked, Json};
use super::book::{Name, Record, Registered};
use super::guard::{MayRead, MayWrite, ProviderPath};
use super::{Reply, State, not_kept};
use crate::problem::{Code, Problem, ProblemDetails};
use crate::wire::{Origin, ProviderSettings, Registration, Status};

/// Preconditions (RFC 9110 §13.1).
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "for the document; they are read from the headers")]
pub(super) struct Preconditions {
    /// The `ETag` that it must still have; `*` for any, so that nothing new is made.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
    /// `*`: it must not be there yet.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// Register a provider, or replace its registration
///
/// Once this is answered, the registration outlives a crash. A change of the place drops the held keys at once, and nothing fetched
/// for the old registration is served. Nothing is fetched by this: the first reader, or a refresh, does.
#[utoipa::path(
    put,
    path = "/tenants/{tenant}/providers/{provider}",
    operation_id = "registerProvider",
    tag = "providers",
    params(ProviderPath, Preconditions),
    request_body(content = ProviderSettings, description = "The settings; all that is left out has its default."),
    responses(
        (status = 202, description = "Registered.", body = Status, headers(("ETag", description = "Of the registration."))),
        (status = 400, response = ProblemDetails),
        (status = 403, response = ProblemDetails),
        (status = 404, response = ProblemDetails),
        (status = 409, response = ProblemDetails),
        (status = 412, response = ProblemDetails),
        (status = 413, response = ProblemDetails),
        (status = 415, response = ProblemDetails),
        (status = 503, response = ProblemDetails),
    )
)]
pub(super) async fn put(
    Extract(state): Extract<State>,
    MayWrite(path, grant): MayWrite,
    headers: HeaderMap,
    Json(settings): Json<ProviderSettings>,
) -> Result<Response, Problem> {
    let settings = settings.or_stale_while_error(state.0.stale_while_error);
    let ProviderPath { tenant, provider } = path;
    let limits = &state.0.limits;
    let registration = settings.registration(&tenant, &provider, grant.tenants == Reach::All, limits)?;
    state.registry().check(&registration)?;
    let turn = state.book().turn().await;
    whole(async move {
        let name = (tenant, provider);
        let pen = state.book().pen(turn);
        state.not_in_file(&name)?;
        let old = state.book().get(&name);
        hold(&headers, old.registered.as_ref().map(|of| etag(of.revision)).as_deref())?;
        state.has_room(&name, &old)?;
        let now = SystemClock.wall().timestamp_micros();
        let revision = old.registered.as_ref().map_or(now, |old| now.max(old.revision.saturating_add(1)));
        let mut record = (*old).clone();
        record.registered =
            Some(Registered { registration: registration.clone(), revision, by: grant.name.clone() });
        pen.write(&name, record).await.map_err(|error| not_kept(&error, "nothing has changed"))?;
        state.registry().register_denying(registration, old.denials.keys()).await?;
        let status = state.status(&name).await?;
        Ok((StatusCode::ACCEPTED, [(header::ETAG, value(&etag(revision)))], Reply(status)).into_response())
    })
    .await
}

/// Show a registration, without its secrets
#[utoipa::path(
    get,
    path = "/tenants/{tenant}/providers/{provider}",
    operation_id = "getProvider",
    tag = "providers",
    params(ProviderPath, ("If-None-Match" = Option<String>, Header, description = "The `ETag` of what is known.")),
    responses(
        (status = 200, description = "The registration.", body = Registration, headers(("ETag", description = "Of the registration."))),
        (status = 304, description = "It is what is known."),
        (status = 400, response = ProblemDetails),
        (status = 404, response = ProblemDetails),
    )
)]
pub(super) async fn get(
    Extract(state): Extract<State>,
    MayRead(path): MayRead,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = (path.tenant, path.provider);
    let (shown, tag) = match (state.configured().get(&name), &state.book().get(&name).registered) {
        (Some(of), _) => {
            let shown = Registration::of(of, Origin::File);
            let text = serde_json::to_vec(&shown).unwrap_or_default();
            let hash = digest(&SHA256, &text);
            let tag = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
            (shown, format!("\"{tag}\""))
        }
        (None, Some(of)) => (Registration::of(&of.registration, Origin::Runtime), etag(of.revision)),
        (None, None) => return Err(Problem::not_registered(&name.0, &name.1)),
    };
    let tagged = [(header::ETAG, value(&tag))];
    if names(&headers, header::IF_NONE_MATCH, &tag, true) == Some(true) {
        return Ok((StatusCode::NOT_MODIFIED, tagged).into_response());
    }
    Ok((tagged, Reply(shown)).into_response())
}

/// Remove a provider
///
/// Its keys are served no more, and its denials are forgotten.
#[utoipa::path(
    delete,
    path = "/tenants/{tenant}/providers/{provider}",
    operation_id = "removeProvider",
    tag = "providers",
    params(ProviderPath, ("If-Match" = Option<String>, Header, description = "The `ETag` that it must still have.")),
    responses(
        (status = 204, description = "Removed."),
        (status = 400, response = ProblemDetails),
        (status = 404, response = ProblemDetails),
        (status = 409, response = ProblemDetails),
        (status = 412, response = ProblemDetails),
        (status = 503, response = ProblemDetails),
    )
)]
pub(super) async fn delete(
    Extract(state): Extract<State>,
    MayWrite(path, _): MayWrite,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let turn = state.book().turn().await;
    whole(async move {
        let name = (path.tenant, path.provider);
        let pen = state.book().pen(turn);
        state.not_in_file(&name)?;
        let old = state.book().get(&name);
        let Some(registered) = &old.registered else { return Err(Problem::not_registered(&name.0, &name.1)) };
        hold(&headers, Some(&etag(registered.revision)))?;
        let forgotten = pen.write(&name, Record::default()).await;
        forgotten.map_err(|error| not_kept(&error, "nothing has changed"))?;
        state.registry().unregister(&name.0, &name.1).await?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// How to refresh.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HowToRefresh {
    /// Whether to answer only when it has ended.
    #[serde(default)]
    #[param(default = false)]
    wait: bool,
}

/// Fetch a provider's keys now
///
/// Answers at once, before the refresh has ended; with `wait=true` when it has, and then `lastError` says why it failed if it did. Keys
/// that are held stay whatever comes of it.
#[utoipa::path(
    post,
    path = "/tenants/{tenant}/providers/{provider}/refresh",
    operation_id = "refreshProvider",
    tag = "providers",
    params(ProviderPath, HowToRefresh),
    responses(
        (status = 202, description = "Asked for; or, with `wait`, done.", body = Status),
        (status = 400, response = ProblemDetails),
        (status = 404, response = ProblemDetails),
    )
)]
pub(super) async fn refresh(
    Extract(state): Extract<State>,
    MayWrite(path, _): MayWrite,
    Asked(how): Asked<HowToRefresh>,
) -> Result<(StatusCode, Reply<Status>), Problem> {
    let name = (path.tenant, path.provider);
    let status = state.status(&name).await?;
    if how.wait {
        // Why it failed is in the status, as it is for who does not wait.
        let _ = state.registry().refresh_and_wait(&name.0, &name.1).await;
        return Ok((StatusCode::ACCEPTED, Reply(state.status(&name).await?)));
    }
    if let Some(asked) = AskedFor::first(&state, name) {
        // Its failure is in the status, the log and the metrics.
        tokio::spawn(async move {
            let (tenant, provider) = &asked.name;
            let _ = asked.state.registry().refresh(tenant, provider).await;
        });
    }
    Ok((StatusCode::ACCEPTED, Reply(status)))
}

/// A refresh that nobody waits for, until it has begun; whoever asks for one of that provider meanwhile means this one.
struct AskedFor {
    state: State,
    name: Name,
}

impl AskedFor {
    /// `None` where one is asked for already.
    fn first(state: &State, name: Name) -> Option<Self> {
        let is_new = lock(&state.0.asked_for).insert(name.clone());
        is_new.then(|| Self { state: state.clone(), name })
    }
}

impl Drop for AskedFor {
    fn drop(&mut self) {
        lock(&self.state.0.asked_for).remove(&self.name);
    }
}

fn lock(names: &Mutex<BTreeSet<Name>>) -> MutexGuard<'_, BTreeSet<Name>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does all of it although the caller hangs up: the book and the registry must say the same.
pub(super) async fn whole<T: Send + 'static>(
    act: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    let failed = |_| Problem::new(Code::Internal, "the change was not made, or not whole; the log says why");
    tokio::spawn(act).await.map_err(failed)?
}

fn etag(revision: i64) -> String {
    format!("\"{revision:x}\"")
}

fn value(tag: &str) -> HeaderValue {
    // Hexadecimal digits between quotes.
    HeaderValue::from_str(tag).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether the preconditions of a change hold for what is there now (RFC 9110 §13.2.2).
fn hold(headers: &HeaderMap, now: Option<&str>) -> Result<(), Problem> {
    let failed = |name: &'static str, what| {
        Problem::new(Code::PreconditionFailed, what).parameter(name).remedy("read it again, and decide anew")
    };
    let tag = now.unwrap_or_default();
    match names(headers, header::IF_MATCH, tag, false) {
        Some(named) if now.is_none() || !named => {
            return Err(failed("If-Match", "it is not what was expected: it changed, or is gone"));
        }
        _ => {}
    }
    match names(headers, header::IF_NONE_MATCH, tag, true) {
        Some(true) if now.is_some() => Err(failed("If-None-Match", "it is there already")),
        _ => Ok(()),
    }
}

/// Whether a list of tags has this one; `None` where there is no list. A weak one counts where `weakly`.
fn names(headers: &HeaderMap, list: header::HeaderName, tag: &str, weakly: bool) -> Option<bool> {
    let lists: Vec<&str> =
        headers.get_all(list).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    let mut tags = lists.iter().flat_map(|list| list.split(',')).map(str::trim);
    (!lists.is_empty()).then(|| {
        tags.any(|of| of == "*" || of == tag || (weakly && of.strip_prefix("W/").is_some_and(|of| of == tag)))
    })
}

impl State {
    /// A tenant's providers are bounded: each may hold as much as one may hold.
    fn has_room(&self, name: &Name, old: &Record) -> Result<(), Problem> {
        let most = self.0.limits.per_tenant;
        if old.registered.is_some() || self.book().count(&name.0) < most {
            return Ok(());
        }
        let what = format!(
            "tenant {} has {most} providers that were registered at run time, and may have no more",
            name.0
        );
        Err(Problem::new(Code::RefusedByPolicy, what)
            .remedy("remove one, or have limits.registrations.per_tenant raised"))
    }

    /// What the configuration file says is not changed from elsewhere.
    fn not_in_file(&self, name: &Name) -> Result<(), Problem> {
        if !self.configured().contains_key(name) {
            return Ok(());
        }
        let what = format!("provider {}/{} stands in the configuration file", name.0, name.1);
        Err(Problem::new(Code::ConfiguredInFile, what).remedy("change the file; the server sees it"))
    }
}
