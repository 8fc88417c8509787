//! The three parts of a compact JWS (RFC 7515 §7.1), and what their base64url stands for.

use base64::Engine;

use super::fault::{Fault, Malformed, Part, Unsupported};

/// Decodes with the processor's vectors, where it has some: of all work beside the signature, one part in six.
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))]
static BASE64URL: std::sync::LazyLock<base64::engine::Simd> =
    std::sync::LazyLock::new(|| base64::engine::Simd::url_safe(base64::engine::general_purpose::NO_PAD));
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon"))))]
static BASE64URL: &base64::engine::GeneralPurpose = &base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A compact JWS, taken apart and not yet believed.
#[derive(Clone, Copy)]
pub struct Compact<'t> {
    signing_input: &'t str,
    header: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Compact<'t> {
    /// Takes `token` apart. Looks at most at `max_bytes`, and never beyond the fifth dot.
    ///
    /// # Errors
    /// It is longer than `max_bytes`, or not three parts; a JWE and the JSON serialisation are
    /// told by their shape.
    pub fn split(token: &'t str, max_bytes: usize) -> Result<Self, Fault> {
        if token.len() > max_bytes {
            return Err(Malformed::TooLong.into());
        }
        if token.starts_with('{') {
            return Err(Unsupported::JsonSerialization.into());
        }
        let mut dots = memchr::memchr_iter(b'.', token.as_bytes());
        let (Some(first), Some(second)) = (dots.next(), dots.next()) else {
            return Err(Malformed::NotThreeParts.into());
        };
        match dots.take(3).count() {
            0 => {}
            2 => return Err(Unsupported::Encrypted.into()),
            _ => return Err(Malformed::NotThreeParts.into()),
        }
        let part = |from: usize, to: usize| token.get(from..to).unwrap_or_default();
        Ok(Self {
            signing_input: part(0, second),
            header: part(0, first),
            payload: part(first + 1, second),
            signature: part(second + 1, token.len()),
        })
    }

    /// What the signature is over.
    #[must_use]
    pub const fn signing_input(&self) -> &'t str {
        self.signing_input
    }

    /// The header, encoded.
    #[must_use]
    pub const fn header(&self) -> &'t str {
        self.header
    }

    /// The payload, encoded.
    #[must_use]
    pub const fn payload(&self) -> &'t str {
        self.payload
    }

    /// The signature, encoded.
    #[must_use]
    pub const fn signature(&self) -> &'t str {
        self.signature
    }
}

/// Room for the bytes that a part's base64url stands for: `N` of them on the stack, more on the heap.
pub struct Room<const N: usize> {
    stack: [u8; N],
    heap: Vec<u8>,
}

impl<const N: usize> Room<N> {
    /// Room for one part.
    #[must_use]
    pub const fn new() -> Self {
        Self { stack: [0; N], heap: Vec::new() }
    }

    /// Decodes the part of that name. Padding, other alphabets and bits beyond the last byte are refused
    /// (RFC 7515 §2), so that a token has one spelling.
    ///
    /// # Errors
    /// [`Malformed::NotBase64`].
    pub fn decode(&mut self, encoded: &str, part: Part) -> Result<&[u8], Fault> {
        let malformed = Fault::from(Malformed::NotBase64(part));
        if base64::decoded_len_estimate(encoded.len()) > N {
            self.heap = BASE64URL.decode(encoded).map_err(|_| malformed)?;
            return Ok(&self.heap);
        }
        let length = BASE64URL.decode_slice(encoded, &mut self.stack).map_err(|_| malformed)?;
        Ok(self.stack.get(..length).unwrap_or_default())
    }
}

/// The text that a part's bytes are.
///
/// # Errors
/// [`Malformed::NotJson`] where they are not UTF-8, which JSON is (RFC 8259 §8.1).
pub fn text(bytes: &[u8], part: Part) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::NotJson(part).into())
}

impl<const N: usize> Default for Room<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(token: &str) -> Result<[&str; 4], Fault> {
        let it = Compact::split(token, 64)?;
        Ok([it.signing_input(), it.header(), it.payload(), it.signature()])
    }

    #[test]
    fn a_token_is_three_parts_and_what_else_it_may_be_is_told_by_its_shape() {
        assert_eq!(split("a.b.c"), Ok(["a.b", "a", "b", "c"]));
        assert_eq!(split("a.b."), Ok(["a.b", "a", "b", ""])); // its algorithm will be the complaint
        assert_eq!(split(".b.c"), Ok([".b", "", "b", "c"]));
        assert_eq!(split("ä.ö.ü"), Ok(["ä.ö", "ä", "ö", "ü"]));
        for token in ["", "a", "a.b", "a.b.c.d", "a.b.c.d.e.f", &".".repeat(60)] {
            assert_eq!(split(token), Err(Malformed::NotThreeParts.into()), "{token}");
        }
        assert_eq!(split("a..c"), Ok(["a.", "a", "", "c"])); // signed as it is, or detached
        assert_eq!(split("a.b.c.d.e"), Err(Unsupported::Encrypted.into()));
        assert_eq!(split(r#"{"payload":"a.b"}"#), Err(Unsupported::JsonSerialization.into()));
        assert_eq!(split(&"a".repeat(65)), Err(Malformed::TooLong.into()));
    }

    #[test]
    fn only_one_spelling_of_bytes_is_taken_on_the_stack_or_not() {
        fn check<const N: usize>() {
            let read = |text: &str| Room::<N>::new().decode(text, Part::Signature).map(<[u8]>::to_vec);
            assert_eq!(read(""), Ok(vec![]));
            assert_eq!(read("AQI"), Ok(vec![1, 2]));
            assert_eq!(read("-_8"), Ok(vec![0xfb, 0xff]));
            for other in ["AQI=", "AQJ", "+/8", "A", "AQ I", "AQI\n", "ÄÄÄÄ", "AQ.I"] {
                assert_eq!(read(other), Err(Malformed::NotBase64(Part::Signature).into()), "{other}");
            }
        }
        check::<0>();
        check::<64>();
    }

    #[test]
    fn vectors_take_and_refuse_what_one_byte_after_another_does() {
        let slowly = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let quickly = |text: &str| Room::<256>::new().decode(text, Part::Signature).map(<[u8]>::to_vec);
        for length in 0..=200_usize {
            let bytes: Vec<u8> = (0..length).map(|n| (n * 73 + length) as u8).collect();
            let good = slowly.encode(&bytes);
            assert_eq!(quickly(&good), Ok(bytes));
            for at in 0..good.len() {
                for other in ['=', '+', '/', '.', '\n', '\0', '\u{7f}', 'A', '_'] {
                    let text = [&good[..at], &*other.to_string(), &good[at + 1..]].concat();
                    assert_eq!(quickly(&text).ok(), slowly.decode(&text).ok(), "{text}");
                }
            }
        }
    }
}
