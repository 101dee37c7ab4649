//! That the chart's network policies let through what is needed and nothing else. The cluster of these tests does not
//! enforce them, so a judge that is not ours, np-guard's netpol-analyzer, is given the policies and the manifests of
//! real pods, and says which connections would be possible.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use contract::paths::{AGENT_PORT, GROUP_PORT, MASTER_PORT};
use serde_json::{Value, json};
use tests::{
    Job, Namespace, OPERATOR_NAMESPACE, Output, data, helm, kubectl_in, kubectl_json, script, until,
};

use self::Verdict::{Closed, Open};
use crate::dataset;
use crate::seen;

/// Whether a connection is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Closed,
}

/// Who connects to whom, by which protocol, at which port, and what the policies are to make of it.
type Flow = (&'static str, &'static str, &'static str, u16, Verdict);

/// The operator's own port, `http`.
const HTTP: u16 = 8080;
/// Any port that a program may listen at.
const ANY: u16 = 41_234;

const FLOWS: &[Flow] = &[
    // Workers of a namespace: the rendezvous, the agents' group, and what NCCL and Gloo choose.
    ("worker 0", "worker 1", "tcp", MASTER_PORT, Open),
    ("worker 1", "worker 0", "tcp", MASTER_PORT, Open),
    ("worker 1", "worker 0", "tcp", GROUP_PORT, Open),
    ("worker 1", "worker 0", "tcp", ANY, Open),
    // Progress and metrics.
    ("operator", "worker 0", "tcp", AGENT_PORT, Open),
    ("operator", "worker 1", "tcp", AGENT_PORT, Open),
    ("operator", "foreign worker", "tcp", AGENT_PORT, Open),
    ("Prometheus", "worker 0", "tcp", AGENT_PORT, Open),
    ("Prometheus", "worker 1", "tcp", AGENT_PORT, Open),
    // Nothing else of workers.
    ("operator", "worker 0", "tcp", MASTER_PORT, Closed),
    ("operator", "worker 0", "tcp", GROUP_PORT, Closed),
    ("Prometheus", "worker 0", "tcp", MASTER_PORT, Closed),
    ("Prometheus", "worker 0", "tcp", GROUP_PORT, Closed),
    // And nobody else.
    ("stranger", "worker 0", "tcp", AGENT_PORT, Closed),
    ("stranger", "worker 0", "tcp", GROUP_PORT, Closed),
    ("stranger", "worker 0", "tcp", MASTER_PORT, Closed),
    ("stranger", "worker 1", "tcp", ANY, Closed),
    ("foreign stranger", "worker 0", "tcp", AGENT_PORT, Closed),
    ("foreign stranger", "worker 0", "tcp", MASTER_PORT, Closed),
    ("foreign worker", "worker 0", "tcp", AGENT_PORT, Closed),
    ("foreign worker", "worker 0", "tcp", MASTER_PORT, Closed),
    ("worker 0", "foreign worker", "tcp", MASTER_PORT, Closed),
    ("fetch", "worker 0", "tcp", GROUP_PORT, Closed),
    ("fetch", "worker 0", "tcp", MASTER_PORT, Closed),
    ("impostor", "worker 0", "tcp", AGENT_PORT, Closed),
    ("neighbour", "worker 0", "tcp", AGENT_PORT, Closed),
    ("stranger", "fetch", "tcp", ANY, Closed),
    // Where workers, and what fetches their data sets, connect to is not restricted.
    ("worker 0", "outside", "tcp", 443, Open),
    ("worker 0", "outside", "tcp", 80, Open),
    ("worker 0", "outside", "udp", 53, Open),
    ("worker 0", "stranger", "tcp", ANY, Open),
    ("fetch", "outside", "tcp", 443, Open),
    ("fetch", "outside", "tcp", 80, Open),
    // The operator's metrics and probes are for everyone.
    ("Prometheus", "operator", "tcp", HTTP, Open),
    ("stranger", "operator", "tcp", HTTP, Open),
    ("foreign stranger", "operator", "tcp", HTTP, Open),
    ("worker 0", "operator", "tcp", HTTP, Open),
    ("stranger", "operator", "tcp", ANY, Closed),
    ("worker 0", "operator", "tcp", ANY, Closed),
    ("neighbour", "operator", "tcp", ANY, Closed),
    // It connects to DNS, API servers, and agents at their nodes' addresses.
    ("operator", "outside", "udp", 53, Open),
    ("operator", "outside", "tcp", 53, Open),
    ("operator", "outside", "tcp", 443, Open),
    ("operator", "outside", "tcp", 6443, Open),
    ("operator", "outside", "tcp", AGENT_PORT, Open),
    // And to nothing else.
    ("operator", "outside", "tcp", 80, Closed),
    ("operator", "outside", "udp", 443, Closed),
    ("operator", "outside", "tcp", MASTER_PORT, Closed),
    ("operator", "stranger", "tcp", HTTP, Closed),
    ("operator", "stranger", "tcp", ANY, Closed),
    ("operator", "foreign stranger", "tcp", HTTP, Closed),
    ("operator", "Prometheus", "tcp", 9090, Closed),
];

/// Everyone who may connect to worker 0, and how, at all ports and of all peers.
const INTO_WORKER_0: [(&str, &str); 3] = [
    ("Prometheus", "TCP 9464"),
    ("operator", "TCP 9464"),
    ("worker 1", "All Connections"),
];

/// An address that no pod and no node has (RFC 5737); no selector names it.
const OUTSIDE: &str = "198.51.100.7";
/// How the analyzer calls all addresses that are no pod's.
const EVERYWHERE: &str = "0.0.0.0-255.255.255.255";
const MONITORING: &str = "monitoring";

/// Namespaces and pods, and how the table calls them.
#[derive(Default)]
struct Scene {
    objects: Vec<Value>,
    /// `namespace/name`, or an address.
    peers: BTreeMap<&'static str, String>,
}

impl Scene {
    fn add(&mut self, role: &'static str, mut pod: Value) {
        // The analyzer takes pods of one owner for one; here each is looked at for itself. No policy asks for owners.
        if let Some(metadata) = pod["metadata"].as_object_mut() {
            metadata.remove("ownerReferences");
        }
        let text = |key: &str| pod["metadata"][key].as_str().expect("a text").to_owned();
        let peer = format!("{}/{}", text("namespace"), text("name"));
        assert!(
            self.peers.values().all(|other| *other != peer),
            "{peer} twice"
        );
        self.peers.insert(role, peer);
        self.objects.push(pod);
    }

    fn peer(&self, role: &str) -> &str {
        let peer = self.peers.get(role);
        peer.unwrap_or_else(|| panic!("no {role} in the scene"))
    }

    /// How the table calls what the analyzer calls `namespace/name[Pod]`.
    fn role(&self, listed: &str) -> String {
        let name = listed.trim_end_matches("[Pod]");
        let mut roles = self.peers.iter();
        let found = roles.find_map(|(role, peer)| (peer == name).then_some(*role));
        found.unwrap_or(listed).to_owned()
    }
}

/// A pod that has nothing to do with us.
fn stranger(namespace: &str, name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{
            "name": name,
            "image": "x",
            "ports": [{"name": "http", "containerPort": HTTP}],
        }]},
    })
}

/// Running workers, a pod that fetches, the operator, and others around them, who need not run.
fn scene(namespace: &Namespace, other: &Namespace) -> Scene {
    data::digits(namespace, 64, 16, 64);
    let training = Job::new("training").set("/training/epochs", 200);
    namespace
        .apply(&training.manifest())
        .expect("applying the job");
    dataset::secret(namespace);
    // Nobody answers there; its pod is there all the same.
    let store = json!({"url": "s3://datasets/digits", "endpoint": "http://127.0.0.1:9", "allowHttp": true,
        "credentialsSecret": "keys"});
    let claim =
        json!({"persistentVolumeClaim": {"claimName": data::RUNS_CLAIM, "subPath": "cache"}});
    let fetching = Job::new("fetching")
        .without("/dataset/persistentVolumeClaim")
        .set("/dataset/objectStorage", store)
        .set("/dataset/fetchTo", claim);
    namespace
        .apply(&fetching.manifest())
        .expect("applying the job that fetches");
    let fetch = until("a pod that fetches", Duration::from_secs(60), || {
        let mut pods = namespace.list("pods", "yolo-operator.dev/role=fetch");
        pods.pop().ok_or_else(|| "none".to_owned())
    });
    seen::wait_training(namespace, "training");
    let workers: [Value; 2] = seen::workers(namespace, "training")
        .try_into()
        .expect("two workers");
    let operator = kubectl_json(&[
        "--namespace",
        OPERATOR_NAMESPACE,
        "get",
        "pods",
        "--selector=app.kubernetes.io/component=operator",
    ]);
    let operator = operator.expect("a list")["items"][0].clone();

    let mut scene = Scene::default();
    for name in [namespace.name(), other.name(), OPERATOR_NAMESPACE] {
        let object = kubectl_json(&["get", "namespace", name]);
        scene.objects.push(object.expect("the namespace"));
    }
    scene.objects.push(json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": MONITORING, "labels": {"kubernetes.io/metadata.name": MONITORING}},
    }));
    let app = json!({"app.kubernetes.io/name": "web"});
    let mut foreign = workers[1].clone();
    foreign["metadata"]["namespace"] = other.name().into();
    // It calls itself the operator, in a namespace that is not the operator's.
    let impostor = stranger(
        namespace.name(),
        "impostor",
        &operator["metadata"]["labels"],
    );
    for worker in workers {
        let first = worker["metadata"]["labels"]["yolo-operator.dev/worker-index"] == "0";
        scene.add(if first { "worker 0" } else { "worker 1" }, worker);
    }
    scene.add("foreign worker", foreign);
    scene.add("fetch", fetch);
    scene.add("operator", operator);
    scene.add("impostor", impostor);
    scene.add("stranger", stranger(namespace.name(), "web", &app));
    scene.add("foreign stranger", stranger(other.name(), "web", &app));
    // In the operator's namespace, and not the operator.
    let neighbour = stranger(OPERATOR_NAMESPACE, "web", &app);
    scene.add("neighbour", neighbour);
    let prometheus = json!({"app.kubernetes.io/name": "prometheus"});
    scene.add(
        "Prometheus",
        stranger(MONITORING, "prometheus", &prometheus),
    );
    scene.peers.insert("outside", OUTSIDE.to_owned());
    scene
}

/// What the chart makes for workers of these two namespaces.
fn rendered(namespace: &Namespace, other: &Namespace, prometheus: &str) -> String {
    let [namespace, other] = [namespace, other].map(Namespace::name);
    helm(&[
        "template",
        "yolo-operator",
        "charts/yolo-operator",
        &format!("--namespace={OPERATOR_NAMESPACE}"),
        "--show-only=templates/networkpolicies.yaml",
        "--set=networkPolicy.enabled=true",
        &format!("--set=networkPolicy.workerNamespaces={{{namespace},{other}}}"),
        &format!("--set=networkPolicy.prometheusNamespace={prometheus}"),
    ])
    .expect("helm template")
}

/// The analyzer, with a scene and policies before it.
struct Judge<'a> {
    program: &'a Path,
    folder: PathBuf,
    scene: &'a Scene,
}

impl<'a> Judge<'a> {
    fn of(program: &'a Path, scene: &'a Scene, policies: Option<&str>) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("network-policies");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": scene.objects});
        fs::write(folder.join("scene.json"), objects.to_string()).expect("written");
        if let Some(policies) = policies {
            fs::write(folder.join("policies.yaml"), policies).expect("written");
        }
        Self {
            program,
            folder,
            scene,
        }
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let output = Command::new(self.program)
            .args(arguments)
            .args(["--quiet", "--dirpath=."])
            .current_dir(&self.folder)
            .output()
            .expect("the analyzer runs");
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        let output = Output {
            success: output.status.success(),
            stdout,
            stderr,
        };
        // So it tells of an object that it cannot read, and leaves it out.
        assert_eq!("", output.stderr, "{arguments:?}");
        output.expect(&format!("netpolicy {}", arguments.join(" ")))
    }

    fn verdict(&self, from: &str, to: &str, protocol: &str, port: u16) -> Verdict {
        let (namespace, pod) = self.scene.peer(from).split_once('/').expect("a pod");
        let mut arguments = vec![
            "eval".to_owned(),
            format!("--source-namespace={namespace}"),
            format!("--source-pod={pod}"),
            format!("--protocol={protocol}"),
            format!("--destination-port={port}"),
        ];
        match self.scene.peer(to).split_once('/') {
            Some((namespace, pod)) => arguments.extend([
                format!("--destination-namespace={namespace}"),
                format!("--destination-pod={pod}"),
            ]),
            None => arguments.push(format!("--destination-ip={}", self.scene.peer(to))),
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let answer = self.ask(&arguments);
        match answer.trim().rsplit_once(": ") {
            Some((_, "true")) => Open,
            Some((_, "false")) => Closed,
            _ => panic!("the analyzer says {answer}"),
        }
    }

    /// The flows that are not what they should be.
    fn wrong(&self) -> Vec<Flow> {
        let mut wrong = FLOWS.to_vec();
        wrong.retain(|&(from, to, protocol, port, wanted)| {
            self.verdict(from, to, protocol, port) != wanted
        });
        wrong
    }

    /// All connections between different peers: from, to, ports.
    fn connections(&self) -> BTreeSet<[String; 3]> {
        let listed: Value =
            serde_json::from_str(&self.ask(&["list", "--output=json"])).expect("JSON");
        let listed = listed.as_array().expect("a list");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let connections = listed.iter().map(|connection| {
            let [from, to] = ["src", "dst"].map(|end| self.scene.role(&text(&connection[end])));
            [from, to, text(&connection["conn"])]
        });
        connections.collect()
    }
}

#[test]
fn policies_let_through_what_is_needed_and_nothing_else() {
    let folder = script("tests/cluster/binaries.sh", &["folder", "netpol-analyzer"]);
    let folder = folder.expect("building the analyzer");
    let program = Path::new(folder.trim()).join("netpolicy");
    let namespace = Namespace::new("policies");
    let other = Namespace::new("elsewhere");
    let scene = scene(&namespace, &other);

    let policies = rendered(&namespace, &other, MONITORING);
    kubectl_in(&["apply", "--dry-run=server", "--filename=-"], &policies)
        .expect("policies that the API server takes");
    let judge = Judge::of(&program, &scene, Some(&policies));
    let wrong = judge.wrong();
    let lines: Vec<_> = wrong.iter().map(|flow| format!("{flow:?}")).collect();
    let lines = lines.join("\n");
    assert!(wrong.is_empty(), "not as wanted:\n{lines}\n{policies}");

    // What the table leaves out: all other peers and ports.
    let connections = judge.connections();
    let into = connections.iter().filter(|[_, to, _]| to == "worker 0");
    let into: Vec<_> = into.map(|[from, _, ports]| (&**from, &**ports)).collect();
    assert_eq!(INTO_WORKER_0.to_vec(), into);
    let out = connections
        .iter()
        .filter(|[from, to, _]| from == "operator" && to == EVERYWHERE);
    let out: Vec<_> = out.map(|[_, _, ports]| &**ports).collect();
    assert_eq!(vec!["TCP 53,443,6443,9464,UDP 53"], out);

    // The verdicts come from the policies. Without any, all that is to be closed is open.
    let without = Judge::of(&program, &scene, None).wrong();
    let closed = FLOWS.iter().filter(|(.., wanted)| *wanted == Closed);
    assert_eq!(closed.copied().collect::<Vec<_>>(), without);
    // Without its namespace, Prometheus is a stranger to workers.
    let blind = rendered(&namespace, &other, "");
    let blind = Judge::of(&program, &scene, Some(&blind)).wrong();
    let missed = FLOWS.iter().filter(|(from, to, .., wanted)| {
        *from == "Prometheus" && to.starts_with("worker") && *wanted == Open
    });
    assert_eq!(missed.copied().collect::<Vec<_>>(), blind);
    // The commonest mistake in a policy: a dash too many, and the operator's namespace or its labels will do.
    let loose = policies.replace("          podSelector:\n", "        - podSelector:\n");
    let loose = Judge::of(&program, &scene, Some(&loose)).wrong();
    let intruders: Vec<_> = loose.iter().map(|(from, ..)| *from).collect();
    assert_eq!(vec!["impostor", "neighbour"], intruders);
}
