//! Real signing keys: generating, signing (RFC 7518 §3, RFC 8037, RFC 8812) and the public half as a JWK.
//!
//! It does not know which keys are published, nor what is signed.

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwks_cache_core::Algorithm;
use serde_json::{Value, json};

/// A private key for one algorithm.
#[derive(Debug)]
pub(crate) struct SigningKey {
    algorithm: Algorithm,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa(Arc<RsaKeyPair>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl SigningKey {
    /// New material; for RSA, material that nothing else in this process holds.
    pub(crate) fn generate(algorithm: Algorithm) -> Self {
        let material = match scheme(algorithm) {
            Scheme::Rsa(_) => Material::Rsa(spare_rsa()),
            Scheme::Ec(kind, ..) => Material::Ec(EcdsaKeyPair::generate(kind).expect(GENERATES)),
            Scheme::Ed => Material::Ed(Ed25519KeyPair::generate().expect(GENERATES)),
        };
        Self { algorithm, material }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The signature as it stands in a JWS: for ECDSA the two numbers at fixed width, not DER.
    pub(crate) fn sign(&self, input: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match (&self.material, scheme(self.algorithm)) {
            (Material::Rsa(pair), Scheme::Rsa(padding)) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, input, &mut signature).expect(SIGNS);
                signature
            }
            (Material::Ec(pair), _) => pair.sign(&random, input).expect(SIGNS).as_ref().to_vec(),
            (Material::Ed(pair), _) => pair.sign(input).as_ref().to_vec(),
            (Material::Rsa(_), _) => unreachable!("material is made for its algorithm"),
        }
    }

    /// The public half (RFC 7517 §4), with `kid`, `alg` and `use`.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match (&self.material, scheme(self.algorithm)) {
            (Material::Rsa(pair), _) => {
                // RSAPublicKey in DER: at 2048 bits, with the exponent 65537, everything has its fixed place.
                let modulus = pair.public_key().as_ref().get(9..265).unwrap_or_default();
                json!({"kty": "RSA", "n": encode(modulus), "e": "AQAB"})
            }
            (Material::Ec(pair), Scheme::Ec(_, curve)) => {
                // An uncompressed point: 4, x, y.
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            (Material::Ed(pair), _) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
            (Material::Ec(_), _) => unreachable!("material is made for its algorithm"),
        };
        jwk["kid"] = kid.into();
        jwk["alg"] = self.algorithm.as_str().into();
        jwk["use"] = "sig".into();
        jwk
    }
}

const GENERATES: &str = "the library can generate every kind of key that it can sign with";
const SIGNS: &str = "a private key signs any input";

enum Scheme {
    Rsa(&'static dyn RsaEncoding),
    Ec(&'static EcdsaSigningAlgorithm, &'static str),
    Ed,
}

fn scheme(algorithm: Algorithm) -> Scheme {
    match algorithm {
        Algorithm::RS256 => Scheme::Rsa(&signature::RSA_PKCS1_SHA256),
        Algorithm::RS384 => Scheme::Rsa(&signature::RSA_PKCS1_SHA384),
        Algorithm::RS512 => Scheme::Rsa(&signature::RSA_PKCS1_SHA512),
        Algorithm::PS256 => Scheme::Rsa(&signature::RSA_PSS_SHA256),
        Algorithm::PS384 => Scheme::Rsa(&signature::RSA_PSS_SHA384),
        Algorithm::PS512 => Scheme::Rsa(&signature::RSA_PSS_SHA512),
        Algorithm::ES256 => Scheme::Ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
        Algorithm::ES384 => Scheme::Ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
        Algorithm::ES512 => Scheme::Ec(&signature::ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
        Algorithm::ES256K => Scheme::Ec(&signature::ECDSA_P256K1_SHA256_FIXED_SIGNING, "secp256k1"),
        Algorithm::EdDSA => Scheme::Ed,
        other => panic!("{other} is not an algorithm that this kit signs with"),
    }
}

/// Every RSA key made in this process. Making one takes long in a debug build, so those that no provider holds
/// any more are given out again.
static RSA_KEYS: Mutex<Vec<Arc<RsaKeyPair>>> = Mutex::new(Vec::new());

fn spare_rsa() -> Arc<RsaKeyPair> {
    let keys = || RSA_KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(spare) = keys().iter().find(|key| Arc::strong_count(key) == 1) {
        return Arc::clone(spare);
    }
    let made = Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).expect(GENERATES));
    keys().push(Arc::clone(&made));
    made
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
