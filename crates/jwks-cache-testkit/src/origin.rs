//! A scriptable HTTP/1.1 origin on loopback: what it answers, what it was asked, whether it is up.
//!
//! It runs on a thread and a tokio runtime of its own, so a test may block, pause its time or have no runtime
//! at all. It knows nothing of keys and tokens, and it waits in real time only: a clock just dates it.

mod black_hole;
mod connection;
mod reply;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as ack};
use std::thread::JoinHandle;

use jwks_cache::{Clock, Moment, SystemClock};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use url::Url;

pub use black_hole::BlackHole;
#[cfg(feature = "tls")]
pub(crate) use connection::{Wire, serve};
pub use reply::{Phase, Reply};

/// An HTTP/1.1 server on `127.0.0.1` that answers what a test says and records what it was asked.
///
/// Paths without a reply answer 404. Connections are kept alive unless a reply says otherwise. Dropping the
/// origin closes its port and its connections.
///
/// ```
/// use jwks_cache_testkit::{Origin, Reply};
/// use std::io::{Read, Write};
///
/// let origin = Origin::start();
/// origin.set("/jwks", Reply::json(r#"{"keys":[]}"#).header("Cache-Control", "max-age=300").close_after());
/// origin.push("/jwks", Reply::status(503).header("Retry-After", "7").close_after()); // once, before that
///
/// let mut get = || {
///     let mut stream = std::net::TcpStream::connect(origin.addr()).unwrap();
///     stream.write_all(b"GET /jwks HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
///     let mut answer = String::new();
///     stream.read_to_string(&mut answer).unwrap();
///     answer
/// };
/// assert!(get().starts_with("HTTP/1.1 503 "));
/// assert!(get().ends_with(r#"{"keys":[]}"#));
/// assert_eq!(origin.hits("/jwks"), 2);
/// ```
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    shared: Arc<Shared>,
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// An origin on a free port, dating its responses by the machine's clock.
    ///
    /// # Panics
    /// If the machine has no free loopback port or cannot start a thread.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with_clock(Arc::new(SystemClock))
    }

    /// An origin whose `Date` headers, and the times of recorded requests, come from `clock`.
    ///
    /// # Panics
    /// As [`Origin::start`].
    #[must_use]
    pub fn start_with_clock(clock: Arc<dyn Clock>) -> Self {
        Self::start_behind(clock, None)
    }

    /// The same with something between its connections and HTTP.
    pub(crate) fn start_behind(clock: Arc<dyn Clock>, front: Option<Arc<dyn Front>>) -> Self {
        Self::try_start(clock, front, 0).expect("a test machine has a free loopback port")
    }

    /// The same on that port, or on a free one if it is 0.
    pub(crate) fn try_start(
        clock: Arc<dyn Clock>,
        front: Option<Arc<dyn Front>>,
        port: u16,
    ) -> io::Result<Self> {
        let (state, recorded) = (Mutex::default(), watch::Sender::new(()));
        let shared = Arc::new(Shared { clock, front, state, recorded });
        let (commands, orders) = mpsc::unbounded_channel();
        let (ready, started) = ack::channel();
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("testkit-origin".to_owned())
            .spawn(move || run(port, orders, &ready, served))
            .expect("a test machine can start a thread");
        let addr = started.recv().map_err(io::Error::other).and_then(|bound| bound)?;
        Ok(Self { addr, shared, commands: Some(commands), thread: Some(thread) })
    }

    /// Where it listens; the port stays its own while it is paused.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL of `path` (and query, if any) at this origin.
    #[must_use]
    pub fn url(&self, path: &str) -> Url {
        let scheme = if self.shared.front.is_some() { "https" } else { "http" };
        url(scheme, self.addr, path)
    }

    /// Answers every request for `path` with `reply`, until told otherwise. Pushed replies still go first.
    pub fn set(&self, path: &str, reply: Reply) {
        self.respond_with(path, move |_| reply.clone());
    }

    /// Answers one request for `path` with `reply`, after those pushed before it, then as before.
    pub fn push(&self, path: &str, reply: Reply) {
        self.shared.lock().routes.entry(path.to_owned()).or_default().once.push_back(reply);
    }

    /// Asks `respond` for the reply to each request for `path`.
    ///
    /// It runs on the origin's thread: it must not block, nor pause, resume or drop this origin.
    pub fn respond_with(
        &self,
        path: &str,
        respond: impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static,
    ) {
        self.shared.lock().routes.entry(path.to_owned()).or_default().standing = Some(Arc::new(respond));
    }

    /// Holds back the replies to all requests for `path` until the gate is released or dropped.
    ///
    /// Requests are recorded, and their replies chosen, when they arrive. To hold single replies, see
    /// [`Reply::held_by`].
    #[must_use = "dropping the gate releases it"]
    pub fn hold(&self, path: &str) -> Gate {
        let gate = Gate::new();
        self.shared.lock().routes.entry(path.to_owned()).or_default().gate = Some(gate.subscribe());
        gate
    }

    /// Goes down: closes every connection, and refuses new ones, until [`Origin::resume`].
    ///
    /// # Panics
    /// If another process takes the port at that very moment.
    pub fn pause(&self) {
        self.order(Command::Pause);
    }

    /// Comes back on the same port. Nothing changes when it is not paused.
    ///
    /// # Panics
    /// If the port was lost to another process, which holding it while paused prevents.
    pub fn resume(&self) {
        self.order(Command::Resume);
    }

    fn order(&self, command: fn(ack::Sender<io::Result<()>>) -> Command) {
        let (done, outcome) = ack::channel();
        let sent = self.commands.as_ref().is_some_and(|commands| commands.send(command(done)).is_ok());
        let outcome = if sent { outcome.recv() } else { Ok(Ok(())) };
        outcome.map_err(io::Error::other).and_then(|done| done).expect("the origin keeps its port");
    }

    /// The requests for `path` so far, oldest first.
    #[must_use]
    pub fn requests(&self, path: &str) -> Vec<RecordedRequest> {
        self.shared.lock().record.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// How many requests for `path` have come so far.
    #[must_use]
    pub fn hits(&self, path: &str) -> usize {
        self.shared.lock().record.iter().filter(|request| request.path == path).count()
    }

    /// How many requests have come so far, whatever their path.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shared.lock().record.len()
    }

    /// How many connections have been accepted so far, with or without a request.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.lock().connections
    }

    /// Forgets the requests recorded so far, so that counts start again from 0.
    pub fn clear_record(&self) {
        self.shared.lock().record.clear();
    }

    /// Completes once `path` has had at least `count` requests; at once if it has had them already.
    ///
    /// It waits for ever otherwise: put your own time limit around it.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn wait_for_hits(&self, path: &str, count: usize) {
        let _ = self.shared.recorded.subscribe().wait_for(|()| self.hits(path) >= count).await;
    }

    /// Completes with the first request for `path` that arrives after this call, awaited or not.
    ///
    /// It waits for ever when none comes: put your own time limit around it.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub fn next_request(&self, path: &str) -> impl Future<Output = RecordedRequest> + Send + 'static {
        let (shared, path) = (Arc::clone(&self.shared), path.to_owned());
        let first = shared.lock().next_serial;
        async move {
            let mut recorded = shared.recorded.subscribe();
            loop {
                recorded.mark_unchanged();
                let wanted = |request: &&RecordedRequest| request.serial >= first && request.path == path;
                if let Some(request) = shared.lock().record.iter().find(wanted).cloned() {
                    return request;
                }
                // The sender lives in `shared`, so the channel is never closed here.
                let _ = recorded.changed().await;
            }
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

/// One request, as the origin read it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecordedRequest {
    /// Its number at this origin, from 0; clearing the record does not start it again.
    pub serial: u64,
    /// The connection it came on, numbered from 0 in the order of arrival.
    pub connection: u64,
    /// Whether an earlier request came on the same connection.
    pub reused: bool,
    /// When it had arrived, by the origin's clock.
    pub at: Moment,
    /// The method, as sent.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, without the `?`.
    pub query: Option<String>,
    /// Header lines in their order: names in lower case, values trimmed.
    pub headers: Vec<(String, String)>,
    /// How the connection was secured; nothing over plain http.
    pub tls: Option<Handshake>,
}

/// How a connection was secured.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handshake {
    /// Whether it went on with an earlier session, so that no certificate was shown.
    pub resumed: bool,
    /// The protocol that was agreed on: `h2`, `http/1.1`, or nothing.
    pub protocol: String,
    /// Whether it is TLS 1.3.
    pub tls13: bool,
    /// Whether the client has shown a certificate.
    pub client_certificate: bool,
}

impl RecordedRequest {
    /// The value of the first header `name`, in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Holds replies back until a test lets them go, so that an exchange can be frozen without waiting for time.
///
/// Clones are the same gate. Dropping the last one releases it.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets every held reply go, and those that come later.
    pub fn release(&self) {
        self.0.send_replace(true);
    }

    fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}

fn url(scheme: &str, addr: SocketAddr, path: &str) -> Url {
    let path = path.trim_start_matches('/');
    Url::parse(&format!("{scheme}://{addr}/{path}")).expect("an address and any path make a URL")
}

/// What the origin's users and its thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    clock: Arc<dyn Clock>,
    /// What stands between connections and HTTP.
    front: Option<Arc<dyn Front>>,
    state: Mutex<State>,
    /// Told after each recorded request, never while `state` is locked.
    recorded: watch::Sender<()>,
}

/// Serves a connection in its own way, as by speaking TLS.
pub(crate) trait Front: fmt::Debug + Send + Sync {
    fn accept(
        self: Arc<Self>,
        stream: TcpStream,
        number: u64,
        shared: Arc<Shared>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

#[derive(Debug, Default)]
struct State {
    routes: HashMap<String, Route>,
    record: Vec<RecordedRequest>,
    next_serial: u64,
    connections: u64,
}

#[derive(Default)]
struct Route {
    once: VecDeque<Reply>,
    standing: Option<Responder>,
    gate: Option<watch::Receiver<bool>>,
}

type Responder = Arc<dyn Fn(&RecordedRequest) -> Reply + Send + Sync>;

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("once", &self.once).field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number_connection(&self) -> u64 {
        let mut state = self.lock();
        state.connections += 1;
        state.connections - 1
    }

    /// Records a request that has arrived, and says what to answer.
    fn answer(&self, request: &mut RecordedRequest) -> (Reply, Option<watch::Receiver<bool>>) {
        request.at = self.clock.now();
        let mut state = self.lock();
        request.serial = state.next_serial;
        state.next_serial += 1;
        state.record.push(request.clone());
        let (once, standing, gate) = match state.routes.get_mut(&request.path) {
            Some(route) => (route.once.pop_front(), route.standing.clone(), route.gate.clone()),
            None => (None, None, None),
        };
        drop(state);
        self.recorded.send_replace(());
        let standing = || standing.map_or_else(|| Reply::status(404), |respond| respond(request));
        (once.unwrap_or_else(standing), gate)
    }

    /// Records a request, and says what to answer once nothing holds it back.
    pub(crate) async fn answer_when_open(&self, request: &mut RecordedRequest) -> Reply {
        let (reply, gate) = self.answer(request);
        let reply = reply.answering(request);
        for mut gate in [gate, reply.gate.clone()].into_iter().flatten() {
            // An error means that the gate was dropped, which opens it.
            let _ = gate.wait_for(|open| *open).await;
        }
        reply
    }
}

#[derive(Debug)]
enum Command {
    Pause(ack::Sender<io::Result<()>>),
    Resume(ack::Sender<io::Result<()>>),
}

/// The origin's thread, until its owner drops the sending half of `orders`.
fn run(
    port: u16,
    orders: mpsc::UnboundedReceiver<Command>,
    ready: &ack::Sender<io::Result<SocketAddr>>,
    shared: Arc<Shared>,
) {
    let started = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        let listener =
            runtime.block_on(async { bind((Ipv4Addr::LOCALHOST, port).into())?.listen(BACKLOG) })?;
        Ok((runtime, listener.local_addr()?, listener))
    });
    match started {
        Ok((runtime, addr, listener)) => {
            let _ = ready.send(Ok(addr));
            runtime.block_on(accept(Door::Open(listener), addr, orders, shared));
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
}

/// More than any test opens before the origin gets to accept.
const BACKLOG: u32 = 1_024;

/// The listening port, or the same port bound but not listening: it refuses, and nobody else gets it.
enum Door {
    Open(TcpListener),
    Shut(Option<TcpSocket>),
}

fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // On Windows this would let others share the port, and rebinding needs no permission there.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos", target_os = "cygwin"))))]
    socket.set_reuseport(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

async fn accept(
    mut door: Door,
    addr: SocketAddr,
    mut orders: mpsc::UnboundedReceiver<Command>,
    shared: Arc<Shared>,
) {
    let mut connections = JoinSet::new();
    loop {
        let arrival = async {
            match &door {
                Door::Open(listener) => listener.accept().await,
                Door::Shut(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Command::Pause(done)) => {
                    let mut outcome = Ok(());
                    if let Door::Open(_) = door {
                        // Held before it is let go, where the system has that: else a test beside could get the port.
                        let held = bind(addr).ok();
                        door = Door::Shut(None);
                        connections.shutdown().await;
                        let held = held.map_or_else(|| bind(addr), Ok);
                        outcome = held.map(|held| door = Door::Shut(Some(held)));
                    }
                    let _ = done.send(outcome);
                }
                Some(Command::Resume(done)) => {
                    let mut outcome = Ok(());
                    if let Door::Shut(held) = &mut door {
                        let port = held.take().map_or_else(|| bind(addr), Ok);
                        let listener = port.and_then(|port| port.listen(BACKLOG));
                        outcome = listener.map(|listener| door = Door::Open(listener));
                    }
                    let _ = done.send(outcome);
                }
            },
            // A connection that died in the queue is no arrival.
            arrived = arrival => if let Ok((stream, _)) = arrived {
                let _ = stream.set_nodelay(true);
                let (number, shared) = (shared.number_connection(), Arc::clone(&shared));
                match shared.front.clone() {
                    None => connections.spawn(connection::serve(stream, number, None, shared)),
                    Some(front) => connections.spawn(front.accept(stream, number, shared)),
                };
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
