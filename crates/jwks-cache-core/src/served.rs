//! What a server hands on of what is held: the published text, with the keys that retire and without those that are denied.
//!
//! This room does not know HTTP, nor how often it is asked: the answer holds until [`Document::until`], for one
//! [`Published`].

use std::ops::Range;
use std::sync::Arc;

use crate::key::SharedKey;
use crate::keyset::{LedgerEntry, around, join};
use crate::published::{Published, Retiring};
use crate::time::Moment;

/// A key set document, with what is known of its entries.
#[derive(Debug)]
pub struct Document {
    text: Arc<str>,
    entries: Box<[Entry]>,
    until: Option<Moment>,
}

#[derive(Debug)]
struct Entry {
    place: Range<usize>,
    kid: Option<Box<str>>,
    /// The key, where it may verify.
    key: Option<SharedKey>,
}

impl Document {
    /// The document of what is held; none where nothing is. Where no key retires and none is denied, its text is the
    /// published one, and shared with it.
    ///
    /// A retiring key is in it on the terms of a lookup: under its kid, and only while no published key has that.
    #[must_use]
    pub fn of(published: &Published, now: Moment) -> Option<Self> {
        let (held, served) = (published.held.as_ref()?, &published.served);
        let (text, ledger) = (held.set.text(), held.set.ledger());
        let all: Vec<&LedgerEntry> = ledger.iter().filter(|entry| entry.place().is_some()).collect();
        let kept: Vec<&LedgerEntry> =
            all.iter().copied().filter(|entry| !entry.is_denied(&published.denials)).collect();
        let mut retiring: Vec<&Retiring> = Vec::new();
        for old in published.retiring.iter().filter(|old| now < old.until) {
            let Some(kid) = old.key.kid() else { continue };
            let is_there = |other: &&Retiring| other.key.kid() == Some(kid);
            if !served.holds_kid(kid) && !published.denies_kid(kid) && !retiring.iter().any(is_there) {
                retiring.push(old);
            }
        }
        let places: Vec<Range<usize>> = all.iter().filter_map(|entry| entry.place()).collect();
        if places.is_empty() {
            // Beside no key of the document, none retires.
            return Some(Self { text: text.clone(), entries: Box::default(), until: None });
        }
        let (text, places) = if kept.len() == all.len() && retiring.is_empty() {
            (text.clone(), places)
        } else {
            let (start, end) = around(text, &places);
            let kept: Vec<Range<usize>> = kept.iter().filter_map(|entry| entry.place()).collect();
            let mut pool = text.to_string();
            let added: Vec<Range<usize>> = retiring
                .iter()
                .map(|old| {
                    let begins = pool.len();
                    pool.push_str(old.key.text());
                    begins..pool.len()
                })
                .collect();
            join(&pool, start, kept.iter().chain(&added), end)
        };
        let of_entry = |entry: &&LedgerEntry| {
            let key = entry.key().filter(|key| key.is_usable());
            (entry.kid().map(Into::into), key.cloned())
        };
        let of_retiring = |old: &&Retiring| (old.key.kid().map(Into::into), Some(old.key.clone()));
        let entries = kept.iter().map(of_entry).chain(retiring.iter().map(of_retiring)).zip(places);
        let entries = entries.map(|((kid, key), place)| Entry { place, kid, key }).collect();
        Some(Self { text, entries, until: retiring.iter().map(|old| old.until).min() })
    }

    /// The text: JSON, an object with an array `keys`.
    #[must_use]
    pub const fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// A document of the entries with exactly this kid, each as it stands in this one.
    #[must_use]
    pub fn only(&self, kid: &str) -> Arc<str> {
        let named = self.named(kid).map(|entry| &entry.place);
        join(&self.text, "{\"keys\":[", named, "]}").0
    }

    /// Whether an entry has this kid.
    #[must_use]
    pub fn names(&self, kid: &str) -> bool {
        self.named(kid).next().is_some()
    }

    /// The keys with this kid that may verify.
    pub fn keys<'a>(&'a self, kid: &'a str) -> impl Iterator<Item = &'a SharedKey> {
        self.named(kid).filter_map(|entry| entry.key.as_ref())
    }

    /// All keys that may verify.
    pub fn usable(&self) -> impl Iterator<Item = &SharedKey> {
        self.entries.iter().filter_map(|entry| entry.key.as_ref())
    }

    /// When a key that retires is gone from it; none while none does.
    #[must_use]
    pub const fn until(&self) -> Option<Moment> {
        self.until
    }

    fn named(&self, kid: &str) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.kid.as_deref() == Some(kid))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::DateTime;

    use super::*;
    use crate::freshness::{Stated, StoredHeaders};
    use crate::keyset::{KeyRules, KeySet};
    use crate::published::rehearsal::doc;
    use crate::published::{Denials, Held, Serving};

    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    /// Keys as nobody would print them: spaces, an odd order, members that mean nothing.
    fn odd() -> String {
        let key = |kid: &str, more: &str| {
            format!("{{ \"x\" :\"{X}\",\"kid\": \"{kid}\",\n\"crv\":\"Ed25519\"{more}, \"kty\":\"OKP\"}}")
        };
        let (a, b) = (key("a", ", \"ünknown\": [1 ,2]"), key("b/\\u000d", ",\"x5t\":7"));
        let pq = r#"{"kty":"AKP","kid":"pq","alg":"ML-DSA-44","pub":"AA"}"#;
        let secret = key("s", ",\"d\":\"AA\"");
        let shared = r#"{"kty":"oct","kid":"o","k":"AA"}"#;
        format!("{{\"x\":0, \"keys\" : [\n {a} ,{secret},\n{pq}\t,{shared}, {b} ] ,\"more\":\"ü\"}}\n")
    }

    fn at(seconds: u64) -> Moment {
        Moment::ORIGIN + Duration::from_secs(seconds)
    }

    fn published(text: &str, retiring: &[(&str, u8, u64)], denied: &[&str]) -> Published {
        let set = Arc::new(KeySet::judge(text.as_bytes(), &KeyRules::default()).unwrap());
        let retiring = retiring.iter().map(|(kid, seed, until)| Retiring {
            key: doc(&[(kid, *seed)]).shared().next().unwrap(),
            left_at: at(0),
            last_held_at: at(0),
            until: at(*until),
        });
        let mut denials = Denials::default();
        denied.iter().for_each(|id| assert!(denials.deny(id)));
        denials.learn(set.keys());
        let held = Held {
            headers: StoredHeaders::default(),
            stated: Stated::Nothing,
            requested_at: at(0),
            received_at: at(0),
            received_wall: DateTime::default(),
            expires_at: at(300),
            refresh_at: at(270),
            servable_until: at(900),
            validators_trusted: true,
            restored: false,
            serving: Serving::Primary,
            retiring: retiring.collect(),
            set,
        };
        Published::new(Some(Arc::new(held)), Arc::new(denials), None, at(0))
    }

    fn kids(text: &str) -> Vec<String> {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let kid = |key: &serde_json::Value| key["kid"].as_str().unwrap().to_owned();
        value["keys"].as_array().unwrap().iter().map(kid).collect()
    }

    #[test]
    fn what_nobody_changes_is_handed_on_as_it_was_published_and_shared() {
        let text = odd().replace("\"d\"", "\"e\"").replace("\"oct\"", "\"odd\"").replace("\"k\"", "\"j\"");
        let published = published(&text, &[], &[]);
        let document = Document::of(&published, at(1)).unwrap();
        assert_eq!(**document.text(), text);
        assert!(Arc::ptr_eq(document.text(), published.held.as_ref().unwrap().set.text()));
        assert_eq!(document.until(), None);
        assert!(Document::of(&Published::default(), at(1)).is_none());
        let empty = self::published(" {\"keys\" : [ ] }", &[("old", 3, 60)], &[]);
        assert_eq!(&**Document::of(&empty, at(1)).unwrap().text(), " {\"keys\" : [ ] }");
    }

    #[test]
    fn every_entry_stands_as_it_was_published_whatever_goes_or_comes() {
        let text = odd();
        let part = |kid: &str| {
            let set = KeySet::judge(text.as_bytes(), &KeyRules::default()).unwrap();
            let entry = set.ledger().iter().find(|entry| entry.kid() == Some(kid)).unwrap().clone();
            set.text()[entry.place().unwrap()].to_owned()
        };
        assert!(text.contains(&part("a")) && part("a").contains("[1 ,2]"));
        let document = Document::of(&published(&text, &[("old", 3, 60)], &[]), at(1)).unwrap();
        let old = doc(&[("old", 3)]).keys()[0].text().to_owned();
        let want = format!(
            "{{\"x\":0, \"keys\" : [\n {},{},{},{old} ] ,\"more\":\"ü\"}}\n",
            part("a"),
            part("pq"),
            part("b/\r")
        );
        assert_eq!(**document.text(), want);
        assert_eq!(*document.only("b/\r"), format!("{{\"keys\":[{}]}}", part("b/\r")));
        assert_eq!(*document.only("old"), format!("{{\"keys\":[{old}]}}"));
        assert_eq!(&*document.only("s"), "{\"keys\":[]}");
        assert!(document.names("pq") && document.keys("pq").next().is_none());
        assert_eq!(document.keys("a").count(), 1);
    }

    #[test]
    fn what_is_denied_is_left_out_by_kid_and_by_material() {
        // What is denied, the kids that are left; `a` and `b` are the same material.
        let table: [(&[&str], &[&str]); 5] = [
            (&[], &["a", "pq", "b/\r", "old"]),
            (&["pq"], &["a", "b/\r", "old"]),
            (&["a"], &["pq", "old"]),
            (&["old"], &["a", "pq", "b/\r"]),
            (&["a", "pq", "old"], &[]),
        ];
        for (denied, left) in table {
            let document = Document::of(&published(&odd(), &[("old", 3, 60)], denied), at(1)).unwrap();
            assert_eq!(kids(document.text()), left, "{denied:?}");
        }
    }

    #[test]
    fn a_denied_key_does_not_come_back_in_an_entry_that_strict_readers_refuse() {
        let good = doc(&[("good", 1)]).keys()[0].text().to_owned();
        let of_x = format!(r#""kty":"OKP","crv":"Ed25519","x":"{X}""#);
        for entry in [
            format!(r#"{{"kid":"other","alg":"RS256",{of_x}}}"#),
            format!(r#"{{"kid":"other","kid":"bad",{of_x}}}"#),
            format!(r#"{{"kid":["bad"],{of_x}}}"#),
            format!(r#"{{"kid":"{}",{of_x}}}"#, "b".repeat(2_000)),
            format!(r#"{{"kid":"bad","use":7,{of_x}}}"#),
        ] {
            let text = format!(r#"{{"keys":[{good},{entry}]}}"#);
            let whole = Document::of(&published(&text, &[], &[]), at(1)).unwrap();
            assert_eq!(**whole.text(), text);
            let set = KeySet::judge(
                format!("{{\"keys\":[{{\"kid\":\"bad\",{of_x}}}]}}").as_bytes(),
                &KeyRules::default(),
            );
            let thumbprint = set.unwrap().keys()[0].thumbprint().to_string();
            let less = Document::of(&published(&text, &[], &["bad", &thumbprint]), at(1)).unwrap();
            assert_eq!(kids(less.text()), ["good"], "{entry}");
        }
    }

    #[test]
    fn a_retiring_key_is_there_while_it_may_be_found_and_no_longer() {
        let document = |now| {
            let retiring = [("old", 3, 60), ("a", 4, 90), ("older", 5, 40), ("old", 6, 90)];
            Document::of(&published(&odd(), &retiring, &[]), at(now)).unwrap()
        };
        // A published `a` decides about `a`; of two under one kid the latest counts.
        assert_eq!(kids(document(1).text()), ["a", "pq", "b/\r", "old", "older"]);
        assert_eq!(document(1).until(), Some(at(40)));
        assert_eq!(kids(document(40).text()), ["a", "pq", "b/\r", "old"]);
        assert_eq!(document(40).until(), Some(at(60)));
        assert_eq!(document(90).until(), None);
    }
}
