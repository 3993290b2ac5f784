//! An open WebSocket: messages in and out, whole or piece by piece.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::budget::{BASE, Budget, Share};
use super::frame::{FIRST, Kind, Role};
use super::input::{Incoming, Input, Part, Piece};
use super::output::{Gathered, Output};
use super::{BUFFER, TransportError};
use crate::protocol::message::clip;
use crate::runtime::Timer;

/// Frames that are no message, and are taken before others have a turn.
const CONTROLS_PER_POLL: usize = 64;

/// A connection on which nothing comes for so long gives its memory back.
const IDLE: Duration = Duration::from_secs(1);
/// One that has begun a large frame, and does not end it in this time, gives way if others wait. A sender that is told so
/// goes on with smaller frames.
const GIVE_WAY: Duration = Duration::from_millis(300);
/// How long a frame may wait for memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest reason of a closing handshake: RFC 6455 gives a control frame 125 bytes, the code takes two.
const MAX_REASON: usize = 123;

/// An open WebSocket.
///
/// Reading and writing are polled by one task; a side that only wrote would deadlock with a peer that writes
/// acknowledgements.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    peer: String,
    input: Input,
    output: Output,
    /// The answer to the last ping, until there is room for it.
    pong: Option<Vec<u8>>,
    /// This side said goodbye.
    said_close: bool,
    is_closed: bool,
    bytes_in: u64,
    bytes_out: u64,
    /// Of the memory of all connections.
    share: Share,
    /// Since when the input is in the state it is in: empty, or with a frame that was begun.
    since: Instant,
    /// Something was handed out since then.
    handed_out: bool,
    /// The last reading left no space: there may be more.
    filled_up: bool,
    /// Since when a frame waits for memory.
    waits: Option<Instant>,
    timer: Timer,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Behind the handshake, of which `rest` was read too many.
    pub(super) fn new(stream: S, role: Role, rest: &[u8], peer: String) -> Self {
        let (input, output) = (Input::new(role, rest), Output::new(role));
        Self {
            stream,
            peer,
            input,
            output,
            pong: None,
            said_close: false,
            is_closed: false,
            bytes_in: rest.len() as u64,
            bytes_out: 0,
            share: Share::default(),
            since: Instant::now(),
            handed_out: false,
            filled_up: false,
            waits: None,
            timer: Timer::new(),
        }
    }

    /// From now on what its buffers take comes from there, but for a little.
    pub(crate) fn share_memory(&mut self, budget: &Budget) {
        self.share = Share::of(budget.clone());
    }

    /// Over a stream whose handshake was left out: for tests, which bring frames of their own.
    #[doc(hidden)]
    pub fn without_handshake(stream: S, is_client: bool) -> Self {
        let role = if is_client { Role::Client } else { Role::Server };
        Self::new(stream, role, &[], "the peer".to_owned())
    }

    /// The peer's address, for people.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Bytes of WebSocket frames so far, both ways together.
    pub fn wire_bytes(&self) -> u64 {
        self.bytes_in + self.bytes_out
    }

    /// Bytes that have come so far: a peer that sends part of a frame is alive.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    /// Bytes that have gone so far.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out
    }

    /// Ready if a frame can be sent without gathering more than the buffer's limit.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.count_debt();
        if self.output.pending().len() < BUFFER { Poll::Ready(Ok(())) } else { self.poll_flush(cx) }
    }

    /// Sends a text frame, once [`poll_ready`](Self::poll_ready) was. It stays in the buffer until
    /// [`poll_flush`](Self::poll_flush), or until there are so many that `poll_ready` writes them.
    pub fn send(&mut self, text: &str) {
        self.send_with(text.len(), |frame| frame.copy_from_slice(text.as_bytes()));
    }

    /// As [`send`](Self::send), a frame of `len` bytes that `fill` writes: all of them, in UTF-8.
    pub fn send_with(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        self.output.text(len, fill);
    }

    /// Sends a frame of a message, once [`poll_ready`](Self::poll_ready) was: its last, or one that others follow. `fill`
    /// writes its `len` bytes.
    pub fn send_fragment(&mut self, kind: Kind, last: bool, len: usize, fill: impl FnOnce(&mut [u8])) {
        self.output.fragment(kind, last, len, fill);
    }

    /// As [`send_fragment`](Self::send_fragment), of all that was gathered, which is empty then.
    pub(crate) fn send_gathered(&mut self, kind: Kind, last: bool, gathered: &mut Gathered) {
        self.output.gathered(kind, last, gathered);
    }

    /// Begins the one frame of a message that is `len` bytes long. They come with [`feed`](Self::feed), and nothing
    /// can be sent before all of them have: no pong, and no goodbye.
    pub(crate) fn begin_message(&mut self, kind: Kind, len: u64) {
        self.output.begin_message(kind, len);
    }

    /// Sends the next `len` bytes of the frame that was begun, which `fill` writes, once
    /// [`poll_ready`](Self::poll_ready) was.
    ///
    /// # Panics
    /// If the frame did not announce so many.
    pub(crate) fn feed(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        self.output.feed(len, fill);
    }

    /// Sends a ping, which a peer that lives answers, if another frame can stand here.
    pub fn ping(&mut self) {
        if self.output.is_between_frames() {
            self.output.control(Control::Ping, b"");
        }
    }

    /// Writes what is in the buffer.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.count_debt();
        loop {
            // Only the last ping is answered, once there is room: a peer that pings and does not read gathers nothing.
            if self.output.pending().len() < BUFFER
                && self.output.is_between_frames()
                && let Some(payload) = self.pong.take()
            {
                self.output.control(Control::Pong, &payload);
            }
            if self.output.pending().is_empty() {
                break;
            }
            match ready!(Pin::new(&mut self.stream).poll_write(cx, self.output.pending())) {
                Ok(0) => return Poll::Ready(Err(self.lost("it takes no more"))),
                Ok(count) => {
                    self.output.wrote(count);
                    self.bytes_out += count as u64;
                }
                Err(error) => return Poll::Ready(Err(self.lost(&error.to_string()))),
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx).map_err(|error| self.lost(&error.to_string()))
    }

    /// The next message, of text, or of what a gateway made binary of it. Whoever takes it for more than ASCII checks that
    /// it is UTF-8. Every end of the connection is an error.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<&[u8], TransportError>> {
        for _ in 0..CONTROLS_PER_POLL {
            return Poll::Ready(match ready!(self.poll_incoming(Input::next, cx))? {
                Incoming::Text(range) => Ok(self.input.get(range)),
                Incoming::Joined => Ok(self.input.joined()),
                Incoming::Pong => continue,
                Incoming::Part => {
                    // A message whose length nobody announced cannot wait for its end to fit.
                    if self.count_debt() > BASE && self.share.is_overdrawn() {
                        return Poll::Ready(Err(self.crowded()));
                    }
                    continue;
                }
                Incoming::Ping(range) => {
                    self.answer(range, cx);
                    continue;
                }
                Incoming::Close(range) => Err(self.closed(range, cx)),
            });
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The next piece of a message of any kind and size, as it comes; then [`bytes`](Self::bytes). What was handed out
    /// as pieces is not to be mixed with [`poll_receive`](Self::poll_receive). Every end of the connection is an error.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, TransportError>> {
        for _ in 0..CONTROLS_PER_POLL {
            return Poll::Ready(match ready!(self.poll_incoming(Input::next_piece, cx))? {
                Part::Piece(piece) => Ok(piece),
                Part::Pong => continue,
                Part::Ping(range) => {
                    self.answer(range, cx);
                    continue;
                }
                Part::Close(range) => Err(self.closed(range, cx)),
            });
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The bytes of the last piece that came.
    pub fn bytes(&self, piece: &Piece) -> &[u8] {
        self.input.get(piece.range.clone())
    }

    /// Closes the connection with a code of RFC 6455 and waits for the end of what the peer sends, reading past what it
    /// still sends: a socket that is closed with unread bytes takes back the words that were said last.
    ///
    /// What goes wrong here changes nothing any more. The caller limits the time.
    pub async fn close(&mut self, code: u16) {
        self.close_with(code, "").await;
    }

    /// As [`close`](Self::close), with a reason, of which 123 bytes are said.
    pub async fn close_with(&mut self, code: u16, reason: &str) {
        self.say_close(code, reason);
        // The peer said it first: it has heard the answer, and waits for this side to hang up.
        let is_answer = std::mem::replace(&mut self.is_closed, true);
        // Nothing that has come is taken any more; others may wait for its memory.
        self.input.clear();
        self.share.give_back();
        if std::future::poll_fn(|cx| self.poll_flush(cx)).await.is_err() || is_answer {
            return;
        }
        let mut rest = vec![0; 4096];
        while self.stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    }

    /// As [`close`](Self::close), where the peer may do the same at this moment: each would wait for the other to hang up,
    /// so this one says that nothing more comes.
    pub async fn close_first(&mut self, code: u16) {
        self.say_close(code, "");
        if std::future::poll_fn(|cx| self.poll_flush(cx)).await.is_ok() {
            let _ = self.stream.close().await;
        }
        self.close(code).await;
    }

    /// Says goodbye, and no more than that: what the peer still sends is read on, up to its answer. Where a frame was
    /// begun and not ended there is no place for it.
    pub(crate) fn say_close(&mut self, code: u16, reason: &str) {
        if !self.said_close && !self.is_closed && self.output.is_between_frames() {
            self.pong = None;
            let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
            self.output.control(Control::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat());
        }
        self.said_close = true;
    }

    /// Takes a ping.
    fn answer(&mut self, payload: std::ops::Range<usize>, cx: &mut Context<'_>) {
        if !self.said_close {
            self.pong = Some(self.input.get(payload).to_vec());
            // If it fails, so will the next write, and that one tells.
            let _ = self.poll_flush(cx);
        }
    }

    /// The next thing that `next` finds in the input, which is filled as need be.
    fn poll_incoming<T>(
        &mut self,
        next: impl Fn(&mut Input) -> Result<Option<T>, String>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, TransportError>> {
        loop {
            if self.is_closed {
                return Poll::Ready(Err(self.lost("it is closed")));
            }
            match next(&mut self.input) {
                Ok(Some(incoming)) => {
                    self.handed_out = true;
                    return Poll::Ready(Ok(incoming));
                }
                Ok(None) => {}
                Err(why) => {
                    return Poll::Ready(Err(TransportError::Frame { address: self.peer.clone(), why }));
                }
            }
            ready!(self.poll_room(cx))?;
            let space = self.input.space(self.share.limit());
            let len = space.len();
            match Pin::new(&mut self.stream).poll_read(cx, space) {
                Poll::Pending => {
                    self.poll_idle(cx)?;
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(self.lost("it ended without a closing handshake")));
                }
                Poll::Ready(Ok(count)) => {
                    if self.handed_out || self.input.is_empty() {
                        (self.handed_out, self.since) = (false, Instant::now());
                    }
                    self.filled_up = count == len;
                    self.input.filled(count);
                    self.bytes_in += count as u64;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.lost(&error.to_string()))),
            }
        }
    }

    /// Ready once there is memory for the frame that comes.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let needed = self.input.needed();
        if needed <= self.share.limit() {
            if self.filled_up {
                let _ = self.share.try_take(BUFFER);
            }
            return Poll::Ready(Ok(()));
        }
        if self.share.poll_take(needed.max(BUFFER), cx).is_ready() {
            self.waits = None;
            return Poll::Ready(Ok(()));
        }
        let since = *self.waits.get_or_insert_with(Instant::now);
        ready!(self.timer.poll_at(since + PATIENCE, cx));
        Poll::Ready(Err(self.crowded()))
    }

    /// Nothing comes: once that has lasted, gives back what is not in use, and gives way with a frame that was begun if
    /// others wait.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Result<(), TransportError> {
        while self.holds_memory() {
            let limit = if self.input.is_empty() { IDLE } else { GIVE_WAY };
            if self.timer.poll_at(self.since + limit, cx).is_pending() {
                return Ok(());
            }
            self.since = Instant::now();
            if self.input.is_empty() {
                self.input.shrink();
                self.output.shrink();
                self.share.give_back();
                self.filled_up = false;
                self.count_debt();
                // What is still to be written keeps its buffer; there will be another turn when it is.
                return Ok(());
            }
            if self.share.is_wanted() {
                return Err(self.crowded());
            }
        }
        Ok(())
    }

    fn holds_memory(&self) -> bool {
        self.share.holds_any() || self.input.capacity().0 > FIRST || self.output.capacity() > FIRST
    }

    /// Counts the memory that nobody waited for, and gives it.
    fn count_debt(&mut self) -> usize {
        let debt = self.output.capacity() + self.input.capacity().1;
        self.share.owe(debt);
        debt
    }

    fn crowded(&self) -> TransportError {
        TransportError::Crowded { address: self.peer.clone() }
    }

    /// The peer closed the connection: says so too, if the socket takes it at once.
    fn closed(&mut self, payload: std::ops::Range<usize>, cx: &mut Context<'_>) -> TransportError {
        let payload = self.input.get(payload);
        let (code, reason) = match payload.split_first_chunk() {
            Some((code, reason)) => (u16::from_be_bytes(*code), reason),
            None => (1005, &[][..]),
        };
        // 5.5.1: "the body MAY contain UTF-8-encoded data"; 8.1: other data fails the connection.
        let Ok(reason) = std::str::from_utf8(reason) else {
            let why = "a close frame whose reason is not UTF-8".to_owned();
            return TransportError::Frame { address: self.peer.clone(), why };
        };
        let reason = clip(reason).into_owned();
        self.is_closed = true;
        self.pong = None;
        // A code that may not stand in a frame is answered with none.
        let echo = if CloseCode::from(code).is_allowed() { code.to_be_bytes().to_vec() } else { Vec::new() };
        if !self.said_close && self.output.is_between_frames() {
            self.output.control(Control::Close, &echo);
            let _ = self.poll_flush(cx);
        }
        TransportError::Closed { address: self.peer.clone(), code, reason }
    }

    fn lost(&self, why: &str) -> TransportError {
        TransportError::Lost { address: self.peer.clone(), why: why.to_owned() }
    }
}
