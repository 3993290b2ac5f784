//! What became of the actions that a receiving machine asked for, and what it asks for next.

use std::ops::Range;
use std::time::Instant;

use super::{Action, Opened, Receiver, ReceiverEvent, State};
use crate::protocol::assembly::Assembly;
use crate::protocol::blocks::BlockSet;
use crate::protocol::digest::{BlockDigest, BlockHashes, FileDigest};
use crate::protocol::geometry::MAX_FRAME;
use crate::protocol::message::{self, Accept, Code, MAX_RUNS, Message, clip, digests_to_text};
use crate::protocol::syncing::Syncing;

impl Receiver {
    /// The partial file is open: accepts the offer.
    ///
    /// # Panics
    /// Unless [`Action::Open`] was given out.
    pub fn opened(&mut self, opened: Opened) {
        assert_eq!(self.state, State::Opening, "an offer is being opened");
        self.complete = opened.complete;
        let received = opened.received.min(self.assembly.geometry().size());
        let (held, begun) = self.begin(opened);
        let message = Accept {
            id: self.id.clone(),
            held: held.runs().map(|run| (run.start, run.end - run.start)).collect(),
            begun,
            received,
            complete: self.complete,
            frame_limit: MAX_FRAME as u64,
            window: self.window,
            discard: self.discard,
        };
        self.outbox.push_back(Message::Accept(message));
        self.events
            .push_back(ReceiverEvent::Accepted { held: self.assembly.filled(), complete: self.complete });
    }

    /// What [`Action::Seal`] was to give its name, or to compare, is something else by now, and there is a partial file with
    /// this in it: asks for what is missing.
    ///
    /// # Panics
    /// Unless sealing was asked for.
    pub fn differs(&mut self, opened: Opened) {
        assert_eq!(self.state, State::Finishing, "a file is being sealed");
        let was_complete = std::mem::take(&mut self.complete);
        self.begin(opened);
        let missing = self.assembly.missing();
        if was_complete {
            self.events.push_back(ReceiverEvent::Replacing { held: self.assembly.filled() });
        }
        // Also if nothing is: the sender has to compare what there is, and to finish once more.
        if missing.is_empty() {
            self.outbox.push_back(Message::Repair { blocks: Vec::new() });
        }
        self.ask_for(missing);
    }

    /// Goes on from what there is: gives the blocks that are whole, and the beginnings of others.
    pub(super) fn begin(&mut self, opened: Opened) -> (BlockSet, Vec<(u64, u64)>) {
        let Opened { held, unhashed, received, complete } = opened;
        let geometry = self.assembly.geometry();
        // What a message cannot list is sent again; files that fill in order have one run.
        let whole: BlockSet = held.runs().chain(unhashed.runs()).collect();
        let listed: BlockSet = whole.runs().take(MAX_RUNS).collect();
        let only_listed = |set: BlockSet| set.runs().flat_map(|run| listed.within(run)).collect::<BlockSet>();
        let (held, unhashed) = (only_listed(held), only_listed(unhashed));
        if !complete {
            self.unchecked = held.clone();
            self.to_hash = unhashed.clone();
        }
        self.syncing = Syncing::new(held.clone());
        self.assembly = Assembly::new(geometry, held, unhashed, received.min(geometry.size()));
        self.state = State::Streaming;
        (listed, self.assembly.begun().collect())
    }

    /// The offer cannot be taken; `again` if the cause may pass. The machine has ended; the connection may carry another
    /// offer.
    ///
    /// # Panics
    /// Unless [`Action::Open`] was given out.
    pub fn refuse(&mut self, code: Code, reason: impl Into<String>, again: bool) {
        assert_eq!(self.state, State::Opening, "an offer is being opened");
        self.state = State::Ended;
        let (name, reason) = (std::mem::take(&mut self.name), clip(&reason.into()).into_owned());
        self.outbox.push_back(Message::Reject { id: self.id.clone(), code, reason: reason.clone(), again });
        self.events.push_back(ReceiverEvent::Refused { name, code, reason });
    }

    /// The last [`Action::Sync`] is done.
    pub fn synced(&mut self, now: Instant) {
        self.syncing.synced();
        self.arrivals.acknowledge_by(now);
        self.go_on();
    }

    /// The hashes of the block that [`Action::HashBlock`] named; `None` if it cannot be read.
    ///
    /// # Panics
    /// If it named another.
    pub fn hashed(&mut self, block: u64, hashes: Option<BlockHashes>, now: Instant) {
        let reading = self.hashing.take_if(|reading| reading.block == block).expect("it was named");
        match hashes {
            _ if reading.stale => {}
            Some(hashes) => {
                if self.assembly.hold(block) {
                    self.syncing.push(block, hashes, now);
                }
            }
            None => {
                if self.assembly.lose_unhashed(block) {
                    self.ask_for_lost(block);
                }
            }
        }
        self.go_on();
    }

    /// Whether the block that [`Action::CheckBlock`] named is what its journal entry says.
    ///
    /// # Panics
    /// If it named another.
    pub fn checked(&mut self, block: u64, same: bool) {
        let reading = self.checking.take_if(|reading| reading.block == block).expect("it was named");
        if !same && !reading.stale && self.assembly.lose(block) {
            self.syncing.forget(block);
            self.ask_for_lost(block);
        }
        self.go_on();
    }

    /// The digests that [`Action::ReadDigests`] asked for, from block `first`.
    pub fn digests(&mut self, first: u64, digests: &[BlockDigest]) {
        self.outbox.push_back(Message::Digests { first, digests: digests_to_text(digests) });
    }

    /// The file has its final name, and the directory is synced: sends the receipt.
    pub fn sealed(&mut self, digest: FileDigest) {
        self.state = State::Ended;
        self.arrivals.stop();
        self.outbox.push_back(Message::Receipt { id: self.id.clone(), digest });
        self.events.push_back(ReceiverEvent::Sealed(digest));
    }

    /// Answers `check` once the journal can: a block that is whole and on its way there is waited for.
    pub(super) fn try_to_answer(&mut self) {
        let Some(Range { start: first, end }) = self.owed_digests.clone().filter(|_| !self.reads_digests)
        else {
            return;
        };
        if let Some(durable) = self.syncing.durable_run(first) {
            let count = (end.min(durable.end) - first).min(message::digests_per_page(self.frame_limit));
            self.reads_digests = true;
            self.actions.push_back(Action::ReadDigests { first, count });
        } else if !self.assembly.is_whole(first) {
            // It was begun again, or got lost: there is nothing worth comparing.
            self.reads_digests = true;
            self.digests(first, &[BlockDigest::NONE]);
        }
    }

    /// Something was done that others may have waited for.
    pub(super) fn go_on(&mut self) {
        self.try_to_answer();
        self.try_to_seal();
    }

    pub(super) fn due_ack(&mut self, now: Instant) -> Option<Message> {
        let due = self.arrivals.take_due(now);
        due.then(|| Message::Ack { sequence: self.arrivals.sequence(), durable: self.durable() })
    }

    /// Sends `repair` for as many of the blocks as one message lists; a later `finish` brings up the rest.
    pub(super) fn ask_for(&mut self, blocks: BlockSet) {
        let runs: Vec<_> = blocks.runs().take(MAX_RUNS).collect();
        if !runs.is_empty() {
            let blocks = runs.iter().map(|run| (run.start, run.end - run.start)).collect();
            self.outbox.push_back(Message::Repair { blocks });
            runs.into_iter().for_each(|run| self.asked.insert_run(run));
        }
    }

    /// A block got lost: asks for it now, or, behind `finish`, with all that is missing.
    pub(super) fn ask_for_lost(&mut self, block: u64) {
        if self.finish.is_none() {
            self.ask_for(std::iter::once(block..block + 1).collect());
        }
    }

    /// After `finish`: asks for what is missing, or seals once everything is checked and durable.
    pub(super) fn try_to_seal(&mut self) {
        let Some(digest) = self.finish else { return };
        let hashed = self.hashing.is_none() && self.to_hash.is_empty();
        let checked = self.checking.is_none() && self.unchecked.is_empty();
        if !hashed || !checked {
            return;
        }
        let missing = self.assembly.missing();
        if !missing.is_empty() {
            self.ask_for(missing);
            self.finish = None;
            self.state = State::Streaming;
        } else if self.syncing.is_over() {
            self.finish = None;
            self.actions.push_back(Action::Seal(digest));
        }
    }
}
