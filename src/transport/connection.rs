//! An open WebSocket: text frames in, text frames out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::frame::{Incoming, Input, Output, Role};
use super::{BUFFER, TransportError};
use crate::protocol::message::clip;

/// Frames that are no message, and are taken before others have a turn.
const CONTROLS_PER_POLL: usize = 64;

/// An open WebSocket that carries text.
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
    is_closed: bool,
    wire_bytes: u64,
    bytes_in: u64,
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
            is_closed: false,
            wire_bytes: rest.len() as u64,
            bytes_in: 0,
        }
    }

    /// The peer's address, for people.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Bytes of WebSocket frames so far, both ways together.
    pub fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }

    /// Bytes that have come so far: a peer that sends part of a frame is alive.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in
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

    /// Writes what is in the buffer.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        loop {
            // Only the last ping is answered, once there is room: a peer that pings and does not read gathers nothing.
            if self.output.pending().len() < BUFFER
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
            return Poll::Ready(match ready!(self.poll_incoming(cx))? {
                Incoming::Text(range) => Ok(self.input.get(range)),
                Incoming::Joined => Ok(self.input.joined()),
                Incoming::Pong | Incoming::Piece => continue,
                Incoming::Ping(range) => {
                    self.pong = Some(self.input.get(range).to_vec());
                    // If it fails, so will the next write, and that one tells.
                    let _ = self.poll_flush(cx);
                    continue;
                }
                Incoming::Close(range) => Err(self.closed(range, cx)),
            });
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Closes the connection with a code of RFC 6455 and waits for the end of what the peer sends, reading past what it
    /// still sends: a socket that is closed with unread bytes takes back the words that were said last.
    ///
    /// What goes wrong here changes nothing any more. The caller limits the time.
    pub async fn close(&mut self, code: u16) {
        if !self.is_closed {
            self.is_closed = true;
            self.pong = None;
            self.output.control(Control::Close, &code.to_be_bytes());
        }
        if std::future::poll_fn(|cx| self.poll_flush(cx)).await.is_err() {
            return;
        }
        let mut rest = [0; 4096];
        while self.stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, TransportError>> {
        loop {
            if self.is_closed {
                return Poll::Ready(Err(self.lost("it is closed")));
            }
            match self.input.next() {
                Ok(Some(incoming)) => return Poll::Ready(Ok(incoming)),
                Ok(None) => {}
                Err(why) => {
                    return Poll::Ready(Err(TransportError::Frame { address: self.peer.clone(), why }));
                }
            }
            match ready!(Pin::new(&mut self.stream).poll_read(cx, self.input.space())) {
                Ok(0) => return Poll::Ready(Err(self.lost("it ended without a closing handshake"))),
                Ok(count) => {
                    self.input.filled(count);
                    self.wire_bytes += count as u64;
                    self.bytes_in += count as u64;
                }
                Err(error) => return Poll::Ready(Err(self.lost(&error.to_string()))),
            }
        }
    }

    /// The peer closed the connection: says so too, if the socket takes it at once.
    fn closed(&mut self, payload: std::ops::Range<usize>, cx: &mut Context<'_>) -> TransportError {
        let payload = self.input.get(payload);
        let (code, reason) = match payload.split_first_chunk() {
            Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8_lossy(reason)),
            None => (1005, "".into()),
        };
        let reason = clip(&reason).into_owned();
        self.is_closed = true;
        self.pong = None;
        // A code that may not stand in a frame is answered with none.
        let echo = if CloseCode::from(code).is_allowed() { code.to_be_bytes().to_vec() } else { Vec::new() };
        self.output.control(Control::Close, &echo);
        let _ = self.poll_flush(cx);
        TransportError::Closed { address: self.peer.clone(), code, reason }
    }

    fn lost(&self, why: &str) -> TransportError {
        TransportError::Lost { address: self.peer.clone(), why: why.to_owned() }
    }
}
