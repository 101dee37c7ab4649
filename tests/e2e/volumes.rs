//! Claims that are made for a job.

use std::time::Duration;

use serde_json::json;
use tests::{Job, Namespace, data, until};

use crate::seen;

#[test]
fn a_claim_is_made_for_the_results_and_stays_unless_it_is_to_go() {
    let namespace = Namespace::new("claims");
    data::digits(&namespace, 64, 16, 64);
    for (name, policy) in [("stays", "Retain"), ("goes", "Delete")] {
        let job = Job::new(name)
            .set("/training/epochs", 1)
            .without("/output/persistentVolumeClaim")
            .set(
                "/output/volumeClaimTemplate",
                json!({"resources": {"requests": {"storage": "1Gi"}}, "retentionPolicy": policy}),
            );
        namespace.apply(&job.manifest()).expect("applying the job");
    }
    for name in ["stays", "goes"] {
        let done = seen::wait_complete(&namespace, name);
        let volume = data::folder(&namespace, &format!("{name}-output"));
        let weights = done["status"]["bestWeights"].as_str().expect("weights");
        assert!(volume.join(weights).exists(), "{weights} is not there");
    }
    namespace
        .kubectl(&["delete", "ytj", "stays", "goes"])
        .expect("deleting the jobs");
    until(
        "the claim to go",
        Duration::from_secs(60),
        || match namespace.get("pvc", "goes-output") {
            None => Ok(()),
            Some(claim) => Err(claim["metadata"].to_string()),
        },
    );
    assert!(namespace.get("pvc", "stays-output").is_some());
    // Whose it was nobody knows any more: a job of that name does not write to it.
    let again = Job::new("stays")
        .without("/output/persistentVolumeClaim")
        .set(
            "/output/volumeClaimTemplate",
            json!({"resources": {"requests": {"storage": "1Gi"}}}),
        );
    namespace
        .apply(&again.manifest())
        .expect("applying the job");
    seen::wait(&namespace, "stays", "the wait to be explained", |job| {
        let conditions = job["status"]["conditions"].to_string();
        conditions.contains("a PersistentVolumeClaim named stays-output exists")
    });
}
