//! Fitting an image into a given size without distortion: geometry only.

use crate::boxes::Xyxy;

/// What the image is fitted into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterboxOptions {
    /// Width and height to fit into, in pixels.
    pub target: (u32, u32),
    /// Whether smaller images are enlarged.
    pub enlarge: Enlarge,
    /// How much border is added.
    pub border: Border,
}

/// Whether smaller images are enlarged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enlarge {
    /// Yes, until one side fits.
    Yes,
    /// No, they get more border (v5 without augmentation).
    No,
}

/// How much border is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    /// Up to the whole target.
    Full,
    /// Up to the next multiple of this many pixels (v5's `auto`, with the model's stride 32).
    ///
    /// Strictly: the full border modulo this number, so a target that is no multiple of it is not
    /// made one.
    Multiple(u32),
}

/// Where the image goes. Fill the border with 114 (v5's grey).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Letterbox {
    /// Width and height of the original image.
    pub original: (u32, u32),
    /// Resized pixels per original pixel, across and down.
    pub ratio: (f64, f64),
    /// Width and height of the resized image.
    pub resized: (u32, u32),
    /// Width and height of the result.
    pub output: (u32, u32),
    /// Left and top border of the result in whole pixels.
    pub offset: (u32, u32),
    /// Half of the horizontal and of the vertical border. v5 moves boxes by these numbers, also when
    /// they end in .5 while the pixels move by `offset`; so does this project.
    pub pad: (f64, f64),
}

impl Letterbox {
    /// Fits an image of `width` by `height` pixels (both at least 1). YOLOv5 v7.0 behaviour.
    pub fn new(width: u32, height: u32, options: LetterboxOptions) -> Self {
        let original = (width.max(1), height.max(1));
        let (target_w, target_h) = options.target;
        let fit = (f64::from(target_w) / f64::from(original.0))
            .min(f64::from(target_h) / f64::from(original.1));
        let ratio = match options.enlarge {
            Enlarge::Yes => fit,
            Enlarge::No => fit.min(1.0),
        };
        let side = |pixels: u32| ((f64::from(pixels) * ratio).round_ties_even() as u32).max(1);
        let resized = (side(original.0), side(original.1));
        let border = |target: u32, resized: u32| {
            let full = target.saturating_sub(resized);
            match options.border {
                Border::Full => full,
                Border::Multiple(multiple) => full.checked_rem(multiple).unwrap_or(full),
            }
        };
        let (x, y) = (border(target_w, resized.0), border(target_h, resized.1));
        Self {
            original,
            ratio: (ratio, ratio),
            resized,
            output: (resized.0 + x, resized.1 + y),
            // Of an odd border, the larger part goes right and below.
            offset: (x / 2, y / 2),
            pad: (f64::from(x) / 2.0, f64::from(y) / 2.0),
        }
    }

    /// The middle of `output` for an image that [`resize_to_long_side`] brings to a long side of `side`, which
    /// must fit. YOLOv5 v7.0 behaviour in rectangles.
    pub fn of_long_side((width, height): (u32, u32), side: u32, output: (u32, u32)) -> Self {
        let original = (width.max(1), height.max(1));
        let resized = resize_to_long_side(original.0, original.1, side);
        let (x, y) = (
            output.0.saturating_sub(resized.0),
            output.1.saturating_sub(resized.1),
        );
        Self {
            original,
            // v5 maps both axes back by one ratio, and its labels with them: the overlap of the two is the same.
            ratio: (
                f64::from(resized.0) / f64::from(original.0),
                f64::from(resized.1) / f64::from(original.1),
            ),
            resized,
            output,
            offset: (x / 2, y / 2),
            pad: (f64::from(x) / 2.0, f64::from(y) / 2.0),
        }
    }

    /// A box of the original image in the result.
    pub fn from_original(&self, original: Xyxy) -> Xyxy {
        original
            .scale(self.ratio.0 as f32, self.ratio.1 as f32)
            .translate(self.pad.0 as f32, self.pad.1 as f32)
    }

    /// A box of the result in the original image, clipped to it.
    pub fn to_original(&self, output: Xyxy) -> Xyxy {
        output
            .translate(-self.pad.0 as f32, -self.pad.1 as f32)
            .scale((1.0 / self.ratio.0) as f32, (1.0 / self.ratio.1) as f32)
            .clip(self.original.0 as f32, self.original.1 as f32)
    }
}

/// The size of an image resized so that its longer side has `side` pixels; fractions count as
/// whole pixels, as in YOLOv5 since v7.0.1 (v7.0 cut them off). Mosaics use this instead of a letterbox.
pub fn resize_to_long_side(width: u32, height: u32, side: u32) -> (u32, u32) {
    let (width, height) = (width.max(1), height.max(1));
    if width.max(height) == side {
        return (width, height);
    }
    let ratio = f64::from(side) / f64::from(width.max(height));
    let scaled = |pixels: u32| ((f64::from(pixels) * ratio).ceil() as u32).max(1);
    (scaled(width), scaled(height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn square(enlarge: Enlarge, border: Border) -> LetterboxOptions {
        LetterboxOptions {
            target: (640, 640),
            enlarge,
            border,
        }
    }

    #[test]
    fn golden_letterboxes() {
        let full = square(Enlarge::Yes, Border::Full);
        let auto = square(Enlarge::Yes, Border::Multiple(32));
        let keep = square(Enlarge::No, Border::Full);
        // (height, width), options, output (height, width), ratio, pad
        let cases = [
            ((480, 640), full, (640, 640), 1.0, (0.0, 80.0)),
            ((480, 640), auto, (480, 640), 1.0, (0.0, 0.0)),
            ((1080, 1920), full, (640, 640), 1.0 / 3.0, (0.0, 140.0)),
            ((1080, 1920), auto, (384, 640), 1.0 / 3.0, (0.0, 12.0)),
            ((100, 37), full, (640, 640), 6.4, (201.5, 0.0)),
            ((100, 37), keep, (640, 640), 1.0, (301.5, 270.0)),
        ];
        for ((h, w), options, output, ratio, pad) in cases {
            let got = Letterbox::new(w, h, options);
            assert_eq!((got.output.1, got.output.0), output, "{got:?}");
            assert_eq!(got.pad, pad, "{got:?}");
            assert!((got.ratio.0 - ratio).abs() < 1e-12, "{got:?}");
        }
        assert_eq!(Letterbox::new(37, 100, full).offset, (201, 0));
    }

    #[test]
    fn long_side_sizes() {
        assert_eq!(resize_to_long_side(1920, 1080, 640), (640, 360));
        assert_eq!(resize_to_long_side(500, 333, 640), (640, 427));
        assert_eq!(resize_to_long_side(640, 7, 640), (640, 7));
        assert_eq!(resize_to_long_side(1, 10_000, 640), (1, 640));
    }

    proptest! {
        #[test]
        fn everything_fits_and_boxes_return(
            w in 10_u32..3000, h in 10_u32..3000, tw in 1_u32..40, th in 1_u32..40,
            part in (0f32..1., 0f32..1., 0f32..1., 0f32..1.), no_enlarging: bool, auto: bool,
        ) {
            let options = LetterboxOptions {
                target: (tw * 32, th * 32),
                enlarge: if no_enlarging { Enlarge::No } else { Enlarge::Yes },
                border: if auto { Border::Multiple(32) } else { Border::Full },
            };
            let l = Letterbox::new(w, h, options);
            prop_assert!(l.output.0 <= tw * 32 && l.output.1 <= th * 32);
            prop_assert!(l.output.0.is_multiple_of(32) && l.output.1.is_multiple_of(32));
            prop_assert!(l.offset.0 + l.resized.0 <= l.output.0);
            prop_assert!(auto || l.output == options.target);
            let b = Xyxy::new(part.0 * w as f32, part.1 * h as f32, part.2 * w as f32, part.3 * h as f32);
            let back = l.to_original(l.from_original(b));
            let tolerance = 1e-3 / l.ratio.0.min(1.0) as f32;
            for (p, q) in [(b.x1, back.x1), (b.y1, back.y1), (b.x2, back.x2), (b.y2, back.y2)] {
                prop_assert!((p - q).abs() <= tolerance, "{b:?} {back:?}");
            }
        }
    }
}
