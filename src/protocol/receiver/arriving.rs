//! What the frames that come do to the receiving half of a transfer.

use std::time::Instant;

use super::{Owed, Receiver, ReceiverEvent, State, Write};
use crate::protocol::Violation;
use crate::protocol::assembly::Filled;
use crate::protocol::chunk::{Chunk, Zeros};
use crate::protocol::digest::FileDigest;
use crate::protocol::geometry::{BLOCK, Geometry, MAX_FILE};
use crate::protocol::link::Out;
use crate::protocol::message::check_runs;

impl Receiver {
    /// A verified chunk; `gaps`: how many places may be left open for chunks that came damaged.
    pub(in crate::protocol) fn handle_chunk(
        &mut self,
        chunk: Chunk,
        bytes: &[u8],
        gaps: u32,
        now: Instant,
    ) -> Result<Write, Violation> {
        self.expect_chunks("chunk")?;
        let offset = chunk.header.offset;
        let filled = self.assembly.fill(offset, bytes, gaps)?;
        self.came += bytes.len() as u64;
        if let Some(block) = filled.reopened {
            self.forget(block);
        }
        self.asked.remove(offset / BLOCK);
        self.note_filled(filled.completed, now);
        self.is_under_way = true;
        Ok(Write::Bytes { transfer: self.number, offset, len: bytes.len() })
    }

    fn note_filled(&mut self, filled: Filled, now: Instant) {
        match filled {
            Filled::No => {}
            Filled::Hashed(block, hashes) => {
                self.assembly.hold(block);
                self.syncing.push(block, hashes, now);
            }
            Filled::Unhashed(block) => {
                self.to_hash.insert(block);
            }
        }
    }

    pub(in crate::protocol) fn handle_zeros(&mut self, zeros: Zeros) -> Result<Write, Violation> {
        self.expect_chunks("zeros")?;
        let (offset, len) = (zeros.header.offset, zeros.len);
        self.came += len;
        for block in self.assembly.check_zeros(offset, len)? {
            if self.assembly.fill_with_zeros(block) {
                self.forget(block);
            }
            self.asked.remove(block);
            self.to_hash.insert(block);
        }
        self.is_under_way = true;
        Ok(Write::Zeros { transfer: self.number, bytes: offset..offset + len })
    }

    pub(in crate::protocol) fn handle_check(
        &mut self,
        (first, count): (u64, u64),
        tree: bool,
        out: &mut Out,
    ) -> Result<(), Violation> {
        self.expect(State::Streaming, "check")?;
        let blocks = check_runs("check", &[(first, count)], self.assembly.geometry())?.remove(0);
        if self.owed.is_some() || self.complete || self.known.is_some() {
            return Err(Violation::Unexpected { came: "check", state: "no digests were to be asked for" });
        }
        self.owed = Some(Owed { blocks, tree, is_read: false });
        self.go_on(out);
        Ok(())
    }

    pub(in crate::protocol) fn handle_size(
        &mut self,
        size: u64,
        out: &mut Out,
        now: Instant,
    ) -> Result<(), Violation> {
        self.expect(State::Streaming, "size")?;
        if !self.assembly.geometry().is_open() {
            return Err(Violation::Unexpected { came: "size", state: "the file's size was known" });
        }
        let geometry = Geometry::new(size);
        let geometry =
            geometry.ok_or_else(|| Violation::field("size.size", format!("at most {MAX_FILE}"), size))?;
        let filled = self.assembly.ends_with(geometry)?;
        self.note_filled(filled, now);
        out.receiver(self.number, ReceiverEvent::Sized { size });
        self.go_on(out);
        Ok(())
    }

    /// Whether it counts.
    pub(in crate::protocol) fn handle_finish(
        &mut self,
        digest: FileDigest,
        out: &mut Out,
    ) -> Result<bool, Violation> {
        self.expect(State::Streaming, "finish")?;
        if self.assembly.geometry().is_open() {
            return Err(Violation::Unexpected { came: "finish", state: "the file's size was not known" });
        }
        if self.known.is_some() {
            return Err(Violation::Unexpected { came: "finish", state: "the digest was offered" });
        }
        // One that crossed a `repair` on its way counts for nothing: another will follow.
        let counts = self.asked.is_empty();
        if counts {
            self.finish = Some(digest);
            self.state = State::Finishing;
            self.go_on(out);
        }
        Ok(counts)
    }

    /// A block that was whole is begun again: nothing that was read of it counts any more.
    fn forget(&mut self, block: u64) {
        self.syncing.forget(block);
        self.unchecked.remove(block);
        self.to_hash.remove(block);
        for reading in [&mut self.checking, &mut self.hashing].into_iter().flatten() {
            reading.stale |= reading.block == block;
        }
    }

    fn expect_chunks(&self, came: &'static str) -> Result<(), Violation> {
        if self.complete {
            return Err(Violation::Unexpected { came, state: "the file was there already" });
        }
        self.expect(State::Streaming, came)
    }

    fn expect(&self, state: State, came: &'static str) -> Result<(), Violation> {
        let describe = self.state.describe();
        if self.state == state { Ok(()) } else { Err(Violation::Unexpected { came, state: describe }) }
    }
}
