//! Recorded rotations of real providers, replayed: a token of any key between its first and its last sighting
//! must find that key, however often we ask and however the provider's sets flap.
#![allow(clippy::unwrap_used, reason = "a corpus that cannot be read must fail")]

mod corpora;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use corpora::corpora;
use jwks_cache_core::freshness::{StoredHeaders, Timing};
use jwks_cache_core::keyset::{KeyRules, KeySet};
use jwks_cache_core::lifecycle::{Answer, Asker, Lifecycle, Outcome};
use jwks_cache_core::policy::{JitterStrategy, Policy, RefreshMode, Retry};
use jwks_cache_core::published::{Published, Standing};
use jwks_cache_core::{AlgorithmSet, Moment};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const POLLS: [u64; 5] = [MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, 24 * HOUR];
const GRACES: [u64; 3] = [0, 10 * MINUTE, 48 * HOUR];
/// How often a token of each key comes by.
const TOKENS: u64 = 10 * MINUTE;

/// What a provider published, from when, in seconds.
struct Recording {
    versions: Vec<(u64, Arc<KeySet>)>,
    /// By kid: the first version that held it and the last moment at which one was seen to.
    seen: BTreeMap<String, (u64, u64)>,
}

impl Recording {
    fn read(text: &str) -> Self {
        let (mut versions, mut seen) = (Vec::new(), BTreeMap::new());
        for line in text.lines() {
            let version: serde_json::Value = serde_json::from_str(line).unwrap();
            let from = version["t"].as_u64().unwrap();
            let set = KeySet::judge(version["jwks"].to_string().as_bytes(), &KeyRules::default()).unwrap();
            for kid in set.usable().filter_map(|key| key.kid()) {
                seen.entry(kid.to_owned()).or_insert((from, from)).1 = from;
            }
            versions.push((from, Arc::new(set)));
        }
        assert!(versions.is_sorted_by_key(|(from, _)| *from));
        Self { versions, seen }
    }

    fn at(&self, second: u64) -> &Arc<KeySet> {
        let next = self.versions.partition_point(|(from, _)| *from <= second);
        &self.versions[next - 1].1
    }
}

fn policy(poll: u64, grace: u64) -> Policy {
    Policy {
        refresh_early: Duration::from_secs(1),
        // Polled exactly every `poll`, whatever is recorded.
        min_ttl: Duration::from_secs(poll),
        max_ttl: Duration::from_secs(poll),
        default_ttl: Duration::from_secs(poll),
        fallbacks: Vec::new(),
        prefetch_jitter: Duration::ZERO,
        stale_while_error: Duration::from_secs(24 * HOUR),
        max_trust_age: None,
        http_strict: false,
        max_response_bytes: 1 << 20,
        max_keys: 512,
        min_rsa_bits: 2048,
        algorithms: AlgorithmSet::ALL,
        negative_cache_ttl: Duration::ZERO,
        kid_miss_interval: Duration::from_secs(10),
        kid_miss_wait: Duration::from_secs(2),
        removal_grace: Duration::from_secs(grace),
        refresh_mode: RefreshMode::Always,
        stale_wait: Duration::from_millis(250),
        max_redirects: 3,
        retry: Retry {
            max_retries: 2,
            attempt_timeout: Duration::from_secs(3),
            initial_backoff: Duration::from_millis(250),
            max_backoff: Duration::from_secs(2),
            deadline: Duration::from_secs(8),
            jitter: JitterStrategy::Full,
        },
    }
}

fn moment(second: u64) -> Moment {
    Moment::from_nanos(second * 1_000_000_000)
}

/// Whether a token of `kid` finds its key: published, or still within its grace.
fn finds(published: &Published, kid: &str, now: Moment) -> bool {
    published.served.usable().any(|key| key.kid() == Some(kid))
        || published.retiring.iter().any(|old| now < old.until && old.key.kid() == Some(kid))
}

#[derive(Default)]
struct Counted {
    tokens: u64,
    /// Kids called unknown that the provider signs with: neither held nor brought by a fetch.
    unknown: u64,
    /// Fetches that a missing kid caused.
    fetches: u64,
}

/// A provider that is polled every so often, and asked when a kid is missing.
struct Replay<'a> {
    recording: &'a Recording,
    life: Lifecycle,
    published: Published,
}

impl Replay<'_> {
    /// Whether a flight was granted; it brings what was published at that second.
    fn fetch(&mut self, asker: Asker, second: u64) -> bool {
        let now = moment(second);
        let Answer::Start(plan) = self.life.ask(asker, now) else { return false };
        let wall = DateTime::from_timestamp(i64::try_from(second).unwrap(), 0).unwrap();
        let timing = Timing { requested_at: now, received_at: now, received_wall: wall };
        let set = self.recording.at(second).clone();
        let outcome = Outcome::Document { set, headers: StoredHeaders::default(), timing };
        self.life.land(plan.number, outcome, now, &mut || 0.5);
        self.published = self.life.published();
        true
    }
}

/// Polls every `poll` seconds, while tokens of every key come by from its first to its last sighting.
fn replay(recording: &Recording, poll: u64, grace: u64) -> Counted {
    let life = Lifecycle::new(Arc::new(policy(poll, grace)));
    let (first, last) = (recording.versions[0].0, recording.versions.last().unwrap().0);
    let mut counted = Counted::default();
    let mut replay = Replay { recording, published: life.published(), life };
    for second in (first..=last).step_by(usize::try_from(poll.min(TOKENS)).unwrap()) {
        let now = moment(second);
        if (second - first) % poll == 0 {
            assert!(replay.fetch(Asker::Person, second), "nothing holds back a poll");
        }
        if (second - first) % TOKENS != 0 {
            continue;
        }
        assert_ne!(replay.published.standing(now), Standing::Unusable, "at {second}");
        for (kid, _) in recording.seen.iter().filter(|(_, (from, until))| (*from..=*until).contains(&second))
        {
            counted.tokens += 1;
            if !finds(&replay.published, kid, now) {
                counted.fetches += u64::from(replay.fetch(Asker::MissingKid, second));
                counted.unknown += u64::from(!finds(&replay.published, kid, now));
            }
        }
    }
    counted
}

#[test]
fn tokens_of_every_key_find_it_through_every_recorded_flap() {
    let Some(folder) = corpora() else { return };
    println!(
        "{:<22}{:>8}{:>8}{:>10}{:>10}{:>10}",
        "false unknown kids", "poll s", "grace s", "tokens", "unknown", "fetches"
    );
    let mut unknown_by_grace = BTreeMap::<u64, u64>::new();
    let mut files = 0;
    for entry in std::fs::read_dir(folder.join("rotations")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "jsonl") {
            continue;
        }
        files += 1;
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let recording = Recording::read(&std::fs::read_to_string(&path).unwrap());
        for grace in GRACES {
            for poll in POLLS {
                let Counted { tokens, unknown, fetches } = replay(&recording, poll, grace);
                println!("{name:<22}{poll:>8}{grace:>8}{tokens:>10}{unknown:>10}{fetches:>10}");
                assert!(tokens > 0, "{name}: no token came by");
                *unknown_by_grace.entry(grace).or_default() += unknown;
                if grace == 48 * HOUR && poll <= 6 * HOUR {
                    assert_eq!(unknown, 0, "{name}, polled every {poll} s");
                }
            }
        }
    }
    assert!(files > 0, "no recordings");
    assert!(
        unknown_by_grace[&0] > 0,
        "without a grace the recorded flaps cost tokens, or this test sees none"
    );
}
