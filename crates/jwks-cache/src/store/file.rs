//! The embedded store: one folder, one file for each thing kept. It does not know what the files say.
//!
//! A file is written beside its place, synced, and renamed into it; then its folder is synced. So a crash at any time
//! leaves the file of before or the new one.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, TryLockError, Weak};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::disk::{Disk, RealDisk};
use super::{
    MOST_COMPARED, NAMESPACE, SnapshotEntry, SnapshotKey, SnapshotStore, StoreError, StoreErrorKind, Storing,
};
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
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
pub struct FileStore(Arc<Inner>, Arc<str>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    disk: Box<dyn Disk>,
    /// One writes at a time. Holds the lock file of the process that writes.
    writer: Mutex<Option<std::fs::File>>,
    /// Whether there is one.
    owns: AtomicBool,
    /// What is kept, as the process that writes knows it; none in others. Held for a moment only.
    kept: Mutex<Option<HashSet<String>>>,
    /// The lock file is left alone where the disk is not the machine's.
    locks: bool,
    turns: Arc<Semaphore>,
}

/// A file of a [`FileStore`], and what it has, or why that is of no use.
pub type KeptFile = (PathBuf, Result<Vec<u8>, StoreError>);

impl FileStore {
    /// The store in `folder`, which is made where it is missing.
    ///
    /// # Errors
    /// [`StoreErrorKind::Refused`] when the folder can be neither made nor read, or when everybody may write to it.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::on(Box::new(RealDisk), folder.into(), true)
    }

    fn on(disk: Box<dyn Disk>, folder: PathBuf, locks: bool) -> Result<Self, StoreError> {
        let refused = |error: io::Error| {
            let what = format!("the folder {} cannot be used: {error}", folder.display());
            StoreError::new(StoreErrorKind::Refused, what).with_cause(error)
        };
        disk.make_folder(&folder).map_err(refused)?;
        // The name of a new folder stands in the one above it, which may be new as well.
        for above in folder.ancestors().skip(1) {
            let here = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            // That one may be somebody else's, and then it was there before.
            let _ = disk.sync_folder(here);
        }
        disk.names(&folder).map_err(refused)?;
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let (writer, owns, kept) = (Mutex::default(), AtomicBool::new(false), Mutex::default());
        let inner = Inner { folder, disk, writer, owns, kept, locks, turns };
        let mut writer = lock(&inner.writer);
        // Another process may have it; each save asks again.
        let _ = inner.own(&mut writer);
        drop(writer);
        Ok(Self(Arc::new(inner), NAMESPACE.into()))
    }

    /// What signed snapshots are bound to. Default `jwks-cache`; another tells apart folders whose snapshots the same
    /// secrets sign.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.1 = namespace.into().into();
        self
    }

    /// Where it keeps its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Whether this process is the one that writes. Never waits for one who writes.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        let mut writer = match self.0.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return self.0.owns.load(Relaxed),
        };
        self.0.own(&mut writer).is_ok()
    }

    /// Everything that is kept, in no order, each with its file and at most `most` bytes; for a folder that is one's own, and
    /// whose bytes say what they are. What cannot be used stays where it is, and its error stands in its place.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`] when the folder cannot be read now.
    pub async fn load_all(&self, most: u64) -> Result<Vec<KeptFile>, StoreError> {
        self.blocking(move |inner| {
            let files = inner.disk.names(&inner.folder).map_err(|error| {
                let what = format!("the folder {} cannot be read", inner.folder.display());
                StoreError::new(StoreErrorKind::Unavailable, what).with_cause(error)
            })?;
            let kept = files.iter().filter_map(|file| file.strip_suffix(KEPT)?.strip_suffix('.'));
            let look = |name: &str| {
                let path = inner.path(name, KEPT);
                let looked = match inner.look(name, most) {
                    Ok(kept) => Ok(kept?),
                    Err(Unusable::Now(error)) => Err(error),
                    Err(Unusable::ForGood(what, cause)) => Err(corrupt(&path, what, cause)),
                };
                Some((path, looked))
            };
            Ok(kept.filter_map(look).collect())
        })
        .await
    }

    /// Has a thread that may block do it. Whoever gives up waiting leaves what has begun to end by itself.
    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.blocking_while(|inner, _| act(inner)).await
    }

    /// The same of what asks whether somebody waits for it.
    async fn blocking_while<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Inner, &Awaited) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let gone = |why: &str| StoreError::new(StoreErrorKind::Unavailable, why);
        let turn = self.0.turns.clone().acquire_owned().await.map_err(|_| gone("closed"))?;
        let (inner, waits) = (self.0.clone(), Arc::new(()));
        let awaited = Awaited(Arc::downgrade(&waits));
        let task = spawn_blocking(move || {
            let done = act(&inner, &awaited);
            drop(turn);
            done
        });
        let done = task.await.map_err(|_| gone("the runtime went away, or the disk's call panicked"))?;
        drop(waits);
        done
    }
}

/// Whether somebody still waits.
struct Awaited(Weak<()>);

impl Awaited {
    fn is(&self) -> bool {
        self.0.strong_count() > 0
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

    fn namespace(&self) -> &str {
        &self.1
    }

    fn load<'a>(&'a self, key: &'a SnapshotKey, most: u64) -> Storing<'a, Option<Vec<u8>>> {
        let name = name(key);
        if lock(&self.0.kept).as_ref().is_some_and(|kept| !kept.contains(&name)) {
            // Most providers have no denials, and many registrations begin with nothing: no thread is asked for that.
            return Box::pin(std::future::ready(Ok(None)));
        }
        Box::pin(self.blocking(move |inner| inner.load(&name, most)))
    }

    fn save<'a>(&'a self, key: &'a SnapshotKey, entry: &'a SnapshotEntry) -> Storing<'a, bool> {
        let (name, entry) = (name(key), entry.clone());
        Box::pin(self.blocking_while(move |inner, awaited| inner.save(&name, &entry, awaited)))
    }

    fn remove<'a>(&'a self, key: &'a SnapshotKey) -> Storing<'a, ()> {
        let name = name(key);
        Box::pin(self.blocking_while(move |inner, awaited| inner.remove(&name, awaited)))
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

/// Why a file was not loaded.
enum Unusable {
    /// It may be as good as ever.
    Now(StoreError),
    /// It will never be of use.
    ForGood(&'static str, Option<io::Error>),
}

impl Inner {
    fn path(&self, name: &str, end: &str) -> PathBuf {
        self.folder.join(format!("{name}.{end}"))
    }

    fn load(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
        match self.look(name, most) {
            Ok(kept) => Ok(kept),
            Err(Unusable::Now(error)) => Err(error),
            Err(Unusable::ForGood(..)) => self.set_aside(name, most),
        }
    }

    fn look(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, Unusable> {
        let path = self.path(name, KEPT);
        let too_large = || {
            let what = format!("{} has more than {most} bytes", path.display());
            Unusable::Now(StoreError::new(StoreErrorKind::TooLarge, what))
        };
        let bytes = match self.disk.read(&path, most.saturating_add(HEAD as u64)) {
            Ok(bytes) => bytes,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound => Ok(None),
                    _ if is_transient(&error) => Err(Unusable::Now(cannot_be_read_now(&path, error))),
                    _ => Err(Unusable::ForGood("cannot be read", Some(error))),
                };
            }
        };
        if bytes.len() as u64 > most.saturating_add(HEAD as u64) {
            return Err(too_large());
        }
        match parse(&bytes) {
            Ok((_, kept)) if kept.len() as u64 > most => Err(too_large()),
            Ok((_, kept)) => Ok(Some(kept.to_vec())),
            Err(what) => Err(Unusable::ForGood(what, None)),
        }
    }

    fn save(&self, name: &str, entry: &SnapshotEntry, awaited: &Awaited) -> Result<bool, StoreError> {
        let mut writer = lock(&self.writer);
        if !awaited.is() {
            // Given up before it began. What came later has had its turn, a removal maybe, and is not undone.
            return Ok(false);
        }
        self.own(&mut writer)?;
        if !self.replaces(name, entry)? {
            return Ok(false);
        }
        let (writing, kept) = (self.path(name, WRITING), self.path(name, KEPT));
        let put = || {
            self.disk.write(&writing, &whole(entry))?;
            self.disk.sync_file(&writing)?;
            self.disk.rename(&writing, &kept)?;
            self.know(name);
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

    fn remove(&self, name: &str, awaited: &Awaited) -> Result<(), StoreError> {
        let mut writer = lock(&self.writer);
        if !awaited.is() {
            return Ok(());
        }
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

    /// Notes that something is kept; a name too many costs a look.
    fn know(&self, name: &str) {
        if let Some(kept) = &mut *lock(&self.kept) {
            kept.insert(name.to_owned());
        }
    }

    /// Whether `entry` replaces what is kept; what is of no use, anything does.
    fn replaces(&self, name: &str, entry: &SnapshotEntry) -> Result<bool, StoreError> {
        let path = self.path(name, KEPT);
        match self.disk.read(&path, MOST_COMPARED) {
            Ok(bytes) => Ok(parse(&bytes).ok().is_none_or(|(order, kept)| entry.replaces(kept, order))),
            Err(error) if is_transient(&error) => Err(cannot_be_read_now(&path, error)),
            Err(_) => Ok(true),
        }
    }

    /// Takes out of the way what cannot be used, where it can be looked at.
    fn set_aside(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let mut writer = lock(&self.writer);
        // A save may have put another there since; from here on none can.
        let (what, cause) = match self.look(name, most) {
            Ok(kept) => return Ok(kept),
            Err(Unusable::Now(error)) => return Err(error),
            Err(Unusable::ForGood(what, cause)) => (what, cause),
        };
        let (kept, aside) = (self.path(name, KEPT), self.path(name, SET_ASIDE));
        if self.own(&mut writer).is_ok() {
            // If it cannot be renamed, the next save replaces it.
            let _ = self.disk.rename(&kept, &aside);
        }
        tracing::warn!(file = %kept.display(), what, "a stored file was set aside");
        Err(corrupt(&kept, what, cause))
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
        *lock(&self.kept) = self.sweep().ok();
        *writer = Some(file);
        self.owns.store(true, Relaxed);
        Ok(())
    }

    /// Removes what a process that died was writing. Says what is kept.
    fn sweep(&self) -> io::Result<HashSet<String>> {
        let mut kept = HashSet::new();
        for file in self.disk.names(&self.folder)? {
            match file.rsplit_once('.') {
                Some((_, WRITING)) => drop(self.disk.remove(&self.folder.join(&file))),
                Some((name, KEPT)) => drop(kept.insert(name.to_owned())),
                _ => {}
            }
        }
        Ok(kept)
    }
}

/// Too many open files, a disk that is away for a moment: the file may be as good as ever.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotFound, PermissionDenied};
    !matches!(error.kind(), NotFound | IsADirectory | PermissionDenied)
}

fn corrupt(path: &Path, what: &str, cause: Option<io::Error>) -> StoreError {
    let error = StoreError::new(StoreErrorKind::Corrupt, format!("{} {what}", path.display()));
    match cause {
        Some(cause) => error.with_cause(cause),
        None => error,
    }
}

fn cannot_be_read_now(path: &Path, error: io::Error) -> StoreError {
    let what = format!("{} cannot be read now", path.display());
    StoreError::new(StoreErrorKind::Unavailable, what).with_cause(error)
}

/// The line before what is kept, without its break.
fn head(order: u64, bytes: &[u8]) -> String {
    format!("{MAGIC} {order:020} {} {}", bytes.len(), checksum(order, bytes))
}

/// The whole file.
fn whole(entry: &SnapshotEntry) -> Vec<u8> {
    [head(entry.order, &entry.bytes).as_bytes(), b"\n", &entry.bytes].concat()
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
    let order = rest.split(' ').nth(1).and_then(|order| order.parse().ok()).ok_or("is torn")?;
    // Nothing else can stand there.
    if line != head(order, kept) {
        return Err("is torn");
    }
    Ok((order, kept))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::task::{Context, Waker};

    use super::*;
    use crate::store::SnapshotKind;

    impl Inner {
        fn save_now(&self, name: &str, entry: &SnapshotEntry) -> Result<bool, StoreError> {
            let waits = Arc::new(());
            self.save(name, entry, &Awaited(Arc::downgrade(&waits)))
        }

        fn remove_now(&self, name: &str) -> Result<(), StoreError> {
            let waits = Arc::new(());
            self.remove(name, &Awaited(Arc::downgrade(&waits)))
        }
    }

    /// A disk that loses in a crash whatever was not synced, in every way that one may.
    #[derive(Clone, Debug, Default)]
    struct LossyDisk(Arc<Mutex<State>>);

    #[derive(Debug, Default)]
    struct State {
        /// What each file has, and what of it was synced.
        files: Vec<(Vec<u8>, Vec<u8>)>,
        names: Names,
        synced: Names,
        /// What was done to names and not synced, in this order.
        owed: Vec<(PathBuf, Act)>,
        steps: usize,
        /// After so many steps nothing happens any more.
        crash_after: Option<usize>,
        syncs: usize,
        /// This sync does nothing.
        ignored: Option<usize>,
        /// What the next reads come to.
        read_errors: Vec<io::ErrorKind>,
        /// The next read sees a half.
        reads_half: bool,
        /// The most that was asked for in one read.
        asked_most: u64,
    }

    /// Folders that are always there.
    fn is_top(folder: &Path) -> bool {
        folder == Path::new("/") || folder.as_os_str().is_empty()
    }

    /// A file by its number, or a folder.
    type Names = BTreeMap<PathBuf, Option<usize>>;

    #[derive(Clone, Debug)]
    enum Act {
        Make(PathBuf, Option<usize>),
        Rename(PathBuf, PathBuf),
        Remove(PathBuf),
    }

    impl Act {
        fn on(&self, names: &mut Names) {
            match self {
                Self::Make(path, what) => drop(names.insert(path.clone(), *what)),
                Self::Rename(from, to) => {
                    if let Some(what) = names.remove(from) {
                        names.insert(to.clone(), what);
                    }
                }
                Self::Remove(path) => drop(names.remove(path)),
            }
        }
    }

    impl State {
        fn act(&mut self, act: Act) {
            let (Act::Make(path, _) | Act::Rename(_, path) | Act::Remove(path)) = &act;
            self.owed.push((path.parent().unwrap().to_owned(), act.clone()));
            act.on(&mut self.names);
        }

        fn file(&self, path: &Path) -> io::Result<usize> {
            self.names.get(path).copied().flatten().ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn syncs(&mut self) -> bool {
            self.syncs += 1;
            self.ignored != Some(self.syncs - 1)
        }

        /// Everything that may be found after a crash now.
        fn after_crashes(&self) -> Vec<LossyDisk> {
            let mut found = Vec::new();
            for done in 0..=self.owed.len() {
                let mut names = self.synced.clone();
                self.owed[..done].iter().for_each(|(_, act)| act.on(&mut names));
                // A folder that was lost takes along what was in it.
                let all = names.clone();
                names.retain(|path, _| {
                    path.ancestors().skip(1).all(|above| is_top(above) || all.contains_key(above))
                });
                for part in 0..3 {
                    let left = |(has, synced): &(Vec<u8>, Vec<u8>)| {
                        let has = match part {
                            0 => synced.clone(),
                            1 if has != synced => has[..has.len() / 2].to_vec(),
                            _ => has.clone(),
                        };
                        (has.clone(), has)
                    };
                    let files = self.files.iter().map(left).collect();
                    let state =
                        State { files, names: names.clone(), synced: names.clone(), ..State::default() };
                    found.push(LossyDisk(Arc::new(Mutex::new(state))));
                }
            }
            found
        }
    }

    impl LossyDisk {
        fn step<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
            let mut state = lock(&self.0);
            if state.crash_after.is_some_and(|after| state.steps >= after) {
                return Err(io::Error::other("the machine is down"));
            }
            state.steps += 1;
            act(&mut state)
        }
    }

    impl Disk for LossyDisk {
        fn make_folder(&self, folder: &Path) -> io::Result<()> {
            self.step(|state| {
                let path: Vec<&Path> = folder.ancestors().collect();
                for folder in path.into_iter().rev().filter(|folder| !is_top(folder)) {
                    if !state.names.contains_key(folder) {
                        state.act(Act::Make(folder.to_owned(), None));
                    }
                }
                Ok(())
            })
        }

        fn read(&self, file: &Path, most: u64) -> io::Result<Vec<u8>> {
            let mut state = lock(&self.0);
            state.asked_most = state.asked_most.max(most);
            if let Some(error) = state.read_errors.pop() {
                return Err(error.into());
            }
            let mut bytes = state.files[state.file(file)?].0.clone();
            if std::mem::take(&mut state.reads_half) {
                bytes.truncate(bytes.len() / 2);
            }
            Ok(bytes)
        }

        fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
            self.step(|state| {
                let number = state.files.len();
                state.files.push((bytes.to_vec(), Vec::new()));
                state.act(Act::Make(file.to_owned(), Some(number)));
                Ok(())
            })
        }

        fn sync_file(&self, file: &Path) -> io::Result<()> {
            self.step(|state| {
                let number = state.file(file)?;
                if state.syncs() {
                    state.files[number].1 = state.files[number].0.clone();
                }
                Ok(())
            })
        }

        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            // Where the process runs.
            let folder = if folder == Path::new(".") { Path::new("") } else { folder };
            self.step(|state| {
                if state.syncs() {
                    let State { owed, synced, .. } = state;
                    owed.iter().filter(|(of, _)| of == folder).for_each(|(_, act)| act.on(synced));
                    owed.retain(|(of, _)| of != folder);
                }
                Ok(())
            })
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step(|state| {
                state.file(from)?;
                state.act(Act::Rename(from.to_owned(), to.to_owned()));
                Ok(())
            })
        }

        fn remove(&self, file: &Path) -> io::Result<()> {
            self.step(|state| {
                state.file(file)?;
                state.act(Act::Remove(file.to_owned()));
                Ok(())
            })
        }

        fn names(&self, _: &Path) -> io::Result<Vec<String>> {
            Ok(Vec::new())
        }
    }

    fn entry(order: u64) -> SnapshotEntry {
        let bytes = format!("snapshot {order}").repeat(4).into_bytes();
        SnapshotEntry { bytes, order, newest: 1_000, keep_for: None, instead_of: None }
    }

    fn open(disk: LossyDisk) -> Result<FileStore, StoreError> {
        open_in(disk, "/store")
    }

    fn open_in(disk: LossyDisk, folder: &str) -> Result<FileStore, StoreError> {
        FileStore::on(Box::new(disk), PathBuf::from(folder), false)
    }

    /// A folder is made, two snapshots are saved, and one is removed. Crashes after `steps`; says how many of the disks
    /// that may be found then have lost something or hold a part, of how many.
    fn losses(folder: &str, steps: usize, ignored: Option<usize>) -> (usize, usize) {
        let disk = LossyDisk::default();
        (lock(&disk.0).crash_after, lock(&disk.0).ignored) = (Some(steps), ignored);
        // The last that was acknowledged, and what may be there since.
        let (mut sure, mut maybe) = (None, None);
        if let Ok(store) = open_in(disk.clone(), folder) {
            let acts: [Option<u64>; 3] = [Some(1), Some(2), None];
            for act in acts {
                maybe = Some(act);
                let done = match act {
                    Some(order) => store.0.save_now("name", &entry(order)).map(drop),
                    None => store.0.remove_now("name"),
                };
                if done.is_err() {
                    break;
                }
                (sure, maybe) = (act, None);
            }
        }
        let disks = lock(&disk.0).after_crashes();
        let of = disks.len();
        let lost = disks.into_iter().filter(|disk| {
            let found = open_in(disk.clone(), folder).unwrap().0.load("name", 1 << 20);
            let is = |act: Option<u64>| matches!(&found, Ok(found) if *found == act.map(|order| entry(order).bytes));
            !is(sure) && !maybe.is_some_and(is)
        });
        (lost.count(), of)
    }

    /// The steps and syncs of the whole story.
    fn story(folder: &str) -> (usize, usize) {
        let disk = LossyDisk::default();
        let store = open_in(disk.clone(), folder).unwrap();
        for order in [1, 2] {
            store.0.save_now("name", &entry(order)).unwrap();
        }
        store.0.remove_now("name").unwrap();
        let state = lock(&disk.0);
        (state.steps, state.syncs)
    }

    #[test]
    fn a_crash_at_any_step_leaves_the_old_or_the_new_and_each_sync_is_needed_for_that() {
        // the folder, and how many stand above it
        for (folder, above) in [("/new/store", 2), ("keys", 1), ("new/keys", 2)] {
            let (steps, syncs) = story(folder);
            let all = |ignored| {
                let one = |step| losses(folder, step, ignored);
                (0..=steps).map(one).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
            };
            let (lost, of) = all(None);
            assert_eq!(lost, 0, "{folder}");
            println!(
                "{folder}: {of} disks after crashes at {steps} steps: none lost anything; {syncs} syncs"
            );
            assert_eq!(syncs, above + 5);
            for ignored in 0..syncs {
                let (lost, of) = all(Some(ignored));
                println!("without sync {ignored}: {lost} of {of} did");
                assert!(lost > 0, "{folder}: sync {ignored} can be left out unseen");
            }
        }
    }

    #[test]
    fn a_disk_that_cannot_read_for_a_moment_costs_no_file() {
        for kind in [io::ErrorKind::Other, io::ErrorKind::TimedOut, io::ErrorKind::Interrupted] {
            let disk = LossyDisk::default();
            let store = open(disk.clone()).unwrap();
            store.0.save_now("name", &entry(1)).unwrap();
            lock(&disk.0).read_errors.push(kind);
            assert_eq!(store.0.load("name", 1 << 20).unwrap_err().kind(), StoreErrorKind::Unavailable);
            assert_eq!(store.0.load("name", 1 << 20).unwrap(), Some(entry(1).bytes), "{kind:?}");
        }
    }

    #[test]
    fn a_disk_that_cannot_read_for_a_moment_lets_no_older_file_replace_a_newer_one() {
        for kind in [io::ErrorKind::Other, io::ErrorKind::TimedOut, io::ErrorKind::NotFound] {
            let disk = LossyDisk::default();
            let store = open(disk.clone()).unwrap();
            store.0.save_now("name", &entry(2)).unwrap();
            lock(&disk.0).read_errors.push(kind);
            let saved = store.0.save_now("name", &entry(1));
            if kind == io::ErrorKind::NotFound {
                assert!(saved.unwrap(), "where nothing is, anything is new");
            } else {
                assert_eq!(saved.unwrap_err().kind(), StoreErrorKind::Unavailable);
                assert_eq!(store.0.load("name", 1 << 20).unwrap(), Some(entry(2).bytes), "{kind:?}");
            }
        }
    }

    #[test]
    fn who_asks_whether_it_writes_waits_for_no_disk() {
        let (folder, first) = in_folder("asked");
        let second = FileStore::open(&folder).unwrap();
        let (_saves, _waits) = (lock(&first.0.writer), lock(&second.0.writer));
        assert!(first.is_owner() && !second.is_owner());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_everybody_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, _) = in_folder("open");
        for (mode, taken) in [(0o700, true), (0o755, true), (0o775, true), (0o777, false), (0o1777, false)] {
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
            match FileStore::open(&folder) {
                Ok(_) => assert!(taken, "{mode:o}"),
                Err(error) => {
                    assert!(!taken && error.kind() == StoreErrorKind::Refused, "{mode:o} {error}");
                    assert!(error.to_string().contains("everybody may write there"), "{error}");
                }
            }
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_saved_while_a_torn_file_is_looked_at_is_not_set_aside() {
        let disk = LossyDisk::default();
        let store = open(disk.clone()).unwrap();
        store.0.save_now("name", &entry(1)).unwrap();
        // The second look, when nobody else can save, finds it whole.
        lock(&disk.0).reads_half = true;
        assert_eq!(store.0.load("name", 1 << 20).unwrap(), Some(entry(1).bytes));
        assert_eq!(store.0.load("name", 1 << 20).unwrap(), Some(entry(1).bytes));
    }

    #[test]
    fn no_save_reads_all_of_a_file_that_somebody_made_huge() {
        let disk = LossyDisk::default();
        let store = open(disk.clone()).unwrap();
        store.0.save_now("name", &entry(1)).unwrap();
        store.0.save_now("name", &entry(2)).unwrap();
        let most = lock(&disk.0).asked_most;
        assert!((1..=MOST_COMPARED).contains(&most), "{most}");
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_link_that_somebody_put_there() {
        let (folder, store) = in_folder("link");
        let theirs = folder.join("theirs");
        std::fs::write(&theirs, "untouched").unwrap();
        std::os::unix::fs::symlink(&theirs, store.0.path("name", WRITING)).unwrap();
        assert!(store.0.save_now("name", &entry(1)).unwrap());
        assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "untouched");
        assert_eq!(store.0.load("name", 1 << 20).unwrap(), Some(entry(1).bytes));
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// A store in a folder of its own.
    fn in_folder(test: &str) -> (PathBuf, FileStore) {
        let folder = std::env::temp_dir().join(format!("jwks-cache-file-{}-{test}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let store = FileStore::open(&folder).unwrap();
        (folder, store)
    }

    fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|of| of == end)).collect()
    }

    #[test]
    fn whatever_bit_is_flipped_or_part_is_missing_the_file_is_set_aside() {
        let (folder, store) = in_folder("torn");
        let whole = whole(&entry(7));
        let mut broken: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            broken.push(flipped);
        }
        broken.push([&*whole, b"more"].concat());
        broken.push(b"a file of somebody else\n".repeat(100));
        for (n, bytes) in broken.iter().enumerate() {
            let path = store.0.path("name", KEPT);
            std::fs::write(&path, bytes).unwrap();
            let error = store.0.load("name", 1 << 20).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{n}");
            assert!(!path.exists() && files(&folder, SET_ASIDE).len() == 1, "{n}");
            assert!(store.0.load("name", 1 << 20).unwrap().is_none(), "{n}");
        }
        assert!(store.0.save_now("name", &entry(8)).unwrap());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_read_is_set_aside_and_one_too_large_is_not_read() {
        let (folder, store) = in_folder("unreadable");
        std::fs::create_dir(store.0.path("name", KEPT)).unwrap();
        assert_eq!(store.0.load("name", 1 << 20).unwrap_err().kind(), StoreErrorKind::Corrupt);
        assert!(store.0.load("name", 1 << 20).unwrap().is_none());
        store.0.save_now("name", &entry(1)).unwrap();
        let size = entry(1).bytes.len() as u64;
        assert!(store.0.load("name", size).unwrap().is_some());
        assert_eq!(store.0.load("name", size - 1).unwrap_err().kind(), StoreErrorKind::TooLarge);
        assert_eq!(store.0.load("name", 1).unwrap_err().kind(), StoreErrorKind::TooLarge);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn what_was_given_up_before_it_began_changes_nothing_later() {
        let (folder, store) = in_folder("given-up");
        let key = SnapshotKey { tenant: "t".into(), provider: "p".into(), kind: SnapshotKind::Keys };
        store.0.save_now(&name(&key), &entry(1)).unwrap();
        // While nobody may write, threads are given a save and a removal, and have to wait.
        let (given_up, writer) = (entry(2), lock(&store.0.writer));
        let nobody = &mut Context::from_waker(Waker::noop());
        assert!(store.save(&key, &given_up).as_mut().poll(nobody).is_pending());
        assert!(store.remove(&key).as_mut().poll(nobody).is_pending());
        drop(writer);
        // When all turns are free again, nothing is on its way any more.
        drop(store.0.turns.acquire_many(u32::try_from(AT_ONCE).unwrap()).await.unwrap());
        assert_eq!(store.load(&key, 1 << 20).await.unwrap(), Some(entry(1).bytes));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn everything_that_is_kept_can_be_had_and_what_is_torn_is_told() {
        let (folder, store) = in_folder("all");
        store.0.save_now("one", &entry(1)).unwrap();
        store.0.save_now("two", &entry(2)).unwrap();
        std::fs::write(store.0.path("three", KEPT), "torn").unwrap();
        std::fs::write(folder.join("somebody's.txt"), "untouched").unwrap();
        let (mut kept, mut errors) = (Vec::new(), Vec::new());
        for (file, one) in store.load_all(1 << 20).await.unwrap() {
            match one {
                Ok(bytes) => kept.push(bytes),
                Err(error) => errors.push((file, error.kind())),
            }
        }
        kept.sort();
        assert_eq!(kept, [entry(1).bytes, entry(2).bytes]);
        assert_eq!(errors, [(store.0.path("three", KEPT), StoreErrorKind::Corrupt)]);
        assert!(folder.join("somebody's.txt").exists() && errors[0].0.exists());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn of_two_that_open_a_folder_one_writes_until_it_is_gone_and_both_load() {
        let (folder, first) = in_folder("two");
        first.0.save_now("name", &entry(1)).unwrap();
        let second = FileStore::open(&folder).unwrap();
        assert!(first.is_owner() && !second.is_owner());
        assert_eq!(second.0.save_now("name", &entry(2)).unwrap_err().kind(), StoreErrorKind::InUse);
        assert_eq!(second.0.remove_now("name").unwrap_err().kind(), StoreErrorKind::InUse);
        assert_eq!(second.0.load("name", 1 << 20).unwrap(), Some(entry(1).bytes));
        // What the first was writing when it died.
        std::fs::write(second.0.path("other", WRITING), "half").unwrap();
        drop(first);
        assert!(second.0.save_now("name", &entry(2)).unwrap() && second.is_owner());
        assert_eq!(files(&folder, WRITING).len(), 0);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn no_text_of_a_tenant_shapes_a_name() {
        let (folder, store) = in_folder("names");
        let texts = [
            "",
            ".",
            "..",
            "../../etc/passwd",
            "a/b",
            "a\\b",
            "a:b",
            "con",
            "\0",
            "é",
            "A",
            "a",
            &"x".repeat(5_000),
        ];
        let mut names = std::collections::BTreeSet::new();
        for tenant in texts {
            for provider in texts {
                for kind in [SnapshotKind::Keys, SnapshotKind::Denials] {
                    let name = name(&SnapshotKey { tenant: tenant.into(), provider: provider.into(), kind });
                    assert!(name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
                    names.insert(name);
                }
            }
        }
        assert_eq!(names.len(), texts.len() * texts.len() * 2, "no two share a file");
        for name in names.iter().take(5) {
            store.0.save_now(name, &entry(1)).unwrap();
        }
        assert_eq!(files(&folder, KEPT).len(), 5);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_what_is_kept() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, store) = in_folder("modes");
        store.0.save_now("name", &entry(1)).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&store.0.path("name", KEPT))), (0o700, 0o600));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_full_disk_refuses_and_keeps_what_was_there() {
        #[derive(Debug)]
        struct Full(LossyDisk);
        impl Disk for Full {
            fn make_folder(&self, folder: &Path) -> io::Result<()> {
                self.0.make_folder(folder)
            }
            fn read(&self, file: &Path, most: u64) -> io::Result<Vec<u8>> {
                self.0.read(file, most)
            }
            fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
                self.0.write(file, &bytes[..bytes.len() / 3])?;
                Err(io::ErrorKind::StorageFull.into())
            }
            fn sync_file(&self, file: &Path) -> io::Result<()> {
                self.0.sync_file(file)
            }
            fn sync_folder(&self, folder: &Path) -> io::Result<()> {
                self.0.sync_folder(folder)
            }
            fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
                self.0.rename(from, to)
            }
            fn remove(&self, file: &Path) -> io::Result<()> {
                self.0.remove(file)
            }
            fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
                self.0.names(folder)
            }
        }
        let disk = LossyDisk::default();
        open(disk.clone()).unwrap().0.save_now("name", &entry(1)).unwrap();
        let full = FileStore::on(Box::new(Full(disk.clone())), PathBuf::from("/store"), false).unwrap();
        assert_eq!(full.0.save_now("name", &entry(2)).unwrap_err().kind(), StoreErrorKind::Refused);
        assert_eq!(full.0.load("name", 1 << 20).unwrap(), Some(entry(1).bytes));
        let left = lock(&disk.0).names.clone();
        assert_eq!(left.len(), 2, "the folder and one file: no part takes room: {left:?}");
    }
}
