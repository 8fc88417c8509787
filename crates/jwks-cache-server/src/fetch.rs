//! `jwks-cache fetch`: gets one document, and has it judged as the cache would. What is said of it is
//! `report`'s affair; how a URL is fetched is the library's.

mod report;

use std::error::Error as StdError;
use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;

use jwks_cache::{
    ClientCertificate, Error, IdentityProviderRegistration, Material, PrivateNetworks, SpkiFingerprint,
    look_once, preset,
};
use jwks_cache_core::freshness::{FreshnessRules, StoredHeaders, assess};
use jwks_cache_core::keyset::{KeyRules, KeySet, Refusal};

use crate::cli::{FetchArgs, IdentityArgs};
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
        Err(NotJudged { error, remedy }) => {
            terminal::complain(&*error, remedy);
            ExitCode::from(NOT_A_SET)
        }
    }
}

/// Why there is nothing to tell, and what to do.
struct NotJudged {
    error: Box<dyn StdError>,
    remedy: &'static str,
}

impl NotJudged {
    fn new(error: impl Into<Box<dyn StdError>>, remedy: &'static str) -> Self {
        Self { error: error.into(), remedy }
    }
}

async fn look(args: &FetchArgs) -> Result<Report, NotJudged> {
    // The defaults of a registration are those of production; the names are not seen by the provider.
    let source = args.source.as_deref().unwrap_or_default();
    let is_url = args.source.is_none() || source.contains("://");
    let mut settings = settings(args, if is_url { source } else { "https://localhost/" })?;
    settings.require_https = !args.insecure_http;
    if args.deny_private {
        settings.private_networks = PrivateNetworks::Deny;
    }
    settings.allowed_domains.extend(args.allow_host.iter().cloned());
    be(&mut settings, &args.identity)?;
    let (body, origin) = if is_url {
        let looked = look_once(&settings).await.map_err(|error| not_fetched(error, &settings))?;
        let (fetched, found_at) = (looked.fetched, looked.discovery.map(|found| Box::new(found.location)));
        let headers = StoredHeaders::from_response(&fetched.headers);
        let freshness = assess(&headers, &fetched.timing, &freshness_rules(&settings));
        let validators = headers.validators();
        let revalidates = validators.etag.is_some() || validators.last_modified.is_some();
        (fetched.body, Origin::Response { url: looked.url, found_at, freshness, revalidates })
    } else {
        let most = settings.max_response_bytes;
        let (name, read) = if source == "-" {
            ("standard input".to_owned(), read_whole(io::stdin().lock(), most))
        } else {
            (terminal::shown(source, 200), File::open(source).and_then(|file| read_whole(file, most)))
        };
        let body = read.map_err(|error| {
            NotJudged::new(
                format!("{name} cannot be read: {error}"),
                "give a URL that begins with https://, the name of a file, or - for standard input",
            )
        })?;
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
            Err(NotJudged::new(format!("{}: {refusal}", origin.name()), remedy))
        }
    }
}

/// The registration that is named.
fn settings(args: &FetchArgs, url: &str) -> Result<IdentityProviderRegistration, NotJudged> {
    const TENANT: &str = "command-line";
    const PROVIDER: &str = "fetch";
    if let Some(preset) = &args.preset {
        let (name, value) = match preset.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (preset.as_str(), None),
        };
        let named = preset::named(TENANT, PROVIDER, name, value);
        return named
            .map_err(|error| NotJudged::new(error, "write it as in --preset auth0=example.eu.auth0.com"));
    }
    let named = match &args.issuer {
        Some(issuer) => IdentityProviderRegistration::from_issuer(TENANT, PROVIDER, issuer),
        None => IdentityProviderRegistration::new(TENANT, PROVIDER, url),
    };
    named.map_err(|error| NotJudged::new(error, "check the URL: it should look like https://host/path"))
}

/// Takes over whom to believe and who to be.
fn be(settings: &mut IdentityProviderRegistration, args: &IdentityArgs) -> Result<(), NotJudged> {
    for pin in &args.pin {
        let pin =
            SpkiFingerprint::from_b64(pin.strip_prefix("sha256//").unwrap_or(pin)).map_err(|error| {
                NotJudged::new(error, "`jwks-cache pin HOST` prints pins as they are written")
            })?;
        settings.pinned_spki.push(pin);
    }
    if let Some(ca) = &args.ca {
        settings.tls.ca = Some(Material::file(ca));
    }
    settings.tls.client_certificate = args.cert.as_ref().map(|chain| ClientCertificate {
        chain: Material::file(chain),
        key: Material::file(args.key.as_ref().unwrap_or(chain)),
    });
    for header in &args.header {
        let Some((name, value)) = header.split_once(':') else {
            let unnamed = "--header has no colon between name and value";
            return Err(NotJudged::new(unnamed, "write it as in --header 'X-Api-Key: abc'"));
        };
        settings.headers.insert(name.trim().to_owned(), value.trim().into());
    }
    Ok(())
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

/// Reads to the end, unless there is more than a response might have.
fn read_whole(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    from.take(most.saturating_add(1)).read_to_end(&mut body)?;
    if u64::try_from(body.len()).is_ok_and(|read| read > most) {
        return Err(io::Error::other(format!("more than {most} bytes, the most that the cache takes")));
    }
    Ok(body)
}

fn not_fetched(error: Error, settings: &IdentityProviderRegistration) -> NotJudged {
    let asked = settings.issuer.as_deref().unwrap_or(settings.jwks_url.as_str());
    let plain = settings.require_https && !asked.starts_with("https:");
    let remedy = match &error {
        Error::Security(_) if plain => {
            "use https; --insecure-http allows plain http, where whoever is on the way can swap the keys"
        }
        Error::Security(why) if why.contains("private_networks") => match settings.private_networks {
            PrivateNetworks::Allow => {
                "such addresses hand out a machine's credentials; the cache dials one only where DenyExcept names it"
            }
            _ => "leave --deny-private out if the provider is meant to be there",
        },
        Error::Security(_) if error.to_string().contains("pinned_spki") => {
            "compare with what `jwks-cache pin HOST` prints; a change that the provider announced needs a new pin"
        }
        Error::Security(why) if why.contains("jwks_uri") || why.contains("discovery") => {
            "if the provider keeps its keys there, allow both hosts: --allow-host HOST --allow-host HOST"
        }
        Error::Security(_) => {
            "redirects stay on the host that was asked; if you trust where this one leads, fetch that URL"
        }
        Error::Validation { field: "jwks_url" | "issuer", .. } => "correct the URL",
        Error::Validation { .. } => "correct the argument",
        Error::HttpStatus { .. } => {
            "check the path: OpenID providers name it as jwks_uri in /.well-known/openid-configuration"
        }
        Error::Fetch(failed) => match failed.reason() {
            "dns" => "check the host name, and that this machine can resolve it",
            "connect" | "timeout" | "reset" => "check host and port, and that no firewall stands between",
            "tls" => {
                "check the provider's certificate, and the roots that this machine trusts; --ca adds others"
            }
            "client" => "check the file that the message names",
            reason if reason.starts_with("discovery") => {
                "compare with what the issuer publishes in /.well-known/openid-configuration"
            }
            "too_large" => "check that this is the URL of a key set; the cache would refuse it as well",
            _ => "check the URL, and try again",
        },
        _ => "try again; if it stays, please report it",
    };
    NotJudged::new(error, remedy)
}
