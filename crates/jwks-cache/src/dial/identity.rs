//! Who we are and whom we trust, as a value: equal ones share their connections.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::pins::Pins;
use super::places::Places;
use super::settings::TlsVersion;

/// Everything that makes one client different from another. What is sent per request (headers, tokens, the user
/// agent) is no part of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// CA certificates in PEM, besides the machine's or instead of them.
    pub(super) ca: Option<Arc<[u8]>>,
    pub(super) replace_roots: bool,
    pub(super) client_certificate: Option<Arc<ClientPem>>,
    pub(super) min_version: TlsVersion,
    pub(super) pins: Pins,
    pub(super) proxy: Option<Url>,
    pub(super) connect_timeout: Duration,
    pub(super) private_networks: Places,
}

/// A client certificate and its key in PEM, found sound and belonging together.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct ClientPem {
    pub(super) chain: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl Identity {
    /// The same towards a stranger: without the certificate that is for the registered origin alone.
    pub(super) fn towards_strangers(&self) -> Self {
        Self { client_certificate: None, ..self.clone() }
    }
}
