//! The picture: rate by chunk size, error bars over the runs, the I/O floor as a line.

use std::fmt::Write as _;

use plotters::coord::combinators::{BindKeyPoints, IntoLogRange};
use plotters::prelude::*;

use super::{Report, per_second, size};

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
        .build_cartesian_2d((first / 1.3..last * 1.3).log_scale().with_key_points(chunks), 0.0..top)?;
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
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(PALE)
        .label_font(("sans-serif", 17))
        .draw()?;
    root.present()
}

/// A page with the picture and the table.
pub fn html(report: &Report) -> String {
    let mut rows = String::new();
    for row in &report.rows {
        let rate = row.rate(report.size);
        let or_dash = |figure: Option<f64>, unit: &str| {
            figure.map_or("–".to_owned(), |figure| format!("{figure:.2}{unit}"))
        };
        let (sender, receiver) = report.cpu(row);
        let memory = Report::memory(row).map(|bytes| bytes / 1048576.0);
        let best = report.recommended().is_some_and(|best| best.setting == row.setting);
        let _ = writeln!(
            rows,
            "<tr{}><td>{}<td>{}<td>{}<td>{} – {}<td>{}<td>{}<td>{}<td>+{:.2} %<td>{}",
            if best { " class=best" } else { "" },
            size(row.setting.chunk.raw()),
            size(row.setting.window),
            per_second(rate.median),
            per_second(rate.min),
            per_second(rate.max),
            or_dash(report.of_floor(row), ""),
            or_dash(sender, ""),
            or_dash(receiver, ""),
            report.overhead(row),
            or_dash(memory, " MiB"),
        );
    }
    format!(
        "<!doctype html>
<html lang=en><meta charset=utf-8><title>wsferry bench</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
svg {{ max-width: 100%; height: auto }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }}
th, td {{ text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #e1e1e1 }}
td {{ white-space: nowrap }}
.best {{ font-weight: 600; background: #eef6fb }}
</style>
{}
<table>
<tr><th>chunk<th>window<th>rate<th>from, to<th>of floor<th>sender CPU s/GB<th>receiver CPU s/GB<th>wire<th>memory
{rows}</table>
<p>The line in bold has the smallest chunk within 3% of the fastest. The I/O floor moves the same file over TCP with
nothing else done.</p>
</html>
",
        svg(report)
    )
}
