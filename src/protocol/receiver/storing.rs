//! What became of the actions that the receiving half of a transfer asked for, and what it asks for next.

use std::time::Instant;

use super::{Opened, Owed, Receiver, ReceiverEvent, State};
use crate::protocol::assembly::Assembly;
use crate::protocol::blocks::BlockSet;
use crate::protocol::digest::{BlockDigest, BlockHashes};
use crate::protocol::link::{Action, Out};
use crate::protocol::message::{self, Accept, MAX_RUNS, Message, digests_to_text};
use crate::protocol::syncing::Syncing;

impl Receiver {
    /// The partial file is open: accepts the offer.
    pub(in crate::protocol) fn opened(&mut self, opened: Opened, out: &mut Out) {
        assert_eq!(self.state, State::Opening, "an offer is being opened");
        if opened.complete && self.known.is_some() {
            // Nothing is needed of the sender to compare it.
            self.state = State::Finishing;
            self.finish = self.known;
            return self.try_to_seal_as_it_is(out);
        }
        self.complete = opened.complete;
        self.is_accepted = true;
        let received = opened.received.min(self.assembly.geometry().size());
        let (held, begun) = self.begin(opened);
        let message = Accept {
            transfer: self.number,
            held: held.runs().map(|run| (run.start, run.end - run.start)).collect(),
            begun,
            received,
            complete: self.complete,
            discard: self.discard,
        };
        self.send(Message::Accept(message), out);
        let accepted = ReceiverEvent::Accepted { held: self.assembly.filled(), complete: self.complete };
        out.receiver(self.number, accepted);
        self.go_on(out);
    }

    /// What was to get its name, or to be compared, is something else by now, and there is a partial file with this in it:
    /// asks for what is missing.
    pub(in crate::protocol) fn differs(&mut self, opened: Opened, out: &mut Out) {
        assert_eq!(self.state, State::Finishing, "a file is being sealed");
        if !self.is_accepted {
            self.state = State::Opening;
            return self.opened(opened, out);
        }
        let was_complete = std::mem::take(&mut self.complete);
        self.begin(opened);
        let missing = self.assembly.missing();
        if was_complete {
            out.receiver(self.number, ReceiverEvent::Replacing { held: self.assembly.filled() });
        }
        // Also if nothing is: the sender has to compare what there is, and to finish once more.
        if missing.is_empty() && self.known.is_none() {
            self.send(Message::Repair { transfer: self.number, blocks: Vec::new() }, out);
        }
        self.ask_for(missing, out);
        self.go_on(out);
    }

    /// Goes on from what there is: gives the blocks that are whole, and the beginnings of others.
    fn begin(&mut self, opened: Opened) -> (BlockSet, Vec<(u64, u64)>) {
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
        self.syncing = Syncing::new(held.clone(), self.is_small);
        self.assembly = Assembly::new(geometry, held, unhashed, received.min(geometry.size()));
        if self.came == 0 {
            self.began_with = self.assembly.filled();
        }
        self.state = State::Streaming;
        (listed, self.assembly.begun().collect())
    }

    /// The last [`Action::Sync`] is done.
    pub(in crate::protocol) fn synced(&mut self, out: &mut Out) {
        self.syncing.synced();
        self.go_on(out);
    }

    /// The hashes of the block that [`Action::HashBlock`] named; `None` if it cannot be read.
    pub(in crate::protocol) fn hashed(
        &mut self,
        block: u64,
        hashes: Option<BlockHashes>,
        now: Instant,
        out: &mut Out,
    ) {
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
                    self.ask_for_lost(block, out);
                }
            }
        }
        self.go_on(out);
    }

    /// Whether the block that [`Action::CheckBlock`] named is what its journal entry says.
    pub(in crate::protocol) fn checked(&mut self, block: u64, same: bool, out: &mut Out) {
        let reading = self.checking.take_if(|reading| reading.block == block).expect("it was named");
        if !same && !reading.stale && self.assembly.lose(block) {
            self.syncing.forget(block);
            self.ask_for_lost(block, out);
        }
        self.go_on(out);
    }

    /// The digests that [`Action::ReadDigests`] asked for, from block `first`.
    pub(in crate::protocol) fn digests(&mut self, first: u64, digests: &[BlockDigest], out: &mut Out) {
        // They are owed until they go out: those of a peer that asks and does not read would pile up.
        if let Some(owed) = &mut self.owed {
            owed.is_read = true;
        }
        let digests = digests_to_text(digests);
        self.send(Message::Digests { transfer: self.number, first, digests }, out);
        self.go_on(out);
    }

    /// The digests that were asked for go out: others may be asked for.
    pub(in crate::protocol) fn digests_went_out(&mut self) {
        self.owed = None;
    }

    /// Something was done that others may have waited for.
    pub(in crate::protocol) fn go_on(&mut self, out: &mut Out) {
        self.try_to_answer(out);
        if self.state == State::Streaming && self.known.is_some() && self.is_filled() {
            self.finish = self.known;
            self.state = State::Finishing;
        }
        self.try_to_seal(out);
    }

    /// Answers `check` once the journal can: a block that is whole and on its way there is waited for.
    fn try_to_answer(&mut self, out: &mut Out) {
        let Some(Owed { blocks, tree, .. }) = self.owed.as_ref().filter(|owed| !owed.is_read) else { return };
        let (first, end, tree) = (blocks.start, blocks.end, *tree);
        // What is not journaled is read as it is.
        let readable = self.syncing.durable_run(first);
        let readable = readable.or_else(|| (self.is_small && self.assembly.is_whole(first)).then_some(0..1));
        if let Some(run) = readable {
            let count = (end.min(run.end) - first).min(message::digests_per_page(out.frame_limit));
            self.owed.as_mut().expect("it was there a line ago").is_read = true;
            out.act(Action::ReadDigests { transfer: self.number, first, count, tree });
        } else if !self.assembly.is_whole(first) {
            // It was begun again, or got lost: there is nothing worth comparing.
            self.digests(first, &[BlockDigest::NONE], out);
        }
    }

    /// Sends `repair` for as many of the blocks as one message lists; a later `finish` brings up the rest.
    fn ask_for(&mut self, blocks: BlockSet, out: &mut Out) {
        let runs: Vec<_> = blocks.runs().take(MAX_RUNS).collect();
        if !runs.is_empty() {
            let blocks = runs.iter().map(|run| (run.start, run.end - run.start)).collect();
            self.send(Message::Repair { transfer: self.number, blocks }, out);
            runs.into_iter().for_each(|run| self.asked.insert_run(run));
        }
    }

    /// A block got lost: asks for it now, or, behind `finish`, with all that is missing.
    fn ask_for_lost(&mut self, block: u64, out: &mut Out) {
        if self.finish.is_none() {
            self.ask_for(std::iter::once(block..block + 1).collect(), out);
        }
    }

    /// What is there already is compared where it is.
    fn try_to_seal_as_it_is(&mut self, out: &mut Out) {
        if let Some(digest) = self.finish.take() {
            out.act(Action::Seal { transfer: self.number, digest, hashes: None });
        }
    }

    /// When the digest is known: asks for what is missing, or seals once everything is checked and durable.
    fn try_to_seal(&mut self, out: &mut Out) {
        let Some(digest) = self.finish else { return };
        let hashed = self.hashing.is_none() && self.to_hash.is_empty();
        let checked = self.checking.is_none() && self.unchecked.is_empty();
        if !hashed || !checked {
            return;
        }
        let missing = self.assembly.missing();
        if !missing.is_empty() {
            self.ask_for(missing, out);
            self.finish = None;
            self.state = State::Streaming;
        } else if self.syncing.is_over() {
            self.finish = None;
            let hashes = self.syncing.kept();
            out.act(Action::Seal { transfer: self.number, digest, hashes });
        }
    }
}
