//! The destination: decides whether an offer can be taken, and where it stands.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::destination::{Destination, Names};
use super::disk::DiskFolder;
use super::error::StorageError;
use super::folder::{FileInfo, Folder};
use super::offers::{Known, is_told};
use super::plain::PlainInbox;
use super::remains::Remains;
use super::sweep;
use super::target::{Stage, Target};
use super::tree::{Place, Walk};
use super::warning::Warning;
use crate::protocol::{BlockSet, CheckedOffer, MAX_FILE, Opened};

/// How long a partial file that nobody goes on with is kept: a month.
const KEEP_PARTIAL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How a destination treats what is there.
#[derive(Debug, Clone, Copy)]
pub struct InboxOptions {
    /// A file of the same name may be replaced.
    pub overwrite: bool,
    /// Files that are offered to be discarded are taken.
    pub allow_bench: bool,
    /// Partial files are removed once nothing has come for so long.
    pub keep_partial: Duration,
    /// The most bytes of a file.
    pub max_file_size: Option<u64>,
    /// Bytes of the file system that are left free.
    pub keep_free: u64,
    /// The most files at a time that were begun and are not whole; those of one block at most do not count.
    pub max_partials: Option<u64>,
}

impl Default for InboxOptions {
    fn default() -> Self {
        Self {
            overwrite: false,
            allow_bench: false,
            keep_partial: KEEP_PARTIAL,
            max_file_size: None,
            keep_free: 0,
            max_partials: None,
        }
    }
}

/// A destination directory.
pub struct Inbox {
    pub(super) destination: Arc<Destination>,
    pub(super) options: InboxOptions,
}

/// A partial file that a sender can go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumable {
    /// The path it will have, below the destination; nothing if it is longer than is kept of it.
    pub name: String,
    /// The size it will have, if its sender knew.
    pub size: Option<u64>,
    /// Bytes that are there.
    pub received: u64,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Inbox {
    /// Opens a directory of this machine as a destination, makes it if need be, and sweeps what finished
    /// transfers may have left when the machine stopped, and partial files that are too old.
    pub fn open(path: &Path, options: InboxOptions) -> Result<Self, StorageError> {
        let folder =
            DiskFolder::open(path).map_err(StorageError::io("write to", path.display().to_string()))?;
        Self::new(Arc::new(folder), options)
    }

    /// A destination in any folder.
    pub fn new(folder: Arc<dyn Folder>, options: InboxOptions) -> Result<Self, StorageError> {
        let destination = Destination::open(folder)?.keeping_free(options.keep_free);
        let inbox = Self { destination: Arc::new(destination), options };
        inbox.sweep();
        Ok(inbox)
    }

    /// What the file system cannot do, known from the start.
    pub fn warnings(&self) -> &[Warning] {
        &self.destination.abilities.warnings
    }

    /// The same directory, for files that nobody announces.
    pub fn plain(&self) -> PlainInbox {
        PlainInbox::new(self.destination.clone(), self.options.overwrite)
    }

    /// Takes an offer of a file, or says why not. Nothing changes on the disk: what the offer is received into is made by
    /// the first write.
    pub fn begin(&self, offer: CheckedOffer) -> Result<(Target, Opened), StorageError> {
        let mut walk = Walk::finding(&self.destination);
        let (target, opened, _) = self.begin_one(&mut walk, offer, &Known::default())?;
        Ok((target, opened))
    }

    /// As [`begin`](Self::begin), and the place of the file, if its directory is there.
    pub(super) fn begin_one(
        &self,
        walk: &mut Walk<'_>,
        offer: CheckedOffer,
        known: &Known,
    ) -> Result<(Target, Opened, Option<Place>), StorageError> {
        let destination = &self.destination;
        if offer.discard && !self.options.allow_bench {
            return Err(StorageError::NoBench);
        }
        let most = self.options.max_file_size.unwrap_or(MAX_FILE);
        if let Some(size) = offer.geometry.known_size().filter(|&size| size > most) {
            let name = offer.path.to_string();
            return Err(StorageError::TooLarge { name, size, most });
        }
        let overwrite = self.options.overwrite && !offer.discard;
        let names = Names::of(&offer.path, offer.discard);
        let name = offer.path.to_string();
        let claim = destination.claims.take(&names.journal);
        let claim = claim.ok_or_else(|| StorageError::Busy { name: name.clone() })?;
        let target =
            |offer, stage, claim| Target::new(destination.clone(), offer, (overwrite, most), claim, stage);
        let place = if offer.discard { None } else { walk.find(&offer.path)? };
        let there = place.as_ref().map_or(Ok(None), Place::lookup)?;
        if let (Some(place), Some(there)) = (&place, &there) {
            self.refuse(&offer, place, there)?;
        }
        let remains = if known.may_hold(&names) {
            Remains::find(destination, &names, &offer)?
        } else {
            Remains::default()
        };
        if let Some(there) = there
            && self.may_be(&there, &offer, &remains, known.compares)
        {
            let mut held = BlockSet::new();
            held.insert_run(0..offer.geometry.blocks());
            let opened = Opened { held, received: there.len, complete: true, ..Opened::default() };
            return Ok((target(offer, Stage::Existing(remains), claim), opened, place));
        }
        let is_new = remains.is_nothing();
        let stage = Stage::new(destination, &offer, remains);
        if let Some(most) = self.options.max_partials
            && matches!(stage, Stage::Found(_))
            && !claim.begin_partial(&known.on_shelf(destination)?, most)
            && is_new
        {
            return Err(StorageError::TooMany { name, most });
        }
        let target = target(offer, stage, claim);
        let opened = match target.take_stock(known.free) {
            // Before anyone is sent away.
            Err(StorageError::NoSpace { .. }) if self.sweep() > 0 => target.take_stock(None)?,
            opened => opened?,
        };
        Ok((target, opened, place))
    }

    /// Why a file cannot take the place of the one that is there, as far as that is known beforehand.
    fn refuse(&self, offer: &CheckedOffer, place: &Place, there: &FileInfo) -> Result<(), StorageError> {
        let name = offer.path.to_string();
        if !there.is_file {
            return Err(StorageError::NotAFile { name });
        }
        if !self.options.overwrite {
            return match offer.geometry.size() {
                _ if offer.geometry.is_open() => Err(StorageError::Taken { name }),
                size if size == there.len => Ok(()),
                _ => Err(StorageError::Exists { name }),
            };
        }
        let obstacle = place.folder.obstacle(place.name()).map_err(StorageError::io("stat", &name))?;
        match obstacle {
            Some(obstacle) => Err(StorageError::Fixed { name, obstacle }),
            None => Ok(()),
        }
    }

    /// Whether the file that is there may be what is offered. Content decides; what may be replaced is compared if it is
    /// likely to be the same: else that is time lost. A small file is compared at once.
    fn may_be(&self, there: &FileInfo, offer: &CheckedOffer, remains: &Remains, compares: bool) -> bool {
        let same_size = there.len == offer.geometry.size();
        let compares = compares && is_told(offer);
        let same_time =
            || compares || self.destination.abilities.is_time(there.mtime, (offer.mtime, offer.mtime_ns));
        // One that was begun to take its place was compared before.
        same_size && (!self.options.overwrite || (same_time() && !remains.is_of(offer)))
    }

    /// What stands behind an error: a directory that is gone fails in as many ways as there are operations.
    pub fn cause_of(&self, error: StorageError) -> StorageError {
        let may_be_that = matches!(
            error,
            StorageError::Io { .. } | StorageError::NoName { .. } | StorageError::Disturbed { .. }
        );
        if may_be_that && self.destination.folder.is_gone() { StorageError::Gone } else { error }
    }

    /// Partial files that a sender can go on with.
    pub fn resumable(&self) -> Vec<Resumable> {
        sweep::resumable(&self.destination)
    }

    /// Removes what finished transfers left when the machine stopped, what was to be discarded, and partial files that
    /// are too old; says how many files. Only what is provably ours goes, and what cannot be removed stays.
    pub fn sweep(&self) -> usize {
        sweep::sweep(&self.destination, self.options.keep_partial)
    }
}
