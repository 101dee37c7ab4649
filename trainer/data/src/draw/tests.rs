use super::*;
use trainer_core::boxes::Xyxy;

fn drawn(width: u32, height: u32) -> DrawnImage {
    DrawnImage {
        image: RgbImage::from_pixel(width, height, Rgb([90, 90, 90])),
        detections: vec![Detection {
            xyxy: Xyxy::new(40., 50., 80., 90.),
            conf: 0.87,
            class: 1,
        }],
        labels: vec![LabelledBox {
            xyxy: Xyxy::new(42., 52., 78., 88.),
            class: 1,
        }],
        title: "images/val/000001.png".to_owned(),
    }
}

fn names() -> Vec<String> {
    vec!["cat".to_owned(), "dog".to_owned()]
}

#[test]
fn frames_tags_and_dashes_are_where_they_belong() {
    let sheet = contact_sheet(&[drawn(160, 120)], &names(), 3);
    let (left, top) = (GAP, GAP + TITLE);
    assert_eq!(sheet.width(), 2 * GAP + CELL, "no empty columns");
    let at = |x: f32, y: f32| *sheet.get_pixel(left + (x * 3.0) as u32, top + (y * 3.0) as u32);
    let frame = colour(1);
    for (x, y) in [(39.5, 70.), (80.3, 70.), (60., 49.5), (60., 90.3)] {
        assert_eq!(at(x, y), frame, "frame at {x} {y}");
    }
    assert_eq!(at(60., 70.), Rgb([90; 3]), "the object stays visible");
    assert!(
        [Rgb([255; 3]), Rgb([0; 3])].contains(&at(60., 52.)),
        "dashes"
    );
    // The tag is above the frame: filled, with letters of another colour.
    let tag: Vec<_> = (0..40)
        .map(|x| *sheet.get_pixel(left + 120 + x, top + 150 - 13))
        .collect();
    assert!(
        tag.contains(&frame) && tag.iter().any(|p| *p != frame),
        "{tag:?}"
    );
}

#[test]
fn shapes_differ_and_boxes_may_leave_the_image() {
    let mut wide = drawn(300, 100);
    wide.detections[0].xyxy = Xyxy::new(-50., -20., 400., 130.);
    wide.detections.push(Detection {
        xyxy: Xyxy::new(f32::NAN, 0., 1e30, 10.),
        conf: 0.1,
        class: 700,
    });
    wide.title = "folder/".repeat(40);
    let sheet = contact_sheet(&[wide, drawn(50, 100), drawn(1000, 1000)], &names(), 2);
    assert_eq!(sheet.width(), 3 * GAP + 2 * CELL);
    assert_eq!(sheet.height(), GAP + 2 * (TITLE + GAP + CELL) + TITLE);
    assert!(contact_sheet(&[], &names(), 0).width() > 0);
}

#[test]
fn boxes_far_to_the_right_of_a_wide_picture_are_where_they_belong() {
    let mut wide = drawn(10_400, 80);
    wide.detections[0].xyxy = Xyxy::new(10_200., 10., 10_300., 30.);
    wide.labels[0].xyxy = Xyxy::new(10_210., 12., 10_290., 28.);
    let picture = annotated(&wide, &names());
    let at = |x, y| *picture.get_pixel(x, y);
    for x in [10_198, 10_301] {
        assert_eq!(at(x, 20), colour(1), "frame at {x}");
    }
    assert!([Rgb([255; 3]), Rgb([0; 3])].contains(&at(10_289, 20)));
    assert_eq!(at(10_001, 20), Rgb([90; 3]));
}

#[test]
fn long_text_loses_its_beginning() {
    assert_eq!(text::fit("abcdef", 6 * text::HEIGHT), "abcdef");
    assert_eq!(text::fit("abcdef", 5 * text::HEIGHT), "..def");
    assert_eq!(text::fit("abcdef", 1), "");
}

#[test]
fn neighbouring_classes_have_different_colours() {
    for class in 0..40 {
        let (a, b) = (colour(class), colour(class + 1));
        let difference: u32 = (0..3).map(|c| u32::from(a.0[c].abs_diff(b.0[c]))).sum();
        assert!(difference > 150, "{class}: {a:?} {b:?}");
    }
}

#[test]
fn a_picture_is_written_or_the_file_named() {
    let folder = tempfile::tempdir().unwrap();
    let sheet = contact_sheet(&[drawn(64, 64)], &names(), 1);
    let path = folder.path().join("sheet.png");
    write_png(&sheet, &path).unwrap();
    assert_eq!(image::open(&path).unwrap().into_rgb8(), sheet);
    let error = write_png(&sheet, &folder.path().join("no/sheet.png")).unwrap_err();
    assert!(error.to_string().ends_with("no/sheet.png"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}
