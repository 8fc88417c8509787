//! The log: lines of JSON for machines, or of colour for people, on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// The target of the lines that say who did what in the control plane.
pub(crate) const AUDIT: &str = "audit";

/// Installs it for this process. Where somebody did before, theirs stays.
pub(crate) fn install(log: &Log) {
    let terminal = io::stderr().is_terminal();
    let format = log.format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json });
    let lines = tracing_subscriber::fmt().with_env_filter(filter(&log.level)).with_writer(io::stderr);
    // Both escape what stands in values.
    let _ = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_ansi(false).try_init(),
        LogFormat::Pretty => lines.with_ansi(terminal).with_target(false).try_init(),
    };
}

/// What is logged at a level. Who did what is logged at every one, unless a directive for `audit` itself says otherwise: the
/// later of two for one target counts.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_new(format!("{AUDIT}=info,{level}")).unwrap_or_else(|_| EnvFilter::new("info"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_what_is_logged_at_every_level() {
        for (level, others, audit) in [
            ("info", true, true),
            ("warn", false, true),
            ("off", false, true),
            ("jwks_cache=debug", false, true),
            ("info,audit=off", true, false),
        ] {
            let lines = tracing_subscriber::fmt().with_env_filter(filter(level)).with_writer(io::sink);
            tracing::subscriber::with_default(lines.finish(), || {
                assert_eq!(tracing::enabled!(target: AUDIT, tracing::Level::INFO), audit, "{level}");
                assert_eq!(tracing::enabled!(target: "others", tracing::Level::INFO), others, "{level}");
            });
        }
    }
}
