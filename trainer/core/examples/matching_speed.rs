//! How long matching and average precision take on the detections of a file that `tests/bench/matching.py` wrote.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement for developers, not part of the program"
)]

use std::time::Instant;
use trainer_core::average_precision::{Evaluation, ap_per_class};
use trainer_core::boxes::Xyxy;
use trainer_core::detection::{Detection, LabelledBox};
use trainer_core::image_stats::ImageStats;

const RUNS: usize = 5;

/// Words of four bytes.
struct Words<'a>(std::slice::Iter<'a, [u8; 4]>);

impl Words<'_> {
    fn count(&mut self) -> Option<usize> {
        self.0.next().map(|word| u32::from_le_bytes(*word) as usize)
    }

    fn row<const N: usize>(&mut self) -> [f32; N] {
        std::array::from_fn(|_| f32::from_le_bytes(*self.0.next().unwrap()))
    }
}

fn read(bytes: &[u8]) -> Vec<(Vec<Detection>, Vec<LabelledBox>)> {
    let mut words = Words(bytes.as_chunks::<4>().0.iter());
    let mut images = Vec::new();
    while let Some(detections) = words.count() {
        let labels = words.count().unwrap();
        let detection = |[x1, y1, x2, y2, conf, class]: [f32; 6]| Detection {
            xyxy: Xyxy::new(x1, y1, x2, y2),
            conf,
            class: class as u16,
        };
        let label = |[class, x1, y1, x2, y2]: [f32; 5]| LabelledBox {
            xyxy: Xyxy::new(x1, y1, x2, y2),
            class: class as u16,
        };
        images.push((
            (0..detections).map(|_| detection(words.row())).collect(),
            (0..labels).map(|_| label(words.row())).collect(),
        ));
    }
    images
}

fn evaluate(images: &[(Vec<Detection>, Vec<LabelledBox>)]) -> Evaluation {
    let numbered = (0..).zip(images);
    let stats = numbered.map(|(index, (found, labels))| ImageStats::new(index, found, labels));
    ap_per_class(&stats.collect::<Vec<_>>())
}

fn main() {
    let path = std::env::args().nth(1).unwrap();
    let images = read(&std::fs::read(path).unwrap());
    let mut seconds = Vec::new();
    let mut evaluation = Evaluation::default();
    for _ in 0..RUNS {
        let start = Instant::now();
        evaluation = evaluate(&images);
        seconds.push(start.elapsed().as_secs_f64());
    }
    println!(
        "{}",
        serde_json::json!({
            "seconds": seconds,
            "precision": evaluation.precision,
            "recall": evaluation.recall,
            "mAP50": evaluation.map50,
            "mAP50_95": evaluation.map50_95,
        })
    );
}
