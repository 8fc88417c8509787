//! A Prometheus recorder, ready to render.

use std::sync::{Mutex, OnceLock};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::error::{Error, Result};
use crate::sync::lock;

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// From 5 ms, a fetch nearby, to 10 s, beyond the default deadline of a flight.
const SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0];

/// Installs a Prometheus recorder for the whole process. Repeat calls do nothing.
///
/// # Errors
/// [`Error::Cache`] when another recorder was installed before.
pub fn install_default_exporter() -> Result<()> {
    // One at a time: who comes second must find the handle of who came first.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _alone = lock(&INSTALLING);
    if HANDLE.get().is_some() {
        return Ok(());
    }
    let name = Matcher::Full("jwks_cache_refresh_duration_seconds".into());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(name, &SECONDS)
        .map_err(|error| Error::Cache(format!("the exporter refused its buckets: {error}")))?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)
        .map_err(|_| Error::Cache("another metrics recorder is installed; render that one".into()))?;
    // Not set before: only who installed the recorder comes here.
    let _ = HANDLE.set(handle);
    Ok(())
}

/// The handle of the recorder that [`install_default_exporter`] installed.
#[must_use]
pub fn prometheus_handle() -> Option<&'static PrometheusHandle> {
    HANDLE.get()
}
