//! An address that swallows connection attempts: nothing refuses them, nothing accepts them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tokio::net::TcpSocket;
use url::Url;

/// A loopback port whose queue is full and never emptied: a further SYN is dropped, and a client waits for its
/// own connect timeout.
///
/// It needs a system that drops a SYN when the queue is full, as Linux does by default.
#[derive(Debug)]
pub struct BlackHole {
    addr: SocketAddr,
    _queue: (TcpListener, Vec<TcpStream>),
}

impl BlackHole {
    /// Takes a free port and fills its queue, which takes 0.1 s.
    ///
    /// # Panics
    /// If the machine has no free loopback port.
    #[must_use]
    pub fn start() -> Self {
        // On a thread of its own, since the caller may be inside a runtime and only tokio sets a short queue.
        let listener = std::thread::spawn(|| -> io::Result<TcpListener> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            let _inside = runtime.enter();
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
            socket.listen(1)?.into_std()
        });
        let listener = listener.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        let listener = listener.expect("a test machine has a free loopback port");
        let addr = listener.local_addr().expect("a listener has an address");
        // A loopback connection is made at once or not at all: the first that is late found the queue full.
        let connect = |_| TcpStream::connect_timeout(&addr, Duration::from_millis(100)).ok();
        let queue = (0..64).map_while(connect).collect();
        Self { addr, _queue: (listener, queue) }
    }

    /// The address that swallows.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A URL at that address.
    #[must_use]
    pub fn url(&self, path: &str) -> Url {
        super::url("http", self.addr, path)
    }
}
