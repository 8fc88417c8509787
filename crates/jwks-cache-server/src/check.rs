//! `jwks-cache check` and `jwks-cache schema`: is this configuration right, and what may stand in one?

use std::process::ExitCode;

use futures_util::stream::{self, StreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use jwks_cache::Registry;
use serde::Serialize;
use serde_json::json;

use crate::cli::CheckArgs;
use crate::config::{self, Config, Problem, Problems};
use crate::run;
use crate::serve::{StartError, stock};
use crate::terminal::{self, Paint, Table};

/// How many providers are asked at once.
const AT_ONCE: usize = 16;

/// Prints the JSON Schema.
pub(crate) fn schema() -> ExitCode {
    terminal::print(&terminal::json(config::schema()));
    ExitCode::SUCCESS
}

/// Checks a configuration, and with `--online` its providers.
pub(crate) async fn run(args: &CheckArgs) -> ExitCode {
    let loaded = run::source(&args.settings).and_then(|source| source.load());
    let config = match loaded {
        Ok(loaded) => loaded.config,
        Err(problems) => return told(&problems, args.json),
    };
    let registry = stock::without_stores(&config);
    if let Err(StartError { field, what, remedy }) =
        stock::register_all(&registry, config.registrations(), |_| Vec::new()).await
    {
        return told(&Problem { place: None, field, what, remedy }.into(), args.json);
    }
    let found = if args.online { ask(&registry, &config, args.json).await } else { Vec::new() };
    let good = found.iter().all(|provider| provider.error.is_none() && provider.usable > 0);
    terminal::print(&if args.json {
        terminal::json(&json!({"good": good, "problems": [], "providers": found}))
    } else {
        text(&config, &found, Paint::for_stdout())
    });
    ExitCode::from(u8::from(!good))
}

fn told(problems: &Problems, as_json: bool) -> ExitCode {
    if !as_json {
        return run::refused(problems);
    }
    let problems: Vec<_> = problems
        .0
        .iter()
        .map(|of| json!({"place": of.place.as_ref().map(ToString::to_string), "field": of.field, "what": of.what, "remedy": of.remedy}))
        .collect();
    terminal::print(&terminal::json(&json!({"good": false, "problems": problems, "providers": []})));
    ExitCode::from(1)
}

/// What a provider answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    tenant_id: String,
    provider_id: String,
    usable: usize,
    error: Option<String>,
}

async fn ask(registry: &Registry, config: &Config, quiet: bool) -> Vec<Found> {
    let names: Vec<(String, String)> =
        config.registrations().map(|of| (of.tenant_id.clone(), of.provider_id.clone())).collect();
    let total = u64::try_from(names.len()).unwrap_or(u64::MAX);
    // Drawn on standard error, and only on a terminal.
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(total) };
    if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let asking = names.into_iter().map(|(tenant_id, provider_id)| {
        let bar = bar.clone();
        async move {
            let outcome = registry.refresh_and_wait(&tenant_id, &provider_id).await;
            let status = registry.provider_status(&tenant_id, &provider_id).await;
            bar.set_message(format!("{tenant_id}/{provider_id}"));
            bar.inc(1);
            let usable =
                status.map_or(0, |status| status.keys.iter().filter(|key| key.state == "usable").count());
            let error = outcome.err().map(|error| {
                let cause =
                    std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                terminal::shown(&format!("{error}{cause}"), 300)
            });
            Found { tenant_id, provider_id, usable, error }
        }
    });
    let asking: Vec<_> = asking.collect();
    let found = stream::iter(asking).buffered(AT_ONCE).collect().await;
    bar.finish_and_clear();
    found
}

fn text(config: &Config, found: &[Found], paint: Paint) -> String {
    let mut lines = Vec::new();
    if !found.is_empty() {
        let mut table = Table::new(["", "TENANT", "PROVIDER", "KEYS", ""]).right(3);
        for of in found {
            let good = of.error.is_none() && of.usable > 0;
            let mark = if good { "✔" } else { "✘" }.to_owned();
            let why =
                of.error.clone().unwrap_or_else(|| if good { String::new() } else { "no usable key".into() });
            table.push([mark, of.tenant_id.clone(), of.provider_id.clone(), of.usable.to_string(), why]);
        }
        lines = table.lines(|row, column, cell| match (row, column) {
            (0, _) => paint.dim(cell),
            (_, 0) if cell.contains('✔') => paint.good(cell),
            (_, 0) => paint.bad(cell),
            _ => cell.to_owned(),
        });
        lines.push(String::new());
    }
    if found.iter().any(|of| of.error.as_ref().is_some_and(|error| error.contains("private_networks"))) {
        lines.push(
            "help: defaults.private_networks = { deny_except = [\"10.0.0.0/8\"] } lets providers be there"
                .into(),
        );
    }
    let count = config.registrations().count();
    let bad = found.iter().filter(|of| of.error.is_some() || of.usable == 0).count();
    lines.push(match (found.is_empty(), bad) {
        (true, _) => format!("{} The configuration is good: {count} providers.", paint.mark(true)),
        (false, 0) => {
            format!("{} The configuration is good, and all {count} providers have keys.", paint.mark(true))
        }
        (false, bad) => format!(
            "{} The configuration is good, and {bad} of {count} providers have no keys.",
            paint.mark(false)
        ),
    });
    lines.join("\n") + "\n"
}
