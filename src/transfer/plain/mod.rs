//! Transfers without the protocol: a whole file as one Base64 text message, which the receiver sends back.
//!
//! Any WebSocket library can be the other side. Neither side holds the message: it is coded, written, compared and sent
//! on as it comes, and who does not read is not read from.

mod coming;
mod echo;
mod name;
mod receive;
mod send;
mod serve;

pub use name::file_name;
pub use receive::{PlainReceiveOptions, receive_plain};
pub use send::{PlainSendOptions, send_plain, send_plain_to};

pub(super) use serve::receive_all_plain;

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncWrite};

use crate::runtime::Timer;
use crate::transport::{Connection, TransportError};

/// Whether the peer is there: asks it when nothing moves, and gives it up when nothing has moved for too long.
struct Life {
    stall: Duration,
    /// When something last moved, and when the peer was last asked.
    moved: Instant,
    asked: Instant,
    /// Bytes that were read and written by then.
    seen: (u64, u64),
    timer: Timer,
}

impl Life {
    fn new(stall: Duration, now: Instant) -> Self {
        Self { stall, moved: now, asked: now, seen: (0, 0), timer: Timer::new() }
    }

    /// Ready once nothing has moved for too long; `is_busy` if that is this side's fault.
    fn poll_stalled<S>(
        &mut self,
        connection: &mut Connection<S>,
        is_busy: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Duration, TransportError>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let now = Instant::now();
            let seen = (connection.bytes_in(), connection.bytes_out());
            if seen != self.seen || is_busy {
                self.seen = seen;
                self.moved = now;
            }
            let silence = now - self.moved;
            if silence >= self.stall {
                return Poll::Ready(Ok(silence));
            }
            let ask_at = self.asked.max(self.moved) + self.stall / 3;
            let ask_at = if is_busy { self.asked + self.stall / 3 } else { ask_at };
            if self.timer.poll_at(ask_at.min(self.moved + self.stall), cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= ask_at {
                self.asked = Instant::now();
                connection.ping();
                // That a question is on its way is no sign of life.
                if connection.poll_flush(cx)?.is_ready() {
                    self.seen.1 = connection.bytes_out();
                }
            }
        }
    }
}

/// After a write that failed: the peer may have said why before it hung up.
fn last_words<S>(
    connection: &mut Connection<S>,
    error: TransportError,
    cx: &mut Context<'_>,
) -> TransportError
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match connection.poll_piece(cx) {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(closed @ TransportError::Closed { .. })) => return closed,
            _ => return error,
        }
    }
}
