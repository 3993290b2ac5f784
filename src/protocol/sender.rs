//! The sending half of one transfer: which bytes go next, what is to be compared, when it is done.
//!
//! What belongs to the connection (sequence numbers, window, signs of life) is [`Link`](super::Link)'s.

mod hearing;
mod outgoing;
mod vocabulary;

use super::check::Need;
use super::digest::{BlockDigest, BlockHashes, FileDigest};
use super::geometry::{ChunkSize, Geometry};
use super::link::Out;
use super::message::{Agreed, Message, Offer, OfferKind};
use outgoing::Outgoing;
pub use vocabulary::{Hashed, Input, Progress, SenderEvent, Sending};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Offered; waits for `accept` or `reject`.
    Offered,
    /// Chunks flow.
    Streaming,
    /// Nothing is left to send or compare; the caller makes sure that the source is what it was.
    Confirming,
    /// `finish` went out, or was not needed; waits for `receipt` or `repair`.
    Finishing,
}

impl State {
    fn describe(self) -> &'static str {
        match self {
            Self::Offered => "the sender waited for `accept`",
            Self::Streaming | Self::Confirming => "the sender was sending chunks",
            Self::Finishing => "the sender waited for `receipt`",
        }
    }
}

/// The sending half of one transfer.
#[derive(Debug)]
pub(super) struct Sender {
    number: u32,
    is_file: bool,
    discard: bool,
    quick: bool,
    geometry: Geometry,
    /// As it was offered, where it was known.
    known: Option<FileDigest>,
    chunk: ChunkSize,
    state: State,
    outgoing: Outgoing,
    /// Of a source that cannot be read twice: as many of its bytes have come.
    available: Option<u64>,
    /// Of one that was offered without its size: what it turned out to be.
    end: Option<u64>,
    /// Chunk frames whose bytes have not arrived yet: in flight, or damaged and not sent again.
    unsettled: u32,
    /// The file is there already, as far as the receiver knows: the digests will tell.
    complete: bool,
    /// How many blocks the receiver has asked for with `repair`.
    asked_for: u64,
    /// How often the caller is making sure of the source: a `repair` may come meanwhile.
    confirming: u32,
    progress: Progress,
}

impl Sender {
    /// What was offered.
    pub(super) fn new(offer: &Offer, sending: Sending) -> Self {
        let sized = |size| Geometry::new(size).expect("an offer's size is within the protocol's limit");
        let geometry = offer.size.map_or_else(Geometry::open, sized);
        let mut outgoing = Outgoing::new(geometry, sending.zeros, sending.already_sent);
        let available = sending.input.map(|input| {
            outgoing.carry(input.hashed);
            input.available
        });
        Self {
            number: offer.transfer,
            is_file: offer.kind == OfferKind::File,
            discard: offer.discard,
            quick: offer.quick,
            geometry,
            known: offer.digest,
            chunk: sending.chunk,
            state: State::Offered,
            outgoing,
            available,
            end: None,
            unsettled: 0,
            complete: false,
            asked_for: 0,
            confirming: 0,
            progress: Progress { total: offer.size, ..Progress::default() },
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    pub(super) fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }

    /// So many bytes of the source have come.
    pub(super) fn grown(&mut self, available: u64) {
        self.available = Some(available);
    }

    /// The source has ended behind so many bytes.
    pub(super) fn ended(&mut self, size: u64, out: &mut Out) {
        self.available = Some(size);
        self.end = Some(size);
        self.tell_size(out);
    }

    /// Says where a file ends that was offered without its size, once the receiver has accepted it.
    fn tell_size(&mut self, out: &mut Out) {
        if self.state == State::Offered || !self.geometry.is_open() {
            return;
        }
        let Some(geometry) = self.end.and_then(Geometry::new) else { return };
        self.geometry = geometry;
        self.outgoing.end(geometry);
        self.progress.total = Some(geometry.size());
        out.send(Message::Size { transfer: self.number, size: geometry.size() });
        self.settle(out);
    }

    /// The offset below which no byte of the source is needed any more: the receiver cannot lose it, and it was hashed.
    pub(super) fn done_below(&self) -> u64 {
        self.progress.durable.min(self.outgoing.done_below())
    }

    /// The blocks that were hashed.
    pub(super) fn take_hashed(&mut self) -> Hashed {
        self.outgoing.take_hashed()
    }

    /// The offset behind the last byte that was ever sent.
    pub(super) fn sent_up_to(&self) -> u64 {
        self.outgoing.sent_up_to()
    }

    pub(super) fn chunk(&self) -> ChunkSize {
        self.chunk
    }

    /// What both sides agreed on holds for what is sent from now on.
    pub(super) fn agree(&mut self, agreed: &Agreed) {
        if let Some(largest) = ChunkSize::for_frame_limit(agreed.frame_limit as usize) {
            self.chunk = self.chunk.min(largest);
        }
        if !agreed.zeros {
            self.outgoing.send_zeros();
        }
    }

    /// The next run of zeros to tell of: offset and length.
    pub(super) fn next_zeros(&self) -> Option<(u64, u64)> {
        (self.state == State::Streaming).then(|| self.outgoing.next_zeros()).flatten()
    }

    /// That run goes out. Whether its acknowledgement counts.
    pub(super) fn advance_zeros(&mut self, offset: u64, len: u64) -> bool {
        self.outgoing.advance_zeros(offset, len)
    }

    /// Where the next chunk begins, and the bytes to its block's end.
    pub(super) fn next_bytes(&mut self) -> Option<(u64, u64)> {
        let (offset, left) =
            (self.state == State::Streaming).then(|| self.outgoing.next_bytes()).flatten()?;
        let left = self.there_is(offset, left);
        (left > 0).then_some((offset, left))
    }

    /// As many of these bytes can be sent.
    fn there_is(&self, offset: u64, left: u64) -> u64 {
        let Some(available) = self.available else { return left };
        let there = left.min(available.saturating_sub(offset));
        // A chunk inside a file is a multiple of three, and this may not be its end.
        if self.geometry.is_open() { there / 3 * 3 } else { there }
    }

    /// These bytes go out. Whether their acknowledgement counts; an error if they are not what was offered.
    pub(super) fn advance(&mut self, offset: u64, bytes: &[u8]) -> Result<bool, Changed> {
        let advanced = self.outgoing.advance(offset, bytes);
        self.progress.resent += advanced.resent;
        if self.is_another() { Err(Changed) } else { Ok(advanced.counts) }
    }

    /// What was read is not what was offered.
    fn is_another(&self) -> bool {
        let read = self.known.and_then(|_| self.outgoing.digest());
        read.is_some() && read != self.known
    }

    /// A frame with a part of the file goes out, or (`-1`) its bytes arrived, or its damage was mended by other frames.
    pub(super) fn unsettle(&mut self, frames: i32) {
        self.unsettled = self.unsettled.strict_add_signed(frames);
    }

    /// Bytes arrived that move the progress.
    pub(super) fn arrived(&mut self, bytes: u64) {
        self.progress.acknowledged += bytes;
    }

    /// Whether something may be sent, as soon as there is room for it.
    pub(super) fn has_more(&self) -> bool {
        self.state == State::Streaming
            && self.outgoing.next_offset().is_some_and(|offset| self.there_is(offset, u64::MAX) > 0)
    }

    /// Whether it has more to send, now or once its source has.
    pub(super) fn may_go_on_elsewhere(&self) -> bool {
        self.has_more() || (self.state == State::Streaming && self.geometry.is_open())
    }

    /// The held block to hash next, behind the transfer. Each is named once.
    pub(super) fn next_check(&mut self, agreed: &Agreed, out: &mut Out) -> Option<u64> {
        if self.state != State::Streaming {
            return None;
        }
        match self.outgoing.check.next(agreed.frame_limit) {
            Need::Nothing => None,
            Need::Hashes(block) => Some(block),
            Need::Digests { first, count } => {
                let (transfer, tree) = (self.number, agreed.tree_digests);
                out.send(Message::Check { transfer, first, count, tree });
                None
            }
        }
    }

    /// The hashes of the block that [`next_check`](Self::next_check) named, and the digest to compare.
    pub(super) fn checked(&mut self, block: u64, hashes: &BlockHashes, digest: BlockDigest, out: &mut Out) {
        self.progress.verified += self.geometry.block_len(block);
        if self.outgoing.checked(block, hashes, digest) {
            self.progress.repaired_blocks += 1;
            self.is_lost(block);
        }
        if self.is_another() {
            out.sender(self.number, SenderEvent::Changed);
        }
        self.settle(out);
    }

    /// What the receiver has of a block is not it.
    fn is_lost(&mut self, block: u64) {
        self.progress.durable = self.progress.durable.min(self.geometry.block_start(block));
    }

    /// The digest of what was sent, once each block was hashed.
    pub(super) fn digest(&self) -> Option<FileDigest> {
        self.outgoing.digest()
    }

    /// The source is what it was: sends `finish`, unless the receiver has asked for more since.
    pub(super) fn confirmed(&mut self, out: &mut Out) {
        self.confirming -= 1;
        if self.state == State::Confirming && self.confirming == 0 {
            self.state = State::Finishing;
            let digest = self.outgoing.digest().expect("each block was hashed when it was sent or compared");
            out.send(Message::Finish { transfer: self.number, digest });
        }
    }

    /// Whether something is due from the receiver, what is in flight aside.
    pub(super) fn waits(&self) -> bool {
        matches!(self.state, State::Offered | State::Finishing) || self.outgoing.check.waits()
    }

    /// Notices that nothing is left to do but to finish.
    pub(super) fn settle(&mut self, out: &mut Out) {
        if self.state != State::Streaming
            || !self.outgoing.is_sent()
            || self.unsettled > 0
            || !self.outgoing.is_compared()
        {
            return;
        }
        if self.known.is_some() {
            // The receiver needs no `finish`.
            self.state = State::Finishing;
        } else {
            self.state = State::Confirming;
            self.confirming += 1;
            out.confirm(self.number);
        }
    }
}

/// What was read is not what was offered.
pub(super) struct Changed;
