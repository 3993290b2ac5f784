//! The pump: joins a connection's machine to a WebSocket, and to what it reads from and writes to.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::stream::{FuturesUnordered, StreamExt};
use futures::{AsyncRead, AsyncWrite, Future};

use super::{Error, SCRATCH, TURNS_PER_POLL};
use crate::protocol::{Action, Due, Link, LinkEvent, Write, chunk};
use crate::runtime::Timer;
use crate::transport::{Connection, TransportError};

/// Chunks sent before incoming frames are looked at again.
const CHUNKS_PER_TURN: usize = 16;

/// Work on other threads, and what comes of it.
pub(super) type Jobs<T> = FuturesUnordered<Pin<Box<dyn Future<Output = T> + Send>>>;

/// What a connection's machine is joined to: the files of one side.
pub(super) trait Side {
    /// What comes of work on another thread.
    type Outcome;

    /// Frames read before others have a turn.
    const FRAMES_PER_TURN: usize;

    /// Does what is due without anybody asking. Whether anything was.
    fn turn(
        &mut self,
        link: &mut Link,
        jobs: &mut Jobs<Self::Outcome>,
        cx: &mut Context<'_>,
    ) -> Result<bool, Error>;

    /// Begins an action.
    fn begin(&mut self, action: Action, jobs: &mut Jobs<Self::Outcome>);

    /// Takes what came of one.
    fn end(&mut self, outcome: Self::Outcome, link: &mut Link) -> Result<(), Error>;

    /// Reads the bytes of a chunk. `false` if its transfer was given up instead.
    fn read(&mut self, due: Due, bytes: &mut [u8], link: &mut Link) -> bool;

    /// Until when no chunk is to go, where that is so: what was asked for is less than the path carries.
    fn pauses(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// Writes what came; `bytes` is what the machine decoded into.
    fn write(&mut self, write: Write, bytes: &[u8], link: &mut Link);

    /// Hears what happened, when so many bytes had crossed. An error ends the connection.
    fn hear(&mut self, event: LinkEvent, link: &mut Link, wire_bytes: u64) -> Result<(), Error>;

    /// Everything that came was heard, and so many bytes have crossed: how far it is may be told.
    fn heard(&mut self, link: &Link, wire_bytes: u64);

    /// When that is to be told which was held back, if anything was.
    fn tells_at(&self) -> Option<Instant>;

    /// Whether nothing is left to do on this connection.
    fn is_over(&self, link: &Link) -> bool;
}

/// A connection's machine, and what it is joined to.
pub(super) struct Pump<D: Side> {
    pub(super) link: Link,
    pub(super) side: D,
    pub(super) jobs: Jobs<D::Outcome>,
    timer: Timer,
    /// Bytes that had come when the machine was last told.
    came: u64,
    /// A chunk is due, and is to go then.
    paused: Option<Instant>,
}

impl<D: Side> Pump<D> {
    pub(super) fn new<S>(link: Link, side: D, connection: &Connection<S>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        Self { link, side, jobs: Jobs::new(), timer: Timer::new(), came: connection.bytes_in(), paused: None }
    }

    /// Runs until nothing is left to do, or the connection ends.
    pub(super) async fn run<S>(&mut self, connection: &mut Connection<S>) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        poll_fn(|cx| self.poll(connection, cx)).await
    }

    /// As [`run`](Self::run), one poll of it.
    pub(super) fn poll<S>(
        &mut self,
        connection: &mut Connection<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for _ in 0..TURNS_PER_POLL {
            let now = Instant::now();
            let mut moved = self.side.turn(&mut self.link, &mut self.jobs, cx)?;
            moved |= self.read(connection, cx)?;
            while let Some(action) = self.link.poll_action(Instant::now()) {
                self.side.begin(action, &mut self.jobs);
                moved = true;
            }
            while let Poll::Ready(Some(outcome)) = self.jobs.poll_next_unpin(cx) {
                self.side.end(outcome, &mut self.link)?;
                moved = true;
            }
            self.hear(connection.wire_bytes())?;
            let flushed = match self.write(connection, cx) {
                Ok((wrote, flushed)) => {
                    moved |= wrote;
                    flushed
                }
                Err(error) => return Poll::Ready(self.last_words(connection, cx, error)),
            };
            if flushed && self.side.is_over(&self.link) && self.link.is_told() {
                return Poll::Ready(Ok(()));
            }
            let at = self
                .paused
                .into_iter()
                .chain(self.side.tells_at())
                .fold(self.link.timeout(now), Instant::min);
            if self.timer.poll_at(at, cx).is_ready() {
                let stalled = self.link.handle_timeout(Instant::now());
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

    /// After a write that failed: the peer may have said why, or that all is well, before it hung up.
    fn last_words<S>(
        &mut self,
        connection: &mut Connection<S>,
        cx: &mut Context<'_>,
        error: Error,
    ) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            match self.read(connection, cx) {
                Ok(true) if !self.side.is_over(&self.link) => {}
                Err(told) if !matches!(told, Error::Transport(TransportError::Lost { .. })) => {
                    return Err(told);
                }
                _ => return if self.side.is_over(&self.link) { Ok(()) } else { Err(error) },
            }
        }
    }

    /// Takes the frames that have come, and writes their bytes.
    fn read<S>(&mut self, connection: &mut Connection<S>, cx: &mut Context<'_>) -> Result<bool, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for turn in 0..D::FRAMES_PER_TURN {
            // The socket says when it takes some of that.
            if self.link.is_clogged() {
                return Ok(turn > 0);
            }
            let Poll::Ready(frame) = connection.poll_receive(cx) else {
                let came = connection.bytes_in();
                let more = std::mem::replace(&mut self.came, came) != came;
                self.link.handle_drained(more, Instant::now());
                return Ok(turn > 0);
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    // What was said before the end counts first: a receipt, or the reason for the end.
                    self.hear(connection.wire_bytes())?;
                    return if self.side.is_over(&self.link) { Ok(true) } else { Err(error.into()) };
                }
            };
            let (link, side) = (&mut self.link, &mut self.side);
            let handled = SCRATCH.with_borrow_mut(|bytes| {
                let write = link.handle_frame(frame, bytes, Instant::now())?;
                if let Some(write) = write {
                    side.write(write, bytes, link);
                }
                Ok(())
            });
            handled
                .map_err(|violation| Error::Violation { peer: connection.peer().to_owned(), violation })?;
            self.hear(connection.wire_bytes())?;
        }
        Ok(true)
    }

    /// Sends messages, then chunks, as long as the window and the socket take them. Whether anything was sent, and whether
    /// all that was to be sent is on its way.
    fn write<S>(
        &mut self,
        connection: &mut Connection<S>,
        cx: &mut Context<'_>,
    ) -> Result<(bool, bool), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut chunks = 0;
        let mut wrote = false;
        self.paused = None;
        while chunks < CHUNKS_PER_TURN {
            if connection.poll_ready(cx)?.is_pending() {
                return Ok((wrote, false));
            }
            let now = Instant::now();
            if let Some(message) = self.link.poll_message(now) {
                connection.send(&message.to_frame());
            } else if let Some(zeros) = self.link.poll_zeros(now) {
                connection.send_with(zeros.len(), |frame| frame.copy_from_slice(&zeros));
                chunks += 1;
            } else if let Some(due) = self.link.next_chunk().filter(|_| !self.pauses(now)) {
                self.send_chunk(connection, due, now);
                chunks += 1;
            } else {
                let flushed = connection.poll_flush(cx)?.is_ready();
                return Ok((wrote, flushed));
            }
            wrote = true;
        }
        Ok((true, false))
    }

    /// Whether a chunk that is due has to wait.
    fn pauses(&mut self, now: Instant) -> bool {
        self.paused = self.side.pauses(now);
        self.paused.is_some()
    }

    fn send_chunk<S>(&mut self, connection: &mut Connection<S>, due: Due, now: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (link, side) = (&mut self.link, &mut self.side);
        SCRATCH.with_borrow_mut(|bytes| {
            if bytes.len() < due.len {
                bytes.resize(due.len, 0);
            }
            let bytes = &mut bytes[..due.len];
            if side.read(due, bytes, link) {
                connection.send_with(chunk::frame_len(due.len), |frame| link.encode_chunk(bytes, frame, now));
            }
        });
    }

    pub(super) fn hear(&mut self, wire_bytes: u64) -> Result<(), Error> {
        while let Some(event) = self.link.poll_event() {
            self.side.hear(event, &mut self.link, wire_bytes)?;
        }
        self.side.heard(&self.link, wire_bytes);
        Ok(())
    }
}
