use serde_json::{Value, json};

use super::super::volumes::{CONFIG, SHARED_MEMORY};
use super::*;
use crate::sim::fixture;

pub(in super::super) fn built(change: impl FnOnce(&mut JobConfig, &mut Workers)) -> Value {
    built_as(1, change)
}

pub(in super::super) fn built_as(
    index: u32,
    change: impl FnOnce(&mut JobConfig, &mut Workers),
) -> Value {
    let (mut config, mut workers) = fixture::config("digits", 2);
    change(&mut config, &mut workers);
    let place = Place {
        index,
        number: 3,
        attempt: Attempt {
            incarnation: 2,
            restart: 0,
        },
        same_topology: None,
        avoid: &[],
        restarts_left: 4,
    };
    serde_json::to_value(pod(&config, &workers, &place)).expect("plain data")
}

pub(in super::super) fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    list.as_array()
        .and_then(|list| list.iter().find(|item| item["name"] == name))
        .unwrap_or_else(|| panic!("no {name} in {list}"))
}

#[test]
fn each_container_says_what_it_needs_of_what_a_quota_may_count() {
    let pod = built_as(0, |config, workers| {
        let store = json!({"url": "s3://runs/team"});
        config.spec.output.object_storage = serde_json::from_value(store).expect("a store");
        let resources = json!({
            "requests": {"cpu": "2", "memory": "4Gi"},
            "limits": {"cpu": "4", "memory": "8Gi"},
        });
        workers.resources = serde_json::from_value(resources).expect("resources");
        workers.gpus_per_worker = 1;
    });
    let containers = ["initContainers", "containers"].map(|list| &pod["spec"][list]);
    let containers = containers.into_iter().filter_map(Value::as_array).flatten();
    let mut count = 0;
    for container in containers {
        count += 1;
        for amounts in ["requests", "limits"] {
            for name in ["cpu", "memory"] {
                let amount = &container["resources"][amounts][name];
                assert!(amount.is_string(), "{name} of {container}");
            }
        }
    }
    assert_eq!(3, count, "agent, keeper and worker");
    let agent = &named(&pod["spec"]["initContainers"], "agent")["resources"];
    assert_eq!(json!({"cpu": "4", "memory": "8Gi"}), agent["limits"]);
}

#[test]
fn a_worker_knows_its_place() {
    let pod = built(|_, _| {});
    assert_eq!("digits-worker-1-3", pod["metadata"]["name"]);
    let spec = &pod["spec"];
    assert_eq!(
        (json!("digits-worker-1"), json!("digits")),
        (spec["hostname"].clone(), spec["subdomain"].clone())
    );
    let env = &spec["containers"][0]["env"];
    for (name, value) in [
        ("MASTER_ADDR", "digits-worker-0.digits"),
        ("PET_MASTER_ADDR", "digits-worker-0.digits"),
        ("MASTER_PORT", "29500"),
        ("NNODES", "2"),
        ("NODE_RANK", "1"),
        ("PET_NODE_RANK", "1"),
        ("NPROC_PER_NODE", "1"),
        ("YOLO_ATTEMPT", "2.0"),
        ("YOLO_CONFIG", "/etc/yolo-operator/job.json"),
        ("YOLO_RESTARTS_LEFT", "4"),
        ("YOLO_POD_NUMBER", "3"),
        ("YOLO_SNAPSHOTS", "/dev/shm/snapshots"),
    ] {
        assert_eq!(value, named(env, name)["value"], "{name}");
    }
    assert_eq!(
        json!(["/yolo/yolo-agent"]),
        spec["containers"][0]["command"]
    );
}

#[test]
fn another_program_gets_the_same_place() {
    let container: crds::v1alpha1::WorkerContainer = serde_json::from_value(json!({
        "image": "team/train:7", "command": ["python", "train.py"],
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
    }))
    .expect("a container");
    let pod = built(|config, workers| {
        config.command = container.command.clone();
        config.images.trainer = container.image.clone();
        workers.container = Some(container.clone());
    });
    let worker = &pod["spec"]["containers"][0];
    assert_eq!("team/train:7", worker["image"]);
    assert_eq!(json!(["run", "--", "python", "train.py"]), worker["args"]);
    for (name, value) in [
        ("NCCL_DEBUG", "INFO"),
        ("PET_NNODES", "2"),
        ("YOLO_HOSTFILE", "/etc/yolo-operator/hostfile"),
    ] {
        assert_eq!(value, named(&worker["env"], name)["value"], "{name}");
    }
    let plain = built(|_, _| {});
    let worker = &plain["spec"]["containers"][0];
    assert_eq!(
        json!(["run", "--", "yolo-trainer", "train"]),
        worker["args"]
    );
    assert!(!worker["env"].to_string().contains("HOSTFILE"));
}

#[test]
fn a_launcher_starts_a_process_for_each_gpu() {
    let launched = |gpus, processes| {
        let pod = built(|config, workers| {
            config.command = vec!["torchrun".to_owned()];
            workers.gpus_per_worker = gpus;
            workers.processes_per_worker = processes;
            config.workers = workers.layout();
        });
        let env = &pod["spec"]["containers"][0]["env"];
        let names = ["NPROC_PER_NODE", "PET_NPROC_PER_NODE"];
        names.map(|name| named(env, name)["value"].clone())
    };
    assert_eq!(["1", "8"].map(Value::from), launched(8, Some(1)));
    assert_eq!(["8", "8"].map(Value::from), launched(8, None));
    assert_eq!(["1", "1"].map(Value::from), launched(0, None));
    assert_eq!(["2", "2"].map(Value::from), launched(0, Some(2)));
}

#[test]
fn agents_of_several_workers_share_a_secret() {
    let shared = |replicas| {
        let pod = built(|config, _| config.workers.replicas = replicas);
        let volume = named(&pod["spec"]["volumes"], CONFIG).clone();
        let env = pod["spec"]["containers"][0]["env"].to_string();
        (volume["projected"]["sources"].clone(), env)
    };
    let (sources, env) = shared(2);
    assert_eq!("digits-config", sources[0]["configMap"]["name"]);
    assert_eq!(
        json!({"name": "digits-group-uid-digi", "items": [{"key": "group-token", "path": "group-token"}]}),
        sources[1]["secret"]
    );
    assert!(env.contains("/etc/yolo-operator/group-token"), "{env}");
    let (sources, env) = shared(1);
    assert_eq!(1, sources.as_array().map_or(0, Vec::len));
    assert!(!env.contains("group-token"), "{env}");
}

#[test]
fn only_workers_that_are_looked_for_have_a_name() {
    let label = |pod: &Value| pod["metadata"]["labels"][names::ACTIVE].clone();
    let of_worker = |index, command: &[&str]| {
        let command = command.iter().map(ToString::to_string).collect();
        label(&built_as(index, |config, _| config.command = command))
    };
    assert_eq!(
        json!(["true", null]),
        json!([of_worker(0, &[]), of_worker(1, &[])])
    );
    assert_eq!("true", of_worker(1, &["python", "train.py"]));
}

#[test]
fn cublas_is_told_to_be_repeatable_where_the_job_is() {
    let env = |deterministic| {
        let pod = built(|config, _| config.spec.training.deterministic = deterministic);
        pod["spec"]["containers"][0]["env"].clone()
    };
    let cublas = "CUBLAS_WORKSPACE_CONFIG";
    assert_eq!(":4096:8", named(&env(true), cublas)["value"]);
    assert!(!env(false).to_string().contains(cublas));
}

#[test]
fn the_template_adds_to_what_the_operator_needs() {
    let pod = built(|_, workers| {
        let template = &mut workers.template;
        template.labels = BTreeMap::from([
            ("team".to_owned(), "vision".to_owned()),
            ("app.kubernetes.io/name".to_owned(), "detector".to_owned()),
        ]);
        template.annotations = BTreeMap::from([("a/b".to_owned(), "c".to_owned())]);
        template.node_selector = BTreeMap::from([("disk".to_owned(), "fast".to_owned())]);
        template.priority_class_name = Some("high".to_owned());
        template.runtime_class_name = Some("nvidia".to_owned());
        template.scheduler_name = Some("volcano".to_owned());
    });
    let metadata = &pod["metadata"];
    assert_eq!("vision", metadata["labels"]["team"]);
    assert_eq!("detector", metadata["labels"]["app.kubernetes.io/name"]);
    assert_eq!("c", metadata["annotations"]["a/b"]);
    assert_eq!("2.0", metadata["annotations"][names::ATTEMPT]);
    let spec = &pod["spec"];
    assert_eq!(json!({"disk": "fast"}), spec["nodeSelector"]);
    assert_eq!("high", spec["priorityClassName"]);
    assert_eq!("nvidia", spec["runtimeClassName"]);
    assert_eq!("volcano", spec["schedulerName"]);
    let plain = built(|_, _| {})["spec"].clone();
    for field in ["nodeSelector", "affinity", "imagePullSecrets"] {
        assert!(plain.get(field).is_none(), "{field}");
    }
}

#[test]
fn devices_and_networks_are_what_the_job_says() {
    let workers: Workers = serde_json::from_value(json!({
        "gpusPerWorker": 2,
        "gpuResource": "nvidia.com/mig-1g.10gb",
        "network": "RoCE",
        "env": [{"name": "NCCL_IB_GID_INDEX", "value": "5"}],
        "resources": {"claims": [{"name": "nic"}]},
        "template": {
            "hostNetwork": true,
            "resourceClaims": [{"name": "nic", "resourceClaimTemplateName": "fast-nic"}],
        },
    }))
    .expect("workers");
    let pod = built(|_, own| *own = workers.clone());
    let spec = &pod["spec"];
    let worker = &spec["containers"][0];
    assert_eq!("2", worker["resources"]["limits"]["nvidia.com/mig-1g.10gb"]);
    assert_eq!(json!([{"name": "nic"}]), worker["resources"]["claims"]);
    assert_eq!(
        "fast-nic",
        spec["resourceClaims"][0]["resourceClaimTemplateName"]
    );
    assert_eq!(json!(true), spec["hostNetwork"]);
    assert_eq!("ClusterFirstWithHostNet", spec["dnsPolicy"]);
    assert_eq!("IB", named(&worker["env"], "NCCL_NET")["value"]);
    // The last of a name counts.
    let env = worker["env"].as_array().expect("variables");
    let of_name = |variable: &&Value| variable["name"] == "NCCL_IB_GID_INDEX";
    let last = env.iter().rfind(of_name).expect("there");
    assert_eq!("5", last["value"]);

    let by_claims = built(|_, own| {
        *own = workers.clone();
        own.gpu_resource = String::new();
    });
    let resources = &by_claims["spec"]["containers"][0]["resources"];
    assert!(resources.get("limits").is_none(), "{resources}");
    let plain = built(|_, _| {})["spec"].clone();
    for field in ["hostNetwork", "dnsPolicy", "resourceClaims"] {
        assert!(plain.get(field).is_none(), "{field}");
    }
}

#[test]
fn a_worker_meets_the_restricted_standard() {
    let spec = built(|_, _| {})["spec"].clone();
    assert_eq!(json!(false), spec["automountServiceAccountToken"]);
    assert_eq!(json!(true), spec["securityContext"]["runAsNonRoot"]);
    assert_eq!(
        "RuntimeDefault",
        spec["securityContext"]["seccompProfile"]["type"]
    );
    for container in [&spec["containers"][0], &spec["initContainers"][0]] {
        let security = &container["securityContext"];
        assert_eq!(json!(false), security["allowPrivilegeEscalation"]);
        assert_eq!(json!(["ALL"]), security["capabilities"]["drop"]);
        assert_eq!(json!(true), security["readOnlyRootFilesystem"]);
    }
}

#[test]
fn gpus_and_shared_memory_are_asked_for() {
    let pod = built(|config, workers| {
        workers.gpus_per_worker = 2;
        workers.shared_memory = "3Gi".to_owned();
        config.workers = workers.layout();
    });
    let spec = &pod["spec"];
    assert_eq!(
        "2",
        spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    );
    assert_eq!(
        "2",
        named(&spec["containers"][0]["env"], "NPROC_PER_NODE")["value"]
    );
    assert_eq!(
        json!({"medium": "Memory", "sizeLimit": "3Gi"}),
        named(&spec["volumes"], SHARED_MEMORY)["emptyDir"]
    );
}
