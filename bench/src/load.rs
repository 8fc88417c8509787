//! Callers: a crowd that comes at once, a steady stream, and a probe that watches a key that is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::contender::Contender;

/// What became of a crowd.
#[derive(Default)]
pub struct Crowd {
    pub asked: usize,
    /// Got keys, or learnt that the kid is unknown.
    pub answered: usize,
    /// Were told why there are none.
    pub told: usize,
    /// From the start until the last caller had an answer or an error.
    pub last_after: Duration,
    /// How long each of those callers waited.
    pub waits: Vec<Duration>,
}

impl Crowd {
    pub fn done(&self) -> usize {
        self.answered + self.told
    }

    pub fn all_done(&self) -> bool {
        self.done() == self.asked
    }

    pub fn longest_wait(&self) -> Option<Duration> {
        self.all_done().then(|| self.waits.iter().max().copied()).flatten()
    }
}

/// All callers at once, each in a task of its own; those still waiting after `cap` are given up.
pub async fn crowd(contender: &Contender, kids: Vec<Option<String>>, cap: Duration) -> Crowd {
    let start = Instant::now();
    let mut crowd = Crowd { asked: kids.len(), ..Crowd::default() };
    let mut callers = JoinSet::new();
    for kid in kids {
        let contender = contender.clone();
        callers.spawn(async move {
            let asked = Instant::now();
            let answer = contender.lookup(kid.as_deref()).await;
            (answer.is_ok(), asked.elapsed(), start.elapsed())
        });
    }
    while let Ok(Some(Ok((answered, wait, since_start)))) = timeout_at(start + cap, callers.join_next()).await
    {
        if answered {
            crowd.answered += 1;
        } else {
            crowd.told += 1;
        }
        crowd.waits.push(wait);
        crowd.last_after = crowd.last_after.max(since_start);
    }
    crowd
}

/// What a stream of lookups came to.
#[derive(Default)]
pub struct Stream {
    pub lookups: usize,
    /// Failed, or gave no key, or were still waiting at the end.
    pub failed: usize,
    pub waits: Vec<Duration>,
}

const STREAMERS: u32 = 8;

/// `per_second` lookups of a held `kid` for `span`, spread over eight callers.
pub async fn stream(contender: &Contender, kid: &str, per_second: u32, span: Duration) -> Stream {
    let end = Instant::now() + span;
    let mut callers = JoinSet::new();
    for _ in 0..STREAMERS {
        let (contender, kid) = (contender.clone(), kid.to_owned());
        callers.spawn(async move {
            let mut stream = Stream::default();
            let mut tick = interval(Duration::from_secs(1) * STREAMERS / per_second);
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            while tick.tick().await < end {
                let asked = Instant::now();
                let answer = timeout_at(end, contender.lookup(Some(&kid))).await;
                stream.waits.push(asked.elapsed());
                stream.lookups += 1;
                stream.failed += usize::from(!matches!(answer, Ok(Ok(true))));
                if Instant::now() >= end {
                    break;
                }
            }
            stream
        });
    }
    let mut all = Stream::default();
    while let Some(Ok(one)) = callers.join_next().await {
        all.lookups += one.lookups;
        all.failed += one.failed;
        all.waits.extend(one.waits);
    }
    all
}

/// Looks a known kid up on a thread of its own, again and again, until it is told to stop.
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<Duration>>,
}

impl Probe {
    pub fn start(contender: &Contender, kid: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, contender, kid) = (stop.clone(), contender.clone(), kid.to_owned());
        let runtime = Handle::current();
        let thread = std::thread::spawn(move || {
            let mut waits = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(50));
                waits.push(runtime.block_on(async {
                    let asked = Instant::now();
                    let _ = contender.lookup(Some(&kid)).await;
                    asked.elapsed()
                }));
            }
            waits
        });
        Self { stop, thread }
    }

    pub async fn stop(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        tokio::task::spawn_blocking(|| self.thread.join().unwrap_or_default()).await.unwrap_or_default()
    }
}

/// The wait that 99 in 100 did not exceed.
pub fn p99(waits: &[Duration]) -> Option<Duration> {
    let mut sorted = waits.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() * 99).div_ceil(100).saturating_sub(1)).copied()
}
