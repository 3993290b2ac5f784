//! A connection's machine as a sender: what is offered from here, and what the receiver says of it.

use std::time::Instant;

use super::{Due, Link};
use crate::protocol::chunk::{self, Header, Zeros};
use crate::protocol::flight::Sent;
use crate::protocol::message::{Code, Message, Offer, OfferKind, clip};
use crate::protocol::path::Path;
use crate::protocol::sender::{Hashed, Progress, Sender, SenderEvent, Sending};
use crate::protocol::{BlockSet, Violation};

/// The characters of an offer, at the most, beside its paths.
const ALL_BUT_PATHS: u64 = 512;

/// A part of a file that goes into a frame.
struct Flying {
    header: Header,
    len: u64,
    zeros: bool,
    counts: bool,
}

/// Why something cannot be offered on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOffered {
    /// The receiver takes files alone, all in one directory.
    #[error("the receiver knows no directories")]
    NoTrees,
    /// The receiver takes no file without its size.
    #[error("the receiver takes nothing whose size is not known beforehand")]
    NoLateSize,
    /// No frame holds the offer.
    #[error("its path needs a frame of {needed} characters, and {limit} at most may be sent")]
    TooLong {
        /// The characters of the offer.
        needed: u64,
        /// The frame limit.
        limit: u64,
    },
}

impl Link {
    /// Offers something; gives the transfer's number, which [`Offer::transfer`] need not hold.
    ///
    /// # Errors
    /// If it cannot be offered on this connection, now that the peer has said hello: nothing was sent.
    ///
    /// # Panics
    /// If the offer's size is out of its bounds.
    pub fn offer(&mut self, mut offer: Offer, sending: Sending) -> Result<u32, NotOffered> {
        let number = self.next_transfer;
        offer.transfer = number;
        let needs_trees = offer.path.contains('/') || offer.kind != OfferKind::File;
        if needs_trees && self.peer.is_some() && !self.agreed.trees {
            return Err(NotOffered::NoTrees);
        }
        if offer.size.is_none() && !self.agreed.late_size {
            return Err(NotOffered::NoLateSize);
        }
        let mut sender = Sender::new(&offer, sending);
        if self.peer.is_some() {
            sender.agree(&self.agreed);
        }
        // A quotation mark takes two characters.
        let longest = 2 * (offer.path.len() + offer.target.as_ref().map_or(0, String::len));
        let message = Message::Offer(offer);
        let limit = self.agreed.frame_limit;
        // The rest of an offer has less than this.
        if longest as u64 + ALL_BUT_PATHS > limit {
            let needed = message.to_frame().len() as u64;
            if needed > limit {
                return Err(NotOffered::TooLong { needed, limit });
            }
        }
        self.next_transfer += 1;
        self.senders.insert(number, Box::new(sender));
        self.out.send(message);
        Ok(number)
    }

    /// How far a transfer is that was offered from here.
    pub fn progress(&self, transfer: u32) -> Option<Progress> {
        self.senders.get(&transfer).map(|sender| sender.progress())
    }

    /// So many bytes of a source that cannot be read twice have come.
    pub fn grown(&mut self, transfer: u32, available: u64) {
        if let Some(sender) = self.senders.get_mut(&transfer) {
            sender.grown(available);
            self.watch(transfer);
        }
    }

    /// A source that cannot be read twice has ended behind so many bytes, at most [`MAX_FILE`](crate::protocol::MAX_FILE).
    pub fn ended(&mut self, transfer: u32, size: u64) {
        if let Some(sender) = self.senders.get_mut(&transfer) {
            sender.ended(size, &mut self.out);
            self.watch(transfer);
        }
    }

    /// The offset below which no byte of a transfer's source is needed any more.
    pub fn done_below(&self, transfer: u32) -> u64 {
        self.senders.get(&transfer).map_or(0, |sender| sender.done_below())
    }

    /// Takes out what was hashed of a transfer, for the next connection's [`Input::hashed`](crate::protocol::Input::hashed).
    pub fn take_hashed(&mut self, transfer: u32) -> Hashed {
        self.senders.get_mut(&transfer).map(|sender| sender.take_hashed()).unwrap_or_default()
    }

    /// The offset behind the last byte of a transfer that was ever sent: what the next connection's
    /// [`Sending::already_sent`] is.
    pub fn sent_up_to(&self, transfer: u32) -> u64 {
        self.senders.get(&transfer).map_or(0, |sender| sender.sent_up_to())
    }

    /// The digest of what was sent of a transfer, once each block was hashed.
    pub fn digest(&self, transfer: u32) -> Option<crate::protocol::FileDigest> {
        self.senders.get(&transfer)?.digest()
    }

    /// Gives a transfer up that was offered from here; `again` if what the source became will be offered.
    pub fn cancel(&mut self, transfer: u32, code: Code, reason: &str, again: bool) {
        if self.senders.contains_key(&transfer) {
            let reason = clip(reason).into_owned();
            self.out.send(Message::Cancel { transfer, code, reason, again });
            self.end_sender(transfer);
        }
    }

    /// Nothing more is sent for now: all transfers are over, or (`cut`) the connection ended before them. What was learnt of
    /// the path.
    pub fn leave(&mut self, cut: bool) -> Path {
        if cut {
            self.path.on_cut(self.flight.largest());
        } else {
            self.path.on_left();
        }
        self.path.clone()
    }

    /// What is known of the path, by another connection.
    pub fn set_path(&mut self, path: Path) {
        self.path = path;
    }

    /// Holds back what was not sent yet, or no longer does: another connection is about to go on with it. What came damaged
    /// is sent again here.
    pub fn hold(&mut self, holds: bool) {
        self.holds = holds;
    }

    /// Whether this connection may be left and nothing that it carried has to be sent, or compared, once more: everything
    /// has arrived, and each transfer that was accepted has more to send, since all others are about to end.
    pub fn is_drained(&self) -> bool {
        self.flight.is_empty()
            && self.flight.damaged().is_none()
            && self.senders.values().all(|sender| !sender.is_accepted() || sender.may_go_on_elsewhere())
    }

    /// The next run of zeros to tell of, as a frame. Ask before [`next_chunk`](Self::next_chunk).
    pub fn poll_zeros(&mut self, now: Instant) -> Option<[u8; chunk::ZEROS_LEN]> {
        if !self.agreed.zeros || !self.flight.has_room(0, self.agreed.window) {
            return None;
        }
        let (transfer, offset, len, counts) = match self.first_damaged() {
            Some(sent) if sent.zeros => {
                self.take_damaged(sent.len);
                (sent.transfer, sent.offset, sent.len, sent.counts)
            }
            Some(_) => return None,
            None if self.holds => return None,
            None => {
                let (transfer, sender) = first_active(&mut self.active, &mut self.senders)?;
                let (offset, len) = sender.next_zeros()?;
                (transfer, offset, len, sender.advance_zeros(offset, len))
            }
        };
        let header = Header { transfer, sequence: self.flight.sequence(), offset };
        let frame = chunk::encode_zeros(Zeros { header, len });
        self.push(Flying { header, len, zeros: true, counts }, now);
        self.checks.insert(transfer);
        Some(frame)
    }

    /// Which bytes go next. `None` if the window is closed or nothing is left.
    pub fn next_chunk(&mut self) -> Option<Due> {
        let (transfer, offset, left) = match self.first_damaged() {
            Some(sent) if sent.zeros => return None,
            Some(sent) => (sent.transfer, sent.offset, sent.len),
            None if self.holds => return None,
            None => {
                let (transfer, sender) = first_active(&mut self.active, &mut self.senders)?;
                let (offset, left) = sender.next_bytes()?;
                (transfer, offset, left)
            }
        };
        let most = self.senders.get(&transfer).expect("it was found above").chunk();
        let chunk = self.path.chunk(most);
        let len = chunk.raw().min(left);
        let window = self.path.in_flight(chunk.raw(), self.agreed.window);
        self.flight.has_room(len, window).then_some(Due { transfer, offset, len: len as usize })
    }

    /// Writes the frame of the chunk that [`next_chunk`](Self::next_chunk) named, from its bytes, into `frame`, which must
    /// have [`chunk::frame_len`]`(bytes.len())` characters.
    ///
    /// # Panics
    /// If there is no next chunk, or `bytes` has another length.
    pub fn encode_chunk(&mut self, bytes: &[u8], frame: &mut [u8], now: Instant) {
        let Due { transfer, offset, len } = self.next_chunk().expect("a chunk is due");
        assert_eq!(bytes.len(), len, "the chunk's length was said before");
        let len = len as u64;
        let header = Header { transfer, sequence: self.flight.sequence(), offset };
        chunk::encode(header, bytes, frame);
        let sender = self.senders.get_mut(&transfer).expect("its chunk is due");
        let (counts, changed) = match self.flight.damaged().copied() {
            Some(sent) => {
                sender.progress_mut().resent += len;
                self.take_damaged(len);
                (sent.counts, false)
            }
            None => match sender.advance(offset, bytes) {
                Ok(counts) => (counts, false),
                Err(_) => (false, true),
            },
        };
        self.push(Flying { header, len, zeros: false, counts }, now);
        if changed {
            self.out.sender(transfer, SenderEvent::Changed);
        }
    }

    /// A frame that carries a part of a file goes out.
    fn push(&mut self, flying: Flying, now: Instant) {
        let Flying { header: Header { transfer, offset, .. }, len, zeros, counts } = flying;
        let is_alone = self.flight.is_empty();
        if is_alone {
            self.answered = now;
        }
        let stamp = self.path.on_sent(is_alone, now);
        self.flight.push(Sent { transfer, offset, len, zeros, counts, is_damaged: false, stamp });
        if let Some(sender) = self.senders.get_mut(&transfer) {
            sender.unsettle(1);
        }
        self.heartbeat.on_sent(now);
    }

    /// The chunk to be sent again next; those of transfers that have ended are not.
    fn first_damaged(&mut self) -> Option<Sent> {
        loop {
            let sent = *self.flight.damaged()?;
            if self.senders.contains_key(&sent.transfer) {
                return Some(sent);
            }
            self.flight.take_damaged(sent.len);
        }
    }

    fn take_damaged(&mut self, len: u64) {
        let Some(damaged) = self.flight.damaged().copied() else { return };
        self.flight.take_damaged(len);
        if damaged.len == len
            && let Some(sender) = self.senders.get_mut(&damaged.transfer)
        {
            sender.unsettle(-1);
        }
    }

    pub(super) fn handle_from_receiver(&mut self, message: Message, now: Instant) -> Result<(), Violation> {
        match message {
            Message::Ack { sequence, durable } => return self.handle_ack(sequence, &durable, now),
            Message::Nak { sequence } => {
                let sent = self.flight.refuse(sequence)?;
                self.path.on_damaged(sent.crossed());
                if let Some(sender) = self.senders.get_mut(&sent.transfer) {
                    sender.progress_mut().naks += 1;
                }
                return Ok(());
            }
            Message::Receipt { files } => {
                for (transfer, digest) in files {
                    let Some(sender) = find(&mut self.senders, transfer, self.next_transfer)? else {
                        continue;
                    };
                    self.answered = now;
                    sender.handle_receipt(digest, &mut self.out)?;
                    self.end_sender(transfer);
                }
                return Ok(());
            }
            _ => {}
        }
        let (Message::Accept(super::message::Accept { transfer, .. })
        | Message::Reject { transfer, .. }
        | Message::Digests { transfer, .. }
        | Message::Repair { transfer, .. }) = message
        else {
            return Ok(());
        };
        let Some(sender) = find(&mut self.senders, transfer, self.next_transfer)? else { return Ok(()) };
        self.answered = now;
        match message {
            Message::Accept(accept) => sender.handle_accept(accept, &mut self.out)?,
            Message::Reject { code, reason, again, .. } => {
                let (accepted, progress) = (sender.is_accepted(), sender.progress());
                let reason = clip(&reason).into_owned();
                let rejected = SenderEvent::Rejected { accepted, code, reason, again, progress };
                self.out.sender(transfer, rejected);
                self.end_sender(transfer);
                return Ok(());
            }
            Message::Digests { first, digests, .. } => {
                sender.handle_digests(first, &digests, &mut self.out)?;
            }
            Message::Repair { blocks, .. } => sender.handle_repair(&blocks, &mut self.out)?,
            _ => {}
        }
        self.watch(transfer);
        Ok(())
    }

    fn handle_ack(&mut self, sequence: u64, durable: &[(u32, u64)], now: Instant) -> Result<(), Violation> {
        let senders = &mut self.senders;
        let out = &mut self.out;
        let mut settled = BlockSet::new();
        let acknowledged = self.flight.acknowledge(sequence, |sent| {
            if let Some(sender) = senders.get_mut(&sent.transfer)
                && !sent.is_damaged
            {
                sender.unsettle(-1);
                if sent.counts {
                    sender.arrived(sent.len);
                }
                settled.insert(sent.transfer.into());
            }
        })?;
        for transfer in settled.runs().flatten() {
            if let Some(sender) = senders.get_mut(&(transfer as u32)) {
                sender.settle(out);
            }
        }
        if let Some(acknowledged) = acknowledged {
            if acknowledged.crossed > 0 {
                self.path.on_acknowledged(&acknowledged, self.flight.bytes(), now);
            }
            self.answered = now;
        }
        for &(transfer, offset) in durable {
            if let Some(sender) = find(&mut self.senders, transfer, self.next_transfer)? {
                sender.handle_durable(offset)?;
                self.watch(transfer);
            }
        }
        for transfer in settled.runs().flatten() {
            self.watch(transfer as u32);
        }
        Ok(())
    }

    /// Something happened to a transfer: it may have more to send, or blocks to compare.
    pub(super) fn watch(&mut self, transfer: u32) {
        if let Some(sender) = self.senders.get(&transfer) {
            if sender.has_more() {
                self.active.insert(transfer);
            }
            if sender.is_accepted() {
                self.checks.insert(transfer);
            }
        }
    }

    fn end_sender(&mut self, transfer: u32) {
        self.senders.remove(&transfer);
        self.active.remove(&transfer);
        self.checks.remove(&transfer);
    }
}

/// The first transfer that has something to send: files go one behind the other.
fn first_active<'a>(
    active: &mut std::collections::BTreeSet<u32>,
    senders: &'a mut std::collections::BTreeMap<u32, Box<Sender>>,
) -> Option<(u32, &'a mut Sender)> {
    loop {
        let transfer = *active.first()?;
        if senders.get(&transfer).is_some_and(|sender| sender.has_more()) {
            return senders.get_mut(&transfer).map(|sender| (transfer, &mut **sender));
        }
        active.remove(&transfer);
    }
}

/// A transfer that a peer speaks of: `None` if it has ended, a violation if it was never begun.
pub(super) fn find<T>(
    transfers: &mut std::collections::BTreeMap<u32, T>,
    transfer: u32,
    next: u32,
) -> Result<Option<&mut T>, Violation> {
    if transfer >= next {
        return Err(Violation::field("transfer", format!("one that was offered, below {next}"), transfer));
    }
    Ok(transfers.get_mut(&transfer))
}
