//! TLS by rustls: roots, versions, our own certificate. There is no switch that skips verification.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use super::identity::Identity;
use super::path::{Looking, Paths};
use super::pins;
use super::settings::TlsVersion;

/// The machine's own trust, read once: that takes a while.
#[derive(Default)]
pub(super) struct Machine {
    verifier: OnceLock<Arc<Verifier>>,
    roots: OnceLock<Arc<RootCertStore>>,
}

impl Machine {
    /// What verifies when nothing else is said: on Linux by webpki with the system's bundle (or what
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` name), elsewhere by the system itself.
    pub(super) fn verifier(&self) -> Result<Arc<Verifier>, String> {
        if let Some(verifier) = self.verifier.get() {
            return Ok(verifier.clone());
        }
        let verifier = Verifier::new(provider()).map_err(|error| error.to_string())?;
        Ok(self.verifier.get_or_init(|| Arc::new(verifier)).clone())
    }

    /// The roots that paths are built to when pins are checked. Where there are none, they may come yet.
    fn roots(&self) -> Arc<RootCertStore> {
        if let Some(roots) = self.roots.get() {
            return roots.clone();
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let roots = Arc::new(roots);
        if roots.is_empty() { roots } else { self.roots.get_or_init(|| roots).clone() }
    }
}

/// The configuration of an identity.
pub(super) fn config(of: &Identity, machine: &Machine) -> Result<ClientConfig, String> {
    if of.pins.is_empty() {
        return config_with(of, verifier(of, machine)?);
    }
    let (inner, paths) = believed(of, machine)?;
    config_with(of, Arc::new(Looking { inner, look: pins::look(paths, of.pins.clone()) }))
}

/// What verifies an identity's servers, and the paths to the same roots.
pub(super) fn believed(
    of: &Identity,
    machine: &Machine,
) -> Result<(Arc<dyn ServerCertVerifier>, Paths), String> {
    let extra = extra_roots(of)?;
    let roots = match (of.replace_roots, extra.is_empty()) {
        (true, _) => Arc::new(store(RootCertStore::empty(), &extra)?),
        (false, true) => machine.roots(),
        (false, false) => Arc::new(store((*machine.roots()).clone(), &extra)?),
    };
    let algorithms = provider().signature_verification_algorithms;
    Ok((verifier(of, machine)?, Paths { roots, algorithms }))
}

fn verifier(of: &Identity, machine: &Machine) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let extra = extra_roots(of)?;
    if of.replace_roots {
        let roots = Arc::new(store(RootCertStore::empty(), &extra)?);
        let built = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
        return Ok(built.map_err(|error| error.to_string())?);
    }
    if extra.is_empty() {
        return Ok(machine.verifier()?);
    }
    let verifier = Verifier::new_with_extra_roots(extra, provider());
    Ok(Arc::new(verifier.map_err(|error| error.to_string())?))
}

fn extra_roots(of: &Identity) -> Result<Vec<CertificateDer<'static>>, String> {
    Ok(of.ca.as_deref().map(roots).transpose()?.unwrap_or_default())
}

/// A configuration that believes whom `verifier` believes.
pub(super) fn config_with(
    of: &Identity,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ClientConfig, String> {
    let versions: &[_] = match of.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &of.client_certificate {
        Some(pem) => {
            let certified = certified(&pem.chain, &pem.key)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session shows no certificate, and each resumption brings a ticket for the next: nothing would be
    // looked at again. Exchanges are minutes apart, so little is gained by them.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The CA certificates in a PEM text.
pub(super) fn roots(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = certificates(pem)?;
    store(RootCertStore::empty(), &found)?;
    Ok(found)
}

fn store(mut base: RootCertStore, extra: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    for certificate in extra {
        base.add(certificate.clone())
            .map_err(|error| format!("has a CA certificate that is none: {error}"))?;
    }
    Ok(base)
}

/// A certificate chain and its key, which must belong together. One text may hold both.
pub(super) fn certified(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        "has no private key in PEM that can be read (one that is encrypted cannot)".to_owned()
    })?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_owned(),
        // What rustls says of a key holds no part of it.
        other => format!("certificate or key cannot be used: {other}"),
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("has no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned()),
        // The cause may quote the text.
        Err(_) => Err("has PEM that is broken".to_owned()),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
