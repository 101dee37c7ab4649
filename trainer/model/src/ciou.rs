//! The overlap that the box loss learns.

use std::f64::consts::PI;

use tch::{TchError, Tensor};

/// Added to denominators that can be 0.
const EPS: f64 = 1e-7;

/// Complete `IoU` of the boxes `a` and `b`, row by row: `[n, 4]` each as centre, width, height; `[n]`.
///
/// YOLOv5 v7.0: `IoU - ρ²/c² - αv` with ρ the distance of the centres, c the diagonal of the box
/// around both, `v = 4/π² (atan(wb/hb) - atan(wa/ha))²` and `α = v / (v - IoU + 1 + ε)`, through
/// which no gradient flows. ε is added to the union and to c² and nowhere else.
pub(crate) fn ciou(a: &Tensor, b: &Tensor) -> Result<Tensor, TchError> {
    let a = Columns::new(a)?;
    let b = Columns::new(b)?;

    let overlap = |axis: usize| -> Result<Tensor, TchError> {
        let right = a.high[axis].f_minimum(&b.high[axis])?;
        right
            .f_sub(&a.low[axis].f_maximum(&b.low[axis])?)?
            .f_clamp_min(0.0)
    };
    let enclosing = |axis: usize| -> Result<Tensor, TchError> {
        let right = a.high[axis].f_maximum(&b.high[axis])?;
        right
            .f_sub(&a.low[axis].f_minimum(&b.low[axis])?)?
            .f_square()
    };
    let distance = |axis: usize| b.centre[axis].f_sub(&a.centre[axis])?.f_square();

    let inter = overlap(0)?.f_mul(&overlap(1)?)?;
    let union = a
        .area()?
        .f_add(&b.area()?)?
        .f_sub(&inter)?
        .f_add_scalar(EPS)?;
    let iou = inter.f_div(&union)?;
    let diagonal = enclosing(0)?.f_add(&enclosing(1)?)?.f_add_scalar(EPS)?;
    let centres = distance(0)?.f_add(&distance(1)?)?;
    let v = b
        .slant()?
        .f_sub(&a.slant()?)?
        .f_square()?
        .f_mul_scalar(4.0 / (PI * PI))?;
    let alpha = {
        let (v, iou) = (v.f_detach()?, iou.f_detach()?);
        let denominator = v.f_sub(&iou)?.f_add_scalar(1.0 + EPS)?;
        v.f_div(&denominator)?
    };
    iou.f_sub(&centres.f_div(&diagonal)?)?
        .f_sub(&v.f_mul(&alpha)?)
}

/// Boxes taken apart; pairs are horizontal, vertical.
struct Columns {
    centre: [Tensor; 2],
    size: [Tensor; 2],
    low: [Tensor; 2],
    high: [Tensor; 2],
}

impl Columns {
    fn new(boxes: &Tensor) -> Result<Self, TchError> {
        let column = |index| boxes.f_select(1, index);
        let centre = [column(0)?, column(1)?];
        let size = [column(2)?, column(3)?];
        let edge = |axis: usize, half: f64| centre[axis].f_add(&size[axis].f_mul_scalar(half)?);
        let low = [edge(0, -0.5)?, edge(1, -0.5)?];
        let high = [edge(0, 0.5)?, edge(1, 0.5)?];
        Ok(Self {
            centre,
            size,
            low,
            high,
        })
    }

    fn area(&self) -> Result<Tensor, TchError> {
        self.size[0].f_mul(&self.size[1])
    }

    /// The angle of the diagonal; 0 of a box without any size, as sides that are too small for their kind become 0.
    fn slant(&self) -> Result<Tensor, TchError> {
        let [width, height] = &self.size;
        let is_0 = |sides: &Tensor| sides.f_eq(0.0)?.f_to_kind(height.kind());
        // 0/0 is no number, and the angle of an infinite ratio has a gradient that is none. All other heights stay what
        // they are, to the bit.
        let is_empty = is_0(&width.f_add(height)?)?;
        let instead = is_0(height)?.f_mul_scalar(EPS)?.f_add(&is_empty)?;
        width.f_div(&height.f_add(&instead)?)?.f_atan()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    const A: [f64; 12] = [0.5, 0.5, 0.4, 0.3, 10.0, 10.0, 5.0, 8.0, 3.0, 3.0, 1.0, 1.0];
    const B: [f64; 12] = [
        0.55, 0.45, 0.5, 0.25, 12.0, 9.0, 6.0, 6.0, 9.0, 9.0, 2.0, 4.0,
    ];

    fn boxes(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([-1, 4])
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double)).expect("one dimension")
    }

    #[test]
    fn golden_overlaps() {
        for kind in [Kind::Double, Kind::Float] {
            let got = ciou(&boxes(&A).to_kind(kind), &boxes(&B).to_kind(kind)).expect("same shape");
            for (got, want) in
                values(&got)
                    .into_iter()
                    .zip([0.566_187_4, 0.339_558_1, -0.562_000_7])
            {
                assert!((got - want).abs() < 1e-6, "{kind:?}: {got} is not {want}");
            }
        }
    }

    /// α and v by their definitions.
    fn shape_terms(a: &Tensor, b: &Tensor) -> [Tensor; 2] {
        let column = |t: &Tensor, index| t.select(1, index);
        let slant = |t: &Tensor| (column(t, 2) / column(t, 3)).atan();
        let v = (slant(b) - slant(a)).square() * (4.0 / (PI * PI));
        let overlap = |axis| {
            let high = |t: &Tensor| column(t, axis) + column(t, axis + 2) / 2.0;
            let low = |t: &Tensor| column(t, axis) - column(t, axis + 2) / 2.0;
            (high(a).minimum(&high(b)) - low(a).maximum(&low(b))).clamp_min(0.0)
        };
        let inter = overlap(0) * overlap(1);
        let area = |t: &Tensor| column(t, 2) * column(t, 3);
        let iou = &inter / (area(a) + area(b) - &inter + EPS);
        [&v / (&v - iou + 1.0 + EPS), v]
    }

    #[test]
    fn gradients_are_those_of_differences() {
        // No two edges coincide here: there the overlap has no derivative.
        let start = [
            0.49, 0.52, 0.4, 0.3, 10.1, 9.8, 5.0, 8.0, 3.0, 3.0, 1.0, 1.0,
        ];
        let b = boxes(&B);
        let a = boxes(&start).set_requires_grad(true);
        ciou(&a, &b)
            .expect("same shape")
            .sum(Kind::Double)
            .backward();
        let gradient = values(&a.grad().view([-1]));

        // α is a constant for the gradient, so it must be one for the differences too.
        let [fixed, _] = shape_terms(&boxes(&start), &b);
        let value = |moved: &[f64]| -> f64 {
            let a = boxes(moved);
            let [alpha, v] = shape_terms(&a, &b);
            let with_fixed = ciou(&a, &b).expect("same shape") + v * (alpha - &fixed);
            with_fixed.sum(Kind::Double).double_value(&[])
        };
        for (index, gradient) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut boxes = start;
                boxes[index] += by;
                value(&boxes)
            };
            let difference = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            let error = (difference - gradient).abs();
            assert!(
                error < 1e-7,
                "element {index}: {difference} is not {gradient}"
            );
        }
        assert!(gradient.iter().all(|gradient| gradient.abs() > 1e-4));
    }

    #[test]
    fn boxes_without_size_have_an_overlap_and_gradients() {
        let flat = [
            0.5, 0.5, 0.0, 0.0, 10.0, 10.0, 0.0, 8.0, 10.0, 10.0, 8.0, 0.0,
        ];
        for kind in [Kind::Double, Kind::Float] {
            let a = boxes(&flat).to_kind(kind).set_requires_grad(true);
            for b in [&A[..], &flat] {
                let got = ciou(&a, &boxes(b).to_kind(kind)).expect("same shape");
                assert!(values(&got).iter().all(|v| v.is_finite()), "{got:?}");
                got.sum(kind).backward();
            }
            assert!(values(&a.grad().view([-1])).iter().all(|g| g.is_finite()));
            let slants = Columns::new(&a).and_then(|columns| columns.slant());
            let slants = values(&slants.expect("boxes"));
            assert!(
                slants
                    .iter()
                    .zip([0.0, 0.0, PI / 2.0])
                    .all(|(a, b)| (a - b).abs() < 1e-6),
                "{slants:?}"
            );
        }
    }

    #[test]
    fn equal_boxes_overlap_wholly_without_gradient_noise() {
        let a = boxes(&A).set_requires_grad(true);
        let got = ciou(&a, &boxes(&A)).expect("same shape");
        assert!(values(&got).iter().all(|v| (v - 1.0).abs() < 1e-6));
        got.sum(Kind::Double).backward();
        assert!(values(&a.grad().view([-1])).iter().all(|g| g.is_finite()));
    }
}
