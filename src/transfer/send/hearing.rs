//! What the receiver says of the files of a run, and how each of them ends.

use std::time::Duration;

use super::Files;
use crate::protocol::{Code, FileDigest, Link, Progress, SenderEvent};
use crate::storage::SourceError;
use crate::transfer::recovery::{self, Next};
use crate::transfer::run::Transfer;
use crate::transfer::{Error, Event, Summary};

impl Files<'_> {
    pub(super) fn hear_of(&mut self, number: u32, event: SenderEvent, link: &mut Link) {
        let Some(transfer) = self.open.get_mut(&number) else { return };
        let id = Some(transfer.id);
        match event {
            SenderEvent::Accepted { held, complete } => {
                self.run.reached = true;
                if self.options.dry_run {
                    let Some(transfer) = self.take(number) else { return };
                    link.cancel(number, Code::Source, "a dry run: nothing is sent", true);
                    return self.foresee(&transfer, held, complete);
                }
                (transfer.began, transfer.complete) = (true, complete);
                if let Some(started) = transfer.start(&self.peer) {
                    (self.observer)(id, started);
                }
                if held > 0 && !complete {
                    (self.observer)(id, Event::Resumed { held });
                }
                // An empty file has nothing to acknowledge.
                self.tell_progress(number, link, true);
            }
            SenderEvent::Replacing { held } => {
                transfer.replaces(held);
                (self.observer)(id, Event::Replacing { held });
            }
            SenderEvent::Receipted { digest, complete, progress } => {
                self.finished(number, digest, complete, progress);
            }
            SenderEvent::Rejected { accepted, code, reason, again, progress } => {
                self.run.reached = true;
                let peer = self.peer.clone();
                let error = if accepted {
                    Error::PeerEnded { peer, code, reason, again }
                } else {
                    Error::Refused { peer, name: transfer.name(), code, reason, again }
                };
                self.ended(number, progress, error);
            }
            SenderEvent::Changed => {
                if let Some(changed) = transfer.source().map(|source| source.changed_content()) {
                    self.failed(number, changed.into(), link);
                }
            }
        }
    }

    /// Tells what would become of it.
    pub(super) fn foresee(&mut self, transfer: &Transfer, held: u64, complete: bool) {
        let (name, kind, size) = (transfer.name(), transfer.kind(), transfer.size());
        let foreseen = Event::Foreseen { name, kind, size: size.unwrap_or(0), held, complete };
        (self.observer)(Some(transfer.id), foreseen);
    }

    fn finished(&mut self, number: u32, digest: Option<FileDigest>, complete: bool, progress: Progress) {
        let Some(mut transfer) = self.take(number) else { return };
        self.run.reached = true;
        self.carried = true;
        self.run.note_move();
        if let Some(started) = transfer.start(&self.peer) {
            (self.observer)(Some(transfer.id), started);
        }
        (self.observer)(Some(transfer.id), Event::Progress(transfer.total(progress)));
        transfer.end_connection(progress, self.wire_bytes);
        let summary = transfer.summarise(Summary {
            name: transfer.name(),
            kind: transfer.kind(),
            peer: self.peer.clone(),
            digest,
            elapsed: Duration::ZERO,
            progress,
            complete: complete || transfer.complete,
            discarded: self.options.discard,
            wire_bytes: 0,
            warnings: Vec::new(),
        });
        (self.observer)(Some(transfer.id), Event::Finished(summary));
    }

    /// A transfer is not on its way any more.
    fn take(&mut self, number: u32) -> Option<Transfer> {
        let mut transfer = self.open.remove(&number)?;
        self.run.let_go(&mut transfer);
        Some(transfer)
    }

    /// This side gives a transfer up: for good, or until what the source became is offered, which is at once.
    pub(super) fn failed(&mut self, number: u32, error: Error, link: &mut Link) {
        let Some(mut transfer) = self.take(number) else { return };
        let progress = link.progress(number).unwrap_or_default();
        transfer.end_connection(progress, self.wire_bytes);
        let (code, reason) = error.told("the file").unwrap_or((Code::Source, String::new()));
        let mut error = error;
        if recovery::next(&error, &self.run.facts(Some(&transfer))) == Next::Reoffer
            && let Some(source) = transfer.source().cloned()
        {
            let id = transfer.id;
            match source.reopen().and_then(|became| transfer.change(became, self.options)) {
                Ok(transfer) => {
                    link.cancel(number, code, &reason, true);
                    (self.observer)(
                        Some(transfer.id),
                        Event::Reconnecting {
                            delay: Duration::ZERO,
                            attempt: transfer.changes,
                            why: error.to_string(),
                        },
                    );
                    return self.run.offer_first(transfer);
                }
                // Another file of that path is another transfer.
                Err(replaced @ SourceError::Replaced(_)) => error = replaced.into(),
                // One that is gone has not become anything.
                Err(_) => {}
            }
            link.cancel(number, code, &reason, false);
            return (self.observer)(Some(id), Event::Failed(error));
        }
        link.cancel(number, code, &reason, false);
        (self.observer)(Some(transfer.id), Event::Failed(error));
    }

    /// The receiver ended a transfer: for good, or until it is offered again a little later.
    fn ended(&mut self, number: u32, progress: Progress, error: Error) {
        let Some(mut transfer) = self.take(number) else { return };
        transfer.end_connection(progress, self.wire_bytes);
        match recovery::next(&error, &self.run.facts(Some(&transfer))) {
            Next::Again => self.run.later.push((transfer, error)),
            _ => (self.observer)(Some(transfer.id), Event::Failed(error)),
        }
    }

    pub(super) fn tell_progress(&mut self, number: u32, link: &Link, at_once: bool) {
        let Some(transfer) = self.open.get_mut(&number).filter(|transfer| transfer.told_start) else {
            return;
        };
        let Some(progress) = link.progress(number) else { return };
        if transfer.note_progress(&progress) {
            self.carried = true;
            self.run.note_move();
        } else if !at_once {
            return;
        }
        let progress = transfer.total(progress);
        (self.observer)(Some(transfer.id), Event::Progress(progress));
    }

    /// The connection has ended: what is on its way is ready to be offered again, in order.
    pub(super) fn conclude(self, link: &mut Link, cut: bool) {
        for (number, mut transfer) in self.open.into_iter().rev() {
            if let Some(progress) = link.progress(number) {
                if transfer.note_progress(&progress) {
                    self.run.note_move();
                }
                transfer.sent_up_to = link.sent_up_to(number);
                if transfer.stream().is_some() {
                    transfer.hashed = link.take_hashed(number);
                }
                transfer.end_connection(progress, self.wire_bytes);
            }
            self.run.let_go(&mut transfer);
            // What holds its name may be what is left of this connection.
            transfer.began = true;
            self.run.offer_first(transfer);
        }
        self.run.owes = self.last_left;
        self.run.path = link.leave(cut);
    }
}
