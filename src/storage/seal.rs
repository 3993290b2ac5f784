//! The end of a partial file: compared, named, durable, and found under its name.

use std::sync::atomic::Ordering;

use super::destination::make_writable;
use super::error::StorageError;
use super::folder::FileInfo;
use super::partial::{Partial, disturbed};
use super::target::{Sealed, Stage, Target, lock, partial_of};
use super::tree::Walk;
use super::warning::Warning;
use crate::protocol::{DigestTree, FileDigest};

/// The permission bit by which a file's owner reads it.
const OWNER_READS: u32 = 0o400;

impl Target {
    /// Gives the partial file its final name if it has this digest: sync, name, sync of the directory.
    pub(super) fn finish(&self, digest: FileDigest) -> Result<Sealed, StorageError> {
        let sealed = self.name_whole(digest);
        // Without write permission it could not be taken up again.
        if !self.named.load(Ordering::Relaxed)
            && let Stage::Partial(partial) = &*self.read()
        {
            let _ = make_writable(partial.file());
        }
        sealed
    }

    fn name_whole(&self, digest: FileDigest) -> Result<Sealed, StorageError> {
        drop(self.partial()?);
        self.put_in_order_if_need_be()?;
        let stage = self.partial()?;
        let partial = partial_of(&stage);
        let actual = self.digest_of(partial)?;
        if actual != Some(digest) {
            let name = self.offer.path.to_string();
            let actual = actual.unwrap_or_else(|| blake3::hash(b"").into());
            return Err(StorageError::Mismatch { name, expected: digest, actual });
        }
        if self.offer.discard {
            partial.remove(&self.destination);
            return Ok(Sealed::Stored(Vec::new()));
        }
        let file = partial.file();
        let stat = |error| self.error("stat", error);
        let mut warnings = std::mem::take(&mut *lock(&self.warnings));
        let found = file.info().map_err(stat)?.len;
        if found != self.geometry().size() {
            file.set_len(self.geometry().size()).map_err(|error| self.error("finish", error))?;
        }
        if let Err(error) = file.set_mtime(self.offer.mtime, self.offer.mtime_ns) {
            warnings.push(Warning::Time(error.to_string()));
        }
        // What has the final name is all that it is to be, should the machine stop behind it. As long as it is partial its
        // owner can read it.
        let is_allowed = self.offer.mode.map_or(Ok(()), |mode| file.restrict_mode(mode | OWNER_READS));
        if let Err(error) = is_allowed {
            warnings.push(Warning::Mode(error.to_string()));
        }
        if let Err(error) = file.sync_all() {
            self.destination.memory.doubt(partial.id());
            return Err(self.error("sync", error));
        }
        let settled = file.info().map_err(stat)?;
        if settled.len != self.geometry().size() {
            return Err(disturbed(self.offer.path.as_str()));
        }
        // Someone may have cut the file meanwhile: what was lengthened again would be zeros.
        let lost = self.lost_blocks(partial, found)?;
        if !lost.is_empty() {
            for block in lost.runs().flatten() {
                let forgotten = partial.journal().forget(block);
                forgotten.map_err(|error| self.error("write the journal of", error))?;
            }
            drop(stage);
            return Ok(Sealed::Differs(self.opened(None)?));
        }
        let mut walk = Walk::making(&self.destination);
        let place = walk.make(&self.offer.path)?;
        partial.give_name(&self.destination, &place, self.overwrite)?;
        // From here on it is no partial file any more, whatever else fails.
        self.named.store(true, Ordering::Relaxed);
        walk.has_changed(&place);
        walk.sync();
        warnings.append(&mut walk.warnings);
        walk.check_durable(&place)?;
        if let Some(mode) = self.offer.mode.filter(|mode| mode & OWNER_READS == 0) {
            if let Err(error) = file.restrict_mode(mode) {
                warnings.push(Warning::Mode(error.to_string()));
            }
            file.sync_all().map_err(|error| self.error("sync", error))?;
        }
        partial.remove(&self.destination);
        // The receipt is for this very file under this name, as it was written.
        let as_written = |named: FileInfo| {
            named.id == partial.id() && (named.len, named.mtime) == (settled.len, settled.mtime)
        };
        if !place.lookup()?.is_some_and(as_written) || !Walk::finding(&self.destination).is_still(&place)? {
            return Err(disturbed(self.offer.path.as_str()));
        }
        self.destination.memory.trust(partial.id());
        Ok(Sealed::Stored(warnings))
    }

    /// The digest that the journal tells; a block whose entry cannot be read is read itself.
    fn digest_of(&self, partial: &Partial) -> Result<Option<FileDigest>, StorageError> {
        let geometry = self.geometry();
        let mut tree = DigestTree::new(geometry);
        let mut next = 0;
        let mut missing = Vec::new();
        partial.journal().scan(geometry, 0..geometry.blocks(), |block, hashes| {
            missing.extend(next..block);
            next = block + 1;
            tree.insert(block, &hashes);
        });
        missing.extend(next..geometry.blocks());
        for block in missing {
            if let Some(hashes) = self.hash_block(block)? {
                tree.insert(block, &hashes);
            }
        }
        Ok(tree.digest())
    }
}
