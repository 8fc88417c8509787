//! Random lives of one provider: after every step the state machine and the contract of `contract.rs` must
//! agree on all that a reader, an operator or a timer can see. `PROPTEST_CASES` sets how many (default 20,000).
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test may fail by panicking")]

mod contract;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use contract::{Contract, Entry, Held, Kind, Said, Told};
use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL, ETAG};
use jwks_cache_core::freshness::{StaleUse, StoredHeaders, Timing};
use jwks_cache_core::key::Key;
use jwks_cache_core::keyset::{KeyRules, KeySet, Refusal};
use jwks_cache_core::lifecycle::{Answer, Asker, Change, Lifecycle, Outcome, Stored};
use jwks_cache_core::policy::{JitterStrategy, Policy, RefreshMode, Retry};
use jwks_cache_core::{Algorithm, AlgorithmSet, Moment};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

const START: Moment = Moment::from_nanos(10_000_000_000_000_000);
const KIDS: [&str; 4] = ["a", "b", "c", "d"];
const MATERIALS: u8 = 5;

/// One step of a life; what chance decides in it is in `draw`.
#[derive(Clone, Debug)]
struct Step {
    what: What,
    draw: f64,
}

#[derive(Clone, Debug)]
enum What {
    Pass(Duration),
    /// On to a moment at which something changes, a nanosecond before or after it.
    PassTo(Edge, i8),
    Ask(Asker),
    /// The flight, started by this asker if none runs, ends with a document.
    Bring(Asker, Vec<Entry>, Said),
    /// … with a 304, that may carry `Cache-Control`.
    Confirm(Asker, Option<Said>, u64),
    /// … with nothing.
    Fail(Asker, Option<Duration>),
    /// A flight before the running one ends.
    Late(Vec<Entry>),
    /// The flight's task goes away.
    Abandon,
    Deny(Id),
    Allow(Id),
    Reconfigure(Box<Policy>),
    Forget(Box<Policy>),
    Restore {
        entries: Vec<Entry>,
        age: Duration,
        lifetime: Duration,
    },
}

#[derive(Clone, Copy, Debug)]
enum Edge {
    Refresh,
    Expiry,
    End,
    Backoff,
    Timer,
    Error,
    MissingKid,
    Requested,
    Failing,
    Grace,
}

#[derive(Clone, Copy, Debug)]
enum Id {
    Kid(&'static str),
    Material(u8),
}

/// The state machine and the contract, side by side.
struct Life {
    it: Lifecycle,
    contract: Contract,
    now: Moment,
    draw: f64,
    number: u64,
}

impl Life {
    fn new(policy: Policy) -> Self {
        let it = Lifecycle::new(Arc::new(policy.clone()));
        Self { it, contract: Contract::new(policy), now: START, draw: 0.0, number: 0 }
    }

    fn step(&mut self, step: &Step) {
        self.draw = step.draw;
        match &step.what {
            What::Pass(time) => self.now = self.now + *time,
            What::PassTo(edge, aside) => self.pass_to(*edge, *aside),
            What::Ask(asker) => self.ask(*asker),
            What::Bring(asker, entries, said) => self.bring(*asker, entries, said),
            What::Confirm(asker, said, age) => self.confirm(*asker, said.as_ref(), *age),
            What::Fail(asker, retry_after) => {
                if self.flies(*asker) {
                    self.fail(*retry_after);
                }
            }
            What::Late(entries) => {
                let late = self.document(entries, &Said::default(), self.now);
                if let (Some(outcome), Some(number)) = (late, self.number.checked_sub(1)) {
                    assert!(matches!(self.land(number, outcome), Change::Ignored));
                }
            }
            What::Abandon => {
                self.it.abandon(self.number);
                if self.contract.flight.take().is_some()
                    && self.contract.policy.refresh_mode == RefreshMode::Always
                {
                    assert!(self.it.wake_at().is_some(), "the timer goes on");
                }
            }
            What::Deny(id) => {
                let (text, material) = id.named();
                let new = !self.contract.denied.contains_key(&text);
                assert_eq!(self.it.deny(&text), new);
                self.contract.deny(&text, material);
            }
            What::Allow(id) => {
                let (text, _) = id.named();
                assert_eq!(self.it.allow(&text), self.contract.denied.remove(&text).is_some());
            }
            What::Reconfigure(policy) => self.reconfigure(policy),
            What::Forget(policy) => {
                self.it.forget(Arc::new(Policy::clone(policy)), self.now);
                self.contract.forget(Policy::clone(policy));
            }
            What::Restore { entries, age, lifetime } => self.restore(entries, *age, *lifetime),
        }
        self.agree();
    }

    fn pass_to(&mut self, edge: Edge, aside: i8) {
        let contract = &self.contract;
        let held = contract.held.as_ref();
        let to = match edge {
            Edge::Refresh => held.map(|held| held.refresh_at),
            Edge::Expiry => held.map(|held| contract.expires_at(held)),
            Edge::End => held.map(|held| contract.servable_until(held)),
            Edge::Backoff => Some(contract.backoff_until),
            Edge::Timer => self.it.wake_at(),
            Edge::Error => Some(contract.error_until),
            Edge::MissingKid => contract.last_kid_start.map(|at| at + contract.policy.kid_miss_interval),
            Edge::Requested => contract.last_start.map(|at| at + Duration::from_secs(1)),
            Edge::Failing => contract.failed_at.map(|at| at + Duration::from_secs(600)),
            Edge::Grace => contract.left.first().map(|left| contract.left_until(left)),
        };
        let nano = Duration::from_nanos(1);
        let to = to.map(|to| match aside {
            0 => to,
            1.. => to + nano,
            _ => to - nano,
        });
        self.now = self.now.max(to.unwrap_or(self.now));
    }

    fn ask(&mut self, asker: Asker) {
        let told = self.contract.ask(asker, self.now, self.it.wake_at());
        let answer = self.it.ask(asker, self.now);
        let got = match &answer {
            Answer::Start(plan) => {
                assert_eq!((plan.asker, plan.bypasses_caches()), (asker, asker == Asker::MissingKid));
                assert!(plan.number > self.number, "flights are numbered");
                self.number = plan.number;
                Told::Start {
                    attempts: plan.attempts,
                    after_failure: plan.after_failure,
                    cold: plan.cold,
                    conditional: !plan.validators.is_empty(),
                }
            }
            Answer::Flying => Told::Flying,
            Answer::NotBefore(at) => Told::NotBefore(*at),
            Answer::Quiet => Told::Quiet,
        };
        assert_eq!(got, told, "{asker:?} asked");
    }

    /// Whether a flight runs, for this asker if none did.
    fn flies(&mut self, asker: Asker) -> bool {
        if self.contract.flight.is_none() {
            self.ask(asker);
        }
        self.contract.flight.is_some()
    }

    fn land(&mut self, number: u64, outcome: Outcome) -> Change {
        let draw = self.draw;
        self.it.land(number, outcome, self.now, &mut move || draw)
    }

    fn timing(&self, began: Moment) -> Timing {
        Timing { requested_at: began, received_at: self.now, received_wall: DateTime::UNIX_EPOCH }
    }

    /// The document, if it can be taken as a whole.
    fn document(&self, entries: &[Entry], said: &Said, began: Moment) -> Option<Outcome> {
        let judged = judged(entries, &self.contract.policy.key_rules());
        assert_eq!(judged.is_ok(), self.contract.takes(entries), "{entries:?}: {judged:?}");
        let headers = StoredHeaders::from_response(&headers_of(said, true));
        Some(Outcome::Document { set: judged.ok()?, headers, timing: self.timing(began) })
    }

    fn bring(&mut self, asker: Asker, entries: &[Entry], said: &Said) {
        if !self.flies(asker) {
            return;
        }
        let began = self.contract.flight.unwrap().began;
        let Some(outcome) = self.document(entries, said, began) else { return self.fail(None) };
        if !self.contract.may_adopt(entries, self.now) {
            let before = self.contract.clone();
            let range = self.contract.failed(None, self.now);
            let change = self.land(self.number, outcome);
            assert!(matches!(change, Change::Refused(Refusal::NothingUsable)), "{change:?}");
            return self.waits(&before, range);
        }
        let (cold, was_failing) =
            (self.contract.servable(self.now).is_none(), self.contract.failed_at.is_some());
        match self.land(self.number, outcome) {
            Change::Superseded { recovered } if self.contract.holds_later() => {
                assert_eq!(recovered, was_failing);
                assert!(
                    self.it.wake_at().is_some() || self.contract.policy.refresh_mode == RefreshMode::OnDemand
                );
                return self.contract.superseded();
            }
            Change::Adopted { recovered, .. } if !self.contract.holds_later() => {
                assert_eq!(recovered, was_failing);
            }
            other => panic!("{other:?}"),
        }
        self.contract.brought(entries.to_vec(), said.clone(), self.now, self.it.held().unwrap().refresh_at);
        self.renewed(cold);
    }

    fn confirm(&mut self, asker: Asker, said: Option<&Said>, age: u64) {
        if !self.flies(asker) {
            return;
        }
        let flight = self.contract.flight.unwrap();
        if !self.contract.confirms() && flight.about.is_none() {
            return self.fail(None); // whoever fetches refuses a 304 that nobody asked for
        }
        let carried = Said { age, ..said.cloned().unwrap_or_default() };
        let headers = headers_of(&carried, said.is_some());
        let outcome = Outcome::NotModified { headers, timing: self.timing(flight.began) };
        if !self.contract.confirms() {
            let before = self.contract.clone();
            let range = self.contract.failed(None, self.now);
            assert!(
                matches!(self.land(self.number, outcome), Change::Failed),
                "another document was confirmed"
            );
            return self.waits(&before, range);
        }
        let (cold, was_failing) =
            (self.contract.servable(self.now).is_none(), self.contract.failed_at.is_some());
        match self.land(self.number, outcome) {
            Change::Renewed { recovered } => assert_eq!(recovered, was_failing),
            other => panic!("{other:?}"),
        }
        self.contract.confirmed(said.cloned(), age, self.now, self.it.held().unwrap().refresh_at);
        self.renewed(cold);
    }

    fn fail(&mut self, retry_after: Option<Duration>) {
        let before = self.contract.clone();
        let range = self.contract.failed(retry_after, self.now);
        let change = self.land(self.number, Outcome::Failed { retry_after });
        assert!(matches!(change, Change::Failed), "{change:?}");
        self.waits(&before, range);
    }

    /// After a failure: what is held stays as it was, and the wait was drawn where it may be.
    fn waits(&mut self, before: &Contract, range: RangeInclusive<Moment>) {
        let got = self.it.published().backoff_until;
        let now = self.now;
        // A moment that has passed and now are the same: no wait.
        self.drawn(
            got.max(now),
            &(*range.start().max(&now)..=*range.end().max(&now)),
            "the wait after a failure",
        );
        self.contract.backoff_until = got;
        let mode = self.contract.policy.refresh_mode;
        assert_eq!(
            self.it.published().standing(now) as u8 / 4,
            before.standing(now) as u8 / 4,
            "servable stays so"
        );
        let servable = self.contract.servable(now).is_some();
        match self.it.wake_at() {
            None => assert!(mode == RefreshMode::OnDemand || (mode == RefreshMode::WhileInUse && !servable)),
            Some(at) => {
                let due = self.contract.held.as_ref().map_or(now, |held| held.refresh_at);
                assert!(mode != RefreshMode::OnDemand && at >= got.max(now), "the timer heeds the backoff");
                assert!(at <= got.max(due).max(now + Duration::from_secs(10)), "the timer is not forgotten");
            }
        }
    }

    fn drawn(&self, at: Moment, range: &RangeInclusive<Moment>, what: &str) {
        assert!(range.contains(&at), "{what}: {at:?} is not in {range:?}");
    }

    /// After a success: when the next refresh is due, and when the timer wakes.
    fn renewed(&self, cold: bool) {
        let held = self.contract.held.as_ref().unwrap();
        let policy = &self.contract.policy;
        let range = self.contract.refresh_range(held);
        self.drawn(held.refresh_at, &range, "the refresh");
        let span = self.contract.expires_at(held).min(held.at + self.contract.trust_age()).since(held.at);
        let Some(wake) = self.it.wake_at() else {
            return assert_eq!(policy.refresh_mode, RefreshMode::OnDemand, "a timer is set");
        };
        assert_ne!(policy.refresh_mode, RefreshMode::OnDemand);
        if span < policy.min_ttl {
            // Only under `http_strict`: the timer goes by the least lifetime that it would have had.
            let soonest = held.at + policy.min_ttl / 8;
            assert!((soonest..=held.at + policy.min_ttl).contains(&wake), "{wake:?} spins or sleeps");
        } else if cold {
            assert!((held.at + span / 4..=held.refresh_at.max(held.at + span / 4)).contains(&wake));
        } else {
            assert_eq!(wake, held.refresh_at, "later ones keep to refresh_at");
        }
    }

    fn reconfigure(&mut self, policy: &Policy) {
        let (rules, draw) = (policy.key_rules(), self.draw);
        let judge = |set: &Arc<KeySet>| KeySet::judge(set.text().as_bytes(), &rules).ok().map(Arc::new);
        let flew = self.contract.flight.is_some();
        self.it.reconfigure(Arc::new(policy.clone()), judge, self.now, &mut move || draw);
        self.contract.reconfigure(policy.clone(), self.now);
        if let (Some(held), Some(of)) = (self.it.held(), &mut self.contract.held) {
            of.refresh_at = held.refresh_at;
            let range = self.contract.refresh_range(self.contract.held.as_ref().unwrap());
            self.drawn(held.refresh_at, &range, "the refresh under other settings");
        }
        if flew && policy.refresh_mode == RefreshMode::Always {
            assert!(self.it.wake_at().is_some(), "the flight that was given up is made up for");
        }
    }

    /// A store offers what it kept; whoever asks for it has judged that it may be adopted.
    fn restore(&mut self, entries: &[Entry], age: Duration, lifetime: Duration) {
        let kept: Vec<Entry> = entries.iter().filter(|entry| entry.kind != Kind::Leaked).copied().collect();
        let Ok(set) = judged(&kept, &self.contract.policy.key_rules()) else { return };
        if !self.contract.may_adopt(&kept, self.now) {
            return;
        }
        let (at, now, draw) = (self.now - age, self.now, self.draw);
        let mut headers = StoredHeaders::from_validators(Some("\"kept\""), None);
        let seconds = lifetime.as_secs() * 2;
        let said = match age.as_secs() % 4 {
            0 => Said { must_revalidate: true, ..Said::default() },
            1 => Said::default(),
            2 => Said { stale_if_error: Some(seconds), ..Said::default() },
            // Nobody knows what it said: to the letter, that is nothing good.
            _ => Said { must_revalidate: true, ..Said::default() },
        };
        match age.as_secs() % 4 {
            0 => headers = headers.with_stale_use(StaleUse::Forbidden),
            1 => headers = headers.with_stale_use(StaleUse::For(0)),
            2 => headers = headers.with_stale_use(StaleUse::For(seconds)),
            _ => {}
        }
        let snapshot = Stored {
            set,
            headers,
            age,
            transit: Duration::ZERO,
            lifetime,
            received_wall: DateTime::UNIX_EPOCH,
            retiring: Vec::new(),
            trusted: false,
        };
        let taken = self.it.restore(snapshot, now, &mut move || draw);
        let refresh_at = self.it.held().map_or(now, |held| held.refresh_at);
        let stored = Held {
            entries: kept,
            said: Said { etag: true, ..said },
            at,
            transit: Duration::ZERO,
            stored: Some(lifetime),
            refresh_at,
        };
        assert_eq!(taken, self.contract.restore(stored, now), "a snapshot of {age:?} ago");
        if taken {
            let soon = now + self.contract.policy.prefetch_jitter;
            assert!(refresh_at <= soon, "a refresh follows soon");
            if self.contract.flight.is_none() && self.contract.policy.refresh_mode != RefreshMode::OnDemand {
                let wake = self.it.wake_at().expect("a timer");
                assert!((now..=soon).contains(&wake), "the timers of many part, though all are due");
            }
        }
    }

    /// Compares all that can be seen.
    fn agree(&self) {
        let (now, contract) = (self.now, &self.contract);
        let published = self.it.published();
        assert_eq!(published.standing(now), contract.standing(now), "standing");
        assert_eq!(self.it.failures(), contract.failures, "failures");
        assert_eq!(published.failed_at, contract.failed_at, "failed_at");
        assert_eq!(published.backoff_until, contract.backoff_until, "backoff_until");
        assert_eq!(self.it.error_answers_until(), contract.backoff_until.max(contract.error_until), "error");
        let times = |held: &Held| {
            (held.at, contract.expires_at(held), contract.servable_until(held), held.refresh_at)
        };
        let seen = self.it.held();
        let seen = seen.map(|seen| (seen.received_at, seen.expires_at, seen.servable_until, seen.refresh_at));
        assert_eq!(seen, contract.held.as_ref().map(times), "received, expires, servable until, refresh at");

        let name = |key: &Key| (key.kid().map(str::to_owned), key.thumbprint().to_string());
        let expected = |entry: &Entry| (entry.kid.map(str::to_owned), thumbprint(entry.material));
        let served: Vec<_> = published.keys().iter().map(name).collect();
        assert_eq!(served, contract.served().iter().map(expected).collect::<Vec<_>>(), "served");
        let handed_out = serde_json::to_value(&**published.jwks()).unwrap();
        let handed_out: Vec<_> = handed_out["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|jwk| (jwk.get("kid"), &jwk["x"]))
            .map(|(kid, x)| (kid.map(ToString::to_string), x.to_string()))
            .collect();
        let wanted = |entry: &Entry| {
            (entry.kid.map(|kid| json!(kid).to_string()), POOL[usize::from(entry.material)]["x"].to_string())
        };
        assert_eq!(
            handed_out,
            contract.served().iter().map(wanted).collect::<Vec<_>>(),
            "what resolve hands out"
        );
        let alive = published.retiring.iter().filter(|old| now < old.until);
        let retiring: Vec<_> = alive.map(|old| name(&old.key)).collect();
        assert_eq!(retiring, contract.retiring(now).iter().map(expected).collect::<Vec<_>>(), "retiring");
        assert_eq!(published.has_usable_keys(now), contract.ready(now), "ready");
        for kid in KIDS.map(Some).into_iter().chain([None]) {
            let found = published.served.find(kid, Algorithm::ES256).map(|key| name(key.key()));
            assert_eq!(found, contract.key(kid).map(|entry| expected(&entry)), "key({kid:?})");
        }
    }
}

impl Id {
    fn named(self) -> (String, Option<u8>) {
        match self {
            Self::Kid(kid) => (kid.to_owned(), None),
            Self::Material(material) => (thumbprint(material), Some(material)),
        }
    }
}

/// The key pool: every material is made once.
static POOL: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let jwk = |_| {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
    };
    (0..MATERIALS).map(jwk).collect()
});

fn thumbprint(material: u8) -> String {
    static THUMBPRINTS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let of = |jwk: &Value| {
            let document = json!({ "keys": [jwk] }).to_string();
            let set = KeySet::judge(document.as_bytes(), &KeyRules::default()).unwrap();
            set.keys()[0].thumbprint().to_string()
        };
        POOL.iter().map(of).collect()
    });
    THUMBPRINTS[usize::from(material)].clone()
}

/// Judging is not what is tested here, so each document is judged once.
fn judged(entries: &[Entry], rules: &KeyRules) -> Result<Arc<KeySet>, Refusal> {
    type Known = HashMap<(Vec<Entry>, String), Result<Arc<KeySet>, Refusal>>;
    thread_local!(static KNOWN: RefCell<Known> = RefCell::default());
    let judge = || {
        let jwk = |entry: &Entry| {
            let mut jwk = POOL[usize::from(entry.material)].clone();
            jwk["use"] = if entry.kind == Kind::Encrypts { "enc" } else { "sig" }.into();
            if let Some(kid) = entry.kid {
                jwk["kid"] = kid.into();
            }
            if entry.kind == Kind::Leaked {
                jwk["d"] = URL_SAFE_NO_PAD.encode([7; 32]).into();
            }
            jwk
        };
        let document = json!({ "keys": entries.iter().map(jwk).collect::<Vec<_>>() }).to_string();
        KeySet::judge(document.as_bytes(), rules).map(Arc::new)
    };
    KNOWN.with_borrow_mut(|known| {
        known.entry((entries.to_vec(), format!("{rules:?}"))).or_insert_with(judge).clone()
    })
}

fn headers_of(said: &Said, directives: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut line = Vec::new();
    line.extend(said.max_age.map(|seconds| format!("max-age={seconds}")));
    line.extend(said.stale_if_error.map(|seconds| format!("stale-if-error={seconds}")));
    line.extend(said.must_revalidate.then(|| "must-revalidate".to_owned()));
    line.extend(said.no_cache.then(|| "no-cache".to_owned()));
    if directives {
        headers.insert(CACHE_CONTROL, line.join(", ").parse().unwrap());
    }
    if said.age > 0 {
        headers.insert(AGE, said.age.into());
    }
    if said.etag {
        headers.insert(ETAG, "\"v\"".parse().unwrap());
    }
    headers
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let kid = prop_oneof![8 => prop::sample::select(&KIDS[..]).prop_map(Some), 1 => Just(None)];
    let kind = prop_oneof![8 => Just(Kind::Signs), 1 => Just(Kind::Encrypts), 1 => Just(Kind::Leaked)];
    let entry = (kid, 0..MATERIALS, kind).prop_map(|(kid, material, kind)| Entry { kid, material, kind });
    prop::collection::vec(entry, 0..=4)
}

fn said() -> impl Strategy<Value = Said> {
    let max_age = prop::sample::select(vec![None, Some(0), Some(20), Some(300), Some(3_600), Some(200_000)]);
    let age = prop::sample::select(vec![0, 0, 0, 10, 290, 4_000]);
    let stale_if_error = prop::sample::select(vec![None, None, Some(30), Some(7_200), Some(900_000)]);
    let flag = |chance| prop::bool::weighted(chance);
    (max_age, age, stale_if_error, flag(0.15), flag(0.15), flag(0.8)).prop_map(
        |(max_age, age, stale_if_error, must_revalidate, no_cache, etag)| Said {
            max_age,
            age,
            stale_if_error,
            must_revalidate,
            no_cache,
            etag,
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let span = |seconds: &[u64]| prop::sample::select(seconds.to_vec()).prop_map(Duration::from_secs);
    let lifetimes = (span(&[30, 45, 600]), span(&[600, 3_600, 86_400]), span(&[30, 300, 2_000]));
    let refresh = (span(&[1, 30, 500]), span(&[0, 5, 900]), span(&[0, 60, 3_600, 86_400]));
    let trust = prop::option::of(span(&[600, 3_600, 200_000]));
    let others = (span(&[0, 600, 172_800]), span(&[0, 0, 30]), span(&[1, 10]), span(&[1, 60]));
    let modes = [RefreshMode::OnDemand, RefreshMode::WhileInUse, RefreshMode::Always];
    let sets = [AlgorithmSet::ALL, AlgorithmSet::ALL, AlgorithmSet::from_iter([Algorithm::RS256])];
    let choices = (
        prop::sample::select(modes.to_vec()),
        prop::sample::select(sets.to_vec()),
        prop::sample::select(vec![2_u32, 512, 512]),
        prop::bool::weighted(0.2),
    );
    (lifetimes, refresh, trust, others, choices).prop_map(|(lifetimes, refresh, trust, others, choices)| {
        Policy {
            min_ttl: lifetimes.0,
            max_ttl: lifetimes.1,
            default_ttl: lifetimes.2,
            refresh_early: refresh.0,
            fallbacks: Vec::new(),
            prefetch_jitter: refresh.1,
            stale_while_error: refresh.2,
            max_trust_age: trust,
            removal_grace: others.0,
            negative_cache_ttl: others.1,
            kid_miss_interval: others.2,
            refresh_mode: choices.0,
            algorithms: choices.1,
            max_keys: choices.2,
            http_strict: choices.3,
            max_response_bytes: 1 << 20,
            min_rsa_bits: 2048,
            kid_miss_wait: Duration::from_secs(2),
            stale_wait: Duration::from_millis(250),
            max_redirects: 3,
            retry: Retry {
                max_retries: 2,
                attempt_timeout: Duration::from_secs(3),
                initial_backoff: others.3.mul_f64(0.25),
                max_backoff: Duration::from_secs(60),
                deadline: Duration::from_secs(8),
                jitter: JitterStrategy::Full,
            },
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let asker = || {
        prop_oneof![
            3 => Just(Asker::Reader),
            3 => Just(Asker::Person),
            1 => Just(Asker::MissingKid),
            2 => any::<bool>().prop_map(|read| Asker::Timer { read }),
        ]
    };
    let time = prop_oneof![
        3 => (0_u64..5_000).prop_map(Duration::from_millis),
        3 => (0_u64..1_000).prop_map(Duration::from_secs),
        1 => (0_u64..50).prop_map(|hours| Duration::from_secs(hours * 3_600)),
    ];
    let edges = [
        Edge::Refresh,
        Edge::Expiry,
        Edge::End,
        Edge::Backoff,
        Edge::Timer,
        Edge::Error,
        Edge::MissingKid,
        Edge::Requested,
        Edge::Failing,
        Edge::Grace,
    ];
    let id = || {
        prop_oneof![prop::sample::select(&KIDS[..]).prop_map(Id::Kid), (0..MATERIALS).prop_map(Id::Material),]
    };
    let retry_after = prop::sample::select(vec![None, None, Some(0), Some(40), Some(299), Some(86_400)]);
    let age = (0_u64..4_000).prop_map(Duration::from_secs);
    let lifetime = prop::sample::select(vec![1_u64, 30, 3_600, 500_000]).prop_map(Duration::from_secs);
    let what = prop_oneof![
        6 => time.prop_map(What::Pass),
        12 => (prop::sample::select(edges.to_vec()), -1_i8..=1).prop_map(|(edge, aside)| What::PassTo(edge, aside)),
        9 => asker().prop_map(What::Ask),
        12 => (asker(), entries(), said()).prop_map(|(asker, entries, said)| What::Bring(asker, entries, said)),
        5 => (asker(), prop::option::of(said()), prop::sample::select(vec![0_u64, 20]))
            .prop_map(|(asker, said, age)| What::Confirm(asker, said, age)),
        6 => (asker(), retry_after)
            .prop_map(|(asker, wait)| What::Fail(asker, wait.map(Duration::from_secs))),
        1 => entries().prop_map(What::Late),
        1 => Just(What::Abandon),
        2 => id().prop_map(What::Deny),
        2 => id().prop_map(What::Allow),
        2 => policy().prop_map(|policy| What::Reconfigure(Box::new(policy))),
        1 => policy().prop_map(|policy| What::Forget(Box::new(policy))),
        3 => (entries(), age, lifetime)
            .prop_map(|(entries, age, lifetime)| What::Restore { entries, age, lifetime }),
    ];
    (what, 0_u8..=255).prop_map(|(what, draw)| Step { what, draw: f64::from(draw) / 255.0 })
}

#[test]
fn any_life_of_a_provider_is_the_one_that_the_contract_tells() {
    let cases = std::env::var("PROPTEST_CASES").map_or(20_000, |cases| cases.parse().unwrap());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let standings = RefCell::new(BTreeMap::<String, u64>::new());
    let lives = (policy(), prop::collection::vec(step(), 1..40));
    let result = TestRunner::new(config).run(&lives, |(policy, steps)| {
        let mut life = Life::new(policy);
        for step in &steps {
            life.step(step);
            let standing = format!("{:?}", life.it.published().standing(life.now));
            *standings.borrow_mut().entry(standing).or_default() += 1;
        }
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
    println!("{cases} sequences; steps by the standing they led to: {:?}", standings.borrow());
    assert_eq!(standings.borrow().len(), 5, "every standing was reached");
}
