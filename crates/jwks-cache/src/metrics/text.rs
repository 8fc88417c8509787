//! Providers' numbers in the text format of Prometheus, version 0.0.4, without a recorder.
//!
//! The format wants all series of one name together, so each name goes through all providers; a piece is made when it
//! is asked for, and the whole is never held.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::numbers::{
    FAMILIES, Family, Number, REFRESH_SECONDS, REFRESH_SECONDS_HELP, RESPONSES, RESPONSES_HELP,
};
use crate::refresh::Provider;
use crate::telemetry::FLIGHT_SECONDS;

/// About as long is a piece.
const PIECE: usize = 16 * 1024;

/// The text, piece by piece.
pub(crate) struct Text {
    providers: Vec<Arc<Provider>>,
    /// Which part is next.
    part: usize,
    /// Which provider of it is next.
    provider: usize,
}

/// What goes through all providers under one name.
#[derive(Clone, Copy)]
enum Part {
    Numbers(&'static Family),
    Responses,
    Seconds,
}

impl Text {
    pub(crate) fn of(providers: Vec<Arc<Provider>>) -> Self {
        Self { providers, part: 0, provider: 0 }
    }
}

impl Iterator for Text {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut text = String::new();
        while text.len() < PIECE {
            let Some(part) = Part::at(self.part) else { break };
            if self.provider == 0 {
                part.head(&mut text);
            }
            match self.providers.get(self.provider) {
                Some(provider) => {
                    part.write(provider, &mut text);
                    self.provider += 1;
                }
                None => (self.part, self.provider) = (self.part + 1, 0),
            }
        }
        (!text.is_empty()).then_some(text)
    }
}

impl Part {
    fn at(index: usize) -> Option<Self> {
        let others = [Self::Responses, Self::Seconds];
        FAMILIES.iter().map(Self::Numbers).chain(others).nth(index)
    }

    fn head(self, to: &mut String) {
        let (name, help, kind) = match self {
            Self::Numbers(family) => {
                let counted = matches!(family.series.first(), Some((_, Number::Counter(_))));
                (family.name, family.help, if counted { "counter" } else { "gauge" })
            }
            Self::Responses => (RESPONSES, RESPONSES_HELP, "counter"),
            Self::Seconds => (REFRESH_SECONDS, REFRESH_SECONDS_HELP, "histogram"),
        };
        // Writing to a text does not fail, here and below.
        let _ = writeln!(to, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn write(self, provider: &Provider, to: &mut String) {
        let flights = || provider.counters.flights();
        match self {
            Self::Numbers(family) => {
                let seen = provider.seen();
                for &(value, of) in family.series {
                    let label = family.label(value);
                    match of {
                        Number::Counter(count) => line(to, family.name, provider, label, count(&seen)),
                        Number::Gauge(measure) => {
                            if let Some(measured) = measure(&seen) {
                                line(to, family.name, provider, label, measured);
                            }
                        }
                    }
                }
            }
            Self::Responses => flights().into_iter().flat_map(|of| of.answers).for_each(|(code, count)| {
                line(to, RESPONSES, provider, Some(("code", code)), count);
            }),
            Self::Seconds => {
                let Some(flights) = flights().filter(|of| of.count > 0) else { return };
                let bucket = format!("{REFRESH_SECONDS}_bucket");
                let mut so_far = 0;
                for (bound, within) in FLIGHT_SECONDS.into_iter().zip(flights.within) {
                    so_far += within;
                    line(to, &bucket, provider, Some(("le", bound)), so_far);
                }
                line(to, &bucket, provider, Some(("le", "+Inf")), flights.count);
                let took = flights.took.as_secs_f64();
                line(to, &format!("{REFRESH_SECONDS}_sum"), provider, None::<(&str, &str)>, took);
                line(to, &format!("{REFRESH_SECONDS}_count"), provider, None::<(&str, &str)>, flights.count);
            }
        }
    }
}

/// No value of a label needs an escape: ids are letters, digits, `-` and `_`, and the rest is ours.
fn line(
    to: &mut String,
    name: &str,
    of: &Provider,
    label: Option<(&str, impl std::fmt::Display)>,
    value: impl std::fmt::Display,
) {
    let _ = write!(to, "{name}{{tenant=\"{}\",provider=\"{}\"", of.tenant(), of.id());
    if let Some((label, of)) = label {
        let _ = write!(to, ",{label}=\"{of}\"");
    }
    let _ = writeln!(to, "}} {value}");
}
