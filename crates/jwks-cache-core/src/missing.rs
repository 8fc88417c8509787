//! A bounded memory of kids that a source does not publish, so that asking again costs nothing.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::time::Moment;

/// How long a kid is remembered as missing.
const REMEMBERED: Duration = Duration::from_secs(30);
/// How many kids are remembered; the oldest makes room.
const CAPACITY: usize = 1024;

/// Kids known to be missing. Most providers know of none, and it takes next to nothing then.
#[derive(Debug, Default)]
pub struct MissingKids(Option<Box<Table>>);

/// Kids are kept as digests: their length is an attacker's to choose.
#[derive(Debug, Default)]
struct Table {
    until: HashMap<Digest, Moment>,
    oldest_first: VecDeque<(Digest, Moment)>,
}

type Digest = [u8; 16];

impl MissingKids {
    /// Remembers that a document fetched after the lookup came back without `kid`.
    pub fn remember(&mut self, kid: &str, now: Moment) {
        let (digest, until) = (digest(kid), now + REMEMBERED);
        self.0.get_or_insert_default().remember(digest, until, now);
    }

    /// Whether `kid` is known to be missing now.
    #[must_use]
    pub fn knows(&self, kid: &str, now: Moment) -> bool {
        let until = self.0.as_ref().and_then(|table| table.until.get(&digest(kid)));
        until.is_some_and(|until| now < *until)
    }

    /// Forgets everything: another set was published.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Table {
    fn remember(&mut self, digest: Digest, until: Moment, now: Moment) {
        if self.until.get(&digest).is_some_and(|until| now < *until) {
            // Many who waited for one kid tell the same.
            return;
        }
        self.until.insert(digest, until);
        self.oldest_first.push_back((digest, until));
        while self.oldest_first.len() > CAPACITY
            || self.oldest_first.front().is_some_and(|(_, until)| *until <= now)
        {
            let Some((digest, until)) = self.oldest_first.pop_front() else { break };
            if self.until.get(&digest) == Some(&until) {
                self.until.remove(&digest);
            }
        }
    }
}

fn digest(kid: &str) -> Digest {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, kid.as_bytes());
    let mut short = Digest::default();
    short.copy_from_slice(&hash.as_ref()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_kid_is_remembered_for_thirty_seconds() {
        let (mut kids, start) = (MissingKids::default(), Moment::ORIGIN);
        kids.remember("x", start);
        assert!(kids.knows("x", start + Duration::from_secs(29)) && !kids.knows("y", start));
        assert!(!kids.knows("x", start + REMEMBERED));
    }

    #[test]
    fn the_memory_holds_1024_kids_and_the_oldest_makes_room() {
        let (mut kids, start) = (MissingKids::default(), Moment::ORIGIN);
        (0..=CAPACITY).for_each(|n| kids.remember(&n.to_string(), start));
        assert!(!kids.knows("0", start) && kids.knows("1", start) && kids.knows("1024", start));
        let sizes =
            |kids: &MissingKids| kids.0.as_ref().map(|table| (table.until.len(), table.oldest_first.len()));
        assert_eq!(sizes(&kids), Some((CAPACITY, CAPACITY)));
        (0..10 * CAPACITY).for_each(|_| kids.remember("same", start));
        assert!(sizes(&kids).is_some_and(|(_, queued)| queued <= CAPACITY));
        kids.clear();
        assert_eq!(sizes(&kids), None);
    }
}
