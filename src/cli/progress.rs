//! What one transfer shows while it runs: a bar, a line every few seconds, or events.

use std::time::{Duration, Instant};

use indicatif::ProgressStyle;
use serde_json::json;
use wsferry::protocol::{OfferKind, Progress};
use wsferry::transfer::Event;

use super::bar::Bar;
use super::output::{Mode, Output};
use super::words;

/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Between two `progress` events.
const EVENT_INTERVAL: Duration = Duration::from_millis(500);

/// The view of one transfer.
pub struct View {
    output: Output,
    transfer: u64,
    name: String,
    bar: Option<Bar>,
    /// The bar over all files, if there are several: this one goes above it.
    overall: Option<Bar>,
    started: Instant,
    next_tell: Instant,
    is_endless: bool,
    has_bar: bool,
}

impl View {
    pub fn new(output: Output, transfer: u64, name: String, overall: Option<Bar>) -> Self {
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
                self.output.notice(&format!("{}: resuming at {}", self.name, words::size(*held)));
                if let Some(bar) = &self.bar {
                    bar.resume_at(*held);
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
                connection(&self.output, std::slice::from_ref(&self), None, event);
            }
            Event::Finished(_) | Event::Failed(_) => self.clear(),
            _ => {}
        }
    }

    /// Takes the bar off the screen.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.clear(&self.output);
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
            let bar = Bar::new(&self.output, self.overall.as_ref());
            bar.start(name, size);
            self.bar = Some(bar);
        }
        if self.output.mode == Mode::Human {
            self.next_tell = self.started + LINE_INTERVAL;
        }
    }

    fn progress(&mut self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.advance(progress.acknowledged, checking(progress));
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
                        (
                            format!(" of {}", words::size(total)),
                            format!(", {} left", words::duration(left as u64)),
                        )
                    }
                    None => Default::default(),
                };
                let checking = checking(progress).map(|percent| format!(", verifying {percent}%"));
                self.output.notice(&format!(
                    "{}: {}{of}, {}{left}{}",
                    self.name,
                    words::size(progress.acknowledged),
                    words::rate(rate),
                    checking.unwrap_or_default(),
                ));
            }
            _ => {}
        }
    }
}

/// Says what becomes of the connection: on the bars of what is under way, if there are any.
pub fn connection<V: std::ops::Deref<Target = View>>(
    output: &Output,
    views: &[V],
    overall: Option<&Bar>,
    event: &Event,
) {
    let one = if let [view] = views { Some(view) } else { None };
    let (transfer, name) = (one.map(|view| view.transfer), one.map(|view| &view.name));
    let bars: Vec<&Bar> = views.iter().filter_map(|view| view.bar.as_ref()).chain(overall).collect();
    let line = match event {
        Event::Connecting { to } => {
            output.event(json!({"event": "connecting", "transfer": transfer, "name": name, "to": to}));
            bars.iter().for_each(|bar| bar.connecting());
            format!("connecting to {to} ...")
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
            bars.iter().for_each(|bar| bar.cut(why, *delay, *attempt));
            format!("{why}; trying again in {seconds:.1} s (attempt {attempt})")
        }
        _ => return,
    };
    if bars.is_empty() {
        output.notice(&line);
    }
}

pub fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant").progress_chars("━╸─")
}

/// How far the comparison of what the receiver held is, in percent, while it runs.
fn checking(progress: &Progress) -> Option<u64> {
    let runs = progress.verified > 0 && progress.verified < progress.held;
    runs.then(|| progress.verified * 100 / progress.held)
}
