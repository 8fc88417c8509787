//! A Prometheus recorder, ready to render.

use std::sync::{Mutex, OnceLock};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::error::{Error, Result};
use crate::numbers::REFRESH_SECONDS;
use crate::sync::lock;
use crate::telemetry::FLIGHT_SECONDS;

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs a Prometheus recorder for the whole process. Repeat calls do nothing. What is counted reaches it, as any other
/// recorder, once a second; a lookup that is counted while it is told may wait for the second after.
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
    let name = Matcher::Full(REFRESH_SECONDS.into());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(name, &FLIGHT_SECONDS)
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
