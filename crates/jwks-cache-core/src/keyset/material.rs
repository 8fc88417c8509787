//! The numbers of a public key: read tolerantly, checked strictly, written canonically (RFC 7518 §6, RFC 8037).
//! This room does not know kids, uses or policies other than the sizes it is given.

use std::collections::BTreeMap;

use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, EllipticCurveKeyParameters, EllipticCurveKeyType,
    OctetKeyPairParameters, OctetKeyPairType, OtherKeyParameters, RSAKeyParameters, RSAKeyType,
};

use super::entry::Members;
use super::{Reason, sha256};
use crate::key::{Curve, KeyType, Thumbprint, curve_parameters};
use crate::{Algorithm, AlgorithmSet};

const RSA_MAX_BITS: u32 = 8192;
/// Below this no algorithm of the backend verifies.
const RSA_FLOOR_BITS: u32 = 1024;
/// Larger exponents make a verification over a hundred times slower; the backend refuses them as well.
const RSA_MAX_EXPONENT: u64 = (1 << 33) - 1;

/// Public numbers without leading zeros (RSA), or padded to the length of the field (curves).
pub(super) enum Numbers {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { curve: Curve, x: Vec<u8>, y: Vec<u8> },
    Ed25519 { x: [u8; 32] },
}

impl Numbers {
    /// Reads what `kty` asks for.
    pub(super) fn read(kty: &str, members: &Members<'_>) -> Result<Self, Reason> {
        match kty {
            "RSA" => {
                let n = unprefixed(bytes(members, "n")?);
                let e = unprefixed(bytes(members, "e")?);
                if n.is_empty() {
                    return Err(Reason::Malformed("n"));
                }
                // An exponent of zero is a number, if a useless one; an empty one is not.
                Ok(Self::Rsa { n, e })
            }
            "EC" => {
                let curve = match &*members.required("crv")? {
                    "P-256" => Curve::P256,
                    "P-384" => Curve::P384,
                    "P-521" => Curve::P521,
                    "secp256k1" => Curve::Secp256k1,
                    _ => return Err(Reason::UnknownCurve),
                };
                let length = (field_bits(curve) as usize).div_ceil(8);
                let coordinate = |name| padded(bytes(members, name)?, length).ok_or(Reason::Malformed(name));
                Ok(Self::Ec { curve, x: coordinate("x")?, y: coordinate("y")? })
            }
            "OKP" => {
                if &*members.required("crv")? != "Ed25519" {
                    return Err(Reason::UnknownCurve);
                }
                // Unlike the coordinates of RFC 7518 this is an encoded point: padding would make another key.
                let x = bytes(members, "x")?.try_into().map_err(|_| Reason::Malformed("x"))?;
                Ok(Self::Ed25519 { x })
            }
            _ => Err(Reason::UnknownKeyType),
        }
    }

    pub(super) fn kty(&self) -> KeyType {
        match self {
            Self::Rsa { .. } => KeyType::Rsa,
            Self::Ec { .. } => KeyType::Ec,
            Self::Ed25519 { .. } => KeyType::Okp,
        }
    }

    pub(super) fn curve(&self) -> Option<Curve> {
        match self {
            Self::Rsa { .. } => None,
            Self::Ec { curve, .. } => Some(*curve),
            Self::Ed25519 { .. } => Some(Curve::Ed25519),
        }
    }

    /// Bits of the modulus or of the field.
    pub(super) fn bits(&self) -> u32 {
        match self {
            Self::Rsa { n, .. } => {
                let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
                u32::try_from(bits).unwrap_or(u32::MAX)
            }
            Self::Ec { curve, .. } => field_bits(*curve),
            Self::Ed25519 { .. } => field_bits(Curve::Ed25519),
        }
    }

    /// The algorithms of this type and curve (RFC 7518 §3.1), whatever the key's size.
    pub(super) fn family(&self) -> AlgorithmSet {
        use Algorithm::{ES256, ES256K, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let only = |algorithm| AlgorithmSet::from_iter([algorithm]);
        match self.curve() {
            None => AlgorithmSet::from_iter([RS256, RS384, RS512, PS256, PS384, PS512]),
            Some(Curve::P256) => only(ES256),
            Some(Curve::P384) => only(ES384),
            Some(Curve::P521) => only(ES512),
            Some(Curve::Secp256k1) => only(ES256K),
            Some(Curve::Ed25519) => only(EdDSA),
        }
    }

    /// The algorithms of the family that the backend verifies with a key of this size.
    pub(super) fn verifiable(&self) -> AlgorithmSet {
        match self {
            Self::Rsa { .. } if self.bits() < 2048 => {
                AlgorithmSet::from_iter([Algorithm::RS256, Algorithm::RS512])
            }
            _ => self.family(),
        }
    }

    /// Whether these numbers are unfit to be trusted.
    pub(super) fn weakness(&self, min_rsa_bits: u32) -> Option<Reason> {
        match self {
            Self::Rsa { n, e } => rsa_weakness(n, e, self.bits(), min_rsa_bits),
            Self::Ec { x, y, .. } => {
                let parameters = self.family().iter().next().and_then(curve_parameters)?;
                let uncompressed = [&[4], x.as_slice(), y].concat();
                ParsedPublicKey::new(parameters, uncompressed).err().map(|_| Reason::OffCurve)
            }
            Self::Ed25519 { x } => is_weak_edwards_point(x).then_some(Reason::WeakPoint),
        }
    }

    /// RFC 7638 §3: the required members, in order, without white space.
    pub(super) fn thumbprint(&self) -> Thumbprint {
        let text = match self {
            Self::Rsa { n, e } => {
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(&number(e)), encode(n))
            }
            Self::Ec { curve, x, y } => {
                format!(r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#, encode(x), encode(y))
            }
            Self::Ed25519 { x } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(x)),
        };
        Thumbprint::from_bytes(sha256(text.as_bytes()))
    }

    /// The numbers for callers of `jsonwebtoken`, in the only encoding that it decodes.
    pub(super) fn parameters(&self) -> AlgorithmParameters {
        match self {
            Self::Rsa { n, e } => AlgorithmParameters::RSA(RSAKeyParameters {
                key_type: RSAKeyType::RSA,
                n: encode(n),
                e: encode(&number(e)),
            }),
            Self::Ec { curve, x, y } => {
                let known = match curve {
                    Curve::P256 => EllipticCurve::P256,
                    Curve::P384 => EllipticCurve::P384,
                    Curve::P521 => EllipticCurve::P521,
                    // The library has no name for these: it keeps their members.
                    Curve::Secp256k1 | Curve::Ed25519 => {
                        let members = [
                            ("kty", "EC".to_owned()),
                            ("crv", curve.to_string()),
                            ("x", encode(x)),
                            ("y", encode(y)),
                        ];
                        let fields: BTreeMap<_, _> =
                            members.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
                        return AlgorithmParameters::Other(OtherKeyParameters { fields });
                    }
                };
                AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters {
                    key_type: EllipticCurveKeyType::EC,
                    curve: known,
                    x: encode(x),
                    y: encode(y),
                })
            }
            Self::Ed25519 { x } => AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters {
                key_type: OctetKeyPairType::OctetKeyPair,
                curve: EllipticCurve::Ed25519,
                x: encode(x),
            }),
        }
    }
}

const fn field_bits(curve: Curve) -> u32 {
    match curve {
        Curve::P256 | Curve::Secp256k1 => 256,
        Curve::P384 => 384,
        Curve::P521 => 521,
        Curve::Ed25519 => 255,
    }
}

/// Decodes a base64url member. Real providers pad it or use the other alphabet; nothing else is excused.
fn bytes(members: &Members<'_>, name: &'static str) -> Result<Vec<u8>, Reason> {
    use base64::alphabet::URL_SAFE;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    const TOLERANT: GeneralPurpose = GeneralPurpose::new(
        &URL_SAFE,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );

    let text = members.required(name)?;
    let text = text.replace('+', "-").replace('/', "_");
    match TOLERANT.decode(text) {
        Ok(decoded) if !decoded.is_empty() => Ok(decoded),
        _ => Err(Reason::Malformed(name)),
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Strips leading zero bytes.
fn unprefixed(bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.into_iter().skip(zeros).collect()
}

/// The number in exactly `length` bytes, if it fits.
fn padded(bytes: Vec<u8>, length: usize) -> Option<Vec<u8>> {
    let digits = unprefixed(bytes);
    let mut padded = vec![0; length.checked_sub(digits.len())?];
    padded.extend(digits);
    Some(padded)
}

/// As octets that stand for it in a JWK: zero is one octet (RFC 7518 §2).
fn number(digits: &[u8]) -> Vec<u8> {
    if digits.is_empty() { vec![0] } else { digits.to_vec() }
}

fn small_number(digits: &[u8]) -> Option<u64> {
    (digits.len() <= 8).then(|| digits.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn rsa_weakness(n: &[u8], e: &[u8], bits: u32, min_bits: u32) -> Option<Reason> {
    let exponent_is_sound =
        small_number(e).is_some_and(|e| e % 2 == 1 && (3..=RSA_MAX_EXPONENT).contains(&e));
    if bits < min_bits.max(RSA_FLOOR_BITS) {
        Some(Reason::RsaTooShort)
    } else if bits > RSA_MAX_BITS {
        Some(Reason::RsaTooLong)
    } else if n.last().is_some_and(|byte| byte % 2 == 0) {
        Some(Reason::RsaModulusEven)
    } else if !exponent_is_sound {
        Some(Reason::RsaExponent)
    } else if has_roca_fingerprint(n) {
        Some(Reason::RsaWeakGenerator)
    } else {
        None
    }
}

/// Of the factors of `M` below, those modulo which some number beside 0 is no power of 65537. The fewer are, the earlier: a sound
/// modulus mostly fails at the first.
const TELLING_PRIMES: [u64; 17] = [97, 37, 79, 11, 61, 73, 127, 151, 13, 17, 19, 53, 71, 103, 107, 109, 157];

/// The broken generator made primes `k * M + 65537^a mod M`, with `M` the product of the first primes. So its
/// moduli are powers of 65537 modulo each of them; a sound modulus passes all once in some 10^8 keys.
fn has_roca_fingerprint(n: &[u8]) -> bool {
    TELLING_PRIMES.iter().all(|prime| {
        // A residue is one byte, so seven more fit beside it: few divisions, for every RSA key comes by here.
        let residue = n.chunks(7).fold(0, |rest, bytes| {
            bytes.iter().fold(rest, |rest, byte| rest << 8 | u64::from(*byte)) % prime
        });
        let generator = 65537 % prime;
        let mut power = 1;
        loop {
            if power == residue {
                return true;
            }
            power = power * generator % prime;
            if power == 1 {
                return false;
            }
        }
    })
}

/// Whether the point is one of the eight of small order, for which anyone can make signatures, or has a
/// y coordinate at or above the prime 2^255 - 19, so that one key would have two encodings.
fn is_weak_edwards_point(encoded: &[u8; 32]) -> bool {
    /// y of two of the four points of order 8, big-endian; the other two have `p - y`.
    const ORDER_8: [u8; 32] = [
        0x05, 0xfc, 0x53, 0x6d, 0x88, 0x02, 0x38, 0xb1, 0x39, 0x33, 0xc6, 0xd3, 0x05, 0xac, 0xdf, 0xd5, 0xf0,
        0x98, 0xef, 0xf2, 0x89, 0xf4, 0xc3, 0x45, 0xb0, 0x27, 0xb2, 0xc2, 0x8f, 0x95, 0xe8, 0x26,
    ];
    const PRIME: [u8; 32] = {
        let mut prime = [0xff; 32];
        prime[0] = 0x7f;
        prime[31] = 0xed;
        prime
    };
    /// `PRIME` minus a number none of whose digits borrows: with another, this would not compile.
    const fn negated(y: [u8; 32]) -> [u8; 32] {
        let mut negated = PRIME;
        let mut i = 0;
        while i < 32 {
            negated[i] -= y[i];
            i += 1;
        }
        negated
    }
    const ZERO: [u8; 32] = [0; 32];
    const ONE: [u8; 32] = {
        let mut one = ZERO;
        one[31] = 1;
        one
    };
    const SMALL_ORDER: [[u8; 32]; 5] = [ZERO, ONE, negated(ONE), ORDER_8, negated(ORDER_8)];

    let mut y = *encoded;
    y.reverse();
    y[0] &= 0x7f; // the sign of x
    y >= PRIME || SMALL_ORDER.contains(&y)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The five y coordinates of small order, in the byte order of the encoding.
    fn small_order() -> impl Iterator<Item = [u8; 32]> {
        [
            "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "7P_______________________________________38",
            "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU",
            "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o",
        ]
        .map(|text| URL_SAFE_NO_PAD.decode(text).unwrap().try_into().unwrap())
        .into_iter()
    }

    #[test]
    fn the_points_called_weak_accept_signatures_that_nobody_made() {
        // With R the neutral point and S = 0, verifying asks only that [h]A be neutral: for a point of order o
        // one message in o passes, for any other practically none.
        let mut forged = [0; 64];
        forged[0] = 1;
        for point in small_order() {
            let key = ParsedPublicKey::new(&aws_lc_rs::signature::ED25519, point).unwrap();
            assert!((0..=u8::MAX).any(|message| key.verify_sig(&[message], &forged).is_ok()), "{point:x?}");
        }
    }

    #[test]
    fn small_order_and_second_encodings_are_weak_with_either_sign() {
        let mut last_canonical = [0xff; 32];
        (last_canonical[0], last_canonical[31]) = (0xeb, 0x7f);
        let mut prime = last_canonical;
        prime[0] = 0xed;
        let weak = small_order().chain([prime, [0xff; 32]]);
        for mut point in weak {
            assert!(is_weak_edwards_point(&point), "{point:x?}");
            point[31] ^= 0x80;
            assert!(is_weak_edwards_point(&point), "{point:x?}");
        }
        assert!(!is_weak_edwards_point(&last_canonical));
        assert!(!is_weak_edwards_point(&[7; 32]));
    }

    #[test]
    fn the_primes_that_tell_are_all_modulo_which_65537_generates_not_every_number() {
        let prime = |n: &u64| (2..*n).all(|d| !n.is_multiple_of(d));
        let powers = |p: u64| {
            let mut seen = std::collections::BTreeSet::new();
            let mut power = 1;
            while seen.insert(power) {
                power = power * 65537 % p;
            }
            seen.len() as u64
        };
        let mut telling: Vec<_> = (3..=167).filter(prime).filter(|&p| powers(p) < p - 1).collect();
        telling.sort_by_key(|&p| (1_000 * powers(p) / (p - 1), p));
        assert_eq!(telling, TELLING_PRIMES);
    }
}
