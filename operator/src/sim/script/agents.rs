//! What the agents of a job do and say.

use contract::attempt::Attempt;
use contract::exit::FailureReason;
use contract::progress::{LostWorker, Phase, RankFailure};
use contract::result::{RESULT_VERSION, WorkerResult};
use serde_json::json;

use super::{Player, number};
use crate::training_job::pods::{PodState, PodView};

impl Player {
    /// The attempt that agents of this incarnation are in: they go beyond what any of them was made for.
    pub(super) fn attempt_of(&self, incarnation: u32) -> Attempt {
        let first = Attempt {
            incarnation,
            restart: 0,
        };
        let world = self.cluster.look();
        let pods = world.pods.values().filter_map(PodView::of);
        let here = pods.filter(|pod| pod.incarnation == incarnation && !pod.deleting);
        let running = here.filter(|pod| pod.state == PodState::Running);
        let made_for = running.map(|pod| pod.made_for);
        made_for.chain([first, self.agents]).max().unwrap_or(first)
    }

    pub(super) fn exit_because(&self, pod: &str, worker: u32, reason: &str, message: &str) {
        let view = PodView::of(&self.cluster.look().pods[pod]).expect("a worker");
        let reason: FailureReason = serde_json::from_value(json!(reason)).expect("a reason");
        let result = WorkerResult {
            version: RESULT_VERSION,
            attempt: self.attempt_of(view.incarnation),
            node_rank: view.index,
            reason: Some(reason),
            rank: None,
            because: Some(RankFailure {
                worker,
                rank: None,
                reason,
                exit_code: reason.exit_code(),
                message: message.to_owned(),
            }),
            restarted_after: None,
            message: "its ranks were stopped".to_owned(),
            report: None,
        };
        let message = result.to_termination_message();
        self.end(pod, reason.exit_code().into(), &json!({"message": message}));
    }

    pub(super) fn lose(&mut self, pod: &str, message: &str) {
        let view = PodView::of(&self.cluster.look().pods[pod]).expect("a worker");
        let tells = |other: &PodView| {
            let there = other.state == PodState::Running && !other.deleting;
            there && other.incarnation == view.incarnation && other.node != view.node
        };
        let world = self.cluster.look();
        let teller = world.pods.values().filter_map(PodView::of).find(tells);
        let progress = self.progress.as_mut().expect("agents that told something");
        match teller {
            _ if view.index > 0 => {}
            Some(teller) => progress.node_rank = teller.index,
            None => return,
        }
        progress.lost.push(LostWorker {
            worker: view.index,
            number: view.number,
            message: format!("the others lost touch with it: {message}"),
        });
    }

    pub(super) fn slow_check(&mut self, text: &str) {
        self.absent(&[]);
        let progress = self.progress.as_mut().expect("just told");
        progress.slow_check = Some(text.to_owned());
    }

    pub(super) fn absent(&mut self, workers: &[&str]) {
        self.report(&["0", "0"]);
        let progress = self.progress.as_mut().expect("just told");
        progress.started = false;
        progress.absent = workers.iter().map(|worker| number(worker)).collect();
    }

    pub(super) fn restart_in_place(&mut self, worker: &str, reason: &str, message: &str) {
        let progress = self.progress.as_mut().expect("agents that told something");
        let worker = number(worker);
        let reason: FailureReason = serde_json::from_value(json!(reason)).expect("a reason");
        progress.attempt = progress.attempt.next_restart();
        self.agents = progress.attempt;
        progress.report.phase = Phase::Starting;
        self.restarted_after = Some(RankFailure {
            worker,
            rank: Some(worker),
            reason,
            exit_code: reason.exit_code(),
            message: message.to_owned(),
        });
        progress.restarted_after.clone_from(&self.restarted_after);
    }
}
