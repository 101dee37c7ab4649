//! How labels are distributed: over classes, places and sizes.

use image::RgbImage;
use plotters::prelude::*;
use trainer_core::boxes::Xywh;

use crate::chart::{self, Area, ChartError, FONT, Failure, LARGE, SMALL};

const SIZE: (u32, u32) = (1400, 1000);
/// Cells of a density plot, along each axis.
const CELLS: usize = 50;
/// Boxes that are drawn over each other.
const BOXES: usize = 500;
/// Most classes whose names are written.
const NAMED: usize = 30;

/// Four charts of `labels`, each a class and a box in fractions of its image: labels of each class, boxes over each
/// other with their centres at one place, where centres are, and how large boxes are.
pub fn label_distribution(
    labels: &[(u16, Xywh)],
    names: &[String],
) -> Result<RgbImage, ChartError> {
    chart::picture("labels.png", SIZE, |area| {
        let parts = area.split_evenly((2, 2));
        let [classes, boxes, places, sizes] = &parts[..] else {
            return Ok(());
        };
        histogram(classes, labels, names)?;
        outlines(boxes, labels)?;
        let centres = labels.iter().map(|(_, b)| (b.x, b.y));
        density(places, "Centres", ["x", "y"], centres)?;
        let extents = labels.iter().map(|(_, b)| (b.w, b.h));
        density(sizes, "Sizes", ["width", "height"], extents)
    })
}

fn histogram(area: &Area<'_>, labels: &[(u16, Xywh)], names: &[String]) -> Result<(), Failure> {
    let mut counts = vec![0_u64; names.len().max(1)];
    for (class, _) in labels {
        if let Some(count) = counts.get_mut(usize::from(*class)) {
            *count += 1;
        }
    }
    let most = counts.iter().max().copied().unwrap_or(0).max(1);
    let last = counts.len() as u32 - 1;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .caption("Labels of each class", (FONT, LARGE))
        .x_label_area_size(30)
        .y_label_area_size(70)
        .build_cartesian_2d((0..last).into_segmented(), 0..most + most / 20)?;
    let name = |place: &SegmentValue<u32>| match place {
        SegmentValue::CenterOf(class) => names
            .get(*class as usize)
            .map_or_else(String::new, |name| name.chars().take(12).collect()),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(if names.len() <= NAMED {
            names.len()
        } else {
            10
        })
        .x_label_formatter(&name)
        .label_style((FONT, SMALL))
        .draw()?;
    let bars = Histogram::vertical(&chart)
        .style_func(|place, _| match place {
            SegmentValue::CenterOf(class) | SegmentValue::Exact(class) => {
                chart::colour(*class as u16).filled()
            }
            SegmentValue::Last => BLACK.filled(),
        })
        .margin(4)
        .data((0..).zip(counts));
    chart.draw_series(bars)?;
    Ok(())
}

fn outlines(area: &Area<'_>, labels: &[(u16, Xywh)]) -> Result<(), Failure> {
    let mut chart = unit_chart(area, "Boxes, centres in the middle", ["", ""])?;
    // Evenly over the data set, so that the picture does not depend on the order of its folders.
    let step = labels.len().div_ceil(BOXES).max(1);
    chart.draw_series(labels.iter().step_by(step).map(|(class, b)| {
        let (w, h) = (f64::from(b.w) / 2.0, f64::from(b.h) / 2.0);
        let corners = [(0.5 - w, 0.5 - h), (0.5 + w, 0.5 + h)];
        Rectangle::new(corners, chart::colour(*class).mix(0.5))
    }))?;
    Ok(())
}

fn density(
    area: &Area<'_>,
    title: &str,
    axes: [&str; 2],
    points: impl Iterator<Item = (f32, f32)>,
) -> Result<(), Failure> {
    let mut counts = vec![0_u32; CELLS * CELLS];
    let cell = |value: f32| ((value * CELLS as f32) as usize).min(CELLS - 1);
    for (x, y) in points {
        counts[cell(y) * CELLS + cell(x)] += 1;
    }
    let most = f64::from(counts.iter().max().copied().unwrap_or(0).max(1));
    let mut chart = unit_chart(area, title, axes)?;
    let size = 1.0 / CELLS as f64;
    let filled = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    chart.draw_series(filled.map(|(k, count)| {
        let (x, y) = ((k % CELLS) as f64 * size, (k / CELLS) as f64 * size);
        // The root shows rare places too.
        let share = (f64::from(*count) / most).sqrt();
        Rectangle::new(
            [(x, y), (x + size, y + size)],
            RGBColor(20, 60, 160).mix(0.1 + 0.9 * share).filled(),
        )
    }))?;
    Ok(())
}

type Unit<'a, 'b> = ChartContext<
    'b,
    BitMapBackend<'a>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

/// Axes from 0 to 1.
fn unit_chart<'a, 'b>(
    area: &'b Area<'a>,
    title: &str,
    [x, y]: [&str; 2],
) -> Result<Unit<'a, 'b>, Failure> {
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .caption(title, (FONT, LARGE))
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc(x)
        .y_desc(y)
        .label_style((FONT, SMALL))
        .axis_desc_style((FONT, SMALL))
        .draw()?;
    Ok(chart)
}
