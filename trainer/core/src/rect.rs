//! Rectangular batches: images of similar shape together, with as little border as possible.

/// Which images form which batch, and how large each batch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RectPlan {
    /// The images, by ascending height / width; equal ones in data set order.
    pub order: Vec<u32>,
    /// Width and height in pixels of each image's batch, by image.
    pub sizes: Vec<(u32, u32)>,
}

/// Plans batches of `batch` images with the given widths and heights.
///
/// YOLOv5 v7.0 behaviour: a batch is as large as the images scaled to a long side of `image_size`
/// need, plus `pad` strides (0.5 for validation, 0 for training), rounded up to the stride.
pub fn plan(
    sizes: &[(u32, u32)],
    image_size: u32,
    batch: usize,
    stride: u32,
    pad: f64,
) -> RectPlan {
    let aspect = |index: u32| {
        let (w, h) = sizes[index as usize];
        f64::from(h.max(1)) / f64::from(w.max(1))
    };
    let mut order: Vec<u32> = (0..sizes.len() as u32).collect();
    order.sort_by(|a, b| aspect(*a).total_cmp(&aspect(*b)));
    let mut of_batch = vec![(0, 0); sizes.len()];
    for images in order.chunks(batch.max(1)) {
        let aspects = [images[0], images[images.len() - 1]].map(aspect);
        let size = enclosing(aspects, image_size, stride, pad);
        for image in images {
            of_batch[*image as usize] = size;
        }
    }
    RectPlan {
        order,
        sizes: of_batch,
    }
}

/// The least stride of rectangles in evaluation (YOLOv5 v7.0); networks may have a larger one.
pub const MIN_STRIDE: u32 = 32;
/// Border around images in evaluation, in strides (YOLOv5 v7.0).
pub const EVALUATION_PAD: f64 = 0.5;
/// The same in training.
pub const TRAINING_PAD: f64 = 0.0;

/// Width and height of the rectangle for an image of this width and height that is scaled to a long side of
/// `image_size`: what [`plan`] gives it in a batch of its own.
pub fn rectangle((w, h): (u32, u32), image_size: u32, stride: u32, pad: f64) -> (u32, u32) {
    let aspect = f64::from(h.max(1)) / f64::from(w.max(1));
    enclosing([aspect, aspect], image_size, stride, pad)
}

/// Width and height of a rectangle for images whose height / width lies between these two.
fn enclosing([flattest, tallest]: [f64; 2], image_size: u32, stride: u32, pad: f64) -> (u32, u32) {
    let side = |fraction: f64| {
        let strides = fraction * f64::from(image_size) / f64::from(stride.max(1)) + pad;
        strides.ceil() as u32 * stride.max(1)
    };
    if tallest < 1.0 {
        (side(1.0), side(tallest))
    } else if flattest > 1.0 {
        (side(1.0 / flattest), side(1.0))
    } else {
        (side(1.0), side(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::letterbox::resize_to_long_side;
    use proptest::prelude::*;

    #[test]
    fn wide_tall_and_mixed_batches() {
        let sizes = [
            (480, 640),
            (640, 480),
            (640, 360),
            (640, 640),
            (300, 640),
            (640, 320),
        ];
        let plan = plan(&sizes, 640, 2, 32, 0.5);
        assert_eq!(plan.order, [5, 2, 1, 3, 0, 4]);
        // 360 / 32 + .5 = 11.75 strides; the mixed batch is square; 480 / 32 + .5 = 15.5.
        let batches = [0, 2, 4].map(|first| plan.sizes[plan.order[first] as usize]);
        assert_eq!(batches, [(672, 384), (672, 672), (512, 672)]);
        assert_eq!(plan.sizes[2], batches[0]);
    }

    #[test]
    fn an_image_of_its_own_has_a_border_all_around() {
        assert_eq!(rectangle((640, 480), 640, 32, EVALUATION_PAD), (672, 512));
        assert_eq!(rectangle((160, 160), 160, 32, EVALUATION_PAD), (192, 192));
        assert_eq!(rectangle((500, 1000), 640, 64, 0.0), (320, 640));
    }

    proptest! {
        #[test]
        fn every_image_is_planned_once_and_fits(
            sizes in prop::collection::vec((10_u32..2000, 10_u32..2000), 0..30), batch in 1_usize..8,
        ) {
            let plan = plan(&sizes, 320, batch, 32, 0.0);
            let mut sorted = plan.order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..sizes.len() as u32).collect::<Vec<_>>());
            for images in plan.order.chunks(batch) {
                for image in images {
                    let image = *image as usize;
                    prop_assert_eq!(plan.sizes[image], plan.sizes[images[0] as usize]);
                    let (w, h) = resize_to_long_side(sizes[image].0, sizes[image].1, 320);
                    let (width, height) = plan.sizes[image];
                    // A fraction of a pixel too many from rounding counts as a pixel, as in v5.
                    prop_assert!(w <= width + 1 && h <= height + 1, "{w} x {h} in {width} x {height}");
                }
            }
        }
    }
}
