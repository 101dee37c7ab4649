//! What the API server does not take: a job's owner reads why, and nothing has to be begun anew.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Job, Namespace, kubectl, kubectl_in, until};

use crate::seen;

/// Waits until the job says that it waits for what the API server refuses, with these words.
fn wait_refused(namespace: &Namespace, job: &str, words: [&str; 2]) -> Value {
    seen::wait(namespace, job, &format!("a refusal of {words:?}"), |job| {
        let told = job["status"]["waitingOn"].as_str().unwrap_or_default();
        let scheduled = seen::stated(job, "Scheduled").is_some_and(|condition| {
            condition["status"] == "False" && condition["reason"] == "CreateRefused"
        });
        scheduled && words.iter().all(|word| told.contains(word))
    })
}

fn allow(namespace: &Namespace, hard: &Value) {
    let quota = json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": hard},
    });
    namespace.apply(&quota.to_string()).expect("the quota");
    until("the quota to count", Duration::from_secs(30), || {
        let quota = namespace.get("resourcequota", "small").ok_or("none")?;
        let seen = &quota["status"]["hard"];
        (seen == hard).then_some(()).ok_or(seen.to_string())
    });
}

#[test]
fn what_a_quota_forbids_is_told_until_it_is_allowed() {
    let namespace = Namespace::new("quota");
    allow(&namespace, &json!({"services": "0", "pods": "1"}));
    // Its claims do not exist, so its pods wait for ever.
    let job = Job::new("big");
    namespace.apply(&job.manifest()).expect("applying the job");
    let refused = wait_refused(&namespace, "big", ["the Service", "exceeded quota: small"]);
    assert_eq!("Pending", refused["status"]["state"]);
    assert!(seen::worker_names(&namespace, "big").is_empty());

    allow(&namespace, &json!({"services": "1", "pods": "1"}));
    wait_refused(&namespace, "big", ["requested: pods=1", "limited: pods=1"]);

    allow(&namespace, &json!({"services": "1", "pods": "2"}));
    let waits = seen::wait(&namespace, "big", "both pods", |job| {
        let told = job["status"]["waitingOn"].as_str().unwrap_or_default();
        seen::worker_names(&namespace, "big").len() == 2 && !told.contains("quota")
    });
    assert_eq!(0, waits["status"]["restarts"]);
    assert_eq!(
        "True",
        seen::stated(&waits, "Accepted").expect("it")["status"]
    );
}

const REFUSAL: &str = "statuses rest today";

/// An admission policy that lets nobody write statuses of jobs in a namespace.
struct NoStatuses {
    name: String,
}

impl NoStatuses {
    fn new(namespace: &Namespace) -> Self {
        let name = namespace.name().to_owned();
        let rule = json!({
            "apiGroups": ["yolo-operator.dev"],
            "apiVersions": ["*"],
            "operations": ["UPDATE"],
            "resources": ["yolotrainingjobs/status"],
        });
        let here = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
        let kind = "ValidatingAdmissionPolicy";
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [{"expression": "false", "message": REFUSAL}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": format!("{kind}Binding"),
            "metadata": {"name": name},
            "spec": {
                "policyName": name,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": here},
            },
        });
        for object in [policy, binding] {
            kubectl_in(&["apply", "-f", "-"], &object.to_string()).expect("the policy");
        }
        Self { name }
    }
}

impl Drop for NoStatuses {
    fn drop(&mut self) {
        for kind in [
            "validatingadmissionpolicybinding",
            "validatingadmissionpolicy",
        ] {
            kubectl(&["delete", kind, &self.name, "--ignore-not-found"]);
        }
    }
}

#[test]
fn what_fails_again_and_again_is_one_event_that_counts() {
    let namespace = Namespace::new("silenced");
    let suspended = |name| Job::new(name).set("/suspend", true).manifest();
    namespace
        .apply(&suspended("before"))
        .expect("applying a job");
    let policy = NoStatuses::new(&namespace);
    until("the policy to hold", Duration::from_secs(30), || {
        let status = r#"{"status": {"restarts": 7}}"#;
        let patch = ["patch", "ytj", "before", "--type=merge", "--patch", status];
        let tried = [&patch[..], &["--subresource=status", "--dry-run=server"]].concat();
        let tried = namespace.kubectl(&tried);
        let held = !tried.success && tried.stderr.contains(REFUSAL);
        held.then_some(()).ok_or(tried.stdout + &tried.stderr)
    });
    namespace
        .apply(&suspended("silent"))
        .expect("applying a job");
    let events = until("a failure to be counted", Duration::from_secs(60), || {
        let mut events = namespace.list("events.events.k8s.io", "");
        events.retain(|event| {
            event["reason"] == "ReconcileFailed" && event["regarding"]["name"] == "silent"
        });
        let counted = |event: &Value| event["series"]["count"].as_u64() >= Some(2);
        if events.iter().any(counted) {
            Ok(events)
        } else {
            Err(format!("{events:?}"))
        }
    });
    assert_eq!(1, events.len(), "{events:?}");
    assert_eq!("Warning", events[0]["type"]);
    let note = events[0]["note"].as_str().unwrap_or_default();
    assert!(note.contains(REFUSAL), "{note}");
    drop(policy);
    seen::wait(&namespace, "silent", "its status", |job| {
        job["status"]["state"] == "Suspended"
    });
}

/// A quota that counts CPU or memory takes no pod of which a container does not say how much it needs.
#[test]
fn all_containers_say_what_a_quota_counts() {
    let namespace = Namespace::new("counted");
    let hard = json!({
        "requests.cpu": "4", "requests.memory": "8Gi", "limits.cpu": "16", "limits.memory": "16Gi",
    });
    allow(&namespace, &hard);
    let job = |name: &str| {
        Job::new(name).set(
            "/workers/resources",
            json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
        )
    };
    // Neither has what it needs to begin: only that the pods are taken is looked at.
    let kept = job("kept")
        .without("/output/persistentVolumeClaim")
        .set("/output/objectStorage", json!({"url": "s3://runs/team"}));
    let to = json!({"persistentVolumeClaim": {"claimName": "none"}});
    let fetched = job("fetched")
        .without("/dataset/persistentVolumeClaim")
        .set(
            "/dataset/archive",
            json!({"url": "https://example.invalid/a.zip"}),
        )
        .set("/dataset/fetchTo", to);
    for job in [&kept, &fetched] {
        namespace.apply(&job.manifest()).expect("applying the job");
    }
    until("the pods of both", Duration::from_secs(30), || {
        let workers = seen::worker_names(&namespace, "kept").len();
        let fetch = namespace.get("pod", "fetched-fetch-0").is_some();
        let told = |job: &str| {
            namespace
                .get("ytj", job)
                .map(|job| job["status"]["waitingOn"].clone())
        };
        if workers == 2 && fetch {
            return Ok(());
        }
        Err(format!("{:?} {:?}", told("kept"), told("fetched")))
    });
}
