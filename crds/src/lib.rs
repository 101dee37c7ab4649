//! The Kubernetes API of yolo-operator: `YoloTrainingJob`, its schema and its words.
//!
//! - [`v1alpha1`]: the types. Their documentation is what `kubectl explain` prints.
//! - [`conditions`]: condition types and reasons, the words users grep for.
//! - [`names`]: labels, annotations, container and port names.
//! - [`schema`]: what is changed in the generated schema before an API server sees it.
//! - [`reference`]: the field reference in `docs/api.md`, made from that schema.
//!
//! `crds/yaml`, the chart's copy and `docs/api.md` are generated; `tests/generated.rs` fails when they
//! are stale and says how to refresh them.

pub mod conditions;
pub mod names;
pub mod reference;
pub mod schema;
pub mod v1alpha1;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// Every CustomResourceDefinition of the project, ready to apply.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![schema::finish(
        v1alpha1::YoloTrainingJob::crd(),
        &v1alpha1::root_rules(),
    )]
}
