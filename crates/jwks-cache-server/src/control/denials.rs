//! The switch that turns a key off, at once and until it is turned on again.

use axum::Extension;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use jwks_cache::{Clock as _, SystemClock};
use serde::Deserialize;
use utoipa::IntoParams;

use super::body::Json;
use super::book::{Denied, Record};
use super::guard::{MayRead, MayWrite, Names, ProviderPath, Subject};
use super::providers::whole;
use super::{Reply, State, not_kept};
use crate::problem::{Code, Problem, ProblemDetails};
use crate::wire::{Denial, Denials, NewDenial};

/// The longest kid that is denied, and the longest reason.
const LONGEST_ID: usize = 1024;
const LONGEST_REASON: usize = 500;

/// List the keys that are switched off
#[utoipa::path(
    get,
    path = "/tenants/{tenant}/providers/{provider}/denials",
    operation_id = "listDenials",
    tag = "denials",
    params(ProviderPath),
    responses(
        (status = 200, description = "What is denied.", body = Denials),
        (status = 400, response = ProblemDetails),
        (status = 404, response = ProblemDetails),
    )
)]
pub(super) async fn list(
    Extract(state): Extract<State>,
    MayRead(path): MayRead,
) -> Result<Reply<Denials>, Problem> {
    let name = (path.tenant, path.provider);
    let status = state.registry().provider_status(&name.0, &name.1).await?;
    let record = state.book().get(&name);
    let mut items: Vec<Denial> = record.denials.iter().map(|(id, of)| denial(id, of)).collect();
    // Another process denied these, in a store that both have.
    let known: Vec<String> = record.denials.keys().map(|id| escaped(id)).collect();
    let elsewhere = status.denied.into_iter().filter(|id| !known.contains(id));
    items.extend(elsewhere.map(|id| Denial { id, reason: None, denied_at: None, denied_by: None }));
    Ok(Reply(Denials { items }))
}

/// Switch a key off
///
/// It is refused and served no more at once. Once this is answered, that outlives a crash.
#[utoipa::path(
    post,
    path = "/tenants/{tenant}/providers/{provider}/denials",
    operation_id = "denyKey",
    tag = "denials",
    params(ProviderPath),
    request_body(content = NewDenial, description = "Which key, and why."),
    responses(
        (status = 200, description = "It was denied already; the reason is the new one.", body = Denial),
        (status = 201, description = "Denied.", body = Denial, headers(("Location", description = "Where it is lifted."))),
        (status = 400, response = ProblemDetails),
        (status = 404, response = ProblemDetails),
        (status = 413, response = ProblemDetails),
        (status = 415, response = ProblemDetails),
        (status = 503, response = ProblemDetails),
    )
)]
pub(super) async fn deny(
    Extract(state): Extract<State>,
    MayWrite(path, grant): MayWrite,
    Extension(subject): Extension<Subject>,
    Json(NewDenial { id, reason }): Json<NewDenial>,
) -> Result<Response, Problem> {
    let refuse =
        |field: &str, what: String| Err(Problem::new(Code::InvalidInput, what).at(format!("/{field}")));
    if id.is_empty() || id.chars().count() > LONGEST_ID {
        return refuse("id", format!("id: must be a kid or thumbprint of 1 to {LONGEST_ID} characters"));
    }
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > LONGEST_REASON) {
        return refuse("reason", format!("reason: must be {LONGEST_REASON} characters at most"));
    }
    // Clients take these out of the path of what they ask for (RFC 3986 §5.2.4), so it could never be lifted.
    if id == "." || id == ".." {
        let what = format!("id: {id} cannot stand in the path that lifts it; deny the key by its thumbprint");
        return refuse("id", what);
    }
    subject.is(&id);
    let name = (path.tenant, path.provider);
    // At once: other people's changes may wait for a disk, and so may that it is kept.
    state.registry().deny_key(&name.0, &name.1, &id).await?;
    let in_force = "the key is denied now, until the server restarts";
    let place = state.book().place().await;
    whole(async move {
        let _place = place;
        let pen = state.book().pen(state.book().turn().await);
        // Somebody may have allowed it, or replaced the provider, meanwhile.
        state.registry().deny_key(&name.0, &name.1, &id).await?;
        let mut record = (*state.book().get(&name)).clone();
        let denied = Denied { reason, at: SystemClock.wall(), by: grant.name.clone() };
        let said = denial(&id, &denied);
        let is_new = record.denials.insert(id.clone(), denied).is_none();
        pen.write(&name, record).await.map_err(|error| not_kept(&error, in_force))?;
        let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
        let mut url = url::Url::parse("http://x/").map_err(|_| Problem::new(Code::Internal, "no URL"))?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(["tenants", &name.0, "providers", &name.1, "denials", &id]);
        }
        Ok((status, [(header::LOCATION, url.path().to_owned())], Reply(said)).into_response())
    })
    .await
}

/// Which denial a path names.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DenialPath {
    /// The kid or thumbprint that is denied, percent-encoded.
    #[param(min_length = 1, max_length = 1024, example = "2024-06-key")]
    id: String,
}

/// Switch a key on again
#[utoipa::path(
    delete,
    path = "/tenants/{tenant}/providers/{provider}/denials/{id}",
    operation_id = "allowKey",
    tag = "denials",
    params(ProviderPath, DenialPath),
    responses(
        (status = 204, description = "Allowed again."),
        (status = 400, response = ProblemDetails),
        (status = 404, response = ProblemDetails),
        (status = 503, response = ProblemDetails),
    )
)]
pub(super) async fn allow(
    Extract(state): Extract<State>,
    MayWrite(path, _): MayWrite,
    Names(DenialPath { id }): Names<DenialPath>,
) -> Result<StatusCode, Problem> {
    let turn = state.book().turn().await;
    whole(async move {
        let name = (path.tenant, path.provider);
        let pen = state.book().pen(turn);
        state.registry().provider(&name.0, &name.1)?;
        let mut record: Record = (*state.book().get(&name)).clone();
        let was_kept = record.denials.remove(&id).is_some();
        if was_kept {
            // First, so that what cannot be forgotten stays in force.
            let still = "the key is still denied";
            pen.write(&name, record).await.map_err(|error| not_kept(&error, still))?;
        }
        let was_denied = state.registry().allow_key(&name.0, &name.1, &id).await?;
        if was_kept || was_denied {
            return Ok(StatusCode::NO_CONTENT);
        }
        let what = format!("{} is not denied", escaped(&id));
        Err(Problem::new(Code::NotFound, what).parameter("id"))
    })
    .await
}

fn denial(id: &str, of: &Denied) -> Denial {
    Denial {
        id: id.to_owned(),
        reason: of.reason.clone(),
        denied_at: Some(of.at),
        denied_by: Some(of.by.clone()),
    }
}

/// As the library shows a kid.
fn escaped(id: &str) -> String {
    const LONGEST: usize = 128;
    let mut shown: String = id.chars().take(LONGEST).flat_map(char::escape_default).collect();
    if id.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}
