//! The range of every number a user can write, once: the API server's rules are made from this table,
//! and [`out_of_range`] holds it for manifests that never saw an API server.

use serde::Serialize;
use serde_json::Value;

use super::SpecProblem;

/// A number's range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Where it stands in the spec, `hyperparameters.lr0` for example.
    pub field: &'static str,
    /// The lowest value, or what it has to be above.
    pub low: f64,
    /// The highest value; infinite where there is none.
    pub high: f64,
    /// Whether `low` itself is out of range.
    pub above: bool,
}

/// Every number with a range. A number without one is bounded by its type alone.
pub const LIMITS: &[Limit] = &[
    within("training.epochs", 1.0, 100_000.0),
    at_least("training.iterations", 1.0),
    above("training.hours", 0.0, 100_000.0),
    within("training.multiScale", 0.0, 0.9),
    within("training.batchSize", 0.0, 65_536.0),
    at_least("training.evaluateEvery", 1.0),
    at_least("training.checkpointEvery", 1.0),
    above("training.checkpointMinutes", 0.0, 100_000.0),
    within("training.snapshotSeconds", 0.0, 86_400.0),
    within("training.fitness.precision", 0.0, 1000.0),
    within("training.fitness.recall", 0.0, 1000.0),
    within("training.fitness.mAP50", 0.0, 1000.0),
    within("training.fitness.mAP50_95", 0.0, 1000.0),
    within("training.keepCheckpoints", 1.0, 1000.0),
    within("training.loaderThreads", 1.0, 256.0),
    within("training.computeThreads", 1.0, 1024.0),
    above("hyperparameters.lr0", 0.0, 1.0),
    above("hyperparameters.lrf", 0.0, 1.0),
    within("hyperparameters.momentum", 0.0, 1.0),
    within("hyperparameters.weightDecay", 0.0, 1.0),
    within("hyperparameters.warmupEpochs", 0.0, 1000.0),
    within("hyperparameters.warmupMomentum", 0.0, 1.0),
    within("hyperparameters.warmupBiasLr", 0.0, 1.0),
    within("hyperparameters.boxGain", 0.0, 100.0),
    within("hyperparameters.clsGain", 0.0, 100.0),
    within("hyperparameters.clsPositiveWeight", 0.0, 100.0),
    within("hyperparameters.objGain", 0.0, 100.0),
    within("hyperparameters.objPositiveWeight", 0.0, 100.0),
    within("hyperparameters.anchorThreshold", 1.0, 100.0),
    within("hyperparameters.labelSmoothing", 0.0, 0.9),
    within("hyperparameters.focalGamma", 0.0, 10.0),
    within("hyperparameters.gradientClip", 0.0, 1_000_000.0),
    within("hyperparameters.stepEpochs", 1.0, 100_000.0),
    above("hyperparameters.stepFactor", 0.0, 1.0),
    within("hyperparameters.nominalBatchSize", 1.0, 65_536.0),
    within("augmentation.hsvH", 0.0, 1.0),
    within("augmentation.hsvS", 0.0, 1.0),
    within("augmentation.hsvV", 0.0, 1.0),
    within("augmentation.degrees", 0.0, 180.0),
    within("augmentation.translate", 0.0, 1.0),
    within("augmentation.scale", 0.0, 1.0),
    within("augmentation.shear", 0.0, 89.0),
    within("augmentation.perspective", 0.0, 0.001),
    within("augmentation.flipud", 0.0, 1.0),
    within("augmentation.fliplr", 0.0, 1.0),
    within("augmentation.mosaic", 0.0, 1.0),
    within("augmentation.mosaic9", 0.0, 1.0),
    within("augmentation.mixup", 0.0, 1.0),
    within("augmentation.cutmix", 0.0, 1.0),
    within("augmentation.copyPaste", 0.0, 1.0),
    within("augmentation.closeMosaic", 0.0, 100_000.0),
    within("augmentation.randomCrop", 0.0, 1.0),
    within("augmentation.cutout", 0.0, 1.0),
    within("augmentation.blur", 0.0, 1.0),
    within("augmentation.medianBlur", 0.0, 1.0),
    within("augmentation.gray", 0.0, 1.0),
    within("augmentation.clahe", 0.0, 1.0),
    within("augmentation.brightnessContrast", 0.0, 1.0),
    within("augmentation.gamma", 0.0, 1.0),
    within("augmentation.jpeg", 0.0, 1.0),
    within("distributed.timeoutSeconds", 5.0, 86_400.0),
    within("workers.replicas", 1.0, 1024.0),
    within("workers.gpusPerWorker", 0.0, 16.0),
    within("workers.processesPerWorker", 1.0, 64.0),
    within("failurePolicy.maxRestarts", 0.0, 1000.0),
    within("failurePolicy.backoff.initialSeconds", 0.0, 86_400.0),
    within("failurePolicy.backoff.maxSeconds", 0.0, 86_400.0),
    at_least("activeDeadlineSeconds", 1.0),
];

const fn within(field: &'static str, low: f64, high: f64) -> Limit {
    let above = false;
    Limit {
        field,
        low,
        high,
        above,
    }
}

const fn above(field: &'static str, low: f64, high: f64) -> Limit {
    let above = true;
    Limit {
        field,
        low,
        high,
        above,
    }
}

const fn at_least(field: &'static str, low: f64) -> Limit {
    within(field, low, f64::INFINITY)
}

impl Limit {
    /// Whether a value is in range; NaN never is.
    pub fn allows(&self, value: f64) -> bool {
        let low = if self.above {
            value > self.low
        } else {
            value >= self.low
        };
        low && value <= self.high
    }

    /// The range in words, as a sentence ends: `choose 0 to 1`.
    pub fn remedy(&self) -> String {
        let Self { low, high, .. } = self;
        if self.above {
            format!("choose above {low} and at most {high}")
        } else if high.is_infinite() {
            format!("choose {low} or more")
        } else {
            format!("choose {low} to {high}")
        }
    }

    /// The range as a CEL rule on the field itself, whose literals must have the field's type.
    pub fn rule(&self, integer: bool) -> String {
        let literal = |number: f64| {
            if integer {
                format!("{number}")
            } else {
                format!("{number:?}")
            }
        };
        let low = format!(
            "self {} {}",
            if self.above { ">" } else { ">=" },
            literal(self.low)
        );
        if self.high.is_infinite() {
            low
        } else {
            format!("{low} && self <= {}", literal(self.high))
        }
    }
}

/// Every number of a spec, or of a part of one with the same paths, that is out of range.
pub fn out_of_range(spec: &impl Serialize) -> Vec<SpecProblem> {
    let spec = serde_json::to_value(spec).expect("a spec always becomes JSON");
    let problem = |limit: &Limit| {
        let value = limit
            .field
            .split('.')
            .try_fold(&spec, |part, name| part.get(name))?;
        // JSON has no NaN and no infinity; serde writes null for them.
        let number = match value {
            Value::Null => f64::NAN,
            value => value.as_f64()?,
        };
        (!limit.allows(number))
            .then(|| SpecProblem(format!("{} is {number}: {}", limit.field, limit.remedy())))
    };
    LIMITS.iter().filter_map(problem).collect()
}
