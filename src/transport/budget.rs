//! The memory that the connections of one receiver share.
//!
//! Each has a little of its own, enough for what is not a large frame. Before a frame that needs more is read, all that
//! it needs is taken from the budget at once, in the order in which it was asked for: whoever has begun to read can
//! read to the end, so that nobody waits for one who waits. What cannot be waited for is owed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use super::BUFFER;
use crate::protocol::MAX_FRAME;

/// What each connection has of its own.
pub(super) const BASE: usize = 16 * 1024;
/// What there is unless more or less is asked for: eighty senders with chunks of the usual size read at a time.
const DEFAULT: usize = 64 << 20;
/// The least that makes sense: one frame of any size can be read.
const LEAST: usize = MAX_FRAME + BUFFER;

/// Bytes that connections may take together, beyond the little that each has. Clones share them.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Less than nothing if more is owed than is there.
    left: isize,
    /// Who waits, the longest first.
    queue: VecDeque<Waiting>,
    last_ticket: u64,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    bytes: usize,
    waker: Waker,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(DEFAULT)
    }
}

impl Budget {
    /// So many bytes, or as many as the largest frame needs.
    pub fn new(bytes: usize) -> Self {
        let left = bytes.clamp(LEAST, isize::MAX as usize) as isize;
        Self(Arc::new(Mutex::new(State { left, queue: VecDeque::new(), last_ticket: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with it")
    }
}

impl State {
    /// There is more, or one less who waits: whose turn it is now shall look.
    fn call_next(&self) {
        if let Some(next) = self.queue.front()
            && next.bytes as isize <= self.left
        {
            next.waker.wake_by_ref();
        }
    }
}

/// What one connection has taken. It goes back when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// None if nobody shares.
    budget: Option<Budget>,
    taken: usize,
    owed: usize,
    /// In the queue.
    ticket: Option<u64>,
}

impl Share {
    pub(super) fn of(budget: Budget) -> Self {
        Self { budget: Some(budget), ..Self::default() }
    }

    /// How large a buffer may be.
    pub(super) fn limit(&self) -> usize {
        if self.budget.is_some() { self.taken.max(BASE) } else { usize::MAX }
    }

    /// Whether somebody waits.
    pub(super) fn is_wanted(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| !budget.state().queue.is_empty())
    }

    /// Whether it has anything to give back.
    pub(super) fn holds_any(&self) -> bool {
        self.taken > 0
    }

    /// Whether more is owed than there is.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.state().left < 0)
    }

    /// Ready once a buffer may be of so many bytes.
    pub(super) fn poll_take(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<()> {
        if bytes <= self.limit() {
            return Poll::Ready(());
        }
        let Some(budget) = &self.budget else { return Poll::Ready(()) };
        let mut state = budget.state();
        let more = bytes - self.taken;
        let place = state.queue.iter().position(|waiting| Some(waiting.ticket) == self.ticket);
        if place.unwrap_or(state.queue.len()) == 0 && more as isize <= state.left {
            if place.is_some() {
                state.queue.pop_front();
            }
            state.left -= more as isize;
            (self.taken, self.ticket) = (bytes, None);
            state.call_next();
            return Poll::Ready(());
        }
        match place {
            Some(place) => {
                let waiting = &mut state.queue[place];
                waiting.bytes = more;
                waiting.waker.clone_from(cx.waker());
            }
            None => {
                state.last_ticket += 1;
                let ticket = state.last_ticket;
                state.queue.push_back(Waiting { ticket, bytes: more, waker: cx.waker().clone() });
                self.ticket = Some(ticket);
            }
        }
        Poll::Pending
    }

    /// Takes so many bytes if they are there and nobody waits for them. Whether a buffer may be that large now.
    pub(super) fn try_take(&mut self, bytes: usize) -> bool {
        if bytes <= self.limit() {
            return true;
        }
        let Some(budget) = &self.budget else { return true };
        let mut state = budget.state();
        let more = bytes - self.taken;
        let granted = state.queue.is_empty() && more as isize <= state.left;
        if granted {
            state.left -= more as isize;
            self.taken = bytes;
        }
        granted
    }

    /// Counts bytes that are in use whether they are there or not: others wait the longer.
    pub(super) fn owe(&mut self, bytes: usize) {
        let bytes = bytes.saturating_sub(BASE);
        if bytes != self.owed
            && let Some(budget) = &self.budget
        {
            let mut state = budget.state();
            state.left += self.owed as isize - bytes as isize;
            self.owed = bytes;
            state.call_next();
        }
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&mut self) {
        if (self.taken > 0 || self.ticket.is_some())
            && let Some(budget) = &self.budget
        {
            let mut state = budget.state();
            state.left += self.taken as isize;
            if let Some(ticket) = self.ticket.take() {
                state.queue.retain(|waiting| waiting.ticket != ticket);
            }
            self.taken = 0;
            state.call_next();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.owe(0);
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::{ArcWake, noop_waker, waker};
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Default)]
    struct Called(AtomicBool);

    impl ArcWake for Called {
        fn wake_by_ref(called: &Arc<Self>) {
            called.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_share_waits_for_its_turn_and_is_called_when_there_is_room() {
        let budget = Budget::new(LEAST);
        let [mut first, mut second, mut third] = std::array::from_fn(|_| Share::of(budget.clone()));
        let called = Arc::new(Called::default());
        let waker = waker(called.clone());
        let cx = &mut Context::from_waker(&waker);
        assert!(first.poll_take(LEAST, cx).is_ready());
        assert!(second.poll_take(LEAST, cx).is_pending());
        // Small enough, but not its turn.
        first.owe(0);
        assert!(third.poll_take(BASE + 1, cx).is_pending());
        assert!(!third.try_take(BASE + 1) && third.limit() == BASE);
        assert!(first.is_wanted() && !called.0.load(Ordering::Relaxed));
        drop(first);
        assert!(called.0.load(Ordering::Relaxed));
        assert!(third.poll_take(BASE + 1, cx).is_pending());
        assert!(second.poll_take(LEAST, cx).is_ready());
        second.give_back();
        assert!(third.poll_take(BASE + 1, cx).is_ready());
    }

    #[test]
    fn who_waited_and_went_away_holds_nobody_up() {
        let budget = Budget::new(LEAST);
        let [mut first, mut second, mut third] = std::array::from_fn(|_| Share::of(budget.clone()));
        let waker = noop_waker();
        let cx = &mut Context::from_waker(&waker);
        assert!(first.poll_take(LEAST / 2, cx).is_ready());
        assert!(second.poll_take(LEAST, cx).is_pending());
        assert!(third.poll_take(LEAST / 4, cx).is_pending());
        drop(second);
        assert!(third.poll_take(LEAST / 4, cx).is_ready());
    }

    proptest! {
        #[test]
        fn no_more_is_taken_than_there_is_and_all_of_it_comes_back(
            steps in prop::collection::vec((0usize..6, 0usize..5, 0usize..LEAST), 0..200),
        ) {
            let budget = Budget::new(LEAST);
            let mut shares: Vec<Share> = (0..6).map(|_| Share::of(budget.clone())).collect();
            let waker = noop_waker();
            let cx = &mut Context::from_waker(&waker);
            for (share, step, bytes) in steps {
                match step {
                    0 => drop(shares[share].poll_take(bytes, cx)),
                    1 => drop(shares[share].try_take(bytes)),
                    2 => shares[share].owe(bytes / 8),
                    3 => shares[share].give_back(),
                    _ => shares[share] = Share::of(budget.clone()),
                }
                let (taken, owed) = shares.iter().fold((0, 0), |sum, share| (sum.0 + share.taken, sum.1 + share.owed));
                prop_assert!(taken <= LEAST);
                prop_assert_eq!(budget.state().left, LEAST as isize - taken as isize - owed as isize);
            }
            shares.clear();
            prop_assert_eq!(budget.state().left, LEAST as isize);
            prop_assert!(budget.state().queue.is_empty());
        }
    }
}
