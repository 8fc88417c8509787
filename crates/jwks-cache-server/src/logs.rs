//! The log: lines of JSON for machines, or of colour for people, on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Installs it for this process. Where somebody did before, theirs stays.
pub(crate) fn install(log: &Log) {
    let terminal = io::stderr().is_terminal();
    let format = log.format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json });
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Both escape what stands in values.
    let _ = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_ansi(false).try_init(),
        LogFormat::Pretty => lines.with_ansi(terminal).with_target(false).try_init(),
    };
}
