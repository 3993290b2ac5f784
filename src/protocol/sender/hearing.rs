//! What the receiver's messages do to the sending half of a transfer.

use std::ops::Range;

use super::{Sender, SenderEvent, State};
use crate::protocol::Violation;
use crate::protocol::blocks::BlockSet;
use crate::protocol::digest::FileDigest;
use crate::protocol::geometry::BLOCK;
use crate::protocol::link::Out;
use crate::protocol::message::{Accept, check_begun, check_runs};

/// How many blocks may be asked for with `repair`, beyond each block twice.
const MAX_REPAIRS: u64 = 100;

impl Sender {
    pub(in crate::protocol) fn handle_accept(
        &mut self,
        accept: Accept,
        out: &mut Out,
    ) -> Result<(), Violation> {
        self.expect(self.state == State::Offered, "accept")?;
        if accept.discard != self.discard {
            return Err(Violation::field("accept.discard", self.discard, accept.discard));
        }
        let blocks = self.geometry.blocks();
        let held: BlockSet = check_runs("accept.held", &accept.held, self.geometry)?.into_iter().collect();
        if accept.complete && self.known.is_some() {
            return Err(Violation::field("accept.complete", "false, since the digest was offered", true));
        }
        if accept.complete && held.len() != blocks {
            return Err(Violation::field("accept.held", "all blocks of a complete file", held.len()));
        }
        let mut begun = check_begun("accept.begun", &accept.begun, self.geometry)?;
        begun.retain(|&block, _| !held.contains(block));
        self.complete = accept.complete;
        let came = held.runs().last().map_or(0, |run| self.geometry.block_end(run.end - 1));
        let came = came.max(
            begun.last_key_value().map_or(0, |(&block, bytes)| self.geometry.block_start(block) + bytes),
        );
        if self.geometry.is_open() && came > self.sent_up_to() {
            let expected = format!("nothing behind the {} bytes that were sent", self.sent_up_to());
            return Err(Violation::field("accept.held", expected, came));
        }
        let whole: u64 = held.runs().map(|run| self.geometry.bytes_of(run)).sum();
        self.progress.held = whole + begun.values().sum::<u64>();
        self.progress.acknowledged = self.progress.held;
        // The receiver compares what it has with a digest that it knows.
        let compares = !accept.complete && self.known.is_none();
        self.outgoing.begin(&held, begun, accept.received, compares);
        self.state = State::Streaming;
        self.tell_size(out);
        let accepted = SenderEvent::Accepted { held: self.progress.held, complete: accept.complete };
        out.sender(self.number, accepted);
        self.settle(out);
        Ok(())
    }

    pub(in crate::protocol) fn handle_durable(&mut self, durable: u64) -> Result<(), Violation> {
        let size = self.geometry.size();
        if durable > size {
            return Err(Violation::field("ack.durable", format!("at most {size}"), durable));
        }
        self.progress.durable = durable;
        if self.available.is_some() {
            self.outgoing.is_there_below(durable);
        }
        Ok(())
    }

    pub(in crate::protocol) fn handle_digests(
        &mut self,
        first: u64,
        digests: &str,
        out: &mut Out,
    ) -> Result<(), Violation> {
        self.expect(matches!(self.state, State::Streaming), "digests")?;
        self.outgoing.check.handle_digests(first, digests)?;
        self.settle(out);
        Ok(())
    }

    /// Blocks are asked for: those that got lost or damaged, or those of a file that stood there and is another.
    pub(in crate::protocol) fn handle_repair(
        &mut self,
        blocks: &[(u64, u64)],
        out: &mut Out,
    ) -> Result<(), Violation> {
        self.expect(self.state != State::Offered, "repair")?;
        let runs = check_runs("repair.blocks", blocks, self.geometry)?;
        let blocks_of = |runs: &[Range<u64>]| runs.iter().map(|run| run.end - run.start).sum::<u64>();
        if std::mem::take(&mut self.complete) {
            self.outgoing.replace(runs.iter().cloned().collect());
            let bytes: u64 = runs.iter().map(|run| self.geometry.bytes_of(run.clone())).sum();
            self.progress.held -= bytes;
            self.progress.acknowledged -= bytes;
            self.progress.verified = 0;
            out.sender(self.number, SenderEvent::Replacing { held: self.progress.held });
        } else {
            self.progress.repaired_blocks += blocks_of(&runs);
        }
        // One that asks for nothing counts too: it costs another `finish`.
        self.count_repairs(blocks_of(&runs).max(1))?;
        for run in runs {
            self.is_lost(run.start);
            self.outgoing.repair(run);
        }
        self.state = State::Streaming;
        self.settle(out);
        Ok(())
    }

    /// The transfer has ended well, if that is so.
    pub(in crate::protocol) fn handle_receipt(
        &mut self,
        digest: Option<FileDigest>,
        out: &mut Out,
    ) -> Result<(), Violation> {
        // What is there already, or is no file, is not accepted first.
        let trusts = self.state == State::Offered && self.quick && digest.is_none();
        let early = self.state == State::Offered && (self.known.is_some() || !self.is_file || trusts);
        self.expect(early || self.state == State::Finishing || self.knows_all(), "receipt")?;
        let expected = self.known.or_else(|| self.outgoing.digest()).filter(|_| self.is_file && !trusts);
        if digest != expected {
            let text =
                |digest: Option<FileDigest>| digest.map_or("none".to_owned(), |digest| digest.to_string());
            return Err(Violation::field("receipt.digest", text(expected), text(digest)));
        }
        if self.state == State::Offered {
            self.progress.held = self.geometry.size();
        }
        self.progress.acknowledged = self.geometry.size();
        self.progress.durable = self.geometry.size();
        let complete = self.state == State::Offered && self.is_file;
        out.sender(self.number, SenderEvent::Receipted { digest, complete, progress: self.progress });
        Ok(())
    }

    /// The receiver needs no `finish`: its receipt may overtake the acknowledgement of the last chunk.
    fn knows_all(&self) -> bool {
        self.known.is_some() && self.outgoing.is_sent()
    }

    /// A disk that damages whatever is written to it is no reason to go on for ever.
    fn count_repairs(&mut self, blocks: u64) -> Result<(), Violation> {
        self.asked_for += blocks;
        let sent = self.sent_up_to().div_ceil(BLOCK);
        let blocks = if self.geometry.is_open() { sent } else { self.geometry.blocks() };
        let most = 2 * blocks + MAX_REPAIRS;
        if self.asked_for > most {
            let expected = format!("at most {most} in a file of {blocks}");
            return Err(Violation::field("repair.blocks", expected, format!("{} in all", self.asked_for)));
        }
        Ok(())
    }

    fn expect(&self, holds: bool, came: &'static str) -> Result<(), Violation> {
        let state = self.state.describe();
        if holds { Ok(()) } else { Err(Violation::Unexpected { came, state }) }
    }

    /// Whether it was accepted.
    pub(in crate::protocol) fn is_accepted(&self) -> bool {
        self.state != State::Offered
    }
}
