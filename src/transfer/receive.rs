//! The receiving side: joins what is offered on a connection to a destination.

mod outcomes;
mod parted;
mod place;
mod starting;
mod telling;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::channel::{mpsc, oneshot};
use futures::future::{Either, select};
use futures::stream::StreamExt;
use futures::{AsyncRead, AsyncWrite, Future};

use super::berths::{Berth, Berths};
use super::claims::{self, Claim, Claims, Wanted};
use super::pump::{Jobs, Pump, Side};
use super::{CLOSE_TIMEOUT, Error, Event, PROGRESS_INTERVAL, Pace, Shutdown, ShutdownHandle, hello, tell};
use crate::protocol::{
    Action, CheckedOffer, Done, Due, HeartbeatConfig, Link, LinkConfig, LinkEvent, MAX_FRAME, Path,
    Receiving, Role, Unfinished, Write,
};
use crate::runtime;
use crate::storage::{StorageError, Warning};
use crate::transport::{Connection, TransportError};
pub(super) use parted::{Parted, Places};
pub use place::Receptacle;
use place::{Place, pass_on};
use work::{Outcome, ToSeal, carry_out, is_small};

/// Offers that may be open on a connection: what of small files hides 100 ms there and back, twice.
const MAX_OFFERS: u64 = 2048;

/// How to receive.
#[derive(Debug, Clone, Copy)]
pub struct ReceiveOptions {
    /// The most characters of a frame on this path, header included.
    pub frame_limit: u64,
    /// The most bytes that the sender may keep unacknowledged.
    pub window: u64,
    /// When what has come is made durable.
    pub receiving: Receiving,
    /// Signs of life.
    pub heartbeat: HeartbeatConfig,
}

impl Default for ReceiveOptions {
    fn default() -> Self {
        let frame_limit = MAX_FRAME as u64;
        Self {
            frame_limit,
            window: 64 << 20,
            receiving: Receiving::default(),
            heartbeat: HeartbeatConfig::default(),
        }
    }
}

/// Receives what is offered over an open connection, until the peer closes it. The observer is told of each transfer by its
/// number, and of what concerns none of them.
///
/// What arrived before an error is kept, and durable, when this returns; only kept, if the error is the storage's.
///
/// # Errors
/// What ended the connection, if it was not the peer's goodbye with nothing under way; [`Error::kind`] says what to do.
pub async fn receive_files<S>(
    connection: &mut Connection<S>,
    into: impl Into<Receptacle>,
    options: &ReceiveOptions,
    shutdown: Shutdown,
    observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let places = Places::alone(into.into());
    receive_claimed(connection, &places, options, None, shutdown, observer).await.of_peer()
}

/// As [`receive_files`], where other connections receive into the same destination, and with the name of this run, if it
/// is the one that dials. It does not end without an error.
pub(super) async fn receive_claimed<S>(
    connection: &mut Connection<S>,
    Places { into, claims, berths }: &Places,
    options: &ReceiveOptions,
    session: Option<String>,
    shutdown: Shutdown,
    observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
) -> Parted
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    let (window, receiving) = into.limits(options.window, options.receiving);
    let config = LinkConfig {
        hello: hello(options.frame_limit, window, MAX_OFFERS, session, Some(Role::Receiver)),
        path: Path::default(),
        receiving,
        heartbeat: options.heartbeat,
    };
    let (tell, wanted) = mpsc::unbounded();
    let (leaves, left) = Shutdown::new();
    let side = Destination {
        into,
        claims,
        own: Berths::new(1),
        berths,
        waiting: VecDeque::new(),
        tell,
        wanted,
        asked: Vec::new(),
        observer,
        shutdown,
        session: None,
        transfers: BTreeMap::new(),
        leaves: Some(leaves),
        left,
        to_open: Vec::new(),
        to_seal: Vec::new(),
        opens: false,
        seals: false,
        pace: Pace::new(PROGRESS_INTERVAL, now),
        peer: connection.peer().to_owned(),
        wire_bytes: connection.wire_bytes(),
    };
    let mut pump = Pump::new(Link::new(config, now), side, connection);
    match pump.run(connection).await {
        Err(error) => conclude(&mut pump, connection, error).await,
        Ok(()) => unreachable!("a destination is never over"),
    }
}

/// How the connection ended, all things considered: tells the sender of an error, and keeps what arrived. Files may have got
/// their final names although nobody was left to tell.
async fn conclude<S>(pump: &mut Pump<Destination<'_>>, connection: &mut Connection<S>, error: Error) -> Parted
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Error::Transport(TransportError::Crowded { .. }) = error {
        // Too big for now: the sender comes back with smaller frames.
        runtime::timeout(CLOSE_TIMEOUT, connection.close(1009)).await;
    } else {
        tell(connection, &error, error.may_pass()).await;
    }
    // What waits for the reader of a pipe is not: another connection goes on with it.
    drop(pump.side.leaves.take());
    // What is under way is waited for; whole blocks are made durable.
    while let Some(outcome) = pump.jobs.next().await {
        let _ = pump.side.end(outcome, &mut pump.link);
    }
    let _ = pump.hear(connection.wire_bytes());
    // How far each of them came.
    let open: Vec<u32> = pump.side.transfers.keys().copied().collect();
    open.into_iter().for_each(|number| pump.side.tell_progress(number, &pump.link));
    // What has ended and waits to be put away is not.
    let under_way = pump.side.transfers.values().any(|transfer| transfer.unfinished.is_none());
    let (mut left, mut claims) = (Vec::new(), Vec::new());
    for (number, transfer) in std::mem::take(&mut pump.side.transfers) {
        let unfinished = transfer.unfinished.or_else(|| pump.link.take_unfinished(number));
        if let (Some(target), Some(unfinished)) = (&transfer.target, unfinished) {
            left.push((target.clone(), unfinished, transfer.storage_failed));
        }
        claims.push(transfer.claim);
    }
    runtime::spawn_blocking(move || {
        for (target, unfinished, storage_failed) in left {
            target.put_away(unfinished, storage_failed);
        }
    })
    .await;
    // Whoever waits for a name finds it free.
    drop(claims);
    Parted { error, under_way }
}

/// One transfer that was offered and is not over.
struct Incoming {
    offer: CheckedOffer,
    target: Option<Place>,
    started: Instant,
    wire_before: u64,
    held: u64,
    complete: bool,
    warnings: Vec<Warning>,
    /// Work that is under way on another thread.
    jobs: usize,
    /// It has ended, and this is left to be put away.
    unfinished: Option<Unfinished>,
    storage_failed: bool,
    /// It was not what its digest said, and is received once more.
    began_anew: bool,
    /// Why the storage did not take it.
    declined: Option<String>,
    /// Bytes came, or became durable, since progress was last told.
    moved: bool,
    berth: Option<Berth>,
    /// The last field: a name is let go of behind all else.
    claim: Option<Claim>,
}

/// A destination, as the side of a connection.
struct Destination<'a> {
    into: &'a Receptacle,
    claims: &'a Claims,
    /// Places for files that are received: one of this connection's own, and those of all.
    own: Berths,
    berths: &'a Berths,
    /// Offers that have their names and wait for a place.
    waiting: VecDeque<(u32, CheckedOffer)>,
    tell: mpsc::UnboundedSender<Wanted>,
    wanted: mpsc::UnboundedReceiver<Wanted>,
    /// Who wants to know whether the sender is there.
    asked: Vec<oneshot::Sender<()>>,
    observer: &'a mut (dyn FnMut(Option<u64>, Event) + Send),
    shutdown: Shutdown,
    session: Option<String>,
    transfers: BTreeMap<u32, Incoming>,
    /// Ends, when the connection has ended, what waits for others.
    leaves: Option<ShutdownHandle>,
    left: Shutdown,
    /// Small files that wait for the next group to be opened, or sealed; one group of each is under way at a time.
    to_open: Vec<(u32, CheckedOffer)>,
    to_seal: Vec<ToSeal>,
    opens: bool,
    seals: bool,
    pace: Pace,
    peer: String,
    wire_bytes: u64,
}

impl Side for Destination<'_> {
    type Outcome = Outcome;

    const FRAMES_PER_TURN: usize = 8;

    fn turn(
        &mut self,
        link: &mut Link,
        jobs: &mut Jobs<Outcome>,
        cx: &mut Context<'_>,
    ) -> Result<bool, Error> {
        if Pin::new(&mut self.shutdown).poll(cx).is_ready() {
            return Err(Error::Stopped);
        }
        if !self.asked.is_empty() && !link.asks() {
            for asked in self.asked.drain(..) {
                let _ = asked.send(());
            }
        }
        while let Poll::Ready(Some(wanted)) = self.wanted.poll_next_unpin(cx) {
            match wanted {
                // What has its name already is past all that.
                _ if self.transfers.is_empty() => {}
                Wanted::ByItself => return Err(Error::TakenOver),
                Wanted::ByAnother(asked) => {
                    self.asked.push(asked);
                    link.ask(claims::PATIENCE, Instant::now());
                }
            }
        }
        self.follow_pipe(link, cx);
        self.admit();
        Ok(self.begin_groups(jobs) | self.begin_putting_away(jobs))
    }

    fn begin(&mut self, action: Action, jobs: &mut Jobs<Outcome>) {
        let number = action.transfer();
        if let Action::Open { offer, .. } = action {
            return self.open(number, offer, jobs);
        }
        let Some(transfer) = self.transfers.get_mut(&number) else { return };
        let target = transfer.target.clone().expect("actions on a file come after it was opened");
        transfer.jobs += 1;
        match (target, action) {
            (Place::Target(target), Action::Seal { digest, hashes, .. }) if is_small(&transfer.offer) => {
                self.to_seal.push(ToSeal { number, target, digest, hashes });
            }
            (Place::Target(target), action) => {
                jobs.push(Box::pin(runtime::spawn_blocking(move || carry_out(action, &target))));
            }
            (Place::Outlet(outlet), action) => {
                let left = self.left.clone();
                jobs.push(Box::pin(async move {
                    match select(Box::pin(pass_on(action, outlet)), left).await {
                        Either::Left((outcome, _)) => outcome,
                        Either::Right(_) => Outcome::Left(number),
                    }
                }));
            }
        }
    }

    fn end(&mut self, outcome: Outcome, link: &mut Link) -> Result<(), Error> {
        match outcome {
            Outcome::Claimed(number, offer, claim) => match claim {
                Some(claim) => {
                    let Some(transfer) = self.transfers.get_mut(&number) else { return Ok(()) };
                    transfer.claim = Some(claim);
                    if transfer.unfinished.is_some() {
                        // It was cancelled meanwhile: it needs no place.
                        transfer.jobs -= 1;
                    } else {
                        self.waiting.push_back((number, offer));
                    }
                }
                None => {
                    tracing::debug!(peer = self.peer, transfer = number, "the name is being written");
                    let busy = StorageError::Busy { name: offer.path.to_string() };
                    self.opened(number, Err(busy), link);
                }
            },
            Outcome::Opened(all) => {
                self.opens = false;
                for (number, opened) in all {
                    self.opened(number, opened, link);
                }
            }
            Outcome::OpenedOne(number, opened) => self.opened(number, opened, link),
            Outcome::Passed(number, opened) => self.passed(number, opened, link),
            Outcome::Left(number) => {
                if let Some(transfer) = self.transfers.get_mut(&number) {
                    transfer.jobs -= 1;
                }
            }
            Outcome::Done(number, done) => {
                tracing::trace!(transfer = number, ok = done.is_ok(), "an action was carried out");
                if let (Some(transfer), Ok(Done::Synced)) = (self.transfers.get_mut(&number), &done) {
                    transfer.moved = true;
                }
                self.ended(number, done, link);
            }
            Outcome::Sealed(all) => {
                self.seals = false;
                for (number, digest, sealed) in all {
                    self.sealed(number, digest, sealed, link);
                }
            }
            Outcome::SealedOne(number, digest, sealed) => self.sealed(number, digest, sealed, link),
            // Its claim is let go of behind all else.
            Outcome::PutAway(number) => drop(self.transfers.remove(&number)),
        }
        Ok(())
    }

    fn read(&mut self, _: Due, _: &mut [u8], _: &mut Link) -> bool {
        unreachable!("nothing is offered from here")
    }

    fn write(&mut self, write: Write, bytes: &[u8], link: &mut Link) {
        let (Write::Bytes { transfer: number, .. } | Write::Zeros { transfer: number, .. }) = write;
        let Some(transfer) = self.transfers.get_mut(&number) else { return };
        transfer.moved = true;
        let target = transfer.target.as_ref().expect("chunks are taken for a file that was opened");
        if let Err(error) = target.write(write, bytes) {
            self.failed(number, error, link);
        }
    }

    fn hear(&mut self, event: LinkEvent, link: &mut Link, wire_bytes: u64) -> Result<(), Error> {
        self.wire_bytes = wire_bytes;
        match event {
            LinkEvent::Greeted(hello) => {
                if let Some(role @ Role::Receiver) = hello.role {
                    return Err(Error::SameRole { peer: self.peer.clone(), role });
                }
                self.session = hello.session;
            }
            LinkEvent::Ended { code, reason, again } => {
                return Err(Error::peer_ended(&self.peer, Role::Receiver, code, reason, again));
            }
            LinkEvent::Receiver(number, event) => self.hear_of(number, event, link),
            LinkEvent::Sender(..) => {}
        }
        Ok(())
    }

    fn heard(&mut self, link: &Link, wire_bytes: u64) {
        if self.pace.is_due_at(Instant::now(), wire_bytes) {
            let take = |(&number, transfer): (&u32, &mut Incoming)| {
                std::mem::take(&mut transfer.moved).then_some(number)
            };
            for number in self.transfers.iter_mut().filter_map(take).collect::<Vec<_>>() {
                self.tell_progress(number, link);
            }
        }
    }

    fn tells_at(&self) -> Option<Instant> {
        self.pace.wakes_at()
    }

    fn is_over(&self, _: &Link) -> bool {
        false
    }
}
