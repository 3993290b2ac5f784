//! The rows of the screen on which transfers are followed: never more than there are, however many run.

use std::fmt::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::bar::{self, Shown};
use super::line;
use super::paint::Paint;
use super::screen::Screen;

/// Between two looks at the clock: less than a second, so that a countdown leaves none out.
const TICK: Duration = Duration::from_millis(250);

/// What is followed, and the rows that show it. Clones are the same.
#[derive(Debug, Clone)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bars: MultiProgress,
    paint: Paint,
    followed: Mutex<Followed>,
    rows: Mutex<Vec<ProgressBar>>,
    /// How many rows there are, for what draws one of them.
    count: AtomicUsize,
    ticks: Once,
}

#[derive(Debug, Default)]
struct Followed {
    /// From the top.
    transfers: Vec<Arc<Mutex<Shown>>>,
    /// Below them.
    all: Option<Arc<Mutex<Shown>>>,
}

/// What a row shows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Row {
    /// The transfer of this number.
    Of(usize),
    /// Those that have no row.
    More(Range<usize>),
    /// The line over all of them.
    All,
    Nothing,
}

/// What stands in a row, of so many: all that fit, in the end how many do not, and the line over all.
fn row(at: usize, rows: usize, transfers: usize, has_all: bool) -> Row {
    let room = rows - usize::from(has_all).min(rows);
    let shown = if transfers > room { room.saturating_sub(1) } else { transfers };
    match at {
        at if at < shown => Row::Of(at),
        at if at == shown && shown < transfers && room > 0 => Row::More(shown..transfers),
        at if has_all && at + 1 == rows => Row::All,
        _ => Row::Nothing,
    }
}

impl Board {
    pub fn new(bars: MultiProgress, paint: Paint) -> Self {
        let (followed, rows) = Default::default();
        let (count, ticks) = (AtomicUsize::new(0), Once::new());
        Self(Arc::new(Inner { bars, paint, followed, rows, count, ticks }))
    }

    /// Gives a transfer a row; or the last row to all of them.
    pub fn follow(&self, shown: Arc<Mutex<Shown>>, is_last: bool) {
        {
            let mut followed = self.0.followed();
            if is_last { followed.all = Some(shown) } else { followed.transfers.push(shown) }
        }
        self.0.fit();
        self.keep_ticking();
    }

    /// Takes it off the screen.
    pub fn leave(&self, shown: &Arc<Mutex<Shown>>) {
        {
            let mut followed = self.0.followed();
            followed.transfers.retain(|other| !Arc::ptr_eq(other, shown));
            followed.all.take_if(|all| Arc::ptr_eq(all, shown));
        }
        self.0.fit();
    }

    /// Draws the row that shows it.
    pub fn draw(&self, shown: &Arc<Mutex<Shown>>) {
        let at = self.0.followed().transfers.iter().position(|other| Arc::ptr_eq(other, shown));
        let bar = {
            let rows = self.0.rows();
            at.and_then(|at| rows.get(at)).or(rows.last()).cloned()
        };
        // Drawing asks for what is followed.
        if let Some(bar) = bar {
            bar.tick();
        }
    }

    /// Draws all rows again and again, as long as there are any to come: one thread for all of them.
    fn keep_ticking(&self) {
        self.0.ticks.call_once(|| {
            let board = Arc::downgrade(&self.0);
            std::thread::spawn(move || {
                loop {
                    std::thread::sleep(TICK);
                    let Some(board) = board.upgrade() else { return };
                    board.fit();
                }
            });
        });
    }
}

impl Inner {
    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows(&self) -> MutexGuard<'_, Vec<ProgressBar>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has as many rows as are needed and fit, and draws them. One row is left to the cursor.
    fn fit(self: &Arc<Self>) {
        let mut rows = self.rows();
        let needed = {
            let followed = self.followed();
            followed.transfers.len() + usize::from(followed.all.is_some())
        };
        let wanted = needed.min(Screen::rows().saturating_sub(1).max(1));
        self.count.store(wanted, Ordering::Relaxed);
        while rows.len() > wanted
            && let Some(bar) = rows.pop()
        {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
        while rows.len() < wanted {
            let (board, at) = (Arc::downgrade(self), rows.len());
            let draw = move |_: &ProgressState, out: &mut dyn Write| {
                if let Some(board) = board.upgrade() {
                    let _ = out.write_str(&board.line(at));
                }
            };
            let style = ProgressStyle::with_template("{line}").expect("the template is a constant");
            let bar = self.bars.add(ProgressBar::no_length());
            bar.set_style(style.with_key("line", draw));
            rows.push(bar);
        }
        for bar in rows.iter() {
            bar.tick();
        }
    }

    /// What a row shows right now.
    fn line(&self, at: usize) -> String {
        let columns = Screen::columns();
        let followed = self.followed();
        let Followed { transfers, all } = &*followed;
        let row = row(at, self.count.load(Ordering::Relaxed), transfers.len(), all.is_some());
        match (row, all) {
            (Row::Of(transfer), _) => bar::lock(&transfers[transfer]).line(columns, self.paint),
            (Row::More(rest), _) => {
                let rate = transfers[rest.clone()].iter().map(|shown| bar::lock(shown).rate()).sum();
                line::more(rest.len(), rate, columns)
            }
            (Row::All, Some(all)) => bar::lock(all).line(columns, self.paint),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_row_is_counted_in_the_last_one_and_the_line_over_all_stays() {
        let rows = |rows, transfers, has_all| -> Vec<Row> {
            (0..rows).map(|at| row(at, rows, transfers, has_all)).collect()
        };
        assert_eq!(rows(3, 3, false), [Row::Of(0), Row::Of(1), Row::Of(2)]);
        assert_eq!(rows(3, 15, false), [Row::Of(0), Row::Of(1), Row::More(2..15)]);
        assert_eq!(rows(3, 2, true), [Row::Of(0), Row::Of(1), Row::All]);
        assert_eq!(rows(3, 5, true), [Row::Of(0), Row::More(1..5), Row::All]);
        assert_eq!((rows(1, 5, true), rows(1, 5, false)), (vec![Row::All], vec![Row::More(0..5)]));
        // Between two looks at how many there are.
        assert_eq!(rows(3, 0, true), [Row::Nothing, Row::Nothing, Row::All]);
        assert_eq!((rows(2, 1, false), rows(0, 4, true)), (vec![Row::Of(0), Row::Nothing], vec![]));
    }
}
