//! How fast pods come to be, and what the operator takes.

use std::time::{Duration, Instant};

use tests::{Job, Namespace, OPERATOR_NAMESPACE, kubectl, until};

/// The resident memory of the operator in MiB, from its own metrics.
fn operator_rss() -> f64 {
    let name = kubectl(&[
        "--namespace",
        OPERATOR_NAMESPACE,
        "get",
        "pods",
        "--selector=app.kubernetes.io/name=yolo-operator",
        "--output=jsonpath={.items[0].metadata.name}",
    ])
    .expect("the operator's name");
    let path = format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{name}:8080/proxy/metrics");
    let metrics = kubectl(&["get", "--raw", &path]).expect("the operator's metrics");
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
        .expect("a process metric");
    line.parse::<f64>().expect("a number") / f64::from(1 << 20)
}

#[test]
fn sixty_four_workers_exist_within_a_second_of_the_apply() {
    let namespace = Namespace::new("wide");
    let mut best = Duration::MAX;
    // The claims do not exist, so no pod starts; what is measured is how fast the operator makes them.
    // One noisy round on two busy cores says little: the best of three must do.
    for round in 0..3 {
        let name = format!("wide-{round}");
        let job = Job::new(&name)
            .set("/workers/replicas", 64)
            .set("/training/batchSize", 64);
        let start = Instant::now();
        namespace.apply(&job.manifest()).expect("applying the job");
        let applied = start.elapsed();
        let selector = format!("--selector=yolo-operator.dev/job-name={name}");
        until("64 pods", Duration::from_secs(20), || {
            let list = namespace
                .kubectl(&["get", "pods", &selector, "--output=name"])
                .stdout;
            let count = list.lines().count();
            if count == 64 {
                Ok(())
            } else {
                Err(format!("{count} pods"))
            }
        });
        let took = start.elapsed().saturating_sub(applied);
        println!("64 pods existed {took:?} after kubectl apply had returned ({applied:?})");
        best = best.min(took);
        namespace
            .kubectl(&["delete", "ytj", &name, "--wait=false"])
            .expect("deleting");
    }
    assert!(best <= Duration::from_secs(1), "64 pods took {best:?}");
}

#[test]
fn a_hundred_finished_jobs_fit_into_sixty_mebibytes() {
    let namespace = Namespace::new("many");
    let manifests: Vec<String> = (0..100)
        .map(|number| {
            Job::new(&format!("many-{number}"))
                .set("/workers/replicas", 1)
                .manifest()
        })
        .collect();
    namespace
        .apply(&manifests.join("\n---\n"))
        .expect("applying a hundred jobs");
    let selector = "app.kubernetes.io/managed-by=yolo-operator";
    until("a hundred pods", Duration::from_secs(60), || {
        let count = namespace.list("pods", selector).len();
        if count == 100 {
            Ok(())
        } else {
            Err(format!("{count} pods"))
        }
    });
    // Their claims do not exist, so their pods never start: the end is written as the kubelet would.
    let ended = r#"{"status": {"phase": "Succeeded", "containerStatuses": [{"name": "worker",
        "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 0}}}]}}"#;
    for pod in namespace.list("pods", selector) {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let patch = [
            "patch",
            "pod",
            name,
            "--subresource=status",
            "--type=merge",
            "--patch",
            ended,
        ];
        namespace.kubectl(&patch).expect("ending a pod");
    }
    until("a hundred complete jobs", Duration::from_secs(60), || {
        let states = namespace
            .kubectl(&["get", "ytj", "--output=jsonpath={.items[*].status.state}"])
            .expect("listing jobs");
        let complete = states
            .split(' ')
            .filter(|state| *state == "Complete")
            .count();
        if complete == 100 {
            Ok(())
        } else {
            Err(format!("{complete} complete"))
        }
    });
    let rss = operator_rss();
    println!("the operator takes {rss:.1} MiB with a hundred finished jobs");
    assert!(rss <= 60.0, "{rss:.1} MiB");
}

#[test]
fn images_are_small() {
    let path = tests::cluster::root().join("target/images/sizes.json");
    let text = std::fs::read_to_string(path).expect("written by scripts/images.sh");
    let sizes: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    println!("{sizes}");
    assert!(sizes["operatorImageMiB"].as_f64().expect("a number") <= 30.0);
    assert!(sizes["trainerImageMiB"].as_f64().expect("a number") <= 600.0);
}
