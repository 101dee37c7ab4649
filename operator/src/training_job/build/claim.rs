use contract::config::JobIdentity;
use contract::spec::{ClaimTemplate, RetentionPolicy};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::metadata::{child, job_labels};

/// A claim as a template asks for it. One that is to outlive its job has no owner; its labels still say whose
/// it is.
pub fn claim(id: &JobIdentity, name: String, template: &ClaimTemplate) -> PersistentVolumeClaim {
    let mut metadata = child(id, name, job_labels(id));
    if template.retention_policy == RetentionPolicy::Retain {
        metadata.owner_references = None;
    }
    let modes = template
        .access_modes
        .iter()
        .map(|mode| mode.as_str().to_owned());
    let size = Quantity(template.resources.requests.storage.clone());
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(modes.collect()),
            storage_class_name: template.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), size)].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::sim::fixture;

    fn built(template: Value) -> Value {
        let (config, _) = fixture::config("digits", 2);
        let template = serde_json::from_value(template).expect("a template");
        let claim = claim(&config.job, "digits-output".to_owned(), &template);
        serde_json::to_value(claim).expect("plain data")
    }

    #[test]
    fn a_claim_says_what_its_template_says() {
        let resources = json!({"requests": {"storage": "20Gi"}});
        let least = built(json!({"resources": resources}));
        assert_eq!(
            json!({"accessModes": ["ReadWriteMany"], "resources": resources}),
            least["spec"]
        );
        let all = built(json!({
            "storageClassName": "fast", "accessModes": ["ReadWriteOnce"], "resources": resources,
            "retentionPolicy": "Delete",
        }));
        assert_eq!("fast", all["spec"]["storageClassName"]);
        assert_eq!(json!(["ReadWriteOnce"]), all["spec"]["accessModes"]);
        for claim in [&least, &all] {
            let label = &claim["metadata"]["labels"]["yolo-operator.dev/job-uid"];
            assert_eq!("uid-digits", label);
        }
        // What has no owner stays when the job goes.
        assert!(least["metadata"]["ownerReferences"].is_null());
        assert_eq!("digits", all["metadata"]["ownerReferences"][0]["name"]);
    }
}
