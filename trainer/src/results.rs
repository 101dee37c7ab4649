//! `results.csv`: one row per evaluated epoch, in YOLOv5's columns.

use std::io;
use std::path::Path;

use contract::progress::{EpochMetrics, Losses};

use crate::durable;

/// YOLOv5 v7.0's header.
const COLUMNS: [&str; 14] = [
    "epoch",
    "train/box_loss",
    "train/obj_loss",
    "train/cls_loss",
    "metrics/precision",
    "metrics/recall",
    "metrics/mAP_0.5",
    "metrics/mAP_0.5:0.95",
    "val/box_loss",
    "val/obj_loss",
    "val/cls_loss",
    "x/lr0",
    "x/lr1",
    "x/lr2",
];

/// Adds the row of an epoch. Rows of the same or a later epoch, which a start before this one wrote after
/// its last checkpoint, go. `learning_rates` are those of biases, kernels and norms.
pub fn append(path: &Path, metrics: &EpochMetrics, learning_rates: [f64; 3]) -> io::Result<()> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    durable::write(path, table(&text, metrics, learning_rates).as_bytes())
}

fn table(text: &str, metrics: &EpochMetrics, learning_rates: [f64; 3]) -> String {
    // YOLOv5 counts epochs from 0 here.
    let epoch = metrics.epoch.saturating_sub(1);
    let earlier = text.lines().skip(1).filter(|line| {
        let number = line
            .split(',')
            .next()
            .map(|cell| cell.trim().parse::<u32>());
        number.is_some_and(|number| number.is_ok_and(|number| number < epoch))
    });
    let values = named(metrics, learning_rates).into_iter();
    let values = values.map(|(_, value)| five_digits(value));
    let row: Vec<String> = std::iter::once(epoch.to_string()).chain(values).collect();
    let mut lines = vec![joined(COLUMNS.iter().copied())];
    lines.extend(earlier.map(ToOwned::to_owned));
    lines.push(joined(row.iter().map(String::as_str)));
    lines.join("\n") + "\n"
}

/// The numbers of an epoch under the names of their columns.
pub fn named(metrics: &EpochMetrics, learning_rates: [f64; 3]) -> Vec<(&'static str, f64)> {
    let losses = |losses: Option<Losses>| {
        let Losses {
            box_loss, obj, cls, ..
        } = losses.unwrap_or_default();
        [box_loss, obj, cls]
    };
    // Of an evaluation there are losses, unless they were not finite.
    let val_loss = match metrics.val_loss {
        None if metrics.map50.is_some() => [f64::NAN; 3],
        known => losses(known),
    };
    let measured = [
        metrics.precision,
        metrics.recall,
        metrics.map50,
        metrics.map50_95,
    ];
    let values = losses(metrics.train_loss)
        .into_iter()
        .chain(measured.map(Option::unwrap_or_default))
        .chain(val_loss)
        .chain(learning_rates);
    COLUMNS.into_iter().skip(1).zip(values).collect()
}

fn joined<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let padded: Vec<String> = cells.map(|cell| format!("{cell:>20}")).collect();
    padded.join(",")
}

/// C's `%.5g`.
fn five_digits(value: f64) -> String {
    let scientific = format!("{value:.4e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        None => text.to_owned(),
    };
    if (-4..5).contains(&exponent) {
        trimmed(&format!("{value:.*}", (4 - exponent) as usize))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trimmed(digits), exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_in_c() {
        let cases = [
            (0.0, "0"),
            (0.1, "0.1"),
            (0.012_345_67, "0.012346"),
            (12_345.678, "12346"),
            (99_999.9, "1e+05"),
            (0.000_012_345, "1.2345e-05"),
            (f64::NAN, "NaN"),
        ];
        for (value, want) in cases {
            assert_eq!(want, five_digits(value));
        }
    }

    #[test]
    fn a_validation_loss_that_was_not_finite_is_no_0() {
        let mut metrics = EpochMetrics::default();
        let val_box = |metrics: &EpochMetrics| named(metrics, [0.0; 3])[7];
        assert_eq!(("val/box_loss", 0.0), val_box(&metrics));
        metrics.map50 = Some(0.5);
        assert!(val_box(&metrics).1.is_nan());
    }

    #[test]
    fn rows_of_an_epoch_that_is_done_again_are_replaced() {
        let row = |epoch, map50| EpochMetrics {
            epoch,
            map50: Some(map50),
            ..EpochMetrics::default()
        };
        let mut text = String::new();
        for (epoch, map50) in [(1, 0.1), (2, 0.2), (3, 0.3), (2, 0.4)] {
            text = table(&text, &row(epoch, map50), [0.1, 0.01, 0.01]);
        }
        let cells: Vec<(&str, &str)> = text
            .lines()
            .map(|line| {
                let cells: Vec<&str> = line.split(',').map(str::trim).collect();
                assert_eq!(14, cells.len());
                (cells[0], cells[6])
            })
            .collect();
        assert_eq!(
            vec![("epoch", "metrics/mAP_0.5"), ("0", "0.1"), ("1", "0.4")],
            cells
        );
    }
}
