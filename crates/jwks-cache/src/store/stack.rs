//! The stores of a registry together: what is written goes to each, and what each kept is offered to the provider,
//! which takes the newest.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::queue::{Deed, Kept, Queue};
use super::{KeyRing, SnapshotKind, SnapshotStore};
use crate::clock::{later, socket_now};
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The longest that a registration waits for its keys to be loaded.
const LOAD_WITHIN: Duration = Duration::from_millis(250);

/// The longest that `persist_all`, `restore_from_persistence` and the drain of `shutdown` take.
const ALL_WITHIN: Duration = Duration::from_secs(10);

/// How many calls one store gets at a time.
const AT_ONCE: usize = 16;

/// How many calls in a row a store may leave unanswered before the rest is not even asked.
const MOST_UNANSWERED: usize = AT_ONCE;

/// Denials come first, so that no denied key is served in between.
const KINDS: [SnapshotKind; 2] = [SnapshotKind::Denials, SnapshotKind::Keys];

/// The stores of a registry, and what they share.
#[derive(Debug)]
pub(crate) struct Stack {
    stores: Vec<Store>,
    pub(crate) ring: Option<KeyRing>,
}

#[derive(Debug)]
struct Store {
    queue: Arc<Queue>,
    loads: Arc<Semaphore>,
}

impl Stack {
    pub(crate) fn new(stores: Vec<Arc<dyn SnapshotStore>>, ring: Option<KeyRing>) -> Self {
        let store = |store| Store { queue: Queue::new(store), loads: Arc::new(Semaphore::new(AT_ONCE)) };
        Self { stores: stores.into_iter().map(store).collect(), ring }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.stores.is_empty()
    }

    /// Has `kept` written to each store soon. Never waits.
    pub(crate) fn mark<K: Kept + 'static>(&self, kept: &Arc<K>, kind: SnapshotKind) {
        for store in &self.stores {
            let weak: Weak<K> = Arc::downgrade(kept);
            store.queue.mark(kept.key(kind), weak);
        }
    }

    /// Has something removed from each store soon. What is too much for a dead store counts as failed, and stays there.
    pub(crate) fn forget(&self, kept: &dyn Kept, kind: SnapshotKind) {
        for store in &self.stores {
            if !store.queue.mark_removal(kept.key(kind)) {
                kept.count(Deed::Failed);
            }
        }
    }

    /// How long the oldest write has been owed.
    pub(crate) fn lag(&self, kept: &dyn Kept) -> Duration {
        let keys = KINDS.map(|kind| kept.key(kind));
        let lags = self.stores.iter().flat_map(|store| keys.iter().map(|key| store.queue.lag(key)));
        lags.max().unwrap_or_default()
    }

    /// Loads what the stores kept of one provider. Waits for it a moment, and not at all for a store that is away: that
    /// one is asked when it works again.
    pub(crate) async fn restore(&self, kept: Arc<dyn Kept>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let until = later(socket_now(), LOAD_WITHIN);
        let mut loads = Loads { runtime, waits: Vec::new() };
        for store in &self.stores {
            let queue = &store.queue;
            if queue.is_away() {
                KINDS.iter().for_each(|kind| queue.mark_load(kept.key(*kind), Arc::downgrade(&kept)));
                continue;
            }
            let load = load_or_owe(queue.clone(), store.loads.clone(), Arc::downgrade(&kept));
            if queue.keeps_waiting() {
                loads.runtime.spawn(load);
            } else {
                loads.waits.push((queue.clone(), Box::pin(load)));
            }
        }
        drop(kept);
        let all = poll_fn(|cx| {
            loads.waits.retain_mut(|(_, load)| load.as_mut().poll(cx).is_pending());
            if loads.waits.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        if timeout_at(until, all).await.is_err() {
            loads.waits.iter().for_each(|(queue, _)| queue.was_slow(true));
        }
    }

    /// Writes all to each store. The first error, or that time was up.
    pub(crate) async fn save_all(&self, all: Vec<Arc<dyn Kept>>) -> Result<()> {
        self.for_all(all, Way::Save).await
    }

    /// Loads all from each store. The first error, or that time was up.
    pub(crate) async fn load_all(&self, all: Vec<Arc<dyn Kept>>) -> Result<()> {
        self.for_all(all, Way::Load).await
    }

    async fn for_all(&self, all: Vec<Arc<dyn Kept>>, way: Way) -> Result<()> {
        if self.is_empty() || all.is_empty() {
            return Ok(());
        }
        let runtime = Handle::try_current().map_err(|_| {
            Error::Cache("stores are written and read in a tokio runtime; there is none".into())
        })?;
        let all: Arc<[_]> = all.into();
        let mut crew = Crew(Vec::new());
        for store in &self.stores {
            let shift = Arc::new(Shift {
                queue: store.queue.clone(),
                all: all.clone(),
                next: AtomicUsize::new(0),
                unanswered: AtomicUsize::new(0),
                way,
            });
            for _ in 0..AT_ONCE.min(all.len()) {
                crew.0.push(runtime.spawn(shift.clone().work()));
            }
        }
        let until = later(socket_now(), ALL_WITHIN);
        let mut first: Option<(usize, Error)> = None;
        for task in &mut crew.0 {
            match timeout_at(until, task).await {
                Ok(Ok(Some((place, error)))) if first.as_ref().is_none_or(|(other, _)| place < *other) => {
                    first = Some((place, error));
                }
                Ok(_) => {}
                Err(_) => {
                    let late = || Error::Cache(format!("the stores were not done within {ALL_WITHIN:?}"));
                    return Err(first.map_or_else(late, |(_, error)| error));
                }
            }
        }
        first.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Writes what is owed, within a deadline; a store that fails at all of it is given up.
    pub(crate) async fn drain(&self) {
        if self.is_empty() || Handle::try_current().is_err() {
            return;
        }
        let until = later(socket_now(), ALL_WITHIN);
        // All at once: a slow one takes no time from the others.
        let drains = self.stores.iter().map(|store| {
            let queue = store.queue.clone();
            (queue.store.name(), tokio::spawn(async move { queue.drain(until).await }))
        });
        for (store, drain) in drains.collect::<Vec<_>>() {
            if !drain.await.unwrap_or(false) {
                tracing::warn!(store, "shut down before everything was stored");
            }
        }
    }

    pub(crate) fn close(&self) {
        self.stores.iter().for_each(|store| store.queue.close());
    }
}

type Loading = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Loads that somebody waits for. Who stops waiting leaves them to the runtime.
struct Loads {
    runtime: Handle,
    waits: Vec<(Arc<Queue>, Loading)>,
}

impl Drop for Loads {
    fn drop(&mut self) {
        for (_, load) in self.waits.drain(..) {
            self.runtime.spawn(load);
        }
    }
}

/// Loads, and owes what could not be loaded.
async fn load_or_owe(queue: Arc<Queue>, loads: Arc<Semaphore>, kept: Weak<dyn Kept>) {
    // It is never closed.
    let _turn = loads.acquire().await;
    let began = socket_now();
    let Some(kept) = kept.upgrade() else { return };
    for (kind, error) in queue.load_both(&kept).await {
        if !error.concerns_content() {
            queue.mark_load(kept.key(kind), Arc::downgrade(&kept));
        }
    }
    if socket_now().saturating_duration_since(began) < LOAD_WITHIN {
        queue.was_slow(false);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Save,
    Load,
}

/// What several workers share who do the same with all providers and one store.
struct Shift {
    queue: Arc<Queue>,
    all: Arc<[Arc<dyn Kept>]>,
    next: AtomicUsize,
    /// Calls in a row without an answer.
    unanswered: AtomicUsize,
    way: Way,
}

impl Shift {
    /// The first error by the providers' order.
    async fn work(self: Arc<Self>) -> Option<(usize, Error)> {
        let mut first = None;
        // Of a store of which a part answers, that part is worth asking.
        while self.unanswered.load(Relaxed) < MOST_UNANSWERED {
            let place = self.next.fetch_add(1, Relaxed);
            let Some(kept) = self.all.get(place) else { break };
            for kind in KINDS {
                let done = match self.way {
                    Way::Save => self.queue.save(kept, kind).await.map(|asked| (None, asked)),
                    Way::Load => self.queue.load(kept, kind).await.map(|refused| (refused, true)),
                };
                match &done {
                    Err(error) if error.kind() == super::StoreErrorKind::Unavailable => {
                        self.unanswered.fetch_add(1, Relaxed);
                    }
                    // Denials that are not there are not written, which says nothing about the store.
                    Ok((_, false)) => {}
                    _ => self.unanswered.store(0, Relaxed),
                }
                let error =
                    done.map(|(refused, _)| refused).unwrap_or_else(|error| Some(Error::Store(error)));
                if let Some(error) = error {
                    first.get_or_insert((place, error));
                }
            }
        }
        first
    }
}

/// Tasks that end with who waits for them.
struct Crew(Vec<JoinHandle<Option<(usize, Error)>>>);

impl Drop for Crew {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}
