//! The confusion matrix as a picture.

use image::RgbImage;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use trainer_core::confusion::ConfusionMatrix;

use crate::chart::{self, Area, ChartError, FONT, Failure, LARGE, SMALL};

/// Width and height of the picture, and where its cells begin and end.
const SIDE: u32 = 1200;
const LEFT: i32 = 170;
const TOP: i32 = 60;
const RIGHT: i32 = 30;
const BOTTOM: i32 = 170;
/// With more classes than this, shares are not written into the cells; with more than that, names are left out.
const WRITTEN: i32 = 30;
const NAMED: i32 = 60;
/// Shares below this are not shown, as `YOLOv5` does.
const LEAST: f64 = 0.005;

/// What was found as what, each column as shares of what is really there.
pub fn confusion_matrix(
    matrix: &ConfusionMatrix,
    names: &[String],
) -> Result<RgbImage, ChartError> {
    chart::picture("confusion_matrix.png", (SIDE, SIDE), |area| {
        paint(area, matrix, names)
    })
}

fn paint(area: &Area<'_>, matrix: &ConfusionMatrix, names: &[String]) -> Result<(), Failure> {
    let count = i32::from(matrix.classes()) + 1;
    let (width, height) = (SIDE as i32 - LEFT - RIGHT, SIDE as i32 - TOP - BOTTOM);
    let x = |column: i32| LEFT + (i64::from(width) * i64::from(column) / i64::from(count)) as i32;
    let y = |row: i32| TOP + (i64::from(height) * i64::from(row) / i64::from(count)) as i32;
    let text = |size: u32, horizontal, vertical| {
        (FONT, size)
            .into_font()
            .color(&BLACK)
            .pos(Pos::new(horizontal, vertical))
    };
    area.draw(&Rectangle::new(
        [(LEFT, TOP), (x(count), y(count))],
        RGBColor(150, 150, 150),
    ))?;
    let totals: Vec<u64> = (0..=matrix.classes())
        .map(|real| matrix.total_of(real))
        .collect();
    for (found, real, times) in matrix.entries() {
        let share = times as f64 / totals[usize::from(real)].max(1) as f64;
        if share < LEAST {
            continue;
        }
        let (row, column) = (i32::from(found), i32::from(real));
        let corners = [(x(column), y(row)), (x(column + 1), y(row + 1))];
        area.draw(&Rectangle::new(corners, blue(share).filled()))?;
        if count <= WRITTEN + 1 {
            let ink = if share > 0.5 { WHITE } else { BLACK };
            let style = text(SMALL, HPos::Center, VPos::Center).color(&ink);
            let middle = (
                i32::midpoint(x(column), x(column + 1)),
                i32::midpoint(y(row), y(row + 1)),
            );
            area.draw(&Text::new(format!("{share:.2}"), middle, style))?;
        }
    }
    if count <= NAMED + 1 {
        for class in 0..count {
            let name = names
                .get(class as usize)
                .map_or("background", String::as_str);
            let name: String = name.chars().take(16).collect();
            let middle = i32::midpoint(y(class), y(class + 1));
            let style = text(SMALL, HPos::Right, VPos::Center);
            area.draw(&Text::new(name.clone(), (LEFT - 8, middle), style))?;
            let style = (FONT, SMALL)
                .into_font()
                .transform(FontTransform::Rotate270)
                .color(&BLACK)
                .pos(Pos::new(HPos::Right, VPos::Center));
            let middle = i32::midpoint(x(class), x(class + 1));
            area.draw(&Text::new(name, (middle, y(count) + 8), style))?;
        }
    }
    let title = "Found as (rows) what is really there (columns), as shares of the columns";
    let place = (SIDE as i32 / 2, 20);
    area.draw(&Text::new(
        title,
        place,
        text(LARGE, HPos::Center, VPos::Top),
    ))?;
    Ok(())
}

/// White to dark blue.
fn blue(share: f64) -> RGBColor {
    let between = |from: f64, to: f64| (from + (to - from) * share.clamp(0.0, 1.0)) as u8;
    RGBColor(
        between(247.0, 8.0),
        between(251.0, 48.0),
        between(255.0, 107.0),
    )
}
