//! What a connection's machine wants done, and what became of it.

use std::time::Instant;

use super::{Action, Done, Link};
use crate::protocol::receiver::ReceiverEvent;

impl Link {
    /// The next thing to do.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        if let Some(action) = self.out.actions.pop_front() {
            return Some(action);
        }
        self.poll_receivers(now).or_else(|| self.poll_check(now))
    }

    /// Of those in which something changed, or whose sync is due.
    fn poll_receivers(&mut self, now: Instant) -> Option<Action> {
        let receiving = self.config.receiving;
        let limits = (receiving.sync_bytes, receiving.sync_interval);
        while let Some(&transfer) = self.changed.first() {
            if let Some(receiver) = self.receivers.get_mut(&transfer) {
                if let Some(action) = receiver.poll_action(limits, now) {
                    self.syncs.insert(transfer);
                    return Some(action);
                }
                if receiver.sync_due_at(receiving.sync_interval).is_some() {
                    self.syncs.insert(transfer);
                }
            }
            self.changed.remove(&transfer);
        }
        for transfer in &self.syncs {
            if let Some(receiver) = self.receivers.get_mut(transfer)
                && receiver.sync_due_at(receiving.sync_interval).is_some_and(|at| at <= now)
                && let Some(action) = receiver.poll_action(limits, now)
            {
                return Some(action);
            }
        }
        None
    }

    /// A held block of a source, one at a time.
    fn poll_check(&mut self, now: Instant) -> Option<Action> {
        let waited = self.waits();
        while !self.is_checking
            && let Some(&transfer) = self.checks.first()
        {
            let next = self.senders.get_mut(&transfer);
            let next = next.and_then(|sender| sender.next_check(&self.agreed, &mut self.out));
            if let Some(block) = next {
                self.is_checking = true;
                return Some(Action::HashSource { transfer, block, tree: self.agreed.tree_digests });
            }
            self.checks.remove(&transfer);
        }
        self.begin_to_wait(waited, now);
        None
    }

    /// What became of an action of a transfer. One that has ended meanwhile is none the wiser.
    ///
    /// # Panics
    /// If no such action was given out.
    pub fn done(&mut self, transfer: u32, done: Done, now: Instant) {
        match done {
            Done::HashedSource(block, hashes, digest) => {
                self.is_checking = false;
                let waited = self.waits();
                if let Some(sender) = self.senders.get_mut(&transfer) {
                    sender.checked(block, &hashes, digest, &mut self.out);
                    self.watch(transfer);
                }
                self.begin_to_wait(waited, now);
            }
            Done::Confirmed => {
                if let Some(sender) = self.senders.get_mut(&transfer) {
                    sender.confirmed(&mut self.out);
                }
            }
            done => self.done_here(transfer, done, now),
        }
    }

    /// A block of a source could not be hashed: its transfer is cancelled by the caller.
    pub fn not_hashed(&mut self) {
        self.is_checking = false;
    }

    fn done_here(&mut self, transfer: u32, done: Done, now: Instant) {
        let Some(receiver) = self.receivers.get_mut(&transfer) else { return };
        // From here on it may be the sender's turn.
        match done {
            Done::Opened(_) => self.idle.excuse(now),
            _ if receiver.is_at_work() => self.idle.moved(now),
            _ => {}
        }
        let out = &mut self.out;
        match done {
            Done::Opened(opened) => receiver.opened(opened, out),
            Done::Synced => {
                receiver.synced(out);
                self.arrivals.acknowledge_by(now);
            }
            Done::Hashed(block, hashes) => receiver.hashed(block, hashes, now, out),
            Done::Checked(block, same) => receiver.checked(block, same, out),
            Done::Digests(first, digests) => receiver.digests(first, &digests, out),
            Done::Differs(opened) => receiver.differs(opened, out),
            Done::Sealed(digest) => {
                self.receipts.push((transfer, digest));
                out.receiver(transfer, ReceiverEvent::Sealed { digest, received: receiver.so_far() });
                self.remove_receiver(transfer);
            }
            Done::HashedSource(..) | Done::Confirmed => {}
        }
        self.changed.insert(transfer);
    }
}
