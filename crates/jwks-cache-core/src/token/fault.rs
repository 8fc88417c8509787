//! What is wrong with a token that can be told from its text alone. Nothing here repeats the token's content.

use std::fmt;

/// Why a token is refused before its key is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not a token.
    Malformed(Malformed),
    /// It is one of a kind that is not taken here.
    Unsupported(Unsupported),
}

/// A part of a compact JWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The header.
    Header,
    /// The payload, which holds the claims.
    Claims,
    /// The signature.
    Signature,
}

/// In what way a text is no compact JWS with claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// Longer than allowed.
    TooLong,
    /// Not three parts with dots between them.
    NotThreeParts,
    /// A part is not base64url without padding (RFC 7515 §2).
    NotBase64(Part),
    /// A part is not one JSON object.
    NotJson(Part),
    /// A member stands twice in a part (RFC 7515 §4, RFC 7519 §4).
    RepeatedMember(Part),
    /// A header member that decides something is no string.
    IllTypedHeader,
    /// The header names no algorithm (RFC 7515 §4.1.1).
    NoAlgorithm,
}

/// A kind of token that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsupported {
    /// The JSON serialisation of a JWS (RFC 7515 §7.2).
    JsonSerialization,
    /// A JWE (RFC 7516).
    Encrypted,
    /// A detached payload (RFC 7515 appendix F).
    Detached,
    /// The header demands an extension by `crit` (RFC 7515 §4.1.11).
    Critical,
    /// The payload is not encoded: `b64` (RFC 7797).
    Unencoded,
    /// The algorithm is none that is accepted: `none`, HMAC, an unknown one, or one that was not chosen.
    Algorithm,
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Unsupported> for Fault {
    fn from(unsupported: Unsupported) -> Self {
        Self::Unsupported(unsupported)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Claims => "payload",
            Self::Signature => "signature",
        })
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("the token is too long"),
            Self::NotThreeParts => f.write_str("the token is not three parts with dots between them"),
            Self::NotBase64(part) => write!(f, "the token's {part} is not base64url without padding"),
            Self::NotJson(part) => write!(f, "the token's {part} is not a JSON object"),
            Self::RepeatedMember(part) => write!(f, "a name stands twice in the token's {part}"),
            Self::IllTypedHeader => f.write_str("a member of the token's header is no string"),
            Self::NoAlgorithm => f.write_str("the token's header names no algorithm"),
        }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JsonSerialization => "tokens in JSON serialisation are not accepted",
            Self::Encrypted => "encrypted tokens are not accepted",
            Self::Detached => "tokens without their payload are not accepted",
            Self::Critical => "the token demands an extension that is not supported",
            Self::Unencoded => "tokens with an unencoded payload are not accepted",
            Self::Algorithm => "the token's algorithm is not accepted",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Unsupported(unsupported) => unsupported.fmt(f),
        }
    }
}

impl std::error::Error for Malformed {}
impl std::error::Error for Unsupported {}
impl std::error::Error for Fault {}
