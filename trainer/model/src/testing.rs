//! What several test modules share.

use contract::spec::ModelSize;
use tch::{Device, Kind, Tensor};
use trainer_core::boxes::Xywh;

use crate::assign::{BatchShape, Target};
use crate::network::NetworkOptions;

/// The batch of the golden loss: two images of 64 pixels.
pub(crate) const GOLDEN_BATCH: BatchShape = BatchShape {
    images: 2,
    height: 64,
    width: 64,
};

/// The targets of the golden loss.
pub(crate) fn golden_targets() -> Vec<Target> {
    let target = |image, class, x, y, w, h| Target {
        image,
        class,
        xywh: Xywh::new(x, y, w, h),
    };
    vec![
        target(0, 0, 0.5, 0.5, 0.3, 0.4),
        target(0, 1, 0.2, 0.7, 0.1, 0.15),
        target(1, 2, 0.9, 0.1, 0.05, 0.08),
        target(1, 0, 0.48, 0.52, 0.6, 0.7),
    ]
}

/// A small network with few classes.
pub(crate) fn small() -> NetworkOptions {
    NetworkOptions::new(ModelSize::N, 3)
}

/// Images `[images, 3, side, side]` of smooth waves between 0 and 1, all different.
pub(crate) fn images(images: i64, side: i64) -> Tensor {
    let elements = images * 3 * side * side;
    let wave = Tensor::arange(elements, (Kind::Double, Device::Cpu)) * 0.01;
    (wave.sin() * 0.5 + 0.5)
        .view([images, 3, side, side])
        .to_kind(Kind::Float)
}

/// The largest difference between two tensors.
pub(crate) fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}
