//! Settings before they have types: one tree of what a file, the environment and flags say, in that rising order, with
//! the place of each value. It knows names and kinds from the schema alone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::place::{Place, Problem, path_text};
use super::schema;

/// The longest file of settings or secrets.
const LONGEST: u64 = 16 << 20;

#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) value: Map<String, Value>,
    places: HashMap<Vec<String>, At>,
}

/// Where a name and its value stood.
#[derive(Debug)]
struct At {
    name: Place,
    value: Place,
}

impl Tree {
    /// Reads a TOML file.
    pub(super) fn read(path: &Path) -> Result<Self, Problem> {
        let lost = |what: String, remedy: &str| Problem {
            place: None,
            field: String::new(),
            what: format!("{} {what}", path.display()),
            remedy: remedy.into(),
        };
        let text = read_text(path)
            .map_err(|what| lost(what, "give the path of a TOML file that this process may read"))?;
        let lines = Lines::new(path, &text);
        let table = DeTable::parse(&text).map_err(|error| Problem {
            place: error.span().map(|span| lines.place(span.start)),
            field: String::new(),
            what: format!("is not TOML: {}", error.message()),
            remedy: "write tables as [data] and values as listen = \"127.0.0.1:8080\"; texts stand in quotes"
                .into(),
        })?;
        let mut tree = Self::default();
        tree.value = tree.take_table(table.get_ref(), &lines, &mut Vec::new())?;
        Ok(tree)
    }

    fn take_table(
        &mut self,
        table: &DeTable<'_>,
        lines: &Lines<'_>,
        path: &mut Vec<String>,
    ) -> Result<Map<String, Value>, Problem> {
        let mut map = Map::new();
        for (name, value) in table {
            path.push(name.get_ref().to_string());
            let at = At { name: lines.place(name.span().start), value: lines.place(value.span().start) };
            // A table's own place is that of its header; what is inside has its own.
            self.places.insert(path.clone(), at);
            map.insert(name.get_ref().to_string(), self.take(value, lines, path)?);
            path.pop();
        }
        Ok(map)
    }

    fn take(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        lines: &Lines<'_>,
        path: &mut Vec<String>,
    ) -> Result<Value, Problem> {
        Ok(match value.get_ref() {
            DeValue::Table(table) => Value::Object(self.take_table(table, lines, path)?),
            DeValue::Array(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    path.push(at.to_string());
                    let place = lines.place(item.span().start);
                    self.places.insert(path.clone(), At { name: place.clone(), value: place });
                    list.push(self.take(item, lines, path)?);
                    path.pop();
                }
                Value::Array(list)
            }
            other => scalar(other).ok_or_else(|| Problem {
                place: Some(lines.place(value.span().start)),
                field: path_text(path),
                what: "is a number or date that cannot be used".into(),
                remedy: "write a whole number below 2^63, or a text in quotes".into(),
            })?,
        })
    }

    /// Sets what a variable or a flag says. The names of a variable come in capitals, and have `_` for `-`.
    pub(super) fn set(&mut self, names: &[String], text: &str, place: Place) {
        let mut path = Vec::new();
        let mut here = &mut self.value;
        let mut known = Some(schema::schema());
        for (depth, name) in names.iter().enumerate() {
            let name = spelt(here, known, name, &place);
            known = known.and_then(|schema| schema::child(schema, &name));
            path.push(name.clone());
            if depth + 1 == names.len() {
                // A higher place takes the field in either of its forms.
                let other = name.strip_suffix("_file").map_or_else(|| format!("{name}_file"), str::to_owned);
                if known.is_some() {
                    here.remove(&other);
                }
                here.insert(name, typed(text, known));
                break;
            }
            let is_new = !here.get(&name).is_some_and(Value::is_object);
            let below = here.entry(name).or_insert(Value::Null);
            if is_new {
                self.places.insert(path.clone(), At { name: place.clone(), value: place.clone() });
                *below = Value::Object(Map::new());
            }
            let Some(next) = below.as_object_mut() else { return };
            here = next;
        }
        self.places.insert(path, At { name: place.clone(), value: place });
    }

    /// Whether something stands at that path.
    pub(super) fn says(&self, path: &[&str]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        let start = self.value.get(*first);
        rest.iter().try_fold(start, |here, name| here.map(|here| here.get(name))).flatten().is_some()
    }

    /// Where the value at that path stood, or the nearest above it.
    pub(super) fn place(&self, path: &[String]) -> Option<Place> {
        (0..=path.len())
            .rev()
            .find_map(|length| self.places.get(path.get(..length)?))
            .map(|at| at.value.clone())
    }

    /// Where the name stood.
    fn name_place(&self, path: &[String]) -> Option<Place> {
        self.places.get(path).map(|at| at.name.clone()).or_else(|| self.place(path))
    }

    /// Every name that no field has.
    pub(super) fn strangers(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        self.look_for_strangers(&self.value, schema::schema(), &mut Vec::new(), &mut found);
        found
    }

    fn look_for_strangers(
        &self,
        here: &Map<String, Value>,
        known: &Value,
        path: &mut Vec<String>,
        found: &mut Vec<Problem>,
    ) {
        for (name, value) in here {
            path.push(name.clone());
            match schema::child(known, name) {
                Some(below) => self.look_below(value, below, path, found),
                None if schema::fields(known).is_some() => found.push(Problem {
                    place: self.name_place(path),
                    field: path_text(path),
                    what: "there is no such field".into(),
                    remedy: meant(known, name),
                }),
                None => {}
            }
            path.pop();
        }
    }

    fn look_below(&self, value: &Value, known: &Value, path: &mut Vec<String>, found: &mut Vec<Problem>) {
        match value {
            Value::Object(map) => self.look_for_strangers(map, known, path, found),
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    let at = at.to_string();
                    if let Some(below) = schema::child(known, &at) {
                        path.push(at);
                        self.look_below(item, below, path, found);
                        path.pop();
                    }
                }
            }
            _ => {}
        }
    }

    /// Replaces each `…_file` of a secret by what the file holds. Returns the files.
    pub(super) fn read_secrets(&mut self) -> (Vec<PathBuf>, Vec<Problem>) {
        let mut value = Value::Object(std::mem::take(&mut self.value));
        let (mut files, mut problems) = (Vec::new(), Vec::new());
        self.read_secrets_in(&mut value, schema::schema(), &mut Vec::new(), &mut files, &mut problems);
        if let Value::Object(map) = value {
            self.value = map;
        }
        (files, problems)
    }

    fn read_secrets_in(
        &self,
        value: &mut Value,
        known: &Value,
        path: &mut Vec<String>,
        files: &mut Vec<PathBuf>,
        problems: &mut Vec<Problem>,
    ) {
        let named = |schema: &Value, name: &str| {
            let secret = name.strip_suffix("_file")?;
            let field = schema::fields(schema)?.get(secret)?;
            schema::is_secret(field).then(|| secret.to_owned())
        };
        match value {
            Value::Object(map) => {
                let forms: Vec<_> = map
                    .keys()
                    .filter_map(|name| named(known, name).map(|secret| (name.clone(), secret)))
                    .collect();
                for (form, secret) in forms {
                    path.push(form.clone());
                    let mut no = |what: &str, remedy: &str| {
                        let (what, remedy) = (what.to_owned(), remedy.to_owned());
                        problems.push(Problem {
                            place: self.place(path),
                            field: path_text(path),
                            what,
                            remedy,
                        });
                    };
                    match map.remove(&form) {
                        _ if map.contains_key(&secret) => {
                            no(&format!("stands beside {secret}"), "keep one of the two");
                        }
                        Some(Value::String(file)) => {
                            match read_text(Path::new(&file)) {
                                Ok(text) => {
                                    map.insert(secret, text.trim_end_matches(['\r', '\n']).into());
                                }
                                Err(what) => no(
                                    &format!("{file} {what}"),
                                    "give the path of a file that this process may read",
                                ),
                            }
                            files.push(file.into());
                        }
                        _ => no("is not the path of a file", "write it as a text in quotes"),
                    }
                    path.pop();
                }
                for (name, value) in map {
                    if let Some(below) = schema::child(known, name) {
                        path.push(name.clone());
                        self.read_secrets_in(value, below, path, files, problems);
                        path.pop();
                    }
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    let at = at.to_string();
                    if let Some(below) = schema::child(known, &at) {
                        path.push(at);
                        self.read_secrets_in(item, below, path, files, problems);
                        path.pop();
                    }
                }
            }
            _ => {}
        }
    }
}

/// What the writer of an unknown name may have meant.
fn meant(known: &Value, name: &str) -> String {
    let Some(fields) = schema::fields(known) else { return String::new() };
    let close = |field: &&String| strsim::normalized_damerau_levenshtein(field, &name.to_lowercase());
    let nearest = fields.keys().max_by(|a, b| close(a).total_cmp(&close(b)));
    match nearest {
        Some(field) if close(&field) > 0.6 => format!("did you mean {field}?"),
        _ => {
            let all: Vec<&str> = fields.keys().map(String::as_str).collect();
            format!("the fields here are {}", all.join(", "))
        }
    }
}

/// The name as it is spelt in the tree or the schema, for one that a variable gave.
fn spelt(here: &Map<String, Value>, known: Option<&Value>, name: &str, place: &Place) -> String {
    if !matches!(place, Place::Variable(_)) {
        return name.to_owned();
    }
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let is_map = known.is_some_and(|schema| schema::fields(schema).is_none());
    let there = here.keys().find(|there| is_map && plain(there) == plain(name));
    there.cloned().unwrap_or_else(|| name.to_ascii_lowercase())
}

/// A text as the kind that the schema says; what cannot be that stays a text, and is complained of later.
fn typed(text: &str, known: Option<&Value>) -> Value {
    let Some(known) = known else { return text.into() };
    let structured =
        text.starts_with(['[', '{']) && (schema::may_be(known, "array") || schema::may_be(known, "object"));
    if schema::may_be(known, "string") && !structured {
        return text.into();
    }
    if schema::may_be(known, "array") && !structured {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        return items.map(Value::from).collect();
    }
    match DeValue::parse(text) {
        Ok(value) => plain(value.get_ref()).unwrap_or_else(|| text.into()),
        Err(_) => text.into(),
    }
}

/// A TOML value whose places do not matter.
fn plain(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::Table(table) => {
            let fields =
                table.iter().map(|(name, value)| Some((name.get_ref().to_string(), plain(value.get_ref())?)));
            fields.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        DeValue::Array(items) => {
            items.iter().map(|item| plain(item.get_ref())).collect::<Option<_>>().map(Value::Array)
        }
        other => scalar(other),
    }
}

fn scalar(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::String(text.to_string())),
        DeValue::Boolean(is) => Some(Value::Bool(*is)),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::from)
        }
        DeValue::Float(number) => number.as_str().parse().ok().and_then(Number::from_f64).map(Value::Number),
        _ => None,
    }
}

/// A bounded file as text, or what is wrong with it.
fn read_text(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err("is no regular file".into());
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST) {
        return Err(format!("is longer than {LONGEST} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".into())
}

/// Where the lines of a file begin.
struct Lines<'a> {
    path: &'a Path,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(path: &'a Path, text: &'a str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { path, text, starts: std::iter::once(0).chain(after).collect() }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Place::File { path: self.path.to_owned(), line, column }
    }
}
