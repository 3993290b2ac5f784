//! The receiving pump: joins the receiving machine to a destination and a connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::stream::{FuturesUnordered, StreamExt};
use futures::{AsyncRead, AsyncWrite, Future};

use super::{
    CLOSE_TIMEOUT, Error, Event, PROGRESS_INTERVAL, Pace, SCRATCH, Shutdown, Summary, TURNS_PER_POLL, part,
};
use crate::protocol::{
    Action, BlockDigest, BlockHashes, CheckedOffer, Code, FileDigest, Opened, Progress, Receiver,
    ReceiverConfig, ReceiverEvent,
};
use crate::runtime::{self, Timer};
use crate::storage::{Inbox, Partial, StorageError, Target};
use crate::transport::{Connection, TransportError};

/// Frames read before acknowledgements are sent.
const FRAMES_PER_TURN: usize = 8;

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
    let now = Instant::now();
    let mut pump = Pump {
        machine: Receiver::new(*options, now),
        inbox,
        observer,
        shutdown,
        offer: None,
        target: None,
        jobs: FuturesUnordered::new(),
        timer: Timer::new(),
        pace: Pace::new(PROGRESS_INTERVAL, now),
        started: now,
        held: 0,
        complete: false,
        ending: None,
    };
    let wire_before = connection.wire_bytes();
    let mut result = poll_fn(|cx| pump.poll(connection, cx)).await;
    if let Err(error) = &result {
        let code = match error {
            // To be offered again: that is a cut and no end.
            Error::Storage(StorageError::Outdated { .. }) => {
                runtime::timeout(CLOSE_TIMEOUT, connection.close(1012)).await;
                None
            }
            // Too big for now: the sender comes back with smaller frames.
            Error::Transport(TransportError::Crowded { .. }) => {
                runtime::timeout(CLOSE_TIMEOUT, connection.close(1009)).await;
                None
            }
            Error::Storage(error) => Some(error.code()),
            Error::Violation { .. } | Error::Transport(TransportError::Frame { .. }) => Some(Code::Protocol),
            Error::Stopped => Some(Code::Shutdown),
            _ => None,
        };
        if let Some(code) = code {
            part(connection, code, &error.to_string()).await;
        }
        // The file may have got its final name although nobody is left to tell.
        let sealed = match pump.ending.take() {
            Some(Ok(digest)) => Some(digest),
            _ => pump.keep_what_arrived(matches!(error, Error::Storage(_))).await,
        };
        if let Some(digest) = sealed {
            result = Ok(digest);
        }
    }
    match (result, &pump.offer) {
        (Ok(digest), Some(offer)) => Ok(Some(Summary {
            name: offer.name.to_string(),
            peer: connection.peer().to_owned(),
            digest,
            elapsed: pump.started.elapsed(),
            progress: pump.progress(),
            complete: pump.complete,
            discarded: offer.discard,
            wire_bytes: connection.wire_bytes() - wire_before,
        })),
        (Err(Error::Transport(TransportError::Closed { .. } | TransportError::Lost { .. })), None) => {
            Ok(None)
        }
        (Err(error), _) => Err(error),
        (Ok(_), None) => unreachable!("what is sealed was offered"),
    }
}

/// An action that was carried out on another thread.
enum Done {
    Opened(Result<(Target, Opened), StorageError>),
    Synced(Result<(), StorageError>),
    Hashed(u64, Result<BlockHashes, StorageError>),
    Checked(u64, Result<bool, StorageError>),
    Digests(u64, Result<Vec<BlockDigest>, StorageError>),
    Sealed(FileDigest, Result<(), StorageError>),
}

struct Pump<'a> {
    machine: Receiver,
    inbox: &'a Arc<Inbox>,
    observer: &'a mut (dyn FnMut(Event) + Send),
    shutdown: Shutdown,
    offer: Option<CheckedOffer>,
    target: Option<Arc<Target>>,
    jobs: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    timer: Timer,
    pace: Pace,
    started: Instant,
    held: u64,
    complete: bool,
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
                return Ok(turn > 0);
            };
            let frame = frame?;
            let handled = SCRATCH.with_borrow_mut(|bytes| {
                let write = self.machine.handle_frame(frame, bytes, Instant::now())?;
                Ok(write.map(|write| self.partial().write_at(&bytes[..write.len], write.offset)))
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
        let job = |work: Box<dyn FnOnce() -> Done + Send>| Box::pin(runtime::spawn_blocking(work));
        let work: Box<dyn FnOnce() -> Done + Send> = if let Action::Open(offer) = action {
            self.started = Instant::now();
            self.offer = Some(offer.clone());
            let inbox = self.inbox.clone();
            Box::new(move || Done::Opened(inbox.begin(offer)))
        } else {
            let target = self.target.clone().expect("actions on a file come after it was opened");
            Box::new(move || carry_out(action, &target))
        };
        self.jobs.push(job(work));
    }

    /// Takes the result of an action.
    fn finish(&mut self, done: Done) -> Result<(), Error> {
        let now = Instant::now();
        match done {
            Done::Opened(Ok((target, opened))) => {
                self.target = Some(Arc::new(target));
                self.machine.opened(opened);
            }
            Done::Opened(Err(error)) => self.machine.refuse(error.code(), error.to_string()),
            Done::Synced(synced) => {
                synced?;
                self.machine.synced(now);
            }
            Done::Hashed(block, hashes) => self.machine.hashed(block, hashes?, now),
            Done::Checked(block, same) => self.machine.checked(block, same?),
            Done::Digests(first, digests) => self.machine.digests(first, &digests?),
            Done::Sealed(digest, sealed) => {
                self.note(&sealed);
                sealed?;
                self.machine.sealed(digest);
            }
        }
        Ok(())
    }

    fn handle_events(&mut self, peer: &str) -> Result<(), Error> {
        while let Some(event) = self.machine.poll_event() {
            match event {
                ReceiverEvent::Accepted { held, complete } => {
                    (self.held, self.complete) = (held, complete);
                    if let Some(offer) = &self.offer {
                        let (name, size) = (offer.name.to_string(), offer.geometry.size());
                        (self.observer)(Event::Started { name, size, peer: peer.to_owned() });
                    }
                    if held > 0 && !complete {
                        (self.observer)(Event::Resumed { held });
                    }
                }
                ReceiverEvent::Refused { name, code, reason } => {
                    let peer = peer.to_owned();
                    self.ending = Some(Err(Error::Declined { peer, name, code, reason }));
                }
                ReceiverEvent::Sealed(digest) => {
                    self.tell_progress(true);
                    self.ending = Some(Ok(digest));
                }
                ReceiverEvent::Failed { code, reason } => {
                    return Err(Error::PeerEnded { peer: peer.to_owned(), code, reason });
                }
            }
        }
        self.tell_progress(false);
        Ok(())
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
                Done::Sealed(digest, result) => {
                    self.note(&result);
                    sealed = result.is_ok().then_some(digest);
                }
                Done::Hashed(block, Ok(hashes)) => self.machine.hashed(block, hashes, Instant::now()),
                Done::Opened(Ok((target, _))) => self.target = Some(Arc::new(target)),
                Done::Synced(Err(_)) => storage_failed = true,
                _ => {}
            }
        }
        let blocks = if storage_failed { Vec::new() } else { self.machine.take_unsynced() };
        if let Some(target) = self.target.take().filter(|_| sealed.is_none()) {
            let put_away = move || {
                if let Some(partial) = target.partial() {
                    partial.put_away(&blocks);
                }
            };
            runtime::spawn_blocking(put_away).await;
        }
        sealed
    }

    /// Keeps in mind how sealing went, for a sender that comes back.
    fn note(&self, sealed: &Result<(), StorageError>) {
        if let Some(offer) = self.offer.as_ref().filter(|offer| !offer.discard) {
            match sealed {
                Ok(()) => self.inbox.remember(&offer.id, true),
                Err(StorageError::Outdated { .. }) => self.inbox.remember(&offer.id, false),
                Err(_) => {}
            }
        }
    }

    fn partial(&self) -> &Partial {
        let partial = self.target.as_ref().and_then(|target| target.partial());
        partial.expect("the machine takes chunks for a partial file alone")
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

/// Does what the machine asked for. Blocks.
fn carry_out(action: Action, target: &Target) -> Done {
    let partial = || target.partial().expect("the machine does this with a partial file alone");
    match action {
        Action::Open(_) => unreachable!("opening makes the target"),
        Action::Sync(blocks) => Done::Synced(partial().sync(&blocks)),
        Action::HashBlock(block) => Done::Hashed(block, partial().hash_block(block)),
        Action::CheckBlock(block) => Done::Checked(block, partial().check_block(block)),
        Action::ReadDigests { first, count } => Done::Digests(first, partial().digests(first, count)),
        Action::Seal(digest) => Done::Sealed(digest, target.seal(digest)),
    }
}
