//! One address: how it is opened, how connections are taken from it, and how many.
//!
//! When all places are taken, connections that rest are asked to leave, so that those who have a request get in.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::connection::{self, Manners, Signals};
use super::request::Desk;
use super::tls::Speaking;
use super::{Entrance, Phase, StartError};
use crate::config::{Limits, Listen};

/// How many connections may wait to be taken: with fewer, a burst loses some, which come again a second later.
const BACKLOG: u32 = 4096;

/// How often those who rest are asked to leave while all places are taken.
const PRESS: Duration = Duration::from_secs(1);

/// What the machine is given time for when it has no file to spare.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// Files that are not connections' to take: stores, providers, logs.
const FILES_KEPT: u64 = 512;

/// An address that is ours.
pub(super) struct Bound {
    /// What was asked for.
    pub(super) asked: Listen,
    /// The same with the port that was given.
    pub(super) given: Listen,
    pub(super) until: Phase,
    name: String,
    router: Router,
    socket: Socket,
    tls: Option<Speaking>,
    limits: Limits,
}

enum Socket {
    Tcp(TcpListener),
    /// Its entry goes when it does.
    Unix(UnixListener, #[expect(dead_code, reason = "kept for its end")] Entry),
}

pub(super) enum Stream {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Bound {
    /// Opens it, and reads its certificate.
    pub(super) async fn open(entrance: Entrance, limits: &Limits) -> Result<Self, StartError> {
        let Entrance { name, field, listen, tls, router, until } = entrance;
        let tls = tls.as_ref().map(|tls| Speaking::of(tls, field)).transpose()?;
        let refused = |what: String, remedy: &str| StartError::new(field, what, remedy);
        let (socket, given) = match &listen {
            Listen::Tcp(address) => {
                let listener = open_tcp(address).await.map_err(|error| {
                    let remedy = match error.kind() {
                        io::ErrorKind::AddrInUse => {
                            "another process has the port: stop it, or choose another"
                        }
                        io::ErrorKind::PermissionDenied => {
                            "ports below 1024 are for root: choose a higher one"
                        }
                        _ => "name an address of this machine, as in 127.0.0.1:8080 or 0.0.0.0:8080 for all",
                    };
                    refused(format!("cannot listen on {address}: {error}"), remedy)
                })?;
                let given = listener.local_addr().map_or_else(|_| address.clone(), |given| given.to_string());
                (Socket::Tcp(listener), Listen::Tcp(given))
            }
            Listen::Unix(path) => {
                let (listener, entry) = open_unix(path).await.map_err(|(what, remedy)| {
                    refused(format!("cannot listen on {listen}: {what}"), remedy)
                })?;
                (Socket::Unix(listener, entry), listen.clone())
            }
            Listen::Off => return Err(refused("is off".into(), "please report this")),
        };
        let limits = Limits { connections: limits.connections.min(affordable()), ..limits.clone() };
        Ok(Self { asked: listen, given, until, name, router, socket, tls, limits })
    }
}

/// How many connections the machine's limit of open files leaves, which is first raised as far as it goes.
fn affordable() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let files = if raised { maximum } else { current };
    files.map_or(usize::MAX, |files| {
        usize::try_from(files.saturating_sub(FILES_KEPT).max(64)).unwrap_or(usize::MAX)
    })
}

/// A socket's entry in its folder, which goes with the listener.
struct Entry {
    path: PathBuf,
    /// Which one it is: another process may have put its own there.
    id: Option<(u64, u64)>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.id.is_some() && id(&self.path) == self.id {
            // Whoever starts next finds it stale, and replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn id(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|of| (of.dev(), of.ino()))
}

async fn open_tcp(address: &str) -> io::Result<TcpListener> {
    let open = |address: SocketAddr| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart need not wait for what is left of old connections.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host(address).await? {
        match open(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn open_unix(path: &Path) -> Result<(UnixListener, Entry), (String, &'static str)> {
    let failed = |error: io::Error| {
        (error.to_string(), "name a path of at most 100 bytes in a folder that this process may write to")
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    if let Ok(there) = std::fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(("something else is there".into(), "remove it, or name another path"));
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(("another process listens there".into(), "stop it, or name another path"));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let socket = UnixSocket::new_stream().map_err(failed)?;
    socket.bind(path).map_err(failed)?;
    let entry = Entry { path: path.to_owned(), id: id(path) };
    // Nobody gets in before it listens, so nobody got in by wider permissions.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok((socket.listen(BACKLOG).map_err(failed)?, entry))
}

/// An address that answers.
pub(super) struct Listener {
    bound: Bound,
    phase: watch::Receiver<Phase>,
}

impl Listener {
    pub(super) fn new(bound: Bound, phase: watch::Receiver<Phase>) -> Self {
        Self { bound, phase }
    }

    /// Takes connections until its phase has come, then waits for those it has.
    pub(super) async fn run(self) {
        let Self { bound, mut phase } = self;
        let Bound { given, until, name, router, socket, tls, limits, .. } = bound;
        tracing::info!(plane = name, address = %given, tls = tls.is_some(), "listening");
        let places = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        let (press, pressed) = watch::channel(());
        let signals = Signals { phase: phase.clone(), until, pressed };
        let desk = Arc::new(Desk::new(router, &name, &limits));
        let manners = Arc::new(Manners::new(&limits));
        let open = metrics::gauge!("jwks_cache_server_connections", "listener" => name.clone());
        let mut connections = JoinSet::new();
        if let Some(tls) = tls.clone() {
            // It ends with the connections.
            connections.spawn(tls.keep_up());
        }
        let tls_task = usize::from(tls.is_some());
        let over = async { drop(phase.wait_for(|phase| *phase >= until).await) };
        tokio::pin!(over);
        loop {
            let count = connections.len().saturating_sub(tls_task);
            open.set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
            let place = tokio::select! {
                () = &mut over => break,
                Some(_) = connections.join_next() => continue,
                place = a_place(&places, &press) => place,
            };
            let stream = tokio::select! {
                () = &mut over => break,
                Some(_) = connections.join_next() => continue,
                stream = socket.accept() => stream,
            };
            match stream {
                Ok(stream) => {
                    let (desk, manners, signals) = (desk.clone(), manners.clone(), signals.clone());
                    let tls = tls.as_ref().map(Speaking::now);
                    connections.spawn(async move {
                        connection::serve(stream, tls, desk, manners, signals).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // A client that left is nothing; a machine without files needs a moment, and the places of who rests.
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                    ) {
                        tracing::warn!(plane = name, %error, "no connection could be taken");
                        press.send_replace(());
                        tokio::time::sleep(OUT_OF_FILES).await;
                    }
                }
            }
        }
        drop(socket);
        // The task that reads certificates again never ends by itself.
        while connections.len() > tls_task {
            connections.join_next().await;
        }
    }
}

/// A place for a connection. While there is none, those who rest are asked to leave.
async fn a_place(
    places: &Arc<Semaphore>,
    press: &watch::Sender<()>,
) -> Option<tokio::sync::OwnedSemaphorePermit> {
    loop {
        let place = places.clone().acquire_owned();
        match tokio::time::timeout(PRESS, place).await {
            // Closed it is never.
            Ok(place) => return place.ok(),
            Err(_) => press.send_replace(()),
        }
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream, from))
            }
            Self::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}
