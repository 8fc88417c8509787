//! Which certificates vouch for a server: the path from its own to a trusted root, as it was verified.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::time::Instant;
use url::Url;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::settings::{TlsSettings, Transport};
use super::tls;
use super::{Callers, Dial, Notes, Pins};
use crate::clock::{later, socket_now};
use crate::error::{Error, Result};
use crate::security::SpkiFingerprint;
use crate::sync::{Mutex, lock};

/// A certificate of a verified path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathCertificate {
    /// The common name of its subject, or its organisation; empty if it has neither. Anyone may write anything here.
    pub name: String,
    /// The pin of its key.
    pub pin: SpkiFingerprint,
}

/// Builds paths to a set of roots.
pub(super) struct Paths {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl Paths {
    /// Whether there is a path that `accept` accepts; each is given from the server's certificate to the root's.
    /// Where intermediates are signed by several roots, there are several.
    pub(super) fn any(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        accept: impl FnMut(Vec<PathCertificate>) -> bool,
    ) -> bool {
        let Ok(certificate) = EndEntityCert::try_from(end_entity) else { return false };
        let accept = RefCell::new(accept);
        let judge = |path: &VerifiedPath<'_>| {
            let accepted = (*accept.borrow_mut())(certificates(path));
            if accepted { Ok(()) } else { Err(webpki::Error::UnknownIssuer) }
        };
        let path = certificate.verify_for_usage(
            self.algorithms.all,
            &self.roots.roots,
            intermediates,
            now,
            KeyUsage::server_auth(),
            None,
            Some(&judge),
        );
        path.is_ok()
    }
}

fn certificates(path: &VerifiedPath<'_>) -> Vec<PathCertificate> {
    let known =
        |subject: &[u8], spki: &[u8]| PathCertificate { name: name(subject), pin: SpkiFingerprint::of(spki) };
    let leaf = path.end_entity();
    let mut all = vec![known(leaf.subject(), &leaf.subject_public_key_info())];
    all.extend(
        path.intermediate_certificates().map(|one| known(one.subject(), &one.subject_public_key_info())),
    );
    let root = path.anchor();
    all.push(known(&root.subject, &as_sequence(&root.subject_public_key_info)));
    all
}

/// A trust anchor holds the content of its SubjectPublicKeyInfo; a pin is over the whole (X.690 §8.1, §10.1).
fn as_sequence(content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut der = vec![0x30];
    if content.len() < 0x80 {
        der.push(significant.last().copied().unwrap_or(0));
    } else {
        der.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
        der.extend(significant);
    }
    der.extend_from_slice(content);
    der
}

/// A name for people out of a subject in DER: its common name (2.5.4.3), else its organisation (2.5.4.10).
fn name(subject: &[u8]) -> String {
    let attribute = |number: u8| {
        let oid = [6, 3, 0x55, 4, number];
        let at = subject.windows(oid.len()).position(|window| window == oid)?;
        let [_tag, length, rest @ ..] = subject.get(at + oid.len()..)? else { return None };
        // Longer names, and forms of text that are no UTF-8, are not worth more.
        let text = rest.get(..usize::from(*length)).filter(|_| *length < 0x80)?;
        std::str::from_utf8(text).ok().map(ToOwned::to_owned)
    };
    attribute(3).or_else(|| attribute(10)).unwrap_or_default()
}

/// Shakes hands with the server of `url`, and gives the path of certificates that vouches for it, its own first, the
/// root last. Nothing of HTTP is sent.
///
/// ```no_run
/// use std::time::Duration;
/// use jwks_cache::{TlsSettings, certificate_path};
///
/// # async fn look() -> Result<(), Box<dyn std::error::Error>> {
/// let url = "https://id.example.com".parse()?;
/// for certificate in certificate_path(&url, &TlsSettings::default(), Duration::from_secs(5)).await? {
///     println!("{:?} {}", certificate.pin, certificate.name);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Validation`] for settings that break a rule or files that cannot be used, [`Error::Security`] for a URL
/// that is not https, [`Error::Cache`] when no server that is believed has shaken hands within `time`, counted over all
/// steps.
///
/// # Cancel safety
/// Dropping the future, as the end of `time` does, leaves a thread. It ends within `time`, or when the system gives up
/// resolving the host, if that takes longer.
pub async fn certificate_path(url: &Url, tls: &TlsSettings, time: Duration) -> Result<Vec<PathCertificate>> {
    crate::security::enforce_https(url)?;
    let settings = Transport { tls: tls.clone(), ..Transport::default() };
    settings.check()?;
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(Error::validation("url", "must have a host"));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let until = later(socket_now(), time);
    let late = Error::Cache(format!("{host}:{port} did not shake hands in time"));
    let looking = tokio::task::spawn_blocking(move || look(settings, &host, port, until));
    let Ok(looked) = tokio::time::timeout_at(until, looking).await else { return Err(late) };
    looked.unwrap_or_else(|error| Err(Error::Cache(format!("the runtime is going away: {error}"))))
}

fn look(settings: Transport, host: &str, port: u16, until: Instant) -> Result<Vec<PathCertificate>> {
    let callers = Callers::default();
    let dial = Dial::new(Arc::new(settings), Pins::default());
    let ready = dial.ready(&callers, &Notes::default());
    let ready = ready.map_err(|unready| Error::validation(unready.setting, unready.reason))?;
    let unusable = |reason| Error::validation("tls", reason);
    let (inner, paths) = tls::believed(&ready.home.identity, callers.machine()).map_err(unusable)?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = seen.clone();
    let look = move |end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], now| {
        paths.any(end_entity, intermediates, now, |path| {
            *lock(&keep) = path;
            true
        });
        Ok(())
    };
    let config =
        tls::config_with(&ready.home.identity, Arc::new(Looking { inner, look })).map_err(unusable)?;
    let unreachable = |what: &str, error: io::Error| Error::Cache(format!("{host}:{port} {what}: {error}"));
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Error::validation("url", format!("{host} is not a host name")))?;
    let mut session =
        ClientConnection::new(Arc::new(config), name).map_err(|error| unusable(error.to_string()))?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    let addresses =
        (host, port).to_socket_addrs().map_err(|error| unreachable("cannot be resolved", error))?;
    let connect = |address| TcpStream::connect_timeout(&address, remaining(until)?);
    let connected =
        addresses.into_iter().find_map(|address| connect(address).map_err(|error| last = error).ok());
    let stream = connected.ok_or_else(|| unreachable("cannot be connected to", last))?;
    let mut stream = Timed { stream, until };
    while session.is_handshaking() {
        session.complete_io(&mut stream).map_err(|error| unreachable("is not believed", error))?;
    }
    Ok(std::mem::take(&mut *lock(&seen)))
}

/// What is left until then.
fn remaining(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(socket_now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A stream whose reads and writes end at one moment, however many there are.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(remaining(self.until)?))?;
        self.stream.read(into)
    }
}

impl Write for Timed {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(remaining(self.until)?))?;
        self.stream.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Verifies as another verifier does, and then looks at what it believed.
pub(super) struct Looking<L> {
    pub(super) inner: Arc<dyn ServerCertVerifier>,
    pub(super) look: L,
}

impl<L> ServerCertVerifier for Looking<L>
where
    L: Fn(&CertificateDer<'_>, &[CertificateDer<'_>], UnixTime) -> std::result::Result<(), rustls::Error>
        + Send
        + Sync,
{
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        (self.look)(end_entity, intermediates, now)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl<L> std::fmt::Debug for Looking<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Looking")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_written_in_as_few_bytes_as_it_takes() {
        for (length, head) in [
            (0, &[0x30, 0][..]),
            (1, &[0x30, 1]),
            (127, &[0x30, 127]),
            (128, &[0x30, 0x81, 128]),
            (294, &[0x30, 0x82, 1, 38]),
            (65_536, &[0x30, 0x83, 1, 0, 0]),
        ] {
            let der = as_sequence(&vec![7; length]);
            assert_eq!((&der[..head.len()], der.len()), (head, head.len() + length), "{length}");
        }
    }

    #[test]
    fn a_subject_is_named_by_its_common_name_or_its_organisation() {
        let attribute = |number, length, text: &str| {
            [&[0x31, 9, 0x30, 9, 6, 3, 0x55, 4, number, 0x0c, length][..], text.as_bytes()].concat()
        };
        let check = |subject: &[Vec<u8>], want: &str| assert_eq!(name(&subject.concat()), want);
        let organisation = attribute(10, 4, "Acme");
        check(&[organisation.clone(), attribute(3, 2, "CA")], "CA");
        check(std::slice::from_ref(&organisation), "Acme");
        check(&[], "");
        for cut in [attribute(3, 9, "short"), attribute(3, 0x82, "long"), vec![6, 3, 0x55, 4, 3]] {
            check(&[cut], "");
        }
        check(&[attribute(3, 1, "\u{e9}")], "");
    }
}
