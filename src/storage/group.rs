//! Many files at once: their data made durable together, then their names, each directory synced once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::destination::Destination;
use super::error::StorageError;
use super::folder::FileInfo;
use super::inbox::Inbox;
use super::partial::disturbed;
use super::small::Settled;
use super::target::{Sealed, Target, lock};
use super::tree::{Place, Walk};
use crate::protocol::FileDigest;

/// The most files whose directories are open at a time.
pub(super) const GROUP: usize = 128;
/// Threads that wait for a disk together: what waits at the same time is written in one go.
const THREADS: usize = 8;
/// Files for which one more thread is worth while.
const FILES_PER_THREAD: usize = 4;

impl Inbox {
    /// As [`Target::seal`], for many: what one of them costs alone, they share. Results come in the same order, and what
    /// fails for one harms no other.
    pub fn seal_all(&self, files: &[(Arc<Target>, FileDigest)]) -> Vec<Result<Sealed, StorageError>> {
        if files.iter().any(|(target, _)| !Arc::ptr_eq(&target.destination, &self.destination)) {
            return files.iter().map(|(target, digest)| target.seal(*digest)).collect();
        }
        let groups = files.chunks(GROUP).map(|group| {
            let group: Vec<_> = group.iter().map(|(target, digest)| (&**target, *digest)).collect();
            seal_group(&self.destination, &group)
        });
        groups.flatten().collect()
    }
}

impl Target {
    /// A group of one.
    pub(super) fn seal_alone(&self, digest: FileDigest) -> Result<Sealed, StorageError> {
        seal_group(&self.destination, &[(self, digest)]).pop().expect("a result for each file")
    }
}

/// A small file that has its name.
struct Named {
    settled: Settled,
    place: Place,
}

fn seal_group(
    destination: &Destination,
    files: &[(&Target, FileDigest)],
) -> Vec<Result<Sealed, StorageError>> {
    let settled = on_threads(files, |(target, digest)| target.settle(*digest));
    let mut walk = Walk::making(destination);
    let mut give_name = |target: &Target, settled: Settled| {
        let place = walk.make(&target.offer.path)?;
        target.name_small(&settled, &place)?;
        // From here on it is no partial file any more, whatever else fails.
        target.named.store(true, Ordering::Relaxed);
        walk.has_changed(&place);
        Ok(Named { settled, place })
    };
    let named: Vec<Result<Option<Named>, StorageError>> = settled
        .into_iter()
        .zip(files)
        .map(|(settled, (target, _))| settled?.map(|settled| give_name(target, settled)).transpose())
        .collect();
    walk.sync();
    let mut now = Walk::finding(destination);
    let mut ends = named.into_iter().zip(files).map(|(named, (target, digest))| match named? {
        Some(named) => {
            walk.check_durable(&named.place)?;
            let mut warnings = named.check(destination, &mut now, target)?;
            warnings.append(&mut walk.warnings);
            Ok(Sealed::Stored(warnings))
        }
        // One that has a journal, or was there: large, or begun before.
        None => target.seal_large(*digest),
    });
    ends.by_ref().collect()
}

impl Named {
    /// The receipt is for this very file under this name, as it was written.
    fn check(
        self,
        destination: &Destination,
        now: &mut Walk<'_>,
        target: &Target,
    ) -> Result<Vec<super::Warning>, StorageError> {
        let Settled { info, warnings, .. } = self.settled;
        let as_written =
            |named: FileInfo| (named.id, named.len, named.mtime) == (info.id, info.len, info.mtime);
        if !self.place.lookup()?.is_some_and(as_written) || !now.is_still(&self.place)? {
            return Err(disturbed(target.offer.path.as_str()));
        }
        destination.memory.trust(info.id);
        Ok(warnings)
    }
}

/// Does the same for each, a few at a time; the results come in order.
pub(super) fn on_threads<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = THREADS.min(items.len() / FILES_PER_THREAD);
    if threads < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let take_turns = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            let result = work(item);
            lock(&done).push((at, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Where there can be no more threads, this one does it.
            let _ = thread::Builder::new().spawn_scoped(scope, take_turns);
        }
        take_turns();
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}
