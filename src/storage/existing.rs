//! A file that stands under its final name already: compared by content, and followed until the receipt.

use std::io;
use std::time::SystemTime;

use super::error::StorageError;
use super::folder::{FileInfo, FolderFile};
use super::hash_block;
use super::target::{Sealed, Stage, Target, lock};
use crate::protocol::{DigestTree, FileDigest};

/// How often a file that changes while it is compared is compared again.
const TRIES: u32 = 3;

impl Target {
    /// Whether the file that has the name is the one with this digest, durable, from before the comparison until after
    /// it.
    pub(super) fn compare(&self, digest: FileDigest) -> Result<Sealed, StorageError> {
        let folder = &*self.destination.folder;
        let name = self.offer.path.as_str();
        for _ in 0..TRIES {
            let there = folder.lookup(name).map_err(|error| self.error("stat", error))?;
            let Some(there) = there else {
                return Ok(Sealed::Differs(self.become_partial()?));
            };
            if !there.is_file {
                return Err(StorageError::NotAFile { name: name.to_owned() });
            }
            if there.len != self.geometry().size() {
                return self.differs();
            }
            let file = match folder.open(name, false) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.error("open", error)),
            };
            let before = file.info().map_err(|error| self.error("stat", error))?;
            if before.stamp() != there.stamp() {
                continue;
            }
            let found = self.read_digest(&*file, &before)?;
            let after = self.still(&*file, &before)?;
            if found != Some(digest) {
                if after {
                    return self.differs();
                }
                continue;
            }
            // A receipt promises durability, whoever put the file here.
            if let Err(error) = file.sync_all() {
                self.destination.memory.doubt(before.id);
                return Err(self.error("sync", error));
            }
            let mut warnings = std::mem::take(&mut *lock(&self.warnings));
            let synced = self.destination.sync_names(folder, &mut warnings);
            synced.map_err(StorageError::io("sync the directory", "."))?;
            if self.still(&*file, &before)? {
                self.clear_finished(&before);
                if self.still(&*file, &before)? {
                    self.destination.memory.trust(before.id);
                    return Ok(Sealed::Stored(warnings));
                }
            }
            *lock(&self.warnings) = warnings;
        }
        Err(StorageError::Disturbed { name: name.to_owned() })
    }

    /// Its content, unless it cannot be read.
    fn read_digest(
        &self,
        file: &dyn FolderFile,
        info: &FileInfo,
    ) -> Result<Option<FileDigest>, StorageError> {
        let memory = &self.destination.memory;
        if let Some(digest) = memory.digest(info) {
            return Ok(Some(digest));
        }
        let doubted = memory.is_doubted(info.id);
        let past_cache = doubted.then(|| self.destination.folder.open_past_cache(self.offer.path.as_str()));
        let past_cache = match past_cache.transpose() {
            Ok(file) => file,
            Err(_) if self.overwrite => return Ok(None),
            Err(_) => {
                return Err(self.unreliable("it could not be synced, and memory alone tells what it holds"));
            }
        };
        let file = past_cache.as_deref().unwrap_or(file);
        let started = SystemTime::now();
        let geometry = self.geometry();
        let mut tree = DigestTree::new(geometry);
        for block in 0..geometry.blocks() {
            match hash_block(geometry, block, |bytes, offset| file.read_at(bytes, offset)) {
                Ok(hashes) => tree.insert(block, &hashes),
                // It was cut short meanwhile: that shows.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                // What cannot be read is another file, if it may be replaced.
                Err(_) if self.overwrite => return Ok(None),
                Err(_) => return Err(self.unreliable("it cannot be read")),
            }
        }
        let digest = tree.digest();
        if let Some(digest) = digest.filter(|_| !doubted) {
            memory.keep_digest(info, digest, started);
        }
        Ok(digest)
    }

    /// Whether the name still means this very version.
    fn still(&self, file: &dyn FolderFile, before: &FileInfo) -> Result<bool, StorageError> {
        let now = file.info().map_err(|error| self.error("stat", error))?;
        let named = self.destination.folder.lookup(self.offer.path.as_str());
        let named = named.map_err(|error| self.error("stat", error))?;
        let same = |info: FileInfo| info.stamp() == before.stamp();
        Ok(same(now) && named.is_some_and(same))
    }

    fn unreliable(&self, what: &'static str) -> StorageError {
        StorageError::Unreliable { name: self.offer.path.to_string(), what }
    }

    /// Removes what the machine left of this file's transfer when it stopped.
    fn clear_finished(&self, info: &FileInfo) {
        if let Stage::Existing(remains) = &*self.read() {
            remains.clear(&self.destination, &self.names, info.id);
        }
    }

    /// It is another file.
    fn differs(&self) -> Result<Sealed, StorageError> {
        let name = self.offer.path.to_string();
        if self.overwrite {
            Ok(Sealed::Differs(self.become_partial()?))
        } else {
            Err(StorageError::Exists { name })
        }
    }
}
