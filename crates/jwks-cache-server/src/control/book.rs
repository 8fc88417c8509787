//! What outlives a restart of what was said at run time: registrations, with their secrets, and denials, with their reasons.
//! One file a provider, written and synced before anybody is told that it is done. Who may change it is not known here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use jwks_cache::store::{SnapshotEntry, SnapshotKey, SnapshotKind, StoreError, StoreErrorKind};
use jwks_cache::{FileStore, IdentityProviderRegistration, SnapshotStore};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// The version of what stands in a file.
const FORMAT: u32 = 1;

/// More than this about one provider is not kept: some 5,000 denials with their reasons.
const MOST_BYTES: u64 = 4 << 20;

/// How many denials wait for their turn though their callers hang up: each keeps a task. What comes beyond is in force as
/// well, and waits with its caller.
const MOST_WAITING: usize = 256;

/// A provider, by tenant and name.
pub(crate) type Name = (String, String);

/// What is kept about one provider.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) registered: Option<Registered>,
    /// By kid or thumbprint.
    #[serde(default)]
    pub(super) denials: BTreeMap<String, Denied>,
}

/// A registration that was made at run time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Registered {
    pub(super) registration: IdentityProviderRegistration,
    /// Never the same again, for a provider that was removed and registered anew neither.
    pub(super) revision: i64,
    pub(super) by: String,
}

/// Why, when and by whom something was denied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Denied {
    pub(super) reason: Option<String>,
    pub(super) at: DateTime<Utc>,
    pub(super) by: String,
}

/// What a file says.
#[derive(Serialize, Deserialize)]
struct Page {
    format: u32,
    tenant_id: String,
    provider_id: String,
    record: Record,
}

/// The book; see the top of this file.
#[derive(Debug)]
pub struct Book {
    store: Option<FileStore>,
    records: RwLock<BTreeMap<Name, Arc<Record>>>,
    turn: Arc<Mutex<()>>,
    waiting: Arc<Semaphore>,
}

/// A place among those who wait for their turn, whoever hangs up; until it is dropped.
pub(super) struct Place(#[expect(dead_code, reason = "kept for its end")] Option<OwnedSemaphorePermit>);

/// The turn to write. Who waits for it in a request leaves nothing behind by hanging up.
pub(super) struct Turn(OwnedMutexGuard<()>);

/// The right to write, which one has at a time: from looking at what there is to telling the registry.
#[derive(Debug)]
pub(super) struct Pen<'a> {
    book: &'a Book,
    _turn: OwnedMutexGuard<()>,
}

impl Book {
    /// One that is forgotten at the end, for demonstrations.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::of(None, BTreeMap::new())
    }

    /// The book in `folder`, which is its own; it is made where it is missing.
    ///
    /// # Errors
    /// When the folder cannot be used at all, or another process writes there: what is said to us would not be kept. And
    /// when a file of it cannot be read, which is named and left where it is: without its denials, keys would be served
    /// that somebody switched off, and the next change would write over it.
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        let store = FileStore::open(folder)?;
        if !store.is_owner() {
            let what = format!("another process writes to {}", folder.display());
            return Err(StoreError::new(StoreErrorKind::InUse, what));
        }
        let mut records = BTreeMap::new();
        for (file, page) in store.load_all(MOST_BYTES).await? {
            let (name, record) = read(&file, &page?)?;
            records.insert(name, Arc::new(record));
        }
        Ok(Self::of(Some(store), records))
    }

    fn of(store: Option<FileStore>, records: BTreeMap<Name, Arc<Record>>) -> Self {
        let waiting = Arc::new(Semaphore::new(MOST_WAITING));
        Self { store, records: RwLock::new(records), turn: Arc::default(), waiting }
    }

    pub(super) fn get(&self, name: &Name) -> Arc<Record> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records.get(name).cloned().unwrap_or_default()
    }

    /// How many of a tenant's providers are registered in it.
    pub(super) fn count(&self, tenant: &str) -> usize {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let of_tenant =
            records.range((tenant.to_owned(), String::new())..).take_while(|((of, _), _)| of == tenant);
        of_tenant.filter(|(_, record)| record.registered.is_some()).count()
    }

    /// Everything, by tenant and provider.
    pub(super) fn all(&self) -> Vec<(Name, Arc<Record>)> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records.iter().map(|(name, record)| (name.clone(), record.clone())).collect()
    }

    /// A place among those whose change goes on though they hang up; until there is one, who hangs up leaves nothing.
    pub(super) async fn place(&self) -> Place {
        // It is never closed.
        Place(self.waiting.clone().acquire_owned().await.ok())
    }

    pub(super) async fn turn(&self) -> Turn {
        Turn(self.turn.clone().lock_owned().await)
    }

    pub(super) fn pen(&self, Turn(turn): Turn) -> Pen<'_> {
        Pen { book: self, _turn: turn }
    }
}

impl Pen<'_> {
    /// Keeps `record`; when this returns, a crash does not lose it.
    ///
    /// # Errors
    /// When it cannot be kept. What was kept before is still there.
    pub(super) async fn write(&self, name: &Name, record: Record) -> Result<(), StoreError> {
        let empty = record.registered.is_none() && record.denials.is_empty();
        if let Some(store) = &self.book.store {
            // The folder is the book's own, so the kind tells nothing.
            let (tenant, provider) = name.clone();
            let key = SnapshotKey { tenant, provider, kind: SnapshotKind::Keys };
            if empty {
                store.remove(&key).await?;
            } else {
                // Of two with the same order, the later call counts: who has the pen decides alone.
                let (bytes, order, newest) = (page(name, &record)?, 0, 0);
                let entry = SnapshotEntry { bytes, order, newest, keep_for: None, instead_of: None };
                store.save(&key, &entry).await?;
            }
        }
        let mut records = self.book.records.write().unwrap_or_else(PoisonError::into_inner);
        if empty {
            drop(records.remove(name))
        } else {
            drop(records.insert(name.clone(), Arc::new(record)))
        }
        Ok(())
    }
}

fn page((tenant, provider): &Name, record: &Record) -> Result<Vec<u8>, StoreError> {
    let refused = |what: &str| StoreError::new(StoreErrorKind::Refused, what);
    let (tenant_id, provider_id) = (tenant.clone(), provider.clone());
    let page = Page { format: FORMAT, tenant_id, provider_id, record: record.clone() };
    let bytes = serde_json::to_vec(&page).map_err(|error| refused("it is no JSON").with_cause(error))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(refused(
            "there are too many denials of this provider; allow those that it no longer publishes",
        ));
    }
    Ok(bytes)
}

fn read(file: &Path, bytes: &[u8]) -> Result<(Name, Record), StoreError> {
    let foreign =
        |what: String| StoreError::new(StoreErrorKind::Corrupt, format!("{} {what}", file.display()));
    let page: Page = serde_json::from_slice(bytes)
        .map_err(|error| foreign("is no page of the book".to_owned()).with_cause(error))?;
    if page.format != FORMAT {
        return Err(foreign(format!("has format {}, which a newer version wrote", page.format)));
    }
    Ok(((page.tenant_id, page.provider_id), page.record))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut registration =
            IdentityProviderRegistration::new("acme", "main", "https://id.example.com/keys").unwrap();
        registration.headers.insert("X-Api-Key".to_owned(), "s3cret".into());
        let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let denied = Denied { reason: Some("leaked".to_owned()), at, by: "ops".to_owned() };
        Record {
            registered: Some(Registered { registration, revision: 7, by: "ops".to_owned() }),
            denials: BTreeMap::from([("k/1 \u{202e}".to_owned(), denied)]),
        }
    }

    #[tokio::test]
    async fn what_was_written_is_there_again_with_its_secrets_for_the_owner_alone() {
        let folder = std::env::temp_dir().join(format!("jwks-cache-book-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let (name, other) = (("acme".to_owned(), "main".to_owned()), ("acme".to_owned(), "other".to_owned()));
        {
            let book = Book::open(&folder).await.unwrap();
            assert!(book.all().is_empty());
            let pen = book.pen(book.turn().await);
            pen.write(&name, record()).await.unwrap();
            pen.write(&other, record()).await.unwrap();
            pen.write(&other, Record::default()).await.unwrap();
            let taken = Book::open(&folder).await.map(drop).unwrap_err();
            assert_eq!(taken.kind(), StoreErrorKind::InUse);
        }
        #[cfg(unix)]
        for file in std::fs::read_dir(&folder).unwrap() {
            use std::os::unix::fs::PermissionsExt as _;
            let file = file.unwrap();
            let is_lock = file.file_name() == "owner.lock";
            assert!(is_lock || file.metadata().unwrap().permissions().mode() & 0o777 == 0o600, "{file:?}");
        }
        let torn = folder.join("torn.snapshot");
        std::fs::write(&torn, "torn").unwrap();
        // The second time too: nothing was put out of sight.
        for _ in 0..2 {
            let refused = Book::open(&folder).await.map(drop).unwrap_err();
            assert_eq!(refused.kind(), StoreErrorKind::Corrupt);
            assert!(refused.to_string().contains("torn.snapshot"), "{refused}");
        }
        std::fs::remove_file(torn).unwrap();
        let newer = SnapshotKey { tenant: "a".into(), provider: "b".into(), kind: SnapshotKind::Keys };
        {
            let bytes = br#"{"format": 2, "tenant_id": "a", "provider_id": "b", "record": {}}"#.to_vec();
            let entry = SnapshotEntry { bytes, order: 0, newest: 0, keep_for: None, instead_of: None };
            FileStore::open(&folder).unwrap().save(&newer, &entry).await.unwrap();
        }
        let refused = Book::open(&folder).await.map(drop).unwrap_err();
        assert!(refused.to_string().contains(".snapshot has format 2"), "{refused}");
        FileStore::open(&folder).unwrap().remove(&newer).await.unwrap();
        let book = Book::open(&folder).await.unwrap();
        let all = book.all();
        assert_eq!(all.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&name]);
        let kept = all[0].1.registered.as_ref().unwrap();
        assert_eq!(kept.registration, record().registered.unwrap().registration);
        assert_eq!((kept.revision, all[0].1.denials.len()), (7, 1));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
