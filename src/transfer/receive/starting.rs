//! What is begun of a transfer that is received: its name, its place, its opening, its sealing, its end.

use std::time::Instant;

use super::place::Receptacle;
use super::work::{Outcome, is_small, open_all, open_one, seal_all};
use super::{Destination, Incoming};
use crate::protocol::CheckedOffer;
use crate::runtime;
use crate::transfer::claims::{Claimant, Taken};
use crate::transfer::pump::Jobs;

/// Files that are opened, or sealed, by one job: others have a turn in between.
const GROUP: usize = 256;

impl Destination<'_> {
    /// Claims the name and opens what the file is received into.
    pub(super) fn open(&mut self, number: u32, offer: CheckedOffer, jobs: &mut Jobs<Outcome>) {
        // What is to be discarded has a place of its own.
        let name = format!("{}{}", if offer.discard { "/" } else { "" }, offer.path);
        let (id, session) = (offer.id.clone(), self.session.clone());
        let claimant = Claimant { id, session, tell: self.tell.clone() };
        let claimed = self.claims.try_claim(&name, &claimant);
        let transfer = Incoming {
            offer: offer.clone(),
            target: None,
            started: Instant::now(),
            wire_before: self.wire_bytes,
            held: 0,
            complete: false,
            warnings: Vec::new(),
            jobs: 1,
            unfinished: None,
            storage_failed: false,
            began_anew: false,
            declined: None,
            moved: false,
            berth: None,
            claim: None,
        };
        let transfer = self.transfers.entry(number).insert_entry(transfer).into_mut();
        match claimed {
            Ok(claim) => {
                transfer.claim = Some(claim);
                self.waiting.push_back((number, offer));
            }
            Err(Taken::Crowded) => jobs.push(Box::pin(async move { Outcome::Claimed(number, offer, None) })),
            Err(Taken::By(..) | Taken::ByOneself(_)) => {
                let claims = self.claims.clone();
                jobs.push(Box::pin(async move {
                    let claim = claims.claim(name, claimant).await;
                    Outcome::Claimed(number, offer, claim)
                }));
            }
        }
    }

    /// Offers for which there is a place are opened: first come, first served. The others wait until one of this
    /// connection's ends.
    pub(super) fn admit(&mut self) {
        while !self.waiting.is_empty()
            && let Some(berth) = self.own.take().or_else(|| self.berths.take())
            && let Some((number, offer)) = self.waiting.pop_front()
        {
            if let Some(transfer) = self.transfers.get_mut(&number) {
                transfer.berth = Some(berth);
                self.to_open.push((number, offer));
            }
        }
    }

    /// Opens, and seals, the small files that wait for it: many at once, while others gather.
    pub(super) fn begin_groups(&mut self, jobs: &mut Jobs<Outcome>) -> bool {
        let mut moved = false;
        let inbox = match self.into {
            Receptacle::Inbox(inbox) => inbox,
            Receptacle::Outlet(outlet) => {
                for (number, offer) in self.to_open.drain(..) {
                    let opened = outlet.begin(&offer, self.session.as_deref());
                    jobs.push(Box::pin(std::future::ready(Outcome::Passed(number, opened))));
                    moved = true;
                }
                return moved;
            }
        };
        let large = self.to_open.extract_if(.., |(_, offer)| !is_small(offer)).collect::<Vec<_>>();
        for (number, offer) in large {
            jobs.push(Box::pin(open_one(inbox.clone(), number, offer)));
            moved = true;
        }
        if !self.opens && !self.to_open.is_empty() {
            let most = self.to_open.len().min(GROUP);
            let (inbox, offers) = (inbox.clone(), self.to_open.drain(..most).collect());
            jobs.push(Box::pin(open_all(inbox, offers)));
            (self.opens, moved) = (true, true);
        }
        if !self.seals && !self.to_seal.is_empty() {
            let most = self.to_seal.len().min(GROUP);
            let group: Vec<_> = self.to_seal.drain(..most).collect();
            let inbox = inbox.clone();
            jobs.push(Box::pin(runtime::spawn_blocking(move || Outcome::Sealed(seal_all(&inbox, group)))));
            (self.seals, moved) = (true, true);
        }
        moved
    }

    /// Transfers that have ended before they were whole are put away once nothing of them is under way.
    pub(super) fn begin_putting_away(&mut self, jobs: &mut Jobs<Outcome>) -> bool {
        let mut moved = false;
        for (&number, transfer) in &mut self.transfers {
            if transfer.jobs > 0 {
                continue;
            }
            let Some(unfinished) = transfer.unfinished.take() else { continue };
            transfer.jobs += 1;
            moved = true;
            // Of what was never opened nothing is on the disk: a thread for each that is refused would be one for each
            // stranger.
            let Some(target) = transfer.target.take() else {
                jobs.push(Box::pin(std::future::ready(Outcome::PutAway(number))));
                continue;
            };
            let storage_failed = transfer.storage_failed;
            jobs.push(Box::pin(runtime::spawn_blocking(move || {
                target.put_away(unfinished, storage_failed);
                Outcome::PutAway(number)
            })));
        }
        moved
    }
}
