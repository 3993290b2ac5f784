//! One line on the screen that follows a transfer, also while no event comes: time passes on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::board::Board;
use super::line::{self, State, Status};
use super::output::Output;
use super::paint::Paint;
use super::rate::Rate;

/// The line of one transfer, or of all of them, as long as it is there.
#[derive(Debug)]
pub struct Bar {
    board: Board,
    shown: Arc<Mutex<Shown>>,
}

/// What is known, of which the line is made when it is drawn.
#[derive(Debug)]
pub struct Shown {
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

    /// The line, at most so many cells wide.
    pub fn line(&self, columns: usize, paint: Paint) -> String {
        let state = self.state(Instant::now());
        line::painted(&line::line(&state, columns), &state.status, paint)
    }

    /// Bytes a second, as the line tells it.
    pub fn rate(&self) -> f64 {
        self.state(Instant::now()).rate.unwrap_or_default()
    }
}

impl Bar {
    /// A line for one transfer.
    pub fn new(output: &Output) -> Self {
        Self::on(output, false)
    }

    /// The line over all of them, below theirs.
    pub fn over_all(output: &Output) -> Self {
        Self::on(output, true)
    }

    fn on(output: &Output, is_last: bool) -> Self {
        let now = Instant::now();
        let shown =
            Shown { state: State::default(), rate: Rate::new(now, 0), started: now, doing: Doing::Moves };
        let (board, shown) = (output.board.clone(), Arc::new(Mutex::new(shown)));
        board.follow(shown.clone(), is_last);
        Self { board, shown }
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

    /// Of several files: how many are done, of how many, of how many bytes, and which one is on its way.
    pub fn advance_files(&self, files: (u64, Option<u64>), total: Option<u64>, name: &str) {
        self.change(|shown, _| {
            shown.state.files = Some(files);
            shown.state.total = total;
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

    fn change(&self, change: impl FnOnce(&mut Shown, Instant)) {
        change(&mut lock(&self.shown), Instant::now());
        self.board.draw(&self.shown);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.board.leave(&self.shown);
    }
}

pub fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}
