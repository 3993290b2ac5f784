//! What came of work on a transfer that is received.

use std::task::Context;
use std::time::Instant;

use super::place::{Place, Receptacle};
use super::{Destination, Incoming};
use crate::protocol::{Done, FileDigest, Kind, Link, Opened};
use crate::storage::{Begun, Sealed, StorageError};
use crate::transfer::error::told_of_storage;

impl Destination<'_> {
    pub(super) fn opened(&mut self, number: u32, begun: Result<Begun, StorageError>, link: &mut Link) {
        let Some(transfer) = self.transfers.get_mut(&number) else { return };
        let done = begun.map(|begun| match begun {
            Begun::Open(target, opened) => {
                transfer.target = Some(Place::Target(target));
                Done::Opened(opened)
            }
            Begun::Stored(warnings) => {
                transfer.warnings = warnings;
                let is_file = transfer.offer.kind == Kind::File;
                (transfer.complete, transfer.held) = (is_file, transfer.offer.geometry.size());
                Done::Sealed(transfer.offer.digest)
            }
        });
        self.ended(number, done, link);
    }

    pub(super) fn passed(&mut self, number: u32, opened: Result<Opened, StorageError>, link: &mut Link) {
        if let (Receptacle::Outlet(outlet), Some(transfer), Ok(_)) =
            (self.into, self.transfers.get_mut(&number), &opened)
        {
            transfer.target = Some(Place::Outlet(outlet.clone()));
        }
        self.ended(number, opened.map(Done::Opened), link);
    }

    /// Tells the sender to wait as long as the reader of a pipe does, and that it is gone.
    pub(super) fn follow_pipe(&mut self, link: &mut Link, cx: &mut Context<'_>) {
        let Receptacle::Outlet(outlet) = self.into else { return };
        let runs = |transfer: &Incoming| transfer.target.is_some() && transfer.unfinished.is_none();
        let number = self.transfers.iter().find_map(|(&number, one)| runs(one).then_some(number));
        let is_full = number.map_or(Ok(false), |_| outlet.poll_full(cx));
        link.set_full(matches!(is_full, Ok(true)), Instant::now());
        if let (Some(number), Err(error)) = (number, is_full) {
            self.failed(number, error, link);
        }
    }

    pub(super) fn sealed(
        &mut self,
        number: u32,
        digest: FileDigest,
        sealed: Result<Sealed, StorageError>,
        link: &mut Link,
    ) {
        let Some(transfer) = self.transfers.get_mut(&number) else { return };
        let done = match sealed {
            Ok(Sealed::Stored(warnings)) => {
                transfer.warnings = warnings;
                Ok(Done::Sealed(Some(digest)))
            }
            Ok(Sealed::Differs(opened)) => Ok(Done::Differs(opened)),
            // What was begun under the same word for its version is another file's: all of it comes again, once.
            Err(StorageError::Mismatch { .. })
                if transfer.offer.digest.is_some() && !std::mem::replace(&mut transfer.began_anew, true) =>
            {
                Ok(Done::Differs(Opened::default()))
            }
            Err(error) => Err(error),
        };
        self.ended(number, done, link);
    }

    /// An action of a transfer was carried out.
    pub(super) fn ended(&mut self, number: u32, done: Result<Done, StorageError>, link: &mut Link) {
        if let Some(transfer) = self.transfers.get_mut(&number) {
            transfer.jobs -= 1;
        }
        match done {
            Ok(done) => link.done(number, done, Instant::now()),
            Err(error) => self.failed(number, error, link),
        }
    }

    /// The storage does not take a file, or not any more.
    pub(super) fn failed(&mut self, number: u32, error: StorageError, link: &mut Link) {
        let Some(transfer) = self.transfers.get_mut(&number) else { return };
        let error = match self.into {
            Receptacle::Inbox(inbox) => inbox.cause_of(error),
            Receptacle::Outlet(_) => error,
        };
        // Where the storage failed nothing more is called durable: the machine takes a block for whole before its last
        // bytes are written, and a second sync says nothing of what the first one lost.
        transfer.storage_failed = transfer.target.is_some();
        transfer.declined.get_or_insert_with(|| error.to_string());
        let told = told_of_storage(&error, transfer.offer.path.as_str());
        if let Some(unfinished) = link.fail(number, error.code(), told, error.may_pass()) {
            transfer.unfinished = Some(unfinished);
        }
    }
}
