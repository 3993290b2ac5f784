//! The page: the picture, the table, what to do; it fits a phone.

use std::fmt::Write as _;

use super::plot;
use super::report::{COLUMNS, LEGEND, Report, Row};

/// A page that needs nothing else.
pub fn html(report: &Report, command: impl Fn(&Row) -> String) -> String {
    let best = report.recommended();
    let mut rows = String::new();
    for row in &report.rows {
        let class = if best.is_some_and(|best| best.setting == row.setting) { " class=best" } else { "" };
        let _ =
            writeln!(rows, "<tr{class}><td>{}", report.cells(row).map(|cell| escaped(&cell)).join("<td>"));
    }
    let heads = COLUMNS.map(|column| column.head).join("<th>");
    let choice = best.map(|row| format!("<pre>{}</pre>", escaped(&command(row)))).unwrap_or_default();
    let doubt = report.doubt().map(|doubt| format!("<p class=doubt>In doubt: {}.", escaped(doubt)));
    format!(
        "<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width, initial-scale=1\">
<title>wsferry bench</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
svg {{ max-width: 100%; height: auto }}
.wide {{ overflow-x: auto }}
pre {{ overflow-x: auto; padding: .6rem; background: #f4f4f4 }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }}
th, td {{ text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #e1e1e1; white-space: nowrap }}
.best {{ font-weight: 600; background: #eef6fb }}
.doubt {{ color: #a04000 }}
</style>
{}
<p>The smallest chunk within 3% of the fastest:
{choice}
{}
<div class=wide><table>
<tr><th>{heads}
{rows}</table></div>
<p>{LEGEND}. The I/O floor moves the same file over TCP with nothing else done.</p>
</html>
",
        plot::svg(report),
        doubt.unwrap_or_default(),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
