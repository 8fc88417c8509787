//! Registrations for providers that many use: what each needs beyond the defaults, and why.
//!
//! Each is a registration like any other, whose fields can be changed before it is registered. What the providers
//! were seen to need is told in [`docs::providers`](crate::docs::providers).
//!
//! ```
//! use jwks_cache::{KeySource, preset};
//!
//! let registration = preset::google("acme", "google")?;
//! assert_eq!(registration.issuer.as_deref(), Some("https://accounts.google.com"));
//! assert_eq!(registration.source, KeySource::Discovery);
//! registration.validate()?;
//! # Ok::<(), jwks_cache::Error>(())
//! ```

use std::time::Duration;

use url::Url;

use crate::dial::Material;
use crate::error::{Error, Result};
use crate::registration::{Algorithm, IdentityProviderRegistration, KeySource, RefreshMode};

/// Where a pod finds what its API server wants (Kubernetes, "Accessing the API from a Pod").
const POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The presets by name, for [`named`]: the name, and what its parameter is.
pub const NAMES: [(&str, Option<&str>); 8] = [
    ("entra", Some("a directory's id, or common, organizations or consumers")),
    ("google", None),
    ("auth0", Some("the tenant's domain, as in example.eu.auth0.com")),
    ("okta", Some("the issuer, as in example.okta.com/oauth2/default")),
    ("keycloak", Some("the realm's URL, as in https://id.example.com/realms/acme")),
    ("cognito", Some("the pool's id, as in eu-central-1_AbCdEfGhI")),
    ("github-actions", None),
    ("kubernetes", None),
];

/// The preset of this name, as in `--preset auth0=example.eu.auth0.com`.
///
/// # Errors
/// [`Error::Validation`] for `preset`: no such name, or its parameter is missing or wrong.
pub fn named(
    tenant: &str,
    provider: &str,
    name: &str,
    parameter: Option<&str>,
) -> Result<IdentityProviderRegistration> {
    let Some((_, wanted)) = NAMES.iter().find(|(known, _)| *known == name) else {
        let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
        return Err(wrong(format!("{:?} is none of {}", name, names.join(", "))));
    };
    match (name, wanted, parameter) {
        (_, Some(what), None) => Err(wrong(format!("{name} needs {what}: write {name}=…"))),
        (_, None, Some(_)) => Err(wrong(format!("{name} takes no parameter"))),
        ("entra", _, Some(directory)) => entra(tenant, provider, directory),
        ("auth0", _, Some(domain)) => auth0(tenant, provider, domain),
        ("okta", _, Some(issuer)) => okta(tenant, provider, issuer),
        ("keycloak", _, Some(realm)) => keycloak(tenant, provider, realm),
        ("cognito", _, Some(pool)) => cognito(tenant, provider, pool),
        ("google", ..) => google(tenant, provider),
        ("github-actions", ..) => github_actions(tenant, provider),
        _ => kubernetes(tenant, provider),
    }
}

/// Microsoft Entra ID, its v2.0 endpoint. `directory` is a directory's id, or `common`, `organizations` or `consumers`
/// for the tokens of many.
///
/// - The metadata for many names a template, `https://login.microsoftonline.com/{tenantid}/v2.0`: so `issuer_template`
///   is set, and each token's `tid` has to stand there. For one directory the issuer is exact.
/// - `removal_grace` 48 h: its sets flap. Of 230 recorded changes 153 went back to an older set.
/// - Keys that name an `issuer` of their own verify that issuer's tokens alone, as with every provider.
/// - `algorithms` RS256: it signs with nothing else, and its keys have no `alg`.
///
/// # Errors
/// [`Error::Validation`] for a `directory` that is no part of a path.
pub fn entra(tenant: &str, provider: &str, directory: &str) -> Result<IdentityProviderRegistration> {
    const HOST: &str = "https://login.microsoftonline.com";
    part("directory", directory)?;
    let many = matches!(directory, "common" | "organizations");
    // Microsoft's own accounts are one directory, whatever it is called.
    let directory_id =
        if directory == "consumers" { "9188040d-6c67-4c5b-b112-36a304b66dad" } else { directory };
    let issuer = format!("{HOST}/{}/v2.0", if many { "{tenantid}" } else { directory_id });
    let mut it = IdentityProviderRegistration::from_issuer(tenant, provider, issuer)?;
    it.source = KeySource::DiscoveryAt(Url::parse(&format!("{HOST}/{directory}/v2.0"))?.into());
    it.issuer_template = many;
    it.allowed_domains = vec!["login.microsoftonline.com".into()];
    it.removal_grace = Duration::from_secs(48 * 3600);
    it.algorithms = vec![Algorithm::RS256];
    Ok(it)
}

/// Google's accounts.
///
/// - `allowed_domains`: its keys are on another host than its issuer.
/// - `algorithms` RS256: it signs with nothing else.
///
/// Some of its ID tokens carry the issuer without `https://`: register those a second time, with that `issuer` and
/// [`KeySource::Url`].
///
/// # Errors
/// None at present.
pub fn google(tenant: &str, provider: &str) -> Result<IdentityProviderRegistration> {
    let mut it = IdentityProviderRegistration::from_issuer(tenant, provider, "https://accounts.google.com")?;
    it.allowed_domains = vec!["accounts.google.com".into(), "www.googleapis.com".into()];
    it.algorithms = vec![Algorithm::RS256];
    Ok(it)
}

/// An Auth0 tenant by its domain, as in `example.eu.auth0.com` or a domain of your own.
///
/// - The issuer ends with a slash, and tokens carry it so.
/// - `min_ttl` 5 min: its answers live for 15 s, and for a day if there is an error. No shorter would see a rotation
///   sooner, for a token of a new key causes a request by itself.
///
/// # Errors
/// [`Error::Validation`] for a `domain` that is no host name.
pub fn auth0(tenant: &str, provider: &str, domain: &str) -> Result<IdentityProviderRegistration> {
    host("domain", domain)?;
    let mut it = IdentityProviderRegistration::from_issuer(tenant, provider, format!("https://{domain}/"))?;
    it.min_ttl = Duration::from_secs(300);
    Ok(it)
}

/// An Okta authorization server by its issuer without the scheme: `example.okta.com` for the organisation's own,
/// `example.okta.com/oauth2/default` for a custom one.
///
/// - `max_ttl` 1 h: its answers state six weeks, in which a key that was withdrawn would be trusted.
/// - `algorithms` RS256: it signs with nothing else.
///
/// # Errors
/// [`Error::Validation`] for an `issuer` that is none.
pub fn okta(tenant: &str, provider: &str, issuer: &str) -> Result<IdentityProviderRegistration> {
    let issuer = issuer.strip_prefix("https://").unwrap_or(issuer);
    host("issuer", issuer.split('/').next().unwrap_or_default())?;
    let mut it = IdentityProviderRegistration::from_issuer(tenant, provider, format!("https://{issuer}"))?;
    it.max_ttl = Duration::from_secs(3600);
    it.algorithms = vec![Algorithm::RS256];
    Ok(it)
}

/// A Keycloak realm by its URL, as in `https://id.example.com/realms/acme`; versions before 17 have `/auth` before
/// `/realms`.
///
/// - `min_ttl` 5 min: its answers say `no-cache`, which would be the floor of 30 s. A token of a new key causes a request
///   by itself.
/// - Its sets hold a key for encryption too, which is set aside.
///
/// # Errors
/// [`Error::Url`] when `realm` is not a URL; [`Error::Validation`] when it names no realm.
pub fn keycloak(tenant: &str, provider: &str, realm: &str) -> Result<IdentityProviderRegistration> {
    if !realm.contains("/realms/") {
        return Err(wrong("the realm's URL is as in https://id.example.com/realms/acme".to_owned()));
    }
    let mut it = IdentityProviderRegistration::from_issuer(tenant, provider, realm.trim_end_matches('/'))?;
    it.min_ttl = Duration::from_secs(300);
    Ok(it)
}

/// An Amazon Cognito user pool by its id, as in `eu-central-1_AbCdEfGhI`: the region is in it.
///
/// - `default_ttl` 1 h: its answers need not state a lifetime, and a pool's keys hardly ever change.
/// - `algorithms` RS256: it signs with nothing else.
///
/// # Errors
/// [`Error::Validation`] for a `pool` without a region.
pub fn cognito(tenant: &str, provider: &str, pool: &str) -> Result<IdentityProviderRegistration> {
    part("pool", pool)?;
    let Some((region, _)) = pool.split_once('_') else {
        return Err(wrong("the pool's id is as in eu-central-1_AbCdEfGhI".to_owned()));
    };
    // Regions in China are under a name of their own.
    let top = if region.starts_with("cn-") { "com.cn" } else { "com" };
    let issuer = format!("https://cognito-idp.{region}.amazonaws.{top}/{pool}");
    let mut it = IdentityProviderRegistration::from_issuer(tenant, provider, issuer)?;
    it.default_ttl = Duration::from_secs(3600);
    it.algorithms = vec![Algorithm::RS256];
    Ok(it)
}

/// GitHub Actions, for workflows that show who they are.
///
/// - `algorithms` RS256: it signs with nothing else.
/// - `removal_grace` 1 h: its sets have lost keys for a while, and the tokens live for minutes.
///
/// Anyone's workflow gets tokens of this issuer: check `repository` and the audience.
///
/// # Errors
/// None at present.
pub fn github_actions(tenant: &str, provider: &str) -> Result<IdentityProviderRegistration> {
    let issuer = "https://token.actions.githubusercontent.com";
    let mut it = IdentityProviderRegistration::from_issuer(tenant, provider, issuer)?;
    it.algorithms = vec![Algorithm::RS256];
    it.removal_grace = Duration::from_secs(3600);
    Ok(it)
}

/// The service accounts of the cluster that this pod runs in.
///
/// - Its keys are asked for at `/openid/v1/jwks` itself: the metadata names the API server's address, which is another
///   origin and so would not be shown the pod's token.
/// - `tls.ca` and `replace_roots`: the cluster's own CA speaks for its API server, and nobody else does.
/// - `bearer_token`: without one it answers 403, or 401 where nobody may ask without a name. The file is read again when it is renewed.
/// - `private_networks` stays `Allow`: the API server's address is a private one.
/// - `refresh_mode` `Always`: a pod has one such provider, and the first token should not wait.
/// - `issuer` is `https://kubernetes.default.svc.cluster.local`, as most clusters have it; `kubectl get --raw
///   /.well-known/openid-configuration` tells yours.
///
/// # Errors
/// None at present.
pub fn kubernetes(tenant: &str, provider: &str) -> Result<IdentityProviderRegistration> {
    let url = "https://kubernetes.default.svc/openid/v1/jwks";
    let mut it = IdentityProviderRegistration::new(tenant, provider, url)?;
    it.issuer = Some("https://kubernetes.default.svc.cluster.local".into());
    it.tls.ca = Some(Material::file(format!("{POD}/ca.crt")));
    it.tls.replace_roots = true;
    it.bearer_token = Some(Material::file(format!("{POD}/token")));
    it.refresh_mode = RefreshMode::Always;
    Ok(it)
}

fn wrong(reason: String) -> Error {
    Error::validation("preset", reason)
}

/// A part of a path.
fn part(what: &str, text: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.starts_with('.') || !text.chars().all(legal) {
        return Err(wrong(format!("the {what} has letters, digits, `-`, `_` and `.` alone")));
    }
    Ok(())
}

fn host(what: &str, text: &str) -> Result<()> {
    part(what, text)?;
    if !text.contains('.') {
        return Err(wrong(format!("the {what} is a host name, as in id.example.com")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_in_china_is_under_the_name_of_its_region() {
        let issuer = |pool: &str| cognito("acme", "main", pool).unwrap().issuer.unwrap();
        assert_eq!(issuer("cn-north-1_A"), "https://cognito-idp.cn-north-1.amazonaws.com.cn/cn-north-1_A");
        assert_eq!(issuer("eu-north-1_A"), "https://cognito-idp.eu-north-1.amazonaws.com/eu-north-1_A");
    }

    #[test]
    fn each_preset_is_a_valid_registration_that_reads_back() {
        let parameter = |name| match name {
            "entra" => Some("organizations"),
            "auth0" => Some("example.eu.auth0.com"),
            "okta" => Some("example.okta.com/oauth2/default"),
            "keycloak" => Some("https://id.example.com/realms/acme"),
            "cognito" => Some("eu-central-1_AbCdEfGhI"),
            _ => None,
        };
        for (name, wants) in NAMES {
            assert_eq!(wants.is_some(), parameter(name).is_some(), "{name}");
            let it = named("acme", "main", name, parameter(name)).unwrap();
            it.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(it.issuer.is_some(), "{name}");
            let json = serde_json::to_string(&it).unwrap();
            assert_eq!(serde_json::from_str::<IdentityProviderRegistration>(&json).unwrap(), it, "{name}");
        }
    }

    #[test]
    fn a_wrong_name_or_parameter_is_told() {
        for (name, parameter, word) in [
            ("entry", None, "github-actions"),
            ("entra", None, "entra=…"),
            ("entra", Some("a/b"), "directory"),
            ("google", Some("x"), "no parameter"),
            ("auth0", Some("https://example.com"), "domain"),
            ("okta", Some("example"), "host name"),
            ("keycloak", Some("https://id.example.com/"), "/realms/"),
            ("cognito", Some("pool"), "eu-central-1_"),
        ] {
            let error = named("acme", "main", name, parameter).unwrap_err().to_string();
            assert!(error.contains("preset") && error.contains(word), "{name}: {error}");
        }
    }

    #[test]
    fn only_the_issuer_of_many_entra_directories_is_a_template() {
        let entra = |directory| entra("acme", "main", directory).unwrap();
        for many in ["common", "organizations"] {
            let it = entra(many);
            assert!(it.issuer_template && it.issuer.unwrap().contains("/{tenantid}/"), "{many}");
        }
        for (one, id) in [("consumers", "9188040d-6c67-4c5b-b112-36a304b66dad"), ("my-id", "my-id")] {
            let it = entra(one);
            assert!(!it.issuer_template && it.issuer.unwrap().contains(&format!("/{id}/")), "{one}");
        }
        for (name, _) in NAMES.into_iter().filter(|(name, wants)| *name != "entra" && wants.is_none()) {
            assert!(!named("acme", "main", name, None).unwrap().issuer_template, "{name}");
        }
    }
}
