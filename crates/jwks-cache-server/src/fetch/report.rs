//! What is said of a judged key set: a table, a lifetime, warnings; as text or as JSON. It decides nothing
//! about keys: the verdicts are the ledger's.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jwks_cache_core::freshness::{Bound, Freshness, Stated};
use jwks_cache_core::keyset::{KeySet, LedgerEntry, Reason, Verdict};
use serde::Serialize;
use url::Url;

use crate::terminal::{Paint, Table, shown};

/// How much of a foreign text the table shows.
const KID: usize = 32;
const LABEL: usize = 16;

/// Where a document came from.
pub(super) enum Origin {
    /// A file or standard input, which state no lifetime.
    Local {
        /// Its name, fit to be shown.
        name: String,
    },
    /// An answer over HTTP.
    Response {
        /// The URL asked.
        url: Url,
        /// The issuer's metadata that named it.
        found_at: Option<Box<Url>>,
        /// How long the answer is fresh.
        freshness: Freshness,
        /// Whether it carries a validator, so that it can be revalidated by a 304.
        revalidates: bool,
    },
}

impl Origin {
    /// What to call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Local { name } => name.clone(),
            Self::Response { url, .. } => {
                let mut url = url.clone();
                // A query may carry a credential.
                url.set_query(None);
                url.to_string()
            }
        }
    }
}

/// Everything that is told. Its JSON is what scripts read: fields are added, not renamed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    source: String,
    /// Where the issuer's metadata was found, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    /// How many keys may verify.
    pub(super) usable: usize,
    keys: Vec<KeyRow>,
    lifetime: Option<Lifetime>,
    warnings: Vec<Warning>,
}

#[derive(Debug, Serialize)]
struct KeyRow {
    kid: Option<String>,
    kty: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    key_use: Option<String>,
    bits: Option<u32>,
    curve: Option<String>,
    thumbprint: Option<String>,
    usable: bool,
    /// The stable name of the reason; people get `why`.
    reason: Option<&'static str>,
    #[serde(skip)]
    why: Option<String>,
}

/// How long the cache would use the answer.
#[derive(Debug, Serialize)]
struct Lifetime {
    seconds: u64,
    /// How long after that it is still served while refreshing fails.
    stale_seconds: u64,
    /// The header that it came from.
    stated: String,
    /// How one led to the other.
    explanation: String,
}

#[derive(Debug, Serialize)]
struct Warning {
    code: &'static str,
    message: String,
}

impl Report {
    pub(super) fn new(origin: &Origin, set: &KeySet) -> Self {
        let keys: Vec<_> = set.ledger().iter().map(KeyRow::new).collect();
        let lifetime = match origin {
            Origin::Local { .. } => None,
            Origin::Response { freshness, .. } => Some(Lifetime::new(freshness)),
        };
        let warnings = about_origin(origin).into_iter().chain(about_keys(set)).collect();
        let metadata = match origin {
            Origin::Response { found_at, .. } => found_at.as_ref().map(ToString::to_string),
            Origin::Local { .. } => None,
        };
        Self { source: origin.name(), metadata, usable: set.usable().count(), keys, lifetime, warnings }
    }

    /// The report for people.
    pub(super) fn text(&self, paint: Paint) -> String {
        let mut text = format!("{}\n", paint.bold(&self.source));
        if let Some(metadata) = &self.metadata {
            let _ = writeln!(text, "as {metadata} says");
        }
        let _ = writeln!(text, "{}, {} usable\n", count(self.keys.len(), "key"), self.usable);
        if !self.keys.is_empty() {
            let mut table = Table::new(["KID", "KTY", "ALG", "USE", "SIZE", "THUMBPRINT", "USABLE"]);
            self.keys.iter().for_each(|key| table.push(key.cells()));
            let colour = |row: usize, column: usize, cell: &str| match (row, column) {
                (0, _) => paint.dim(cell),
                (row, 6) if self.keys.get(row - 1).is_some_and(|key| key.usable) => paint.good(cell),
                (_, 6) => paint.bad(cell),
                _ => cell.to_owned(),
            };
            text.push_str(&table.lines(colour).join("\n"));
            text.push_str("\n\n");
        }
        match &self.lifetime {
            Some(lifetime) => {
                let _ = writeln!(text, "Lifetime   {}", lifetime.explanation);
                let stale = lifetime.stale_seconds;
                let _ = writeln!(text, "           served for {stale} s more while refreshing fails");
            }
            None => text.push_str("Lifetime   none: only an answer over HTTP states one\n"),
        }
        for (at, warning) in self.warnings.iter().enumerate() {
            let lead = if at == 0 { "\nWarnings   " } else { "           " };
            let _ = writeln!(text, "{lead}{} {}", paint.warning("!"), warning.message);
        }
        text
    }
}

impl KeyRow {
    fn new(entry: &LedgerEntry) -> Self {
        let (usable, reason) = match entry.verdict() {
            Verdict::Usable => (true, None),
            Verdict::SetAside { reason, .. } => (false, Some(reason)),
        };
        Self {
            kid: entry.kid().map(str::to_owned),
            kty: entry.kty().map(str::to_owned),
            alg: entry.alg().map(str::to_owned),
            key_use: entry.key_use().map(str::to_owned),
            bits: entry.bits(),
            curve: entry.curve().map(str::to_owned),
            thumbprint: entry.thumbprint().map(|thumbprint| thumbprint.to_string()),
            usable,
            reason: reason.map(Reason::as_str),
            why: reason.map(|reason| reason.to_string()),
        }
    }

    fn cells(&self) -> [String; 7] {
        let label = |text: &Option<String>, most| match text {
            Some(text) => shown(text, most),
            None => "–".to_owned(),
        };
        let size = match (&self.curve, self.bits) {
            (None, Some(bits)) => format!("{bits} bits"),
            (curve, _) => label(curve, LABEL),
        };
        let usable = match &self.why {
            None => "✔ yes".to_owned(),
            Some(why) => format!("✘ {why}"),
        };
        [
            label(&self.kid, KID),
            label(&self.kty, LABEL),
            label(&self.alg, LABEL),
            label(&self.key_use, LABEL),
            size,
            label(&self.thumbprint, usize::MAX),
            usable,
        ]
    }
}

impl Lifetime {
    fn new(freshness: &Freshness) -> Self {
        Self {
            seconds: freshness.lifetime_seconds(),
            stale_seconds: freshness.stale_window.as_secs(),
            stated: freshness.stated.to_string(),
            explanation: freshness.to_string(),
        }
    }
}

fn about_origin(origin: &Origin) -> Vec<Warning> {
    let Origin::Response { url, freshness, revalidates, .. } = origin else { return Vec::new() };
    let mut warnings = Vec::new();
    let mut warn = |code, message: &str| warnings.push(Warning { code, message: message.to_owned() });
    if url.scheme() == "http" {
        warn("insecure_http", "plain http: whoever is on the way can swap the keys");
    }
    match freshness.stated {
        Stated::Nothing => warn("no_lifetime", "no lifetime stated: the cache falls back to its default"),
        Stated::UnusableMaxAge | Stated::UnusableExpires => {
            warn(
                "unusable_lifetime",
                "the lifetime stated cannot be read: the cache falls back to its least",
            );
        }
        _ if freshness.bound == Bound::MinTtl => {
            warn("short_lifetime", "less than the least lifetime is stated: the cache uses its least");
        }
        _ => {}
    }
    if !revalidates {
        warn("no_validator", "neither ETag nor Last-Modified: every refresh is sent whole, never as a 304");
    }
    warnings
}

fn about_keys(set: &KeySet) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code, message: String| warnings.push(Warning { code, message });
    let name = |entry: &LedgerEntry| match entry.kid() {
        Some(kid) => format!("\"{}\"", shown(kid, KID)),
        None => format!("number {}", entry.index().saturating_add(1)),
    };
    for entry in set.ledger() {
        let Verdict::SetAside { reason, .. } = entry.verdict() else { continue };
        match reason {
            Reason::PrivateMembers | Reason::Symmetric => warn(
                "private_key",
                format!("key {} is secret and published: whoever read it can sign; replace it", name(entry)),
            ),
            Reason::RsaTooShort
            | Reason::RsaModulusEven
            | Reason::RsaExponent
            | Reason::RsaWeakGenerator
            | Reason::WeakPoint => warn("weak_key", format!("key {} is weak: {reason}", name(entry))),
            _ => {}
        }
    }
    let mut kids: BTreeMap<&str, usize> = BTreeMap::new();
    for kid in set.ledger().iter().filter_map(LedgerEntry::kid) {
        *kids.entry(kid).or_default() += 1;
    }
    for (kid, times) in kids.into_iter().filter(|(_, times)| *times > 1) {
        warn("duplicate_kid", format!("kid \"{}\" names {times} keys", shown(kid, KID)));
    }
    let usable = set.usable().count();
    let unnamed = set.usable().filter(|key| key.kid().is_none()).count();
    if usable > 1 && unnamed > 0 {
        warn("no_kid", format!("{unnamed} of {usable} usable keys have no kid: no token can name them"));
    }
    let open = set.usable().filter(|key| key.alg().is_none()).count();
    if open > 0 {
        let verb = if open == 1 { "names" } else { "name" };
        warn(
            "no_alg",
            format!("{} {verb} no alg: any that fits the type is accepted", count(open, "usable key")),
        );
    }
    if usable == 0 {
        warn("no_usable_key", "no token can be verified with this set".to_owned());
    }
    warnings
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
