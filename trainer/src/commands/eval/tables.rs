//! An evaluation as people and programs read it.

use serde_json::{Value, json};
use trainer_core::average_precision::{ClassResult, Evaluation};
use trainer_core::confusion::ConfusionMatrix;
use trainer_core::image_stats::IOU_THRESHOLDS;
use trainer_report::coco::{CocoSummary, WHY_THEY_DIFFER};

use super::Report;

/// Data sets with at least so many classes are shown by classes only when asked for, as `YOLOv5` does.
const MANY_CLASSES: usize = 50;
/// The most classes whose mix-ups fit the width of a terminal.
const MATRIX_CLASSES: u16 = 16;

/// All numbers as JSON.
pub fn json(report: &Report) -> Value {
    let evaluation = &report.measured.evaluation;
    let classes: Vec<_> = evaluation
        .classes
        .iter()
        .map(|class| {
            json!({
                "name": name_of(report, class.class),
                "images": class.images,
                "labels": class.labels,
                "precision": class.precision,
                "recall": class.recall,
                "mAP50": class.ap50(),
                "mAP50_95": class.ap50_95(),
            })
        })
        .collect();
    let mixed_up: Vec<_> = report
        .shown
        .confusion
        .entries()
        .map(|(found, real, count)| {
            json!({"found": found_name(report, found), "real": found_name(report, real), "count": count})
        })
        .collect();
    let mut document = json!({
        "images": report.dataset.len(),
        "precision": evaluation.precision,
        "recall": evaluation.recall,
        "mAP50": evaluation.map50,
        "mAP50_95": evaluation.map50_95,
        "bestConfidence": evaluation.best_confidence,
        "classes": classes,
        "confusion": mixed_up,
    });
    if let Some(coco) = &report.coco {
        document["coco"] = json!(coco);
    }
    document
}

/// All numbers as tables; `verbose` shows every class of many, and which are taken for which.
pub fn text(report: &Report, verbose: bool) -> String {
    let evaluation = &report.measured.evaluation;
    let objects: u64 = evaluation.classes.iter().map(|class| class.labels).sum();
    let row = |name: &str, images: u64, labels: u64, values: [f64; 4]| {
        let [p, r, map50, map50_95] = values;
        format!("{name:<20} {images:>8} {labels:>8} {p:>9.4} {r:>9.4} {map50:>9.4} {map50_95:>9.4}")
    };
    let mut lines = vec![
        format!("{} images, {objects} objects", report.dataset.len()),
        format!(
            "{:<20} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}",
            "class", "images", "labels", "P", "R", "mAP50", "mAP50_95"
        ),
        row(
            "all",
            report.dataset.len() as u64,
            objects,
            [
                evaluation.precision,
                evaluation.recall,
                evaluation.map50,
                evaluation.map50_95,
            ],
        ),
    ];
    if verbose || report.dataset.classes() < MANY_CLASSES {
        lines.extend(evaluation.classes.iter().map(|class| {
            let values = [class.precision, class.recall, class.ap50(), class.ap50_95()];
            let name = name_of(report, class.class);
            row(name, class.images, class.labels, values)
        }));
    }
    if verbose {
        lines.push(String::new());
        lines.extend(confusion(report));
    }
    if let Some(coco) = &report.coco {
        lines.push(String::new());
        lines.extend(side_by_side(evaluation, coco));
    }
    lines.join("\n")
}

fn name_of(report: &Report, class: u16) -> &str {
    let name = report.dataset.names().get(usize::from(class));
    name.map_or("", String::as_str)
}

fn found_name(report: &Report, class: u16) -> &str {
    if class == report.shown.confusion.classes() {
        "background"
    } else {
        name_of(report, class)
    }
}

/// The matrix, or of many classes the commonest mix-ups.
fn confusion(report: &Report) -> Vec<String> {
    let matrix: &ConfusionMatrix = &report.shown.confusion;
    let background = matrix.classes();
    if background > MATRIX_CLASSES {
        let mut wrong: Vec<_> = matrix
            .entries()
            .filter(|(found, real, _)| found != real)
            .collect();
        wrong.sort_by_key(|(found, real, count)| (std::cmp::Reverse(*count), *real, *found));
        let mut lines = vec!["the commonest mix-ups (found as, real, count):".to_owned()];
        lines.extend(wrong.iter().take(30).map(|(found, real, count)| {
            let (found, real) = (found_name(report, *found), found_name(report, *real));
            format!("{found:<20} {real:<20} {count:>8}")
        }));
        return lines;
    }
    let short = |class| {
        found_name(report, class)
            .chars()
            .take(7)
            .collect::<String>()
    };
    let mut lines = vec![
        "found as (rows) what is really there (columns), confidence above 0.25 and IoU above 0.45"
            .to_owned(),
    ];
    let cells = |of: &dyn Fn(u16) -> String| -> String {
        let cells = (0..=background).map(|real| format!(" {:>7}", of(real)));
        cells.collect::<Vec<_>>().concat()
    };
    lines.push(format!("{:<20}{}", "", cells(&short)));
    for found in 0..=background {
        let counts = cells(&|real| matrix.get(found, real).to_string());
        lines.push(format!("{:<20}{counts}", found_name(report, found)));
    }
    lines
}

/// `YOLOv5`'s numbers above COCO's.
fn side_by_side(evaluation: &Evaluation, coco: &CocoSummary) -> Vec<String> {
    let level = IOU_THRESHOLDS.iter().position(|iou| *iou == 0.75);
    let ap75 = |class: &ClassResult| level.map_or(0.0, |level| class.ap[level]);
    let count = evaluation.classes.len().max(1) as f64;
    // Nothing adds up to -0.
    let own75 = (evaluation.classes.iter().map(ap75).sum::<f64>() + 0.0) / count;
    let own = [evaluation.map50_95, evaluation.map50, own75].map(Some);
    let row = |name: &str, values: &[Option<f64>]| {
        let cells = values.iter().map(|value| match value {
            Some(value) => format!(" {value:>9.4}"),
            None => format!(" {:>9}", "-"),
        });
        format!("{name:<20}{}", cells.collect::<Vec<_>>().concat())
    };
    let head = |names: [&str; 6]| {
        let cells = names.map(|name| format!(" {name:>9}")).concat();
        format!("{:<20}{cells}", "")
    };
    vec![
        head(["AP", "AP50", "AP75", "small", "medium", "large"]),
        row(
            "YOLOv5's definition",
            &[own.as_slice(), &[None; 3]].concat(),
        ),
        row(
            "COCO's definition",
            &[
                coco.ap,
                coco.ap50,
                coco.ap75,
                coco.ap_small,
                coco.ap_medium,
                coco.ap_large,
            ],
        ),
        head(["AR1", "AR10", "AR100", "small", "medium", "large"]),
        row(
            "COCO's definition",
            &[
                coco.ar1,
                coco.ar10,
                coco.ar100,
                coco.ar_small,
                coco.ar_medium,
                coco.ar_large,
            ],
        ),
        format!("Why they differ: {WHY_THEY_DIFFER}"),
    ]
}
