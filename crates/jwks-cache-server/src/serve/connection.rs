//! One connection: handshake, HTTP/1.1 or HTTP/2, and when it has to go. What is answered on it is not known here.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::Phase;
use super::listener::Stream;
use super::request::{Desk, Peer};
use super::tls;
use crate::config::Limits;

/// How long one that has to go may take to be told.
const FAREWELL: Duration = Duration::from_secs(5);

/// How connections of a listener have to behave.
pub(super) struct Manners {
    http: Builder<TokioExecutor>,
    handshake: Duration,
    first: Duration,
    idle: Duration,
}

impl Manners {
    pub(super) fn new(limits: &Limits) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        let header_bytes = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
        http.http1()
            .timer(TokioTimer::new())
            // It counts from when a request is waited for, so it cannot be shorter than what may rest.
            .header_read_timeout(limits.idle_timeout.0.max(limits.header_timeout.0))
            .max_buf_size(header_bytes);
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(limits.header_bytes)
            .max_concurrent_streams(limits.http2_streams)
            .keep_alive_interval(limits.idle_timeout.0)
            .keep_alive_timeout(limits.header_timeout.0);
        Self {
            http,
            handshake: limits.handshake_timeout.0,
            first: limits.header_timeout.0,
            idle: limits.idle_timeout.0,
        }
    }
}

/// What a connection is told from outside.
#[derive(Clone)]
pub(super) struct Signals {
    pub(super) phase: watch::Receiver<Phase>,
    /// In which phase it has to go.
    pub(super) until: Phase,
    /// Places are short: who rests has to go.
    pub(super) pressed: watch::Receiver<()>,
}

/// Serves a connection until it ends or has to go.
pub(super) async fn serve(
    stream: Stream,
    tls: Option<Arc<ServerConfig>>,
    desk: Arc<Desk>,
    manners: Arc<Manners>,
    mut signals: Signals,
) {
    signals.pressed.mark_unchanged();
    match (stream, tls) {
        (Stream::Unix(stream), _) => speak(stream, Peer::unix(), &desk, &manners, signals).await,
        (Stream::Tcp(stream, from), None) => {
            speak(stream, Peer::tcp(from, None), &desk, &manners, signals).await
        }
        (Stream::Tcp(stream, from), Some(config)) => {
            let until = signals.until;
            let handshake = TlsAcceptor::from(config).accept(stream);
            let stream = tokio::select! {
                done = timeout(manners.handshake, handshake) => match done {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return tracing::debug!(%from, %error, "no TLS came about"),
                    Err(_) => return tracing::debug!(%from, "no TLS came about in time"),
                },
                _ = signals.phase.wait_for(|phase| *phase >= until) => return,
                () = pressed_twice(signals.pressed.clone()) => {
                    return tracing::debug!(%from, "no TLS came about while others waited");
                }
            };
            // Its time begins now.
            signals.pressed.mark_unchanged();
            let peer = Peer::tcp(from, tls::identity(stream.get_ref().1.peer_certificates()));
            speak(stream, peer, &desk, &manners, signals).await;
        }
    }
}

async fn speak<I>(io: I, peer: Peer, desk: &Arc<Desk>, manners: &Manners, signals: Signals)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (work, peer) = (Arc::new(Work::default()), Arc::new(peer));
    let service = {
        let work = work.clone();
        service_fn(move |request| {
            let (busy, desk, peer) = (Work::begin(&work), desk.clone(), peer.clone());
            async move {
                let answer = desk.answer(request, &peer).await;
                if peer.has_expired() {
                    busy.0.leave.notify_one();
                }
                Ok::<_, Infallible>(until_sent(answer, busy))
            }
        })
    };
    let mut connection = pin!(manners.http.serve_connection(TokioIo::new(io), service));
    let draining = tokio::select! {
        // A client that breaks off or breaks rules has been told what can be told.
        _ = connection.as_mut() => return,
        draining = has_to_go(&work, manners, signals) => draining,
    };
    connection.as_mut().graceful_shutdown();
    if draining {
        // Who drains has a deadline for all.
        let _ = connection.await;
    } else {
        let _ = timeout(FAREWELL.min(manners.first), connection).await;
    }
}

/// Keeps a connection busy while a body is made that goes out as it is made. What is there already takes no such time.
fn until_sent(answer: Response, busy: Busy) -> Response {
    if answer.body().size_hint().exact().is_some() {
        return answer;
    }
    answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _until_the_end = &busy;
            frame
        }))
    })
}

/// Waits until it was asked to leave twice: whoever has just come is asked soon, and gets the time between the two.
async fn pressed_twice(mut pressed: watch::Receiver<()>) {
    if pressed.changed().await.is_err() || pressed.changed().await.is_err() {
        // The listener is gone; then the phase has the say.
        std::future::pending::<()>().await;
    }
}

/// Waits until a connection has to go: it rests too long, places are short, who is there has expired, or the server ends
/// (true).
pub(super) async fn has_to_go(work: &Work, manners: &Manners, mut signals: Signals) -> bool {
    let until = signals.until;
    let mut over = pin!(signals.phase.wait_for(|phase| *phase >= until));
    // The first time that places are short is for looking, so that nobody goes who has just come.
    let (mut seen, mut seen_pressed) = (0, None);
    let mut nap = pin!(sleep(manners.first));
    loop {
        tokio::select! {
            _ = over.as_mut() => return true,
            () = work.leave.notified() => return false,
            // The listener that presses may be gone; then the phase has the say.
            Ok(()) = signals.pressed.changed() => {
                let begun = work.begun.load(Ordering::Relaxed);
                if work.is_resting() && seen_pressed == Some(begun) {
                    return false;
                }
                seen_pressed = Some(begun);
            }
            () = nap.as_mut() => {
                let begun = work.begun.load(Ordering::Relaxed);
                if work.is_resting() && begun == seen {
                    return false;
                }
                seen = begun;
                nap.set(sleep(manners.idle));
            }
        }
    }
}

/// What a connection has to do.
#[derive(Default)]
pub(super) struct Work {
    /// Requests that are being answered.
    running: AtomicUsize,
    /// Requests that have come.
    begun: AtomicU64,
    /// Who is there has expired: nothing more is answered here.
    leave: Notify,
}

impl Work {
    fn begin(work: &Arc<Self>) -> Busy {
        work.running.fetch_add(1, Ordering::Relaxed);
        work.begun.fetch_add(1, Ordering::Relaxed);
        Busy(work.clone())
    }

    fn is_resting(&self) -> bool {
        self.running.load(Ordering::Relaxed) == 0
    }
}

/// A request that is being answered, until it is dropped.
struct Busy(Arc<Work>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
