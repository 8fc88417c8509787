//! What the providers of one source share, whoever's tenants they are: the exchange that runs, what the last one
//! brought, the budget for missing kids, and what the issuer's metadata said.
//!
//! Who asks the same place as the same somebody, by the same rules about where that may lead, gets the same answer:
//! so one asks for all. What a provider makes of it (policy, denials, which kids are missing) is its own.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jwks_cache_core::Moment;
use jwks_cache_core::freshness::{StoredHeaders, Timing, Validators};
use jwks_cache_core::keyset::{KeyRules, KeySet, Refusal};
use tokio::sync::Notify;

use super::discovery::Discovered;
use super::watch::Mark;
use crate::engine::Engine;
use crate::fetch::NotFetched;
use crate::sync::{Mutex, lock};

/// How long one provider's exchange that was of no use answers the others, so that an outage that all of them meet is
/// not met by a request of each; twice as long after each more.
const FAILURE_ANSWERS: Duration = Duration::from_secs(1);
/// The longest that it does: for who has keys to serve, and for who has none. Short beside a provider's own backoff, as who
/// is answered from memory goes back to that: the way back from a fallback may take the sum of both.
const LONGEST: Duration = Duration::from_secs(30);
const LONGEST_WITHOUT_KEYS: Duration = Duration::from_secs(10);
/// The longest that a source's `Retry-After` does.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Shared by the providers of one source.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How many exchanges began.
    began: u64,
    running: Option<Arc<Exchange>>,
    memory: Option<Arc<Memory>>,
    kid_flight_at: Option<Moment>,
    /// Registered providers that share this.
    members: u32,
    /// Exchanges that failed in a row since the metadata was looked up.
    failures: u32,
    rare: Option<Box<Rare>>,
}

/// What most sources never have.
#[derive(Debug, Default)]
struct Rare {
    failed: Option<Remembered>,
    /// Exchanges in a row that were of no use, not counting those that somebody made before the wait was over.
    setbacks: u32,
    /// When the last of them ended.
    setback_at: Moment,
    discovered: Option<Arc<Discovered>>,
    watched: bool,
    /// What was told of the watched file.
    told: Option<Option<Mark>>,
}

impl State {
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

impl Rare {
    /// Until when an exchange that was of no use answers others.
    fn answers_until(&self, cold: bool) -> Moment {
        let longest = if cold { LONGEST_WITHOUT_KEYS } else { LONGEST };
        // Doubled five times it is longer than the longest.
        let times = self.setbacks.saturating_sub(1).min(5);
        self.setback_at + FAILURE_ANSWERS.saturating_mul(1 << times).min(longest)
    }

    fn set_back(&mut self, now: Moment) {
        if self.setbacks == 0 || now >= self.answers_until(false) {
            self.setbacks = self.setbacks.saturating_add(1);
        }
        self.setback_at = now;
    }
}

/// What the last exchange brought: one set for all, in the form in which most want it.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) number: u64,
    /// Whose exchange it was.
    of: u64,
    /// Whether caches on the way were told to ask the origin.
    bypassed_caches: bool,
    /// The metadata that led to it.
    pub(super) found: Option<Arc<Discovered>>,
    set: Arc<KeySet>,
    rules: KeyRules,
    /// The document itself, where the set's text leaves something out.
    whole: Option<Whole>,
    pub(super) headers: StoredHeaders,
    pub(super) timing: Timing,
}

/// A document that may hold private keys: it is never shown.
#[derive(Clone)]
struct Whole(Arc<[u8]>);

impl std::fmt::Debug for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hidden")
    }
}

/// The failure of an exchange, for others than the one whose it was.
#[derive(Debug)]
struct Remembered {
    number: u64,
    of: u64,
    /// Until when the source asked to be left alone.
    asked_until: Moment,
    /// Only who takes at most so many keys would fail, too.
    max_keys: Option<u32>,
    why: Arc<NotFetched>,
}

/// An exchange that runs.
#[derive(Debug)]
pub(crate) struct Exchange {
    number: u64,
    bypasses_caches: bool,
    told: OnceLock<Told>,
    bell: Notify,
}

/// How an exchange ended for those who joined it.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// It was answered.
    Answered(Arc<Answered>),
    /// It failed; so numbered.
    Failed(u64, Arc<NotFetched>),
    /// Whoever led it is gone.
    Lost,
}

/// An answer as it came.
pub(crate) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// A document, as a key set is written.
    pub(super) body: Vec<u8>,
    pub(super) timing: Timing,
    /// What was sent as conditions.
    pub(super) sent: Validators,
    /// The metadata that led to it.
    pub(super) found: Option<Arc<Discovered>>,
}

impl std::fmt::Debug for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answered").field("status", &self.status).finish_non_exhaustive()
    }
}

/// An exchange that somebody wants.
#[derive(Debug)]
pub(super) struct Want {
    /// Which provider.
    pub(super) of: u64,
    /// Whether only one that begins after it was asked for will do.
    pub(super) insists: bool,
    /// Whether only one that caches on the way cannot answer.
    pub(super) bypasses_caches: bool,
    /// Whether callers have nothing servable.
    pub(super) cold: bool,
    /// What it is judged by.
    pub(super) rules: KeyRules,
}

/// What somebody who wants an exchange has to do.
pub(super) enum Turn {
    /// Make it.
    Lead(Lead),
    /// Wait for this one, which will do.
    Join(Arc<Exchange>),
    /// Wait for this one, which began too early, and ask again.
    Wait(Arc<Exchange>),
    /// Take what one has brought meanwhile.
    Take(Arc<Memory>),
    /// Take it that one has failed just now; so numbered.
    Fail(u64, NotFetched),
}

impl Shared {
    /// The exchanges that began later than this will do for a flight that takes off now. Who `insists` wants one that
    /// begins after now; for others one that runs already is as good.
    pub(super) fn mark(&self, insists: bool) -> u64 {
        let state = lock(&self.0);
        match &state.running {
            Some(running) if !insists => running.number.saturating_sub(1),
            _ => state.began,
        }
    }

    /// Who does what, for the exchanges after `mark`.
    pub(super) fn turn(self: &Arc<Self>, want: Want, mark: u64, now: Moment) -> Turn {
        let Want { of, insists, bypasses_caches, cold, rules } = want;
        let mut state = lock(&self.0);
        let does = |number: u64, bypasses: bool| number > mark && (bypasses || !bypasses_caches);
        // An outage is the same for all, and so is a document that is of use to nobody.
        let no_use_until = |rules_are_same: bool| match &state.rare {
            Some(rare) if !insists && rare.setbacks > 0 && rules_are_same => rare.answers_until(cold),
            Some(rare) if !insists && rare.setbacks > 0 => rare.setback_at + FAILURE_ANSWERS,
            _ => Moment::ORIGIN,
        };
        let takes = |it: &Memory| {
            let is_of_no_use = it.of != of && !it.is_of_use();
            does(it.number, it.bypassed_caches) || (is_of_no_use && now < no_use_until(it.rules == rules))
        };
        if let Some(memory) = state.memory.as_ref().filter(|it| takes(it)) {
            return Turn::Take(memory.clone());
        }
        if let Some(running) = &state.running {
            let joins = does(running.number, running.bypasses_caches);
            let running = running.clone();
            return if joins { Turn::Join(running) } else { Turn::Wait(running) };
        }
        let failed = state.rare.as_ref().and_then(|rare| rare.failed.as_ref());
        let failed = failed
            .filter(|failed| failed.of != of && failed.max_keys.is_none_or(|most| rules.max_keys <= most));
        let until =
            |failed: &Remembered| if insists { now } else { failed.asked_until.max(no_use_until(true)) };
        if let Some(failed) = failed.filter(|failed| failed.number > mark || now < until(failed)) {
            // Who comes later waits as long as the others have to.
            let left = failed.asked_until.since(now);
            let retry_after = failed.why.retry_after.map(|wait| wait.min(left));
            return Turn::Fail(failed.number, NotFetched { retry_after, ..failed.why.shared() });
        }
        state.began += 1;
        let (told, bell) = (OnceLock::new(), Notify::new());
        let exchange = Arc::new(Exchange { number: state.began, bypasses_caches, told, bell });
        state.running = Some(exchange.clone());
        Turn::Lead(Lead { shared: self.clone(), exchange, of })
    }

    /// What the last exchange brought, if it was not the one of provider `of`: that has taken it, or has let it go
    /// since, as a registration may.
    pub(super) fn memory(&self, of: u64) -> Option<Arc<Memory>> {
        lock(&self.0).memory.clone().filter(|memory| memory.of != of)
    }

    /// One more provider is registered with it.
    pub(super) fn enter(&self) {
        lock(&self.0).members += 1;
    }

    /// One less is. With the last one goes what it was brought: whoever is registered later starts empty, though
    /// somebody may hold on to this for a while.
    pub(super) fn leave(&self) {
        let mut state = lock(&self.0);
        state.members = state.members.saturating_sub(1);
        if state.members == 0 {
            let (began, running) = (state.began, state.running.take());
            *state = State { began, running, ..State::default() };
        }
    }

    /// Decides about a flight for a missing kid under the source's one budget: `decide` is told when the last one
    /// began, and says whether another begins now.
    pub(super) fn spend_on_kid<R>(&self, now: Moment, decide: impl FnOnce(Option<Moment>) -> (bool, R)) -> R {
        let mut state = lock(&self.0);
        let (spent, answer) = decide(state.kid_flight_at);
        if spent {
            state.kid_flight_at = Some(now);
        }
        answer
    }

    /// The exchange that runs, if it looks for a missing kid: no cache on the way answers it.
    pub(super) fn looks_for_kid(&self) -> Option<Arc<Exchange>> {
        lock(&self.0).running.clone().filter(|running| running.bypasses_caches)
    }

    /// What the issuer's metadata said, and how many exchanges have failed in a row since it was looked up.
    pub(super) fn discovered(&self) -> (Option<Arc<Discovered>>, u32) {
        let state = lock(&self.0);
        (state.rare.as_ref().and_then(|rare| rare.discovered.clone()), state.failures)
    }

    /// `true` for the first who asks: it is watched from now on.
    pub(super) fn begins_watch(&self) -> bool {
        !std::mem::replace(&mut lock(&self.0).rare().watched, true)
    }

    /// What was told of the file that is watched, if there was one; `None` before the first look.
    pub(super) fn told(&self) -> Option<Option<Mark>> {
        lock(&self.0).rare.as_ref().and_then(|rare| rare.told.clone())
    }

    pub(super) fn tell(&self, mark: Option<Mark>) {
        lock(&self.0).rare().told = Some(mark);
    }

    /// Nobody watches it any more.
    pub(super) fn ends_watch(&self) {
        lock(&self.0).rare().watched = false;
    }

    pub(super) fn discover(&self, discovered: Arc<Discovered>) {
        let mut state = lock(&self.0);
        state.rare().discovered = Some(discovered);
        state.failures = 0;
    }
}

impl Memory {
    /// The set by these rules.
    pub(super) fn judged(&self, engine: &Engine, rules: &KeyRules) -> Result<Arc<KeySet>, Refusal> {
        if self.rules == *rules {
            return Ok(self.set.clone());
        }
        let document = self.whole.as_ref().map_or(self.set.text().as_bytes(), |whole| &whole.0);
        engine.judge(document, rules)
    }

    fn is_of_use(&self) -> bool {
        self.set.usable().next().is_some()
    }
}

impl Exchange {
    /// Waits for its end. Cancel safe.
    pub(crate) async fn ended(&self) -> Told {
        loop {
            let bell = self.bell.notified();
            tokio::pin!(bell);
            bell.as_mut().enable();
            if let Some(told) = self.told.get() {
                return told.clone();
            }
            bell.await;
        }
    }
}

/// The right and the duty to make an exchange for all who wait. Dropping it hands both on.
pub(super) struct Lead {
    shared: Arc<Shared>,
    exchange: Arc<Exchange>,
    of: u64,
}

impl Lead {
    /// It was answered. `document` is what it stands for by the leader's rules, if those take it (others may where
    /// they do not): the set, and the header fields that grant its lifetime. `refused` is why those do not.
    pub(super) fn answered(
        self,
        answered: Arc<Answered>,
        document: Option<(Arc<KeySet>, StoredHeaders)>,
        rules: KeyRules,
        refused: Option<&Arc<NotFetched>>,
        now: Moment,
    ) {
        let mut state = lock(&self.shared.0);
        if let Some(rare) = &mut state.rare {
            rare.failed = None;
        }
        state.failures = 0;
        if document.as_ref().is_some_and(|(set, _)| set.usable().next().is_some()) {
            if let Some(rare) = &mut state.rare {
                rare.setbacks = 0;
            }
        } else {
            state.rare().set_back(now);
        }
        if let Some(why) = refused.cloned() {
            let (number, of, max_keys) = (self.exchange.number, self.of, Some(rules.max_keys));
            state.rare().failed = Some(Remembered { number, of, asked_until: now, max_keys, why });
        }
        if let Some((set, headers)) = document {
            let known = state.memory.as_ref().filter(|memory| Arc::ptr_eq(&memory.set, &set));
            let whole = match known {
                Some(known) => known.whole.clone(),
                None if answered.body.is_empty() || answered.body == set.text().as_bytes() => None,
                None => Some(Whole(answered.body.as_slice().into())),
            };
            let (number, of, timing) = (self.exchange.number, self.of, answered.timing);
            // Nobody is left who would want it.
            let (bypassed_caches, found) = (self.exchange.bypasses_caches, answered.found.clone());
            let memory = Memory { number, of, bypassed_caches, found, set, rules, whole, headers, timing };
            state.memory = (state.members > 0).then(|| Arc::new(memory));
        }
        self.end(state, Told::Answered(answered));
    }

    /// It failed.
    pub(super) fn failed(self, why: NotFetched, now: Moment) -> NotFetched {
        // What is about the asker's own rules or files says nothing to others.
        let mine = why.reason == "client";
        let why = Arc::new(why);
        let mut state = lock(&self.shared.0);
        state.failures = state.failures.saturating_add(if is_gone(why.status) { 2 } else { 1 });
        let asked_until = now + why.retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        let (number, of) = (self.exchange.number, self.of);
        if !mine {
            state.rare().set_back(now);
        }
        state.rare().failed =
            (!mine).then(|| Remembered { number, of, asked_until, max_keys: None, why: why.clone() });
        let own = NotFetched { requests: why.requests, ..why.shared() };
        self.end(state, Told::Failed(number, why));
        own
    }

    fn end(&self, mut state: crate::sync::MutexGuard<'_, State>, told: Told) {
        state.running = None;
        drop(state);
        self.tell(told);
    }

    fn tell(&self, told: Told) {
        if self.exchange.told.set(told).is_ok() {
            self.exchange.bell.notify_waiters();
        }
    }
}

/// Whether a key set has moved, as far as a status tells.
fn is_gone(status: Option<StatusCode>) -> bool {
    matches!(status, Some(StatusCode::NOT_FOUND | StatusCode::GONE))
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.exchange.told.get().is_none() {
            let mut state = lock(&self.shared.0);
            state.running = None;
            drop(state);
            self.tell(Told::Lost);
        }
    }
}
