//! What the command `show` says.

use kube::ResourceExt as _;

use super::script::Player;
use super::transcript::describe;
use crate::training_job::pods::PodView;

impl Player {
    /// Conditions, failures, workers and pods, in lines.
    pub(super) fn show(&self) {
        let world = self.cluster.look();
        let Some(status) = world.job.and_then(|job| job.status) else {
            return self.cluster.say("no status".to_owned());
        };
        for c in &status.conditions {
            self.cluster.say(format!(
                "{} {} {}: {}",
                c.type_, c.status, c.reason, c.message
            ));
        }
        let last = status.last_restart.iter();
        for node in last.flat_map(|restart| &restart.avoid) {
            self.cluster.say(format!("keeps off {node}"));
        }
        for failure in &status.failures {
            self.cluster.say(format!(
                "failure of {}: {} of worker {}: {}",
                failure.attempt, failure.reason, failure.worker, failure.message
            ));
        }
        if let Some(fetch) = &status.fetch {
            self.cluster.say(format!(
                "fetch {} {:?}, {} failures, {} counted",
                fetch.pod, fetch.state, fetch.failures, fetch.counted_failures
            ));
        }
        for worker in &status.workers {
            self.cluster.say(describe(worker));
        }
        for pod in world
            .pods
            .values()
            .filter_map(|pod| PodView::of(pod).map(|view| (pod, view)))
        {
            let (pod, view) = pod;
            let mut marks = vec![if view.active { "named" } else { "there" }];
            if view.deleting {
                marks.push("deleting");
            }
            self.cluster
                .say(format!("pod {} is {}", pod.name_any(), marks.join(", ")));
        }
    }
}
