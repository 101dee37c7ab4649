//! The head as nodes: predictions, and detections.
//!
//! From the head's convolutions on the model computes in single precision whatever its weights are: half precision
//! cannot tell pixels apart from 2,048 on, nor classes once they are pixels away from each other.

use trainer_core::nms::CLASS_OFFSET;
use trainer_formats::onnx::{Attribute, Number, Side};
use trainer_model::architecture::{Convolution, Level};

use super::{Emitter, Result};

/// How a model picks detections of its predictions, with ONNX's `NonMaxSuppression`.
///
/// Its output is `detections`, `[found, 7]` in single precision: number of the image, x1, y1, x2, y2 in pixels of
/// the input, confidence, class; image after image, the most confident first. Each box has its best class.
#[derive(Clone, Copy, Debug)]
pub struct Suppression {
    /// Objectness times class probability must exceed this.
    pub confidence: f32,
    /// A box that overlaps a better one by more than this is dropped.
    pub iou: f32,
    /// Most detections of an image.
    pub max_detections: u32,
    /// Whether boxes of all classes compete.
    pub agnostic: bool,
}

impl Emitter<'_> {
    /// Boxes and probabilities: see `trainer_model::network` for the formulas.
    pub(super) fn detect(&mut self, place: &str, inputs: &[String]) -> Result<String> {
        let (anchors, outputs) = (
            self.architecture.anchors_per_level() as i64,
            self.architecture.outputs_per_anchor(),
        );
        let mut levels = Vec::new();
        for (number, (level, x)) in self.architecture.levels().iter().zip(inputs).enumerate() {
            let head = format!("{place}.m.{number}");
            let channels = self.tensor(&format!("{head}.weight"))?.size()[1];
            let convolution = Convolution::new(channels, anchors * outputs, 1, 1);
            let raw = self.conv2d(&head, convolution, true, x)?;
            let raw = self.cast(&raw, Number::Float);
            levels.push(self.decode(level, anchors, outputs, &raw));
        }
        let predictions = self.concat(&levels, 1);
        match self.settings.suppression {
            Some(suppression) => self.suppress(suppression, outputs, &predictions),
            None => self.predict(anchors, outputs, &predictions),
        }
        Ok(predictions)
    }

    fn predict(&mut self, anchors: i64, outputs: i64, predictions: &str) {
        let (input, number) = (self.settings.input, self.settings.number);
        let cells = |level: &Level| (input.side / i64::from(level.stride)).pow(2);
        let rows: i64 = self.architecture.levels().iter().map(cells).sum();
        let sides = vec![
            self.free("batch", input.images),
            self.free("anchors", rows * anchors),
            Side::Fixed(outputs),
        ];
        let to = vec![("to", Attribute::Int(number.code()))];
        self.onnx.named("Cast", &[predictions], "output0", to);
        self.onnx.output("output0", number, sides);
    }

    fn suppress(&mut self, suppression: Suppression, outputs: i64, predictions: &str) {
        let onnx = &mut self.onnx;
        let last = |axis| ("axis", Attribute::Int(axis));
        let along = |axis| ("axes", Attribute::Ints(vec![axis]));
        let sizes = ("split", Attribute::Ints(vec![2, 2, 1, outputs - 5]));
        let parts = onnx.nodes("Split", &[predictions], 4, vec![sizes, last(2)]);
        let half = onnx.floats(&[], &[0.5]);
        let reach = onnx.node("Mul", &[&parts[1], &half], vec![]);
        let low = onnx.node("Sub", &[&parts[0], &reach], vec![]);
        let high = onnx.node("Add", &[&parts[0], &reach], vec![]);
        let boxes = onnx.node("Concat", &[&low, &high], vec![last(2)]);
        let scores = onnx.node("Mul", &[&parts[3], &parts[2]], vec![]);
        let confidences = onnx.node("ReduceMax", &[&scores], vec![along(2)]);
        let classes = onnx.node("ArgMax", &[&scores], vec![last(2)]);
        let float = || vec![("to", Attribute::Int(Number::Float.code()))];
        let classes = onnx.node("Cast", &[&classes], float());
        let rows = onnx.node("Concat", &[&boxes, &confidences, &classes], vec![last(2)]);

        // As our own suppression does: boxes of different classes are moved apart.
        let rivals = if suppression.agnostic {
            boxes
        } else {
            let apart = onnx.floats(&[], &[CLASS_OFFSET]);
            let shift = onnx.node("Mul", &[&classes, &apart], vec![]);
            onnx.node("Add", &[&boxes, &shift], vec![])
        };
        let order = ("perm", Attribute::Ints(vec![0, 2, 1]));
        let confidences = onnx.node("Transpose", &[&confidences], vec![order]);
        let most = onnx.ints(&[suppression.max_detections.into()]);
        let iou = onnx.floats(&[1], &[suppression.iou]);
        let least = onnx.floats(&[1], &[suppression.confidence]);
        let inputs = [&rivals, &confidences, &most, &iou, &least].map(String::as_str);
        let kept = onnx.node("NonMaxSuppression", &inputs, vec![]);

        // Each is the number of the image, of the class (always 0 here) and of the row.
        let places = onnx.ints(&[0, 2]);
        let places = onnx.node("Gather", &[&kept, &places], vec![last(1)]);
        let rows = onnx.node("GatherND", &[&rows, &places], vec![]);
        let first = onnx.ints(&[0]);
        let images = onnx.node("Gather", &[&kept, &first], vec![last(1)]);
        let images = onnx.node("Cast", &[&images], float());
        onnx.named("Concat", &[&images, &rows], "detections", vec![last(1)]);
        let sides = vec![Side::Free("found".to_owned()), Side::Fixed(7)];
        onnx.output("detections", Number::Float, sides);
    }

    fn decode(&mut self, level: &Level, anchors: i64, outputs: i64, raw: &str) -> String {
        let [height, width] = self.cells(level, raw);
        let shape = if let (Some(height), Some(width)) = (&height.length, &width.length) {
            let front = self.onnx.ints(&[0, anchors, outputs]);
            self.concat(&[front, height.clone(), width.clone()], 0)
        } else {
            let side = self.settings.input.side / i64::from(level.stride);
            self.onnx.ints(&[0, anchors, outputs, side, side])
        };
        let onnx = &mut self.onnx;
        let x = onnx.node("Reshape", &[raw, &shape], vec![]);
        let order = ("perm", Attribute::Ints(vec![0, 1, 3, 4, 2]));
        let x = onnx.node("Transpose", &[&x], vec![order]);
        let x = onnx.node("Sigmoid", &[&x], vec![]);
        let parts = ("split", Attribute::Ints(vec![1, 1, 2, outputs - 4]));
        let parts = onnx.nodes("Split", &[&x], 4, vec![parts, ("axis", Attribute::Int(4))]);

        let two = onnx.floats(&[], &[2.0]);
        let stride = onnx.floats(&[], &[level.stride as f32]);
        let mut decoded: Vec<String> = [(&parts[0], &width.cells), (&parts[1], &height.cells)]
            .into_iter()
            .map(|(centre, cells)| {
                let double = onnx.node("Mul", &[centre, &two], vec![]);
                let moved = onnx.node("Add", &[&double, cells], vec![]);
                onnx.node("Mul", &[&moved, &stride], vec![])
            })
            .collect();
        let sizes = onnx.floats(&[1, anchors, 1, 1, 2], level.anchors.as_flattened());
        let double = onnx.node("Mul", &[&parts[2], &two], vec![]);
        let square = onnx.node("Mul", &[&double, &double], vec![]);
        decoded.push(onnx.node("Mul", &[&square, &sizes], vec![]));
        decoded.push(parts[3].clone());
        let joined = self.concat(&decoded, 4);
        let rows = self.onnx.ints(&[0, -1, outputs]);
        self.onnx.node("Reshape", &[&joined, &rows], vec![])
    }

    /// The numbers of the rows and of the columns of cells, each minus a half, ready to be added to
    /// `[images, anchors, height, width, 1]`.
    fn cells(&mut self, level: &Level, raw: &str) -> [Axis; 2] {
        let side = self.settings.input.side / i64::from(level.stride);
        // Which side of `raw`, and where the numbers lie in the result.
        [(2, [1, 1, -1, 1, 1]), (3, [1, 1, 1, -1, 1])].map(|(axis, place)| {
            if !self.settings.input.dynamic {
                let shape = place.map(|length| if length < 0 { side } else { length });
                let numbers: Vec<f32> = (0..side).map(|cell| cell as f32 - 0.5).collect();
                let cells = self.onnx.floats(&shape, &numbers);
                return Axis {
                    cells,
                    length: None,
                };
            }
            let onnx = &mut self.onnx;
            let sides = onnx.node("Shape", &[raw], vec![]);
            let index = onnx.ints(&[axis]);
            let length = onnx.node("Gather", &[&sides, &index], vec![]);
            let scalar = onnx.node(
                "Squeeze",
                &[&length],
                vec![("axes", Attribute::Ints(vec![0]))],
            );
            let (zero, one) = (onnx.int(0), onnx.int(1));
            let numbers = onnx.node("Range", &[&zero, &scalar, &one], vec![]);
            let numbers = onnx.node("Cast", &[&numbers], vec![("to", Attribute::Int(1))]);
            let half = onnx.floats(&[], &[0.5]);
            let numbers = onnx.node("Sub", &[&numbers, &half], vec![]);
            let place = onnx.ints(&place);
            let cells = onnx.node("Reshape", &[&numbers, &place], vec![]);
            Axis {
                cells,
                length: Some(length),
            }
        })
    }
}

/// The cells along one side of a level.
struct Axis {
    /// Their numbers minus a half.
    cells: String,
    /// How many, where the model itself must find out.
    length: Option<String>,
}
