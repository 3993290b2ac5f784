//! How far a transfer is, told as lines or events: not too often, and the last word before a standstill too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wsferry::protocol::Progress;
use wsferry::runtime;

use super::event::JsonEvent;
use super::output::{Mode, Output};
use super::progress::checking;
use super::rate::Rate;
use super::words;

/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Between two `progress` events.
const EVENT_INTERVAL: Duration = Duration::from_millis(500);

/// Tells of one transfer. Clones tell of the same.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Mutex<Telling>>);

#[derive(Debug)]
struct Telling {
    output: Output,
    transfer: u64,
    name: String,
    started: Instant,
    rate: Rate,
    /// Not before this.
    next: Instant,
    /// What was not told yet.
    pending: Option<Progress>,
    /// What was told last, and whether nothing has moved since.
    last: Option<Progress>,
    is_still: bool,
    /// It is told later what there is by then.
    is_awaited: bool,
}

impl Pulse {
    pub fn new(output: Output, transfer: u64, name: &str) -> Self {
        let now = Instant::now();
        let mut telling = Telling {
            output,
            transfer,
            name: name.to_owned(),
            started: now,
            rate: Rate::new(now, 0),
            next: now,
            pending: None,
            last: None,
            is_still: false,
            is_awaited: false,
        };
        telling.next += telling.interval();
        Self(Arc::new(Mutex::new(telling)))
    }

    fn telling(&self) -> MutexGuard<'_, Telling> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was held took no time: the rate counts from here.
    pub fn resume_at(&self, held: u64) {
        self.telling().rate = Rate::new(Instant::now(), held);
    }

    /// Tells it, now or in a while.
    pub fn note(&self, progress: &Progress) {
        let now = Instant::now();
        let mut telling = self.telling();
        telling.rate.advance(now, progress.acknowledged);
        telling.pending = Some(*progress);
        telling.is_still = false;
        if now >= telling.next {
            telling.tell(now);
        } else if !telling.is_awaited {
            telling.is_awaited = true;
            self.tell_later(telling.next);
        }
    }

    /// Tells what was not told yet: nothing more comes for a while.
    pub fn flush(&self) {
        let mut telling = self.telling();
        // People know that it began.
        let is_news = |progress: &Progress| progress.acknowledged > progress.held;
        if telling.output.mode == Mode::Json || telling.pending.as_ref().is_some_and(is_news) {
            telling.tell(Instant::now());
        }
        // That it stands still is said with why.
        telling.last = None;
    }

    /// Nothing more is to be told.
    pub fn end(&self) {
        let mut telling = self.telling();
        (telling.pending, telling.last) = (None, None);
    }

    fn tell_later(&self, at: Instant) {
        let telling = Arc::downgrade(&self.0);
        drop(runtime::spawn(async move {
            let mut at = at;
            loop {
                runtime::sleep(at.saturating_duration_since(Instant::now())).await;
                let Some(telling) = telling.upgrade() else { return };
                let mut telling = telling.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                if now >= telling.next && !telling.tell(now) {
                    telling.tell_still(now);
                    telling.is_awaited = false;
                    return;
                }
                at = telling.next;
            }
        }));
    }
}

impl Telling {
    fn interval(&self) -> Duration {
        if self.output.mode == Mode::Json { EVENT_INTERVAL } else { LINE_INTERVAL }
    }

    /// Tells what was not told yet. Whether there was something.
    fn tell(&mut self, now: Instant) -> bool {
        let Some(progress) = self.pending.take() else { return false };
        self.next = now + self.interval();
        let rate = self.rate.current(now);
        match self.output.mode {
            Mode::Json => {
                let new = progress.acknowledged.saturating_sub(progress.held);
                let average = new as f64 / now.duration_since(self.started).as_secs_f64().max(1e-9);
                self.output.passing_event(JsonEvent::Progress {
                    transfer: self.transfer,
                    name: self.name.clone(),
                    acknowledged: progress.acknowledged,
                    total: progress.total,
                    durable: progress.durable,
                    resumed_at: progress.held,
                    verified: progress.verified,
                    resent_bytes: progress.resent,
                    bytes_per_second: rate,
                    average_bytes_per_second: average,
                });
            }
            Mode::Human => {
                let left = progress.total.zip(rate).map(|(total, rate)| {
                    let left = total.saturating_sub(progress.acknowledged) as f64 / rate.max(1.0);
                    format!(", {} left", words::duration(left.ceil() as u64))
                });
                let rate = rate.map_or_else(String::new, |rate| format!(", {}", words::rate(rate)));
                let checking = checking(&progress).map(|percent| format!(", verifying {percent}%"));
                let (left, checking) = (left.unwrap_or_default(), checking.unwrap_or_default());
                self.output.notice(&format!("{}{rate}{left}{checking}", self.done(&progress)));
            }
            Mode::Quiet => {}
        }
        self.last = Some(progress);
        true
    }

    /// Says that nothing moves, once, to people.
    fn tell_still(&mut self, now: Instant) {
        let Some(last) = &self.last else { return };
        if self.output.mode == Mode::Human
            && !std::mem::replace(&mut self.is_still, true)
            && last.total != Some(last.acknowledged)
            && let Some(still) = self.rate.stalled(now)
        {
            let done = self.done(last);
            self.output.notice(&format!("{done}, stalled {}", words::duration(still.as_secs())));
        }
    }

    fn done(&self, progress: &Progress) -> String {
        let of = progress.total.map(|total| format!(" of {}", words::size(total)));
        format!("{}: {}{}", self.name, words::size(progress.acknowledged), of.unwrap_or_default())
    }
}
