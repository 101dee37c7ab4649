//! Axis-aligned boxes and the overlap measures of the loss and of the metrics.
//!
//! Coordinates are `f32` in any one unit (pixels, grid cells or fractions of the image); both boxes
//! of a measure must use the same unit. Formulas: YOLOv5 v7.0 behaviour, where [`EPS`] is added to
//! the union and to the squared diagonal (or the area) of the enclosing box, and nowhere else.

use serde::{Deserialize, Serialize};

/// Added to denominators that can be zero.
pub const EPS: f32 = 1e-7;

/// A box by its top left and bottom right corners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Xyxy {
    /// Left edge.
    pub x1: f32,
    /// Top edge.
    pub y1: f32,
    /// Right edge.
    pub x2: f32,
    /// Bottom edge.
    pub y2: f32,
}

/// A box by its centre and size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Xywh {
    /// Horizontal centre.
    pub x: f32,
    /// Vertical centre.
    pub y: f32,
    /// Width.
    pub w: f32,
    /// Height.
    pub h: f32,
}

impl Xyxy {
    /// The box with these corners; nothing is reordered.
    pub const fn new(x1: f32, y1: f32, x2: f32, y2: f32) -> Self {
        Self { x1, y1, x2, y2 }
    }

    /// The same box by centre and size.
    pub fn to_xywh(self) -> Xywh {
        Xywh {
            x: f32::midpoint(self.x1, self.x2),
            y: f32::midpoint(self.y1, self.y2),
            w: self.width(),
            h: self.height(),
        }
    }

    /// Width; negative if the corners are swapped.
    pub fn width(self) -> f32 {
        self.x2 - self.x1
    }

    /// Height; negative if the corners are swapped.
    pub fn height(self) -> f32 {
        self.y2 - self.y1
    }

    /// Width times height.
    pub fn area(self) -> f32 {
        self.width() * self.height()
    }

    /// Area of the part that both boxes cover, 0 if they do not touch.
    pub fn intersection(self, other: Self) -> f32 {
        let w = (self.x2.min(other.x2) - self.x1.max(other.x1)).max(0.0);
        let h = (self.y2.min(other.y2) - self.y1.max(other.y1)).max(0.0);
        w * h
    }

    /// Intersection over union as the metrics use it (YOLOv5 v7.0 behaviour: [`EPS`] in the
    /// denominator).
    pub fn iou(self, other: Self) -> f32 {
        let inter = self.intersection(other);
        inter / (self.area() + other.area() - inter + EPS)
    }

    /// The part of the box inside an image of `width` by `height`.
    ///
    /// A box wholly outside becomes one of zero width or height on the edge.
    #[must_use]
    pub fn clip(self, width: f32, height: f32) -> Self {
        Self {
            x1: self.x1.clamp(0.0, width),
            y1: self.y1.clamp(0.0, height),
            x2: self.x2.clamp(0.0, width),
            y2: self.y2.clamp(0.0, height),
        }
    }

    /// The box with horizontal coordinates multiplied by `sx` and vertical ones by `sy`.
    #[must_use]
    pub fn scale(self, sx: f32, sy: f32) -> Self {
        Self::new(self.x1 * sx, self.y1 * sy, self.x2 * sx, self.y2 * sy)
    }

    /// The box moved by (`dx`, `dy`).
    #[must_use]
    pub fn translate(self, dx: f32, dy: f32) -> Self {
        Self::new(self.x1 + dx, self.y1 + dy, self.x2 + dx, self.y2 + dy)
    }
}

impl Xywh {
    /// The box with this centre and size.
    pub const fn new(x: f32, y: f32, w: f32, h: f32) -> Self {
        Self { x, y, w, h }
    }

    /// The same box by its corners.
    pub fn to_xyxy(self) -> Xyxy {
        let (half_w, half_h) = (self.w / 2.0, self.h / 2.0);
        Xyxy::new(
            self.x - half_w,
            self.y - half_h,
            self.x + half_w,
            self.y + half_h,
        )
    }

    /// The box with horizontal values multiplied by `sx` and vertical ones by `sy`.
    #[must_use]
    pub fn scale(self, sx: f32, sy: f32) -> Self {
        Self::new(self.x * sx, self.y * sy, self.w * sx, self.h * sy)
    }

    /// Intersection over union, in 0..=1.
    pub fn iou(self, other: Self) -> f32 {
        Overlap::of(self, other).iou
    }

    /// Generalised `IoU`: `IoU` - (enclosing area - union) / enclosing area, in -1..=1.
    pub fn giou(self, other: Self) -> f32 {
        let o = Overlap::of(self, other);
        let enclosing = o.enclosing_w * o.enclosing_h + EPS;
        o.iou - (enclosing - o.union) / enclosing
    }

    /// Distance `IoU`: `IoU` - squared centre distance / squared diagonal of the enclosing box.
    pub fn diou(self, other: Self) -> f32 {
        let o = Overlap::of(self, other);
        o.iou - o.centre_term(self, other)
    }

    /// Complete `IoU`: distance `IoU` less `v * alpha`, where `v = 4/pi^2 (atan(w2/h2) - atan(w1/h1))^2`
    /// and `alpha = v / (v - iou + 1 + EPS)`. This is the box measure of the YOLOv5 v7.0 loss.
    pub fn ciou(self, other: Self) -> f32 {
        let o = Overlap::of(self, other);
        let angle = (other.w / other.h).atan() - (self.w / self.h).atan();
        let v = 4.0 / std::f32::consts::PI.powi(2) * angle.powi(2);
        let alpha = v / (v - o.iou + 1.0 + EPS);
        o.iou - (o.centre_term(self, other) + v * alpha)
    }
}

/// What the four measures share.
struct Overlap {
    iou: f32,
    union: f32,
    enclosing_w: f32,
    enclosing_h: f32,
}

impl Overlap {
    fn of(a: Xywh, b: Xywh) -> Self {
        let (p, q) = (a.to_xyxy(), b.to_xyxy());
        let inter = p.intersection(q);
        let union = a.w * a.h + b.w * b.h - inter + EPS;
        Self {
            iou: inter / union,
            union,
            enclosing_w: p.x2.max(q.x2) - p.x1.min(q.x1),
            enclosing_h: p.y2.max(q.y2) - p.y1.min(q.y1),
        }
    }

    fn centre_term(&self, a: Xywh, b: Xywh) -> f32 {
        let diagonal = self.enclosing_w.powi(2) + self.enclosing_h.powi(2) + EPS;
        ((b.x - a.x).powi(2) + (b.y - a.y).powi(2)) / diagonal
    }
}

#[cfg(test)]
#[path = "boxes_tests.rs"]
mod tests;
