//! What is remembered of files between transfers, as long as the program runs.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::folder::{FileId, FileInfo, Stamp, Time};
use crate::protocol::FileDigest;

/// The most files that are remembered.
const MOST: usize = 1024;

/// A version is settled once it is this old, in seconds: the coarsest clock of a file system ticks every two.
const SETTLED: i64 = 4;

/// What is remembered of files.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Files that could not be synced: what memory says of them need not be on the disk, and a second sync says that all
    /// is well.
    doubted: HashSet<FileId>,
    /// What versions of files were found to hold.
    digests: HashMap<FileId, (Stamp, FileDigest)>,
}

impl Memory {
    /// A sync of this file failed.
    pub(super) fn doubt(&self, file: FileId) {
        let mut state = self.state();
        state.doubted.insert(file);
        state.digests.remove(&file);
    }

    /// It was written again, or read past the cache.
    pub(super) fn trust(&self, file: FileId) {
        self.state().doubted.remove(&file);
    }

    pub(super) fn is_doubted(&self, file: FileId) -> bool {
        self.state().doubted.contains(&file)
    }

    /// The digest of this version, so that a peer that asks again and again has it read once.
    pub(super) fn digest(&self, info: &FileInfo) -> Option<FileDigest> {
        let state = self.state();
        let (stamp, digest) = state.digests.get(&info.id)?;
        (*stamp == info.stamp()).then_some(*digest)
    }

    /// This version was read and has this digest. Kept if a change from now on would move its times.
    pub(super) fn keep_digest(&self, info: &FileInfo, digest: FileDigest, read_from: SystemTime) {
        let now = read_from.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let old = |(seconds, _): Time| seconds + SETTLED <= now;
        if old(info.ctime) {
            let mut state = self.state();
            if state.digests.len() >= MOST {
                state.digests.clear();
            }
            state.digests.insert(info.id, (info.stamp(), digest));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is a single call: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
