//! Key sets, against the parser of `jsonwebtoken`: which keys a caller of `JwkSet` sees, and what it sees of them.

use std::sync::LazyLock;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jwks_cache_core::keyset::{KeyRules, KeySet};
use proptest::prelude::*;

use super::{Difference, Right, compare};

/// A document of raw members: names may repeat, and an entry without members is no object but a number.
#[derive(Clone, Debug)]
struct Document {
    entries: Vec<Vec<(&'static str, String)>>,
}

impl Document {
    fn text(&self) -> String {
        let entry = |members: &Vec<(&'static str, String)>| {
            let members: Vec<_> = members.iter().map(|(name, raw)| format!("{name:?}:{raw}")).collect();
            if members.is_empty() { "7".to_owned() } else { format!("{{{}}}", members.join(",")) }
        };
        format!("{{\"keys\":[{}]}}", self.entries.iter().map(entry).collect::<Vec<_>>().join(","))
    }

    fn key(&mut self) -> Option<&mut Vec<(&'static str, String)>> {
        self.entries.first_mut()
    }

    /// The member's raw JSON, if the key has it.
    fn get(&mut self, name: &str) -> Option<&mut String> {
        self.key()?.iter_mut().find(|(known, _)| *known == name).map(|(_, raw)| raw)
    }

    /// Sets a member of the key, if there is one.
    fn set(&mut self, name: &'static str, raw: &str) {
        match self.get(name) {
            Some(known) => *known = raw.to_owned(),
            None => self.key().into_iter().for_each(|key| key.push((name, raw.to_owned()))),
        }
    }

    fn unset(&mut self, name: &str) {
        self.key().into_iter().for_each(|key| key.retain(|(known, _)| *known != name));
    }

    /// The key is left out.
    fn drop_key(&mut self) {
        self.entries.clear();
    }

    /// The first of the members that hold numbers.
    fn number(&mut self) -> Option<&mut String> {
        let name = if self.get("n").is_some() { "n" } else { "x" };
        self.get(name)
    }

    fn is(&mut self, name: &str, raw: &str) -> bool {
        self.get(name).is_some_and(|known| known == raw)
    }
}

/// The keys that a caller sees; none where the document is refused.
fn ours(document: &Document) -> Option<Vec<Jwk>> {
    let set = KeySet::inspect(document.text().as_bytes(), &KeyRules::default()).ok()?;
    Some(set.jwks().keys.clone())
}

fn theirs(document: &Document) -> Option<Vec<Jwk>> {
    serde_json::from_str::<JwkSet>(&document.text()).ok().map(|set| set.keys)
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn bytes(raw: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(raw.trim_matches('"')).unwrap_or_default()
}

const TABLE: &[Difference<Document>] = &[
    Difference {
        rule: "a member twice",
        who_is_right: Right::Both,
        why: "RFC 7517 §4 lets a reader refuse it or take the last; we leave that key out, the other refuses the set",
        quirk: |written, meaning| {
            if let Some(key) = written.key() {
                key.push(("alg", "\"PS256\"".to_owned()));
                key.push(("alg", "\"PS256\"".to_owned()));
            }
            meaning.drop_key();
        },
    },
    Difference {
        rule: "a private member",
        who_is_right: Right::Ours,
        why: "stripped it would look sound to the next reader; whoever saw it can sign",
        quirk: |written, meaning| {
            written.set("d", "\"AAAA\"");
            meaning.drop_key();
        },
    },
    Difference {
        rule: "a symmetric key",
        who_is_right: Right::Ours,
        why: "a shared secret has no place in a published set",
        quirk: |written, meaning| {
            written.entries = vec![vec![("kty", quoted("oct")), ("k", quoted("AAAA"))]];
            meaning.drop_key();
        },
    },
    Difference {
        rule: "an unknown kty",
        who_is_right: Right::Ours,
        why: "it should be ignored (RFC 7517 §5); the other keeps its members as they are",
        quirk: |written, meaning| {
            written.set("kty", "\"XYZ\"");
            meaning.drop_key();
        },
    },
    Difference {
        rule: "an unknown crv",
        who_is_right: Right::Ours,
        why: "a key of values that are not supported should be ignored (RFC 7517 §5)",
        quirk: |written, meaning| {
            if written.get("crv").is_some() {
                written.set("crv", "\"P-999\"");
                meaning.drop_key();
            }
        },
    },
    Difference {
        rule: "a curve of another kty",
        who_is_right: Right::Ours,
        why: "Ed25519 is a curve of OKP alone (RFC 8037 §2)",
        quirk: |written, meaning| {
            if written.is("kty", "\"EC\"") {
                written.set("crv", "\"Ed25519\"");
                meaning.drop_key();
            }
        },
    },
    Difference {
        rule: "a required member is absent",
        who_is_right: Right::Ours,
        why: "without it there is no key (RFC 7518 §6, RFC 8037 §2)",
        quirk: |written, meaning| {
            ["n", "x"].into_iter().for_each(|name| written.unset(name));
            meaning.drop_key();
        },
    },
    Difference {
        rule: "a number that is no base64url",
        who_is_right: Right::Ours,
        why: "it does not decode (RFC 7518 §6); the other finds out when it verifies",
        quirk: |written, meaning| {
            written.number().into_iter().for_each(|raw| *raw = quoted("!!!!"));
            meaning.drop_key();
        },
    },
    Difference {
        rule: "an empty number",
        who_is_right: Right::Ours,
        why: "no octets are no number (RFC 7518 §2)",
        quirk: |written, meaning| {
            written.number().into_iter().for_each(|raw| *raw = quoted(""));
            meaning.drop_key();
        },
    },
    Difference {
        rule: "an Edwards point of another length",
        who_is_right: Right::Ours,
        why: "it has 32 octets (RFC 8032 §5.1.2)",
        quirk: |written, meaning| {
            if written.is("kty", "\"OKP\"") {
                written.set("x", "\"AAAA\"");
                meaning.drop_key();
            }
        },
    },
    Difference {
        rule: "a coordinate longer than the field",
        who_is_right: Right::Ours,
        why: "it has the octets of the field (RFC 7518 §6.2.1.2)",
        quirk: |written, meaning| {
            if written.is("kty", "\"EC\"") {
                written.set("x", &quoted(&URL_SAFE_NO_PAD.encode([1; 70])));
                meaning.drop_key();
            }
        },
    },
    Difference {
        rule: "an alg of another kind of key",
        who_is_right: Right::Ours,
        why: "the key was made for that algorithm (RFC 7517 §4.4), so one of the two is wrong: HMAC is the classic attack (RFC 8725 §2.1)",
        quirk: |written, meaning| {
            written.set("alg", "\"HS256\"");
            meaning.drop_key();
        },
    },
    Difference {
        rule: "a kid that is null",
        who_is_right: Right::Both,
        why: "it is a string (RFC 7517 §4.5); the other takes null for absent",
        quirk: |written, meaning| {
            written.set("kid", "null");
            meaning.drop_key();
        },
    },
    Difference {
        rule: "a kid of more than a kilobyte",
        who_is_right: Right::Ours,
        why: "no real one is; it would stand in every log and index",
        quirk: |written, meaning| {
            written.set("kid", &quoted(&"k".repeat(1_025)));
            meaning.drop_key();
        },
    },
    Difference {
        rule: "an issuer that is no text",
        who_is_right: Right::Ours,
        why: "a restriction that cannot be read cannot be kept; the other does not know the member",
        quirk: |written, meaning| {
            written.set("issuer", "7");
            meaning.drop_key();
        },
    },
    Difference {
        rule: "a kid that is a number",
        who_is_right: Right::Ours,
        why: "it is a string (RFC 7517 §4.5), and one bad key does not cost the others (§5)",
        quirk: |written, meaning| {
            written.set("kid", "7");
            meaning.drop_key();
        },
    },
    Difference {
        rule: "padding",
        who_is_right: Right::Ours,
        why: "real sets have it; handed on as it is, the number would not decode",
        quirk: |written, _| {
            if let Some(raw) = written.number() {
                let text = raw.trim_matches('"').to_owned();
                *raw = quoted(&format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4)));
            }
        },
    },
    Difference {
        rule: "the standard alphabet",
        who_is_right: Right::Ours,
        why: "real sets have it; handed on as it is, the number would not decode",
        quirk: |written, _| {
            written.number().into_iter().for_each(|raw| *raw = raw.replace('-', "+").replace('_', "/"));
        },
    },
    Difference {
        rule: "a zero octet before the modulus",
        who_is_right: Right::Ours,
        why: "no extra octets are to be there (RFC 7518 §6.3.1.1), real sets have them, and the key has one thumbprint",
        quirk: |written, _| {
            if let Some(raw) = written.get("n").filter(|raw| !raw.contains(['+', '/', '='])) {
                *raw = quoted(&URL_SAFE_NO_PAD.encode([&[0], bytes(raw).as_slice()].concat()));
            }
        },
    },
    Difference {
        rule: "a zero octet before a coordinate",
        who_is_right: Right::Ours,
        why: "it has the octets of the field (RFC 7518 §6.2.1.2); the number is the same",
        quirk: |written, _| {
            if written.is("kty", "\"EC\"")
                && let Some(raw) = written.get("y")
            {
                *raw = quoted(&URL_SAFE_NO_PAD.encode([&[0], bytes(raw).as_slice()].concat()));
            }
        },
    },
    Difference {
        rule: "an x5c that is no list of texts",
        who_is_right: Right::Ours,
        why: "we do not read certificates: an odd one is no reason to lose the key; the other loses the set",
        quirk: |written, meaning| {
            written.set("x5c", "\"MIIC\"");
            meaning.unset("x5c");
        },
    },
    Difference {
        rule: "an x5t that is no text",
        who_is_right: Right::Ours,
        why: "we do not read certificates: an odd one is no reason to lose the key; the other loses the set",
        quirk: |written, meaning| {
            written.set("x5t", "{}");
            meaning.unset("x5t");
        },
    },
    Difference {
        rule: "secp256k1 beside other members",
        who_is_right: Right::Both,
        why: "the other has no name for it and keeps every member; we keep the key's own",
        quirk: |written, meaning| {
            let coordinate = URL_SAFE_NO_PAD.encode([9; 32]);
            let key = [("kty", "EC"), ("crv", "secp256k1"), ("x", &coordinate), ("y", &coordinate)];
            meaning.entries = vec![key.map(|(name, text)| (name, quoted(text))).to_vec()];
            *written = meaning.clone();
            written.set("colour", "\"green\"");
        },
    },
    Difference {
        rule: "an entry that is no object",
        who_is_right: Right::Ours,
        why: "one bad entry does not cost the others (RFC 7517 §5)",
        quirk: |written, _| written.entries.push(Vec::new()),
    },
];

/// One key of each kind, with every character that the alphabets spell differently.
static POOL: LazyLock<Vec<Vec<(&'static str, String)>>> = LazyLock::new(|| {
    let encode = |octets: &[u8]| quoted(&URL_SAFE_NO_PAD.encode(octets));
    let telling = |octets: &[u8]| STANDARD.encode(octets).contains(['+', '/']);
    let curve = |algorithm, name: &str| loop {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
        if telling(x) {
            break vec![("kty", quoted("EC")), ("crv", quoted(name)), ("x", encode(x)), ("y", encode(y))];
        }
    };
    let edwards = loop {
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = pair.public_key().as_ref();
        if telling(x) {
            break vec![("kty", quoted("OKP")), ("crv", quoted("Ed25519")), ("x", encode(x))];
        }
    };
    // Whether it is the product of two primes does not matter here.
    let modulus: Vec<u8> = (0..256_u32).map(|i| (i * 37 + 251) as u8 | 1).collect();
    let rsa = vec![("kty", quoted("RSA")), ("n", encode(&modulus)), ("e", quoted("AQAB"))];
    vec![
        rsa,
        curve(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
        curve(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
        edwards,
    ]
});

fn plain() -> impl Strategy<Value = Document> {
    // Read alike, whatever we may then use the key for.
    let others = [
        ("kid", "\"a\""),
        ("kid", "\"\""),
        ("kid", "\"\\u00e9 \\\"quoted\\\"\""),
        ("use", "\"sig\""),
        ("use", "\"enc\""),
        ("use", "\"other\""),
        ("alg", "\"RSA-OAEP\""),
        ("alg", "\"made-up\""),
        ("key_ops", "[\"verify\"]"),
        ("key_ops", "[\"sign\",\"made-up\"]"),
        ("x5c", "[\"MIIC\"]"),
        ("x5u", "\"https://idp.example/x5u\""),
        ("x5t", "\"odd\""),
        ("x5t#S256", "\"odd\""),
        ("issuer", "\"https://idp.example\""),
        ("exp", "1777982400"),
        ("made_up", "{\"a\":[1,null]}"),
        ("revoked", "{\"reason\":\"lost\"}"),
    ];
    let others = prop::sample::subsequence(others.to_vec(), 0..=5);
    let key = (0..POOL.len()).prop_map(|index| POOL[index].clone());
    (key, others, any::<prop::sample::Index>()).prop_map(|(mut key, others, turn)| {
        for (name, raw) in others {
            if !key.iter().any(|(known, _)| *known == name) {
                key.push((name, raw.to_owned()));
            }
        }
        let turn = turn.index(key.len());
        key.rotate_left(turn);
        Document { entries: vec![key] }
    })
}

#[test]
fn every_difference_to_jsonwebtoken_is_explained() {
    compare("key sets and jsonwebtoken", TABLE, plain(), ours, theirs);
}
