//! One run of a sender: what is to be sent, what is on its way, and what is known over all its connections.

mod transfer;

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::recovery::Facts;
use super::throttle::Throttle;
use super::{Error, Event, RetryOptions, SendOptions};
use crate::protocol::Path;
use crate::storage::{Entry, Skipped, SourceError};
pub(super) use transfer::Transfer;

/// Files that are opened ahead of being offered.
pub(super) const AHEAD: usize = 256;
/// Those that are looked at by one job.
const GROUP: usize = 64;
/// Bytes of small files that are kept between being hashed and being sent, all together; beyond, files are read twice.
const MOST_KEPT: u64 = 16 << 20;
/// The largest file that is kept.
const LARGEST_KEPT: u64 = 256 << 10;

/// What is still to be looked at, in order.
pub(super) type Items = Box<dyn Iterator<Item = Result<Entry, Skipped>> + Send>;

/// A thread that looks at some of them.
pub(super) type Looking = Pin<Box<dyn Future<Output = Prepared> + Send>>;

/// What is to be sent, and how far it is.
pub(super) struct Run {
    /// `None` while a thread looks at some of them.
    items: Option<Items>,
    /// That thread. It has the items, so a connection that ends meanwhile must not take it along.
    pub(super) looking: Option<Looking>,
    is_exhausted: bool,
    next_id: u64,
    /// Open, and to be offered next.
    pub(super) ready: VecDeque<Transfer>,
    /// To be offered behind all else, so that their times stay.
    directories: VecDeque<Transfer>,
    /// Bytes that are kept.
    kept: u64,
    /// To be offered on another connection, a little later, and why.
    pub(super) later: Vec<(Transfer, Error)>,
    pub(super) retry: RetryOptions,
    /// A receiver took or refused a file of this run: from then on a lost connection is a cut.
    pub(super) reached: bool,
    /// When a byte last moved, and the connections that ended since.
    pub(super) moved: Instant,
    pub(super) attempts: u32,
    /// Items that were meant to be sent and cannot even be offered.
    pub(super) unoffered: u64,
    /// How many files the receiver was told to expect behind the last offer.
    pub(super) owes: u64,
    pub(super) path: Path,
    /// How fast bytes may go.
    pub(super) throttle: Option<Throttle>,
}

/// Some items that were looked at.
pub(super) struct Prepared {
    pub(super) items: Items,
    looked_at: Vec<(u64, Result<Transfer, NotSent>)>,
    is_exhausted: bool,
}

/// Why something is not sent.
pub(super) enum NotSent {
    Skipped(Skipped),
    Failed(SourceError),
}

impl NotSent {
    /// What is told of it.
    pub(super) fn event(self) -> Event {
        match self {
            Self::Skipped(skipped) => Event::Skipped(skipped),
            Self::Failed(error) => Event::Failed(error.into()),
        }
    }

    /// Whether something is missing at the destination that was to be there.
    fn is_failure(&self) -> bool {
        match self {
            Self::Skipped(skipped) => skipped.is_failure(),
            Self::Failed(_) => true,
        }
    }
}

impl Run {
    pub(super) fn new(items: Items, next_id: u64, retry: RetryOptions, reached: bool, path: Path) -> Self {
        Self {
            items: Some(items),
            looking: None,
            is_exhausted: false,
            next_id,
            ready: VecDeque::new(),
            directories: VecDeque::new(),
            kept: 0,
            later: Vec::new(),
            retry,
            reached,
            moved: Instant::now(),
            attempts: 0,
            unoffered: 0,
            owes: 0,
            path,
            throttle: None,
        }
    }

    /// A run of one file.
    pub(super) fn of(transfer: Transfer, retry: RetryOptions, reached: bool, path: Path) -> Self {
        let mut run = Self::new(Box::new(std::iter::empty()), transfer.id + 1, retry, reached, path);
        run.is_exhausted = true;
        run.offer_last(transfer);
        run
    }

    /// The number of the next item.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Work for another thread: to look at the next items. `None` if enough are ready, or a thread is at it.
    pub(super) fn prepare(
        &mut self,
        options: &SendOptions,
    ) -> Option<impl FnOnce() -> Prepared + Send + 'static> {
        if self.is_exhausted || self.ready.len() >= AHEAD {
            return None;
        }
        let mut items = self.items.take()?;
        let (first, options) = (self.next_id, *options);
        let mut room = MOST_KEPT.saturating_sub(self.kept);
        Some(move || {
            let mut looked_at = Vec::with_capacity(GROUP);
            for id in first..first + GROUP as u64 {
                let Some(item) = items.next() else {
                    return Prepared { items, looked_at, is_exhausted: true };
                };
                let looked = match item {
                    Ok(entry) => Transfer::open(id, entry, &options, room).map_err(NotSent::Failed),
                    Err(skipped) => Err(NotSent::Skipped(skipped)),
                };
                room = room.saturating_sub(looked.as_ref().map_or(0, |transfer| transfer.kept));
                looked_at.push((id, looked));
            }
            Prepared { items, looked_at, is_exhausted: false }
        })
    }

    /// That work is done: gives what is not sent.
    pub(super) fn prepared(&mut self, prepared: Prepared) -> Vec<(u64, NotSent)> {
        self.items = Some(prepared.items);
        self.is_exhausted = prepared.is_exhausted;
        self.next_id += prepared.looked_at.len() as u64;
        let mut not_sent = Vec::new();
        for (id, looked) in prepared.looked_at {
            match looked {
                Ok(transfer) if transfer.is_directory() => self.directories.push_back(transfer),
                Ok(transfer) => self.offer_last(transfer),
                Err(why) => not_sent.push((id, why)),
            }
        }
        self.unoffered += not_sent.iter().filter(|(_, why)| why.is_failure()).count() as u64;
        not_sent
    }

    /// To be offered behind those that are ready. What is kept of it counts until it is let go.
    pub(super) fn offer_last(&mut self, transfer: Transfer) {
        self.kept += transfer.kept;
        self.ready.push_back(transfer);
    }

    /// To be offered before those that are ready.
    pub(super) fn offer_first(&mut self, transfer: Transfer) {
        self.kept += transfer.kept;
        self.ready.push_front(transfer);
    }

    /// The next to be offered; `alone` if no other is on its way. Who offers the last has to know that it is the last.
    pub(super) fn take_ready(&mut self, alone: bool) -> Option<Transfer> {
        if self.is_exhausted && self.ready.is_empty() && alone && self.later.is_empty() {
            self.ready.append(&mut self.directories);
        }
        let knows = self.is_exhausted || self.ready.len() > 1;
        if knows { self.ready.pop_front() } else { None }
    }

    /// The next to be offered cannot be read twice: it may have no size, which a receiver has to know of.
    pub(super) fn begins_with_stream(&self) -> bool {
        self.ready.front().is_some_and(|transfer| transfer.stream().is_some())
    }

    /// What was kept of a transfer was sent, or is not needed any more.
    pub(super) fn let_go(&mut self, transfer: &mut Transfer) {
        self.kept -= std::mem::take(&mut transfer.kept);
    }

    /// How many more were meant to be offered, at the least.
    pub(super) fn left(&self) -> u64 {
        let waiting = self.ready.len() + self.later.len() + self.directories.len();
        waiting as u64 + self.unoffered + u64::from(!self.is_exhausted)
    }

    /// Whether all that there is was taken, or has to wait for another connection.
    pub(super) fn is_taken(&self) -> bool {
        let waits = !self.later.is_empty() || self.directories.is_empty();
        self.is_exhausted && self.ready.is_empty() && waits
    }

    /// Bytes moved, or a file was done.
    pub(super) fn note_move(&mut self) {
        self.moved = Instant::now();
        self.attempts = 0;
    }

    pub(super) fn facts(&self, transfer: Option<&Transfer>) -> Facts {
        let changes = transfer.map_or(0, |transfer| transfer.changes);
        Facts {
            reached: self.reached,
            began: self.attempts > 0 || changes > 0 || transfer.is_some_and(|transfer| transfer.began),
            changes,
            // Where something moved since, some frame has passed, acknowledged or not.
            least_failed: self.path.least_failed().min(self.attempts),
            waits_for_name: self.retry.wait_for_name,
            idle: self.moved.elapsed(),
            retry_for: self.retry.retry_for,
        }
    }

    /// How long to wait before the next attempt, which is one more.
    pub(super) fn next_delay(&mut self) -> Duration {
        self.attempts += 1;
        self.retry.delay(self.attempts - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Source;

    #[test]
    fn what_is_kept_counts_until_it_is_let_go_wherever_a_transfer_came_from() {
        let dir = tempfile::tempdir().unwrap();
        let (path, options) = (dir.path().join("small"), SendOptions::default());
        std::fs::write(&path, [7; 1000]).unwrap();
        let open = || Transfer::of(0, Source::open(&path, None).unwrap(), &options).unwrap();

        let mut run = Run::of(open(), RetryOptions::default(), false, Path::default());
        assert_eq!(run.kept, 1000, "a run of one file");
        let mut sent = run.take_ready(true).unwrap();
        run.let_go(&mut sent);
        assert_eq!(run.kept, 0);

        let became = Source::open(&path, None).unwrap();
        run.offer_first(sent.change(became, &options).unwrap());
        assert_eq!(run.kept, 1000, "its source became another version");
        let mut sent = run.take_ready(true).unwrap();
        run.let_go(&mut sent);
        run.let_go(&mut sent);
        assert_eq!(run.kept, 0, "let go twice");

        run.offer_last(sent);
        assert_eq!(run.kept, 0, "nothing of it is kept any more");
    }
}
