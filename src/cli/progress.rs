//! What one transfer shows while it runs: a bar, a line every few seconds, or events.

use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, DecimalBytes, ProgressBar, ProgressStyle};
use serde_json::json;
use wsferry::protocol::{OfferKind, Progress};
use wsferry::transfer::Event;

use super::output::{Mode, Output};

/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Between two `progress` events.
const EVENT_INTERVAL: Duration = Duration::from_millis(500);
/// The columns of a name.
pub const NAME_WIDTH: usize = 24;

/// The view of one transfer.
pub struct View {
    output: Output,
    transfer: u64,
    name: String,
    bar: Option<ProgressBar>,
    /// The bar over all files, if there are several: this one goes above it.
    overall: Option<ProgressBar>,
    started: Instant,
    next_tell: Instant,
    is_endless: bool,
    has_bar: bool,
}

impl View {
    pub fn new(output: Output, transfer: u64, name: String, overall: Option<ProgressBar>) -> Self {
        let now = Instant::now();
        Self {
            output,
            transfer,
            name,
            bar: None,
            overall,
            started: now,
            next_tell: now,
            is_endless: false,
            has_bar: true,
        }
    }

    /// One of many: a bar over all of them is shown, or nothing.
    pub fn without_bar(self) -> Self {
        Self { has_bar: false, ..self }
    }

    /// The transfer's number.
    pub fn transfer(&self) -> u64 {
        self.transfer
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size is not known before its end.
    pub fn is_endless(&self) -> bool {
        self.is_endless
    }

    /// Shows an event. `Finished` and `Failed` are left to the caller; the bar is gone by then.
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Started { name, kind, size, peer } => self.start(name, *kind, *size, peer),
            Event::Resumed { held } => {
                self.output.event(json!({
                    "event": "resumed", "transfer": self.transfer, "name": self.name, "offset": held,
                }));
                self.output.notice(&format!("{}: resuming at {}", self.name, BinaryBytes(*held)));
                if let Some(bar) = &self.bar {
                    // The estimate counts from here: what was held took no time.
                    bar.set_position(*held);
                    bar.reset_eta();
                }
            }
            Event::Progress(progress) => self.progress(progress),
            Event::Notice { what } => {
                self.output.event(json!({
                    "event": "notice", "transfer": self.transfer, "name": self.name, "reason": what,
                }));
                self.output.notice(what);
            }
            Event::Connecting { .. } | Event::Reconnecting { .. } => {
                connection(&self.output, std::slice::from_ref(&self), event);
            }
            Event::Finished(_) | Event::Failed(_) => self.clear(),
            _ => {}
        }
    }

    /// Takes the bar off the screen.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            self.output.bars.remove(&bar);
        }
    }

    fn start(&mut self, name: &str, kind: OfferKind, size: Option<u64>, peer: &str) {
        self.is_endless = size.is_none();
        // A source that changed is begun again as what it became.
        self.clear();
        name.clone_into(&mut self.name);
        self.started = Instant::now();
        self.next_tell = self.started + LINE_INTERVAL.min(EVENT_INTERVAL);
        self.output.event(json!({
            "event": "started", "transfer": self.transfer, "name": name, "kind": kind, "size": size, "peer": peer,
        }));
        if self.has_bar
            && kind == OfferKind::File
            && self.output.mode == Mode::Human
            && !self.output.bars.is_hidden()
        {
            let new = size.map_or_else(ProgressBar::no_length, ProgressBar::new);
            let bar = match &self.overall {
                Some(overall) => self.output.bars.insert_before(overall, new),
                None => self.output.bars.add(new),
            };
            bar.set_style(style(match size {
                Some(_) => {
                    "{prefix:24!} {wide_bar} {bytes}/{total_bytes} {decimal_bytes_per_sec} {eta} {msg}"
                }
                None => "{prefix:24!} {bytes} {decimal_bytes_per_sec} {elapsed} {msg}",
            }));
            bar.set_prefix(shorten(name, NAME_WIDTH));
            self.bar = Some(bar);
        }
        if self.output.mode == Mode::Human {
            self.next_tell = self.started + LINE_INTERVAL;
        }
    }

    fn progress(&mut self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_position(progress.acknowledged);
            bar.set_message(checking(progress));
        }
        let now = Instant::now();
        if now < self.next_tell {
            return;
        }
        let new = progress.acknowledged.saturating_sub(progress.held);
        let rate = new as f64 / now.duration_since(self.started).as_secs_f64().max(1e-9);
        match self.output.mode {
            Mode::Json => {
                self.next_tell = now + EVENT_INTERVAL;
                self.output.passing_event(json!({
                    "event": "progress", "transfer": self.transfer, "name": self.name,
                    "acknowledged": progress.acknowledged, "total": progress.total,
                    "durable": progress.durable, "resumed_at": progress.held, "verified": progress.verified,
                    "resent_bytes": progress.resent, "bytes_per_second": rate,
                }));
            }
            Mode::Human if self.has_bar && self.bar.is_none() => {
                self.next_tell = now + LINE_INTERVAL;
                let (of, left) = match progress.total {
                    Some(total) => {
                        let left = total.saturating_sub(progress.acknowledged) as f64 / rate.max(1.0);
                        (format!(" of {}", BinaryBytes(total)), format!(", {left:.0} s left"))
                    }
                    None => Default::default(),
                };
                self.output.notice(&format!(
                    "{}: {}{of}, {}/s{left} {}",
                    self.name,
                    BinaryBytes(progress.acknowledged),
                    DecimalBytes(rate as u64),
                    checking(progress),
                ));
            }
            _ => {}
        }
    }
}

/// Says what becomes of the connection: on the bars of what is under way, if there are any.
pub fn connection<V: std::ops::Deref<Target = View>>(output: &Output, views: &[V], event: &Event) {
    let one = if let [view] = views { Some(view) } else { None };
    let (transfer, name) = (one.map(|view| view.transfer), one.map(|view| &view.name));
    let (text, line) = match event {
        Event::Connecting { to } => {
            output.event(json!({"event": "connecting", "transfer": transfer, "name": name, "to": to}));
            let text = format!("connecting to {to} ...");
            (text.clone(), text)
        }
        Event::Notice { what } => {
            output.event(json!({"event": "notice", "transfer": transfer, "name": name, "reason": what}));
            return output.notice(what);
        }
        Event::Reconnecting { delay, attempt, why } => {
            let seconds = delay.as_secs_f64();
            output.event(json!({
                "event": "reconnecting", "transfer": transfer, "name": name,
                "seconds": seconds, "attempt": attempt, "reason": why,
            }));
            let text = format!("trying again in {seconds:.1} s (attempt {attempt})");
            (text.clone(), format!("{why}; {text}"))
        }
        _ => return,
    };
    let bars: Vec<&ProgressBar> = views.iter().filter_map(|view| view.bar.as_ref()).collect();
    for bar in &bars {
        bar.set_message(text.clone());
    }
    if bars.is_empty() {
        output.notice(&line);
    }
}

/// The bar over all files.
pub fn overall(output: &Output) -> ProgressBar {
    let bar = output.bars.add(ProgressBar::new(0));
    bar.set_style(style("{prefix:24!} {wide_bar} {bytes}/{total_bytes} {decimal_bytes_per_sec} {eta} {msg}"));
    bar
}

pub fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant").progress_chars("━╸─")
}

/// How far the comparison of what the receiver held is, while it runs.
fn checking(progress: &Progress) -> String {
    if progress.held == 0 || progress.verified == 0 || progress.verified >= progress.held {
        return String::new();
    }
    format!("verifying {}%", progress.verified * 100 / progress.held)
}

/// A name that is at most `width` characters long: its middle gives way, so that the ending stays.
pub fn shorten(name: &str, width: usize) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= width {
        return name.to_owned();
    }
    let tail = (width - 1) / 2;
    let head = width - 1 - tail;
    chars[..head].iter().chain(&['…']).chain(&chars[chars.len() - tail..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_loses_its_middle_and_keeps_its_ending() {
        assert_eq!(shorten("short.txt", 24), "short.txt");
        let long = shorten("a-very-long-name-of-some-backup-2026-11-22.tar.zst", 24);
        assert_eq!(long.chars().count(), 24);
        assert!(long.starts_with("a-very-long-") && long.ends_with("-22.tar.zst"), "{long}");
        assert_eq!(shorten(&"é".repeat(300), 24).chars().count(), 24);
    }
}
