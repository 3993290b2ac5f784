//! What one transfer shows while it runs: a bar, a line every few seconds, or events.

use std::time::Instant;

use indicatif::ProgressStyle;
use wsferry::protocol::{OfferKind, Progress};
use wsferry::transfer::Event;

use super::bar::Bar;
use super::event::JsonEvent;
use super::outage::Outage;
use super::output::{Mode, Output};
use super::pulse::Pulse;
use super::words;

/// The view of one transfer.
pub struct View {
    output: Output,
    transfer: u64,
    name: String,
    bar: Option<Bar>,
    /// What stands for the bar where there is none.
    pulse: Option<Pulse>,
    outage: Outage,
    /// Nothing while it is not known.
    size: Option<u64>,
    is_one_of_many: bool,
}

impl View {
    pub fn new(output: Output, transfer: u64, name: String) -> Self {
        let (bar, pulse, outage) = Default::default();
        Self { output, transfer, name, bar, pulse, outage, size: None, is_one_of_many: false }
    }

    /// One of many: a bar over all of them is shown, or nothing.
    pub fn without_bar(self) -> Self {
        Self { is_one_of_many: true, ..self }
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
        self.size.is_none()
    }

    /// Others like it share a bar with it.
    pub fn is_one_of_many(&self) -> bool {
        self.is_one_of_many
    }

    /// Shows an event. `Finished` and `Failed` are left to the caller; the bar is gone by then.
    pub fn show(&mut self, event: &Event) {
        if is_life(event) {
            self.outage.end(&self.output, self.bar.is_none());
        }
        match event {
            Event::Started { name, kind, size, peer } => self.start(name, *kind, *size, peer),
            Event::Resumed { held } => {
                self.output.event(JsonEvent::Resumed {
                    transfer: self.transfer,
                    name: self.name.clone(),
                    offset: *held,
                });
                // What is there whole is to be repaired.
                let what = if self.size == Some(*held) { "comparing" } else { "resuming at" };
                self.output.notice(&format!("{}: {what} {}", self.name, words::size(*held)));
                if let Some(bar) = &self.bar {
                    bar.resume_at(*held);
                }
                if let Some(pulse) = &self.pulse {
                    pulse.resume_at(*held);
                }
            }
            Event::Progress(progress) => {
                if let Some(bar) = &self.bar {
                    bar.advance(progress.acknowledged, checking(progress));
                }
                if let Some(pulse) = &self.pulse {
                    pulse.note(progress);
                }
            }
            Event::Notice { what } => {
                self.output.event(JsonEvent::Notice {
                    transfer: Some(self.transfer),
                    name: Some(self.name.clone()),
                    reason: what.clone(),
                });
                self.output.notice(what);
            }
            Event::Connecting { .. } | Event::Reconnecting { .. } => {
                let mut outage = std::mem::take(&mut self.outage);
                connection(&self.output, std::slice::from_ref(&self), None, &mut outage, event);
                self.outage = outage;
            }
            Event::Finished(_) => {
                if let Some(pulse) = self.pulse.take() {
                    pulse.end();
                }
                self.clear();
            }
            Event::Failed(_) => self.clear(),
            _ => {}
        }
    }

    /// Takes the bar off the screen.
    pub fn clear(&mut self) {
        if let Some(pulse) = self.pulse.take() {
            pulse.flush();
        }
        self.bar = None;
    }

    fn start(&mut self, name: &str, kind: OfferKind, size: Option<u64>, peer: &str) {
        self.size = size;
        // A source that changed is begun again as what it became.
        self.clear();
        name.clone_into(&mut self.name);
        self.output.event(JsonEvent::Started {
            transfer: self.transfer,
            name: name.to_owned(),
            kind,
            size,
            peer: peer.to_owned(),
        });
        let is_shown = kind == OfferKind::File && !self.is_one_of_many;
        if is_shown && self.output.has_bars() {
            let bar = Bar::new(&self.output);
            bar.start(name, size);
            self.bar = Some(bar);
        } else if self.output.mode == Mode::Json || (is_shown && self.output.mode == Mode::Human) {
            self.pulse = Some(Pulse::new(self.output.clone(), self.transfer, name));
        }
    }
}

/// Whether an event comes of a connection that carries something.
pub fn is_life(event: &Event) -> bool {
    matches!(event, Event::Started { .. } | Event::Resumed { .. } | Event::Progress(_) | Event::Finished(_))
}

/// Says what becomes of the connection: on the bars of what is under way, if there are any.
pub fn connection<V: std::ops::Deref<Target = View>>(
    output: &Output,
    views: &[V],
    overall: Option<&Bar>,
    outage: &mut Outage,
    event: &Event,
) {
    let one = if let [view] = views { Some(view) } else { None };
    let (transfer, name) = (one.map(|view| view.transfer), one.map(|view| view.name.clone()));
    let bars: Vec<&Bar> = views.iter().filter_map(|view| view.bar.as_ref()).chain(overall).collect();
    match event {
        Event::Connecting { to } => {
            output.event(JsonEvent::Connecting { transfer, name, to: to.clone() });
            bars.iter().for_each(|bar| bar.connecting());
            if bars.is_empty() && !outage.lasts() {
                output.notice(&format!("connecting to {to} ..."));
            }
        }
        Event::Notice { what } => {
            output.event(JsonEvent::Notice { transfer, name, reason: what.clone() });
            output.notice(what);
        }
        Event::Reconnecting { delay, attempt, why } => {
            let is_first = outage.try_again(Instant::now());
            if is_first {
                views.iter().filter_map(|view| view.pulse.as_ref()).for_each(Pulse::flush);
            }
            output.event(JsonEvent::Reconnecting {
                transfer,
                name,
                seconds: delay.as_secs_f64(),
                attempt: *attempt,
                reason: why.clone(),
            });
            bars.iter().for_each(|bar| bar.cut(why, *delay, *attempt));
            if bars.is_empty() && is_first {
                output.warning("cut:", &format!(" {why}; trying again"));
            }
        }
        _ => {}
    }
}

pub fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant").progress_chars("━╸─")
}

/// How far the comparison of what the receiver held is, in percent, while it runs.
pub fn checking(progress: &Progress) -> Option<u64> {
    let runs = progress.verified > 0 && progress.verified < progress.held;
    runs.then(|| progress.verified * 100 / progress.held)
}
