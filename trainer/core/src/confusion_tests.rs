use super::*;
use crate::boxes::Xyxy;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    detections: Vec<[f32; 6]>,
    labels: Vec<[f32; 5]>,
    /// Rows found, columns real, as the Python program's own class counts them.
    matrix: Vec<Vec<u64>>,
}

/// Detections and labels of an image, and the matrix to expect.
type Expected = (Vec<Detection>, Vec<LabelledBox>, Vec<Vec<u64>>);

fn cases() -> Vec<Expected> {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../testdata/confusion.json")).unwrap();
    let read = |case: Case| {
        let detections = case.detections.iter().map(|d| Detection {
            xyxy: Xyxy::new(d[0], d[1], d[2], d[3]),
            conf: d[4],
            class: d[5] as u16,
        });
        let labels = case.labels.iter().map(|l| LabelledBox {
            xyxy: Xyxy::new(l[1], l[2], l[3], l[4]),
            class: l[0] as u16,
        });
        (detections.collect(), labels.collect(), case.matrix)
    };
    cases.into_iter().map(read).collect()
}

fn dense(matrix: &ConfusionMatrix) -> Vec<Vec<u64>> {
    let all = 0..=matrix.classes();
    all.clone()
        .map(|found| all.clone().map(|real| matrix.get(found, real)).collect())
        .collect()
}

#[test]
fn the_counts_are_those_of_the_python_program() {
    let cases = cases();
    assert!(cases.len() >= 100);
    for (number, (detections, labels, want)) in cases.iter().enumerate() {
        let mut matrix = ConfusionMatrix::new(3);
        matrix.add(detections, labels);
        assert_eq!(*want, dense(&matrix), "case {number}");
    }
}

#[test]
fn ranks_add_up_to_one() {
    let (mut whole, mut parts) = (
        ConfusionMatrix::new(3),
        [ConfusionMatrix::new(3), ConfusionMatrix::new(3)],
    );
    for (number, (detections, labels, _)) in cases().iter().enumerate() {
        whole.add(detections, labels);
        parts[number % 2].add(detections, labels);
    }
    let mut together = ConfusionMatrix::new(3);
    for part in &parts {
        together.add_bytes(&part.to_bytes());
    }
    assert_eq!(whole, together);
    let total: u64 = (0..=3).map(|real| whole.total_of(real)).sum();
    assert_eq!(
        total,
        whole.entries().map(|(_, _, count)| count).sum::<u64>()
    );
    let before = together.clone();
    together.add_bytes(&[1; 11]);
    assert_eq!(before, together, "half an entry");
}
