//! How fast bytes come right now, and whether any do.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The current rate is the one over this long.
const WINDOW: Duration = Duration::from_secs(5);
/// Steps of that: more would tell no more.
const STEP: Duration = Duration::from_millis(100);
/// After this long without a byte, it is said that nothing moves.
const STALLED: Duration = Duration::from_secs(3);

/// The bytes of the last seconds.
#[derive(Debug)]
pub struct Rate {
    /// When how many were done, the oldest first; never empty.
    steps: VecDeque<(Instant, u64)>,
    /// When the last one came.
    moved: Instant,
    done: u64,
}

impl Rate {
    pub fn new(now: Instant, done: u64) -> Self {
        Self { steps: [(now, done)].into(), moved: now, done }
    }

    pub fn advance(&mut self, now: Instant, done: u64) {
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
    pub fn stalled(&self, now: Instant) -> Option<Duration> {
        Some(now.duration_since(self.moved)).filter(|still| *still >= STALLED)
    }

    /// Bytes a second.
    pub fn current(&self, now: Instant) -> Option<f64> {
        let recent = self.steps.iter().rev().find(|(at, _)| now.duration_since(*at) >= WINDOW);
        let (at, done) = recent.or(self.steps.front())?;
        let new = self.done - done;
        (new > 0).then(|| new as f64 / now.duration_since(*at).as_secs_f64().max(0.001))
    }
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
