//! One connection: reads requests, carries out replies.
//!
//! It knows a stream, not what lies under it, so that TLS can stand between.

use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use jwks_cache::Moment;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::reply::{Fault, Framing, Pace, Point, Reply};
use super::{Handshake, RecordedRequest, Shared};

/// A byte stream whose end can be made a reset.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes dropping the stream send RST instead of FIN, throwing away what is unsent.
    fn reset_on_drop(&self);
}

impl Wire for TcpStream {
    fn reset_on_drop(&self) {
        let _ = self.set_zero_linger();
    }
}

/// Answers requests until either side ends the connection.
pub(crate) async fn serve(mut stream: impl Wire, number: u64, tls: Option<Handshake>, shared: Arc<Shared>) {
    let mut unread = Vec::new();
    let mut reused = false;
    while let Some(mut request) = read_request(&mut stream, &mut unread).await {
        (request.connection, request.reused) = (number, reused);
        request.tls.clone_from(&tls);
        reused = true;
        let reply = shared.answer_when_open(&mut request).await;
        let outcome = respond(&mut stream, &request, &reply, &shared).await;
        match outcome {
            Ok(None) => {}
            Ok(Some(Fault::Close)) => {
                let _ = stream.shutdown().await;
                return;
            }
            Ok(Some(Fault::Reset)) => {
                stream.reset_on_drop();
                return;
            }
            Ok(Some(Fault::Hang)) => {
                // Ends when the client does, or with the origin.
                while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
                return;
            }
            Err(_) => return,
        }
    }
}

/// More than any client sends as a request's head.
const LONGEST_HEAD: usize = 64 * 1_024;

/// The next request, its body skipped; `None` when the client has closed or does not speak HTTP/1.
async fn read_request(stream: &mut impl Wire, unread: &mut Vec<u8>) -> Option<RecordedRequest> {
    let end = loop {
        if let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if unread.len() > LONGEST_HEAD || stream.read_buf(unread).await.ok()? == 0 {
            return None;
        }
    };
    let request = parse_head(&String::from_utf8_lossy(unread.get(..end)?))?;
    let body = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0_usize);
    let whole = end.saturating_add(4).saturating_add(body);
    while unread.len() < whole {
        if stream.read_buf(unread).await.ok()? == 0 {
            return None;
        }
    }
    unread.drain(..whole);
    Some(request)
}

fn parse_head(head: &str) -> Option<RecordedRequest> {
    let mut lines = head.split("\r\n");
    let mut start = lines.next()?.split(' ');
    let (method, target) = (start.next()?.to_owned(), start.next()?);
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Some(RecordedRequest {
        serial: 0,
        connection: 0,
        reused: false,
        at: Moment::ORIGIN,
        method,
        path: path.to_owned(),
        query,
        headers: lines.filter_map(header).collect(),
        tls: None,
    })
}

/// Sends one reply. What it returns is how the connection ends; `None` keeps it alive.
async fn respond(
    stream: &mut impl Wire,
    request: &RecordedRequest,
    reply: &Reply,
    shared: &Shared,
) -> io::Result<Option<Fault>> {
    if reply.lost_when_reused && request.reused {
        return Ok(Some(Fault::Reset));
    }
    if let Some((Point::BeforeHeaders, fault)) = reply.fault {
        return Ok(Some(fault));
    }
    delay(reply.head_delay).await;
    send(stream, head(reply, shared).as_bytes(), reply.head_pace).await?;
    if request.method == "HEAD" || bodiless(reply.status) {
        return Ok(reply.close.then_some(Fault::Close));
    }
    delay(reply.body_delay).await;
    let chunked = matches!(reply.framing, Framing::Chunked | Framing::Endless) && !reply.body.is_empty();
    if chunked {
        send(stream, format!("{:x}\r\n", reply.body.len()).as_bytes(), reply.body_pace).await?;
    }
    if let Some((Point::Body(bytes), fault)) = reply.fault {
        send(stream, reply.body.get(..bytes).unwrap_or(&reply.body), reply.body_pace).await?;
        return Ok(Some(fault));
    }
    send(stream, &reply.body, reply.body_pace).await?;
    if chunked {
        send(stream, b"\r\n", None).await?;
    }
    match reply.framing {
        Framing::Chunked => send(stream, b"0\r\n\r\n", reply.body_pace).await?,
        Framing::Endless => loop {
            send(stream, format!("400\r\n{:1024}\r\n", "").as_bytes(), reply.body_pace).await?;
        },
        _ => {}
    }
    Ok(reply.close.then_some(Fault::Close))
}

/// Waits, if at all: tokio's shortest sleep takes a millisecond, also for no time.
async fn delay(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

fn bodiless(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

/// Everything before the body; nothing for a raw reply.
fn head(reply: &Reply, shared: &Shared) -> String {
    let mut head = String::new();
    // Writing to a string does not fail.
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _ = write!(head, "{line}\r\n");
    };
    if matches!(reply.framing, Framing::Raw) {
        return head;
    }
    for status in &reply.interim {
        line(format_args!("HTTP/1.1 {status} {}\r\n", reason(*status)));
    }
    let version = if matches!(reply.framing, Framing::UntilClose) { "1.0" } else { "1.1" };
    line(format_args!("HTTP/{version} {} {}", reply.status, reason(reply.status)));
    for (name, value) in &reply.headers {
        line(format_args!("{name}: {value}"));
    }
    if !reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("date")) {
        // RFC 9110 §5.6.7
        line(format_args!("Date: {}", shared.clock.wall().format("%a, %d %b %Y %H:%M:%S GMT")));
    }
    match reply.framing {
        Framing::FalseLength(claimed) => line(format_args!("Content-Length: {claimed}")),
        _ if bodiless(reply.status) => {}
        Framing::Length => line(format_args!("Content-Length: {}", reply.body.len())),
        Framing::Chunked | Framing::Endless => line(format_args!("Transfer-Encoding: chunked")),
        Framing::UntilClose | Framing::Raw => {}
    }
    if reply.close {
        line(format_args!("Connection: close"));
    }
    line(format_args!(""));
    head
}

fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}

async fn send(stream: &mut impl Wire, bytes: &[u8], pace: Option<Pace>) -> io::Result<()> {
    match pace {
        None => stream.write_all(bytes).await?,
        Some(pace) => {
            for piece in bytes.chunks(pace.bytes.max(1)) {
                stream.write_all(piece).await?;
                stream.flush().await?;
                sleep(pace.every).await;
            }
        }
    }
    stream.flush().await
}
