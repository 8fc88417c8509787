//! `jwks-cache verify` and `explain`: a token held against keys. The verdict is the library's `Verifier`; beside it each
//! check is made by itself, to show what else is wrong or right.

mod checks;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use jwks_cache::verify::{Explanation, VerifyErrorKind};
use jwks_cache::{Clock as _, SystemClock, Verifier};
use jwks_cache_core::token::ClaimRules;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{ExplainArgs, KeysArgs, VerifyArgs};
use crate::document::NotHad;
use crate::keys::{self, Keys};
use crate::terminal::{self, Paint, Table, shown};
use crate::token;
use checks::{Asked, Check, State};

/// Exit codes.
const REFUSED: u8 = 1;
const NOTHING_TO_SAY: u8 = 2;

/// What became of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Good,
    Refused,
    NotVerified,
}

/// Everything that is told. Its JSON is what scripts read: fields are added, not renamed.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    reason: Option<String>,
    header: Option<Value>,
    claims: Option<Value>,
    keys_from: Option<String>,
    kid: Option<String>,
    thumbprint: Option<String>,
    checks: Vec<Check>,
}

/// Verifies the token that `args` name.
pub(crate) async fn run(args: &VerifyArgs) -> ExitCode {
    match look(args).await {
        Ok(report) => {
            let said = if args.json { terminal::json(&report) } else { report.text(Paint::for_stdout()) };
            terminal::print(&said);
            ExitCode::from(match report.verdict {
                Verdict::Good => 0,
                Verdict::Refused => REFUSED,
                Verdict::NotVerified => NOTHING_TO_SAY,
            })
        }
        Err(why) => complain(&why),
    }
}

async fn look(args: &VerifyArgs) -> Result<Report, NotHad> {
    let (token, keys) = gather(args.token.as_deref(), &args.keys).await?;
    let rules = ClaimRules {
        audiences: args.audience.clone(),
        leeway: i64::try_from(args.leeway.saturating_mul(1000)).unwrap_or(i64::MAX),
        ..ClaimRules::default()
    };
    let issuer = args.keys.issuer.as_deref();
    let asked = Asked { issuer, types: &args.typ, rules: &rules, now: SystemClock.wall().timestamp_millis() };
    let (verdict, reason, thumbprint) = match &keys {
        None => (
            Verdict::NotVerified,
            Some("no keys were named: --issuer or --jwks says whose may verify it".to_owned()),
            None,
        ),
        Some(keys) => judge(args, keys, &token).await?,
    };
    let (header, claims) = checks::contents(&token);
    let kid = header.as_ref().and_then(|header| header["kid"].as_str()).map(|kid| shown(kid, 128));
    let checks = checks::checks(&token, keys.as_ref().map(|keys| &keys.set), &asked);
    let keys_from = keys.map(|keys| keys.source);
    Ok(Report { verdict, reason, header, claims, keys_from, kid, thumbprint, checks })
}

/// Both the token and the keys, in the order in which people type them.
async fn gather(argument: Option<&str>, args: &KeysArgs) -> Result<(String, Option<Keys>), NotHad> {
    let token = token::get(argument)
        .map_err(|error| NotHad::new(error, "give the token on standard input, or at the prompt"))?;
    Ok((token, keys::get(args).await?))
}

/// What the library says, as it would to a service. It may look for a new key once more, in what was fetched.
async fn judge(
    args: &VerifyArgs,
    keys: &Keys,
    token: &str,
) -> Result<(Verdict, Option<String>, Option<String>), NotHad> {
    let mut builder = keys.provider.verifier().leeway(Duration::from_secs(args.leeway));
    builder = if args.audience.is_empty() { builder.any_audience() } else { builder };
    builder = if keys.issuer.is_none() { builder.any_issuer() } else { builder };
    builder = args.audience.iter().fold(builder, |builder, audience| builder.audience(audience));
    builder = args.typ.iter().fold(builder, |builder, typ| builder.typ(typ));
    let verifier = builder.build().map_err(|error| NotHad::new(error, "correct the argument"))?;
    let thumbprint = verifier.explain(token).thumbprint;
    Ok(match verifier.verify::<Value>(token).await {
        Ok(_) => (Verdict::Good, None, thumbprint),
        Err(why) if why.kind() == VerifyErrorKind::KeysUnavailable => {
            (Verdict::NotVerified, Some(why.detail().to_string()), thumbprint)
        }
        Err(why) => (Verdict::Refused, Some(why.to_string()), thumbprint),
    })
}

impl Report {
    /// The report for people.
    fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        for (title, part) in [("Header", &self.header), ("Claims", &self.claims)] {
            let json = part.as_ref().map_or_else(|| "cannot be read\n".to_owned(), terminal::json);
            let _ = writeln!(text, "{}\n{json}", paint.bold(title));
        }
        if let Some(source) = &self.keys_from {
            let key = match &self.thumbprint {
                Some(thumbprint) => {
                    format!("{} (thumbprint {thumbprint})", self.kid.as_deref().unwrap_or("no kid"))
                }
                None => "none of them would do".to_owned(),
            };
            let _ = writeln!(text, "{}\n  of {source}\n  {key}\n", paint.bold("Key"));
        }
        let mut table = Table::new(["CHECK", "", "WHY"]);
        for check in &self.checks {
            let mark = match check.state {
                State::Passed => "✔",
                State::Failed => "✘",
                State::NotAsked | State::NotReached => "–",
            };
            table.push([check.name.to_owned(), mark.to_owned(), shown(&check.why, 100)]);
        }
        let colour = |row: usize, column: usize, cell: &str| {
            let state = row.checked_sub(1).and_then(|row| self.checks.get(row)).map(|check| check.state);
            match (state, column) {
                (None, _) => paint.dim(cell),
                (Some(State::Passed), 1) => paint.good(cell),
                (Some(State::Failed), 1) => paint.bad(cell),
                _ => cell.to_owned(),
            }
        };
        for line in table.lines(colour) {
            let _ = writeln!(text, "{line}");
        }
        let reason = self.reason.as_deref().unwrap_or_default();
        let verdict = match self.verdict {
            Verdict::Good => paint.good("The token is good."),
            Verdict::Refused => format!("{}: {reason}", paint.bad("The token is refused")),
            Verdict::NotVerified => format!("{}: {reason}", paint.warning("The token is not verified")),
        };
        let _ = writeln!(text, "\n{verdict}");
        text
    }
}

/// Says which key the token that `args` name wants.
pub(crate) async fn explain(args: &ExplainArgs) -> ExitCode {
    match seek(args).await {
        Ok((explanation, source)) => {
            let found = explanation.thumbprint.is_some();
            terminal::print(&if args.json {
                terminal::json(&json!({"keys_from": source, "explanation": explanation}))
            } else {
                explained(&explanation, &source, Paint::for_stdout())
            });
            ExitCode::from(if found { 0 } else { REFUSED })
        }
        Err(why) => complain(&why),
    }
}

async fn seek(args: &ExplainArgs) -> Result<(Explanation, String), NotHad> {
    let (token, keys) = gather(args.token.as_deref(), &args.keys).await?;
    let keys = keys
        .ok_or_else(|| NotHad::new("there are no keys to choose from", "name them by --issuer or --jwks"))?;
    let builder = keys.provider.verifier().any_audience();
    let builder = if keys.issuer.is_none() { builder.any_issuer() } else { builder };
    let verifier: Verifier = builder.build().map_err(|error| NotHad::new(error, "correct the argument"))?;
    Ok((verifier.explain(&token), keys.source))
}

fn explained(explanation: &Explanation, source: &str, paint: Paint) -> String {
    let algorithm = explanation.algorithm.map_or("none that is accepted", |algorithm| algorithm.as_str());
    let kid = explanation.kid.as_deref().map_or_else(|| "none".to_owned(), |kid| format!("\"{kid}\""));
    let mut text = format!("Algorithm  {algorithm}\nKid        {kid}\nKeys       {source}\n\n");
    if !explanation.keys.is_empty() {
        let mut table = Table::new(["KID", "THUMBPRINT", "STATE", "WHY"]);
        for key in &explanation.keys {
            let [kid, thumbprint, why] =
                [&key.kid, &key.thumbprint, &key.reason].map(|text| text.clone().unwrap_or_default());
            table.push([kid, thumbprint, key.state.clone(), why]);
        }
        let lines = table.lines(|row, _, cell| if row == 0 { paint.dim(cell) } else { cell.to_owned() });
        text.push_str(&(lines.join("\n") + "\n\n"));
    }
    let (title, what) = match (&explanation.thumbprint, &explanation.why_not) {
        (Some(thumbprint), _) => (paint.good("This key would verify it:"), thumbprint.as_str()),
        (None, why) => (paint.bad("No key would verify it:"), why.as_deref().unwrap_or("none fits")),
    };
    let _ = writeln!(text, "{title} {what}");
    text
}

fn complain(why: &NotHad) -> ExitCode {
    terminal::complain(&*why.error, why.remedy);
    ExitCode::from(NOTHING_TO_SAY)
}
