//! The field reference: one table for each object of a schema, as Markdown.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// Fields of Kubernetes' own types, which its documentation explains.
const OF_PODS: [&str; 4] = [
    "affinity",
    "imagePullSecrets",
    "tolerations",
    "topologySpreadConstraints",
];

/// The reference of all definitions.
pub fn markdown(crds: &[CustomResourceDefinition]) -> String {
    let mut out = String::from(
        "# API reference\n\n\
         Generated from the types in `crds/src/v1alpha1`; `UPDATE=1 cargo test -p crds` refreshes it.\n\
         `kubectl explain ytj.spec` prints the same text.\n",
    );
    for crd in crds {
        let group = &crd.spec.group;
        for version in &crd.spec.versions {
            let name = &version.name;
            let kind = &crd.spec.names.kind;
            let schema = version
                .schema
                .as_ref()
                .and_then(|schema| schema.open_api_v3_schema.as_ref())
                .map(|schema| serde_json::to_value(schema).expect("a schema is plain data"))
                .unwrap_or_default();
            let _ = write!(out, "\n## {kind}\n\n`apiVersion: {group}/{name}`\n");
            let description = schema["description"].as_str().unwrap_or_default();
            let _ = write!(out, "\n{description}\n");
            for part in ["spec", "status"] {
                object(&mut out, part, &schema["properties"][part]);
            }
            rules(&mut out, &schema);
        }
    }
    out
}

fn object(out: &mut String, path: &str, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    let _ = write!(out, "\n### {path}\n\n");
    if let Some(description) = schema["description"].as_str() {
        let _ = write!(out, "{description}\n\n");
    }
    out.push_str("| field | type | default | meaning |\n|---|---|---|---|\n");
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, property) in properties {
        let default = match &property["default"] {
            Value::Null if required.contains(&name.as_str()) => "required".to_owned(),
            // The defaults of an object's fields stand in its own table.
            Value::Null | Value::Object(_) => String::new(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let meaning = property["description"]
            .as_str()
            .unwrap_or_default()
            .replace("\n\n", "<br>")
            .replace('|', "\\|");
        let whose = if OF_PODS.contains(&name.as_str()) {
            " The fields are those of a pod."
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "| `{name}` | {} | {default} | {meaning}{whose} |",
            kind(property)
        );
    }
    let own = |(name, _): &(&String, &Value)| !OF_PODS.contains(&name.as_str());
    for (name, property) in properties.iter().filter(own) {
        object(out, &format!("{path}.{name}"), property);
        object(out, &format!("{path}.{name}[]"), &property["items"]);
    }
}

fn kind(property: &Value) -> String {
    if let Some(values) = property["enum"].as_array() {
        let words: Vec<String> = values
            .iter()
            .filter_map(Value::as_str)
            .map(|word| format!("`{word}`"))
            .collect();
        return words.join(", ");
    }
    if property["x-kubernetes-int-or-string"] == true {
        return "quantity".to_owned();
    }
    match property["type"].as_str().unwrap_or_default() {
        "array" => format!("list of {}", kind(&property["items"])),
        "object" if property["additionalProperties"].is_object() => {
            format!("map of {}", kind(&property["additionalProperties"]))
        }
        "string" if property["format"] == "date-time" => "time".to_owned(),
        other => other.to_owned(),
    }
}

fn rules(out: &mut String, schema: &Value) {
    let mut found = Vec::new();
    collect(schema, &mut found);
    out.push_str(
        "\n### What is refused\n\nThe API server refuses an object with these sentences:\n\n",
    );
    for sentence in found {
        let _ = writeln!(out, "- {sentence}");
    }
}

fn collect(schema: &Value, found: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        // Where a rule has both, its expression has branches, and the message says it in one line.
        let text = rule["message"]
            .as_str()
            .map(str::to_owned)
            .or_else(|| rule["messageExpression"].as_str().map(plain));
        found.extend(text);
    }
    for property in schema["properties"].as_object().into_iter().flatten() {
        collect(property.1, found);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            collect(&schema[key], found);
        }
    }
}

/// A message expression with `…` for its computed parts.
fn plain(expression: &str) -> String {
    let quote = expression.chars().next().unwrap_or_default();
    if let Some((template, _)) = expression.trim_start_matches(quote).split_once(quote)
        && template.contains("%s")
    {
        return template.replace("%s", "…");
    }
    let mut out = String::new();
    let mut quote = None;
    let mut computed = false;
    for c in expression.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => out.push(c),
            None if c == '\'' || c == '"' => {
                if computed && !out.is_empty() {
                    out.push('…');
                }
                computed = false;
                quote = Some(c);
            }
            None => computed |= c.is_ascii_alphanumeric(),
        }
    }
    if computed {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_becomes_a_readable_sentence() {
        assert_eq!(
            "training.epochs is …: choose 1 to 100000",
            plain("'training.epochs is %s: choose 1 to 100000'.format([self])")
        );
        assert_eq!(
            "subPath is '…'",
            plain("\"subPath is '\" + self.subPath + \"'\"")
        );
    }
}
