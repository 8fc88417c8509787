//! Keys of every type, and tokens of every shape that they or others sign. What is right about one is not known here.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::{Value, json};

use super::scripted::b64;

/// The names that a header may say, and that mean something to somebody.
pub(crate) const ALGORITHMS: [&str; 15] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA",
    "HS256", "HS384", "HS512", "none",
];

/// A private key.
pub(crate) enum Signer {
    Rsa(Box<RsaKeyPair>),
    Ec(&'static str, &'static str, Box<EcdsaKeyPair>),
    Ed(Box<Ed25519KeyPair>),
    Oct(Vec<u8>),
}

impl Signer {
    pub(crate) fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub(crate) fn ec(alg: &'static str) -> Self {
        let (curve, kind): (_, &EcdsaSigningAlgorithm) = match alg {
            "ES256" => ("P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ("P-384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            "ES512" => ("P-521", &signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            _ => ("secp256k1", &signature::ECDSA_P256K1_SHA256_FIXED_SIGNING),
        };
        Self::Ec(alg, curve, Box::new(EcdsaKeyPair::generate(kind).unwrap()))
    }

    pub(crate) fn ed() -> Self {
        Self::Ed(Box::new(Ed25519KeyPair::generate().unwrap()))
    }

    /// One of each type.
    pub(crate) fn of_every_type() -> Vec<Self> {
        let mut all = vec![Self::rsa(), Self::ed(), Self::Oct(vec![7; 32])];
        all.extend(["ES256", "ES384", "ES512", "ES256K"].map(Self::ec));
        all
    }

    /// The algorithms that its type fits.
    pub(crate) fn fits(&self) -> &[&'static str] {
        match self {
            Self::Rsa(_) => &ALGORITHMS[..6],
            Self::Ec(alg, ..) => std::slice::from_ref(alg),
            Self::Ed(_) => &["EdDSA"],
            Self::Oct(_) => &ALGORITHMS[11..14],
        }
    }

    /// A signature as a JWS by that algorithm has it, where the key fits it; otherwise the best it can do.
    pub(crate) fn sign(&self, alg: &str, input: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        if alg.starts_with("HS") {
            return hmac_of(alg, &self.public_der(), input);
        }
        match self {
            Self::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match alg {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, input, &mut signature).unwrap();
                signature
            }
            Self::Ec(_, _, pair) => pair.sign(&random, input).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(input).as_ref().to_vec(),
            Self::Oct(secret) => hmac_of("HS256", secret, input),
        }
    }

    /// The public half, or the secret, as a JWK.
    pub(crate) fn jwk(&self, kid: Option<&str>, alg: Option<&str>) -> Value {
        let mut jwk = match self {
            Self::Rsa(pair) => {
                // RSAPublicKey in DER: at 2048 bits, with the exponent 65537, everything has its fixed place.
                json!({"kty": "RSA", "n": b64(&pair.public_key().as_ref()[9..265]), "e": "AQAB"})
            }
            Self::Ec(_, curve, pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)})
            }
            Self::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())}),
            Self::Oct(secret) => json!({"kty": "oct", "k": b64(secret)}),
        };
        for (name, value) in [("kid", kid), ("alg", alg)] {
            if let Some(value) = value {
                jwk[name] = value.into();
            }
        }
        jwk
    }

    /// The public half as SubjectPublicKeyInfo, which everybody can have.
    pub(crate) fn public_der(&self) -> Vec<u8> {
        let der = |der: PublicKeyX509Der<'_>| der.as_ref().to_vec();
        match self {
            Self::Rsa(pair) => der(pair.public_key().as_der().unwrap()),
            Self::Ec(_, _, pair) => der(pair.public_key().as_der().unwrap()),
            Self::Ed(pair) => der(pair.public_key().as_der().unwrap()),
            Self::Oct(secret) => secret.clone(),
        }
    }

    /// A token with these claims, signed by an algorithm, with the kid `k`.
    pub(crate) fn token(&self, alg: &str, claims: &Value) -> String {
        self.token_as(&json!({"alg": alg, "kid": "k", "typ": "JWT"}).to_string(), alg, &claims.to_string())
    }

    /// A token with exactly this header and payload.
    pub(crate) fn token_as(&self, header: &str, alg: &str, payload: &str) -> String {
        signed(header, payload, |input| if alg == "none" { Vec::new() } else { self.sign(alg, input) })
    }
}

/// A token with exactly this header and payload, and what `sign` makes of them.
pub(crate) fn signed(header: &str, payload: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let input = format!("{}.{}", b64(header), b64(payload));
    let signature = b64(sign(input.as_bytes()));
    format!("{input}.{signature}")
}

pub(crate) fn hmac_of(alg: &str, secret: &[u8], input: &[u8]) -> Vec<u8> {
    let kind = match alg {
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    hmac::sign(&hmac::Key::new(kind, secret), input).as_ref().to_vec()
}
