use super::*;
use crate::testing::noise;
use image::Rgb;
use trainer_core::rng::{Purpose, stream};

fn rect(x1: u32, y1: u32, x2: u32, y2: u32) -> PixelRect {
    PixelRect { x1, y1, x2, y2 }
}

fn cropped(boxes: &[Xyxy], part: PixelRect) -> Vec<Xyxy> {
    let mut picture = Picture {
        pixels: RgbImage::new(100, 100),
        boxes: boxes
            .iter()
            .map(|xyxy| LabelledBox {
                xyxy: *xyxy,
                class: 2,
            })
            .collect(),
    };
    apply(&mut picture, part);
    assert_eq!(picture.pixels.dimensions(), (100, 100));
    assert!(picture.boxes.iter().all(|object| object.class == 2));
    picture.boxes.iter().map(|object| object.xyxy).collect()
}

#[test]
fn boxes_are_moved_enlarged_and_clipped() {
    let part = rect(10, 20, 90, 100);
    let boxes = [
        Xyxy::new(10., 20., 50., 60.),
        Xyxy::new(0., 40., 20., 60.),
        Xyxy::new(80., 80., 100., 100.),
    ];
    // 80 pixels become 100.
    let expected = [
        Xyxy::new(0., 0., 50., 50.),
        Xyxy::new(0., 25., 12.5, 50.),
        Xyxy::new(87.5, 75., 100., 100.),
    ];
    assert_eq!(cropped(&boxes, part), expected);
    // The two axes by themselves: 50 columns and 100 rows.
    assert_eq!(
        cropped(&[Xyxy::new(60., 10., 70., 30.)], rect(50, 0, 100, 100)),
        [Xyxy::new(20., 10., 40., 30.)]
    );
}

#[test]
fn boxes_with_little_left_are_dropped() {
    let part = rect(10, 0, 100, 100);
    let left_of = |x2| Xyxy::new(0., 40., x2, 60.);
    // Of 20 columns 10 are left, of 11.2 columns 1.2: more than a tenth but less than two pixels; of 11
    // only one, less than a tenth; of 10 nothing.
    assert_eq!(cropped(&[left_of(20.)], part).len(), 1);
    assert_eq!(cropped(&[left_of(11.2)], part).len(), 0);
    assert_eq!(cropped(&[left_of(11.)], part).len(), 0);
    assert_eq!(cropped(&[left_of(10.)], part).len(), 0);
    // 9 of 100 columns.
    assert_eq!(
        cropped(&[Xyxy::new(0., 0., 100., 50.)], rect(91, 0, 100, 100)).len(),
        0
    );
    assert_eq!(
        cropped(&[Xyxy::new(0., 0., 100., 50.)], rect(90, 0, 100, 100)).len(),
        1
    );
}

#[test]
fn the_whole_stays_as_it_is() {
    let mut picture = Picture {
        pixels: noise(1, (48, 48)),
        boxes: Vec::new(),
    };
    let before = picture.clone();
    apply(&mut picture, rect(0, 0, 48, 48));
    assert_eq!(picture, before);
}

#[test]
fn pixels_go_where_the_boxes_go() {
    let area = Xyxy::new(30., 20., 70., 50.);
    let mut picture = Picture {
        pixels: RgbImage::from_fn(100, 100, |x, y| {
            let inside = (30..70).contains(&x) && (20..50).contains(&y);
            Rgb(if inside { [255, 0, 0] } else { [0, 0, 255] })
        }),
        boxes: vec![LabelledBox {
            xyxy: area,
            class: 0,
        }],
    };
    apply(&mut picture, rect(20, 10, 100, 90));
    assert_eq!(picture.boxes[0].xyxy, Xyxy::new(12.5, 12.5, 62.5, 50.));
    for (x, y, pixel) in picture.pixels.enumerate_pixels() {
        let (x, y) = (x as f32 + 0.5, y as f32 + 0.5);
        let inside = (12.5..62.5).contains(&x) && (12.5..50.0).contains(&y);
        let near_edge = [(x, 12.5), (x, 62.5), (y, 12.5), (y, 50.)]
            .into_iter()
            .any(|(at, edge)| (at - edge).abs() <= 1.0);
        if !near_edge {
            let expected = if inside { [255, 0, 0] } else { [0, 0, 255] };
            assert_eq!(pixel.0, expected, "{x} {y}");
        }
    }
}

#[test]
fn parts_have_the_promised_areas_and_shapes() {
    let side = 640;
    let parts: Vec<PixelRect> = (0..2000)
        .filter_map(|k| draw(&mut stream(1, Purpose::Test, k, 0), 1.0, (side, side)))
        .collect();
    // The last try fails for one in a hundred.
    assert!(parts.len() > 1950, "{}", parts.len());
    let mut corners = [false; 4];
    for part in &parts {
        let (w, h) = (f64::from(part.size().0), f64::from(part.size().1));
        let area = w * h / f64::from(side).powi(2);
        assert!((0.797..1.003).contains(&area), "{part:?}");
        assert!((0.745..1.34).contains(&(w / h)), "{part:?}");
        assert!(part.x2 <= side && part.y2 <= side);
        for (seen, at) in
            corners
                .iter_mut()
                .zip([part.x1 == 0, part.x2 == side, part.y1 == 0, part.y2 == side])
        {
            *seen |= at;
        }
    }
    assert_eq!(corners, [true; 4], "parts lie everywhere");
    let some = (0..2000)
        .filter(|k| draw(&mut stream(1, Purpose::Test, *k, 0), 0.25, (side, side)).is_some())
        .count();
    assert!((420..570).contains(&some), "{some}");
}
