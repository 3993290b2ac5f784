//! The receiving pump: joins the receiving machine to a destination and a connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use futures::{AsyncRead, AsyncWrite, Future};

use futures::channel::oneshot;

use super::claims::{self, Claim, Claims, Wanted};
use super::error::told_of_storage;
use super::{
    CLOSE_TIMEOUT, Error, Event, PROGRESS_INTERVAL, Pace, SCRATCH, Shutdown, Summary, TURNS_PER_POLL, part,
};
use crate::protocol::{
    Action, BlockDigest, BlockHashes, CheckedOffer, FileDigest, Opened, Progress, Receiver, ReceiverConfig,
    ReceiverEvent, Write,
};
use crate::runtime::{self, Timer};
use crate::storage::{Inbox, Sealed, StorageError, Target, Warning};
use crate::transport::{Connection, TransportError};

/// Frames read before acknowledgements are sent.
const FRAMES_PER_TURN: usize = 8;

/// How long to wait for another transfer to let go of the name: one that was cut may still be syncing.
const NAME_WAIT: Duration = Duration::from_secs(3);
const NAME_POLL: Duration = Duration::from_millis(20);

/// How to receive.
pub type ReceiveOptions = ReceiverConfig;

/// Receives one file over an open connection: waits for an offer, takes it, sends the receipt.
///
/// `Ok(None)` if the peer closed the connection instead of offering a file. What arrived before an error is kept,
/// and durable, when this returns; only kept, if the error is the storage's.
///
/// # Errors
/// All that can end a transfer; [`Error::kind`] says what to do. After [`Error::Storage`] with a refused offer
/// ([`ErrorKind::Refused`](super::ErrorKind::Refused)) the connection can carry another offer.
pub async fn receive_file<S>(
    connection: &mut Connection<S>,
    inbox: &Arc<Inbox>,
    options: &ReceiveOptions,
    shutdown: Shutdown,
    observer: &mut (dyn FnMut(Event) + Send),
) -> Result<Option<Summary>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    receive_claimed(connection, (inbox, &Claims::default()), options, shutdown, observer).await
}

/// As [`receive_file`], where other connections receive into the same destination.
pub(super) async fn receive_claimed<S>(
    connection: &mut Connection<S>,
    (inbox, claims): (&Arc<Inbox>, &Claims),
    options: &ReceiveOptions,
    shutdown: Shutdown,
    observer: &mut (dyn FnMut(Event) + Send),
) -> Result<Option<Summary>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    let mut pump = Pump {
        machine: Receiver::new(*options, now),
        inbox,
        claims,
        claim: None,
        asked: Vec::new(),
        observer,
        shutdown,
        offer: None,
        declined: None,
        target: None,
        jobs: FuturesUnordered::new(),
        timer: Timer::new(),
        pace: Pace::new(PROGRESS_INTERVAL, now),
        started: now,
        came: connection.bytes_in(),
        held: 0,
        complete: false,
        warnings: Vec::new(),
        ending: None,
    };
    let wire_before = connection.wire_bytes();
    let result = poll_fn(|cx| pump.poll(connection, cx)).await;
    let result = pump.conclude(connection, result).await;
    let Some(offer) = pump.offer.clone() else {
        return match result {
            Err(Error::Transport(TransportError::Closed { .. } | TransportError::Lost { .. })) => Ok(None),
            result => result.map(|_| None),
        };
    };
    result.map(|digest| {
        Some(Summary {
            name: offer.path.to_string(),
            peer: connection.peer().to_owned(),
            digest,
            elapsed: pump.started.elapsed(),
            progress: pump.progress(),
            complete: pump.complete,
            discarded: offer.discard,
            warnings: pump.warnings.iter().map(Warning::to_string).collect(),
            wire_bytes: connection.wire_bytes() - wire_before,
        })
    })
}

/// An action that was carried out on another thread.
enum Done {
    Claimed(CheckedOffer, Option<Claim>),
    Opened(Result<(Arc<Target>, Opened), StorageError>),
    Synced(Result<(), StorageError>),
    Hashed(u64, Result<Option<BlockHashes>, StorageError>),
    Checked(u64, Result<bool, StorageError>),
    Digests(u64, Result<Vec<BlockDigest>, StorageError>),
    Sealed(FileDigest, Result<Sealed, StorageError>),
}

struct Pump<'a> {
    machine: Receiver,
    inbox: &'a Arc<Inbox>,
    claims: &'a Claims,
    /// Holds the name; it is let go of when the pump is dropped, behind all else.
    claim: Option<Claim>,
    /// Who wants to know whether the sender is there.
    asked: Vec<oneshot::Sender<()>>,
    observer: &'a mut (dyn FnMut(Event) + Send),
    shutdown: Shutdown,
    offer: Option<CheckedOffer>,
    /// Why the storage did not take the offer.
    declined: Option<String>,
    target: Option<Arc<Target>>,
    jobs: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    timer: Timer,
    pace: Pace,
    started: Instant,
    /// Bytes that had come when the machine was last told.
    came: u64,
    held: u64,
    complete: bool,
    /// What the file system would not do for the file.
    warnings: Vec<Warning>,
    /// How it ended, once the sender has been told.
    ending: Option<Result<FileDigest, Error>>,
}

impl Pump<'_> {
    fn poll<S>(
        &mut self,
        connection: &mut Connection<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<FileDigest, Error>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for _ in 0..TURNS_PER_POLL {
            if Pin::new(&mut self.shutdown).poll(cx).is_ready() {
                return Poll::Ready(Err(Error::Stopped));
            }
            let now = Instant::now();
            self.answer_others(cx)?;
            let mut moved = self.read(connection, cx)?;
            while let Some(action) = self.machine.poll_action(Instant::now()) {
                self.start(action);
                moved = true;
            }
            while let Poll::Ready(Some(done)) = self.jobs.poll_next_unpin(cx) {
                self.finish(done)?;
                moved = true;
            }
            self.handle_events(connection.peer())?;
            let flushed = self.write(connection, cx)?;
            if flushed && let Some(ending) = self.ending.take() {
                return Poll::Ready(ending);
            }
            if self.timer.poll_at(self.machine.timeout(now), cx).is_ready() {
                let stalled = self.machine.handle_timeout(Instant::now());
                stalled.map_err(|silence| Error::Stalled { peer: connection.peer().to_owned(), silence })?;
                moved = true;
            }
            if !moved {
                return Poll::Pending;
            }
        }
        // There is more to do; others have a turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Somebody else may want the name, or wait to hear whether the sender is there.
    fn answer_others(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if !self.asked.is_empty() && !self.machine.asks() {
            for asked in self.asked.drain(..) {
                let _ = asked.send(());
            }
        }
        // A file that has its name already is past all that.
        while self.ending.is_none()
            && let Some(claim) = &mut self.claim
            && let Poll::Ready(wanted) = claim.poll_wanted(cx)
        {
            match wanted {
                Wanted::ByItself => return Err(Error::TakenOver),
                Wanted::ByAnother(asked) => {
                    self.asked.push(asked);
                    self.machine.ask(claims::PATIENCE, Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Takes the frames that have come and writes their bytes.
    fn read<S>(&mut self, connection: &mut Connection<S>, cx: &mut Context<'_>) -> Result<bool, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for turn in 0..FRAMES_PER_TURN {
            // What comes behind the end of this transfer belongs to the next.
            if self.ending.is_some() {
                return Ok(turn > 0);
            }
            let Poll::Ready(frame) = connection.poll_receive(cx) else {
                let came = connection.bytes_in();
                let more = std::mem::replace(&mut self.came, came) != came;
                self.machine.handle_drained(more, Instant::now());
                return Ok(turn > 0);
            };
            let frame = frame?;
            let handled = SCRATCH.with_borrow_mut(|bytes| {
                let write = self.machine.handle_frame(frame, bytes, Instant::now())?;
                Ok(write.map(|write| match write {
                    Write::Bytes { offset, len } => self.target().write_at(&bytes[..len], offset),
                    Write::Zeros(range) => self.target().write_zeros(range),
                }))
            });
            let written = handled
                .map_err(|violation| Error::Violation { peer: connection.peer().to_owned(), violation })?;
            written.transpose()?;
            self.handle_events(connection.peer())?;
        }
        Ok(true)
    }

    /// Sends control messages; whether all of them are on their way.
    fn write<S>(&mut self, connection: &mut Connection<S>, cx: &mut Context<'_>) -> Result<bool, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            if connection.poll_ready(cx)?.is_pending() {
                return Ok(false);
            }
            match self.machine.poll_message(Instant::now()) {
                Some(message) => connection.send(&message.to_text()),
                None => return Ok(connection.poll_flush(cx)?.is_ready()),
            }
        }
    }

    /// Begins an action on a thread that may block.
    fn start(&mut self, action: Action) {
        self.jobs.push(match action {
            Action::Open(offer) => {
                self.started = Instant::now();
                self.offer = Some(offer.clone());
                let claims = self.claims.clone();
                Box::pin(async move {
                    let claim = claims.claim(&offer).await;
                    Done::Claimed(offer, claim)
                })
            }
            action => {
                let target = self.target.clone().expect("actions on a file come after it was opened");
                Box::pin(runtime::spawn_blocking(move || carry_out(action, &target)))
            }
        });
    }

    /// Takes the result of an action.
    fn finish(&mut self, done: Done) -> Result<(), Error> {
        let now = Instant::now();
        match done {
            Done::Claimed(offer, Some(claim)) => {
                self.claim = Some(claim);
                self.jobs.push(Box::pin(open(self.inbox.clone(), offer)));
            }
            Done::Claimed(offer, None) => {
                self.refuse(&StorageError::Busy { name: offer.path.to_string() });
            }
            Done::Opened(Ok((target, opened))) => {
                self.target = Some(target);
                self.machine.opened(opened);
            }
            Done::Opened(Err(error)) => self.refuse(&error),
            Done::Synced(synced) => {
                synced?;
                self.machine.synced(now);
            }
            Done::Hashed(block, hashes) => self.machine.hashed(block, hashes?, now),
            Done::Checked(block, same) => self.machine.checked(block, same?),
            Done::Digests(first, digests) => self.machine.digests(first, &digests?),
            Done::Sealed(digest, sealed) => match sealed? {
                Sealed::Stored(warnings) => {
                    self.warnings = warnings;
                    self.machine.sealed(digest);
                }
                Sealed::Differs(opened) => self.machine.differs(opened),
            },
        }
        Ok(())
    }

    fn refuse(&mut self, error: &StorageError) {
        let told = told_of_storage(error, self.name());
        self.declined = Some(error.to_string());
        self.machine.refuse(error.code(), told, error.may_pass());
    }

    fn handle_events(&mut self, peer: &str) -> Result<(), Error> {
        while let Some(event) = self.machine.poll_event() {
            match event {
                ReceiverEvent::Offered { name, left, session } => {
                    (self.observer)(Event::Offered { name, left, session });
                }
                ReceiverEvent::Accepted { held, complete } => {
                    (self.held, self.complete) = (held, complete);
                    if let Some(offer) = &self.offer {
                        let (name, size) = (offer.path.to_string(), offer.geometry.size());
                        (self.observer)(Event::Started { name, size, peer: peer.to_owned() });
                    }
                    if held > 0 && !complete {
                        (self.observer)(Event::Resumed { held });
                    }
                }
                ReceiverEvent::Replacing { held } => {
                    (self.held, self.complete) = (held, false);
                    (self.observer)(Event::Replacing { held });
                }
                ReceiverEvent::Refused { name, code, reason } => {
                    // On this side the whole of it is told.
                    let (peer, reason) = (peer.to_owned(), self.declined.take().unwrap_or(reason));
                    self.ending = Some(Err(Error::Declined { peer, name, code, reason }));
                }
                ReceiverEvent::Sealed(digest) => {
                    self.tell_progress(true);
                    self.ending = Some(Ok(digest));
                }
                ReceiverEvent::Failed { code, reason, again } => {
                    return Err(Error::PeerEnded { peer: peer.to_owned(), code, reason, again });
                }
            }
        }
        self.tell_progress(false);
        Ok(())
    }

    /// How the transfer ended, all things considered: tells the sender of an error, and keeps what arrived. The file may
    /// have got its final name although nobody was left to tell.
    async fn conclude<S>(
        &mut self,
        connection: &mut Connection<S>,
        result: Result<FileDigest, Error>,
    ) -> Result<FileDigest, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Err(error) = result else { return result };
        let storage_failed = matches!(error, Error::Storage(_));
        if let Error::Transport(TransportError::Crowded { .. }) = error {
            // Too big for now: the sender comes back with smaller frames.
            runtime::timeout(CLOSE_TIMEOUT, connection.close(1009)).await;
        } else if let Some((code, reason)) = error.told(self.name()) {
            part(connection, code, &reason, error.may_pass()).await;
        }
        let sealed = match self.ending.take() {
            Some(Ok(digest)) => Some(digest),
            _ => self.keep_what_arrived(storage_failed).await,
        };
        sealed.ok_or(error)
    }

    /// After the connection ended: waits for what is under way and makes every whole block durable. `Some` if
    /// the file was sealed meanwhile.
    ///
    /// Where the storage failed nothing more is called durable: the machine takes a block for whole before its last
    /// bytes are written, and a second sync says nothing of what the first one lost.
    async fn keep_what_arrived(&mut self, mut storage_failed: bool) -> Option<FileDigest> {
        let mut sealed = None;
        while let Some(done) = self.jobs.next().await {
            match done {
                Done::Sealed(digest, Ok(Sealed::Stored(warnings))) => {
                    self.warnings = warnings;
                    sealed = Some(digest);
                }
                Done::Hashed(block, Ok(hashes)) => self.machine.hashed(block, hashes, Instant::now()),
                Done::Opened(Ok((target, _))) => self.target = Some(target),
                Done::Synced(Err(_)) => storage_failed = true,
                _ => {}
            }
        }
        let (blocks, end) = (self.machine.take_unsynced(), self.machine.end());
        let blocks = if storage_failed { Vec::new() } else { blocks };
        if let Some(target) = self.target.take().filter(|_| sealed.is_none()) {
            runtime::spawn_blocking(move || target.put_away(&blocks, end)).await;
        }
        sealed
    }

    fn target(&self) -> &Target {
        self.target.as_ref().expect("chunks are taken for a file that was opened")
    }

    /// The offered name.
    fn name(&self) -> &str {
        self.offer.as_ref().map_or("the file", |offer| offer.path.as_str())
    }

    fn progress(&self) -> Progress {
        Progress {
            total: self.offer.as_ref().map_or(0, |offer| offer.geometry.size()),
            held: self.held,
            acknowledged: self.machine.received(),
            durable: self.machine.durable(),
            naks: self.machine.naks(),
            ..Progress::default()
        }
    }

    fn tell_progress(&mut self, at_once: bool) {
        if self.target.is_some() && (self.pace.is_due(Instant::now()) || at_once) {
            let progress = self.progress();
            (self.observer)(Event::Progress(progress));
        }
    }
}

/// Opens what the file is received into. Waits a moment for another program to let go of the name.
async fn open(inbox: Arc<Inbox>, offer: CheckedOffer) -> Done {
    let deadline = Instant::now() + NAME_WAIT;
    loop {
        let (inbox, offer) = (inbox.clone(), offer.clone());
        match runtime::spawn_blocking(move || inbox.begin(offer)).await {
            Err(StorageError::Busy { .. }) if Instant::now() < deadline => runtime::sleep(NAME_POLL).await,
            opened => return Done::Opened(opened.map(|(target, opened)| (Arc::new(target), opened))),
        }
    }
}

/// Does what the machine asked for. Blocks.
fn carry_out(action: Action, target: &Target) -> Done {
    match action {
        Action::Open(_) => unreachable!("opening makes the target"),
        Action::Sync(blocks) => Done::Synced(target.sync(&blocks)),
        Action::HashBlock(block) => Done::Hashed(block, target.hash_block(block)),
        Action::CheckBlock(block) => Done::Checked(block, target.check_block(block)),
        Action::ReadDigests { first, count } => Done::Digests(first, target.digests(first, count)),
        Action::Seal(digest) => Done::Sealed(digest, target.seal(digest)),
    }
}
