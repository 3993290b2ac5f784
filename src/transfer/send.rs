//! The sending pump: joins the sending machine to a source and a connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncWrite, Future};

use super::{Error, Event, PROGRESS_INTERVAL, Pace, SCRATCH, Summary, TURNS_PER_POLL, part};
use crate::protocol::{
    BlockHashes, ChunkSize, DEFAULT_WINDOW, FileDigest, HeartbeatConfig, MAX_FRAME, Offer, Path, Progress,
    Sender, SenderConfig, SenderEvent, chunk,
};
use crate::runtime::{self, Timer};
use crate::storage::{Source, SourceError, Standing};
use crate::transport::{Connection, TransportError};

/// Chunks sent before incoming frames are looked at again.
const CHUNKS_PER_TURN: usize = 16;
/// Frames read before chunks are sent again.
const FRAMES_PER_TURN: usize = 64;

/// How to send.
#[derive(Debug, Clone, Copy)]
pub struct SendOptions {
    /// The raw bytes of a chunk, lowered to what the frame limit allows; `None` is
    /// [`ChunkSize::auto`](crate::protocol::ChunkSize::auto).
    pub chunk: Option<ChunkSize>,
    /// The most characters of a frame, header included.
    pub frame_limit: u64,
    /// The most bytes to keep unacknowledged.
    pub window: u64,
    /// Send what a file has when it is opened; what it grows by meanwhile is left out.
    pub growing: bool,
    /// Send what differs from the file that is there, if the receiver may replace it.
    pub repair: bool,
    /// Have the receiver remove the file once it is checked, if it takes such files: a measurement.
    pub discard: bool,
    /// Between two [`Event::Progress`] at the least.
    pub progress_interval: Duration,
    /// Signs of life.
    pub heartbeat: HeartbeatConfig,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self {
            chunk: None,
            frame_limit: MAX_FRAME as u64,
            window: DEFAULT_WINDOW,
            growing: false,
            repair: false,
            discard: false,
            progress_interval: PROGRESS_INTERVAL,
            heartbeat: HeartbeatConfig::default(),
        }
    }
}

impl SendOptions {
    /// The chunk of a file of this size.
    pub(super) fn chunk_for(&self, size: u64) -> ChunkSize {
        let limit = ChunkSize::for_frame_limit(usize::try_from(self.frame_limit).unwrap_or(usize::MAX));
        let chunk = self.chunk.unwrap_or_else(|| ChunkSize::auto(size));
        limit.map_or(chunk, |limit| chunk.min(limit))
    }
}

/// Sends one file over an open connection: offers it, streams it, waits for the receipt.
///
/// # Errors
/// All that can end a transfer; [`Error::kind`] says what to do. After [`Error::Refused`] the connection can
/// carry another file, after any other error it cannot.
pub async fn send_file<S>(
    connection: &mut Connection<S>,
    source: &Arc<Source>,
    options: &SendOptions,
    observer: &mut (dyn FnMut(Event) + Send),
) -> Result<Summary, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let attempt = attempt(connection, source, options, &Known::default(), observer).await;
    if let Err(error) = &attempt.result {
        tell(connection, error).await;
    }
    attempt.result
}

/// What earlier connections of the same run tell the next one.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The run, and how many more files it will offer.
    pub(super) session: Option<String>,
    pub(super) left: u64,
    /// The offset behind the last byte that was sent.
    pub(super) sent_up_to: u64,
    pub(super) path: Path,
}

/// One connection's part in a transfer.
pub(super) struct Attempt {
    pub(super) result: Result<Summary, Error>,
    /// The offer was accepted.
    pub(super) accepted: bool,
    pub(super) progress: Progress,
    pub(super) sent_up_to: u64,
    pub(super) path: Path,
    pub(super) wire_bytes: u64,
}

/// As [`send_file`], with what is known from earlier connections. The receiver is not told of an error yet.
pub(super) async fn attempt<S>(
    connection: &mut Connection<S>,
    source: &Arc<Source>,
    options: &SendOptions,
    known: &Known,
    observer: &mut (dyn FnMut(Event) + Send),
) -> Attempt
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    let zeros = source.zero_blocks();
    let SendOptions { frame_limit, window, repair, discard, .. } = *options;
    let (left, session) = (known.left, known.session.clone());
    let offer = source.offer(frame_limit, window);
    let offer = Offer { repair, discard, left, session, zeros: source.zero_bytes(), ..offer };
    let config = SenderConfig {
        chunk: options.chunk_for(source.geometry().size()),
        path: known.path.clone(),
        zeros: zeros.clone(),
        already_sent: known.sent_up_to,
        heartbeat: options.heartbeat,
    };
    let wire_before = connection.wire_bytes();
    let mut pump = Pump {
        machine: Sender::new(offer, config, now),
        source,
        observer,
        check: None,
        rereading: None,
        said: false,
        timer: Timer::new(),
        pace: Pace::new(options.progress_interval, now),
        came: connection.bytes_in(),
        ending: None,
        accepted: false,
        complete: false,
    };
    let result = poll_fn(|cx| pump.poll(connection, cx)).await;
    let (accepted, complete, machine) = (pump.accepted, pump.complete, pump.machine);
    let (progress, wire_bytes) = (machine.progress(), connection.wire_bytes() - wire_before);
    let result = result.map(|digest| Summary {
        name: source.name().to_string(),
        peer: connection.peer().to_owned(),
        digest,
        elapsed: now.elapsed(),
        progress,
        complete,
        discarded: discard,
        wire_bytes,
        warnings: Vec::new(),
    });
    let sent_up_to = machine.sent_up_to();
    Attempt { accepted, progress, sent_up_to, wire_bytes, path: machine.into_path(result.is_err()), result }
}

/// Tells the receiver of an error that it does not know of, and ends the connection with it.
pub(super) async fn tell<S>(connection: &mut Connection<S>, error: &Error)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Of a receiver's errors there is none here.
    if let Some((code, reason)) = error.told("the file") {
        part(connection, code, &reason, false).await;
    }
}

/// The whole file, read once more to see whether it is what was sent.
type RereadJob = Pin<Box<dyn Future<Output = Result<Option<FileDigest>, SourceError>> + Send>>;

/// A block that is being hashed behind the transfer.
type CheckJob = Pin<Box<dyn Future<Output = (u64, Result<BlockHashes, SourceError>)> + Send>>;

struct Pump<'a> {
    machine: Sender,
    source: &'a Arc<Source>,
    observer: &'a mut (dyn FnMut(Event) + Send),
    check: Option<CheckJob>,
    rereading: Option<RereadJob>,
    /// It was said that the file is not where it was.
    said: bool,
    timer: Timer,
    pace: Pace,
    /// Bytes that had come when the machine was last told.
    came: u64,
    /// The receipt, if it came with the end of the connection.
    ending: Option<FileDigest>,
    accepted: bool,
    complete: bool,
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
            let mut moved = self.read(connection, cx)?;
            moved |= self.check(cx)?;
            moved |= self.reread(cx)?;
            if self.ending.is_none() {
                self.ending = self.handle_events(connection.peer())?;
            }
            if let Some(digest) = self.ending.take() {
                return Poll::Ready(Ok(digest));
            }
            match self.write(connection, cx) {
                Ok(wrote) => moved |= wrote,
                Err(error) => return Poll::Ready(self.last_words(connection, cx, error)),
            }
            if self.timer.poll_at(self.machine.timeout(), cx).is_ready() {
                let peer = || connection.peer().to_owned();
                let stalled = self.machine.handle_timeout(Instant::now());
                stalled.map_err(|silence| Error::Stalled { peer: peer(), silence })?;
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

    /// After a write that failed: the peer may have said why, or that all is well, before it hung up.
    fn last_words<S>(
        &mut self,
        connection: &mut Connection<S>,
        cx: &mut Context<'_>,
        error: Error,
    ) -> Result<FileDigest, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let read = self.read(connection, cx);
            if let Some(digest) = self.ending.take() {
                return Ok(digest);
            }
            match read {
                Ok(true) => {}
                Err(told) if !matches!(told, Error::Transport(TransportError::Lost { .. })) => {
                    return Err(told);
                }
                _ => return self.handle_events(connection.peer())?.ok_or(error),
            }
        }
    }

    /// Takes the frames that have come.
    fn read<S>(&mut self, connection: &mut Connection<S>, cx: &mut Context<'_>) -> Result<bool, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for turn in 0..FRAMES_PER_TURN {
            let Poll::Ready(frame) = connection.poll_receive(cx) else {
                let came = connection.bytes_in();
                if std::mem::replace(&mut self.came, came) != came {
                    self.machine.handle_bytes(Instant::now());
                }
                return Ok(turn > 0);
            };
            let handled = match frame {
                Ok(frame) => self.machine.handle_frame(frame, Instant::now()),
                Err(error) => {
                    // What was said before the end counts first: a receipt, or the reason for the end.
                    self.ending = self.handle_events(connection.peer())?;
                    return if self.ending.is_some() { Ok(true) } else { Err(error.into()) };
                }
            };
            handled
                .map_err(|violation| Error::Violation { peer: connection.peer().to_owned(), violation })?;
        }
        Ok(true)
    }

    /// Hashes held blocks, one at a time, on a thread of their own.
    fn check(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        if let Some(job) = &mut self.check {
            let Poll::Ready((block, hashes)) = job.as_mut().poll(cx) else {
                return Ok(false);
            };
            self.check = None;
            self.machine.handle_checked(block, &hashes?);
            self.tell_progress(false);
        }
        let Some(block) = self.machine.next_check() else {
            return Ok(false);
        };
        let source = self.source.clone();
        self.check = Some(Box::pin(runtime::spawn_blocking(move || (block, source.hash_block(block)))));
        Ok(true)
    }

    /// Takes the digest of a file whose times moved: it decides.
    fn reread(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let Some(job) = &mut self.rereading else { return Ok(false) };
        let Poll::Ready(digest) = job.as_mut().poll(cx) else { return Ok(false) };
        self.rereading = None;
        if digest? != self.machine.digest() {
            return Err(self.source.changed_content().into());
        }
        self.machine.finish();
        Ok(true)
    }

    /// Everything was sent: is it still what the file is?
    fn finish(&mut self) -> Result<(), Error> {
        let standing = self.source.standing()?;
        if !self.said && self.source.is_elsewhere() {
            self.said = true;
            let path = self.source.path().display();
            let what =
                format!("{path} is another file, or none, by now; the one that was begun is sent to its end");
            (self.observer)(Event::Notice { what });
        }
        match standing {
            Standing::Same => self.machine.finish(),
            Standing::Unclear => {
                let source = self.source.clone();
                self.rereading = Some(Box::pin(runtime::spawn_blocking(move || source.digest())));
            }
        }
        Ok(())
    }

    /// Sends control messages, then chunks, as long as the window and the socket take them.
    fn write<S>(&mut self, connection: &mut Connection<S>, cx: &mut Context<'_>) -> Result<bool, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for turn in 0..CHUNKS_PER_TURN {
            if connection.poll_ready(cx)?.is_pending() {
                return Ok(turn > 0);
            }
            let now = Instant::now();
            if let Some(message) = self.machine.poll_message(now) {
                connection.send(&message.to_text());
            } else if let Some(zeros) = self.machine.poll_zeros(now) {
                connection.send_with(zeros.len(), |frame| frame.copy_from_slice(&zeros));
            } else if let Some((offset, len)) = self.machine.next_chunk() {
                self.send_chunk(connection, offset, len, now)?;
            } else {
                let _ = connection.poll_flush(cx)?;
                return Ok(turn > 0);
            }
        }
        Ok(true)
    }

    fn send_chunk<S>(
        &mut self,
        connection: &mut Connection<S>,
        offset: u64,
        len: usize,
        now: Instant,
    ) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        SCRATCH.with_borrow_mut(|bytes| {
            if bytes.len() < len {
                bytes.resize(len, 0);
            }
            let bytes = &mut bytes[..len];
            self.source.read_exact_at(bytes, offset)?;
            let machine = &mut self.machine;
            connection.send_with(chunk::frame_len(len), |frame| machine.encode_chunk(bytes, frame, now));
            Ok(())
        })
    }

    fn handle_events(&mut self, peer: &str) -> Result<Option<FileDigest>, Error> {
        while let Some(event) = self.machine.poll_event() {
            match event {
                SenderEvent::Accepted { held, complete } => {
                    (self.accepted, self.complete) = (true, complete);
                    let name = self.source.name().to_string();
                    let size = self.source.geometry().size();
                    (self.observer)(Event::Started { name, size, peer: peer.to_owned() });
                    if held > 0 && !complete {
                        (self.observer)(Event::Resumed { held });
                    }
                    // An empty file has nothing to acknowledge.
                    self.tell_progress(true);
                }
                SenderEvent::Replacing { held } => {
                    self.complete = false;
                    (self.observer)(Event::Replacing { held });
                }
                SenderEvent::ReadyToFinish => self.finish()?,
                SenderEvent::Receipted(digest) => {
                    self.tell_progress(true);
                    return Ok(Some(digest));
                }
                SenderEvent::Rejected { code, reason, again } => {
                    let name = self.source.name().to_string();
                    return Err(Error::Refused { peer: peer.to_owned(), name, code, reason, again });
                }
                SenderEvent::Failed { code, reason, again } => {
                    return Err(Error::PeerEnded { peer: peer.to_owned(), code, reason, again });
                }
            }
        }
        self.tell_progress(false);
        Ok(None)
    }

    fn tell_progress(&mut self, at_once: bool) {
        if self.accepted && (self.pace.is_due(Instant::now()) || at_once) {
            (self.observer)(Event::Progress(self.machine.progress()));
        }
    }
}
