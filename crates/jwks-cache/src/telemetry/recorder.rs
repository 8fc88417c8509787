//! Forwards what is told to the recorder of the `metrics` facade, with handles kept per provider.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, IntoF64, Key, Label, Level, Metadata, with_recorder};

use super::{FLIGHT_SECONDS, Told, Value};
use crate::numbers::{REFRESH_SECONDS, RESPONSES};
use crate::sync::{Mutex, lock};

static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Who is told of one provider. Nothing is kept before there is somebody.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Option<Box<Kept>>>);

enum Kept {
    Handles(Handles),
    /// Nobody is told; who wants to know asks.
    Here(Flights),
}

/// How long flights took, and what providers answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights {
    /// How many took at most as long as the bucket says, and longer than the one before.
    pub(crate) within: [u64; FLIGHT_SECONDS.len()],
    pub(crate) count: u64,
    pub(crate) took: Duration,
    /// By status code.
    pub(crate) answers: Vec<(u16, u64)>,
}

struct Handles {
    /// The recorder these were made by: a recorder that is installed later gets handles of its own.
    made_by: usize,
    /// In the order of what is told.
    told: Vec<Handle>,
    seconds: Histogram,
}

enum Handle {
    Counter { counter: Counter, told: u64 },
    Gauge(Gauge),
}

impl Recorder {
    /// No recorder is told, but [`flights`](Self::flights) tells who asks.
    pub(super) fn here() -> Self {
        Self(Mutex::new(Some(Box::new(Kept::Here(Flights::default())))))
    }

    pub(super) fn flights(&self) -> Option<Flights> {
        match lock(&self.0).as_deref() {
            Some(Kept::Here(flights)) => Some(flights.clone()),
            _ => None,
        }
    }

    /// Asks for the numbers only when somebody listens.
    pub(super) fn flush(&self, tenant: &str, provider: &str, told: impl FnOnce() -> Vec<Told>) {
        self.with(
            tenant,
            provider,
            |handles, recorder| {
                let told = told();
                handles.told.reserve_exact(told.len().saturating_sub(handles.told.len()));
                for told in told.iter().skip(handles.told.len()) {
                    let key = key(told.name, tenant, provider, told.label);
                    handles.told.push(match told.value {
                        Value::Counter(_) => {
                            Handle::Counter { counter: recorder.register_counter(&key, &METADATA), told: 0 }
                        }
                        Value::Gauge(_) => Handle::Gauge(recorder.register_gauge(&key, &METADATA)),
                    });
                }
                for (handle, now) in handles.told.iter_mut().zip(&told) {
                    match (handle, now.value) {
                        (Handle::Counter { counter, told }, Value::Counter(now)) => {
                            counter.increment(now.saturating_sub(*told));
                            // Another flush may have been faster.
                            *told = now.max(*told);
                        }
                        (Handle::Gauge(gauge), Value::Gauge(Some(now))) => gauge.set(now),
                        _ => {}
                    }
                }
            },
            |_| {},
        );
    }

    pub(super) fn took(&self, tenant: &str, provider: &str, took: Duration) {
        let count = |flights: &mut Flights| {
            let bucket = FLIGHT_SECONDS.iter().position(|bound| took.as_secs_f64() <= *bound);
            if let Some(within) = bucket.and_then(|bucket| flights.within.get_mut(bucket)) {
                *within += 1;
            }
            flights.count += 1;
            flights.took = flights.took.saturating_add(took);
        };
        self.with(tenant, provider, |handles, _| handles.seconds.record(took), count);
    }

    pub(super) fn answered(&self, tenant: &str, provider: &str, code: u16) {
        let tell = |_: &mut Handles, recorder: &dyn metrics::Recorder| {
            let mut labels = labels(tenant, provider);
            labels.push(Label::new("code", code.to_string()));
            // One handle per code would be kept for nothing: answers are rare.
            let key = Key::from_parts(RESPONSES, labels);
            recorder.register_counter(&key, &METADATA).increment(1);
        };
        let count = |flights: &mut Flights| match flights.answers.iter_mut().find(|(of, _)| *of == code) {
            Some((_, count)) => *count += 1,
            None => flights.answers.push((code, 1)),
        };
        self.with(tenant, provider, tell, count);
    }

    /// Tells the recorder, or counts here where none is told.
    fn with(
        &self,
        tenant: &str,
        provider: &str,
        tell: impl FnOnce(&mut Handles, &dyn metrics::Recorder),
        count: impl FnOnce(&mut Flights),
    ) {
        if let Some(Kept::Here(flights)) = lock(&self.0).as_deref_mut() {
            return count(flights);
        }
        with_recorder(|recorder| {
            let made_by = std::ptr::from_ref(recorder).cast::<()>().addr();
            let mut kept = lock(&self.0);
            if !matches!(kept.as_deref(), Some(Kept::Handles(handles)) if handles.made_by == made_by) {
                let key = key(REFRESH_SECONDS, tenant, provider, None);
                let seconds = recorder.register_histogram(&key, &METADATA);
                if nobody_listens(recorder, &seconds) {
                    return;
                }
                *kept = Some(Box::new(Kept::Handles(Handles { made_by, told: Vec::new(), seconds })));
            }
            if let Some(Kept::Handles(handles)) = kept.as_deref_mut() {
                tell(handles, recorder);
            }
        });
    }
}

/// Whether `recorder` is the one that stands in while none is installed. `metrics` does not say; but that one
/// has no state, and its handles drop what they are told unread.
fn nobody_listens(recorder: &dyn metrics::Recorder, of_it: &Histogram) -> bool {
    struct Ear<'a>(&'a Cell<bool>);
    impl IntoF64 for Ear<'_> {
        fn into_f64(self) -> f64 {
            self.0.set(true);
            0.0
        }
    }
    let read = Cell::new(false);
    // Told no times.
    of_it.record_many(Ear(&read), 0);
    size_of_val(recorder) == 0 && !read.get()
}

fn key(name: &'static str, tenant: &str, provider: &str, label: Option<(&'static str, &'static str)>) -> Key {
    let mut labels = labels(tenant, provider);
    labels.extend(label.map(|(name, value)| Label::new(name, value)));
    Key::from_parts(name, labels)
}

fn labels(tenant: &str, provider: &str) -> Vec<Label> {
    vec![Label::new("tenant", tenant.to_owned()), Label::new("provider", provider.to_owned())]
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

#[cfg(all(test, feature = "prometheus"))]
mod tests {
    use metrics::{NoopRecorder, with_local_recorder};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn nothing_is_counted_together_or_kept_while_nobody_listens() {
        let recorder = Recorder::default();
        with_local_recorder(&NoopRecorder, || {
            recorder.took("acme", "main", Duration::from_millis(1));
            recorder.flush("acme", "main", || panic!("nobody listens"));
        });
        assert!(lock(&recorder.0).is_none());
        let prometheus = PrometheusBuilder::new().build_recorder();
        let told = || vec![Told { name: "jwks_cache_hits_total", label: None, value: Value::Counter(7) }];
        with_local_recorder(&prometheus, || recorder.flush("acme", "main", told));
        assert!(prometheus.handle().render().contains("} 7"));
    }
}
