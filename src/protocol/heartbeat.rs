//! Signs of life: a `ping` after a silence of ours, a stall after a silence of the peer's.

use std::time::{Duration, Instant};

/// When to send a sign of life, and when to give the peer up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// After this long without a frame of ours, send a `ping`. 20 s by default: gateways cut after 55 s and more.
    pub interval: Duration,
    /// After this long without a frame of the peer's, the connection has stalled. 30 s by default.
    pub stall: Duration,
}

impl HeartbeatConfig {
    /// Gives the peer up after `stall`, and gives signs of life early enough for a peer that does the same.
    pub fn with_stall(stall: Duration) -> Self {
        let default = Self::default();
        Self { interval: default.interval.min(stall / 3 * 2), stall }
    }
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(20), stall: Duration::from_secs(30) }
    }
}

/// What is due now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Nothing.
    Quiet,
    /// A `ping` with this token.
    Ping(u64),
    /// The peer was silent for this long: cut the connection.
    Stalled(Duration),
}

/// Both sides' silences.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    config: HeartbeatConfig,
    sent: Instant,
    received: Instant,
    pings: u64,
    /// A question that waits for its answer: when the peer is given up, and the ping's token.
    question: Option<(Instant, u64)>,
}

impl Heartbeat {
    /// Starts with both sides having just spoken.
    pub fn new(config: HeartbeatConfig, now: Instant) -> Self {
        Self { config, sent: now, received: now, pings: 0, question: None }
    }

    /// A frame went out.
    pub fn on_sent(&mut self, now: Instant) {
        self.sent = now;
    }

    /// A frame came in.
    pub fn on_received(&mut self, now: Instant) {
        self.received = now;
    }

    /// Asks the peer whether it is there: gives the token of the `ping` to send, unless a question is open. Without its
    /// answer within `patience` the peer counts as gone.
    pub fn ask(&mut self, patience: Duration, now: Instant) -> Option<u64> {
        if self.question.is_some() {
            return None;
        }
        self.pings += 1;
        self.question = Some((now + patience, self.pings));
        Some(self.pings)
    }

    /// A `pong` came.
    pub fn on_pong(&mut self, token: u64) {
        self.question.take_if(|(_, asked)| *asked == token);
    }

    /// Whether a question waits for its answer.
    pub fn asks(&self) -> bool {
        self.question.is_some()
    }

    /// How long the peer may be silent.
    pub fn stall(&self) -> Duration {
        self.config.stall
    }

    /// When [`beat`](Self::beat) has something to say at the earliest.
    pub fn timeout(&self) -> Instant {
        let regular = (self.sent + self.config.interval).min(self.received + self.config.stall);
        self.question.map_or(regular, |(at, _)| at.min(regular))
    }

    /// What is due at `now`.
    pub fn beat(&mut self, now: Instant) -> Beat {
        let silence = now.saturating_duration_since(self.received);
        if silence >= self.config.stall || self.question.is_some_and(|(at, _)| now >= at) {
            return Beat::Stalled(silence);
        }
        if now.saturating_duration_since(self.sent) >= self.config.interval {
            self.sent = now;
            self.pings += 1;
            return Beat::Ping(self.pings);
        }
        Beat::Quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_of_ours_pings_and_a_silence_of_the_peers_stalls() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heartbeat = Heartbeat::new(HeartbeatConfig::default(), start);
        assert_eq!(heartbeat.timeout(), at(20));
        assert_eq!(heartbeat.beat(at(19)), Beat::Quiet);
        assert_eq!(heartbeat.beat(at(20)), Beat::Ping(1));
        assert_eq!(heartbeat.timeout(), at(30));
        heartbeat.on_received(at(25));
        assert_eq!(heartbeat.beat(at(40)), Beat::Ping(2));
        assert_eq!(heartbeat.beat(at(55)), Beat::Stalled(Duration::from_secs(30)));
    }
}
