//! Finds objects with trained networks: one, or several together.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use tch::{TchError, Tensor};
use trainer_core::detection::Detection;
use trainer_core::fusion::{FUSION_IOU, weighted_boxes_fusion};
use trainer_core::nms::NmsOptions;
use trainer_model::Error;
use trainer_model::architecture::Level;
use trainer_model::detect::detections;
use trainer_model::network::{Evaluated, FusedNetwork};

use crate::cli::NetworkArgs;
use crate::weights::{self, WeightsError, WeightsInfo};

/// How what several networks say becomes one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Ensemble {
    /// Suppression among the boxes of all, as `YOLOv5` does.
    #[default]
    Nms,
    /// The mean of the predictions, cell by cell; for models with the same anchors and strides.
    Mean,
    /// Weighted boxes fusion of what each finds.
    Wbf,
}

/// Whether images are seen at several scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    /// As they are.
    One,
    /// Also smaller, and mirrored: test-time augmentation.
    Several,
}

/// Networks that cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum FinderError {
    /// A file of weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A network cannot be set up.
    #[error("the network cannot be set up")]
    Network(#[from] Error),
    /// They know other classes.
    #[error(
        "{} knows other classes than {} ({other} and {first}): only weights of the same classes, in the same order, can be used together",
        path.display(), first_path.display()
    )]
    OtherClasses {
        /// The weights in question.
        path: PathBuf,
        /// Their classes.
        other: String,
        /// The first weights.
        first_path: PathBuf,
        /// Their classes.
        first: String,
    },
    /// Their predictions do not lie at the same places.
    #[error(
        "{} has other anchors or strides than {}, so no mean of their predictions can be taken: choose --ensemble nms or wbf",
        path.display(), first_path.display()
    )]
    OtherGrid {
        /// The weights in question.
        path: PathBuf,
        /// The first weights.
        first_path: PathBuf,
    },
}

/// What turns images into detections.
pub struct Finder {
    networks: Vec<FusedNetwork>,
    ensemble: Ensemble,
    views: Views,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// Of each image, most confident first, in pixels of the network's input.
    pub detections: Vec<Vec<Detection>>,
    /// The first network's predictions before decoding, as a loss takes them.
    pub raw: Vec<Tensor>,
}

impl Finder {
    /// Finds with one network, each image as it is.
    pub fn of(network: FusedNetwork) -> Self {
        Self {
            networks: vec![network],
            ensemble: Ensemble::Nms,
            views: Views::One,
        }
    }

    /// Finds with all weights that are named; also says what the first are, with the largest of all image sizes.
    pub fn load(
        args: &NetworkArgs,
        device: tch::Device,
    ) -> Result<(Self, WeightsInfo), FinderError> {
        let ensemble = args.ensemble;
        let mut networks: Vec<FusedNetwork> = Vec::new();
        let mut first: Option<(&Path, WeightsInfo)> = None;
        for path in &args.weights {
            let (network, info) = weights::load(path, device)?;
            match &mut first {
                None => first = Some((path, info)),
                Some((first_path, first)) => {
                    if info.names != first.names {
                        return Err(FinderError::OtherClasses {
                            path: path.clone(),
                            other: named(&info),
                            first_path: first_path.to_owned(),
                            first: named(first),
                        });
                    }
                    let levels = network.options().architecture.levels();
                    let first_levels = networks[0].options().architecture.levels();
                    if ensemble == Ensemble::Mean && !is_same_grid(levels, first_levels) {
                        return Err(FinderError::OtherGrid {
                            path: path.clone(),
                            first_path: first_path.to_owned(),
                        });
                    }
                    first.image_size = first.image_size.max(info.image_size);
                }
            }
            networks.push(network.fuse()?);
        }
        let Some((_, info)) = first else {
            unreachable!("the command line asks for at least one path")
        };
        let finder = Self {
            networks,
            ensemble,
            views: args.views(),
        };
        Ok((finder, info))
    }

    /// The first network.
    pub fn network(&self) -> &FusedNetwork {
        &self.networks[0]
    }

    /// Makes sure that images of `size` pixels a side fit every network.
    pub fn check_image_size(&self, size: u32) -> Result<(), WeightsError> {
        self.networks.iter().try_for_each(|network| {
            weights::check_image_size(size, &network.options().architecture)
        })
    }

    /// What the sides of images must be multiples of, for all networks.
    pub fn multiple(&self) -> u32 {
        let multiples = self.networks.iter();
        let multiples = multiples.map(|network| network.options().architecture.multiple());
        multiples.max().unwrap_or(1)
    }

    /// What is on `pixels`, `[images, 3, height, width]` of 0..=255, RGB, on any device.
    pub fn find(&self, pixels: &Tensor, options: &NmsOptions) -> Result<Found, Error> {
        let mut all = Vec::new();
        let mut first_raw = None;
        for network in &self.networks {
            let input = network.input(pixels)?;
            let Evaluated { decoded, raw } = match self.views {
                Views::One => network.evaluate(&input)?,
                Views::Several => network.evaluate_augmented(&input)?,
            };
            all.push(decoded);
            first_raw.get_or_insert(raw);
        }
        let joined = |join: fn(&[Tensor]) -> Result<Tensor, TchError>| {
            tch::no_grad(|| join(&all)).map_err(|source| Error::Augment {
                images: pixels.size(),
                source,
            })
        };
        let detections = match self.ensemble {
            _ if all.len() == 1 => detections(&all[0], options)?,
            Ensemble::Nms => detections(&joined(|all| Tensor::f_cat(all, 1))?, options)?,
            Ensemble::Mean => {
                let mean = |all: &[Tensor]| Tensor::f_stack(all, 0)?.f_mean_dim(0, false, None);
                detections(&joined(mean)?, options)?
            }
            Ensemble::Wbf => {
                let each = all.iter().map(|decoded| detections(decoded, options));
                fused(&each.collect::<Result<Vec<_>, _>>()?, options)
            }
        };
        Ok(Found {
            detections,
            raw: first_raw.unwrap_or_default(),
        })
    }
}

/// Of each image, what the models found (`each[model][image]`) made one.
fn fused(each: &[Vec<Vec<Detection>>], options: &NmsOptions) -> Vec<Vec<Detection>> {
    let images = each.first().map_or(0, Vec::len);
    (0..images)
        .map(|image| {
            let models: Vec<_> = each.iter().map(|model| model[image].clone()).collect();
            let mut fused = weighted_boxes_fusion(&models, FUSION_IOU);
            fused.retain(|detection| detection.conf > options.confidence);
            fused.truncate(options.max_detections);
            fused
        })
        .collect()
}

/// Whether predictions lie at the same places and are of the same anchors.
fn is_same_grid(one: &[Level], other: &[Level]) -> bool {
    // Files may hold anchors in half precision.
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-3 * b;
    let level = |(one, other): (&Level, &Level)| {
        let sides = one.anchors.as_flattened().iter();
        one.stride == other.stride
            && one.anchors.len() == other.anchors.len()
            && sides.zip(other.anchors.as_flattened()).all(near)
    };
    one.len() == other.len() && one.iter().zip(other).all(level)
}

fn named(info: &WeightsInfo) -> String {
    let shown: Vec<&str> = info.names.iter().take(8).map(String::as_str).collect();
    let more = if info.names.len() > shown.len() {
        ", ..."
    } else {
        ""
    };
    format!("{}: {}{more}", info.nc, shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_the_same_with_anchors_of_the_same_sizes() {
        let level = |stride, anchors: [[f32; 2]; 2]| Level {
            stride,
            anchors: anchors.to_vec(),
        };
        let own = [level(8, [[10., 13.], [16., 30.]])];
        let in_half_precision = [level(8, [[10.005, 13.], [16., 29.98]])];
        assert!(is_same_grid(&own, &in_half_precision));
        for other in [
            level(16, [[10., 13.], [16., 30.]]),
            level(8, [[10., 13.], [16., 31.]]),
            level(8, [[16., 30.], [10., 13.]]),
        ] {
            assert!(!is_same_grid(&own, std::slice::from_ref(&other)));
        }
        assert!(!is_same_grid(&own, &[]));
    }
}
