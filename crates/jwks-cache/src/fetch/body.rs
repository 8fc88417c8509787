//! A body that stays within its bound while it streams in, compressed and inflated.

use std::io::{self, Write};

use flate2::write::GzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::NotFetched;

/// Collects a body; gzip is inflated as it comes.
pub(super) enum Body {
    Plain(Bounded),
    Gzip { inflater: Box<GzDecoder<Bounded>>, compressed: u64 },
}

impl Body {
    /// Reads the encoding off the headers. Only gzip was asked for, so nothing else is accepted.
    pub(super) fn new(headers: &HeaderMap, most: u64) -> Result<Self, NotFetched> {
        let bounded = Bounded { bytes: Vec::new(), most };
        let mut encodings = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .flat_map(|value| value.to_str().unwrap_or("?").split(','))
            .map(str::trim)
            .filter(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity"));
        match (encodings.next(), encodings.next()) {
            (None, _) => Ok(Self::Plain(bounded)),
            (Some(one), None) if one.eq_ignore_ascii_case("gzip") || one.eq_ignore_ascii_case("x-gzip") => {
                Ok(Self::Gzip { inflater: Box::new(GzDecoder::new(bounded)), compressed: 0 })
            }
            _ => Err(NotFetched::new(
                "encoding",
                "the body's Content-Encoding is not gzip, the only one that was offered",
            )),
        }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), NotFetched> {
        match self {
            Self::Plain(bounded) => bounded.write_all(bytes).map_err(|error| refused(&error)),
            Self::Gzip { inflater, compressed } => {
                *compressed += bytes.len() as u64;
                if *compressed > inflater.get_ref().most {
                    return Err(too_large(inflater.get_ref().most));
                }
                inflater.write_all(bytes).map_err(|error| refused(&error))
            }
        }
    }

    /// The whole body; a compressed one must have ended with its checksum.
    pub(super) fn finish(self) -> Result<Vec<u8>, NotFetched> {
        match self {
            Self::Plain(bounded) => Ok(bounded.bytes),
            Self::Gzip { inflater, .. } => {
                inflater.finish().map(|bounded| bounded.bytes).map_err(|error| refused(&error))
            }
        }
    }
}

fn too_large(most: u64) -> NotFetched {
    NotFetched::new("too_large", format!("the body has more than max_response_bytes ({most})"))
}

fn refused(error: &io::Error) -> NotFetched {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TooLarge>()) {
        Some(TooLarge(most)) => too_large(*most),
        None => NotFetched::new("encoding", "the body is not the gzip that its Content-Encoding promised"),
    }
}

/// Bytes up to a bound; the byte above it is an error.
pub(super) struct Bounded {
    bytes: Vec<u8>,
    most: u64,
}

#[derive(Debug)]
struct TooLarge(u64);

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "more than {} bytes", self.0)
    }
}

impl std::error::Error for TooLarge {}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 > self.most {
            return Err(io::Error::other(TooLarge(self.most)));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn collect(encoding: &str, chunks: &[&[u8]], most: u64) -> Result<Vec<u8>, &'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_str(encoding).unwrap());
        let mut body = Body::new(&headers, most).map_err(|refused| refused.reason)?;
        for chunk in chunks {
            body.push(chunk).map_err(|refused| refused.reason)?;
        }
        body.finish().map_err(|refused| refused.reason)
    }

    #[test]
    fn a_body_of_exactly_the_bound_is_whole_and_one_more_byte_is_refused() {
        assert_eq!(collect("identity", &[b"abc", b"d"], 4), Ok(b"abcd".to_vec()));
        assert_eq!(collect("identity", &[b"abc", b"de"], 4), Err("too_large"));
        let zipped = gzip(&[b'x'; 4000]);
        assert_eq!(collect("GZIP", &[&zipped], 4000), Ok(vec![b'x'; 4000]));
        assert_eq!(collect("gzip", &[&zipped], 3999), Err("too_large"));
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert_eq!(collect("gzip", &[&bomb], 1 << 20), Err("too_large"));
    }

    #[test]
    fn compressed_bodies_must_be_whole_and_sound() {
        let zipped = gzip(b"some text");
        assert_eq!(collect("gzip", &[&zipped[..zipped.len() - 3]], 99), Err("encoding"));
        let mut wrong = zipped.clone();
        let checksum = wrong.len() - 8;
        wrong[checksum] ^= 1;
        assert_eq!(collect("gzip", &[&wrong], 99), Err("encoding"));
        assert_eq!(collect("gzip", &[b"plain text"], 99), Err("encoding"));
        assert_eq!(collect("gzip, gzip", &[&zipped], 99), Err("encoding"));
        assert_eq!(collect("br", &[&zipped], 99), Err("encoding"));
    }
}
