//! How fast bytes may be sent where somebody asked for less than the path carries. No clock of its own.

use std::time::{Duration, Instant};

use crate::protocol::ChunkSize;

/// What a chunk takes at that rate: so often the bar moves.
const CHUNKS_PER_SECOND: u64 = 20;
/// The least chunk, below which the header would be more than the bytes.
const LEAST_CHUNK: u64 = 510;
/// What was not used counts for so long: timers come late, and the rate holds all the same. With a chunk, no burst is longer
/// than a tenth of a second.
const SLACK: Duration = Duration::from_millis(50);

/// The chunk at so many bytes a second.
pub(super) fn chunk_at(rate: u64) -> ChunkSize {
    ChunkSize::at_most((rate / CHUNKS_PER_SECOND).max(LEAST_CHUNK)).expect("it is more than three bytes")
}

/// A bucket of bytes that fills at a rate and is no deeper than [`SLACK`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Throttle {
    rate: u64,
    /// When the next byte may go.
    next: Instant,
}

impl Throttle {
    /// At most so many bytes a second, at least one.
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        Self { rate: rate.max(1), next: now }
    }

    /// When something may be sent: now, if that has passed.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// So many bytes are sent.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) {
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let taken = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.next = self.next.max(earliest) + taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends for so long, over timers that come late by up to so much; when, and how many bytes.
    fn run(rate: u64, late: Duration, time: Duration) -> Vec<(Duration, u64)> {
        let start = Instant::now();
        let (mut throttle, mut now) = (Throttle::new(rate, start), start);
        let mut rng = fastrand::Rng::with_seed(rate);
        let mut sent = Vec::new();
        while now < start + time {
            if throttle.next() > now {
                now = throttle.next() + late.mul_f64(rng.f64());
                continue;
            }
            let bytes = chunk_at(rate).raw();
            throttle.take(bytes, now);
            sent.push((now - start, bytes));
        }
        sent
    }

    #[test]
    fn the_rate_holds_over_late_timers_and_no_tenth_of_a_second_carries_more_than_twice_its_part() {
        for rate in [1000, 10_000, 100_000, 10_000_000, 1_000_000_000] {
            for late in [Duration::ZERO, Duration::from_millis(2), Duration::from_millis(40)] {
                let time = Duration::from_secs(60);
                let sent = run(rate, late, time);
                let all: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
                let rate_seen = all as f64 / time.as_secs_f64() / rate as f64;
                assert!((0.97..1.03).contains(&rate_seen), "{rate} with {late:?}: {rate_seen}");
                let chunk = chunk_at(rate).raw() as f64;
                for (at, &(from, _)) in sent.iter().enumerate() {
                    let window =
                        sent[at..].iter().take_while(|(to, _)| *to - from < Duration::from_millis(100));
                    let bytes: u64 = window.map(|(_, bytes)| bytes).sum();
                    let most = rate as f64 * 0.15 + 2.0 * chunk;
                    assert!(bytes as f64 <= most, "{rate} with {late:?}: {bytes} bytes at {from:?}");
                }
            }
        }
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut throttle = Throttle::new(1_000_000, start);
        throttle.take(50_000, start);
        let later = start + Duration::from_secs(3600);
        let mut sent = 0;
        while throttle.next() <= later {
            throttle.take(50_000, later);
            sent += 50_000;
        }
        assert!(sent <= 100_000, "{sent} bytes at once");
    }

    #[test]
    fn a_chunk_is_a_twentieth_of_a_second_and_no_smaller_than_makes_sense() {
        assert_eq!(chunk_at(10_000_000).raw(), 499_998);
        assert_eq!(chunk_at(10_000).raw(), 510);
        assert_eq!(chunk_at(1).raw(), 510);
        assert_eq!(chunk_at(u64::MAX).raw(), 3 << 20);
    }
}
