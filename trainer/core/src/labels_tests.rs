use super::*;
use proptest::prelude::*;

fn problems(text: &str) -> Vec<String> {
    let problems = parse_label_file("a/b.txt", text, 3).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn refused(row: &str, words: &str) {
    let all = problems(row);
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(
        all[0].starts_with("a/b.txt:1: ") && all[0].contains(words),
        "{}",
        all[0]
    );
    assert!(all[0].ends_with(&format!("'{row}'")), "{}", all[0]);
}

#[test]
fn a_good_file() {
    let text = "\u{feff}0 0.5 0.5 0.2 0.1\r\n\n  2.0 1 0 1e-3 1\n0 0.5 0.5 0.2 0.1\n";
    let file = parse_label_file("f", text, 3).unwrap();
    assert_eq!(
        file.labels[0],
        Label {
            class: 0,
            xywh: Xywh::new(0.5, 0.5, 0.2, 0.1)
        }
    );
    assert_eq!(
        file.labels[1],
        Label {
            class: 2,
            xywh: Xywh::new(1., 0., 0.001, 1.)
        }
    );
    assert_eq!(
        (file.labels.len(), file.duplicates, file.segments.len()),
        (2, 1, 0)
    );
    assert_eq!(
        parse_label_file("f", " \n", 3).unwrap(),
        LabelFile::default()
    );
}

#[test]
fn polygons_become_boxes() {
    let text = "1 0.1 0.2 0.5 0.2 0.3 0.6\n1 0 0 1 0 1 1 0 1";
    let file = parse_label_file("f", text, 3).unwrap();
    let b = file.labels[0].xywh;
    for (got, want) in [(b.x, 0.3), (b.y, 0.4), (b.w, 0.4), (b.h, 0.4)] {
        assert!((got - want).abs() < 1e-6);
    }
    assert_eq!(file.segments[0], [[0.1, 0.2], [0.5, 0.2], [0.3, 0.6]]);
    assert_eq!(file.segments.len(), 2);
}

#[test]
fn each_mistake_has_its_message() {
    refused("0 0.5 0.5 0.2", "4 columns, a box has 5");
    refused("0 0.5 0.5 0.2 0.1 0.9", "6 columns, a box has 5");
    refused(
        "0 0.5 0.5 0.2 0.1 0.9 0.9 0.9",
        "8 columns in a file of polygons",
    );
    refused("cat 0.5 0.5 0.2 0.1", "column 1 is 'cat', not a number");
    refused("0 0.5 0,5 0.2 0.1", "column 3 is '0,5', not a number");
    refused(
        "0 nan 0.5 0.2 0.1",
        "column 2 is 'nan', not a finite number",
    );
    refused("0 0.5 0.5 inf 0.1", "column 4 is 'inf', not a finite");
    refused("1.5 0.5 0.5 0.2 0.1", "class 1.5 is not a whole number");
    refused("-1 0.5 0.5 0.2 0.1", "class -1 is not a whole number");
    refused(
        "3 0.5 0.5 0.2 0.1",
        "class 3 does not exist: the data set names 3 classes, 0 to 2",
    );
    refused("70000 0.5 0.5 0.2 0.1", "class 70000 does not exist");
    refused("0 -0.1 0.5 0.2 0.1", "column 2 is -0.1, below 0");
    refused("0 0.5 320 0.2 0.1", "column 3 is 320, above 1");
    refused("0 0.5 0.5 0 0.1", "0 wide and 0.1 high");
}

#[test]
fn every_bad_row_is_reported() {
    let text = "0 0.5 0.5 0.2 0.1\n7 0.5 0.5 0.2 0.1\n\n0 0.5 2 0.2 0.1\n";
    let all = problems(text);
    assert_eq!(all.len(), 2);
    assert!(all[0].starts_with("a/b.txt:2:") && all[1].starts_with("a/b.txt:4:"));
    // A box among polygons.
    assert_eq!(problems("0 0 0 1 0 1 1\n0 0.5 0.5 0.2 0.1").len(), 1);
}

proptest! {
    #[test]
    fn no_text_panics_and_good_files_are_within_bounds(text in "[0-9. \\n\\-einaf]{0,80}") {
        if let Ok(file) = parse_label_file("f", &text, 5) {
            for label in file.labels {
                prop_assert!(label.class < 5 && label.xywh.w > 0.0 && label.xywh.w <= 1.0);
            }
        }
    }

    #[test]
    fn what_is_written_is_read(rows in prop::collection::hash_set((0_u16..9, 1_u16..1000, 1_u16..1000), 0..20)) {
        let lines: Vec<String> = rows
            .iter()
            .map(|(c, x, w)| format!("{c} {} 0.5 {} 0.25", f32::from(*x) / 1e3, f32::from(*w) / 1e3))
            .collect();
        let text = lines.join("\n");
        let file = parse_label_file("f", &text, 9).unwrap();
        prop_assert_eq!(file.labels.len(), rows.len());
        for (label, (class, x, w)) in file.labels.iter().zip(&rows) {
            let xywh = Xywh::new(f32::from(*x) / 1e3, 0.5, f32::from(*w) / 1e3, 0.25);
            prop_assert_eq!(*label, Label { class: *class, xywh });
        }
    }
}
