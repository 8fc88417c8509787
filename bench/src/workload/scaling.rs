//! W2: lookups of one key from 8 tasks, on 1 and on 2 threads. Who writes what others read does not scale.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::one_lookup::{install_recorder, install_subscriber};
use super::runtime;
use crate::cores;
use crate::reads::{Reader, WITH_KEY, arithmetic, readers};
use crate::report::{Cell, Table};
use crate::upstream::Upstream;

const TASKS: usize = 8;
/// Each task looks up in so many parts, and yields after each, so that threads share the tasks evenly.
const PARTS: usize = 20;
/// About so long is one thread at it.
const SAMPLE: Duration = Duration::from_millis(10);
/// One thread and two follow each other so often, and the median of their ratios counts: the best times of each would be
/// those of different moments.
const ROUNDS: usize = 40;
/// So often a round looks whether two threads have a core each. Without, it does not count.
const LOOKS: usize = 10;
/// With fewer rounds that count, nothing is judged.
const LEAST_ROUNDS: usize = 10;

/// The goal is 1.8 where pure computation reaches 1.96.
const GOAL: f64 = 1.8 / 1.96;

pub(super) fn run(_cap: Duration) -> Table {
    install_recorder();
    install_subscriber();
    let upstream = Upstream::start();
    let home = runtime();
    let readers = home.block_on(readers(&upstream, 1));
    let [first, second] = cores::first_two();
    let runtimes =
        Runtimes { one: [on_cores(&[first]), on_cores(&[second])], two: on_cores(&[first, second]) };
    let readers = [arithmetic()].into_iter().chain(readers);
    let mut all: Vec<_> = readers.map(|reader| Measured::new(reader, &runtimes)).collect();
    for _ in 0..ROUNDS {
        all.iter_mut().for_each(|measured| measured.round(&runtimes));
    }
    let columns = ["1 thread", "2 threads", "scaling", "of the control"];
    let title = "one key from 8 tasks, with a recorder and a subscriber at INFO; time a lookup";
    let mut table = Table::with_columns("W2", title, columns);
    let control = all[0].scaling();
    for measured in &all {
        let (name, scaling) = (measured.reader.name, measured.scaling());
        let [one, two] = [0, 1].map(|at| Cell::Nanos(measured.median(|nanos| nanos[at])));
        let cells = [one, two, Cell::Times(scaling), Cell::Times(scaling / control)];
        if name != WITH_KEY {
            table.tell(name, cells);
        } else if measured.rounds.len().min(all[0].rounds.len()) < LEAST_ROUNDS {
            table.tell(format!("{name}: not judged, two threads shared a core"), cells);
        } else {
            let goal = "≥ 1.8 where the control has 1.96: ≥ 0.92 of it";
            table.judge(name, cells, goal, scaling / control >= GOAL);
        }
    }
    home.shutdown_background();
    table
}

/// On either of two cores, and on both: one may be slower, while a neighbour uses its other half. A thread keeps its core,
/// as the kernel lets two that were just woken share one for some milliseconds.
struct Runtimes {
    one: [Runtime; 2],
    two: Runtime,
}

/// A runtime with a thread on each of these.
fn on_cores(cores: &[usize]) -> Runtime {
    let (left, threads) = (Mutex::new(cores.to_vec()), cores.len());
    let pin = move || {
        if let Some(core) = left.lock().expect("nothing panics under it").pop() {
            cores::stay_on(core);
        }
    };
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).on_thread_start(pin).enable_all().build().expect("threads can be started")
}

/// What one reader took, on one thread and on two, in nanoseconds a lookup.
struct Measured {
    reader: Reader,
    /// In a part.
    lookups: usize,
    /// Those that count.
    rounds: Vec<[f64; 2]>,
}

impl Measured {
    fn new(reader: Reader, runtimes: &Runtimes) -> Self {
        let mut measured = Self { reader, lookups: 100, rounds: Vec::new() };
        let nanos = measured.time(&runtimes.one[0]);
        measured.lookups = (SAMPLE.as_secs_f64() * 1e9 / nanos) as usize / (TASKS * PARTS) + 1;
        measured
    }

    fn round(&mut self, runtimes: &Runtimes) {
        let seen = cores::on_whole(LOOKS, || {
            let [one, other] = runtimes.one.each_ref().map(|runtime| self.time(runtime));
            // The mean of their speeds: two that differ share the tasks by their speeds as well.
            [2.0 / (1.0 / one + 1.0 / other), self.time(&runtimes.two)]
        });
        self.rounds.extend(seen);
    }

    fn time(&self, runtime: &Runtime) -> f64 {
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            let start = Instant::now();
            for task in 0..TASKS {
                let parts: Vec<_> =
                    (0..PARTS).map(|part| self.reader.lookups(task + part, self.lookups)).collect();
                tasks.spawn(async move {
                    for part in parts {
                        part.await;
                        tokio::task::yield_now().await;
                    }
                });
            }
            tasks.join_all().await;
            start.elapsed().as_secs_f64() * 1e9 / (TASKS * PARTS * self.lookups) as f64
        })
    }

    fn scaling(&self) -> f64 {
        self.median(|[one, two]| one / two)
    }

    /// Not a number where no round counts.
    fn median(&self, of: impl Fn([f64; 2]) -> f64) -> f64 {
        let mut all: Vec<f64> = self.rounds.iter().map(|&round| of(round)).collect();
        all.sort_unstable_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    }
}
