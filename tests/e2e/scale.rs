//! How fast pods come to be, and what the operator takes.

use std::time::{Duration, Instant};

use tests::{Job, Namespace, OPERATOR_NAMESPACE, kubectl, script, until};

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
    let path =
        format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{name}:8080/proxy/metrics");
    let metrics = kubectl(&["get", "--raw", &path]).expect("the operator's metrics");
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
        .expect("a process metric");
    line.parse::<f64>().expect("a number") / f64::from(1 << 20)
}

#[test]
fn sixty_four_workers_exist_within_a_second_of_the_apply() {
    script("tests/cluster/fake-nodes.sh", &["up", "16"]).expect("pretend nodes");
    let namespace = Namespace::new("wide");
    let mut best = Duration::MAX;
    // The median of what a noisy machine shows is asked elsewhere; here the best of three must do.
    for round in 0..3 {
        let name = format!("wide-{round}");
        let job = Job::new(&name)
            .set("/workers/replicas", 64)
            .set("/training/batchSize", 64)
            .set("/workers/nodeSelector", serde_json::json!({"kwok.x-k8s.io/node": "fake"}))
            .set(
                "/workers/tolerations",
                serde_json::json!([{"key": "kwok.x-k8s.io/node", "operator": "Exists"}]),
            );
        let start = Instant::now();
        namespace.apply(&job.manifest()).expect("applying the job");
        let applied = start.elapsed();
        let selector = format!("--selector=yolo-operator.dev/job={name}");
        until("64 pods", Duration::from_secs(20), || {
            let list = namespace.kubectl(&["get", "pods", &selector, "--output=name"]).stdout;
            let count = list.lines().count();
            if count == 64 { Ok(()) } else { Err(format!("{count} pods")) }
        });
        let took = start.elapsed().saturating_sub(applied);
        println!("64 pods existed {took:?} after kubectl apply had returned ({applied:?})");
        best = best.min(took);
        namespace.kubectl(&["delete", "ytj", &name, "--wait=false"]).expect("deleting");
    }
    script("tests/cluster/fake-nodes.sh", &["down"]).expect("removing the pretend nodes");
    assert!(best <= Duration::from_secs(1), "64 pods took {best:?}");
}
