//! The duties of stores: those at hand keep them, and one that breaks any is found out.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use jwks_cache::FileStore;
use jwks_cache::store::{SnapshotEntry, SnapshotKey, SnapshotKind, SnapshotStore, Storing};
use jwks_cache_testkit::{MemoryStore, store_conformance};

/// A folder that is gone when the test is.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("jwks-cache-testkit-{}-{number}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn the_stores_at_hand_keep_their_duties() {
    store_conformance(Arc::new(MemoryStore::new())).await;
    let folder = Folder::new();
    store_conformance(Arc::new(FileStore::open(&folder.0).unwrap())).await;
}

/// How a store breaks its duties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breach {
    IgnoresOrder,
    KeepsTheFuture,
    RefusesEqualOrder,
    MixesKinds,
    MixesCases,
    LosesAByte,
    ReadsEverything,
    RemovesNothing,
    FailsOnNothing,
}

#[derive(Debug)]
struct Broken(MemoryStore, Breach);

impl Broken {
    fn key(&self, key: &SnapshotKey) -> SnapshotKey {
        let mut key = key.clone();
        match self.1 {
            Breach::MixesKinds => key.kind = SnapshotKind::Keys,
            Breach::MixesCases => key.provider = key.provider.to_lowercase(),
            _ => {}
        }
        key
    }
}

impl SnapshotStore for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn load<'a>(&'a self, key: &'a SnapshotKey, most: u64) -> Storing<'a, Option<Vec<u8>>> {
        let most = if self.1 == Breach::ReadsEverything { u64::MAX } else { most };
        Box::pin(async move { self.0.load(&self.key(key), most).await })
    }

    fn save<'a>(&'a self, key: &'a SnapshotKey, entry: &'a SnapshotEntry) -> Storing<'a, bool> {
        let mut entry = entry.clone();
        match self.1 {
            Breach::IgnoresOrder => entry.newest = 0,
            Breach::KeepsTheFuture => entry.newest = u64::MAX,
            Breach::LosesAByte => drop(entry.bytes.pop()),
            _ => {}
        }
        Box::pin(async move {
            let key = self.key(key);
            if self.1 == Breach::RefusesEqualOrder
                && let Some(kept) = self.0.look(&key)
                && kept.starts_with(format!("{{\"mark\":\"save 3\",\"order\":{}", entry.order).as_bytes())
            {
                return Ok(false);
            }
            self.0.save(&key, &entry).await
        })
    }

    fn remove<'a>(&'a self, key: &'a SnapshotKey) -> Storing<'a, ()> {
        Box::pin(async move {
            match self.1 {
                Breach::RemovesNothing => Ok(()),
                Breach::FailsOnNothing if self.0.look(key).is_none() => {
                    Err(jwks_cache::store::StoreError::new(
                        jwks_cache::store::StoreErrorKind::Refused,
                        "not there",
                    ))
                }
                _ => self.0.remove(&self.key(key)).await,
            }
        })
    }
}

#[tokio::test]
async fn a_store_that_breaks_a_duty_is_found_out() {
    use Breach::*;
    let breaches = [
        IgnoresOrder,
        KeepsTheFuture,
        RefusesEqualOrder,
        MixesKinds,
        MixesCases,
        LosesAByte,
        ReadsEverything,
        RemovesNothing,
        FailsOnNothing,
    ];
    for breach in breaches {
        let store = Arc::new(Broken(MemoryStore::new(), breach));
        let found = tokio::spawn(store_conformance(store)).await;
        assert!(found.is_err_and(|error| error.is_panic()), "{breach:?} was not found out");
    }
}
