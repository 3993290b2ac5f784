//! What the receiver's messages do to a sending machine.

use std::ops::Range;
use std::time::Instant;

use super::{Sender, SenderEvent, State};
use crate::protocol::Violation;
use crate::protocol::blocks::BlockSet;
use crate::protocol::geometry::{ChunkSize, MIN_FRAME_LIMIT};
use crate::protocol::message::{Accept, check_begun, check_runs, clip};

/// How many blocks one connection may ask for with `repair`, beyond each block twice.
const MAX_REPAIRS: u64 = 100;

impl Sender {
    pub(super) fn handle_accept(&mut self, accept: Accept) -> Result<(), Violation> {
        self.expect_id("accept.id", &accept.id)?;
        if accept.window == 0 {
            return Err(Violation::field("accept.window", "at least 1", 0));
        }
        if accept.discard != self.discard {
            return Err(Violation::field("accept.discard", self.discard, accept.discard));
        }
        let limit = accept.frame_limit.min(self.frame_limit);
        let fits =
            (limit >= MIN_FRAME_LIMIT as u64).then(|| ChunkSize::for_frame_limit(limit as usize)).flatten();
        let Some(largest) = fits else {
            let expected = format!("at least {MIN_FRAME_LIMIT}");
            return Err(Violation::field("accept.frame_limit", expected, accept.frame_limit));
        };
        let blocks = self.geometry.blocks();
        let held: BlockSet = check_runs("accept.held", &accept.held, self.geometry)?.into_iter().collect();
        if accept.complete && held.len() != blocks {
            return Err(Violation::field("accept.held", "all blocks of a complete file", held.len()));
        }
        let mut begun = check_begun("accept.begun", &accept.begun, self.geometry)?;
        begun.retain(|&block, _| !held.contains(block));
        self.chunk = self.chunk.min(largest);
        self.window = self.window.min(accept.window);
        self.complete = accept.complete;
        let whole: u64 = held.runs().map(|run| self.geometry.bytes_of(run)).sum();
        self.progress.held = whole + begun.values().sum::<u64>();
        self.progress.acknowledged = self.progress.held;
        self.outgoing.begin(&held, begun, accept.received, accept.complete);
        self.state = State::Streaming;
        self.events.push_back(SenderEvent::Accepted { held: self.progress.held, complete: accept.complete });
        Ok(())
    }

    pub(super) fn handle_ack(&mut self, sequence: u64, durable: u64, now: Instant) -> Result<(), Violation> {
        if durable > self.geometry.size() {
            return Err(Violation::field(
                "ack.durable",
                format!("at most {}", self.geometry.size()),
                durable,
            ));
        }
        if let Some(acknowledged) = self.flight.acknowledge(sequence)? {
            self.progress.acknowledged += acknowledged.counted;
            if acknowledged.crossed > 0 {
                self.path.on_acknowledged(&acknowledged, self.flight.bytes(), now);
            }
            self.moved = now;
        }
        self.progress.durable = durable;
        Ok(())
    }

    /// Blocks are asked for: those that got lost or damaged, or those of a file that stood there and is another.
    pub(super) fn handle_repair(&mut self, runs: Vec<Range<u64>>) -> Result<(), Violation> {
        if std::mem::take(&mut self.complete) {
            self.outgoing.replace(runs.iter().cloned().collect());
            let bytes: u64 = runs.iter().map(|run| self.geometry.bytes_of(run.clone())).sum();
            self.progress.held -= bytes;
            self.progress.acknowledged -= bytes;
            self.progress.verified = 0;
            self.events.push_back(SenderEvent::Replacing { held: self.progress.held });
        } else {
            self.progress.repaired_blocks += runs.iter().map(|run| run.end - run.start).sum::<u64>();
        }
        // One that asks for nothing counts too: it costs another `finish`.
        self.count_repairs(runs.iter().map(|run| run.end - run.start).sum::<u64>().max(1))?;
        for run in runs {
            self.outgoing.repair(run);
        }
        self.state = State::Streaming;
        Ok(())
    }

    /// A disk that damages whatever is written to it is no reason to go on for ever.
    pub(super) fn count_repairs(&mut self, blocks: u64) -> Result<(), Violation> {
        self.asked_for += blocks;
        let most = 2 * self.geometry.blocks() + MAX_REPAIRS;
        if self.asked_for > most {
            let expected = format!("at most {most} in a file of {}", self.geometry.blocks());
            return Err(Violation::field("repair.blocks", expected, format!("{} in all", self.asked_for)));
        }
        Ok(())
    }

    pub(super) fn expect_id(&self, field: &'static str, id: &str) -> Result<(), Violation> {
        if id == self.id { Ok(()) } else { Err(Violation::field(field, &self.id, clip(id))) }
    }

    /// Notices that nothing is left to do but to finish.
    pub(super) fn settle(&mut self) {
        if self.state == State::Streaming
            && self.outgoing.is_sent()
            && self.flight.is_over()
            && self.outgoing.is_compared()
        {
            self.state = State::Ready;
            self.events.push_back(SenderEvent::ReadyToFinish);
        }
    }
}
