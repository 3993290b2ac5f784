//! What is left on the shelf: what can be gone on with, and what nobody will.

use std::time::{Duration, SystemTime};

use super::destination::{
    BENCH_ENDINGS, Destination, ENDINGS, Names, open_ours, remove_name_of, remove_stopgaps,
};
use super::folder::Folder;
use super::inbox::Resumable;
use super::journal::{Header, read_header};
use super::part;
use super::partials::Pruned;
use crate::protocol::{MAX_FILE, RelativePath};

/// As of [`Inbox::resumable`](super::Inbox::resumable).
pub(super) fn resumable(destination: &Destination) -> Vec<Resumable> {
    let Ok(Some(shelf)) = destination.shelf() else { return Vec::new() };
    let journals = shelf.list().unwrap_or_default();
    let partials = journals.iter().filter_map(|journal| {
        let (header, names) = header_of(&*shelf, journal)?;
        if !names.part.ends_with(ENDINGS.0) {
            return None;
        }
        let received = shelf.lookup(&names.part).ok()??.len.min(header.size);
        let size = Some(header.size).filter(|&size| size < MAX_FILE);
        Some(Resumable { name: header.name, size, received })
    });
    partials.collect()
}

/// As of [`Inbox::sweep`](super::Inbox::sweep).
pub(super) fn sweep(destination: &Destination, keep: Duration) -> usize {
    prune(destination, keep).len()
}

/// Removes what nobody needs, and partial files of which nothing came for so long; what was removed.
pub(super) fn prune(destination: &Destination, keep: Duration) -> Vec<Pruned> {
    let Ok(Some(shelf)) = destination.shelf() else { return Vec::new() };
    let names = shelf.list().unwrap_or_default();
    let goes = |name: &String| {
        sweep_one(destination, &*shelf, name, keep).or_else(|| part::sweep_one(destination, &*shelf, name))
    };
    let pruned = names.iter().filter_map(goes).collect();
    destination.clear_shelf();
    pruned
}

/// Removes what is left of files that nobody announced, and no other.
pub(super) fn sweep_plain(destination: &Destination) {
    let Ok(Some(shelf)) = destination.shelf() else { return };
    for name in shelf.list().unwrap_or_default() {
        let _ = part::sweep_one(destination, &*shelf, &name);
    }
    destination.clear_shelf();
}

/// Removes a journal and its partial file, if nobody needs them.
fn sweep_one(destination: &Destination, shelf: &dyn Folder, journal: &str, keep: Duration) -> Option<Pruned> {
    let (header, names) = header_of(shelf, journal)?;
    let _claim = destination.claims.take(journal)?;
    let (file, info) = open_ours(shelf, journal).ok()??;
    // Without a name it is not the journal that has the name by now.
    let there = |name: &str| shelf.lookup(name).ok();
    if info.owner != destination.abilities.owner
        || !destination.lock(&*file).ok()?
        || there(journal)??.id != info.id
    {
        return None;
    }
    let part = there(&names.part)?;
    let goes = match part {
        None => true,
        Some(part) if !part.is_file || part.owner != destination.abilities.owner => false,
        Some(_) if names.part.ends_with(BENCH_ENDINGS.0) => true,
        // The machine stopped between the final name and the end of this one; or nothing came for long. A partial file
        // may have been given its source's time already, the journal's is that of the last sync.
        Some(part) => {
            let path = header.name.parse().ok();
            let named = path.map_or(Ok(None), |path| destination.lookup(&path)).ok().flatten();
            named.is_some_and(|named| named.id == part.id)
                // A clock that was set back makes nothing older.
                || keep.is_zero()
                || is_old(part.mtime.max(info.mtime).0, keep)
        }
    };
    if !goes {
        return None;
    }
    if let Some(part) = part {
        remove_name_of(shelf, &names.part, part.id);
    }
    remove_stopgaps(shelf, &names);
    remove_name_of(shelf, journal, info.id);
    Some(Pruned { name: header.name, bytes: part.map_or(0, |part| part.len) })
}

/// The header of a journal of ours, and the names that belong to it.
pub(super) fn header_of(shelf: &dyn Folder, journal: &str) -> Option<(Header, Names)> {
    if !journal.ends_with(ENDINGS.1) && !journal.ends_with(BENCH_ENDINGS.1) {
        return None;
    }
    let file = shelf.open(journal, false).ok()?;
    let header = file.info().ok()?.is_file.then(|| read_header(&*file).ok().flatten())??;
    let mut names =
        [false, true].into_iter().filter_map(|discard| match header.name.parse::<RelativePath>() {
            Ok(name) => Some(Names::of(&name, discard)),
            Err(_) if header.name.is_empty() => Names::of_journal(journal, discard),
            Err(_) => None,
        });
    let names = names.find(|names| names.journal == journal)?;
    Some((header, names))
}

fn is_old(seconds: i64, keep: Duration) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let old = i64::try_from(now.saturating_sub(keep).as_secs()).unwrap_or(i64::MAX);
    seconds < old
}
