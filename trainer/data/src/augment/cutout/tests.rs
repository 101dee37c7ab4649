use super::*;
use proptest::prelude::*;
use trainer_core::rng::{Purpose, stream};

fn mask(x1: u32, y1: u32, x2: u32, y2: u32) -> Mask {
    Mask {
        area: PixelRect { x1, y1, x2, y2 },
        colour: [1, 2, 3],
    }
}

#[test]
fn masks_have_all_sizes_and_stay_inside() {
    let (mut grey, mut coloured) = (0, 0);
    let mut largest = [0; 31];
    for k in 0..200 {
        let masks = draw(&mut stream(1, Purpose::Test, k, 0), 1.0, (160, 160));
        assert_eq!(masks.len(), 31);
        for (seen, mask) in largest.iter_mut().zip(&masks) {
            let (w, h) = mask.area.size();
            *seen = w.max(h).max(*seen);
            assert!(w > 0 && h > 0 && mask.area.x2 <= 160 && mask.area.y2 <= 160);
            if mask.colour[0] == mask.colour[1] && mask.colour[1] == mask.colour[2] {
                grey += 1;
            } else {
                coloured += 1;
            }
        }
    }
    // One up to a half of 160, two up to a quarter, ...
    for (from, to, side) in [(0, 1, 80), (1, 3, 40), (3, 7, 20), (7, 15, 10), (15, 31, 5)] {
        assert!(
            largest[from..to]
                .iter()
                .all(|seen| *seen <= side && *seen > side * 8 / 10)
        );
    }
    assert!(grey > 2500 && coloured > 2500, "{grey} {coloured}");
    assert!(draw(&mut stream(1, Purpose::Test, 0, 0), 0.0, (160, 160)).is_empty());
}

#[test]
fn the_pixels_of_masks_have_their_colour() {
    let mut pixels = vec![200; 3 * 64];
    paint(&[mask(2, 1, 5, 4), mask(4, 3, 8, 8)], 8, &mut pixels);
    for (plane, value) in pixels.chunks_exact(64).zip([1, 2, 3]) {
        for (k, got) in plane.iter().enumerate() {
            let (x, y) = (k % 8, k / 8);
            let inside = ((2..5).contains(&x) && (1..4).contains(&y)) || (x >= 4 && y >= 3);
            assert_eq!(*got, if inside { value } else { 200 }, "{x} {y}");
        }
    }
}

#[test]
fn what_is_mostly_covered_loses_its_label() {
    let object = Xyxy::new(10., 10., 20., 20.);
    assert!(!hides(&[], object));
    assert!(!hides(&[mask(0, 0, 16, 30)], object), "60 % exactly");
    assert!(hides(&[mask(0, 0, 17, 30)], object));
    // Two thirds together, but a third only, twice.
    let third = mask(0, 10, 30, 14);
    assert!(hides(&[third, mask(0, 15, 30, 18)], object));
    assert!(!hides(&[third, third, mask(10, 10, 20, 13)], object));
    assert!(!hides(&[mask(20, 10, 30, 20), mask(0, 0, 10, 40)], object));
}

proptest! {
    /// The area of a union is what counting pixels gives.
    #[test]
    fn each_part_counts_once(rects in prop::collection::vec((0_u32..20, 0_u32..20, 1_u32..12, 1_u32..12), 0..8)) {
        let parts: Vec<Xyxy> = rects
            .iter()
            .map(|(x, y, w, h)| Xyxy::new(*x as f32, *y as f32, (x + w) as f32, (y + h) as f32))
            .collect();
        let covered = |x: u32, y: u32| rects.iter().any(|(left, top, w, h)| {
            (*left..left + w).contains(&x) && (*top..top + h).contains(&y)
        });
        let count = (0..32 * 32).filter(|k| covered(k % 32, k / 32)).count();
        prop_assert_eq!(area_of_union(&parts), count as f32);
    }
}
