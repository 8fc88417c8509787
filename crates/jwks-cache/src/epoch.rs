//! When what readers may still be looking at is freed: epochs, of which a reader announces the one it reads in. That is
//! one locked instruction on a line nobody else writes, and none for a guard inside a guard.
//!
//! What stands in a place is plain data: it is freed by whichever thread replaced it, at its next guard after everybody
//! has moved on, and other code may hold a lock then.
//!
//! A thread that ends leaves the epochs before it drops what its other thread-locals hold. A runtime or a registry among
//! those must find its way all the same, so nothing but this room names `sdd`.

use std::iter;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::sync::atomic::Ordering;
use std::thread;

pub(crate) use sdd::Guard;
use sdd::{AtomicShared, Tag};

thread_local! {
    /// Made after this thread's part in the epochs, and so gone before it.
    static HERE: Here = {
        drop(Guard::new());
        Here
    };
}

/// While it is there, guards can be made.
struct Here;

impl Drop for Here {
    /// Only of what has something to drop does a thread know that it is gone.
    fn drop(&mut self) {}
}

/// A guard to read under; none where this thread has left. Nothing that was replaced is freed while anybody holds one, so
/// it is for a moment only.
#[inline]
pub(crate) fn enter() -> Option<Guard> {
    HERE.try_with(|_| Guard::new()).ok()
}

/// Does on another thread what this one cannot do any more. Where no thread can be made, `act` is left as it is.
#[cold]
fn elsewhere<R: Send>(act: impl FnOnce() -> R + Send) -> Option<R> {
    let act = ManuallyDrop::new(act);
    let act = move || ManuallyDrop::into_inner(act)();
    thread::scope(|scope| {
        let other = thread::Builder::new().spawn_scoped(scope, act).ok()?;
        Some(other.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Frees what this thread has replaced, unless somebody is looking at that very moment: then it is for a later one.
fn tidy() {
    // What was replaced in one epoch may be seen in the next, and is freed in the third.
    const EPOCHS: usize = 4;
    for guard in iter::repeat_with(enter).take(EPOCHS).flatten() {
        guard.accelerate();
    }
}

/// The same of what holds places itself, `depth` of them one within another.
pub(crate) fn tidy_down(depth: usize) {
    (0..depth).for_each(|_| tidy());
}

/// One that many hold, and maybe a place.
#[derive(Debug)]
pub(crate) struct Shared<T: Send + Sync + 'static>(Option<sdd::Shared<T>>);

impl<T: Send + Sync> Shared<T> {
    pub(crate) fn new(it: T) -> Self {
        Self(Some(sdd::Shared::new(it)))
    }
}

impl<T: Send + Sync> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + Sync> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // It is taken out where this is dropped, and nowhere else.
        self.0.as_deref().expect("it is there until it is dropped")
    }
}

impl<T: Send + Sync> Drop for Shared<T> {
    fn drop(&mut self) {
        leave(self.0.take());
    }
}

/// The last who leaves it hands it to the epochs, which free it when nobody can be looking.
fn leave<T: Send + Sync>(shared: Option<sdd::Shared<T>>) {
    if HERE.try_with(|_| ()).is_ok() {
        drop(shared);
    } else if shared.is_some() {
        elsewhere(|| {
            drop(shared);
            tidy();
        });
    }
}

/// Where readers look without a lock. It may be empty.
#[derive(Debug)]
pub(crate) struct Spot<T: Send + Sync + 'static>(AtomicShared<T>);

impl<T: Send + Sync> Default for Spot<T> {
    fn default() -> Self {
        Self(AtomicShared::null())
    }
}

impl<T: Send + Sync> Spot<T> {
    /// What stands here, in place.
    #[inline]
    pub(crate) fn load<'g>(&self, guard: &'g Guard) -> Option<&'g T> {
        self.0.load(Ordering::Acquire, guard).as_ref()
    }

    /// Others see `by` from now on.
    pub(crate) fn store(&self, by: Option<Shared<T>>) {
        let by = by.and_then(|mut by| by.0.take());
        let old = self.0.swap((by, Tag::None), Ordering::AcqRel).0;
        if old.is_some() {
            leave(old);
            tidy();
        }
    }
}

impl<T: Send + Sync> Drop for Spot<T> {
    fn drop(&mut self) {
        leave(self.0.swap((None, Tag::None), Ordering::AcqRel).0);
    }
}

/// A spot where one value follows the other. It is never empty.
#[derive(Debug)]
pub(crate) struct Place<T: Send + Sync + 'static>(Spot<T>);

impl<T: Send + Sync> Place<T> {
    pub(crate) fn new(it: T) -> Self {
        Self::sharing(&Shared::new(it))
    }

    /// Begins with what somebody else holds, too.
    pub(crate) fn sharing(it: &Shared<T>) -> Self {
        let place = Self(Spot::default());
        place.store(it);
        place
    }

    /// What stands here, in place.
    #[inline]
    pub(crate) fn load<'g>(&self, guard: &'g Guard) -> &'g T {
        // It began with a value, and only another one takes its place.
        self.0.load(guard).expect("a place is never empty")
    }

    /// The same, to keep.
    pub(crate) fn load_full(&self) -> Shared<T> {
        let load = |guard: &Guard| Shared(self.0.0.get_shared(Ordering::Acquire, guard));
        match enter() {
            Some(guard) => load(&guard),
            // Without memory for a thread, a process that ends one has nothing better to do than to end too.
            None => elsewhere(|| load(&Guard::new())).expect("a thread can be made"),
        }
    }

    /// Others see `by` from now on.
    pub(crate) fn store(&self, by: &Shared<T>) {
        self.0.store(Some(by.clone()));
    }
}
