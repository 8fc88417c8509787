//! The JSON Schema of the configuration, and how to walk it: it is the one list of names, kinds and words.

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Config;

/// The JSON Schema (2020-12) of `jwks-cache.toml`.
#[must_use]
pub fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
        add_files(&mut schema);
        schema
    })
}

/// Beside each secret, `…_file` names a file that holds it.
fn add_files(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(add_files);
            let Some(Value::Object(properties)) = object.get_mut("properties") else { return };
            let secrets: Vec<String> =
                properties.iter().filter(|(_, of)| is_secret(of)).map(|(name, _)| name.clone()).collect();
            for name in &secrets {
                let text = format!("A file that holds {name}; read again when it changes.");
                properties.insert(format!("{name}_file"), json!({"type": "string", "description": text}));
            }
            // Either of the two will do.
            if let Some(Value::Array(required)) = object.get_mut("required") {
                required.retain(|name| !secrets.iter().any(|secret| name == secret));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(add_files),
        _ => {}
    }
}

/// Whether what stands there is not to be shown.
pub(super) fn is_secret(schema: &Value) -> bool {
    schema["writeOnly"] == true
}

/// The schema itself and those that it offers to choose from.
pub(super) fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    let choices = ["anyOf", "oneOf"].into_iter().filter_map(|kind| schema[kind].as_array()).flatten();
    std::iter::once(schema).chain(choices)
}

/// The named fields of an object; `None` for what is none.
pub(super) fn fields(schema: &Value) -> Option<&Map<String, Value>> {
    branches(schema).find_map(|branch| branch["properties"].as_object())
}

/// What each value of a map is; `None` for what is none.
pub(super) fn values(schema: &Value) -> Option<&Value> {
    branches(schema).map(|branch| &branch["additionalProperties"]).find(|of| of.is_object())
}

/// What stands under that name or number.
pub(super) fn child<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    let item = || branches(schema).map(|branch| &branch["items"]).find(|of| of.is_object());
    fields(schema)
        .and_then(|fields| fields.get(name))
        .or_else(|| values(schema))
        .or_else(|| name.parse::<usize>().ok().and_then(|_| item()))
}

/// What stands at that path.
pub(super) fn at<'a>(schema: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(schema, |schema, name| child(schema, name))
}

/// Whether it may be of that kind, as JSON Schema calls it.
pub(super) fn may_be(schema: &Value, kind: &str) -> bool {
    branches(schema).any(|branch| match &branch["type"] {
        Value::String(one) => one == kind,
        Value::Array(several) => several.iter().any(|one| one == kind),
        // Words alone are texts.
        _ => kind == "string" && (branch["enum"].is_array() || branch["const"].is_string()),
    })
}
