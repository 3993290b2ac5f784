//! The sender's work over the fake link: the source, also one that comes bit by bit.

use wsferry::protocol::{Action, BLOCK, Code, Done, LinkEvent, SenderEvent};

use super::file::plain_digest;
use super::{End, Outcome, Pair};

impl Pair<'_> {
    /// More of what is offered without its size comes. Whether any did.
    pub(super) fn follow_inputs(&mut self) -> bool {
        let mut moved = false;
        for (&number, &index) in &self.sent {
            let (file, come) = (&self.files[index], &mut self.disks[index].come);
            if !file.is_input || self.outcomes[index].is_some() {
                continue;
            }
            come.let_go = come.let_go.max(self.sender.done_below(number));
            if come.bytes < file.bytes.len() {
                come.bytes = file.bytes.len().min(come.bytes + 100_003);
                self.sender.grown(number, come.bytes as u64);
                moved = true;
            }
            if come.bytes == file.bytes.len() {
                self.sender.ended(number, come.bytes as u64);
            }
        }
        moved
    }

    pub(super) fn act_as_sender(&mut self, action: Action) {
        let number = action.transfer();
        if matches!(action, Action::Open { .. }) {
            // Somebody forged an offer to the sender.
            self.sender.fail(number, Code::Other, "nothing is received here", false);
            return;
        }
        let file = &self.files[self.sent[&number]];
        let done = match action {
            Action::HashSource { block, tree, .. } => {
                let let_go = self.disks[self.sent[&number]].come.let_go;
                assert!(block * BLOCK >= let_go, "block {block} was let go");
                let hashes = file.hashes(block);
                let digest =
                    if tree { hashes.digest() } else { plain_digest(file.geometry(), block, &file.bytes) };
                Done::HashedSource(block, hashes, digest)
            }
            Action::Confirm { .. } => Done::Confirmed,
            action => panic!("{action:?} is no work of a sender"),
        };
        self.sender.done(number, done, self.now);
    }

    pub(super) fn hear_as_sender(&mut self, event: LinkEvent) -> Result<(), End> {
        let LinkEvent::Sender(number, event) = event else {
            return match event {
                LinkEvent::Ended { code, .. } => Err(End::PeerEnded(code)),
                _ => Ok(()),
            };
        };
        let index = self.sent[&number];
        let (outcome, progress) = match event {
            SenderEvent::Accepted { .. } | SenderEvent::Replacing { .. } => return Ok(()),
            SenderEvent::Receipted { digest, progress, .. } => {
                (Outcome::Receipted(digest.expect("a file has a digest")), progress)
            }
            SenderEvent::Rejected { code, progress, .. } => (Outcome::Rejected(code), progress),
            SenderEvent::Changed => {
                let progress = self.sender.progress(number).unwrap();
                self.sender.cancel(number, Code::Source, "the source changed", false);
                (Outcome::Cancelled, progress)
            }
        };
        self.outcomes[index] = Some(outcome);
        self.progress[index] = progress;
        Ok(())
    }
}
