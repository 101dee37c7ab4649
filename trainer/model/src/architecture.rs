//! Networks as data: layers, and the tensors that belong to them. No tensor exists here.
//!
//! ```text
//!  text ── document ──> rows ── modules, arguments ──> modules ── plan ──> Architecture
//!            keys              names, numbers                    inputs, sizes, strides
//! ```
//!
//! The members of the YOLOv5 family are texts too: see [`builtin`] and `src/models`.

pub mod activation;
mod arguments;
pub mod builtin;
mod document;
mod error;
mod module;
mod modules;
mod parts;
mod plan;
mod shape;
mod slot;

use std::sync::Arc;

use contract::spec::{Model, ModelSize};

use crate::blocks::Block;
use crate::blocks::scope::Recorder;
use document::Document;
use plan::Request;

pub use activation::Activation;
pub(crate) use document::MAX_LEVELS;
pub use error::{ArchitectureError, Place};
pub use module::{
    Bottleneck, Convolution, Cross, Csp, Ghost, GhostBottleneck, Inner, Interpolation, Module,
    Pyramid, Window,
};
pub use parts::{Branch, CHAIN, GhostStride, HEADS, NORM_EPS, NORM_MOMENTUM, Pair};
pub use shape::{Shape, Work};
pub use slot::{Form, Initial, Role, Slot};

/// Classes where neither a data set nor a file says how many: those of COCO.
const USUAL_CLASSES: usize = 80;

/// Numbers predicted for each anchor.
pub fn outputs_per_anchor(classes: usize) -> i64 {
    5 + classes as i64
}

/// A network in which everything fits together.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    name: &'static str,
    classes: usize,
    layers: Vec<Layer>,
    levels: Vec<Level>,
    multiple: u32,
}

/// One layer and where its inputs come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Indices of the layers whose outputs it takes; `None` is the images.
    pub from: Vec<Option<usize>>,
    /// The same as written in the file.
    pub written_from: String,
    /// Its module as written in the file.
    pub name: String,
    /// How often, by the file and the depth multiple.
    pub number: usize,
    /// The arguments as YOLOv5 shows them: channels in and out first.
    pub arguments: String,
    /// What it does.
    pub module: Module,
    /// How often in a row it does that; where repeats are inside the module, once.
    pub repeats: usize,
    /// For Detect, the anchors of each input as written.
    anchors: Vec<Vec<[f32; 2]>>,
    /// Whether those only stand for others, which the data set gives.
    wants_anchors: bool,
}

/// One level of predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// Pixels per cell.
    pub stride: u32,
    /// Width and height of its anchors in pixels.
    pub anchors: Vec<[f32; 2]>,
}

/// What a layer gives for one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    /// Its output; of Detect, one for each level.
    pub outputs: Vec<Shape>,
    /// What it takes.
    pub work: Work,
}

impl Architecture {
    /// The network that a job describes, for `classes` classes; without a data set for as many as its file says.
    pub fn of(model: &Model, classes: Option<usize>) -> Result<Arc<Self>, ArchitectureError> {
        let document = match (&model.architecture, model.family_size()) {
            (Some(text), _) => Document::parse(text)?,
            (None, size) => Document::parse(&builtin::document(size.unwrap_or_default()))?,
        };
        let anchors = model.anchors.as_ref().map(|anchors| {
            let written = serde_json::to_value(anchors).unwrap_or_default();
            document::sizes("model.anchors", &written)
        });
        let request = Request {
            name: model.name(),
            classes: classes.or(document.classes).unwrap_or(USUAL_CLASSES),
            activation: model.activation.map(Activation::from),
            anchors: anchors.transpose()?,
        };
        plan::plan(&document, request).map(Arc::new)
    }

    /// The member of the family that the text of a model file describes, whatever its number of classes.
    pub fn family_of(text: &str) -> Option<ModelSize> {
        let mut document = Document::parse(text).ok()?;
        ModelSize::ALL.into_iter().find(|size| {
            let known = Document::parse(&builtin::document(*size));
            known.is_ok_and(|known| {
                document.classes = known.classes;
                document == known
            })
        })
    }

    /// What a user should know of a file of theirs although it is used.
    pub fn note(model: &Model, classes: usize) -> Option<String> {
        let document = Document::parse(model.architecture.as_ref()?).ok()?;
        let written = document.classes.filter(|written| *written != classes)?;
        Some(format!(
            "model.architecture says nc: {written}, but the data set has {classes} classes; the network gets {classes}"
        ))
    }

    /// What people call it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The layers; the last is Detect.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The levels of predictions, in Detect's order.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Anchors of each level.
    pub fn anchors_per_level(&self) -> usize {
        self.levels[0].anchors.len()
    }

    /// Whether its file gives only the number of anchors (`anchors: 3`), and the data set has to give their sizes
    /// before the first step.
    pub fn wants_anchors(&self) -> bool {
        self.layers.iter().any(|layer| layer.wants_anchors)
    }

    /// Numbers predicted for each anchor.
    pub fn outputs_per_anchor(&self) -> i64 {
        outputs_per_anchor(self.classes)
    }

    /// What sides of images must be multiples of: the largest stride of any layer.
    pub fn multiple(&self) -> u32 {
        self.multiple
    }

    /// The anchors of all levels in pixels.
    pub fn anchors(&self) -> Vec<[f32; 2]> {
        let levels = self.levels.iter();
        levels
            .flat_map(|level| level.anchors.iter().copied())
            .collect()
    }

    /// The anchors as the state holds them: divided by the stride of their level, row by row.
    pub fn anchors_in_cells(&self) -> Vec<f32> {
        let levels = self.levels.iter();
        levels
            .flat_map(|level| {
                let sides = level.anchors.as_flattened().iter();
                sides.map(|pixels| pixels / level.stride as f32)
            })
            .collect()
    }

    /// The tensors, in YOLOv5's order.
    pub fn slots(&self, form: Form) -> Vec<Slot> {
        let all = 0..self.layers.len();
        all.flat_map(|index| self.slots_of(index, form)).collect()
    }

    /// The tensors of one layer.
    pub fn slots_of(&self, index: usize, form: Form) -> Vec<Slot> {
        self.planned(index, form).1
    }

    /// What becomes of an image of `height` by `width` pixels, layer by layer.
    pub fn trace(&self, height: i64, width: i64) -> Result<Vec<Traced>, ArchitectureError> {
        let image = [Shape::image(height, width)];
        let mut traced: Vec<Traced> = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let sources = layer.from.iter();
            let inputs: Vec<Shape> = sources
                .flat_map(|from| from.map_or(&image[..], |from| &traced[from].outputs))
                .copied()
                .collect();
            let mut work = Work::default();
            let blocks = self.planned(index, Form::Fused).0;
            let outputs = plan::chain(&blocks, &inputs, &mut work).map_err(|problem| {
                ArchitectureError::Key {
                    key: "the architecture",
                    problem: format!(
                        "does not fit images of {height}x{width} pixels: layer {index} ({}): {problem}",
                        layer.name
                    ),
                }
            })?;
            traced.push(Traced { outputs, work });
        }
        Ok(traced)
    }

    /// The blocks of one layer without tensors, and their slots.
    fn planned(&self, index: usize, form: Form) -> (Vec<Block<()>>, Vec<Slot>) {
        let layer = &self.layers[index];
        let slots = Vec::new();
        let mut recorder = Recorder { form, slots };
        let blocks = Block::of_layer(&mut recorder, index, &layer.module, layer.repeats);
        (blocks.expect("a recorder refuses no slot"), recorder.slots)
    }
}

#[cfg(test)]
#[path = "architecture_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "architecture/mistakes_tests.rs"]
mod mistakes_tests;

#[cfg(test)]
#[path = "architecture/property_tests.rs"]
mod property_tests;
