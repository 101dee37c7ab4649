//! What can go wrong: one variant per operation, libtorch's text beneath.

use tch::TchError;

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter or buffer could not be created.
    #[error("cannot create the tensor {name} of shape {shape:?}")]
    Allocate {
        /// State-dict name.
        name: String,
        /// Its shape.
        shape: Vec<i64>,
        /// What libtorch said.
        #[source]
        source: TchError,
    },
    /// The same from the bridge, which lays tensors out.
    #[error("cannot lay out the tensor {name} with its channels last")]
    Layout {
        /// State-dict name, or what the tensor is.
        name: String,
        /// What went wrong.
        #[source]
        source: torch_bridge::Error,
    },
    /// Images are not what the network takes.
    #[error(
        "images have the shape {shape:?}: the network takes [images, 3, height, width] with height \
         and width multiples of {multiple}"
    )]
    ImageShape {
        /// The shape given.
        shape: Vec<i64>,
        /// What sides must be multiples of.
        multiple: i64,
    },
    /// Pixels could not be made the network's input.
    #[error("cannot convert pixels of shape {shape:?} to the network's input")]
    Input {
        /// The shape given.
        shape: Vec<i64>,
        /// What libtorch said.
        #[source]
        source: TchError,
    },
    /// One layer failed.
    #[error("layer {index} ({module}) failed on images of shape {images:?}")]
    Layer {
        /// Position in the network.
        index: usize,
        /// Name of its module.
        module: String,
        /// Shape of the network's input.
        images: Vec<i64>,
        /// What libtorch said.
        #[source]
        source: TchError,
    },
    /// Predictions could not be turned into boxes.
    #[error("cannot decode the predictions for images of shape {images:?}")]
    Decode {
        /// Shape of the network's input.
        images: Vec<i64>,
        /// What libtorch said.
        #[source]
        source: TchError,
    },
    /// Images could not be scaled, or the predictions for the scaled ones not scaled back.
    #[error("cannot augment images of shape {images:?}")]
    Augment {
        /// Shape of the network's input.
        images: Vec<i64>,
        /// What libtorch said.
        #[source]
        source: TchError,
    },
    /// Convolutions could not be joined with their normalisation.
    #[error("cannot fold the batch normalisation into {name}")]
    Fuse {
        /// Name of the convolution's weight.
        name: String,
        /// What libtorch said.
        #[source]
        source: TchError,
    },
    /// A tensor the network needs was not given.
    #[error("{name} is missing: the state belongs to another kind of network")]
    StateMissing {
        /// State-dict name.
        name: String,
    },
    /// A tensor was given that the network does not have.
    #[error("{name} is not part of this network: the state belongs to another kind of network")]
    StateUnexpected {
        /// State-dict name.
        name: String,
    },
    /// A tensor of another shape was given.
    #[error(
        "{name} has the shape {found:?}, but this network's is {expected:?}: the state belongs to \
         another model size or number of classes"
    )]
    StateShape {
        /// State-dict name.
        name: String,
        /// Shape in this network.
        expected: Vec<i64>,
        /// Shape given.
        found: Vec<i64>,
    },
    /// The state was trained with other anchors than the loss and the decoding would use.
    #[error("{name} differs from this network's anchors: build the network with the same anchors")]
    StateAnchors {
        /// State-dict name.
        name: String,
    },
    /// A tensor could not be copied.
    #[error("cannot copy {name}")]
    Copy {
        /// State-dict name, or what the tensors are.
        name: String,
        /// What libtorch said.
        #[source]
        source: TchError,
    },
    /// A target names an image outside its batch.
    #[error("a target belongs to image {image}, but the batch has {batch} images")]
    TargetImage {
        /// The target's image.
        image: u32,
        /// Images in the batch.
        batch: usize,
    },
    /// A target names a class the network does not have.
    #[error("a target has class {class}, but the network has {classes} classes, counted from 0")]
    TargetClass {
        /// The target's class.
        class: u16,
        /// Classes of the network.
        classes: usize,
    },
    /// Predictions and assignment are not of the same batch.
    #[error(
        "level {level} has predictions of shape {found:?}, but the assignment is for {expected:?}"
    )]
    LevelShape {
        /// The level, from 0 for stride 8.
        level: usize,
        /// Shape that the assignment is for.
        expected: Vec<i64>,
        /// Shape given.
        found: Vec<i64>,
    },
    /// A part of the loss could not be computed.
    #[error("cannot compute the loss ({part})")]
    Loss {
        /// Which part.
        part: &'static str,
        /// What libtorch said.
        #[source]
        source: TchError,
    },
    /// Decoded predictions could not be read.
    #[error(
        "cannot read decoded predictions of shape {shape:?}: expected [images, rows, 5 + classes]"
    )]
    Detections {
        /// The shape given.
        shape: Vec<i64>,
        /// What libtorch said, where it was asked.
        #[source]
        source: Option<TchError>,
    },
    /// The average could not be moved.
    #[error("cannot update the averaged weights")]
    Ema(#[source] torch_bridge::Error),
    /// A parameter has no gradient where one is needed.
    #[error("{name} has no gradient: run a backward pass before the optimiser")]
    NoGradient {
        /// Name of the parameter.
        name: String,
    },
    /// An operation on all gradients or parameters failed.
    #[error("the optimiser failed ({operation})")]
    Optimiser {
        /// Which operation.
        operation: &'static str,
        /// What went wrong.
        #[source]
        source: torch_bridge::Error,
    },
}

/// An error of the bridge as one of tch.
pub(crate) fn bridged<T>(result: Result<T, torch_bridge::Error>) -> Result<T, TchError> {
    result.map_err(|error| {
        TchError::Torch(match error.fault() {
            Some(fault) => format!("{error}: {fault}"),
            None => error.to_string(),
        })
    })
}
