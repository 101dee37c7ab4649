//! Every Prometheus series of the project: name, kind, labels and help.
//!
//! The agent builds its registry from [`TRAINING`], the operator from [`OPERATOR`]; the dashboards'
//! test reads the same tables. No label is called `job`: Prometheus has its own.

/// What a series is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up.
    Counter,
    /// Observations in buckets, in seconds.
    Histogram(&'static [f64]),
}

/// A Prometheus metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// One sentence for `# HELP`.
    pub help: &'static str,
    /// Labels besides [`JOB_LABELS`] (training) or alone (operator), in this order.
    pub labels: &'static [&'static str],
}

/// Labels of every training series.
pub const JOB_LABELS: [&str; 3] = ["namespace", "training_job", "attempt"];

/// Buckets for the parts of a training step: 1 ms to 65 s.
pub const STEP_BUCKETS: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
    8.192, 16.384, 65.536,
];
/// Buckets for a reconcile: 1 ms to 10 s.
pub const RECONCILE_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        help,
        labels,
    }
}

const fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        help,
        labels,
    }
}

/// Loss; part is box, obj, cls or total, split is train or val.
pub const TRAIN_LOSS: Metric = gauge(
    "yolo_train_loss",
    "Mean loss of the present epoch.",
    &["part", "split"],
);
/// Precision.
pub const EVAL_PRECISION: Metric = gauge(
    "yolo_eval_precision",
    "Precision at the confidence of the best F1, mean over classes.",
    &[],
);
/// Recall.
pub const EVAL_RECALL: Metric = gauge(
    "yolo_eval_recall",
    "Recall at the confidence of the best F1, mean over classes.",
    &[],
);
/// Mean average precision at IoU `0.50`.
pub const EVAL_MAP50: Metric = gauge(
    "yolo_eval_map50",
    "Mean average precision at IoU 0.50.",
    &[],
);
/// Mean average precision over IoU `0.50` to `0.95`.
pub const EVAL_MAP50_95: Metric = gauge(
    "yolo_eval_map50_95",
    "Mean average precision over IoU 0.50 to 0.95.",
    &[],
);
/// Learning rate; group is bias, weight or norm.
pub const TRAIN_LEARNING_RATE: Metric = gauge(
    "yolo_train_learning_rate",
    "Learning rate of a parameter group.",
    &["group"],
);
/// Present epoch.
pub const TRAIN_EPOCH: Metric = gauge("yolo_train_epoch", "The present epoch, from 1.", &[]);
/// Steps done.
pub const TRAIN_STEP: Metric = gauge("yolo_train_step", "Training steps done.", &[]);
/// Images seen.
pub const TRAIN_IMAGES_TOTAL: Metric = counter(
    "yolo_train_images_total",
    "Training images seen, over all ranks.",
    &[],
);
/// Images skipped.
pub const TRAIN_IMAGES_SKIPPED_TOTAL: Metric = counter(
    "yolo_train_images_skipped_total",
    "Images that could not be decoded and were skipped.",
    &[],
);
/// Duration of steps.
pub const TRAIN_STEP_SECONDS: Metric = Metric {
    name: "yolo_train_step_seconds",
    kind: Kind::Histogram(STEP_BUCKETS),
    help: "Duration of a training step of a rank.",
    labels: &["rank"],
};
/// Waiting inside steps; on is data, collective or checkpoint.
pub const TRAIN_WAIT_SECONDS: Metric = Metric {
    name: "yolo_train_wait_seconds",
    kind: Kind::Histogram(STEP_BUCKETS),
    help: "Time in which a rank waited for data, a collective or a checkpoint, per step.",
    labels: &["rank", "on"],
};

/// How fast the ranks exchange gradients.
pub const ALL_REDUCE_BYTES_PER_SECOND: Metric = gauge(
    "yolo_train_all_reduce_bytes_per_second",
    "Bytes a second that a small all-reduce over all ranks moved before the first step.",
    &[],
);

/// Every series the agent serves.
pub const TRAINING: [Metric; 13] = [
    TRAIN_LOSS,
    EVAL_PRECISION,
    EVAL_RECALL,
    EVAL_MAP50,
    EVAL_MAP50_95,
    TRAIN_LEARNING_RATE,
    TRAIN_EPOCH,
    TRAIN_STEP,
    TRAIN_IMAGES_TOTAL,
    TRAIN_IMAGES_SKIPPED_TOTAL,
    TRAIN_STEP_SECONDS,
    TRAIN_WAIT_SECONDS,
    ALL_REDUCE_BYTES_PER_SECOND,
];

/// Reconciles by controller and outcome (ok, error).
pub const RECONCILES_TOTAL: Metric = counter(
    "yolo_operator_reconciles_total",
    "Reconciles, by controller and outcome.",
    &["controller", "outcome"],
);
/// Reconcile errors by kind.
pub const RECONCILE_ERRORS_TOTAL: Metric = counter(
    "yolo_operator_reconcile_errors_total",
    "Reconcile errors, by controller and kind of error.",
    &["controller", "error"],
);
/// Duration of reconciles.
pub const RECONCILE_SECONDS: Metric = Metric {
    name: "yolo_operator_reconcile_seconds",
    kind: Kind::Histogram(RECONCILE_BUCKETS),
    help: "Duration of a reconcile.",
    labels: &["controller"],
};
/// Jobs by state.
pub const JOBS: Metric = gauge(
    "yolo_operator_jobs",
    "Training jobs that exist, by state.",
    &["state"],
);
/// Restarts of jobs, by reason.
pub const JOB_RESTARTS_TOTAL: Metric = counter(
    "yolo_operator_job_restarts_total",
    "Restarts of jobs, in place or with new pods, by the reason of the failure.",
    &["reason"],
);
/// Whether this replica holds the lease.
pub const LEADER: Metric = gauge(
    "yolo_operator_leader",
    "1 when this replica holds the lease, else 0.",
    &[],
);
/// Last known loss of every job that exists.
pub const JOB_LOSS: Metric = gauge(
    "yolo_operator_job_loss",
    "Latest training loss of a job, from its status.",
    &["namespace", "training_job"],
);
/// Last or best mAP50 of every job that exists.
pub const JOB_MAP50: Metric = gauge(
    "yolo_operator_job_map50",
    "mAP50 of a job, from its status; which is latest or best.",
    &["namespace", "training_job", "which"],
);
/// Last or best mAP50-95 of every job that exists.
pub const JOB_MAP50_95: Metric = gauge(
    "yolo_operator_job_map50_95",
    "mAP50-95 of a job, from its status; which is latest or best.",
    &["namespace", "training_job", "which"],
);
/// Progress of every job that exists.
pub const JOB_PROGRESS: Metric = gauge(
    "yolo_operator_job_progress_ratio",
    "Part of a job that is done, 0 to 1, from its status.",
    &["namespace", "training_job"],
);

/// Every series the operator serves.
pub const OPERATOR: [Metric; 10] = [
    RECONCILES_TOTAL,
    RECONCILE_ERRORS_TOTAL,
    RECONCILE_SECONDS,
    JOBS,
    JOB_RESTARTS_TOTAL,
    LEADER,
    JOB_LOSS,
    JOB_MAP50,
    JOB_MAP50_95,
    JOB_PROGRESS,
];

/// The training metric of this name.
pub fn training(name: &str) -> Option<&'static Metric> {
    static ALL: [Metric; TRAINING.len()] = TRAINING;
    ALL.iter().find(|metric| metric.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_prometheus_conventions() {
        let mut seen = std::collections::HashSet::new();
        for metric in TRAINING.iter().chain(&OPERATOR) {
            assert!(seen.insert(metric.name), "{} is there twice", metric.name);
            assert_eq!(
                metric.kind == Kind::Counter,
                metric.name.ends_with("_total"),
                "{}: counters, and only they, end in _total",
                metric.name
            );
            assert!(
                metric.help.ends_with('.') && !metric.labels.contains(&"job"),
                "{}",
                metric.name
            );
        }
    }
}
