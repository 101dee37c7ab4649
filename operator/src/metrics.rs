//! The operator's own metrics. Names come from the contract, labels from enums; series of a job exist as
//! long as the job does, but end an hour after its end: jobs that have ended may be kept in any number.

use std::sync::{Mutex, PoisonError};

use contract::metric_names::{
    JOB_LOSS, JOB_MAP50, JOB_MAP50_95, JOB_PROGRESS, JOB_RESTARTS_TOTAL, JOBS, Kind, LEADER,
    Metric, RECONCILE_ERRORS_TOTAL, RECONCILE_SECONDS, RECONCILES_TOTAL,
};
use crds::names::CONTROLLER;
use crds::v1alpha1::{State, YoloTrainingJob};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    CounterVec, Encoder as _, Gauge, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry,
    TextEncoder,
};

/// How long series of a job that has ended are served. Whoever scrapes has its last values by then.
const SHOWN: SignedDuration = SignedDuration::from_hours(1);

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    reconciles: CounterVec,
    errors: CounterVec,
    seconds: HistogramVec,
    restarts: CounterVec,
    leader: Gauge,
    jobs: GaugeVec,
    loss: GaugeVec,
    map50: GaugeVec,
    map50_95: GaugeVec,
    progress: GaugeVec,
    /// Held by the answer that is being made.
    answering: Mutex<()>,
}

/// The metrics cannot be set up or written.
#[derive(Debug, thiserror::Error)]
#[error("the metrics cannot be served")]
pub struct MetricsError(#[from] prometheus::Error);

fn options(metric: &Metric) -> Opts {
    Opts::new(metric.name, metric.help)
}

impl Metrics {
    /// Fresh metrics, all registered.
    pub fn new() -> Result<Self, MetricsError> {
        let gauge = |metric: &Metric| GaugeVec::new(options(metric), metric.labels);
        let counter = |metric: &Metric| CounterVec::new(options(metric), metric.labels);
        let buckets = match RECONCILE_SECONDS.kind {
            Kind::Histogram(buckets) => buckets.to_vec(),
            Kind::Gauge | Kind::Counter => Vec::new(),
        };
        let histogram =
            HistogramOpts::new(RECONCILE_SECONDS.name, RECONCILE_SECONDS.help).buckets(buckets);
        let metrics = Self {
            registry: Registry::new(),
            reconciles: counter(&RECONCILES_TOTAL)?,
            errors: counter(&RECONCILE_ERRORS_TOTAL)?,
            seconds: HistogramVec::new(histogram, RECONCILE_SECONDS.labels)?,
            restarts: counter(&JOB_RESTARTS_TOTAL)?,
            leader: Gauge::with_opts(options(&LEADER))?,
            jobs: gauge(&JOBS)?,
            loss: gauge(&JOB_LOSS)?,
            map50: gauge(&JOB_MAP50)?,
            map50_95: gauge(&JOB_MAP50_95)?,
            progress: gauge(&JOB_PROGRESS)?,
            answering: Mutex::new(()),
        };
        let registry = &metrics.registry;
        // Memory, CPU and open files of this process, under Prometheus' own names.
        registry.register(Box::new(ProcessCollector::for_self()))?;
        registry.register(Box::new(metrics.reconciles.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.restarts.clone()))?;
        registry.register(Box::new(metrics.leader.clone()))?;
        registry.register(Box::new(metrics.jobs.clone()))?;
        registry.register(Box::new(metrics.loss.clone()))?;
        registry.register(Box::new(metrics.map50.clone()))?;
        registry.register(Box::new(metrics.map50_95.clone()))?;
        registry.register(Box::new(metrics.progress.clone()))?;
        // Both outcomes exist from the start, so that a rate over them is never without a value.
        for outcome in ["ok", "error"] {
            metrics.reconciles.with_label_values(&[CONTROLLER, outcome]);
        }
        Ok(metrics)
    }

    /// Counts a reconcile and the seconds it took; `error` is its kind when it failed.
    pub fn reconciled(&self, seconds: f64, error: Option<&'static str>) {
        let outcome = if error.is_some() { "error" } else { "ok" };
        self.reconciles
            .with_label_values(&[CONTROLLER, outcome])
            .inc();
        self.seconds
            .with_label_values(&[CONTROLLER])
            .observe(seconds);
        if let Some(kind) = error {
            self.errors.with_label_values(&[CONTROLLER, kind]).inc();
        }
    }

    /// Counts a restart of a job.
    pub fn restarted(&self, reason: &'static str) {
        self.restarts.with_label_values(&[reason]).inc();
    }

    /// Says whether this replica holds the lease.
    pub fn lead(&self, leader: bool) {
        self.leader.set(f64::from(u8::from(leader)));
    }

    /// The text that Prometheus reads. Series of jobs are made anew from the jobs that exist, so those of
    /// deleted ones are gone.
    pub fn text<'a>(
        &self,
        jobs: impl IntoIterator<Item = &'a YoloTrainingJob>,
        now: Timestamp,
    ) -> Result<String, MetricsError> {
        // Two answers at once would take each other's series away, or count jobs twice.
        let _one = self
            .answering
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for gauge in [
            &self.jobs,
            &self.loss,
            &self.map50,
            &self.map50_95,
            &self.progress,
        ] {
            gauge.reset();
        }
        for state in State::ALL {
            self.jobs.with_label_values(&[state.as_str()]).set(0.0);
        }
        for job in jobs {
            self.job(job, now);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn job(&self, job: &YoloTrainingJob, now: Timestamp) {
        let status = job.status.clone().unwrap_or_default();
        let state = status.state.unwrap_or(State::Pending);
        self.jobs.with_label_values(&[state.as_str()]).inc();
        let end = status.completion_time.as_ref();
        if end.is_some_and(|end| now.duration_since(end.0) > SHOWN) {
            return;
        }
        let namespace = job.namespace().unwrap_or_default();
        let name = job.name_any();
        if let Some(progress) = &status.progress {
            self.progress
                .with_label_values(&[&namespace, &name])
                .set(progress.percent / 100.0);
        }
        let loss = status.latest.as_ref().and_then(|latest| latest.train_loss);
        if let Some(loss) = loss {
            self.loss
                .with_label_values(&[&namespace, &name])
                .set(loss.total);
        }
        for (which, metrics) in [("latest", &status.latest), ("best", &status.best)] {
            let Some(metrics) = metrics else {
                continue;
            };
            let labels = [namespace.as_str(), name.as_str(), which];
            if let Some(map50) = metrics.map50 {
                self.map50.with_label_values(&labels).set(map50);
            }
            if let Some(map50_95) = metrics.map50_95 {
                self.map50_95.with_label_values(&labels).set(map50_95);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::metric_names::OPERATOR;
    use contract::progress::EpochMetrics;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::sim::fixture;

    #[test]
    fn answers_at_the_same_time_are_whole() {
        let metrics = Metrics::new().expect("metrics");
        let mut jobs: Vec<_> = (0..200)
            .map(|n| fixture::job(&format!("digits-{n}"), 1))
            .collect();
        for job in &mut jobs {
            job.status = Some(crds::v1alpha1::YoloTrainingJobStatus {
                state: Some(State::Running),
                ..Default::default()
            });
        }
        let now = Timestamp::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let text = metrics.text(&jobs, now).expect("text");
                        let running = r#"yolo_operator_jobs{state="Running"} 200"#;
                        assert!(text.contains(running), "{text}");
                    }
                });
            }
        });
    }

    #[test]
    fn every_promised_series_is_served_and_a_deleted_job_has_none() {
        let metrics = Metrics::new().expect("metrics");
        metrics.reconciled(0.01, Some("apply"));
        metrics.restarted("Killed");
        metrics.lead(true);
        let now = Timestamp::now();
        let mut job = fixture::job("digits", 2);
        let measured = EpochMetrics {
            train_loss: Some(contract::progress::Losses::default()),
            map50: Some(0.5),
            map50_95: Some(0.25),
            ..EpochMetrics::default()
        };
        job.status = Some(crds::v1alpha1::YoloTrainingJobStatus {
            state: Some(State::Running),
            progress: Some(contract::progress::Progress {
                percent: 50.0,
                ..Default::default()
            }),
            latest: Some(measured.clone()),
            best: Some(measured),
            ..Default::default()
        });
        let text = metrics.text([&job], now).expect("text");
        for metric in OPERATOR {
            assert!(
                text.contains(&format!("# HELP {} ", metric.name)),
                "{}",
                metric.name
            );
        }
        assert!(
            text.contains(r#"yolo_operator_jobs{state="Running"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"which="best"} 0.25"#), "{text}");
        assert!(text.contains(r#"training_job="digits"} 0.5"#), "{text}");
        for (seconds, shown) in [(3599, true), (3601, false)] {
            let end = now.checked_sub(SignedDuration::from_secs(seconds));
            let status = job.status.as_mut().expect("set above");
            status.state = Some(State::Complete);
            status.completion_time = Some(Time(end.expect("in range")));
            let text = metrics.text([&job], now).expect("text");
            assert_eq!(shown, text.contains("digits"), "{text}");
            assert!(text.contains(r#"yolo_operator_jobs{state="Complete"} 1"#));
        }
        let after = metrics.text([], now).expect("text");
        assert!(!after.contains("digits"), "{after}");
        assert!(
            after.contains(r#"yolo_operator_jobs{state="Running"} 0"#),
            "{after}"
        );
    }
}
