use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use serde_json::json;

use super::SpecProblem;
use super::dataset::stays_inside;

/// Bytes that `model.architecture` may have: a model file has about 1,500.
pub const MAX_ARCHITECTURE: usize = 65_536;
/// Bytes that the path of `model.weights` may have.
const MAX_PATH: usize = 512;
/// Levels of predictions that `model.anchors` may describe.
const MAX_LEVELS: usize = 5;
/// Numbers in one level of `model.anchors`: widths and heights of 16 anchors.
const MAX_SIDES: usize = 32;

/// The network to train: a member of the YOLOv5 family by its `size`, or any other by its
/// `architecture`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = rules())))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Model {
    /// Size of the network: yolov5n (1.9 M parameters), yolov5s (7.2 M), yolov5m (21 M), yolov5l (47 M)
    /// or yolov5x (87 M); with a fourth level for large objects in images of 1280 pixels yolov5n6 (3.2 M),
    /// yolov5s6 (12.6 M), yolov5m6 (36 M), yolov5l6 (77 M) or yolov5x6 (141 M).
    /// Larger networks find more and take longer. The number of classes comes from the data set.
    /// Default: yolov5s, unless there is an `architecture` or there are `weights`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "ModelSize"))]
    pub size: Option<ModelSize>,
    /// The text of a YOLOv5 model file, pasted below `|`, for a network of your own: `depth_multiple`,
    /// `width_multiple`, `anchors`, `backbone` and `head`. The number of classes comes from the data set.
    /// `docs/models.md` lists the modules; `yolo-trainer info` prints what a file means.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = MAX_ARCHITECTURE)))]
    pub architecture: Option<String>,
    /// A file of trained weights to begin with, as a path inside the source of the data set: `.pt` of YOLOv5,
    /// `.torchscript`, or `.safetensors`. What has the same name and shape is taken over (another number of
    /// classes is no hindrance) and the log says what was not. Without `size` and `architecture` the network is
    /// the file's. The file's anchors are taken too, unless `anchors` or `architecture` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(
        length(min = 1, max = MAX_PATH),
        extend("x-kubernetes-validations" = json!([{
            "rule": "!self.startsWith('/') && !self.split('/').exists(part, part == '..')",
            "messageExpression": "\"model.weights is '\" + self + \"': write a path inside the source of the data set, without a leading / and without ..\"",
            "message": "model.weights is '…': write a path inside the source of the data set, without a leading / and without ..",
        }]))
    ))]
    pub weights: Option<String>,
    /// What follows each convolution's normalisation, instead of `SiLU` or of what the architecture says.
    /// `LeakyReLU` has the slope 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Activation"))]
    pub activation: Option<Activation>,
    /// Anchors instead of those of the model, in pixels of the training image: for each level, finest
    /// first, a list of widths and heights in turn, for example `[10, 13, 16, 30, 33, 23]`. All levels have
    /// equally many.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(
        length(min = 1, max = MAX_LEVELS),
        inner(length(max = MAX_SIDES)),
        extend("x-kubernetes-validations" = json!([{
            "rule": "self.all(level, level.size() > 0 && level.size() % 2 == 0 && level.size() == self[0].size() && level.all(side, side > 0.0 && side <= 8192.0))",
            "messageExpression": "'model.anchors is %s: give each level equally many pairs of width and height, above 0 and at most 8192 pixels'.format([self])",
        }]))
    ))]
    pub anchors: Option<Vec<Vec<f64>>>,
}

/// Combinations of the fields of `model`.
#[cfg(feature = "schema")]
fn rules() -> serde_json::Value {
    let large = ModelSize::ALL
        .iter()
        .filter(|size| size.levels() == 4)
        .map(|size| format!("'{}'", size.name()))
        .collect::<Vec<_>>()
        .join(", ");
    let levels = format!("(has(self.size) && self.size in [{large}] ? 4 : 3)");
    json!([
        {
            "rule": "!has(self.size) || !has(self.architecture)",
            "messageExpression": "'model.size is %s, but model.architecture describes a network too: remove one of them'.format([self.size])",
        },
        {
            "rule": format!("!has(self.anchors) || has(self.architecture) || (has(self.weights) && !has(self.size)) || self.anchors.size() == {levels}"),
            "messageExpression": format!(
                "'model.anchors has %s levels, but the model has %s: write one list for each'.format([self.anchors.size(), {levels}])"
            ),
        },
    ])
}

impl Model {
    /// The member of the family to train; `None` if an architecture is given, or the weights decide.
    pub fn family_size(&self) -> Option<ModelSize> {
        match (&self.architecture, &self.weights) {
            (Some(_), _) => None,
            (None, Some(_)) => self.size,
            (None, None) => Some(self.size.unwrap_or_default()),
        }
    }

    /// What people call it.
    pub fn name(&self) -> &'static str {
        self.family_size()
            .map_or("custom architecture", ModelSize::name)
    }

    /// Settings that contradict each other or are out of range.
    pub(super) fn problems(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        let mut tell = |text: String| problems.push(SpecProblem(text));
        if let (Some(size), Some(_)) = (self.size, &self.architecture) {
            tell(format!(
                "model.size is {}, but model.architecture describes a network too: remove one of them",
                size.name()
            ));
        }
        if let Some(text) = &self.architecture
            && !(1..=MAX_ARCHITECTURE).contains(&text.len())
        {
            tell(format!(
                "model.architecture has {} bytes: write a model file of 1 to {MAX_ARCHITECTURE} bytes",
                text.len()
            ));
        }
        if let Some(path) = &self.weights
            && !((1..=MAX_PATH).contains(&path.len()) && stays_inside(path))
        {
            tell(format!(
                "model.weights is '{path}': write a path inside the source of the data set, without a leading / and without .."
            ));
        }
        if let Some(anchors) = &self.anchors {
            if anchors.is_empty() || anchors.len() > MAX_LEVELS || !are_pairs(anchors) {
                tell(format!(
                    "model.anchors is {anchors:?}: give each level equally many pairs of width and height, above 0 and at most 8192 pixels"
                ));
            } else if let Some(size) = self.family_size()
                && anchors.len() != size.levels()
            {
                tell(format!(
                    "model.anchors has {} levels, but the model has {}: write one list for each",
                    anchors.len(),
                    size.levels()
                ));
            }
        }
        problems
    }
}

fn are_pairs(anchors: &[Vec<f64>]) -> bool {
    anchors.iter().all(|level| {
        (1..=MAX_SIDES).contains(&level.len())
            && level.len().is_multiple_of(2)
            && level.len() == anchors[0].len()
            && level.iter().all(|side| *side > 0.0 && *side <= 8192.0)
    })
}

/// What is wrong with an image size for a model whose image sides must be multiples of `multiple`;
/// `because` names that model.
///
/// Images of at least twice the multiple leave batch normalisation more than one pixel to average over.
pub fn image_size_problem(size: u32, multiple: u32, because: &str) -> Option<SpecProblem> {
    let (least, most) = (64.max(2 * multiple), 8192);
    if (least..=most).contains(&size) && size.is_multiple_of(multiple) {
        return None;
    }
    let reason = if because.is_empty() {
        String::new()
    } else {
        format!(" ({because})")
    };
    Some(SpecProblem(format!(
        "training.imageSize is {size}: choose a multiple of {multiple} from {least} to {most}{reason}"
    )))
}

/// A member of the YOLOv5 family. The first five differ in depth and width only; the others are the same
/// with one level more.
///
/// Written out, because YAML reads a bare `n` as "no".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ModelSize {
    /// Nano: depth 0.33, width 0.25.
    #[serde(rename = "yolov5n", alias = "n")]
    N,
    /// Small: depth 0.33, width 0.50.
    #[default]
    #[serde(rename = "yolov5s", alias = "s")]
    S,
    /// Medium: depth 0.67, width 0.75.
    #[serde(rename = "yolov5m", alias = "m")]
    M,
    /// Large: depth 1, width 1.
    #[serde(rename = "yolov5l", alias = "l")]
    L,
    /// Extra large: depth 1.33, width 1.25.
    #[serde(rename = "yolov5x", alias = "x")]
    X,
    /// Nano with strides up to 64.
    #[serde(rename = "yolov5n6", alias = "n6")]
    N6,
    /// Small with strides up to 64.
    #[serde(rename = "yolov5s6", alias = "s6")]
    S6,
    /// Medium with strides up to 64.
    #[serde(rename = "yolov5m6", alias = "m6")]
    M6,
    /// Large with strides up to 64.
    #[serde(rename = "yolov5l6", alias = "l6")]
    L6,
    /// Extra large with strides up to 64.
    #[serde(rename = "yolov5x6", alias = "x6")]
    X6,
}

impl ModelSize {
    /// All sizes, smallest first, those with three levels before those with four.
    pub const ALL: [Self; 10] = [
        Self::N,
        Self::S,
        Self::M,
        Self::L,
        Self::X,
        Self::N6,
        Self::S6,
        Self::M6,
        Self::L6,
        Self::X6,
    ];

    /// `depth_multiple` and `width_multiple` of the YOLOv5 model files.
    pub fn multiples(self) -> (f64, f64) {
        match self {
            Self::N | Self::N6 => (0.33, 0.25),
            Self::S | Self::S6 => (0.33, 0.50),
            Self::M | Self::M6 => (0.67, 0.75),
            Self::L | Self::L6 => (1.0, 1.0),
            Self::X | Self::X6 => (1.33, 1.25),
        }
    }

    /// Levels of predictions.
    pub fn levels(self) -> usize {
        match self {
            Self::N | Self::S | Self::M | Self::L | Self::X => 3,
            Self::N6 | Self::S6 | Self::M6 | Self::L6 | Self::X6 => 4,
        }
    }

    /// Pixels per cell of the coarsest level; image sides are multiples of it.
    pub fn largest_stride(self) -> u32 {
        4 << self.levels()
    }

    /// YOLOv5's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::N => "yolov5n",
            Self::S => "yolov5s",
            Self::M => "yolov5m",
            Self::L => "yolov5l",
            Self::X => "yolov5x",
            Self::N6 => "yolov5n6",
            Self::S6 => "yolov5s6",
            Self::M6 => "yolov5m6",
            Self::L6 => "yolov5l6",
            Self::X6 => "yolov5x6",
        }
    }
}

/// A function of single numbers, by `PyTorch`'s name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Activation {
    /// x · sigmoid(x), YOLOv5's own.
    SiLU,
    /// Negative numbers become 0.
    ReLU,
    /// Also at most 6.
    ReLU6,
    /// Negative numbers become a tenth.
    LeakyReLU,
    /// `SiLU` in straight lines, cheaper on CPUs.
    Hardswish,
    /// x · tanh(softplus(x)).
    Mish,
    /// x times the normal distribution's share below x.
    GELU,
    /// Negative numbers become exp(x) - 1.
    ELU,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_are_written() {
        for size in ModelSize::ALL {
            let written = serde_json::to_value(size).expect("a word");
            assert_eq!(written, size.name());
            let short = size.name().trim_start_matches("yolov5");
            assert_eq!(
                size,
                serde_json::from_value(short.into()).expect("an alias")
            );
        }
    }

    #[test]
    fn without_size_and_architecture_it_is_yolov5s() {
        assert_eq!(Some(ModelSize::S), Model::default().family_size());
        let custom = Model {
            architecture: Some("backbone: []".to_owned()),
            ..Model::default()
        };
        assert_eq!(None, custom.family_size());
    }

    #[test]
    fn weights_decide_where_nothing_else_does() {
        let from = |size| Model {
            weights: Some("yolov5m.pt".to_owned()),
            size,
            ..Model::default()
        };
        assert_eq!(None, from(None).family_size());
        assert_eq!(Some(ModelSize::L), from(Some(ModelSize::L)).family_size());
    }

    #[test]
    fn image_sizes_follow_the_largest_stride() {
        assert_eq!(
            [32, 64],
            [ModelSize::X, ModelSize::N6].map(ModelSize::largest_stride)
        );
        for (size, multiple) in [(64, 32), (8192, 32), (128, 64), (96, 48)] {
            assert_eq!(None, image_size_problem(size, multiple, ""), "{size}");
        }
        for (size, multiple) in [(32, 32), (96, 64), (64, 64), (8224, 32)] {
            let problem = image_size_problem(size, multiple, "so").expect("refused").0;
            assert!(problem.contains(&format!("is {size}: choose a multiple of {multiple} from")));
            assert!(problem.ends_with(" (so)"), "{problem}");
        }
    }
}
