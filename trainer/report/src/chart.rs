//! Line charts as pictures, without fonts or libraries of the system.

use std::ops::Range;
use std::sync::Once;

use image::RgbImage;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

/// A picture could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw {what}: {why}")]
pub struct ChartError {
    /// The picture.
    pub what: &'static str,
    /// What the drawing library said.
    pub why: String,
}

/// What is drawn on.
pub(crate) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
/// A step of drawing went wrong.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// The one family there is: `DejaVu` Sans, which is part of the program (its licence is that of Bitstream Vera).
pub(crate) const FONT: &str = "sans";
/// Of lines of text, in pixels.
pub(crate) const SMALL: u32 = 15;
pub(crate) const LARGE: u32 = 20;
/// A line that stands for all classes.
pub(crate) const ALL_CLASSES: RGBColor = RGBColor(30, 60, 220);

/// One line of a chart.
pub(crate) struct Line {
    /// In the legend; a line without a label is not in it.
    pub label: Option<String>,
    pub colour: RGBColor,
    pub width: u32,
    pub points: Vec<(f64, f64)>,
}

/// What a chart is about.
pub(crate) struct Axes<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
    pub x_range: Range<f64>,
    pub y_range: Range<f64>,
}

/// A white picture of `size`, on which `paint` draws; `what` names it in errors.
pub(crate) fn picture(
    what: &'static str,
    (width, height): (u32, u32),
    paint: impl FnOnce(&Area<'_>) -> Result<(), Failure>,
) -> Result<RgbImage, ChartError> {
    static FONTS: Once = Once::new();
    // The bytes are part of this program; a fault of theirs would show as a failure to draw text.
    FONTS.call_once(|| {
        drop(register_font(
            FONT,
            FontStyle::Normal,
            dejavu::sans::regular(),
        ));
    });
    let failed = |why: String| ChartError { what, why };
    let mut pixels = RgbImage::new(width, height);
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        area.fill(&WHITE)
            .map_err(Failure::from)
            .and_then(|()| paint(&area))
            .and_then(|()| area.present().map_err(Failure::from))
            .map_err(|error| failed(error.to_string()))?;
    }
    Ok(pixels)
}

/// A number on an axis, without the digits that rounding adds.
fn number(value: f64) -> String {
    format!("{}", (value * 1e6).round() / 1e6)
}

/// Draws `lines` over axes, with a legend if any of them has a label.
pub(crate) fn lines(area: &Area<'_>, axes: &Axes<'_>, lines: &[Line]) -> Result<(), Failure> {
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .caption(axes.title, (FONT, LARGE))
        .x_label_area_size(if axes.x.is_empty() { 25 } else { 45 })
        .y_label_area_size(if axes.y.is_empty() { 60 } else { 70 })
        .build_cartesian_2d(axes.x_range.clone(), axes.y_range.clone())?;
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_label_formatter(&|x| number(*x))
        .label_style((FONT, SMALL))
        .axis_desc_style((FONT, SMALL))
        .draw()?;
    for line in lines {
        let style = line.colour.stroke_width(line.width);
        let series = chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        if let Some(label) = &line.label {
            series
                .label(label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
    }
    if lines.iter().any(|line| line.label.is_some()) {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font((FONT, SMALL))
            .draw()?;
    }
    Ok(())
}

/// A colour for each class: hues a golden section apart, so that neighbouring classes differ most.
pub(crate) fn colour(class: u16) -> RGBColor {
    let hue = (f64::from(class) * 0.618_034).fract();
    let (r, g, b) = HSLColor(hue, 0.75, 0.42).rgb();
    RGBColor(r, g, b)
}

/// A range that holds all finite `values`, with some room, and is never empty.
pub(crate) fn range_of(values: impl Iterator<Item = f64>) -> Range<f64> {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return 0.0..1.0;
    }
    let room = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-6);
    low - room..high + room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_values_and_are_never_empty() {
        let of = |values: &[f64]| range_of(values.iter().copied());
        assert_eq!(0.0..1.0, of(&[]));
        assert_eq!(0.0..1.0, of(&[f64::NAN]));
        for values in [&[3.0, 3.0][..], &[0.0, 0.0], &[-1.0, f64::INFINITY, 2.0]] {
            let range = of(values);
            assert!(range.start < range.end);
            let mut finite = values.iter().filter(|value| value.is_finite());
            assert!(finite.all(|value| range.contains(value)));
        }
    }
}
