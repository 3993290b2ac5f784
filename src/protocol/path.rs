//! What acknowledgements tell of the path: its rate, its round trip, the chunks that it carries. From these follow how
//! many bytes are kept in flight, and how large a chunk is.
//!
//! A cut costs what the path held. So no more is sent ahead than the path can hold: its rate times its round trip, twice
//! over, so that a path that has become faster is noticed (product and factor are those of BBR, draft-ietf-ccwg-bbr).
//! An acknowledgement may have waited for others at the receiver: what one covers is in flight besides.

use std::time::{Duration, Instant};

use super::flight::Acknowledged;
use super::geometry::{ChunkSize, MIN_FRAME_LIMIT};

/// Bytes in flight before the first acknowledgement has told anything.
const FIRST_FLIGHT: u64 = 512 * 1024;
/// The largest chunk before anything is known: a frame of 64 KiB and a header.
const FIRST_CHUNK: u64 = 48 * 1024;
/// Bytes in flight, as a multiple of rate times round trip.
const GAIN: f64 = 2.0;
/// And as a multiple of what one acknowledgement covers.
const BATCHES: f64 = 2.0;
/// The same for one round now and then, so that the round trip is measured without what this side queued itself.
const LOW_GAIN: f64 = 0.5;
/// A chunk takes this much time at the path's rate: a path that has become slow is noticed early.
const CHUNK_TIME: Duration = Duration::from_millis(50);
/// Where connections are cut, at most this part of what one carried is in flight, and a chunk is at most this part of it.
const FLIGHT_OF_LIFE: u64 = 32;
const CHUNK_OF_LIFE: u64 = 64;
/// A single connection that carried less before it was cut may have met with an accident.
const LIFE_TO_BELIEVE: u64 = 1 << 20;
/// How long a rate counts at the least, in how many round trips, and at the most.
const RATE_PERIOD: Duration = Duration::from_millis(500);
const RATE_PERIOD_MOST: Duration = Duration::from_secs(5);
const RATE_ROUNDS: f64 = 8.0;
/// How long the shortest round trip counts.
const ROUND_TRIP_PERIOD: Duration = Duration::from_secs(10);
/// A size of chunk that failed is tried once more when this many bytes have arrived in smaller ones.
const TRIED_AGAIN_AFTER: u64 = 64 << 20;
/// How often a size may fail before it is not tried any more.
const FAILURES: u32 = 2;
/// Chunks that have to arrive between one that came damaged and larger ones.
const CHUNKS_BEFORE_GROWTH: u64 = 16;

/// What is known of a path. It outlives the connection that learnt it.
#[derive(Debug, Clone)]
pub struct Path {
    /// Bytes a second.
    rate: Best,
    /// Seconds.
    round_trip: Best,
    /// Bytes that one acknowledgement covers.
    batch: Best,
    /// Bytes acknowledged so far, and when the last of them were.
    delivered: u64,
    delivered_at: Option<Instant>,
    /// Bytes in flight on a connection that has measured nothing yet.
    first_flight: u64,
    /// Bytes that the last connection carried before it was cut, and the one before it.
    last_life: Option<u64>,
    life_before: Option<u64>,
    /// What was delivered before this connection.
    earlier: u64,
    /// Until this many bytes are delivered the flight runs low.
    low_until: Option<u64>,
    /// Raw bytes of the chunk to send next.
    chunk: u64,
    /// The largest chunk that was acknowledged.
    carried: u64,
    /// The smallest chunk that never arrived, how often that happened, and when it is tried again.
    failed: Option<u64>,
    failures: u32,
    tried_again_at: u64,
    /// Chunks become larger again once this many bytes are delivered.
    grows_at: u64,
    /// How often a connection ended right behind one of the least frames.
    least_failed: u32,
}

/// What is kept of a chunk that was sent, to be measured by its acknowledgement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    sent_at: Instant,
    /// Bytes acknowledged by then, and when the last of them were.
    delivered: u64,
    delivered_at: Instant,
}

impl Default for Path {
    fn default() -> Self {
        Self {
            rate: Best::new(f64::max),
            round_trip: Best::new(f64::min),
            batch: Best::new(f64::max),
            delivered: 0,
            delivered_at: None,
            first_flight: FIRST_FLIGHT,
            last_life: None,
            life_before: None,
            earlier: 0,
            low_until: None,
            chunk: FIRST_CHUNK,
            carried: 0,
            failed: None,
            failures: 0,
            tried_again_at: 0,
            grows_at: 0,
            least_failed: 0,
        }
    }
}

impl Path {
    /// A path that is known to carry chunks of this size.
    pub fn carrying(chunk: ChunkSize) -> Self {
        Self { chunk: chunk.raw(), carried: chunk.raw(), ..Self::default() }
    }

    /// How often a connection ended right behind one of the least frames there are, and nothing was acknowledged since.
    pub fn least_failed(&self) -> u32 {
        self.least_failed
    }

    /// The chunk to send next.
    pub(super) fn chunk(&self, most: ChunkSize) -> ChunkSize {
        let life = self.life().map_or(u64::MAX, |life| (life / CHUNK_OF_LIFE).max(least()));
        ChunkSize::at_most(self.chunk.min(life)).map_or(most, |chunk| chunk.min(most))
    }

    /// The most bytes to keep in flight in chunks of this size.
    pub(super) fn in_flight(&self, chunk: u64, window: u64) -> u64 {
        let of_life = self.life().map_or(u64::MAX, |life| life / FLIGHT_OF_LIFE);
        let measured = (self.rate.best(), self.round_trip.best(), self.batch.best());
        let wanted = if let (Some(rate), Some(round_trip), Some(batch)) = measured {
            let held = rate * round_trip;
            let gain = if self.low_until.is_some() { LOW_GAIN } else { GAIN };
            // A path is filled, however short its connections live.
            ((held * gain + batch * BATCHES) as u64).min(of_life.max(held as u64))
        } else {
            self.first_flight.min(of_life)
        };
        wanted.max(2 * chunk).min(window)
    }

    /// A chunk goes out, behind others in flight or alone.
    pub(super) fn on_sent(&self, is_alone: bool, now: Instant) -> Stamp {
        let delivered_at = self.delivered_at.filter(|_| !is_alone).unwrap_or(now);
        Stamp { sent_at: now, delivered: self.delivered, delivered_at }
    }

    /// Chunks were acknowledged; so many bytes are still in flight.
    pub(super) fn on_acknowledged(&mut self, acknowledged: &Acknowledged, in_flight: u64, now: Instant) {
        let &Acknowledged { crossed, largest, oldest, newest } = acknowledged;
        self.delivered += crossed;
        self.delivered_at = Some(now);
        self.least_failed = 0;
        let since = |then: Instant| now.saturating_duration_since(then).max(Duration::from_micros(1));
        let round_trip = since(oldest.sent_at);
        let rate = (self.delivered - newest.delivered) as f64 / since(newest.delivered_at).as_secs_f64();
        if self.low_until.is_some_and(|until| self.delivered >= until) {
            self.low_until = None;
        }
        if self.round_trip.take(round_trip.as_secs_f64(), ROUND_TRIP_PERIOD, now) {
            self.low_until = Some(self.delivered + in_flight);
        }
        let rounds = self.round_trip.best().unwrap_or_default() * RATE_ROUNDS;
        let period = Duration::from_secs_f64(rounds).clamp(RATE_PERIOD, RATE_PERIOD_MOST);
        self.rate.take(rate, period, now);
        self.batch.take(crossed as f64, period, now);
        self.carried = self.carried.max(largest);
        if self.failures < FAILURES && self.delivered >= self.tried_again_at {
            self.failed = None;
        }
        self.fit_chunk(largest);
    }

    /// A chunk came damaged. That may be a matter of its size; smaller ones are damaged less often in any case.
    pub(super) fn on_damaged(&mut self, len: u64) {
        if len > self.carried {
            return self.fail(len);
        }
        self.chunk = (len / 2).max(least()).min(self.chunk);
        self.grows_at = self.delivered + CHUNKS_BEFORE_GROWTH * self.chunk;
    }

    /// The connection ended before the transfer did, with this chunk in flight, the largest there was. It may have been
    /// too large for something on the path, whatever that said.
    pub(super) fn on_cut(&mut self, largest: Option<u64>) {
        self.first_flight = FIRST_FLIGHT.min(self.in_flight(self.chunk, u64::MAX));
        self.round_trip = Best::new(f64::min);
        self.batch = Best::new(f64::max);
        self.delivered_at = None;
        self.low_until = None;
        let carried = self.delivered - std::mem::replace(&mut self.earlier, self.delivered);
        // One that carried nothing tells nothing.
        // Less is lost with the next one if it is as short.
        if carried == 0 && largest.is_some() {
            self.first_flight /= 2;
        }
        if carried > 0 {
            self.life_before = self.last_life.replace(carried);
        }
        if let Some(len) = largest.filter(|&len| len > self.carried) {
            self.fail(len);
        }
    }

    /// The connection was left, with nothing in flight: the next one carries what it carries by itself.
    pub(super) fn on_left(&mut self) {
        self.earlier = self.delivered;
        self.delivered_at = None;
    }

    /// How many bytes a connection carries on this path, as far as that is known: what the last two did, or what this one
    /// has.
    fn life(&self) -> Option<u64> {
        let last = self.last_life?;
        let before = self.life_before.or((last >= LIFE_TO_BELIEVE).then_some(last))?;
        Some(last.max(before).max(self.delivered - self.earlier))
    }

    /// A chunk that is larger than all that arrived did not.
    fn fail(&mut self, len: u64) {
        self.least_failed += u32::from(len <= least());
        self.failed = Some(self.failed.map_or(len, |failed| failed.min(len)));
        self.failures += 1;
        self.tried_again_at = self.delivered + TRIED_AGAIN_AFTER;
        let fits = if self.carried > 0 { self.carried } else { len / 4 };
        self.chunk = fits.max(least()).min(self.chunk);
    }

    fn fit_chunk(&mut self, largest: u64) {
        let Some(rate) = self.rate.best() else { return };
        let most = self.life().map_or(u64::MAX, |life| life / CHUNK_OF_LIFE);
        let wanted = ((rate * CHUNK_TIME.as_secs_f64()) as u64).min(most).max(least());
        let doubled = 2 * self.chunk;
        if wanted < self.chunk {
            self.chunk = wanted;
        // What was sent is a multiple of 3.
        } else if largest + 3 > self.chunk
            && self.delivered >= self.grows_at
            && self.failed.is_none_or(|failed| doubled < failed)
        {
            self.chunk = wanted.min(doubled);
        }
    }
}

/// Raw bytes of a chunk in the least frame that can be asked for.
fn least() -> u64 {
    ChunkSize::for_frame_limit(MIN_FRAME_LIMIT).map_or(3, ChunkSize::raw)
}

/// The best of what was measured lately: in this period and in the one before.
#[derive(Debug, Clone)]
struct Best {
    better: fn(f64, f64) -> f64,
    since: Option<Instant>,
    current: Option<f64>,
    before: Option<f64>,
}

impl Best {
    fn new(better: fn(f64, f64) -> f64) -> Self {
        Self { better, since: None, current: None, before: None }
    }

    fn best(&self) -> Option<f64> {
        self.current.into_iter().chain(self.before).reduce(self.better)
    }

    /// Whether a period ended with it.
    fn take(&mut self, value: f64, period: Duration, now: Instant) -> bool {
        if self.since.is_some_and(|since| now.saturating_duration_since(since) < period) {
            self.current = Some(self.current.map_or(value, |current| (self.better)(current, value)));
            return false;
        }
        self.before = self.current.replace(value);
        self.since.replace(now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 576 * 1024;

    fn arrived(chunk: u64, stamp: Stamp) -> Acknowledged {
        Acknowledged { crossed: chunk, largest: chunk, oldest: stamp, newest: stamp }
    }

    /// A path in virtual time: a queue that is emptied at `rate` bytes a second, and a delay each way. Sends without end
    /// for `life`; gives the bytes in flight at the end.
    struct Bench {
        path: Path,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { path: Path::default(), now: Instant::now() }
        }

        fn run(&mut self, rate: f64, delay: Duration, life: Duration) -> (u64, u64) {
            let end = self.now + life;
            let mut flight = std::collections::VecDeque::new();
            let (mut in_flight, mut free_at, mut sent) = (0, self.now, 0);
            loop {
                let most = ChunkSize::at_most(MOST).unwrap();
                let chunk = self.path.chunk(most).raw();
                if in_flight == 0 || in_flight + chunk <= self.path.in_flight(chunk, 64 << 20) {
                    let stamp = self.path.on_sent(in_flight == 0, self.now);
                    free_at = free_at.max(self.now) + Duration::from_secs_f64(chunk as f64 / rate);
                    flight.push_back((free_at + delay, chunk, stamp));
                    in_flight += chunk;
                    sent += chunk;
                    continue;
                }
                let Some((at, chunk, stamp)) = flight.pop_front() else {
                    unreachable!("something is in flight")
                };
                if at > end {
                    self.now = end;
                    self.path.on_cut(Some(chunk));
                    return (in_flight, sent - in_flight);
                }
                self.now = self.now.max(at);
                in_flight -= chunk;
                self.path.on_acknowledged(&arrived(chunk, stamp), in_flight, self.now);
            }
        }
    }

    #[test]
    fn a_cut_costs_what_the_path_held_and_little_more() {
        for (rate, delay_ms, life) in
            [(0.5e6, 1, 5.0), (1e6, 1, 5.0), (2e6, 20, 5.0), (100e6, 1, 0.3), (700e6, 0, 0.3)]
        {
            let mut bench = Bench::new();
            let delay = Duration::from_millis(delay_ms);
            let life = Duration::from_secs_f64(life);
            bench.run(rate, delay, life);
            let (lost, arrived) = bench.run(rate, delay, life);
            assert!(lost * 20 <= lost + arrived, "{lost} of {arrived} at {rate}");
            assert!(arrived as f64 > 0.9 * rate * life.as_secs_f64(), "{arrived} at {rate}");
        }
    }

    #[test]
    fn a_long_fat_path_is_filled_and_what_is_in_flight_does_not_creep() {
        let mut bench = Bench::new();
        let (rate, delay) = (40e6, Duration::from_millis(100));
        let (_, arrived) = bench.run(rate, delay, Duration::from_secs(12));
        assert!(arrived as f64 > 0.95 * rate * 12.0, "{arrived}");
        let (in_flight, _) = bench.run(rate, delay, Duration::from_secs(120));
        assert!((in_flight as f64) < 3.0 * rate * 0.1, "{in_flight}");
    }

    #[test]
    fn chunks_follow_the_rate_down_and_up() {
        let mut bench = Bench::new();
        let most = ChunkSize::at_most(MOST).unwrap();
        bench.run(100e6, Duration::from_millis(1), Duration::from_secs(2));
        assert_eq!(bench.path.chunk(most), most);
        bench.run(0.2e6, Duration::from_millis(1), Duration::from_secs(60));
        assert!(bench.path.chunk(most).raw() as f64 <= 0.2e6 * 0.5, "at most half a second's");
        bench.run(100e6, Duration::from_millis(1), Duration::from_secs(2));
        assert_eq!(bench.path.chunk(most), most);
    }

    #[test]
    fn a_size_that_never_arrives_is_not_tried_for_ever() {
        let mut path = Path::default();
        let most = ChunkSize::at_most(MOST).unwrap();
        let mut failures = 0;
        let mut now = Instant::now();
        // 400 MiB over a path that carries chunks of 40 KiB.
        let mut delivered = 0u64;
        while delivered < 400 << 20 {
            let chunk = path.chunk(most).raw();
            let stamp = path.on_sent(true, now);
            now += Duration::from_millis(1);
            if chunk > 40 << 10 {
                path.on_cut(Some(chunk));
                failures += 1;
            } else {
                delivered += chunk;
                path.on_acknowledged(&arrived(chunk, stamp), 0, now);
            }
        }
        assert_eq!(failures, FAILURES);
        assert!(path.chunk(most).raw() >= 20 << 10);
    }

    #[test]
    fn a_path_that_takes_not_even_the_least_frame_is_known_soon() {
        let mut path = Path::default();
        let most = ChunkSize::at_most(MOST).unwrap();
        for _ in 0..8 {
            path.on_cut(Some(path.chunk(most).raw()));
        }
        assert!(path.least_failed() >= 3, "{path:?}");
    }

    #[test]
    fn damage_makes_chunks_smaller_until_chunks_arrive_whole() {
        let mut path = Path::carrying(ChunkSize::at_most(MOST).unwrap());
        let most = ChunkSize::at_most(MOST).unwrap();
        let before = path.chunk(most).raw();
        path.on_damaged(before);
        assert_eq!(path.chunk(most).raw(), before / 2 / 3 * 3);
        let now = Instant::now();
        for n in 1..40 {
            let chunk = path.chunk(most).raw();
            let stamp = path.on_sent(true, now + Duration::from_millis(n));
            path.on_acknowledged(&arrived(chunk, stamp), 0, now + Duration::from_millis(n + 1));
        }
        assert_eq!(path.chunk(most), most);
    }
}
