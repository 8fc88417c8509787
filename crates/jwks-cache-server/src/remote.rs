//! `status`, `refresh`, `register`, `deny` and `allow`: a running server's control plane from a command line. How it is reached
//! is `ask`'s matter; what it may do, the server's.

mod ask;

use std::fmt::Write as _;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use jwks_cache::{Clock as _, ProviderState, SystemClock};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::cli::{AllowArgs, DenyArgs, Named, RefreshArgs, RegisterArgs, ServerArgs, StatusArgs};
use crate::document;
use crate::terminal::{self, Paint, Table, shown};
use crate::wire::{Denial, Status, Statuses};
use ask::{NotDone, Server};

/// Exit codes.
const REFUSED: u8 = 1;
const NOT_ASKED: u8 = 2;

/// The most bytes of a settings file: the server takes no more.
const MOST_SETTINGS: u64 = 256 * 1024;

/// What was done, and whether it is as one would have it.
type Done = Result<(String, bool), NotDone>;

pub(crate) async fn status(args: &StatusArgs) -> ExitCode {
    finish(statuses(args).await)
}

async fn statuses(args: &StatusArgs) -> Done {
    let server = Server::of(&args.server)?;
    let statuses = match args.name.as_deref().map(|name| (name, name.parse::<Named>())) {
        Some((_, Ok(name))) => vec![server.get::<Status>(&name.path(&["status"]), &[]).await?],
        Some((tenant, Err(_))) => all(&server, &["tenants", tenant, "providers"]).await?,
        None => all(&server, &["statuses"]).await?,
    };
    let good = statuses.iter().all(has_keys);
    if args.server.json {
        return Ok((terminal::json(&statuses), good));
    }
    let paint = Paint::for_stdout();
    let mut text = table(&statuses, paint);
    if let ([one], true) = (&statuses[..], args.name.as_ref().is_some_and(|name| name.contains('/'))) {
        text.push_str(&keys(one, paint));
    }
    Ok((text, good))
}

/// Every page of a list.
async fn all(server: &Server, path: &[&str]) -> Result<Vec<Status>, NotDone> {
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut query = vec![("limit", "500")];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page: Statuses = server.get(path, &query).await?;
        all.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(all),
        }
    }
}

pub(crate) async fn refresh(args: &RefreshArgs) -> ExitCode {
    let path = args.name.path(&["refresh"]);
    let done: Result<Status, _> = change(&args.server, "POST", &path, &[("wait", "true")], None).await;
    let good = done.as_ref().is_ok_and(|status| status.last_error.is_none());
    told(&args.server, done, good)
}

pub(crate) async fn register(args: &RegisterArgs) -> ExitCode {
    let done: Result<Status, _> = match settings(args) {
        Ok(body) => change(&args.server, "PUT", &args.name.path(&[]), &[], Some(&body)).await,
        Err(error) => Err(error),
    };
    told(&args.server, done, true)
}

/// What the arguments say, the later over the earlier.
fn settings(args: &RegisterArgs) -> Result<Value, NotDone> {
    let wrong = |what: String, remedy: &str| NotDone::not_asked(what, remedy);
    let mut body = match &args.settings {
        None => Map::new(),
        Some(file) => {
            let (name, bytes) = document::read(file, MOST_SETTINGS)
                .map_err(|why| NotDone::not_asked(why.error.to_string(), why.remedy))?;
            serde_json::from_slice(&bytes).map_err(|error| {
                // What serde says may quote a secret.
                let what = format!("{name} is no JSON object at line {}", error.line());
                wrong(what, "write settings as PUT takes them; /openapi.json of the server has them all")
            })?
        }
    };
    let given = [("jwksUrl", &args.jwks_url), ("issuer", &args.issuer)];
    body.extend(
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?)))),
    );
    for set in &args.set {
        let (name, value) = set.split_once('=').ok_or_else(|| {
            wrong(format!("--set {} has no =", shown(set, 40)), "write it as in --set staleWhileError=PT24H")
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        body.insert(name.to_owned(), value);
    }
    Ok(Value::Object(body))
}

pub(crate) async fn deny(args: &DenyArgs) -> ExitCode {
    let body = json!({"id": args.id, "reason": args.reason});
    let path = args.name.path(&["denials"]);
    let done: Result<Denial, _> = change(&args.server, "POST", &path, &[], Some(&body)).await;
    finish(done.map(|denial| {
        let said = format!("{} of {} is denied.\n", shown(&args.id, 128), args.name.shown());
        (if args.server.json { terminal::json(&denial) } else { said }, true)
    }))
}

pub(crate) async fn allow(args: &AllowArgs) -> ExitCode {
    let path = args.name.path(&["denials", &args.id]);
    let done: Result<Value, _> = change(&args.server, "DELETE", &path, &[], None).await;
    finish(done.map(|_| {
        let said = format!("{} of {} is allowed again.\n", shown(&args.id, 128), args.name.shown());
        (if args.server.json { terminal::json(&json!({"id": args.id, "denied": false})) } else { said }, true)
    }))
}

async fn change<T: DeserializeOwned>(
    args: &ServerArgs,
    method: &str,
    path: &[&str],
    query: &[(&str, &str)],
    body: Option<&Value>,
) -> Result<T, NotDone> {
    Server::of(args)?.ask(method, path, query, body).await
}

/// Prints the status after a change.
fn told(args: &ServerArgs, done: Result<Status, NotDone>, good: bool) -> ExitCode {
    finish(done.map(|status| {
        let text = if args.json {
            terminal::json(&status)
        } else {
            table(std::slice::from_ref(&status), Paint::for_stdout())
        };
        (text, good)
    }))
}

fn finish(done: Done) -> ExitCode {
    match done {
        Ok((text, good)) => {
            terminal::print(&text);
            ExitCode::from(if good { 0 } else { REFUSED })
        }
        Err(why) => {
            terminal::complain(&*why.error, &why.remedy);
            ExitCode::from(if why.was_asked { REFUSED } else { NOT_ASKED })
        }
    }
}

fn has_keys(of: &Status) -> bool {
    matches!(of.state, ProviderState::Ready | ProviderState::Refreshing)
}

fn table(statuses: &[Status], paint: Paint) -> String {
    if statuses.is_empty() {
        return "There are no providers, or the credentials reach none.\n".to_owned();
    }
    let now = SystemClock.wall();
    let mut table =
        Table::new(["PROVIDER", "STATE", "KEYS", "REFRESHED", "EXPIRES", "FAILED"]).right(2).right(5);
    for of in statuses {
        let usable = of.keys.iter().filter(|key| key.state == "usable").count();
        table.push([
            shown(&format!("{}/{}", of.tenant_id, of.provider_id), 129),
            format!("{:?}", of.state),
            usable.to_string(),
            when(of.last_refresh, now),
            when(of.expires_at, now),
            of.error_count.to_string(),
        ]);
    }
    let colour =
        |row: usize, column: usize, cell: &str| match row.checked_sub(1).and_then(|row| statuses.get(row)) {
            None => paint.dim(cell),
            Some(of) if column == 1 && has_keys(of) => paint.good(cell),
            Some(_) if column == 1 => paint.bad(cell),
            Some(of) if column == 5 && of.error_count > 0 => paint.warning(cell),
            Some(_) => cell.to_owned(),
        };
    let mut text = table.lines(colour).join("\n") + "\n";
    for of in statuses {
        if let Some(why) = &of.last_error {
            let name = shown(&format!("{}/{}", of.tenant_id, of.provider_id), 129);
            let _ = writeln!(text, "\n{}: {}", paint.bad(&name), shown(why, 500));
        }
    }
    text
}

/// The keys of one provider, one by one.
fn keys(of: &Status, paint: Paint) -> String {
    let mut table = Table::new(["KID", "THUMBPRINT", "STATE", "WHY"]);
    for key in &of.keys {
        let [kid, thumbprint, why] = [&key.kid, &key.thumbprint, &key.reason]
            .map(|text| shown(text.as_deref().unwrap_or_default(), 128));
        table.push([kid, thumbprint, key.state.clone(), why]);
    }
    let mut text = "\n".to_owned();
    for line in table.lines(|row, _, cell| if row == 0 { paint.dim(cell) } else { cell.to_owned() }) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// How long ago, or in how long.
fn when(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    let Some(at) = at else { return "–".to_owned() };
    let seconds = at.signed_duration_since(now).num_seconds();
    let size = seconds.unsigned_abs();
    let (count, unit) = match size {
        0..120 => (size, "s"),
        120..7_200 => (size / 60, "min"),
        7_200..172_800 => (size / 3_600, "h"),
        _ => (size / 86_400, "d"),
    };
    if seconds < 0 { format!("{count} {unit} ago") } else { format!("in {count} {unit}") }
}

impl Named {
    fn path<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["tenants", &self.tenant, "providers", &self.provider], more].concat()
    }

    fn shown(&self) -> String {
        shown(&format!("{}/{}", self.tenant, self.provider), 129)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_what_one_counts_them_in() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        for (seconds, want) in
            [(0, "in 0 s"), (119, "in 119 s"), (-120, "2 min ago"), (7_200, "in 2 h"), (-172_800, "2 d ago")]
        {
            let at = now + chrono::TimeDelta::seconds(seconds);
            assert_eq!(when(Some(at), now), want);
        }
        assert_eq!(when(None, now), "–");
    }
}
