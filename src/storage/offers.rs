//! Many offers at once: what they have in common is looked up once, and small files that are there are compared at once.

use std::collections::HashSet;
use std::sync::Arc;

use super::StorageError;
use super::destination::{BENCH_ENDINGS, Destination, ENDINGS, Names};
use super::existing::Compared;
use super::group::{GROUP, on_threads};
use super::inbox::Inbox;
use super::target::Target;
use super::tree::{Place, Walk};
use super::warning::Warning;
use crate::protocol::{CheckedOffer, Opened, RESERVED};

/// What an offer comes to.
pub enum Begun {
    /// It is to be received into this, or compared with the file that is there.
    Open(Arc<Target>, Opened),
    /// The very file stands under its name, durable; what the file system would not do for it.
    Stored(Vec<Warning>),
}

/// What offers have in common.
#[derive(Default)]
pub(super) struct Known {
    /// The names on the shelf.
    shelf: Option<HashSet<String>>,
    /// Bytes that can be written.
    pub(super) free: Option<u64>,
    /// Small files whose digests were offered are compared at once.
    pub(super) compares: bool,
}

impl Known {
    /// Whether something of a file may be on the shelf.
    pub(super) fn may_hold(&self, names: &Names) -> bool {
        let holds = |shelf: &HashSet<String>| shelf.contains(&names.part) || shelf.contains(&names.journal);
        self.shelf.as_ref().is_none_or(holds)
    }

    /// The journals on the shelf: one for each file that was begun.
    pub(super) fn on_shelf(&self, destination: &Destination) -> Result<HashSet<String>, StorageError> {
        let is_journal = |name: &&String| name.ends_with(ENDINGS.1) || name.ends_with(BENCH_ENDINGS.1);
        if let Some(shelf) = &self.shelf {
            return Ok(shelf.iter().filter(is_journal).cloned().collect());
        }
        let Some(shelf) = destination.shelf()? else { return Ok(HashSet::new()) };
        let names = shelf.list().map_err(StorageError::io("list", RESERVED))?;
        Ok(names.iter().filter(is_journal).cloned().collect())
    }
}

/// A file that is to be compared with the one that is there.
struct Candidate {
    at: usize,
    target: Target,
    opened: Opened,
    place: Place,
}

impl Inbox {
    /// As [`begin`](Self::begin), for many files; results come in the same order. A file of at most one block, whose
    /// digest is in the offer, is compared at once with the one that is there; if that is the same and may be replaced, it
    /// gets the offer's time.
    pub fn begin_all(&self, offers: Vec<CheckedOffer>) -> Vec<Result<Begun, StorageError>> {
        let known = self.known();
        let mut walk = Walk::finding(&self.destination);
        let mut begun = Vec::with_capacity(offers.len());
        let mut candidates = Vec::new();
        for (at, offer) in offers.into_iter().enumerate() {
            begun.push(match self.begin_one(&mut walk, offer, &known) {
                Ok((target, opened, Some(place))) if opened.complete && is_told(&target.offer) => {
                    candidates.push(Candidate { at, target, opened, place });
                    None
                }
                Ok((target, opened, Some(place))) if opened.complete && target.offer.quick => {
                    Some(target.trust(&place).map(|trusted| match trusted {
                        true => Begun::Stored(Vec::new()),
                        false => Begun::Open(Arc::new(target), opened),
                    }))
                }
                other => Some(other.map(|(target, opened, _)| Begun::Open(Arc::new(target), opened))),
            });
        }
        while !candidates.is_empty() {
            let rest = candidates.split_off(candidates.len().min(GROUP));
            for (at, compared) in self.compare_all(std::mem::replace(&mut candidates, rest)) {
                begun[at] = Some(compared);
            }
        }
        begun.into_iter().map(|begun| begun.expect("what was not begun at once was compared")).collect()
    }

    fn known(&self) -> Known {
        let shelf = match self.destination.shelf() {
            Ok(None) => Some(HashSet::new()),
            Ok(Some(shelf)) => shelf.list().ok().map(|names| names.into_iter().collect()),
            Err(_) => None,
        };
        Known { shelf, free: self.destination.free_space().ok(), compares: true }
    }

    fn compare_all(&self, candidates: Vec<Candidate>) -> Vec<(usize, Result<Begun, StorageError>)> {
        let compared = on_threads(&candidates, |candidate| {
            let digest = candidate.target.offer.digest.expect("candidates are files whose digest is told");
            candidate.target.compare_once(&candidate.place, digest)
        });
        let mut walk = Walk::settling(&self.destination);
        for (compared, candidate) in compared.iter().zip(&candidates) {
            // What was found there is durable once the way to it is.
            if matches!(compared, Ok(Compared::Same(_))) && walk.find(&candidate.target.offer.path).is_ok() {
                walk.has_changed(&candidate.place);
            }
        }
        walk.sync();
        let mut now = Walk::finding(&self.destination);
        let ends = compared.into_iter().zip(candidates);
        ends.map(|(compared, candidate)| (candidate.at, end(compared, candidate, &mut walk, &mut now)))
            .collect()
    }
}

/// What came of a comparison. Where that is not clear the file is compared once more when it is sealed, as any other.
fn end(
    compared: Result<Compared, StorageError>,
    candidate: Candidate,
    walk: &mut Walk<'_>,
    now: &mut Walk<'_>,
) -> Result<Begun, StorageError> {
    let Candidate { target, opened, place, .. } = candidate;
    match compared {
        Ok(Compared::Same(same)) => {
            walk.check_durable(&place)?;
            if let Some(mut warnings) = target.conclude(&place, same, now)? {
                warnings.append(&mut walk.warnings);
                return Ok(Begun::Stored(warnings));
            }
        }
        Ok(Compared::Different) if !target.overwrite => {
            return Err(StorageError::Exists { name: target.offer.path.to_string() });
        }
        Ok(Compared::Different) => {
            let opened = target.receive_instead()?;
            return Ok(Begun::Open(Arc::new(target), opened));
        }
        Ok(Compared::Unclear) | Err(_) => {}
    }
    Ok(Begun::Open(Arc::new(target), opened))
}

/// Whether an offer tells all that is needed to compare the file at once.
pub(super) fn is_told(offer: &CheckedOffer) -> bool {
    offer.digest.is_some() && offer.geometry.blocks() <= 1 && !offer.discard
}
