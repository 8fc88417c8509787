//! `jwks-cache health`: asks a server on this machine how it is, for container checks.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jwks_cache::reqwest::Client;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use crate::cli::HealthArgs;
use crate::config::{Config, Listen};
use crate::{run, terminal};

/// Container checks are asked for every few seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks, and says what was answered where that is not good.
pub(crate) async fn run(args: &HealthArgs) -> ExitCode {
    let config = match run::source(&args.settings).and_then(|source| source.load()) {
        Ok(loaded) => loaded.config,
        Err(problems) => return run::refused(&problems),
    };
    match ask(&config, if args.ready { "/readyz" } else { "/healthz" }).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            terminal::complain(
                &*Box::<dyn std::error::Error>::from(what),
                "see the server's log; is it running, with these settings?",
            );
            ExitCode::from(1)
        }
    }
}

async fn ask(config: &Config, path: &str) -> Result<(), String> {
    let (url, client) = at(config, path)?;
    let answer = client.get(&url).send().await.map_err(|error| {
        let mut text = format!("nobody answers at {}", config.ops.listen);
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    })?;
    if answer.status().is_success() {
        return Ok(());
    }
    let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
    Err(format!("{path} says {status}: {}", terminal::shown(text.trim(), 1000)))
}

/// The URL to ask, and what asks it.
fn at(config: &Config, path: &str) -> Result<(String, Client), String> {
    let builder = Client::builder().no_proxy().timeout(PATIENCE);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Ourselves(provider)))
        .with_no_client_auth();
    let builder = builder.tls_backend_preconfigured(tls);
    let spoken = config.tls_at(&config.ops.listen);
    if spoken.is_some_and(|tls| tls.client_ca.is_some()) {
        return Err("ops.listen asks for client certificates, and this command has none: give ops an address of its own".into());
    }
    let socket: Option<PathBuf>;
    let url = match &config.ops.listen {
        Listen::Tcp(address) => {
            socket = None;
            let scheme = if spoken.is_some() { "https" } else { "http" };
            format!("{scheme}://{}{path}", reachable(address))
        }
        Listen::Unix(file) => {
            socket = Some(file.clone());
            format!("http://localhost{path}")
        }
        Listen::Off => return Err("ops.listen is off: there is nobody to ask".into()),
    };
    let builder = match socket {
        Some(socket) => builder.unix_socket(socket),
        None => builder,
    };
    Ok((url, builder.build().map_err(|error| error.to_string())?))
}

/// Who listens on all addresses is asked on loopback.
fn reachable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => address.to_owned(),
    }
}

/// Believes whoever answers: this machine asks itself, nothing secret is sent, and the certificate's name is one that
/// clients use.
#[derive(Debug)]
struct Ourselves(Arc<CryptoProvider>);

impl ServerCertVerifier for Ourselves {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Data, Ops, Tls};

    #[test]
    fn a_listener_is_asked_as_the_planes_that_share_it_are() {
        let listen = || Listen::Tcp("0.0.0.0:8443".into());
        let config = |client_ca: Option<&str>| {
            let (certificate, key) = ("c.pem".into(), "k.pem".into());
            let tls = Some(Tls { certificate, key, client_ca: client_ca.map(PathBuf::from) });
            let data = Data { listen: listen(), tls, ..Data::default() };
            Config { data, ops: Ops { listen: listen(), tls: None }, ..Config::default() }
        };
        assert_eq!(at(&config(None), "/healthz").unwrap().0, "https://127.0.0.1:8443/healthz");
        let refused = at(&config(Some("ca.pem")), "/healthz").unwrap_err();
        assert!(refused.contains("client certificates"), "{refused}");
    }
}
