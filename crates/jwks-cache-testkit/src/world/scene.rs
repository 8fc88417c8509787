//! Everything the world knows, and the wire between its providers and the cache.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::StatusCode;
use jwks_cache::{
    Clock, Fetch, FetchRequest, Fetched, Fetching, IdentityProviderRegistration, Moment, NotFetched,
    ProviderState, ProviderStatus, Subscription, Timing, What,
};
use tokio::sync::Notify;

use super::budget::{Budget, Paid};
use super::chance::{Chance, mixed};
use super::clock::WorldClock;
use super::document::{Document, Material, Use, material_of_thumbprint};
use super::fault::{Exchange, Reply};
use super::figures::Figures;
use super::law::{Book, Held, State, stray};
use super::origin::{Origin, etag};
use super::read::names_another;

/// Waits of tokio end on whole milliseconds.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// One provider, as registered.
pub(super) struct Site {
    pub(super) origin: Origin,
    pub(super) book: Book,
    pub(super) budget: Budget,
    /// Counts what ends a running flight: another registration, or none.
    pub(super) incarnation: u64,
}

impl Site {
    pub(super) fn new(origin: Origin, crowded: bool) -> Self {
        let budget = Budget::new(crowded);
        Self { origin, book: Book::default(), budget, incarnation: 0 }
    }

    fn under(&self) -> Option<Arc<IdentityProviderRegistration>> {
        self.book.now().registration.clone()
    }
}

pub(super) struct Scene {
    pub(super) clock: Arc<WorldClock>,
    pub(super) chance: Chance,
    pub(super) sites: Vec<Site>,
    pub(super) figures: Figures,
    pub(super) events: Option<Subscription>,
    /// Providers to which something happened that nobody has looked at, and the call to look.
    pub(super) stirred: BTreeSet<usize>,
    pub(super) call: Arc<Notify>,
    /// The first law that was broken.
    pub(super) broken: Option<String>,
    /// Folds all that happened, to compare two runs of one seed.
    pub(super) digest: u64,
    /// The most requests in the air at once, and how many are.
    pub(super) limit: usize,
    pub(super) in_air: usize,
    pub(super) over: bool,
    /// Says everything that happens.
    pub(super) tell: bool,
}

/// The scene, shared by the one thread's tasks.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Scene>>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated wire")
    }
}

impl Shared {
    pub(super) fn new(scene: Scene) -> Self {
        Self(Arc::new(Mutex::new(scene)))
    }

    /// Never held across an await. Whoever panics while holding it ends the run.
    pub(super) fn lock(&self) -> MutexGuard<'_, Scene> {
        self.0.lock().expect("a task of the world panicked, which is a bug of the world")
    }
}

pub(super) fn tenant(slot: usize) -> String {
    format!("tenant-{}", slot / 2)
}

pub(super) fn provider(slot: usize) -> &'static str {
    ["main", "other"][slot % 2]
}

pub(super) fn url(slot: usize, source: u64) -> String {
    format!("https://p{slot}.example/{source}")
}

/// The provider and source that a URL names.
fn named_by(request: &FetchRequest) -> Option<(usize, u64)> {
    let slot = request.url.host_str()?.strip_prefix('p')?.strip_suffix(".example")?.parse().ok()?;
    Some((slot, request.url.path().strip_prefix('/')?.parse().ok()?))
}

impl Scene {
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Something happened: counted, folded into the digest, and said where somebody listens.
    pub(super) fn note(
        &mut self,
        slot: usize,
        group: &'static str,
        kind: &'static str,
        detail: impl fmt::Display,
    ) {
        self.figures.count(group, kind);
        let time = u64::try_from(self.clock.passed().as_nanos()).unwrap_or(u64::MAX);
        let mut text = Folded(slot as u64);
        let _ = write!(text, "{group} {kind} {detail}");
        self.digest = mixed(self.digest ^ mixed(time) ^ text.0);
        self.say(slot, format_args!("{group}: {kind} {detail}"));
    }

    /// Said where somebody listens.
    pub(super) fn say(&self, slot: usize, what: impl fmt::Display) {
        if self.tell {
            println!("{:>14.3} p{slot} {what}", self.clock.passed().as_secs_f64());
        }
    }

    /// A law is broken. The first one counts.
    pub(super) fn blame(&mut self, slot: usize, what: impl fmt::Display) {
        if self.broken.is_none() && !self.over {
            let at = self.clock.passed();
            self.broken = Some(format!("{what} (provider p{slot}, {:.3} s in)", at.as_secs_f64()));
        }
    }

    /// Somebody asks about all providers.
    pub(super) fn asked(&mut self) {
        let socket = self.clock.socket();
        self.sites.iter_mut().for_each(|site| site.budget.asked(socket));
    }

    /// Hears what the cache says of its flights.
    pub(super) fn hear(&mut self) {
        while let Some(event) = self.events.as_mut().and_then(Subscription::try_next) {
            let What::RefreshFailed { .. } = event.what else { continue };
            let named = |slot: &usize| *event.tenant == *tenant(*slot) && *event.provider == *provider(*slot);
            let Some(slot) = (0..self.sites.len()).find(named) else { continue };
            let site = &mut self.sites[slot];
            if let Some(under) = site.under() {
                site.budget.flight_failed(&under, site.book.now());
            }
        }
    }

    /// A request arrives: pays its budget, and finds what will answer it.
    fn begin(&mut self, request: &FetchRequest) -> Option<(Ticket, Duration)> {
        self.hear();
        let (now, socket) = (self.now(), self.clock.socket());
        let (slot, source) = named_by(request)?;
        self.in_air += 1;
        if self.in_air > self.limit {
            self.blame(slot, format!("I4: {} requests at once, {} may be", self.in_air, self.limit));
        }
        let site = &mut self.sites[slot];
        let Some(under) = site.under().filter(|_| site.origin.source == source) else {
            self.blame(slot, "I5: a request to a source that is not registered");
            return None;
        };
        let readers = site.book.is_read();
        let paid = site.budget.begin(now, socket, request.bypass_caches, readers, &under);
        let mut promise = site.origin.promise.clone();
        promise.date = Some(self.clock.true_wall());
        let sound = Reply::Document(site.origin.document.clone());
        let delay = self.chance.millis(1, 80);
        let fault = site.origin.fault.filter(|(_, until)| self.clock.passed() < *until);
        let mut exchange = Exchange {
            origin: &mut site.origin,
            chance: &mut self.chance,
            bypasses_caches: request.bypass_caches,
            conditional: request.is_conditional(),
            delay,
            promise,
            reply: sound,
        };
        if let Some((fault, _)) = fault {
            (fault.spoil)(&mut exchange);
        }
        let Exchange { delay, promise, mut reply, .. } = exchange;
        let tag = |document: &Document| request.if_none_match.as_deref() == Some(etag(document).as_str());
        let tagged = match &reply {
            Reply::Document(document) => document.clone(),
            _ => site.origin.document.clone(),
        };
        if matches!(reply, Reply::Document(_)) && tag(&tagged) {
            reply = Reply::NotModified;
        }
        let ticket = Ticket { slot, incarnation: site.incarnation, now, socket, reply, tagged, promise };
        match paid {
            Err(why) => self.blame(slot, why),
            Ok(Paid::Retry) => self.note(slot, "request", "retry", ""),
            Ok(Paid::First(kind)) => {
                self.note(slot, "request", "first", "");
                self.note(slot, "flight", kind, "");
            }
        }
        if let Some((fault, _)) = fault {
            self.note(slot, "fault", fault.name, "");
        }
        Some((ticket, delay))
    }

    /// A request gets its answer: the law takes it before the cache does.
    fn land(&mut self, ticket: &Ticket) -> Result<Fetched, NotFetched> {
        let Ticket { slot, now: requested_at, ref promise, .. } = *ticket;
        let (now, socket, wall) = (self.now(), self.clock.socket(), self.clock.wall());
        self.leave(ticket);
        let timing = Timing { requested_at, received_at: now, received_wall: wall };
        let site = &mut self.sites[slot];
        let current = ticket.incarnation == site.incarnation;
        // RFC 9111 §4.2.3.
        let apparent = promise.date.map_or(0, |date| wall.timestamp().saturating_sub(date.timestamp()));
        let apparent = Duration::from_secs(u64::try_from(apparent).unwrap_or(0));
        let age = apparent.max(Duration::from_secs(promise.age) + now.since(requested_at));
        let was_servable = site.book.now().is_servable(now);
        let (kind, taken, answer) = match &ticket.reply {
            Reply::Document(document) => {
                let held = Held { document: document.clone(), promise: promise.clone(), age, at: now, wall };
                let taken = current && site.book.change(now, |state| state.adopt(held));
                let (headers, body) = (promise.headers(document), document.body().into_bytes());
                let fetched = Fetched { status: StatusCode::OK, headers, body, timing, requests: 1 };
                (if taken { "document" } else { "refused document" }, taken, Ok(fetched))
            }
            Reply::NotModified => {
                let taken =
                    current && site.book.change(now, |state| state.renew(promise.clone(), age, now, wall));
                let (status, headers) = (StatusCode::NOT_MODIFIED, promise.headers(&ticket.tagged));
                (
                    "not modified",
                    taken,
                    Ok(Fetched { status, headers, body: Vec::new(), timing, requests: 1 }),
                )
            }
            Reply::Rubbish(body) => {
                let (headers, body) = (promise.headers(&ticket.tagged), body.clone().into_bytes());
                let fetched = Fetched { status: StatusCode::OK, headers, body, timing, requests: 1 };
                ("refused document", false, Ok(fetched))
            }
            Reply::Failure { reason, status, retryable, retry_after } => {
                let status = status.and_then(|status| StatusCode::from_u16(status).ok());
                let failed = NotFetched {
                    status,
                    retryable: *retryable,
                    retry_after: *retry_after,
                    requests: 1,
                    ..NotFetched::new(reason, "as the world wants it")
                };
                ("failure", false, Err(failed))
            }
            Reply::Silence => ("timed out", false, Err(NotFetched::new("silence", "never answered"))),
        };
        if taken {
            site.budget.flight_landed(site.book.now(), was_servable);
        } else if current {
            let asked = answer.as_ref().err().and_then(|failed| failed.retry_after);
            site.budget.attempt_failed(socket, now, asked);
        }
        self.note(slot, "exchange", kind, &ticket.reply);
        answer
    }

    /// The cache gave a request up: it took too long, or its flight was ended.
    fn give_up(&mut self, ticket: &Ticket) {
        self.leave(ticket);
        let (now, socket) = (self.now(), self.clock.socket());
        let site = &mut self.sites[ticket.slot];
        if ticket.incarnation == site.incarnation {
            site.budget.attempt_failed(socket, now, None);
            self.note(ticket.slot, "exchange", "timed out", "");
        } else {
            self.note(ticket.slot, "exchange", "superseded", "");
        }
    }

    fn leave(&mut self, ticket: &Ticket) {
        self.in_air -= 1;
        self.stirred.insert(ticket.slot);
        self.call.notify_one();
        let took = self.clock.socket() - ticket.socket;
        let site = &mut self.sites[ticket.slot];
        site.budget.end();
        if let Some(under) = site.under().filter(|_| ticket.incarnation == site.incarnation)
            && took > under.retry_policy.attempt_timeout + TICK
        {
            self.blame(ticket.slot, format!("I8: an attempt of {took:?}"));
        }
    }

    /// Holds what the cache shows of a provider against the law.
    pub(super) fn inspect(&mut self, slot: usize, status: &ProviderStatus) {
        let now = self.now();
        let site = &self.sites[slot];
        let state: &State = site.book.now();
        let with = |wanted: &str| -> BTreeSet<Material> {
            let keys = status.keys.iter().filter(|key| key.state == wanted);
            let material = |print: &str| material_of_thumbprint(print).unwrap_or(Material::MAX);
            keys.filter_map(|key| key.thumbprint.as_deref().map(material)).collect()
        };
        let overdue = state.registration.as_ref().and_then(|under| site.budget.overdue(now, under));
        let (usable, retiring) = (with("usable"), with("retiring"));
        let ready = matches!(status.state, ProviderState::Ready | ProviderState::Refreshing);
        let most = state.registration.as_ref().map_or(0, |under| under.max_keys as usize);
        let leaving = status.keys.iter().filter(|key| key.state == "retiring").count();
        let published = status.keys.len() - leaving;
        let fresh_until = state.times().map(|times| times.fresh_until);
        let expires = status.expires_at.map(|at| (at - self.clock.wall()).num_milliseconds());
        let want = fresh_until.map(|until| {
            let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
            millis(until.since(now)) - millis(now.since(until))
        });
        let blame = if let Some(overdue) = overdue {
            Some(format!("due: no timer has refreshed this for {overdue:?}"))
        } else if let Some(owner) = stray(slot, usable.iter().chain(&retiring).copied()) {
            Some(format!("I5: shows a key of p{owner}"))
        } else if let Some(text) = status.last_error.as_ref().filter(|text| names_another(slot, text)) {
            Some(format!("I5: an error of another provider: {text}"))
        } else if usable != state.usable() {
            Some(format!("I1: not the set that came last: {usable:?} for {:?}", state.usable()))
        } else if !retiring.is_subset(&state.retiring(now)) {
            Some(format!("I3: still retiring {retiring:?}, but only {:?} may be", state.retiring(now)))
        } else if ready != state.is_servable(now) {
            Some(format!(
                "{}: {:?}",
                if ready { "I2: served too long" } else { "I1: served no more" },
                status.state
            ))
        } else if status.last_refresh != state.held.as_ref().map(|held| held.wall) {
            Some(format!("I1: last refreshed {:?}", status.last_refresh))
        } else if expires.zip(want).is_some_and(|(got, want)| (got - want).abs() > 2)
            || expires.is_some() != want.is_some()
        {
            let law = if expires < want { "I1: fresh too short" } else { "I2: fresh too long" };
            Some(format!("{law}: for {expires:?} ms, not {want:?}"))
        } else if published > most || leaving > most || status.denied.len() != state.denied.len() {
            let denied = status.denied.len();
            Some(format!("I9: {published} keys, {leaving} retiring, {denied} denials; {most} keys may be"))
        } else {
            None
        };
        if let Some(what) = blame {
            self.blame(slot, what);
        }
    }
}

/// A text as a number (FNV-1a).
struct Folded(u64);

impl Write for Folded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 =
            text.bytes().fold(self.0, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Ok(())
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(document) => {
                write!(f, "{}", document.number)?;
                document.keys.iter().try_for_each(|key| {
                    write!(f, " k{}={}", key.kid, key.material)?;
                    if key.good_for == Use::Signature { Ok(()) } else { write!(f, " {:?}", key.good_for) }
                })
            }
            Self::Failure { reason, .. } => f.write_str(reason),
            Self::NotModified | Self::Rubbish(_) | Self::Silence => Ok(()),
        }
    }
}

/// A request in the air.
struct Ticket {
    slot: usize,
    incarnation: u64,
    now: Moment,
    socket: Duration,
    reply: Reply,
    /// The document whose tag a 304 carries.
    tagged: Arc<Document>,
    promise: super::origin::Promise,
}

/// Tells the scene when a request is given up.
struct Airborne<'a>(&'a Shared, Option<Ticket>);

impl Drop for Airborne<'_> {
    fn drop(&mut self) {
        // At the end of a world in which something panicked, nobody counts any more.
        if let (Some(ticket), Ok(mut scene)) = (self.1.take(), self.0.0.lock()) {
            scene.give_up(&ticket);
        }
    }
}

impl Fetch for Shared {
    fn fetch<'a>(&'a self, request: &'a FetchRequest) -> Fetching<'a> {
        Box::pin(async move {
            let Some((ticket, delay)) = self.lock().begin(request) else {
                return Err(NotFetched::new("lost", "no such source"));
            };
            let silent = matches!(ticket.reply, Reply::Silence);
            let mut airborne = Airborne(self, Some(ticket));
            if silent {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(delay).await;
            let ticket = airborne.1.take();
            drop(airborne);
            match ticket {
                Some(ticket) => self.lock().land(&ticket),
                None => Err(NotFetched::new("lost", "taken already")),
            }
        })
    }
}
