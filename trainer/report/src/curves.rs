//! The curves of an evaluation: precision over recall; F1, precision and recall over confidence.

use image::RgbImage;
use trainer_core::average_precision::{CURVE_POINTS, ClassCurves, Evaluation};

use crate::chart::{self, ALL_CLASSES, Axes, ChartError, Line};

const SIZE: (u32, u32) = (1350, 900);
/// More classes than this are drawn in grey, without a legend.
const MANY_CLASSES: usize = 20;

/// `YOLOv5`'s four pictures, with the names of their files.
pub fn curves(
    evaluation: &Evaluation,
    curves: &[ClassCurves],
    names: &[String],
) -> Result<Vec<(&'static str, RgbImage)>, ChartError> {
    let f1: Vec<Vec<f64>> = curves.iter().map(ClassCurves::f1).collect();
    let columns = |of: fn(&ClassCurves) -> &Vec<f64>| -> Vec<&[f64]> {
        curves.iter().map(|curve| of(curve).as_slice()).collect()
    };
    let over_confidence = |what: &'static str, y: &str, values: Vec<&[f64]>| {
        let mean = mean(&values);
        let (at, best) = highest(&mean);
        let title = format!("{y} and confidence");
        let label = format!("all classes {best:.2} at {at:.3}");
        let axes = Axes {
            title: &title,
            x: "confidence",
            y,
            x_range: 0.0..1.0,
            y_range: 0.0..1.0,
        };
        let lines = lines(evaluation, &values, &mean, names, label, |_| String::new());
        draw(what, &axes, &lines)
    };
    let recall = columns(|curve| &curve.precision_at_recall);
    let axes = Axes {
        title: "Precision and recall",
        x: "recall",
        y: "precision",
        x_range: 0.0..1.0,
        y_range: 0.0..1.0,
    };
    let label = format!("all classes {:.3} mAP50", evaluation.map50);
    let of_class = |k: usize| format!(" {:.3}", evaluation.classes[k].ap50());
    let over_recall = lines(evaluation, &recall, &mean(&recall), names, label, of_class);
    let f1 = f1.iter().map(Vec::as_slice).collect();
    Ok(vec![
        ("PR_curve.png", draw("PR_curve.png", &axes, &over_recall)?),
        ("F1_curve.png", over_confidence("F1_curve.png", "F1", f1)?),
        (
            "P_curve.png",
            over_confidence(
                "P_curve.png",
                "Precision",
                columns(|curve| &curve.precision),
            )?,
        ),
        (
            "R_curve.png",
            over_confidence("R_curve.png", "Recall", columns(|curve| &curve.recall))?,
        ),
    ])
}

fn draw(what: &'static str, axes: &Axes<'_>, all: &[Line]) -> Result<RgbImage, ChartError> {
    chart::picture(what, SIZE, |area| chart::lines(area, axes, all))
}

/// A thin line for each class and a thick one for all.
fn lines(
    evaluation: &Evaluation,
    values: &[&[f64]],
    mean: &[f64],
    names: &[String],
    label: String,
    note: impl Fn(usize) -> String,
) -> Vec<Line> {
    let few = values.len() <= MANY_CLASSES;
    let of_class = |(k, values): (usize, &&[f64])| {
        let class = evaluation.classes[k].class;
        let name = names.get(usize::from(class));
        Line {
            label: few.then(|| format!("{}{}", name.map_or("", String::as_str), note(k))),
            colour: if few {
                chart::colour(class)
            } else {
                plotters::style::RGBColor(190, 190, 190)
            },
            width: 1,
            points: over_axis(values),
        }
    };
    let mut lines: Vec<Line> = values.iter().enumerate().map(of_class).collect();
    lines.push(Line {
        label: Some(label),
        colour: ALL_CLASSES,
        width: 3,
        points: over_axis(mean),
    });
    lines
}

fn over_axis(values: &[f64]) -> Vec<(f64, f64)> {
    let step = 1.0 / (CURVE_POINTS - 1) as f64;
    values
        .iter()
        .enumerate()
        .map(|(k, y)| (k as f64 * step, *y))
        .collect()
}

fn mean(values: &[&[f64]]) -> Vec<f64> {
    let count = values.len().max(1) as f64;
    let at = |k| values.iter().map(|curve| curve[k]).sum::<f64>() / count;
    (0..CURVE_POINTS).map(at).collect()
}

/// Where on the axis the highest value is, and it; the first of equals.
fn highest(values: &[f64]) -> (f64, f64) {
    let points = over_axis(values).into_iter();
    points
        .reduce(|a, b| if b.1 > a.1 { b } else { a })
        .unwrap_or_default()
}
