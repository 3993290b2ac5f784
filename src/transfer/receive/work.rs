//! Work on files that are received: on other threads, since it blocks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::protocol::{Action, BlockHashes, CheckedOffer, Done, FileDigest, Kind, Opened};
use crate::runtime;
use crate::storage::{Begun, Inbox, Sealed, StorageError, Target};
use crate::transfer::claims::Claim;

/// How long to wait for another program to let go of the name: one that was cut may still be syncing.
const NAME_WAIT: Duration = Duration::from_secs(3);
const NAME_POLL: Duration = Duration::from_millis(20);

/// What came of work on another thread.
pub(super) enum Outcome {
    Claimed(u32, CheckedOffer, Option<Claim>),
    Opened(Vec<(u32, Result<Begun, StorageError>)>),
    /// As above, of one that was opened apart from the others.
    OpenedOne(u32, Result<Begun, StorageError>),
    Done(u32, Result<Done, StorageError>),
    Sealed(Vec<(u32, FileDigest, Result<Sealed, StorageError>)>),
    SealedOne(u32, FileDigest, Result<Sealed, StorageError>),
    PutAway(u32),
    /// Of one that goes into a pipe.
    Passed(u32, Result<Opened, StorageError>),
    /// The connection ended first.
    Left(u32),
}

/// A small file that is whole.
pub(super) struct ToSeal {
    pub(super) number: u32,
    pub(super) target: Arc<Target>,
    pub(super) digest: FileDigest,
    pub(super) hashes: Option<BlockHashes>,
}

/// At most one block: opened and sealed with others.
pub(super) fn is_small(offer: &CheckedOffer) -> bool {
    offer.geometry.blocks() <= 1
}

/// Opens what a file is received into. Waits a moment for another program to let go of the name.
pub(super) async fn open_one(inbox: Arc<Inbox>, number: u32, offer: CheckedOffer) -> Outcome {
    let deadline = Instant::now() + NAME_WAIT;
    loop {
        let (inbox, offer) = (inbox.clone(), offer.clone());
        let begun = runtime::spawn_blocking(move || inbox.begin_all(vec![offer]).pop());
        match begun.await.expect("a result for each") {
            Err(StorageError::Busy { .. }) if Instant::now() < deadline => runtime::sleep(NAME_POLL).await,
            begun => return Outcome::OpenedOne(number, begun),
        }
    }
}

/// As [`open_one`], for many. What is no file is made.
pub(super) async fn open_all(inbox: Arc<Inbox>, all: Vec<(u32, CheckedOffer)>) -> Outcome {
    let begin = move || {
        let (files, places): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, offer)| offer.kind == Kind::File);
        let offers =
            |all: &[(u32, CheckedOffer)]| all.iter().map(|(_, offer)| offer.clone()).collect::<Vec<_>>();
        let begun = inbox.begin_all(offers(&files));
        let placed = inbox.place_all(&offers(&places));
        let placed = placed.into_iter().map(|placed| placed.map(Begun::Stored));
        let begun: Vec<_> = files.into_iter().zip(begun).chain(places.into_iter().zip(placed)).collect();
        (inbox, begun)
    };
    let (inbox, all) = runtime::spawn_blocking(begin).await;
    let mut opened = Vec::with_capacity(all.len());
    for ((number, offer), begun) in all {
        opened.push(match begun {
            // Another program has the name.
            Err(StorageError::Busy { .. }) => match open_one(inbox.clone(), number, offer).await {
                Outcome::OpenedOne(number, begun) => (number, begun),
                _ => unreachable!("one is opened"),
            },
            begun => (number, begun),
        });
    }
    Outcome::Opened(opened)
}

/// Seals many small files. Blocks.
pub(super) fn seal_all(
    inbox: &Inbox,
    group: Vec<ToSeal>,
) -> Vec<(u32, FileDigest, Result<Sealed, StorageError>)> {
    let mut sealed = Vec::with_capacity(group.len());
    let mut files = Vec::with_capacity(group.len());
    let mut numbers = Vec::with_capacity(group.len());
    for ToSeal { number, target, digest, hashes } in group {
        match hashes.map_or(Ok(()), |hashes| target.note_hashes(hashes)) {
            Ok(()) => {
                files.push((target, digest));
                numbers.push((number, digest));
            }
            Err(error) => sealed.push((number, digest, Err(error))),
        }
    }
    let results = inbox.seal_all(&files);
    sealed
        .extend(numbers.into_iter().zip(results).map(|((number, digest), result)| (number, digest, result)));
    sealed
}

/// Does what the machine asked for. Blocks.
pub(super) fn carry_out(action: Action, target: &Target) -> Outcome {
    match action {
        // Beside what the machine is told there may be warnings.
        Action::Seal { transfer, digest, .. } => Outcome::SealedOne(transfer, digest, target.seal(digest)),
        action => Outcome::Done(action.transfer(), target.carry_out(action)),
    }
}
