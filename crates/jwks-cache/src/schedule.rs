//! One sleeper for all timers of a registry: an idle provider costs an entry, not a task.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use jwks_cache_core::Moment;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::engine::Engine;
use crate::refresh::Provider;
use crate::sync::{Mutex, MutexGuard, lock};
use crate::telemetry::FLUSH_EVERY;

/// The timers of a registry.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    timers: Mutex<Timers>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Timers {
    due: BTreeMap<(Moment, u64), Weak<Provider>>,
    /// Providers that were ever used: the tick asks each whether it has something to tell.
    enlisted: Vec<Weak<Provider>>,
    running: bool,
    closed: bool,
}

impl Schedule {
    /// Moves a provider's timer from one moment to another.
    pub(crate) fn rearm(
        &self,
        engine: &Arc<Engine>,
        provider: &Arc<Provider>,
        old: Option<Moment>,
        new: Option<Moment>,
    ) {
        let mut timers = lock(&self.timers);
        if let Some(old) = old {
            timers.due.remove(&(old, provider.serial()));
        }
        if let Some(new) = new {
            let sooner = timers.due.first_key_value().is_none_or(|((first, _), _)| new < *first);
            timers.due.insert((new, provider.serial()), Arc::downgrade(provider));
            if sooner {
                self.changed.notify_one();
            }
            self.keep_running(timers, engine);
        }
    }

    /// Has the tick look at a provider from now on, so that hits need not ask for it.
    pub(crate) fn enlist(&self, engine: &Arc<Engine>, provider: &Arc<Provider>) {
        let mut timers = lock(&self.timers);
        if timers.enlisted.is_empty() {
            self.changed.notify_one();
        }
        timers.enlisted.push(Arc::downgrade(provider));
        self.keep_running(timers, engine);
    }

    /// Ends the sleeper for good.
    pub(crate) fn close(&self) {
        let mut timers = lock(&self.timers);
        timers.closed = true;
        timers.due.clear();
        timers.enlisted.clear();
        self.changed.notify_one();
    }

    /// Spawns the sleeper unless it runs. Without a runtime, the next caller who has one does.
    fn keep_running(&self, mut timers: MutexGuard<'_, Timers>, engine: &Arc<Engine>) {
        if timers.running || timers.closed {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            timers.running = true;
            // A runtime that is shutting down drops the task at once, and that takes the lock.
            drop(timers);
            runtime.spawn(run(Stopped(Arc::downgrade(engine)), self.changed.clone()));
        }
    }
}

/// Says that the sleeper is gone, also when its runtime went away.
struct Stopped(Weak<Engine>);

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Some(engine) = self.0.upgrade() {
            lock(&engine.schedule.timers).running = false;
        }
    }
}

async fn run(stopped: Stopped, changed: Arc<Notify>) {
    let mut flush_at = None;
    // The engine is held only between sleeps: dropping the registry's last handle ends this task.
    while let Some(engine) = stopped.0.upgrade() {
        let now = engine.clock.now();
        let (due, next, flush) = {
            let mut timers = lock(&engine.schedule.timers);
            if timers.closed {
                return;
            }
            let later = timers.due.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut timers.due, later);
            let next = timers.due.first_key_value().map(|((moment, _), _)| *moment);
            let socket_now = crate::clock::socket_now();
            let flush = if timers.enlisted.is_empty() {
                flush_at = None;
                Vec::new()
            } else if *flush_at.get_or_insert(socket_now + FLUSH_EVERY) <= socket_now {
                flush_at = Some(socket_now + FLUSH_EVERY);
                let mut flush = Vec::new();
                timers.enlisted.retain(|provider| match provider.upgrade() {
                    Some(provider) => {
                        if provider.counters.wants_flush(&provider.front.hits) {
                            flush.push(provider);
                        }
                        true
                    }
                    None => false,
                });
                flush
            } else {
                Vec::new()
            };
            (due, next, flush)
        };
        for provider in due.into_values().filter_map(|provider| provider.upgrade()) {
            provider.timer_fired();
        }
        for provider in flush {
            provider.flush_counts();
        }
        let timer = next.map(|moment| engine.clock.sleep_until(moment));
        drop(engine);
        tokio::select! {
            biased; // whichever it is, all are looked at; and what is seeded runs the same each time
            () = changed.notified() => {}
            () = async { match timer { Some(timer) => timer.await, None => std::future::pending().await } } => {}
            () = async {
                match flush_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}
