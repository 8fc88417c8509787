//! `jwks-cache fetch`: has one document judged as the cache would. What is said of it is `report`'s affair; how it
//! gets in is `document`'s.

mod report;

use std::process::ExitCode;

use jwks_cache::IdentityProviderRegistration;
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
    let source = args.source.as_str();
    let settings = args.manner.settings(if is_url(source) { source } else { "https://localhost/" })?;
    let (body, origin) = if is_url(source) {
        let fetched = document::fetch(&settings).await?;
        let headers = StoredHeaders::from_response(&fetched.headers);
        let freshness = assess(&headers, &fetched.timing, &freshness_rules(&settings));
        let validators = headers.validators();
        let revalidates = validators.etag.is_some() || validators.last_modified.is_some();
        (fetched.body, Origin::Response { url: settings.jwks_url.clone(), freshness, revalidates })
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

fn freshness_rules(settings: &IdentityProviderRegistration) -> FreshnessRules {
    FreshnessRules {
        min_ttl: settings.min_ttl,
        max_ttl: settings.max_ttl,
        default_ttl: settings.default_ttl,
        stale_while_error: settings.stale_while_error,
        http_strict: settings.http_strict,
    }
}
