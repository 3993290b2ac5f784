//! Names that are being received: one transfer for each, and what becomes of a second.
//!
//! The same sender that comes back takes its name over. Anybody else has the holder asked whether it is still there, and
//! waits for the answer: a holder that is alive keeps the name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::{mpsc, oneshot};

use crate::runtime;

/// How long a holder has to answer a question.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// How long a holder that is to go has to put its file away, behind that.
const PUT_AWAY: Duration = Duration::from_secs(10);
/// Others that may wait for one name.
const MAX_WAITING: usize = 16;

/// Which names are being received, of one destination. Clones mean the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims(Arc<Mutex<HashMap<String, Holder>>>);

#[derive(Debug)]
struct Holder {
    claimant: Claimant,
    /// Told when the name is free.
    waiting: Vec<oneshot::Sender<()>>,
}

/// Who claims a name.
#[derive(Debug, Clone)]
pub(super) struct Claimant {
    /// The offer's id, and its sender's run.
    pub(super) id: String,
    pub(super) session: Option<String>,
    /// Where its connection hears that somebody else wants a name.
    pub(super) tell: mpsc::UnboundedSender<Wanted>,
}

/// A name that is held until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Claims,
    name: String,
}

/// Somebody else wants a name that is held.
#[derive(Debug)]
pub(super) enum Wanted {
    /// The same sender, on another connection: this one is left over.
    ByItself,
    /// Somebody else, who is to be told if the holder is there.
    ByAnother(oneshot::Sender<()>),
}

/// How a name was not to be had at once.
#[derive(Debug)]
pub(super) enum Taken {
    /// Too many wait for it.
    Crowded,
    /// The first is told when it is free, the second that its holder is there.
    By(oneshot::Receiver<()>, oneshot::Receiver<()>),
    /// As the first, by the connection that asks: what it offered there before is about to be put away.
    ByOneself(oneshot::Receiver<()>),
}

impl Claims {
    /// Claims a name; `None` if somebody holds it and is there.
    pub(super) async fn claim(self, name: String, claimant: Claimant) -> Option<Claim> {
        loop {
            let (free, alive) = match self.try_claim(&name, &claimant) {
                Ok(claim) => return Some(claim),
                Err(Taken::Crowded) => return None,
                Err(Taken::ByOneself(free)) => {
                    runtime::timeout(PUT_AWAY, free).await?.ok();
                    continue;
                }
                Err(Taken::By(free, alive)) => (free, alive),
            };
            let limit = PATIENCE + PUT_AWAY;
            match runtime::timeout(limit, futures::future::select(free, alive)).await {
                Some(futures::future::Either::Left(_)) => {}
                // It answered, or its question went with it; then the name is free in a moment.
                Some(futures::future::Either::Right((Ok(()), _))) | None => return None,
                Some(futures::future::Either::Right((Err(_), free))) => {
                    runtime::timeout(PUT_AWAY, free).await?.ok();
                }
            }
        }
    }

    /// Claims a name that nobody holds.
    pub(super) fn try_claim(&self, name: &str, claimant: &Claimant) -> Result<Claim, Taken> {
        let mut holders = self.lock();
        let Some(holder) = holders.get_mut(name) else {
            holders.insert(name.to_owned(), Holder { claimant: claimant.clone(), waiting: Vec::new() });
            return Ok(Claim { claims: self.clone(), name: name.to_owned() });
        };
        holder.waiting.retain(|waiting| !waiting.is_canceled());
        if holder.waiting.len() >= MAX_WAITING {
            return Err(Taken::Crowded);
        }
        let (tell_free, free) = oneshot::channel();
        holder.waiting.push(tell_free);
        if holder.claimant.tell.same_receiver(&claimant.tell) {
            return Err(Taken::ByOneself(free));
        }
        let (tell_alive, alive) = oneshot::channel();
        let is_itself = claimant.session.is_some()
            && (&holder.claimant.session, &holder.claimant.id) == (&claimant.session, &claimant.id);
        let wanted = if is_itself { Wanted::ByItself } else { Wanted::ByAnother(tell_alive) };
        // A holder that hears it no more is about to let go.
        let _ = holder.claimant.tell.unbounded_send(wanted);
        Err(Taken::By(free, alive))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Holder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(holder) = self.claims.lock().remove(&self.name) {
            for waiting in holder.waiting {
                let _ = waiting.send(());
            }
        }
    }
}
