//! What an origin answers: a status, headers and a body, or one of the ways in which servers fail.
//!
//! It describes; `connection` carries it out.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::watch;

use super::{Gate, RecordedRequest};

/// One scripted answer. Methods that change it can be chained; the last of a kind counts.
///
/// ```
/// use std::time::Duration;
/// use jwks_cache_testkit::{Phase, Reply};
///
/// let cached = Reply::json(r#"{"keys":[]}"#).header("Cache-Control", "max-age=300").etag("\"a\"").conditional();
/// let slow = cached.clone().delay(Phase::Body, Duration::from_secs(5));
/// let cut = cached.truncate_at(4);
/// let nonsense = Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
/// ```
#[derive(Clone, Debug)]
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(super) framing: Framing,
    pub(super) interim: Vec<u16>,
    pub(super) head_delay: Duration,
    pub(super) body_delay: Duration,
    pub(super) head_pace: Option<Pace>,
    pub(super) body_pace: Option<Pace>,
    pub(super) fault: Option<(Point, Fault)>,
    pub(super) close: bool,
    pub(super) lost_when_reused: bool,
    pub(super) gate: Option<watch::Receiver<bool>>,
    conditional: bool,
}

/// The part of a response that [`Reply::delay`] puts off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The status line and headers; the body follows at once.
    Headers,
    /// The body; status line and headers have been sent.
    Body,
}

/// How the body's end is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Framing {
    Length,
    FalseLength(u64),
    Chunked,
    Endless,
    UntilClose,
    /// The body is the whole response, status line included.
    Raw,
}

/// So many bytes, then a wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) bytes: usize,
    pub(super) every: Duration,
}

/// Where a response stops.
#[derive(Clone, Copy, Debug)]
pub(super) enum Point {
    BeforeHeaders,
    /// After so many bytes of the body.
    Body(usize),
}

/// What happens at that point.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Close,
    Reset,
    Hang,
}

impl Reply {
    /// An answer with this status and no body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            framing: Framing::Length,
            interim: Vec::new(),
            head_delay: Duration::ZERO,
            body_delay: Duration::ZERO,
            head_pace: None,
            body_pace: None,
            fault: None,
            close: false,
            lost_when_reused: false,
            gate: None,
            conditional: false,
        }
    }

    /// 200 with this JSON text, or `serde_json::Value`, as `application/json`.
    #[must_use]
    pub fn json(body: impl Display) -> Self {
        Self::status(200).header("Content-Type", "application/json").body(body.to_string())
    }

    /// A redirect to `location`, which is sent as it is.
    #[must_use]
    pub fn redirect(status: u16, location: impl Display) -> Self {
        Self::status(status).header("Location", location)
    }

    /// These bytes for a response, whatever they are; then the connection is closed.
    #[must_use]
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { framing: Framing::Raw, close: true, ..Self::status(200).body(bytes) }
    }

    /// No answer, ever; the connection stays open until the client closes it.
    #[must_use]
    pub fn hang() -> Self {
        Self { fault: Some((Point::BeforeHeaders, Fault::Hang)), ..Self::status(200) }
    }

    /// The connection is reset (TCP RST) once the request has been read.
    #[must_use]
    pub fn reset_before_headers() -> Self {
        Self { fault: Some((Point::BeforeHeaders, Fault::Reset)), ..Self::status(200) }
    }

    /// The connection is closed (TCP FIN) once the request has been read.
    #[must_use]
    pub fn close_before_headers() -> Self {
        Self { fault: Some((Point::BeforeHeaders, Fault::Close)), ..Self::status(200) }
    }

    /// Changes the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds a header line, also where one of that name is there.
    ///
    /// `Content-Length` and `Transfer-Encoding` come with the framing, so giving one makes two of them.
    /// `Date` is added unless it is given.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// Adds an `ETag`, sent as it is: the quotes belong to it.
    #[must_use]
    pub fn etag(self, etag: impl Display) -> Self {
        self.header("ETag", etag)
    }

    /// Adds a `Last-Modified`, sent as it is.
    #[must_use]
    pub fn last_modified(self, date: impl Display) -> Self {
        self.header("Last-Modified", date)
    }

    /// Answers 304 without body, with the same headers, when the request's validators match.
    ///
    /// `If-None-Match` is compared weakly (RFC 9110 §13.1.2); in its absence `If-Modified-Since` must equal
    /// `Last-Modified`, letter by letter.
    #[must_use]
    pub fn conditional(mut self) -> Self {
        self.conditional = true;
        self
    }

    /// Compresses the body as it is now, and says so in `Content-Encoding`.
    #[must_use]
    pub fn gzip(mut self) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let packed = encoder.write_all(&self.body).and_then(|()| encoder.finish());
        self.body = packed.expect("writing to memory does not fail").into();
        self.header("Content-Encoding", "gzip")
    }

    /// Sends the body as one chunk and the last chunk, instead of by length.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Sends the body, then chunks of spaces without end.
    #[must_use]
    pub fn endless(mut self) -> Self {
        self.framing = Framing::Endless;
        self
    }

    /// Answers as HTTP/1.0 without a length: the body ends with the connection.
    #[must_use]
    pub fn close_delimited(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self.close = true;
        self
    }

    /// Claims this `Content-Length`, and sends the body whole. Too long a one wants [`Reply::close_after`].
    #[must_use]
    pub fn content_length(mut self, claimed: u64) -> Self {
        self.framing = Framing::FalseLength(claimed);
        self
    }

    /// Sends an interim response of this status, such as 103, before the real one.
    #[must_use]
    pub fn interim(mut self, status: u16) -> Self {
        self.interim.push(status);
        self
    }

    /// Waits, in real time, before this part of the response.
    #[must_use]
    pub fn delay(mut self, phase: Phase, span: Duration) -> Self {
        match phase {
            Phase::Headers => self.head_delay = span,
            Phase::Body => self.body_delay = span,
        }
        self
    }

    /// Sends the headers in pieces of so many bytes, waiting after each.
    #[must_use]
    pub fn slow_headers(mut self, bytes: usize, every: Duration) -> Self {
        self.head_pace = Some(Pace { bytes, every });
        self
    }

    /// Sends the body in pieces of so many bytes, waiting after each.
    #[must_use]
    pub fn slow_body(mut self, bytes: usize, every: Duration) -> Self {
        self.body_pace = Some(Pace { bytes, every });
        self
    }

    /// Closes the connection after so many bytes of the body, of which all are announced.
    #[must_use]
    pub fn truncate_at(mut self, bytes: usize) -> Self {
        self.fault = Some((Point::Body(bytes), Fault::Close));
        self
    }

    /// Sends nothing more after so many bytes of the body, and leaves the connection open.
    #[must_use]
    pub fn stall_at(mut self, bytes: usize) -> Self {
        self.fault = Some((Point::Body(bytes), Fault::Hang));
        self
    }

    /// Resets the connection (TCP RST) after half of the body as it is now.
    #[must_use]
    pub fn reset_mid_body(mut self) -> Self {
        self.fault = Some((Point::Body(self.body.len() / 2), Fault::Reset));
        self
    }

    /// Resets the connection instead if it carried a request before, as when the server had just given it up.
    ///
    /// A client that repeats such a request on a fresh connection gets the answer.
    #[must_use]
    pub fn lost_when_reused(mut self) -> Self {
        self.lost_when_reused = true;
        self
    }

    /// Says `Connection: close`, and closes the connection after the response.
    #[must_use]
    pub fn close_after(mut self) -> Self {
        self.close = true;
        self
    }

    /// Waits, once the request has been recorded, until the gate is released or dropped.
    #[must_use]
    pub fn held_by(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.subscribe());
        self
    }

    /// The reply as this request gets it: 304 where it is conditional and a validator matches.
    pub(super) fn answering(mut self, request: &RecordedRequest) -> Self {
        if self.conditional && self.validator_matches(request) {
            self.status = 304;
            self.body = Bytes::new();
        }
        self
    }

    fn validator_matches(&self, request: &RecordedRequest) -> bool {
        let held = |name: &str| {
            self.headers
                .iter()
                .find(|(held, _)| held.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
        };
        match (request.header("if-none-match"), held("etag")) {
            (Some(asked), Some(etag)) => {
                asked == "*" || asked.split(',').any(|tag| opaque(tag.trim()) == opaque(etag))
            }
            (Some(_), None) => false,
            (None, _) => held("last-modified")
                .is_some_and(|date| request.header("if-modified-since").is_some_and(|asked| asked == date)),
        }
    }
}

fn opaque(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}
