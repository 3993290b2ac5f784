//! What is sent to receivers that were cut, until they are back: each is known by the name of its own run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::lock::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::run::Run;
use super::{ErrorKind, Shutdown, ShutdownHandle};

/// How long a receiver is waited for, and how many at a time: each has files that are open.
const RETURN_TIME: Duration = Duration::from_secs(10 * 60);
const MOST: usize = 64;

/// The runs of all receivers, by their names.
#[derive(Default)]
pub(super) struct Runs(Mutex<HashMap<String, Slot>>);

struct Slot {
    kept: Arc<AsyncMutex<Option<Kept>>>,
    /// Stops the connection that is in use; dropped for another one.
    stop: Option<ShutdownHandle>,
    since: Instant,
}

/// A run, and how it goes.
pub(super) struct Kept {
    pub(super) run: Run,
    /// The first failure.
    pub(super) failure: Option<ErrorKind>,
}

/// A run that one connection alone works on.
pub(super) struct Claimed {
    name: Option<String>,
    kept: OwnedMutexGuard<Option<Kept>>,
    stop: Shutdown,
    /// Of a receiver without a name, whose place nobody takes.
    _stays: Option<ShutdownHandle>,
}

impl Kept {
    pub(super) fn new(run: Run) -> Self {
        Self { run, failure: None }
    }
}

impl Claimed {
    pub(super) fn kept(&mut self) -> &mut Kept {
        self.kept.as_mut().expect("it is put there when it is claimed")
    }

    /// Given once the receiver is back on another connection.
    pub(super) fn stop(&self) -> Shutdown {
        self.stop.clone()
    }
}

impl Runs {
    /// The run of a receiver, or a new one. A connection that works on it is stopped, and waited for.
    pub(super) async fn claim(&self, name: Option<String>, new: impl FnOnce() -> Run) -> Claimed {
        let (handle, stop) = Shutdown::new();
        let mut stays = None;
        let kept = {
            let mut slots = self.lock();
            let now = Instant::now();
            slots.retain(|_, slot| slot.stop.is_some() || now.duration_since(slot.since) < RETURN_TIME);
            match &name {
                Some(name) => {
                    let kept = Arc::default();
                    let slot = slots.entry(name.clone()).or_insert(Slot { kept, stop: None, since: now });
                    slot.stop = Some(handle);
                    slot.kept.clone()
                }
                // It would not be known again, and nobody takes its place.
                None => {
                    stays = Some(handle);
                    Arc::default()
                }
            }
        };
        let mut kept = kept.lock_owned().await;
        kept.get_or_insert_with(|| Kept::new(new()));
        Claimed { name, kept, stop, _stays: stays }
    }

    /// The connection is done with it; and so is the receiver, if it `is_over`.
    pub(super) fn put_back(&self, claimed: Claimed, is_over: bool) {
        let Claimed { name, mut kept, .. } = claimed;
        let mut slots = self.lock();
        let Some(name) = name else { return };
        if is_over {
            *kept = None;
        }
        let Some(slot) = slots.get_mut(&name) else { return };
        // Another connection may wait for it already.
        let is_wanted = Arc::strong_count(&slot.kept) > 2;
        if is_wanted {
            return;
        }
        if is_over {
            slots.remove(&name);
            return;
        }
        (slot.stop, slot.since) = (None, Instant::now());
        let waiting = slots.iter().filter(|(_, slot)| slot.stop.is_none());
        if waiting.clone().count() > MOST {
            let oldest = waiting.min_by_key(|(_, slot)| slot.since).map(|(name, _)| name.clone());
            oldest.map(|name| slots.remove(&name));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
