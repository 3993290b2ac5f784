//! An open WebSocket: messages in and out, whole or piece by piece.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::frame::{Kind, Role};
use super::input::{Incoming, Input, Part, Piece};
use super::output::Output;
use super::{BUFFER, TransportError};
use crate::protocol::message::clip;

/// Frames that are no message, and are taken before others have a turn.
const CONTROLS_PER_POLL: usize = 64;

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
    wire_bytes: u64,
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
            wire_bytes: rest.len() as u64,
        }
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
        self.wire_bytes
    }

    /// Ready if a frame can be sent without gathering more than the buffer's limit.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
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

    /// Begins the one frame of a message that is `len` bytes long. They come with [`feed`](Self::feed), and nothing
    /// can be sent before all of them have: no pong, and no goodbye.
    pub fn begin_message(&mut self, kind: Kind, len: u64) {
        self.output.begin_message(kind, len);
    }

    /// Sends the next `len` bytes of the frame that was begun, which `fill` writes, once
    /// [`poll_ready`](Self::poll_ready) was.
    ///
    /// # Panics
    /// If the frame did not announce so many.
    pub fn feed(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        self.output.feed(len, fill);
    }

    /// Sends a piece back as it came, as a fragment of a message: the last one, or one that others follow.
    pub fn send_back(&mut self, piece: &Piece, last: bool) {
        let bytes = self.input.get(piece.range.clone());
        self.output.fragment(piece.kind, last, bytes.len(), |frame| frame.copy_from_slice(bytes));
    }

    /// Sends a ping, which a peer that lives answers, if another frame can stand here.
    pub fn ping(&mut self) {
        if self.output.is_between_frames() {
            self.output.control(Control::Ping, b"");
        }
    }

    /// Writes what is in the buffer.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
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
                    self.wire_bytes += count as u64;
                }
                Err(error) => return Poll::Ready(Err(self.lost(&error.to_string()))),
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx).map_err(|error| self.lost(&error.to_string()))
    }

    /// The next text message. Whoever takes it for more than ASCII checks that it is UTF-8. Every end of the
    /// connection is an error.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<&[u8], TransportError>> {
        for _ in 0..CONTROLS_PER_POLL {
            return Poll::Ready(match ready!(self.poll_incoming(Input::next, cx))? {
                Incoming::Text(range) => Ok(self.input.get(range)),
                Incoming::Joined => Ok(self.input.joined()),
                Incoming::Pong | Incoming::Part => continue,
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
        self.is_closed = true;
        if std::future::poll_fn(|cx| self.poll_flush(cx)).await.is_err() {
            return;
        }
        let mut rest = [0; 4096];
        while self.stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    }

    /// Says goodbye, and no more than that: what the peer still sends is read on, up to its answer. Where a frame was
    /// begun and not ended there is no place for it.
    pub fn say_close(&mut self, code: u16, reason: &str) {
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
                Ok(Some(incoming)) => return Poll::Ready(Ok(incoming)),
                Ok(None) => {}
                Err(why) => {
                    return Poll::Ready(Err(TransportError::Frame { address: self.peer.clone(), why }));
                }
            }
            match ready!(Pin::new(&mut self.stream).poll_read(cx, self.input.space(usize::MAX))) {
                Ok(0) => return Poll::Ready(Err(self.lost("it ended without a closing handshake"))),
                Ok(count) => {
                    self.input.filled(count);
                    self.wire_bytes += count as u64;
                }
                Err(error) => return Poll::Ready(Err(self.lost(&error.to_string()))),
            }
        }
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
