//! A provider as the world sees it: what it publishes, how it rotates, what it promises in its headers.
//! It does not know who caches it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, header};

use super::chance::Chance;
use super::document::{Document, Kid, Published, Use, material};
use super::fault::{FAULTS, Fault};

#[derive(Debug)]
pub(super) struct Origin {
    pub(super) slot: usize,
    /// Its place in the line of sources that the registration has had.
    pub(super) source: u64,
    pub(super) document: Arc<Document>,
    /// What it published before.
    pub(super) before: Arc<Document>,
    pub(super) promise: Promise,
    /// What is wrong with it, until when (policy time since the start).
    pub(super) fault: Option<(&'static Fault, Duration)>,
    documents: u64,
}

/// What a response's headers say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Promise {
    /// `max-age`; `Err` is a text that is no number.
    pub(super) max_age: Option<Result<u64, &'static str>>,
    pub(super) stale_if_error: Option<u64>,
    pub(super) must_revalidate: bool,
    pub(super) no_store: bool,
    pub(super) age: u64,
    pub(super) date: Option<DateTime<Utc>>,
}

impl Promise {
    pub(super) fn headers(&self, document: &Document) -> HeaderMap {
        // Never empty: a 304 without the field would leave the last one standing.
        let mut control = String::from("public");
        match self.max_age {
            Some(Ok(seconds)) => control += &format!(", max-age={seconds}"),
            Some(Err(text)) => control += &format!(", max-age={text}"),
            None => {}
        }
        if let Some(seconds) = self.stale_if_error {
            control += &format!(", stale-if-error={seconds}");
        }
        if self.must_revalidate {
            control += ", must-revalidate";
        }
        if self.no_store {
            control += ", No-Store";
        }
        let mut headers = HeaderMap::new();
        let mut put = |name, value: String| {
            headers.insert(name, HeaderValue::from_str(&value).expect("no control characters"));
        };
        put(header::CACHE_CONTROL, control);
        put(header::ETAG, etag(document));
        put(header::AGE, self.age.to_string());
        if let Some(date) = self.date {
            put(header::DATE, date.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        }
        headers
    }
}

pub(super) fn etag(document: &Document) -> String {
    format!("\"{}\"", document.number)
}

impl Origin {
    pub(super) fn new(slot: usize, source: u64, chance: &mut Chance) -> Self {
        let mut new = Self {
            slot,
            source,
            document: Arc::default(),
            before: Arc::default(),
            promise: Promise::default(),
            fault: None,
            documents: 0,
        };
        new.publish((0..2).map(|kid| Published::new(kid, material(slot, source, kid))).collect());
        new.before = new.document.clone();
        new.promise_anew(chance);
        new
    }

    /// A document with the next number, not published.
    pub(super) fn draw_up(&mut self, keys: Vec<Published>) -> Arc<Document> {
        self.documents += 1;
        // A number that no other source of this provider uses, so that an ETag of one means nothing to another.
        Arc::new(Document { number: self.source * 1_000_000 + self.documents, keys })
    }

    /// Publishes these, if any of them verifies: that none does is a fault.
    pub(super) fn publish(&mut self, keys: Vec<Published>) {
        if keys.iter().all(|key| key.good_for != Use::Signature) {
            return;
        }
        let next = self.draw_up(keys);
        self.before = std::mem::replace(&mut self.document, next);
    }

    /// Another lifetime, from 30 s to 24 h, in one of the ways that providers say it.
    pub(super) fn promise_anew(&mut self, chance: &mut Chance) {
        self.promise = Promise {
            max_age: (!chance.percent(5)).then(|| Ok(chance.seconds(30, 86_400))),
            stale_if_error: chance.percent(25).then(|| chance.seconds(60, 100_000)),
            must_revalidate: chance.percent(20),
            no_store: chance.percent(3),
            age: 0,
            date: None,
        };
    }

    /// A new key, under the next kid that is free.
    pub(super) fn add_key(&mut self) {
        let mut keys = self.document.keys.clone();
        let last = keys.last().map_or(0, |key| key.kid);
        let free = (1..8).map(|step| (last + step) % 8).find(|kid| !self.document.mentions(*kid));
        if let Some(kid) = free {
            keys.push(Published::new(kid, material(self.slot, self.source, kid)));
        }
        if keys.len() > 4 {
            keys.remove(0);
        }
        self.publish(keys);
    }

    /// Three keys under kids that were free.
    pub(super) fn start_over(&mut self) {
        let last = self.document.keys.last().map_or(0, |key| key.kid);
        let free = (1..8).map(|step| (last + step) % 8).filter(|kid| !self.document.mentions(*kid));
        let keys = free.take(3).map(|kid| Published::new(kid, material(self.slot, self.source, kid)));
        let keys = keys.collect();
        self.publish(keys);
    }

    /// The oldest key leaves, if one that verifies stays.
    pub(super) fn drop_key(&mut self) {
        let mut keys = self.document.keys.clone();
        keys.remove(0);
        self.publish(keys);
    }

    /// New material under the newest kid.
    pub(super) fn swap_material(&mut self) {
        let mut keys = self.document.keys.clone();
        if let Some(key) = keys.last_mut() {
            key.material = self.other_material(key.kid);
        }
        self.publish(keys);
    }

    /// Back to what was published before, as large providers do.
    pub(super) fn flap(&mut self) {
        let back = self.before.keys.clone();
        self.publish(back);
    }

    /// An encryption key comes or goes.
    pub(super) fn mix_in_encryption(&mut self) {
        let mut keys = self.document.keys.clone();
        let had = keys.len();
        keys.retain(|key| key.good_for != Use::Encryption);
        if keys.len() == had && !self.document.mentions(7) {
            let material = material(self.slot, self.source, 7);
            keys.push(Published { good_for: Use::Encryption, ..Published::new(7, material) });
        }
        self.publish(keys);
    }

    /// Material of this source that usually stands under another kid.
    pub(super) fn other_material(&self, kid: Kid) -> usize {
        material(self.slot, self.source, kid + 3)
    }

    /// Something goes wrong for a while.
    pub(super) fn break_down(&mut self, now: Duration, chance: &mut Chance) {
        let fault = &FAULTS[chance.index(FAULTS.len())];
        self.fault = Some((fault, now + Duration::from_secs(chance.seconds(5, 40_000))));
    }
}
