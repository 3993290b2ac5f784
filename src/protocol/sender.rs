//! The sending machine: offers a file, says which bytes go next, settles what was acknowledged.
//!
//! The caller moves frames and reads bytes: it asks [`Sender::poll_message`] and [`Sender::next_chunk`] for
//! what to send, hands each incoming frame to [`Sender::handle_frame`], and hashes the blocks that
//! [`Sender::next_check`] names, behind the transfer.

mod hearing;
mod outgoing;
mod vocabulary;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Violation;
use super::check::Need;
use super::chunk::{self, Zeros};
use super::digest::{BlockHashes, FileDigest};
use super::flight::{Flight, Sent};
use super::geometry::{ChunkSize, Geometry, MIN_FRAME_LIMIT};
use super::heartbeat::{Beat, Heartbeat};
use super::message::{Message, Offer, check_runs, clip};
use super::path::Path;
use outgoing::Outgoing;
pub use vocabulary::{Progress, SenderConfig, SenderEvent};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Offered; waits for `accept` or `reject`.
    Offered,
    /// Chunks flow.
    Streaming,
    /// Nothing is left to send or compare; waits for the caller's `finish`.
    Ready,
    /// `finish` went out; waits for `receipt` or `repair`.
    Finishing,
    /// Receipted, rejected or failed.
    Ended,
}

impl State {
    fn describe(self) -> &'static str {
        match self {
            Self::Offered => "the sender waited for `accept`",
            Self::Streaming | Self::Ready => "the sender was sending chunks",
            Self::Finishing => "the sender waited for `receipt`",
            Self::Ended => "the transfer had ended",
        }
    }
}

/// The sending machine for one file on one connection.
#[derive(Debug)]
pub struct Sender {
    id: String,
    discard: bool,
    geometry: Geometry,
    frame_limit: u64,
    window: u64,
    chunk: ChunkSize,
    state: State,
    heartbeat: Heartbeat,
    /// When the receiver last did something that this side waits for, or this side began to wait.
    moved: Instant,
    outbox: VecDeque<Message>,
    pong: Option<u64>,
    events: VecDeque<SenderEvent>,

    outgoing: Outgoing,
    flight: Flight,
    path: Path,
    /// The file is there already, as far as the receiver knows: the digests will tell.
    complete: bool,
    /// How many blocks the receiver has asked for with `repair`.
    asked_for: u64,
    progress: Progress,
}

/// A part of the file that goes into a frame.
struct Flying {
    offset: u64,
    len: u64,
    zeros: bool,
    counts: bool,
}

impl Sender {
    /// A machine that will offer this file.
    ///
    /// # Panics
    /// If the offer's fields are out of their bounds.
    pub fn new(offer: Offer, config: SenderConfig, now: Instant) -> Self {
        let geometry = Geometry::new(offer.size).expect("an offer's size is within the protocol's limit");
        assert!(offer.window > 0 && offer.frame_limit >= MIN_FRAME_LIMIT as u64);
        let progress = Progress { total: offer.size, ..Progress::default() };
        Self {
            id: offer.id.clone(),
            discard: offer.discard,
            geometry,
            frame_limit: offer.frame_limit,
            window: offer.window,
            chunk: config.chunk,
            state: State::Offered,
            heartbeat: Heartbeat::new(config.heartbeat, now),
            moved: now,
            outbox: VecDeque::from([Message::Offer(offer)]),
            pong: None,
            events: VecDeque::new(),
            outgoing: Outgoing::new(geometry, config.zeros, config.already_sent),
            flight: Flight::default(),
            path: config.path,
            complete: false,
            asked_for: 0,
            progress,
        }
    }

    /// How far the transfer is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The offset behind the last byte that was ever sent: what the next connection's
    /// [`SenderConfig::already_sent`] is.
    pub fn sent_up_to(&self) -> u64 {
        self.outgoing.sent_up_to()
    }

    /// The connection ended, with the transfer or (`cut`) before it: what was learnt of the path.
    pub fn into_path(mut self, cut: bool) -> Path {
        if cut {
            self.path.on_cut(self.flight.largest());
        }
        self.path
    }

    /// The next thing the caller should know.
    pub fn poll_event(&mut self) -> Option<SenderEvent> {
        self.events.pop_front()
    }

    /// The next control message to send. Ask before [`next_chunk`](Self::next_chunk).
    pub fn poll_message(&mut self, now: Instant) -> Option<Message> {
        let message = match self.pong.take() {
            Some(token) => Message::Pong { token, busy: false },
            None => self.outbox.pop_front()?,
        };
        self.heartbeat.on_sent(now);
        if !matches!(message, Message::Ping { .. } | Message::Pong { .. }) {
            self.moved = now;
        }
        Some(message)
    }

    /// The next run of zeros to tell of, as a frame. Ask before [`next_chunk`](Self::next_chunk).
    pub fn poll_zeros(&mut self, now: Instant) -> Option<[u8; chunk::ZEROS_LEN]> {
        if self.state != State::Streaming || !self.flight.has_room(0, self.window) {
            return None;
        }
        let (offset, len, counts) = match self.flight.damaged() {
            Some(sent) if sent.zeros => (sent.offset, sent.len, sent.counts),
            Some(_) => return None,
            None => {
                let (offset, len) = self.outgoing.next_zeros()?;
                (offset, len, self.outgoing.advance_zeros(offset, len))
            }
        };
        self.flight.take_damaged(len);
        let frame = chunk::encode_zeros(Zeros { sequence: self.flight.sequence(), offset, len });
        self.push(Flying { offset, len, zeros: true, counts }, now);
        Some(frame)
    }

    /// Which bytes go next: offset and length. `None` if the window is closed or nothing is left.
    pub fn next_chunk(&mut self) -> Option<(u64, usize)> {
        if self.state != State::Streaming {
            return None;
        }
        let (offset, left) = match self.flight.damaged() {
            Some(sent) if sent.zeros => return None,
            Some(sent) => (sent.offset, sent.len),
            None => self.outgoing.next_bytes()?,
        };
        let chunk = self.path.chunk(self.chunk);
        let len = chunk.raw().min(left);
        let window = self.path.in_flight(chunk.raw(), self.window);
        self.flight.has_room(len, window).then_some((offset, len as usize))
    }

    /// Writes the frame of the chunk that [`next_chunk`](Self::next_chunk) named, from its bytes, into `frame`,
    /// which must have [`chunk::frame_len`]`(bytes.len())` characters.
    ///
    /// # Panics
    /// If there is no next chunk, or `bytes` has another length.
    pub fn encode_chunk(&mut self, bytes: &[u8], frame: &mut [u8], now: Instant) {
        let (offset, expected) = self.next_chunk().expect("a chunk is due");
        assert_eq!(bytes.len(), expected, "the chunk's length was said before");
        let len = bytes.len() as u64;
        let counts = match self.flight.take_damaged(len) {
            Some(sent) => {
                self.progress.resent += len;
                sent.counts
            }
            None => {
                let advanced = self.outgoing.advance(offset, bytes);
                self.progress.resent += advanced.resent;
                advanced.counts
            }
        };
        chunk::encode(self.flight.sequence(), offset, bytes, frame);
        self.push(Flying { offset, len, zeros: false, counts }, now);
    }

    /// The held block to hash next, behind the transfer. Each is named once; answer with
    /// [`handle_checked`](Self::handle_checked).
    pub fn next_check(&mut self) -> Option<u64> {
        if self.state != State::Streaming {
            return None;
        }
        match self.outgoing.check.next(self.frame_limit) {
            Need::Nothing => None,
            Need::Hashes(block) => Some(block),
            Need::Digests(message) => {
                self.outbox.push_back(message);
                None
            }
        }
    }

    /// The hashes of the block that [`next_check`](Self::next_check) named.
    ///
    /// # Panics
    /// If it named another.
    pub fn handle_checked(&mut self, block: u64, hashes: &BlockHashes) {
        self.progress.verified += self.geometry.block_len(block);
        self.progress.repaired_blocks += u64::from(self.outgoing.checked(block, hashes));
        self.settle();
    }

    /// The digest of what was sent, once each block was hashed.
    pub fn digest(&self) -> Option<FileDigest> {
        self.outgoing.digest()
    }

    /// The source is what it was: sends `finish`. Does nothing if the receiver has asked for more since
    /// [`SenderEvent::ReadyToFinish`]; another such event will follow.
    pub fn finish(&mut self) {
        if self.state == State::Ready {
            let digest = self.outgoing.digest().expect("each block was hashed when it was sent or compared");
            self.outbox.push_back(Message::Finish { id: self.id.clone(), digest });
            self.state = State::Finishing;
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    pub fn timeout(&self) -> Instant {
        let stalled = self.waits().then(|| self.moved + self.heartbeat.stall());
        stalled.into_iter().fold(self.heartbeat.timeout(), Instant::min)
    }

    /// Bytes came, of a frame that is not whole yet: the receiver is alive.
    pub fn handle_bytes(&mut self, now: Instant) {
        self.heartbeat.on_received(now);
    }

    /// Lets time pass. `Err` is a stall: the receiver was silent for that long, or gave signs of life and nothing
    /// else while something was due from it.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Duration> {
        let waited = now.saturating_duration_since(self.moved);
        if self.waits() && waited >= self.heartbeat.stall() {
            return Err(waited);
        }
        match self.heartbeat.beat(now) {
            Beat::Quiet => Ok(()),
            Beat::Ping(token) => {
                self.outbox.push_back(Message::Ping { token, busy: false });
                Ok(())
            }
            Beat::Stalled(silence) => Err(silence),
        }
    }

    /// Takes a frame that came from the receiver.
    pub fn handle_frame(&mut self, frame: &[u8], now: Instant) -> Result<(), Violation> {
        self.heartbeat.on_received(now);
        let message = Message::parse(frame)?;
        // An acknowledgement tells below whether it moves anything, and so does damage.
        let is_idle = matches!(
            message,
            Message::Ping { busy: false, .. }
                | Message::Pong { busy: false, .. }
                | Message::Ack { .. }
                | Message::Nak { .. }
        );
        if !is_idle {
            self.moved = now;
        }
        match (self.state, message) {
            (_, Message::Ping { token, .. }) => self.pong = Some(token),
            (_, Message::Pong { .. }) => {}
            (_, Message::Error { code, reason, again }) => {
                self.state = State::Ended;
                let reason = clip(&reason).into_owned();
                self.events.push_back(SenderEvent::Failed { code, reason, again });
            }
            (State::Offered, Message::Accept(accept)) => self.handle_accept(accept)?,
            (State::Offered, Message::Reject { id, code, reason, again }) => {
                self.expect_id("reject.id", &id)?;
                self.state = State::Ended;
                let reason = clip(&reason).into_owned();
                self.events.push_back(SenderEvent::Rejected { code, reason, again });
            }
            (State::Streaming | State::Ready | State::Finishing, Message::Ack { sequence, durable }) => {
                self.handle_ack(sequence, durable, now)?;
            }
            (State::Streaming, Message::Nak { sequence }) => {
                let len = self.flight.refuse(sequence)?;
                self.path.on_damaged(len);
                self.progress.naks = self.flight.naks();
            }
            (State::Streaming, Message::Digests { first, digests }) => {
                self.outgoing.check.handle_digests(first, &digests)?
            }
            (State::Streaming | State::Ready | State::Finishing, Message::Repair { blocks }) => {
                self.handle_repair(check_runs("repair.blocks", &blocks, self.geometry)?)?;
            }
            (State::Finishing, Message::Receipt { id, digest }) => {
                self.expect_id("receipt.id", &id)?;
                let expected = self.outgoing.digest().expect("`finish` was sent with it");
                if digest != expected {
                    return Err(Violation::field("receipt.digest", expected, digest));
                }
                self.state = State::Ended;
                self.progress.acknowledged = self.geometry.size();
                self.progress.durable = self.geometry.size();
                self.events.push_back(SenderEvent::Receipted(digest));
            }
            (state, message) => {
                return Err(Violation::Unexpected { came: message.kind(), state: state.describe() });
            }
        }
        self.settle();
        Ok(())
    }

    /// Whether something is due from the receiver.
    fn waits(&self) -> bool {
        matches!(self.state, State::Offered | State::Finishing)
            || !self.flight.is_empty()
            || self.outgoing.check.waits()
    }

    /// A frame that carries a part of the file goes out.
    fn push(&mut self, flying: Flying, now: Instant) {
        let Flying { offset, len, zeros, counts } = flying;
        let is_alone = self.flight.is_empty();
        if is_alone {
            self.moved = now;
        }
        let stamp = self.path.on_sent(is_alone, now);
        self.flight.push(Sent { offset, len, zeros, counts, is_damaged: false, stamp });
        self.heartbeat.on_sent(now);
    }
}
