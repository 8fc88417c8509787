//! Certificates for tests, and origins that show them.
//!
//! An [`Authority`] certifies servers and clients; a [`TlsServer`] says what a TLS origin shows and asks for. Keys
//! are made anew in each test and live in memory.

use std::fmt;
use std::ops::{Deref, RangeInclusive};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use jwks_cache::{Moment, SpkiFingerprint, SystemClock};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::origin::{Front, Handshake, Origin, RecordedRequest, Shared, Wire, serve};

/// A certificate authority: a root, or one that another has certified.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// What stands between its certificates and the root, its own certificate first; nothing for a root.
    above: Vec<CertificateDer<'static>>,
    pin: SpkiFingerprint,
}

impl Authority {
    /// A root with this name and a new key.
    ///
    /// # Panics
    /// If the machine cannot make keys.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let (params, key) = (Self::params(name), new_key());
        let pin = pin_of(&key);
        let certificate = params.self_signed(&key).expect("a new key signs").der().clone();
        Self { issuer: Issuer::new(params, key), certificate, above: Vec::new(), pin }
    }

    /// An authority with this name and a new key, certified by this one.
    ///
    /// # Panics
    /// If the machine cannot make keys.
    #[must_use]
    pub fn intermediate(&self, name: &str) -> Self {
        let (params, key) = (Self::params(name), new_key());
        let pin = pin_of(&key);
        let certificate = params.signed_by(&key, &self.issuer).expect("a new key signs").der().clone();
        let above = [vec![certificate.clone()], self.above.clone()].concat();
        Self { issuer: Issuer::new(params, key), certificate, above, pin }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// A server's certificate for these names (or addresses), with a new key.
    ///
    /// # Panics
    /// For a name that cannot stand in a certificate.
    #[must_use]
    pub fn server(&self, names: &[&str]) -> Certificate {
        self.certify(names, ExtendedKeyUsagePurpose::ServerAuth, |_| ())
    }

    /// The same, which was good until a day long ago.
    ///
    /// # Panics
    /// For a name that cannot stand in a certificate.
    #[must_use]
    pub fn expired_server(&self, names: &[&str]) -> Certificate {
        self.certify(names, ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        })
    }

    /// A client's certificate with a new key.
    ///
    /// # Panics
    /// For a name that cannot stand in a certificate.
    #[must_use]
    pub fn client(&self, name: &str) -> Certificate {
        self.certify(&[name], ExtendedKeyUsagePurpose::ClientAuth, |_| ())
    }

    /// The same, which is good from the first of these times to the last, in whole seconds.
    ///
    /// # Panics
    /// For a name or a time that cannot stand in a certificate.
    #[must_use]
    pub fn client_during(&self, name: &str, good: RangeInclusive<DateTime<Utc>>) -> Certificate {
        self.certify(&[name], ExtendedKeyUsagePurpose::ClientAuth, |params| {
            params.not_before = SystemTime::from(*good.start()).into();
            params.not_after = SystemTime::from(*good.end()).into();
        })
    }

    fn certify(
        &self,
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names for a certificate");
        params.distinguished_name.push(DnType::CommonName, "leaf of a test");
        params.extended_key_usages = vec![usage];
        change(&mut params);
        let key = new_key();
        let leaf = params.signed_by(&key, &self.issuer).expect("a new key signs").der().clone();
        let chain = [vec![leaf], self.above.clone()].concat();
        Certificate { chain, pin: pin_of(&key), key: key.serialize_der() }
    }

    /// Its own certificate in PEM, as a bundle of roots has it.
    #[must_use]
    pub fn pem(&self) -> String {
        pem(&self.certificate)
    }

    /// The pin of its key.
    #[must_use]
    pub fn pin(&self) -> SpkiFingerprint {
        self.pin.clone()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("pin", &self.pin).finish_non_exhaustive()
    }
}

/// A certificate with its key, and what it is sent with: every intermediate, no root.
#[derive(Clone)]
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    pin: SpkiFingerprint,
}

impl Certificate {
    /// The chain in PEM, the leaf first.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|certificate| pem(certificate)).collect()
    }

    /// The private key in PEM (PKCS #8).
    #[must_use]
    pub fn key_pem(&self) -> String {
        block("PRIVATE KEY", &self.key)
    }

    /// The pin of the leaf's key.
    #[must_use]
    pub fn pin(&self) -> SpkiFingerprint {
        self.pin.clone()
    }

    /// The same certificate, sent with the whole chain of `other` behind its own.
    #[must_use]
    pub fn followed_by(mut self, other: &Self) -> Self {
        self.chain.extend(other.chain.iter().cloned());
        self
    }

    /// The same certificate, sent with an authority's behind its own chain.
    #[must_use]
    pub fn followed_by_authority(mut self, authority: &Authority) -> Self {
        self.chain.push(authority.certificate.clone());
        self
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("pin", &self.pin).finish_non_exhaustive()
    }
}

/// What a TLS origin shows and asks for.
///
/// ```
/// use jwks_cache_testkit::Reply;
/// use jwks_cache_testkit::tls::{Authority, TlsOrigin, TlsServer};
///
/// let authority = Authority::new("a root for this test");
/// let origin = TlsOrigin::start(&TlsServer::new(authority.server(&["127.0.0.1"])));
/// origin.set("/jwks", Reply::json(r#"{"keys":[]}"#));
/// assert!(origin.url("/jwks").as_str().starts_with("https://127.0.0.1:"));
/// // Give `authority.pem()` to the client under test as its CA.
/// ```
#[derive(Clone, Debug)]
pub struct TlsServer {
    certificate: Certificate,
    client_authority: Option<CertificateDer<'static>>,
    alpn: Vec<Vec<u8>>,
    versions: &'static [&'static SupportedProtocolVersion],
}

impl TlsServer {
    /// Shows this certificate, asks for none, speaks HTTP/1.1 alone, over TLS 1.2 or 1.3.
    #[must_use]
    pub fn new(certificate: Certificate) -> Self {
        let (alpn, versions) = (vec![b"http/1.1".to_vec()], rustls::ALL_VERSIONS);
        Self { certificate, client_authority: None, alpn, versions }
    }

    /// Turns away clients without a certificate of this authority.
    #[must_use]
    pub fn client_authority(mut self, authority: &Authority) -> Self {
        self.client_authority = Some(authority.certificate.clone());
        self
    }

    /// Speaks HTTP/2 where the client offers it. Faults of a reply are for HTTP/1.1: over HTTP/2 only status,
    /// headers, body and gates count.
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.alpn.insert(0, b"h2".to_vec());
        self
    }

    /// Speaks TLS 1.2 alone.
    #[must_use]
    pub fn only_tls12(mut self) -> Self {
        const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
        self.versions = TLS12;
        self
    }

    fn config(&self) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(self.versions)
            .expect("the provider speaks both versions");
        let builder = match &self.client_authority {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.clone()).expect("an authority is a root");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
                builder.with_client_cert_verifier(verifier.expect("there is a root"))
            }
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.certificate.key.clone()));
        let mut config = builder
            .with_single_cert(self.certificate.chain.clone(), key)
            .expect("the key belongs to the certificate");
        config.alpn_protocols.clone_from(&self.alpn);
        config
    }
}

/// An [`Origin`] that speaks TLS, on `127.0.0.1` and under `https`.
#[derive(Debug)]
pub struct TlsOrigin {
    origin: Origin,
    terminal: Arc<Terminal>,
}

impl TlsOrigin {
    /// An origin on a free port.
    ///
    /// # Panics
    /// As [`Origin::start`].
    #[must_use]
    pub fn start(server: &TlsServer) -> Self {
        let terminal = Arc::new(Terminal::new(server));
        let origin = Origin::start_behind(Arc::new(SystemClock), Some(terminal.clone()));
        Self { origin, terminal }
    }

    /// Shows something else from the next connection on. Sessions from before are forgotten.
    pub fn show(&self, server: &TlsServer) {
        *lock(&self.terminal.config) = Arc::new(server.config());
    }

    /// Why handshakes failed, as the origin sees it, oldest first.
    #[must_use]
    pub fn failed_handshakes(&self) -> Vec<String> {
        lock(&self.terminal.failures).clone()
    }
}

impl Deref for TlsOrigin {
    type Target = Origin;

    fn deref(&self) -> &Origin {
        &self.origin
    }
}

/// The TLS end of an origin; what it shows may be changed while it runs.
struct Terminal {
    config: Mutex<Arc<ServerConfig>>,
    failures: Mutex<Vec<String>>,
}

impl Terminal {
    fn new(server: &TlsServer) -> Self {
        Self { config: Mutex::new(Arc::new(server.config())), failures: Mutex::default() }
    }

    /// Shakes hands, then serves what was agreed on.
    async fn shake(&self, stream: TcpStream, number: u64, shared: Arc<Shared>) {
        let config = lock(&self.config).clone();
        let stream = match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                lock(&self.failures).push(error.to_string());
                return;
            }
        };
        let (_, session) = stream.get_ref();
        let protocol = session.alpn_protocol().unwrap_or_default();
        let handshake = Handshake {
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            protocol: String::from_utf8_lossy(protocol).into_owned(),
            tls13: session.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3),
            client_certificate: session.peer_certificates().is_some(),
        };
        if protocol == b"h2" {
            // A client that breaks off is no failure of the origin.
            let _ = serve_http2(stream, number, &handshake, &shared).await;
        } else {
            serve(stream, number, Some(handshake), shared).await;
        }
    }
}

impl Front for Terminal {
    fn accept(
        self: Arc<Self>,
        stream: TcpStream,
        number: u64,
        shared: Arc<Shared>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { self.shake(stream, number, shared).await })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Terminal")
    }
}

impl Wire for TlsStream<TcpStream> {
    fn reset_on_drop(&self) {
        self.get_ref().0.reset_on_drop();
    }
}

/// Answers one request after the other.
async fn serve_http2(
    stream: TlsStream<TcpStream>,
    number: u64,
    handshake: &Handshake,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    let mut reused = false;
    while let Some(asked) = connection.accept().await {
        let (asked, mut respond) = asked?;
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut request = RecordedRequest {
            serial: 0,
            connection: number,
            reused,
            at: Moment::ORIGIN,
            method: asked.method().to_string(),
            path: asked.uri().path().to_owned(),
            query: asked.uri().query().map(ToOwned::to_owned),
            headers: asked.headers().iter().map(header).collect(),
            tls: Some(handshake.clone()),
        };
        reused = true;
        let reply = shared.answer_when_open(&mut request).await;
        let mut response = http::Response::builder().status(reply.status);
        for (name, value) in &reply.headers {
            response = response.header(name, value);
        }
        // A reply that is not valid HTTP is not sent: the client sees the stream end.
        if let Ok(response) = response.body(()) {
            respond.send_response(response, false)?.send_data(reply.body, true)?;
        }
    }
    Ok(())
}

/// A server that answers every greeting with a ServerHello of TLS 1.1, in bytes of ours (RFC 4346 §7.4.1.3).
#[must_use]
pub fn hello_of_tls11() -> Vec<u8> {
    let body = [
        &[3, 2][..], // server_version
        &[0x5a; 32], // random
        &[0],        // no session
        &[0, 0x2f],  // TLS_RSA_WITH_AES_128_CBC_SHA
        &[0],        // no compression
    ]
    .concat();
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("it is short");
    let handshake = [&[2, 0, 0, length(&body)][..], &body].concat();
    [&[22, 3, 2, 0, length(&handshake)][..], &handshake].concat()
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a test machine can make keys")
}

fn pin_of(key: &KeyPair) -> SpkiFingerprint {
    SpkiFingerprint::of(&key.subject_public_key_info())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    block("CERTIFICATE", certificate)
}

/// RFC 7468 §3.
fn block(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
