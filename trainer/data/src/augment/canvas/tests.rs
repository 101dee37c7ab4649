use super::*;
use crate::dataset::Split;
use crate::store::Sizing;
use crate::testing::{TestSet, noise};

/// What a canvas cuts off is a line at its edge. Turned, a line would have a box with an area.
#[test]
fn objects_that_the_canvas_cuts_off_have_no_label() {
    let set = TestSet::new();
    set.image("images/train/a.png", &noise(1, (64, 64)));
    set.image("images/train/b.png", &noise(1, (64, 64)));
    // One object up to the middle, one beyond it.
    set.write(
        "labels/train/a.txt",
        "0 0.3 0.2 0.4 0.4\n1 0.5 0.75 0.6 0.3\n",
    );
    set.write(
        "labels/train/b.txt",
        "0 0.1 0.1 0.5 0.2 0.3 0.4\n1 0.2 0.6 0.8 0.7 0.4 0.9\n",
    );
    let store = ImageStore::new(set.open(Split::Train), 64, Sizing::Train, 0);
    for (index, outline) in [(0, 0), (1, 3)] {
        let mut canvas = Canvas {
            size: (64, 64),
            ..Canvas::default()
        };
        // The image's middle is the canvas' corner.
        let covers = PixelRect {
            x1: 0,
            y1: 0,
            x2: 32,
            y2: 32,
        };
        canvas.add(
            store.load(index),
            covers,
            (-32, -32),
            |label| label.to_xyxy().scale(64., 64.).translate(-32., -32.),
            |[x, y]| [x * 64. - 32., y * 64. - 32.],
        );
        assert_eq!(canvas.labels.len(), 1, "image {index}");
        assert_eq!(canvas.labels[0].class, 1);
        assert_eq!(canvas.labels[0].outline.len(), outline);
    }
}

#[test]
fn a_painted_canvas_has_the_same_pixels() {
    let set = TestSet::with_images(4);
    let store = ImageStore::new(set.open(Split::Train), 64, Sizing::Train, 1 << 24);
    let mut rng = trainer_core::rng::stream(1, trainer_core::rng::Purpose::Test, 0, 0);
    let seen = whole((128, 128));
    let images = (0, super::super::streams::Pool::All(4));
    let canvas = super::super::mosaic::lay_four(&mut rng, &store, images, seen);
    let painted = canvas.clone().covered_by(canvas.paint());
    for y in -1..=128 {
        for x in -1..=128 {
            assert_eq!(painted.pixel(x, y), canvas.pixel(x, y), "{x} {y}");
        }
    }
}
