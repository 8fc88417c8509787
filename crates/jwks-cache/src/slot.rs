//! Who holds the keys now: the one pointer that readers load, and the flight that others wait for.
//! This room knows neither how keys are fetched nor what happens next.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jwks_cache_core::Moment;
use jwks_cache_core::admission::Ticket;
use jwks_cache_core::policy::Policy;
use jwks_cache_core::published::Published;
use jwks_cache_core::served::Document;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::socket_now;
use crate::epoch::{Guard, Place, Shared};
use crate::error::FetchError;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Everything a lookup needs, in one immutable value. A lookup of fresh keys reads one line of it.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct View {
    pub(crate) published: Published,
    /// Whose tokens its keys verify: the issuer that the provider was registered under when this was published.
    pub(crate) issuer: Option<Arc<str>>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) flight: Option<Arc<Flight>>,
    /// Why the last flight failed, if the last one did.
    pub(crate) last_error: Option<FetchError>,
    /// The provider was unregistered; then nothing is fresh.
    pub(crate) closed: bool,
    /// `{tenantid}` in `issuer` stands for the `tid` of each token.
    pub(crate) template: bool,
    /// What is handed on of it, from the first time somebody asked.
    document: ArcSwapOption<Document>,
}

/// A view that outlives the moment in which it was looked at.
pub(crate) type SharedView = Shared<View>;

/// Whose tokens keys verify, as a view says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose<'v> {
    pub(crate) issuer: Option<&'v Arc<str>>,
    /// Lies far away, and is looked at only where the issuer holds a `{`.
    pub(crate) template: &'v bool,
}

impl View {
    pub(crate) fn new(
        issuer: Option<Arc<str>>,
        published: Published,
        policy: Arc<Policy>,
        flight: Option<Arc<Flight>>,
        last_error: Option<FetchError>,
        closed: bool,
        template: bool,
    ) -> Self {
        // Readers of fresh keys look at nothing else, so this is how they learn of it.
        let refresh_at = if closed { Moment::ORIGIN } else { published.refresh_at };
        let published = Published { refresh_at, ..published };
        Self {
            issuer,
            published,
            policy,
            flight,
            last_error,
            closed,
            template,
            document: ArcSwapOption::empty(),
        }
    }

    /// What may be handed on; none where nothing is held.
    pub(crate) fn document(&self, now: Moment) -> Option<Arc<Document>> {
        let known = self.document.load_full();
        let holds = |document: &Arc<Document>| document.until().is_none_or(|until| now < until);
        if let Some(document) = known.filter(holds) {
            return Some(document);
        }
        let document = Arc::new(Document::of(&self.published, now)?);
        self.document.store(Some(document.clone()));
        Some(document)
    }

    /// Whose tokens its keys verify.
    pub(crate) fn whose(&self) -> Whose<'_> {
        Whose { issuer: self.issuer.as_ref(), template: &self.template }
    }

    /// Whether a reader who finds keys due or expired should ask for a flight.
    pub(crate) fn wants_flight(&self, now: Moment) -> bool {
        self.flight.is_none() && now >= self.published.backoff_until
    }

    /// Whether a flight runs that readers of expired keys no longer wait for.
    pub(crate) fn has_slow_flight(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.age() >= self.policy.stale_wait)
    }
}

/// The place readers look at.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slot {
    view: Place<View>,
    /// Set by the first read after a flight began; the timer asks for it.
    read: AtomicBool,
    /// Set by the first stale answer of a set, so that it is announced once.
    stale_announced: AtomicBool,
}

/// The right to change what readers see. There is one per slot, and it is not `Clone`.
#[derive(Debug)]
pub(crate) struct Publisher(());

impl Slot {
    pub(crate) fn new(view: View) -> (Self, Publisher) {
        let slot = Self {
            view: Place::new(view),
            read: AtomicBool::new(false),
            stale_announced: AtomicBool::new(false),
        };
        (slot, Publisher(()))
    }

    /// What readers see, in place.
    #[inline]
    pub(crate) fn load<'g>(&self, guard: &'g Guard) -> &'g View {
        self.view.load(guard)
    }

    /// The same, owned.
    pub(crate) fn load_full(&self) -> SharedView {
        self.view.load_full()
    }

    /// Notes a read. Written once per flight, so that readers share a line they only load.
    pub(crate) fn note_read(&self) {
        if !self.read.load(Ordering::Relaxed) {
            self.read.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was read since the last flight began.
    pub(crate) fn was_read(&self) -> bool {
        self.read.load(Ordering::Relaxed)
    }

    /// `true` for the first stale answer since keys were last fresh.
    pub(crate) fn announces_stale(&self) -> bool {
        !self.stale_announced.load(Ordering::Relaxed) && !self.stale_announced.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn publish(&self, _by: &mut Publisher, view: View) -> SharedView {
        let view = Shared::new(view);
        self.view.store(&view);
        view
    }

    /// A flight begins. Whether it was read since the flight before.
    pub(crate) fn begin_flight(&self, _by: &mut Publisher) -> bool {
        self.read.swap(false, Ordering::Relaxed)
    }

    /// Keys were renewed without a flight.
    pub(crate) fn renewed(&self, _by: &mut Publisher) {
        self.read.store(false, Ordering::Relaxed);
    }

    pub(crate) fn became_fresh(&self, _by: &mut Publisher) {
        self.stale_announced.store(false, Ordering::Relaxed);
    }
}

/// A running refresh that all who wait share.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) number: u64,
    asked_at: Instant,
    /// Its last place at the gate.
    pub(crate) ticket: Mutex<Option<Ticket>>,
    /// The last attempt that failed, for callers who cannot wait longer.
    pub(crate) last_attempt: Mutex<Option<FetchError>>,
    ended: OnceLock<Ended>,
    /// Keys came from elsewhere while it flew.
    keys_came: AtomicBool,
    told: Notify,
}

/// How a flight ended for those who waited.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// It brought keys, or a new lifetime for those held: this view.
    Landed(SharedView),
    /// It failed, for everyone alike.
    Failed(FetchError),
    /// The provider was registered anew: join the next.
    Superseded,
    /// The provider was unregistered.
    Unregistered,
    /// The registry was shut down.
    ShutDown,
    /// Its runtime went away: start afresh.
    Lost,
}

impl Flight {
    pub(crate) fn new(number: u64) -> Self {
        Self {
            number,
            asked_at: socket_now(),
            ticket: Mutex::new(None),
            last_attempt: Mutex::new(None),
            ended: OnceLock::new(),
            keys_came: AtomicBool::new(false),
            told: Notify::new(),
        }
    }

    /// How long ago it was asked for.
    pub(crate) fn age(&self) -> Duration {
        socket_now().saturating_duration_since(self.asked_at)
    }

    /// Ends it, once: the first ending counts.
    pub(crate) fn end(&self, ended: Ended) {
        if self.ended.set(ended).is_ok() {
            self.told.notify_waiters();
        }
    }

    /// Tells those who wait with nothing that keys came from elsewhere. It flies on.
    pub(crate) fn keys_came(&self) {
        self.keys_came.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    /// Waits for its end. Cancel safe: a caller that goes away changes nothing for the others.
    pub(crate) async fn ended(&self) -> Ended {
        loop {
            if let Some(ended) = self.told_of(|| self.ended.get().cloned()).await {
                return ended;
            }
        }
    }

    /// Waits for its end, or until keys came from elsewhere: then `None`.
    pub(crate) async fn ended_or_keys_came(&self) -> Option<Ended> {
        let came = || self.keys_came.load(Ordering::Acquire).then_some(None);
        loop {
            if let Some(news) = self.told_of(|| self.ended.get().cloned().map(Some).or_else(came)).await {
                return news;
            }
        }
    }

    /// What there is to know; where nothing is, `None` once something may be.
    async fn told_of<T>(&self, known: impl Fn() -> Option<T>) -> Option<T> {
        let told = self.told.notified();
        tokio::pin!(told);
        // Enlists before looking, so that an end between look and wait is not missed.
        told.as_mut().enable();
        if let Some(known) = known() {
            return Some(known);
        }
        told.await;
        None
    }
}
