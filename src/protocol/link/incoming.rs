//! A connection's machine as a receiver: what is offered to here, and the chunks that come.

use std::time::Instant;

use super::outgoing::find;
use super::{Action, Link, receipts_per_message};
use crate::protocol::Violation;
use crate::protocol::chunk::{self, Header, NO_TRANSFER};
use crate::protocol::digest::BlockHashes;
use crate::protocol::message::{Code, MAX_LISTED, Message, Offer, OfferKind, clip};
use crate::protocol::receiver::{Received, Receiver, ReceiverEvent, Write};

/// What is left of a transfer that was offered to here and is not over, for a last sync.
#[derive(Debug)]
pub struct Unfinished {
    /// Whole blocks whose hashes are not in the journal yet.
    pub unsynced: Vec<(u64, BlockHashes)>,
    /// The offset behind which nothing is worth keeping.
    pub end: Option<u64>,
}

impl Link {
    /// How far a transfer is that was offered to here.
    pub fn received(&self, transfer: u32) -> Option<Received> {
        self.receivers.get(&transfer).map(|receiver| receiver.so_far())
    }

    /// Chunk frames that came damaged.
    pub fn naks(&self) -> u32 {
        self.arrivals.naks()
    }

    /// Takes out what is left of a transfer that was offered to here.
    pub fn take_unfinished(&mut self, transfer: u32) -> Option<Unfinished> {
        let cancelled = self.cancelled.remove(&transfer);
        let mut receiver = cancelled.or_else(|| self.remove_receiver(transfer))?;
        Some(Unfinished { unsynced: receiver.take_unsynced(), end: receiver.end() })
    }

    /// Whether what came waits for somebody who takes his time: nothing is acknowledged meanwhile, so that no more than the
    /// window follows, and the sender is told that it waits for this side.
    pub fn set_full(&mut self, is_full: bool, now: Instant) {
        if std::mem::replace(&mut self.is_full, is_full) && !is_full {
            self.idle.moved(now);
            self.arrivals.acknowledge_by(now);
        }
    }

    pub(super) fn remove_receiver(&mut self, transfer: u32) -> Option<Box<Receiver>> {
        let receiver = self.receivers.remove(&transfer)?;
        self.syncs.remove(&transfer);
        Some(receiver)
    }

    /// A transfer that was offered to here cannot be taken, or not any more; `again` if the cause may pass. It has ended, and
    /// the sender is told. What is left of it.
    pub fn fail(
        &mut self,
        transfer: u32,
        code: Code,
        reason: impl Into<String>,
        again: bool,
    ) -> Option<Unfinished> {
        let path = self.receivers.get(&transfer)?.path().to_owned();
        let reason = clip(&reason.into()).into_owned();
        self.out.send(Message::Reject { transfer, code, reason: reason.clone(), again });
        self.out.receiver(transfer, ReceiverEvent::Refused { path, code, reason });
        self.take_unfinished(transfer)
    }

    pub(super) fn handle_from_sender(&mut self, message: Message, now: Instant) -> Result<(), Violation> {
        let transfer = match message {
            Message::Offer(offer) => return self.handle_offer(offer, now),
            Message::Check { transfer, .. }
            | Message::Size { transfer, .. }
            | Message::Finish { transfer, .. }
            | Message::Cancel { transfer, .. } => transfer,
            _ => return Ok(()),
        };
        let Some(receiver) = find(&mut self.receivers, transfer, self.next_offered)? else { return Ok(()) };
        match message {
            Message::Check { first, count, tree, .. } => {
                receiver.handle_check((first, count), tree, &mut self.out)?;
                self.idle.moved(now);
            }
            Message::Size { size, .. } => {
                receiver.handle_size(size, &mut self.out, now)?;
                self.idle.moved(now);
            }
            Message::Finish { digest, .. } => {
                let counts = receiver.handle_finish(digest, &mut self.out)?;
                counts.then(|| self.idle.moved(now));
            }
            Message::Cancel { code, reason, again, .. } => {
                let reason = clip(&reason).into_owned();
                self.out.receiver(transfer, ReceiverEvent::Cancelled { code, reason, again });
                // What is left of it is put away by the caller. Another offer may come before that.
                let receiver = self.remove_receiver(transfer).expect("it was found above");
                self.cancelled.insert(transfer, receiver);
            }
            _ => {}
        }
        self.changed.insert(transfer);
        Ok(())
    }

    fn handle_offer(&mut self, offer: Offer, now: Instant) -> Result<(), Violation> {
        let (transfer, left) = (offer.transfer, offer.left);
        if transfer < self.next_offered {
            let expected = format!("at least {}", self.next_offered);
            return Err(Violation::field("offer.transfer", expected, transfer));
        }
        if self.receivers.len() as u64 >= self.config.hello.offers {
            let expected = format!("at most {}", self.config.hello.offers);
            return Err(Violation::field("offers that are open", expected, self.receivers.len() + 1));
        }
        let Some(next) = transfer.checked_add(1) else {
            return Err(Violation::field("offer.transfer", format!("below {}", u32::MAX), transfer));
        };
        if offer.size.is_none() && !self.agreed.late_size {
            return Err(Violation::field(
                "offer.size",
                "a number, since `late-size` was not agreed on",
                "none",
            ));
        }
        let path = clip(&offer.path).into_owned();
        let needs_trees = offer.path.contains('/') || offer.kind != OfferKind::File;
        let checked = offer.check()?;
        self.next_offered = next;
        self.out.receiver(transfer, ReceiverEvent::Offered { path: path.clone(), left });
        let refusal = match &checked {
            Err(error) => Some((Code::Name, format!("the name is not allowed: {error}"))),
            Ok(_) if needs_trees && !self.agreed.trees => {
                Some((Code::Kind, "directories are not taken here".to_owned()))
            }
            Ok(_) => None,
        };
        if let Some((code, reason)) = refusal {
            self.out.send(Message::Reject { transfer, code, reason: reason.clone(), again: false });
            self.out.receiver(transfer, ReceiverEvent::Refused { path, code, reason });
        } else if let Ok(offer) = checked {
            if self.receivers.is_empty() {
                self.idle.moved(now);
            }
            self.receivers.insert(transfer, Box::new(Receiver::new(transfer, path, &offer)));
            self.out.act(Action::Open { transfer, offer });
        }
        Ok(())
    }

    pub(super) fn handle_chunk(
        &mut self,
        frame: &[u8],
        bytes: &mut Vec<u8>,
        now: Instant,
    ) -> Result<Option<Write>, Violation> {
        let Ok(chunk) = chunk::decode(frame, bytes) else { return self.handle_damage(now) };
        let allowed = self.gaps_allowed(chunk.header.transfer);
        if self.receiver_of(chunk.header, chunk.len as u64, now)?.is_none() {
            return Ok(None);
        }
        let receiver = self.receivers.get_mut(&chunk.header.transfer).expect("it was there a line ago");
        let write = receiver.handle_chunk(chunk, &bytes[..chunk.len], allowed, now)?;
        let is_filled = receiver.is_filled();
        receiver.go_on(&mut self.out);
        self.arrived(chunk.header.transfer, chunk.len as u64, is_filled, now);
        Ok(Some(write))
    }

    pub(super) fn handle_zeros(&mut self, frame: &[u8], now: Instant) -> Result<Option<Write>, Violation> {
        let Ok(zeros) = chunk::decode_zeros(frame) else { return self.handle_damage(now) };
        if self.peer.is_some() && !self.agreed.zeros {
            return Err(Violation::Unexpected { came: "zeros", state: "runs of zeros were not agreed on" });
        }
        let Some(receiver) = self.receiver_of(zeros.header, 0, now)? else { return Ok(None) };
        let write = receiver.handle_zeros(zeros)?;
        let is_filled = receiver.is_filled();
        self.arrived(zeros.header.transfer, 0, is_filled, now);
        Ok(Some(write))
    }

    /// The transfer that a frame is of; of one that has ended, and of none, nothing is taken, and the frame counts as it
    /// came.
    fn receiver_of(
        &mut self,
        header: Header,
        len: u64,
        now: Instant,
    ) -> Result<Option<&mut Receiver>, Violation> {
        let expected = self.arrivals.sequence();
        if header.sequence != expected {
            return Err(Violation::field("chunk.sequence", expected, header.sequence));
        }
        if self.peer.is_none() {
            return Err(Violation::Unexpected { came: "chunk", state: "`hello` had not come" });
        }
        if header.transfer != NO_TRANSFER {
            find(&mut self.receivers, header.transfer, self.next_offered)?;
        }
        if !self.receivers.contains_key(&header.transfer) {
            self.arrivals.push(len, self.agreed.window, false, now);
        }
        Ok(self.receivers.get_mut(&header.transfer).map(|receiver| &mut **receiver))
    }

    fn arrived(&mut self, transfer: u32, len: u64, is_filled: bool, now: Instant) {
        self.idle.moved(now);
        self.changed.insert(transfer);
        // The last bytes of all that is open: the sender waits for nothing else.
        let last = is_filled && self.receivers.len() == 1;
        self.arrivals.push(len, self.agreed.window, last, now);
    }

    /// How many gaps one file may have: as many as frames came damaged, less those in other files.
    fn gaps_allowed(&self, transfer: u32) -> u32 {
        let naks = self.arrivals.naks();
        if naks == 0 {
            return 0;
        }
        let others = self.receivers.iter().filter(|(number, _)| **number != transfer);
        naks.saturating_sub(others.map(|(_, receiver)| receiver.gaps()).sum())
    }

    /// A frame that carries a part of a file came damaged.
    fn handle_damage(&mut self, now: Instant) -> Result<Option<Write>, Violation> {
        // What came whole once is a chunk frame also where it is damaged; what a stranger sends first is not.
        if self.next_offered == 0 && self.arrivals.sequence() == 0 {
            return Err(Violation::Unexpected { came: "chunk", state: "nothing had been offered" });
        }
        let sequence = self.arrivals.refuse(now)?;
        self.out.send(Message::Nak { sequence });
        Ok(None)
    }

    /// A message that is made when it goes out: receipts, or an acknowledgement.
    pub(super) fn due(&mut self, now: Instant) -> Option<Message> {
        if !self.receipts.is_empty() {
            let most = receipts_per_message(self.agreed.frame_limit).min(self.receipts.len());
            return Some(Message::Receipt { files: self.receipts.drain(..most).collect() });
        }
        if self.is_full || !self.arrivals.take_due(now) {
            return None;
        }
        let moved = self.syncs.iter().filter_map(|number| self.receivers.get_mut(number)?.take_durable());
        let durable = moved.take(MAX_LISTED / 4).collect();
        Some(Message::Ack { sequence: self.arrivals.sequence(), durable })
    }
}
