//! The coscheduling plugin gives our workers their nodes: together or not at all.

use serde_json::json;
use tests::{Job, Namespace, kubectl_json};

use crate::gangs;

#[test]
fn a_gang_that_does_not_fit_leaves_the_nodes_to_others() {
    let namespace = Namespace::new("coscheduling");
    let job = |name: &str, workers| -> Job {
        gangs::wide(name, workers, &json!({"gang": "Coscheduling"})).set(
            "/workers/template",
            json!({"schedulerName": "scheduler-plugins-scheduler"}),
        )
    };
    let waiting = gangs::one_that_does_not_fit_leaves_the_nodes_to_others(&namespace, job);
    println!("waitingOn: {}", waiting["status"]["waitingOn"]);
    let group = kubectl_json(&[
        "--namespace",
        namespace.name(),
        "get",
        "podgroups.scheduling.x-k8s.io",
        &gangs::first_group(&waiting),
    ]);
    assert_eq!(3, group.expect("its group")["spec"]["minMember"]);
    for pod in gangs::pods(&namespace, "small") {
        assert_eq!("scheduler-plugins-scheduler", pod["spec"]["schedulerName"]);
    }
}
