//! The sending side: encodes a file into one message as it goes, and compares what comes back.

use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncWrite};

use super::echo::{Differs, Echo};
use super::{Life, last_words};
use crate::protocol::codec::Encoder;
use crate::protocol::{ChunkSize, Code, HeartbeatConfig, OfferKind, Progress};
use crate::runtime;
use crate::storage::{Source, SourceError, Standing};
use crate::transfer::session::connecting;
use crate::transfer::{
    CLOSE_TIMEOUT, Error, Event, PROGRESS_INTERVAL, Pace, SCRATCH, Summary, TURNS_PER_POLL,
};
use crate::transport::{Connection, Dialer, Kind, Piece, TransportError};

/// Fragments sent before what came back is looked at again.
const FRAGMENTS_PER_TURN: usize = 4;
/// Pieces of what came back that are compared before more is sent.
const PIECES_PER_TURN: usize = 64;
/// The least and the most raw bytes of a fragment unless others are asked for, and in how many a file goes between them:
/// there are libraries that take 4,096 fragments of a message and no more.
const FRAGMENT: u64 = 96 * 1024;
const LARGEST_FRAGMENT: u64 = 768 * 1024;
const FRAGMENTS: u64 = 2048;

/// How to send without the protocol.
#[derive(Debug, Clone, Copy)]
pub struct PlainSendOptions {
    /// The raw bytes of a fragment.
    pub chunk: Option<ChunkSize>,
    /// One frame whose length is announced, for servers that take no fragments.
    pub one_frame: bool,
    /// All of it comes back.
    pub echo: bool,
    /// Give up after this long without a byte that moved.
    pub stall: Duration,
    /// Between two [`Event::Progress`] at the least.
    pub progress_interval: Duration,
}

impl Default for PlainSendOptions {
    fn default() -> Self {
        Self {
            chunk: None,
            one_frame: false,
            echo: true,
            stall: HeartbeatConfig::default().stall,
            progress_interval: PROGRESS_INTERVAL,
        }
    }
}

/// Dials, and sends a file there as one text message.
///
/// # Errors
/// All that can end a transfer. There is nothing to go on with: another attempt begins anew.
pub async fn send_plain_to(
    dialer: &Dialer,
    path: &Path,
    options: &PlainSendOptions,
    observer: &mut (dyn FnMut(Event) + Send),
) -> Result<Summary, Error> {
    let source = Arc::new(Source::open(path, None)?);
    let mut connection = connecting(dialer.endpoint(), dialer.dial_plain(), observer).await?;
    send_plain(&mut connection, &source, options, observer).await
}

/// Sends a file over an open connection as one text message, and closes the connection.
///
/// # Errors
/// All that can end a transfer.
pub async fn send_plain<S>(
    connection: &mut Connection<S>,
    source: &Source,
    options: &PlainSendOptions,
    observer: &mut (dyn FnMut(Event) + Send),
) -> Result<Summary, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    let wire_before = connection.wire_bytes();
    let (name, size) = (source.name().to_string(), source.geometry().size());
    observer(Event::Started {
        name: name.clone(),
        kind: OfferKind::File,
        size: Some(size),
        peer: connection.peer().to_owned(),
    });
    let mut pump = Pump {
        source,
        options,
        observer,
        chunk: options.chunk.unwrap_or_else(|| fragment_of(size)).raw(),
        size,
        offset: 0,
        encoder: Some(Encoder::default()),
        hasher: blake3::Hasher::new(),
        echo: Echo::new(),
        came_back: !options.echo,
        said_close: false,
        life: Life::new(options.stall, now),
        pace: Pace::new(options.progress_interval, now),
    };
    if options.one_frame {
        connection.begin_message(Kind::Text, Encoder::text_len(size));
    }
    let sent = poll_fn(|cx| pump.poll(connection, cx)).await;
    let progress = pump.progress();
    let (digest, elapsed) = (pump.hasher.finalize().into(), now.elapsed());
    if let Err(error) = sent {
        let (code, reason) = goodbye(&error);
        runtime::timeout(CLOSE_TIMEOUT, connection.close_with(code, &reason)).await;
        return Err(refused(error, &name));
    }
    runtime::timeout(CLOSE_TIMEOUT, connection.close(1000)).await;
    observer(Event::Progress(progress));
    Ok(Summary {
        name,
        kind: OfferKind::File,
        peer: connection.peer().to_owned(),
        digest: Some(digest),
        elapsed,
        progress,
        complete: false,
        discarded: false,
        warnings: Vec::new(),
        wire_bytes: connection.wire_bytes() - wire_before,
    })
}

fn fragment_of(size: u64) -> ChunkSize {
    let fragment = (size / FRAGMENTS).clamp(FRAGMENT, LARGEST_FRAGMENT);
    ChunkSize::at_most(fragment).expect("it has bytes")
}

/// What the peer is told of an error. Nothing of this side is in it.
fn goodbye(error: &Error) -> (u16, String) {
    match error {
        Error::Source(SourceError::Changed { .. }) => (1001, "the file changed while it was sent".to_owned()),
        Error::Source(_) => (1001, "the file cannot be read any more".to_owned()),
        Error::EchoDiffers { offset, .. } | Error::EchoEnds { offset, .. } => {
            (1008, format!("what came back is not what was sent, at offset {offset}"))
        }
        Error::Transport(TransportError::Frame { why, .. }) => (1002, why.clone()),
        _ => (1001, String::new()),
    }
}

/// A peer that closes with a code that speaks of the message does not want it.
fn refused(error: Error, name: &str) -> Error {
    let Error::Transport(TransportError::Closed { address, code, reason }) = &error else { return error };
    let (what, means) = match code {
        1002 => (Code::Protocol, "it takes this for no WebSocket message"),
        1003 => (Code::Protocol, "it takes no text"),
        1007 => (Code::Protocol, "it takes this for no text that it knows"),
        1008 => (Code::Other, "it does not want it"),
        1009 => (Code::TooLarge, "the message is too big for it"),
        _ => return error,
    };
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    Error::Refused {
        peer: address.clone(),
        name: name.to_owned(),
        code: what,
        reason: format!("{means} (close code {code}){reason}"),
        again: false,
    }
}

struct Pump<'a> {
    source: &'a Source,
    options: &'a PlainSendOptions,
    observer: &'a mut (dyn FnMut(Event) + Send),
    chunk: u64,
    size: u64,
    /// Bytes that were sent.
    offset: u64,
    /// None once the message has ended.
    encoder: Option<Encoder>,
    hasher: blake3::Hasher,
    echo: Echo,
    came_back: bool,
    /// To a peer that sends nothing back: its answer says that it has read all of it.
    said_close: bool,
    life: Life,
    pace: Pace,
}

impl Pump<'_> {
    fn poll<S>(&mut self, connection: &mut Connection<S>, cx: &mut Context<'_>) -> Poll<Result<(), Error>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for _ in 0..TURNS_PER_POLL {
            // What comes back is read however much is still to be sent: a peer that is not read from may not read.
            let mut moved = match self.read(connection, cx) {
                Err(Error::Transport(TransportError::Closed { code: 1000 | 1005, .. }))
                    if self.said_close =>
                {
                    return Poll::Ready(Ok(()));
                }
                read => read?,
            };
            moved |= self.write(connection, cx)?;
            if self.encoder.is_none() {
                let flushed = connection.poll_flush(cx).map_err(|error| last_words(connection, error, cx))?;
                if flushed.is_ready() && self.came_back {
                    if self.options.echo {
                        return Poll::Ready(Ok(()));
                    }
                    if !self.said_close {
                        connection.say_close(1000, "");
                        self.said_close = true;
                        continue;
                    }
                }
            }
            self.tell_progress();
            if !moved {
                if let Poll::Ready(silence) = self.life.poll_stalled(connection, false, cx)? {
                    let peer = connection.peer().to_owned();
                    return Poll::Ready(Err(Error::Stalled { peer, silence }));
                }
                return Poll::Pending;
            }
        }
        // There is more to do; others have a turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Compares what came back.
    fn read<S>(&mut self, connection: &mut Connection<S>, cx: &mut Context<'_>) -> Result<bool, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for turn in 0..PIECES_PER_TURN {
            let Poll::Ready(piece) = connection.poll_piece(cx) else { return Ok(turn > 0) };
            let piece = piece?;
            if self.options.echo && !self.came_back {
                self.compare(connection, &piece)?;
            }
        }
        Ok(true)
    }

    fn compare<S>(&mut self, connection: &Connection<S>, piece: &Piece) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let peer = || connection.peer().to_owned();
        let bytes = connection.bytes(piece);
        let compared = match piece.kind {
            Kind::Text => self.echo.compare(self.source, bytes)?,
            Kind::Binary => return Err(Error::EchoIsBinary { peer: peer() }),
        };
        if let Err(Differs { offset, sent, came }) = compared {
            // A file that is another by now gives another text.
            self.source.standing()?;
            return Err(Error::EchoDiffers { peer: peer(), offset, sent, came });
        }
        if piece.last {
            let (offset, expected) = (self.echo.position(), Encoder::text_len(self.size));
            if offset < expected {
                return Err(Error::EchoEnds { peer: peer(), offset, expected });
            }
            self.came_back = true;
        }
        Ok(())
    }

    /// Sends what the socket takes.
    fn write<S>(&mut self, connection: &mut Connection<S>, cx: &mut Context<'_>) -> Result<bool, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for turn in 0..FRAGMENTS_PER_TURN {
            if self.encoder.is_none() {
                return Ok(turn > 0);
            }
            let ready = connection.poll_ready(cx).map_err(|error| last_words(connection, error, cx))?;
            if ready.is_pending() {
                return Ok(turn > 0);
            }
            self.send_next(connection)?;
        }
        Ok(true)
    }

    /// Before the message ends: what is no version of the file shall not be taken for one.
    fn check_unchanged(&self) -> Result<(), Error> {
        let is_same = match self.source.standing()? {
            Standing::Same => true,
            // What comes back is compared with the file once more.
            Standing::Unclear if self.options.echo => true,
            Standing::Unclear => self.source.digest()? == Some(self.hasher.finalize().into()),
        };
        if is_same { Ok(()) } else { Err(self.source.changed_content().into()) }
    }

    fn send_next<S>(&mut self, connection: &mut Connection<S>) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let len = self.chunk.min(self.size - self.offset) as usize;
        let last = self.offset + len as u64 == self.size;
        SCRATCH.with_borrow_mut(|bytes| {
            if bytes.len() < len {
                bytes.resize(len, 0);
            }
            let bytes = &mut bytes[..len];
            self.source.read_exact_at(bytes, self.offset)?;
            self.hasher.update(bytes);
            if last {
                self.check_unchanged()?;
            }
            let mut encoder = self.encoder.take().expect("the message has not ended");
            let text = encoder.next_len(len);
            let text = if last {
                (Encoder::text_len(self.size) - Encoder::text_len(self.offset)) as usize
            } else {
                text
            };
            let fill = |frame: &mut [u8]| {
                let written = encoder.feed(bytes, frame);
                if last {
                    encoder.finish(&mut frame[written..]);
                } else {
                    self.encoder = Some(encoder);
                }
            };
            if self.options.one_frame {
                connection.feed(text, fill);
            } else {
                connection.send_fragment(Kind::Text, last, text, fill);
            }
            self.offset += len as u64;
            Ok(())
        })
    }

    fn progress(&self) -> Progress {
        let acknowledged = match self.options.echo {
            true => (self.echo.position() / 4 * 3).min(self.size),
            false => self.offset,
        };
        Progress { total: Some(self.size), acknowledged, ..Progress::default() }
    }

    fn tell_progress(&mut self) {
        if self.pace.is_due(Instant::now()) {
            let progress = self.progress();
            (self.observer)(Event::Progress(progress));
        }
    }
}
