//! An open WebSocket: text frames in, text frames out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::{Message, Utf8Bytes};
use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, Sink, Stream, StreamExt};

use super::TransportError;
use crate::protocol::message::clip;

/// An open WebSocket that carries text.
///
/// Reading and writing are polled by one task; a side that only wrote would deadlock with a peer that writes
/// acknowledgements.
#[derive(Debug)]
pub struct Connection<S> {
    socket: WebSocketStream<S>,
    peer: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(socket: WebSocketStream<S>, peer: String) -> Self {
        Self { socket, peer }
    }

    /// The peer's address, for people.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Ready if a frame can be sent without gathering more than the buffer's limit.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Pin::new(&mut self.socket).poll_ready(cx).map_err(|error| TransportError::broken(&self.peer, error))
    }

    /// Sends a text frame, once [`poll_ready`](Self::poll_ready) was. It may stay in the buffer until
    /// [`poll_flush`](Self::poll_flush).
    ///
    /// # Errors
    /// If the connection is broken, or `text` is not UTF-8.
    pub fn send(&mut self, text: Bytes) -> Result<(), TransportError> {
        let broken = |error| TransportError::broken(&self.peer, error);
        let text = Utf8Bytes::try_from(text).map_err(|error| broken(error.into()))?;
        Pin::new(&mut self.socket).start_send(Message::Text(text)).map_err(broken)
    }

    /// Writes what is in the buffer.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(|error| TransportError::broken(&self.peer, error))
    }

    /// The next text frame. Every end of the connection is an error.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Utf8Bytes, TransportError>> {
        loop {
            let address = || self.peer.clone();
            return Poll::Ready(match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => Ok(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(frame))) => {
                    let (code, reason) = match &frame {
                        Some(frame) => (frame.code.into(), clip(&frame.reason).into_owned()),
                        None => (1005, String::new()),
                    };
                    Err(TransportError::Closed { address: address(), code, reason })
                }
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                    Err(TransportError::Frame { address: address(), why: "a binary frame".to_owned() })
                }
                Some(Err(error)) => Err(TransportError::broken(&self.peer, error)),
                None => Err(TransportError::Lost { address: address(), why: "it is closed".to_owned() }),
            });
        }
    }

    /// Closes the connection with a code of RFC 6455 and waits for the peer to do the same, reading past what it
    /// still sends: a socket that is closed with unread bytes takes back the words that were said last.
    ///
    /// What goes wrong here changes nothing any more. The caller limits the time.
    pub async fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = self.socket.next().await {}
            // A frame that broke the rules ended the reading of frames; the bytes behind it still come.
            let mut rest = [0; 4096];
            while self.socket.get_mut().read(&mut rest).await.is_ok_and(|n| n > 0) {}
        }
    }
}
