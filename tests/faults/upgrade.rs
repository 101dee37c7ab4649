//! The operator is upgraded under a running job.

use serde_json::Value;
use tests::{Namespace, OPERATOR_NAMESPACE, Reinstall, helm};

use crate::{ends_like_one_left_alone, long_job, seen, training, trains_with_another};

fn images(namespace: &Namespace) -> Vec<Value> {
    let pods = seen::workers(namespace, "run");
    let images = |pod: &Value| {
        let image = |list: &str| pod["spec"][list][0]["image"].clone();
        [image("initContainers"), image("containers")]
    };
    pods.iter().flat_map(images).collect()
}

#[test]
fn a_worker_that_is_lost_after_an_upgrade_comes_back_as_it_was() {
    let job = |name: &str| long_job(name).set("/training/epochs", 100);
    let namespace = training("upgrade", &job("run"));
    let before = images(&namespace);
    let pods = seen::worker_names(&namespace, "run");
    let reinstall = Reinstall;
    // The next version would give jobs another trainer.
    helm(&[
        "upgrade",
        "yolo-operator",
        "charts/yolo-operator",
        "--namespace",
        OPERATOR_NAMESPACE,
        "--reuse-values",
        "--set=trainerImage.tag=next",
        "--wait",
        "--timeout=2m",
    ])
    .expect("helm upgrade");
    namespace
        .kubectl(&["delete", "pod", &pods[1], "--grace-period=0", "--force"])
        .expect("killing a worker");
    let took = trains_with_another(&namespace, &pods);
    println!("upgraded, and a worker lost: training again after {took:.1?}");
    assert_eq!(before, images(&namespace));
    drop(reinstall);
    ends_like_one_left_alone(&namespace, job);
}
