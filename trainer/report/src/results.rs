//! `results.csv` as it is read back, and its curves.

use image::RgbImage;

use crate::chart::{self, Axes, ChartError, Line};

const SIZE: (u32, u32) = (2000, 800);
/// The columns that are drawn, by rows of charts.
const DRAWN: [[&str; 5]; 2] = [
    [
        "train/box_loss",
        "train/obj_loss",
        "train/cls_loss",
        "metrics/precision",
        "metrics/recall",
    ],
    [
        "val/box_loss",
        "val/obj_loss",
        "val/cls_loss",
        "metrics/mAP_0.5",
        "metrics/mAP_0.5:0.95",
    ],
];

/// The epochs of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    columns: Vec<String>,
    rows: Vec<Vec<f64>>,
}

impl Results {
    /// Reads the table; a row that is not one number for each column does not count.
    pub fn parse(text: &str) -> Self {
        let cells = |line: &str| -> Vec<String> {
            line.split(',').map(|cell| cell.trim().to_owned()).collect()
        };
        let mut lines = text.lines();
        let columns = lines.next().map(cells).unwrap_or_default();
        let rows = lines.filter_map(|line| {
            let numbers = cells(line).iter().map(|cell| cell.parse().ok()).collect();
            let numbers: Option<Vec<f64>> = numbers;
            numbers.filter(|numbers| numbers.len() == columns.len())
        });
        Self {
            rows: rows.collect(),
            columns,
        }
    }

    /// Names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// One row for each epoch.
    pub fn rows(&self) -> &[Vec<f64>] {
        &self.rows
    }

    /// A column by epochs, from 0; empty if there is none of this name.
    pub fn column(&self, name: &str) -> Vec<(f64, f64)> {
        let index = self.columns.iter().position(|column| column == name);
        let pairs = |index: usize| self.rows.iter().map(move |row| (row[0], row[index]));
        index
            .map(|index| pairs(index).collect())
            .unwrap_or_default()
    }

    /// Losses and metrics over the epochs: `YOLOv5`'s ten charts.
    pub fn picture(&self) -> Result<RgbImage, ChartError> {
        chart::picture("results.png", SIZE, |area| {
            let parts = area.split_evenly((2, 5));
            for (part, name) in parts.iter().zip(DRAWN.as_flattened()) {
                let mut points = self.column(name);
                let x_range = chart::range_of(points.iter().map(|point| point.0));
                // They would be drawn at an edge, as the best there is.
                points.retain(|point| point.1.is_finite());
                let axes = Axes {
                    title: name,
                    x: "",
                    y: "",
                    x_range,
                    y_range: chart::range_of(points.iter().map(|point| point.1)),
                };
                let line = Line {
                    label: None,
                    colour: chart::ALL_CLASSES,
                    width: 2,
                    points,
                };
                chart::lines(part, &axes, &[line])?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_and_bad_rows_are_left_out() {
        let text = "  epoch,  train/box_loss\n 0, 0.5\n 1, x\n 2\n 3, 0.25\n";
        let results = Results::parse(text);
        assert_eq!(results.column("train/box_loss"), [(0.0, 0.5), (3.0, 0.25)]);
        assert!(results.column("other").is_empty());
        assert_eq!(Results::default(), Results::parse(""));
    }

    #[test]
    fn what_is_no_number_is_not_drawn() {
        let drawn = |second: &str| {
            let text = format!("epoch,val/box_loss\n0,0.5\n{second}2,0.25\n");
            Results::parse(&text).picture().expect("drawn")
        };
        let without = drawn("");
        for value in ["NaN", "inf"] {
            assert!(without == drawn(&format!("1,{value}\n")), "{value}");
        }
        assert!(without != drawn("1,0.1\n"));
    }
}
