//! How the story looks: as it goes on, as a table at its end, as JSON. It judges nothing.

use std::time::Duration;

use serde::Serialize;

use super::judge::{LIFETIME, PROMISES, Rule, SLACK, Step, Unit, Verdict};
use crate::terminal::{self, Paint, Table};

/// A step that has been played.
#[derive(Debug)]
pub(super) struct StepTold {
    pub(super) step: Step,
    /// The requests that came meanwhile.
    pub(super) requests: Requests,
    /// What else is worth knowing; nothing is promised about it.
    pub(super) note: String,
}

/// Requests at each provider, counted there.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Requests {
    pub(super) acme: u64,
    pub(super) globex: u64,
}

/// Tells the story as it goes on, or keeps silent.
pub(super) struct Teller {
    paint: Option<Paint>,
}

impl Teller {
    pub(super) const fn silent() -> Self {
        Self { paint: None }
    }

    pub(super) fn on_stdout() -> Self {
        Self { paint: Some(Paint::for_stdout()) }
    }

    pub(super) fn opening(&self, factor: u32) {
        let Some(paint) = self.paint else { return };
        let lifetime = LIFETIME.as_secs();
        let real = LIFETIME.as_secs_f64() / f64::from(factor);
        terminal::print(&format!(
            "{}\n\n\
             Two tenants, each with an identity provider of its own on loopback: acme (RS256), globex (ES256).\n\
             Policy time runs {factor} times as fast as the wall: keys live {lifetime} s, which takes {real} s.\n\
             What sockets and callers wait is not scaled. Requests are counted at the providers.\n",
            paint.bold("jwks-cache demo"),
        ));
    }

    pub(super) fn begin(&self, step: Step) {
        let Some(paint) = self.paint else { return };
        let number = Step::ALL.iter().position(|other| *other == step).unwrap_or(0) + 1;
        let title = paint.bold(&format!("{number:>2}  {}", step.title()));
        terminal::print(&format!("\n{title}\n    {}\n", scene(step)));
    }

    pub(super) fn end(&self, told: &StepTold, verdicts: &[Verdict]) {
        let Some(paint) = self.paint else { return };
        let width = PROMISES.iter().map(|promise| promise.text.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for verdict in verdicts {
            let (what, promised, seen) = (verdict.promise.text, promised(verdict), seen(verdict));
            let line = format!("{what:<width$}  promised {promised:<10}  seen {seen}");
            let line = if verdict.held { line } else { paint.bad(&line) };
            text.push_str(&format!("    {} {line}\n", paint.mark(verdict.held)));
        }
        for line in wrapped(&told.note) {
            text.push_str(&format!("      {}\n", paint.dim(&line)));
        }
        terminal::print(&text);
    }

    pub(super) fn summary(&self, took: Duration, told: &[StepTold], lookups: u64, verdicts: &[Verdict]) {
        let Some(paint) = self.paint else { return };
        let mut table = Table::new(["STEP", "PROMISED", "SEEN", "REQUESTS", "VERDICT"]).right(2).right(3);
        let mut good = Vec::new();
        for step in Step::ALL {
            let of: Vec<_> = verdicts.iter().filter(|verdict| verdict.promise.step == step).collect();
            let held = of.iter().filter(|verdict| verdict.held).count();
            good.push(held == of.len());
            // The headline, or what is worse.
            let shown = of.iter().find(|verdict| !verdict.held).or_else(|| of.first());
            let Some(shown) = shown else { continue };
            let requests = told.iter().find(|told| told.step == step).map(|told| told.requests);
            let requests = requests.map(|of| format!("{} + {}", grouped(of.acme), grouped(of.globex)));
            let mark = if held == of.len() { "✔" } else { "✘" };
            table.push([
                step.title().to_owned(),
                format!("{}: {}", shown.promise.text, promised(shown)),
                seen(shown),
                requests.unwrap_or_else(|| "–".to_owned()),
                format!("{mark} {held} of {} held", of.len()),
            ]);
        }
        let lines = table.lines(|row, column, cell| match (row, column) {
            (0, _) => paint.dim(cell),
            (row, 4) if good.get(row - 1) == Some(&true) => paint.good(cell),
            (_, 4) => paint.bad(cell),
            _ => cell.to_owned(),
        });
        let held = verdicts.iter().filter(|verdict| verdict.held).count();
        let all = held == verdicts.len();
        let verdict = if all {
            paint.good(&format!("✔ All {held} promises held."))
        } else {
            paint.bad(&format!("✘ {} of {} promises were broken.", verdicts.len() - held, verdicts.len()))
        };
        let requests = told.iter().map(|told| told.requests.acme + told.requests.globex).sum();
        terminal::print(&format!(
            "\n{}\n\n{verdict} {} lookups cost {} requests, in {:.1} s.\n{}\n",
            lines.join("\n"),
            grouped(lookups),
            grouped(requests),
            took.as_secs_f64(),
            paint.dim(&format!(
                "Requests are those at acme + those at globex.\n\
                 * A busy machine wakes a caller late: {} ms of the wall are allowed on top.",
                SLACK.as_millis()
            )),
        ));
    }
}

/// What happens in a step.
fn scene(step: Step) -> &'static str {
    match step {
        Step::ColdStart => {
            "Nothing is held. 1,000 callers come to each provider at once; it takes 100 ms to answer."
        }
        Step::Tokens => "Tokens are minted by both providers, and shown to both tenants.",
        Step::Freshness => {
            "Callers keep coming while keys grow old. A timer revalidates them early, by ETag."
        }
        Step::Rotation => {
            "Each provider signs with a new key from now on. 100 callers bring new tokens at once."
        }
        Step::Flood => "Tokens with made-up kids pour in at globex. Then globex rotates in earnest.",
        Step::SlowProvider => "globex hangs: first while its keys are fresh, then when they have expired.",
        Step::DeadProvider => "acme answers 503 to everything. Its keys expire; the stale window begins.",
        Step::StaleWindowOver => "acme is off the network now, and nothing may be served stale any longer.",
        Step::Recovery => "acme comes back.",
        Step::DeniedKey => "An operator denies the key that acme signs with, and allows it again.",
    }
}

fn promised(verdict: &Verdict) -> String {
    let limit = measured(verdict.limit, verdict.promise.unit);
    match verdict.promise.rule {
        Rule::Exactly(_) => limit,
        Rule::AtLeast(_) => format!("≥ {limit}"),
        Rule::AtMost(_) if verdict.promise.unit != Unit::Count => format!("≤ {limit} *"),
        Rule::AtMost(_) | Rule::AtMostEach { .. } | Rule::DoublingWaits { .. } => format!("≤ {limit}"),
    }
}

fn seen(verdict: &Verdict) -> String {
    verdict.seen.map_or_else(|| "nothing".to_owned(), |seen| measured(seen.seen, verdict.promise.unit))
}

fn measured(number: u64, unit: Unit) -> String {
    match unit {
        Unit::Count => grouped(number),
        Unit::Millis => format!("{} ms", grouped(number)),
        Unit::PolicyMillis => format!("{}.{} s", number / 1_000, number % 1_000 / 100),
    }
}

/// Lines of at most 92 characters, broken between words.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= 92 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A number with its thousands set apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A short span in milliseconds.
pub(super) fn millis(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1_000.0)
}

/// The whole story as one JSON document. Fields are added, not renamed.
pub(super) fn json(
    factor: u32,
    took: Duration,
    told: &[StepTold],
    lookups: u64,
    verdicts: &[Verdict],
) -> String {
    let steps = Step::ALL.into_iter().map(|step| {
        let played = told.iter().find(|told| told.step == step);
        JsonStep {
            step: step.title(),
            requests_at_providers: played.map(|told| told.requests),
            note: played.map(|told| told.note.as_str()),
            promises: verdicts
                .iter()
                .filter(|verdict| verdict.promise.step == step)
                .map(|verdict| JsonPromise {
                    id: verdict.promise.id,
                    text: verdict.promise.text,
                    promised: promised(verdict),
                    seen: verdict.seen.map(|seen| seen.seen),
                    unit: match verdict.promise.unit {
                        Unit::Count => "count",
                        Unit::Millis => "ms",
                        Unit::PolicyMillis => "policy ms",
                    },
                    timed: verdict.promise.is_timed(),
                    held: verdict.held,
                })
                .collect(),
        }
    });
    terminal::json(&JsonStory {
        held: verdicts.iter().all(|verdict| verdict.held),
        factor,
        seconds: took.as_secs_f64(),
        lookups,
        requests_at_providers: told.iter().fold(Requests::default(), |sum, told| Requests {
            acme: sum.acme + told.requests.acme,
            globex: sum.globex + told.requests.globex,
        }),
        steps: steps.collect(),
    })
}

#[derive(Serialize)]
struct JsonStory<'a> {
    held: bool,
    factor: u32,
    seconds: f64,
    lookups: u64,
    requests_at_providers: Requests,
    steps: Vec<JsonStep<'a>>,
}

#[derive(Serialize)]
struct JsonStep<'a> {
    step: &'a str,
    requests_at_providers: Option<Requests>,
    note: Option<&'a str>,
    promises: Vec<JsonPromise<'a>>,
}

#[derive(Serialize)]
struct JsonPromise<'a> {
    id: &'a str,
    text: &'a str,
    promised: String,
    seen: Option<u64>,
    unit: &'a str,
    /// Whether it takes a machine that keeps pace.
    timed: bool,
    held: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_carry_their_unit() {
        for (number, want) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), want);
        }
        assert_eq!(measured(1_250, Unit::Millis), "1,250 ms");
        assert_eq!(measured(4_290, Unit::PolicyMillis), "4.2 s");
    }
}
