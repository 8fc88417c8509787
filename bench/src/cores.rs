//! Whether two threads have a core each. The processors of a virtual machine may be two threads of one core, now and
//! then for seconds: what fills a core's units then gains little from the second, without sharing a line of memory, while
//! what waits for its own results (one multiplication after the other) still seems to scale.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Two threads have a core each where both are at least so fast as each alone.
const WHOLE: f64 = 0.9;
/// About a millisecond.
const STEPS: usize = 500_000;
/// A pause between two looks at cores that were not whole.
const PAUSE: Duration = Duration::from_millis(20);

/// Arithmetic on eight numbers that do not wait for each other.
pub fn fill(steps: usize) {
    let mut lanes = black_box([1_u64, 2, 3, 4, 5, 6, 7, 8]);
    for step in 0..steps as u64 {
        let step = black_box(step);
        for lane in &mut lanes {
            *lane = lane.wrapping_add(step) ^ (*lane >> 7);
        }
    }
    black_box(lanes);
}

/// The first two processors that this process may use; the same twice where it may use one.
pub fn first_two() -> [usize; 2] {
    let allowed = sched_getaffinity(None).expect("the kernel tells a process its own");
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    let first = cores.next().expect("this runs on one");
    [first, cores.next().unwrap_or(first)]
}

/// Has this thread run on this processor alone.
pub fn stay_on(core: usize) {
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one).expect("the process may use this core");
}

/// How long each of these takes to fill itself, all at once.
fn times<const N: usize>(cores: [usize; N]) -> [Duration; N] {
    let together = Barrier::new(N);
    thread::scope(|scope| {
        let threads = cores.map(|core| {
            let together = &together;
            scope.spawn(move || {
                stay_on(core);
                together.wait();
                let start = Instant::now();
                fill(STEPS);
                start.elapsed()
            })
        });
        threads.map(|thread| thread.join().expect("arithmetic does not panic"))
    })
}

/// Takes some ten milliseconds.
fn are_whole() -> bool {
    let [first, second] = first_two();
    let (mut alone, mut both) = ([Duration::MAX; 2], [Duration::MAX; 2]);
    for _ in 0..3 {
        let [one] = times([first]);
        let [other] = times([second]);
        let pair = times([first, second]);
        alone = [alone[0].min(one), alone[1].min(other)];
        both = [both[0].min(pair[0]), both[1].min(pair[1])];
    }
    alone.iter().zip(both).all(|(alone, both)| alone.as_secs_f64() >= WHOLE * both.as_secs_f64())
}

/// What a part brings while two threads have a core each, before it and after it. Where they have not within so many
/// looks, nothing.
pub fn on_whole<T>(looks: usize, mut part: impl FnMut() -> T) -> Option<T> {
    for _ in 0..looks {
        if are_whole() {
            let seen = part();
            if are_whole() {
                return Some(seen);
            }
        }
        thread::sleep(PAUSE);
    }
    None
}
