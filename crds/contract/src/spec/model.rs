use serde::{Deserialize, Serialize};

/// The network to train.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Model {
    /// Size of the network: yolov5n (1.9 M parameters), yolov5s (7.2 M), yolov5m (21 M), yolov5l (47 M)
    /// or yolov5x (87 M).
    /// Larger networks find more and take longer. The number of classes comes from the data set.
    pub size: ModelSize,
}

/// A member of the YOLOv5 family; they differ in depth and width only.
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
}

impl ModelSize {
    /// All sizes, smallest first.
    pub const ALL: [Self; 5] = [Self::N, Self::S, Self::M, Self::L, Self::X];

    /// `depth_multiple` and `width_multiple` of the YOLOv5 model files.
    pub fn multiples(self) -> (f64, f64) {
        match self {
            Self::N => (0.33, 0.25),
            Self::S => (0.33, 0.50),
            Self::M => (0.67, 0.75),
            Self::L => (1.0, 1.0),
            Self::X => (1.33, 1.25),
        }
    }

    /// The letter that YOLOv5's names end in.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::N => "n",
            Self::S => "s",
            Self::M => "m",
            Self::L => "l",
            Self::X => "x",
        }
    }
}
