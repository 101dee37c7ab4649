//! How statuses read in a transcript.

use std::fmt::Write as _;

use crds::v1alpha1::{WorkerStatus, YoloTrainingJobStatus};

/// A worker, in a line.
pub fn describe(worker: &WorkerStatus) -> String {
    let mut line = format!("worker {} {} {:?}", worker.index, worker.pod, worker.state);
    if let Some(reason) = &worker.reason {
        let _ = write!(line, " {reason}");
    }
    if let Some(code) = worker.exit_code {
        let _ = write!(line, " (exit code {code})");
    }
    line
}

/// What a new status says that the old one did not, in lines.
pub fn differences(old: &YoloTrainingJobStatus, new: &YoloTrainingJobStatus) -> Vec<String> {
    let mut lines = Vec::new();
    let summary = |status: &YoloTrainingJobStatus| {
        let shown = status.display.clone().unwrap_or_default();
        let parts = [
            shown.epoch.map(|epoch| format!("epoch {epoch}")),
            shown.loss.map(|loss| format!("loss {loss}")),
            shown.map50_95.map(|map| format!("mAP50-95 {map}")),
            shown.progress,
            shown.eta.map(|eta| format!("{eta} left")),
        ];
        let state = status.state.map_or("", crds::v1alpha1::State::as_str);
        let attempt = status.attempt.unwrap_or_default();
        let rest: Vec<String> = parts.into_iter().flatten().collect();
        let rest = if rest.is_empty() {
            String::new()
        } else {
            format!(", {}", rest.join(", "))
        };
        format!(
            "{state}, attempt {attempt}, workers {}{rest}",
            shown.workers
        )
    };
    if summary(old) != summary(new) {
        lines.push(format!("status {}", summary(new)));
    }
    for condition in &new.conditions {
        let before = old.conditions.iter().find(|c| c.type_ == condition.type_);
        let word = (&condition.status, &condition.reason);
        if before.is_none_or(|before| (&before.status, &before.reason) != word) {
            lines.push(format!(
                "condition {} {} {}",
                condition.type_, condition.status, condition.reason
            ));
        }
    }
    if lines.is_empty() {
        lines.push("status written".to_owned());
    }
    lines
}
