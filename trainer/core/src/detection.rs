//! The two kinds of box that evaluation compares.

use crate::boxes::Xyxy;
use serde::{Deserialize, Serialize};

/// One detected object.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Where, in pixels.
    pub xyxy: Xyxy,
    /// Objectness times class probability, in 0..=1.
    pub conf: f32,
    /// Class index.
    pub class: u16,
}

/// One object that is really there, in the same pixels as the detections it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelledBox {
    /// Where, in pixels.
    pub xyxy: Xyxy,
    /// Class index.
    pub class: u16,
}
