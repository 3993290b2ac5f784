//! The picture: rate by chunk size, error bars over the runs, the I/O floor as a line.

use plotters::coord::combinators::{BindKeyPoints, IntoLogRange};
use plotters::prelude::*;

use super::report::{Report, per_second, size};

const WIDTH: u32 = 960;
const HEIGHT: u32 = 560;
/// One for each window; told apart by those who see no red and green, too.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
/// The width of the axis below the points, and of a label there, roughly.
const AXIS: f64 = 820.0;
const LABEL: f64 = 74.0;
const GREY: RGBColor = RGBColor(90, 90, 90);
const PALE: RGBColor = RGBColor(225, 225, 225);

/// The picture as SVG.
pub fn svg(report: &Report) -> String {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
    draw(report, &root).expect("drawing into a string does not fail");
    drop(root);
    svg
}

fn draw<DB: DrawingBackend>(
    report: &Report,
    root: &DrawingArea<DB, plotters::coord::Shift>,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    root.fill(&WHITE)?;
    let mut chunks: Vec<f64> = report.rows.iter().map(|row| row.setting.chunk.raw() as f64).collect();
    chunks.sort_by(f64::total_cmp);
    chunks.dedup();
    let (Some(&first), Some(&last)) = (chunks.first(), chunks.last()) else { return Ok(()) };
    let rates = report.rows.iter().map(|row| row.rate(report.size).max);
    let top = rates.chain(report.floor().map(|floor| floor.median)).fold(0.0, f64::max) * 1.12;

    let mut chart = ChartBuilder::on(root)
        .caption(format!("wsferry, {}", report.title()), ("sans-serif", 22))
        .margin(18)
        .x_label_area_size(56)
        .y_label_area_size(100)
        .build_cartesian_2d(
            (first / 1.3..last * 1.3).log_scale().with_key_points(labelled(&chunks)),
            0.0..top,
        )?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(PALE)
        .light_line_style(TRANSPARENT)
        .axis_style(GREY)
        .x_desc("chunk size, raw bytes")
        .y_desc("rate of the file, median and range of the runs")
        .x_label_formatter(&|chunk| size(chunk.round() as u64))
        .y_label_formatter(&|rate| per_second(*rate))
        .label_style(("sans-serif", 17))
        .draw()?;
    if let Some(floor) = report.floor() {
        let line = [(first / 1.3, floor.median), (last * 1.3, floor.median)];
        chart
            .draw_series(DashedLineSeries::new(line, 8, 5, GREY.stroke_width(2)))?
            .label(format!("I/O floor, {}", per_second(floor.median)))
            .legend(|(x, y)| {
                plotters::element::DashedPathElement::new([(x, y), (x + 20, y)], 5, 4, GREY.stroke_width(2))
            });
    }
    let mut windows: Vec<u64> = report.rows.iter().map(|row| row.setting.window).collect();
    windows.sort_unstable();
    windows.dedup();
    for (window, colour) in windows.into_iter().zip(COLOURS.into_iter().cycle()) {
        let mut points: Vec<_> = report
            .rows
            .iter()
            .filter(|row| row.setting.window == window)
            .map(|row| (row.setting.chunk.raw() as f64, row.rate(report.size)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        chart
            .draw_series(LineSeries::new(
                points.iter().map(|(chunk, rate)| (*chunk, rate.median)),
                colour.stroke_width(2),
            ))?
            .label(format!("window {}", size(window)))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|(chunk, rate)| {
            ErrorBar::new_vertical(*chunk, rate.min, rate.median, rate.max, colour.filled(), 8)
        }))?;
    }
    if let Some(best) = report.recommended() {
        let point = (best.setting.chunk.raw() as f64, best.rate(report.size).median);
        let name = format!("recommended: {}", size(best.setting.chunk.raw()));
        chart
            .draw_series(std::iter::once(Circle::new(point, 9, BLACK.stroke_width(2))))?
            .label(name)
            .legend(|(x, y)| Circle::new((x + 10, y), 6, BLACK.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(PALE)
        .label_font(("sans-serif", 17))
        .draw()?;
    root.present()
}

/// The chunk sizes that have room for a label, the first and, if it has, the last among them.
fn labelled(chunks: &[f64]) -> Vec<f64> {
    let (Some(&first), Some(&last)) = (chunks.first(), chunks.last()) else { return Vec::new() };
    // The axis goes a little further on both sides.
    let octave = AXIS / ((last / first).log2() + 2.0 * 1.3_f64.log2());
    let apart = |a: f64, b: f64| (b / a).log2() * octave >= LABEL;
    let mut labelled = vec![first];
    for &chunk in &chunks[1..] {
        let before = labelled[labelled.len() - 1];
        if apart(before, chunk) && (chunk == last || apart(chunk, last)) {
            labelled.push(chunk);
        }
    }
    labelled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_collide_and_the_ends_have_theirs() {
        let chunks = [12, 24, 48, 96, 192, 384, 576, 768, 1536, 3072].map(f64::from);
        assert_eq!(labelled(&chunks), [12, 24, 48, 96, 192, 384, 768, 1536, 3072].map(f64::from));
        assert_eq!(labelled(&[12.0]), [12.0]);
        let dense: Vec<f64> = (1..200).map(f64::from).collect();
        let labels = labelled(&dense);
        assert!(labels.len() > 5 && labels.len() <= 12, "{labels:?}");
        assert_eq!((labels[0], labels[labels.len() - 1]), (1.0, 199.0));
    }
}
