//! What `/openapi.json` says beside the routes: who we are, how to be let in, and what every route may answer.

use std::collections::BTreeMap;

use utoipa::OpenApi as _;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Object, OpenApi, PathItem, Ref, RefOr, Response, Schema};

use crate::problem::ProblemDetails;

const BEARER: &str = "bearer";
const CERTIFICATE: &str = "certificate";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "jwks-cache",
        description = "Keys of identity providers, always at hand. This is the control plane: which providers there are, how they \
                       are doing, and which keys are switched off.",
        license(name = "MIT OR Apache-2.0", url = "https://github.com/jwks-cache/jwks-cache"),
        contact(name = "jwks-cache", url = "https://github.com/jwks-cache/jwks-cache")
    ),
    servers((url = "/", description = "This server.")),
    tags(
        (name = "providers", description = "Registering, looking at, refreshing and removing providers."),
        (name = "status", description = "How providers are doing."),
        (name = "denials", description = "Switching keys off and on."),
    ),
    components(responses(ProblemDetails))
)]
struct Empty;

/// The document before the routes are added.
pub(super) fn empty() -> OpenApi {
    Empty::openapi()
}

/// Adds what holds for every route.
pub(super) fn finish(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            for status in ["401", "403"] {
                let refused = RefOr::<Response>::Ref(Ref::from_response_name("ProblemDetails"));
                operation.responses.responses.entry(status.to_owned()).or_insert(refused);
            }
        }
    }
    let components = document.components.get_or_insert_default();
    flatten(&mut components.schemas, "Registration");
    let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let token = token.description(Some("A token that `jwks-cache token` made."));
    components.add_security_scheme(BEARER, SecurityScheme::Http(token.build()));
    let certificate = SecurityScheme::MutualTls {
        description: Some(
            "A client certificate that the configuration maps to tenants and rights.".to_owned(),
        ),
        deprecated: None,
        extensions: None,
    };
    components.add_security_scheme(CERTIFICATE, certificate);
    let none: [&str; 0] = [];
    document.security = Some([BEARER, CERTIFICATE].map(|name| SecurityRequirement::new(name, none)).to_vec());
    document
}

/// Says one object instead of all of several: those that take no other members would not take each other's.
fn flatten(schemas: &mut BTreeMap<String, RefOr<Schema>>, name: &str) {
    let Some(RefOr::T(Schema::AllOf(all))) = schemas.get(name) else { return };
    let parts: Vec<_> = all.items.iter().map(|part| resolved(schemas, part).cloned()).collect();
    let mut whole = Object::new();
    for part in parts.into_iter().flatten() {
        whole.properties.extend(part.properties);
        whole.required.extend(part.required);
    }
    whole.description.clone_from(&all.description);
    schemas.insert(name.to_owned(), RefOr::T(Schema::Object(whole)));
}

fn resolved<'a>(schemas: &'a BTreeMap<String, RefOr<Schema>>, of: &'a RefOr<Schema>) -> Option<&'a Object> {
    match of {
        RefOr::T(Schema::Object(object)) => Some(object),
        RefOr::Ref(of) => resolved(schemas, schemas.get(of.ref_location.rsplit('/').next()?)?),
        RefOr::T(_) => None,
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, .. } = item;
    [get, put, post, delete].into_iter().flatten()
}
