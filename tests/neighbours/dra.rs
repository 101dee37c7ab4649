//! Workers get devices of dynamic resource allocation, from a driver whose devices are names and variables.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{Job, Namespace, data, processes, until};

use crate::{gangs, seen};

/// The driver, its class of devices, and the domain of what it says of them.
const DRIVER: &str = "gpu.example.com";
/// What the driver says of each device.
const MODEL: &str = "LATEST-GPU-MODEL";

/// Where a device is, and its name there.
type Device = (String, String);

/// Claims of so many devices of a model are made from this.
fn template(namespace: &Namespace, name: &str, count: u32, model: &str) {
    let of_type = format!(
        "device.attributes['{DRIVER}'].model == '{model}' && device.capacity['{DRIVER}'].memory.compareTo(quantity('40Gi')) >= 0"
    );
    let request = json!({"name": "gpu", "exactly": {
        "deviceClassName": DRIVER,
        "count": count,
        "selectors": [{"cel": {"expression": of_type}}],
    }});
    let template = json!({
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": {"devices": {"requests": [request]}}},
    });
    namespace
        .apply(&template.to_string())
        .expect("applying a template of claims");
}

/// A job each of whose workers has a claim by this template.
fn job(name: &str, workers: u32, template: &str) -> Job {
    let claim = json!({"name": "gpu", "resourceClaimTemplateName": template});
    Job::new(name)
        .set("/workers/replicas", workers)
        .set("/workers/resources", json!({"claims": [{"name": "gpu"}]}))
        .set("/workers/template", json!({"resourceClaims": [claim]}))
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The claims that are there for pods of a job.
fn claims(namespace: &Namespace, job: &str) -> Vec<String> {
    let pods = format!("{job}-worker-");
    let all = namespace.list("resourceclaims", "");
    let names = all.iter().map(|claim| text(&claim["metadata"]["name"]));
    names.filter(|name| name.starts_with(&pods)).collect()
}

#[track_caller]
fn wait_without_claims(namespace: &Namespace, job: &str) {
    let what = format!("the claims of {job} to go");
    until(&what, Duration::from_mins(1), || {
        match claims(namespace, job) {
            left if left.is_empty() => Ok(()),
            left => Err(left.join(" ")),
        }
    });
}

/// The uid of a pod's claim, and the devices that it was given.
#[track_caller]
fn given(namespace: &Namespace, pod: &Value) -> (String, BTreeSet<Device>) {
    let status = &pod["status"];
    let by_number = &status["extendedResourceClaimStatus"]["resourceClaimName"];
    let by_claim = &status["resourceClaimStatuses"][0]["resourceClaimName"];
    let name = text(if by_number.is_null() {
        by_claim
    } else {
        by_number
    });
    let claim = namespace.get("resourceclaim", &name).expect("its claim");
    let results = claim["status"]["allocation"]["devices"]["results"].as_array();
    let devices = results.expect("devices").iter().map(|result| {
        assert_eq!(DRIVER, result["driver"], "{claim}");
        (text(&result["pool"]), text(&result["device"]))
    });
    (text(&claim["metadata"]["uid"]), devices.collect())
}

/// The variables with which the first process of a worker was started.
#[track_caller]
fn variables(pod: &Value, processes_each: u32) -> BTreeMap<String, String> {
    let index = text(&pod["metadata"]["labels"]["yolo-operator.dev/worker-index"]);
    let index: u32 = index.parse().expect("a number");
    let ranks = processes::of_rank(pod, index * processes_each);
    let process = ranks.first().expect("its process");
    let environment = fs::read_to_string(format!("/proc/{process}/environ")).expect("variables");
    let pairs = environment
        .split('\0')
        .filter_map(|one| one.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Each worker of a job that runs has so many devices of its own on its node, and its process was told exactly these.
/// Returns all of them.
#[track_caller]
fn assert_devices_of_their_own(
    namespace: &Namespace,
    job: &str,
    each: usize,
    processes_each: u32,
) -> BTreeSet<Device> {
    let mut all = BTreeSet::new();
    for pod in seen::workers(namespace, job) {
        let (claim, devices) = given(namespace, &pod);
        assert_eq!(each, devices.len(), "{devices:?}");
        let mut told = variables(&pod, processes_each);
        let node = &pod["spec"]["nodeName"];
        assert_eq!(*node, json!(told.get("KUBERNETES_NODE_NAME")), "{told:?}");
        let expected = devices.iter().map(|(pool, device)| {
            assert_eq!(*node, *pool);
            let number = device.strip_prefix("gpu-").expect("how it names them");
            (format!("GPU_DEVICE_{number}_RESOURCE_CLAIM"), claim.clone())
        });
        let expected: BTreeMap<_, _> = expected.collect();
        told.retain(|name, _| name.ends_with("_RESOURCE_CLAIM"));
        assert_eq!(expected, told);
        for device in devices {
            let twice = format!("{device:?} has two workers");
            assert!(all.insert(device), "{twice}");
        }
    }
    all
}

/// Waits until a job says that it waits for devices, in the scheduler's words. It has none.
#[track_caller]
fn wait_for_devices(namespace: &Namespace, job: &str) {
    let waiting = seen::wait(namespace, job, "the wait to be explained", |job| {
        let scheduled = seen::stated(job, "Scheduled");
        scheduled.is_some_and(|condition| condition["reason"] == "Unschedulable")
    });
    let words = text(&waiting["status"]["waitingOn"]);
    println!("{job} waits: {words}");
    assert!(words.contains("cannot allocate all claims"), "{words}");
    assert_eq!(0, gangs::placed(namespace, job));
}

#[test]
fn each_worker_gets_devices_of_its_own_and_the_next_job_waits_for_them() {
    let namespace = Namespace::new("devices");
    data::digits(&namespace, 64, 16, 64);
    template(&namespace, "one", 1, MODEL);
    template(&namespace, "none", 1, "a type that no node has");
    // As many as there are.
    let first = job("first", 4, "one").set("/training/epochs", 1000);
    namespace.apply(&first.manifest()).expect("applying it");
    seen::wait_training(&namespace, "first");
    let devices = assert_devices_of_their_own(&namespace, "first", 1, 1);
    assert_eq!(4, devices.len(), "{devices:?}");

    // Long enough to be looked at.
    let second = job("second", 2, "one").set("/training/epochs", 60);
    for waiting in [second, job("other", 1, "none")] {
        namespace.apply(&waiting.manifest()).expect("applying it");
    }
    wait_for_devices(&namespace, "second");
    wait_for_devices(&namespace, "other");
    namespace
        .kubectl(&["delete", "yolotrainingjob", "first", "--wait=true"])
        .expect("deleting the first job");
    wait_without_claims(&namespace, "first");
    seen::wait_training(&namespace, "second");
    let devices = assert_devices_of_their_own(&namespace, "second", 1, 1);
    assert_eq!(2, devices.len(), "{devices:?}");
    let done = seen::wait_complete(&namespace, "second");
    assert_eq!(Value::Null, done["status"]["waitingOn"]);
    // The pods of a job that is complete stay, and hold nothing.
    assert_eq!(2, seen::worker_names(&namespace, "second").len());
    wait_without_claims(&namespace, "second");
    wait_for_devices(&namespace, "other");
}

/// Each worker has all devices of its node, so the successor has to wait until those of the one before it are free.
#[test]
fn a_worker_that_is_replaced_gets_devices_again() {
    let namespace = Namespace::new("again");
    data::digits(&namespace, 64, 16, 64);
    template(&namespace, "all", 2, MODEL);
    let lucky = job("lucky", 2, "all").set("/training/epochs", 60);
    namespace.apply(&lucky.manifest()).expect("applying it");
    seen::wait_training(&namespace, "lucky");
    let devices = assert_devices_of_their_own(&namespace, "lucky", 2, 1);
    assert_eq!(4, devices.len(), "{devices:?}");
    let old = seen::worker_names(&namespace, "lucky");
    namespace
        .kubectl(&["delete", "pod", &old[1], "--wait=false"])
        .expect("deleting worker 1");
    let new = seen::without(&namespace, "lucky", &old, &old[1]);
    assert_eq!(old[0], new[0], "the other keeps its pod");
    let next = json!({"incarnation": 0, "restart": 1});
    seen::trains_in(&namespace, &new[0], &next);
    assert_eq!(new, seen::worker_names(&namespace, "lucky"));
    let again = assert_devices_of_their_own(&namespace, "lucky", 2, 1);
    assert_eq!(devices, again);
    let done = seen::wait_complete(&namespace, "lucky");
    assert_eq!(0, done["status"]["countedRestarts"]);
    wait_without_claims(&namespace, "lucky");
}

/// Until somebody makes the template, no scheduler looks at the pods, or says anything of them.
#[test]
fn a_template_that_is_not_there_is_named_and_waited_for() {
    let namespace = Namespace::new("late");
    data::digits(&namespace, 64, 16, 64);
    let early = job("early", 2, "late").set("/training/epochs", 1);
    namespace.apply(&early.manifest()).expect("applying it");
    let waiting = seen::wait(&namespace, "early", "the wait to be explained", |job| {
        let scheduled = seen::stated(job, "Scheduled");
        scheduled.is_some_and(|condition| condition["reason"] == "DevicesNotClaimed")
    });
    let words = text(&waiting["status"]["waitingOn"]);
    println!("early waits: {words}");
    assert!(words.contains("ResourceClaimTemplate late"), "{words}");
    template(&namespace, "late", 1, MODEL);
    seen::wait_complete(&namespace, "early");
}

/// Three workers want the devices of a whole node each, and there are two nodes.
#[test]
fn a_gang_gets_its_devices_at_once_or_leaves_them_to_others() {
    let namespace = Namespace::new("gang");
    template(&namespace, "all", 2, MODEL);
    let wide = |name: &str, workers| {
        job(name, workers, "all")
            .set("/training/epochs", 2)
            .set("/training/batchSize", 6)
            .set("/scheduling", json!({"gang": "Kubernetes"}))
    };
    let waiting = gangs::one_that_does_not_fit_leaves_the_nodes_to_others(&namespace, wide);
    println!("large waits: {}", waiting["status"]["waitingOn"]);
}

/// Kubernetes makes claims for devices that are asked for as a resource, too. The trainer would want real ones.
#[test]
fn gpus_of_a_class_are_asked_for_by_their_number() {
    let namespace = Namespace::new("number");
    data::digits(&namespace, 8, 4, 64);
    let resource = format!("deviceclass.resource.kubernetes.io/{DRIVER}");
    let program = json!({"image": "localhost/helper:1", "command": ["sleep", "20"]});
    let numbered = Job::new("numbered")
        .set("/workers/gpusPerWorker", 2)
        .set("/workers/gpuResource", resource)
        .set("/workers/container", program);
    namespace.apply(&numbered.manifest()).expect("applying it");
    seen::wait(&namespace, "numbered", "its program to run", |job| {
        let passed = seen::condition(job, "PreflightPassed");
        passed.is_some_and(|condition| condition["reason"] == "RanksStarted")
    });
    let devices = assert_devices_of_their_own(&namespace, "numbered", 2, 2);
    assert_eq!(4, devices.len(), "{devices:?}");
    seen::wait_complete(&namespace, "numbered");
    wait_without_claims(&namespace, "numbered");
}
