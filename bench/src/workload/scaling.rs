//! W2: lookups of one key from 8 tasks, on 1 and on 2 threads. Who writes what others read does not scale.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::one_lookup::{install_recorder, install_subscriber};
use super::runtime;
use crate::reads::{Reader, WITH_KEY, readers};
use crate::report::{Cell, Table};
use crate::upstream::Upstream;

const TASKS: usize = 8;
/// Each task does so many lookups, and yields after each part of them, so that threads share the tasks evenly.
const PARTS: usize = 20;
const LOOKUPS: usize = 2_500;
const ROUNDS: usize = 15;

/// The goal is 1.8 where pure computation reaches 1.96.
const GOAL: f64 = 1.8 / 1.96;
/// Where it reaches less than this, somebody else has a core, and nothing is judged.
const LEAST_CONTROL: f64 = 1.8;

pub(super) fn run(_cap: Duration) -> Table {
    install_recorder();
    install_subscriber();
    let upstream = Upstream::start();
    let home = runtime();
    let readers = home.block_on(readers(&upstream, 1));
    let runtimes = [1, 2].map(|threads| {
        Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .expect("threads can be started")
    });
    let mut control = [f64::INFINITY; 2];
    let mut best = vec![[f64::INFINITY; 2]; readers.len()];
    for _ in 0..ROUNDS {
        for (threads, runtime) in runtimes.iter().enumerate() {
            control[threads] = control[threads].min(time(runtime, |_| compute()));
            for (reader, best) in readers.iter().zip(&mut best) {
                best[threads] = best[threads].min(time(runtime, |task| look(reader, task)));
            }
        }
    }
    let columns = ["1 thread", "2 threads", "scaling", "of the control"];
    let title = "one key from 8 tasks, with a recorder and a subscriber at INFO; time a lookup";
    let mut table = Table::with_columns("W2", title, columns);
    let control_scaling = control[0] / control[1];
    let cells = |[one, two]: [f64; 2]| {
        [Cell::Nanos(one), Cell::Nanos(two), Cell::Times(one / two), Cell::Times(one / two / control_scaling)]
    };
    table.tell("control: arithmetic", cells(control));
    for (reader, best) in readers.iter().zip(best) {
        if reader.name == WITH_KEY && control_scaling >= LEAST_CONTROL {
            let met = best[0] / best[1] / control_scaling >= GOAL;
            table.judge(reader.name, cells(best), "≥ 1.8 where the control has 1.96: ≥ 0.92 of it", met);
        } else if reader.name == WITH_KEY {
            table.tell(format!("{}: not judged, the control is below 1.8 ×", reader.name), cells(best));
        } else {
            table.tell(reader.name, cells(best));
        }
    }
    home.shutdown_background();
    table
}

/// Nanoseconds a lookup.
fn time<F>(runtime: &Runtime, part: impl Fn(usize) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let start = Instant::now();
        for task in 0..TASKS {
            tasks.spawn(part(task));
        }
        tasks.join_all().await;
        start.elapsed().as_secs_f64() * 1e9 / (TASKS * PARTS * LOOKUPS) as f64
    })
}

fn look(reader: &Reader, task: usize) -> impl Future<Output = ()> + Send + 'static {
    let parts: Vec<_> = (0..PARTS).map(|part| reader.lookups(task + part, LOOKUPS)).collect();
    async move {
        for part in parts {
            part.await;
            tokio::task::yield_now().await;
        }
    }
}

async fn compute() {
    for _ in 0..PARTS {
        let mut state = black_box(1_u64);
        for _ in 0..LOOKUPS * 5 {
            state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        black_box(state);
        tokio::task::yield_now().await;
    }
}
