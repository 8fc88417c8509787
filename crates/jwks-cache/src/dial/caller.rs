//! HTTP clients, one pair for each identity. Everything that reqwest might do behind our back is off: redirects,
//! retries, decompression, environment proxies.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use reqwest::Client;
use tower_layer::Layer;
use tower_service::Service;
use url::Url;

use super::identity::Identity;
use super::idle::{self, Idle};
use super::notes::{Note, Notes};
use super::resolver::{Reach, RefusedAddress, Resolver, SystemResolver};
use super::tls::{self, Machine};
use crate::clock::socket_now;
use crate::sync::{Mutex, lock};

const USER_AGENT: &str = concat!("jwks-cache/", env!("CARGO_PKG_VERSION"));

tokio::task_local! {
    /// The exchange that connects in this task.
    static EXCHANGE: Exchange;
}

/// What is to be known of the connecting of one request.
#[derive(Clone)]
pub(crate) struct Exchange {
    opens: Arc<AtomicBool>,
    notes: Notes,
}

impl Exchange {
    /// What its handshakes note goes to `notes`.
    pub(crate) fn new(notes: &Notes) -> Self {
        Self { opens: Arc::default(), notes: notes.clone() }
    }

    /// Runs `sending`, watching how it connects.
    pub(crate) async fn watch<T>(&self, sending: impl Future<Output = T>) -> T {
        EXCHANGE.scope(self.clone(), sending).await
    }

    /// Whether it began to open a connection.
    pub(crate) fn opened_a_connection(&self) -> bool {
        self.opens.load(Relaxed)
    }
}

/// Notes something about the handshake that runs in this task.
pub(super) fn note(note: Note) {
    // Outside an exchange (there is none) nobody asks.
    let _ = EXCHANGE.try_with(|exchange| exchange.notes.add(note));
}

/// The callers of one engine: equal identities share one, and who is not needed any more goes.
pub(crate) struct Callers {
    machine: Arc<Machine>,
    resolver: Arc<dyn Resolver>,
    idle: Arc<Idle>,
    by_identity: Mutex<Interned>,
}

#[derive(Default)]
struct Interned {
    callers: HashMap<Arc<Identity>, Weak<Caller>>,
    /// Dead entries are swept when the map has grown to this.
    sweep_at: usize,
}

impl Callers {
    /// Whose names `resolver` resolves.
    pub(crate) fn new(resolver: Arc<dyn Resolver>) -> Self {
        Self { machine: Arc::default(), resolver, idle: Arc::default(), by_identity: Mutex::default() }
    }

    /// Reads the machine's roots, so that no provider's time goes into that. It blocks.
    pub(crate) fn prepare(&self) {
        // What fails here fails again, and is told, when a client is needed.
        let _ = self.machine.verifier();
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The caller of an identity.
    pub(super) fn intern(&self, identity: Identity) -> Arc<Caller> {
        let mut interned = lock(&self.by_identity);
        if let Some(caller) = interned.callers.get(&identity).and_then(Weak::upgrade) {
            return caller;
        }
        if interned.callers.len() >= interned.sweep_at {
            interned.callers.retain(|_, caller| caller.strong_count() > 0);
            interned.sweep_at = (2 * interned.callers.len()).max(16);
        }
        let reach = Reach { policy: identity.private_networks.clone(), resolver: self.resolver.clone() };
        let caller = Arc::new(Caller {
            identity: Arc::new(identity),
            reach: Arc::new(reach),
            machine: self.machine.clone(),
            idle: self.idle.clone(),
            tls: OnceLock::new(),
            clients: Mutex::default(),
        });
        // A dead entry's identity goes with it.
        interned.callers.remove(&caller.identity);
        interned.callers.insert(caller.identity.clone(), Arc::downgrade(&caller));
        caller
    }

    /// How many are in use.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        lock(&self.by_identity).callers.values().filter(|caller| caller.strong_count() > 0).count()
    }
}

impl Default for Callers {
    fn default() -> Self {
        Self::new(Arc::new(SystemResolver))
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callers")
    }
}

/// The clients of one identity: the pooled one, and one that always opens a connection. They share what TLS was
/// made of.
pub(crate) struct Caller {
    pub(super) identity: Arc<Identity>,
    reach: Arc<Reach>,
    machine: Arc<Machine>,
    idle: Arc<Idle>,
    tls: OnceLock<rustls::ClientConfig>,
    clients: Mutex<Option<Clients>>,
}

#[derive(Clone)]
pub(super) struct Clients {
    pooled: Client,
    fresh: Client,
}

impl Caller {
    /// Judges the addresses that stand in `url` and in the proxy's. Names are judged when they are dialled.
    ///
    /// # Errors
    /// [`RefusedAddress`].
    pub(crate) fn check_literals(&self, url: &Url) -> Result<(), RefusedAddress> {
        self.identity.proxy.iter().chain([url]).try_for_each(|url| self.reach.check_literal(url))
    }

    /// What the proxy knows us by, plain and as it is sent (RFC 7617 §2).
    pub(crate) fn proxy_credentials(&self) -> Vec<Vec<u8>> {
        let Some(proxy) = self.identity.proxy.as_ref() else { return Vec::new() };
        let plain = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
        let password = proxy.password().map(plain).unwrap_or_default();
        let mut both = plain(proxy.username());
        both.push(b':');
        both.extend_from_slice(&password);
        if both.len() == 1 { Vec::new() } else { vec![STANDARD.encode(both).into_bytes(), password] }
    }

    /// The client for a request to `url`, which keeps its connection if there is room for one more idle one. Built
    /// when there is none yet, which blocks: see [`Caller::is_built`].
    pub(crate) fn client(&self, url: &Url) -> Result<Client, String> {
        let Clients { pooled, fresh } = self.clients()?;
        let whose = std::ptr::from_ref(self).addr();
        Ok(if self.idle.keeps(whose, url.origin(), socket_now()) { pooled } else { fresh })
    }

    /// The client that connects for each request. Built as the other one, together with it.
    pub(crate) fn fresh(&self) -> Result<Client, String> {
        Ok(self.clients()?.fresh)
    }

    /// Whether the clients are there.
    pub(crate) fn is_built(&self) -> bool {
        lock(&self.clients).is_some()
    }

    /// Leaves the idle connections, and those that nobody waits at: over HTTP/2 a server can go on talking on one
    /// whose requests were all given up. Exchanges that run are not disturbed.
    pub(crate) fn leave_connections(&self) {
        let mut clients = lock(&self.clients);
        // It was built of the same before, so it is built again; if not, who asks next is told why.
        *clients = self.tls.get().and_then(|tls| self.build_both(tls).ok());
    }

    /// Both clients. Built when they are not there yet, which blocks.
    pub(super) fn clients(&self) -> Result<Clients, String> {
        if let Some(clients) = &*lock(&self.clients) {
            return Ok(clients.clone());
        }
        let tls = match self.tls.get() {
            Some(tls) => tls,
            None => {
                let tls = tls::config(&self.identity, &self.machine)?;
                self.tls.get_or_init(|| tls)
            }
        };
        let built = self.build_both(tls)?;
        Ok(lock(&self.clients).get_or_insert(built).clone())
    }

    fn build_both(&self, tls: &rustls::ClientConfig) -> Result<Clients, String> {
        // A connection that is kept is not looked at again.
        let idle = if self.identity.pins.only_report() { 0 } else { idle::PER_ORIGIN };
        Ok(Clients { pooled: self.build(tls, idle)?, fresh: self.build(tls, 0)? })
    }

    fn build(&self, tls: &rustls::ClientConfig, idle_per_host: usize) -> Result<Client, String> {
        let of = &*self.identity;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .referer(false)
            .user_agent(USER_AGENT)
            .connect_timeout(of.connect_timeout)
            .pool_max_idle_per_host(idle_per_host)
            .pool_idle_timeout(idle::FOR)
            .dns_resolver(self.reach.clone())
            .connector_layer(NoteConnections);
        if let Some(proxy) = &of.proxy {
            // The error would show the URL, and so its credentials.
            let proxy = reqwest::Proxy::all(proxy.as_str()).map_err(|_| "the proxy's URL is none")?;
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|error| error.without_url().to_string())
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller")
    }
}

/// Notes that an exchange opened a connection, and lets the handshake know whose it is, in whatever task it ends.
#[derive(Clone)]
struct NoteConnections;

#[derive(Clone)]
struct Noting<S>(S);

impl<S> Layer<S> for NoteConnections {
    type Service = Noting<S>;
    fn layer(&self, connector: S) -> Noting<S> {
        Noting(connector)
    }
}

impl<S, R> Service<R> for Noting<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let connecting = self.0.call(request);
        match EXCHANGE.try_with(Exchange::clone) {
            Ok(exchange) => {
                exchange.opens.store(true, Relaxed);
                Box::pin(EXCHANGE.scope(exchange, connecting))
            }
            Err(_) => Box::pin(connecting),
        }
    }
}
