//! TLS of a listener: certificates that are read again when they change, and who a client says it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::aws_lc_rs::digest::{SHA256, digest};
use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::StartError;
use crate::config::{Digest, Stamp, Tls};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Who a client is, by a certificate that one of `client_ca` vouches for (RFC 5280).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 of the certificate.
    pub sha256: Digest,
    /// What its authority vouches for, each with its kind before it, so that no kind passes for another: `uri:`, `dns:` (in
    /// lower case) and `email:`, as they stand in it: foreign text. `cn:`, the common names, only where it has no
    /// alternative names at all (RFC 6125 §6.4.4).
    pub names: Vec<String>,
    /// The last second in which it is good (RFC 5280 §4.1.2.5).
    pub good_until: DateTime<Utc>,
}

/// The TLS that a listener speaks now.
#[derive(Clone)]
pub(super) struct Speaking {
    now: Arc<ArcSwap<ServerConfig>>,
    field: &'static str,
    tls: Tls,
    loaded: Stamp,
}

impl Speaking {
    /// Reads the files.
    pub(super) fn of(tls: &Tls, field: &'static str) -> Result<Self, StartError> {
        let loaded = Stamp::of(&files(tls));
        let config = server_config(tls).map_err(|Refused { file, what, remedy }| {
            StartError::new(format!("{}.tls.{file}", field.trim_end_matches(".listen")), what, remedy)
        })?;
        Ok(Self { now: Arc::new(ArcSwap::from_pointee(config)), field, tls: tls.clone(), loaded })
    }

    /// What new connections are offered.
    pub(super) fn now(&self) -> Arc<ServerConfig> {
        self.now.load_full()
    }

    /// Reads the files again whenever they change, for ever. What cannot be used leaves the old in force.
    pub(super) async fn keep_up(mut self) {
        let mut tried = self.loaded.clone();
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            let stamp = Stamp::of(&files(&self.tls));
            if stamp == self.loaded {
                continue;
            }
            let first = stamp != tried;
            tried = stamp.clone();
            // A certificate and its key may be replaced one after the other, so what fails is tried again.
            match server_config(&self.tls) {
                Ok(config) => {
                    self.now.store(Arc::new(config));
                    self.loaded = stamp;
                    self.count("taken");
                    tracing::info!(listener = self.field, "certificate read again");
                }
                Err(refused) if first => {
                    self.count("refused");
                    tracing::warn!(
                        listener = self.field,
                        why = refused.what,
                        "the old certificate stays in force"
                    );
                }
                Err(_) => {}
            }
        }
    }

    fn count(&self, outcome: &'static str) {
        let listener = self.field.trim_end_matches(".listen");
        metrics::counter!("jwks_cache_server_certificate_reloads_total", "listener" => listener, "outcome" => outcome)
            .increment(1);
    }
}

fn files(tls: &Tls) -> Vec<PathBuf> {
    [Some(&tls.certificate), Some(&tls.key), tls.client_ca.as_ref()].into_iter().flatten().cloned().collect()
}

/// Which file cannot be used, and why.
struct Refused {
    file: &'static str,
    what: String,
    remedy: &'static str,
}

fn server_config(tls: &Tls) -> Result<ServerConfig, Refused> {
    let certificates = |file, path: &PathBuf| {
        let refused = |what: String| Refused {
            file,
            what: format!("{} {what}", path.display()),
            remedy: "give a PEM file of certificates (-----BEGIN CERTIFICATE-----) that this process may read",
        };
        let all: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| refused(format!("cannot be read: {error}")))?;
        if all.is_empty() { Err(refused("holds no certificate".into())) } else { Ok(all) }
    };
    let chain = certificates("certificate", &tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| Refused {
        file: "key",
        what: format!("{} cannot be read: {error}", tls.key.display()),
        remedy: "give a PEM file with a private key (PKCS #8, SEC 1 or PKCS #1), not encrypted",
    })?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Refused { file: "key", what: error.to_string(), remedy: "please report this" })?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let refused = |what: String| Refused {
                file: "client_ca",
                what: format!("{} {what}", path.display()),
                remedy: "give a PEM file of the authorities that certify clients",
            };
            let mut roots = RootCertStore::empty();
            for authority in certificates("client_ca", path)? {
                roots.add(authority).map_err(|error| refused(format!("cannot be used: {error}")))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| refused(format!("cannot be used: {error}")))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| Refused {
        file: "key",
        what: format!("{} does not go with the certificate: {error}", tls.key.display()),
        remedy: "give the key that the certificate was made for",
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if tls.client_ca.is_some() {
        // A session that is resumed would let in a client whose certificate has expired meanwhile.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// Who the client is; `None` where nobody was asked.
pub(super) fn identity(chain: Option<&[CertificateDer<'_>]>) -> Option<Identity> {
    let leaf = chain?.first()?;
    let sha256 = digest(&SHA256, leaf).as_ref().try_into().map(Digest).ok()?;
    // One that cannot be read here has no names, and nobody knows until when it is good.
    let (names, good_until) = match X509Certificate::from_der(leaf) {
        Ok((_, certificate)) => (names(&certificate), last_second(&certificate)),
        Err(_) => (Vec::new(), DateTime::<Utc>::MIN_UTC),
    };
    Some(Identity { sha256, names, good_until })
}

fn last_second(certificate: &X509Certificate<'_>) -> DateTime<Utc> {
    let seconds = certificate.validity().not_after.timestamp();
    DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    match certificate.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().filter_map(named).collect(),
        Ok(None) => {
            let common = certificate.subject().iter_common_name();
            common.filter_map(|name| Some(format!("cn:{}", name.as_str().ok()?))).collect()
        }
        // Two of them, or one that cannot be read: nobody knows what it says.
        Err(_) => Vec::new(),
    }
}

fn named(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::URI(text) => Some(format!("uri:{text}")),
        GeneralName::DNSName(text) => Some(format!("dns:{}", text.to_ascii_lowercase())),
        GeneralName::RFC822Name(text) => Some(format!("email:{text}")),
        _ => None,
    }
}
