//! The training series as Prometheus sees them, built from the contract's table.

use std::collections::HashMap;

use contract::attempt::Attempt;
use contract::config::JobIdentity;
use contract::metric_names::{JOB_LABELS, Kind, Metric, TRAINING};
use contract::protocol::Sample;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder};

/// The label whose value is the rank that sent the sample.
const RANK_LABEL: &str = "rank";

/// The registry, or a series in it, cannot be made: a bug in the contract's table.
#[derive(Debug, thiserror::Error)]
#[error("the metric {name} cannot be registered")]
pub struct RegisterError {
    /// Which metric.
    name: &'static str,
    /// Why not.
    #[source]
    source: prometheus::Error,
}

/// A sample that was not taken. The agent says so once and goes on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Dropped {
    /// There is no such metric.
    #[error("there is no training metric '{metric}'")]
    Unknown {
        /// What the rank called it.
        metric: String,
    },
    /// The labels are not those of the metric.
    #[error("{metric} has the labels {expected:?}, not {found:?}")]
    Labels {
        /// Which metric.
        metric: &'static str,
        /// The labels a rank must give.
        expected: Vec<&'static str>,
        /// The labels it gave.
        found: Vec<String>,
    },
    /// The value makes no sense for this kind of metric.
    #[error("{metric} cannot take the value {value}")]
    Value {
        /// Which metric.
        metric: &'static str,
        /// The value.
        value: String,
    },
}

/// Every training series of one worker.
pub struct TrainingMetrics {
    registry: Registry,
    families: HashMap<&'static str, Family>,
}

struct Family {
    metric: Metric,
    series: Series,
}

enum Series {
    Gauge(GaugeVec),
    Counter(CounterVec),
    Histogram(HistogramVec),
}

impl TrainingMetrics {
    /// All series of [`TRAINING`], without a value, under the labels of one attempt of `job`.
    pub fn new(job: &JobIdentity, attempt: Attempt) -> Result<Self, RegisterError> {
        let values = [job.namespace.clone(), job.name.clone(), attempt.to_string()];
        let job_labels: HashMap<String, String> = JOB_LABELS
            .map(str::to_owned)
            .into_iter()
            .zip(values)
            .collect();
        let registry = Registry::new();
        let mut families = HashMap::new();
        for metric in TRAINING {
            let name = metric.name;
            let series = register(&registry, &metric, job_labels.clone())
                .map_err(|source| RegisterError { name, source })?;
            families.insert(name, Family { metric, series });
        }
        Ok(Self { registry, families })
    }

    /// Takes in a sample that `rank` sent.
    pub fn record(&self, rank: u32, sample: &Sample) -> Result<(), Dropped> {
        let Some(family) = self.families.get(sample.metric.as_str()) else {
            let metric = sample.metric.clone();
            return Err(Dropped::Unknown { metric });
        };
        family.record(rank, sample)
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn register(
    registry: &Registry,
    metric: &Metric,
    job_labels: HashMap<String, String>,
) -> Result<Series, prometheus::Error> {
    let opts = Opts::new(metric.name, metric.help).const_labels(job_labels);
    Ok(match metric.kind {
        Kind::Gauge => {
            let gauge = GaugeVec::new(opts, metric.labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Series::Gauge(gauge)
        }
        Kind::Counter => {
            let counter = CounterVec::new(opts, metric.labels)?;
            registry.register(Box::new(counter.clone()))?;
            Series::Counter(counter)
        }
        Kind::Histogram(buckets) => {
            let opts = HistogramOpts::from(opts).buckets(buckets.to_vec());
            let histogram = HistogramVec::new(opts, metric.labels)?;
            registry.register(Box::new(histogram.clone()))?;
            Series::Histogram(histogram)
        }
    })
}

impl Family {
    fn record(&self, rank: u32, sample: &Sample) -> Result<(), Dropped> {
        let rank = rank.to_string();
        let given = || {
            self.metric
                .labels
                .iter()
                .filter(|label| **label != RANK_LABEL)
        };
        let values: Option<Vec<&str>> = self
            .metric
            .labels
            .iter()
            .map(|label| match *label {
                RANK_LABEL => Some(rank.as_str()),
                other => sample.labels.get(other).map(String::as_str),
            })
            .collect();
        let wrong_labels = || Dropped::Labels {
            metric: self.metric.name,
            expected: given().copied().collect(),
            found: sample.labels.keys().cloned().collect(),
        };
        let values = values
            .filter(|_| sample.labels.len() == given().count())
            .ok_or_else(wrong_labels)?;
        let wrong_value = || Dropped::Value {
            metric: self.metric.name,
            value: sample.value.to_string(),
        };
        let value = sample.value;
        match &self.series {
            // A NaN loss is worth seeing on a dashboard.
            Series::Gauge(gauge) => gauge
                .get_metric_with_label_values(&values)
                .map_err(|_| wrong_labels())?
                .set(value),
            Series::Counter(counter) => {
                if !value.is_finite() || value < 0.0 {
                    return Err(wrong_value());
                }
                let counter = counter
                    .get_metric_with_label_values(&values)
                    .map_err(|_| wrong_labels())?;
                // A rank that counts again from an older checkpoint repeats what was counted.
                counter.inc_by((value - counter.get()).max(0.0));
            }
            Series::Histogram(histogram) => {
                if !value.is_finite() {
                    return Err(wrong_value());
                }
                histogram
                    .get_metric_with_label_values(&values)
                    .map_err(|_| wrong_labels())?
                    .observe(value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::metric_names::{
        TRAIN_IMAGES_TOTAL, TRAIN_LOSS, TRAIN_STEP_SECONDS, TRAIN_WAIT_SECONDS,
    };

    fn metrics() -> TrainingMetrics {
        let job = JobIdentity {
            namespace: "team".to_owned(),
            name: "digits".to_owned(),
            uid: "0123456789".to_owned(),
        };
        TrainingMetrics::new(&job, Attempt::default()).expect("the contract's table is sound")
    }

    fn sample(metric: Metric, labels: &[(&str, &str)], value: f64) -> Sample {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Sample {
            metric: metric.name.to_owned(),
            labels: labels.collect(),
            value,
        }
    }

    const JOB: &str = r#"attempt="0.0",namespace="team""#;

    #[track_caller]
    fn shows(metrics: &TrainingMetrics, line: &str) {
        let text = metrics.render().expect("renders");
        assert!(
            text.lines().any(|found| found == line),
            "no '{line}' in:\n{text}"
        );
    }

    #[test]
    fn a_gauge_is_set() {
        let metrics = metrics();
        for value in [0.5, 0.25] {
            let loss = sample(TRAIN_LOSS, &[("part", "box"), ("split", "train")], value);
            assert_eq!(Ok(()), metrics.record(0, &loss));
        }
        let labels = format!(r#"{{{JOB},part="box",split="train",training_job="digits"}}"#);
        shows(&metrics, &format!("yolo_train_loss{labels} 0.25"));
        shows(&metrics, "# TYPE yolo_train_loss gauge");
    }

    #[test]
    fn a_counter_is_raised_and_never_lowered() {
        let metrics = metrics();
        for value in [64.0, 128.0, 96.0] {
            assert_eq!(
                Ok(()),
                metrics.record(0, &sample(TRAIN_IMAGES_TOTAL, &[], value))
            );
        }
        let line = format!(r#"yolo_train_images_total{{{JOB},training_job="digits"}} 128"#);
        shows(&metrics, &line);
        let nan = metrics.record(0, &sample(TRAIN_IMAGES_TOTAL, &[], f64::NAN));
        assert!(matches!(nan, Err(Dropped::Value { .. })), "{nan:?}");
    }

    #[test]
    fn a_histogram_observes_under_the_senders_rank() {
        let metrics = metrics();
        for (rank, seconds) in [(4, 0.003), (4, 0.3), (5, 0.1)] {
            let step = sample(TRAIN_STEP_SECONDS, &[], seconds);
            assert_eq!(Ok(()), metrics.record(rank, &step));
        }
        let labels = format!(r#"{JOB},rank="4",training_job="digits""#);
        shows(
            &metrics,
            &format!("yolo_train_step_seconds_count{{{labels}}} 2"),
        );
        shows(
            &metrics,
            &format!(r#"yolo_train_step_seconds_bucket{{{labels},le="0.004"}} 1"#),
        );
    }

    #[test]
    fn what_is_not_in_the_table_is_dropped() {
        let metrics = metrics();
        let mut unknown = sample(TRAIN_LOSS, &[], 1.0);
        unknown.metric = "yolo_secrets".to_owned();
        assert_eq!(
            Err(Dropped::Unknown {
                metric: "yolo_secrets".to_owned()
            }),
            metrics.record(0, &unknown)
        );
        // The rank is the agent's to add; a label too few or too many is none of the metric's.
        for labels in [
            &[("on", "data"), ("rank", "7")][..],
            &[("rank", "7")],
            &[("of", "data")],
            &[],
        ] {
            let error = metrics.record(0, &sample(TRAIN_WAIT_SECONDS, labels, 1.0));
            assert!(matches!(error, Err(Dropped::Labels { .. })), "{labels:?}");
        }
        assert_eq!("", metrics.render().expect("renders"));
    }
}
