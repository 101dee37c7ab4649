//! Which nodes a worker may run on.

use std::collections::BTreeMap;

use crds::names;
use crds::v1alpha1::{WorkerTemplate, is_reserved};
use k8s_openapi::api::core::v1::{
    Affinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PreferredSchedulingTerm,
    Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::training_job::queue::Placement;

/// A gang does nothing while one of its nodes is away, so it does not wait the usual five minutes for it.
/// A node counts as away after 40 seconds of silence; restarts of its kubelet are much shorter than both.
const LOST_NODE_SECONDS: i64 = 30;

/// The effect of a taint that drives pods away.
const NO_EXECUTE: &str = "NoExecute";

/// Adds what the pods carry because of the quota that they use.
pub fn placed(template: &mut WorkerTemplate, placement: &Placement) {
    let own = |key: &String| !is_reserved(key);
    let foreign = |entries: &BTreeMap<String, String>| -> Vec<(String, String)> {
        let entries = entries.iter().filter(|(key, _)| own(key));
        entries
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    template.labels.extend(foreign(&placement.labels));
    template.annotations.extend(foreign(&placement.annotations));
    template
        .node_selector
        .extend(placement.node_selector.clone());
    template.tolerations.extend(placement.tolerations.clone());
}

/// The job's wishes, and to keep off these nodes where others can take the pod: a wish as strong as there are,
/// and no more, since a node may be back before there is another one.
pub fn affinity(
    template: &WorkerTemplate,
    same_topology: Option<&str>,
    labels: &BTreeMap<String, String>,
    avoid: &[String],
) -> Option<Affinity> {
    let mut affinity = template.affinity.clone();
    if let Some(key) = same_topology {
        // The scheduler lets the first pod of a gang, which nobody is there for yet, be anywhere.
        let together = PodAffinityTerm {
            label_selector: Some(gang(labels)),
            topology_key: key.to_owned(),
            ..PodAffinityTerm::default()
        };
        let pods = affinity.get_or_insert_default();
        pods.pod_affinity
            .get_or_insert_default()
            .required_during_scheduling_ignored_during_execution
            .get_or_insert_default()
            .push(together);
    }
    if avoid.is_empty() {
        return affinity;
    }
    let elsewhere = PreferredSchedulingTerm {
        weight: 100,
        preference: NodeSelectorTerm {
            // The API server takes one name in each.
            match_fields: Some(avoid.iter().map(|node| not_on(node)).collect()),
            ..NodeSelectorTerm::default()
        },
    };
    let nodes = affinity.get_or_insert_default();
    let wishes = nodes.node_affinity.get_or_insert_default();
    wishes
        .preferred_during_scheduling_ignored_during_execution
        .get_or_insert_default()
        .push(elsewhere);
    affinity
}

fn not_on(node: &str) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(vec![node.to_owned()]),
    }
}

/// The job's wishes, each for the gang that `labels` belong to unless it names other pods. Without any, puts
/// workers on different nodes where that is possible: a lost node then takes one of them. Not where they keep
/// off a node, which that would draw them to.
pub fn spread(
    template: &WorkerTemplate,
    labels: &BTreeMap<String, String>,
    avoid: &[String],
) -> Option<Vec<TopologySpreadConstraint>> {
    let gang = gang(labels);
    let mut constraints = template.topology_spread_constraints.clone();
    if constraints.is_empty() && avoid.is_empty() {
        constraints.push(TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            ..TopologySpreadConstraint::default()
        });
    }
    for constraint in &mut constraints {
        constraint.label_selector.get_or_insert(gang.clone());
    }
    (!constraints.is_empty()).then_some(constraints)
}

/// The workers of the incarnation that these labels belong to.
fn gang(labels: &BTreeMap<String, String>) -> LabelSelector {
    let gang = [names::JOB_UID, names::INCARNATION]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), labels.get(name)?.clone())));
    LabelSelector {
        match_labels: Some(gang.collect()),
        ..LabelSelector::default()
    }
}

/// The job's tolerations, and those of a node that is away for a moment, where it says nothing of them.
pub fn tolerations(template: &WorkerTemplate) -> Vec<Toleration> {
    let mut tolerations = template.tolerations.clone();
    for taint in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let covers = |toleration: &Toleration| {
            // What is empty matches all, like what is left out.
            let matches = |word: Option<&str>, wanted| {
                word.is_none_or(|word| word.is_empty() || word == wanted)
            };
            matches(toleration.key.as_deref(), taint)
                && matches(toleration.effect.as_deref(), NO_EXECUTE)
        };
        if !template.tolerations.iter().any(covers) {
            tolerations.push(while_away(taint));
        }
    }
    tolerations
}

fn while_away(taint: &str) -> Toleration {
    Toleration {
        key: Some(taint.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(NO_EXECUTE.to_owned()),
        toleration_seconds: Some(LOST_NODE_SECONDS),
        ..Toleration::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(value: serde_json::Value) -> WorkerTemplate {
        serde_json::from_value(value).expect("a template")
    }

    #[test]
    fn a_lost_node_is_given_up_within_half_a_minute_unless_the_job_says_otherwise() {
        let keys = |value| {
            let tolerations = tolerations(&template(json!({"tolerations": value})));
            let told = tolerations.into_iter().map(|toleration| {
                let key = toleration.key.unwrap_or_default();
                let key = key.rsplit('/').next().unwrap_or_default().to_owned();
                (key, toleration.toleration_seconds)
            });
            told.collect::<Vec<_>>()
        };
        let away = |key: &str| (key.to_owned(), Some(30));
        assert_eq!(
            vec![away("not-ready"), away("unreachable")],
            keys(json!([]))
        );
        let gpu = json!({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"});
        assert_eq!(
            vec![
                ("gpu".to_owned(), None),
                away("not-ready"),
                away("unreachable")
            ],
            keys(json!([gpu]))
        );
        let longer = json!({"key": "node.kubernetes.io/unreachable", "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": 300});
        assert_eq!(
            vec![("unreachable".to_owned(), Some(300)), away("not-ready")],
            keys(json!([longer]))
        );
        for all in [
            json!({"operator": "Exists"}),
            json!({"operator": "Exists", "key": "", "effect": ""}),
        ] {
            assert_eq!(vec![(String::new(), None)], keys(json!([all])));
        }
    }

    #[test]
    fn a_lost_node_is_kept_off_beside_the_jobs_own_wishes() {
        let wishes = template(json!({"affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}],
        }}}));
        let lost = ["node-7".to_owned()];
        let affinity = |avoid| {
            let none = BTreeMap::new();
            serde_json::to_value(affinity(&wishes, None, &none, avoid)).expect("plain data")
        };
        let terms = "/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution";
        let with = affinity(&lost);
        let [own, elsewhere] = &with
            .pointer(terms)
            .and_then(|t| t.as_array())
            .expect("terms")[..]
        else {
            panic!("{with}");
        };
        assert_eq!(1, own["weight"]);
        assert_eq!(
            json!({"weight": 100, "preference": {"matchFields": [
                {"key": "metadata.name", "operator": "NotIn", "values": ["node-7"]}]}}),
            *elsewhere
        );
        let without = affinity(&[]);
        assert_eq!(
            1,
            without
                .pointer(terms)
                .and_then(|t| t.as_array())
                .map_or(0, Vec::len)
        );
        assert_eq!(
            None,
            spread(&WorkerTemplate::default(), &BTreeMap::new(), &lost)
        );
    }

    #[test]
    fn workers_behind_one_switch_are_drawn_to_each_other() {
        let labels = BTreeMap::from([
            (names::JOB_UID.to_owned(), "1".to_owned()),
            (names::INCARNATION.to_owned(), "2".to_owned()),
            (names::WORKER_INDEX.to_owned(), "0".to_owned()),
        ]);
        let template = WorkerTemplate::default();
        let affinity = affinity(&template, Some("example.com/switch"), &labels, &[]);
        let terms = serde_json::to_value(affinity).expect("plain data");
        assert_eq!(
            json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
                "labelSelector": {"matchLabels": {(names::JOB_UID): "1", (names::INCARNATION): "2"}},
                "topologyKey": "example.com/switch"}]}}),
            terms
        );
    }

    #[test]
    fn a_constraint_counts_the_gang_unless_it_names_other_pods() {
        let labels = BTreeMap::from([
            (names::JOB_UID.to_owned(), "1".to_owned()),
            (names::INCARNATION.to_owned(), "2".to_owned()),
            (names::WORKER_INDEX.to_owned(), "0".to_owned()),
        ]);
        let spread = |template: &WorkerTemplate| spread(template, &labels, &[]).unwrap_or_default();
        let [default] = &spread(&WorkerTemplate::default())[..] else {
            panic!("one constraint");
        };
        assert_eq!("kubernetes.io/hostname", default.topology_key);
        let gang = |constraint: &TopologySpreadConstraint| {
            let labels = constraint.label_selector.clone()?.match_labels?;
            Some(labels.into_keys().collect::<Vec<_>>())
        };
        let own = vec![names::INCARNATION.to_owned(), names::JOB_UID.to_owned()];
        assert_eq!(Some(own.clone()), gang(default));
        let wishes = template(json!({"topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
            {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule",
             "labelSelector": {"matchLabels": {"team": "vision"}}},
        ]}));
        let spread = spread(&wishes);
        assert_eq!(2, spread.len());
        assert_eq!(Some(own), gang(&spread[0]));
        assert_eq!(Some(vec!["team".to_owned()]), gang(&spread[1]));
    }
}
