//! Offers: what is told of a file before it is sent.

use super::{Content, Files, SendOptions};
use crate::protocol::{Code, Input, Link, MAX_FILE, NotOffered, Offer, OfferKind, Sending};
use crate::storage::Come;
use crate::transfer::run::Transfer;
use crate::transfer::{Error, Event};

impl Files<'_> {
    pub(super) fn offer(&mut self, mut transfer: Transfer, link: &mut Link) {
        let SendOptions { repair, discard, quick, dry_run, .. } = *self.options;
        if dry_run && let Content::Place(_) = &transfer.content {
            return self.foresee(&transfer, 0, false);
        }
        // Whoever waits for all that is sent goes on waiting behind a dry run.
        let left = if dry_run { 1 } else { self.run.left() };
        let offer = transfer.offer();
        let is_file = offer.kind == OfferKind::File;
        let (repair, discard) = (repair && is_file, discard && is_file);
        // What takes part in a repair is compared block by block.
        let digest = offer.digest.filter(|_| !repair && !discard && !dry_run);
        let quick = quick && is_file && !discard;
        let offer = Offer { repair, discard, quick, left, digest, ..offer };
        let is_stream = transfer.stream().is_some();
        let zeros = transfer.source().map(|source| source.zero_blocks().clone());
        let sending = Sending {
            chunk: self.options.chunk_for(offer.size.unwrap_or(MAX_FILE)),
            zeros: zeros.unwrap_or_default(),
            already_sent: transfer.sent_up_to,
            input: is_stream.then(|| Input {
                available: offer.size.unwrap_or(0),
                hashed: std::mem::take(&mut transfer.hashed),
            }),
        };
        let offer_size = offer.size;
        transfer.wire_before = self.wire_bytes;
        match link.offer(offer, sending) {
            Ok(number) => {
                self.last_left = if dry_run { 0 } else { left };
                let offered = Event::Offered { name: transfer.name(), left, session: None };
                (self.observer)(Some(transfer.id), offered);
                if is_stream {
                    self.streams.push((
                        number,
                        Come { bytes: offer_size.unwrap_or(0), is_all: offer_size.is_some() },
                    ));
                }
                self.open.insert(number, transfer);
            }
            Err(error) => {
                let code = match error {
                    NotOffered::NoTrees | NotOffered::NoLateSize => Code::Kind,
                    NotOffered::TooLong { .. } => Code::Name,
                };
                let (peer, name, reason) = (self.peer.clone(), transfer.name(), error.to_string());
                let refused = Error::Refused { peer, name, code, reason, again: false };
                self.run.unoffered += 1;
                (self.observer)(Some(transfer.id), Event::Failed(refused));
            }
        }
    }
}
