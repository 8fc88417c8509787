//! How a document gets in: from a URL by the rules of production, from a file, or from standard input. What it says is
//! not known here.

use std::error::Error as StdError;
use std::fs::File;
use std::io::{self, Read};

use jwks_cache::{
    ClientCertificate, Error, Fetched, IdentityProviderRegistration, Material, PrivateNetworks,
    SpkiFingerprint, fetch_once,
};

use crate::cli::MannerArgs;
use crate::terminal;

/// Why there is no document, or none that is worth anything, and what to do.
pub(crate) struct NotHad {
    pub(crate) error: Box<dyn StdError>,
    pub(crate) remedy: &'static str,
}

impl NotHad {
    pub(crate) fn new(error: impl Into<Box<dyn StdError>>, remedy: &'static str) -> Self {
        Self { error: error.into(), remedy }
    }
}

/// Whether that is a URL, and no file.
pub(crate) fn is_url(source: &str) -> bool {
    source.contains("://")
}

impl MannerArgs {
    /// How to fetch from that URL. The defaults of a registration are those of production; the names are not seen by
    /// the provider.
    pub(crate) fn settings(&self, url: &str) -> Result<IdentityProviderRegistration, NotHad> {
        let mut settings = IdentityProviderRegistration::new("command-line", "fetch", url)
            .map_err(|error| NotHad::new(error, "check the URL: it should look like https://host/path"))?
            .with_require_https(!self.insecure_http);
        if self.deny_private {
            settings.private_networks = PrivateNetworks::Deny;
        }
        be(&mut settings, self)?;
        Ok(settings)
    }
}

/// Fetches what `settings` name.
pub(crate) async fn fetch(settings: &IdentityProviderRegistration) -> Result<Fetched, NotHad> {
    fetch_once(settings).await.map_err(|error| not_fetched(error, settings))
}

/// Reads a file, or standard input for `-`, and says what to call it.
pub(crate) fn read(source: &str, most: u64) -> Result<(String, Vec<u8>), NotHad> {
    let (name, read) = if source == "-" {
        ("standard input".to_owned(), read_whole(io::stdin().lock(), most))
    } else {
        (terminal::shown(source, 200), File::open(source).and_then(|file| read_whole(file, most)))
    };
    match read {
        Ok(body) => Ok((name, body)),
        Err(error) => Err(NotHad::new(
            format!("{name} cannot be read: {error}"),
            "give a URL that begins with https://, the name of a file, or - for standard input",
        )),
    }
}

/// Takes over whom to believe and who to be.
fn be(settings: &mut IdentityProviderRegistration, args: &MannerArgs) -> Result<(), NotHad> {
    for pin in &args.pin {
        let pin = SpkiFingerprint::from_b64(pin.strip_prefix("sha256//").unwrap_or(pin))
            .map_err(|error| NotHad::new(error, "`jwks-cache pin HOST` prints pins as they are written"))?;
        settings.pinned_spki.push(pin);
    }
    settings.tls.ca = args.ca.as_ref().map(Material::file);
    settings.tls.client_certificate = args.cert.as_ref().map(|chain| ClientCertificate {
        chain: Material::file(chain),
        key: Material::file(args.key.as_ref().unwrap_or(chain)),
    });
    for header in &args.header {
        let Some((name, value)) = header.split_once(':') else {
            let unnamed = "--header has no colon between name and value";
            return Err(NotHad::new(unnamed, "write it as in --header 'X-Api-Key: abc'"));
        };
        settings.headers.insert(name.trim().to_owned(), value.trim().into());
    }
    Ok(())
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

fn not_fetched(error: Error, settings: &IdentityProviderRegistration) -> NotHad {
    let plain = settings.require_https && settings.jwks_url.scheme() != "https";
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
        Error::Security(_) => {
            "redirects stay on the host that was asked; if you trust where this one leads, fetch that URL"
        }
        Error::Validation { field: "jwks_url", .. } => "correct the URL",
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
            "too_large" => "check that this is the URL of a key set; the cache would refuse it as well",
            _ => "check the URL, and try again",
        },
        _ => "try again; if it stays, please report it",
    };
    NotHad::new(error, remedy)
}
