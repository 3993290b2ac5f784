//! One connection that measures: it offers nothing, and sends chunks of no transfer.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::Refusal;
use crate::protocol::chunk::{self, Header, NO_TRANSFER};
use crate::protocol::{ChunkSize, Hello, MAX_FRAME, Message};
use crate::runtime::{self, Stream};
use crate::transfer::{Error, hello};
use crate::transport::{Connection, Kind, TransportError};

/// An open connection, on which both sides have said hello.
pub(super) struct Line {
    connection: Connection<Stream>,
    /// What the peer says of itself.
    pub(super) peer: Hello,
    /// The next chunk's sequence number, and how far they are acknowledged.
    sequence: u64,
    acknowledged: u64,
    /// A chunk came damaged.
    is_damaged: bool,
    /// The last pong.
    pong: Option<u64>,
    /// What chunks carry: nothing that a path could make smaller.
    bytes: Vec<u8>,
}

impl Line {
    /// Says hello, in text or as a binary message, and hears the other's.
    pub(super) async fn open(
        mut connection: Connection<Stream>,
        kind: Kind,
        patience: Duration,
    ) -> Result<Self, Error> {
        let frame = Message::Hello(hello(MAX_FRAME as u64, crate::protocol::DEFAULT_WINDOW, 16, None, None))
            .to_frame();
        connection.send_fragment(kind, true, frame.len(), |bytes| bytes.copy_from_slice(frame.as_bytes()));
        let said = runtime::timeout(patience, poll_fn(|cx| poll_message(&mut connection, cx))).await;
        let address = connection.peer().to_owned();
        let peer = match said.unwrap_or(Err(Error::Stalled { peer: address.clone(), silence: patience }))? {
            Message::Hello(hello) => {
                hello.check().map_err(|violation| Error::Violation { peer: address, violation })?
            }
            Message::Error { code, reason, again } => {
                return Err(Error::PeerEnded { peer: address, code, reason, again });
            }
            _ => return Err(TransportError::NotWsferry { address }.into()),
        };
        Ok(Self {
            connection,
            peer,
            sequence: 0,
            acknowledged: 0,
            is_damaged: false,
            pong: None,
            bytes: (0..3 << 10).map(|_| rand::random()).collect(),
        })
    }

    /// The time that a ping takes there and back.
    pub(super) async fn round_trip(&mut self, patience: Duration) -> Result<Duration, Refusal> {
        let (token, sent) = (rand::random::<u32>().into(), Instant::now());
        self.say(&Message::Ping { token, busy: false });
        self.until(patience, |line| line.pong == Some(token)).await?;
        Ok(sent.elapsed())
    }

    /// Sends one chunk in a frame of at most so many characters, until it is acknowledged.
    pub(super) async fn carry(&mut self, frame: usize, patience: Duration) -> Result<(), Refusal> {
        let chunk = ChunkSize::for_frame_limit(frame).expect("a frame holds a few bytes");
        let ready = async { poll_fn(|cx| self.connection.poll_ready(cx)).await };
        runtime::timeout(patience, ready)
            .await
            .ok_or(Refusal::Stalled)?
            .map_err(|error| why(&error.into()))?;
        self.send(chunk);
        self.until(patience, |line| line.is_damaged || line.acknowledged == line.sequence).await?;
        if self.is_damaged { Err(Refusal::Damaged) } else { Ok(()) }
    }

    /// Sends chunks for a while, as many as fit into so many bytes on the way. Gives the bytes a second that arrived.
    pub(super) async fn pour(
        &mut self,
        frame: usize,
        window: u64,
        duration: Duration,
        patience: Duration,
    ) -> Result<f64, Refusal> {
        let chunk = ChunkSize::for_frame_limit(frame).expect("a frame holds a few bytes");
        let window = self.peer.window.min(window);
        let (began, first) = (Instant::now(), self.sequence);
        let end = began + duration;
        let pouring = poll_fn(|cx| {
            loop {
                let in_flight = |line: &Self| (line.sequence - line.acknowledged) * chunk.raw();
                let mut moved = false;
                while Instant::now() < end
                    && (in_flight(self) + chunk.raw() <= window || in_flight(self) == 0)
                {
                    match self.connection.poll_ready(cx) {
                        Poll::Ready(Ok(())) => self.send(chunk),
                        Poll::Ready(Err(error)) => {
                            // What came before the end counts.
                            while let Poll::Ready(Ok(())) = self.poll_hear(cx) {}
                            return Poll::Ready(Err(error.into()));
                        }
                        Poll::Pending => break,
                    }
                }
                if let Poll::Ready(heard) = self.poll_hear(cx) {
                    heard?;
                    moved = true;
                }
                if self.is_damaged || (Instant::now() >= end && self.acknowledged == self.sequence) {
                    return Poll::Ready(Ok(()));
                }
                if !moved {
                    return Poll::Pending;
                }
            }
        });
        let poured = runtime::timeout(duration + patience, pouring).await;
        poured.ok_or(Refusal::Stalled)?.map_err(|error: Error| why(&error))?;
        if self.is_damaged {
            return Err(Refusal::Damaged);
        }
        Ok(((self.acknowledged - first) * chunk.raw()) as f64 / began.elapsed().as_secs_f64())
    }

    /// Sends chunks of one size on a connection of their own, one each `gap`, until so many characters have crossed. Gives
    /// what ended it, if it ended before.
    pub(super) async fn drip(
        &mut self,
        frame: usize,
        gap: Duration,
        characters: u64,
        patience: Duration,
    ) -> Option<Refusal> {
        let chunk = ChunkSize::for_frame_limit(frame).expect("a frame holds a few bytes");
        let mut moved = (Instant::now(), 0);
        while self.carried(frame) < characters {
            if self.acknowledged != moved.1 {
                moved = (Instant::now(), self.acknowledged);
            }
            if moved.0.elapsed() > gap + patience {
                return Some(Refusal::Stalled);
            }
            let ready = async { poll_fn(|cx| self.connection.poll_ready(cx)).await };
            match runtime::timeout(patience, ready).await {
                None => return Some(Refusal::Stalled),
                Some(Err(error)) => return Some(why(&error.into())),
                Some(Ok(())) => {}
            }
            self.send(chunk);
            if let Err(ended) = self.wait(gap).await {
                return Some(ended);
            }
        }
        None
    }

    /// The characters of chunks in frames of one size that are known to have crossed.
    pub(super) fn carried(&self, frame: usize) -> u64 {
        let chunk = ChunkSize::for_frame_limit(frame).expect("a frame holds a few bytes");
        self.acknowledged * chunk::frame_len(chunk.raw() as usize) as u64
    }

    /// Sends nothing for a while, and takes what comes.
    pub(super) async fn wait(&mut self, duration: Duration) -> Result<(), Refusal> {
        match self.until(duration, |_| false).await {
            Err(Refusal::Stalled) => Ok(()),
            ended => ended,
        }
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) {
        runtime::timeout(crate::transfer::CLOSE_TIMEOUT, self.connection.close(1000)).await;
    }

    fn send(&mut self, chunk: ChunkSize) {
        let len = chunk.raw() as usize;
        if self.bytes.len() < len {
            let more = len - self.bytes.len();
            self.bytes.extend((0..more.div_ceil(8)).flat_map(|_| rand::random::<u64>().to_ne_bytes()));
        }
        let header = Header { transfer: NO_TRANSFER, sequence: self.sequence, offset: 0 };
        let bytes = &self.bytes[..len];
        self.connection.send_with(chunk::frame_len(len), |frame| chunk::encode(header, bytes, frame));
        self.sequence += 1;
    }

    fn say(&mut self, message: &Message) {
        self.connection.send(&message.to_frame());
    }

    /// Takes what comes until something has happened.
    async fn until(
        &mut self,
        patience: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<(), Refusal> {
        let hearing = poll_fn(|cx| {
            while !done(self) {
                ready!(self.poll_hear(cx))?;
            }
            Poll::Ready(Ok(()))
        });
        runtime::timeout(patience, hearing).await.ok_or(Refusal::Stalled)?.map_err(|error: Error| why(&error))
    }

    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match ready!(poll_message(&mut self.connection, cx))? {
            Message::Ack { sequence, .. } if (self.acknowledged..=self.sequence).contains(&sequence) => {
                self.acknowledged = sequence;
            }
            Message::Nak { .. } => self.is_damaged = true,
            Message::Pong { token, .. } => self.pong = Some(token),
            Message::Ping { token, .. } => self.say(&Message::Pong { token, busy: false }),
            Message::Error { code, reason, again } => {
                let peer = self.connection.peer().to_owned();
                return Poll::Ready(Err(Error::PeerEnded { peer, code, reason, again }));
            }
            _ => {}
        }
        Poll::Ready(Ok(()))
    }
}

/// The next message; what waits to be written is.
fn poll_message(connection: &mut Connection<Stream>, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
    if let Poll::Ready(Err(error)) = connection.poll_flush(cx) {
        // What was said before it ended tells more.
        return match connection.poll_receive(cx) {
            Poll::Ready(Err(said)) => Poll::Ready(Err(said.into())),
            _ => Poll::Ready(Err(error.into())),
        };
    }
    let frame = ready!(connection.poll_receive(cx))?;
    let message = Message::parse(frame);
    Poll::Ready(
        message.map_err(|violation| Error::Violation { peer: connection.peer().to_owned(), violation }),
    )
}

/// What an end of the connection says of the path.
fn why(error: &Error) -> Refusal {
    match error {
        Error::Transport(TransportError::Closed { code, .. }) => Refusal::Closed(*code),
        Error::Violation { .. } | Error::PeerEnded { .. } => Refusal::Damaged,
        _ => Refusal::Lost,
    }
}
