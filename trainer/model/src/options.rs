//! Which network, and where its numbers lie.

use std::sync::Arc;

use contract::spec::{Model, ModelSize};
use tch::{Device, Kind};

use crate::architecture::Architecture;

/// Where the numbers of kernels and images lie in memory. Values, shapes and exports are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Plane after plane (NCHW).
    ChannelsFirst,
    /// The channels of a pixel next to each other (NHWC).
    ChannelsLast,
}

/// Which network, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkOptions {
    /// Layers, classes and anchors.
    pub architecture: Arc<Architecture>,
    /// Where the tensors live.
    pub device: Device,
    /// Number format of parameters; mixed precision converts on the fly and keeps `f32` here.
    pub kind: Kind,
    /// How kernels and images lie in memory.
    pub layout: Layout,
}

impl NetworkOptions {
    /// A member of the YOLOv5 family with its own anchors.
    pub fn new(size: ModelSize, classes: usize) -> Self {
        let model = Model {
            size: Some(size),
            ..Model::default()
        };
        let architecture = Architecture::of(&model, Some(classes));
        Self::of(architecture.expect("the family's own model files are valid"))
    }

    /// A network for the CPU, in `f32`, channels last: on two cores a training step of n or s (8 images of
    /// 160 pixels) then takes 9 to 15 % less time.
    pub fn of(architecture: Arc<Architecture>) -> Self {
        Self {
            architecture,
            device: Device::Cpu,
            kind: Kind::Float,
            layout: Layout::ChannelsLast,
        }
    }
}
