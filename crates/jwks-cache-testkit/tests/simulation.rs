//! The laws hold in a simulated world, seed after seed.
//!
//! `JWKS_CACHE_SIM_SEED=n` replays one seed and tells everything that happens in it;
//! `JWKS_CACHE_SIM_START=n` goes on from a seed to the end of the run; `JWKS_CACHE_SIM_SEEDS=n` runs so many
//! from there instead.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use jwks_cache_testkit::world::{Broken, Figures, Outages, simulate, simulate_outages};

/// A world is allocations for the most part.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

/// Runs the first `seeds` seeds on all cores, or those that the environment names.
fn run(seeds: u64) {
    if let Some(seed) = number("JWKS_CACHE_SIM_SEED") {
        let run = simulate(seed, true).unwrap_or_else(|broken| panic!("{broken}"));
        println!("{}\ndigest {:016x}", run.figures, run.digest);
        return;
    }
    let start = number("JWKS_CACHE_SIM_START").unwrap_or(0);
    let end = number("JWKS_CACHE_SIM_SEEDS").map_or(seeds, |count| start + count);
    assert!(start < end, "JWKS_CACHE_SIM_START={start} leaves nothing of {end} seeds");
    println!("seeds {start}..{end}");
    let (next, sum, broken) =
        (AtomicU64::new(start), Mutex::new(None::<Figures>), Mutex::new(None::<Broken>));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= end || broken.lock().unwrap().is_some() {
                        return;
                    }
                    match simulate(seed, false) {
                        Ok(run) => match &mut *sum.lock().unwrap() {
                            Some(sum) => sum.add(&run.figures),
                            empty => *empty = Some(run.figures),
                        },
                        Err(law) => *broken.lock().unwrap() = Some(law),
                    }
                    if (seed + 1 - start).is_multiple_of(100) {
                        // Others may still run the few before it.
                        println!("seed {seed} done; to go on from here: JWKS_CACHE_SIM_START={}", seed + 1);
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_none(), "{}; replay it with JWKS_CACHE_SIM_SEED", broken.unwrap());
    let figures = sum.into_inner().unwrap().unwrap();
    println!("{figures}");
    assert_eq!(figures.missing(), Vec::<String>::new(), "kinds that no seed has met");
}

#[test]
fn the_laws_hold_in_every_world() {
    run(200);
}

#[test]
#[ignore = "takes hours: cargo xtask long sim"]
fn the_laws_hold_in_twenty_thousand_worlds() {
    run(20_000);
}

#[test]
fn a_seed_replays_exactly() {
    // The last one starts a process at the very moment at which an answer comes.
    for seed in [1, 2, 1439] {
        assert_eq!(simulate(seed, false).unwrap(), simulate(seed, false).unwrap());
    }
}

#[test]
fn fallbacks_serve_through_outages_and_give_way() {
    let mut met = Outages::default();
    let (from, to) = match number("JWKS_CACHE_SIM_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, 24),
    };
    for seed in from..to {
        let one = simulate_outages(seed).unwrap_or_else(|broken| panic!("{broken}"));
        met.turns += one.turns;
        met.by_mirror += one.by_mirror;
        met.by_text += one.by_text;
        met.unanswered += one.unanswered;
    }
    println!("{met:?}");
    if to - from > 1 {
        let Outages { turns, by_mirror, by_text, unanswered } = met;
        assert!(
            [turns, by_mirror, by_text, unanswered].iter().all(|count| *count > 100),
            "too quiet: {met:?}"
        );
    }
}
