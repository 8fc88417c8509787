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

/// The most removals that are owed. Nobody is left who would limit them, and a dead store takes none off.
const MOST_REMOVALS: usize = 1 << 16;

/// How often a record is put together anew when others write it at the same time.
const MOST_ROUNDS: usize = 16;

/// Something that is kept: asked for what to write when its turn comes, so that the newest is written.
pub(crate) trait Kept: Send + Sync {
    /// Its name in stores.
    fn key(&self, kind: SnapshotKind) -> SnapshotKey;
    /// Whether there is anything (still) to write.
    fn keeps(&self, kind: SnapshotKind) -> bool;
    /// What to write in a store of this namespace; `None` when there is nothing.
    fn entry(&self, kind: SnapshotKind, namespace: &str) -> Option<SnapshotEntry>;
    /// The most bytes that what it wrote can have.
    fn most(&self, kind: SnapshotKind) -> u64;
    /// Takes what a store of this namespace kept.
    ///
    /// # Errors
    /// Why it was not believed.
    fn take(self: Arc<Self>, kind: SnapshotKind, namespace: &str, bytes: &[u8]) -> crate::Result<()>;
    /// Says that what a store kept cannot even be read.
    fn tell_unusable(&self, error: &StoreError);
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
    /// How many tries in a row were in vain since.
    in_vain: usize,
    closed: bool,
    /// How many of the jobs are removals.
    removals: usize,
    /// How many jobs failed in a row.
    failures: u32,
    /// The last call did not reach it, or got no answer.
    unavailable: bool,
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

#[derive(Clone)]
struct Job {
    /// Whom to ask what to write, or to give what was loaded; nobody where there is only something to remove.
    of: Option<Weak<dyn Kept>>,
    /// What is kept is to be removed first: it counts for nothing.
    removes: bool,
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

    /// Has `of` written. Never waits.
    pub(crate) fn mark(self: &Arc<Self>, key: SnapshotKey, of: Weak<dyn Kept>) {
        self.owe((key, Sort::Write), Some(of));
    }

    /// Has what is kept removed; nobody is left to give it to. Never waits. `false` where too many removals are owed
    /// already.
    pub(crate) fn mark_removal(self: &Arc<Self>, key: SnapshotKey) -> bool {
        let load = (key, Sort::Load);
        lock(&self.owed).give_up(&load);
        self.owe((load.0, Sort::Write), None)
    }

    /// Has what is kept loaded as soon as the store works.
    pub(crate) fn mark_load(self: &Arc<Self>, key: SnapshotKey, of: Weak<dyn Kept>) {
        self.owe((key, Sort::Load), Some(of));
    }

    fn owe(self: &Arc<Self>, turn: Turn, of: Option<Weak<dyn Kept>>) -> bool {
        let mut owed = lock(&self.owed);
        if owed.closed {
            return true;
        }
        let removes = of.is_none();
        let is_one = owed.jobs.get(&turn).is_some_and(|job| job.removes);
        if removes && !is_one && owed.removals >= MOST_REMOVALS {
            owed.give_up(&turn);
            return false;
        }
        match owed.jobs.get_mut(&turn) {
            Some(job) => {
                job.removes |= removes;
                (job.of, job.mark) = (of, job.mark.wrapping_add(1));
                owed.removals += usize::from(removes && !is_one);
            }
            None => {
                owed.turns.push_back(turn.clone());
                owed.jobs.insert(turn, Job { of, removes, since: socket_now(), mark: 0 });
                owed.removals += usize::from(removes);
            }
        }
        self.keep_running(owed);
        true
    }

    /// Whether what is kept is to be removed, and so is not there any more for who loads.
    fn removes(&self, key: &SnapshotKey) -> bool {
        lock(&self.owed).jobs.get(&(key.clone(), Sort::Write)).is_some_and(|job| job.removes)
    }

    /// How long a write has been owed.
    pub(crate) fn lag(&self, key: &SnapshotKey) -> Duration {
        let since = lock(&self.owed).jobs.get(&(key.clone(), Sort::Write)).map(|job| job.since);
        since.map_or(Duration::ZERO, |since| socket_now().saturating_duration_since(since))
    }

    /// Whether nobody should wait for it now: it is away, or has been waited for in vain.
    pub(crate) fn keeps_waiting(&self) -> bool {
        let owed = lock(&self.owed);
        owed.unavailable || owed.slow
    }

    /// Whether it cannot be reached. One that refuses to write may load.
    pub(crate) fn is_away(&self) -> bool {
        lock(&self.owed).unavailable
    }

    /// Says whether who waited for it waited in vain.
    pub(crate) fn was_slow(&self, slow: bool) {
        lock(&self.owed).slow = slow;
    }

    /// Takes note of how a job went that asked the store something. Says so once when it turns.
    fn note(&self, failed: Option<&StoreError>) {
        let mut owed = lock(&self.owed);
        let before = owed.failures;
        owed.failures = if failed.is_some() { before.saturating_add(1) } else { 0 };
        let (store, pending) = (self.store.name(), owed.jobs.len());
        drop(owed);
        match failed {
            Some(error) if before == 0 => {
                tracing::warn!(store, kind = error.kind().as_str(), %error, pending, "the store fails; keys are served from memory");
            }
            None if before > 0 => tracing::info!(store, failures = before, pending, "the store works again"),
            _ => {}
        }
    }

    /// Waits until everything owed was tried once more, or `until`. Returns whether nothing is owed.
    pub(crate) async fn drain(self: &Arc<Self>, until: Instant) -> bool {
        {
            let mut owed = lock(&self.owed);
            (owed.draining, owed.in_vain) = (true, 0);
            // If there is no time for all: keys can be fetched again.
            owed.turns.make_contiguous().sort_by_key(|(key, _)| key.kind != SnapshotKind::Denials);
        }
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
            let owed = lock(&self.owed);
            if owed.in_vain > 0 {
                return owed.jobs.is_empty();
            }
        }
    }

    /// Forgets what is owed, and ends the task.
    pub(crate) fn close(&self) {
        let mut owed = lock(&self.owed);
        owed.closed = true;
        owed.jobs.clear();
        owed.turns.clear();
        owed.removals = 0;
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
        runtime.spawn(run(Running { queue: self.clone(), ended: false }));
        true
    }
}

/// Says that the task is gone, also when its runtime went away: what it owed is owed still.
struct Running {
    queue: Arc<Queue>,
    /// It has said so under the lock; another may run by now.
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            let mut owed = lock(&self.queue.owed);
            if let Some(turn) = owed.current.take() {
                owed.turns.push_back(turn);
            }
            owed.running = false;
        }
        self.queue.idle.notify_waiters();
    }
}

async fn run(mut running: Running) {
    let queue = running.queue.clone();
    loop {
        let (turn, job) = {
            let mut owed = lock(&queue.owed);
            let Some(turn) = owed.turns.pop_front() else {
                // Under the lock: who marks from now on spawns anew.
                owed.running = false;
                running.ended = true;
                break;
            };
            let Some(job) = owed.jobs.get(&turn).cloned() else { continue };
            owed.current = Some(turn.clone());
            (turn, job)
        };
        let ended = queue.work(&turn, &job).await;
        // What is there would not get better, nor what is written smaller; the store works.
        let failed = ended.as_ref().err().filter(|error| !error.concerns_content());
        if failed.is_some() || matches!(ended, Ok(true)) {
            queue.note(failed);
        }
        let wait = {
            let mut owed = lock(&queue.owed);
            owed.current = None;
            let again = match &ended {
                Ok(_) => owed.jobs.get(&turn).is_some_and(|now| now.mark != job.mark),
                Err(_) => failed.is_some(),
            };
            if again {
                owed.turns.push_back(turn);
            } else if owed.jobs.remove(&turn).is_some_and(|job| job.removes) {
                owed.removals = owed.removals.saturating_sub(1);
            }
            owed.in_vain = if failed.is_some() { owed.in_vain + 1 } else { 0 };
            if owed.draining && owed.in_vain > 0 && owed.in_vain >= owed.jobs.len() {
                // Each was tried, and none worked: who waits need not wait longer.
                break;
            }
            let wait =
                FIRST_WAIT.saturating_mul(1 << owed.failures.saturating_sub(1).min(8)).min(LONGEST_WAIT);
            (failed.is_some() && !owed.draining).then_some(wait)
        };
        if let Some(wait) = wait {
            let _ = timeout(wait, queue.wake.notified()).await;
        }
    }
}

impl Owed {
    /// Owes it no more: nobody is left for it, and it is no removal.
    fn give_up(&mut self, turn: &Turn) {
        if self.current.as_ref() == Some(turn) {
            // The task is at it, and finds nobody if there is a next time.
            self.jobs.entry(turn.clone()).and_modify(|job| job.of = None);
        } else if self.jobs.remove(turn).is_some() {
            self.turns.retain(|other| other != turn);
        }
    }
}

impl Queue {
    /// Does a job. Returns whether the store was asked for anything.
    async fn work(&self, turn: &Turn, job: &Job) -> Result<bool, StoreError> {
        let (key, sort) = turn;
        if job.removes {
            self.call(self.store.remove(key)).await?;
            let mut owed = lock(&self.owed);
            let same = owed.jobs.get_mut(turn).filter(|now| now.mark == job.mark);
            if let Some(now) = same {
                now.removes = false;
                owed.removals = owed.removals.saturating_sub(1);
            }
        }
        // A provider that is gone keeps what it wrote last.
        let Some(kept) = job.of.as_ref().and_then(Weak::upgrade) else { return Ok(job.removes) };
        match sort {
            Sort::Write => self.save(&kept, key.kind).await.map(|wrote| wrote || job.removes),
            Sort::Load => self.load(&kept, key.kind).await.map(|_| true),
        }
    }

    /// Writes what there is to write, and counts how it went. Returns whether there was anything.
    pub(super) async fn save(&self, kept: &Arc<dyn Kept>, kind: SnapshotKind) -> Result<bool, StoreError> {
        let key = kept.key(kind);
        for _ in 0..MOST_ROUNDS {
            let mut instead_of = None;
            if kind == SnapshotKind::Denials && kept.keeps(kind) && !self.removes(&key) {
                // What others denied is not written over: it is taken first. What is not believed is.
                let loaded = self.ask(kept, kind).await;
                instead_of = loaded.as_ref().ok().map(|kept| kept.clone().unwrap_or_default());
                match self.give(kept, kind, loaded) {
                    Err(error) if !error.concerns_content() => return Err(error),
                    _ => {}
                }
            }
            let Some(entry) = kept.entry(kind, self.store.namespace()) else { return Ok(false) };
            let merges = instead_of.is_some();
            let saved = self.call(self.store.save(&key, &SnapshotEntry { instead_of, ..entry })).await;
            if merges && matches!(saved, Ok(false)) {
                continue;
            }
            if !kept.keeps(kind) {
                // It was forgotten meanwhile, and the removal may have come before this.
                return self.call(self.store.remove(&key)).await.map(|()| true);
            }
            kept.count(match &saved {
                Ok(true) => Deed::Saved,
                Ok(false) => Deed::Superseded,
                Err(_) => Deed::Failed,
            });
            return saved.map(|_| true);
        }
        kept.count(Deed::Failed);
        Err(StoreError::new(StoreErrorKind::Refused, "others write the same record all the time"))
    }

    /// Gives `kept` what the store kept of it. Returns why that was not believed, if it was not.
    pub(super) async fn load(
        &self,
        kept: &Arc<dyn Kept>,
        kind: SnapshotKind,
    ) -> Result<Option<crate::Error>, StoreError> {
        let loaded = self.ask(kept, kind).await;
        self.give(kept, kind, loaded)
    }

    /// Both at once; denials are given first, so that no denied key is served in between. What failed.
    pub(super) async fn load_both(&self, kept: &Arc<dyn Kept>) -> Vec<(SnapshotKind, StoreError)> {
        const KINDS: [SnapshotKind; 2] = [SnapshotKind::Denials, SnapshotKind::Keys];
        let [denials, keys] = KINDS.map(|kind| self.ask(kept, kind));
        let (denials, keys) = tokio::join!(denials, keys);
        let given = KINDS
            .into_iter()
            .zip([denials, keys])
            .map(|(kind, loaded)| (kind, self.give(kept, kind, loaded)));
        given.filter_map(|(kind, given)| Some((kind, given.err()?))).collect()
    }

    async fn ask(&self, kept: &Arc<dyn Kept>, kind: SnapshotKind) -> Result<Option<Vec<u8>>, StoreError> {
        let key = kept.key(kind);
        if self.removes(&key) {
            return Ok(None);
        }
        self.call(self.store.load(&key, kept.most(kind))).await
    }

    /// Gives what was loaded, and counts how it went.
    fn give(
        &self,
        kept: &Arc<dyn Kept>,
        kind: SnapshotKind,
        loaded: Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<Option<crate::Error>, StoreError> {
        let taken = match &loaded {
            Ok(Some(bytes)) => Some(kept.clone().take(kind, self.store.namespace(), bytes)),
            Ok(None) => None,
            Err(error) => {
                if error.concerns_content() {
                    kept.tell_unusable(error);
                }
                None
            }
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

    /// A call of the store, no longer than it may take.
    async fn call<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let limit = self.store.time_limit();
        let done = match timeout_at(later(socket_now(), limit), call).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::out_of_time(limit)),
        };
        let away = done.as_ref().is_err_and(|error| error.kind() == StoreErrorKind::Unavailable);
        lock(&self.owed).unavailable = away;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Storing;

    /// A store that nobody asks: the tests have no runtime.
    #[derive(Debug)]
    struct Never;

    impl SnapshotStore for Never {
        fn name(&self) -> &'static str {
            "never"
        }
        fn load<'a>(&'a self, _: &'a SnapshotKey, _: u64) -> Storing<'a, Option<Vec<u8>>> {
            Box::pin(std::future::pending())
        }
        fn save<'a>(&'a self, _: &'a SnapshotKey, _: &'a SnapshotEntry) -> Storing<'a, bool> {
            Box::pin(std::future::pending())
        }
        fn remove<'a>(&'a self, _: &'a SnapshotKey) -> Storing<'a, ()> {
            Box::pin(std::future::pending())
        }
    }

    fn key(provider: usize) -> SnapshotKey {
        SnapshotKey { tenant: "acme".into(), provider: format!("p{provider}"), kind: SnapshotKind::Keys }
    }

    #[test]
    fn a_dead_store_is_owed_so_many_removals_and_no_more() {
        let queue = Queue::new(Arc::new(Never));
        for n in 0..2 * MOST_REMOVALS {
            assert_eq!(queue.mark_removal(key(n)), n < MOST_REMOVALS);
        }
        assert_eq!(lock(&queue.owed).jobs.len(), MOST_REMOVALS);
    }

    #[test]
    fn who_is_gone_is_owed_nothing_though_the_store_is_dead() {
        let queue = Queue::new(Arc::new(Never));
        let nobody = || -> Weak<dyn Kept> { Weak::<Nobody>::new() };
        for round in 0..3 {
            // Loads go whatever is owed, and writes where one more removal is too much.
            lock(&queue.owed).removals = MOST_REMOVALS;
            for n in 0..100 {
                queue.mark_load(key(n), nobody());
                queue.mark(key(n), nobody());
                assert!(!queue.mark_removal(key(n)));
            }
            let owed = lock(&queue.owed);
            assert_eq!((owed.jobs.len(), owed.turns.len()), (0, 0), "round {round}");
        }
        // What the task is at, it finds gone.
        let turn = (key(1), Sort::Load);
        queue.mark_load(key(1), nobody());
        let at_work = lock(&queue.owed).turns.pop_front();
        lock(&queue.owed).current = at_work;
        assert!(!queue.mark_removal(key(1)) && lock(&queue.owed).jobs[&turn].of.is_none());
        lock(&queue.owed).removals = MOST_REMOVALS - 1;
        assert!(queue.mark_removal(key(1)) && queue.mark_removal(key(1)), "the same is none too many");
    }

    /// A provider that is gone.
    struct Nobody;

    impl Kept for Nobody {
        fn key(&self, _: SnapshotKind) -> SnapshotKey {
            key(0)
        }
        fn keeps(&self, _: SnapshotKind) -> bool {
            false
        }
        fn entry(&self, _: SnapshotKind, _: &str) -> Option<SnapshotEntry> {
            None
        }
        fn most(&self, _: SnapshotKind) -> u64 {
            0
        }
        fn take(self: Arc<Self>, _: SnapshotKind, _: &str, _: &[u8]) -> crate::Result<()> {
            Ok(())
        }
        fn tell_unusable(&self, _: &StoreError) {}
        fn count(&self, _: Deed) {}
    }

    #[test]
    fn a_task_that_has_ended_takes_nothing_from_the_next_one() {
        let queue = Queue::new(Arc::new(Never));
        // The next one was spawned as soon as the first let go of the lock, and is at work.
        let turn = (key(1), Sort::Write);
        (lock(&queue.owed).running, lock(&queue.owed).current) = (true, Some(turn.clone()));
        drop(Running { queue: queue.clone(), ended: true });
        let owed = lock(&queue.owed);
        assert!(owed.running && owed.current == Some(turn) && owed.turns.is_empty());
    }
}
