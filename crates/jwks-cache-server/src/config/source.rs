//! From where a configuration is loaded, and whether that has changed since.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::place::{Place, Problem, Problems, path_text};
use super::tree::Tree;
use super::{Config, Provider, Rule, schema};

/// What variables that set something begin with.
const PREFIX: &str = "JWKS_CACHE__";

/// Where settings come from; what stands later here counts more.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables, of which those that begin with `JWKS_CACHE__` count: `JWKS_CACHE__DATA__LISTEN`.
    pub variables: Vec<(String, String)>,
    /// A flag as it was given, the field it sets, the value.
    pub flags: Vec<(String, String, String)>,
}

/// A configuration that keeps every rule.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The files that were read: a change of one is a change of the configuration.
    pub files: Vec<PathBuf>,
}

impl Source {
    /// A file, if there is one, and this process's environment.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        Self { file, variables: variables.collect(), flags: Vec::new() }
    }

    /// Loads and checks everything.
    ///
    /// # Errors
    /// Everything that is wrong, with its place, its field and what to do.
    pub fn load(&self) -> Result<Loaded, Problems> {
        let mut files = Vec::new();
        let config = self.load_noting(&mut files)?;
        Ok(Loaded { config, files })
    }

    /// The same, with the files that are named, as far as that can be told, also when nothing can be loaded.
    pub(crate) fn load_noting(&self, files: &mut Vec<PathBuf>) -> Result<Config, Problems> {
        files.extend(self.file.clone());
        let mut tree = match &self.file {
            Some(file) => Tree::read(file)?,
            None => Tree::default(),
        };
        for (name, value) in &self.variables {
            if let Some(rest) = name.strip_prefix(PREFIX) {
                let names: Vec<String> = rest.split("__").map(str::to_owned).collect();
                tree.set(&names, value, Place::Variable(name.clone()));
            }
        }
        for (flag, field, value) in &self.flags {
            let names: Vec<String> = field.split('.').map(str::to_owned).collect();
            tree.set(&names, value, Place::Flag(flag.clone()));
        }
        let strangers = tree.strangers();
        if !strangers.is_empty() {
            return Err(Problems(strangers));
        }
        let (secrets, unread) = tree.read_secrets();
        files.extend(secrets);
        if !unread.is_empty() {
            return Err(Problems(unread));
        }
        let mut config = typed(&tree)?;
        fill_in(&mut config, &tree);
        let broken: Vec<Problem> = config
            .rules()
            .into_iter()
            .map(|rule| {
                let place = tree.place(&rule.path);
                told(rule, place)
            })
            .collect();
        if broken.is_empty() { Ok(config) } else { Err(Problems(broken)) }
    }
}

/// A broken rule as it is told. Where the rule has no remedy of its own, the field's words say what may stand there.
pub(super) fn told(rule: Rule, place: Option<Place>) -> Problem {
    let field = path_text(&rule.path);
    let remedy = if rule.remedy.is_empty() { described(&rule.path) } else { rule.remedy };
    Problem { place, field, what: rule.what, remedy }
}

/// Gives the tree its types.
fn typed(tree: &Tree) -> Result<Config, Problem> {
    let mut value = tree.value.clone();
    name_providers(&mut value);
    serde_path_to_error::deserialize(Value::Object(value)).map_err(|error| {
        let mut path: Vec<String> = Vec::new();
        for segment in error.path() {
            match segment {
                serde_path_to_error::Segment::Map { key } => path.push(key.clone()),
                serde_path_to_error::Segment::Seq { index } => path.push(index.to_string()),
                _ => {}
            }
        }
        let mut what = error.inner().to_string();
        for kind in ["usize", "u64", "u32", "u8"] {
            what = what.replace(&format!("expected {kind}"), "expected a whole number");
        }
        if let Some(missing) = what.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            path.push(missing.to_owned());
            what = "is missing".into();
        }
        if schema::at(schema::schema(), &path).is_some_and(schema::is_secret) && what != "is missing" {
            what = "is not a text".into();
        }
        Problem { place: tree.place(&path), field: path_text(&path), what, remedy: described(&path) }
    })
}

/// A provider's names are those of its tables.
fn name_providers(value: &mut serde_json::Map<String, Value>) {
    let tenants = value.get_mut("tenants").and_then(Value::as_object_mut).into_iter().flatten();
    for (tenant, of) in tenants {
        let providers = of.get_mut("providers").and_then(Value::as_object_mut).into_iter().flatten();
        for (provider, of) in providers {
            if let Value::Object(of) = of {
                of.insert("tenant_id".into(), tenant.as_str().into());
                of.insert("provider_id".into(), provider.as_str().into());
            }
        }
    }
}

/// Gives providers what [defaults] says of what they do not say. Whether they do, the tree alone knows: a value that is the
/// library's own default may have been meant.
fn fill_in(config: &mut Config, tree: &Tree) {
    let stale_while_error = config.defaults.stale_while_error.0;
    for (tenant, of) in &mut config.tenants {
        for (provider, Provider(registration)) in &mut of.providers {
            if !tree.says(&["tenants", tenant, "providers", provider, "stale_while_error"]) {
                registration.stale_while_error = stale_while_error;
            }
        }
    }
}

/// What the schema says of a field, or of the nearest above it that it says something of.
fn described(path: &[String]) -> String {
    let of = |length: usize| {
        let of = schema::at(schema::schema(), path.get(..length)?)?;
        of["description"].as_str().map(|text| text.replace('\n', " "))
    };
    (0..=path.len()).rev().find_map(of).unwrap_or_else(|| "see `jwks-cache schema`".into())
}

/// What files look like, as far as a change of theirs can be noticed: followed through links, so that a ConfigMap whose
/// folder is swapped has changed too. Polled, because events of a file system say nothing of a link above the file, of
/// network file systems, or of single files that are mounted; a look at a handful of files costs microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<[i64; 5]>>);

impl Stamp {
    /// How these files look now.
    #[must_use]
    pub fn of<P: AsRef<Path>>(files: &[P]) -> Self {
        let look = |file: &P| {
            let of = std::fs::metadata(file).ok()?;
            let whole = |number: u64| i64::from_ne_bytes(number.to_ne_bytes());
            Some([of.mtime(), of.mtime_nsec(), whole(of.ino()), whole(of.dev()), whole(of.len())])
        };
        Self(files.iter().map(look).collect())
    }
}
