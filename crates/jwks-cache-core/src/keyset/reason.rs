//! Why an entry of a document was set aside.

use std::fmt;

/// Why a key was set aside: it verifies nothing, the others of its document go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The entry is not an object, or its member names cannot be read.
    NotAnObject,
    /// It carries a member of a private or symmetric key: whoever reads the document can sign with it.
    PrivateMembers,
    /// `kty` is `oct`: a shared secret has no place at a public address.
    Symmetric,
    /// A member stands in it twice (RFC 7517 §4).
    RepeatedMember,
    /// `kty` is none of RSA, EC, OKP.
    UnknownKeyType,
    /// `crv` is not a curve that a signature can be verified on.
    UnknownCurve,
    /// This member is required and absent.
    Missing(&'static str),
    /// This member has the wrong JSON type or does not decode.
    Malformed(&'static str),
    /// This member is longer than any real one.
    TooLong(&'static str),
    /// `alg` belongs to another type of key or another curve.
    AlgorithmContradictsKey,

    /// It says that it was revoked.
    Revoked,
    /// `use` is not `sig`.
    UseNotSig,
    /// `key_ops` does not hold `verify`.
    KeyOpsWithoutVerify,
    /// `key_ops` holds an operation twice (RFC 7517 §4.3).
    KeyOpsRepeated,
    /// `alg` is no asymmetric signature algorithm.
    AlgorithmSignsNothing,
    /// The RSA modulus is shorter than the rules or its algorithm allow.
    RsaTooShort,
    /// The RSA modulus is longer than 8192 bits: verifying with it is a way to exhaust a server.
    RsaTooLong,
    /// The RSA modulus is even.
    RsaModulusEven,
    /// The RSA exponent is even, below 3 or above 2^33 - 1.
    RsaExponent,
    /// The RSA modulus has the fingerprint of a broken generator (CVE-2017-15361, "ROCA").
    RsaWeakGenerator,
    /// The point does not lie on its curve.
    OffCurve,
    /// The Ed25519 point has small order or is not in canonical form (RFC 8032 §5.1.3).
    WeakPoint,
    /// The rules allow none of the algorithms it could verify.
    AlgorithmNotAllowed,
    /// Another key has the same kid, other material and an algorithm in common.
    AmbiguousKid,
}

impl Reason {
    /// Whether the key still decodes as a public key, so that callers who choose keys themselves see it.
    #[must_use]
    pub const fn is_well_formed(self) -> bool {
        !matches!(
            self,
            Self::NotAnObject
                | Self::PrivateMembers
                | Self::Symmetric
                | Self::RepeatedMember
                | Self::UnknownKeyType
                | Self::UnknownCurve
                | Self::Missing(_)
                | Self::Malformed(_)
                | Self::TooLong(_)
                | Self::AlgorithmContradictsKey
        )
    }

    /// A stable label for metrics and machines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAnObject => "not_an_object",
            Self::PrivateMembers => "private_members",
            Self::Symmetric => "symmetric",
            Self::RepeatedMember => "repeated_member",
            Self::UnknownKeyType => "unknown_kty",
            Self::UnknownCurve => "unknown_crv",
            Self::Missing(_) => "missing_member",
            Self::Malformed(_) => "malformed_member",
            Self::TooLong(_) => "member_too_long",
            Self::AlgorithmContradictsKey => "alg_contradicts_key",
            Self::Revoked => "revoked",
            Self::UseNotSig => "use_not_sig",
            Self::KeyOpsWithoutVerify => "key_ops_without_verify",
            Self::KeyOpsRepeated => "key_ops_repeated",
            Self::AlgorithmSignsNothing => "alg_signs_nothing",
            Self::RsaTooShort => "rsa_too_short",
            Self::RsaTooLong => "rsa_too_long",
            Self::RsaModulusEven => "rsa_modulus_even",
            Self::RsaExponent => "rsa_exponent",
            Self::RsaWeakGenerator => "rsa_weak_generator",
            Self::OffCurve => "off_curve",
            Self::WeakPoint => "weak_point",
            Self::AlgorithmNotAllowed => "alg_not_allowed",
            Self::AmbiguousKid => "ambiguous_kid",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Missing(member) => return write!(f, "`{member}` is missing"),
            Self::Malformed(member) => return write!(f, "`{member}` is malformed"),
            Self::TooLong(member) => return write!(f, "`{member}` is too long"),
            Self::NotAnObject => "not an object",
            Self::PrivateMembers => "private key published: it must be replaced",
            Self::Symmetric => "shared secret published: it must be replaced",
            Self::RepeatedMember => "a member stands in it twice",
            Self::UnknownKeyType => "unknown `kty`",
            Self::UnknownCurve => "unknown `crv`",
            Self::AlgorithmContradictsKey => "`alg` contradicts the key's type or curve",
            Self::Revoked => "revoked",
            Self::UseNotSig => "`use` is not `sig`",
            Self::KeyOpsWithoutVerify => "`key_ops` lacks `verify`",
            Self::KeyOpsRepeated => "`key_ops` repeats an operation",
            Self::AlgorithmSignsNothing => "`alg` is no asymmetric signature algorithm",
            Self::RsaTooShort => "RSA modulus too short",
            Self::RsaTooLong => "RSA modulus above 8192 bits",
            Self::RsaModulusEven => "RSA modulus is even",
            Self::RsaExponent => "RSA exponent is even, tiny or huge",
            Self::RsaWeakGenerator => "RSA modulus of a broken generator (ROCA)",
            Self::OffCurve => "point not on its curve",
            Self::WeakPoint => "Ed25519 point of small order or not canonical",
            Self::AlgorithmNotAllowed => "no algorithm that the configuration allows",
            Self::AmbiguousKid => "another key has the same kid for the same algorithm",
        };
        f.write_str(text)
    }
}
