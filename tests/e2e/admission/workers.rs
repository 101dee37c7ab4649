//! What is said of workers, of who schedules them, and of what follows when one fails.

use serde_json::{Value, json};
use tests::{Job, Namespace};

use super::refused;

#[test]
fn failure_rules_name_only_what_exists() {
    let namespace = Namespace::new("rules");
    for (rule, words) in [
        (
            json!({"reasons": ["Killed"]}),
            ["spec.failurePolicy.rules[0].action", "Required"],
        ),
        (
            json!({"action": "FailJob", "reasons": ["Kiled"]}),
            ["rules[0].reasons[0]", "\"Killed\""],
        ),
        (
            json!({"action": "FailJob", "exitCodes": [0]}),
            ["rules[0].exitCodes[0]", "greater than or equal to 1"],
        ),
        (
            json!({"action": "FailJob", "signals": [65]}),
            ["rules[0].signals[0]", "less than or equal to 64"],
        ),
        (
            json!({"action": "GiveUp"}),
            ["rules[0].action", "\"FailJob\""],
        ),
    ] {
        let job = Job::new("j").set("/failurePolicy", json!({"rules": [rule]}));
        refused(&namespace, &job, &words);
    }
    let beyond =
        json!({"rules": [{"action": "FailJob"}, {"action": "FailJob", "workers": [1, 2]}]});
    let words = "failurePolicy.rules name a worker that does not exist: workers.replicas is 2, so the last one is 1";
    refused(
        &namespace,
        &Job::new("j").set("/failurePolicy", beyond),
        &[words],
    );
}

#[test]
fn what_schedules_the_workers_must_fit_together() {
    let namespace = Namespace::new("scheduling");
    let job = || Job::new("j");
    for least in [0, 3] {
        refused(
            &namespace,
            &job().set("/workers/minReplicas", least),
            &[
                &format!("workers.minReplicas is {least}: choose a number from 1 to 2"),
                "share training.batchSize, 8, equally",
            ],
        );
    }
    let queue = |gang: &str| job().set("/scheduling", json!({"gang": gang, "volcanoQueue": "q"}));
    let words = "scheduling.volcanoQueue is set, but Volcano does not schedule the workers";
    refused(&namespace, &queue("Kubernetes"), &[words]);
    refused(&namespace, &queue("auto"), &[words]);
    refused(
        &namespace,
        &job().set("/scheduling", json!({"gang": "Coscheduling"})),
        &["name that in workers.template.schedulerName"],
    );
    let other = job()
        .set("/scheduling", json!({"gang": "Kubernetes"}))
        .set("/workers/template", json!({"schedulerName": "mine"}));
    refused(&namespace, &other, &["name different schedulers"]);
    let unasked = job()
        .set("/workers/gpusPerWorker", 1)
        .set("/workers/gpuResource", "");
    refused(&namespace, &unasked, &["workers.gpuResource is empty"]);
    let twice = job()
        .set("/workers/gpusPerWorker", 1)
        .set("/workers/gpuResource", "nvidia.com/mig-1g.10gb")
        .set(
            "/workers/resources",
            json!({"limits": {"nvidia.com/mig-1g.10gb": 1}}),
        );
    refused(
        &namespace,
        &twice,
        &[
            "workers.resources.limits has nvidia.com/mig-1g.10gb: remove it and set workers.gpusPerWorker",
        ],
    );
    refused(
        &namespace,
        &job().set("/scheduling", json!({"gang": "Yunikorn"})),
        &["scheduling.gang", "\"Coscheduling\""],
    );
    let reserved = json!([{"name": "PET_NNODES", "value": "9"}]);
    refused(
        &namespace,
        &job().set("/workers/env", reserved),
        &["workers.env has a variable that the operator or the agent sets itself"],
    );
    let fine = queue("Volcano")
        .set("/workers/minReplicas", 1)
        .set("/workers/network", "RoCE")
        .set("/workers/sharedMemory", "64Mi");
    namespace.apply(&fine.manifest()).expect("a job that fits");
    // Three processes could not share a batch of eight; a program divides as it likes.
    let program = Job::new("program")
        .set("/workers/replicas", 3)
        .set("/workers/minReplicas", 3)
        .set(
            "/workers/container",
            json!({"image": "team/train:7", "command": ["train"]}),
        );
    namespace.apply(&program.manifest()).expect("a program");
}

#[test]
fn a_back_off_does_not_begin_above_its_end() {
    let job = Job::new("j").set(
        "/failurePolicy",
        json!({"backoff": {"initialSeconds": 301}}),
    );
    let words =
        "failurePolicy.backoff.initialSeconds is 301, but maxSeconds is 300: choose at most 300";
    refused(&Namespace::new("back-off"), &job, &[words]);
}

#[test]
fn what_the_operator_selects_pods_by_cannot_be_taken() {
    let namespace = Namespace::new("reserved");
    for (field, key) in [
        ("labels", "yolo-operator.dev/active"),
        ("labels", "app.kubernetes.io/managed-by"),
        ("annotations", "yolo-operator.dev/attempt"),
    ] {
        let job = Job::new("j").set("/workers/template", json!({field: {key: "x", "fine": "y"}}));
        let words = format!(
            "workers.template.{field} has {key}, which the operator sets itself: remove it"
        );
        refused(&namespace, &job, &[&words]);
    }
}

#[test]
fn a_program_of_ones_own_needs_a_command_and_leaves_places_to_the_agent() {
    let namespace = Namespace::new("container");
    let container = |changes: Value| {
        let mut container = json!({"image": "team/train:7", "command": ["python", "train.py"]});
        for (key, value) in changes.as_object().expect("an object") {
            container[key] = value.clone();
        }
        Job::new("j").set("/workers/container", container)
    };
    for name in ["RANK", "YOLO_ATTEMPT", "MASTER_ADDR", "PET_NNODES"] {
        refused(
            &namespace,
            &container(json!({"env": [{"name": "FINE"}, {"name": name, "value": "1"}]})),
            &[
                "workers.container.env has a variable that the operator or the agent sets itself: remove",
            ],
        );
    }
    refused(&namespace, &container(json!({"command": []})), &["command"]);
    refused(&namespace, &container(json!({"image": ""})), &["image"]);
    let suspended =
        container(json!({"env": [{"name": "NCCL_DEBUG", "value": "INFO"}]})).set("/suspend", true);
    namespace.apply(&suspended.manifest()).expect("a program");
}
