//! A store in memory that hangs, fails or lies when told to, and the duties that every store owes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jwks_cache::store::{
    SnapshotEntry, SnapshotKey, SnapshotKind, SnapshotStore, StoreError, StoreErrorKind, Storing,
};
use tokio::sync::watch;

/// A store in memory. Clones are one store, so that one registry's keys can be another's.
///
/// ```
/// use std::sync::Arc;
/// use jwks_cache::Registry;
/// use jwks_cache_testkit::MemoryStore;
///
/// let store = MemoryStore::new();
/// let registry = Registry::builder().with_store(Arc::new(store.clone())).build();
/// store.hang(); // from now on it answers nobody
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStore(Arc<Inner>, &'static str);

#[derive(Debug)]
struct Inner {
    kept: Mutex<BTreeMap<SnapshotKey, (u64, Vec<u8>)>>,
    mood: watch::Sender<Mood>,
    calls: watch::Sender<Calls>,
}

/// What a [`MemoryStore`] was asked so far; counted when a call begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Loads.
    pub loads: u64,
    /// Saves.
    pub saves: u64,
    /// Removals.
    pub removes: u64,
}

#[derive(Clone, Copy, Debug)]
enum Mood {
    Works,
    Slow(Duration),
    Fails(StoreErrorKind),
    RefusesWrites,
    Hangs,
}

impl MemoryStore {
    /// An empty store that works.
    #[must_use]
    pub fn new() -> Self {
        let (mood, calls) = (watch::Sender::new(Mood::Works), watch::Sender::new(Calls::default()));
        Self(Arc::new(Inner { kept: Mutex::default(), mood, calls }), "jwks-cache")
    }

    /// The same store under another namespace, as one who writes there without a right to would have it.
    #[must_use]
    pub fn namespace(&self, namespace: &'static str) -> Self {
        Self(self.0.clone(), namespace)
    }

    /// Answers again, whom it kept waiting too.
    pub fn work(&self) {
        self.0.mood.send_replace(Mood::Works);
    }

    /// Takes so long for each call, in tokio's time.
    pub fn slow_down(&self, span: Duration) {
        self.0.mood.send_replace(Mood::Slow(span));
    }

    /// Fails each call in this way.
    pub fn fail(&self, kind: StoreErrorKind) {
        self.0.mood.send_replace(Mood::Fails(kind));
    }

    /// Loads, and refuses each save and removal, as a full or read-only store does.
    pub fn refuse_writes(&self) {
        self.0.mood.send_replace(Mood::RefusesWrites);
    }

    /// Answers nobody.
    pub fn hang(&self) {
        self.0.mood.send_replace(Mood::Hangs);
    }

    /// What is kept, by whoever has access.
    #[must_use]
    pub fn look(&self, key: &SnapshotKey) -> Option<Vec<u8>> {
        self.kept().get(key).map(|(_, bytes)| bytes.clone())
    }

    /// Puts something there, as an attacker with write access does.
    pub fn put(&self, key: &SnapshotKey, bytes: impl Into<Vec<u8>>) {
        self.kept().insert(key.clone(), (0, bytes.into()));
    }

    /// Loses everything, as an eviction or `FLUSHALL` does.
    pub fn flush(&self) {
        self.kept().clear();
    }

    /// All that is kept, by key: what a replica holds at this moment.
    #[must_use]
    pub fn everything(&self) -> Vec<(SnapshotKey, Vec<u8>)> {
        self.kept().iter().map(|(key, (_, bytes))| (key.clone(), bytes.clone())).collect()
    }

    /// What it was asked so far.
    #[must_use]
    pub fn calls(&self) -> Calls {
        *self.0.calls.borrow()
    }

    /// Waits until it was asked what `enough` says.
    pub async fn wait_for(&self, mut enough: impl FnMut(&Calls) -> bool) {
        // The sender lives as long as this does.
        let _ = self.0.calls.subscribe().wait_for(|calls| enough(calls)).await;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<SnapshotKey, (u64, Vec<u8>)>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and does what it is told to do with it.
    async fn called(&self, writes: bool, count: impl FnOnce(&mut Calls)) -> Result<(), StoreError> {
        self.0.calls.send_modify(count);
        let mut mood = self.0.mood.subscribe();
        // It hangs until that changes.
        let now = mood.wait_for(|mood| !matches!(mood, Mood::Hangs)).await.map(|mood| *mood);
        match now {
            Ok(Mood::Slow(span)) => tokio::time::sleep(span).await,
            Ok(Mood::RefusesWrites) if writes => {
                return Err(StoreError::new(StoreErrorKind::Refused, "told to refuse writes"));
            }
            Ok(Mood::Fails(kind)) => return Err(StoreError::new(kind, "told to fail")),
            _ => {}
        }
        Ok(())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl SnapshotStore for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    /// 1 s: longer than a registration waits, so that what it does without waiting can be seen.
    fn time_limit(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn namespace(&self) -> &str {
        self.1
    }

    fn load<'a>(&'a self, key: &'a SnapshotKey, most: u64) -> Storing<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            self.called(false, |calls| calls.loads += 1).await?;
            match self.look(key) {
                Some(bytes) if bytes.len() as u64 > most => {
                    Err(StoreError::new(StoreErrorKind::TooLarge, format!("more than {most} bytes")))
                }
                kept => Ok(kept),
            }
        })
    }

    fn save<'a>(&'a self, key: &'a SnapshotKey, entry: &'a SnapshotEntry) -> Storing<'a, bool> {
        Box::pin(async move {
            self.called(true, |calls| calls.saves += 1).await?;
            let mut kept = self.kept();
            if kept.get(key).is_some_and(|(order, bytes)| !entry.replaces(bytes, *order)) {
                return Ok(false);
            }
            kept.insert(key.clone(), (entry.order, entry.bytes.clone()));
            Ok(true)
        })
    }

    fn remove<'a>(&'a self, key: &'a SnapshotKey) -> Storing<'a, ()> {
        Box::pin(async move {
            self.called(true, |calls| calls.removes += 1).await?;
            self.kept().remove(key);
            Ok(())
        })
    }
}

/// Sees whether a store keeps the duties of [`SnapshotStore`]. It should work and have nothing under the tenants
/// `conformance` and `conformance-2`; what is written there is removed again.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use jwks_cache_testkit::{MemoryStore, store_conformance};
///
/// store_conformance(Arc::new(MemoryStore::new())).await;
/// # });
/// ```
///
/// # Panics
/// When it does not keep one; the message says which.
pub async fn store_conformance(store: Arc<dyn SnapshotStore>) {
    const MOST: u64 = 1 << 20;
    let store = &store;
    let key = |tenant: &str, provider: &str, kind| SnapshotKey {
        tenant: tenant.to_owned(),
        provider: provider.to_owned(),
        kind,
    };
    // As JSON, as a store may read what it keeps; of every byte that a text can have.
    let text: String = (0..=255_u8).map(char::from).collect();
    let entry = |order: u64, mark: &str| {
        let value = serde_json::json!({"order": order, "mark": mark, "text": text});
        let keep_for = Some(Duration::from_secs(600));
        SnapshotEntry {
            bytes: value.to_string().into_bytes(),
            order,
            newest: 1_000,
            keep_for,
            instead_of: None,
        }
    };
    let load = async |key: &SnapshotKey| store.load(key, MOST).await.expect("loading works");
    let save =
        async |key: &SnapshotKey, entry: &SnapshotEntry| store.save(key, entry).await.expect("saving works");

    // Names that are near to each other, and would not all be names of files.
    let near = [
        key("conformance", "a", SnapshotKind::Keys),
        key("conformance", "a", SnapshotKind::Denials),
        key("conformance", "A", SnapshotKind::Keys),
        key("conformance", "a_", SnapshotKind::Keys),
        key("conformance-2", "a", SnapshotKind::Keys),
        key("conformance", "con", SnapshotKind::Keys),
        key("conformance", &"x".repeat(64), SnapshotKind::Keys),
    ];
    for name in &near {
        assert_eq!(load(name).await, None, "what was never saved is absent: {name:?}");
        store.remove(name).await.expect("removing what is not there is no failure");
    }
    for (n, name) in near.iter().enumerate() {
        assert!(save(name, &entry(10, &n.to_string())).await, "the first is kept");
    }
    for (n, name) in near.iter().enumerate() {
        let kept = load(name).await;
        assert_eq!(
            kept,
            Some(entry(10, &n.to_string()).bytes),
            "each key keeps its own, byte for byte: {name:?}"
        );
    }

    let [name, ..] = &near;
    // what is saved, in this order: its order, whether it is kept
    let saves = [(9, false), (10, true), (11, true), (1_000, true), (999, false), (1_000, true)];
    for (n, (order, is_kept)) in saves.into_iter().enumerate() {
        let before = load(name).await;
        let next = entry(order, &format!("save {n}"));
        assert_eq!(save(name, &next).await, is_kept, "older never replaces newer: save {n} of order {order}");
        assert_eq!(load(name).await, if is_kept { Some(next.bytes) } else { before }, "save {n}");
    }
    let from_the_future = SnapshotEntry { newest: u64::MAX, ..entry(5_000, "future") };
    assert!(save(name, &from_the_future).await);
    assert!(save(name, &entry(20, "now")).await, "what came from a wrong clock is replaced");

    let size = entry(20, "now").bytes.len() as u64;
    assert!(store.load(name, size).await.is_ok(), "as many bytes as are allowed");
    let refused = store.load(name, size - 1).await.expect_err("one byte too many");
    assert_eq!(refused.kind(), StoreErrorKind::TooLarge);

    let for_ever = SnapshotEntry { keep_for: None, ..entry(21, "for ever") };
    assert!(save(name, &for_ever).await && load(name).await == Some(for_ever.bytes));

    // what it is instead of, whether it is kept
    let kept = entry(21, "for ever").bytes;
    for (instead_of, is_kept) in [(vec![], false), (entry(20, "now").bytes, false), (kept, true)] {
        let next = SnapshotEntry { instead_of: Some(instead_of), ..entry(15, "instead") };
        assert_eq!(save(name, &next).await, is_kept, "only what it was put together from is replaced");
    }
    assert_eq!(load(name).await, Some(entry(15, "instead").bytes));
    store.remove(name).await.expect("removing works");
    let next = SnapshotEntry { instead_of: Some(entry(15, "instead").bytes), ..entry(15, "again") };
    assert!(save(name, &next).await, "what is gone stands in nobody's way");

    // At once: whatever comes last, the newest stays.
    let saves: Vec<_> = (100..116_u64)
        .map(|order| {
            let (store, name, entry) = (store.clone(), name.clone(), entry(order, "at once"));
            tokio::spawn(async move { store.save(&name, &entry).await })
        })
        .collect();
    for save in saves {
        save.await.expect("a save does not panic").expect("saving works");
    }
    assert_eq!(load(name).await, Some(entry(115, "at once").bytes), "of saves at once the newest stays");

    for order in 116..132_u64 {
        // Given up before it is done, or never begun.
        let next = entry(order, "given up");
        let _ = tokio::time::timeout(Duration::ZERO, store.save(name, &next)).await;
    }
    assert!(save(name, &entry(200, "after")).await, "a dropped save leaves the store usable");
    assert_eq!(load(name).await, Some(entry(200, "after").bytes));

    for name in &near {
        store.remove(name).await.expect("removing works");
        assert_eq!(load(name).await, None, "what was removed is gone: {name:?}");
    }
    assert!(save(name, &entry(1, "anew")).await, "after a removal the order begins anew");
    store.remove(name).await.expect("removing works");
}
