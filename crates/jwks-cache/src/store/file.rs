//! The embedded store: one folder, one file for each thing kept. It does not know what the files say.
//!
//! A file is written beside its place, synced, and renamed into it; then its folder is synced. So a crash at any time
//! leaves the file of before or the new one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::disk::{Disk, RealDisk};
use super::{SnapshotEntry, SnapshotKey, SnapshotStore, StoreError, StoreErrorKind, Storing};
use crate::sync::{Mutex, lock};

/// The first words of a file of this version.
const MAGIC: &str = "jwks-cache-file 1";

/// The most bytes of the line before what is kept.
const HEAD: usize = 256;

/// Held by the process that writes.
const OWNER: &str = "owner.lock";

/// Endings of files that are being written, are kept, and could not be used.
const WRITING: &str = "writing";
const KEPT: &str = "snapshot";
const SET_ASIDE: &str = "set-aside";

/// How many calls use the disk at once. A disk that hangs holds so many threads and no more.
const AT_ONCE: usize = 16;

/// Snapshots in the files of one folder, for restarts of one process.
///
/// One process writes: another that opens the same folder loads, and what it would write fails as
/// [`StoreErrorKind::InUse`] until the first is gone. Files have names of their own making, are readable by their owner
/// only, and carry version, order and checksum; one that is torn or foreign is renamed to `….set-aside`.
#[derive(Clone, Debug)]
pub struct FileStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    disk: Box<dyn Disk>,
    /// One writes at a time. Holds the lock file of the process that writes.
    writer: Mutex<Option<std::fs::File>>,
    /// The lock file is left alone where the disk is not the machine's.
    locks: bool,
    turns: Arc<Semaphore>,
}

impl FileStore {
    /// The store in `folder`, which is made where it is missing.
    ///
    /// # Errors
    /// [`StoreErrorKind::Refused`] when the folder can be neither made nor read.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::on(Box::new(RealDisk), folder.into(), true)
    }

    fn on(disk: Box<dyn Disk>, folder: PathBuf, locks: bool) -> Result<Self, StoreError> {
        let refused = |error| {
            let what = format!("the folder {} cannot be used", folder.display());
            StoreError::new(StoreErrorKind::Refused, what).with_cause(error)
        };
        disk.make_folder(&folder).map_err(refused)?;
        // The name of a new folder stands in the one above it.
        if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
            // That one may be somebody else's, and then it was there before.
            let _ = disk.sync_folder(above);
        }
        disk.names(&folder).map_err(refused)?;
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let inner = Inner { folder, disk, writer: Mutex::default(), locks, turns };
        let mut writer = lock(&inner.writer);
        // Another process may have it; each save asks again.
        let _ = inner.own(&mut writer);
        drop(writer);
        Ok(Self(Arc::new(inner)))
    }

    /// Where it keeps its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Whether this process is the one that writes.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        let mut writer = lock(&self.0.writer);
        self.0.own(&mut writer).is_ok()
    }

    /// Has a thread that may block do it. Whoever gives up waiting leaves it to end by itself.
    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let gone = |why: &str| StoreError::new(StoreErrorKind::Unavailable, why);
        let turn = self.0.turns.clone().acquire_owned().await.map_err(|_| gone("closed"))?;
        let inner = self.0.clone();
        let task = spawn_blocking(move || {
            let done = act(&inner);
            drop(turn);
            done
        });
        task.await.map_err(|_| gone("the runtime went away, or the disk's call panicked"))?
    }
}

impl SnapshotStore for FileStore {
    fn name(&self) -> &'static str {
        "file"
    }

    /// 10 s: a busy disk takes long to sync, and nobody waits for it.
    fn time_limit(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn load<'a>(&'a self, key: &'a SnapshotKey, most: u64) -> Storing<'a, Option<Vec<u8>>> {
        let name = name(key);
        Box::pin(self.blocking(move |inner| inner.load(&name, most)))
    }

    fn save<'a>(&'a self, key: &'a SnapshotKey, entry: &'a SnapshotEntry) -> Storing<'a, bool> {
        let (name, entry) = (name(key), entry.clone());
        Box::pin(self.blocking(move |inner| inner.save(&name, &entry)))
    }

    fn remove<'a>(&'a self, key: &'a SnapshotKey) -> Storing<'a, ()> {
        let name = name(key);
        Box::pin(self.blocking(move |inner| inner.remove(&name)))
    }
}

/// A name that no text of a tenant can shape: letters and digits of a digest.
fn name(key: &SnapshotKey) -> String {
    let parts = [&*key.tenant, &*key.provider, key.kind.as_str()];
    let text: Vec<String> = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
    hex(&text.concat().into_bytes())
}

/// The SHA-256, in letters and digits.
fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Inner {
    fn path(&self, name: &str, end: &str) -> PathBuf {
        self.folder.join(format!("{name}.{end}"))
    }

    fn load(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(name, KEPT);
        let bytes = match self.disk.read(&path, most.saturating_add(HEAD as u64)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.set_aside(name, "cannot be read", Some(error))),
        };
        if bytes.len() as u64 > most.saturating_add(HEAD as u64) {
            let what = format!("{} has more than {most} bytes", path.display());
            return Err(StoreError::new(StoreErrorKind::TooLarge, what));
        }
        match parse(&bytes) {
            Ok((_, kept)) if kept.len() as u64 > most => {
                let what = format!("{} has more than {most} bytes", path.display());
                Err(StoreError::new(StoreErrorKind::TooLarge, what))
            }
            Ok((_, kept)) => Ok(Some(kept.to_vec())),
            Err(what) => Err(self.set_aside(name, what, None)),
        }
    }

    fn save(&self, name: &str, entry: &SnapshotEntry) -> Result<bool, StoreError> {
        let mut writer = lock(&self.writer);
        self.own(&mut writer)?;
        if self.order(name).is_some_and(|kept| !entry.replaces(kept)) {
            return Ok(false);
        }
        let (writing, kept) = (self.path(name, WRITING), self.path(name, KEPT));
        let put = || {
            self.disk.write(&writing, &[head(entry).as_bytes(), &entry.bytes].concat())?;
            self.disk.sync_file(&writing)?;
            self.disk.rename(&writing, &kept)?;
            self.disk.sync_folder(&self.folder)
        };
        put().map_err(|error: io::Error| {
            // On a full disk it takes the room that the next needs.
            let _ = self.disk.remove(&writing);
            StoreError::new(StoreErrorKind::Refused, format!("{} cannot be written", kept.display()))
                .with_cause(error)
        })?;
        Ok(true)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let mut writer = lock(&self.writer);
        self.own(&mut writer)?;
        let path = self.path(name, KEPT);
        match self.disk.remove(&path).and_then(|()| self.disk.sync_folder(&self.folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let what = format!("{} cannot be removed", path.display());
                Err(StoreError::new(StoreErrorKind::Refused, what).with_cause(error))
            }
            _ => Ok(()),
        }
    }

    /// The order of what is kept; none where that is nothing of use.
    fn order(&self, name: &str) -> Option<u64> {
        let bytes = self.disk.read(&self.path(name, KEPT), u64::MAX - 1).ok()?;
        parse(&bytes).ok().map(|(order, _)| order)
    }

    /// Takes out of the way what cannot be used, where it can be looked at.
    fn set_aside(&self, name: &str, what: &str, cause: Option<io::Error>) -> StoreError {
        let (kept, aside) = (self.path(name, KEPT), self.path(name, SET_ASIDE));
        let mut writer = lock(&self.writer);
        if self.own(&mut writer).is_ok() {
            // If it cannot be renamed, the next save replaces it.
            let _ = self.disk.rename(&kept, &aside);
        }
        tracing::warn!(file = %kept.display(), what, "a stored file was set aside");
        let error = StoreError::new(StoreErrorKind::Corrupt, format!("{} {what}", kept.display()));
        match cause {
            Some(cause) => error.with_cause(cause),
            None => error,
        }
    }

    /// Takes the lock of the one process that writes, unless it has it.
    fn own(&self, writer: &mut Option<std::fs::File>) -> Result<(), StoreError> {
        if !self.locks || writer.is_some() {
            return Ok(());
        }
        let path = self.folder.join(OWNER);
        let opened =
            std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(|error| {
            StoreError::new(StoreErrorKind::Refused, format!("{} cannot be opened", path.display()))
                .with_cause(error)
        })?;
        file.try_lock().map_err(|error| {
            let what = format!("another process writes to {}", self.folder.display());
            StoreError::new(StoreErrorKind::InUse, what).with_cause(error)
        })?;
        self.sweep();
        *writer = Some(file);
        Ok(())
    }

    /// Removes what a process that died was writing.
    fn sweep(&self) {
        let ending = format!(".{WRITING}");
        for name in self.disk.names(&self.folder).unwrap_or_default() {
            if name.ends_with(&ending) {
                let _ = self.disk.remove(&self.folder.join(name));
            }
        }
    }
}

/// The line before what is kept.
fn head(entry: &SnapshotEntry) -> String {
    format!("{MAGIC} {:020} {} {}\n", entry.order, entry.bytes.len(), checksum(entry.order, &entry.bytes))
}

/// Over all that the line says, too.
fn checksum(order: u64, bytes: &[u8]) -> String {
    hex(&[format!("{order} {}\n", bytes.len()).as_bytes(), bytes].concat())
}

/// The order and the bytes of a whole file.
fn parse(file: &[u8]) -> Result<(u64, &[u8]), &'static str> {
    let end = file.iter().take(HEAD).position(|byte| *byte == b'\n').ok_or("is foreign")?;
    let (line, kept) = (file.get(..end).unwrap_or_default(), file.get(end + 1..).unwrap_or_default());
    let line = std::str::from_utf8(line).map_err(|_| "is foreign")?;
    let rest = line.strip_prefix(MAGIC).ok_or("is foreign, or of another version")?;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let [order, length, sum] = words[..] else { return Err("is torn") };
    let (Ok(order), Ok(length)) = (order.parse(), length.parse::<usize>()) else { return Err("is torn") };
    if kept.len() != length || checksum(order, kept) != sum {
        return Err("is torn");
    }
    Ok((order, kept))
}
