//! A file that stands under its final name already: compared by content, and followed until the receipt.

use std::io;
use std::time::SystemTime;

use super::error::StorageError;
use super::folder::{FileInfo, FolderFile};
use super::hash_block;
use super::target::{Sealed, Stage, Target, lock};
use super::tree::{Place, Walk};
use super::warning::Warning;
use crate::protocol::{DigestTree, FileDigest};

/// How often a file that changes while it is compared is compared again.
const TRIES: u32 = 3;

/// What a comparison found.
pub(super) enum Compared {
    Same(Same),
    Different,
    /// Others changed it, or moved it away, meanwhile.
    Unclear,
}

/// The very file, whose content is durable.
pub(super) struct Same {
    file: Box<dyn FolderFile>,
    info: FileInfo,
    warnings: Vec<Warning>,
}

impl Target {
    /// Whether the file that has the name is the one with this digest, durable, from before the comparison until after
    /// it.
    pub(super) fn compare(&self, digest: FileDigest) -> Result<Sealed, StorageError> {
        for _ in 0..TRIES {
            let mut walk = Walk::settling(&self.destination);
            let place = walk.find(&self.offer.path)?;
            let Some(place) = place.filter(|place| !matches!(place.lookup(), Ok(None))) else {
                return Ok(Sealed::Differs(self.become_partial()?));
            };
            let same = match self.compare_once(&place, digest)? {
                Compared::Same(same) => same,
                Compared::Different => return self.differs(),
                Compared::Unclear => continue,
            };
            walk.has_changed(&place);
            walk.sync();
            lock(&self.warnings).append(&mut walk.warnings);
            walk.check_durable(&place)?;
            let mut now = Walk::finding(&self.destination);
            if let Some(mut warnings) = self.conclude(&place, same, &mut now)? {
                warnings.append(&mut lock(&self.warnings));
                return Ok(Sealed::Stored(warnings));
            }
        }
        Err(StorageError::Disturbed { name: self.offer.path.to_string() })
    }

    /// Whether the file at this place has the size and the time that are offered: who asks for no more takes it for the same.
    pub(super) fn trust(&self, place: &Place) -> Result<bool, StorageError> {
        let offered = (self.offer.mtime, self.offer.mtime_ns);
        let same = |there: FileInfo| {
            there.is_file
                && there.len == self.geometry().size()
                && self.destination.abilities.is_time(there.mtime, offered)
        };
        Ok(place.lookup()?.is_some_and(same))
    }

    /// Compares the content of what is at this place, and makes it durable if it is the same. Its name may not be.
    pub(super) fn compare_once(&self, place: &Place, digest: FileDigest) -> Result<Compared, StorageError> {
        let Some(there) = place.lookup()? else { return Ok(Compared::Unclear) };
        if !there.is_file {
            return Err(StorageError::NotAFile { name: self.offer.path.to_string() });
        }
        if there.len != self.geometry().size() {
            return Ok(Compared::Different);
        }
        let file = match place.folder.open(place.name(), false) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Compared::Unclear),
            Err(error) => return Err(self.error("open", error)),
        };
        let mut info = file.info().map_err(|error| self.error("stat", error))?;
        if info.stamp() != there.stamp() {
            return Ok(Compared::Unclear);
        }
        let found = self.read_digest(place, &*file, &info)?;
        if found != Some(digest) {
            let is_sure = self.still(place, &*file, &info, &mut Walk::finding(&self.destination))?;
            return Ok(if is_sure { Compared::Different } else { Compared::Unclear });
        }
        let mut warnings = Vec::new();
        if self.overwrite
            && !self.destination.abilities.is_time(info.mtime, (self.offer.mtime, self.offer.mtime_ns))
        {
            if let Err(error) = file.set_mtime(self.offer.mtime, self.offer.mtime_ns) {
                warnings.push(Warning::Time(error.to_string()));
            }
            info = file.info().map_err(|error| self.error("stat", error))?;
        }
        // A receipt promises durability, whoever put the file here.
        if let Err(error) = file.sync_all() {
            self.destination.memory.doubt(info.id);
            return Err(self.error("sync", error));
        }
        Ok(Compared::Same(Same { file, info, warnings }))
    }

    /// Whether what was compared is what has the name, now that all of it is durable; `now` has begun since.
    pub(super) fn conclude(
        &self,
        place: &Place,
        same: Same,
        now: &mut Walk<'_>,
    ) -> Result<Option<Vec<Warning>>, StorageError> {
        let Same { file, info, warnings } = same;
        if !self.still(place, &*file, &info, now)? {
            return Ok(None);
        }
        if self.clear_finished(&info) && !self.still(place, &*file, &info, now)? {
            return Ok(None);
        }
        self.destination.memory.trust(info.id);
        Ok(Some(warnings))
    }

    /// Its content, unless it cannot be read.
    fn read_digest(
        &self,
        place: &Place,
        file: &dyn FolderFile,
        info: &FileInfo,
    ) -> Result<Option<FileDigest>, StorageError> {
        let memory = &self.destination.memory;
        if let Some(digest) = memory.digest(info) {
            return Ok(Some(digest));
        }
        let doubted = memory.is_doubted(info.id);
        let past_cache = doubted.then(|| place.folder.open_past_cache(place.name()));
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
    fn still(
        &self,
        place: &Place,
        file: &dyn FolderFile,
        before: &FileInfo,
        now: &mut Walk<'_>,
    ) -> Result<bool, StorageError> {
        let open = file.info().map_err(|error| self.error("stat", error))?;
        let same = |info: FileInfo| info.stamp() == before.stamp();
        let is_named = same(open) && place.lookup()?.is_some_and(same);
        Ok(is_named && now.is_still(place)?)
    }

    fn unreliable(&self, what: &'static str) -> StorageError {
        StorageError::Unreliable { name: self.offer.path.to_string(), what }
    }

    /// Removes what the machine left of this file's transfer when it stopped; whether there may have been something.
    fn clear_finished(&self, info: &FileInfo) -> bool {
        match &*self.read() {
            Stage::Existing(remains) if remains.may_be_cleared() => {
                remains.clear(&self.destination, &self.names, info.id);
                true
            }
            _ => false,
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
