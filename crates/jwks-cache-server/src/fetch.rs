//! `jwks-cache fetch`: has one document judged as the cache would. What is said of it is `report`'s affair; how it
//! gets in is `document`'s.

mod report;

use std::process::ExitCode;

use jwks_cache::{IdentityProviderRegistration, preset};
use jwks_cache_core::freshness::{FreshnessRules, StoredHeaders, assess};
use jwks_cache_core::keyset::{KeyRules, KeySet, Refusal};

use crate::cli::FetchArgs;
use crate::document::{self, NotHad, is_url};
use crate::terminal::{self, Paint};
use report::{Origin, Report};

/// The exit code when there was nothing to judge.
const NOT_A_SET: u8 = 2;

/// Looks into the key set that `args` name, and tells what it is worth.
pub(crate) async fn run(args: &FetchArgs) -> ExitCode {
    match look(args).await {
        Ok(report) => {
            terminal::print(&if args.json {
                terminal::json(&report)
            } else {
                report.text(Paint::for_stdout())
            });
            ExitCode::from(u8::from(report.usable == 0))
        }
        Err(NotHad { error, remedy }) => {
            terminal::complain(&*error, remedy);
            ExitCode::from(NOT_A_SET)
        }
    }
}

async fn look(args: &FetchArgs) -> Result<Report, NotHad> {
    let source = args.source.as_deref().unwrap_or_default();
    let asked = args.source.is_none() || is_url(source);
    let mut settings = args.manner.of(named(args, if asked { source } else { "https://localhost/" })?)?;
    settings.allowed_domains.extend(args.allow_host.iter().cloned());
    let (body, origin) = if asked {
        let looked = document::look(&settings).await?;
        let (fetched, found_at) = (looked.fetched, looked.discovery.map(|found| Box::new(found.location)));
        let headers = StoredHeaders::from_response(&fetched.headers);
        let freshness = assess(&headers, &fetched.timing, &freshness_rules(&settings));
        let validators = headers.validators();
        let revalidates = validators.etag.is_some() || validators.last_modified.is_some();
        (fetched.body, Origin::Response { url: looked.url, found_at, freshness, revalidates })
    } else {
        let (name, body) = document::read(source, settings.max_response_bytes)?;
        (body, Origin::Local { name })
    };
    let rules =
        KeyRules { min_rsa_bits: settings.min_rsa_bits, max_keys: settings.max_keys, ..KeyRules::default() };
    match KeySet::inspect(&body, &rules) {
        Ok(set) => Ok(Report::new(&origin, &set)),
        Err(refusal) => {
            let remedy = match refusal {
                Refusal::TooManyKeys { .. } => "the cache would refuse it too, unless max_keys is raised",
                _ => "a key set looks like {\"keys\": [{\"kty\": \"RSA\", …}]} (RFC 7517 §5)",
            };
            Err(NotHad::new(format!("{}: {refusal}", origin.name()), remedy))
        }
    }
}

/// The registration that is named.
fn named(args: &FetchArgs, url: &str) -> Result<IdentityProviderRegistration, NotHad> {
    const TENANT: &str = "command-line";
    const PROVIDER: &str = "fetch";
    if let Some(preset) = &args.preset {
        let (name, value) = match preset.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (preset.as_str(), None),
        };
        let named = preset::named(TENANT, PROVIDER, name, value);
        return named
            .map_err(|error| NotHad::new(error, "write it as in --preset auth0=example.eu.auth0.com"));
    }
    let named = match &args.issuer {
        Some(issuer) => IdentityProviderRegistration::from_issuer(TENANT, PROVIDER, issuer),
        None => IdentityProviderRegistration::new(TENANT, PROVIDER, url),
    };
    named.map_err(|error| NotHad::new(error, document::NO_URL))
}

fn freshness_rules(settings: &IdentityProviderRegistration) -> FreshnessRules {
    FreshnessRules {
        min_ttl: settings.min_ttl,
        max_ttl: settings.max_ttl,
        default_ttl: settings.default_ttl,
        stale_while_error: settings.stale_while_error,
        http_strict: settings.http_strict,
    }
}
