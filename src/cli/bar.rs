//! One line on the screen that follows a transfer, also while no event comes: time passes on it.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle, WeakProgressBar};

use super::line::{self, State, Status};
use super::output::Output;
use super::screen::Screen;

/// The current rate is the one over this long.
const WINDOW: Duration = Duration::from_secs(5);
/// Steps of that: more would tell no more.
const STEP: Duration = Duration::from_millis(100);
/// After this long without a byte, it is said that nothing moves.
const STALLED: Duration = Duration::from_secs(3);
/// Between two looks at the clock: less than a second, so that a countdown leaves none out.
const TICK: Duration = Duration::from_millis(250);

/// The line of one transfer, or of all of them.
#[derive(Debug, Clone)]
pub struct Bar {
    bar: ProgressBar,
    shown: Arc<Mutex<Shown>>,
}

/// What is known, of which the line is made when it is drawn.
#[derive(Debug)]
struct Shown {
    state: State,
    rate: Rate,
    started: Instant,
    doing: Doing,
}

#[derive(Debug)]
enum Doing {
    Moves,
    Compares(u64),
    Connects,
    Waits { why: String, until: Instant, attempt: u32 },
}

/// The bytes of the last seconds.
#[derive(Debug)]
struct Rate {
    /// When how many were done, the oldest first; never empty.
    steps: VecDeque<(Instant, u64)>,
    /// When the last one came.
    moved: Instant,
    done: u64,
}

impl Rate {
    fn new(now: Instant, done: u64) -> Self {
        Self { steps: [(now, done)].into(), moved: now, done }
    }

    fn advance(&mut self, now: Instant, done: u64) {
        if done < self.done {
            // What was begun anew has no past.
            *self = Self::new(now, done);
        }
        if done == self.done {
            return;
        }
        (self.moved, self.done) = (now, done);
        if self.steps.back().is_none_or(|(at, _)| now.duration_since(*at) >= STEP) {
            self.steps.push_back((now, done));
        }
        // One that is older than the window stays, so that the window is always full.
        while self.steps.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.steps.pop_front();
        }
    }

    /// How long nothing has moved, if that is worth telling.
    fn stalled(&self, now: Instant) -> Option<Duration> {
        Some(now.duration_since(self.moved)).filter(|still| *still >= STALLED)
    }

    /// Bytes a second.
    fn current(&self, now: Instant) -> Option<f64> {
        let recent = self.steps.iter().rev().find(|(at, _)| now.duration_since(*at) >= WINDOW);
        let (at, done) = recent.or(self.steps.front())?;
        let new = self.done - done;
        (new > 0).then(|| new as f64 / now.duration_since(*at).as_secs_f64().max(0.001))
    }
}

impl Shown {
    fn state(&self, now: Instant) -> State {
        let (stalled, rate) = (self.rate.stalled(now), self.rate.current(now));
        let (status, rate) = match &self.doing {
            Doing::Moves => match stalled {
                Some(still) => (Status::Stalled(still.as_secs()), None),
                None => (Status::Moving, rate),
            },
            Doing::Compares(percent) => (Status::Verifying(*percent), rate.filter(|_| stalled.is_none())),
            Doing::Connects => (Status::Connecting, None),
            Doing::Waits { why, until, attempt } => {
                // A second that has begun counts: it is over at nought.
                let seconds = until.saturating_duration_since(now).as_secs_f64().ceil() as u64;
                (Status::Cut { why: why.clone(), seconds, attempt: *attempt }, None)
            }
        };
        let elapsed = now.duration_since(self.started).as_secs();
        State { rate, status, elapsed, ..self.state.clone() }
    }
}

impl Bar {
    /// A line above another one, or below all.
    pub fn new(output: &Output, above: Option<&Self>) -> Self {
        let now = Instant::now();
        let shown =
            Shown { state: State::default(), rate: Rate::new(now, 0), started: now, doing: Doing::Moves };
        let shown = Arc::new(Mutex::new(shown));
        let bar = ProgressBar::no_length();
        let bar = match above {
            Some(above) => output.bars.insert_before(&above.bar, bar),
            None => output.bars.add(bar),
        };
        let drawn = shown.clone();
        let draw = move |_: &ProgressState, out: &mut dyn Write| {
            let state = lock(&drawn).state(Instant::now());
            let _ = out.write_str(&line::line(&state, Screen::columns()));
        };
        let style = ProgressStyle::with_template("{line}").expect("the template is a constant");
        bar.set_style(style.with_key("line", draw));
        keep_ticking(bar.downgrade());
        Self { bar, shown }
    }

    /// A transfer begins.
    pub fn start(&self, name: &str, size: Option<u64>) {
        self.change(|shown, _| {
            name.clone_into(&mut shown.state.name);
            shown.state.total = size;
        });
    }

    /// What was held took no time: the rate counts from here.
    pub fn resume_at(&self, held: u64) {
        self.change(|shown, now| {
            shown.rate = Rate::new(now, held);
            shown.state.done = held;
            shown.doing = Doing::Moves;
        });
    }

    /// So many bytes are done, and so many percent of what was held are compared.
    pub fn advance(&self, done: u64, compared: Option<u64>) {
        self.change(|shown, now| {
            shown.rate.advance(now, done);
            shown.state.done = done;
            if let Doing::Connects | Doing::Waits { .. } = shown.doing {
                // Nothing could move while there was no connection.
                shown.rate = Rate::new(now, done);
            }
            shown.doing = compared.map_or(Doing::Moves, Doing::Compares);
        });
    }

    /// Of several files: how many are done, of how many, and which one is on its way.
    pub fn advance_files(&self, files: (u64, u64), total: u64, name: &str) {
        self.change(|shown, _| {
            shown.state.files = Some(files);
            shown.state.total = Some(total);
            if shown.state.name != name {
                name.clone_into(&mut shown.state.name);
            }
        });
    }

    pub fn connecting(&self) {
        self.change(|shown, _| shown.doing = Doing::Connects);
    }

    pub fn cut(&self, why: &str, delay: Duration, attempt: u32) {
        self.change(|shown, now| {
            shown.doing = Doing::Waits { why: why.to_owned(), until: now + delay, attempt };
        });
    }

    /// Takes it off the screen.
    pub fn clear(&self, output: &Output) {
        self.bar.finish_and_clear();
        output.bars.remove(&self.bar);
    }

    fn change(&self, change: impl FnOnce(&mut Shown, Instant)) {
        change(&mut lock(&self.shown), Instant::now());
        self.bar.tick();
    }
}

fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Draws a bar again and again as long as it is there: one thread for all of them.
fn keep_ticking(bar: WeakProgressBar) {
    static BARS: Mutex<Vec<WeakProgressBar>> = Mutex::new(Vec::new());
    static THREAD: Once = Once::new();
    let bars = || BARS.lock().unwrap_or_else(PoisonError::into_inner);
    bars().push(bar);
    THREAD.call_once(|| {
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(TICK);
                bars().retain(|bar| bar.upgrade().is_some());
                let all: Vec<ProgressBar> = bars().iter().filter_map(WeakProgressBar::upgrade).collect();
                all.iter().for_each(ProgressBar::tick);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds_and_ends_where_nothing_moves() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut rate = Rate::new(start, 1_000_000_000);
        assert_eq!(rate.current(start), None);
        for second in 1..=20 {
            rate.advance(at(second * 1000), 1_000_000_000 + second * 1_000_000);
        }
        assert_eq!(rate.current(at(20_000)), Some(1_000_000.0));
        for second in 21..=25 {
            rate.advance(at(second * 1000), 1_020_000_000 + (second - 20) * 9_000_000);
        }
        assert_eq!(rate.current(at(25_000)), Some(9_000_000.0));
        assert_eq!((rate.stalled(at(27_900)), rate.stalled(at(28_000))), (None, Some(STALLED)));
        assert_eq!(rate.current(at(31_000)), None);
        rate.advance(at(32_000), 0);
        assert_eq!((rate.stalled(at(32_000)), rate.current(at(32_000))), (None, None));
    }
}
