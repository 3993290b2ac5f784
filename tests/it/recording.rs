//! The recording that README.md shows: a real run, replayed by a terminal, drawn as one picture that moves.

use std::fmt::Write as _;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use serde_json::Value;
use vt100::Color;

use crate::proxy::{Plan, Proxy};
use crate::screen::Seen;
use crate::support::{Place, Receiver, random, wsferry};
use crate::terminal::start_on;

const COLUMNS: u16 = 100;
const ROWS: u16 = 5;
/// A cell, in pixels.
const CELL: (f64, f64) = (8.4, 19.0);
const MARGIN: f64 = 14.0;
/// Between two pictures.
const STEP: Duration = Duration::from_millis(150);
/// The last one stays for so long.
const REST: Duration = Duration::from_secs(5);

/// What stood on the screen from a moment on.
struct Picture {
    since: Duration,
    rows: Vec<String>,
}

#[test]
#[ignore = "takes half a minute; with WSFERRY_RECORDING=FILE it draws that file, as fixtures/recording.svg was"]
fn a_transfer_that_is_cut_is_recorded() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, &[]);
    let address = receiver.address();
    let plan = Plan { rate: Some(60_000_000), ..Plan::default() };
    let proxy = Proxy::start(address, move |_| (plan.clone(), Plan::default()));
    let file = place.file("backup.tar", &random(200_000_000, 1));
    let (mut seen, written) = Seen::new(COLUMNS);
    let mut command = wsferry();
    command.arg("send").arg(&file).arg(proxy.url()).env_remove("NO_COLOR");
    let began = Instant::now();
    let _sender = start_on(written, &mut command);
    let mut pictures = vec![Picture { since: Duration::ZERO, rows: Vec::new() }];
    let (mut back_at, mut is_back) = (None, false);
    // It ends with the program.
    while look(&mut seen, began, &mut pictures) {
        let is_half = |event: Value| event["acknowledged"].as_u64() > Some(90_000_000);
        if back_at.is_none() && receiver.running.try_event().is_some_and(is_half) {
            receiver.running.kill();
            back_at = Some(Instant::now() + Duration::from_secs(4));
        }
        if !is_back && back_at.is_some_and(|at| Instant::now() > at) {
            receiver = Receiver::start_on(&place, &address.to_string(), &[]);
            is_back = true;
        }
    }
    let text = pictures.iter().flat_map(|picture| &picture.rows).cloned().collect::<Vec<_>>().join("\n");
    for words in ["again in", "resuming at", "sent</tspan>"] {
        assert!(text.contains(words), "{words} is missing");
    }
    let svg = svg(&pictures, "wsferry send backup.tar ws://files.example:9000");
    assert!(svg.matches("<g").count() > 20, "it moves");
    if let Some(path) = std::env::var_os("WSFERRY_RECORDING") {
        std::fs::write(path, svg).unwrap();
    }
}

/// Takes what comes within a step. `false` once nothing more does.
fn look(seen: &mut Seen, began: Instant, pictures: &mut Vec<Picture>) -> bool {
    let end = Instant::now() + STEP;
    let goes_on = loop {
        match seen.bytes.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(bytes) => seen.parser.process(&bytes),
            Err(RecvTimeoutError::Timeout) => break true,
            Err(RecvTimeoutError::Disconnected) => break false,
        }
    };
    let screen = seen.parser.screen();
    let rows: Vec<String> = (0..ROWS).map(|row| spans(screen, row)).collect();
    if pictures.last().is_none_or(|last| last.rows != rows) {
        pictures.push(Picture { since: began.elapsed(), rows });
    }
    goes_on
}

/// A row as spans of one style each.
fn spans(screen: &vt100::Screen, row: u16) -> String {
    let mut spans: Vec<(&str, String)> = Vec::new();
    let written =
        |column: &u16| screen.cell(row, *column).is_some_and(|cell| !cell.contents().trim().is_empty());
    let width = (0..COLUMNS).rev().find(written).map_or(0, |last| last + 1);
    for column in 0..width {
        let Some(cell) = screen.cell(row, column).filter(|cell| !cell.is_wide_continuation()) else {
            continue;
        };
        let style = match cell.fgcolor() {
            Color::Idx(1) => "bad",
            Color::Idx(2) => "good",
            Color::Idx(3) => "doubtful",
            _ if cell.dim() => "faint",
            _ => "",
        };
        let text = if cell.has_contents() { cell.contents() } else { " " };
        match spans.last_mut() {
            Some((last, spanned)) if *last == style => spanned.push_str(text),
            _ => spans.push((style, text.to_owned())),
        }
    }
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let spans =
        spans.iter().map(|(style, text)| format!("<tspan class=\"{style}\">{}</tspan>", escaped(text)));
    spans.collect()
}

fn svg(pictures: &[Picture], command: &str) -> String {
    let (width, height) =
        (2.0 * MARGIN + CELL.0 * f64::from(COLUMNS), 2.0 * MARGIN + CELL.1 * f64::from(ROWS + 1));
    let whole = pictures.last().unwrap().since + REST;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"monospace\" \
         font-size=\"14\" fill=\"#ddd\">\n<style>text {{ white-space: pre }} .bad {{ fill: #ff6b6b; font-weight: bold }} \
         .good {{ fill: #69db7c }} .doubtful {{ fill: #ffd43b }} .faint {{ fill: #777 }}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#1b1e23\">\
         <animate id=\"run\" attributeName=\"opacity\" values=\"1\" dur=\"{:.2}s\" repeatCount=\"indefinite\"/></rect>\n",
        whole.as_secs_f64(),
    );
    let y = |row: usize| MARGIN + CELL.1 * (row as f64 + 0.8);
    let _ = writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"{:.1}\"><tspan class=\"faint\">$ </tspan>{command}</text>",
        y(0)
    );
    let ends = pictures[1..].iter().map(|next| next.since).chain([whole]);
    let last = pictures.len() - 1;
    for (number, (picture, end)) in pictures.iter().zip(ends).enumerate() {
        // Who does not animate sees the end.
        let hidden = if number == last { "" } else { " visibility=\"hidden\"" };
        let _ = write!(svg, "<g{hidden}>");
        let _ = write!(
            svg,
            "<animate attributeName=\"visibility\" dur=\"{:.2}s\" repeatCount=\"indefinite\" calcMode=\"discrete\" \
             values=\"hidden;visible;hidden\" keyTimes=\"0;{:.4};{:.4}\"/>",
            whole.as_secs_f64(),
            picture.since.as_secs_f64() / whole.as_secs_f64(),
            (end.as_secs_f64() / whole.as_secs_f64()).min(1.0),
        );
        for (row, text) in picture.rows.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
            let _ = write!(svg, "<text x=\"{MARGIN}\" y=\"{:.1}\">{text}</text>", y(row + 1));
        }
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}
