//! Writing behind: for one store, what is still to be written, the newest of each provider. Who marks something goes
//! on at once; one task writes, one after another, and tries again what failed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::{SnapshotEntry, SnapshotKey, SnapshotKind, SnapshotStore, StoreError, StoreErrorKind};
use crate::clock::{later, socket_now};
use crate::sync::{Mutex, MutexGuard, lock};

/// The first wait after a failure; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Something that is kept: asked for what to write when its turn comes, so that the newest is written.
pub(crate) trait Kept: Send + Sync {
    /// Its name in stores.
    fn key(&self, kind: SnapshotKind) -> SnapshotKey;
    /// What to write; `None` when there is nothing (any more).
    fn entry(&self, kind: SnapshotKind) -> Option<SnapshotEntry>;
    /// The most bytes that what it wrote can have.
    fn most(&self) -> u64;
    /// Takes what a store kept.
    ///
    /// # Errors
    /// Why it was not believed.
    fn take(self: Arc<Self>, kind: SnapshotKind, bytes: &[u8]) -> crate::Result<()>;
    /// Counts.
    fn count(&self, deed: Deed);
}

/// What was done with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Saved,
    /// Something newer was there.
    Superseded,
    Loaded,
    Absent,
    Failed,
    /// What was loaded was not believed.
    Refused,
    /// What was there was torn or foreign.
    SetAside,
}

/// The writes that one store still owes.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) store: Arc<dyn SnapshotStore>,
    owed: Mutex<Owed>,
    /// Something changed for the task that waits after a failure.
    wake: Notify,
    /// The task has nothing to do any more.
    idle: Notify,
}

#[derive(Debug, Default)]
struct Owed {
    jobs: HashMap<Turn, Job>,
    turns: VecDeque<Turn>,
    /// The job that the task is at.
    current: Option<Turn>,
    running: bool,
    /// Each job is tried once more, and no longer waited for.
    draining: bool,
    closed: bool,
    /// How often it failed in a row.
    failures: u32,
    /// A caller has waited for it in vain.
    slow: bool,
}

/// A key has one job of each sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sort {
    Write,
    Load,
}

type Turn = (SnapshotKey, Sort);

struct Job {
    /// Whom to ask what to write, or to give what was loaded; nobody to remove.
    of: Option<Weak<dyn Kept>>,
    /// What is kept was to be removed first: it counts for nothing.
    anew: bool,
    since: Instant,
    /// Counts marks, so that one that comes during a write is not taken for written.
    mark: u64,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("since", &self.since).finish_non_exhaustive()
    }
}

impl Queue {
    pub(crate) fn new(store: Arc<dyn SnapshotStore>) -> Arc<Self> {
        Arc::new(Self { store, owed: Mutex::default(), wake: Notify::new(), idle: Notify::new() })
    }

    /// Has `of` written, or what is kept removed. Never waits.
    pub(crate) fn mark(self: &Arc<Self>, key: SnapshotKey, of: Option<Weak<dyn Kept>>) {
        self.owe((key, Sort::Write), of);
    }

    /// Has what is kept loaded as soon as the store works.
    pub(crate) fn mark_load(self: &Arc<Self>, key: SnapshotKey, of: Weak<dyn Kept>) {
        self.owe((key, Sort::Load), Some(of));
    }

    fn owe(self: &Arc<Self>, turn: Turn, of: Option<Weak<dyn Kept>>) {
        let mut owed = lock(&self.owed);
        if owed.closed {
            return;
        }
        match owed.jobs.get_mut(&turn) {
            Some(job) => {
                job.anew |= job.of.is_none();
                (job.of, job.mark) = (of, job.mark.wrapping_add(1));
            }
            None => {
                owed.turns.push_back(turn.clone());
                owed.jobs.insert(turn, Job { of, anew: false, since: socket_now(), mark: 0 });
            }
        }
        self.keep_running(owed);
    }

    /// Whether something is to be removed or written anew, and so is not there any more for who loads.
    fn removes(&self, key: &SnapshotKey) -> bool {
        lock(&self.owed).jobs.get(&(key.clone(), Sort::Write)).is_some_and(|job| job.anew || job.of.is_none())
    }

    /// How long a write has been owed.
    pub(crate) fn lag(&self, key: &SnapshotKey) -> Duration {
        let since = lock(&self.owed).jobs.get(&(key.clone(), Sort::Write)).map(|job| job.since);
        since.map_or(Duration::ZERO, |since| socket_now().saturating_duration_since(since))
    }

    /// Whether nobody should wait for it now: it fails, or has been waited for in vain.
    pub(crate) fn keeps_waiting(&self) -> bool {
        let owed = lock(&self.owed);
        owed.failures > 0 || owed.slow
    }

    /// Whether the last call failed.
    pub(crate) fn is_failing(&self) -> bool {
        lock(&self.owed).failures > 0
    }

    /// Says whether who waited for it waited in vain.
    pub(crate) fn was_slow(&self, slow: bool) {
        lock(&self.owed).slow = slow;
    }

    /// Takes note of how a call went. Says so once when it turns.
    fn note(&self, failed: Option<&StoreError>) {
        let mut owed = lock(&self.owed);
        let before = owed.failures;
        match failed {
            None => owed.failures = 0,
            Some(error) if !error.concerns_content() => owed.failures = before.saturating_add(1),
            Some(_) => {}
        }
        let (now, store, pending) = (owed.failures, self.store.name(), owed.jobs.len());
        drop(owed);
        match failed {
            Some(error) if before == 0 && now > 0 => {
                tracing::warn!(store, kind = error.kind().as_str(), %error, pending, "the store fails; keys are served from memory");
            }
            None if before > 0 => tracing::info!(store, failures = before, pending, "the store works again"),
            _ => {}
        }
    }

    /// Waits until everything owed was tried once more, or `until`. Returns whether nothing is owed.
    pub(crate) async fn drain(self: &Arc<Self>, until: Instant) -> bool {
        lock(&self.owed).draining = true;
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Enlists before looking, so that an end between look and wait is not missed.
            idle.as_mut().enable();
            {
                let owed = lock(&self.owed);
                if owed.jobs.is_empty() {
                    return true;
                }
                if !self.keep_running(owed) {
                    return false;
                }
            }
            self.wake.notify_one();
            if timeout_at(until, idle).await.is_err() {
                return false;
            }
            if lock(&self.owed).failures > 0 {
                return lock(&self.owed).jobs.is_empty();
            }
        }
    }

    /// Forgets what is owed, and ends the task.
    pub(crate) fn close(&self) {
        let mut owed = lock(&self.owed);
        owed.closed = true;
        owed.jobs.clear();
        owed.turns.clear();
        drop(owed);
        self.wake.notify_one();
    }

    /// Spawns the task unless it runs. Without a runtime, the next who marks something and has one does.
    fn keep_running(self: &Arc<Self>, mut owed: MutexGuard<'_, Owed>) -> bool {
        if owed.running || owed.jobs.is_empty() {
            return true;
        }
        let Ok(runtime) = Handle::try_current() else { return false };
        owed.running = true;
        // A runtime that is shutting down drops the task at once, and that takes the lock.
        drop(owed);
        runtime.spawn(run(Running(self.clone())));
        true
    }
}

/// Says that the task is gone, also when its runtime went away: what it owed is owed still.
struct Running(Arc<Queue>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut owed = lock(&self.0.owed);
        if let Some(turn) = owed.current.take() {
            owed.turns.push_back(turn);
        }
        owed.running = false;
        drop(owed);
        self.0.idle.notify_waiters();
    }
}

async fn run(running: Running) {
    let queue = &running.0;
    loop {
        let (turn, of, mark) = {
            let mut owed = lock(&queue.owed);
            let Some(turn) = owed.turns.pop_front() else {
                // Under the lock: who marks from now on spawns anew.
                owed.running = false;
                break;
            };
            let Some(job) = owed.jobs.get(&turn) else { continue };
            let todo = (turn.clone(), job.of.clone(), job.mark);
            owed.current = Some(turn);
            todo
        };
        let ended = queue.work(&turn, of).await;
        let (failures, draining) = {
            let mut owed = lock(&queue.owed);
            owed.current = None;
            let again = match &ended {
                Ok(()) => owed.jobs.get(&turn).is_some_and(|job| job.mark != mark),
                // It would not get smaller.
                Err(error) => error.kind() != StoreErrorKind::TooLarge,
            };
            if again {
                owed.turns.push_back(turn);
            } else {
                owed.jobs.remove(&turn);
            }
            (owed.failures, owed.draining)
        };
        if failures > 0 {
            if draining {
                // Who waits has a deadline, and the store does not work.
                break;
            }
            let wait = FIRST_WAIT.saturating_mul(1 << (failures - 1).min(8)).min(LONGEST_WAIT);
            let _ = timeout(wait, queue.wake.notified()).await;
        }
    }
}

impl Queue {
    async fn work(&self, (key, sort): &Turn, of: Option<Weak<dyn Kept>>) -> Result<(), StoreError> {
        let Some(of) = of else {
            return self.call(self.store.remove(key)).await;
        };
        // A provider that is gone keeps what it wrote last.
        let Some(kept) = of.upgrade() else { return Ok(()) };
        match sort {
            Sort::Write => self.save(&kept, key.kind).await,
            Sort::Load => self.load(&kept, key.kind).await.map(|_| ()),
        }
    }

    /// Writes what there is to write, and counts how it went.
    pub(super) async fn save(&self, kept: &Arc<dyn Kept>, kind: SnapshotKind) -> Result<(), StoreError> {
        if kind == SnapshotKind::Denials && kept.entry(kind).is_some() {
            // What others denied is not written over: it is taken first. What is not believed is.
            match self.load(kept, kind).await {
                Ok(_) => {}
                Err(error) if error.concerns_content() => {}
                Err(error) => return Err(error),
            }
        }
        let Some(entry) = kept.entry(kind) else { return Ok(()) };
        let saved = self.call(self.store.save(&kept.key(kind), &entry)).await;
        kept.count(match &saved {
            Ok(true) => Deed::Saved,
            Ok(false) => Deed::Superseded,
            Err(_) => Deed::Failed,
        });
        saved.map(|_| ())
    }

    /// Gives `kept` what the store kept of it. Returns why that was not believed, if it was not.
    pub(super) async fn load(
        &self,
        kept: &Arc<dyn Kept>,
        kind: SnapshotKind,
    ) -> Result<Option<crate::Error>, StoreError> {
        let loaded = self.ask(kept, kind).await;
        give(kept, kind, loaded)
    }

    /// Both at once; denials are given first, so that no denied key is served in between. What failed.
    pub(super) async fn load_both(&self, kept: &Arc<dyn Kept>) -> Vec<(SnapshotKind, StoreError)> {
        const KINDS: [SnapshotKind; 2] = [SnapshotKind::Denials, SnapshotKind::Keys];
        let [denials, keys] = KINDS.map(|kind| self.ask(kept, kind));
        let (denials, keys) = tokio::join!(denials, keys);
        let given =
            KINDS.into_iter().zip([denials, keys]).map(|(kind, loaded)| (kind, give(kept, kind, loaded)));
        given.filter_map(|(kind, given)| Some((kind, given.err()?))).collect()
    }

    async fn ask(&self, kept: &Arc<dyn Kept>, kind: SnapshotKind) -> Result<Option<Vec<u8>>, StoreError> {
        let key = kept.key(kind);
        if self.removes(&key) {
            return Ok(None);
        }
        self.call(self.store.load(&key, kept.most())).await
    }

    /// A call of the store, no longer than it may take.
    async fn call<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let limit = self.store.time_limit();
        let done = match timeout_at(later(socket_now(), limit), call).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::out_of_time(limit)),
        };
        self.note(done.as_ref().err());
        done
    }
}

/// Gives what was loaded, and counts how it went.
fn give(
    kept: &Arc<dyn Kept>,
    kind: SnapshotKind,
    loaded: Result<Option<Vec<u8>>, StoreError>,
) -> Result<Option<crate::Error>, StoreError> {
    let taken = match &loaded {
        Ok(Some(bytes)) => Some(kept.clone().take(kind, bytes)),
        Ok(None) | Err(_) => None,
    };
    kept.count(match (&loaded, &taken) {
        (Ok(_), Some(Err(_))) => Deed::Refused,
        (Ok(Some(_)), _) => Deed::Loaded,
        (Ok(None), _) => Deed::Absent,
        (Err(error), _) if error.concerns_content() => Deed::SetAside,
        (Err(_), _) => Deed::Failed,
    });
    loaded.map(|_| taken.and_then(Result::err))
}
