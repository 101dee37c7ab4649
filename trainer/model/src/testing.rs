//! What several test modules share.

use std::sync::Arc;

use contract::spec::{Model, ModelSize};
use tch::{Device, Kind, Tensor};
use trainer_core::boxes::Xywh;

use crate::architecture::Architecture;
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

/// A model file with every module.
pub(crate) const ZOO: &str = "\
anchors: [[10, 13, 33, 23], [62, 45, 116, 90]]
backbone:
  - [-1, 1, Focus, [8, 3]]
  - [-1, 1, DWConv, [16, 3, 2]]
  - [-1, 1, Bottleneck, [16]]
  - [-1, 2, CrossConv, [16, 3, 1, 1, 1.0, True]]
  - [-1, 2, BottleneckCSP, [16]]
  - [-1, 1, GhostConv, [16, 3, 2]]
  - [-1, 1, GhostBottleneck, [16]]
  - [-1, 2, C3Ghost, [16]]
  - [-1, 1, C3x, [16]]
  - [-1, 1, GhostBottleneck, [24, 3, 2]]
  - [-1, 2, C3TR, [24]]
  - [-1, 1, C3SPP, [24]]
  - [-1, 1, SPP, [24, [3, 5]]]
  - [-1, 1, SPPF, [24, 5]]
head:
  - [-1, 1, nn.Conv2d, [16, 1]]
  - [-1, 1, nn.BatchNorm2d, []]
  - [-1, 1, nn.LeakyReLU, [0.1]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 8], 1, Concat, [1]]
  - [-1, 2, C3, [16, False, 2]]
  - [-1, 1, Contract, [2]]
  - [-1, 1, Expand, [2]]
  - [-1, 1, nn.MaxPool2d, [2]]
  - [19, 1, nn.AvgPool2d, [3, 2, 1]]
  - [[22, 23, 13], 1, Concat, [1]]
  - [-1, 1, Conv, [24, 3, 1]]
  - [[19, 25], 1, Detect, [nc, anchors]]
";

/// The network of a model file, for three classes.
pub(crate) fn custom(text: &str) -> Arc<Architecture> {
    let model = Model {
        architecture: Some(text.to_owned()),
        ..Model::default()
    };
    Architecture::of(&model, Some(3)).expect("a valid model file")
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
