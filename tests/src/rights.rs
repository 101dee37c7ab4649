//! What the operator may do, beside what it was seen to do.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::{OPERATOR_NAMESPACE, kubectl, kubectl_json};

/// Every request of the operator's account since the cluster was made.
const AUDIT_LOG: &str = "/var/lib/yolo-operator-cluster/logs/audit.log";

/// One verb on one resource, subresource included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Group of the API; empty for the core's.
    pub group: String,
    /// In the plural, with the subresource after a stroke.
    pub resource: String,
    /// What is done with it.
    pub verb: String,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            group,
            resource,
            verb,
        } = self;
        write!(f, "{verb} {resource}")?;
        if group.is_empty() {
            return Ok(());
        }
        write!(f, ".{group}")
    }
}

/// All that the roles of the installed chart allow, on kinds that this API server knows.
pub fn granted() -> BTreeSet<Right> {
    let served = kubectl(&["api-resources", "--no-headers", "--output=name"]).expect("discovery");
    let served: BTreeSet<&str> = served.lines().map(str::trim).collect();
    let chart = "--selector=app.kubernetes.io/name=yolo-operator";
    let everywhere = kubectl_json(&["get", "clusterroles", chart]);
    let own = kubectl_json(&["--namespace", OPERATOR_NAMESPACE, "get", "roles", chart]);
    let roles = [everywhere, own].map(|list| list.expect("a list")["items"].clone());
    let mut rights = BTreeSet::new();
    for role in roles.iter().flat_map(items) {
        for rule in items(&role["rules"]) {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    let plural = resource.split('/').next().unwrap_or_default();
                    let name = [plural, group].join(".");
                    if !served.contains(name.trim_end_matches('.')) {
                        continue;
                    }
                    rights.extend(texts(&rule["verbs"]).map(|verb| Right {
                        group: group.to_owned(),
                        resource: resource.to_owned(),
                        verb: verb.to_owned(),
                    }));
                }
            }
        }
    }
    rights
}

/// Who the latest request of the operator's account says it is from.
pub fn latest_agent() -> String {
    let text = std::fs::read_to_string(Path::new(AUDIT_LOG)).expect("the audit log");
    let mut entries = text.lines().rev().map(serde_json::from_str::<Value>);
    let last = entries.find_map(Result::ok).expect("a request");
    last["userAgent"].as_str().unwrap_or_default().to_owned()
}

/// What the operator asked the API server for, and whether its roles allowed it.
pub fn asked() -> (BTreeSet<Right>, BTreeSet<Right>) {
    let text = std::fs::read_to_string(Path::new(AUDIT_LOG)).expect("the audit log");
    let (mut allowed, mut forbidden) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        // The last one may be half written.
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let target = &entry["objectRef"];
        let Some(resource) = target["resource"].as_str() else {
            continue;
        };
        let sub = target["subresource"].as_str();
        let right = Right {
            group: target["apiGroup"].as_str().unwrap_or_default().to_owned(),
            resource: sub.map_or_else(|| resource.to_owned(), |sub| format!("{resource}/{sub}")),
            verb: entry["verb"].as_str().unwrap_or_default().to_owned(),
        };
        match entry["annotations"]["authorization.k8s.io/decision"].as_str() {
            Some("allow") => allowed.insert(right),
            Some(_) => forbidden.insert(right),
            None => false,
        };
    }
    (allowed, forbidden)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    items(value).filter_map(Value::as_str)
}
