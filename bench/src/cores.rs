//! Whether two threads have a core each. The processors of a virtual machine may be two threads of one core, now and
//! then for seconds: what fills a core's units then gains nothing from the second, without sharing a line of memory, while
//! what waits for its own results (one multiplication after the other) still seems to scale.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Two threads have a core each where they do so many times what one does.
const WHOLE: f64 = 1.8;
/// About a millisecond.
const STEPS: usize = 500_000;

/// Arithmetic in registers, eight results that do not wait for each other: nothing but a core's units.
pub fn fill(steps: usize) {
    let mut lanes = black_box([1_u64, 2, 3, 4, 5, 6, 7, 8]);
    for step in 0..steps {
        for lane in &mut lanes {
            *lane = lane.wrapping_add(step as u64) ^ (*lane >> 7);
        }
        lanes = black_box(lanes);
    }
}

/// Two that this process may use.
pub fn first_two() -> [usize; 2] {
    let allowed = sched_getaffinity(None).expect("the kernel tells a process its own");
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    let first = cores.next().expect("this runs on one");
    [first, cores.next().unwrap_or(first)]
}

/// Has this thread run on this core alone.
pub fn stay_on(core: usize) {
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one).expect("the process may use this core");
}

/// Takes some five milliseconds.
fn are_whole() -> bool {
    let cores = first_two();
    let best = |threads: usize| {
        let times = (0..3).map(|_| {
            let start = Instant::now();
            thread::scope(|scope| {
                for &core in &cores[..threads] {
                    scope.spawn(move || {
                        stay_on(core);
                        fill(STEPS / threads);
                    });
                }
            });
            start.elapsed()
        });
        times.min().unwrap_or(Duration::MAX)
    };
    let (one, two) = (best(1), best(2));
    one.as_secs_f64() >= WHOLE * two.as_secs_f64()
}

/// What a part brings while two threads have a core each, before it and after it; where they have not within so many
/// tries, what the last brought and `false`.
pub fn on_whole<T>(tries: usize, mut part: impl FnMut() -> T) -> (T, bool) {
    for _ in 1..tries {
        if are_whole() {
            let seen = part();
            if are_whole() {
                return (seen, true);
            }
        }
    }
    (part(), false)
}
