//! Counts what is allocated, while somebody asks for it. The one file with unsafe code: an allocator's trait is.
#![allow(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait; every call goes to the system's allocator as it came"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Off while times are taken, so that counting costs those who allocate one load each.
static ON: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicI64 = AtomicI64::new(0);

thread_local! {
    /// Of this thread: what others do in the background is not a lookup's.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn note(allocations: u64, bytes: i64) {
    if ON.load(Relaxed) {
        // A thread that ends counts no more.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + allocations));
        LIVE.fetch_add(bytes, Relaxed);
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// SAFETY: every call is handed to `System` unchanged; counting touches nothing but atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, signed(layout.size()));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(0, -signed(layout.size()));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, signed(size) - signed(layout.size()));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Allocations that this thread makes while `of` runs.
pub fn allocations(of: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    ON.store(true, Relaxed);
    of();
    ON.store(false, Relaxed);
    ALLOCATIONS.get() - before
}

/// Counts bytes from now on, until it is dropped.
pub struct Heap(());

impl Heap {
    pub fn watch() -> Self {
        LIVE.store(0, Relaxed);
        ON.store(true, Relaxed);
        Self(())
    }

    /// Bytes asked for and not given back since it began, in the whole process.
    pub fn live(&self) -> f64 {
        LIVE.load(Relaxed) as f64
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        ON.store(false, Relaxed);
    }
}

/// Bytes that the C library's allocator has given out, to Rust and to C, with what it adds to each.
pub fn malloced() -> f64 {
    // SAFETY: it takes nothing and returns a plain value.
    unsafe { libc::mallinfo2() }.uordblks as f64
}
