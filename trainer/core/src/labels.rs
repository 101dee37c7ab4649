//! Label files in YOLO text format.
//!
//! A row is `class x y w h` (centre and size as fractions of the image) or `class x1 y1 x2 y2 ...` (a
//! polygon). YOLOv5 v7.0 behaviour: if any row of a file has more than 6 columns, all its rows are
//! polygons, and boxes are the polygons' extents. Unlike v5, which drops a whole image at the first
//! bad row, every bad row is reported, and so is a box row among polygons, which v5 misreads.

use crate::boxes::Xywh;
use std::collections::HashSet;

/// One labelled object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    /// Class index, less than the number of classes.
    pub class: u16,
    /// Centre and size as fractions of the image.
    pub xywh: Xywh,
}

/// A label file that is in order. An empty one means that the image shows no objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelFile {
    /// The objects in file order.
    pub labels: Vec<Label>,
    /// If the file holds polygons: for each label its points as fractions of the image, else empty.
    pub segments: Vec<Vec<[f32; 2]>>,
    /// Rows left out because they repeat the class and box of an earlier one.
    pub duplicates: usize,
}

/// A row that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{file}:{line}: {reason}: '{text}'")]
pub struct LabelProblem {
    /// The file's name as given.
    pub file: String,
    /// The row's line in the file, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: LabelReason,
    /// The row itself, at most 80 characters of it.
    pub text: String,
}

/// What is wrong with a row. Columns count from 1.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum LabelReason {
    #[error("{columns} columns, a box has 5: class x y w h")]
    BoxColumns { columns: usize },
    #[error(
        "{columns} columns in a file of polygons, a polygon has a class and at least 3 points of 2 \
         columns; do not mix boxes and polygons in one file"
    )]
    SegmentColumns { columns: usize },
    #[error("column {column} is '{value}', not a number")]
    NotANumber { column: usize, value: String },
    #[error("column {column} is '{value}', not a finite number")]
    NotFinite { column: usize, value: String },
    #[error("class {value} is not a whole number from 0 on")]
    ClassNotWhole { value: String },
    #[error("class {class} does not exist: the data set names {classes} classes, 0 to {}", classes.saturating_sub(1))]
    ClassTooLarge { class: u64, classes: usize },
    #[error("column {column} is {value}, below 0: coordinates are fractions of the image")]
    Negative { column: usize, value: f64 },
    #[error("column {column} is {value}, above 1: divide pixels by the image's width or height")]
    AboveOne { column: usize, value: f64 },
    #[error("the box is {width} wide and {height} high: remove it or give it a size")]
    NoArea { width: f32, height: f32 },
}

/// Reads the contents `text` of the label file called `file`, of a data set with `classes` classes.
///
/// Blank lines do not count. All problems of the file are returned, one per bad row.
pub fn parse_label_file(
    file: &str,
    text: &str,
    classes: usize,
) -> Result<LabelFile, Vec<LabelProblem>> {
    let rows: Vec<(usize, &str, Vec<&str>)> = text
        .trim_start_matches('\u{feff}')
        .lines()
        .enumerate()
        .map(|(index, line)| {
            (
                index + 1,
                line.trim(),
                line.split_whitespace().collect::<Vec<_>>(),
            )
        })
        .filter(|(_, _, columns)| !columns.is_empty())
        .collect();
    let polygons = rows.iter().any(|(_, _, columns)| columns.len() > 6);

    let mut result = LabelFile::default();
    let mut problems = Vec::new();
    let mut seen = HashSet::new();
    for (line, text, columns) in rows {
        match parse_row(&columns, polygons, classes) {
            Ok((label, points)) => {
                let Xywh { x, y, w, h } = label.xywh;
                if !seen.insert((label.class, [x, y, w, h].map(f32::to_bits))) {
                    result.duplicates += 1;
                    continue;
                }
                result.labels.push(label);
                if polygons {
                    result.segments.push(points);
                }
            }
            Err(reason) => {
                let text = text.chars().take(80).collect();
                problems.push(LabelProblem {
                    file: file.to_owned(),
                    line,
                    reason,
                    text,
                });
            }
        }
    }
    if problems.is_empty() {
        Ok(result)
    } else {
        Err(problems)
    }
}

fn parse_row(
    columns: &[&str],
    polygons: bool,
    classes: usize,
) -> Result<(Label, Vec<[f32; 2]>), LabelReason> {
    let count = columns.len();
    if polygons && (count < 7 || count.is_multiple_of(2)) {
        return Err(LabelReason::SegmentColumns { columns: count });
    }
    if !polygons && count != 5 {
        return Err(LabelReason::BoxColumns { columns: count });
    }
    let class = parse_class(columns[0], classes)?;
    let mut values = Vec::with_capacity(count - 1);
    for (index, value) in columns.iter().enumerate().skip(1) {
        values.push(parse_fraction(index + 1, value)?);
    }
    let points = if polygons {
        values.as_chunks().0.to_vec()
    } else {
        Vec::new()
    };
    let xywh = if polygons {
        extent(&points)
    } else {
        Xywh::new(values[0], values[1], values[2], values[3])
    };
    if xywh.w <= 0.0 || xywh.h <= 0.0 {
        return Err(LabelReason::NoArea {
            width: xywh.w,
            height: xywh.h,
        });
    }
    Ok((Label { class, xywh }, points))
}

fn parse_number(column: usize, value: &str) -> Result<f64, LabelReason> {
    let number: f64 = value.parse().map_err(|_| LabelReason::NotANumber {
        column,
        value: value.to_owned(),
    })?;
    if number.is_finite() {
        Ok(number)
    } else {
        Err(LabelReason::NotFinite {
            column,
            value: value.to_owned(),
        })
    }
}

/// Many tools write classes as `3.0`; what counts is that the value is whole.
fn parse_class(value: &str, classes: usize) -> Result<u16, LabelReason> {
    let number = parse_number(1, value)?;
    if number < 0.0 || number.fract() != 0.0 {
        return Err(LabelReason::ClassNotWhole {
            value: value.to_owned(),
        });
    }
    let class = number as u64;
    match u16::try_from(class) {
        Ok(small) if usize::from(small) < classes => Ok(small),
        _ => Err(LabelReason::ClassTooLarge { class, classes }),
    }
}

fn parse_fraction(column: usize, value: &str) -> Result<f32, LabelReason> {
    let number = parse_number(column, value)?;
    if number < 0.0 {
        return Err(LabelReason::Negative {
            column,
            value: number,
        });
    }
    // Compared as `f32`, as v5 does: 1.00000001 is 1.
    if number as f32 > 1.0 {
        return Err(LabelReason::AboveOne {
            column,
            value: number,
        });
    }
    Ok(number as f32)
}

fn extent(points: &[[f32; 2]]) -> Xywh {
    crate::segments::bounding_box(points, 1.0, 1.0)
        .unwrap_or_default()
        .to_xywh()
}

#[cfg(test)]
#[path = "labels_tests.rs"]
mod tests;
