use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

/// A Kubernetes quantity: `4`, `500m`, `2Gi`. Written as a string or, like in pods, as an integer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a quantity such as 4, 500m or 2Gi")]
        enum Form {
            Integer(i64),
            Text(String),
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::Integer(number) => number.to_string(),
            Form::Text(text) => text,
        }))
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A quantity such as 4, 500m or 2Gi.",
            "x-kubernetes-int-or-string": true,
            "maxLength": 32,
            "x-kubernetes-validations": json!([{
                "rule": "type(self) == int || isQuantity(string(self))",
                "messageExpression": "\"{path} has '%s', which is not a quantity: write for example 4, 500m or 2Gi\".format([self])",
            }]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_strings_are_both_read() {
        let read = |value| serde_json::from_value::<Quantity>(value);
        assert_eq!(Quantity("4".to_owned()), read(json!(4)).expect("integer"));
        assert_eq!(
            Quantity("2Gi".to_owned()),
            read(json!("2Gi")).expect("string")
        );
        let error = read(json!(1.5)).expect_err("a fraction must be a string");
        assert!(error.to_string().contains("500m"), "{error}");
    }
}
