//! The receiver's work over the fake link: the disk, and what the pump of `src/transfer` does around it.

use wsferry::protocol::{
    Action, BLOCK, CheckedOffer, Code, Done, Geometry, LinkEvent, Opened, ReceiverEvent, Unfinished, Write,
};

use super::file::{File, hash, plain_digest};
use super::{Direction, End, Pair, Taken};

impl Pair<'_> {
    pub(super) fn hear_as_receiver(&mut self, event: LinkEvent) -> Result<(), End> {
        let LinkEvent::Receiver(number, event) = event else {
            return match event {
                LinkEvent::Ended { code, .. } => Err(End::PeerEnded(code)),
                _ => Ok(()),
            };
        };
        match event {
            ReceiverEvent::Cancelled { .. } => {
                let unfinished = self.receiver.take_unfinished(number);
                self.forget(number, unfinished);
            }
            ReceiverEvent::Sized { size } => {
                let taken = self.taken.get_mut(&number).expect("it was accepted");
                taken.offer.geometry = Geometry::new(size).unwrap();
            }
            ReceiverEvent::Sealed { .. } => self.forget(number, None),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn hand_to_receiver(&mut self, text: &str) -> Result<(), End> {
        let mut bytes = Vec::new();
        let write = self
            .receiver
            .handle_frame(text.as_bytes(), &mut bytes, self.now)
            .map_err(|violation| End::Violation(Direction::ToReceiver, violation))?;
        let (number, range) = match write {
            None => return Ok(()),
            Some(Write::Bytes { transfer, offset, len }) => {
                (transfer, offset as usize..offset as usize + len)
            }
            Some(Write::Zeros { transfer, bytes: range }) => {
                bytes = vec![0; (range.end - range.start) as usize];
                (transfer, range.start as usize..range.end as usize)
            }
        };
        let index = self.taken[&number].index;
        self.disks[index].write(range, &bytes);
        Ok(())
    }

    /// A transfer is over on the receiver's side.
    pub(super) fn forget(&mut self, number: u32, unfinished: Option<Unfinished>) {
        if let Some(Taken { index, .. }) = self.taken.remove(&number)
            && let Some(unfinished) = unfinished
        {
            self.disks[index].put_away(unfinished);
        }
    }

    pub(super) fn fail(&mut self, number: u32, code: Code) {
        let unfinished = self.receiver.fail(number, code, "it cannot be", false);
        self.forget(number, unfinished);
    }

    pub(super) fn open(&mut self, number: u32, offer: CheckedOffer) {
        let index = self.files.iter().position(|file| file.name == offer.path.as_str());
        let Some(index) = index else { return self.fail(number, Code::Name) };
        if self.taken.values().any(|taken| taken.index == index) {
            return self.fail(number, Code::Busy);
        }
        let disk = &mut self.disks[index];
        let mut opened = disk.opened(&offer);
        if let (true, Some(known)) = (opened.complete, offer.digest) {
            // It is compared at once, and may be replaced.
            if disk.digest(offer.geometry) == known {
                return self.receiver.done(number, Done::Sealed(Some(known)), self.now);
            }
            disk.sealed = None;
            opened = Opened::default();
        }
        let is_resumed = !self.disks[index].part.is_empty();
        self.taken.insert(number, Taken { index, offer, is_resumed });
        self.receiver.done(number, Done::Opened(opened), self.now);
    }

    pub(super) fn act(&mut self, action: Action) {
        let number = action.transfer();
        if let Action::Open { offer, .. } = action {
            return self.open(number, offer);
        }
        // One that is over meanwhile has no file open.
        let Some(Taken { index, offer, .. }) = self.taken.get(&number) else { return };
        let (geometry, disk) = (offer.geometry, &mut self.disks[*index]);
        let done = match action {
            Action::Sync { blocks, .. } => {
                let is_large = geometry.blocks() > 1 || self.files[*index].is_input;
                assert!(is_large, "what has one block is not journaled before its end");
                disk.journal.extend(blocks);
                Done::Synced
            }
            Action::HashBlock { block, .. } => {
                disk.read_back.push(block);
                Done::Hashed(block, Some(hash(geometry, block, &disk.part)))
            }
            Action::CheckBlock { block, .. } => {
                Done::Checked(block, disk.journal[&block] == hash(geometry, block, &disk.part))
            }
            Action::ReadDigests { first, count, tree, .. } => {
                let digest = |block| match tree {
                    true => disk.hashes(geometry, block).digest(),
                    false => plain_digest(geometry, block, &disk.part),
                };
                Done::Digests(first, (first..first + count).map(digest).collect())
            }
            Action::Seal { digest, hashes, .. } => {
                disk.journal.extend(hashes.map(|hashes| (0, hashes)));
                if disk.digest(geometry) != digest {
                    return self.differs(number);
                }
                if disk.sealed.is_none() {
                    disk.part.truncate(geometry.size() as usize);
                    let (name, bytes) = (offer.path.to_string(), std::mem::take(&mut disk.part));
                    let File { zeros, known, is_input, .. } = self.files[*index].clone();
                    disk.sealed = Some(File {
                        name,
                        bytes,
                        mtime: offer.mtime,
                        mode: offer.mode,
                        zeros,
                        known,
                        is_input,
                    });
                    disk.journal.clear();
                }
                Done::Sealed(Some(digest))
            }
            action => panic!("{action:?} is no work of a receiver"),
        };
        self.receiver.done(number, done, self.now);
    }

    /// What was to be sealed is something else: another file that stood there may be replaced, and what was left of another
    /// version, where nobody compares blocks since the digest is known, goes.
    pub(super) fn differs(&mut self, number: u32) {
        let taken = self.taken.get_mut(&number).expect("it is being sealed");
        let disk = &mut self.disks[taken.index];
        let was_there = taken.offer.digest.is_some() && std::mem::take(&mut taken.is_resumed);
        if disk.sealed.take().is_some() || was_there {
            disk.journal.clear();
            self.receiver.done(number, Done::Differs(Opened::default()), self.now);
        } else {
            self.fail(number, Code::Digest);
        }
    }

    /// What is called durable is in the journal, and the partial file reaches as far.
    pub(super) fn check_durable(&self, number: u32, durable: u64) {
        let Some(Taken { index, offer, .. }) = self.taken.get(&number) else { return };
        let disk = &self.disks[*index];
        if disk.sealed.is_none() {
            let blocks = durable.div_ceil(BLOCK);
            assert!(durable == offer.geometry.size() || durable.is_multiple_of(BLOCK), "{durable}");
            assert!((0..blocks).all(|block| disk.journal.contains_key(&block)), "{durable} are not durable");
            assert!(durable <= disk.part.len() as u64);
        }
    }
}
