//! A file on the shelf with a name of its own there, and no journal: nobody can go on with it.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;

use super::claims::Claim;
use super::destination::{Destination, TRIES, means, open_ours, remove_name_of};
use super::error::StorageError;
use super::folder::{FileId, Folder, FolderFile};
use super::partial::{self, Whole};
use super::partials::Pruned;
use super::tree::Place;
use crate::protocol::{FileName, RESERVED};

/// The ending of its name.
const ENDING: &str = ".plain";
/// Behind that, of names that it has for a moment.
const MOMENTS: [&str; 2] = ["-new", "-whole"];

/// A file on the shelf, locked, whose name there goes with it.
pub(super) struct Part {
    destination: Arc<Destination>,
    shelf: Arc<dyn Folder>,
    name: String,
    file: Box<dyn FolderFile>,
    id: FileId,
    claim: Claim,
}

impl Part {
    /// Makes one that nobody else has.
    pub(super) fn create(destination: &Arc<Destination>) -> Result<Self, StorageError> {
        let cannot = |operation| StorageError::io(operation, RESERVED);
        for _ in 0..TRIES {
            let shelf = destination.make_shelf()?;
            let name = new_name();
            let Some(claim) = destination.claims.take(&name) else { continue };
            let file = match shelf.create(&name, 0o666) {
                Ok(file) => file,
                // Another transfer finished and removed the directory just now; or it is another's.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) =>
                {
                    continue;
                }
                Err(error) => return Err(cannot("create a file in")(error)),
            };
            let id = file.info().map_err(cannot("stat a file in"))?.id;
            let part = Self { destination: destination.clone(), shelf, name, file, id, claim };
            let locked = destination.lock(&*part.file).map_err(cannot("lock a file in"))?;
            // Another process may have swept it before it was locked.
            if locked && part.is_in_place().map_err(cannot("stat a file in"))? {
                return Ok(part);
            }
        }
        Err(cannot("create a file in")(io::ErrorKind::NotFound.into()))
    }

    pub(super) fn file(&self) -> &dyn FolderFile {
        &*self.file
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Bytes that can be written, but for those that others are expected to write.
    pub(super) fn free_space(&self) -> io::Result<u64> {
        Ok(self.destination.free_space()?.saturating_sub(self.claim.expected_by_others()))
    }

    /// Tells how much has come, and how much more can at the most.
    pub(super) fn expect(&self, come: u64, at_most: u64) {
        self.claim.expect(come, at_most);
    }

    /// Gives it its name on the shelf again, if that was taken away.
    pub(super) fn put_in_place(&mut self, name: &str) -> Result<(), StorageError> {
        let cannot = |operation| StorageError::io(operation, name);
        if self.is_in_place().map_err(cannot("stat"))? {
            return Ok(());
        }
        let shelf = self.destination.make_shelf()?;
        if !means(&*shelf, &self.name, self.id).map_err(cannot("stat"))? {
            let copied = partial::put_back(&*shelf, &self.name, &*self.file);
            if let Some((copy, id)) = copied.map_err(cannot("put back the partial file of"))? {
                self.destination.lock(&*copy).map_err(cannot("lock"))?;
                (self.file, self.id) = (copy, id);
            }
        }
        self.shelf = shelf;
        Ok(())
    }

    /// Gives it its final name.
    pub(super) fn give_name(&self, name: &FileName, overwrite: bool) -> Result<(), StorageError> {
        let place = Place { folder: self.destination.folder.clone(), path: name.clone().into() };
        let whole = Whole { shelf: &*self.shelf, part: &self.name, file: &*self.file, id: self.id };
        partial::give_name(&self.destination, &whole, &place, overwrite)
    }

    /// Whether its name still means it.
    fn is_in_place(&self) -> io::Result<bool> {
        Ok(self.destination.is_shelf(&*self.shelf)? && means(&*self.shelf, &self.name, self.id)?)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        remove_name_of(&*self.shelf, &self.name, self.id);
        self.destination.clear_shelf();
    }
}

/// Removes one that nobody is writing.
pub(super) fn sweep_one(destination: &Destination, shelf: &dyn Folder, name: &str) -> Option<Pruned> {
    let own = MOMENTS.iter().find_map(|moment| name.strip_suffix(moment)).unwrap_or(name);
    if !is_ours(own) {
        return None;
    }
    let _claim = destination.claims.take(own)?;
    let there = shelf.lookup(name).ok()??;
    if there.is_link && there.owner == destination.abilities.owner {
        shelf.remove_file(name).ok()?;
        return Some(Pruned::default());
    }
    let (file, info) = open_ours(shelf, name).ok()??;
    if info.owner != destination.abilities.owner || !destination.lock(&*file).ok()? {
        return None;
    }
    remove_name_of(shelf, name, info.id);
    Some(Pruned { name: String::new(), bytes: info.len })
}

/// A name that nobody has.
pub(super) fn new_name() -> String {
    name_of(RandomState::new().hash_one(0))
}

/// A name that says itself that it is ours: a number, and what follows from it, which nobody hits upon by chance.
pub(super) fn name_of(number: u64) -> String {
    let check = blake3::hash(&number.to_le_bytes()).to_hex();
    format!("{number:016x}{}{ENDING}", &check[..16])
}

fn is_ours(name: &str) -> bool {
    let number = name.get(..16).and_then(|number| u64::from_str_radix(number, 16).ok());
    number.is_some_and(|number| name == name_of(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_that_it_is_ours() {
        assert!(is_ours(&name_of(0)) && is_ours(&name_of(u64::MAX)));
        for name in ["", "0123456789abcdef.plain", "0123456789abcdef0123456789abcdef.plain", "é.plain"] {
            assert!(!is_ours(name), "{name}");
        }
        assert!(!is_ours(&name_of(7).to_uppercase()));
    }
}
