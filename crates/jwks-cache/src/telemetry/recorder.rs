//! Forwards what is told to the recorder of the `metrics` facade, with handles kept per provider.

use std::fmt;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, with_recorder};

use super::{Told, Value};
use crate::sync::{Mutex, lock};

const REFRESH_SECONDS: &str = "jwks_cache_refresh_duration_seconds";
const RESPONSES: &str = "jwks_cache_upstream_responses_total";

static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// The handles of one provider.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Option<Box<Handles>>>);

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
    pub(super) fn flush(&self, tenant: &str, provider: &str, told: &[Told]) {
        self.with(tenant, provider, |handles, recorder| {
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
            for (handle, now) in handles.told.iter_mut().zip(told) {
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
        });
    }

    pub(super) fn took(&self, tenant: &str, provider: &str, took: Duration) {
        self.with(tenant, provider, |handles, _| handles.seconds.record(took));
    }

    pub(super) fn answered(&self, tenant: &str, provider: &str, code: u16) {
        let mut labels = labels(tenant, provider);
        labels.push(Label::new("code", code.to_string()));
        // One handle per code would be kept for nothing: answers are rare.
        let key = Key::from_parts(RESPONSES, labels);
        with_recorder(|recorder| recorder.register_counter(&key, &METADATA).increment(1));
    }

    fn with(&self, tenant: &str, provider: &str, act: impl FnOnce(&mut Handles, &dyn metrics::Recorder)) {
        with_recorder(|recorder| {
            let made_by = std::ptr::from_ref(recorder).cast::<()>().addr();
            let mut kept = lock(&self.0);
            let handles = match &mut *kept {
                Some(handles) if handles.made_by == made_by => handles,
                kept => {
                    let key = key(REFRESH_SECONDS, tenant, provider, None);
                    let seconds = recorder.register_histogram(&key, &METADATA);
                    kept.insert(Box::new(Handles { made_by, told: Vec::new(), seconds }))
                }
            };
            act(handles, recorder);
        });
    }
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
