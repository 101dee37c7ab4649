//! How fast this machine trains: steps on one batch of made-up images, without a data set.

use std::sync::Arc;
use std::time::Instant;

use contract::exit::FailureReason;
use contract::spec::{Hyperparameters, LossNormalisation, Precision};
use serde::Serialize;
use trainer_core::boxes::Xywh;
use trainer_core::rng::{Purpose, below, stream, uniform};
use trainer_core::schedule::StepPlan;
use trainer_data::{
    Batch, Drawn, Loader, LoaderConfig, LoaderError, Sample, SampleSource, SampleTarget,
    StepRequest,
};
use trainer_model::architecture::{Architecture, ArchitectureError};
use trainer_model::loss::{Loss, LossSettings};
use trainer_model::network::{Layout, Network, NetworkOptions};
use trainer_model::optim::Rule;

use crate::cli::{BenchArgs, InfoArgs, LayoutArg};
use crate::device::{self, DeviceError};
use crate::distributed::{Gradients, Ranks};
use crate::error::of_step;
use crate::info::{self, InfoError};
use crate::step::{Learner, LearnerOptions, StepError, StepInput};
use crate::threads::{Threads, available_cpus};
use crate::weights::{self, WeightsError};

/// Steps before the clock runs: allocations and the choice of kernels.
const WARM_UP: u64 = 3;
/// Objects on each image.
const OBJECTS: usize = 4;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The model is not there.
    #[error(transparent)]
    Model(#[from] InfoError),
    /// The model cannot be built.
    #[error("the model cannot be used")]
    Architecture(#[from] ArchitectureError),
    /// The images do not fit it.
    #[error(transparent)]
    ImageSize(#[from] WeightsError),
    /// The device is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// libtorch cannot be set up.
    #[error("cannot set libtorch up")]
    Libtorch(#[from] torch_bridge::Error),
    /// The network cannot be made.
    #[error("the network cannot be set up")]
    Network(#[from] trainer_model::Error),
    /// The batch cannot be made.
    #[error(transparent)]
    Batch(#[from] LoaderError),
    /// The loader ended without one.
    #[error("the loader gave no batch; this is a fault of the program, please report it")]
    NoBatch,
    /// A step failed.
    #[error("step {step} failed")]
    Step {
        /// Which, from 0.
        step: u64,
        /// What failed.
        #[source]
        source: StepError,
    },
}

impl BenchError {
    /// The word that decides the exit code.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Model(_) | Self::Architecture(_) | Self::ImageSize(_) | Self::Device(_) => {
                FailureReason::InvalidConfig
            }
            Self::Step { source, .. } => of_step(source),
            Self::Libtorch(_) | Self::Network(_) | Self::Batch(_) | Self::NoBatch => {
                FailureReason::Internal
            }
        }
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    model: &'static str,
    device: String,
    threads: usize,
    precision: Precision,
    image_size: u32,
    batch_size: u32,
    /// Of each step, in order.
    seconds: Vec<f64>,
    median: f64,
    images_per_second: f64,
}

impl Measurement {
    /// In a line, for people.
    pub fn line(&self) -> String {
        format!(
            "{} at {} px, batch {}, on {} with {} threads: {:.1} ms a step (median of {}), {:.1} images/s",
            self.model,
            self.image_size,
            self.batch_size,
            self.device,
            self.threads,
            1000.0 * self.median,
            self.seconds.len(),
            self.images_per_second,
        )
    }
}

/// Measures what the arguments ask for. A step is forward, loss, backward, gradient clipping, SGD and the
/// moving average.
pub fn bench(args: &BenchArgs) -> Result<Measurement, BenchError> {
    let mut threads = Threads::plan(&contract::spec::Training::default(), available_cpus(), 1);
    threads.compute = args.threads.map_or(threads.compute, |n| n as usize);
    threads.apply()?;
    let device = device::for_inference(args.device.into())?;
    let precision = device::precision(args.precision, device)?;
    let subject = info::find(&InfoArgs {
        model: args.model.clone(),
        classes: args.classes,
        image_size: Some(args.image_size),
        json: false,
        yaml: false,
    })?;
    let architecture = Architecture::of(&subject.model, subject.classes)?;
    weights::check_image_size(args.image_size, &architecture)?;
    let mut options = NetworkOptions::of(architecture);
    options.device = device;
    options.layout = match args.layout {
        LayoutArg::ChannelsLast => Layout::ChannelsLast,
        LayoutArg::ChannelsFirst => Layout::ChannelsFirst,
    };
    let batch = made_up(args, options.architecture.classes())?;
    let mut ranks = Ranks::alone();
    let mut learner = learner(&options, args.image_size, precision, &mut ranks)?;
    let mut step = |number: u64| {
        let start = Instant::now();
        let input = StepInput {
            batch: &batch,
            size: (args.image_size, args.image_size),
            gradients: Gradients::Averaged,
            plan: PLAN,
            weight_decay: 0.0005,
            stop: false,
            save: false,
            spent: 0.0,
            made: None,
        };
        let done = learner.step(&mut ranks, &input);
        done.map_err(|source| BenchError::Step {
            step: number,
            source,
        })?;
        if device.is_cuda() {
            tch::Cuda::synchronize(0);
        }
        Ok(start.elapsed().as_secs_f64())
    };
    for number in 0..WARM_UP {
        step(number)?;
    }
    let seconds = (0..u64::from(args.steps))
        .map(|number| step(WARM_UP + number))
        .collect::<Result<Vec<_>, BenchError>>()?;
    let median = median(&seconds);
    Ok(Measurement {
        model: subject.model.name(),
        device: device::name(device)?,
        threads: threads.compute,
        precision: args.precision,
        image_size: args.image_size,
        batch_size: args.batch_size,
        median,
        images_per_second: f64::from(args.batch_size) / median,
        seconds,
    })
}

/// Rates that change little: the numbers stay finite however long it runs.
const PLAN: StepPlan = StepPlan {
    lr_bias: 1e-4,
    lr_other: 1e-4,
    momentum: 0.937,
    accumulate: 1,
};

fn learner(
    options: &NetworkOptions,
    image_size: u32,
    precision: Option<tch::Kind>,
    ranks: &mut Ranks,
) -> Result<Learner, BenchError> {
    let network = Network::initialised(options, 0)?;
    let hyperparameters = Hyperparameters::default();
    let settings = LossSettings::scaled(&hyperparameters, &options.architecture, image_size);
    let loss = Loss::new(options, settings);
    let options = LearnerOptions {
        normalisation: LossNormalisation::Global,
        rule: Rule::Sgd,
        gradient_clip: hyperparameters.gradient_clip,
        sync_norm: false,
        portions: 1,
        quads: None,
        precision,
    };
    Learner::new(network, loss, options, ranks)
        .map_err(|source| BenchError::Step { step: 0, source })
}

/// A batch of noise with boxes.
fn made_up(args: &BenchArgs, classes: usize) -> Result<Batch, BenchError> {
    let source = Noise {
        images: args.batch_size,
        image_size: args.image_size,
        classes: classes as u64,
    };
    let request = StepRequest {
        epoch: 0,
        step: 0,
        indices: (0..args.batch_size).collect(),
        drawn: None,
    };
    let config = LoaderConfig {
        threads: 1,
        prefetch_steps: 1,
    };
    let mut loader = Loader::start(config, Arc::new(source), std::iter::once(request))?;
    Ok(loader.next().ok_or(BenchError::NoBatch)??)
}

struct Noise {
    images: u32,
    image_size: u32,
    classes: u64,
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

impl SampleSource for Noise {
    fn len(&self) -> usize {
        self.images as usize
    }

    fn size(&self, _index: u32) -> (u32, u32) {
        (self.image_size, self.image_size)
    }

    fn sample(
        &self,
        epoch: u64,
        index: u32,
        _drawn: Option<Drawn<'_>>,
        pixels: &mut [u8],
    ) -> Sample {
        let mut rng = stream(0, Purpose::Test, epoch, index.into());
        for pixel in pixels {
            *pixel = below(&mut rng, 256) as u8;
        }
        let targets = (0..OBJECTS).map(|_| {
            let [w, h] = [0; 2].map(|_| uniform(&mut rng, 0.05, 0.4) as f32);
            let [x, y] = [w, h].map(|side| {
                let half = f64::from(side) / 2.0;
                uniform(&mut rng, half, 1.0 - half) as f32
            });
            SampleTarget {
                class: below(&mut rng, self.classes) as u16,
                xywh: Xywh::new(x, y, w, h),
            }
        });
        Sample {
            targets: targets.collect(),
            ..Sample::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_measurement_has_its_exit_code() {
        let failed = |source| BenchError::Step { step: 0, source }.reason();
        assert_eq!(FailureReason::OutOfMemory, failed(StepError::OutOfMemory));
        let model = BenchError::Model(InfoError::Unknown("yolov4".to_owned()));
        assert_eq!(FailureReason::InvalidConfig, model.reason());
        assert_eq!(FailureReason::Internal, BenchError::NoBatch.reason());
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(2.0, median(&[3.0, 1.0, 2.0]));
        assert_eq!(2.5, median(&[4.0, 1.0, 2.0, 3.0]));
    }
}
