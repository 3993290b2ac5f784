//! What the observer of a connection is told of the transfers that are received on it.

use super::Destination;
use crate::protocol::{FileDigest, Geometry, Link, Progress, Received, ReceiverEvent};
use crate::storage::Warning;
use crate::transfer::{Error, Event, Summary};

impl Destination<'_> {
    pub(super) fn hear_of(&mut self, number: u32, event: ReceiverEvent, link: &mut Link) {
        let id = Some(u64::from(number));
        match event {
            ReceiverEvent::Offered { path: name, left } => {
                let session = self.session.clone();
                (self.observer)(id, Event::Offered { name, left, session });
            }
            ReceiverEvent::Accepted { held, complete } => {
                let Some(transfer) = self.transfers.get_mut(&number) else { return };
                (transfer.held, transfer.complete) = (held, complete);
                tracing::debug!(peer = self.peer, transfer = number, held, complete, "accepted");
                let (name, size) = (transfer.offer.path.to_string(), transfer.offer.geometry.known_size());
                let kind = (&transfer.offer.kind).into();
                (self.observer)(id, Event::Started { name, kind, size, peer: self.peer.clone() });
                if held > 0 && !complete {
                    (self.observer)(id, Event::Resumed { held });
                }
                self.tell_progress(number, link);
            }
            ReceiverEvent::Replacing { held } => {
                if let Some(transfer) = self.transfers.get_mut(&number) {
                    (transfer.held, transfer.complete) = (held, false);
                }
                tracing::debug!(peer = self.peer, transfer = number, held, "replaces what was there");
                (self.observer)(id, Event::Replacing { held });
            }
            ReceiverEvent::Sized { size } => {
                let Some(transfer) = self.transfers.get_mut(&number) else { return };
                let geometry = Geometry::new(size).expect("the machine looked at it");
                transfer.offer.geometry = geometry;
                if let Some(target) = &transfer.target {
                    target.ends_with(geometry);
                }
            }
            ReceiverEvent::Refused { path: name, code, reason } => {
                let transfer = self.transfers.get_mut(&number);
                // On this side the whole of it is told.
                let declined = transfer.and_then(|transfer| transfer.declined.take());
                let (peer, reason) = (self.peer.clone(), declined.unwrap_or(reason));
                tracing::debug!(peer, transfer = number, ?code, "refused");
                (self.observer)(id, Event::Failed(Error::Declined { peer, name, code, reason }));
            }
            ReceiverEvent::Sealed { digest, received } => {
                self.finished(number, digest, received.again, link.naks());
            }
            ReceiverEvent::Cancelled { code, reason, again } => {
                let unfinished = link.take_unfinished(number);
                if let Some(at) = self.waiting.iter().position(|&(waiting, _)| waiting == number) {
                    self.waiting.remove(at);
                    self.transfers.remove(&number);
                } else if let Some(transfer) = self.transfers.get_mut(&number) {
                    transfer.unfinished = unfinished;
                }
                let peer = self.peer.clone();
                (self.observer)(id, Event::Failed(Error::PeerEnded { peer, code, reason, again }));
            }
        }
    }

    fn finished(&mut self, number: u32, digest: Option<FileDigest>, resent: u64, naks: u32) {
        let Some(transfer) = self.transfers.remove(&number) else { return };
        let size = transfer.offer.geometry.size();
        let progress = Progress {
            total: Some(size),
            held: transfer.held,
            acknowledged: size,
            durable: size,
            resent,
            ..Progress::default()
        };
        (self.observer)(Some(number.into()), Event::Progress(Progress { naks, ..progress }));
        let summary = Summary {
            name: transfer.offer.path.to_string(),
            kind: (&transfer.offer.kind).into(),
            peer: self.peer.clone(),
            digest,
            elapsed: transfer.started.elapsed(),
            progress,
            complete: transfer.complete,
            discarded: transfer.offer.discard,
            warnings: transfer.warnings.iter().map(Warning::to_string).collect(),
            wire_bytes: self.wire_bytes - transfer.wire_before,
        };
        (self.observer)(Some(number.into()), Event::Finished(summary));
    }

    pub(super) fn tell_progress(&mut self, number: u32, link: &Link) {
        let Some(transfer) = self.transfers.get(&number) else { return };
        let Some(Received { bytes, durable, again }) = link.received(number) else { return };
        let (total, held, naks) = (transfer.offer.geometry.known_size(), transfer.held, link.naks());
        let progress = Progress {
            total,
            held,
            acknowledged: bytes,
            durable,
            resent: again,
            naks,
            ..Progress::default()
        };
        (self.observer)(Some(number.into()), Event::Progress(progress));
    }
}
