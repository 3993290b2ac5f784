//! The receiving side: joins what is offered on a connection to a destination.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::channel::{mpsc, oneshot};
use futures::stream::StreamExt;
use futures::{AsyncRead, AsyncWrite, Future};

use super::berths::{Berth, Berths};
use super::claims::{self, Claim, Claimant, Claims, Taken, Wanted};
use super::error::told_of_storage;
use super::pump::{Jobs, Pump, Side};
use super::{CLOSE_TIMEOUT, Error, Event, PROGRESS_INTERVAL, Pace, Shutdown, Summary, hello, part};
use crate::protocol::{
    Action, BlockDigest, BlockHashes, CheckedOffer, Done, Due, FileDigest, HeartbeatConfig, Kind, Link,
    LinkConfig, LinkEvent, MAX_FRAME, Opened, Path, Progress, ReceiverEvent, Receiving, Unfinished, Write,
};
use crate::runtime;
use crate::storage::{Begun, Inbox, Sealed, StorageError, Target, Warning};
use crate::transport::{Connection, TransportError};

/// How long to wait for another program to let go of the name: one that was cut may still be syncing.
const NAME_WAIT: Duration = Duration::from_secs(3);
const NAME_POLL: Duration = Duration::from_millis(20);
/// Files that are opened, or sealed, by one job: others have a turn in between.
const GROUP: usize = 256;
/// Offers that may be open on a connection.
const MAX_OFFERS: u64 = 1024;

/// How to receive.
#[derive(Debug, Clone, Copy)]
pub struct ReceiveOptions {
    /// The most bytes that the sender may keep unacknowledged.
    pub window: u64,
    /// When what has come is made durable.
    pub receiving: Receiving,
    /// Signs of life.
    pub heartbeat: HeartbeatConfig,
}

impl Default for ReceiveOptions {
    fn default() -> Self {
        Self { window: 64 << 20, receiving: Receiving::default(), heartbeat: HeartbeatConfig::default() }
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
    inbox: &Arc<Inbox>,
    options: &ReceiveOptions,
    shutdown: Shutdown,
    observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (claims, berths) = (Claims::default(), Berths::new(MAX_OFFERS));
    receive_claimed(connection, (inbox, &claims, &berths), options, shutdown, observer).await
}

/// As [`receive_files`], where other connections receive into the same destination.
pub(super) async fn receive_claimed<S>(
    connection: &mut Connection<S>,
    (inbox, claims, berths): (&Arc<Inbox>, &Claims, &Berths),
    options: &ReceiveOptions,
    shutdown: Shutdown,
    observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    let config = LinkConfig {
        hello: hello(MAX_FRAME as u64, options.window, MAX_OFFERS, None),
        path: Path::default(),
        receiving: options.receiving,
        heartbeat: options.heartbeat,
    };
    let (tell, wanted) = mpsc::unbounded();
    let side = Destination {
        inbox,
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
        to_open: Vec::new(),
        to_seal: Vec::new(),
        opens: false,
        seals: false,
        pace: Pace::new(PROGRESS_INTERVAL, now),
        peer: connection.peer().to_owned(),
        wire_bytes: connection.wire_bytes(),
    };
    let mut pump = Pump::new(Link::new(config, now), side, connection);
    let result = pump.run(connection).await;
    conclude(&mut pump, connection, result).await
}

/// How the connection ended, all things considered: tells the sender of an error, and keeps what arrived. Files may have got
/// their final names although nobody was left to tell.
async fn conclude<S>(
    pump: &mut Pump<Destination<'_>>,
    connection: &mut Connection<S>,
    result: Result<(), Error>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Err(error) = result else { return Ok(()) };
    if let Error::Transport(TransportError::Crowded { .. }) = error {
        // Too big for now: the sender comes back with smaller frames.
        runtime::timeout(CLOSE_TIMEOUT, connection.close(1009)).await;
    } else if let Some((code, reason)) = error.told("the file") {
        part(connection, code, &reason, error.may_pass()).await;
    }
    // What is under way is waited for; whole blocks are made durable.
    while let Some(outcome) = pump.jobs.next().await {
        let _ = pump.side.end(outcome, &mut pump.link);
    }
    let _ = pump.hear(connection.wire_bytes());
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
            put_away(&target, unfinished, storage_failed);
        }
    })
    .await;
    // Whoever waits for a name finds it free.
    drop(claims);
    match error {
        Error::Transport(TransportError::Closed { .. } | TransportError::Lost { .. }) if !under_way => Ok(()),
        error => Err(error),
    }
}

/// What came of work on another thread.
enum Outcome {
    Claimed(u32, CheckedOffer, Option<Claim>),
    Opened(Vec<(u32, Result<Begun, StorageError>)>),
    /// As above, of one that was opened apart from the others.
    OpenedOne(u32, Result<Begun, StorageError>),
    Synced(u32, Result<(), StorageError>),
    Hashed(u32, u64, Result<Option<BlockHashes>, StorageError>),
    Checked(u32, u64, Result<bool, StorageError>),
    Digests(u32, u64, Result<Vec<BlockDigest>, StorageError>),
    Sealed(Vec<(u32, FileDigest, Result<Sealed, StorageError>)>),
    SealedOne(u32, FileDigest, Result<Sealed, StorageError>),
    PutAway(u32),
}

/// One transfer that was offered and is not over.
struct Incoming {
    offer: CheckedOffer,
    target: Option<Arc<Target>>,
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

/// A small file that is whole.
struct ToSeal {
    number: u32,
    target: Arc<Target>,
    digest: FileDigest,
    hashes: Option<BlockHashes>,
}

/// A destination, as the side of a connection.
struct Destination<'a> {
    inbox: &'a Arc<Inbox>,
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
        match action {
            Action::Seal { digest, hashes, .. } if is_small(&transfer.offer) => {
                self.to_seal.push(ToSeal { number, target, digest, hashes });
            }
            action => jobs.push(Box::pin(runtime::spawn_blocking(move || carry_out(action, &target)))),
        }
    }

    fn end(&mut self, outcome: Outcome, link: &mut Link) -> Result<(), Error> {
        match outcome {
            Outcome::Claimed(number, offer, claim) => match claim {
                Some(claim) => {
                    if let Some(transfer) = self.transfers.get_mut(&number) {
                        transfer.claim = Some(claim);
                        self.waiting.push_back((number, offer));
                    }
                }
                None => {
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
            Outcome::Synced(number, synced) => {
                if let Some(transfer) = self.transfers.get_mut(&number) {
                    transfer.moved = true;
                }
                self.ended(number, synced.map(|()| Done::Synced), link);
            }
            Outcome::Hashed(number, block, hashes) => {
                self.ended(number, hashes.map(|hashes| Done::Hashed(block, hashes)), link);
            }
            Outcome::Checked(number, block, same) => {
                self.ended(number, same.map(|same| Done::Checked(block, same)), link);
            }
            Outcome::Digests(number, first, digests) => {
                self.ended(number, digests.map(|digests| Done::Digests(first, digests)), link);
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
        let written = match write {
            Write::Bytes { offset, len, .. } => target.write_at(&bytes[..len], offset),
            Write::Zeros { bytes, .. } => target.write_zeros(bytes),
        };
        if let Err(error) = written {
            self.failed(number, &error, link);
        }
    }

    fn hear(&mut self, event: LinkEvent, link: &mut Link, wire_bytes: u64) -> Result<(), Error> {
        self.wire_bytes = wire_bytes;
        match event {
            LinkEvent::Greeted(hello) => self.session = hello.session,
            LinkEvent::Ended { code, reason, again } => {
                return Err(Error::PeerEnded { peer: self.peer.clone(), code, reason, again });
            }
            LinkEvent::Receiver(number, event) => self.hear_of(number, event, link),
            LinkEvent::Sender(..) => {}
        }
        Ok(())
    }

    fn heard(&mut self, link: &Link) {
        if self.pace.is_due(Instant::now()) {
            let take = |(&number, transfer): (&u32, &mut Incoming)| {
                std::mem::take(&mut transfer.moved).then_some(number)
            };
            for number in self.transfers.iter_mut().filter_map(take).collect::<Vec<_>>() {
                self.tell_progress(number, link);
            }
        }
    }

    fn is_over(&self, _: &Link) -> bool {
        false
    }
}

impl Destination<'_> {
    /// Claims the name and opens what the file is received into.
    fn open(&mut self, number: u32, offer: CheckedOffer, jobs: &mut Jobs<Outcome>) {
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
    fn admit(&mut self) {
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
    fn begin_groups(&mut self, jobs: &mut Jobs<Outcome>) -> bool {
        let mut moved = false;
        let large = self.to_open.extract_if(.., |(_, offer)| !is_small(offer)).collect::<Vec<_>>();
        for (number, offer) in large {
            jobs.push(Box::pin(open_one(self.inbox.clone(), number, offer)));
            moved = true;
        }
        if !self.opens && !self.to_open.is_empty() {
            let most = self.to_open.len().min(GROUP);
            let (inbox, offers) = (self.inbox.clone(), self.to_open.drain(..most).collect());
            jobs.push(Box::pin(open_all(inbox, offers)));
            (self.opens, moved) = (true, true);
        }
        if !self.seals && !self.to_seal.is_empty() {
            let most = self.to_seal.len().min(GROUP);
            let group: Vec<_> = self.to_seal.drain(..most).collect();
            let inbox = self.inbox.clone();
            jobs.push(Box::pin(runtime::spawn_blocking(move || Outcome::Sealed(seal_all(&inbox, group)))));
            (self.seals, moved) = (true, true);
        }
        moved
    }

    /// Transfers that have ended before they were whole are put away once nothing of them is under way.
    fn begin_putting_away(&mut self, jobs: &mut Jobs<Outcome>) -> bool {
        let mut moved = false;
        for (&number, transfer) in &mut self.transfers {
            if transfer.jobs > 0 {
                continue;
            }
            let Some(unfinished) = transfer.unfinished.take() else { continue };
            let (target, storage_failed) = (transfer.target.take(), transfer.storage_failed);
            transfer.jobs += 1;
            moved = true;
            jobs.push(Box::pin(runtime::spawn_blocking(move || {
                if let Some(target) = target {
                    put_away(&target, unfinished, storage_failed);
                }
                Outcome::PutAway(number)
            })));
        }
        moved
    }

    fn opened(&mut self, number: u32, begun: Result<Begun, StorageError>, link: &mut Link) {
        let Some(transfer) = self.transfers.get_mut(&number) else { return };
        let done = begun.map(|begun| match begun {
            Begun::Open(target, opened) => {
                transfer.target = Some(target);
                Done::Opened(opened)
            }
            Begun::Stored(warnings) => {
                transfer.warnings = warnings;
                let is_file = transfer.offer.kind == Kind::File;
                (transfer.complete, transfer.held) = (is_file, transfer.offer.geometry.size());
                Done::Sealed(transfer.offer.digest)
            }
        });
        self.ended(number, done, link);
    }

    fn sealed(
        &mut self,
        number: u32,
        digest: FileDigest,
        sealed: Result<Sealed, StorageError>,
        link: &mut Link,
    ) {
        let Some(transfer) = self.transfers.get_mut(&number) else { return };
        let done = match sealed {
            Ok(Sealed::Stored(warnings)) => {
                transfer.warnings = warnings;
                Ok(Done::Sealed(Some(digest)))
            }
            Ok(Sealed::Differs(opened)) => Ok(Done::Differs(opened)),
            // What was begun under the same word for its version is another file's: all of it comes again, once.
            Err(StorageError::Mismatch { .. })
                if transfer.offer.digest.is_some() && !std::mem::replace(&mut transfer.began_anew, true) =>
            {
                Ok(Done::Differs(Opened::default()))
            }
            Err(error) => Err(error),
        };
        self.ended(number, done, link);
    }

    /// An action of a transfer was carried out.
    fn ended(&mut self, number: u32, done: Result<Done, StorageError>, link: &mut Link) {
        if let Some(transfer) = self.transfers.get_mut(&number) {
            transfer.jobs -= 1;
        }
        match done {
            Ok(done) => link.done(number, done, Instant::now()),
            Err(error) => self.failed(number, &error, link),
        }
    }

    /// The storage does not take a file, or not any more.
    fn failed(&mut self, number: u32, error: &StorageError, link: &mut Link) {
        let Some(transfer) = self.transfers.get_mut(&number) else { return };
        // Where the storage failed nothing more is called durable: the machine takes a block for whole before its last
        // bytes are written, and a second sync says nothing of what the first one lost.
        transfer.storage_failed = transfer.target.is_some();
        transfer.declined.get_or_insert_with(|| error.to_string());
        let told = told_of_storage(error, transfer.offer.path.as_str());
        if let Some(unfinished) = link.fail(number, error.code(), told, error.may_pass()) {
            transfer.unfinished = Some(unfinished);
        }
    }

    fn hear_of(&mut self, number: u32, event: ReceiverEvent, link: &mut Link) {
        let id = Some(u64::from(number));
        match event {
            ReceiverEvent::Offered { path: name, left } => {
                let session = self.session.clone();
                (self.observer)(id, Event::Offered { name, left, session });
            }
            ReceiverEvent::Accepted { held, complete } => {
                let Some(transfer) = self.transfers.get_mut(&number) else { return };
                (transfer.held, transfer.complete) = (held, complete);
                let (name, size) = (transfer.offer.path.to_string(), transfer.offer.geometry.size());
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
                (self.observer)(id, Event::Replacing { held });
            }
            ReceiverEvent::Refused { path: name, code, reason } => {
                let transfer = self.transfers.get_mut(&number);
                // On this side the whole of it is told.
                let declined = transfer.and_then(|transfer| transfer.declined.take());
                let (peer, reason) = (self.peer.clone(), declined.unwrap_or(reason));
                (self.observer)(id, Event::Failed(Error::Declined { peer, name, code, reason }));
            }
            ReceiverEvent::Sealed(digest) => self.finished(number, digest),
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

    fn finished(&mut self, number: u32, digest: Option<FileDigest>) {
        let Some(transfer) = self.transfers.remove(&number) else { return };
        let size = transfer.offer.geometry.size();
        let progress = Progress {
            total: size,
            held: transfer.held,
            acknowledged: size,
            durable: size,
            ..Progress::default()
        };
        (self.observer)(Some(number.into()), Event::Progress(progress));
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

    fn tell_progress(&mut self, number: u32, link: &Link) {
        let Some(transfer) = self.transfers.get(&number) else { return };
        let Some((acknowledged, durable)) = link.received(number) else { return };
        let (total, held, naks) = (transfer.offer.geometry.size(), transfer.held, link.naks());
        let progress = Progress { total, held, acknowledged, durable, naks, ..Progress::default() };
        (self.observer)(Some(number.into()), Event::Progress(progress));
    }
}

/// At most one block: opened and sealed with others.
fn is_small(offer: &CheckedOffer) -> bool {
    offer.geometry.blocks() <= 1
}

/// Opens what a file is received into. Waits a moment for another program to let go of the name.
async fn open_one(inbox: Arc<Inbox>, number: u32, offer: CheckedOffer) -> Outcome {
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
async fn open_all(inbox: Arc<Inbox>, all: Vec<(u32, CheckedOffer)>) -> Outcome {
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
fn seal_all(inbox: &Inbox, group: Vec<ToSeal>) -> Vec<(u32, FileDigest, Result<Sealed, StorageError>)> {
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

/// Makes durable what came of a file that is not whole, and closes it. Blocks.
fn put_away(target: &Target, unfinished: Unfinished, storage_failed: bool) {
    let blocks = if storage_failed { Vec::new() } else { unfinished.unsynced };
    target.put_away(&blocks, unfinished.end);
}

/// Does what the machine asked for. Blocks.
fn carry_out(action: Action, target: &Target) -> Outcome {
    match action {
        Action::Sync { transfer, blocks } => Outcome::Synced(transfer, target.sync(&blocks)),
        Action::HashBlock { transfer, block } => Outcome::Hashed(transfer, block, target.hash_block(block)),
        Action::CheckBlock { transfer, block } => {
            Outcome::Checked(transfer, block, target.check_block(block))
        }
        Action::ReadDigests { transfer, first, count, tree } => {
            let digests = match tree {
                false => target.plain_digests(first, count),
                // There may be no journal of what has one block.
                true if target.geometry().blocks() == 1 => target
                    .hash_block(first)
                    .map(|hashes| vec![hashes.map_or(BlockDigest::NONE, |hashes| hashes.digest())]),
                true => target.digests(first, count),
            };
            Outcome::Digests(transfer, first, digests)
        }
        Action::Seal { transfer, digest, .. } => Outcome::SealedOne(transfer, digest, target.seal(digest)),
        Action::Open { .. } | Action::HashSource { .. } | Action::Confirm { .. } => {
            unreachable!("it is no work on a file that is received")
        }
    }
}
