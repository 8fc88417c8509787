//! Seeing that a file was changed: a look each second at what says so, and no flight before two looks agree, so that
//! a file which is being written is left alone. Polling sees what every way of replacing a file has in common, on
//! every file system; it costs one look a second for each source that is a file.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use jwks_cache_core::lifecycle::Asker;
use tokio::runtime::Handle;

use super::{Asked, Provider, Source};
use crate::registration::KeySource;
use crate::sync::lock;

impl Source {
    /// The file, if that is what it is.
    fn file(&self) -> Option<&PathBuf> {
        match &self.registration.source {
            KeySource::File(path) => Some(path),
            _ => None,
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What changes when a file does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    length: u64,
    changed: Option<SystemTime>,
    /// Another file under the same name has another.
    inode: u64,
}

impl Mark {
    /// `None` while there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok()?;
        Some(Self { length: about.len(), changed: about.modified().ok(), inode: inode(&about) })
    }
}

#[cfg(unix)]
fn inode(about: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(about)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}

/// Watches a source that is a file for as long as the provider has it. Without a runtime, the first flight does.
pub(super) fn start(provider: &Arc<Provider>, source: &Arc<Source>) {
    if source.file().is_none() {
        return;
    }
    if let Ok(runtime) = Handle::try_current()
        && source.shared.begins_watch()
    {
        let watching = Watching(Arc::downgrade(source));
        let provider = Arc::downgrade(provider);
        runtime.spawn(async move { watch(provider, &watching.0).await });
    }
}

/// Says that nobody watches any more, also when the runtime went away.
struct Watching(Weak<Source>);

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(source) = self.0.upgrade() {
            source.shared.ends_watch();
        }
    }
}

async fn watch(provider: Weak<Provider>, source: &Weak<Source>) {
    let mut seen = None;
    loop {
        // Held only between sleeps.
        let (Some(of), Some(from)) = (provider.upgrade(), source.upgrade()) else { return };
        let current = {
            let owner = lock(&of.owner);
            owner.closed.is_none() && Arc::ptr_eq(&owner.source, &from)
        };
        let Some(path) = from.file().cloned().filter(|_| current) else { return };
        let Ok(mark) = tokio::task::spawn_blocking(move || Mark::of(&path)).await else { return };
        match from.shared.told() {
            None => from.shared.tell(mark.clone()),
            // It may have been started a moment ago; then the next look asks again.
            Some(told) if mark.is_some() && mark != told && mark == seen => {
                if matches!(of.ask(Asker::Person), Asked::Flight(_)) {
                    from.shared.tell(mark.clone());
                }
            }
            Some(_) => {}
        }
        seen = mark;
        let again = of.engine.clock.sleep_until(of.engine.now() + LOOK_EVERY);
        drop((of, from));
        again.await;
    }
}
