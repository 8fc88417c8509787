//! The locks, atomics and channels of what several threads decide together: std's and tokio's, or, in
//! `concurrency/`, those of a scheduler that tries their interleavings.

#[cfg(not(shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(shuttle))]
pub(crate) use tokio::sync::broadcast;

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};
// The scheduler's own has another shape; nobody decides by events.
#[cfg(shuttle)]
pub(crate) use real_tokio::sync::broadcast;

/// Locks a mutex. One that a panic poisoned still holds a consistent state: nothing here panics
/// halfway through a change, and if it does all the same, serving goes on.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A moment at which other threads may look at what was just written without a lock: the scheduler sees no map.
#[inline]
pub(crate) fn seen_by_others() {
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
}
