//! One request to a running server: over a Unix socket, http or https, with a token or a certificate.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jwks_cache::reqwest::{Client, Method};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_platform_verifier::Verifier;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::{Host, Url};

use crate::cli::ServerArgs;
use crate::config::Config;
use crate::terminal::shown;

/// Longer than any refresh with its retries.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where it is if nothing else is said, and with what.
const SERVER: &str = "JWKS_CACHE_SERVER";
const TOKEN: &str = "JWKS_CACHE_TOKEN";

/// A server to ask.
pub(super) struct Server {
    url: Url,
    client: Client,
    token: Option<String>,
    /// As it was named.
    name: String,
}

/// Why something was not done, and what to do.
pub(super) struct NotDone {
    pub(super) error: Box<dyn StdError>,
    pub(super) remedy: String,
    /// Whether the server said so.
    pub(super) was_asked: bool,
}

impl NotDone {
    pub(super) fn not_asked(error: impl Into<Box<dyn StdError>>, remedy: impl Into<String>) -> Self {
        Self { error: error.into(), remedy: remedy.into(), was_asked: false }
    }
}

/// What is read of a refusal.
#[derive(Deserialize)]
struct Refusal {
    detail: String,
    remedy: Option<String>,
}

impl Server {
    pub(super) fn of(args: &ServerArgs) -> Result<Self, NotDone> {
        let said = |name| std::env::var(name).ok().filter(|text: &String| !text.is_empty());
        let usual = || Config::default().control_listen().to_string();
        let name = args.server.clone().or_else(|| said(SERVER)).unwrap_or_else(usual);
        let token = match &args.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
                Some(text.trim().to_owned())
            }
            None => said(TOKEN),
        };
        let mut builder =
            Client::builder().no_proxy().timeout(PATIENCE).tls_backend_preconfigured(tls(args)?);
        let url = match name.strip_prefix("unix:") {
            Some(socket) => {
                builder = builder.unix_socket(PathBuf::from(socket));
                Url::parse("http://localhost/")
            }
            None => Url::parse(&name),
        };
        let url = url
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                let what = format!("{} is no server", shown(&name, 200));
                NotDone::not_asked(
                    what,
                    format!("name it by --server or {SERVER}, as in https://host:8443 or unix:/path"),
                )
            })?;
        let here = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        if url.scheme() == "http" && token.is_some() && !here && !args.insecure_http {
            let what = format!("{} is plain http, and not this machine", shown(&name, 200));
            return Err(NotDone::not_asked(what, "use https, or --insecure-http where the way is safe"));
        }
        let client = builder.build().map_err(|error| NotDone::not_asked(error, "try again"))?;
        Ok(Self { url, client, token, name })
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, NotDone> {
        self.ask("GET", path, query, None).await
    }

    /// Asks, and reads the answer; one without a body is null.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<T, NotDone> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let name = shown(&self.name, 200);
        let away = |error: jwks_cache::reqwest::Error| {
            let remedy =
                format!("is it running, and is that its control.listen? name it by --server or {SERVER}");
            let error = Unanswered { what: format!("{name} does not answer"), cause: error.without_url() };
            NotDone::not_asked(error, remedy)
        };
        let answer = request.send().await.map_err(away)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(away)?;
        let odd = || {
            let what = format!("{name} answers {status}, and not as a control plane would");
            NotDone::not_asked(what, "name its control.listen by --server; the data plane has other routes")
        };
        if status.is_success() {
            let body: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            return serde_json::from_slice(body).map_err(|_| odd());
        }
        let refusal: Refusal = serde_json::from_slice(&bytes).map_err(|_| odd())?;
        let remedy = match (refusal.remedy, status.as_u16()) {
            (Some(remedy), _) => remedy,
            (None, 401) => format!("give a token by --token-file or {TOKEN}; `jwks-cache token` makes one"),
            (None, 404) => "`jwks-cache status` lists what there is".to_owned(),
            (None, _) => "correct what it names, and try again".to_owned(),
        };
        // Foreign text.
        let (what, remedy) = (shown(&refusal.detail, 500), shown(&remedy, 300));
        Err(NotDone { error: what.into(), remedy, was_asked: status.as_u16() != 401 })
    }
}

/// Somebody who does not answer.
#[derive(Debug)]
struct Unanswered {
    what: String,
    cause: jwks_cache::reqwest::Error,
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Unanswered {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.cause)
    }
}

/// Believes the machine's roots and those of `--ca`.
fn tls(args: &ServerArgs) -> Result<ClientConfig, NotDone> {
    let wrong =
        |file: &Path, what: &str| NotDone::not_asked(format!("{} {what}", file.display()), "give a PEM file");
    let certificates = |file: &PathBuf| -> Result<Vec<CertificateDer<'static>>, NotDone> {
        let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let all = all.map_err(|_| wrong(file, "cannot be read, or is no PEM"))?;
        if all.is_empty() { Err(wrong(file, "has no certificate")) } else { Ok(all) }
    };
    let extra = args.ca.as_ref().map(certificates).transpose()?.unwrap_or_default();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let failed = |error: rustls::Error| NotDone::not_asked(error, "check the certificates of this machine");
    let verifier = Verifier::new_with_extra_roots(extra, provider.clone()).map_err(failed)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &args.cert {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let key = args.key.as_ref().unwrap_or(file);
            let key = PrivateKeyDer::from_pem_file(key).map_err(|_| wrong(key, "has no private key"))?;
            builder.with_client_auth_cert(certificates(file)?, key).map_err(failed)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn unreadable(file: &Path, error: &std::io::Error) -> NotDone {
    NotDone::not_asked(
        format!("{} cannot be read: {error}", file.display()),
        "name a file that holds the token",
    )
}
