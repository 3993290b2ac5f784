//! What a tree has beside files: directories and symbolic links.

use std::io;
use std::sync::Arc;

use super::destination::{Destination, Names, TRIES};
use super::error::StorageError;
use super::folder::{FileId, Folder};
use super::group::GROUP;
use super::inbox::Inbox;
use super::part;
use super::partial::{disturbed, unnamed};
use super::tree::{Place, Walk};
use super::warning::Warning;
use crate::protocol::{CheckedOffer, FileName, Kind, MAX_PATH, RelativePath};

/// Permission bits that an offer can set.
const PERMISSIONS: u32 = 0o777;

impl Inbox {
    /// Makes directories and symbolic links, or finds them there: durable when this returns. Results come in the same
    /// order, what the file system would not do for each; what fails for one harms no other.
    ///
    /// A directory gets its mode and its time, so it has to come behind what is in it. The mode of one that was there is
    /// only made narrower, unless it may be replaced. A link is made if it leads to something below the destination,
    /// whatever else is there: its target is relative, and goes up, if at all, at its beginning alone.
    pub fn place_all(&self, offers: &[CheckedOffer]) -> Vec<Result<Vec<Warning>, StorageError>> {
        offers.chunks(GROUP).flat_map(|group| self.place_group(group)).collect()
    }

    fn place_group(&self, offers: &[CheckedOffer]) -> Vec<Result<Vec<Warning>, StorageError>> {
        let destination = &*self.destination;
        let mut walk = Walk::making(destination);
        let placed: Vec<Result<Placed, StorageError>> = offers
            .iter()
            .map(|offer| match &offer.kind {
                Kind::Directory => self.place_directory(&mut walk, offer),
                Kind::Link(target) => self.place_link(&mut walk, offer, target),
                Kind::File => {
                    Err(StorageError::io("make", offer.path.as_str())(io::ErrorKind::InvalidInput.into()))
                }
            })
            .collect();
        walk.sync();
        let mut now = Walk::finding(destination);
        let mut check = |placed: Placed| {
            walk.check_durable(&placed.place)?;
            let is_there = placed.place.lookup()?.is_some_and(|there| there.id == placed.id);
            if !is_there || !now.is_still(&placed.place)? {
                return Err(disturbed(placed.place.path.as_str()));
            }
            let mut warnings = placed.warnings;
            warnings.append(&mut walk.warnings);
            Ok(warnings)
        };
        placed.into_iter().map(|placed| check(placed?)).collect()
    }

    fn place_directory(&self, walk: &mut Walk<'_>, offer: &CheckedOffer) -> Result<Placed, StorageError> {
        let path = offer.path.as_str();
        let place = walk.make(&offer.path)?;
        let folder = walk.open(path)?.ok_or_else(|| disturbed(path))?;
        let mut warnings = Vec::new();
        if let Some(mode) = offer.mode
            && let Err(error) = self.set_mode(&*folder, mode)
        {
            warnings.push(Warning::Mode(error.to_string()));
        }
        if let Err(error) = folder.set_mtime(offer.mtime, offer.mtime_ns) {
            warnings.push(Warning::Time(error.to_string()));
        }
        walk.has_changed_itself(path, &folder);
        Ok(Placed { place, id: folder.id(), warnings })
    }

    fn set_mode(&self, folder: &dyn Folder, mode: u32) -> io::Result<()> {
        let there = folder.info()?.mode;
        let granted = if self.options.overwrite { self.destination.abilities.granted } else { there };
        let wanted = there & !PERMISSIONS | mode & granted & PERMISSIONS;
        if wanted == there { Ok(()) } else { folder.set_mode(wanted) }
    }

    fn place_link(
        &self,
        walk: &mut Walk<'_>,
        offer: &CheckedOffer,
        target: &str,
    ) -> Result<Placed, StorageError> {
        let (destination, path) = (&self.destination, offer.path.as_str());
        if !stays_inside(&offer.path, target) {
            return Err(StorageError::LinkOutside { name: path.to_owned() });
        }
        let claim = destination.claims.take(&Names::of(&offer.path, false).journal);
        let _claim = claim.ok_or_else(|| StorageError::Busy { name: path.to_owned() })?;
        let place = walk.make(&offer.path)?;
        let mut warnings = Vec::new();
        match place.folder.symlink(target, place.name()) {
            Ok(()) => set_time(&*place.folder, place.name(), offer, &mut warnings),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unmade(path, error)),
            Err(_) if place.folder.read_link(place.name()).is_ok_and(|there| there == target) => {}
            Err(_) if self.options.overwrite => {
                warnings = replace_by_link(destination, &place, offer, target)?;
            }
            Err(_) => return Err(StorageError::Exists { name: path.to_owned() }),
        }
        walk.has_changed(&place);
        let there = place.lookup()?.filter(|there| there.is_link).ok_or_else(|| disturbed(path))?;
        Ok(Placed { place, id: there.id, warnings })
    }
}

/// What was made, or found there.
struct Placed {
    place: Place,
    id: FileId,
    warnings: Vec<Warning>,
}

/// In one step, so that there is always something of that name.
fn replace_by_link(
    destination: &Arc<Destination>,
    place: &Place,
    offer: &CheckedOffer,
    target: &str,
) -> Result<Vec<Warning>, StorageError> {
    let path = place.path.as_str();
    for _ in 0..TRIES {
        let (shelf, name) = (destination.make_shelf()?, part::new_name());
        let Some(_claim) = destination.claims.take(&name) else { continue };
        let mut warnings = Vec::new();
        let moved = shelf.symlink(target, &name).and_then(|()| {
            set_time(&*shelf, &name, offer, &mut warnings);
            shelf.rename(&name, &*place.folder, place.name(), true)
        });
        if moved.is_err() {
            let _ = shelf.remove_file(&name);
        }
        destination.clear_shelf();
        match moved {
            Ok(()) => return Ok(warnings),
            // Another transfer finished and removed the shelf just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unmade(path, error)),
        }
    }
    Err(disturbed(path))
}

fn unmade(path: &str, source: io::Error) -> StorageError {
    match unnamed(path, source) {
        StorageError::Io { source, .. } => StorageError::io("make the link", path)(source),
        told => told,
    }
}

fn set_time(folder: &dyn Folder, name: &str, offer: &CheckedOffer, warnings: &mut Vec<Warning>) {
    if let Err(error) = folder.set_link_mtime(name, offer.mtime, offer.mtime_ns) {
        warnings.push(Warning::Time(error.to_string()));
    }
}

/// Whether a link at this path leads to something below the destination. What is above a link are directories, so it is
/// known where `..` at its beginning leads; behind a name, which may be another link's, it is not.
fn stays_inside(path: &RelativePath, target: &str) -> bool {
    let mut above = path.components().count() - 1;
    let mut is_down = false;
    let mut steps = target.split('/').filter(|step| !matches!(*step, "" | "."));
    let stays = steps.all(|step| match step {
        ".." if is_down || above == 0 => false,
        ".." => {
            above -= 1;
            true
        }
        name => {
            is_down = true;
            name.parse::<FileName>().is_ok()
        }
    });
    stays && !target.is_empty() && !target.starts_with('/') && target.len() <= MAX_PATH
}
