//! What is changed in a generated schema before an API server sees it.
//!
//! schemars describes Rust types; an API server wants less and says more. [`finish`] keeps formats that
//! Kubernetes knows (others make `kubectl apply` print warnings), drops `null` where a field is simply
//! left out, gives every number of `contract::spec::LIMITS` its CEL rule (which speaks instead of plain
//! bounds), and writes the full path
//! of a field wherever a rule's message says `{path}`.

use contract::spec::LIMITS;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};

/// Formats that an API server understands.
const FORMATS: [&str; 7] = [
    "int32",
    "int64",
    "float",
    "double",
    "byte",
    "date",
    "date-time",
];

const RULES: &str = "x-kubernetes-validations";

/// The definition as it is applied: every version's schema tidied, `root_rules` on its root.
pub fn finish(mut crd: CustomResourceDefinition, root_rules: &Value) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(props) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        let mut schema = serde_json::to_value(&*props).expect("a schema is plain data");
        if let Some(root) = schema.as_object_mut() {
            root.insert(RULES.to_owned(), root_rules.clone());
        }
        tidy(&mut schema, "");
        *props = serde_json::from_value(schema).expect("tidying keeps the schema's form");
    }
    crd
}

fn tidy(schema: &mut Value, path: &str) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    drop_null(object);
    limit(object, path);
    bound_numbers(object);
    if let Some(Value::String(description)) = object.get_mut("description") {
        *description = prose(description);
    }
    if let Some(Value::Array(rules)) = object.get_mut(RULES) {
        for rule in rules {
            for key in ["message", "messageExpression"] {
                if let Some(Value::String(text)) = rule.get_mut(key) {
                    *text = text.replace("{path}", path);
                }
            }
        }
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        for (name, property) in properties {
            tidy(property, &child(path, name));
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            tidy(inner, path);
        }
    }
}

/// The rule of a number that has a range.
fn limit(object: &mut Map<String, Value>, path: &str) {
    let Some(limit) = LIMITS.iter().find(|limit| limit.field == path) else {
        return;
    };
    let integer = object.get("type").is_some_and(|kind| kind == "integer");
    let message = format!("'{path} is %s: {}'.format([self])", limit.remedy());
    object.insert(
        RULES.to_owned(),
        json!([{"rule": limit.rule(integer), "messageExpression": message}]),
    );
}

/// The path users write: without the leading `spec`.
fn child(path: &str, name: &str) -> String {
    match (path, name) {
        ("", "spec") => String::new(),
        ("", _) => name.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

fn drop_null(object: &mut Map<String, Value>) {
    object.remove("nullable");
    if object.get("default") == Some(&Value::Null) {
        object.remove("default");
    }
    if let Some(Value::Object(default)) = object.get_mut("default") {
        default.retain(|_, value| !value.is_null());
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
}

fn bound_numbers(object: &mut Map<String, Value>) {
    if object.contains_key(RULES) {
        // Schema bounds are checked first and would hide the rule's sentence.
        for key in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"] {
            object.remove(key);
        }
    }
    let format = object
        .get("format")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if format == "uint32" {
        // Beyond this the operator could not read the object.
        object.entry("maximum").or_insert_with(|| json!(u32::MAX));
    }
    let format = object.get("format").and_then(Value::as_str);
    if format.is_some_and(|format| !FORMATS.contains(&format)) {
        object.remove("format");
    }
}

/// Joins the lines of each paragraph.
fn prose(description: &str) -> String {
    description
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        let crd = crate::all().remove(0);
        serde_json::to_value(crd).expect("plain data")["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            .clone()
    }

    fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
        visit(path, schema);
        if let Some(properties) = schema["properties"].as_object() {
            for (name, property) in properties {
                walk(property, &format!("{path}.{name}"), visit);
            }
        }
        for key in ["items", "additionalProperties"] {
            if schema[key].is_object() {
                walk(&schema[key], &format!("{path}[]"), visit);
            }
        }
    }

    #[test]
    fn every_field_is_described_and_has_a_known_format() {
        let mut fields = 0;
        walk(&schema(), "", &mut |path, field| {
            fields += 1;
            let described = field["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty());
            // Items of a list of strings and the API server's own metadata speak for themselves.
            assert!(
                described || path.ends_with("[]") || path == ".metadata",
                "{path} has no description"
            );
            if let Some(format) = field["format"].as_str() {
                assert!(FORMATS.contains(&format), "{path}: format {format}");
            }
            assert!(field["nullable"].is_null(), "{path} is nullable");
        });
        assert!(fields > 80, "only {fields} fields were visited");
    }

    #[test]
    fn every_rule_says_a_whole_sentence_with_the_path() {
        let mut rules = 0;
        walk(&schema(), "", &mut |path, field| {
            let on_number = field["type"] == "integer" || field["type"] == "number";
            for rule in field[RULES].as_array().into_iter().flatten() {
                rules += 1;
                let sentence = rule["messageExpression"]
                    .as_str()
                    .or(rule["message"].as_str())
                    .unwrap_or_else(|| panic!("{path} has a rule without a message"));
                assert!(!sentence.contains('{'), "{path}: {sentence}");
                assert!(sentence.contains(':'), "{path}: no remedy in {sentence}");
                if on_number {
                    let name = path.trim_start_matches(".spec.");
                    assert!(
                        sentence.contains(&format!("'{name} is ")),
                        "{path}: {sentence}"
                    );
                    assert!(field["minimum"].is_null(), "{path}: minimum hides the rule");
                }
            }
        });
        assert!(rules > 40, "only {rules} rules were visited");
    }

    #[test]
    fn every_range_has_its_field() {
        let schema = schema();
        for limit in LIMITS {
            let mut field = &schema["properties"]["spec"];
            for part in limit.field.split('.') {
                field = &field["properties"][part];
            }
            assert!(field[RULES].is_array(), "no field {}", limit.field);
        }
    }

    #[test]
    fn defaults_of_the_types_are_in_the_schema() {
        let schema = schema();
        let spec = &schema["properties"]["spec"];
        assert_eq!(
            json!(16),
            spec["properties"]["training"]["properties"]["batchSize"]["default"]
        );
        assert_eq!(
            json!("1Gi"),
            spec["properties"]["workers"]["default"]["sharedMemory"]
        );
        assert_eq!(json!(["dataset", "output"]), spec["required"]);
        assert_eq!(
            json!("map"),
            schema["properties"]["status"]["properties"]["conditions"]["x-kubernetes-list-type"]
        );
    }
}
