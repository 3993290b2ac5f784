//! What the frames that come do to a receiving machine.

use std::time::Instant;

use super::{Action, Receiver, State, Write};
use crate::protocol::Violation;
use crate::protocol::assembly::{Assembly, Filled};
use crate::protocol::blocks::BlockSet;
use crate::protocol::chunk::{self, Chunk};
use crate::protocol::geometry::BLOCK;
use crate::protocol::message::{Code, Message, Offer, check_runs, clip};
use crate::protocol::receiver::ReceiverEvent;

impl Receiver {
    pub(super) fn handle_offer(&mut self, offer: Offer) -> Result<(), Violation> {
        let (frame_limit, window, id) = (offer.frame_limit, offer.window, offer.id.clone());
        let (left, session) = (offer.left, offer.session.clone());
        self.discard = offer.discard;
        let name = clip(&offer.name).into_owned();
        let checked = offer.check()?;
        self.events.push_back(ReceiverEvent::Offered { name: name.clone(), left, session });
        (self.id, self.name) = (id, name);
        self.frame_limit = frame_limit;
        self.window = window.min(self.config.window);
        self.state = State::Opening;
        match checked {
            Ok(offer) => {
                self.assembly = Assembly::new(offer.geometry, BlockSet::new(), BlockSet::new(), 0);
                self.actions.push_back(Action::Open(offer));
            }
            Err(error) => self.refuse(Code::Name, format!("the name is not allowed: {error}"), false),
        }
        Ok(())
    }

    pub(super) fn handle_chunk(
        &mut self,
        frame: &[u8],
        bytes: &mut Vec<u8>,
        now: Instant,
    ) -> Result<Option<Write>, Violation> {
        self.expect_chunks("chunk")?;
        let Ok(Chunk { sequence, offset, len }) = chunk::decode(frame, bytes) else {
            return self.handle_damage(now);
        };
        self.expect_sequence(sequence)?;
        let filled = self.assembly.fill(offset, &bytes[..len])?;
        if let Some(block) = filled.reopened {
            self.forget(block);
        }
        self.asked.remove(offset / BLOCK);
        match filled.completed {
            Filled::No => {}
            Filled::Hashed(block, hashes) => {
                self.assembly.hold(block);
                self.syncing.push(block, hashes, now);
            }
            Filled::Unhashed(block) => {
                self.to_hash.insert(block);
            }
        }
        self.moved = now;
        self.arrivals.push(len as u64, self.window, self.is_filled(), now);
        Ok(Some(Write::Bytes { offset, len }))
    }

    pub(super) fn handle_zeros(&mut self, frame: &[u8], now: Instant) -> Result<Option<Write>, Violation> {
        self.expect_chunks("zeros")?;
        let Ok(chunk::Zeros { sequence, offset, len }) = chunk::decode_zeros(frame) else {
            return self.handle_damage(now);
        };
        self.expect_sequence(sequence)?;
        for block in self.assembly.check_zeros(offset, len)? {
            if self.assembly.fill_with_zeros(block) {
                self.forget(block);
            }
            self.asked.remove(block);
            self.to_hash.insert(block);
        }
        self.moved = now;
        self.arrivals.push(0, self.window, self.is_filled(), now);
        Ok(Some(Write::Zeros(offset..offset + len)))
    }

    /// A frame that carries a part of the file came damaged.
    pub(super) fn handle_damage(&mut self, now: Instant) -> Result<Option<Write>, Violation> {
        let sequence = self.arrivals.refuse(now)?;
        self.assembly.expect_gap();
        self.outbox.push_back(Message::Nak { sequence });
        Ok(None)
    }

    pub(super) fn expect_chunks(&self, came: &'static str) -> Result<(), Violation> {
        if self.state == State::Streaming && !self.complete {
            return Ok(());
        }
        let state = if self.complete { "the file was there already" } else { self.state.describe() };
        Err(Violation::Unexpected { came, state })
    }

    pub(super) fn expect_sequence(&self, sequence: u64) -> Result<(), Violation> {
        let expected = self.arrivals.sequence();
        if sequence == expected {
            return Ok(());
        }
        Err(Violation::field("chunk.sequence", expected, sequence))
    }

    /// A block that was whole is begun again: nothing that was read of it counts any more.
    pub(super) fn forget(&mut self, block: u64) {
        self.syncing.forget(block);
        self.unchecked.remove(block);
        self.to_hash.remove(block);
        for reading in [&mut self.checking, &mut self.hashing].into_iter().flatten() {
            reading.stale |= reading.block == block;
        }
    }

    pub(super) fn handle_check(&mut self, first: u64, count: u64) -> Result<(), Violation> {
        let run = check_runs("check", &[(first, count)], self.assembly.geometry())?.remove(0);
        if self.owed_digests.is_some() || self.complete {
            return Err(Violation::Unexpected { came: "check", state: "no digests were to be asked for" });
        }
        self.owed_digests = Some(run);
        self.go_on();
        Ok(())
    }
}
