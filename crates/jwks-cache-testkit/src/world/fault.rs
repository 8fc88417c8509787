//! What can be wrong with a provider: one row each. A row turns the sound answer to one request into
//! what comes instead; all else (when it strikes, for how long, what must hold) follows by itself.
//!
//! To add a kind, add a row. The run fails until some seed has met it.

use std::sync::Arc;
use std::time::Duration;

use super::chance::Chance;
use super::document::{Document, Published, Use, material};
use super::origin::{Origin, Promise};

/// The sound answer, to be spoiled.
pub(super) struct Exchange<'a> {
    pub(super) origin: &'a mut Origin,
    pub(super) chance: &'a mut Chance,
    /// The request says `Cache-Control: no-cache`.
    pub(super) bypasses_caches: bool,
    /// The request is conditional.
    pub(super) conditional: bool,
    /// How long until the answer is here.
    pub(super) delay: Duration,
    pub(super) promise: Promise,
    pub(super) reply: Reply,
}

pub(super) enum Reply {
    /// 200 with a document, or 304 if the request has its tag.
    Document(Arc<Document>),
    /// 304, whatever the request has.
    NotModified,
    /// 200 with something that is refused whole.
    Rubbish(String),
    /// No document.
    Failure { reason: &'static str, status: Option<u16>, retryable: bool, retry_after: Option<Duration> },
    /// Nothing, ever.
    Silence,
}

pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) spoil: fn(&mut Exchange<'_>),
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

pub(super) const FAULTS: &[Fault] = &[
    Fault { name: "refused", spoil: |it| it.fail("connect", None, true) },
    Fault { name: "dns", spoil: |it| it.fail("dns", None, true) },
    Fault { name: "tls", spoil: |it| it.fail("tls", None, false) },
    Fault {
        name: "reset",
        spoil: |it| {
            it.delay = it.chance.millis(10, 2_000);
            it.fail("reset", None, true);
        },
    },
    Fault { name: "500", spoil: |it| it.fail("status", Some(500), true) },
    Fault { name: "404", spoil: |it| it.fail("status", Some(404), false) },
    Fault {
        name: "429, retry soon",
        spoil: |it| {
            let wait = it.chance.millis(0, 4_000);
            it.fail_and_ask("status", 429, wait);
        },
    },
    Fault {
        name: "503, retry tomorrow",
        spoil: |it| it.fail_and_ask("status", 503, Duration::from_secs(86_400)),
    },
    Fault {
        name: "flaky",
        spoil: |it| {
            if it.chance.percent(50) {
                it.fail("reset", None, true);
            }
        },
    },
    Fault { name: "slow", spoil: |it| it.delay = it.chance.millis(500, 2_900) },
    Fault { name: "too slow", spoil: |it| it.delay = it.chance.millis(2_900, 20_000) },
    Fault { name: "hangs", spoil: |it| it.reply = Reply::Silence },
    Fault { name: "a web page", spoil: |it| it.rubbish("<!DOCTYPE html><title>Sign in</title>") },
    Fault {
        name: "cut off",
        spoil: |it| {
            let body = it.origin.document.body();
            it.rubbish(&body[..body.len() / 2]);
        },
    },
    Fault { name: "an error in JSON", spoil: |it| it.rubbish("{\"error\":\"try later\"}") },
    Fault {
        name: "too many keys",
        spoil: |it| it.rubbish(&format!("{{\"keys\":[{}{{}}]}}", "{},".repeat(64))),
    },
    Fault {
        name: "no key well-formed",
        spoil: |it| it.rubbish("{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}"),
    },
    Fault { name: "an empty set", spoil: |it| it.keys(|_| Vec::new()) },
    Fault { name: "encryption keys only", spoil: |it| it.keys(|origin| used_for(origin, Use::Encryption)) },
    Fault {
        name: "a leaked private key",
        spoil: |it| {
            it.keys(|origin| {
                let mut keys = origin.document.keys.clone();
                keys[0].good_for = Use::Leaked;
                // Something must be well-formed, or the whole document is refused.
                let (kid, other) = ((keys[0].kid + 1) % 8, origin.other_material(keys[0].kid));
                keys.retain(|key| key.kid != kid);
                keys.push(Published::new(kid, other));
                keys
            });
        },
    },
    Fault {
        name: "two keys of one kid",
        spoil: |it| {
            it.keys(|origin| {
                let mut keys = origin.document.keys.clone();
                let last = keys.len() - 1;
                let twin = Published { material: origin.other_material(keys[last].kid), ..keys[last] };
                if twin.material != keys[last].material {
                    keys[last].good_for = Use::Twin;
                    keys.push(Published { good_for: Use::Twin, ..twin });
                }
                keys
            });
        },
    },
    Fault {
        name: "quite other keys",
        spoil: |it| {
            it.keys(|origin| {
                let other = |kid| Published::new(kid, material(origin.slot, origin.source, kid + 5));
                (0..3).map(other).collect()
            });
        },
    },
    Fault { name: "lost keys", spoil: |it| it.keys(|origin| origin.document.keys[..1].to_vec()) },
    Fault {
        name: "an old document of a CDN",
        spoil: |it| {
            if !it.bypasses_caches {
                it.reply = Reply::Document(it.origin.before.clone());
                it.promise.age = it.chance.seconds(1, 5_000);
            }
        },
    },
    Fault {
        name: "304 for another document",
        spoil: |it| {
            if it.conditional {
                it.reply = Reply::NotModified;
            }
        },
    },
    Fault { name: "max-age of a century", spoil: |it| it.promise.max_age = Some(Ok(3_153_600_000)) },
    Fault { name: "max-age of nothing", spoil: |it| it.promise.max_age = Some(Ok(0)) },
    Fault { name: "max-age that is no number", spoil: |it| it.promise.max_age = Some(Err("soon")) },
    Fault { name: "an absurd age", spoil: |it| it.promise.age = u64::from(u32::MAX) },
    Fault {
        name: "a wrong date",
        spoil: |it| {
            let off = chrono::TimeDelta::seconds(86_400 * it.chance.pick(&[-4_000, -1, 1, 4_000]));
            it.promise.date = it.promise.date.map(|date| date + off);
        },
    },
];

fn used_for(origin: &Origin, good_for: Use) -> Vec<Published> {
    origin.document.keys.iter().map(|key| Published { good_for, ..*key }).collect()
}

impl Exchange<'_> {
    fn fail(&mut self, reason: &'static str, status: Option<u16>, retryable: bool) {
        self.reply = Reply::Failure { reason, status, retryable, retry_after: None };
    }

    fn fail_and_ask(&mut self, reason: &'static str, status: u16, wait: Duration) {
        self.reply =
            Reply::Failure { reason, status: Some(status), retryable: true, retry_after: Some(wait) };
    }

    fn rubbish(&mut self, body: &str) {
        self.reply = Reply::Rubbish(body.into());
    }

    fn keys(&mut self, keys: impl FnOnce(&Origin) -> Vec<Published>) {
        let keys = keys(self.origin);
        self.reply = Reply::Document(self.origin.draw_up(keys));
    }
}
