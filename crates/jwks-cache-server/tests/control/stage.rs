//! A control plane on sockets of its own, with callers that have each kind of credentials.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use jwks_cache::reqwest::{Client, ClientBuilder, Method, Response};
use jwks_cache::{IdentityProviderRegistration, Registry};
use jwks_cache_server::Registrations;
use jwks_cache_server::control::access::{
    Access, Certificate, Grant, Identity, Peer, Reach, Right, TokenHash,
};
use jwks_cache_server::control::{self, Book, Restored, State};
use jwks_cache_testkit::IdentityProvider;
use jwks_cache_testkit::tls::Authority;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::folder::Folder;

/// For how long this server serves expired keys.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The server.
pub(crate) struct Stage {
    pub(crate) state: State,
    /// With credentials for everything.
    pub(crate) all: Caller,
    servers: Vec<tokio::task::JoinHandle<()>>,
}

/// Somebody who asks.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) token: Option<String>,
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Self { status, headers, body }
    }
}

pub(crate) fn token(name: &str) -> String {
    format!("{name}-token-of-thirty-two-characters-and-more")
}

/// Asks over a Unix socket.
pub(crate) fn client_at(socket: &std::path::Path) -> Client {
    builder().unix_socket(socket).build().unwrap()
}

fn client() -> Client {
    builder().build().unwrap()
}

fn builder() -> ClientBuilder {
    let tls = verifying(rustls::RootCertStore::empty()).with_no_client_auth();
    Client::builder().tls_backend_preconfigured(tls).no_proxy()
}

/// A client of its own that believes this authority's servers, and shows that certificate.
pub(crate) fn client_showing(
    shown: &jwks_cache_testkit::tls::Certificate,
    believed: &Authority,
    http2: bool,
) -> Client {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(believed.pem().as_bytes()).unwrap()).unwrap();
    let chain = CertificateDer::pem_slice_iter(shown.chain_pem().as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(shown.key_pem().as_bytes()).unwrap();
    let mut tls = verifying(roots).with_client_auth_cert(chain, key).unwrap();
    if http2 {
        tls.alpn_protocols = vec![b"h2".to_vec()];
    }
    Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

fn verifying(
    roots: rustls::RootCertStore,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

/// What one tenant may have at run time: few providers, so that a test can have one too many.
fn limits() -> Registrations {
    Registrations { per_tenant: 20, ..Registrations::default() }
}

/// What the server is configured with: `acme-read`, `acme-write`, `zeta-write`, `all-read`, `all-write` as tokens, and the
/// certificates `acme-cert` (read) and the one whose hash is all 7s (write).
pub(crate) fn access() -> Access {
    let grant = |name: &str, tenant: &str, right| Grant {
        name: name.to_owned(),
        tenants: if tenant == "*" { Reach::All } else { Reach::Tenants([tenant.to_owned()].into()) },
        right,
    };
    [
        ("acme-read", "acme", Right::Read),
        ("acme-write", "acme", Right::Write),
        ("zeta-write", "zeta", Right::Write),
        ("all-read", "*", Right::Read),
        ("all-write", "*", Right::Write),
    ]
    .into_iter()
    .fold(Access::default(), |access, (name, tenant, right)| {
        access.token(TokenHash::of(&token(name)), grant(name, tenant, right))
    })
    .certificate(Certificate::Named("acme-cert".to_owned()), grant("acme-cert", "acme", Right::Read))
    .certificate(Certificate::Exactly([7; 32]), grant("certificate-all", "*", Right::Write))
}

impl Stage {
    /// One that keeps its book in this folder.
    pub(crate) async fn start(folder: &Folder) -> Self {
        Self::with(Book::open(&folder.0).await.unwrap()).await
    }

    pub(crate) async fn forgetful() -> Self {
        Self::with(Book::in_memory()).await
    }

    async fn with(book: Book) -> Self {
        let hosts = ["127.0.0.1", "example.com"];
        let registry = Registry::builder().require_https(false).allowed_domains(hosts).build();
        let state = State::new(registry, book, DAY, limits());
        state.let_in(access());
        let url = "http://127.0.0.1".to_owned();
        let all = Caller { client: client(), url, token: Some(token("all-write")) };
        let mut stage = Self { state, all, servers: Vec::new() };
        stage.all = stage.listen(None).await.with("all-write");
        stage
    }

    /// A listener that says this of who is at the other end.
    pub(crate) async fn listen(&mut self, peer: Option<Peer>) -> Caller {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = control::router(self.state.clone());
        let router = if let Some(peer) = peer { router.layer(Extension(peer)) } else { router };
        self.servers.push(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
        Caller { client: self.all.client.clone(), url, token: None }
    }

    /// One whose file has this provider.
    pub(crate) async fn configure(&self, registration: IdentityProviderRegistration) {
        self.state.registry().register(registration.clone()).await.unwrap();
        self.state.configure([registration]);
    }

    pub(crate) async fn restore(&self) -> Restored {
        self.state.hold().await.restore().await
    }

    /// Ends it as a crash would: nothing is written any more.
    pub(crate) async fn end(mut self) {
        for server in &self.servers {
            server.abort();
        }
        for server in std::mem::take(&mut self.servers) {
            let _ = server.await;
        }
    }
}

pub(crate) fn certificate(hash: u8, name: &str) -> Peer {
    Peer::Certificate(Identity { sha256: [hash; 32], names: vec![name.to_owned()] })
}

/// What registers the keys of this provider.
pub(crate) fn settings(idp: &IdentityProvider) -> Value {
    json!({"jwksUrl": idp.jwks_url(), "requireHttps": false})
}

impl Caller {
    pub(crate) fn with(&self, name: &str) -> Self {
        Self { token: Some(token(name)), ..self.clone() }
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.ask_with(method, path, body, &[]).await
    }

    pub(crate) async fn ask_with(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.try_to_ask(method, path, body, headers).await.unwrap()
    }

    /// The same, where the server may turn the whole connection away.
    pub(crate) async fn try_to_ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, jwks_cache::reqwest::Error> {
        let method: Method = method.parse().unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(Answer::of(request.send().await?).await)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, Some(body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, None).await
    }
}
