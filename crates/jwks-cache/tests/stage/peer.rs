//! A server that says what a test says, byte by byte, in TLS or without, HTTP/2 frames included. For what an
//! origin that keeps to HTTP cannot do.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use jwks_cache_testkit::tls::Authority;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tokio::sync::Notify;

use super::{millis, secs};

/// A port of loopback. Its threads end with the process.
pub(crate) struct Peer {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
    served: Arc<Notify>,
}

impl Peer {
    /// Has `serve` serve each connection, numbered from 0, on a thread of its own; when it returns, TCP is closed.
    pub(crate) fn start(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, serve) = (Arc::new(AtomicUsize::new(0)), Arc::new(serve));
        let (count, served) = (connections.clone(), Arc::new(Notify::new()));
        let told = served.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (number, serve, told) = (count.fetch_add(1, SeqCst), serve.clone(), told.clone());
                std::thread::spawn(move || {
                    serve(stream, number);
                    told.notify_one();
                });
            }
        });
        Self { port, connections, served }
    }

    /// The same in TLS, for 127.0.0.1. `protocol` is what it speaks of those that a client offers.
    pub(crate) fn start_tls(
        authority: &Authority,
        protocol: &str,
        serve: impl Fn(&mut Secured, usize) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let certificate = authority.server(&["127.0.0.1"]);
        let pem = certificate.chain_pem();
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap);
        let key = PrivateKeyDer::from_pem_slice(certificate.key_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config =
            config.unwrap().with_no_client_auth().with_single_cert(chain.collect(), key).unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let config = Arc::new(config);
        Self::start(move |stream, number| {
            let session = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(session, stream);
            // A client that goes away ends it.
            let _ = serve(&mut stream, number);
        })
    }

    /// Waits until one connection is served to its end: sooner than connections end that nobody uses.
    pub(crate) async fn was_left(&self) {
        tokio::time::timeout(secs(20), self.served.notified()).await.expect("the connection is still there");
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

pub(crate) type Secured = StreamOwned<ServerConnection, TcpStream>;

/// Reads the head of an HTTP/1.1 request.
pub(crate) fn read_head(stream: &mut impl Read) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(())
}

/// Takes everything until the client closes.
pub(crate) fn drain(stream: &mut impl Read) {
    let mut unread = [0; 4096];
    while stream.read(&mut unread).is_ok_and(|read| read > 0) {}
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// `:status: 200` (RFC 7541, appendix A).
pub(crate) const STATUS_200: &[u8] = &[0x88];

/// Begins HTTP/2: takes the client's preface, gives our settings.
pub(crate) fn begin_http2(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.read_exact(&mut [0; 24])?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    stream.flush()
}

/// The stream of the next request; settings on the way are acknowledged.
pub(crate) fn next_request(stream: &mut (impl Read + Write)) -> io::Result<u32> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload)?;
        match kind {
            HEADERS => return Ok(u32::from_be_bytes(id)),
            SETTINGS if flags == 0 => stream.write_all(&frame(SETTINGS, 1, 0, &[]))?,
            _ => {}
        }
    }
}

/// Answers 200 with this body.
pub(crate) fn answer(stream: &mut impl Write, id: u32, body: &str) -> io::Result<()> {
    stream.write_all(&frame(HEADERS, END_HEADERS, id, STATUS_200))?;
    stream.write_all(&frame(DATA, END_STREAM, id, body.as_bytes()))?;
    stream.flush()
}

/// What a server may do to a client's memory and patience: after a request, it goes on as long as the client takes
/// it. With the reason by which it fails.
pub(crate) const FLOODS: [(&str, &str, Flood); 5] = [
    ("settings", "timeout", |stream, _| {
        flood(stream, &[], |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]))
    }),
    ("pings", "timeout", |stream, _| flood(stream, &[], |_| frame(PING, 0, 0, &[7; 8]))),
    ("continuations", "reset", |stream, _| {
        // A header field without indexing (RFC 7541 §6.2.2), over and over.
        let fields = [&[0, 1, b'x', 100][..], &[b'y'; 100]].concat().repeat(100);
        flood(stream, STATUS_200, move |id| frame(CONTINUATION, 0, id, &fields))
    }),
    ("resets", "reset", |stream, _| flood(stream, &[], |id| frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()))),
    ("empty data", "body", |stream, _| {
        begin_http2(stream)?;
        let id = next_request(stream)?;
        stream.write_all(&frame(HEADERS, END_HEADERS, id, STATUS_200))?;
        endless(stream, &frame(DATA, 0, id, &[]))
    }),
];

pub(crate) type Flood = fn(&mut Secured, usize) -> io::Result<()>;

fn flood(stream: &mut Secured, headers: &[u8], next: impl Fn(u32) -> Vec<u8>) -> io::Result<()> {
    begin_http2(stream)?;
    let id = next_request(stream)?;
    if !headers.is_empty() {
        stream.write_all(&frame(HEADERS, 0, id, headers))?;
    }
    endless(stream, &next(id))
}

/// Until the client is gone.
fn endless(stream: &mut Secured, frame: &[u8]) -> io::Result<()> {
    let many = frame.repeat(16_384 / frame.len() + 1);
    // What comes back is read, or both would soon wait for the other to read.
    stream.sock.set_read_timeout(Some(millis(1)))?;
    let mut unread = [0; 16_384];
    loop {
        stream.write_all(&many)?;
        stream.flush()?;
        match stream.read(&mut unread) {
            Ok(0) => return Ok(()),
            Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(error);
            }
            _ => {}
        }
    }
}
