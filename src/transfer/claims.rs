//! Names that are being received: one transfer for each, and what becomes of a second.
//!
//! The same sender that comes back takes its name over. Anybody else has the holder asked whether it is still there, and
//! waits for the answer: a holder that is alive keeps the name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};

use crate::protocol::CheckedOffer;
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
    id: String,
    session: Option<String>,
    wanted: mpsc::UnboundedSender<Wanted>,
    /// Told when the name is free.
    waiting: Vec<oneshot::Sender<()>>,
}

/// A name that is held until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Claims,
    name: String,
    wanted: mpsc::UnboundedReceiver<Wanted>,
}

/// Somebody else wants a name that is held.
#[derive(Debug)]
pub(super) enum Wanted {
    /// The same sender, on another connection: this one is left over.
    ByItself,
    /// Somebody else, who is to be told if the holder is there.
    ByAnother(oneshot::Sender<()>),
}

impl Claims {
    /// Claims the name of an offer; `None` if somebody holds it and is there.
    pub(super) async fn claim(&self, offer: &CheckedOffer) -> Option<Claim> {
        // What is to be discarded has a place of its own.
        let name = format!("{}{}", if offer.discard { "/" } else { "" }, offer.path);
        loop {
            let (free, alive) = match self.try_claim(&name, offer)? {
                Ok(claim) => return Some(claim),
                Err(waiting) => waiting,
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

    /// The claim; or what to wait for: the name, and a sign of its holder. `None` if too many wait.
    #[expect(clippy::type_complexity, reason = "two receivers, told apart where they are used")]
    fn try_claim(
        &self,
        name: &str,
        offer: &CheckedOffer,
    ) -> Option<Result<Claim, (oneshot::Receiver<()>, oneshot::Receiver<()>)>> {
        let mut holders = self.lock();
        let Some(holder) = holders.get_mut(name) else {
            let (tell, wanted) = mpsc::unbounded();
            let (id, session) = (offer.id.clone(), offer.session.clone());
            holders.insert(name.to_owned(), Holder { id, session, wanted: tell, waiting: Vec::new() });
            return Some(Ok(Claim { claims: self.clone(), name: name.to_owned(), wanted }));
        };
        holder.waiting.retain(|waiting| !waiting.is_canceled());
        if holder.waiting.len() >= MAX_WAITING {
            return None;
        }
        let (tell_free, free) = oneshot::channel();
        let (tell_alive, alive) = oneshot::channel();
        holder.waiting.push(tell_free);
        let is_itself =
            holder.session.is_some() && (&holder.session, &holder.id) == (&offer.session, &offer.id);
        let wanted = if is_itself { Wanted::ByItself } else { Wanted::ByAnother(tell_alive) };
        // A holder that hears it no more is about to let go.
        let _ = holder.wanted.unbounded_send(wanted);
        Some(Err((free, alive)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Holder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Waits until somebody else wants the name.
    pub(super) fn poll_wanted(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Wanted> {
        match self.wanted.poll_next_unpin(cx) {
            std::task::Poll::Ready(Some(wanted)) => std::task::Poll::Ready(wanted),
            // The sending half goes with the claim.
            std::task::Poll::Ready(None) | std::task::Poll::Pending => std::task::Poll::Pending,
        }
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
