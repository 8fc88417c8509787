//! A key's kid where a lookup compares it: beside what else it reads of the key.

/// How long a kid is held here; nearly every published one is shorter.
const HERE: usize = 47;

/// A kid.
#[repr(C)]
pub(super) struct Name {
    length: u8,
    text: [u8; HERE],
}

/// In place of a length: there is no kid, or it stands elsewhere.
const NONE: u8 = u8::MAX;
const ELSEWHERE: u8 = NONE - 1;

impl Name {
    pub(super) fn of(kid: Option<&str>) -> Self {
        let mut text = [0; HERE];
        let length = match kid {
            None => NONE,
            Some(kid) => match (text.get_mut(..kid.len()), u8::try_from(kid.len())) {
                (Some(here), Ok(length)) => {
                    here.copy_from_slice(kid.as_bytes());
                    length
                }
                _ => ELSEWHERE,
            },
        };
        Self { length, text }
    }

    /// Whether it is this kid; none where the text that stands elsewhere has to tell.
    pub(super) fn is(&self, kid: &str) -> Option<bool> {
        match self.length {
            NONE => Some(false),
            ELSEWHERE => None,
            length => Some(self.text.get(..usize::from(length)) == Some(kid.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kid_is_itself_whatever_its_length_and_no_other() {
        let long = "x".repeat(2 * HERE);
        let kids: Vec<&str> = (0..=long.len()).map(|length| &long[..length]).collect();
        for (length, kid) in kids.iter().enumerate() {
            let name = Name::of(Some(kid));
            for (other_length, other) in kids.iter().enumerate() {
                assert_eq!(name.is(other), (length <= HERE).then_some(length == other_length), "{length}");
            }
            assert_ne!(name.is(&kid.replacen('x', "y", 1)), Some(length > 0), "{length}");
            assert_eq!(Name::of(None).is(kid), Some(false), "{length}");
        }
    }
}
