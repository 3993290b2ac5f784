//! A file of at most one block on its way: no journal, and no name anywhere before it is whole.
//!
//! What is there of it goes with its handle if the machine stops. If only the connection ends, it becomes a partial file as
//! any other.

use std::sync::{Arc, Mutex, OnceLock};

use super::destination::{Destination, TRIES};
use super::error::StorageError;
use super::folder::{FileInfo, FolderFile};
use super::hash_block;
use super::part;
use super::partial::{self, Whole, disturbed, unnamed};
use super::remains::Remains;
use super::target::{Stage, Target, lock};
use super::tree::Place;
use super::warning::Warning;
use crate::protocol::{BlockHashes, CheckedOffer, DigestTree, FileDigest};

/// Permission bits of a file whose sender tells none, less the umask.
const MODE: u32 = 0o666;

/// A small file, open from the first write on.
#[derive(Default)]
pub(super) struct Small {
    file: OnceLock<Arc<dyn FolderFile>>,
    /// Of what was written, as far as the caller tells.
    hashes: Mutex<Option<BlockHashes>>,
}

/// A small file that is whole and durable, and lacks its name.
pub(super) struct Settled {
    file: Arc<dyn FolderFile>,
    pub(super) info: FileInfo,
    pub(super) warnings: Vec<Warning>,
}

impl Small {
    /// Whether this offer can be received so.
    pub(super) fn fits(destination: &Destination, offer: &CheckedOffer, remains: &Remains) -> bool {
        let is_small = offer.geometry.blocks() <= 1 && !offer.repair && !offer.discard;
        is_small && destination.abilities.unnamed && remains.is_nothing()
    }

    /// The file, if anything of it came.
    pub(super) fn opened(&self) -> Option<&Arc<dyn FolderFile>> {
        self.file.get()
    }

    /// The file, made if it is not there.
    pub(super) fn file(
        &self,
        destination: &Destination,
        offer: &CheckedOffer,
    ) -> Result<&Arc<dyn FolderFile>, StorageError> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = destination.folder.create_unnamed(offer.mode.unwrap_or(MODE));
        let file = file.map_err(StorageError::io("create", offer.path.as_str()))?;
        Ok(self.file.get_or_init(|| file.into()))
    }

    /// Something is written: what was told of its content counts no more.
    pub(super) fn changes(&self) {
        lock(&self.hashes).take();
    }
}

impl Target {
    /// Tells the hashes of a file of one block, once all of it was written: it is not read again to be sealed. Where there
    /// is a journal they go there.
    pub fn note_hashes(&self, hashes: BlockHashes) -> Result<(), StorageError> {
        if let Stage::Small(small) = &*self.read() {
            *lock(&small.hashes) = Some(hashes);
            return Ok(());
        }
        self.sync(&[(0, hashes)])
    }

    /// Makes a small file durable, if it has this digest. `None` if it is not on its way as a small one any more.
    pub(super) fn settle(&self, digest: FileDigest) -> Result<Option<Settled>, StorageError> {
        let stage = self.read();
        let Stage::Small(small) = &*stage else { return Ok(None) };
        let file = small.file(&self.destination, &self.offer)?.clone();
        let noted = *lock(&small.hashes);
        let hashes = match noted {
            None if self.geometry().blocks() > 0 => {
                hash_block(self.geometry(), 0, |bytes, offset| file.read_at(bytes, offset)).ok()
            }
            noted => noted,
        };
        let mut tree = DigestTree::new(self.geometry());
        if let Some(hashes) = hashes {
            tree.insert(0, &hashes);
        }
        let actual = tree.digest();
        if actual != Some(digest) {
            let name = self.offer.path.to_string();
            let actual = actual.unwrap_or_else(|| blake3::hash(b"").into());
            return Err(StorageError::Mismatch { name, expected: digest, actual });
        }
        let mut warnings = Vec::new();
        if let Err(error) = file.set_mtime(self.offer.mtime, self.offer.mtime_ns) {
            warnings.push(Warning::Time(error.to_string()));
        }
        if let Err(error) = file.sync_all() {
            // What was lost reads well, and a second sync would call it written.
            small.changes();
            let _ = file.set_len(0);
            if let Ok(info) = file.info() {
                self.destination.memory.doubt(info.id);
            }
            return Err(self.error("sync", error));
        }
        let mut info = file.info().map_err(|error| self.error("stat", error))?;
        // Where permissions are the same for everything.
        if let Some(mode) = self.offer.mode.filter(|mode| info.mode & 0o777 & !mode != 0) {
            match file.restrict_mode(mode) {
                Ok(()) => file.sync_all().map_err(|error| self.error("sync", error))?,
                Err(error) => warnings.push(Warning::Mode(error.to_string())),
            }
            info = file.info().map_err(|error| self.error("stat", error))?;
        }
        if info.len != self.geometry().size() {
            return Err(disturbed(self.offer.path.as_str()));
        }
        Ok(Some(Settled { file, info, warnings }))
    }

    /// Gives a small file its name.
    pub(super) fn name_small(&self, settled: &Settled, place: &Place) -> Result<(), StorageError> {
        let path = place.path.as_str();
        match place.folder.link(&*settled.file, place.name()) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(unnamed(path, error));
            }
            Err(_) if !self.overwrite => return Err(StorageError::Exists { name: path.to_owned() }),
            Err(_) => {}
        }
        // What is there is replaced by a rename, from a name on the shelf that is swept unless it is locked.
        self.uses_shelf();
        self.destination.lock(&*settled.file).map_err(|error| self.error("lock", error))?;
        let mut result = Err(disturbed(path));
        for _ in 0..TRIES {
            let shelf = self.destination.make_shelf()?;
            let part = part::new_name();
            let whole = Whole { shelf: &*shelf, part: &part, file: &*settled.file, id: settled.info.id };
            result = partial::give_name(&self.destination, &whole, place, true);
            // Another transfer may have removed the shelf just now.
            if !matches!(result, Err(StorageError::Disturbed { .. })) {
                break;
            }
        }
        result
    }
}
